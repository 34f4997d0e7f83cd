//! One table of runs beside a real attested process: who is what, what is decided and what is recorded.

use std::collections::BTreeSet;
use std::time::Duration;

use avouch_attestors::Peer;
use avouch_domain::fixtures::{id, identity as governed_identity, set};
use avouch_domain::{
    CallResult, Code, CodeDigest, GrantId, Kind, Needs, Presented, RequestContent, RequestId, Tick,
    Timestamp, TrustDomain, Whose,
};

use tokio::sync::watch;

use super::*;
use crate::peer::tests::waiting_child;
use crate::supply::{AgentFacts, JwtGrant, JwtQuestion, JwtRefusal, Nearest, WorkloadUpdate};
use crate::upstream::{self, Asked, SignedToken, TokenAsk, Told, UsedGrant, UsedYes};

mod own;

/// A middle that lets one user run one identity, as long as `entitled` says so.
struct Middle {
    entitled: watch::Sender<usize>,
}

struct OneFeed {
    entitled: watch::Receiver<usize>,
    first: bool,
}

#[tonic::async_trait]
impl Feed for OneFeed {
    async fn next(&mut self) -> Option<Arc<WorkloadUpdate>> {
        if !std::mem::take(&mut self.first) {
            self.entitled.changed().await.ok()?;
        }
        let matched = *self.entitled.borrow_and_update();
        Some(Arc::new(WorkloadUpdate {
            matched,
            waiting: 0,
            identities: Vec::new(),
            own: Arc::new(avouch_domain::Bundle::empty(avouch_domain::fixtures::domain())),
            federated: Vec::new(),
            rests_on_groups: false,
        }))
    }
}

#[tonic::async_trait]
impl Supply for Middle {
    fn trust_domain(&self) -> TrustDomain {
        avouch_domain::fixtures::domain()
    }
    fn ready(&self) -> watch::Receiver<bool> {
        watch::channel(true).1
    }
    fn synced(&self) -> bool {
        true
    }
    fn push_live(&self) -> bool {
        true
    }
    async fn subscribe(&self, _: SelectorSet, _: Want) -> Box<dyn Feed> {
        Box::new(OneFeed { entitled: self.entitled.subscribe(), first: true })
    }
    async fn fetch_jwt(&self, _: JwtQuestion) -> Result<Arc<[JwtGrant]>, JwtRefusal> {
        Err(JwtRefusal::NoIdentity)
    }
    fn lent_jwt(&self, _: &JwtQuestion) -> Option<Arc<[JwtGrant]>> {
        None
    }
    async fn nearest(&self, _: &SelectorSet) -> Option<Nearest> {
        None
    }
    async fn runnable(&self, _: u32) -> BTreeSet<SpiffeId> {
        [id("/test/coder")].into()
    }
    async fn names(&self, selectors: &SelectorSet) -> BTreeSet<SpiffeId> {
        let services = (*selectors == outside()).then(|| id("/billing"));
        (0..*self.entitled.borrow()).map(|_| id("/test/coder")).chain(services).collect()
    }
    async fn facts(&self) -> AgentFacts {
        AgentFacts::default()
    }
}

/// The selectors of a service of the same user.
fn outside() -> SelectorSet {
    set(&["unix:uid:7"])
}

/// A server at which rules of this number are in force.
struct Server(u64);

#[tonic::async_trait]
impl Identities for Server {
    fn agent_id(&self) -> SpiffeId {
        id("/spire/agent/x")
    }
    async fn identity(&self, name: &SpiffeId) -> Result<Told, CallError> {
        let known = governed_identity(name.path(), Kind::AiAgent);
        let identity = Some(Governed {
            name: name.clone(),
            kind: known.kind,
            environment: known.environment,
            purpose: Code::new("fix-bugs").unwrap(),
            preset: Some(Code::new("coding-agent").unwrap()),
            owner: known.owner.to_string(),
            owner_active: true,
            ends: known.end,
            stop_number: known.stop_number,
            code: None,
            runs_max: None,
            emergencies: OPEN.with_borrow(Clone::clone),
        });
        Ok(Told { identity, rules_number: self.0 })
    }
    async fn other_code(&self, _: &SpiffeId, _: CodeDigest) -> Result<bool, CallError> {
        Err(CallError::Unimplemented)
    }
}

/// A server whose people have said what it holds; it keeps what it is asked.
#[derive(Default)]
struct People {
    asked: Mutex<Vec<(RequestContent, Needs, [u8; 16])>>,
    /// Ages of the yeses that wait to be used, last first.
    yes: Mutex<Vec<u32>>,
    /// Uses that are left of a grant.
    uses: Mutex<u32>,
    away: AtomicBool,
    hangs: AtomicBool,
    /// Speaks of something else than it is asked.
    lies: AtomicBool,
}

