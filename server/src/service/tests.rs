//! Rules of the use cases, one per test, on a real store and real keys.

use std::path::Path;
use std::time::Duration;

use avouch_credential::key::PrivateKey;
use avouch_credential::ledger::read_line;
use avouch_credential::x509::csr::{CsrTemplate, build};
use avouch_credential::x509::facts::CertFacts;
use avouch_credential::x509::name::Name;
use avouch_credential::x509::verify::{TrustRoots, verify_svid};
use avouch_domain::fixtures::{domain, id, selectors};
use avouch_domain::{EntryId, KeyType, Now, Tick, Ttl};
use avouch_store::Store;

use super::*;
use crate::keys::disk::DiskKeys;
use crate::keys::memory::MemoryKeys;

const NOW: Now = Now { wall: Timestamp(1_800_000_000_000), mono: Tick(0) };

fn clock() -> Now {
    NOW
}

fn settings() -> Settings {
    Settings {
        ca_ttl: Duration::from_secs(86_400),
        agent_ttl: Duration::from_secs(3600),
        x509_svid_ttl: Duration::from_secs(3600),
        jwt_svid_ttl: Duration::from_secs(300),
        ca_key_type: KeyType::EcP256,
        jwt_key_type: KeyType::EcP256,
        ca_subject: Name::ca_default(),
        jwt_issuer: String::new(),
        jwt_disabled: false,
        agent_spiffe_id_as_selector: false,
        prune_attested_nodes_expired_for: None,
        prune_tofu_nodes: false,
        prune_attested_nodes_batch_size: 1000,
        owners_demanded_from: None,
    }
}

pub(super) fn parts(path: &Path, name: &str, keys: Arc<dyn KeyManager>, clock: Clock) -> Parts {
    let (store, image) = Store::open(path, clock().wall).unwrap();
    Parts {
        store: Datastore::uncounted(store),
        image,
        trust_domain: domain(),
        server_name: name.into(),
        keys,
        settings: settings(),
        verifiers: vec![],
        clock,
        stop: CancellationToken::new(),
    }
}

async fn start(path: &Path, name: &str, keys: Arc<dyn KeyManager>) -> (Services, CancellationToken) {
    let parts = parts(path, name, keys, clock);
    let stop = parts.stop.clone();
    (Services::start(parts).await.unwrap(), stop)
}

/// Fresh services in memory with a clock of the test's own.
pub(super) async fn start_with(clock: Clock) -> (Services, CancellationToken) {
    let parts = parts(Path::new(":memory:"), "s", Arc::new(MemoryKeys::new()), clock);
    let stop = parts.stop.clone();
    (Services::start(parts).await.unwrap(), stop)
}

async fn fresh() -> (Services, CancellationToken) {
    start(Path::new(":memory:"), "s", Arc::new(MemoryKeys::new())).await
}

pub(super) fn csr() -> Vec<u8> {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    build(&CsrTemplate { subject: &Name::svid_default(), id: None, dns_names: &[] }, &key).unwrap()
}

pub(super) fn workload(path: &str, parent: SpiffeId) -> NewEntry {
    NewEntry {
        id: None,
        spiffe_id: id(path),
        parent_id: parent,
        selectors: selectors(&["unix:uid:0"]),
        x509_svid_ttl: Ttl(0),
        jwt_svid_ttl: Ttl(0),
        federates_with: vec![],
        admin: false,
        downstream: false,
        expires_at: None,
        dns_names: vec![],
        store_svid: false,
        hint: String::new(),
        disable_x509_svid_prefetch: false,
        jwt_svid_include_jti: false,
    }
}

pub(super) fn by_token(token: &str, csr: Vec<u8>) -> AttestRequest {
    AttestRequest { kind: "join_token".into(), payload: token.as_bytes().to_vec(), csr, peer: None }
}

pub(super) async fn join(services: &Services) -> Attested {
    join_at(services, NOW).await
}

