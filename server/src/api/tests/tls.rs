//! The TCP door with real TLS: who is let in, as whom, and how the door closes.

use avouch_credential::tls::{
    IdentityCell, RootsCell, ServerExpectation, ServerPolicy, client_config, server_config, server_name,
};
use avouch_domain::{SpiffeId, X509Svid};
use avouch_proto::bundle_v1::bundle_client::BundleClient;
use avouch_proto::bundle_v1::{BatchSetFederatedBundleRequest, GetBundleRequest};
use avouch_proto::entry_v1::GetAuthorizedEntriesRequest;
use avouch_proto::svid_v1::MintX509svidRequest;
use avouch_proto::svid_v1::svid_client::SvidClient;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;
use crate::api::listen::{TcpTerms, bind_tcp, serve_tcp};

struct Door {
    address: std::net::SocketAddr,
    roots: Arc<RootsCell>,
}

fn open(world: &World) -> Door {
    let ca = world.gate.services.ca();
    let terms = TcpTerms {
        connections: 16,
        tls: server_config(ca.identity(), ca.roots(), ServerPolicy::GRPC).unwrap(),
        trust_domain: world.gate.services.trust_domain().clone(),
        admin_ids: Arc::new(world.gate.admin_ids.clone()),
    };
    let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve_tcp(listener, terms, world.tcp.clone()));
    Door { address, roots: ca.roots() }
}

impl Door {
    fn channel(&self, svid: Option<&X509Svid>) -> Channel {
        let identity = svid.map(|svid| Arc::new(IdentityCell::new(svid).unwrap()));
        let expected = ServerExpectation::Exactly(SpiffeId::server(&domain()));
        let config = client_config(identity, self.roots.clone(), expected).unwrap();
        let address = self.address;
        let connect = tower::service_fn(move |_| {
            let connector = TlsConnector::from(config.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                Ok::<_, std::io::Error>(TokioIo::new(
                    connector.connect(server_name("localhost"), stream).await?,
                ))
            }
        });
        Endpoint::from_static("http://server").connect_with_connector_lazy(connect)
    }
}

fn svid_of(wire: &types::X509svid, key: &PrivateKey) -> X509Svid {
    let id = wire.id.as_ref().unwrap();
    let chain: Vec<Arc<[u8]>> = wire.cert_chain.iter().map(|der| der.as_slice().into()).collect();
    X509Svid {
        id: SpiffeId::new(&TrustDomain::new(&id.trust_domain).unwrap(), &id.path).unwrap(),
        chain: chain.into(),
        key: Arc::new(key.pkcs8()),
        not_before: clock::now().wall,
        not_after: avouch_domain::Timestamp::from_secs(wire.expires_at),
    }
}

fn csr_with(key: &PrivateKey, id: Option<&SpiffeId>) -> Vec<u8> {
    csr::build(&CsrTemplate { subject: &Name::svid_default(), id, dns_names: &[] }, key).unwrap()
}

async fn minted(world: &World, path: &str) -> X509Svid {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let id = SpiffeId::new(world.gate.services.trust_domain(), path).unwrap();
    let csr = csr_with(&key, Some(&id));
    let reply =
        SvidClient::new(world.local()).mint_x509svid(MintX509svidRequest { csr, ttl: 0 }).await.unwrap();
    svid_of(&reply.into_inner().svid.unwrap(), &key)
}

#[tokio::test]
async fn without_a_certificate_one_may_read_the_bundle_and_attest_but_no_more() {
    let world = World::start().await;
    let door = open(&world);
    BundleClient::new(door.channel(None)).get_bundle(GetBundleRequest::default()).await.unwrap();
    let refused = EntryClient::new(door.channel(None))
        .get_authorized_entries(GetAuthorizedEntriesRequest::default())
        .await;
    assert_eq!(refusal(refused).0, Code::PermissionDenied);
}

