//! A made-up middle of the agent behind a real socket, and clients that talk to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use avouch_attestors::workload::LookError;
use avouch_attestors::{Boxed, PinnedProcess, WorkloadLooker};
use avouch_credential::jwt::issue::{JwtIssuer, JwtTemplate};
use avouch_credential::key::PrivateKey;
use avouch_credential::random;
use avouch_credential::signer::Signer;
use avouch_credential::x509::issue::{CaTemplate, self_signed_ca};
use avouch_credential::x509::name::Name;
use avouch_domain::{
    Bundle, EntryId, JwtAuthority, JwtSvid, KeyType, Selector, SelectorSet, SpiffeId, Timestamp, TrustDomain,
    X509Authority, X509Svid, fixtures,
};
use avouch_proto::workload as wire;
use avouch_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use zeroize::Zeroizing;

use super::super::{Sockets, Stop, WorkloadOptions, WorkloadParts, listener, serve_workload};
use crate::fair::FairShare;
use crate::limits::CALLS_MAX;
use crate::metrics::Metrics;
use crate::supply::{
    AgentFacts, Feed, Identity, JwtGrant, JwtQuestion, JwtRefusal, Nearest, Supply, Want, WorkloadUpdate,
};
use crate::workload::WorkloadAttestor;

/// Long enough for anything that should happen.
pub const SOON: Duration = Duration::from_secs(10);
/// How long a stream must stay silent to count as silent.
pub const SILENCE: Duration = Duration::from_millis(150);

/// Connections the socket has room for.
pub const CONNECTIONS: usize = 100;

pub struct FakeSupply {
    pub ready: watch::Sender<bool>,
    pub push: AtomicBool,
    pub synced: AtomicBool,
    pub state: Mutex<Option<watch::Sender<Arc<WorkloadUpdate>>>>,
    pub jwt: Mutex<Result<Vec<JwtGrant>, JwtRefusal>>,
    pub asked: Mutex<Vec<(SelectorSet, Want)>>,
    pub audiences: Mutex<Vec<Vec<String>>>,
    /// While true, nobody is given a token.
    pub slow: watch::Sender<bool>,
    /// One more holder for each caller that waits for a token.
    pub waiting: Arc<()>,
}

struct FakeFeed {
    state: watch::Receiver<Arc<WorkloadUpdate>>,
    first: bool,
}

#[tonic::async_trait]
impl Feed for FakeFeed {
    async fn next(&mut self) -> Option<Arc<WorkloadUpdate>> {
        if !std::mem::take(&mut self.first) {
            self.state.changed().await.ok()?;
        }
        Some(self.state.borrow_and_update().clone())
    }
}

#[tonic::async_trait]
impl Supply for FakeSupply {
    fn trust_domain(&self) -> TrustDomain {
        fixtures::domain()
    }
    fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }
    fn synced(&self) -> bool {
        self.synced.load(Ordering::SeqCst)
    }
    fn push_live(&self) -> bool {
        self.push.load(Ordering::SeqCst)
    }
    async fn subscribe(&self, selectors: SelectorSet, want: Want) -> Box<dyn Feed> {
        self.asked.lock().push((selectors, want));
        let state = self.state.lock().as_ref().map(watch::Sender::subscribe);
        Box::new(FakeFeed { state: state.expect("the fake runs"), first: true })
    }
    async fn fetch_jwt(&self, question: JwtQuestion) -> Result<Arc<[JwtGrant]>, JwtRefusal> {
        let JwtQuestion { audience, id, .. } = question;
        let _waiting = self.waiting.clone();
        self.audiences.lock().push(audience);
        let _ = self.slow.subscribe().wait_for(|slow| !slow).await;
        let mut grants = self.jwt.lock().clone()?;
        grants.retain(|grant| id.as_ref().is_none_or(|id| *id == grant.svid.id));
        if grants.is_empty() { Err(JwtRefusal::NoIdentity) } else { Ok(grants.into()) }
    }
    fn lent_jwt(&self, _: &JwtQuestion) -> Option<Arc<[JwtGrant]>> {
        None
    }
    async fn nearest(&self, _: &SelectorSet) -> Option<Nearest> {
        None
    }
    async fn runnable(&self, _: u32) -> std::collections::BTreeSet<avouch_domain::SpiffeId> {
        std::collections::BTreeSet::new()
    }
    async fn names(&self, _: &SelectorSet) -> std::collections::BTreeSet<SpiffeId> {
        std::collections::BTreeSet::new()
    }
    async fn facts(&self) -> AgentFacts {
        AgentFacts {
            svid_not_after: Some(Timestamp::MAX),
            synced: *self.ready.borrow(),
            cached_x509: 3,
            cached_jwt: 2,
            last_sync: Some(Timestamp::from_secs(1000)),
            ..AgentFacts::default()
        }
    }
}

