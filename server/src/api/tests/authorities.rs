//! LocalAuthority service: the authorities of this server, what operators do with them, and the refusals.

use avouch_proto::localauthority_v1::local_authority_client::LocalAuthorityClient;
use avouch_proto::localauthority_v1::{self as wire, AuthorityState};

use super::*;

type Client = LocalAuthorityClient<Channel>;

async fn x509(client: &mut Client) -> [Option<AuthorityState>; 3] {
    let request = wire::GetX509AuthorityStateRequest {};
    let reply = client.get_x509_authority_state(request).await.unwrap().into_inner();
    [reply.active, reply.prepared, reply.old]
}

async fn jwt(client: &mut Client) -> [Option<AuthorityState>; 3] {
    let request = wire::GetJwtAuthorityStateRequest {};
    let reply = client.get_jwt_authority_state(request).await.unwrap().into_inner();
    [reply.active, reply.prepared, reply.old]
}

async fn prepare_x509(client: &mut Client) -> AuthorityState {
    let reply = client.prepare_x509_authority(wire::PrepareX509AuthorityRequest {}).await.unwrap();
    reply.into_inner().prepared_authority.unwrap()
}

async fn activate_x509(client: &mut Client, id: &str) -> Result<AuthorityState, Status> {
    let request = wire::ActivateX509AuthorityRequest { authority_id: id.into() };
    Ok(client.activate_x509_authority(request).await?.into_inner().activated_authority.unwrap())
}

async fn taint_x509(client: &mut Client, id: &str) -> Result<AuthorityState, Status> {
    let request = wire::TaintX509AuthorityRequest { authority_id: id.into() };
    Ok(client.taint_x509_authority(request).await?.into_inner().tainted_authority.unwrap())
}

async fn revoke_x509(client: &mut Client, id: &str) -> Result<AuthorityState, Status> {
    let request = wire::RevokeX509AuthorityRequest { authority_id: id.into() };
    Ok(client.revoke_x509_authority(request).await?.into_inner().revoked_authority.unwrap())
}

fn only_id(id: &str) -> AuthorityState {
    AuthorityState { authority_id: id.into(), ..Default::default() }
}

fn code<T: std::fmt::Debug>(result: Result<T, Status>, expected: Code) -> String {
    let (code, text) = refusal(result);
    assert_eq!(code, expected, "{text}");
    text
}

#[tokio::test]
async fn an_x509_authority_goes_its_way_from_prepared_to_revoked() {
    let world = World::start().await;
    let mut client = Client::new(world.local());
    let [first, none, old] = x509(&mut client).await;
    let first = first.unwrap();
    assert_eq!((none, old), (None, None));
    assert!(first.expires_at > 0 && first.authority_id.len() == 40);
    assert_eq!(first.upstream_authority_subject_key_id, "", "nobody is above it");
    let second = prepare_x509(&mut client).await;
    assert_eq!(x509(&mut client).await, [Some(first.clone()), Some(second.clone()), None]);
    assert_eq!(activate_x509(&mut client, &second.authority_id).await.unwrap(), second);
    assert_eq!(x509(&mut client).await, [Some(second.clone()), None, Some(first.clone())]);
    assert_eq!(taint_x509(&mut client, &first.authority_id).await.unwrap(), first);
    assert!(world.gate.services.bundle().x509_authorities.iter().any(|root| root.tainted));
    let revoked = revoke_x509(&mut client, &first.authority_id).await.unwrap();
    assert_eq!(revoked, only_id(&first.authority_id));
    assert_eq!(x509(&mut client).await, [Some(second), None, None]);
    assert_eq!(world.gate.services.bundle().x509_authorities.len(), 1);
}

#[tokio::test]
async fn a_jwt_authority_goes_its_way_from_prepared_to_revoked() {
    let world = World::start().await;
    let mut client = Client::new(world.local());
    let first = jwt(&mut client).await[0].clone().unwrap();
    let reply = client.prepare_jwt_authority(wire::PrepareJwtAuthorityRequest {}).await.unwrap();
    let second = reply.into_inner().prepared_authority.unwrap();
    let authority_id = second.authority_id.clone();
    let reply = client.activate_jwt_authority(wire::ActivateJwtAuthorityRequest { authority_id }).await;
    assert_eq!(reply.unwrap().into_inner().activated_authority, Some(second.clone()));
    assert_eq!(jwt(&mut client).await, [Some(second.clone()), None, Some(first.clone())]);
    let authority_id = first.authority_id.clone();
    let reply = client.taint_jwt_authority(wire::TaintJwtAuthorityRequest { authority_id }).await.unwrap();
    assert_eq!(reply.into_inner().tainted_authority, Some(only_id(&first.authority_id)));
    let authority_id = first.authority_id.clone();
    let reply = client.revoke_jwt_authority(wire::RevokeJwtAuthorityRequest { authority_id }).await.unwrap();
    assert_eq!(reply.into_inner().revoked_authority, Some(only_id(&first.authority_id)));
    assert_eq!(jwt(&mut client).await, [Some(second), None, None]);
    assert_eq!(world.gate.services.bundle().jwt_authorities.len(), 1);
}

