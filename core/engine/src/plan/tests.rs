//! What a write does, one rule per test.

use std::collections::BTreeSet;
use std::sync::Arc;

use avouch_domain::fixtures::{domain, entry, id, identity, node, selectors, set};
use avouch_domain::{
    Authority, AuthorityKind, Bundle, Holder, JoinToken, JwtAuthority, Kind, LogPosition, Slot, SlotState,
    TrustDomain, Ttl, X509Authority,
};

use super::authorities::{Prepared, SlotError};
use super::bundles::{BundleError, DeleteMode};
use super::entries::{EntryPatch, EntryWriteError, NewEntry};
use super::nodes::{AgentRefusal, AttestRefusal, Attested, NodeError, Standing};
use super::*;
use crate::invariants::{inv8_every_change_is_audited, inv8_every_change_is_audited_once};

const NOW: Timestamp = Timestamp(1_000_400);

fn new(path: &str, parent: &str, sel: &[&str]) -> NewEntry {
    NewEntry {
        id: None,
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
    }
}

fn eid(text: &str) -> EntryId {
    EntryId::new(text).unwrap()
}

fn fresh(n: usize) -> Vec<EntryId> {
    (0..n).map(|i| eid(&format!("fresh-{i}"))).collect()
}

fn commit(registry: &mut Registry, plan: &Plan) {
    inv8_every_change_is_audited(plan).unwrap();
    let position = registry.position();
    let revision = if plan.is_empty() { position.revision } else { position.revision.next() };
    registry.apply(plan, LogPosition { revision, ..position });
}

fn foreign() -> TrustDomain {
    TrustDomain::new("other.org").unwrap()
}

fn registry(rows: Vec<Row>) -> Registry {
    Registry::from_image(avouch_domain::Image { rows, ..Default::default() })
}

#[test]
fn a_batch_sees_its_own_items_and_keeps_their_order() {
    let empty = Registry::new();
    let items = [new("/a", "/p", &["u:1"]), new("/a", "/p", &["u:1"]), new("/b", "/p", &["u:1"])];
    let (plan, outcomes) = entries::create(&empty, NOW, "me", &items, &fresh(3));
    let first = outcomes[0].clone().unwrap();
    assert_eq!(first.created_at, Timestamp::from_secs(1000));
    assert_eq!(outcomes[1], Err(EntryWriteError::Similar(first)));
    assert_eq!(outcomes[2].as_ref().unwrap().id, eid("fresh-2"));
    assert_eq!((plan.puts.len(), plan.changes.len(), plan.audit.len()), (2, 2, 2));
    assert_eq!(plan.changes[0].revision, Revision(1));
    assert_eq!(plan.changes[0].parent_after, Some(id("/p")));
}

#[test]
fn a_taken_id_an_unknown_bundle_and_repeats_are_refused_without_a_trace() {
    let registry = registry(vec![Row::Entry(entry("taken", "/z", "/p", &["u:1"]))]);
    let taken = NewEntry { id: Some(eid("taken")), ..new("/a", "/p", &["u:1"]) };
    let stranger = NewEntry { federates_with: vec![foreign()], ..new("/a", "/p", &["u:1"]) };
    let repeated = new("/a", "/p", &["u:1", "u:1"]);
    let (plan, outcomes) = entries::create(&registry, NOW, "me", &[taken, stranger, repeated], &fresh(3));
    assert_eq!(
        outcomes,
        [
            Err(EntryWriteError::IdTaken),
            Err(EntryWriteError::NoBundle(foreign())),
            Err(EntryWriteError::Repeated)
        ]
    );
    assert!(plan.is_empty() && plan.audit.is_empty());
}

#[test]
fn no_entry_is_made_for_a_run_and_none_becomes_one() {
    let of_a_run = "run:7:spiffe://example.org/a";
    let (plan, outcomes) =
        entries::create(&Registry::new(), NOW, "me", &[new("/a", "/p", &["u:1", of_a_run])], &fresh(1));
    let refused = Err(EntryWriteError::OfARun(of_a_run.parse().unwrap()));
    assert_eq!((outcomes, plan.is_empty()), (vec![refused.clone()], true));
    let rows = vec![
        Row::Entry(entry("plain", "/b", "/p", &["u:1"])),
        Row::Entry(entry("placed", "/a", "/p", &[of_a_run])),
    ];
    let of = |id: &str| EntryPatch::empty(eid(id));
    let patches = [
        EntryPatch { selectors: Some(vec![of_a_run.parse().unwrap()]), ..of("plain") },
        EntryPatch { spiffe_id: Some(id("/b")), ..of("placed") },
        EntryPatch { parent_id: Some(id("/q")), ..of("placed") },
    ];
    let (plan, outcomes) = entries::update(&registry(rows.clone()), NOW, "me", &patches);
    assert_eq!((outcomes, plan.is_empty()), (vec![refused; 3], true));
    let same = EntryPatch {
        selectors: Some(vec![of_a_run.parse().unwrap()]),
        hint: Some("x".into()),
        ..of("placed")
    };
    let (_, outcomes) = entries::update(&registry(rows), NOW, "me", &[same]);
    assert!(outcomes[0].is_ok(), "what a person placed may be changed beside: {outcomes:?}");
}