#[tonic::async_trait]
impl Requests for People {
    async fn ask(
        &self,
        content: &RequestContent,
        needs: Needs,
        key: [u8; 16],
        _: &Presented,
    ) -> Result<Asked, CallError> {
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.away.load(Ordering::SeqCst) {
            return Err(CallError::Unreachable("it is away".to_owned()));
        }
        self.asked.lock().push((content.clone(), needs, key));
        let mut uses = self.uses.lock();
        if needs.grant && *uses == 0 {
            return Ok(Asked::NoGrant);
        }
        let yes = match needs.yes.nobodys() {
            true => None,
            false => {
                let mut hash = avouch_credential::request::text_of(content).unwrap().hash;
                if self.lies.load(Ordering::SeqCst) {
                    hash.0[0] ^= 1;
                }
                let asking = upstream::Asking { request: RequestId::new("req_a").unwrap(), hash };
                match self.yes.lock().pop() {
                    None => return Ok(Asked::Waits(asking)),
                    Some(age) => Some((asking, UsedYes { whose: needs.yes, age })),
                }
            }
        };
        let left = *uses;
        let grant = || UsedGrant { id: GrantId::new("gr_a").unwrap(), uses_left: left, seconds_left: 60 };
        *uses -= u32::from(needs.grant);
        Ok(Asked::Used { yes, grant: needs.grant.then(grant) })
    }
}

#[tonic::async_trait]
impl Tasks for Server {
    async fn sign(&self, ask: &TokenAsk) -> Result<SignedToken, CallError> {
        let token = zeroize::Zeroizing::new(format!("{} {} {}", ask.identity, ask.task, ask.resource));
        Ok(SignedToken { token, id: "J".into(), expires_at: Timestamp(301_000) })
    }
    async fn presented(&self, _: &SpiffeId, _: &str, _: &Presented) -> Result<Told, CallError> {
        Err(CallError::Unimplemented)
    }
}

/// Keeps what it is told, as long as it has room.
#[derive(Default)]
struct Kept {
    notes: Mutex<Vec<(Note, Durability)>>,
    full: AtomicBool,
    saltless: AtomicBool,
}

#[tonic::async_trait]
impl Scribe for Kept {
    async fn write(&self, note: Note, durability: Durability) -> Result<u64, String> {
        if self.full.load(Ordering::SeqCst) {
            return Err("the spool is full".to_owned());
        }
        let mut notes = self.notes.lock();
        notes.push((note, durability));
        Ok(notes.len() as u64)
    }

    fn veiled(&self, name: &str, values: &[&str]) -> Result<String, String> {
        match self.saltless.load(Ordering::SeqCst) {
            true => Err("the salt of the day: it is torn".to_owned()),
            false => Ok(format!("{}-{}", name.len(), values.concat().len())),
        }
    }
}

