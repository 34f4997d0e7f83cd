//! Published rules: over the admin socket by people, over TCP for agents.

use avouch_credential::rules::SignedRules;
use avouch_domain::{Epoch, RulesDigest, Timestamp};
use avouch_proto::governance_v1::governance_client::GovernanceClient;
use avouch_proto::governance_v1::{
    InitRequest, ListRecordsRequest, ListRulesRequest, PublishRulesRequest, PublishRulesResponse,
    RulesRequest,
};
use avouch_proto::rules_v1::rules_client::RulesClient;
use avouch_proto::rules_v1::{FetchRequest, FetchResponse, File};
use avouch_proto::watch_v1::follow_request::Step as Ask;
use avouch_proto::watch_v1::follow_response::Frame;
use avouch_proto::watch_v1::watch_client::WatchClient;
use avouch_proto::watch_v1::{FollowRequest, FollowResponse, Hello, RulesNotice};
use avouch_rules::{Folder, STARTER};
use tonic::Streaming;

use super::*;

pub(super) fn files(more: &str) -> Vec<File> {
    let file = |(name, text): (&str, &str)| {
        let more = if name == "rules.cedar" { more } else { "" };
        File { name: name.into(), text: format!("{text}{more}") }
    };
    STARTER.into_iter().map(file).collect()
}

fn digest(files: &[File]) -> RulesDigest {
    Folder::new(files.iter().map(|f| (f.name.clone(), f.text.clone()))).unwrap().rules_digest()
}

/// A world whose first person is who calls as this process's user.
pub(super) async fn governed() -> (World, GovernanceClient<Channel>) {
    let world = World::start().await;
    let uid = nix::unistd::geteuid().as_raw();
    let me = Peer::Local(LocalPeer { uid, standing: Standing::Free, ..LocalPeer::default() });
    let mut client = GovernanceClient::new(channel(world.admin.clone(), me));
    client.init(InitRequest { name: "Ada Example".into() }).await.unwrap();
    (world, client)
}

pub(super) async fn publish(
    client: &mut GovernanceClient<Channel>,
    files: Vec<File>,
) -> PublishRulesResponse {
    let request = PublishRulesRequest { files, note: "why".into() };
    client.publish_rules(request).await.unwrap().into_inner()
}

async fn follow(channel: Channel) -> Streaming<FollowResponse> {
    let hello = Hello { version: 1, ..Hello::default() };
    let asks = tokio_stream::iter([FollowRequest { step: Some(Ask::Hello(hello)) }]);
    let asks = tokio_stream::StreamExt::chain(asks, tokio_stream::pending());
    WatchClient::new(channel).follow(asks).await.unwrap().into_inner()
}

/// The next word about rules on a stream.
async fn notice(frames: &mut Streaming<FollowResponse>) -> RulesNotice {
    loop {
        if let Some(Frame::Rules(notice)) = frames.message().await.unwrap().unwrap().frame {
            return notice;
        }
    }
}

fn signed(answer: &FetchResponse) -> SignedRules {
    let statement = answer.statement.clone().unwrap();
    SignedRules {
        epoch: Epoch { started: statement.epoch_started, random: statement.epoch_random },
        number: statement.number,
        digest: RulesDigest(statement.digest.try_into().unwrap()),
        valid_from: Timestamp(statement.valid_from_ms),
        key: statement.key,
        signature: statement.signature,
    }
}

#[tokio::test]
async fn what_is_published_is_announced_on_open_and_on_new_streams_and_fetched_with_its_signature() {
    let (world, mut people) = governed().await;
    let agent = world.agent("t1").await;
    let mut frames = follow(world.holder(&agent)).await;
    assert_eq!(notice(&mut frames).await.number, 0, "none yet");
    let mut client = RulesClient::new(world.holder(&agent));
    assert_eq!(refusal(client.fetch(FetchRequest {}).await).0, Code::NotFound);

    let published = publish(&mut people, files("")).await.rules.unwrap();
    assert_eq!((published.number, published.standing.as_str()), (1, "in_force"));
    let told = notice(&mut frames).await;
    let fetched = client.fetch(FetchRequest {}).await.unwrap().into_inner();
    let signed = signed(&fetched);
    assert_eq!(signed.check(&domain()), Ok(()));
    assert_eq!(fetched.files, {
        let mut all = files("");
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    });
    assert_eq!((signed.number, signed.digest), (1, digest(&files(""))));
    assert_eq!((told.number, told.digest, told.key), (1, signed.digest.0.to_vec(), signed.key.clone()));
    assert_eq!((told.epoch_started, told.epoch_random), (signed.epoch.started, signed.epoch.random));

    publish(&mut people, files("// more\n")).await.rules.unwrap();
    assert_eq!(notice(&mut frames).await.number, 2);
    let mut late = follow(world.holder(&agent)).await;
    let first = late.message().await.unwrap().unwrap().frame.unwrap();
    assert!(matches!(first, Frame::Welcome(_)));
    let second = late.message().await.unwrap().unwrap().frame.unwrap();
    assert!(
        matches!(second, Frame::Rules(notice) if notice.number == 2 && notice.key == signed.key),
        "at its start"
    );
}

