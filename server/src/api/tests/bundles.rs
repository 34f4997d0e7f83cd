//! Bundle service: our own bundle, federated bundles and their refusals.

use avouch_proto::bundle_v1::bundle_client::BundleClient;
use avouch_proto::bundle_v1::{
    AppendBundleRequest, BatchCreateFederatedBundleRequest, BatchDeleteFederatedBundleRequest,
    BatchSetFederatedBundleRequest, CountBundlesRequest, GetBundleRequest, GetFederatedBundleRequest,
    ListFederatedBundlesRequest, PublishJwtAuthorityRequest,
};

use super::*;

fn foreign(name: &str) -> types::Bundle {
    types::Bundle { trust_domain: name.into(), refresh_hint: 60, ..Default::default() }
}

async fn create(world: &World, bundle: types::Bundle) -> (i32, String) {
    let request = BatchCreateFederatedBundleRequest { bundle: vec![bundle], output_mask: None };
    let mut client = BundleClient::new(world.local());
    let reply = client.batch_create_federated_bundle(request).await.unwrap().into_inner();
    let status = reply.results.into_iter().next().unwrap().status.unwrap();
    (status.code, status.message)
}

#[tokio::test]
async fn anyone_may_read_the_bundle_with_a_mask() {
    let world = World::start().await;
    let mut client = BundleClient::new(world.nobody());
    let full = client.get_bundle(GetBundleRequest::default()).await.unwrap().into_inner();
    assert_eq!((full.trust_domain.as_str(), full.x509_authorities.len()), ("example.org", 1));
    assert_eq!(full.jwt_authorities.len(), 1);
    let masked = GetBundleRequest { output_mask: Some(types::BundleMask::default()) };
    let bare = client.get_bundle(masked).await.unwrap().into_inner();
    assert_eq!(bare, types::Bundle { trust_domain: "example.org".into(), ..Default::default() });
}

#[tokio::test]
async fn authorities_to_append_are_checked() {
    let world = World::start().await;
    let mut client = BundleClient::new(world.local());
    assert_eq!(
        refusal(client.append_bundle(AppendBundleRequest::default()).await),
        (Code::InvalidArgument, "no authorities to append".into())
    );
    let x509 = AppendBundleRequest {
        x509_authorities: vec![types::X509Certificate { asn1: b"junk".to_vec(), tainted: false }],
        ..Default::default()
    };
    let (code, text) = refusal(client.append_bundle(x509).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.starts_with("failed to convert X.509 authority: "), "{text}");
    let jwt = AppendBundleRequest {
        jwt_authorities: vec![types::JwtKey {
            public_key: b"junk".to_vec(),
            key_id: "k".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let (code, text) = refusal(client.append_bundle(jwt).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.starts_with("failed to convert JWT authority: "), "{text}");
}

#[tokio::test]
async fn federated_bundles_are_refused_with_known_texts() {
    let world = World::start().await;
    assert_eq!(create(&world, foreign("other.org")).await, (0, "OK".into()));
    assert_eq!(create(&world, foreign("other.org")).await, (6, "bundle already exists".into()));
    let own = "creating a federated bundle for the server's own trust domain is not allowed";
    assert_eq!(create(&world, foreign("example.org")).await, (3, own.into()));
    let (code, text) = create(&world, foreign("Bad")).await;
    assert!(code == 3 && text.starts_with("trust domain argument is not valid: "), "{text}");
    let mut client = BundleClient::new(world.local());
    let mut get = async |name: &str| {
        let request = GetFederatedBundleRequest { trust_domain: name.into(), output_mask: None };
        client.get_federated_bundle(request).await.map(|r| r.into_inner().refresh_hint)
    };
    assert_eq!(get("other.org").await.unwrap(), 60);
    assert_eq!(refusal(get("none.org").await), (Code::NotFound, "bundle not found".into()));
    assert_eq!(
        refusal(get("example.org").await),
        (
            Code::InvalidArgument,
            "getting a federated bundle for the server's own trust domain is not allowed".into()
        )
    );
    assert_eq!(client.count_bundles(CountBundlesRequest::default()).await.unwrap().into_inner().count, 2);
}

#[tokio::test]
async fn a_bundle_in_use_is_kept_unless_the_mode_says_otherwise() {
    let world = World::start().await;
    create(&world, foreign("other.org")).await;
    let mut entry = wire_entry(&id("/node"), "/w");
    entry.federates_with = vec!["other.org".into()];
    let request = BatchCreateEntryRequest { entries: vec![entry], output_mask: None };
    EntryClient::new(world.local()).batch_create_entry(request).await.unwrap();
    let mut client = BundleClient::new(world.local());
    let mut delete = async |mode| {
        let request = BatchDeleteFederatedBundleRequest { trust_domains: vec!["other.org".into()], mode };
        client.batch_delete_federated_bundle(request).await.map(|reply| {
            let status = reply.into_inner().results.remove(0).status.unwrap();
            (status.code, status.message)
        })
    };
    let text = "failed to delete federated bundle: datastore-sql: cannot delete bundle; federated with 1 registration entries";
    assert_eq!(delete(0).await.unwrap(), (9, text.into()));
    assert_eq!(
        refusal(delete(9).await),
        (Code::InvalidArgument, "failed to parse deletion mode: unhandled delete mode \"9\"".into())
    );
    assert_eq!(delete(2).await.unwrap(), (0, "OK".into()));
    assert_eq!(delete(2).await.unwrap(), (5, "bundle not found".into()));
}

#[tokio::test]
async fn set_replaces_and_lists_leave_out_our_own() {
    let world = World::start().await;
    let mut client = BundleClient::new(world.local());
    for hint in [1, 2] {
        let bundle = types::Bundle { refresh_hint: hint, ..foreign("other.org") };
        let request = BatchSetFederatedBundleRequest { bundle: vec![bundle], output_mask: None };
        client.batch_set_federated_bundle(request).await.unwrap();
    }
    let list = client.list_federated_bundles(ListFederatedBundlesRequest::default()).await.unwrap();
    let seen: Vec<_> =
        list.into_inner().bundles.into_iter().map(|b| (b.trust_domain, b.refresh_hint)).collect();
    assert_eq!(seen, [("other.org".to_owned(), 2)]);
}

#[tokio::test]
async fn an_agent_may_read_a_federated_bundle_and_only_downstream_may_publish() {
    let world = World::start().await;
    create(&world, foreign("other.org")).await;
    let agent = world.agent("t1").await;
    let mut client = BundleClient::new(world.holder(&agent));
    let request = GetFederatedBundleRequest { trust_domain: "other.org".into(), output_mask: None };
    client.get_federated_bundle(request).await.unwrap();
    let refused = client.publish_jwt_authority(PublishJwtAuthorityRequest::default()).await;
    assert_eq!(refusal(refused).0, Code::PermissionDenied);
}
