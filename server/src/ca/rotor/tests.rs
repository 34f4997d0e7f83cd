//! Rotation with a real store and real keys, turn by turn, on a clock that the test sets.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use avouch_domain::fixtures::{domain, node};
use avouch_domain::{Image, KeyType, Now, Row, Tick};
use avouch_engine::Registry;
use avouch_store::Store;

use super::orders::{Given, order_queue};
use super::*;
use crate::datastore::Datastore;
use crate::keys::disk::DiskKeys;
use crate::keys::memory::MemoryKeys;
use crate::keys::{KeyError, KeyManager};
use crate::settings::Settings;

const START: Timestamp = Timestamp(1_800_000_000_000);
const CA_TTL: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

thread_local! {
    static WALL: Cell<Timestamp> = const { Cell::new(START) };
}

/// Both clocks run alike here.
fn clock() -> Now {
    let mono = WALL.get().since(START).as_millis();
    Now { wall: WALL.get(), mono: Tick(u64::try_from(mono).unwrap()) }
}

/// Keys whose disk may fail.
#[derive(Debug)]
struct Flaky {
    inner: MemoryKeys,
    broken: AtomicBool,
}

impl Flaky {
    fn check(&self) -> Result<(), KeyError> {
        match self.broken.load(Ordering::Relaxed) {
            true => Err(KeyError::Key("the disk is full".into())),
            false => Ok(()),
        }
    }
}

impl KeyManager for Flaky {
    fn generate(&self, id: &str, key_type: KeyType) -> Result<Arc<dyn Signer>, KeyError> {
        self.check()?;
        self.inner.generate(id, key_type)
    }
    fn get(&self, id: &str) -> Option<Arc<dyn Signer>> {
        self.inner.get(id)
    }
    fn remove(&self, id: &str) -> Result<(), KeyError> {
        self.check()?;
        self.inner.remove(id)
    }
}

struct World {
    rotor: Rotor,
    ca: Ca,
    writer: Writer,
    feed: Feed,
    metrics: Metrics,
    _stop: tokio_util::sync::DropGuard,
}

fn settings() -> Settings {
    Settings {
        ca_ttl: CA_TTL,
        agent_ttl: HOUR,
        x509_svid_ttl: HOUR,
        jwt_svid_ttl: HOUR,
        ca_key_type: KeyType::EcP384,
        jwt_key_type: KeyType::EcP256,
        ca_subject: Name::ca_default(),
        jwt_issuer: String::new(),
        jwt_disabled: false,
        agent_spiffe_id_as_selector: false,
        prune_attested_nodes_expired_for: None,
        prune_tofu_nodes: false,
        prune_attested_nodes_batch_size: 1,
        owners_demanded_from: None,
    }
}

async fn world_on(store: Store, image: Image, keys: Arc<dyn KeyManager>) -> World {
    world_with(store, image, keys, settings()).await
}

async fn world_with(store: Store, image: Image, keys: Arc<dyn KeyManager>, settings: Settings) -> World {
    let stop = CancellationToken::new();
    let holder = Holder::Server("s".into());
    let store = Datastore::uncounted(store);
    let metrics = store.metrics().clone();
    let registry = Registry::from_image(image);
    let (writer, _) = Writer::start(store.clone(), registry, holder.clone(), clock, stop.clone());
    let (feed, _) = Feed::start(&writer, store, domain(), clock, stop.clone());
    let ca = Ca::new(domain(), Arc::new(settings));
    let parts = RotorParts {
        ca: ca.clone(),
        writer: writer.clone(),
        feed: feed.clone(),
        keys,
        metrics: metrics.clone(),
        holder,
        clock,
    };
    let rotor = Rotor::start(parts).await.unwrap();
    World { rotor, ca, writer, feed, metrics, _stop: stop.drop_guard() }
}

async fn world(keys: Arc<dyn KeyManager>) -> World {
    WALL.set(START);
    let (store, image) = Store::open(std::path::Path::new(":memory:"), START).unwrap();
    world_on(store, image, keys).await
}

impl World {
    async fn turn_at(&mut self, wall: Timestamp) {
        WALL.set(wall);
        self.rotor.turn().await;
    }