#[test]
fn an_entry_of_what_acts_by_itself_fits_no_process_of_another_below_the_same_parent() {
    let of = |path: &str, selectors: &[&str]| new(path, "/p", selectors);
    let rows = |kind| {
        vec![
            Row::Identity(identity("/test/coder", kind)),
            Row::Entry(entry("other", "/other", "/p", &["u:1", "u:2"])),
        ]
    };
    let made = |kind, new: NewEntry| {
        let (_, mut outcomes) = entries::create(&registry(rows(kind)), NOW, "me", &[new], &fresh(1));
        outcomes.remove(0).map(drop)
    };
    let refused = Err(EntryWriteError::NotApart(id("/test/coder"), id("/other")));
    for selectors in [&["u:1"][..], &["u:1", "u:2"], &["u:1", "u:2", "u:3"]] {
        assert_eq!(made(Kind::AiAgent, of("/test/coder", selectors)), refused, "{selectors:?}");
        assert_eq!(made(Kind::Service, of("/test/coder", selectors)), Ok(()), "as in SPIRE: {selectors:?}");
    }
    assert_eq!(made(Kind::AiAgent, of("/test/coder", &["u:1", "u:3"])), Ok(()));
    assert_eq!(made(Kind::AiAgent, new("/test/coder", "/q", &["u:1"])), Ok(()), "another parent");
    let mut before = rows(Kind::AiAgent);
    before.push(Row::Entry(entry("own", "/test/coder", "/p", &["u:3"])));
    let nearer =
        EntryPatch { selectors: Some(vec!["u:1".parse().unwrap()]), ..EntryPatch::empty(eid("own")) };
    let (_, outcomes) = entries::update(&registry(before), NOW, "me", &[nearer]);
    assert_eq!(outcomes[0].clone().map(drop), refused);
}

#[test]
fn an_update_raises_the_revision_number_also_when_nothing_changes() {
    let mut registry = registry(vec![Row::Entry(entry("a", "/a", "/p", &["u:1"]))]);
    let patches = [
        EntryPatch::empty(eid("a")),
        EntryPatch { parent_id: Some(id("/q")), ..EntryPatch::empty(eid("a")) },
        EntryPatch::empty(eid("b")),
    ];
    let (plan, outcomes) = entries::update(&registry, NOW, "me", &patches);
    assert_eq!(outcomes[1].as_ref().unwrap().revision_number, 2);
    assert_eq!(outcomes[2], Err(EntryWriteError::NotFound));
    assert_eq!(plan.changes.len(), 1);
    assert_eq!(
        (plan.changes[0].parent_before.clone(), plan.changes[0].parent_after.clone()),
        (Some(id("/p")), Some(id("/q")))
    );
    commit(&mut registry, &plan);
    assert_eq!(registry.entry(&eid("a")).unwrap().parent_id, id("/q"));
}

#[test]
fn deleting_twice_in_one_batch_finds_nothing_the_second_time() {
    let registry = registry(vec![Row::Entry(entry("a", "/a", "/p", &["u:1"]))]);
    let (plan, outcomes) = entries::delete(&registry, NOW, "me", &[eid("a"), eid("a")]);
    assert_eq!(outcomes, [Ok(()), Err(EntryWriteError::NotFound)]);
    assert!(plan.changes[0].deleted && plan.changes[0].parent_before == Some(id("/p")));
}