impl FakeSupply {
    pub fn set(&self, update: WorkloadUpdate) {
        if let Some(state) = self.state.lock().as_ref() {
            state.send_replace(Arc::new(update));
        }
    }
}

/// A looker that gives fixed selectors, or fails.
pub struct FakeLooker {
    pub fail: bool,
    pub looks: std::sync::atomic::AtomicUsize,
}

impl WorkloadLooker for FakeLooker {
    fn name(&self) -> &'static str {
        "unix"
    }
    fn look(&self, _: Arc<PinnedProcess>) -> Boxed<'static, Result<Vec<Selector>, LookError>> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let fail = self.fail;
        Box::pin(async move {
            if fail {
                return Err(LookError::Failed { looker: "unix", message: "made to fail".into() });
            }
            Ok(fixtures::selectors(&["unix:uid:1"]))
        })
    }
}

/// A running workload socket.
pub struct World {
    pub supply: Arc<FakeSupply>,
    pub looker: Arc<FakeLooker>,
    pub metrics: Metrics,
    pub stop: Stop,
    pub path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

pub struct Setup {
    pub ready: bool,
    pub push: bool,
    pub fail: bool,
    pub options: WorkloadOptions,
}

impl Default for Setup {
    fn default() -> Self {
        Self { ready: true, push: true, fail: false, options: WorkloadOptions::default() }
    }
}

impl World {
    pub fn new(state: WorkloadUpdate) -> Self {
        Self::with(state, Setup::default())
    }

    pub fn with(state: WorkloadUpdate, setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("public/api.sock");
        let supply = Arc::new(FakeSupply {
            ready: watch::Sender::new(setup.ready),
            push: AtomicBool::new(setup.push),
            synced: AtomicBool::new(true),
            state: Mutex::new(Some(watch::Sender::new(Arc::new(state)))),
            jwt: Mutex::new(Err(JwtRefusal::NoIdentity)),
            asked: Mutex::default(),
            audiences: Mutex::default(),
            slow: watch::Sender::new(false),
            waiting: Arc::default(),
        });
        let looker = Arc::new(FakeLooker { fail: setup.fail, looks: 0.into() });
        let metrics = Metrics::plain();
        let stop = Stop::new();
        let bound = listener::bind_workload(&path).unwrap();
        let parts = parts(&looker, &metrics, setup.options);
        tokio::spawn(serve_workload(
            Sockets { workload: bound, access: None },
            supply.clone(),
            parts,
            stop.clone(),
        ));
        Self { supply, looker, metrics, stop, path, _dir: dir }
    }

