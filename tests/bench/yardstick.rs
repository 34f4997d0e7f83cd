//! What nothing can beat: the same provider's raw cryptography in the same run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use avouch_tests::forge::Authority;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use nix::time::{ClockId, clock_gettime};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use crate::report::{Yard, median};

const MESSAGE: &[u8] = &[7; 400];
/// Length of one sample.
const SAMPLE: Duration = Duration::from_millis(300);
/// Samples of a row; the median counts.
const SAMPLES: usize = 5;

/// Microseconds of this thread's CPU per call, median of the samples: who else uses the machine is no part of it.
pub fn measure(mut call: impl FnMut()) -> f64 {
    let cpu = || -> Duration { clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock").into() };
    let samples = (0..SAMPLES).map(|_| {
        let (begun, before) = (Instant::now(), cpu());
        let mut calls = 0_u32;
        while begun.elapsed() < SAMPLE {
            call();
            calls += 1;
        }
        (cpu() - before).as_secs_f64() * 1e6 / f64::from(calls)
    });
    median(samples.collect())
}

/// One signature.
pub fn sign() -> Yard {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
    let random = SystemRandom::new();
    let value = measure(|| {
        std::hint::black_box(key.sign(&random, MESSAGE).expect("a signature"));
    });
    Yard { name: "sign", value }
}

/// One verification and one signature: what a CSR and a certificate cost at least.
pub fn floor() -> Yard {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
    let random = SystemRandom::new();
    let signature = key.sign(&random, MESSAGE).expect("a signature");
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key().as_ref());
    let value = measure(|| {
        public.verify(MESSAGE, signature.as_ref()).expect("a true signature");
        std::hint::black_box(key.sign(&random, MESSAGE).expect("a signature"));
    });
    Yard { name: "floor", value }
}

/// The server's half of a bare TLS 1.3 handshake in memory: P-256 certificate, no client certificate.
pub fn handshake() -> Yard {
    let authority = Authority::fresh("spiffe://example.org");
    let leaf = authority.leaf_with("spiffe://example.org/bench", |params| {
        params.subject_alt_names.push(rcgen::SanType::DnsName("server".try_into().expect("a name")));
    });
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.der.clone())).expect("a root");
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.resumption = rustls::client::Resumption::disabled();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der.into()], PrivateKeyDer::Pkcs8(leaf.key.into()))
        .expect("a certificate");
    server.send_tls13_tickets = 0;
    let (client, server) = (Arc::new(client), Arc::new(server));
    let samples = (0..SAMPLES * 40).map(|_| server_half(&client, &server).as_secs_f64() * 1e6);
    Yard { name: "handshake", value: median(samples.collect()) }
}

fn server_half(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Duration {
    let name = ServerName::try_from("server").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(client), name).expect("a client");
    let mut spent = Duration::ZERO;
    let begun = Instant::now();
    let mut server = ServerConnection::new(Arc::clone(server)).expect("a server");
    spent += begun.elapsed();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("client bytes");
        let begun = Instant::now();
        server.read_tls(&mut wire.as_slice()).expect("client bytes");
        server.process_new_packets().expect("a client that fits");
        let mut wire = Vec::new();
        server.write_tls(&mut wire).expect("server bytes");
        spent += begun.elapsed();
        if !wire.is_empty() {
            client.read_tls(&mut wire.as_slice()).expect("server bytes");
            client.process_new_packets().expect("a server that fits");
        }
    }
    spent
}
