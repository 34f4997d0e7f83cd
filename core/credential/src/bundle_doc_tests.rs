//! Documents written and read, and each key that has to be left out.

use std::sync::LazyLock;

use avouch_domain::KeyType;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fixtures::{NOW, authority, domain, issuer, issuer_at, key};

fn jwt(kid: &str, key: &PublicKey) -> JwtAuthority {
    JwtAuthority { key_id: kid.into(), public_key: key.pkix().into(), expires_at: None, tainted: false }
}

fn example() -> Bundle {
    let mut bundle = Bundle::empty(domain("example.org"));
    bundle.x509_authorities.push(authority(&issuer("example.org")));
    bundle.jwt_authorities.push(jwt("b", key(KeyType::EcP256).public_key()));
    bundle.jwt_authorities.push(jwt("a", key(KeyType::Rsa2048).public_key()));
    bundle.sequence_number = 1;
    bundle
}

/// The document of `example()` as JSON, to be damaged.
fn document() -> Value {
    serde_json::from_str(&spiffe_document(&example())).unwrap()
}

/// Reads a document whose first (X.509) or second (JWT "a", RSA) key was changed; the rest has to survive.
fn changed(index: usize, change: impl FnOnce(&mut Map<String, Value>)) -> SkipReason {
    let mut document = document();
    change(document["keys"][index].as_object_mut().unwrap());
    let text = document.to_string();
    let (bundle, skipped) = parse_with_notes(&domain("example.org"), text.as_bytes()).unwrap();
    assert_eq!(bundle.x509_authorities.len() + bundle.jwt_authorities.len(), 2);
    assert_eq!((skipped.len(), skipped[0].index), (1, index));
    skipped[0].reason.clone()
}

fn read(text: &str) -> Result<Bundle, BundleDocError> {
    parse(&domain("example.org"), text.as_bytes())
}

#[test]
fn a_document_has_spires_layout() {
    let mut bundle = example();
    bundle.jwt_authorities.remove(1);
    let text = spiffe_document(&bundle);
    let keys = document_keys(&bundle);
    let expected = format!(
        r#"{{
    "keys": [
        {{
            "use": "x509-svid",
            "kty": "EC",
            "crv": "P-256",
            "x": "{}",
            "y": "{}",
            "x5c": [
                "{}"
            ]
        }},
        {{
            "use": "jwt-svid",
            "kty": "EC",
            "kid": "b",
            "crv": "P-256",
            "x": "{}",
            "y": "{}"
        }}
    ],
    "spiffe_sequence": 1
}}"#,
        keys[0].0,
        keys[0].1,
        STANDARD.encode(&bundle.x509_authorities[0].der),
        keys[1].0,
        keys[1].1,
    );
    assert_eq!(text, expected);
}

/// Coordinates of the keys, straight from their points.
fn document_keys(bundle: &Bundle) -> Vec<(String, String)> {
    let ca = CertFacts::parse(&bundle.x509_authorities[0].der).unwrap().public_key().unwrap();
    let jwt = PublicKey::from_pkix(&bundle.jwt_authorities[0].public_key).unwrap();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    [ca, jwt].iter().map(|k| (encode(&k.raw()[1..33]), encode(&k.raw()[33..]))).collect()
}

#[test]
fn sequence_and_hint_stand_at_the_end_unless_zero() {
    let mut bundle = Bundle::empty(domain("example.org"));
    assert_eq!(spiffe_document(&bundle), "{\n    \"keys\": []\n}");
    bundle.sequence_number = 9;
    bundle.refresh_hint = 300;
    let text = spiffe_document(&bundle);
    assert_eq!(
        text,
        "{\n    \"keys\": [],\n    \"spiffe_sequence\": 9,\n    \"spiffe_refresh_hint\": 300\n}"
    );
}

#[test]
fn rsa_keys_have_their_members_in_order() {
    let mut bundle = Bundle::empty(domain("example.org"));
    bundle.jwt_authorities.push(jwt("r", key(KeyType::Rsa2048).public_key()));
    let text = spiffe_document(&bundle);
    let at: Vec<_> = ["use", "kty", "kid", "\"n\"", "\"e\": \"AQAB\""].map(|m| text.find(m)).into();
    assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{text}");
}

#[test]
fn a_workload_gets_jwt_keys_alone_sorted_by_key_id() {
    let bundle = example();
    let value: Value = serde_json::from_slice(&workload_jwks(&bundle)).unwrap();
    let kids: Vec<_> = value["keys"].as_array().unwrap().iter().map(|k| k["kid"].as_str().unwrap()).collect();
    assert_eq!(kids, ["a", "b"]);
    assert_eq!(value.as_object().unwrap().len(), 1);
    assert!(value["keys"][0].get("use").is_none());
    let empty = workload_jwks(&Bundle::empty(domain("example.org")));
    assert_eq!(empty, b"{\n    \"keys\": []\n}");
}

