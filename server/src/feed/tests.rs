//! Rules of what watching agents are told, one per test, on a real store.

use std::path::Path;

use avouch_domain::fixtures::{domain, entry, id, set};
use avouch_domain::limits::AWAY_MAX;
use avouch_domain::{Holder, Now, Tick};
use avouch_engine::plan::{entries, nodes};
use avouch_store::Store;

use super::*;

const AGENT: &str = "/spire/agent/t/1";
const LONG: std::time::Duration = std::time::Duration::from_secs(60);

thread_local! {
    /// The monotonic clock of a test, in milliseconds.
    static MONO: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn clock() -> Now {
    Now { wall: Timestamp(1_000), mono: Tick(MONO.get()) }
}

struct World {
    writer: Writer,
    feed: Feed,
    stop: CancellationToken,
}

impl World {
    fn start() -> Self {
        Self::demanding(None)
    }

    fn demanding(demanded_from: Option<Timestamp>) -> Self {
        let (store, image) = Store::open(Path::new(":memory:"), Timestamp(0)).unwrap();
        let store = Datastore::uncounted(store);
        let stop = CancellationToken::new();
        let registry = Registry::from_image(image).demanding_owners(demanded_from);
        let (writer, _) =
            Writer::start(store.clone(), registry, Holder::Server("s".into()), clock, stop.clone());
        let (feed, _) = Feed::start(&writer, store, domain(), clock, stop.clone());
        Self { writer, feed, stop }
    }

    async fn attest(&self, path: &'static str) {
        let input = nodes::Attested {
            id: id(path),
            kind: "t".into(),
            serial: "1".into(),
            expires_at: Timestamp(1_000_000),
            selectors: set(&[]),
            can_reattest: true,
            token: None,
        };
        let plan = move |r: &Registry| nodes::attest(r, Timestamp(0), "a", &input);
        self.writer.write(plan).await.unwrap().unwrap();
    }

    async fn create(&self, name: &'static str, parent: &'static str) {
        let parts = entry(name, "/x", parent, &[&format!("u:{name}")]).to_parts();
        let item = entries::NewEntry {
            id: Some(parts.id),
            spiffe_id: parts.spiffe_id,
            parent_id: parts.parent_id,
            selectors: parts.selectors,
            x509_svid_ttl: parts.x509_svid_ttl,
            jwt_svid_ttl: parts.jwt_svid_ttl,
            federates_with: vec![],
            admin: false,
            downstream: false,
            expires_at: None,
            dns_names: vec![],
            store_svid: false,
            hint: String::new(),
            disable_x509_svid_prefetch: false,
            jwt_svid_include_jti: false,
        };
        let plan =
            move |r: &Registry| entries::create(r, Timestamp(0), "me", std::slice::from_ref(&item), &[]);
        assert!(self.writer.write(plan).await.unwrap()[0].is_ok());
    }
}

fn upserts(update: &AgentUpdate) -> Vec<String> {
    match &update.kind {
        UpdateKind::Delta { upserts, .. } => upserts.iter().map(|e| e.id.to_string()).collect(),
        UpdateKind::Snapshot { .. } => panic!("expected a delta"),
    }
}

#[tokio::test]
async fn an_agent_hears_of_what_concerns_it_and_of_nothing_else() {
    let world = World::start();
    world.attest(AGENT).await;
    world.create("a", AGENT).await;
    let mut stream = world.feed.follow(&id(AGENT), None, vec![]);
    let first = stream.next(clock).await.unwrap();
    assert_eq!(first.node, Some(NodeChange::Active));
    world.create("foreign", "/spire/agent/t/2").await;
    world.create("b", AGENT).await;
    world.create("c", AGENT).await;
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let update = stream.next(clock).await.unwrap();
        heard.extend(upserts(&update));
    }
    assert_eq!(heard.iter().filter(|e| *e == "b" || *e == "c").count(), 2);
    assert!(!heard.contains(&"foreign".to_owned()));
}

