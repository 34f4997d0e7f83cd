//! The change log: epoch, revision, head; rows, plans, and what happened in order.

use crate::accepted::{Accepted, Finding};
use crate::audit::AuditRow;
use crate::authority::{Authority, AuthorityKind, Holder, Slot};
use crate::bundle::Bundle;
use crate::emergency::{Emergency, EmergencyId};
use crate::entry::{Entry, EntryId};
use crate::grant::{Grant, GrantId};
use crate::identity::Identity;
use crate::join_token::JoinToken;
use crate::node::Node;
use crate::person::{Person, PersonId};
use crate::request::{Request, RequestId, RequestText};
use crate::rules::{PublishedRules, RulesFolder};
use crate::spiffe_id::SpiffeId;
use crate::time::Timestamp;
use crate::trust_domain::TrustDomain;

/// Which life of the store this is: time of creation or restore (ms) and random bits. Older = refused, newer =
/// everything is read anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    pub started: i64,
    pub random: u64,
}

/// Position in the change log: gapless, from 0 (nothing happened yet).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// SHA-256 chained over the change rows: two logs with one revision and two heads have lost commits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head(pub [u8; 32]);

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().take(4).try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Where a reader of the log stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    pub epoch: Epoch,
    pub revision: Revision,
    pub head: Head,
}

/// Everything the store keeps by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    Entry(Entry),
    Node(Node),
    Bundle(Bundle),
    JoinToken(JoinToken),
    Authority(Authority),
    Person(Person),
    Identity(Identity),
    Rules(PublishedRules),
    Request(Request),
    Grant(Grant),
    Accepted(Accepted),
    Emergency(Emergency),
}

/// The key of a row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    Entry(EntryId),
    Node(SpiffeId),
    Bundle(TrustDomain),
    /// SHA-256 of the token's text.
    JoinToken([u8; 32]),
    Authority(AuthorityKind, Holder, Slot),
    Person(PersonId),
    /// By its name.
    Identity(SpiffeId),
    /// By their number.
    Rules(u64),
    Request(RequestId),
    Grant(GrantId),
    /// By the name that lacks it.
    Accepted(SpiffeId, Finding),
    Emergency(EmergencyId),
}

impl std::fmt::Debug for RowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Entry(id) => write!(f, "entry {id}"),
            Self::Node(id) => write!(f, "node {id}"),
            Self::Bundle(domain) => write!(f, "bundle {domain}"),
            Self::JoinToken(_) => f.write_str("join token"),
            Self::Authority(kind, holder, slot) => write!(f, "authority {kind:?} {holder:?} {slot:?}"),
            Self::Person(id) => write!(f, "person {id}"),
            Self::Identity(id) => write!(f, "identity {id}"),
            Self::Rules(number) => write!(f, "rules {number}"),
            Self::Request(id) => write!(f, "request {id}"),
            Self::Grant(id) => write!(f, "grant {id}"),
            Self::Accepted(name, what) => write!(f, "accepted {what} of {name}"),
            Self::Emergency(id) => write!(f, "emergency {id}"),
        }
    }
}

impl Row {
    #[must_use]
    pub fn key(&self) -> RowKey {
        match self {
            Self::Entry(e) => RowKey::Entry(e.id.clone()),
            Self::Node(n) => RowKey::Node(n.id.clone()),
            Self::Bundle(b) => RowKey::Bundle(b.trust_domain.clone()),
            Self::JoinToken(t) => RowKey::JoinToken(t.digest),
            Self::Authority(a) => RowKey::Authority(a.kind, a.holder.clone(), a.slot),
            Self::Person(p) => RowKey::Person(p.id.clone()),
            Self::Identity(i) => RowKey::Identity(i.spiffe_id.clone()),
            Self::Rules(r) => RowKey::Rules(r.number),
            Self::Request(r) => RowKey::Request(r.id.clone()),
            Self::Grant(g) => RowKey::Grant(g.id.clone()),
            Self::Accepted(a) => RowKey::Accepted(a.name.clone(), a.what),
            Self::Emergency(e) => RowKey::Emergency(e.id.clone()),
        }
    }
}

/// What happened to one row. Entry changes carry the parent before and after, so that a resume knows whom
/// the change concerned even when the entry is gone (design decision 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub revision: Revision,
    pub key: RowKey,
    pub deleted: bool,
    /// Entries only.
    pub parent_before: Option<SpiffeId>,
    /// Entries only.
    pub parent_after: Option<SpiffeId>,
}

/// One write, computed purely from the image at `base`: rows to put and delete and audit rows to append,
/// all in one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub puts: Vec<Row>,
    pub deletes: Vec<RowKey>,
    pub changes: Vec<Change>,
    pub audit: Vec<AuditRow>,
    /// Folders that rows of rules name by their digest. They are kept beside the rows and are in no image: texts that
    /// nobody asks for need no memory.
    pub folders: Vec<RulesFolder>,
    /// Texts that rows of requests name by their hash, kept in the same way.
    pub texts: Vec<RequestText>,
}

impl Plan {
    /// A plan that changes no row takes no revision.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }
}

/// The whole store at one position.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub position: LogPosition,
    pub rows: Vec<Row>,
    /// When it was read.
    pub read_at: Timestamp,
}
