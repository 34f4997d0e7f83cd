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

/// True if `fault` is planted.
#[cfg(feature = "faults")]
pub(crate) fn planted(fault: Fault) -> bool {
    PLANTED.with(|p| p.get() == Some(fault))
}

/// True if `fault` is planted.
#[cfg(not(feature = "faults"))]
pub(crate) const fn planted(_: Fault) -> bool {
    false
}
