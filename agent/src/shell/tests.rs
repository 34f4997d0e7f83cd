//! The shell against a made-up server, without sockets.

use std::collections::BTreeMap;
use std::time::Duration;

use avouch_credential::key::PrivateKey;
use avouch_credential::x509::csr::Csr;
use avouch_credential::x509::facts::CertFacts;
use avouch_credential::x509::issue::{CaTemplate, Issuer, LeafTemplate, self_signed_ca};
use avouch_credential::x509::name::Name;
use avouch_domain::fixtures::{domain, entry, set};
use avouch_domain::{
    Entry, EntryId, Epoch, Head, JwtAuthority, LogPosition, Revision, SpiffeId, Ttl, X509Authority, X509Svid,
};
use avouch_engine::sync::{Frame, Known, Polled};
use parking_lot::Mutex;
use tonic::Code;

use super::*;
use crate::clock;
use crate::limits::MINT_CALLS;
use crate::sealed::Owner;
use crate::sealed::place::Place;
use crate::upstream::{CallError, Following, Hello, SignedChain, SignedJwt};

/// A server in memory: one CA, a list of entries, and a switch for each way to fail.
struct Fake {
    issuer: Issuer,
    bundle: Bundle,
    ids: Mutex<BTreeMap<EntryId, SpiffeId>>,
    frames: Mutex<Option<mpsc::Sender<Result<Frame, CallError>>>>,
    followed: mpsc::Sender<Hello>,
    push: bool,
    poison: Option<EntryId>,
    calls: Mutex<Vec<usize>>,
    /// Audiences of the JWT-SVIDs whose call has begun.
    minted: Mutex<Vec<String>>,
    /// While true, no call for a JWT-SVID ends.
    slow: watch::Sender<bool>,
}

impl Fake {
    fn new(push: bool, poison: Option<&str>) -> (Arc<Self>, mpsc::Receiver<Hello>) {
        let key = Arc::new(PrivateKey::generate(KeyType::EcP256).unwrap());
        let template = CaTemplate {
            trust_domain: &domain(),
            subject: &Name::ca_default(),
            serial: [1; 16],
            now: clock::now().wall,
            ttl: Duration::from_secs(86_400),
        };
        let ca = self_signed_ca(&template, key.as_ref()).unwrap();
        let mut bundle = Bundle::empty(domain());
        bundle.x509_authorities.push(X509Authority { der: ca.der.as_slice().into(), tainted: false });
        let (followed, follows) = mpsc::channel(8);
        let fake = Self {
            issuer: Issuer::new(&ca.der, key).unwrap(),
            bundle,
            ids: Mutex::default(),
            frames: Mutex::default(),
            followed,
            push,
            poison: poison.map(|id| EntryId::new(id).unwrap()),
            calls: Mutex::default(),
            minted: Mutex::default(),
            slow: watch::Sender::new(false),
        };
        (Arc::new(fake), follows)
    }

    fn know(&self, entries: &[Entry]) {
        self.ids.lock().extend(entries.iter().map(|e| (e.id.clone(), e.spiffe_id.clone())));
    }

    async fn frame(&self, frame: Frame) {
        let frames = self.frames.lock().clone().unwrap();
        frames.send(Ok(frame)).await.unwrap();
    }

    async fn snapshot(&self, entries: Vec<Entry>, revision: u64) {
        self.know(&entries);
        let position = position(revision);
        self.frame(Frame::Snapshot { entries, unchanged: vec![], position, last: true }).await;
    }

    async fn delta(&self, upserts: Vec<Entry>, removed: &[&str], revision: u64) {
        self.know(&upserts);
        let removed = removed.iter().map(|id| EntryId::new(id).unwrap()).collect();
        self.frame(Frame::Delta { upserts, removed, position: position(revision) }).await;
    }

    fn certificate(&self, entry: &EntryId, csr: &[u8]) -> Result<SignedChain, String> {
        let id = self.ids.lock().get(entry).cloned().ok_or("entry not found or not authorized")?;
        let csr = Csr::parse(csr).map_err(|e| e.to_string())?;
        let template = LeafTemplate {
            id: &id,
            public_key: csr.public_key(),
            dns_names: &[],
            subject: &Name::svid_default(),
            serial: [2; 16],
            now: clock::now().wall,
            ttl: Ttl(3600).or(Duration::ZERO),
        };
        Ok(SignedChain { chain: vec![self.issuer.leaf(&template).map_err(|e| e.to_string())?.der] })
    }
}

