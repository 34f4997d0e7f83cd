//! SVID service: texts of refusals, rate limits, what comes back.

use avouch_proto::svid_v1::svid_client::SvidClient;
use avouch_proto::svid_v1::{
    BatchNewX509svidRequest, MintJwtsvidRequest, MintWitsvidRequest, MintX509svidRequest, NewJwtsvidRequest,
    NewX509svidParams,
};

use super::*;

#[tokio::test]
async fn a_batch_signs_what_is_authorized_and_names_what_is_not() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    let entry_id = world.entry(&agent.id, "/mine").await;
    let other = world.entry(&id("/other"), "/not-mine").await;
    let param = |entry_id: &str, csr: Vec<u8>| NewX509svidParams { entry_id: entry_id.into(), csr };
    let params = vec![
        param(&entry_id, new_csr(None)),
        param("", new_csr(None)),
        param(&entry_id, vec![]),
        param(&other, new_csr(None)),
        param(&entry_id, b"junk".to_vec()),
    ];
    let mut client = SvidClient::new(world.holder(&agent));
    let results =
        client.batch_new_x509svid(BatchNewX509svidRequest { params }).await.unwrap().into_inner().results;
    let texts: Vec<_> = results.iter().map(|r| r.status.as_ref().unwrap().message.as_str()).collect();
    assert_eq!(texts[..4], ["OK", "missing entry ID", "missing CSR", "entry not found or not authorized"]);
    assert!(texts[4].starts_with("malformed CSR: "), "{}", texts[4]);
    let codes: Vec<_> = results.iter().map(|r| r.status.as_ref().unwrap().code).collect();
    assert_eq!(codes, [0, 3, 3, 5, 3]);
    let svid = results.into_iter().next().unwrap().svid.unwrap();
    assert_eq!(svid.id.as_ref().unwrap().path, "/mine");
    caller_of(&svid);
}

#[tokio::test]
async fn batches_are_neither_empty_nor_larger_than_the_bucket() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    let mut client = SvidClient::new(world.holder(&agent));
    let mut ask = async |count| {
        let params = vec![NewX509svidParams::default(); count];
        refusal(client.batch_new_x509svid(BatchNewX509svidRequest { params }).await)
    };
    assert_eq!(ask(0).await, (Code::InvalidArgument, "missing parameters".into()));
    let text =
        "rejecting request due to certificate signing rate limiting: rate (501) exceeds burst size (500)";
    assert_eq!(ask(501).await, (Code::ResourceExhausted, text.into()));
}

#[tokio::test]
async fn minting_x509_checks_the_request() {
    let world = World::start().await;
    let mut client = SvidClient::new(world.local());
    let mut mint = async |csr: Vec<u8>| {
        client.mint_x509svid(MintX509svidRequest { csr, ttl: 60 }).await.map(|r| r.into_inner().svid.unwrap())
    };
    assert_eq!(refusal(mint(vec![]).await), (Code::InvalidArgument, "missing CSR".into()));
    let (code, text) = refusal(mint(b"junk".to_vec()).await);
    assert!(code == Code::InvalidArgument && text.starts_with("malformed CSR: "), "{text}");
    assert_eq!(refusal(mint(new_csr(None)).await), (Code::InvalidArgument, "CSR URI SAN is required".into()));
    let (_, text) = refusal(mint(new_csr(Some(&id("/spire/server")))).await);
    assert!(text.starts_with("CSR URI SAN is invalid: "), "{text}");
    let svid = mint(new_csr(Some(&id("/w")))).await.unwrap();
    let left = svid.expires_at - clock::now().wall.secs();
    assert!((55..=60).contains(&left), "{left}");
}

#[tokio::test]
async fn minting_jwt_checks_the_request() {
    let world = World::start().await;
    let mut client = SvidClient::new(world.local());
    let mut mint = async |path: &str, audience: &[&str]| {
        let audience = audience.iter().map(|a| (*a).to_owned()).collect();
        let request = MintJwtsvidRequest { id: Some(spiffe_id_to_wire(&id(path))), audience, ttl: 60 };
        client.mint_jwtsvid(request).await.map(|r| r.into_inner().svid.unwrap())
    };
    let (code, text) = refusal(mint("/spire/x", &["a"]).await);
    assert!(code == Code::InvalidArgument && text.starts_with("invalid SPIFFE ID: "), "{text}");
    let none = refusal(mint("/w", &[]).await);
    assert_eq!(none, (Code::InvalidArgument, "at least one audience is required".into()));
    assert_eq!(refusal(mint("/w", &[""]).await).0, Code::InvalidArgument);
    let svid = mint("/w", &["a"]).await.unwrap();
    assert_eq!(svid.token.split('.').count(), 3);
    assert_eq!(svid.expires_at - svid.issued_at, 60);
}

#[tokio::test]
async fn agents_get_tokens_for_their_entries_only() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    let entry_id = world.entry(&agent.id, "/mine").await;
    let mut client = SvidClient::new(world.holder(&agent));
    let mut ask = async |entry_id: &str, audience: Vec<String>| {
        let request = NewJwtsvidRequest { entry_id: entry_id.into(), audience };
        client.new_jwtsvid(request).await.map(|r| r.into_inner().svid.unwrap())
    };
    let svid = ask(&entry_id, vec!["a".into()]).await.unwrap();
    assert!(svid.issued_at > 0 && svid.expires_at > svid.issued_at);
    assert_eq!(svid.id.unwrap().path, "/mine");
    for unknown in ["", "nope"] {
        assert_eq!(refusal(ask(unknown, vec![]).await).0, Code::NotFound, "before the audience is looked at");
    }
    assert_eq!(refusal(ask(&entry_id, vec![]).await).0, Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_not_built_says_so() {
    let world = World::start().await;
    let refused = SvidClient::new(world.local()).mint_witsvid(MintWitsvidRequest::default()).await;
    assert_eq!(refusal(refused).0, Code::Unimplemented);
}
