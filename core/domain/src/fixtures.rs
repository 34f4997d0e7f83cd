//! Builders for tests: short to call, valid by construction.

use std::time::Duration;

use crate::accepted::{Accepted, Finding};
use crate::code::Code;
use crate::emergency::{Emergency, EmergencyId};
use crate::entry::{Entry, EntryId, EntryParts};
use crate::grant::{Grant, GrantId};
use crate::identity::{Environment, Identity, Kind, Standing};
use crate::limits::{EMERGENCY_WAIT, REQUEST_WAIT};
use crate::node::Node;
use crate::person::{Person, PersonId, PersonState};
use crate::request::{Request, RequestHash, RequestId, RequestState, Said, Whose};
use crate::rules::{PublishedRules, RulesDigest, RulesStanding};
use crate::selector::{Selector, SelectorSet};
use crate::spiffe_id::SpiffeId;
use crate::time::{Timestamp, Ttl};
use crate::trust_domain::TrustDomain;

/// `example.org`.
#[must_use]
pub fn domain() -> TrustDomain {
    match TrustDomain::new("example.org") {
        Ok(domain) => domain,
        Err(_) => unreachable!("a constant name"),
    }
}

/// `spiffe://example.org` + path. Panics on a bad path: only for tests.
#[must_use]
pub fn id(path: &str) -> SpiffeId {
    match SpiffeId::new(&domain(), path) {
        Ok(id) => id,
        Err(e) => unreachable!("bad path {path} in a test: {e}"),
    }
}

/// Selectors from `type:value` texts. Panics on a bad one: only for tests.
#[must_use]
pub fn selectors(list: &[&str]) -> Vec<Selector> {
    list.iter()
        .map(|s| match s.parse() {
            Ok(selector) => selector,
            Err(e) => unreachable!("bad selector {s} in a test: {e}"),
        })
        .collect()
}

/// A set of selectors. Panics on a bad one: only for tests.
#[must_use]
pub fn set(list: &[&str]) -> SelectorSet {
    match SelectorSet::new(selectors(list)) {
        Ok(set) => set,
        Err(e) => unreachable!("bad selectors in a test: {e}"),
    }
}

/// The parts of an entry with every optional field unset.
#[must_use]
pub fn entry_parts(entry_id: &str, path: &str, parent: &str, sel: &[&str]) -> EntryParts {
    EntryParts {
        id: match EntryId::new(entry_id) {
            Ok(id) => id,
            Err(e) => unreachable!("bad entry id in a test: {e}"),
        },
        spiffe_id: id(path),
        parent_id: id(parent),
        selectors: selectors(sel),
        x509_svid_ttl: Ttl(0),
        jwt_svid_ttl: Ttl(0),
        federates_with: Vec::new(),
        admin: false,
        downstream: false,
        expires_at: None,
        dns_names: Vec::new(),
        store_svid: false,
        hint: String::new(),
        disable_x509_svid_prefetch: false,
        jwt_svid_include_jti: false,
        revision_number: 0,
        created_at: Timestamp(0),
    }
}

/// An entry with every optional field unset.
#[must_use]
pub fn entry(entry_id: &str, path: &str, parent: &str, sel: &[&str]) -> Entry {
    match Entry::new(entry_parts(entry_id, path, parent, sel)) {
        Ok(entry) => entry,
        Err(e) => unreachable!("bad entry in a test: {e}"),
    }
}

/// A node that attested by join token and ends at `expires_at` seconds.
#[must_use]
pub fn node(path: &str, sel: &[&str], expires_at: i64) -> Node {
    Node {
        id: id(path),
        attestation_type: "join_token".into(),
        serial: Some("1".into()),
        expires_at: Timestamp::from_secs(expires_at),
        new_serial: None,
        selectors: set(sel),
        can_reattest: false,
        agent_version: "".into(),
    }
}

/// A person's ID. Panics on a bad one: only for tests.
#[must_use]
pub fn person_id(text: &str) -> PersonId {
    match PersonId::new(text) {
        Ok(id) => id,
        Err(e) => unreachable!("bad person ID in a test: {e}"),
    }
}