thread_local! {
    /// The monotonic clock of a test, in milliseconds.
    static MONO: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    /// The emergencies that are open at the server of a test.
    static OPEN: std::cell::RefCell<Vec<upstream::Emergency>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn pass(seconds: u64) {
    MONO.set(MONO.get() + 1_000 * seconds);
}

struct Rig {
    runs: Runs,
    heard: Heard,
    proof: Proof,
    middle: Arc<Middle>,
    book: Arc<Kept>,
    people: Arc<People>,
    rules: Book,
    folder: tempfile::TempDir,
}

fn starter() -> Arc<Held> {
    let files = avouch_rules::STARTER.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let rules = avouch_rules::check(&avouch_rules::Folder::new(files).unwrap()).unwrap();
    Arc::new(Held { number: 3, digest: avouch_domain::RulesDigest([0; 32]), rules })
}

fn rig() -> Rig {
    rig_in(tempfile::tempdir().unwrap())
}

fn rig_in(folder: tempfile::TempDir) -> Rig {
    rig_with(folder, Server(0))
}

fn rig_with(folder: tempfile::TempDir, server: Server) -> Rig {
    let (entitled, book, people) = (watch::channel(1).0, Arc::<Kept>::default(), Arc::<People>::default());
    let middle = Arc::new(Middle { entitled });
    let rules = Book::default();
    rules.swap(Some(starter()));
    let now = || Now { wall: Timestamp(1_000), mono: Tick(MONO.get()) };
    let (heard, proof) = (Heard::default(), Proof::default());
    let server = Arc::new(server);
    let parts = Parts {
        supply: middle.clone(),
        identities: server.clone(),
        requests: people.clone(),
        tasks: server,
        rules: rules.clone(),
        heard: heard.clone(),
        proof: proof.clone(),
        scribe: book.clone(),
        used: None,
        own_folders: Vec::new(),
        gate_secrets: None,
        folder: folder.path().join("runs"),
        clock: now,
    };
    Rig { runs: Runs::new(parts).unwrap(), heard, proof, middle, book, people, rules, folder }
}

fn caller_of(pid: u32) -> Arc<Caller> {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    Arc::new(Caller::new(
        Peer { pid: i32::try_from(pid).unwrap(), uid, gid, pidfd: None },
        Arc::default(),
        None,
    ))
}

/// A process below this one, ended with the test.
struct Child(std::process::Child);

impl Child {
    fn start() -> Self {
        Self(waiting_child())
    }

    fn caller(&self) -> Arc<Caller> {
        caller_of(self.0.id())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn myself() -> Arc<Caller> {
    caller_of(std::process::id())
}

fn wanted() -> Wanted {
    Wanted {
        identity: "coder".into(),
        task: "fix-4711".into(),
        code: vec!["/bin/sh".into()],
        ..Wanted::default()
    }
}

fn membership(rig: &Rig, caller: &Arc<Caller>) -> Membership {
    rig.runs.membership(caller, &caller.process().unwrap()).unwrap()
}

fn question(resource: &str) -> Question {
    Question::of("tool.call", resource)
}

#[tokio::test]
async fn a_declared_argument_is_recorded_as_its_digest_and_nothing_is_decided_about_one_that_has_none() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    let param = |name: &str| (name.to_owned(), avouch_rules::Param::String("pay/main.py".to_owned()));
    let asked = |names: &[&str]| Question {
        params: names.iter().map(|name| param(name)).collect(),
        ..question("files/read_file")
    };
    let told = |rig: &Rig| {
        let notes = rig.book.notes.lock();
        let detail = &notes.last().unwrap().0.detail;
        detail.iter().find(|(name, _)| *name == "arguments").map(|(_, value)| value.clone())
    };
    assert!(running.decide(&asked(&["path"])).await.goes_on);
    assert_eq!(told(&rig).as_deref(), Some("path=4-11"));
    assert!(!running.decide(&asked(&["path", "made,up=1"])).await.goes_on);
    assert_eq!(told(&rig).as_deref(), Some("path=4-11"), "a name that somebody sent stands in no record");
    rig.book.saltless.store(true, Ordering::SeqCst);
    let denied = running.decide(&asked(&["path"])).await;
    assert_eq!((denied.outcome, denied.reason), ("deny", "unrecorded"));
    assert!(running.decide(&question("files/read_file")).await.goes_on, "it has no argument");
}

#[tokio::test]
async fn a_name_that_is_longer_than_that_of_any_resource_is_denied_recorded_and_counted() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    for _ in 0..crate::limits::REFUSALS_MAX {
        let denied = running.decide(&question(&"x".repeat(100_000))).await;
        assert_eq!((denied.outcome, denied.reason), ("deny", "unknown_resource"));
    }
    let longest = rig.book.notes.lock().iter().map(|(note, _)| note.subject.len()).max();
    assert_eq!(longest, Some(avouch_rules::limits::RESOURCE_ID_MAX));
    assert_eq!(running.decide(&question("files/read_file")).await.reason, "worn_out");
}

#[tokio::test]
async fn what_descends_from_a_run_is_the_identity_and_nothing_else_until_it_ends() {
    let rig = rig();
    let child = Child::start();
    let inside = child.caller();
    assert_eq!(membership(&rig, &inside), Membership::Nobody);
    let running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    let uid = nix::unistd::geteuid().as_raw();
    let selectors = SelectorSet::new([run_selector(&id("/test/coder"), uid).unwrap()]).unwrap();
    assert_eq!(membership(&rig, &inside), Membership::Of(selectors, id("/test/coder")));
    let begun_inside = rig.runs.begin(&inside, wanted()).await.unwrap_err();
    assert!(matches!(begun_inside, BeginError::Refused(Refusal::Inside(_))), "{begun_inside}");
    running.end("test").await;
    assert_eq!(membership(&rig, &inside), Membership::Left, "it never becomes somebody else");
}

#[tokio::test]
async fn a_process_of_a_run_has_its_answer_after_the_look_at_what_it_is_refused() {
    const LOOK: Duration = Duration::from_millis(100);
    let rig = rig();
    let child = Child::start();
    let inside = child.caller();
    let running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    membership(&rig, &inside);
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let look = || async {
        tokio::time::sleep(LOOK).await;
        Some(outside())
    };
    rig.runs.refuse(&inside, &inside.process().unwrap(), look).await;
    assert!(begun.elapsed() >= LOOK, "{:?}", begun.elapsed());
    tokio::time::resume();
    // Its process may be gone now, and its run as well.
    running.end("test").await;
    drop(child);
    let refused =
        || rig.book.notes.lock().iter().filter(|(note, _)| note.event == NodeEvent::SvidRefused).count();
    while refused() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(refused(), 1);
}

#[tokio::test]
async fn a_look_that_does_not_end_holds_a_process_of_a_run_for_a_moment_only() {
    let rig = rig();
    let child = Child::start();
    let inside = child.caller();
    let _running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    membership(&rig, &inside);
    tokio::time::pause();
    rig.runs.refuse(&inside, &inside.process().unwrap(), std::future::pending).await;
}

#[tokio::test]
async fn after_a_restart_of_the_agent_a_run_is_nobody_else_before_it_has_begun_again() {
    let first = rig();
    let child = Child::start();
    // Killed: nothing is put in order.
    std::mem::forget(first.runs.begin(&myself(), wanted()).await.unwrap());
    let rig = rig_in(first.folder);
    let inside = child.caller();
    assert_eq!(membership(&rig, &inside), Membership::Left);
    assert_eq!(membership(&rig, &myself()), Membership::Left);
    let running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    assert!(
        matches!(membership(&rig, &inside), Membership::Of(_, identity) if identity == id("/test/coder"))
    );
    running.end("test").await;
}

#[tokio::test]
async fn a_run_begins_with_the_rules_that_are_in_force_at_the_server() {
    let rig = rig_with(tempfile::tempdir().unwrap(), Server(3));
    rig.rules.swap(None);
    let come = async {
        tokio::task::yield_now().await;
        rig.rules.swap(Some(starter()));
    };
    let me = myself();
    let (running, ()) = tokio::join!(rig.runs.begin(&me, wanted()), come);
    assert_eq!(running.unwrap().rules().map(|held| held.number), Some(3));
}

#[tokio::test]
async fn who_is_refused_again_and_again_is_worn_out() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    for _ in 0..crate::limits::REFUSALS_MAX {
        let at_once = tokio::time::timeout(Duration::ZERO, running.worn_out()).await;
        assert!(at_once.is_err());
        running.decide(&question("payroll/read")).await;
    }
    running.worn_out().await;
}

