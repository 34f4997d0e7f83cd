//! Prover against verifier, and each way a proof can be wrong.

use std::path::PathBuf;

use avouch_domain::fixtures::domain;
use avouch_domain::{Now, Tick, Timestamp};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PSS_SHA256, RsaEncoding, RsaPssSaltLength};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use serde_json::{Value, json};

use super::message::{ecdsa_asn1, fingerprint, minimal};
use super::*;
use crate::node::{Exchange, NodeProof, NodeProver, NodeVerifier, Reason, Round, Step, VerifyError};

/// 2030-01-01, inside every certificate made here.
const NOW: Now = Now { wall: Timestamp::from_secs(1_893_456_000), mono: Tick(0) };

struct Pki {
    dir: tempfile::TempDir,
    root: Issuer<'static, KeyPair>,
    root_der: Vec<u8>,
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn node(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.serial_number = Some(SerialNumber::from_slice(&[0x0a, 0xbc]));
    params
}

impl Pki {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca("root");
        let certificate = params.self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        let root_der = certificate.der().to_vec();
        Self { dir, root: Issuer::new(params, key), root_der }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn verifier(&self) -> Verifier {
        self.verifier_with(|_| {})
    }

    fn verifier_with(&self, change: impl FnOnce(&mut VerifierConfig)) -> Verifier {
        let keys = VerifierKeys { ca_bundle_path: Some(self.path("ca.pem")), ..VerifierKeys::default() };
        let mut config = keys.check().unwrap();
        change(&mut config);
        Verifier::load(domain(), config).unwrap()
    }

    /// A prover for a leaf of these parameters, signed by the root.
    fn prover(&self, params: &CertificateParams, key: &KeyPair) -> Prover {
        let leaf = params.signed_by(key, &self.root).unwrap();
        self.prover_of(&leaf.pem(), &key.serialize_pem()).unwrap()
    }