#[test]
fn dissociating_a_bundle_tells_the_agents_by_a_new_revision_number() {
    let mut parts = entry("a", "/a", "/p", &["u:1"]).to_parts();
    parts.federates_with = vec![foreign()];
    let mut registry =
        registry(vec![Row::Bundle(Bundle::empty(foreign())), Row::Entry(Entry::new(parts).unwrap())]);
    let delete = |r: &Registry, mode| bundles::delete(r, NOW, "me", &domain(), &[foreign()], mode);
    let (plan, outcomes) = delete(&registry, DeleteMode::Restrict);
    assert_eq!(outcomes, [Err(BundleError::InUse(1))]);
    assert!(plan.is_empty());
    let (plan, _) = delete(&registry, DeleteMode::Delete);
    assert_eq!((plan.puts.len(), plan.deletes.len()), (0, 2));
    let (plan, outcomes) = delete(&registry, DeleteMode::Dissociate);
    assert_eq!(outcomes, [Ok(())]);
    commit(&mut registry, &plan);
    let entry = registry.entry(&eid("a")).unwrap();
    assert!(entry.federates_with.is_empty() && entry.revision_number == 1);
    assert!(registry.bundle(&foreign()).is_none());
}

#[test]
fn the_own_bundle_is_no_federated_one() {
    let own = Bundle::empty(domain());
    let (_, outcomes) = bundles::set(&Registry::new(), NOW, "me", &domain(), &[own]);
    assert_eq!(outcomes, [Err(BundleError::OwnDomain)]);
}

#[test]
fn appending_counts_only_when_something_is_new() {
    let root = X509Authority { der: Arc::from([1u8]), tainted: true };
    let mut registry = Registry::new();
    for (jwt, sequence) in [(None, 0), (Some("k"), 1), (Some("k"), 1)] {
        let jwt: Vec<_> = jwt
            .iter()
            .map(|k| JwtAuthority {
                key_id: Arc::from(*k),
                public_key: Arc::from([2u8]),
                expires_at: None,
                tainted: false,
            })
            .collect();
        let (plan, bundle) =
            bundles::append(&registry, NOW, "me", &domain(), std::slice::from_ref(&root), &jwt);
        assert_eq!(bundle.sequence_number, sequence);
        assert!(!bundle.x509_authorities[0].tainted);
        commit(&mut registry, &plan);
    }
}

#[test]
fn pruning_never_empties_a_bundle() {
    let mut bundle = Bundle::empty(domain());
    bundle.x509_authorities =
        [1u8, 2].iter().map(|b| X509Authority { der: Arc::from([*b]), tainted: false }).collect();
    let registry = registry(vec![Row::Bundle(bundle)]);
    let ended = |list: &[u8]| list.iter().map(|b| Arc::from([*b])).collect::<BTreeSet<Arc<[u8]>>>();
    let none = BTreeSet::new();
    assert!(bundles::prune(&registry, NOW, &domain(), &ended(&[1, 2]), &none).is_err());
    let plan = bundles::prune(&registry, NOW, &domain(), &ended(&[1]), &none).unwrap();
    assert_eq!(plan.puts.len(), 1);
    assert!(bundles::prune(&registry, NOW, &domain(), &ended(&[]), &none).unwrap().is_empty());
}

fn joining(token: Option<[u8; 32]>) -> Attested {
    Attested {
        id: id("/spire/agent/join_token/t"),
        kind: "join_token".into(),
        serial: "1".into(),
        expires_at: Timestamp(2_000_000),
        selectors: set(&["k:1"]),
        can_reattest: false,
        token,
    }
}

#[test]
fn a_token_is_spent_in_the_write_of_its_node_and_only_once() {
    let token = JoinToken { digest: [3; 32], expires_at: Timestamp(2_000_000) };
    let mut registry = registry(vec![Row::JoinToken(token)]);
    let (plan, outcome) = nodes::attest(&registry, NOW, "a", &joining(Some([3; 32])));
    assert!(outcome.is_ok());
    assert_eq!((plan.puts.len(), plan.deletes.len()), (1, 1));
    commit(&mut registry, &plan);
    let (plan, outcome) = nodes::attest(&registry, NOW, "a", &joining(Some([3; 32])));
    assert_eq!(outcome, Err(AttestRefusal::TokenUnknown));
    assert!(plan.is_empty());
}

#[test]
fn a_token_ends_at_its_second_whether_or_not_it_was_pruned() {
    let token = JoinToken { digest: [3; 32], expires_at: NOW };
    let mut registry = registry(vec![Row::JoinToken(token)]);
    let attest = |r: &Registry, at| nodes::attest(r, at, "a", &joining(Some([3; 32]))).1;
    assert!(attest(&registry, Timestamp(NOW.0 - 1)).is_ok());
    assert_eq!(attest(&registry, NOW), Err(AttestRefusal::TokenExpired));
    let (plan, count) = tokens::prune(&registry, NOW, NOW);
    assert_eq!(count, 1);
    commit(&mut registry, &plan);
    assert_eq!(attest(&registry, NOW), Err(AttestRefusal::TokenUnknown));
}