#[tokio::test]
async fn a_run_ends_when_its_identity_may_not_run_here_any_more() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    rig.middle.entitled.send_replace(0);
    running.withdrawn().await;
    running.end("withdrawn").await;
    let again = rig.runs.begin(&myself(), wanted()).await.unwrap_err();
    assert!(matches!(again, BeginError::NotInForce(_)), "{again}");
}

#[tokio::test]
async fn every_decision_is_recorded_before_it_is_told_and_counted_after() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), Wanted { calls: 2, ..wanted() }).await.unwrap();
    let first = running.decide(&question("files/read_file")).await;
    assert_eq!((first.outcome, first.record), ("allow", 3), "{first:?}");
    let asked = Question { what_if: true, ..question("files/read_file") };
    assert_eq!((running.decide(&asked).await.outcome, rig.book.notes.lock().len()), ("allow", 3));
    assert_eq!(running.decide(&question("payroll/read")).await.reason, "unknown_resource");
    assert_eq!(running.decide(&question("files/read_file")).await.outcome, "allow");
    let over = running.decide(&question("files/read_file")).await;
    assert_eq!((over.outcome, over.reason), ("deny", "task"), "two calls were all it had");
    let notes = rig.book.notes.lock().clone();
    let events: Vec<_> = notes.iter().map(|(note, _)| note.event).collect();
    assert_eq!(events[..3], [NodeEvent::InstanceStart, NodeEvent::TaskOpen, NodeEvent::Decision]);
    assert!(notes.iter().all(|(note, _)| note.actor == running.instance()));
    assert_eq!(notes[0].1, Durability::Synced);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_denied() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    rig.book.full.store(true, Ordering::SeqCst);
    let answer = running.decide(&question("files/read_file")).await;
    assert_eq!((answer.outcome, answer.goes_on, answer.reason), ("deny", false, "unrecorded"));
    drop(running);
    let begun = rig.runs.begin(&myself(), wanted()).await.unwrap_err();
    assert!(matches!(begun, BeginError::Record(_)), "{begun}");
}

