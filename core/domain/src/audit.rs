//! Audit vocabulary: what an audit row says. One enum names every event.

use crate::time::Timestamp;

/// What was done. The text form is the stable name in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuditEvent {
    EntryCreated,
    EntryUpdated,
    EntryDeleted,
    NodeAttested,
    NodeRenewed,
    NodePromoted,
    NodeUpdated,
    NodeBanned,
    NodeDeleted,
    /// A node began a chain of records.
    NodeChainBegan,
    /// Records of a node are missing.
    NodeGap,
    /// A node sent another record than the one it had sent under the same number.
    NodeConflict,
    /// A server goes away on purpose, and nodes that follow it decide alone for longer.
    ServerLeaving,
    JoinTokenCreated,
    JoinTokenSpent,
    JoinTokenExpired,
    BundleChanged,
    BundleDeleted,
    AuthorityPrepared,
    AuthorityActivated,
    AuthorityRetired,
    AuthorityTainted,
    AuthorityRevoked,
    PersonProposed,
    PersonAdded,
    /// Signs in as another account, or as none.
    PersonSignIn,
    PersonLeft,
    IdentityProposed,
    IdentityRegistered,
    IdentityAdopted,
    IdentityChanged,
    IdentityConfirmed,
    /// Its owner left, and the successor owns it.
    IdentityPassed,
    IdentityPaused,
    IdentityResumed,
    IdentityStopped,
    IdentityPlaced,
    /// What a stop sends was sent, and nothing was stopped.
    StopDrilled,
    /// How a stop went, or a drill of one.
    StopTried,
    RulesPublished,
    RulesApproved,
    RulesWithdrawn,
    /// An AI agent, or another identity, asks a person.
    RequestAsked,
    RequestYes,
    RequestNo,
    /// A yes was used.
    RequestSpent,
    /// A request that nothing can come of any more was removed.
    RequestForgotten,
    GrantGiven,
    GrantUsed,
    /// Somebody took it back.
    GrantEnded,
    /// A grant that nothing can come of any more was removed.
    GrantForgotten,
    /// Somebody accepts that something lacks what it lacks, until a moment.
    FindingAccepted,
    /// It counts again.
    FindingUnaccepted,
    /// One person wants an identity to do what no rule allows.
    EmergencyAsked,
    /// A second person agreed: it is open.
    EmergencyAgreed,
    /// Somebody ended it.
    EmergencyEnded,
    /// An emergency that nothing can come of any more was removed.
    EmergencyForgotten,
}

impl AuditEvent {
    /// Stable name, such as `entry_created`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EntryCreated => "entry_created",
            Self::EntryUpdated => "entry_updated",
            Self::EntryDeleted => "entry_deleted",
            Self::NodeAttested => "node_attested",
            Self::NodeRenewed => "node_renewed",
            Self::NodePromoted => "node_promoted",
            Self::NodeUpdated => "node_updated",
            Self::NodeBanned => "node_banned",
            Self::NodeDeleted => "node_deleted",
            Self::NodeChainBegan => "node_chain_began",
            Self::NodeGap => "node_gap",
            Self::NodeConflict => "node_conflict",
            Self::ServerLeaving => "server_leaving",
            Self::JoinTokenCreated => "join_token_created",
            Self::JoinTokenSpent => "join_token_spent",
            Self::JoinTokenExpired => "join_token_expired",
            Self::BundleChanged => "bundle_changed",
            Self::BundleDeleted => "bundle_deleted",
            Self::AuthorityPrepared => "authority_prepared",
            Self::AuthorityActivated => "authority_activated",
            Self::AuthorityRetired => "authority_retired",
            Self::AuthorityTainted => "authority_tainted",
            Self::AuthorityRevoked => "authority_revoked",
            Self::PersonProposed => "person_proposed",
            Self::PersonAdded => "person_added",
            Self::PersonSignIn => "person_sign_in",
            Self::PersonLeft => "person_left",
            Self::IdentityProposed => "identity_proposed",
            Self::IdentityRegistered => "identity_registered",
            Self::IdentityAdopted => "identity_adopted",
            Self::IdentityChanged => "identity_changed",
            Self::IdentityConfirmed => "identity_confirmed",
            Self::IdentityPassed => "identity_passed",
            Self::IdentityPaused => "identity_paused",
            Self::IdentityResumed => "identity_resumed",
            Self::IdentityStopped => "identity_stopped",
            Self::IdentityPlaced => "identity_placed",
            Self::StopDrilled => "stop_drilled",
            Self::StopTried => "stop_tried",
            Self::RulesPublished => "rules_published",
            Self::RulesApproved => "rules_approved",
            Self::RulesWithdrawn => "rules_withdrawn",
            Self::RequestAsked => "request_asked",
            Self::RequestYes => "request_yes",
            Self::RequestNo => "request_no",
            Self::RequestSpent => "request_spent",
            Self::RequestForgotten => "request_forgotten",
            Self::GrantGiven => "grant_given",
            Self::GrantUsed => "grant_used",
            Self::GrantEnded => "grant_ended",
            Self::GrantForgotten => "grant_forgotten",
            Self::FindingAccepted => "finding_accepted",
            Self::FindingUnaccepted => "finding_unaccepted",
            Self::EmergencyAsked => "emergency_asked",
            Self::EmergencyAgreed => "emergency_agreed",
            Self::EmergencyEnded => "emergency_ended",
            Self::EmergencyForgotten => "emergency_forgotten",
        }
    }
}

/// One audit row, written in the same transaction as the change it describes. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    pub at: Timestamp,
    pub event: AuditEvent,
    /// Who: a person's ID, a SPIFFE ID, `local uid=0 gid=0 pid=7 exe=/usr/bin/x`, or `server`.
    pub actor: String,
    /// What: an entry ID, SPIFFE ID, trust domain, authority ID, person's ID, request's ID, grant's ID,
    /// emergency's ID or number of rules.
    pub subject: String,
    /// What else there is to say, by stable names. No secret, no name of a person, no free text.
    pub detail: Vec<(&'static str, String)>,
}