    fn signs(&self) -> (Arc<str>, Arc<str>) {
        let facts = self.ca.facts();
        (facts.x509_authority_id, facts.jwt_key_id)
    }

    fn published(&self) -> (usize, usize) {
        let registry = self.writer.registry();
        let bundle = registry.bundle(&domain()).unwrap();
        (bundle.x509_authorities.len(), bundle.jwt_authorities.len())
    }

    /// A node that lives to the end of the test and has a stream open.
    async fn join(&self) -> SpiffeId {
        let node = node("/spire/agent/x509pop/n", &[], i64::MAX / 2);
        let id = node.id.clone();
        let put = move |registry: &Registry| {
            let row = Row::Node(node.clone());
            let change = avouch_domain::Change {
                revision: registry.position().revision.next(),
                key: row.key(),
                deleted: false,
                parent_before: None,
                parent_after: None,
            };
            (Plan { puts: vec![row], changes: vec![change], ..Plan::default() }, ())
        };
        self.writer.write(put).await.unwrap();
        self.settled().await;
        id
    }

    /// Waits until the feed has seen what was written.
    async fn settled(&self) {
        let agent = SpiffeId::server(&domain());
        let mut probe = self.feed.follow(&agent, None, Vec::new());
        while probe.next(clock).await.unwrap().position != self.writer.registry().position() {
            probe = self.feed.follow(&agent, None, Vec::new());
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn an_authority_is_published_at_half_of_its_predecessors_life_and_signs_in_the_last_sixth() {
    let mut world = world(Arc::new(MemoryKeys::new())).await;
    let (first, end) = (world.signs(), START + CA_TTL);
    world.turn_at(START + CA_TTL / 2 - Duration::from_secs(1)).await;
    assert_eq!(world.published(), (1, 1));
    world.turn_at(START + CA_TTL / 2).await;
    assert_eq!((world.published(), world.signs()), ((2, 2), first.clone()), "published, but not in use");
    world.turn_at(end - CA_TTL / 6 - Duration::from_secs(1)).await;
    assert_eq!(world.signs(), first);
    world.settled().await;
    world.turn_at(end - CA_TTL / 6).await;
    world.turn_at(end - CA_TTL / 6 + Duration::from_secs(1)).await;
    let second = world.signs();
    assert!(second.0 != first.0 && second.1 != first.1, "no agent is there to wait for");
    assert_eq!(world.published(), (2, 2), "what the old ones signed is still trusted");
}

#[tokio::test]
async fn an_authority_does_not_sign_before_every_live_agent_knows_it_or_the_bound_has_passed() {
    for acknowledges in [true, false] {
        let mut world = world(Arc::new(MemoryKeys::new())).await;
        let agent = world.join().await;
        let first = world.signs();
        let due = START + CA_TTL - CA_TTL / 6;
        world.turn_at(START + CA_TTL / 2).await;
        world.turn_at(due).await;
        assert_eq!(world.signs(), first, "a live agent has not heard of it");
        if acknowledges {
            world.settled().await;
            world.feed.acknowledge(&agent, world.writer.registry().position().revision);
            world.turn_at(due + Duration::from_secs(1)).await;
        } else {
            world.turn_at(due + PROPAGATION_BOUND - Duration::from_secs(1)).await;
            assert_eq!(world.signs(), first);
            world.turn_at(due + PROPAGATION_BOUND).await;
        }
        assert_ne!(world.signs().0, first.0, "acknowledges: {acknowledges}");
    }
}

#[tokio::test]
async fn ended_authorities_leave_the_bundle_a_day_later() {
    let mut world = world(Arc::new(MemoryKeys::new())).await;
    let mut at = START;
    // Past the first pair's end and a day, with a look each hour.
    while at < START + CA_TTL + KEEP_AFTER_END - HOUR {
        at = at + HOUR;
        world.turn_at(at).await;
    }
    let before = world.published();
    for _ in 0..8 {
        at = at + HOUR;
        world.turn_at(at).await;
    }
    let registry = world.writer.registry();
    let bundle = registry.bundle(&domain()).unwrap();
    let counted = world.metrics.registry().render();
    assert!(counted.contains("\nspire_server_ca_manager_bundle_pruned "), "{counted}");
    let over = |end: Timestamp| end + KEEP_AFTER_END + Duration::from_secs(6 * 3600) <= at;
    assert!(before.0 >= 3, "{before:?}");
    assert!(!bundle.x509_authorities.iter().any(|r| over(CertFacts::parse(&r.der).unwrap().not_after)));
    assert!(!bundle.jwt_authorities.iter().any(|k| over(k.expires_at.unwrap())));
}

#[tokio::test]
async fn a_failing_key_manager_is_trouble_until_its_own_step_works_and_the_old_authority_goes_on() {
    let keys = Arc::new(Flaky { inner: MemoryKeys::new(), broken: AtomicBool::new(false) });
    let mut world = world(keys.clone()).await;
    let (first, half) = (world.signs(), START + CA_TTL / 2);
    keys.broken.store(true, Ordering::Relaxed);
    world.turn_at(half).await;
    assert!(world.ca.health(half).unwrap_err().contains("the disk is full"));
    assert_eq!((world.signs(), world.published()), (first, (1, 1)));
    keys.broken.store(false, Ordering::Relaxed);
    world.turn_at(half + RETRY_AFTER).await;
    assert_eq!((world.ca.health(half), world.published()), (Ok(()), (2, 2)));
}

#[tokio::test]
async fn steps_of_a_rotation_count_once_and_those_that_failed_under_another_status() {
    let keys = Arc::new(Flaky { inner: MemoryKeys::new(), broken: AtomicBool::new(false) });
    let mut world = world(keys.clone()).await;
    keys.broken.store(true, Ordering::Relaxed);
    world.turn_at(START + CA_TTL / 2).await;
    keys.broken.store(false, Ordering::Relaxed);
    world.turn_at(START + CA_TTL / 2 + RETRY_AFTER).await;
    let page = world.metrics.registry().render();
    for line in [
        "spire_server_ca_manager_x509_ca_prepare{status=\"OK\"} 2",
        "spire_server_ca_manager_x509_ca_prepare{status=\"Unknown\"} 1",
        "spire_server_ca_manager_x509_ca_prepare_elapsed_time_count{status=\"OK\"} 2",
        "spire_server_ca_manager_x509_ca_activate 1",
        "spire_server_ca_manager_jwt_key_prepare{status=\"OK\"} 2",
        "spire_server_manager_jwt_key_activate 1",
        "spire_server_svid_rotate{status=\"OK\"} 2",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in:\n{page}");
    }
}

#[tokio::test]
async fn a_server_svid_of_seconds_is_due_at_half_of_them_and_not_at_once() {
    WALL.set(START);
    let (store, image) = Store::open(std::path::Path::new(":memory:"), START).unwrap();
    let short = Settings { x509_svid_ttl: Duration::from_secs(4), ..settings() };
    let world = world_with(store, image, Arc::new(MemoryKeys::new()), short).await;
    assert_eq!(world.rotor.renew_at, START + Duration::from_secs(2));
}

#[test]
fn one_part_that_works_does_not_hide_the_trouble_of_another() {
    let ca = Ca::new(domain(), Arc::new(settings()));
    ca.note(Part::ServerSvid, Err("no server SVID".into()));
    ca.note(Part::Authority(AuthorityKind::X509), Ok(()));
    assert_eq!(ca.trouble().as_deref(), Some("no server SVID"));
    ca.note(Part::ServerSvid, Ok(()));
    assert_eq!(ca.trouble(), None);
}

#[tokio::test]
async fn the_key_of_a_retired_authority_is_removed_at_the_next_start_if_a_crash_kept_it() {
    WALL.set(START);
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = (folder.path().join("store"), folder.path().join("keys.json"));
    let (store, image) = Store::open(&path, START).unwrap();
    let mut world = world_on(store.clone(), image, Arc::new(DiskKeys::beside(&file))).await;
    world.turn_at(START + CA_TTL / 2).await;
    let with_old_keys = std::fs::read(&file).unwrap();
    let at = START + CA_TTL - CA_TTL / 6;
    world.turn_at(at).await;
    world.turn_at(at + PROPAGATION_BOUND).await;
    let signs = world.signs();
    drop(world);
    store.close().await;
    // As a crash between the activation and the removal would leave it.
    std::fs::write(&file, with_old_keys).unwrap();
    let (store, image) = Store::open(&path, START).unwrap();
    let world = world_on(store, image, Arc::new(DiskKeys::beside(&file))).await;
    assert_eq!(world.signs(), signs, "the authorities in use are kept");
    let keys = DiskKeys::beside(&file);
    let left = ["x509-CA-A", "JWT-Signer-A"].map(|id| keys.get(id).is_some());
    assert_eq!(left, [false, false]);
}

impl World {
    /// Gives an order, and does what the task does with it; the answer comes when it may.
    async fn order(&mut self, order: Order) -> tokio::task::JoinHandle<OrderAnswer> {
        let (queue, mut orders) = order_queue();
        let asking = async move { queue.give("admin", AuthorityKind::X509, order).await };
        let answer = tokio::spawn(asking);
        let given: Given = orders.recv().await.unwrap();
        self.rotor.obey(given).await;
        self.rotor.turn().await;
        self.rotor.settle();
        answer
    }

    /// An order that is answered at once.
    async fn done(&mut self, order: Order) -> OrderAnswer {
        let answer = self.order(order).await;
        answer.await.unwrap()
    }

    async fn prepare(&mut self) -> Authority {
        self.done(Order::Prepare).await.unwrap().unwrap()
    }
}

type OrderAnswer = Result<Option<Authority>, OrderError>;

#[tokio::test]
async fn an_authority_prepared_by_hand_is_published_and_signs_when_told() {
    let mut world = world(Arc::new(MemoryKeys::new())).await;
    let first = world.signs();
    let prepared = world.prepare().await;
    assert_eq!(
        (prepared.state, world.signs(), world.published()),
        (SlotState::Prepared, first.clone(), (2, 1))
    );
    world.settled().await;
    let active = world.done(Order::Activate(prepared.id.clone())).await.unwrap().unwrap();
    assert_eq!((active.id.clone(), active.state), (prepared.id.clone(), SlotState::Active));
    assert_eq!(world.signs(), (prepared.id, first.1), "the JWT authority is another matter");
}

#[tokio::test]
async fn who_activates_waits_for_the_agents_that_do_not_know_the_authority() {
    let mut world = world(Arc::new(MemoryKeys::new())).await;
    let agent = world.join().await;
    let prepared = world.prepare().await;
    let answer = world.order(Order::Activate(prepared.id.clone())).await;
    assert!(!answer.is_finished() && world.signs().0 != prepared.id);
    world.settled().await;
    world.feed.acknowledge(&agent, world.writer.registry().position().revision);
    world.turn_at(START + Duration::from_secs(1)).await;
    world.rotor.settle();
    assert_eq!(answer.await.unwrap().unwrap().unwrap().id, prepared.id);
    assert_eq!(world.signs().0, prepared.id);
}

#[tokio::test]
async fn a_second_prepared_authority_takes_the_place_of_the_first_and_of_who_waits_for_it() {
    let mut world = world(Arc::new(MemoryKeys::new())).await;
    world.join().await;
    let (first, one) = (world.signs().0, world.prepare().await);
    let waits = world.order(Order::Activate(one.id.clone())).await;
    let two = world.prepare().await;
    assert_ne!(one.id, two.id);
    let refused = OrderError::Activate(avouch_engine::plan::operator::ActivateError::Unexpected);
    assert_eq!(waits.await.unwrap(), Err(refused));
    world.turn_at(START + PROPAGATION_BOUND * 2).await;
    assert_eq!((world.signs().0, world.published().0), (first, 3), "nobody wanted the second to sign");
}

#[tokio::test]
async fn an_old_authority_can_be_tainted_and_revoked_after_a_restart() {
    WALL.set(START);
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = (folder.path().join("store"), folder.path().join("keys.json"));
    let (store, image) = Store::open(&path, START).unwrap();
    let mut world = world_on(store.clone(), image, Arc::new(DiskKeys::beside(&file))).await;
    let (old, next) = (world.signs().0, world.prepare().await);
    world.settled().await;
    world.done(Order::Activate(next.id.clone())).await.unwrap();
    let mut world = restarted(world, store, &path, &file, START + HOUR).await;
    assert_eq!(world.signs().0, next.id);
    assert!(DiskKeys::beside(&file).get("x509-CA-A").is_none(), "its key is gone all the same");
    let tainted = world.done(Order::Taint(old.clone())).await.unwrap().unwrap();
    assert!(tainted.tainted && tainted.state == SlotState::Old);
    assert_eq!(world.done(Order::Revoke(old)).await, Ok(None));
    assert_eq!((world.published().0, world.signs().0), (1, next.id));
    let page = world.metrics.registry().render();
    for deed in ["taint", "revoke"] {
        let line = format!("spire_server_datastore_bundle_x509_{deed}{{status=\"OK\"}} 1");
        assert!(page.lines().any(|l| l == line), "{line} is not in:\n{page}");
    }
}

#[tokio::test]
async fn an_order_that_the_key_manager_can_not_carry_out_says_why() {
    let keys = Arc::new(Flaky { inner: MemoryKeys::new(), broken: AtomicBool::new(false) });
    let mut world = world(keys.clone()).await;
    keys.broken.store(true, Ordering::Relaxed);
    let error = world.done(Order::Prepare).await.unwrap_err().to_string();
    assert!(error.contains("the disk is full"), "{error}");
}

/// Restarts on the same store and keys at `wall`.
async fn restarted(
    world: World,
    store: Store,
    path: &std::path::Path,
    keys: &std::path::Path,
    wall: Timestamp,
) -> World {
    drop(world);
    store.close().await;
    WALL.set(wall);
    let (store, image) = Store::open(path, wall).unwrap();
    world_on(store, image, Arc::new(DiskKeys::beside(keys))).await
}

#[tokio::test]
async fn a_restart_goes_on_from_any_step_and_publishes_nothing_twice() {
    WALL.set(START);
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = (folder.path().join("store"), folder.path().join("keys.json"));
    let (store, image) = Store::open(&path, START).unwrap();
    let world = world_on(store.clone(), image, Arc::new(DiskKeys::beside(&file))).await;
    let first = world.signs();
    // A key made for the next slot, and a crash before it was published.
    DiskKeys::beside(&file).generate("x509-CA-B", KeyType::EcP384).unwrap();
    let half = START + CA_TTL / 2;
    let mut world = restarted(world, store, &path, &file, half - HOUR).await;
    assert_eq!((world.signs(), world.published()), (first.clone(), (1, 1)));
    world.turn_at(half).await;
    assert_eq!((world.signs(), world.published()), (first.clone(), (2, 2)));
    let reopened = Store::open(&path, half).unwrap().0;
    // Published, and a crash before it signed.
    let mut world = restarted(world, reopened, &path, &file, half + HOUR).await;
    assert_eq!((world.signs(), world.published()), (first.clone(), (2, 2)));
    let due = START + CA_TTL - CA_TTL / 6;
    world.settled().await;
    world.turn_at(due).await;
    world.turn_at(due + PROPAGATION_BOUND).await;
    assert_ne!(world.signs().0, first.0);
    assert_eq!(world.published(), (2, 2), "the one that was published signs");
}

#[tokio::test]
async fn a_start_after_all_authorities_have_ended_makes_new_ones_at_once() {
    WALL.set(START);
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = (folder.path().join("store"), folder.path().join("keys.json"));
    let (store, image) = Store::open(&path, START).unwrap();
    let world = world_on(store.clone(), image, Arc::new(DiskKeys::beside(&file))).await;
    let first = world.signs();
    let late = START + CA_TTL + HOUR;
    let world = restarted(world, store, &path, &file, late).await;
    assert_ne!(world.signs().0, first.0);
    assert_eq!(world.ca.health(late), Ok(()));
    assert!(world.ca.facts().x509_not_after > late);
}