#[tokio::test]
async fn without_rules_everything_is_denied_and_new_ones_count_at_once() {
    let rig = rig();
    rig.rules.swap(None);
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    assert_eq!(running.decide(&question("files/read_file")).await.reason, "no_rules");
    rig.rules.swap(Some(starter()));
    assert_eq!(running.decide(&question("files/read_file")).await.outcome, "allow");
}

#[tokio::test]
async fn who_may_not_run_it_here_hears_what_may_run() {
    let rig = rig();
    let refused =
        rig.runs.begin(&myself(), Wanted { identity: "payroll".into(), ..wanted() }).await.unwrap_err();
    let uid = nix::unistd::geteuid().as_raw();
    assert_eq!(
        refused.to_string(),
        format!(
            "nothing lets user {uid} run \"payroll\" on this node: its owner does with `avouch identity place`; it may \
             run spiffe://example.org/test/coder"
        )
    );
    assert_eq!(rig.book.notes.lock()[0].0.event, NodeEvent::InstanceRefused);
    for _ in 0..200 {
        rig.runs.begin(&myself(), Wanted { identity: "payroll".into(), ..wanted() }).await.unwrap_err();
    }
    assert_eq!(rig.book.notes.lock().len(), 20, "nobody fills a disk with what he may not do");
}

/// A call that takes the yes of a person other than the owner.
fn merge() -> Question {
    Question { shown: r#"{"commit":"0f3a"}"#.into(), ..Question::of("repo.merge", "git/pay") }
}

#[tokio::test]
async fn what_takes_a_yes_waits_for_it_under_the_words_of_the_gate() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    let waits = running.decide(&merge()).await;
    assert_eq!((waits.outcome, waits.request.as_str()), ("step_up", "req_a"));
    assert!(waits.text.contains("req_a waits for it"), "{}", waits.text);
    let asked = rig.people.asked.lock().clone();
    let (content, needs, _) = &asked[0];
    assert_eq!((content.identity.clone(), content.task.as_str()), (id("/test/coder"), "fix-4711"));
    assert_eq!(
        (content.shown.as_str(), *needs),
        (r#"{"commit":"0f3a"}"#, Whose { owner: false, person: true }.into())
    );
    let note = rig.book.notes.lock().last().unwrap().0.clone();
    assert!(note.detail.contains(&("request", "req_a".to_owned())), "{note:?}");
}

#[tokio::test]
async fn a_yes_allows_one_call_whose_record_is_on_the_disk_first() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    rig.people.yes.lock().push(60);
    let allowed = running.decide(&merge()).await;
    assert_eq!((allowed.outcome, allowed.request.as_str()), ("allow", "req_a"));
    let (note, durability) = rig.book.notes.lock().last().unwrap().clone();
    assert_eq!((note.event, durability), (NodeEvent::Decision, Durability::Synced));
    assert_eq!(running.decide(&merge()).await.outcome, "step_up", "the next call has none");
    let keys: BTreeSet<_> = rig.people.asked.lock().iter().map(|(_, _, key)| *key).collect();
    assert_eq!(keys.len(), 2, "each call has a key of its own");
}

/// What a gate says after it has sent what was agreed to.
fn did(record: u64, sent: &str) -> Did {
    Did {
        record,
        action: "repo.merge".into(),
        resource: "git/pay".into(),
        sent: sent.into(),
        result: CallResult::Answered,
        status: 201,
    }
}

