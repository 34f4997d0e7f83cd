//! The Workload API's shape on the wire is the standard's: nothing added, nothing changed. Read from the live agent.

use std::collections::BTreeSet;

use avouch_tests::{World, conforms, uds, within};
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorProto};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

async fn reflect(question: MessageRequest) -> MessageResponse {
    let world = World::shared().await;
    let mut client = ServerReflectionClient::new(uds(&world.agent.socket).await.unwrap());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let stream = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer = within("an answer", stream.into_inner().message()).await.unwrap().unwrap();
    answer.message_response.unwrap()
}

async fn workload_file() -> FileDescriptorProto {
    let answer = reflect(MessageRequest::FileContainingSymbol("SpiffeWorkloadAPI".into())).await;
    let MessageResponse::FileDescriptorResponse(files) = answer else { panic!("{answer:?}") };
    files
        .file_descriptor_proto
        .iter()
        .map(|bytes| FileDescriptorProto::decode(bytes.as_slice()).unwrap())
        .find(|file| !file.service.is_empty())
        .unwrap()
}

#[tokio::test]
async fn reflection_names_the_workload_api() {
    conforms!("WE-23");
    let MessageResponse::ListServicesResponse(list) =
        reflect(MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list")
    };
    assert!(list.service.iter().any(|s| s.name == "SpiffeWorkloadAPI"), "{list:?}");
}

#[tokio::test]
async fn the_service_has_the_standards_calls_and_no_others() {
    conforms!("WE-21", "WA-04", "WA-05");
    let file = workload_file().await;
    assert_eq!(file.package(), "");
    assert_eq!(file.service.len(), 1);
    let service = &file.service[0];
    assert_eq!(service.name(), "SpiffeWorkloadAPI");
    let calls: BTreeSet<_> = service
        .method
        .iter()
        .map(|m| {
            let stream = if m.server_streaming() { "stream " } else { "" };
            assert!(!m.client_streaming());
            format!("{}({}) {stream}{}", m.name(), m.input_type(), m.output_type())
        })
        .collect();
    let expected = [
        "FetchX509SVID(.X509SVIDRequest) stream .X509SVIDResponse",
        "FetchX509Bundles(.X509BundlesRequest) stream .X509BundlesResponse",
        "FetchJWTSVID(.JWTSVIDRequest) .JWTSVIDResponse",
        "FetchJWTBundles(.JWTBundlesRequest) stream .JWTBundlesResponse",
        "ValidateJWTSVID(.ValidateJWTSVIDRequest) .ValidateJWTSVIDResponse",
        "FetchWITSVID(.WITSVIDRequest) stream .WITSVIDResponse",
        "FetchWITBundles(.WITBundlesRequest) stream .WITBundlesResponse",
    ];
    assert_eq!(calls, expected.map(str::to_owned).into());
}

/// A message's fields as `number name type`, maps and repeated fields spelled out.
fn fields(message: &DescriptorProto) -> BTreeSet<String> {
    message
        .field
        .iter()
        .map(|f| {
            let kind = match f.r#type() {
                Type::String => "string".to_owned(),
                Type::Bytes => "bytes".to_owned(),
                Type::Message => f.type_name().trim_start_matches('.').to_owned(),
                other => format!("{other:?}"),
            };
            let map = message.nested_type.iter().find(|n| f.type_name().ends_with(&format!(".{}", n.name())));
            let kind = match (map, f.label()) {
                (Some(entry), _) => {
                    format!("map {}", fields(entry).into_iter().collect::<Vec<_>>().join(", "))
                }
                (None, Label::Repeated) => format!("repeated {kind}"),
                _ => kind,
            };
            format!("{} {} {kind}", f.number(), f.name())
        })
        .collect()
}

#[tokio::test]
async fn messages_have_the_standards_fields_and_no_others() {
    conforms!("WA-04");
    let file = workload_file().await;
    let bytes = "map 1 key string, 2 value bytes";
    let text = "map 1 key string, 2 value string";
    let expected: [(&str, Vec<String>); 17] = [
        ("X509SVIDRequest", vec![]),
        (
            "X509SVIDResponse",
            vec![
                "1 svids repeated X509SVID".into(),
                "2 crl repeated bytes".into(),
                format!("3 federated_bundles {bytes}"),
            ],
        ),
        (
            "X509SVID",
            [
                "1 spiffe_id string",
                "2 x509_svid bytes",
                "3 x509_svid_key bytes",
                "4 bundle bytes",
                "5 hint string",
            ]
            .map(str::to_owned)
            .into(),
        ),
        ("X509BundlesRequest", vec![]),
        ("X509BundlesResponse", vec!["1 crl repeated bytes".into(), format!("2 bundles {bytes}")]),
        ("JWTSVIDRequest", vec!["1 audience repeated string".into(), "2 spiffe_id string".into()]),
        ("JWTSVIDResponse", vec!["1 svids repeated JWTSVID".into()]),
        ("JWTSVID", ["1 spiffe_id string", "2 svid string", "3 hint string"].map(str::to_owned).into()),
        ("JWTBundlesRequest", vec![]),
        ("JWTBundlesResponse", vec![format!("1 bundles {bytes}")]),
        ("ValidateJWTSVIDRequest", vec!["1 audience string".into(), "2 svid string".into()]),
        (
            "ValidateJWTSVIDResponse",
            vec!["1 spiffe_id string".into(), "2 claims google.protobuf.Struct".into()],
        ),
        ("WITSVIDRequest", vec!["1 spiffe_id string".into()]),
        ("WITSVIDResponse", vec!["1 svids repeated WITSVID".into()]),
        (
            "WITSVID",
            ["1 spiffe_id string", "2 wit_svid string", "3 wit_svid_key string", "4 hint string"]
                .map(str::to_owned)
                .into(),
        ),
        ("WITBundlesRequest", vec![]),
        ("WITBundlesResponse", vec![format!("1 bundles {text}")]),
    ];
    let names: BTreeSet<_> = file.message_type.iter().map(DescriptorProto::name).collect();
    assert_eq!(names, expected.iter().map(|(name, _)| *name).collect());
    for (name, wanted) in expected {
        let message = file.message_type.iter().find(|m| m.name() == name).unwrap();
        assert_eq!(fields(message), wanted.into_iter().collect(), "{name}");
    }
}