#[tokio::test]
async fn findings_come_back_with_their_place_and_nothing_is_published() {
    let (_world, mut people) = governed().await;
    let answer = publish(&mut people, files("\npermit (principal, action, resource);\n")).await;
    assert_eq!(answer.rules, None);
    let found = &answer.findings[0];
    assert_eq!(found.file, "rules.cedar");
    assert!(found.line > 30 && !found.next.is_empty(), "{found:?}");
    let large = vec![File { name: "a.cedar".into(), text: "/".repeat(65_537) }];
    assert_eq!(publish(&mut people, large).await.findings[0].code, "size");
    let listed = people.list_rules(ListRulesRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.rules, []);
    let same =
        PublishRulesRequest { files: vec![files("")[0].clone(), files("")[0].clone()], note: String::new() };
    assert_eq!(refusal(people.publish_rules(same).await).0, Code::InvalidArgument);
    let note = PublishRulesRequest { files: files(""), note: "two\nlines".into() };
    assert_eq!(refusal(people.publish_rules(note).await).0, Code::InvalidArgument);
}

#[tokio::test]
async fn publications_are_listed_from_the_newest_shown_with_their_files_and_recorded() {
    let (_world, mut people) = governed().await;
    for more in ["", "// 2\n", "// 3\n"] {
        publish(&mut people, files(more)).await.rules.unwrap();
    }
    let listed = people.list_rules(ListRulesRequest { before: 0, limit: 2 }).await.unwrap().into_inner();
    let short = |rules: &[avouch_proto::governance_v1::PublishedRules]| {
        rules.iter().map(|r| (r.number, r.standing.clone())).collect::<Vec<_>>()
    };
    assert_eq!(short(&listed.rules), [(3, "in_force".to_owned()), (2, "past".to_owned())]);
    let listed = people.list_rules(ListRulesRequest { before: 2, limit: 2 }).await.unwrap().into_inner();
    assert_eq!(short(&listed.rules), [(1, "past".to_owned())]);
    let shown = people.get_rules(RulesRequest { number: 2 }).await.unwrap().into_inner();
    assert_eq!(
        shown.files.iter().find(|f| f.name == "rules.cedar"),
        files("// 2\n").iter().find(|f| f.name == "rules.cedar")
    );
    assert_eq!(shown.statement, None, "agents are not shown these");
    assert_eq!(refusal(people.get_rules(RulesRequest { number: 9 }).await).0, Code::NotFound);

    let back = people.withdraw_rules(RulesRequest { number: 3 }).await.unwrap().into_inner();
    assert_eq!(
        (back.number, back.note.as_str(), &back.digest),
        (4, "as rules 2", &shown.rules.unwrap().digest)
    );
    let records = people.list_records(ListRecordsRequest::default()).await.unwrap().into_inner();
    let of_rules: Vec<_> = records.lines.iter().filter(|line| line.contains("\"rules_published\"")).collect();
    assert_eq!(of_rules.len(), 4);
    assert!(of_rules[0].contains("\"subject\":\"1\"") && of_rules[0].contains("\"yes_by\":\"self\""));
    assert!(of_rules[0].contains(&digest(&files("")).to_string()) && !of_rules[0].contains("why"));
}

#[tokio::test]
async fn rules_are_for_agents_alone() {
    let (world, _people) = governed().await;
    let told = |channel| async move { refusal(RulesClient::new(channel).fetch(FetchRequest {}).await).0 };
    assert_eq!(told(world.nobody()).await, Code::PermissionDenied);
    assert_eq!(told(world.local()).await, Code::PermissionDenied);
}