fn question(selector: &str, audience: String) -> JwtQuestion {
    JwtQuestion { selectors: set(&[selector]), audience: vec![audience], id: None }
}

fn position(revision: u64) -> LogPosition {
    let epoch = Epoch { started: 1, random: 1 };
    LogPosition { epoch, revision: Revision(revision), head: Head::default() }
}

#[tonic::async_trait]
impl Upstream for Fake {
    async fn follow(&self, hello: Hello) -> Result<Following, CallError> {
        if !self.push {
            return Err(CallError::Unimplemented);
        }
        let (send, frames) = mpsc::channel(16);
        let (says, _) = mpsc::channel(16);
        let _ = send.send(Ok(Frame::Welcome { server_time: clock::now().wall, agents: None })).await;
        *self.frames.lock() = Some(send);
        self.followed.send(hello).await.unwrap();
        Ok(Following { frames, says })
    }

    async fn fetch_bundles(&self, _: Vec<TrustDomain>) -> Result<Vec<Bundle>, CallError> {
        Ok(vec![self.bundle.clone()])
    }

    async fn poll(&self, _: bool, _: Known, _: Vec<TrustDomain>) -> Result<Polled, CallError> {
        let ids = self.ids.lock().clone();
        let entries =
            ids.iter().map(|(id, s)| entry(id.as_str(), s.path(), "/spire/agent/x", &["u:1"])).collect();
        Ok(Polled { entries, bundles: vec![self.bundle.clone()], ..Polled::default() })
    }

    async fn sign_x509(
        &self,
        batch: Vec<(EntryId, Vec<u8>)>,
    ) -> Result<Vec<Result<SignedChain, String>>, CallError> {
        self.calls.lock().push(batch.len());
        if batch.iter().any(|(id, _)| Some(id) == self.poison.as_ref()) {
            return Err(CallError::Failed { code: Code::Internal, message: "poisoned".into() });
        }
        Ok(batch.iter().map(|(id, csr)| self.certificate(id, csr)).collect())
    }

    async fn sign_jwt(&self, entry: &EntryId, audience: &[String]) -> Result<SignedJwt, CallError> {
        self.minted.lock().extend_from_slice(audience);
        let _ = self.slow.subscribe().wait_for(|slow| !slow).await;
        if self.push {
            return Err(CallError::Unreachable("no JWT here".into()));
        }
        // The clock of a server that does not push is a minute ahead.
        let issued_at = clock::now().wall + Duration::from_secs(60);
        let svid = avouch_domain::JwtSvid {
            id: self.ids.lock()[entry].clone(),
            token: Arc::new("token".to_owned().into()),
            issued_at,
            expires_at: issued_at + Duration::from_secs(300),
        };
        Ok(SignedJwt { svid, key_id: "k".into() })
    }

    async fn renew(&self, _: Vec<u8>) -> Result<SignedChain, CallError> {
        Err(CallError::Unimplemented)
    }

    async fn post_status(&self, _: &str) -> Result<(), CallError> {
        Ok(())
    }
}

struct Rig {
    shell: Shell,
    task: tokio::task::JoinHandle<()>,
    fake: Arc<Fake>,
    follows: mpsc::Receiver<Hello>,
    refusals: mpsc::Receiver<AgentRefusal>,
    stop: CancellationToken,
    metrics: Metrics,
    _own: watch::Sender<Option<OwnSvid>>,
}

async fn rig(push: bool, poison: Option<&str>) -> Rig {
    rig_with(push, poison, Vault::new(&Place::Nowhere(String::new())))
}

fn rig_with(push: bool, poison: Option<&str>, vault: Vault) -> Rig {
    let (fake, follows) = Fake::new(push, poison);
    let (own_tx, own) = watch::channel(None);
    let (refusals_tx, refusals) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let settings = Settings {
        workload_key_type: KeyType::EcP256,
        x509_max: 100,
        jwt_max: 100,
        availability_target: None,
        sync_interval: Duration::from_secs(5),
        sync_entries: true,
        seed: 1,
    };
    let parts = Parts {
        trust_domain: domain(),
        settings,
        upstream: fake.clone(),
        own,
        own_bundle: watch::channel(None).0,
        refusals: refusals_tx,
        vault: Arc::new(vault),
        metrics: Metrics::plain(),
        clock: clock::now,
        version: "0".into(),
    };
    let metrics = parts.metrics.clone();
    let (shell, task) = Shell::start(parts, stop.clone());
    Rig { shell, task, fake, follows, refusals, stop, metrics, _own: own_tx }
}