    /// The service alone, to be put behind another connection.
    pub fn service(&self) -> super::super::route::WorkloadService {
        let parts = parts(&self.looker, &self.metrics, WorkloadOptions::default());
        super::super::service(self.supply.clone(), parts, FairShare::new(CALLS_MAX), self.stop.clone())
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::try_from(format!("unix://{}", self.path.display())).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub async fn client(&self) -> SpiffeWorkloadApiClient<Channel> {
        SpiffeWorkloadApiClient::new(self.channel().await)
    }

    pub async fn x509(&self) -> Result<Streaming<wire::X509svidResponse>, Status> {
        let answer = self.client().await.fetch_x509svid(call(wire::X509svidRequest {})).await?;
        Ok(answer.into_inner())
    }

    pub async fn jwt(&self, audience: &[&str], id: &str) -> Result<wire::JwtsvidResponse, Status> {
        let request = wire::JwtsvidRequest {
            audience: audience.iter().map(|a| (*a).to_owned()).collect(),
            spiffe_id: id.into(),
        };
        Ok(self.client().await.fetch_jwtsvid(call(request)).await?.into_inner())
    }

    pub async fn validate(
        &self,
        audience: &str,
        svid: &str,
    ) -> Result<wire::ValidateJwtsvidResponse, Status> {
        let request = wire::ValidateJwtsvidRequest { audience: audience.into(), svid: svid.into() };
        Ok(self.client().await.validate_jwtsvid(call(request)).await?.into_inner())
    }
}

fn parts(looker: &Arc<FakeLooker>, metrics: &Metrics, options: WorkloadOptions) -> WorkloadParts {
    let tick = || avouch::clock::now().mono;
    let attestor = Arc::new(WorkloadAttestor::new(vec![looker.clone()], metrics.clone(), tick));
    WorkloadParts {
        attestor,
        runs: None,
        hooks: None,
        options,
        room: listener::Room { connections: CONNECTIONS, open_files: 4 },
        metrics: metrics.clone(),
        used: None,
        clock: avouch::clock::now,
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A request with the security header.
pub fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

/// The next message of a stream, soon.
pub async fn next<T>(stream: &mut Streaming<T>) -> Result<T, Status> {
    let message = tokio::time::timeout(SOON, stream.message()).await.expect("a message or an end soon");
    message.map(|m| m.expect("never a clean end"))
}

/// True if the stream says nothing for a while.
pub async fn silent<T>(stream: &mut Streaming<T>) -> bool {
    tokio::time::timeout(SILENCE, stream.message()).await.is_err()
}

/// A real root of a trust domain, DER.
pub fn root(domain: &TrustDomain) -> Arc<[u8]> {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let template = CaTemplate {
        trust_domain: domain,
        subject: &Name::ca_default(),
        serial: random::serial().unwrap(),
        now: avouch::clock::now().wall,
        ttl: Duration::from_secs(86_400),
    };
    self_signed_ca(&template, &key).unwrap().der.into()
}

/// A bundle with one real root and no JWT key.
pub fn bundle(name: &str) -> Bundle {
    let mut bundle = Bundle::empty(TrustDomain::new(name).unwrap());
    bundle.x509_authorities.push(X509Authority { der: root(&bundle.trust_domain), tainted: false });
    bundle
}

/// A bundle with a JWT key too, and an issuer with that key.
pub fn jwt_bundle(name: &str) -> (Bundle, JwtIssuer) {
    let mut bundle = bundle(name);
    let key = Arc::new(PrivateKey::generate(KeyType::EcP256).unwrap());
    bundle.jwt_authorities.push(JwtAuthority {
        key_id: "kid-1".into(),
        public_key: Signer::public_key(&*key).pkix().into(),
        expires_at: None,
        tainted: false,
    });
    (bundle, JwtIssuer::new("kid-1", key, Timestamp::MAX).unwrap())
}

pub fn token(issuer: &JwtIssuer, id: &str, audience: &str) -> String {
    let template = JwtTemplate {
        id: &SpiffeId::parse(id).unwrap(),
        audience: &[audience.to_owned()],
        issuer: Some("https://issuer.example.org"),
        jti: None,
        now: avouch::clock::now().wall,
        ttl: Duration::from_secs(300),
    };
    issuer.sign(&template).unwrap().token.to_string()
}

/// An identity whose chain and key are plain bytes.
pub fn identity(entry: &str, path: &str, hint: &str) -> Identity {
    Identity {
        entry_id: EntryId::new(entry).unwrap(),
        created_at: Timestamp(0),
        hint: hint.into(),
        svid: Arc::new(X509Svid {
            id: fixtures::id(path),
            chain: vec![Arc::from(&b"leaf"[..]), Arc::from(&b"intermediate"[..])].into(),
            key: Arc::new(Zeroizing::new(b"key".to_vec())),
            not_before: Timestamp(0),
            not_after: Timestamp::MAX,
        }),
    }
}

pub fn grant(entry: &str, path: &str, hint: &str) -> JwtGrant {
    JwtGrant {
        entry_id: EntryId::new(entry).unwrap(),
        created_at: Timestamp(0),
        hint: hint.into(),
        svid: JwtSvid {
            id: fixtures::id(path),
            token: Arc::new(Zeroizing::new(format!("token-of-{entry}"))),
            issued_at: Timestamp(0),
            expires_at: Timestamp::MAX,
        },
        rests_on_groups: false,
    }
}

/// A state with these identities and the own bundle `own`.
pub fn state(own: &Arc<Bundle>, identities: Vec<Identity>) -> WorkloadUpdate {
    WorkloadUpdate {
        matched: identities.len(),
        waiting: 0,
        identities,
        own: own.clone(),
        federated: Vec::new(),
        rests_on_groups: false,
    }
}

/// A state that matches nothing.
pub fn nothing(own: &Arc<Bundle>) -> WorkloadUpdate {
    state(own, Vec::new())
}

pub fn own() -> Arc<Bundle> {
    Arc::new(bundle("example.org"))
}