#[tokio::test]
async fn a_receipt_stands_in_the_log_with_the_hash_of_what_was_sent() {
    let rig = rig();
    let _running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    let gates = rig.runs.gates_of(&myself()).unwrap();
    for (sent, agreed) in [(merge().shown, true), (r#"{"commit":"0f3b"}"#.to_owned(), false)] {
        rig.people.yes.lock().push(60);
        let allowed = gates.decide(&merge()).await.unwrap();
        assert!(allowed.wants_receipt(), "{allowed:?}");
        gates.did(did(allowed.record, &sent)).await.unwrap();
        let (note, durability) = rig.book.notes.lock().last().unwrap().clone();
        assert_eq!((note.event, note.subject.as_str()), (NodeEvent::CallDone, "git/pay"));
        assert_eq!(durability, Durability::Soon);
        let asked = rig.people.asked.lock().last().unwrap().0.clone();
        let hash = avouch_credential::request::text_of(&asked).unwrap().hash.to_string();
        let of = allowed.record.to_string();
        for (name, value) in
            [("of", of.as_str()), ("result", "answered"), ("status", "201"), ("request", "req_a")]
        {
            assert!(note.detail.contains(&(name, value.to_owned())), "{name}: {note:?}");
        }
        assert_eq!(note.detail.contains(&("hash", hash)), agreed, "{note:?}");
        assert!(!format!("{note:?}").contains("0f3"), "nothing of it in the clear: {note:?}");
    }
}

#[tokio::test]
async fn a_receipt_is_taken_once_and_only_for_what_the_run_was_told() {
    let rig = rig();
    let running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    let gates = rig.runs.gates_of(&myself()).unwrap();
    rig.people.yes.lock().push(60);
    let allowed = gates.decide(&merge()).await.unwrap();
    let plain = gates.decide(&question("files/read_file")).await.unwrap();
    assert!(plain.goes_on && !plain.wants_receipt(), "an ordinary call costs nothing more");
    let before = rig.book.notes.lock().len();
    for other in [allowed.record + 1_000, plain.record, 0] {
        assert!(matches!(gates.did(did(other, "x")).await, Err(NoReceipt::NotDue(_))), "{other}");
    }
    assert_eq!(rig.book.notes.lock().len(), before, "nothing is written");
    gates.did(did(allowed.record, "x")).await.unwrap();
    assert!(matches!(gates.did(did(allowed.record, "x")).await, Err(NoReceipt::NotDue(_))), "once");
    assert_eq!(rig.book.notes.lock().len(), before + 1);
    running.end("test").await;
    assert!(matches!(rig.runs.gates_of(&myself()), Err(NoRun::Outside)), "and none after the run");
}

#[tokio::test]
async fn a_yes_that_is_too_old_for_the_rule_is_asked_for_anew() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    rig.people.yes.lock().push(901);
    let waits = running.decide(&merge()).await;
    assert_eq!((waits.outcome, rig.people.asked.lock().len()), ("step_up", 2));
    *rig.people.yes.lock() = vec![901, 901];
    let given_up = running.decide(&merge()).await;
    assert_eq!((given_up.outcome, given_up.reason), ("deny", "not_asked"));
}

#[tokio::test]
async fn where_nobody_can_be_asked_it_is_denied() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    let unshown = Question { shown: String::new(), ..merge() };
    assert_eq!(running.decide(&unshown).await.reason, "not_asked");
    rig.people.lies.store(true, Ordering::SeqCst);
    rig.people.yes.lock().push(0);
    assert_eq!(running.decide(&merge()).await.outcome, "deny", "a yes to something else is none");
    rig.people.away.store(true, Ordering::SeqCst);
    let away = running.decide(&merge()).await;
    assert_eq!((away.outcome, away.reason), ("deny", "not_asked"));
    assert!(away.text.contains("nobody could be asked: it is away"), "{}", away.text);
}

#[tokio::test]
async fn a_grant_allows_as_many_calls_as_it_has_uses_within_what_the_rules_limit() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    let read = Question::of("telemetry.read", "telemetry/requests");
    let none = running.decide(&read).await;
    assert_eq!((none.outcome, none.reason), ("deny", "no_grant"));
    assert!(none.text.contains("`avouch grant give IDENTITY telemetry/requests --action telemetry.read`"));
    *rig.people.uses.lock() = 1;
    let allowed = running.decide(&read).await;
    assert_eq!((allowed.outcome, allowed.grant.as_str()), ("constrain", "gr_a"));
    let (note, durability) = rig.book.notes.lock().last().unwrap().clone();
    assert!(note.detail.contains(&("grant", "gr_a".to_owned())), "{note:?}");
    assert_eq!(durability, Durability::Synced);
    assert_eq!(running.decide(&read).await.reason, "no_grant");
    assert!(
        rig.people.asked.lock().iter().all(|(content, ..)| content.shown.is_empty()),
        "nobody is shown it"
    );
}

fn emergency(action: &str, resource: &str, ends_at: i64) -> upstream::Emergency {
    let id = avouch_domain::EmergencyId::new("em_a").unwrap();
    upstream::Emergency { id, action: action.into(), resource: resource.into(), ends_at: Timestamp(ends_at) }
}