impl Rig {
    async fn joined(&mut self, entries: Vec<Entry>) {
        self.shell.identity(Some(self.fake.bundle.clone())).await;
        self.follows.recv().await.unwrap();
        self.fake.snapshot(entries, 1).await;
        self.shell.ready().wait_for(|ready| *ready).await.unwrap();
    }
}

fn one(id: &str, selector: &str) -> Entry {
    entry(id, &format!("/{id}"), "/spire/agent/x", &[selector])
}

async fn names(feed: &mut Box<dyn Feed>, count: usize) -> Vec<String> {
    loop {
        let update = feed.next().await.unwrap();
        if update.identities.len() == count {
            return update.identities.iter().map(|i| i.entry_id.to_string()).collect();
        }
    }
}

#[tokio::test]
async fn a_clock_that_differs_from_the_servers_shows_in_facts_and_metrics() {
    let mut rig = rig(true, None).await;
    rig.joined(vec![]).await;
    let ahead = clock::now().wall + Duration::from_secs(60);
    rig.fake.frame(Frame::Heartbeat { server_time: ahead, position: None, agents: None }).await;
    let skew = loop {
        let skew = rig.shell.facts().await.clock_skew_ms;
        if skew > 1000 {
            break skew;
        }
        tokio::task::yield_now().await;
    };
    assert!((55_000..=60_000).contains(&skew), "{skew}");
    let page = rig.metrics.registry().render();
    let line = page.lines().find(|l| l.starts_with("spire_agent_clock_skew_ms")).unwrap();
    let shown: f64 = line.split(' ').next_back().unwrap().parse().unwrap();
    assert!((55_000.0..=60_000.0).contains(&shown), "{line}");
}

#[tokio::test]
async fn the_clock_of_a_server_that_does_not_push_shows_in_what_it_signs() {
    let rig = rig(false, None).await;
    rig.fake.know(&[one("a", "u:1")]);
    rig.shell.identity(Some(rig.fake.bundle.clone())).await;
    rig.shell.ready().wait_for(|ready| *ready).await.unwrap();
    assert_eq!(rig.shell.facts().await.clock_skew_ms, 0);
    rig.shell.fetch_jwt(question("u:1", "x".into())).await.unwrap();
    let skew = rig.shell.facts().await.clock_skew_ms;
    assert!((55_000..=60_000).contains(&skew), "{skew}");
}

#[tokio::test]
async fn a_subscriber_gets_its_svid_and_every_later_change() {
    let mut rig = rig(true, None).await;
    rig.joined(vec![one("a", "u:1")]).await;
    let mut feed = rig.shell.subscribe(set(&["u:1"]), Want::X509).await;
    assert_eq!(names(&mut feed, 1).await, ["a"]);
    rig.fake.delta(vec![one("b", "u:1")], &[], 2).await;
    assert_eq!(names(&mut feed, 2).await, ["a", "b"]);
    rig.fake.delta(vec![], &["a"], 3).await;
    assert_eq!(names(&mut feed, 1).await, ["b"]);
}

#[tokio::test]
async fn a_subscriber_before_the_first_sync_waits_for_it() {
    let mut rig = rig(true, None).await;
    let shell = rig.shell.clone();
    let early = tokio::spawn(async move {
        let mut feed = shell.subscribe(set(&["u:1"]), Want::X509).await;
        names(&mut feed, 1).await
    });
    assert!(!*rig.shell.ready().borrow());
    rig.joined(vec![one("a", "u:1")]).await;
    assert_eq!(early.await.unwrap(), ["a"]);
}

#[tokio::test]
async fn equal_selector_sets_get_the_same_value() {
    let mut rig = rig(true, None).await;
    rig.joined(vec![]).await;
    let mut first = rig.shell.subscribe(set(&["u:1"]), Want::X509).await;
    let mut second = rig.shell.subscribe(set(&["u:1"]), Want::X509).await;
    assert!(Arc::ptr_eq(&first.next().await.unwrap(), &second.next().await.unwrap()));
}

