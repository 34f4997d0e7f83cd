//! What an operator may do with authorities by hand, one rule per test.

use std::sync::Arc;

use avouch_domain::fixtures::domain;
use avouch_domain::{
    Authority, AuthorityKind, Bundle, Holder, LogPosition, Plan, Slot, SlotState, Timestamp,
};

use super::authorities::{self, Prepared};
use super::operator::*;
use crate::invariants::inv8_every_change_is_audited_once;
use crate::registry::Registry;

const NOW: Timestamp = Timestamp(1_000_400);
const KINDS: [AuthorityKind; 2] = [AuthorityKind::X509, AuthorityKind::Jwt];

fn me() -> Holder {
    Holder::Server("s".into())
}

/// A registry whose authorities of one kind are moved as the server does.
struct Rig {
    registry: Registry,
    kind: AuthorityKind,
}

impl Rig {
    fn commit(&mut self, plan: &Plan) {
        inv8_every_change_is_audited_once(plan).unwrap();
        let mut position = self.registry.position();
        position.revision = position.revision.next();
        self.registry.apply(plan, LogPosition { ..position });
    }

    fn publish(&mut self, holder: Holder, slot: Slot, key: &str) {
        let prepared = Prepared {
            kind: self.kind,
            holder,
            slot,
            id: key.into(),
            public: Arc::from(key.as_bytes()),
            issued_at: NOW,
            not_after: Timestamp(9_000_000),
        };
        let (plan, outcome) = authorities::publish(&self.registry, NOW, "server", &domain(), &prepared);
        outcome.unwrap();
        self.commit(&plan);
    }

    fn activate(&mut self, holder: &Holder, slot: Slot, key: &str) {
        let of = (self.kind, holder);
        let (plan, outcome) = authorities::activate(&self.registry, NOW, "server", of, slot, &key.into());
        outcome.unwrap();
        self.commit(&plan);
    }

    /// `k1` signs.
    fn started(kind: AuthorityKind) -> Self {
        let mut rig = Self { registry: Registry::new(), kind };
        rig.publish(me(), Slot::A, "k1");
        rig.activate(&me(), Slot::A, "k1");
        rig
    }

    /// `k2` is prepared beside it.
    fn prepared(kind: AuthorityKind) -> Self {
        let mut rig = Self::started(kind);
        rig.publish(me(), Slot::B, "k2");
        rig
    }

    /// `k2` signs, `k1` did.
    fn rotated(kind: AuthorityKind) -> Self {
        let mut rig = Self::prepared(kind);
        rig.activate(&me(), Slot::B, "k2");
        rig
    }

    fn pair(&self) -> Pair<'_> {
        pair(&self.registry, self.kind, &me())
    }

    fn ids(&self) -> (Option<&str>, Option<&str>) {
        let Pair { active, other } = self.pair();
        (active.map(|a| &*a.id), other.map(|a| &*a.id))
    }

    fn bundle(&self) -> &Bundle {
        self.registry.bundle(&domain()).unwrap()
    }

    /// Keys the bundle names, and whether they are tainted.
    fn named(&self) -> Vec<(String, bool)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        match self.kind {
            AuthorityKind::X509 => {
                self.bundle().x509_authorities.iter().map(|r| (text(&r.der), r.tainted)).collect()
            }
            AuthorityKind::Jwt => {
                self.bundle().jwt_authorities.iter().map(|k| (k.key_id.to_string(), k.tainted)).collect()
            }
        }
    }

    fn taint(&mut self, id: &str) -> Result<Authority, TaintError> {
        let (plan, outcome) = taint(&self.registry, NOW, "admin", &domain(), (self.kind, &me()), id);
        assert_eq!(plan.is_empty(), outcome.is_err(), "what is refused leaves no trace");
        assert!(plan.audit.iter().all(|row| row.actor == "admin"));
        self.commit(&plan);
        outcome
    }

    fn revoke(&mut self, id: &str) -> Result<(), RevokeError> {
        let (plan, outcome) = revoke(&self.registry, NOW, "admin", &domain(), (self.kind, &me()), id);
        assert_eq!(plan.is_empty(), outcome.is_err(), "what is refused leaves no trace");
        self.commit(&plan);
        outcome
    }
}

#[test]
fn the_pair_is_the_one_that_signs_and_the_one_beside_it() {
    for kind in KINDS {
        assert_eq!(Rig::started(kind).ids(), (Some("k1"), None));
        assert_eq!(Rig::prepared(kind).ids(), (Some("k1"), Some("k2")));
        assert_eq!(Rig::rotated(kind).ids(), (Some("k2"), Some("k1")));
    }
}

#[test]
fn a_second_prepared_authority_takes_the_place_of_the_first_which_stays_in_the_bundle() {
    for kind in KINDS {
        let mut rig = Rig::prepared(kind);
        let (plan, gone) = make_room(&rig.registry, NOW, kind, &me());
        assert_eq!(gone.as_deref(), Some("k2"));
        rig.commit(&plan);
        assert_eq!(rig.ids(), (Some("k1"), None));
        rig.publish(me(), Slot::B, "k3");
        assert_eq!(rig.ids(), (Some("k1"), Some("k3")));
        assert_eq!(rig.named().len(), 3);
    }
}

