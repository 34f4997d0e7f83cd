//! Handshakes in memory: who is accepted, and that nothing is ever resumed.

use std::io::{Read, Write};

use avouch_domain::{KeyType, SpiffeId, Timestamp, X509Svid};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConnection, HandshakeKind, ServerConnection};
use rustls_pki_types::UnixTime;

use super::*;
use crate::fixtures::{HOUR, NOW, bundle, id, issuer, issuer_at, svid};
use crate::x509::issue::Issuer;
use crate::x509::verify::svid_id;

const SERVER: &str = "spiffe://example.org/spire/server";
const AGENT: &str = "spiffe://example.org/spire/agent/a";

#[derive(Debug)]
struct Fixed(Timestamp);

impl TimeProvider for Fixed {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.since(Timestamp(0))))
    }
}

/// Both sides after a handshake.
struct Joined {
    client: ClientConnection,
    server: ServerConnection,
}

impl Joined {
    /// The SPIFFE ID that the server saw.
    fn caller(&self) -> Option<SpiffeId> {
        let certificates = self.server.peer_certificates()?;
        Some(svid_id(&certificates[0]).unwrap())
    }

    fn is_resumed(&self) -> bool {
        let kinds = (self.client.handshake_kind().unwrap(), self.server.handshake_kind().unwrap());
        assert_eq!(kinds.0, kinds.1);
        kinds.0 == HandshakeKind::Resumed
    }
}