#[tokio::test]
async fn a_server_without_a_stream_serves_as_well() {
    let rig = rig(false, None).await;
    rig.fake.know(&[one("a", "u:1")]);
    rig.shell.identity(Some(rig.fake.bundle.clone())).await;
    rig.shell.ready().wait_for(|ready| *ready).await.unwrap();
    let mut feed = rig.shell.subscribe(set(&["u:1"]), Want::X509).await;
    assert_eq!(names(&mut feed, 1).await, ["a"]);
    assert!(!rig.shell.push_live());
    let page = rig.metrics.registry().render();
    assert!(page.contains("spire_agent_manager_sync_fetch_entries_updates{status=\"OK\"} 1\n"), "{page}");
}

#[tokio::test]
async fn papers_of_a_tainted_authority_are_counted_when_the_taint_comes() {
    let rig = rig(false, None).await;
    rig.fake.know(&[one("a", "u:1")]);
    rig.shell.identity(Some(rig.fake.bundle.clone())).await;
    rig.shell.ready().wait_for(|ready| *ready).await.unwrap();
    let mut feed = rig.shell.subscribe(set(&["u:1"]), Want::X509).await;
    assert_eq!(names(&mut feed, 1).await, ["a"]);
    rig.shell.fetch_jwt(question("u:1", "x".into())).await.unwrap();
    let mut tainted = rig.fake.bundle.clone();
    tainted.x509_authorities[0].tainted = true;
    tainted.jwt_authorities.push(JwtAuthority {
        key_id: "k".into(),
        public_key: Arc::new([]),
        expires_at: None,
        tainted: true,
    });
    rig.shell.identity(Some(tainted)).await;
    // Asked after it, answered after it.
    rig.shell.facts().await;
    let page = rig.metrics.registry().render();
    for papers in ["x509", "jwt"] {
        for line in [
            format!("cache_manager_tainted_{papers}_svids_workload_sum 1"),
            format!("cache_manager_workload_process_tainted_{papers}_svids{{status=\"OK\"}} 1"),
        ] {
            assert!(page.contains(&format!("\nspire_agent_{line}\n")), "{line} is not in:\n{page}");
        }
    }
}

#[tokio::test]
async fn one_entry_that_spoils_a_call_is_found_and_left_alone() {
    let mut rig = rig(true, Some("e3")).await;
    let entries = (0..8).map(|n| one(&format!("e{n}"), "u:1")).collect();
    rig.joined(entries).await;
    let mut feed = rig.shell.subscribe(set(&["u:1"]), Want::X509).await;
    assert_eq!(names(&mut feed, 7).await, ["e0", "e1", "e2", "e4", "e5", "e6", "e7"]);
    assert!(rig.fake.calls.lock().len() <= 8, "{:?}", rig.fake.calls.lock());
}

#[tokio::test]
async fn a_lost_stream_is_resumed_from_where_it_stood() {
    let mut rig = rig(true, None).await;
    rig.joined(vec![one("a", "u:1")]).await;
    rig.fake.delta(vec![one("b", "u:2")], &[], 7).await;
    let mut feed = rig.shell.subscribe(set(&["u:2"]), Want::X509).await;
    assert_eq!(names(&mut feed, 1).await, ["b"]);
    *rig.fake.frames.lock() = None;
    let hello = rig.follows.recv().await.unwrap();
    assert_eq!((hello.position, hello.known.len()), (Some(position(7)), 2));
}

#[tokio::test]
async fn a_ban_reaches_join_and_the_cache_stays() {
    let mut rig = rig(true, None).await;
    rig.joined(vec![one("a", "u:1")]).await;
    let mut feed = rig.shell.subscribe(set(&["u:1"]), Want::X509).await;
    names(&mut feed, 1).await;
    rig.fake.frame(Frame::Node(avouch_engine::sync::NodeStanding::Banned)).await;
    assert_eq!(rig.refusals.recv().await, Some(AgentRefusal::Banned));
    let mut again = rig.shell.subscribe(set(&["u:1"]), Want::X509).await;
    assert_eq!(names(&mut again, 1).await, ["a"]);
}

#[tokio::test]
async fn a_token_that_can_t_be_had_is_unavailable_and_none_without_an_entry_is_refused() {
    let mut rig = rig(true, None).await;
    rig.joined(vec![one("a", "u:1")]).await;
    let ask = |selector: &str| rig.shell.fetch_jwt(question(selector, "x".into()));
    assert_eq!(ask("u:1").await, Err(JwtRefusal::Unavailable("no JWT here".into())));
    assert_eq!(ask("u:9").await, Err(JwtRefusal::NoIdentity));
}