#[test]
fn the_keys_of_a_workload_are_read_back() {
    let bundle = example();
    let read = parse_workload_jwks(&bundle.trust_domain, &workload_jwks(&bundle)).unwrap();
    let kids: Vec<_> = read.jwt_authorities.iter().map(|a| &*a.key_id).collect();
    assert_eq!(kids, ["a", "b"]);
    assert!(bundle.jwt_authorities.iter().all(|a| read.jwt_authorities.contains(a)));
}

#[test]
fn the_form_of_workloads_brings_no_certificates() {
    let bundle = example();
    let text = spiffe_document(&bundle);
    let read = parse_workload_jwks(&bundle.trust_domain, text.as_bytes()).unwrap();
    assert_eq!((read.x509_authorities.len(), read.jwt_authorities.len(), read.sequence_number), (0, 2, 0));
}

#[test]
fn a_key_without_use_is_no_key_of_a_bundle_document() {
    let bundle = example();
    assert!(parse(&bundle.trust_domain, &workload_jwks(&bundle)).unwrap().jwt_authorities.is_empty());
    assert_eq!(parse_workload_jwks(&bundle.trust_domain, b"{}"), Err(BundleDocError::NoKeys));
}

#[test]
fn equal_content_is_written_equally() {
    let bundle = example();
    let mut turned = bundle.clone();
    turned.jwt_authorities.reverse();
    assert_eq!(spiffe_document(&bundle), spiffe_document(&turned));
    assert_eq!(workload_jwks(&bundle), workload_jwks(&turned));
}

#[test]
fn authorities_that_cannot_be_read_are_left_out_of_documents() {
    let mut bundle = example();
    let junk: Arc<[u8]> = [1, 2, 3].into();
    bundle.x509_authorities.push(X509Authority { der: junk.clone(), tainted: false });
    bundle.jwt_authorities.push(JwtAuthority {
        key_id: "c".into(),
        public_key: junk,
        expires_at: None,
        tainted: false,
    });
    assert_eq!(read(&spiffe_document(&bundle)).unwrap().x509_authorities.len(), 1);
    assert_eq!(read(&spiffe_document(&bundle)).unwrap().jwt_authorities.len(), 2);
}

#[test]
fn tdb_02_only_keys_are_needed_and_unknown_members_ignored() {
    let mut document = document();
    document["extra"] = json!({"a": [1]});
    document.as_object_mut().unwrap().remove("spiffe_sequence");
    let bundle = read(&document.to_string()).unwrap();
    assert_eq!(
        (bundle.sequence_number, bundle.x509_authorities.len(), bundle.jwt_authorities.len()),
        (0, 1, 2)
    );
}

