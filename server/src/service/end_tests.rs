//! Ends by time, one rule per test: entries, join tokens, nodes and SVIDs are over at their second, whether or not
//! their rows are still there.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use avouch_domain::fixtures::id;
use avouch_domain::{EntryId, Now};

use super::tests::{by_token, csr, join, join_at, parts, start_with, workload};
use super::*;
use crate::keys::memory::MemoryKeys;

const START: Timestamp = Timestamp(1_800_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

thread_local! {
    static WALL: Cell<Timestamp> = const { Cell::new(START) };
}

fn clock() -> Now {
    Now { wall: WALL.get(), ..at(START) }
}

fn at(wall: Timestamp) -> Now {
    Now { wall, mono: avouch_domain::Tick(0) }
}

/// Services whose clock stands still unless a test moves it: nothing is pruned by itself.
async fn standing() -> (Services, CancellationToken) {
    WALL.set(START);
    start_with(clock).await
}

async fn with_entry(services: &Services, ends: Timestamp) -> (SpiffeId, EntryId) {
    let agent = join(services).await.svid.id;
    let mut item = workload("/web", agent.clone());
    item.expires_at = Some(ends);
    let entry = services.create_entries(at(START), "me", vec![item]).await.unwrap().remove(0).unwrap();
    (agent, entry.id.clone())
}

#[tokio::test]
async fn an_entry_gives_nothing_from_its_second_on_although_its_row_is_there() {
    let (services, _stop) = standing().await;
    let end = START + MINUTE;
    let (agent, entry) = with_entry(&services, end).await;
    for (wall, gives) in [(Timestamp(end.0 - 1), true), (end, false)] {
        let now = at(wall);
        let param = X509Param { entry_id: entry.to_string(), csr: csr() };
        let x509 = services.batch_new_x509_svid(now, &agent, vec![param]).await.remove(0);
        let jwt = services.new_jwt_svid(now, &agent, entry.as_str(), vec!["a".into()]).await;
        let listed = services.authorized(wall, &agent).entries().len();
        assert_eq!((x509.is_ok(), jwt.is_ok(), listed), (gives, gives, usize::from(gives)), "{wall:?}");
        if !gives {
            assert_eq!(x509, Err(X509ItemError::NotAuthorized));
            assert_eq!(jwt, Err(JwtError::NotAuthorized));
        }
    }
    assert!(services.registry().entry(&entry).is_some(), "the row is still there");
}

#[tokio::test]
async fn an_admin_entry_makes_no_admin_from_its_second_on() {
    let (services, _stop) = standing().await;
    let end = START + MINUTE;
    let mut item = workload("/boss", id("/p"));
    (item.admin, item.expires_at) = (true, Some(end));
    services.create_entries(at(START), "me", vec![item]).await.unwrap().remove(0).unwrap();
    assert_eq!(services.caller_entries(Timestamp(end.0 - 1), &id("/boss")).len(), 1);
    assert_eq!(services.caller_entries(end, &id("/boss")).len(), 0);
}

#[tokio::test]
async fn the_end_of_an_entry_is_pushed_to_its_agent_when_it_comes() {
    let (services, _stop) = start_with(crate::clock::now).await;
    let now = crate::clock::now();
    let agent = join_at(&services, now).await.svid.id;
    let mut item = workload("/web", agent.clone());
    item.expires_at = Some(now.wall + Duration::from_millis(300));
    let entry = services.create_entries(now, "me", vec![item]).await.unwrap().remove(0).unwrap();
    let mut feed = services.follow(now.wall, &agent, None, Vec::new());
    feed.next(crate::clock::now).await.unwrap();
    let update = tokio::time::timeout(Duration::from_secs(20), feed.next(crate::clock::now)).await;
    let kind = update.expect("nothing was pushed").unwrap().kind;
    assert_eq!(kind, UpdateKind::Delta { upserts: vec![], removed: vec![entry.id.clone()] });
    assert!(crate::clock::now().wall >= now.wall + Duration::from_millis(300), "not before its time");
}

#[tokio::test]
async fn the_moment_from_which_owners_are_demanded_takes_from_its_agent_what_nobody_owns() {
    let mut parts = parts(Path::new(":memory:"), "s", Arc::new(MemoryKeys::new()), crate::clock::now);
    let from = crate::clock::now().wall + Duration::from_secs(2);
    parts.settings.owners_demanded_from = Some(from);
    let services = Services::start(parts).await.unwrap();
    let now = crate::clock::now();
    let agent = join_at(&services, now).await.svid.id;
    let entry = workload("/web", agent.clone());
    let entry = services.create_entries(now, "me", vec![entry]).await.unwrap().remove(0).unwrap();
    let mut feed = services.follow(now.wall, &agent, None, Vec::new());
    let emptied = async {
        loop {
            let update = feed.next(crate::clock::now).await.unwrap();
            if update.kind == (UpdateKind::Snapshot { entries: vec![], unchanged: vec![] }) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), emptied).await.expect("nothing was pushed");
    assert!(crate::clock::now().wall >= from, "not before its time");
    assert!(services.registry().entry(&entry.id).is_some(), "the row is still there");
}

#[tokio::test]
async fn a_late_guessed_or_used_token_admits_nobody_and_says_which_it_is() {
    let (services, _stop) = standing().await;
    let wanted = NewJoinToken { token: Some("t1".into()), ttl: 60, agent_id: None };
    services.create_join_token(at(START), "me", wanted.clone()).await.unwrap().unwrap();
    let end = START + MINUTE;
    let text = async |now: Now, token: &str| match services.attest(now, by_token(token, csr())).await {
        Ok(_) => "joined".to_owned(),
        Err(e) => e.to_string(),
    };
    let unknown = "failed to attest: join token does not exist or has already been used";
    assert_eq!(text(at(end), "t1").await, "join token expired");
    assert_eq!(text(at(end), "t2").await, unknown);
    assert_eq!(text(at(end), "").await, unknown);
    assert_eq!(text(at(end), "../../server").await, unknown);
    assert_eq!(text(at(Timestamp(end.0 - 1)), "t1").await, "joined");
    assert_eq!(text(at(Timestamp(end.0 - 1)), "t1").await, unknown);
}

#[tokio::test]
async fn a_token_whose_text_makes_no_id_is_refused_by_that_reason_and_kept() {
    let (services, _stop) = standing().await;
    let wanted = NewJoinToken { token: Some("a b".into()), ttl: 60, agent_id: None };
    services.create_join_token(at(START), "me", wanted).await.unwrap().unwrap();
    for _ in 0..2 {
        let refused = services.attest(at(START), by_token("a b", csr())).await.unwrap_err();
        assert!(refused.to_string().starts_with("failed to create join token ID: "), "{refused}");
    }
    assert_eq!(services.counts().agents, 0);
}

#[tokio::test]
async fn an_ended_token_is_remembered_for_a_day_and_its_text_may_be_given_anew() {
    use crate::limits::TOKEN_KEPT;
    let (services, _stop) = standing().await;
    let wanted = NewJoinToken { token: Some("t1".into()), ttl: 60, agent_id: None };
    services.create_join_token(at(START), "me", wanted.clone()).await.unwrap().unwrap();
    let again = services.create_join_token(at(START), "me", wanted.clone()).await.unwrap();
    assert!(matches!(again, Err(JoinTokenError::Duplicate)));
    let end = START + MINUTE;
    let known = |services: &Services| services.registry().token(&avouch_store::sha256(b"t1")).is_some();
    WALL.set(Timestamp((end + TOKEN_KEPT).0 - 1));
    // A write wakes the pruner.
    services.create_entries(clock(), "me", vec![workload("/a", id("/p"))]).await.unwrap();
    tokio::task::yield_now().await;
    assert!(known(&services));
    WALL.set(end + TOKEN_KEPT);
    let mut positions = services.subscribe();
    services.create_entries(clock(), "me", vec![workload("/b", id("/p"))]).await.unwrap();
    while known(&services) {
        positions.changed().await.unwrap();
    }
    let anew = services.create_join_token(at(end), "me", wanted).await.unwrap();
    assert!(anew.is_ok());
}

#[tokio::test]
async fn a_node_and_its_renewed_svid_end_at_their_second() {
    let (services, _stop) = standing().await;
    let old = join(&services).await.svid;
    let later = START + Duration::from_secs(1800);
    let new = services.renew_agent(at(later), &old.id, &csr()).await.unwrap();
    let check = async |wall: Timestamp, serial: &str| {
        services.authorize_agent(at(wall), &old.id, serial).await.unwrap()
    };
    assert_eq!(check(Timestamp(old.expires_at.0 - 1), &old.serial).await, Ok(()));
    assert_eq!(check(old.expires_at, &old.serial).await, Err(AgentRefusal::Expired));
    assert_eq!(check(new.expires_at, &new.serial).await, Err(AgentRefusal::Expired));
    assert_eq!(check(Timestamp(new.expires_at.0 - 1), &new.serial).await, Ok(()));
    assert_eq!(check(old.expires_at, &old.serial).await, Err(AgentRefusal::NotActive));
    assert_eq!(check(new.expires_at, &new.serial).await, Err(AgentRefusal::Expired));
}

#[tokio::test]
async fn no_svid_outlives_the_authority_that_signs_it() {
    let (services, _stop) = standing().await;
    let (agent, entry) = with_entry(&services, START + Duration::from_secs(10 * 86_400)).await;
    let facts = services.ca().facts();
    let late = at(facts.x509_not_after - MINUTE);
    let param = X509Param { entry_id: entry.to_string(), csr: csr() };
    let x509 = services.batch_new_x509_svid(late, &agent, vec![param]).await.remove(0).unwrap();
    assert_eq!(x509.expires_at, facts.x509_not_after);
    let jwt = services.new_jwt_svid(late, &agent, entry.as_str(), vec!["a".into()]).await.unwrap();
    assert!(jwt.expires_at <= facts.jwt_not_after);
}