#[tokio::test]
async fn a_dropped_feed_leaves_nothing_behind_and_a_stop_ends_the_others() {
    let mut rig = rig(true, None).await;
    rig.joined(vec![one("a", "u:1")]).await;
    drop(rig.shell.subscribe(set(&["u:1"]), Want::X509).await);
    let mut feed = rig.shell.subscribe(set(&["u:1"]), Want::X509).await;
    assert_eq!(names(&mut feed, 1).await, ["a"]);
    rig.stop.cancel();
    while feed.next().await.is_some() {}
    assert!(rig.shell.subscribe(set(&["u:1"]), Want::X509).await.next().await.is_none());
}

#[tokio::test]
async fn facts_tell_the_state_of_the_middle() {
    let mut rig = rig(true, None).await;
    assert!(!rig.shell.facts().await.synced);
    rig.joined(vec![one("a", "u:1")]).await;
    let facts = rig.shell.facts().await;
    assert!(facts.synced && facts.last_sync.is_some());
    let nearest = rig.shell.nearest(&set(&["u:2"])).await.unwrap();
    assert_eq!(nearest.entry_id.as_str(), "a");
}

/// A shell of a server that mints, and one entry for `u:1`.
async fn minting() -> Rig {
    let rig = rig(false, None).await;
    rig.fake.know(&[one("a", "u:1")]);
    rig.shell.identity(Some(rig.fake.bundle.clone())).await;
    rig.shell.ready().wait_for(|ready| *ready).await.unwrap();
    rig
}

/// Asks for a token and goes away once the task has the question, and has it taken back.
async fn ask_and_leave(shell: &Shell, audience: &str) {
    tokio::select! {
        biased;
        answer = shell.fetch_jwt(question("u:1", audience.to_owned())) => panic!("{answer:?}"),
        _ = shell.facts() => {}
    }
    // Both words are there when the task runs, and it runs until it has heard all.
    shell.facts().await;
}

#[tokio::test]
async fn an_answer_is_lent_once_its_tokens_were_there_and_recalled_with_what_they_rest_on() {
    let rig = minting().await;
    let asked = question("u:1", "x".into());
    rig.shell.fetch_jwt(asked.clone()).await.unwrap();
    assert_eq!(rig.shell.lent_jwt(&asked), None, "it was waited for");
    let answer = rig.shell.fetch_jwt(asked.clone()).await.unwrap();
    assert_eq!(rig.shell.lent_jwt(&asked), Some(answer));
    assert_eq!(rig.shell.lent_jwt(&question("u:2", "x".into())), None);
    assert_eq!(rig.shell.lent_jwt(&question("u:1", "y".into())), None);
    rig.shell.identity(Some(rig.fake.bundle.clone())).await;
    // Asked after it, answered after it.
    rig.shell.facts().await;
    assert_eq!(rig.shell.lent_jwt(&asked), None);
}

#[tokio::test]
async fn a_token_that_nobody_waits_for_any_more_is_not_begun() {
    let rig = minting().await;
    rig.fake.slow.send_replace(true);
    let busy: Vec<_> = (0..MINT_CALLS)
        .map(|n| {
            let shell = rig.shell.clone();
            tokio::spawn(async move { shell.fetch_jwt(question("u:1", n.to_string())).await })
        })
        .collect();
    while rig.fake.minted.lock().len() < MINT_CALLS {
        tokio::task::yield_now().await;
    }
    ask_and_leave(&rig.shell, "gone").await;
    rig.fake.slow.send_replace(false);
    for caller in busy {
        caller.await.unwrap().unwrap();
    }
    rig.shell.fetch_jwt(question("u:1", "last".into())).await.unwrap();
    assert!(!rig.fake.minted.lock().contains(&"gone".to_owned()), "nothing is spent on it");
    rig.shell.fetch_jwt(question("u:1", "gone".into())).await.expect("the next one gets it");
}

#[tokio::test]
async fn a_token_whose_call_has_begun_is_there_for_the_next_caller() {
    let rig = minting().await;
    rig.fake.slow.send_replace(true);
    ask_and_leave(&rig.shell, "x").await;
    rig.fake.slow.send_replace(false);
    rig.shell.fetch_jwt(question("u:1", "x".into())).await.unwrap();
    assert_eq!(*rig.fake.minted.lock(), ["x"], "minted once");
}

