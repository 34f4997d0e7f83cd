//! The API end to end in one process: real services on a store in memory, real gRPC over a pipe, callers as given.

use std::path::Path;
use std::sync::Arc;

use avouch::logs::{Level, LogHandle};
use avouch_attestors::node::NodeVerifier;
use avouch_credential::key::PrivateKey;
use avouch_credential::x509::csr::{self, CsrTemplate};
use avouch_credential::x509::facts::CertFacts;
use avouch_credential::x509::name::Name;
use avouch_domain::fixtures::{domain, id};
use avouch_domain::{KeyType, SpiffeId, TrustDomain};
use avouch_proto::agent_v1::agent_client::AgentClient;
use avouch_proto::agent_v1::attest_agent_request::{Params, Step};
use avouch_proto::agent_v1::attest_agent_response::Step as Reply;
use avouch_proto::agent_v1::{AgentX509svidParams, AttestAgentRequest, CreateJoinTokenRequest};
use avouch_proto::convert::spiffe_id_to_wire;
use avouch_proto::entry_v1::BatchCreateEntryRequest;
use avouch_proto::entry_v1::entry_client::EntryClient;
use avouch_proto::types;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::api::authz::method_names;
use crate::api::caller::{CallerSvid, Leaf, LocalPeer, Peer, Standing};
use crate::api::conn;
use crate::api::gate::{Gate, Limits, Stack};
use crate::api::{admin_stack, tcp_stack};
use crate::clock;
use crate::config::TelemetryConfig;
use crate::datastore::Datastore;
use crate::drain::Drain;
use crate::keys::memory::MemoryKeys;
use crate::metrics::Metrics;
use crate::service::{Parts, Services, Settings};

mod agents;
mod authorities;
mod bundles;
mod entries;
mod grants;
mod local;
mod pages;
mod records;
mod rules;
mod streams;
mod svids;
mod tasks;
mod tls;

/// A server without listeners.
struct World {
    gate: Arc<Gate>,
    tcp: Stack,
    admin: Stack,
    store: Datastore,
    stop: CancellationToken,
}