    fn prover_of(&self, certificates: &str, key: &str) -> Result<Prover, String> {
        std::fs::write(self.path("leaf.pem"), certificates).unwrap();
        std::fs::write(self.path("key.pem"), key).unwrap();
        let config = ProverConfig {
            private_key_path: self.path("key.pem"),
            certificate_path: self.path("leaf.pem"),
            intermediates_path: None,
        };
        Prover::load(config).map_err(|e| e.to_string())
    }
}

fn exchange(payload: &[u8]) -> Exchange {
    Exchange { payload: payload.to_vec(), rounds: Vec::new(), peer: None, own_roots: Vec::new() }
}

/// Plays both sides to the end; `twist` may change the response on its way.
async fn play_with(
    prover: &mut Prover,
    verifier: &Verifier,
    twist: impl FnOnce(Vec<u8>) -> Vec<u8>,
) -> Result<NodeProof, VerifyError> {
    let mut seen = exchange(&prover.open().await.unwrap());
    let Step::Ask(challenge) = verifier.judge(&seen, NOW).await? else {
        panic!("accepted without a challenge")
    };
    let response = twist(prover.answer(&challenge).await.unwrap());
    seen.rounds.push(Round { challenge, response });
    match verifier.judge(&seen, NOW).await? {
        Step::Accept(proof) => Ok(proof),
        Step::Ask(_) => panic!("a second challenge"),
    }
}

async fn play(prover: &mut Prover, verifier: &Verifier) -> Result<NodeProof, VerifyError> {
    play_with(prover, verifier, |r| r).await
}

fn edit(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(bytes).unwrap();
    change(&mut value);
    serde_json::to_vec(&value).unwrap()
}

fn b64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn p256() -> KeyPair {
    KeyPair::generate().unwrap()
}

#[tokio::test]
async fn an_ecdsa_certificate_proves_a_node_with_its_selectors() {
    let (pki, key) = (Pki::new(), p256());
    let mut params = node("node-7");
    for uri in [
        "x509pop://example.org/zone/a/b",
        "x509pop://other.org/zone/x",
        "x509pop://example.org/zone%2Fx/y",
        "x509pop://example.org/only",
    ] {
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    }
    let leaf = params.signed_by(&key, &pki.root).unwrap();
    let mut prover = pki.prover_of(&leaf.pem(), &key.serialize_pem()).unwrap();
    let proof = play(&mut prover, &pki.verifier()).await.unwrap();
    assert_eq!(
        proof.agent_id.as_str(),
        format!("spiffe://example.org/spire/agent/x509pop/{}", fingerprint(leaf.der()))
    );
    let selectors: Vec<_> = proof.selectors.iter().map(|s| s.value().to_owned()).collect();
    assert_eq!(
        selectors,
        [
            format!("ca:fingerprint:{}", fingerprint(&pki.root_der)),
            "san:zone:a/b".to_owned(),
            "serialnumber:0abc".to_owned(),
            "subject:cn:node-7".to_owned(),
        ]
    );
    assert!(proof.can_reattest);
}

#[tokio::test]
async fn the_messages_have_spires_json_form() {
    let (pki, key) = (Pki::new(), p256());
    let mut prover = pki.prover(&node("n"), &key);
    let payload = prover.open().await.unwrap();
    let leaf = std::fs::read(pki.path("leaf.pem")).unwrap();
    let der =
        <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(&leaf);
    assert_eq!(payload.as_slice(), format!("{{\"certificates\":[\"{}\"]}}", b64(&der.unwrap())).as_bytes());
    let Step::Ask(challenge) = pki.verifier().judge(&exchange(&payload), NOW).await.unwrap() else {
        panic!()
    };
    let text = String::from_utf8(challenge.clone()).unwrap();
    assert!(text.starts_with("{\"rsa_signature\":null,\"ecdsa_signature\":{\"nonce\":\""), "{text}");
    let response = String::from_utf8(prover.answer(&challenge).await.unwrap()).unwrap();
    assert!(response.starts_with("{\"rsa_signature\":null,\"ecdsa_signature\":{\"nonce\":\""), "{response}");
    let value: Value = serde_json::from_str(&response).unwrap();
    let members: Vec<_> = value["ecdsa_signature"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(members, ["nonce", "r", "s"]);
}

#[tokio::test]
async fn an_rsa_certificate_proves_a_node() {
    let (pki, key) = (Pki::new(), KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap());
    let proof = play(&mut pki.prover(&node("r"), &key), &pki.verifier()).await.unwrap();
    assert!(proof.selectors.iter().any(|s| s.value() == "subject:cn:r"));
}

#[tokio::test]
async fn rsa_signatures_with_the_longest_salt_are_accepted() {
    let (pki, key) = (Pki::new(), KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap());
    let mut prover = pki.prover(&node("r"), &key);
    let mut seen = exchange(&prover.open().await.unwrap());
    let verifier = pki.verifier();
    let Step::Ask(challenge) = verifier.judge(&seen, NOW).await.unwrap() else { panic!() };
    let asked: super::message::Challenge = serde_json::from_slice(&challenge).unwrap();
    let message = [asked.rsa_signature.unwrap().nonce.0, vec![9; 32]].concat();
    static LONGEST: aws_lc_rs::signature::RsaSignatureEncoding =
        RSA_PSS_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);
    let encoding: &'static dyn RsaEncoding = &LONGEST;
    let rsa = aws_lc_rs::rsa::KeyPair::from_pkcs8(&key.serialize_der()).unwrap();
    let mut signature = vec![0; rsa.public_modulus_len()];
    rsa.sign(encoding, &SystemRandom::new(), &message, &mut signature).unwrap();
    let response = json!({"rsa_signature": {"nonce": b64(&[9; 32]), "signature": b64(&signature)}});
    seen.rounds.push(Round { challenge, response: response.to_string().into_bytes() });
    assert!(matches!(verifier.judge(&seen, NOW).await, Ok(Step::Accept(_))));
}

#[tokio::test]
async fn a_p384_key_is_refused_by_the_prover_with_its_reason() {
    let (pki, key) = (Pki::new(), KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap());
    let leaf = node("n").signed_by(&key, &pki.root).unwrap();
    let error = pki.prover_of(&leaf.pem(), &key.serialize_pem()).unwrap_err();
    assert!(error.contains("unsupported key"), "{error}");
}

#[tokio::test]
async fn a_key_of_another_certificate_is_found_at_start() {
    let pki = Pki::new();
    let leaf = node("n").signed_by(&p256(), &pki.root).unwrap();
    let error = pki.prover_of(&leaf.pem(), &p256().serialize_pem()).unwrap_err();
    assert!(error.contains("does not belong"), "{error}");
}

#[tokio::test]
async fn an_old_response_does_not_answer_a_new_challenge() {
    let (pki, key) = (Pki::new(), p256());
    let (mut prover, verifier) = (pki.prover(&node("n"), &key), pki.verifier());
    let mut seen = exchange(&prover.open().await.unwrap());
    let Step::Ask(first) = verifier.judge(&seen, NOW).await.unwrap() else { panic!() };
    let response = prover.answer(&first).await.unwrap();
    let Step::Ask(second) = verifier.judge(&seen, NOW).await.unwrap() else { panic!() };
    assert_ne!(first, second);
    seen.rounds.push(Round { challenge: second, response });
    let error = verifier.judge(&seen, NOW).await.unwrap_err();
    assert_eq!(error.reason, Reason::Refused);
    assert!(error.to_string().starts_with("nodeattestor(x509pop): challenge response verification failed"));
}

#[tokio::test]
async fn a_changed_or_short_nonce_is_refused() {
    let (pki, key) = (Pki::new(), p256());
    for nonce in [vec![0; 32], vec![0; 31], vec![]] {
        let error = play_with(&mut pki.prover(&node("n"), &key), &pki.verifier(), |r| {
            edit(&r, |v| v["ecdsa_signature"]["nonce"] = json!(b64(&nonce)))
        })
        .await
        .unwrap_err();
        assert_eq!(error.reason, Reason::Refused, "{error}");
    }
}

#[tokio::test]
async fn halves_of_a_signature_may_carry_leading_zeros() {
    let (pki, key) = (Pki::new(), p256());
    play_with(&mut pki.prover(&node("n"), &key), &pki.verifier(), |r| {
        edit(&r, |v| {
            for half in ["r", "s"] {
                use base64::Engine as _;
                let engine = base64::engine::general_purpose::STANDARD;
                let digits = engine.decode(v["ecdsa_signature"][half].as_str().unwrap()).unwrap();
                let padded = [vec![0; 40 - digits.len()], digits].concat();
                v["ecdsa_signature"][half] = json!(b64(&padded));
            }
        })
    })
    .await
    .unwrap();
}

#[test]
fn asn1_integers_are_minimal_and_positive() {
    assert_eq!(ecdsa_asn1(&[0, 0x80], &[1]), Some(vec![0x30, 7, 2, 2, 0, 0x80, 2, 1, 1]));
    assert_eq!(ecdsa_asn1(&[0], &[1]), None, "zero is no half");
    assert_eq!(ecdsa_asn1(&[1; 67], &[1]), None, "longer than any field");
    let long = ecdsa_asn1(&[0xff; 66], &[0xff; 66]).unwrap();
    assert_eq!(long.get(..3), Some([0x30, 0x81, 138].as_slice()));
    assert_eq!(minimal(&[0, 0, 3, 0]), [3, 0]);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_before_any_challenge() {
    let (ours, theirs, key) = (Pki::new(), Pki::new(), p256());
    let mut prover = theirs.prover(&node("n"), &key);
    let seen = exchange(&prover.open().await.unwrap());
    let error = ours.verifier().judge(&seen, NOW).await.unwrap_err();
    assert_eq!(error.reason, Reason::Refused);
    assert!(error.message.starts_with("certificate verification failed"), "{error}");
}

#[tokio::test]
async fn a_certificate_is_refused_outside_its_time() {
    let (pki, key) = (Pki::new(), p256());
    let mut params = node("n");
    params.not_after = rcgen::date_time_ymd(2029, 1, 1);
    let error = play(&mut pki.prover(&params, &key), &pki.verifier()).await.unwrap_err();
    assert_eq!(error.reason, Reason::Refused);
}

#[tokio::test]
async fn an_expired_root_vouches_for_nobody() {
    let (pki, key) = (Pki::new(), p256());
    let mut prover = pki.prover(&node("n"), &key);
    let seen = exchange(&prover.open().await.unwrap());
    let far = Now { wall: Timestamp::from_secs(100_000_000_000), mono: Tick(0) };
    assert_eq!(pki.verifier().judge(&seen, far).await.unwrap_err().reason, Reason::Refused);
}

#[tokio::test]
async fn a_leaf_that_may_not_sign_gets_no_challenge() {
    let (pki, key) = (Pki::new(), p256());
    let mut params = node("n");
    params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    let error = play(&mut pki.prover(&params, &key), &pki.verifier()).await.unwrap_err();
    assert_eq!(error.reason, Reason::Internal);
    assert_eq!(
        error.message,
        "unable to generate challenge: certificate not intended for digital signature use"
    );
}

#[tokio::test]
async fn all_issuers_of_all_paths_become_selectors() {
    let pki = Pki::new();
    let (middle_key, key) = (p256(), p256());
    let middle_params = ca("middle");
    let middle = middle_params.signed_by(&middle_key, &pki.root).unwrap();
    // The intermediate is a configured root too, self-signed: two paths lead up from the leaf.
    let also_root = middle_params.self_signed(&middle_key).unwrap();
    let both = [std::fs::read_to_string(pki.path("ca.pem")).unwrap(), also_root.pem()].concat();
    std::fs::write(pki.path("ca.pem"), both).unwrap();
    let leaf = node("n").signed_by(&key, &Issuer::new(middle_params, middle_key)).unwrap();
    let mut prover = pki.prover_of(&(leaf.pem() + &middle.pem()), &key.serialize_pem()).unwrap();
    let proof = play(&mut prover, &pki.verifier()).await.unwrap();
    for der in [middle.der().as_ref(), also_root.der().as_ref(), &pki.root_der] {
        let wanted = format!("ca:fingerprint:{}", fingerprint(der));
        assert!(proof.selectors.iter().any(|s| s.value() == wanted), "{wanted}");
    }
}

#[tokio::test]
async fn the_number_of_intermediates_is_limited() {
    let (pki, key) = (Pki::new(), p256());
    let leaf = node("n").signed_by(&key, &pki.root).unwrap();
    let extra = ca("x").self_signed(&p256()).unwrap().pem().repeat(5);
    let mut prover = pki.prover_of(&(leaf.pem() + &extra), &key.serialize_pem()).unwrap();
    let error = play(&mut prover, &pki.verifier()).await.unwrap_err();
    assert_eq!(
        (error.reason, error.message.starts_with("too many intermediates")),
        (Reason::Malformed, true)
    );
}

#[tokio::test]
async fn rsa_keys_over_the_limit_are_refused_before_any_use() {
    let (pki, key) = (Pki::new(), KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap());
    let verifier = pki.verifier_with(|c| c.max_rsa_key_size = 1024);
    let error = play(&mut pki.prover(&node("n"), &key), &verifier).await.unwrap_err();
    assert_eq!((error.reason, error.message.contains("2048 bits exceeds")), (Reason::Malformed, true));
}

#[tokio::test]
async fn messages_that_are_too_long_or_unreadable_are_malformed() {
    let pki = Pki::new();
    let oversize = vec![b'x'; crate::limits::X509POP_PAYLOAD_MAX + 1];
    for payload in
        [oversize.as_slice(), b"{", b"{}", b"{\"certificates\":null}", b"{\"certificates\":[\"AA==\"]}"]
    {
        let error = pki.verifier().judge(&exchange(payload), NOW).await.unwrap_err();
        assert_eq!(error.reason, Reason::Malformed, "{error}");
    }
    for response in [vec![b'x'; 10_000], b"[]x".to_vec()] {
        let error =
            play_with(&mut pki.prover(&node("n"), &p256()), &pki.verifier(), |_| response).await.unwrap_err();
        assert_eq!(error.reason, Reason::Malformed, "{error}");
    }
}

#[tokio::test]
async fn the_prover_signs_nothing_but_a_nonce_of_32_bytes() {
    let (pki, key) = (Pki::new(), p256());
    for nonce in [vec![], vec![1; 31], vec![1; 64]] {
        let mut prover = pki.prover(&node("n"), &key);
        prover.open().await.unwrap();
        let challenge = json!({"rsa_signature": null, "ecdsa_signature": {"nonce": b64(&nonce)}}).to_string();
        assert!(prover.answer(challenge.as_bytes()).await.is_err());
    }
}

#[tokio::test]
async fn the_prover_answers_one_challenge_only() {
    let (pki, key) = (Pki::new(), p256());
    let mut prover = pki.prover(&node("n"), &key);
    let seen = exchange(&prover.open().await.unwrap());
    let Step::Ask(challenge) = pki.verifier().judge(&seen, NOW).await.unwrap() else { panic!() };
    prover.answer(&challenge).await.unwrap();
    assert!(prover.answer(&challenge).await.is_err());
}

#[tokio::test]
async fn the_address_of_the_client_may_be_required() {
    let (pki, key) = (Pki::new(), p256());
    let mut params = node("n");
    params.subject_alt_names.push(SanType::IpAddress("10.0.0.7".parse().unwrap()));
    let mut prover = pki.prover(&params, &key);
    let verifier = pki.verifier_with(|c| c.verify_client_ip = true);
    let mut seen = exchange(&prover.open().await.unwrap());
    seen.peer = Some("::ffff:10.0.0.7".parse().unwrap());
    assert!(matches!(verifier.judge(&seen, NOW).await, Ok(Step::Ask(_))));
    seen.peer = Some("10.0.0.8".parse().unwrap());
    assert_eq!(verifier.judge(&seen, NOW).await.unwrap_err().reason, Reason::Refused);
}

#[test]
fn roots_must_be_there_and_readable() {
    let load = |path: &str| {
        let keys = VerifierKeys { ca_bundle_paths: vec![path.into()], ..VerifierKeys::default() };
        Verifier::load(domain(), keys.check().unwrap()).unwrap_err().to_string()
    };
    assert!(load("/nonexistent/ca.pem").contains("could not read /nonexistent/ca.pem"));
    assert!(load("/dev/null").contains("no PEM certificate in /dev/null"));
}

#[tokio::test]
async fn a_template_makes_the_agent_id_of_what_the_certificate_says() {
    let (pki, key) = (Pki::new(), p256());
    let mut params = node("node-7");
    params.distinguished_name.push(DnType::OrganizationName, "Acme");
    params.subject_alt_names.push(SanType::DnsName("n7.example.org".try_into().unwrap()));
    params.subject_alt_names.push(SanType::URI("x509pop://example.org/zone/a".try_into().unwrap()));
    let mut prover = pki.prover(&params, &key);
    for (template, path) in [
        ("/pop/{{ .Subject.CommonName }}", "/pop/node-7"),
        ("/{{ .PluginName }}/{{ .TrustDomain }}/{{ .SerialNumberHex }}", "/x509pop/example.org/0abc"),
        ("/{{ .SerialNumber }}/{{ .Issuer.CommonName }}", "/2748/root"),
        ("/{{ index .Subject.Organization 0 | lower }}/{{ first .DNSNames }}", "/acme/n7.example.org"),
        ("/zone/{{ .URISanSelectors.zone }}", "/zone/a"),
    ] {
        let verifier = pki.verifier_with(|c| c.template = Template::parse(template).unwrap());
        let proof = play(&mut prover, &verifier).await.unwrap();
        assert_eq!(proof.agent_id.as_str(), format!("spiffe://example.org/spire/agent{path}"), "{template}");
    }
}

#[tokio::test]
async fn a_certificate_that_makes_no_valid_id_is_refused_with_the_reason() {
    let (pki, key) = (Pki::new(), p256());
    let mut prover = pki.prover(&node("no such id"), &key);
    for (template, part) in [
        ("/{{ .Subject.CommonName }}", "failed to create agent ID: "),
        ("/{{ .URISanSelectors.zone }}", "the certificate has no .URISanSelectors.zone"),
    ] {
        let verifier = pki.verifier_with(|c| c.template = Template::parse(template).unwrap());
        let error = play(&mut prover, &verifier).await.unwrap_err();
        assert_eq!(error.reason, Reason::Internal);
        assert!(error.message.contains(part), "{error}");
    }
}

/// A verifier that takes the trust domain's own SVIDs, and a prover that shows one with these URI names.
fn svid_mode(pki: &Pki, uris: &[&str]) -> (Prover, Verifier) {
    let (key, mut params) = (p256(), node("n"));
    for uri in uris {
        params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
    }
    let keys = VerifierKeys { mode: Some("spiffe".into()), ..VerifierKeys::default() };
    (pki.prover(&params, &key), Verifier::load(domain(), keys.check().unwrap()).unwrap())
}

#[tokio::test]
async fn in_mode_spiffe_an_svid_of_the_trust_domain_proves_a_node() {
    let pki = Pki::new();
    let (mut prover, verifier) = svid_mode(&pki, &["spiffe://example.org/spire-exchange/rack/7"]);
    let mut seen = exchange(&prover.open().await.unwrap());
    assert_eq!(verifier.judge(&seen, NOW).await.unwrap_err().reason, Reason::Refused, "no root, no trust");
    seen.own_roots = vec![pki.root_der.as_slice().into()];
    let Step::Ask(challenge) = verifier.judge(&seen, NOW).await.unwrap() else { panic!() };
    let response = prover.answer(&challenge).await.unwrap();
    seen.rounds.push(Round { challenge, response });
    let Step::Accept(proof) = verifier.judge(&seen, NOW).await.unwrap() else { panic!() };
    assert_eq!(proof.agent_id.as_str(), "spiffe://example.org/spire/agent/x509pop/rack/7");
}

#[tokio::test]
async fn in_mode_spiffe_what_is_no_svid_below_the_prefix_gets_no_challenge() {
    let pki = Pki::new();
    for (uris, part) in [
        (&[][..], "has 0 URI names"),
        (&["spiffe://example.org/spire-exchange/a", "https://example.org/"], "has 2 URI names"),
        (&["https://example.org/spire-exchange/a"], "is no X509-SVID"),
        (&["spiffe://other.org/spire-exchange/a"], "is not a member of trust domain"),
        (&["spiffe://example.org/workload"], "is not below spiffe_prefix"),
        (&["spiffe://example.org/spire/agent/x"], "is not below spiffe_prefix"),
        (&["spiffe://example.org/spire-exchange"], "is not below spiffe_prefix"),
    ] {
        let (mut prover, verifier) = svid_mode(&pki, uris);
        let mut seen = exchange(&prover.open().await.unwrap());
        seen.own_roots = vec![pki.root_der.as_slice().into()];
        let error = verifier.judge(&seen, NOW).await.unwrap_err();
        assert!(error.reason == Reason::Refused && error.message.contains(part), "{uris:?}: {error}");
    }
}