#[test]
fn a_banned_node_may_not_attest_again_until_it_is_forgotten() {
    let mut registry = registry(vec![Row::Node(node("/spire/agent/join_token/t", &[], 9999))]);
    let agent = id("/spire/agent/join_token/t");
    let (plan, outcome) = nodes::ban(&registry, NOW, "me", &agent);
    assert_eq!(outcome, Ok(()));
    commit(&mut registry, &plan);
    assert_eq!(nodes::judge(&registry, NOW, &agent, "1"), Err(AgentRefusal::Banned));
    assert_eq!(nodes::attest(&registry, NOW, "a", &joining(None)).1, Err(AttestRefusal::Banned));
    let (plan, _) = nodes::delete(&registry, NOW, "me", &agent);
    commit(&mut registry, &plan);
    assert_eq!(nodes::judge(&registry, NOW, &agent, "1"), Err(AgentRefusal::NotAttested));
    assert!(nodes::attest(&registry, NOW, "a", &joining(None)).1.is_ok());
    assert_eq!(nodes::ban(&registry, NOW, "me", &agent).1, Err(NodeError::NotFound));
}

#[test]
fn a_renewed_svid_takes_over_when_it_is_first_shown() {
    let agent = id("/spire/agent/join_token/t");
    let mut registry = registry(vec![Row::Node(node("/spire/agent/join_token/t", &[], 5000))]);
    let judge = |r: &Registry, serial| nodes::judge(r, NOW, &agent, serial);
    let (plan, _) = nodes::renew(&registry, NOW, &agent, &"2".into(), Timestamp::from_secs(6000));
    commit(&mut registry, &plan);
    assert_eq!(
        (judge(&registry, "1"), judge(&registry, "2")),
        (Ok(Standing::Current), Ok(Standing::Renewed))
    );
    let (plan, _) = nodes::promote(&registry, NOW, &agent, "2");
    commit(&mut registry, &plan);
    assert_eq!(judge(&registry, "2"), Ok(Standing::Current));
    assert_eq!(judge(&registry, "1"), Err(AgentRefusal::NotActive));
    assert_eq!(nodes::judge(&registry, Timestamp::from_secs(6000), &agent, "2"), Err(AgentRefusal::Expired));
    let (plan, _) = nodes::promote(&registry, NOW, &agent, "2");
    assert!(plan.is_empty());
}

#[test]
fn the_entry_of_a_join_token_goes_with_its_node() {
    let agent = "/spire/agent/join_token/t";
    let mut registry = Registry::new();
    let alias = tokens::Alias { agent: id(agent), spiffe_id: id("/node1"), entry_id: eid("alias") };
    let token = JoinToken { digest: [3; 32], expires_at: Timestamp(2_000_000) };
    let (plan, outcome) = tokens::create(&registry, NOW, "me", &token, Some(&alias));
    assert_eq!(outcome, Ok(()));
    commit(&mut registry, &plan);
    assert_eq!(tokens::create(&registry, NOW, "me", &token, None).1, Err(tokens::JoinTokenError::Duplicate));
    let (plan, _) = nodes::attest(&registry, NOW, agent, &joining(Some([3; 32])));
    commit(&mut registry, &plan);
    let (plan, _) = nodes::delete(&registry, NOW, "me", &id(agent));
    commit(&mut registry, &plan);
    assert_eq!((registry.entry_count(), registry.node_count()), (0, 0));
}

#[test]
fn pruning_nodes_spares_the_banned_and_by_default_the_single_use_ones() {
    let mut banned = node("/spire/agent/t/banned", &[], 10);
    banned.serial = None;
    let mut again = node("/spire/agent/t/again", &[], 10);
    again.can_reattest = true;
    let mut registry =
        registry(vec![Row::Node(banned), Row::Node(again), Row::Node(node("/spire/agent/t/once", &[], 10))]);
    let (plan, count) = nodes::prune(&registry, NOW, Timestamp::from_secs(11), false, 10);
    assert_eq!(count, 1);
    commit(&mut registry, &plan);
    let (_, count) = nodes::prune(&registry, NOW, Timestamp::from_secs(11), true, 10);
    assert_eq!((count, registry.node_count()), (1, 2));
}

fn prepared(slot: Slot, key: &str) -> Prepared {
    Prepared {
        kind: AuthorityKind::Jwt,
        holder: Holder::Server("s".into()),
        slot,
        id: key.into(),
        public: Arc::from([9u8]),
        issued_at: NOW,
        not_after: Timestamp(9_000_000),
    }
}

fn state_of(registry: &Registry, slot: Slot) -> Option<Authority> {
    registry.authority(AuthorityKind::Jwt, &Holder::Server("s".into()), slot).cloned()
}