fn settings() -> Settings {
    let hour = std::time::Duration::from_secs(3600);
    Settings {
        ca_ttl: hour * 24,
        agent_ttl: hour,
        x509_svid_ttl: hour,
        jwt_svid_ttl: hour / 12,
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

impl World {
    async fn start() -> Self {
        Self::with(domain(), settings(), &[]).await
    }

    /// A server that asks this verifier about nodes of its kind.
    async fn verifying(verifier: Arc<dyn NodeVerifier>) -> Self {
        Self::of(domain(), settings(), &[], vec![(verifier.name().into(), verifier)]).await
    }

    /// A server of this trust domain. `admins` are known by configuration, beside `/admin` of example.org.
    async fn with(trust_domain: TrustDomain, settings: Settings, admins: &[SpiffeId]) -> Self {
        Self::of(trust_domain, settings, admins, Vec::new()).await
    }

    async fn of(
        trust_domain: TrustDomain,
        settings: Settings,
        admins: &[SpiffeId],
        verifiers: Vec<(String, Arc<dyn NodeVerifier>)>,
    ) -> Self {
        let telemetry = TelemetryConfig {
            prefix: "spire_server".into(),
            host_label: false,
            trust_domain_label: false,
            prometheus: None,
        };
        let metrics = Metrics::new(&telemetry, &trust_domain, &method_names());
        let (store, image) = Datastore::open(Path::new(":memory:"), metrics.clone(), clock::now).unwrap();
        let stop = CancellationToken::new();
        let services = Services::start(Parts {
            store: store.clone(),
            image,
            trust_domain: trust_domain.clone(),
            server_name: "test".into(),
            keys: Arc::new(MemoryKeys::new()),
            settings,
            verifiers,
            clock: clock::now,
            stop: stop.child_token(),
        })
        .await
        .unwrap();
        let gate = Arc::new(Gate {
            services,
            admin_ids: admins.iter().cloned().chain([id("/admin")]).collect(),
            limits: Limits::new(true, true, clock::now),
            metrics,
            audit_log: true,
            clock: clock::now,
            drain: Drain::of(&stop),
        });
        let admin = admin_stack(&gate, LogHandle::detached(Level::Info), clock::now().mono, None);
        Self { tcp: tcp_stack(&gate), admin, gate, store, stop }
    }

    /// A process on the admin socket.
    fn local(&self) -> Channel {
        channel(
            self.admin.clone(),
            Peer::Local(LocalPeer { uid: 7, gid: 8, pid: Some(9), exe: None, standing: Standing::Free }),
        )
    }

    /// Somebody over TCP without a certificate.
    fn nobody(&self) -> Channel {
        self.remote(Leaf::None)
    }

    fn remote(&self, leaf: Leaf) -> Channel {
        channel(self.tcp.clone(), Peer::Remote { address: "192.0.2.1:7".parse().unwrap(), leaf })
    }

    /// A holder of this SVID.
    fn holder(&self, svid: &CallerSvid) -> Channel {
        self.remote(Leaf::Svid(svid.clone()))
    }

    /// An agent that has just attested.
    async fn agent(&self, token: &str) -> CallerSvid {
        let request = CreateJoinTokenRequest { ttl: 60, token: token.into(), agent_id: None };
        AgentClient::new(self.local()).create_join_token(request).await.unwrap();
        self.attest("join_token", token.as_bytes(), &new_csr(None)).await.unwrap()
    }

    async fn attest(&self, kind: &str, payload: &[u8], csr: &[u8]) -> Result<CallerSvid, Status> {
        let data = types::AttestationData { r#type: kind.into(), payload: payload.into() };
        let params = Params { data: Some(data), params: Some(AgentX509svidParams { csr: csr.into() }) };
        let request = AttestAgentRequest { step: Some(Step::Params(params)) };
        let mut client = AgentClient::new(self.local());
        let mut replies = client.attest_agent(tokio_stream::iter([request])).await?.into_inner();
        let reply = replies.message().await?.unwrap().step.unwrap();
        assert!(replies.message().await?.is_none(), "the stream ends after the result");
        let Reply::Result(result) = reply else { panic!("expected a result") };
        Ok(caller_of(&result.svid.unwrap()))
    }

    /// Creates an entry below an agent and gives its ID.
    async fn entry(&self, parent: &SpiffeId, path: &str) -> String {
        let request = BatchCreateEntryRequest { entries: vec![wire_entry(parent, path)], output_mask: None };
        let reply = EntryClient::new(self.local()).batch_create_entry(request).await.unwrap().into_inner();
        let result = reply.results.into_iter().next().unwrap();
        assert_eq!(result.status.unwrap().code, 0);
        result.entry.unwrap().id
    }
}

fn wire_entry(parent: &SpiffeId, path: &str) -> types::Entry {
    types::Entry {
        parent_id: Some(spiffe_id_to_wire(parent)),
        spiffe_id: Some(spiffe_id_to_wire(&id(path))),
        selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:0".into() }],
        ..Default::default()
    }
}

fn caller_of(svid: &types::X509svid) -> CallerSvid {
    let Peer::Remote { leaf: Leaf::Svid(caller), .. } =
        Peer::remote("192.0.2.1:7".parse().unwrap(), svid.cert_chain.first().map(Vec::as_slice))
    else {
        panic!("expected an SVID");
    };
    let facts = CertFacts::parse(&svid.cert_chain[0]).unwrap();
    assert_eq!(facts.not_after.secs(), svid.expires_at);
    caller
}

fn new_csr(id: Option<&SpiffeId>) -> Vec<u8> {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    csr::build(&CsrTemplate { subject: &Name::svid_default(), id, dns_names: &[] }, &key).unwrap()
}

fn channel(stack: Stack, peer: Peer) -> Channel {
    channel_of_age(stack, peer, None)
}

/// A channel whose connections are told to go away after `age`.
fn channel_of_age(stack: Stack, peer: Peer, age: Option<std::time::Duration>) -> Channel {
    let connect = tower::service_fn(move |_| {
        let (near, far) = tokio::io::duplex(1 << 20);
        tokio::spawn(conn::serve(far, peer.clone(), stack.clone(), age));
        async move { Ok::<_, std::io::Error>(TokioIo::new(near)) }
    });
    Endpoint::from_static("http://pipe").connect_with_connector_lazy(connect)
}

/// Code and text of a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    (status.code(), status.message().to_owned())
}