#[test]
fn an_old_authority_gives_no_room_before_its_successors_key_is_made() {
    let rig = Rig::rotated(AuthorityKind::X509);
    let (plan, gone) = make_room(&rig.registry, NOW, AuthorityKind::X509, &me());
    assert!(plan.is_empty() && gone.is_none());
}

#[test]
fn only_the_prepared_authority_is_put_to_use() {
    for kind in KINDS {
        let (prepared, rotated) = (Rig::prepared(kind), Rig::rotated(kind));
        assert_eq!(may_activate(prepared.pair(), "k2").map(|a| a.slot), Ok(Slot::B));
        assert_eq!(may_activate(prepared.pair(), ""), Err(ActivateError::NoId));
        assert_eq!(may_activate(prepared.pair(), "k1"), Err(ActivateError::Unexpected), "it signs already");
        assert_eq!(may_activate(Rig::started(kind).pair(), "k2"), Err(ActivateError::Unexpected));
        let old = may_activate(rotated.pair(), "k1").unwrap_err();
        assert_eq!(old.to_string(), "unsupported local authority status: OLD");
    }
}

#[test]
fn only_the_authority_that_signed_before_is_tainted_and_only_once() {
    for kind in KINDS {
        let mut prepared = Rig::prepared(kind);
        assert_eq!(prepared.taint(""), Err(TaintError::NoId));
        assert_eq!(prepared.taint("k1"), Err(TaintError::Signs));
        assert_eq!(prepared.taint("k9"), Err(TaintError::Unexpected));
        let not_old = prepared.taint("k2").unwrap_err();
        assert_eq!(not_old.to_string(), "unsupported local authority status: PREPARED");
        let mut rotated = Rig::rotated(kind);
        let old = rotated.taint("k1").unwrap();
        assert_eq!((&*old.id, old.state, old.tainted), ("k1", SlotState::Old, true));
        assert_eq!(rotated.named(), [("k1".to_owned(), true), ("k2".to_owned(), false)]);
        assert_eq!(rotated.taint("k1"), Err(TaintError::Already));
    }
}

#[test]
fn only_a_tainted_authority_that_signs_no_more_is_revoked() {
    for kind in KINDS {
        let mut rig = Rig::rotated(kind);
        assert_eq!(rig.revoke(""), Err(RevokeError::NoId));
        assert_eq!(rig.revoke("k2"), Err(RevokeError::Signs));
        assert_eq!(rig.revoke("k1"), Err(RevokeError::Untainted));
        rig.taint("k1").unwrap();
        rig.revoke("k1").unwrap();
        assert_eq!(rig.ids(), (Some("k2"), None));
        assert_eq!(rig.named(), [("k2".to_owned(), false)]);
    }
    let (mut x509, mut jwt) = (Rig::prepared(AuthorityKind::X509), Rig::prepared(AuthorityKind::Jwt));
    assert_eq!(x509.revoke("k2"), Err(RevokeError::NotOld));
    assert_eq!(x509.revoke("k9"), Err(RevokeError::NotOld));
    assert_eq!(jwt.revoke("k2"), Err(RevokeError::Prepared));
    assert_eq!(jwt.revoke("k9"), Err(RevokeError::NoSuchKey));
}

#[test]
fn a_tainted_jwt_authority_is_revoked_also_after_it_lost_its_slot() {
    let mut rig = Rig::rotated(AuthorityKind::Jwt);
    rig.taint("k1").unwrap();
    rig.publish(me(), Slot::A, "k3");
    assert_eq!(rig.ids(), (Some("k2"), Some("k3")));
    rig.revoke("k1").unwrap();
    assert_eq!(rig.named(), [("k2".to_owned(), false), ("k3".to_owned(), false)]);
}

#[test]
fn an_authority_that_ended_and_left_the_bundle_can_be_neither_tainted_nor_revoked() {
    for kind in KINDS {
        let mut rig = Rig::rotated(kind);
        let x509 = [Arc::from("k1".as_bytes())].into();
        let jwt = ["k1".into()].into();
        let plan = super::bundles::prune(&rig.registry, NOW, &domain(), &x509, &jwt).unwrap();
        rig.commit(&plan);
        assert_eq!(rig.taint("k1"), Err(TaintError::Gone));
        assert_eq!(rig.revoke("k1"), Err(RevokeError::Gone));
    }
}

#[test]
fn another_servers_authority_is_not_ours_to_touch() {
    let mut rig = Rig::started(AuthorityKind::Jwt);
    let other = Holder::Server("other".into());
    rig.publish(other.clone(), Slot::A, "o1");
    assert_eq!(rig.ids(), (Some("k1"), None));
    assert_eq!(rig.taint("o1"), Err(TaintError::Unexpected));
    rig.activate(&other, Slot::A, "o1");
    let (plan, _) = authorities::taint(&rig.registry, NOW, "other admin", &domain(), &"o1".into());
    rig.commit(&plan);
    assert_eq!(rig.revoke("o1"), Err(RevokeError::Signs), "it signs there");
}
