//! Hooks beside a made-up server: who may ask, what a token proves, what is decided and what is recorded.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use avouch_attestors::process::ProcessKey;
use avouch_credential::jwt::issue::{JwtIssuer, JwtTemplate};
use avouch_credential::jwt::task::{self, TaskClaims, TaskTemplate};
use avouch_credential::key::PrivateKey;
use avouch_credential::random;
use avouch_credential::x509::issue::{CaTemplate, Issuer, LeafTemplate, self_signed_ca};
use avouch_credential::x509::name::Name;
use avouch_domain::fixtures::{domain, id, set};
use avouch_domain::{
    Bundle, CallResult, Code, CodeDigest, Environment, JwtAuthority, KeyType, Kind, Needs, RequestContent,
    RequestId, RulesDigest, Tick, Timestamp, TrustDomain, X509Authority,
};
use avouch_rules::{
    Folder, HTTP_READ, HttpDoor, HttpMethod, NewHttpGate, NewRoute, STARTER, Template, add_hook_gate,
    add_http_gate, let_preset,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::*;
use crate::records::Durability;
use crate::runs::{Did, NoReceipt};
use crate::supply::{AgentFacts, Feed, JwtGrant, JwtQuestion, JwtRefusal, Nearest, WorkloadUpdate};
use crate::upstream::{self, CallError, SignedToken, TokenAsk, Told, UsedYes};
use avouch_credential::limits::{PRESENTED_CHAIN_MAX, PRESENTED_TOKEN_MAX};

const WALL: Timestamp = Timestamp::from_secs(1_000_000);
const CODER: &str = "/test/coder";

/// A middle with one authority, in which `unix:uid:1` is the hook of git and of vault.
struct Middle {
    own: Arc<Bundle>,
}

struct OneFeed(Option<WorkloadUpdate>);

#[tonic::async_trait]
impl Feed for OneFeed {
    async fn next(&mut self) -> Option<Arc<WorkloadUpdate>> {
        self.0.take().map(Arc::new)
    }
}

#[tonic::async_trait]
impl Supply for Middle {
    fn trust_domain(&self) -> TrustDomain {
        domain()
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
        Box::new(OneFeed(Some(WorkloadUpdate {
            matched: 1,
            waiting: 0,
            identities: Vec::new(),
            own: self.own.clone(),
            federated: Vec::new(),
            rests_on_groups: false,
        })))
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
        BTreeSet::new()
    }
    async fn names(&self, selectors: &SelectorSet) -> BTreeSet<SpiffeId> {
        if *selectors == set(&["unix:uid:1"]) { [id("/test/git")].into() } else { [id("/other")].into() }
    }
    async fn facts(&self) -> AgentFacts {
        AgentFacts::default()
    }
}

/// A server that knows one identity, or is away.
struct Server {
    says: Mutex<Result<Option<Governed>, CallError>>,
    asked: Mutex<Vec<String>>,
}

#[tonic::async_trait]
impl Tasks for Server {
    async fn sign(&self, _: &TokenAsk) -> Result<SignedToken, CallError> {
        Err(CallError::Unimplemented)
    }
    async fn presented(&self, name: &SpiffeId, resource: &str, _: &Presented) -> Result<Told, CallError> {
        self.asked.lock().push(format!("{} {resource}", name.path()));
        Ok(Told { identity: self.says.lock().clone()?, rules_number: 3 })
    }
}

#[tonic::async_trait]
impl Identities for Server {
    fn agent_id(&self) -> SpiffeId {
        id("/spire/agent/x")
    }
    async fn identity(&self, _: &SpiffeId) -> Result<Told, CallError> {
        Ok(Told { identity: self.says.lock().clone()?, rules_number: 3 })
    }
    async fn other_code(&self, _: &SpiffeId, _: CodeDigest) -> Result<bool, CallError> {
        Err(CallError::Unimplemented)
    }
}

/// Keeps what it is told, as long as it has room.
#[derive(Default)]
struct Kept {
    notes: Mutex<Vec<(Note, Durability)>>,
    full: Mutex<bool>,
}

#[tonic::async_trait]
impl Scribe for Kept {
    async fn write(&self, note: Note, durability: Durability) -> Result<u64, String> {
        if *self.full.lock() {
            return Err("the spool is full".to_owned());
        }
        let mut notes = self.notes.lock();
        notes.push((note, durability));
        Ok(notes.len() as u64)
    }

    fn veiled(&self, name: &str, values: &[&str]) -> Result<String, String> {
        Ok(format!("{}-{}", name.len(), values.concat().len()))
    }
}

/// A server whose people say yes to everything, or to nothing yet; it keeps what it is asked.
#[derive(Default)]
struct People {
    asked: Mutex<Vec<(RequestContent, Presented)>>,
    yes: AtomicBool,
}

#[tonic::async_trait]
impl Requests for People {
    async fn ask(
        &self,
        content: &RequestContent,
        needs: Needs,
        _: [u8; 16],
        presented: &Presented,
    ) -> Result<upstream::Asked, CallError> {
        self.asked.lock().push((content.clone(), presented.clone()));
        let hash = avouch_credential::request::text_of(content).unwrap().hash;
        let asking = upstream::Asking { request: RequestId::new("req_a").unwrap(), hash };
        Ok(match self.yes.load(Ordering::SeqCst) {
            false => upstream::Asked::Waits(asking),
            true => {
                let yes = Some((asking, UsedYes { whose: needs.yes, age: 1 }));
                upstream::Asked::Used { yes, grant: None }
            }
        })
    }
}

struct Rig {
    hooks: Hooks,
    server: Arc<Server>,
    book: Arc<Kept>,
    people: Arc<People>,
    rules: Book,
    issuer: JwtIssuer,
    x509: Issuer,
}

/// More files of the rules: a preset for pipelines.
const MORE: [(&str, &str); 2] = [
    ("presets.toml", "\n[deployer]\nkind = \"pipeline\"\nactions = [\"secret.read\"]\ngates = [\"vault\"]\n"),
    (
        "examples.toml",
        "\n[[example]]\nrule = \"preset.deployer\"\nexpect = \"allow\"\nrequest = { kind = \"pipeline\", preset = \
         \"deployer\", action = \"secret.read\", resource = \"vault/deploy\" }\n[[example]]\nrule = \
         \"preset.deployer\"\nexpect = \"deny\"\nrequest = { kind = \"pipeline\", preset = \"deployer\", action = \
         \"repo.read\", resource = \"git/pay\" }\n",
    ),
];

/// The starter with the same hook in front of git and of the vault, and another in front of telemetry.
fn rules() -> Arc<Held> {
    let files = STARTER.iter().map(|(name, text)| {
        let more = MORE.iter().find(|(file, _)| file == name).map_or("", |(_, more)| more);
        ((*name).to_owned(), format!("{text}{more}"))
    });
    let folder = add_hook_gate(&Folder::new(files).unwrap(), "git", "/test/git").unwrap();
    let folder = add_hook_gate(&folder, "vault", "/test/git").unwrap();
    let folder = add_hook_gate(&folder, "telemetry", "/test/telemetry").unwrap();
    let routes = [NewRoute {
        method: HttpMethod::Get,
        path: Template::parse("/{path..}").unwrap(),
        resource: "read".into(),
        query: BTreeSet::new(),
        other_query: true,
    }];
    let api = NewHttpGate {
        name: "api",
        upstream: "https://api.example.org",
        door: HttpDoor::Shared { caller: "/test/git".into() },
        ca: None,
        secret: None,
        routes: &routes,
        environment: Environment::Test,
        domain: "code",
        sensitivity: 1,
    };
    let folder = add_http_gate(&folder, &api).unwrap();
    let folder = let_preset(&folder, "coding-agent", HTTP_READ, ("api", "read")).unwrap();
    let rules = avouch_rules::check(&folder).unwrap();
    Arc::new(Held { number: 3, digest: RulesDigest([0; 32]), rules })
}

fn governed(kind: Kind, preset: Option<&str>) -> Governed {
    Governed {
        name: id(CODER),
        kind,
        environment: Environment::Test,
        purpose: Code::new("fix-bugs").unwrap(),
        preset: preset.map(|preset| Code::new(preset).unwrap()),
        owner: "per_a".into(),
        owner_active: true,
        ends: WALL + Duration::from_secs(3600),
        stop_number: 2,
        code: None,
        runs_max: None,
        emergencies: Vec::new(),
    }
}

/// A CA of the trust domain.
fn x509() -> Issuer {
    let (key, subject) = (Arc::new(PrivateKey::generate(KeyType::EcP256).unwrap()), Name::ca_default());
    let template = CaTemplate {
        trust_domain: &domain(),
        subject: &subject,
        serial: random::serial().unwrap(),
        now: WALL,
        ttl: Duration::from_secs(3600),
    };
    let ca = self_signed_ca(&template, &*key).unwrap();
    Issuer::new(&ca.der, key).unwrap()
}

fn rig() -> Rig {
    let key = Arc::new(PrivateKey::generate(KeyType::EcP256).unwrap());
    let mut own = Bundle::empty(domain());
    own.jwt_authorities.push(JwtAuthority {
        key_id: "K".into(),
        public_key: key.public_key().pkix().into(),
        expires_at: None,
        tainted: false,
    });
    let x509 = x509();
    let der = x509.ca_der().clone();
    own.x509_authorities.push(X509Authority { der, tainted: false });
    let says = Mutex::new(Ok(Some(governed(Kind::AiAgent, Some("coding-agent")))));
    let (server, book) = (Arc::new(Server { says, asked: Mutex::default() }), Arc::<Kept>::default());
    let people = Arc::<People>::default();
    let held = Book::default();
    held.swap(Some(rules()));
    let hooks = Hooks::new(Parts {
        supply: Arc::new(Middle { own: Arc::new(own) }),
        identities: server.clone(),
        tasks: server.clone(),
        requests: people.clone(),
        rules: held.clone(),
        scribe: book.clone(),
        gate_secrets: None,
        clock: || Now { wall: WALL, mono: Tick(0) },
    });
    let issuer = JwtIssuer::new("K", key, WALL + Duration::from_secs(3600)).unwrap();
    Rig { hooks, server, book, people, rules: held, issuer, x509 }
}

impl Rig {
    fn task_token(&self, resource: &str, stop_number: u64, at: Timestamp) -> String {
        let claims = TaskClaims {
            id: id(CODER),
            task: Code::new("fix-4711").unwrap(),
            instance: "ins_0a1b".into(),
            purpose: Code::new("fix-bugs").unwrap(),
            stop_number,
        };
        let end = WALL + Duration::from_secs(3600);
        let template = TaskTemplate { claims: &claims, resource, issuer: None, jti: "J", now: at, end };
        task::sign(&self.issuer, &template).unwrap().token.to_string()
    }

    fn svid(&self, audience: &str) -> String {
        let (id, audience, ttl) = (id(CODER), [audience.to_owned()], Duration::from_secs(60));
        let template = JwtTemplate { id: &id, audience: &audience, issuer: None, jti: None, now: WALL, ttl };
        self.issuer.sign(&template).unwrap().token.to_string()
    }

    /// A certificate of the coder's.
    fn chain(&self) -> Vec<Vec<u8>> {
        let (key, subject) = (PrivateKey::generate(KeyType::EcP256).unwrap(), Name::svid_default());
        let template = LeafTemplate {
            id: &id(CODER),
            public_key: key.public_key(),
            dns_names: &[],
            subject: &subject,
            serial: random::serial().unwrap(),
            now: WALL,
            ttl: Duration::from_secs(60),
        };
        vec![self.x509.leaf(&template).unwrap().der.to_vec()]
    }

    fn push(&self, branch: &str) -> Asked {
        Asked {
            presented: Presented::token(self.task_token("git/pay", 2, WALL)),
            action: "repo.push".into(),
            resource: "git/pay".into(),
            params: vec![("branch".into(), branch.into())],
            shown: String::new(),
            said: Vec::new(),
            kind: String::new(),
            what_if: false,
            unlimited: false,
        }
    }

    async fn check(&self, asked: Asked) -> Checked {
        self.hooks.check(&set(&["unix:uid:1"]), &asked).await.unwrap()
    }

    /// Outcome and reason.
    async fn outcome(&self, asked: Asked) -> (&'static str, &'static str) {
        let answer = self.check(asked).await.answer;
        (answer.outcome, answer.reason)
    }
}

#[tokio::test]
async fn what_the_rules_allow_within_the_task_is_allowed_and_recorded_with_its_run_before_it_is_told() {
    let rig = rig();
    let checked = rig.check(rig.push("fix")).await;
    assert_eq!((checked.answer.outcome, checked.answer.record), ("allow", 1), "{checked:?}");
    assert_eq!(checked.identity, Some(id(CODER)));
    assert_eq!(*rig.server.asked.lock(), ["/test/coder git/pay"], "the server is asked once");
    let (note, _) = rig.book.notes.lock()[0].clone();
    assert_eq!(
        (note.event, note.actor.as_str(), note.subject.as_str()),
        (NodeEvent::Decision, "ins_0a1b", "git/pay")
    );
    for wanted in [("outcome", "allow"), ("gate", "git"), ("task", "fix-4711"), ("token", "J")] {
        assert!(note.detail.contains(&(wanted.0, wanted.1.to_owned())), "{wanted:?}: {note:?}");
    }
    let asked = Asked { action: "repo.merge".into(), ..rig.push("fix") };
    assert_eq!(rig.outcome(asked).await, ("step_up", "asked"));
    assert!(rig.people.asked.lock().is_empty(), "nobody is asked what is not shown");
}

#[tokio::test]
async fn who_is_only_named_is_answered_about_and_nothing_comes_of_it() {
    let rig = rig();
    let named = || Asked { presented: Presented::default(), what_if: true, ..rig.push("fix") };
    let hook = set(&["unix:uid:1"]);
    let answer = rig.hooks.what_if(&hook, Some(&id(CODER)), &named()).await.unwrap();
    // Without a task, an AI agent may nothing.
    assert_eq!((answer.outcome, answer.reason, answer.record), ("deny", "task", 0), "{answer:?}");
    *rig.server.says.lock() = Ok(None);
    let unknown = rig.hooks.what_if(&hook, Some(&id(CODER)), &named()).await.unwrap();
    assert_eq!((unknown.outcome, unknown.reason), ("deny", "unknown_here"));
    let another = rig.hooks.what_if(&set(&["unix:uid:2"]), Some(&id(CODER)), &named()).await;
    assert!(matches!(another, Err(NoHook::Caller { .. })), "only the hook hears of others: {another:?}");
    assert!(rig.book.notes.lock().is_empty() && rig.people.asked.lock().is_empty());
}

#[tokio::test]
async fn what_takes_a_yes_is_asked_in_the_words_of_the_hook_under_the_token_that_it_was_shown() {
    let rig = rig();
    let shown = Presented::token(rig.task_token("git/pay", 2, WALL));
    let merge = || Asked {
        presented: shown.clone(),
        action: "repo.merge".into(),
        shown: "+total = 42".into(),
        ..rig.push("fix")
    };
    let waits = rig.check(merge()).await.answer;
    assert_eq!((waits.outcome, waits.request.as_str()), ("step_up", "req_a"));
    let asked = rig.people.asked.lock().clone();
    let (content, presented) = &asked[0];
    assert_eq!((content.identity.clone(), content.task.as_str()), (id(CODER), "fix-4711"));
    assert_eq!(content.shown, "branch = fix\n+total = 42");
    assert_eq!(*presented, shown);
    rig.people.yes.store(true, Ordering::SeqCst);
    let allowed = rig.check(merge()).await.answer;
    assert_eq!((allowed.outcome, allowed.request.as_str()), ("allow", "req_a"));
    let (note, durability) = rig.book.notes.lock().last().unwrap().clone();
    assert!(note.detail.contains(&("request", "req_a".to_owned())), "{note:?}");
    assert_eq!(durability, Durability::Synced);
}

#[tokio::test]
async fn a_hook_owes_no_receipt_because_it_decides_before_anything_is_done() {
    let rig = rig();
    rig.people.yes.store(true, Ordering::SeqCst);
    let merge = Asked { action: "repo.merge".into(), shown: "+total = 42".into(), ..rig.push("fix") };
    let checked = rig.check(merge).await;
    assert_eq!((checked.answer.outcome, checked.answer.wants_receipt()), ("allow", true), "{checked:?}");
    assert_eq!(checked.due, None);
}

#[tokio::test]
async fn a_receipt_of_a_shared_gate_is_taken_from_the_process_that_was_told_and_once() {
    let rig = rig();
    let due = Due {
        identity: id(CODER),
        task: Code::new("fix-4711").unwrap(),
        actor: "ins_0a1b".into(),
        action: "http.write".into(),
        resource: "api/new".into(),
        request: "req_a".into(),
        grant: String::new(),
    };
    let process =
        |pid| ProcessKey { pid, start_time: 1, image: 1, exe: None, uid: 1, gid: 1, groups: Arc::default() };
    let did = || Did {
        record: 7,
        action: "http.write".into(),
        resource: "api/new".into(),
        sent: "id = 7\n{}".into(),
        result: CallResult::Answered,
        status: 201,
    };
    rig.hooks.awaits(7, process(1), (id("/test/git"), due));
    assert!(matches!(rig.hooks.did(&process(2), did()).await, Err(NoReceipt::NotDue(7))));
    assert!(rig.book.notes.lock().is_empty());
    rig.hooks.did(&process(1), did()).await.unwrap();
    assert!(matches!(rig.hooks.did(&process(1), did()).await, Err(NoReceipt::NotDue(7))));
    let (note, _) = rig.book.notes.lock()[0].clone();
    assert_eq!((note.event, note.actor.as_str()), (NodeEvent::CallDone, "ins_0a1b"));
    assert!(note.detail.iter().any(|(name, _)| *name == "hash"), "{note:?}");
}

#[tokio::test]
async fn only_the_workload_that_the_rules_name_may_ask_and_only_about_what_it_guards() {
    let rig = rig();
    let other = rig.hooks.check(&set(&["unix:uid:2"]), &rig.push("fix")).await.unwrap_err();
    assert!(matches!(&other, NoHook::Caller { caller, .. } if *caller == id("/test/git")), "{other}");
    let theirs = Asked { resource: "telemetry/requests".into(), ..rig.push("fix") };
    let theirs = rig.hooks.check(&set(&["unix:uid:1"]), &theirs).await.unwrap_err();
    assert!(matches!(theirs, NoHook::Caller { .. }), "{theirs}");
    for resource in ["files/read_file", "git", "nothing/x"] {
        let asked = Asked { resource: resource.into(), ..rig.push("fix") };
        let unguarded = rig.hooks.check(&set(&["unix:uid:1"]), &asked).await.unwrap_err();
        assert_eq!(unguarded, NoHook::Unguarded(resource.to_owned()));
    }
    rig.rules.swap(None);
    let none = rig.hooks.check(&set(&["unix:uid:1"]), &rig.push("fix")).await;
    assert_eq!(none.unwrap_err(), NoHook::NoRules);
    assert!(rig.book.notes.lock().is_empty() && rig.server.asked.lock().is_empty());
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_denied_and_asked_about_nowhere() {
    let rig = rig();
    let (stranger, past) = (super::tests::rig(), WALL - Duration::from_secs(300));
    for token in [
        String::new(),
        "junk".into(),
        "a".repeat(PRESENTED_TOKEN_MAX + 1),
        rig.task_token("git/other", 2, WALL),
        rig.task_token("git/pay", 2, past),
        stranger.task_token("git/pay", 2, WALL),
        rig.svid("spiffe://example.org/test/other"),
        rig.svid("avouch-resource:git/pay"),
    ] {
        let checked = rig.check(Asked { presented: Presented::token(token), ..rig.push("fix") }).await;
        assert_eq!((checked.answer.outcome, checked.answer.reason), ("deny", "token"), "{checked:?}");
        assert_eq!(checked.identity, None);
    }
    assert!(rig.server.asked.lock().is_empty());
    let notes = rig.book.notes.lock();
    assert_eq!(notes.len(), 1, "one record in a while");
    assert_eq!(notes[0].0.actor, "spiffe://example.org/test/git", "whoever showed it is not known");
}

#[tokio::test]
async fn who_is_not_in_force_or_was_paused_since_or_is_not_known_here_is_denied_with_a_record() {
    let rig = rig();
    let stale = Asked { presented: Presented::token(rig.task_token("git/pay", 1, WALL)), ..rig.push("fix") };
    assert_eq!(rig.outcome(stale).await, ("deny", "stopped_since"));
    *rig.server.says.lock() = Ok(None);
    assert_eq!(rig.outcome(rig.push("fix")).await, ("deny", "not_in_force"));
    *rig.server.says.lock() = Err(CallError::Unreachable("no route".into()));
    assert_eq!(rig.outcome(rig.push("fix")).await, ("deny", "unknown_here"));
    let notes = rig.book.notes.lock();
    assert_eq!(notes.len(), 3);
    assert!(notes.iter().all(|(note, _)| note.actor == "ins_0a1b"));
}

#[tokio::test]
async fn a_jwt_svid_knows_of_no_task_so_an_ai_agent_is_denied_and_a_pipeline_is_not() {
    let rig = rig();
    let hook = "spiffe://example.org/test/git";
    let asked = |rig: &Rig| Asked { presented: Presented::token(rig.svid(hook)), ..rig.push("fix") };
    assert_eq!(rig.outcome(asked(&rig)).await, ("deny", "task"));
    *rig.server.says.lock() = Ok(Some(governed(Kind::Pipeline, Some("deployer"))));
    let secret = Asked {
        action: "secret.read".into(),
        resource: "vault/deploy".into(),
        params: Vec::new(),
        ..asked(&rig)
    };
    assert_eq!(rig.outcome(secret).await, ("allow", "allowed"));
    assert_eq!(rig.book.notes.lock()[0].0.actor, "spiffe://example.org/test/coder");
}

#[tokio::test]
async fn parameters_are_read_as_the_resource_declares_them() {
    let rig = rig();
    let unknown = Asked { params: vec![("colour".into(), "red".into())], ..rig.push("fix") };
    let answer = rig.check(unknown).await.answer;
    assert_eq!((answer.outcome, answer.reason), ("deny", "params"));
    assert!(answer.text.contains("has no parameter \"colour\", expected one of: branch"), "{}", answer.text);
    let twice = vec![("branch".into(), "a".into()), ("branch".into(), "b".into())];
    assert_eq!(rig.outcome(Asked { params: twice, ..rig.push("fix") }).await, ("deny", "params"));
}

#[tokio::test]
async fn what_cannot_be_recorded_is_denied_and_what_is_only_asked_leaves_no_record() {
    let rig = rig();
    let checked = rig.check(Asked { what_if: true, ..rig.push("fix") }).await;
    assert_eq!((checked.answer.outcome, checked.answer.record), ("allow", 0));
    let junk = Asked { what_if: true, presented: Presented::token("junk"), ..rig.push("fix") };
    assert_eq!(rig.outcome(junk).await, ("deny", "token"));
    assert!(rig.book.notes.lock().is_empty());
    *rig.book.full.lock() = true;
    assert_eq!(rig.outcome(rig.push("fix")).await, ("deny", "unrecorded"));
}

#[tokio::test]
async fn a_certificate_is_taken_from_a_gate_that_shook_hands_itself_and_from_no_other() {
    let rig = rig();
    let presented = Presented { chain: rig.chain(), ..Presented::default() };
    let at_hook = Asked { presented: presented.clone(), ..rig.push("fix") };
    assert_eq!(rig.outcome(at_hook).await, ("deny", "certificate"));
    assert!(rig.server.asked.lock().is_empty(), "and nobody is asked whose it is");
    let read = |presented: Presented| Asked {
        presented,
        action: "http.read".into(),
        resource: "api/read".into(),
        params: Vec::new(),
        ..rig.push("fix")
    };
    assert_eq!(rig.outcome(read(presented.clone())).await, ("deny", "task"), "an AI agent has a task");
    let token = rig.task_token("api/read", 2, WALL);
    let both = read(Presented { chain: presented.chain.clone(), ..Presented::token(token) });
    assert_eq!(rig.outcome(both).await, ("allow", "allowed"));
    let (note, _) = rig.book.notes.lock().last().unwrap().clone();
    assert_eq!(note.actor, "ins_0a1b");
    assert!(note.detail.iter().any(|(name, _)| *name == "certificate"), "{note:?}");
    let long = read(Presented { chain: vec![vec![0; PRESENTED_CHAIN_MAX + 1]], ..Presented::default() });
    assert!(rig.check(long).await.answer.text.contains("expected at most"));
}

#[tokio::test]
async fn a_gate_is_given_to_the_workload_that_the_rules_name_and_to_no_other() {
    let rig = rig();
    let served = rig.hooks.served(&set(&["unix:uid:1"]), "api", 1).await.unwrap();
    assert_eq!((served.gate.as_str(), served.caller.path()), ("api", "/test/git"));
    let refused = async |selector: &str, gate: &str| {
        rig.hooks.served(&set(&[selector]), gate, 1).await.map(drop).unwrap_err().to_string()
    };
    assert!(refused("unix:uid:2", "api").await.contains("the rules want spiffe://example.org/test/git"));
    assert!(refused("unix:uid:1", "git").await.contains("no HTTP gate \"git\""), "a hook serves nothing");
    assert!(refused("unix:uid:1", "nothing").await.contains("no HTTP gate \"nothing\""));
    let changes = rig.hooks.rules_number();
    assert!(!changes.has_changed().unwrap());
    rig.rules.swap(None);
    assert!(changes.has_changed().unwrap());
    assert!(refused("unix:uid:1", "api").await.contains("no rules are published"));
}