#[test]
fn tdb_06_a_sequence_keeps_all_its_digits() {
    assert_eq!(
        read(r#"{"keys":[],"spiffe_sequence":9007199254740993}"#).unwrap().sequence_number,
        9_007_199_254_740_993
    );
}

#[test]
fn tdb_08_numbers_are_integers() {
    for bad in ["1.0", "1e3", "-1", "\"1\"", "true", "18446744073709551616"] {
        for name in ["spiffe_sequence", "spiffe_refresh_hint"] {
            let text = format!(r#"{{"keys":[],"{name}":{bad}}}"#);
            assert!(matches!(read(&text), Err(BundleDocError::NotAnInteger(_))), "{text}");
        }
    }
}

#[test]
fn tdb_11_a_document_without_keys_is_refused() {
    for bad in ["{}", r#"{"keys":null}"#, r#"{"keys":{}}"#] {
        assert_eq!(read(bad), Err(BundleDocError::NoKeys), "{bad}");
    }
}

#[test]
fn a_document_is_one_json_object_with_keys_once() {
    for bad in ["", "[]", "{", r#"{"keys":[],"keys":[]}"#, r#"{"keys":[]} x"#] {
        assert!(matches!(read(bad), Err(BundleDocError::Json(_))), "{bad}");
    }
}

#[test]
fn tdb_16_an_empty_document_is_an_empty_bundle() {
    assert_eq!(read(r#"{"keys":[]}"#), Ok(Bundle::empty(domain("example.org"))));
}

#[test]
fn tdb_12_unknown_key_types_are_left_out() {
    let set = |m: &mut Map<String, Value>| drop(m.insert("kty".into(), "new".into()));
    assert_eq!(changed(1, set), SkipReason::Jwk(JwkError::KeyType("new".into())));
}

#[test]
fn tdb_13_a_key_without_use_is_left_out() {
    assert_eq!(changed(1, |m| drop(m.remove("use"))), SkipReason::Use(String::new()));
}

#[test]
fn tdb_15_use_is_case_sensitive() {
    let set = |m: &mut Map<String, Value>| drop(m.insert("use".into(), "X509-SVID".into()));
    assert_eq!(changed(0, set), SkipReason::Use("X509-SVID".into()));
}

#[test]
fn x509_37_a_key_without_certificate_is_left_out() {
    assert_eq!(changed(0, |m| drop(m.remove("x5c"))), SkipReason::NoCertificate);
    assert_eq!(changed(0, |m| drop(m.insert("x5c".into(), json!([])))), SkipReason::NoCertificate);
}

#[test]
fn x509_38_only_the_first_certificate_counts() {
    let mut document = document();
    let second = STANDARD.encode(issuer("example.org").ca_der());
    document["keys"][0]["x5c"].as_array_mut().unwrap().push(second.into());
    let bundle = read(&document.to_string()).unwrap();
    assert_eq!(bundle.x509_authorities.len(), 1);
}

#[test]
fn an_unreadable_certificate_is_left_out() {
    let set = |text: &str| {
        let text = text.to_owned();
        changed(0, move |m| drop(m.insert("x5c".into(), json!([text]))))
    };
    assert!(matches!(set("AQID"), SkipReason::Certificate(_)));
    assert!(matches!(set("not base64!"), SkipReason::Certificate(_)));
}

#[test]
fn x509_36_a_key_that_differs_from_its_certificate_is_left_out() {
    let other = STANDARD.encode(issuer("example.org").ca_der());
    assert_eq!(changed(0, |m| drop(m.insert("x5c".into(), json!([other])))), SkipReason::KeyMismatch);
}

#[test]
fn jwt_24_a_key_without_key_id_is_left_out() {
    assert_eq!(changed(1, |m| drop(m.remove("kid"))), SkipReason::NoKeyId);
    assert_eq!(changed(1, |m| drop(m.insert("kid".into(), "".into()))), SkipReason::NoKeyId);
}

#[test]
fn a_key_id_or_certificate_that_stands_twice_counts_once() {
    for index in [0, 1] {
        let mut document = document();
        let again = document["keys"][index].clone();
        document["keys"].as_array_mut().unwrap().push(again);
        let (bundle, skipped) =
            parse_with_notes(&domain("example.org"), document.to_string().as_bytes()).unwrap();
        assert_eq!((bundle.x509_authorities.len(), bundle.jwt_authorities.len()), (1, 2));
        assert_eq!(skipped, [Skipped { index: 3, reason: SkipReason::Repeated }]);
    }
}

#[test]
fn a_key_that_shows_its_private_part_is_left_out() {
    assert_eq!(changed(1, |m| drop(m.insert("d".into(), "AA".into()))), SkipReason::Jwk(JwkError::Private));
}

#[test]
fn a_key_that_is_no_object_is_left_out() {
    let (bundle, skipped) = parse_with_notes(&domain("example.org"), br#"{"keys":[7]}"#).unwrap();
    assert_eq!(bundle, Bundle::empty(domain("example.org")));
    assert_eq!(skipped[0].to_string(), "key 0 is no JSON object");
}

#[test]
fn cl_30_a_jwt_key_that_signs_no_jwt_svids_is_left_out() {
    let set = |m: &mut Map<String, Value>| {
        *m = Map::new();
        let x = URL_SAFE_NO_PAD.encode([7; 32]);
        for (name, value) in
            [("kty", "OKP"), ("crv", "Ed25519"), ("x", &x), ("use", "jwt-svid"), ("kid", "e")]
        {
            m.insert(name.into(), value.into());
        }
    };
    assert_eq!(changed(1, set), SkipReason::NotForJwt);
}

static X509_POOL: LazyLock<Vec<X509Authority>> = LazyLock::new(|| {
    let types = [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048, KeyType::EcP256];
    types.map(|t| authority(&issuer_at("example.org", t, NOW))).into()
});

static KEY_POOL: LazyLock<Vec<PublicKey>> = LazyLock::new(|| {
    [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048].map(|t| key(t).public_key().clone()).into()
});

prop_compose! {
    fn any_bundle()(
        x509 in proptest::sample::subsequence((0..4_usize).collect::<Vec<_>>(), 0..=4),
        jwt_keys in proptest::collection::btree_map("\\PC{1,12}", 0..3_usize, 0..5),
        sequence_number in any::<u64>(),
        refresh_hint in 0..i64::MAX,
    ) -> Bundle {
        Bundle {
            trust_domain: domain("example.org"),
            x509_authorities: x509.into_iter().map(|i| X509_POOL[i].clone()).collect(),
            jwt_authorities: jwt_keys.into_iter().map(|(kid, i)| jwt(&kid, &KEY_POOL[i])).collect(),
            refresh_hint,
            sequence_number,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn a_written_document_reads_as_the_same_bundle(bundle in any_bundle()) {
        let (read, skipped) =
            parse_with_notes(&domain("example.org"), spiffe_document(&bundle).as_bytes()).unwrap();
        prop_assert_eq!(read, bundle);
        prop_assert!(skipped.is_empty());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&domain("example.org"), &bytes);
    }
}