pub(super) async fn join_at(services: &Services, now: Now) -> Attested {
    let wanted = NewJoinToken { token: None, ttl: 600, agent_id: None };
    let token = services.create_join_token(now, "me", wanted).await.unwrap().unwrap();
    match services.attest(now, by_token(&token.token, csr())).await.unwrap() {
        AttestStep::Done(attested) => attested,
        AttestStep::Challenge(..) => panic!("a token needs no challenge"),
    }
}

#[tokio::test]
async fn from_a_join_token_to_a_workload_svid_that_verifies() {
    let (services, _stop) = fresh().await;
    let agent = join(&services).await.svid;
    assert_eq!(services.authorize_agent(NOW, &agent.id, &agent.serial).await, Ok(Ok(())));
    let items = vec![workload("/web", agent.id.clone())];
    let entry = services.create_entries(NOW, "me", items).await.unwrap().remove(0).unwrap();
    let params = vec![
        X509Param { entry_id: entry.id.to_string(), csr: csr() },
        X509Param { entry_id: "nope".into(), csr: csr() },
        X509Param { entry_id: entry.id.to_string(), csr: vec![1, 2, 3] },
    ];
    let mut issued = services.batch_new_x509_svid(NOW, &agent.id, params).await;
    assert!(matches!(issued.pop(), Some(Err(X509ItemError::MalformedCsr(_)))));
    assert_eq!(issued.pop(), Some(Err(X509ItemError::NotAuthorized)));
    let svid = issued.pop().unwrap().unwrap();
    let roots = TrustRoots::new(&services.bundle().x509_authorities);
    assert_eq!(verify_svid(&svid.chain, &roots, &domain(), NOW.wall).unwrap(), id("/web"));
    let jwt = services.new_jwt_svid(NOW, &agent.id, entry.id.as_str(), vec!["aud".into()]).await.unwrap();
    assert_eq!((jwt.id, jwt.expires_at.secs()), (id("/web"), NOW.wall.secs() + 300));
}

#[tokio::test]
async fn a_bad_request_for_an_svid_does_not_burn_the_token() {
    let (services, _stop) = fresh().await;
    let wanted = NewJoinToken { token: Some("t1".into()), ttl: 600, agent_id: None };
    services.create_join_token(NOW, "me", wanted).await.unwrap().unwrap();
    assert!(matches!(services.attest(NOW, by_token("t1", vec![0; 9])).await, Err(AttestError::Csr(_))));
    assert!(services.attest(NOW, by_token("t1", csr())).await.is_ok());
    let again = services.attest(NOW, by_token("t1", csr())).await.unwrap_err();
    assert_eq!(again.to_string(), "failed to attest: join token does not exist or has already been used");
}

#[tokio::test]
async fn two_agents_with_one_token_race_and_one_joins() {
    let (services, _stop) = fresh().await;
    let wanted = NewJoinToken { token: Some("t1".into()), ttl: 600, agent_id: None };
    services.create_join_token(NOW, "me", wanted).await.unwrap().unwrap();
    let (a, b) = tokio::join!(
        services.attest(NOW, by_token("t1", csr())),
        services.attest(NOW, by_token("t1", csr()))
    );
    assert!(a.is_ok() != b.is_ok());
}

#[tokio::test]
async fn a_renewed_svid_replaces_the_old_one_at_its_first_use() {
    let (services, _stop) = fresh().await;
    let old = join(&services).await.svid;
    let new = services.renew_agent(NOW, &old.id, &csr()).await.unwrap();
    let check = async |serial: &str| services.authorize_agent(NOW, &old.id, serial).await.unwrap();
    assert_eq!(check(&old.serial).await, Ok(()));
    assert_eq!(check(&new.serial).await, Ok(()));
    assert_eq!(check(&old.serial).await, Err(AgentRefusal::NotActive));
    services.ban_agent(NOW, "me", &old.id).await.unwrap().unwrap();
    assert_eq!(check(&new.serial).await, Err(AgentRefusal::Banned));
}

