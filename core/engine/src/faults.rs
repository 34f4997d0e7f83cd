//! Faults planted on purpose, so that tests can show that the simulator finds them.
//!
//! Never compiled into a product: without the feature `faults` every question is answered "no" at compile time.

/// A mistake that the simulator must catch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An entry matches as soon as one of its selectors does (breaks INV-1).
    MatchWithoutSubset,
    /// A prepared authority signs before the agents know it (breaks INV-4).
    SignBeforeKnown,
    /// An agent does not take back what a delta withdraws (breaks INV-10).
    DropWithdrawal,
    /// An SVID is handed out past its end (breaks INV-2).
    DeliverExpired,
    /// An authority that nobody has tainted is taken out of the bundle (breaks INV-5).
    RevokeUntainted,
    /// An agent acknowledges a revision whose bundle it has not fetched yet (breaks INV-4).
    AckBeforeBundles,
    /// Entries are deleted without a word in the audit log (breaks INV-8).
    DeleteSilently,
    /// A position between two known ones is taken for the later one (breaks INV-10).
    IgnoreGap,
    /// A position of another life of the store is taken for one of this life (breaks INV-10).
    ResumeAcrossEpochs,
    /// A delta forgets that the agent's node aliases are others now (breaks INV-10).
    ForgetAliasChange,
    /// Nobody is told that an identity was paused (breaks INV-10).
    PauseInSilence,
    /// Nodes that serve an identity by an alias are not told that it was paused (breaks INV-11).
    PauseForgetsAliases,
    /// A caller gets the token it waits for although its entry is withdrawn meanwhile (breaks INV-1).
    GrantWithdrawn,
    /// Answers that were lent are not recalled when entries change (breaks INV-1).
    KeepLentTokens,
    /// No token is ever thrown away for another (breaks INV-9).
    KeepEveryToken,
    /// The authority that signed so far goes on beside its successor (breaks INV-4).
    TwoSigners,
    /// A step of a rotation that failed is tried again without a pause (breaks INV-9).
    RetryAtOnce,
    /// An authority whose key is lost is taken up from the journal (breaks INV-4).
    TakeUpWithoutKey,
    /// A model's fault: a caller is known again by its PID alone (breaks INV-1).
    ReusePid,
    /// A model's fault: a commit is confirmed before it is safe from a power cut (breaks INV-6).
    ConfirmUnsynced,
    /// A model's fault: a backup is put back in the epoch it was made in (breaks INV-6).
    RestoreInOldEpoch,
}

#[cfg(feature = "faults")]
impl Fault {
    /// Every one of them.
    pub const ALL: [Self; 21] = [
        Self::MatchWithoutSubset,
        Self::SignBeforeKnown,
        Self::DropWithdrawal,
        Self::DeliverExpired,
        Self::RevokeUntainted,
        Self::AckBeforeBundles,
        Self::DeleteSilently,
        Self::IgnoreGap,
        Self::ResumeAcrossEpochs,
        Self::ForgetAliasChange,
        Self::PauseInSilence,
        Self::PauseForgetsAliases,
        Self::GrantWithdrawn,
        Self::KeepLentTokens,
        Self::KeepEveryToken,
        Self::TwoSigners,
        Self::RetryAtOnce,
        Self::TakeUpWithoutKey,
        Self::ReusePid,
        Self::ConfirmUnsynced,
        Self::RestoreInOldEpoch,
    ];
}

#[cfg(feature = "faults")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Plants a fault for this thread, or takes it out again.
#[cfg(feature = "faults")]
pub fn plant(fault: Option<Fault>) {
    PLANTED.with(|p| p.set(fault));
}

/// True if `fault` is planted. Public for what the simulator models outside this crate: disks and processes.
#[cfg(feature = "faults")]
#[must_use]
pub fn planted(fault: Fault) -> bool {
    PLANTED.with(|p| p.get() == Some(fault))
}

/// True if `fault` is planted.
#[cfg(not(feature = "faults"))]
pub(crate) const fn planted(_: Fault) -> bool {
    false
}
