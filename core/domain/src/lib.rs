//! The nouns of Avouch, checked at birth: a value that exists is valid.
//!
//! Never: no I/O, no clock, no randomness, no wire types, no async.

pub mod accepted;
pub mod audit;
pub mod authority;
pub mod bundle;
pub mod case;
pub mod change;
pub mod code;
pub mod code_digest;
pub mod emergency;
pub mod entry;
pub mod grant;
pub mod identity;
pub mod join_token;
pub mod limits;
mod named;
pub mod node;
pub mod node_log;
pub mod opaque_id;
pub mod person;
pub mod presented;
pub mod request;
pub mod rules;
pub mod run;
pub mod selector;
pub mod short_text;
pub mod sign_in;
pub mod spiffe_id;
pub mod svid;
pub mod time;
pub mod trust_domain;
mod why;

#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
#[cfg(test)]
mod props;

pub use accepted::{Accepted, Finding};
pub use audit::{AuditEvent, AuditRow};
pub use authority::{Authority, AuthorityId, AuthorityKind, Holder, KeyType, Slot, SlotState};
pub use bundle::{Bundle, JwtAuthority, X509Authority};
pub use case::{Case, CaseError};
pub use change::{Change, Epoch, Head, Image, LogPosition, Plan, Revision, Row, RowKey};
pub use code::{Code, CodeError};
pub use code_digest::{CodeDigest, CodeDigestError};
pub use emergency::{Emergency, EmergencyId, EmergencyStanding};
pub use entry::{Entry, EntryError, EntryId, EntryParts};
pub use grant::{Grant, GrantId, GrantStanding, GrantUse};
pub use identity::{Cause, Environment, Identity, Kind, Standing, StopTried};
pub use join_token::JoinToken;
pub use node::{Node, NodeSerial};
pub use node_log::{
    CallResult, ChainId, KeptHead, NodeChain, NodeEvent, NodeHead, Note, Receipt, Shipment, Stand, TELLS_USE,
};
pub use opaque_id::OpaqueIdError;
pub use person::{Person, PersonError, PersonId, PersonState};
pub use presented::Presented;
pub use request::{
    Needs, Request, RequestContent, RequestHash, RequestId, RequestState, RequestText, Said, Whose,
};
pub use rules::{PublishedRules, RulesDigest, RulesFolder, RulesStanding, RulesTextError};
pub use run::{RUN, read_run_selector, run_selector};
pub use selector::{Selector, SelectorError, SelectorSet};
pub use short_text::{InPlace, ShortText};
pub use sign_in::{Issuer, SignIn, SignInError, Subject, is_loopback};
pub use spiffe_id::{IdError, SpiffeId};
pub use svid::{JwtSvid, X509Svid};
pub use time::{Now, Tick, Timestamp, Ttl};
pub use trust_domain::TrustDomain;
pub use why::{WhyError, why};