/// An active person who is the local user `uid`.
#[must_use]
pub fn person(id: &str, uid: u32, security: bool) -> Person {
    Person {
        id: person_id(id),
        name: id.into(),
        uid: Some(uid),
        sign_in: None,
        security,
        state: PersonState::Active,
        added_by: None,
        yes_by: None,
        added_at: Timestamp(0),
    }
}

/// An active identity of `test` that `per_owner` owns and that ends in 30 days.
#[must_use]
pub fn identity(path: &str, kind: Kind) -> Identity {
    Identity {
        spiffe_id: id(path),
        kind,
        environment: Environment::Test,
        purpose: match Code::new("tests") {
            Ok(purpose) => purpose,
            Err(e) => unreachable!("bad purpose in a test: {e}"),
        },
        preset: None,
        owner: person_id("per_owner"),
        successor: None,
        end: Timestamp::from_secs(30 * 86_400),
        standing: Standing::Active,
        stop_number: 0,
        added_by: person_id("per_owner"),
        added_at: Timestamp(0),
        yes_by: Some(person_id("per_owner")),
        confirm_by: None,
        stop_tried: None,
        code: None,
        runs_max: None,
    }
}

/// Approved rules that `per_s` published, with a digest of their number.
#[must_use]
pub fn rules(number: u64) -> PublishedRules {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    PublishedRules {
        number,
        digest: RulesDigest(digest),
        note: "".into(),
        standing: RulesStanding::Approved,
        published_by: person_id("per_s"),
        published_at: Timestamp(0),
        yes_by: Some(person_id("per_s")),
        valid_from: Some(Timestamp(0)),
    }
}

/// A request of `identity` at moment 0 that waits for the yes of a person other than the owner.
#[must_use]
pub fn request(request_id: &str, identity: &str) -> Request {
    Request {
        id: match RequestId::new(request_id) {
            Ok(id) => id,
            Err(e) => unreachable!("bad request ID in a test: {e}"),
        },
        hash: RequestHash([7; 32]),
        identity: id(identity),
        stop_number: 0,
        node: id("/spire/agent/x"),
        action: "repo.merge".into(),
        resource: "git/pay".into(),
        needs: Whose { owner: false, person: true },
        owner_yes: None,
        person_yes: None,
        no: None,
        state: RequestState::Waiting,
        asked_at: Timestamp(0),
        until: Timestamp(0) + REQUEST_WAIT,
        spent_with: None,
    }
}

/// A grant to `identity`, given at moment 0 by `per_s` for an hour and one use.
#[must_use]
pub fn grant(grant_id: &str, identity: &str) -> Grant {
    Grant {
        id: match GrantId::new(grant_id) {
            Ok(id) => id,
            Err(e) => unreachable!("bad grant ID in a test: {e}"),
        },
        identity: id(identity),
        owner: person_id("per_owner"),
        stop_number: 0,
        action: "secret.read".into(),
        resource: "vault/key".into(),
        given: Said { by: person_id("per_s"), at: Timestamp(0) },
        ends_at: Timestamp::from_secs(3600),
        max_uses: 1,
        uses: 0,
        keys: Vec::new(),
        ended: None,
        case: None,
    }
}

/// What `name` lacks, accepted at moment 0 by `per_s` for a day.
#[must_use]
pub fn accepted(name: &str, what: Finding) -> Accepted {
    Accepted {
        name: id(name),
        what,
        until: Timestamp::from_secs(86_400),
        why: "it moves".into(),
        said: Said { by: person_id("per_s"), at: Timestamp(0) },
    }
}

/// An emergency of `identity`, asked at moment 0 by `per_s` for a quarter of an hour, that waits for a second person.
#[must_use]
pub fn emergency(emergency_id: &str, identity: &str) -> Emergency {
    Emergency {
        id: match EmergencyId::new(emergency_id) {
            Ok(id) => id,
            Err(e) => unreachable!("bad emergency ID in a test: {e}"),
        },
        identity: id(identity),
        owner: person_id("per_owner"),
        stop_number: 0,
        action: "secret.read".into(),
        resource: "vault/key".into(),
        why: "the queue is stuck".into(),
        asked: Said { by: person_id("per_s"), at: Timestamp(0) },
        lasts: Duration::from_secs(900),
        agreed: None,
        ends_at: Timestamp(0) + EMERGENCY_WAIT,
        ended: None,
    }
}