#[test]
fn an_authority_is_published_with_its_bundle_before_it_can_sign() {
    let mut registry = Registry::new();
    let holder = Holder::Server("s".into());
    let activate = |r: &Registry, slot, key: &str| {
        authorities::activate(r, NOW, "server", (AuthorityKind::Jwt, &holder), slot, &key.into())
    };
    assert!(matches!(activate(&registry, Slot::A, "k1").1, Err(SlotError::Changed { .. })));
    let (plan, revision) =
        authorities::publish(&registry, NOW, "server", &domain(), &prepared(Slot::A, "k1"));
    assert_eq!(revision, Ok(Revision(1)));
    commit(&mut registry, &plan);
    assert_eq!(registry.bundle(&domain()).unwrap().jwt_authorities.len(), 1);
    let (plan, outcome) = activate(&registry, Slot::A, "k1");
    assert_eq!(outcome, Ok(()));
    commit(&mut registry, &plan);
    let (plan, outcome) = authorities::publish(&registry, NOW, "server", &domain(), &prepared(Slot::A, "k2"));
    assert_eq!(outcome, Err(SlotError::Signs(Slot::A)));
    assert!(plan.is_empty());
    let (plan, _) = authorities::publish(&registry, NOW, "server", &domain(), &prepared(Slot::B, "k2"));
    commit(&mut registry, &plan);
    let (plan, _) = activate(&registry, Slot::B, "k2");
    commit(&mut registry, &plan);
    assert_eq!(state_of(&registry, Slot::A).unwrap().state, SlotState::Old);
    assert_eq!(state_of(&registry, Slot::B).unwrap().state, SlotState::Active);
    crate::invariants::one_signer_per_holder(&registry).unwrap();
}

#[test]
fn a_slot_with_a_good_prepared_authority_takes_no_other() {
    let mut registry = Registry::new();
    let publish =
        |r: &Registry, key| authorities::publish(r, NOW, "server", &domain(), &prepared(Slot::A, key));
    let (plan, _) = publish(&registry, "k1");
    commit(&mut registry, &plan);
    let (plan, outcome) = publish(&registry, "k2");
    assert!(plan.is_empty() && matches!(outcome, Err(SlotError::Changed { .. })));
    let (_, outcome) = publish(&registry, "k1");
    assert!(outcome.is_ok(), "a write whose answer was lost is repeated");
    let (plan, _) = authorities::taint(&registry, NOW, "me", &domain(), &"k1".into());
    commit(&mut registry, &plan);
    assert!(publish(&registry, "k2").1.is_ok());
}

#[test]
fn only_a_tainted_authority_that_does_not_sign_is_revoked() {
    let mut registry = Registry::new();
    let (plan, _) = authorities::publish(&registry, NOW, "server", &domain(), &prepared(Slot::A, "k1"));
    commit(&mut registry, &plan);
    assert!(!authorities::revoke(&registry, NOW, "me", &domain(), &"k1".into()).1);
    let (plan, found) = authorities::taint(&registry, NOW, "me", &domain(), &"k1".into());
    assert!(found);
    commit(&mut registry, &plan);
    assert!(registry.bundle(&domain()).unwrap().jwt_authorities[0].tainted);
    let (plan, found) = authorities::revoke(&registry, NOW, "me", &domain(), &"k1".into());
    assert!(found);
    commit(&mut registry, &plan);
    assert!(registry.bundle(&domain()).unwrap().jwt_authorities.is_empty());
    assert!(state_of(&registry, Slot::A).is_none());
}

#[test]
fn an_audit_row_too_many_or_of_nothing_is_found() {
    let one =
        |sel: &[&str]| entries::create(&registry(vec![]), NOW, "admin", &[new("/w", "/n", sel)], &fresh(1)).0;
    let plan = one(&["unix:uid:1"]);
    inv8_every_change_is_audited_once(&plan).unwrap();

    let mut twice = plan.clone();
    twice.audit.extend(plan.audit.clone());
    assert_eq!(inv8_every_change_is_audited_once(&twice).unwrap_err().number, 8);
    inv8_every_change_is_audited(&twice).unwrap();

    let mut of_nothing = plan.clone();
    of_nothing.audit.extend(plan.audit.iter().map(|row| AuditRow { subject: "other".into(), ..row.clone() }));
    assert_eq!(inv8_every_change_is_audited(&of_nothing).unwrap_err().number, 8);

    let silent = Plan { audit: Vec::new(), ..plan };
    assert_eq!(inv8_every_change_is_audited(&silent).unwrap_err().number, 8);
}