#[tokio::test]
async fn a_returning_agent_gets_only_what_it_missed() {
    let world = World::start();
    world.attest(AGENT).await;
    world.create("a", AGENT).await;
    let mut stream = world.feed.follow(&id(AGENT), None, vec![]);
    let mut held = stream.next(clock).await.unwrap().position;
    while held.revision < Revision(2) {
        held = stream.next(clock).await.unwrap().position;
    }
    drop(stream);
    world.create("b", AGENT).await;
    let mut stream = world.feed.follow(&id(AGENT), Some(held), vec![]);
    let mut update = stream.next(clock).await.unwrap();
    while upserts(&update).is_empty() {
        update = stream.next(clock).await.unwrap();
    }
    assert_eq!((upserts(&update), update.resync), (vec!["b".to_owned()], None));
}

#[tokio::test]
async fn a_ban_is_told_and_a_stop_ends_the_stream() {
    let world = World::start();
    world.attest(AGENT).await;
    let mut stream = world.feed.follow(&id(AGENT), None, vec![]);
    stream.next(clock).await.unwrap();
    let plan = |r: &Registry| nodes::ban(r, Timestamp(0), "me", &id(AGENT));
    world.writer.write(plan).await.unwrap().unwrap();
    let mut told = None;
    while told != Some(NodeChange::Banned) {
        told = stream.next(clock).await.unwrap().node.or(told);
    }
    world.stop.cancel();
    assert_eq!(stream.next(clock).await, None);
}

/// What this stream is told and acknowledges, up to a revision.
async fn follow_to(stream: &mut AgentFeed, revision: u64) {
    let mut told = Revision(0);
    while told < Revision(revision) {
        told = stream.next(clock).await.unwrap().position.revision;
        stream.acknowledge(told);
    }
}

#[tokio::test]
async fn who_follows_confirms_what_it_has_applied_and_nobody_else_is_waited_for() {
    let world = World::start();
    world.attest(AGENT).await;
    world.attest("/spire/agent/t/2").await;
    let both = [id(AGENT), id("/spire/agent/t/2")].into();
    let nobody = world.feed.confirmed(&both, Revision(2), LONG).await;
    assert!(nobody.is_empty(), "neither follows");
    let (mut one, mut other) =
        (world.feed.follow(&id(AGENT), None, vec![]), world.feed.follow(&id(AGENT), None, vec![]));
    let confirmed = world.feed.confirmed(&both, Revision(2), LONG);
    let (confirmed, ()) = tokio::join!(confirmed, async {
        // Served the bundle: that is no stream applied.
        world.feed.acknowledge(&id(AGENT), Revision(2));
        assert_eq!(world.feed.0.state.lock().waiters.len(), 1);
        follow_to(&mut one, 2).await;
    });
    assert_eq!(confirmed.into_keys().collect::<Vec<_>>(), [id(AGENT)]);
    assert!(world.feed.0.state.lock().waiters.is_empty());
    follow_to(&mut other, 2).await;
    let known = world.feed.confirmed(&both, Revision(2), LONG).await;
    assert_eq!(known.len(), 1, "said before anybody asked");
}

#[tokio::test]
async fn who_says_nothing_is_waited_for_so_long_and_nobody_waits_for_ever() {
    let world = World::start();
    world.attest(AGENT).await;
    let _silent = world.feed.follow(&id(AGENT), None, vec![]);
    let agents = [id(AGENT)].into();
    let short = std::time::Duration::from_millis(5);
    assert!(world.feed.confirmed(&agents, Revision(1), short).await.is_empty());
    let given_up =
        tokio::time::timeout(short, world.feed.confirmed(&agents, Revision(1), short * 1000)).await;
    assert!(given_up.is_err());
    assert!(world.feed.0.state.lock().waiters.is_empty(), "whoever has gone waits no more");
}

#[tokio::test]
async fn what_is_not_known_of_renewals_is_not_said() {
    let world = World::start();
    world.attest(AGENT).await;
    assert_eq!(world.feed.renewed(&id(AGENT)), None, "it may follow another server");
    let _stream = world.feed.follow(&id(AGENT), None, vec![]);
    let least = Some(clock().mono + AWAY_MAX);
    assert_eq!(world.feed.renewed(&id(AGENT)), least, "a server before this one may have given it a minute");
    world.feed.renews(&id(AGENT));
    assert_eq!(world.feed.renewed(&id(AGENT)), least, "also if it has asked, and may not have heard");
    world.feed.renews(&id("/spire/agent/t/nobody"));
    assert_eq!(world.feed.0.state.lock().renewed.len(), 1, "only of those who are there");
}

