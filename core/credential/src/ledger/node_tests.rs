//! What a node's chain proves, one rule per test.

use avouch_domain::fixtures::{domain, id};
use avouch_domain::{ChainId, KeptHead, KeyType, NodeChain, NodeEvent, Note, Stand, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::key::PrivateKey;
use crate::signer::Signer;
use crate::statement::StatementError;

fn chain() -> NodeChain {
    NodeChain { source: id("/spire/agent/x509pop/a"), id: ChainId::new([7; 8]) }
}

fn note(subject: &str) -> Note {
    Note {
        event: NodeEvent::Decision,
        actor: "spiffe://example.org/test/coder".into(),
        subject: subject.into(),
        detail: vec![("outcome", "deny".into()), ("reason", "no_rule".into())],
    }
}

/// The agent's key and a certificate for it.
fn paper(path: &str) -> (PrivateKey, Vec<u8>) {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(
        &key.pkcs8().to_vec().into(),
        &rcgen::PKCS_ECDSA_P256_SHA256,
    )
    .unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    let uri = format!("spiffe://example.org{path}");
    params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
    let certificate = params.self_signed(&pair).unwrap().der().to_vec();
    (key, certificate)
}

fn lines(many: u64) -> (Vec<String>, Stand) {
    let mut lines = Vec::new();
    let mut stand = Stand::default();
    for seq in 1..=many {
        let line =
            node_line(&chain(), &stand, Timestamp(1_700_000_000_123), &note(&format!("s{seq}"))).unwrap();
        stand = Stand { seq, hash: hash_of(&line) };
        lines.push(line);
    }
    (lines, stand)
}

/// A head over the record, as a server with this key keeps it.
fn kept(stand: Stand, server: &PrivateKey) -> KeptHead {
    let (key, certificate) = paper("/spire/agent/x509pop/a");
    let head = sign_node_head(&chain(), stand, Timestamp(5), &certificate, &key).unwrap();
    let receipt = sign_receipt(&chain(), &head, server).unwrap();
    KeptHead { head, receipt }
}

/// An exported section with one head over everything.
fn section(many: u64) -> Vec<String> {
    let (records, stand) = lines(many);
    let server = PrivateKey::generate(KeyType::EcP256).unwrap();
    let mut all = vec![NodeHeader::new(&chain(), 1).line()];
    all.extend(records);
    all.push(head_line(&kept(stand, &server)));
    all
}

fn verify(lines: &[String]) -> Result<LogSummary, LogError> {
    let mut log = Log::new(None);
    lines.iter().try_for_each(|line| log.line(line))?;
    log.finish()
}

fn problem(found: Result<LogSummary, LogError>) -> Broken {
    match found {
        Err(LogError::Node { chain: at, problem }) => {
            assert_eq!(at, chain());
            problem
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_form_of_a_nodes_line_never_changes() {
    let before = Stand { seq: 6, hash: [0xab; 32] };
    let line = node_line(&chain(), &before, Timestamp(1_700_000_000_123), &note("res")).unwrap();
    let prev = "ab".repeat(32);
    assert_eq!(
        line,
        format!(
            "{{\"v\":2,\"source\":\"spiffe://example.org/spire/agent/x509pop/a\",\"chain\":\"0707070707070707\",\
             \"seq\":7,\"prev\":\"{prev}\",\"at\":\"2023-11-14T22:13:20.123Z\",\"event\":\"decision\",\
             \"actor\":\"spiffe://example.org/test/coder\",\"subject\":\"res\",\
             \"detail\":{{\"outcome\":\"deny\",\"reason\":\"no_rule\"}}}}"
        )
    );
    let read = read_node_line(&line).unwrap();
    assert_eq!((read.seq, read.previous().unwrap()), (7, [0xab; 32]));
    assert_eq!(read.details().collect::<Vec<_>>(), [("outcome", "deny"), ("reason", "no_rule")]);
}

#[test]
fn a_line_of_the_server_is_no_record_of_a_node_nor_the_other_way() {
    let (records, _) = lines(1);
    assert!(read_line(&records[0]).is_err());
    let mut log = Log::new(None);
    log.line(&NodeHeader::new(&chain(), 1).line()).unwrap();
    let server = "{\"v\":1,\"seq\":1,\"prev\":\"\",\"at\":\"\",\"revision\":1,\"event\":\"\",\"actor\":\"\",\"subject\":\"\",\"detail\":{}}";
    assert!(log.line(server).is_err());
}

#[test]
fn a_chain_that_nobody_touched_holds_and_is_summed_up() {
    let summary = verify(&section(20)).unwrap();
    let [node] = summary.nodes.as_slice() else { panic!("{summary:?}") };
    assert_eq!((node.records, node.first, node.last, node.heads), (20, Some(1), Some(20), 1));
}

#[test]
fn the_source_and_number_of_the_first_break_are_named() {
    let whole = section(9);
    let mut changed = whole.clone();
    changed[4] = changed[4].replace("deny", "allow");
    assert_eq!(problem(verify(&changed)), Broken::Chain { before: 4, seq: 5 });
    let mut without = whole.clone();
    without.remove(4);
    assert_eq!(problem(verify(&without)), Broken::Gap { expected: 4, found: 5 });
    let text = verify(&without).unwrap_err().to_string();
    assert!(
        text.starts_with("spiffe://example.org/spire/agent/x509pop/a (chain 0707070707070707): record 4"),
        "{text}"
    );
}

#[test]
fn a_record_of_another_node_or_another_chain_does_not_fit_in() {
    for other in [
        NodeChain { source: id("/spire/agent/x509pop/b"), ..chain() },
        NodeChain { id: ChainId::new([8; 8]), ..chain() },
    ] {
        let line = node_line(&other, &Stand::default(), Timestamp(0), &note("x")).unwrap();
        let mut reader = ChainReader::from(chain(), 1);
        let refused = reader.line(&line).unwrap_err();
        assert!(matches!(refused, Broken::Record { seq: 1, problem: RecordError::Foreign(_) }), "{refused}");
    }
}

#[test]
fn records_that_no_head_vouches_for_do_not_hold() {
    let mut cut = section(5);
    cut.pop();
    assert_eq!(problem(verify(&cut)), Broken::Unsigned { seq: 1 });
    let (records, _) = lines(6);
    let mut longer = section(5);
    longer.push(records[5].clone());
    assert_eq!(problem(verify(&longer)), Broken::Unsigned { seq: 6 });
}

#[test]
fn a_head_counts_only_with_a_certificate_of_the_node_and_its_key() {
    let (_, stand) = lines(3);
    let (key, certificate) = paper("/spire/agent/x509pop/a");
    let (other_key, other) = paper("/spire/agent/x509pop/b");
    let head = |certificate: &[u8], key: &dyn Signer| {
        check_node_head(&chain(), &sign_node_head(&chain(), stand, Timestamp(5), certificate, key).unwrap())
    };
    assert_eq!(head(&certificate, &key), Ok(()));
    assert!(matches!(head(&other, &other_key), Err(HeadError::Certificate(_))));
    assert_eq!(head(&certificate, &other_key), Err(HeadError::Statement(StatementError::Signature)));
    assert!(matches!(head(b"none", &key), Err(HeadError::Certificate(_))));
}

#[test]
fn a_head_with_a_certificate_that_the_server_never_saw_does_not_hold() {
    let (_, stand) = lines(3);
    let server = PrivateKey::generate(KeyType::EcP256).unwrap();
    let good = kept(stand, &server);
    assert_eq!(check_kept_head(&chain(), &good), Ok(()));
    // Somebody makes a certificate with the node's name, and has a good receipt of another head.
    let made = kept(stand, &PrivateKey::generate(KeyType::EcP256).unwrap());
    let forged = KeptHead { receipt: good.receipt, head: made.head };
    let refused = check_kept_head(&chain(), &forged);
    assert_eq!(refused, Err(HeadError::Receipt(StatementError::Signature)));
}

#[test]
fn a_receipt_of_another_key_than_the_expected_proves_nothing() {
    let server = PrivateKey::generate(KeyType::EcP256).unwrap();
    let mut log = Log::new(Some(server.public_key().pkix().to_vec()));
    let refused = section(2).iter().try_for_each(|line| log.line(line));
    assert!(
        matches!(refused, Err(LogError::Node { problem: Broken::ForeignKey { seq: 2 }, .. })),
        "{refused:?}"
    );
}

#[test]
fn a_chain_that_stands_twice_is_refused() {
    let mut twice = section(3);
    twice.extend(section(2));
    assert_eq!(verify(&twice), Err(LogError::Twice(chain().to_string())));
}

#[test]
fn sections_of_two_trust_domains_are_no_log() {
    let mut mixed = section(1);
    let other = avouch_domain::TrustDomain::new("other.org").unwrap();
    mixed.push(Header::new(&other, 1).line());
    assert!(matches!(verify(&mixed), Err(LogError::TrustDomain { .. })));
}

#[test]
fn a_server_and_its_nodes_hold_together() {
    let mut all = vec![Header::new(&domain(), 1).line()];
    all.extend(section(3));
    let summary = verify(&all).unwrap();
    assert_eq!((summary.server.map(|s| s.records), summary.nodes.len()), (Some(0), 1));
}

#[test]
fn a_detail_that_stands_twice_is_no_record() {
    let (records, _) = lines(1);
    let doubled = records[0].replace("\"outcome\":\"deny\"", "\"reason\":\"deny\"");
    assert!(read_node_line(&doubled).unwrap_err().to_string().contains("stands twice"));
}

proptest! {
    #[test]
    fn any_byte_of_a_record_that_is_flipped_is_found(at in any::<prop::sample::Index>(), bit in 0u8..7) {
        let whole = section(4);
        let text = whole[1..5].join("\n");
        let mut bytes = text.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let Ok(flipped) = String::from_utf8(bytes) else { return Ok(()) };
        let mut all = vec![whole[0].clone()];
        all.extend(flipped.split('\n').map(str::to_owned));
        all.push(whole[5].clone());
        prop_assert!(verify(&all).is_err());
    }

    #[test]
    fn what_is_noted_is_read(actor in ".{0,40}", subject in ".{0,40}", value in ".{0,80}") {
        let note = Note { event: NodeEvent::TaskOpen, actor, subject, detail: vec![("a", value)] };
        let line = node_line(&chain(), &Stand::default(), Timestamp(0), &note).unwrap();
        prop_assert!(!line.contains('\n'));
        let read = read_node_line(&line).unwrap();
        prop_assert_eq!((&*read.actor, &*read.subject), (&*note.actor, &*note.subject));
        prop_assert_eq!(read.details().next(), Some(("a", &*note.detail[0].1)));
    }

    #[test]
    fn no_line_makes_a_log_panic(line in ".{0,300}") {
        let mut log = Log::new(None);
        let _ = log.line(&line);
        let _ = log.line(&format!("{{\"log\":{line}"));
        let _ = log.line(&NodeHeader::new(&chain(), 1).line());
        let _ = log.line(&format!("{{\"node_head\":{line}"));
        let _ = log.finish();
    }
}
