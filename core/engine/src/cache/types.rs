//! What the cache is told, what it asks for, and what it hands out. Values only.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::{
    AuthorityId, Bundle, Entry, EntryId, JwtSvid, Selector, SelectorSet, SpiffeId, Timestamp, TrustDomain,
    X509Svid,
};

use super::snapshot::Snapshot;
use crate::renew::Pace;

/// What one cache may hold and how it renews.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The agent's own trust domain.
    pub trust_domain: TrustDomain,
    /// X509-SVIDs held for entries nobody subscribes to right now are evicted beyond this many.
    pub x509_max: usize,
    /// JWT-SVIDs held; the least recently used goes first.
    pub jwt_max: usize,
    /// See [`crate::renew::renew_at`].
    pub availability_target: Option<Duration>,
    /// Seed of the jitter.
    pub seed: u64,
}

/// What a subscriber is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Want {
    /// Identities: matching entries are signed for it.
    X509,
    /// Bundles only: it never causes a signature.
    Bundles,
}

/// Why an SVID did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignFailure {
    /// The server refused this one; others are not concerned.
    Refused(String),
    /// The server could not be reached; nothing is known about the entry.
    Away(String),
}

impl std::fmt::Display for SignFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(reason) | Self::Away(reason) => f.write_str(reason),
        }
    }
}

/// Pairs an effect that is answered with its answer.
pub type Ticket = u64;
/// Names one caller that waits for JWT-SVIDs; chosen by the shell.
pub type RequestId = u64;

#[derive(Debug)]
pub enum Input {
    /// Entries that are new or different, and entries that are gone.
    Entries {
        upserts: Vec<Entry>,
        removed: Vec<EntryId>,
    },
    /// Bundles that are new or different, and foreign bundles that are gone. The own bundle can't go.
    Bundles {
        upserts: Vec<Arc<Bundle>>,
        removed: Vec<TrustDomain>,
    },
    /// The first full sync is applied: from now on "nothing matches" is an answer.
    Synced,
    /// What an earlier life left, told before anything else. It counts as a sync: the server's word replaces it as it
    /// comes.
    Restore(Box<Snapshot>),
    Subscribe {
        selectors: SelectorSet,
        want: Want,
    },
    Unsubscribe {
        selectors: SelectorSet,
        want: Want,
    },
    /// Answer to [`Effect::Sign`]. `authorities`: the key identifiers of all issuers in the chain.
    Signed {
        ticket: Ticket,
        entry: EntryId,
        svid: Arc<X509Svid>,
        authorities: Vec<AuthorityId>,
    },
    SignFailed {
        ticket: Ticket,
        entry: EntryId,
        failure: SignFailure,
    },
    /// The server answers again: whatever failed because it was away is tried now.
    UpstreamBack,
    JwtWanted {
        request: RequestId,
        selectors: SelectorSet,
        audience: Vec<String>,
        id: Option<SpiffeId>,
    },
    /// The caller went away.
    JwtAbandoned {
        request: RequestId,
    },
    /// Answer to [`Effect::MintJwt`]. `key_id`: the token's `kid`.
    JwtSigned {
        ticket: Ticket,
        svid: JwtSvid,
        key_id: Arc<str>,
    },
    JwtFailed {
        ticket: Ticket,
        failure: SignFailure,
    },
    /// The X.509 authorities of the own trust domain that must not be relied on any more, all of them: SVIDs
    /// issued by them are replaced at this pace, and used until the replacement is there.
    Distrusted {
        authorities: BTreeSet<AuthorityId>,
        pace: Pace,
    },
    /// Time has passed.
    Tick,
}

impl Input {
    /// True if after it a question for JWT-SVIDs may have another answer. What comes with time alone is no part of it.
    pub(super) fn changes_grants(&self) -> bool {
        matches!(self, Self::Entries { .. } | Self::Bundles { .. } | Self::Synced | Self::Restore(_))
    }
}

/// How much somebody waits for a signature; smaller is sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A subscriber has nothing yet.
    Now,
    /// A replacement for an SVID that still works.
    Renewal,
    /// Nobody has asked yet.
    Ahead,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Get an X509-SVID; answered by `Signed` or `SignFailed`.
    Sign { ticket: Ticket, entry: EntryId, id: SpiffeId, priority: Priority },
    /// Somebody waits now for a signature asked for earlier. Not answered.
    Hurry { ticket: Ticket },
    /// Get a JWT-SVID; answered by `JwtSigned` or `JwtFailed`.
    MintJwt { ticket: Ticket, entry: EntryId, id: SpiffeId, audience: Vec<String> },
    /// The last caller that waited for this token has gone. Not answered; if the call has not begun, `JwtFailed` may
    /// answer the `MintJwt` at once.
    NobodyWaits { ticket: Ticket },
    /// The state of all subscribers with these selectors. Whoever joins them later begins with the last one.
    Deliver { selectors: SelectorSet, update: Arc<WorkloadUpdate> },
    /// The last subscriber with these selectors has gone.
    Drop { selectors: SelectorSet },
    /// Answer to `JwtWanted`: exactly one, unless it was abandoned. With `lent_until` the same question has this answer
    /// for so long, unless it is recalled before.
    AnswerJwt { request: RequestId, answer: Result<Vec<JwtGrant>, JwtRefusal>, lent_until: Option<Timestamp> },
    /// No answer that was lent may be given any more: entries or keys are others now.
    RecallJwt,
}

/// One identity as a workload gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub entry_id: EntryId,
    pub created_at: Timestamp,
    pub hint: Arc<str>,
    pub svid: Arc<X509Svid>,
}

/// Everything a selector set is entitled to, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadUpdate {
    /// Entries that match, those whose SVID is not there yet included. Zero: no identity.
    pub matched: usize,
    /// Matching entries whose first SVID is on its way. One that failed is not waited for.
    pub waiting: usize,
    /// Ascending entry ID; none of them expired.
    pub identities: Vec<Identity>,
    pub own: Arc<Bundle>,
    /// Foreign bundles of the matching entries, ascending trust domain.
    pub federated: Vec<Arc<Bundle>>,
    /// Some entry matches because of supplementary groups.
    pub rests_on_groups: bool,
}

/// One JWT-SVID as a workload gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtGrant {
    pub entry_id: EntryId,
    pub created_at: Timestamp,
    pub hint: Arc<str>,
    pub svid: JwtSvid,
    /// The entry matches because of supplementary groups.
    pub rests_on_groups: bool,
}

/// Why no JWT-SVID is handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtRefusal {
    /// Nothing matches.
    NoIdentity,
    /// Something matches, but it could not be minted; the reason.
    Unavailable(String),
}

/// The entry that comes closest to a selector set which matches none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    pub entry_id: EntryId,
    pub spiffe_id: SpiffeId,
    pub missing: Vec<Selector>,
}

/// Counts for health and debugging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub entries: usize,
    pub x509_held: usize,
    pub jwt_held: usize,
    /// Distinct selector sets subscribed.
    pub subscribed_sets: usize,
    pub tally: Tally,
}

/// What the cache has done in all its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Renewals begun because an SVID nears its end, or its authority is not relied on any more.
    pub expiring: usize,
    /// Renewals begun because the entry is another now.
    pub outdated: usize,
    /// X.509-SVIDs found to be of an authority that is not relied on any more.
    pub tainted_x509: usize,
    /// JWT-SVIDs dropped for that reason.
    pub tainted_jwt: usize,
}