#[tokio::test]
async fn what_a_server_may_have_given_before_counts_on_when_the_stream_breaks() {
    const BEGAN: u64 = 1_000_000;
    let world = World::start();
    world.attest(AGENT).await;
    MONO.set(BEGAN);
    let stream = world.feed.follow(&id(AGENT), None, vec![]);
    MONO.set(BEGAN + 500);
    world.feed.renews(&id(AGENT));
    drop(stream);
    let given = Tick(BEGAN) + AWAY_MAX;
    assert_eq!(world.feed.renewed(&id(AGENT)), Some(given), "it may not have had the answer");
    let again = BEGAN + 100_000;
    MONO.set(again);
    world.feed.renews(&id(AGENT));
    assert_eq!(world.feed.renewed(&id(AGENT)), Some(Tick(again)), "its first question is long answered");
    world.feed.leave(|| world.writer.registry().position().revision).await;
    assert_eq!(world.feed.renewed(&id(AGENT)), Some(Tick(again) + AWAY_MAX), "it may have been told");
}

#[tokio::test]
async fn only_who_has_applied_everything_is_told_that_the_server_goes_away() {
    let world = World::start();
    let revision = || world.writer.registry().position().revision;
    world.attest(AGENT).await;
    let mut stream = world.feed.follow(&id(AGENT), None, vec![]);
    let mut told = stream.next(clock).await.unwrap().position.revision;
    while told < revision() {
        told = stream.next(clock).await.unwrap().position.revision;
    }
    stream.acknowledge(told);
    assert!(!stream.may_be_left(), "it does not go away");
    world.feed.leave(revision).await;
    assert!(stream.may_be_left());
    world.create("e1", AGENT).await;
    while world.feed.0.state.lock().present.position().revision < revision() {
        tokio::task::yield_now().await;
    }
    assert!(!stream.may_be_left(), "it has still to be told something");
    let told = stream.next(clock).await.unwrap().position.revision;
    assert!(!stream.may_be_left(), "it was told, and may not have applied it");
    stream.acknowledge(told);
    assert!(stream.may_be_left());
}

#[tokio::test]
async fn a_dropped_stream_leaves_nothing_behind() {
    let world = World::start();
    let stream = world.feed.follow(&id(AGENT), None, vec![]);
    assert_eq!(world.feed.followers(), 1);
    drop(stream);
    assert_eq!(world.feed.followers(), 0);
}

#[tokio::test]
async fn an_authority_is_known_everywhere_once_every_live_agent_has_said_so() {
    let world = World::start();
    assert!(world.feed.known_everywhere(Timestamp(0), Revision(1)), "nobody to wait for");
    world.attest(AGENT).await;
    let mut stream = world.feed.follow(&id(AGENT), None, vec![]);
    let mut update = stream.next(clock).await.unwrap();
    while update.position.revision < Revision(1) {
        update = stream.next(clock).await.unwrap();
    }
    assert!(!world.feed.known_everywhere(Timestamp(0), Revision(1)));
    stream.acknowledge(Revision(99));
    assert!(world.feed.known_everywhere(Timestamp(0), Revision(1)));
    assert!(!world.feed.known_everywhere(Timestamp(0), Revision(2)), "nobody can know the future");
    assert!(
        world.feed.known_everywhere(Timestamp(1_000_000), Revision(2)),
        "an ended agent is not waited for"
    );
}

#[tokio::test]
async fn who_has_time_goes_on_as_soon_as_nobody_waits_for_agents() {
    let world = World::start();
    world.attest(AGENT).await;
    let mut stream = world.feed.follow(&id(AGENT), None, vec![]);
    stream.next(clock).await.unwrap();
    world.feed.unwaited().await;
    let (feed, agents) = (world.feed.clone(), BTreeSet::from([id(AGENT)]));
    let waits = tokio::spawn(async move { feed.confirmed(&agents, Revision(2), LONG).await });
    while world.feed.0.state.lock().waiters.is_empty() {
        tokio::task::yield_now().await;
    }
    let mut unwaited = Box::pin(world.feed.unwaited());
    let at_once = tokio::time::timeout(std::time::Duration::ZERO, &mut unwaited).await;
    assert!(at_once.is_err(), "somebody waits");
    world.create("a", AGENT).await;
    follow_to(&mut stream, 2).await;
    assert_eq!(waits.await.unwrap().len(), 1);
    unwaited.await;
}