#[tokio::test]
async fn each_refusal_about_an_x509_authority_has_its_code_and_text() {
    use Code::{Internal, InvalidArgument};
    let world = World::start().await;
    let mut client = Client::new(world.local());
    let first = x509(&mut client).await[0].clone().unwrap().authority_id;
    let text = code(activate_x509(&mut client, "").await, InvalidArgument);
    assert_eq!(text, "no authority ID provided");
    for id in ["unknown", first.as_str()] {
        let text = code(activate_x509(&mut client, id).await, InvalidArgument);
        assert_eq!(text, "unexpected authority ID");
    }
    assert_eq!(code(taint_x509(&mut client, "").await, InvalidArgument), "no authority ID provided");
    assert_eq!(code(taint_x509(&mut client, "unknown").await, InvalidArgument), "unexpected authority ID");
    let text = code(taint_x509(&mut client, &first).await, InvalidArgument);
    assert_eq!(text, "unable to taint current local authority");
    let text = code(revoke_x509(&mut client, "").await, InvalidArgument);
    assert_eq!(text, "invalid authority ID: no authority ID provided");
    let text = code(revoke_x509(&mut client, &first).await, InvalidArgument);
    assert_eq!(text, "invalid authority ID: unable to use current authority");

    let second = prepare_x509(&mut client).await.authority_id;
    let text = code(taint_x509(&mut client, &second).await, InvalidArgument);
    let prepared = "only Old local authorities can be tainted: unsupported local authority status: PREPARED";
    assert_eq!(text, prepared);
    let text = code(revoke_x509(&mut client, &second).await, InvalidArgument);
    assert_eq!(text, "invalid authority ID: only Old local authority can be revoked");
    activate_x509(&mut client, &second).await.unwrap();

    let text = code(activate_x509(&mut client, &first).await, Internal);
    assert_eq!(text, "only Prepared authorities can be activated: unsupported local authority status: OLD");
    let text = code(revoke_x509(&mut client, &first).await, Internal);
    let untainted = "failed to revoke X.509 authority: it is not possible to revoke an untainted root CA";
    assert_eq!(text, untainted);
    taint_x509(&mut client, &first).await.unwrap();
    let text = code(taint_x509(&mut client, &first).await, Internal);
    assert_eq!(text, "failed to taint X.509 authority: root CA is already tainted");
}

#[tokio::test]
async fn refusals_about_a_jwt_authority_name_keys() {
    let world = World::start().await;
    let mut client = Client::new(world.local());
    let reply = client.prepare_jwt_authority(wire::PrepareJwtAuthorityRequest {}).await.unwrap();
    let authority_id = reply.into_inner().prepared_authority.unwrap().authority_id;
    let first = jwt(&mut client).await[0].clone().unwrap().authority_id;
    for (id, text) in [
        ("", "invalid authority ID: no authority ID provided"),
        (first.as_str(), "invalid authority ID: unable to use current authority"),
        (authority_id.as_str(), "invalid authority ID: unable to use a prepared key"),
        ("unknown", "invalid authority ID: no JWT authority found with provided authority ID"),
    ] {
        let request = wire::RevokeJwtAuthorityRequest { authority_id: id.into() };
        let refused = client.revoke_jwt_authority(request).await;
        assert_eq!(code(refused, Code::InvalidArgument), text);
    }
    client.activate_jwt_authority(wire::ActivateJwtAuthorityRequest { authority_id }).await.unwrap();
    let request = || wire::RevokeJwtAuthorityRequest { authority_id: first.clone() };
    let text = code(client.revoke_jwt_authority(request()).await, Code::Internal);
    assert_eq!(text, "failed to revoke JWT authority: it is not possible to revoke an untainted key");
    let taint = || wire::TaintJwtAuthorityRequest { authority_id: first.clone() };
    client.taint_jwt_authority(taint()).await.unwrap();
    let text = code(client.taint_jwt_authority(taint()).await, Code::Internal);
    assert_eq!(text, "failed to taint JWT authority: key is already tainted");
}

#[tokio::test]
async fn authorities_above_and_wit_authorities_are_refused_as_spire_does_without_them() {
    let world = World::start().await;
    let mut client = Client::new(world.local());
    let subject_key_id = String::new();
    let request = wire::TaintX509UpstreamAuthorityRequest { subject_key_id };
    let text = code(client.taint_x509_upstream_authority(request).await, Code::FailedPrecondition);
    assert_eq!(text, "upstream authority is not configured");
    let request = wire::RevokeX509UpstreamAuthorityRequest { subject_key_id: "ab".into() };
    let text = code(client.revoke_x509_upstream_authority(request).await, Code::FailedPrecondition);
    assert_eq!(text, "upstream authority is not configured");
    let text =
        code(client.get_wit_authority_state(wire::GetWitAuthorityStateRequest {}).await, Code::Unimplemented);
    assert_eq!(text, "WIT-SVID functionality is not yet implemented");
}

#[tokio::test]
async fn without_jwt_svids_there_are_no_jwt_authorities() {
    let settings = Settings { jwt_disabled: true, ..settings() };
    let world = World::with(domain(), settings, &[]).await;
    let mut client = Client::new(world.local());
    let text =
        code(client.get_jwt_authority_state(wire::GetJwtAuthorityStateRequest {}).await, Code::Unimplemented);
    assert_eq!(text, "JWT functionality is disabled");
    let prepared = client.prepare_jwt_authority(wire::PrepareJwtAuthorityRequest {}).await;
    assert_eq!(code(prepared, Code::Unimplemented), "JWT functionality is disabled");
    assert!(x509(&mut client).await[0].is_some());
}