#[tokio::test]
async fn an_agent_attests_and_comes_back_with_its_certificate() {
    let world = World::start().await;
    let door = open(&world);
    let request = CreateJoinTokenRequest { ttl: 60, token: "t".into(), agent_id: None };
    AgentClient::new(world.local()).create_join_token(request).await.unwrap();
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let data = types::AttestationData { r#type: "join_token".into(), payload: b"t".to_vec() };
    let params = AgentX509svidParams { csr: csr_with(&key, None) };
    let params = Params { data: Some(data), params: Some(params) };
    let request = AttestAgentRequest { step: Some(Step::Params(params)) };
    let mut client = AgentClient::new(door.channel(None));
    let mut replies = client.attest_agent(tokio_stream::iter([request])).await.unwrap().into_inner();
    let Some(Reply::Result(result)) = replies.message().await.unwrap().unwrap().step else {
        panic!("expected a result");
    };
    let svid = svid_of(&result.svid.unwrap(), &key);
    EntryClient::new(door.channel(Some(&svid)))
        .get_authorized_entries(GetAuthorizedEntriesRequest::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn an_admin_of_the_configuration_is_known_by_certificate() {
    let world = World::start().await;
    let door = open(&world);
    let list = avouch_proto::entry_v1::CountEntriesRequest::default;
    let admin = minted(&world, "/admin").await;
    EntryClient::new(door.channel(Some(&admin))).count_entries(list()).await.unwrap();
    let other = minted(&world, "/other").await;
    let refused = EntryClient::new(door.channel(Some(&other))).count_entries(list()).await;
    assert_eq!(refusal(refused).0, Code::PermissionDenied);
}

#[tokio::test]
async fn a_certificate_of_another_authority_ends_the_handshake() {
    let world = World::start().await;
    let stranger = World::start().await;
    let svid = minted(&stranger, "/admin").await;
    let refused =
        BundleClient::new(open(&world).channel(Some(&svid))).get_bundle(GetBundleRequest::default()).await;
    assert!(matches!(refusal(refused).0, Code::Unknown | Code::Unavailable));
}

#[tokio::test]
async fn a_drained_door_ends_once_its_connections_have() {
    let world = World::start().await;
    let door = open(&world);
    let mut client = BundleClient::new(door.channel(None));
    client.get_bundle(GetBundleRequest::default()).await.unwrap();
    world.gate.drain.finish().await;
    assert!(client.get_bundle(GetBundleRequest::default()).await.is_err());
    assert!(TcpStream::connect(door.address).await.is_err(), "nobody listens any more");
}

/// The serial of the certificate that the server presents on a new connection.
async fn presented(door: &Door) -> String {
    let expected = ServerExpectation::Exactly(SpiffeId::server(&domain()));
    let config = client_config(None, door.roots.clone(), expected).unwrap();
    let stream = TcpStream::connect(door.address).await.unwrap();
    let stream = TlsConnector::from(config).connect(server_name("localhost"), stream).await.unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    CertFacts::parse(&chain[0]).unwrap().serial_decimal.as_str().to_owned()
}

#[tokio::test]
async fn a_new_certificate_of_the_server_drops_no_connection_and_shows_on_the_next() {
    // Back-dated by ten seconds, so that half of its life is over two seconds from now.
    let short = Settings { x509_svid_ttl: std::time::Duration::from_secs(14), ..settings() };
    let world = World::with(domain(), short, &[]).await;
    let door = open(&world);
    let mut held = Held::open(&door).await;
    let before = presented(&door).await;
    held.ask().await;
    while presented(&door).await == before {
        held.ask().await;
    }
    held.ask().await;
}

/// One connection, which is never replaced by another.
struct Held(BundleClient<Channel>);

impl Held {
    async fn open(door: &Door) -> Self {
        let expected = ServerExpectation::Exactly(SpiffeId::server(&domain()));
        let config = client_config(None, door.roots.clone(), expected).unwrap();
        let stream = TcpStream::connect(door.address).await.unwrap();
        let stream = TlsConnector::from(config).connect(server_name("localhost"), stream).await.unwrap();
        let mut once = Some(TokioIo::new(stream));
        let connect = tower::service_fn(move |_| {
            let stream = once.take().ok_or_else(|| std::io::Error::other("the connection was dropped"));
            async move { stream }
        });
        Self(BundleClient::new(Endpoint::from_static("http://server").connect_with_connector_lazy(connect)))
    }

    async fn ask(&mut self) {
        self.0.get_bundle(GetBundleRequest::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_foreign_admin_needs_its_bundle_here_and_anybody_else_of_its_domain_stays_outside() {
    let other_domain = TrustDomain::new("other.org").unwrap();
    let foreign = World::with(other_domain.clone(), settings(), &[]).await;
    let world = World::with(domain(), settings(), &[SpiffeId::new(&other_domain, "/admin").unwrap()]).await;
    let door = open(&world);
    let count = avouch_proto::entry_v1::CountEntriesRequest::default;
    let admin = minted(&foreign, "/admin").await;
    let other = minted(&foreign, "/other").await;
    let refused = EntryClient::new(door.channel(Some(&admin))).count_entries(count()).await;
    assert!(matches!(refusal(refused).0, Code::Unknown | Code::Unavailable), "its bundle is not known");
    let bundle = BundleClient::new(foreign.local()).get_bundle(GetBundleRequest::default()).await.unwrap();
    let request = BatchSetFederatedBundleRequest { bundle: vec![bundle.into_inner()], output_mask: None };
    BundleClient::new(world.local()).batch_set_federated_bundle(request).await.unwrap();
    // The roots follow the write in a task of their own.
    while EntryClient::new(door.channel(Some(&admin))).count_entries(count()).await.is_err() {
        tokio::task::yield_now().await;
    }
    let refused = BundleClient::new(door.channel(Some(&other))).get_bundle(GetBundleRequest::default()).await;
    assert!(
        matches!(refusal(refused).0, Code::Unknown | Code::Unavailable),
        "not even what anybody may call"
    );
}