#[tokio::test]
async fn a_stream_that_reads_too_slowly_is_told_to_begin_anew_and_holds_no_past() {
    let world = World::start();
    world.attest(AGENT).await;
    let mut stream = world.feed.follow(&id(AGENT), None, vec![]);
    stream.next(clock).await.unwrap();
    world.create("a", AGENT).await;
    let behind = || world.feed.0.state.lock().behind.len();
    let advanced = async |to: u64| {
        while world.feed.0.state.lock().present.position().revision < Revision(to) {
            tokio::task::yield_now().await;
        }
    };
    advanced(2).await;
    assert_eq!(behind(), 1, "one registry waits for the reader");
    for n in 0..KEPT {
        world.attest(Box::leak(format!("/spire/agent/t/x{n}").into_boxed_str())).await;
    }
    world.create("b", AGENT).await;
    advanced(KEPT as u64 + 3).await;
    assert_eq!(behind(), 0, "nothing old is kept for it");
    let update = stream.next(clock).await.unwrap();
    assert_eq!(update.resync, Some(Resync::Behind("the agent reads too slowly")));
    let UpdateKind::Snapshot { entries, .. } = update.kind else { panic!("expected a snapshot") };
    assert_eq!(entries.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    world.create("c", AGENT).await;
    assert_eq!(upserts(&stream.next(clock).await.unwrap()), ["c"], "from there on it goes as before");
}

#[tokio::test]
async fn what_a_dropped_stream_had_still_to_be_told_is_forgotten() {
    let world = World::start();
    world.attest(AGENT).await;
    let mut stream = world.feed.follow(&id(AGENT), None, vec![]);
    stream.next(clock).await.unwrap();
    world.create("a", AGENT).await;
    while world.feed.0.state.lock().behind.is_empty() {
        tokio::task::yield_now().await;
    }
    drop(stream);
    assert!(world.feed.0.state.lock().behind.is_empty());
}

#[tokio::test]
async fn what_a_deleted_agent_had_said_does_not_count_for_its_successor() {
    let world = World::start();
    world.attest(AGENT).await;
    let seen = async |revision: u64| {
        let mut stream = world.feed.follow(&id(AGENT), None, vec![]);
        let mut update = stream.next(clock).await.unwrap();
        while update.position.revision < Revision(revision) {
            update = stream.next(clock).await.unwrap();
        }
        stream
    };
    seen(1).await.acknowledge(Revision(1));
    assert!(world.feed.known_everywhere(Timestamp(0), Revision(1)));
    let delete = |r: &Registry| nodes::delete(r, Timestamp(0), "me", &id(AGENT));
    world.writer.write(delete).await.unwrap().unwrap();
    drop(seen(2).await);
    world.attest(AGENT).await;
    drop(seen(3).await);
    assert!(!world.feed.known_everywhere(Timestamp(0), Revision(1)));
}

#[tokio::test]
async fn who_is_to_begin_anew_is_told_what_it_may_keep_and_nobody_else_hears_of_it() {
    // The clock of these tests stands at this very moment: nothing here has an owner.
    let world = World::demanding(Some(Timestamp(1_000)));
    let early = || Now { wall: Timestamp(999), mono: Tick(0) };
    world.attest(AGENT).await;
    world.create("a", AGENT).await;
    let mut stream = world.feed.follow(&id(AGENT), None, vec![]);
    let first = stream.next(early).await.unwrap();
    assert!(matches!(first.kind, UpdateKind::Snapshot { .. }), "{first:?}");
    world.feed.begin_anew(&BTreeSet::from([id("/spire/agent/t/2")]), "another");
    world.feed.begin_anew(&BTreeSet::from([id(AGENT)]), "owners are demanded");
    loop {
        let update = stream.next(clock).await.unwrap();
        // What was committed before may come first.
        if let Some(resync) = update.resync {
            assert_eq!(resync, Resync::Behind("owners are demanded"));
            assert_eq!(update.kind, UpdateKind::Snapshot { entries: vec![], unchanged: vec![] });
            return;
        }
    }
}