/// A folder, the vault in it, and the agent it belongs to.
fn vault(dir: &std::path::Path) -> (Vault, Owner) {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let (trust_domain, subject) = (domain(), Name::ca_default());
    let (now, ttl) = (clock::now().wall, Duration::from_secs(60));
    let template = CaTemplate { trust_domain: &trust_domain, subject: &subject, serial: [5; 16], now, ttl };
    let facts = CertFacts::parse(&self_signed_ca(&template, &key).unwrap().der).unwrap();
    let owner = Owner::new(avouch_domain::fixtures::id("/spire/agent/x"), &facts);
    let vault = Vault::new(&Place::Disk { state: dir.to_owned(), secret: dir.to_owned() });
    vault.bind(owner.clone());
    (vault, owner)
}

/// What an agent with these entries leaves when it is stopped.
async fn left_by(entries: Vec<Entry>) -> Kept {
    let dir = tempfile::tempdir().unwrap();
    let (vault, owner) = vault(dir.path());
    let mut rig = rig_with(true, None, vault);
    let count = entries.len();
    rig.joined(entries).await;
    let mut feed = rig.shell.subscribe(set(&["u:1"]), Want::X509).await;
    names(&mut feed, count).await;
    rig.stop.cancel();
    rig.task.await.unwrap();
    let place = Place::Disk { state: dir.path().to_owned(), secret: dir.path().to_owned() };
    Vault::new(&place).load(&owner).unwrap()
}

#[tokio::test]
async fn a_stopped_agent_leaves_what_the_next_serves_without_its_server() {
    let kept = left_by(vec![one("a", "u:1"), one("b", "u:1")]).await;
    assert_eq!(kept.position, Some(position(1)));
    let rig = rig(true, None).await;
    rig.shell.restore(kept, Timestamp(0)).await;
    assert!(*rig.shell.ready().borrow());
    let mut feed = rig.shell.subscribe(set(&["u:1"]), Want::X509).await;
    assert_eq!(names(&mut feed, 2).await, ["a", "b"]);
    let mut stranger = rig.shell.subscribe(set(&["u:2"]), Want::X509).await;
    assert_eq!(stranger.next().await.unwrap().matched, 0);
    let facts = rig.shell.facts().await;
    assert!(!facts.synced && !facts.reached && facts.cached_x509 == 2);
    assert!(rig.fake.calls.lock().is_empty(), "nothing was asked of the server");
}

#[tokio::test]
async fn the_next_agent_resumes_and_drops_what_has_ended_meanwhile() {
    let kept = left_by(vec![one("a", "u:1"), one("b", "u:1")]).await;
    let mut rig = rig(true, None).await;
    rig.shell.restore(kept, Timestamp(0)).await;
    rig.shell.identity(None).await;
    let hello = rig.follows.recv().await.unwrap();
    assert_eq!((hello.position, hello.known.len()), (Some(position(1)), 2));
    let mut feed = rig.shell.subscribe(set(&["u:1"]), Want::X509).await;
    assert_eq!(names(&mut feed, 2).await, ["a", "b"]);
    rig.fake.delta(vec![one("c", "u:1")], &["a", "b"], 5).await;
    loop {
        let update = feed.next().await.unwrap();
        if update.identities.iter().map(|i| i.entry_id.as_str()).eq(["c"]) {
            break;
        }
    }
    assert!(rig.shell.facts().await.synced);
}

#[tokio::test]
async fn a_clock_set_back_does_not_revive_what_was_kept() {
    let kept = left_by(vec![one("a", "u:1")]).await;
    let rig = rig(true, None).await;
    let end = kept.cache.x509[0].svid.not_after;
    rig.shell.restore(kept, end).await;
    let mut feed = rig.shell.subscribe(set(&["u:1"]), Want::X509).await;
    let update = feed.next().await.unwrap();
    assert_eq!((update.matched, update.identities.len()), (1, 0));
    let facts = rig.shell.facts().await;
    assert!(facts.now >= end && facts.cached_x509 == 0);
}

#[tokio::test]
async fn questions_do_not_put_off_what_is_due() {
    let mut kept = left_by(vec![one("a", "u:1")]).await;
    let svid = X509Svid {
        not_after: clock::now().wall + Duration::from_millis(300),
        ..(*kept.cache.x509[0].svid).clone()
    };
    kept.cache.x509[0].svid = Arc::new(svid);
    let rig = rig(true, None).await;
    rig.shell.restore(kept, Timestamp(0)).await;
    let asking = async { while rig.shell.facts().await.cached_x509 > 0 {} };
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect("the end of the SVID is noticed");
}
