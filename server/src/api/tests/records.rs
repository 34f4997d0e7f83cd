//! Records of nodes over the API: who may send whose, and what becomes of what does not fit.

use avouch_credential::ledger::{hash_of, node_line, sign_node_head};
use avouch_domain::{ChainId, NodeChain, NodeEvent, Note, Shipment, Stand, Timestamp};
use avouch_proto::convert::shipment_to_wire;
use avouch_proto::governance_v1::{IdentityRequest, PlaceIdentityRequest, RegisterIdentityRequest};
use avouch_proto::records_v1::records_client::RecordsClient;
use avouch_proto::records_v1::{ShipRequest, ShipResponse};

use super::rules::governed;
use super::*;

/// An agent that has attested, with its key.
struct Sender {
    caller: CallerSvid,
    certificate: Vec<u8>,
    key: PrivateKey,
    chain: NodeChain,
    stand: Stand,
}

impl Sender {
    async fn join(world: &World, token: &str) -> Self {
        let request = CreateJoinTokenRequest { ttl: 60, token: token.into(), agent_id: None };
        AgentClient::new(world.local()).create_join_token(request).await.unwrap();
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let template = CsrTemplate { subject: &Name::svid_default(), id: None, dns_names: &[] };
        let csr = csr::build(&template, &key).unwrap();
        let data = types::AttestationData { r#type: "join_token".into(), payload: token.into() };
        let params = Params { data: Some(data), params: Some(AgentX509svidParams { csr }) };
        let request = AttestAgentRequest { step: Some(Step::Params(params)) };
        let mut replies = AgentClient::new(world.local())
            .attest_agent(tokio_stream::iter([request]))
            .await
            .unwrap()
            .into_inner();
        let Some(Reply::Result(result)) = replies.message().await.unwrap().unwrap().step else { panic!() };
        let svid = result.svid.unwrap();
        let caller = caller_of(&svid);
        let chain = NodeChain { source: caller.id.clone(), id: ChainId::new([7; 8]) };
        Self { caller, certificate: svid.cert_chain[0].clone(), key, chain, stand: Stand::default() }
    }

    /// The next records of the chain.
    fn next(&mut self, many: u64) -> ShipRequest {
        let decision = || Note {
            event: NodeEvent::Decision,
            actor: "a".into(),
            subject: "s".into(),
            detail: vec![("outcome", "deny".into())],
        };
        self.next_of((0..many).map(|_| decision()).collect())
    }

    /// The same with these notes.
    fn next_of(&mut self, notes: Vec<Note>) -> ShipRequest {
        let first = self.stand.seq + 1;
        let mut lines = Vec::new();
        for note in notes {
            let line = node_line(&self.chain, &self.stand, Timestamp(0), &note).unwrap();
            self.stand = Stand { seq: self.stand.seq + 1, hash: hash_of(&line) };
            lines.push(line);
        }
        let head =
            sign_node_head(&self.chain, self.stand, Timestamp(1), &self.certificate, &self.key).unwrap();
        shipment_to_wire(Shipment { chain: self.chain.id, first, lines, head: Some(head), gap: false })
    }

    async fn ship(&self, world: &World, request: ShipRequest) -> Result<ShipResponse, Status> {
        let mut client = RecordsClient::new(world.holder(&self.caller));
        client.ship(request).await.map(tonic::Response::into_inner)
    }
}

/// What the server's own log tells of nodes' records.
async fn told(world: &World) -> Vec<String> {
    let lines = world.store.records(0, 1000).await.unwrap().records.into_iter().map(|record| record.line);
    let events = ["node_chain_began", "node_gap", "node_conflict"];
    lines.filter(|line| events.iter().any(|event| line.contains(event))).collect()
}

#[tokio::test]
async fn what_an_agent_sends_is_kept_and_answered_with_where_the_server_stands() {
    let world = World::start().await;
    let mut sender = Sender::join(&world, "a").await;
    let question = ShipRequest { chain: sender.chain.id.to_string(), ..Default::default() };
    assert_eq!(sender.ship(&world, question.clone()).await.unwrap().seq, 0);
    let request = sender.next(3);
    let answer = sender.ship(&world, request.clone()).await.unwrap();
    assert_eq!((answer.seq, answer.hash), (3, sender.stand.hash.to_vec()));
    assert_eq!(sender.ship(&world, request).await.unwrap().seq, 3, "sent again");
    assert_eq!(sender.ship(&world, question).await.unwrap().seq, 3);
    let told = told(&world).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("node_chain_began") && told[0].contains(sender.caller.id.as_str()));
}