#[tokio::test]
async fn a_restart_with_keys_on_disk_keeps_the_authorities() {
    let folder = tempfile::tempdir().unwrap();
    let (path, keys) = (folder.path().join("store"), folder.path().join("keys.json"));
    let (services, stop) = start(&path, "s", Arc::new(DiskKeys::beside(&keys))).await;
    let before = (services.ca().facts(), services.bundle());
    stop.cancel();
    let (services, _stop) = start(&path, "s", Arc::new(DiskKeys::beside(&keys))).await;
    let after = (services.ca().facts(), services.bundle());
    assert_eq!(before.0.x509_authority_id, after.0.x509_authority_id);
    assert_eq!(before.0.jwt_key_id, after.0.jwt_key_id);
    assert_eq!(before.1, after.1);
    assert_eq!(after.1.sequence_number, 1);
}

#[tokio::test]
async fn a_restart_without_its_keys_makes_new_authorities_and_keeps_trusting_the_old() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let (services, stop) = start(&path, "s", Arc::new(MemoryKeys::new())).await;
    let old = services.ca().facts().x509_authority_id;
    stop.cancel();
    let (services, _stop) = start(&path, "s", Arc::new(MemoryKeys::new())).await;
    assert_ne!(services.ca().facts().x509_authority_id, old);
    assert_eq!(services.bundle().x509_authorities.len(), 2);
    avouch_engine::invariants::one_signer_per_holder(&services.registry()).unwrap();
}

#[tokio::test]
async fn two_servers_on_one_store_trust_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let (one, _s1) = start(&path, "one", Arc::new(MemoryKeys::new())).await;
    let (two, _s2) = start(&path, "two", Arc::new(MemoryKeys::new())).await;
    // A write makes the first follow the log.
    let made = one.create_entries(NOW, "me", vec![workload("/a", id("/p"))]).await.unwrap();
    assert!(made[0].is_ok());
    for server in [&one, &two] {
        let roots = TrustRoots::new(&server.bundle().x509_authorities);
        for other in [&one, &two] {
            let chain = other.ca().facts().server_svid_chain;
            assert_eq!(verify_svid(&chain, &roots, &domain(), NOW.wall).unwrap(), id("/spire/server"));
        }
        assert_eq!(server.bundle().jwt_authorities.len(), 2);
    }
}