#[tokio::test]
async fn an_emergency_lifts_what_no_rule_allows_as_long_as_the_server_says_that_it_is_open() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    let merge = Question::of("repo.merge", "git/pay");
    let open = |one| OPEN.set(vec![one]);
    for (what, other) in [
        ("another resource", emergency("repo.merge", "git/other", 2_000)),
        ("another action", emergency("repo.push", "git/pay", 2_000)),
        ("its end", emergency("repo.merge", "git/pay", 1_000)),
    ] {
        open(other);
        assert!(!running.decide(&merge).await.goes_on, "{what}");
    }
    open(emergency("repo.merge", "git/pay", 2_000));
    let lifted = running.decide(&merge).await;
    assert_eq!((lifted.outcome, lifted.reason, lifted.emergency.as_str()), ("allow", "emergency", "em_a"));
    let (note, durability) = rig.book.notes.lock().last().unwrap().clone();
    assert!(note.detail.contains(&("emergency", "em_a".to_owned())), "{note:?}");
    assert_eq!(durability, Durability::Synced);
    let push = running.decide(&Question::of("repo.push", "git/pay")).await;
    assert_eq!((push.outcome, push.emergency.as_str()), ("allow", ""), "what needs none names none");
    OPEN.take();
    assert!(!running.decide(&merge).await.goes_on, "nothing of it is kept");
}

#[tokio::test]
async fn an_emergency_lifts_no_base_rule() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    OPEN.set(vec![emergency("secret.read", "vault/deploy", 2_000)]);
    let secret = running.decide(&Question::of("secret.read", "vault/deploy")).await;
    assert_eq!((secret.outcome, secret.reason), ("deny", "domain"));
}

#[tokio::test]
async fn while_the_server_is_away_no_grant_is_used() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    *rig.people.uses.lock() = 1;
    rig.people.away.store(true, Ordering::SeqCst);
    let read = Question::of("telemetry.read", "telemetry/requests");
    assert_eq!(running.decide(&read).await.reason, "not_asked");
    assert_eq!(running.decide(&Question { what_if: true, ..read }).await.outcome, "step_up");
}

#[tokio::test]
async fn the_longer_the_server_is_silent_the_less_is_decided_without_it() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    let push = Question { action: "repo.push".into(), ..question("git/pay") };
    let merge = Question { shown: "+1".into(), ..Question::of("repo.merge", "git/pay") };
    pass(11);
    assert_eq!(
        running.decide(&push).await.outcome,
        "allow",
        "what can be taken back is decided for ten minutes"
    );
    rig.people.yes.lock().push(1);
    assert_eq!(
        running.decide(&merge).await.outcome,
        "allow",
        "a yes is from the server, which is heard then"
    );
    pass(600);
    let silent = running.decide(&push).await;
    assert_eq!((silent.outcome, silent.reason), ("deny", "server_silent"));
    assert!(silent.text.contains("for 611 s, time that it announced"), "{}", silent.text);
    let number = rig.heard.asks(Tick(MONO.get()));
    assert_eq!(running.decide(&push).await.reason, "server_silent", "a question is no answer");
    pass(5);
    rig.heard.answered(number);
    assert_eq!(running.decide(&push).await.outcome, "allow");
    pass(596);
    assert_eq!(running.decide(&push).await.reason, "server_silent", "it counts from the question");
}

/// The starter, and a rule that lets nothing be pushed from a node whose proof is a minute old.
fn proved() -> Arc<Held> {
    let rule = "@id(\"proved\") forbid (principal, action == Action::\"repo.push\", resource) \
                unless { context has proof_age && context.proof_age < 60 };";
    let example = |expect: &str, age: u32| {
        format!(
            "[[example]]\nrule = \"proved\"\nexpect = \"{expect}\"\nrequest = {{ kind = \"ai_agent\", preset = \"coding-agent\", \
             action = \"repo.push\", resource = \"git/pay\", params = {{ branch = \"fix\" }}, proof_age = {age} }}\n"
        )
    };
    let more = [
        ("proved.cedar".to_owned(), rule.to_owned()),
        ("proved.examples.toml".to_owned(), format!("{}{}", example("allow", 59), example("deny", 60))),
    ];
    let files = avouch_rules::STARTER.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let folder = avouch_rules::Folder::new(files.chain(more)).unwrap();
    let rules = avouch_rules::check(&folder).unwrap_or_else(|f| panic!("{f:#?}"));
    Arc::new(Held { number: 4, digest: avouch_domain::RulesDigest([0; 32]), rules })
}

