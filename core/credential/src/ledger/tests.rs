//! What a log proves, one rule per test.

use avouch_domain::fixtures::domain;
use avouch_domain::{AuditEvent, AuditRow, KeyType, Revision, Timestamp, TrustDomain};
use proptest::prelude::*;

use super::*;
use crate::key::PrivateKey;
use crate::statement::StatementError;

fn row(subject: &str) -> AuditRow {
    AuditRow {
        at: Timestamp(1_700_000_000_123),
        event: AuditEvent::IdentityPaused,
        actor: "per_a".into(),
        subject: subject.into(),
        detail: vec![("cause", "person".into()), ("stop_number", "3".into())],
    }
}

fn key() -> PrivateKey {
    PrivateKey::generate(KeyType::EcP256).unwrap()
}

/// A log of `many` records with a head over the last, as lines.
fn log(many: u64, key: &PrivateKey) -> Vec<String> {
    let mut lines = vec![Header::new(&domain(), 1).line()];
    let mut previous = FIRST_PREVIOUS;
    for seq in 1..=many {
        let line = line_of(seq, &previous, Revision(seq), &row(&format!("s{seq}"))).unwrap();
        previous = hash_of(&line);
        lines.push(line);
    }
    let head = SignedHead::sign(&domain(), many, previous, Timestamp(5), key).unwrap();
    lines.push(head.line());
    lines
}

fn verify(lines: &[String], expected_key: Option<Vec<u8>>) -> Result<Summary, Broken> {
    let mut verifier = Verifier::begin(&lines[0], expected_key).unwrap();
    lines[1..].iter().try_for_each(|line| verifier.line(line))?;
    Ok(verifier.finish())
}

#[test]
fn the_form_of_a_line_and_its_hash_never_change() {
    let line = line_of(7, &[0xab; 32], Revision(9), &row("spiffe://example.org/x")).unwrap();
    let prev = "ab".repeat(32);
    assert_eq!(
        line,
        format!(
            "{{\"v\":1,\"seq\":7,\"prev\":\"{prev}\",\"at\":\"2023-11-14T22:13:20.123Z\",\"revision\":9,\
             \"event\":\"identity_paused\",\"actor\":\"per_a\",\"subject\":\"spiffe://example.org/x\",\
             \"detail\":{{\"cause\":\"person\",\"stop_number\":\"3\"}}}}"
        )
    );
    // RFC 6962 2.1.3: the leaf hash of the empty entry.
    let empty = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
    assert_eq!(hex::encode(hash_of("")), empty);
    let read = read_line(&line).unwrap();
    assert_eq!((read.seq, read.previous, read.detail.len()), (7, [0xab; 32], 2));
}

#[test]
fn a_log_that_nobody_touched_holds_up_to_its_last_head() {
    let key = key();
    let summary = verify(&log(20, &key), Some(key.public_key().pkix().to_vec())).unwrap();
    assert_eq!((summary.records, summary.signed_to, summary.heads), (20, Some(20), 1));
}

#[test]
fn a_record_that_is_changed_taken_out_or_put_in_is_named() {
    let key = key();
    let lines = log(9, &key);
    let mut changed = lines.clone();
    changed[4] = changed[4].replace("per_a", "per_b");
    assert_eq!(verify(&changed, None), Err(Broken::Chain { before: 4, seq: 5 }));
    let mut without = lines.clone();
    without.remove(4);
    assert_eq!(verify(&without, None), Err(Broken::Gap { expected: 4, found: 5 }));
    let mut twice = lines.clone();
    twice.insert(4, twice[4].clone());
    assert_eq!(verify(&twice, None), Err(Broken::Gap { expected: 5, found: 4 }));
}

#[test]
fn the_last_record_is_bound_by_the_head_alone() {
    let key = key();
    let mut lines = log(3, &key);
    lines[3] = lines[3].replace("per_a", "per_b");
    assert_eq!(verify(&lines, None), Err(Broken::HeadHash { seq: 3 }));
}

#[test]
fn a_head_of_another_log_or_another_key_proves_nothing() {
    let (ours, theirs) = (key(), key());
    let mut lines = log(3, &ours);
    let expected = Some(ours.public_key().pkix().to_vec());
    let hash = hash_of(&lines[3]);
    let foreign = SignedHead::sign(&domain(), 3, hash, Timestamp(5), &theirs).unwrap();
    lines[4] = foreign.line();
    assert_eq!(verify(&lines, expected), Err(Broken::ForeignKey { seq: 3 }));
    let other = TrustDomain::new("other.org").unwrap();
    lines[4] = SignedHead::sign(&other, 3, hash, Timestamp(5), &ours).unwrap().line();
    let wrong = Broken::Head { seq: 3, problem: HeadError::Statement(StatementError::Signature) };
    assert_eq!(verify(&lines, None), Err(wrong));
}

#[test]
fn a_log_whose_beginning_was_pruned_holds_from_its_first_record() {
    let key = key();
    let mut lines = log(9, &key);
    lines.drain(1..4);
    assert_eq!(verify(&lines, None), Err(Broken::Gap { expected: 1, found: 4 }));
    lines[0] = Header::new(&domain(), 4).line();
    let summary = verify(&lines, None).unwrap();
    assert_eq!((summary.first, summary.last), (Some(4), Some(9)));
}

proptest! {
    #[test]
    fn any_byte_that_is_flipped_is_found(at in any::<prop::sample::Index>(), bit in 0u8..7) {
        let key = key();
        let lines = log(5, &key);
        let text = lines[1..].join("\n");
        let mut bytes = text.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assume!(bytes[at] != b'\n' && text.as_bytes()[at] != b'\n');
        let Ok(flipped) = String::from_utf8(bytes) else { return Ok(()) };
        let mut all = vec![lines[0].clone()];
        all.extend(flipped.split('\n').map(str::to_owned));
        let pinned = Some(key.public_key().pkix().to_vec());
        let verdict = verify(&all, pinned);
        // The base64 of a head has bits that mean nothing; all bits of a record count.
        let in_head = at >= text.len() - lines[6].len();
        prop_assert!(verdict.is_err() || in_head, "{at}: {verdict:?}");
    }

    #[test]
    fn no_line_makes_a_verifier_panic(line in ".{0,300}") {
        let mut verifier = Verifier::begin(&Header::new(&domain(), 1).line(), None).unwrap();
        let _ = verifier.line(&line);
        let _ = verifier.line(&format!("{{\"head\"{line}"));
        let _ = Verifier::begin(&line, None);
    }
}