#[tokio::test]
async fn a_minted_svid_says_what_the_admin_asked_within_the_trust_domain() {
    let (services, _stop) = fresh().await;
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let subject = Name::svid_default();
    let request = |spiffe_id: &SpiffeId| {
        let names = ["a.example.org".to_owned()];
        build(&CsrTemplate { subject: &subject, id: Some(spiffe_id), dns_names: &names }, &key).unwrap()
    };
    let svid = services.mint_x509_svid(NOW, &request(&id("/w")), Ttl(60)).await.unwrap();
    let facts = CertFacts::parse(&svid.chain[0]).unwrap();
    assert_eq!(
        (facts.common_name.as_deref(), facts.serial_decimal),
        (Some("a.example.org"), svid.serial.to_string())
    );
    let foreign = SpiffeId::parse("spiffe://other.org/w").unwrap();
    for refused in [id("/spire/agent/x"), foreign] {
        let minted = services.mint_x509_svid(NOW, &request(&refused), Ttl(0)).await;
        assert!(matches!(minted, Err(MintX509Error::Id(_))), "{refused}");
    }
    let jwt = services.mint_jwt_svid(NOW, &id("/w"), vec![String::new()], Ttl(0)).await;
    assert_eq!(jwt, Err(JwtError::EmptyAudience));
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repeat() {
    let (services, _stop) = fresh().await;
    let items = (0..5).map(|i| workload(&format!("/w{i}"), id("/p"))).collect();
    services.create_entries(NOW, "me", items).await.unwrap();
    let filter = EntryFilter { parent_id: Some(id("/p")), ..EntryFilter::default() };
    let mut page = PageRequest { size: 2, token: String::new() };
    let mut seen: Vec<EntryId> = Vec::new();
    loop {
        let got = services.list_entries(&filter, &page).unwrap();
        seen.extend(got.items.iter().map(|e| e.id.clone()));
        if got.next_token.is_empty() {
            break;
        }
        page.token = got.next_token;
    }
    assert!(seen.len() == 5 && seen.is_sorted());
    let bad = PageRequest { size: 2, token: "a b".into() };
    assert_eq!(services.list_entries(&filter, &bad), Err(BadToken("a b".into())));
}

#[tokio::test]
async fn every_change_has_its_records_in_its_own_revision() {
    let parts = parts(Path::new(":memory:"), "s", Arc::new(MemoryKeys::new()), clock);
    let store = parts.store.clone();
    let services = Services::start(parts).await.unwrap();
    let wanted = NewJoinToken { token: Some("t".into()), ttl: 600, agent_id: Some(id("/alias")) };
    services.create_join_token(NOW, "me", wanted).await.unwrap().unwrap();
    let AttestStep::Done(agent) = services.attest(NOW, by_token("t", csr())).await.unwrap() else { panic!() };
    let agent = agent.svid.id;
    let new = services.renew_agent(NOW, &agent, &csr()).await.unwrap();
    services.authorize_agent(NOW, &agent, &new.serial).await.unwrap().unwrap();
    services.post_status(NOW, &agent, "1.2").await.unwrap().unwrap();
    let foreign = avouch_domain::TrustDomain::new("other.org").unwrap();
    let bundle = avouch_domain::Bundle::empty(foreign.clone());
    services.create_federated_bundles(NOW, "me", vec![bundle.clone()]).await.unwrap().remove(0).unwrap();
    let bundle = avouch_domain::Bundle { refresh_hint: 7, ..bundle };
    services.set_federated_bundles(NOW, "me", vec![bundle]).await.unwrap().remove(0).unwrap();
    let entry = NewEntry { federates_with: vec![foreign.clone()], ..workload("/w", agent.clone()) };
    let entry = services.create_entries(NOW, "me", vec![entry]).await.unwrap().remove(0).unwrap();
    let patch = EntryPatch { hint: Some("h".into()), ..EntryPatch::empty(entry.id.clone()) };
    services.update_entries(NOW, "me", vec![patch]).await.unwrap().remove(0).unwrap();
    let dissociate = services.delete_federated_bundles(NOW, "me", vec![foreign], DeleteMode::Dissociate);
    dissociate.await.unwrap().remove(0).unwrap();
    services.delete_entries(NOW, "me", vec![entry.id.clone()]).await.unwrap().remove(0).unwrap();
    services.ban_agent(NOW, "me", &agent).await.unwrap().unwrap();
    services.delete_agent(NOW, "me", &agent).await.unwrap().unwrap();
    let root = services.bundle().x509_authorities[0].clone();
    let other = start(Path::new(":memory:"), "o", Arc::new(MemoryKeys::new())).await.0;
    services
        .append_bundle(NOW, "me", vec![other.bundle().x509_authorities[0].clone(), root], vec![])
        .await
        .unwrap();

    let records = store.records(0, 10_000).await.unwrap().records;
    let told: std::collections::BTreeSet<u64> =
        records.iter().map(|record| read_line(&record.line).unwrap().revision).collect();
    let last = services.registry().position().revision.0;
    assert!(last >= 16, "{last}");
    let silent: Vec<_> = (1..=last).filter(|revision| !told.contains(revision)).collect();
    assert!(silent.is_empty(), "revisions without a record: {silent:?} of {last}");
}

#[tokio::test]
async fn a_store_of_another_trust_domain_is_refused_and_its_keys_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = (folder.path().join("store"), folder.path().join("keys.json"));
    let (_, stop) = start(&path, "s", Arc::new(DiskKeys::beside(&file))).await;
    stop.cancel();
    let before = std::fs::read(&file).unwrap();
    let mut parts = parts(&path, "s", Arc::new(DiskKeys::beside(&file)), clock);
    parts.trust_domain = avouch_domain::TrustDomain::new("other.org").unwrap();
    let refused = Services::start(parts).await.unwrap_err().to_string();
    assert!(refused.contains("belongs to trust domain example.org"), "{refused}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}