#[tokio::test]
async fn only_an_agent_in_good_standing_sends_records() {
    let world = World::start().await;
    let mut sender = Sender::join(&world, "a").await;
    let request = sender.next(1);
    for channel in [world.nobody(), world.local()] {
        let refused = RecordsClient::new(channel).ship(request.clone()).await;
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn records_of_another_node_are_refused() {
    let world = World::start().await;
    let mut sender = Sender::join(&world, "a").await;
    let other = Sender::join(&world, "b").await;
    let request = sender.next(1);
    let (code, text) = refusal(other.ship(&world, request).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.contains("certificate is not the one of this connection"), "{text}");
    // Signed by itself, but with the other's name in the lines.
    let mut posing = Sender { chain: sender.chain.clone(), stand: Stand::default(), ..other };
    let request = posing.next(1);
    let (code, text) = refusal(posing.ship(&world, request).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.contains("the head does not fit"), "{text}");
}

#[tokio::test]
async fn lines_that_are_no_chain_and_heads_that_do_not_fit_are_refused() {
    let world = World::start().await;
    let mut sender = Sender::join(&world, "a").await;
    let good = sender.next(3);
    let mut changed = good.clone();
    changed.lines[1] = changed.lines[1].replace("deny", "allow");
    let mut cut = good.clone();
    cut.lines.pop();
    let mut forged = good.clone();
    forged.head.as_mut().unwrap().signature = vec![0; 70];
    let many = ShipRequest { lines: vec!["x".into(); 5_000], ..good.clone() };
    for bad in [changed, cut, forged, many] {
        assert_eq!(refusal(sender.ship(&world, bad).await).0, Code::InvalidArgument);
    }
    assert!(told(&world).await.is_empty());
    assert_eq!(sender.ship(&world, good).await.unwrap().seq, 3, "nothing of it was kept");
}

#[tokio::test]
async fn a_gap_is_refused_with_what_is_missing_and_recorded() {
    let world = World::start().await;
    let mut sender = Sender::join(&world, "a").await;
    let first = sender.next(2);
    sender.ship(&world, first).await.unwrap();
    sender.next(3);
    let late = sender.next(2);
    let (code, text) = refusal(sender.ship(&world, late.clone()).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(text.contains("record 6") && text.contains("expected 3"), "{text}");
    let answer = sender.ship(&world, ShipRequest { gap: true, ..late }).await.unwrap();
    assert_eq!(answer.seq, 7);
    let told = told(&world).await;
    assert!(told[1].contains("node_gap") && told[1].contains("\"kept\":\"no\""), "{told:?}");
    assert!(told[2].contains("\"after\":\"2\"") && told[2].contains("\"kept\":\"yes\""), "{told:?}");
}

#[tokio::test]
async fn other_bytes_under_the_same_number_are_refused_and_recorded() {
    let world = World::start().await;
    let mut sender = Sender::join(&world, "a").await;
    let first = sender.next(2);
    sender.ship(&world, first).await.unwrap();
    let mut twin = Sender { stand: Stand::default(), chain: sender.chain.clone(), ..sender };
    let other = {
        let mut request = twin.next(1);
        let line = request.lines[0].replace("deny", "allow");
        let stand = Stand { seq: 1, hash: hash_of(&line) };
        let head = sign_node_head(&twin.chain, stand, Timestamp(1), &twin.certificate, &twin.key).unwrap();
        request = shipment_to_wire(Shipment {
            chain: twin.chain.id,
            first: 1,
            lines: vec![line],
            head: Some(head),
            gap: false,
        });
        request
    };
    let (code, text) = refusal(twin.ship(&world, other).await);
    assert_eq!(code, Code::Aborted);
    assert!(text.contains("another record is kept as 1"), "{text}");
    let told = told(&world).await;
    assert!(told.last().unwrap().contains("node_conflict"), "{told:?}");
}

#[tokio::test]
async fn a_finding_that_stands_alone_in_the_log_is_signed_too() {
    let world = World::start().await;
    let mut sender = Sender::join(&world, "a").await;
    let mut positions = world.gate.services.subscribe();
    positions.mark_unchanged();
    let request = sender.next(1);
    sender.ship(&world, request).await.unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(10), positions.changed()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_node_tells_of_the_use_of_what_it_serves_and_of_nothing_else() {
    let (world, mut people) = governed().await;
    let (mut here, mut elsewhere) = (Sender::join(&world, "a").await, Sender::join(&world, "b").await);
    let new = RegisterIdentityRequest {
        name: "coder".into(),
        kind: "ai_agent".into(),
        environment: "test".into(),
        purpose: "fix-bugs".into(),
        ends_at: clock::now().wall.secs() + 3_600,
        ..RegisterIdentityRequest::default()
    };
    people.register_identity(new).await.unwrap();
    let place = PlaceIdentityRequest { name: "coder".into(), node: here.caller.id.to_string(), uid: 7 };
    people.place_identity(place).await.unwrap();
    let given = || Note {
        event: NodeEvent::IdentityUsed,
        actor: "agent".into(),
        subject: id("/test/coder").to_string(),
        detail: Vec::new(),
    };
    let mut used = async || {
        let named = IdentityRequest { name: "coder".into() };
        people.get_identity(named).await.unwrap().into_inner().identity.unwrap().last_used
    };
    let request = elsewhere.next_of(vec![given()]);
    elsewhere.ship(&world, request).await.unwrap();
    assert_eq!(used().await, 0, "it serves no such identity");
    let request = here.next_of(vec![given()]);
    here.ship(&world, request).await.unwrap();
    let day = used().await;
    assert!(day > 0 && day % 86_400 == 0 && clock::now().wall.secs() - day < 2 * 86_400, "{day}");
}