/// Runs a handshake and a byte each way, tickets included.
fn join(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<Joined, String> {
    let mut client = ClientConnection::new(client.clone(), server_name("localhost")).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    client.writer().write_all(b"?").unwrap();
    server.writer().write_all(b"!").unwrap();
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().map_err(|e| format!("server: {}", explain(&e)))?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(|e| format!("client: {}", explain(&e)))?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    let (mut to_server, mut to_client) = ([0], [0]);
    server.reader().read_exact(&mut to_server).unwrap();
    client.reader().read_exact(&mut to_client).unwrap();
    assert_eq!((to_server, to_client), (*b"?", *b"!"));
    Ok(Joined { client, server })
}

/// A server and an agent of example.org whose cells the tests change.
struct Pair {
    issuer: Issuer,
    server_identity: Arc<IdentityCell>,
    server_roots: Arc<RootsCell>,
    client_identity: Arc<IdentityCell>,
    client_roots: Arc<RootsCell>,
    expectation: ServerExpectation,
    policy: ServerPolicy,
    /// The client speaks HTTP/1.1 and nothing else.
    http1: bool,
    now: Timestamp,
}

fn pair() -> Pair {
    let issuer = issuer("example.org");
    let roots = || {
        let roots = RootsCell::empty();
        roots.set(&bundle(&[&issuer]));
        Arc::new(roots)
    };
    Pair {
        server_identity: Arc::new(IdentityCell::new(&svid(&issuer, SERVER)).unwrap()),
        server_roots: roots(),
        client_identity: Arc::new(IdentityCell::new(&svid(&issuer, AGENT)).unwrap()),
        client_roots: roots(),
        expectation: ServerExpectation::Exactly(id(SERVER)),
        policy: ServerPolicy::GRPC,
        http1: false,
        now: NOW,
        issuer,
    }
}

impl Pair {
    /// As the product builds it, but for the clock.
    fn server(&self) -> Arc<ServerConfig> {
        let config = server_config(self.server_identity.clone(), self.server_roots.clone(), self.policy);
        let mut config = ServerConfig::clone(&config.unwrap());
        config.time_provider = Arc::new(Fixed(self.now));
        Arc::new(config)
    }

    /// As the product builds it, but for the clock.
    fn client(&self) -> Arc<ClientConfig> {
        let identity = Some(self.client_identity.clone());
        let alpn = if self.http1 { Alpn::Http1 } else { Alpn::Grpc };
        let config = client_config_with(identity, self.client_roots.clone(), self.expectation.clone(), alpn);
        let mut config = ClientConfig::clone(&config.unwrap());
        config.time_provider = Arc::new(Fixed(self.now));
        Arc::new(config)
    }

    fn server_that(
        &self,
        resumption: Resumption,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ServerConfig> {
        let (identity, roots) = (self.server_identity.clone(), self.server_roots.clone());
        let mut config = build_server(identity, roots, self.policy, resumption, &[version]).unwrap();
        if resumption == Resumption::On {
            config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
        }
        config.time_provider = Arc::new(Fixed(self.now));
        Arc::new(config)
    }

    fn client_that(
        &self,
        resumption: Resumption,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let identity = Some(self.client_identity.clone());
        let (roots, expectation) = (self.client_roots.clone(), self.expectation.clone());
        let mut config =
            build_client(identity, roots, expectation, Alpn::Grpc, resumption, &[version]).unwrap();
        config.time_provider = Arc::new(Fixed(self.now));
        Arc::new(config)
    }

    fn join(&self) -> Result<Joined, String> {
        join(&self.client(), &self.server())
    }

    /// Connects, gives the client another identity, connects again: was the second one resumed, and whom did
    /// the server see?
    fn rotate_and_reconnect(
        &self,
        client: &Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
    ) -> (bool, Option<SpiffeId>) {
        self.client_identity.set(&self.svid(AGENT)).unwrap();
        assert_eq!(join(client, server).unwrap().caller(), Some(id(AGENT)));
        self.client_identity.set(&self.svid(ROTATED)).unwrap();
        let second = join(client, server).unwrap();
        (second.is_resumed(), second.caller())
    }

    fn svid(&self, spiffe_id: &str) -> X509Svid {
        svid(&self.issuer, spiffe_id)
    }
}

const ROTATED: &str = "spiffe://example.org/spire/agent/rotated";

#[test]
fn a_rotated_identity_shows_on_the_next_connection() {
    let pair = pair();
    let fresh = (false, Some(id(ROTATED)));
    assert_eq!(pair.rotate_and_reconnect(&pair.client(), &pair.server()), fresh);
}

/// Fails if the server's switches are taken out: the client here would resume.
#[test]
fn our_server_resumes_nothing_even_for_a_client_that_would() {
    let pair = pair();
    let fresh = (false, Some(id(ROTATED)));
    assert_eq!(pair.rotate_and_reconnect(&pair.client_that(Resumption::On, &TLS13), &pair.server()), fresh);
    assert_eq!(pair.rotate_and_reconnect(&pair.client_that(Resumption::On, &TLS12), &pair.server()), fresh);
}

/// Each of the server's two switches alone would hide the absence of the other.
#[test]
fn our_server_gives_no_tickets_and_keeps_no_sessions() {
    let server = pair().server();
    assert_eq!(server.send_tls13_tickets, 0);
    assert!(!server.session_storage.can_cache());
    assert!(!server.ticketer.enabled());
}

/// Fails if the client's switch is taken out: the server here would resume.
#[test]
fn our_client_resumes_nothing_even_with_a_server_that_would() {
    let pair = pair();
    let fresh = (false, Some(id(ROTATED)));
    assert_eq!(pair.rotate_and_reconnect(&pair.client(), &pair.server_that(Resumption::On, &TLS13)), fresh);
    assert_eq!(pair.rotate_and_reconnect(&pair.client(), &pair.server_that(Resumption::On, &TLS12)), fresh);
}

/// The danger is real: with both switches taken out the server sees the identity of the first connection.
#[test]
fn the_resumption_tests_would_notice_a_resumed_session() {
    for version in [&TLS13, &TLS12] {
        let pair = pair();
        let client = pair.client_that(Resumption::On, version);
        let server = pair.server_that(Resumption::On, version);
        assert_eq!(pair.rotate_and_reconnect(&client, &server), (true, Some(id(AGENT))));
    }
}

#[test]
fn a_client_of_another_trust_domain_is_refused() {
    let pair = pair();
    pair.client_identity.set(&svid(&issuer("other.org"), "spiffe://other.org/a")).unwrap();
    let error = pair.join().err().unwrap();
    assert!(error.contains("no X.509 authorities known for trust domain other.org"), "{error}");
}

#[test]
fn a_client_with_a_certificate_of_our_name_by_another_authority_is_refused() {
    let pair = pair();
    pair.client_identity.set(&svid(&issuer("example.org"), AGENT)).unwrap();
    assert!(pair.join().is_err());
}

#[test]
fn the_authorities_of_one_trust_domain_vouch_for_no_other() {
    let pair = pair();
    let other = issuer("other.org");
    pair.server_roots.set(&bundle(&[&other]));
    assert!(pair.join().is_ok());
    let mut swapped = bundle(&[&pair.issuer]);
    swapped.x509_authorities = bundle(&[&other]).x509_authorities;
    pair.server_roots.replace([&swapped]);
    assert!(pair.join().is_err());
}

#[test]
fn a_server_of_another_trust_domain_is_refused() {
    let pair = pair();
    let other = issuer("other.org");
    pair.client_roots.set(&bundle(&[&other]));
    pair.server_identity.set(&svid(&other, "spiffe://other.org/spire/server")).unwrap();
    let error = pair.join().err().unwrap();
    assert!(error.contains("unexpected ID"), "{error}");
}

#[test]
fn a_server_with_another_id_is_refused() {
    let pair = pair();
    pair.server_identity.set(&pair.svid(AGENT)).unwrap();
    let error = pair.join().err().unwrap();
    assert!(error.starts_with("client: ") && error.contains("unexpected ID"), "{error}");
}

#[test]
fn an_insecure_client_accepts_whoever_names_itself_the_server() {
    let mut pair = pair();
    pair.expectation = ServerExpectation::Insecure(id(SERVER));
    pair.client_roots.replace([]);
    pair.server_identity.set(&svid(&issuer("example.org"), SERVER)).unwrap();
    assert!(pair.join().is_ok(), "no root is needed");
    pair.server_identity.set(&svid(&issuer("other.org"), "spiffe://other.org/spire/server")).unwrap();
    assert!(pair.join().is_err(), "but the server of another trust domain is none");
}

#[test]
fn a_client_without_a_certificate_is_welcome_and_nameless() {
    let pair = pair();
    pair.client_identity.clear();
    assert_eq!(pair.join().unwrap().caller(), None);
}

#[test]
fn a_gate_refuses_a_client_without_a_certificate_and_knows_every_other() {
    let mut pair = pair();
    pair.policy = ServerPolicy::GATE;
    pair.http1 = true;
    assert_eq!(pair.join().unwrap().caller(), Some(id(AGENT)));
    pair.client_identity.clear();
    let refused = pair.join().map(drop).unwrap_err();
    assert!(refused.contains("peer sent no certificates"), "{refused}");
}

#[test]
fn a_bundle_endpoint_asks_for_no_certificate() {
    let mut pair = pair();
    pair.policy = ServerPolicy::BUNDLE_ENDPOINT;
    assert_eq!(pair.join().unwrap().caller(), None);
}

#[test]
fn a_server_without_an_identity_refuses_every_handshake() {
    let pair = pair();
    pair.server_identity.clear();
    assert!(pair.join().is_err());
    pair.server_identity.set(&pair.svid(SERVER)).unwrap();
    assert!(pair.join().is_ok());
}

#[test]
fn new_roots_act_on_the_next_handshake() {
    let pair = pair();
    let (client, server) = (pair.client(), pair.server());
    let next = issuer("example.org");
    pair.client_identity.set(&svid(&next, AGENT)).unwrap();
    assert!(join(&client, &server).is_err());
    pair.server_roots.set(&bundle(&[&pair.issuer, &next]));
    assert!(join(&client, &server).is_ok());
    pair.server_roots.remove(next.trust_domain());
    assert!(join(&client, &server).is_err());
}

#[test]
fn the_time_of_the_handshake_counts() {
    let mut pair = pair();
    pair.now = NOW + HOUR * 2;
    let error = pair.join().err().unwrap();
    assert!(error.contains("Expired"), "{error}");
}

#[test]
fn a_ca_certificate_authenticates_nobody() {
    use crate::x509::issue::{CaTemplate, self_signed_ca};
    use crate::x509::name::Name;
    let pair = pair();
    let key = crate::fixtures::key(KeyType::EcP256);
    let template = CaTemplate {
        trust_domain: pair.issuer.trust_domain(),
        subject: &Name::ca_default(),
        serial: [1; 16],
        now: NOW,
        ttl: HOUR,
    };
    let ca = self_signed_ca(&template, &key).unwrap();
    let authority = avouch_domain::X509Authority { der: ca.der.clone().into(), tainted: false };
    let mut trusting = bundle(&[&pair.issuer]);
    trusting.x509_authorities.push(authority);
    pair.server_roots.set(&trusting);
    let svid = X509Svid { chain: [ca.der.into()].into(), key: Arc::new(key.pkcs8()), ..pair.svid(AGENT) };
    pair.client_identity.set(&svid).unwrap();
    let error = pair.join().err().unwrap();
    assert!(error.contains("must not have CA flag"), "{error}");
}

#[test]
fn every_key_type_shakes_hands() {
    for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let pair = pair();
        let issuer = issuer_at("example.org", key_type, NOW);
        let key = crate::fixtures::key(key_type);
        pair.server_roots.set(&bundle(&[&issuer]));
        let subject = crate::x509::name::Name::svid_default();
        let template = crate::x509::issue::LeafTemplate {
            id: &id(AGENT),
            public_key: key.public_key(),
            dns_names: &[],
            subject: &subject,
            serial: [1; 16],
            now: NOW,
            ttl: HOUR,
        };
        let leaf = issuer.leaf(&template).unwrap();
        let svid =
            X509Svid { chain: [leaf.der.into()].into(), key: Arc::new(key.pkcs8()), ..pair.svid(AGENT) };
        pair.client_identity.set(&svid).unwrap();
        assert_eq!(pair.join().unwrap().caller(), Some(id(AGENT)));
    }
}

#[test]
fn the_key_exchange_is_hybrid_post_quantum() {
    let joined = pair().join().unwrap();
    let group = joined.client.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
}

#[test]
fn grpc_is_spoken_over_http2() {
    let joined = pair().join().unwrap();
    assert_eq!(joined.server.alpn_protocol(), Some(b"h2".as_slice()));
}

#[test]
fn a_key_that_is_not_the_certificates_is_refused_and_the_old_identity_stays() {
    let pair = pair();
    let (a, b) = (pair.svid(ROTATED), pair.svid(ROTATED));
    let mixed = X509Svid { key: b.key, ..a };
    assert!(matches!(pair.client_identity.set(&mixed), Err(TlsError::Library(_))));
    assert_eq!(pair.join().unwrap().caller(), Some(id(AGENT)));
}

#[test]
fn any_host_gives_a_server_name() {
    for (host, name) in
        [("localhost", "localhost"), ("::1", "::1"), ("no host", "127.0.0.1"), ("", "127.0.0.1")]
    {
        assert_eq!(server_name(host).to_str(), name);
    }
}