#[tokio::test]
async fn what_takes_a_fresher_proof_of_the_node_is_denied_and_wants_one() {
    let rig = rig();
    rig.rules.swap(Some(proved()));
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    let push = Question { action: "repo.push".into(), ..question("git/pay") };
    let wants = async || tokio::time::timeout(Duration::from_millis(1), rig.proof.wanted()).await.is_ok();
    let what_if = Question { what_if: true, ..push.clone() };
    assert_eq!(running.decide(&what_if).await.reason, "node_proof");
    assert!(!wants().await, "who only wants to know asks for nothing");
    let denied = running.decide(&push).await;
    assert_eq!((denied.outcome, denied.reason), ("deny", "node_proof"));
    assert_eq!(denied.rules.iter().map(|id| &**id).collect::<Vec<_>>(), ["proved"]);
    assert!(wants().await);
    rig.proof.given(Tick(MONO.get()));
    assert_eq!(running.decide(&push).await.outcome, "allow");
    pass(60);
    let old = running.decide(&push).await;
    assert!(old.reason == "node_proof" && old.text.contains("60 s ago"), "{}", old.text);
    assert_eq!(
        running.decide(&question("payroll/read")).await.reason,
        "unknown_resource",
        "no proof helps there"
    );
}

#[tokio::test]
async fn the_server_is_asked_whether_it_is_there_only_while_something_runs() {
    let rig = rig();
    let wanted_now = || *rig.heard.wanted().borrow();
    assert!(!wanted_now());
    let running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    assert!(wanted_now());
    running.end("test").await;
    assert!(!wanted_now());
}

#[tokio::test]
async fn a_call_that_begins_after_the_stop_is_denied_whoever_hears_of_it_first() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    rig.middle.entitled.send_replace(0);
    let push = Question { action: "repo.push".into(), ..question("git/pay") };
    let denied = running.decide(&push).await;
    assert_eq!((denied.outcome, denied.reason), ("deny", "not_in_force"));
}

#[tokio::test]
async fn a_stop_does_not_wait_until_somebody_has_been_asked() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    rig.people.hangs.store(true, Ordering::SeqCst);
    rig.middle.entitled.send_replace(0);
    assert_eq!(running.decide(&merge()).await.outcome, "deny");
    running.withdrawn().await;
}

#[tokio::test]
async fn who_only_wants_to_know_asks_nobody() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    assert_eq!(running.decide(&Question { what_if: true, ..merge() }).await.outcome, "step_up");
    assert!(rig.people.asked.lock().is_empty());
}

#[tokio::test]
async fn a_process_of_a_run_gets_tokens_for_resources_of_its_task_as_long_as_it_has_calls() {
    let rig = rig();
    let child = Child::start();
    let inside = child.caller();
    let outside = rig.runs.task_token(&inside, "git/pay").await.unwrap_err();
    assert!(matches!(outside, TokenError::NoRun(NoRun::Outside)), "{outside}");
    let tools = vec!["git/pay".to_owned()];
    let mut running = rig.runs.begin(&myself(), Wanted { tools, calls: 3, ..wanted() }).await.unwrap();
    let given = rig.runs.task_token(&inside, "git/pay").await.unwrap();
    assert_eq!(given.token.as_str(), "spiffe://example.org/test/coder fix-4711 git/pay");
    let other = rig.runs.task_token(&inside, "files/read_file").await.unwrap_err();
    assert!(matches!(other, TokenError::Tools(_)), "{other}");
    let unknown = rig.runs.task_token(&inside, "git/nothing").await.unwrap_err();
    assert!(matches!(unknown, TokenError::Unknown(_)), "{unknown}");
    assert_eq!(
        running.decide(&Question { action: "repo.push".into(), ..question("git/pay") }).await.outcome,
        "allow"
    );
    let over = rig.runs.task_token(&inside, "git/pay").await.unwrap_err();
    assert!(matches!(over, TokenError::NoCalls), "the calls are those of the task: {over}");
    let notes = rig.book.notes.lock().clone();
    let tokens: Vec<_> = notes.iter().filter(|(note, _)| note.event == NodeEvent::TaskToken).collect();
    assert_eq!(tokens.len(), 2, "{notes:?}");
    assert!(tokens[0].0.detail.contains(&("token", "J".to_owned())) && tokens[0].0.subject == "git/pay");
    assert!(tokens[1].0.detail.contains(&("outcome", "deny".to_owned())));
    running.end("test").await;
    let ended = rig.runs.task_token(&inside, "git/pay").await.unwrap_err();
    assert!(matches!(ended, TokenError::NoRun(_)), "{ended}");
}

#[tokio::test]
async fn a_token_that_cannot_be_recorded_is_not_given() {
    let rig = rig();
    let running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    rig.book.full.store(true, Ordering::SeqCst);
    let refused = rig.runs.task_token(&myself(), "git/pay").await.unwrap_err();
    assert!(matches!(refused, TokenError::Record(_)), "{refused}");
    drop(running);
}
