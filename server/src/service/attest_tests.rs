//! Rules of attestation by proof, one per test, with an attestor that believes everything.

use std::path::Path;

use avouch_attestors::Boxed;
use avouch_attestors::node::{Exchange, NodeProof, Reason, Step, VerifyError};
use avouch_domain::fixtures::{domain, set};
use avouch_domain::{Now, Selector};

use super::tests::{csr, parts};
use super::*;
use crate::keys::memory::MemoryKeys;

const NOW: Now = Now { wall: Timestamp(1_800_000_000_000), mono: avouch_domain::Tick(0) };

fn clock() -> Now {
    NOW
}

/// Asks one question; the payload is the path below `/spire/agent`, the answer a selector.
struct Gullible;

impl NodeVerifier for Gullible {
    fn name(&self) -> &'static str {
        "gullible"
    }

    fn judge<'a>(&'a self, seen: &'a Exchange, _now: Now) -> Boxed<'a, Result<Step, VerifyError>> {
        let Some(round) = seen.rounds.first() else {
            return Box::pin(async { Ok(Step::Ask(b"who?".to_vec())) });
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let refused = VerifyError { name: "gullible", reason: Reason::Refused, message: "no".into() };
        let answer = text(&round.response);
        let agent_id = SpiffeId::new(&domain(), &text(&seen.payload)).unwrap();
        let step = match answer.as_str() {
            "lie" => Err(refused),
            _ => Ok(Step::Accept(NodeProof { agent_id, selectors: set(&[&answer]), can_reattest: true })),
        };
        Box::pin(async move { step })
    }
}

async fn services(own_selector: bool) -> Services {
    let mut parts = parts(Path::new(":memory:"), "s", Arc::new(MemoryKeys::new()), clock);
    parts.verifiers = vec![("gullible".into(), Arc::new(Gullible))];
    parts.settings.agent_spiffe_id_as_selector = own_selector;
    Services::start(parts).await.unwrap()
}

async fn prove(services: &Services, path: &str, answer: &str) -> Result<Attested, AttestError> {
    let request = AttestRequest { kind: "gullible".into(), payload: path.into(), csr: csr(), peer: None };
    let AttestStep::Challenge(attestation, challenge) = services.attest(NOW, request).await? else {
        panic!("accepted without a challenge")
    };
    assert_eq!(challenge, b"who?");
    match attestation.answer(NOW, answer.into()).await? {
        AttestStep::Done(attested) => Ok(attested),
        AttestStep::Challenge(..) => panic!("a second challenge"),
    }
}

const AGENT: &str = "/spire/agent/gullible/a";

#[tokio::test]
async fn a_node_that_proves_itself_again_gets_new_selectors_and_its_old_svid_is_dead_at_once() {
    let services = services(false).await;
    let first = prove(&services, AGENT, "k:1").await.unwrap();
    assert!(first.reattestable);
    let second = prove(&services, AGENT, "k:2").await.unwrap();
    let check = async |serial: &str| services.authorize_agent(NOW, &first.svid.id, serial).await.unwrap();
    assert_eq!(check(&first.svid.serial).await, Err(AgentRefusal::NotActive));
    assert_eq!(check(&second.svid.serial).await, Ok(()));
    let node = services.get_agent(&first.svid.id).unwrap();
    let values: Vec<_> = node.selectors.iter().map(|s| s.value().to_owned()).collect();
    assert_eq!((values, node.can_reattest, &*node.attestation_type), (vec!["2".into()], true, "gullible"));
}

#[tokio::test]
async fn a_node_that_can_prove_itself_again_may_not_renew() {
    let services = services(false).await;
    let agent = prove(&services, AGENT, "k:1").await.unwrap().svid.id;
    let refused = services.renew_agent(NOW, &agent, &csr()).await;
    assert_eq!(refused, Err(RenewError::MustReattest));
}

#[tokio::test]
async fn a_banned_node_may_not_attest_until_it_is_deleted_and_its_serial_is_gone() {
    let services = services(false).await;
    let svid = prove(&services, AGENT, "k:1").await.unwrap().svid;
    services.ban_agent(NOW, "me", &svid.id).await.unwrap().unwrap();
    let check = async || services.authorize_agent(NOW, &svid.id, &svid.serial).await.unwrap();
    assert_eq!(check().await, Err(AgentRefusal::Banned));
    let refused = prove(&services, AGENT, "k:1").await.unwrap_err().to_string();
    assert_eq!(refused, "failed to attest: agent is banned");
    services.delete_agent(NOW, "me", &svid.id).await.unwrap().unwrap();
    assert_eq!(check().await, Err(AgentRefusal::NotAttested));
    assert!(prove(&services, AGENT, "k:1").await.is_ok());
    assert_eq!(check().await, Err(AgentRefusal::NotActive));
}

#[tokio::test]
async fn a_proof_for_what_is_no_agent_of_this_trust_domain_admits_nobody() {
    let services = services(false).await;
    for path in ["/spire/server", "/workload"] {
        let refused = prove(&services, path, "k:1").await.unwrap_err();
        assert!(matches!(refused, AttestError::AgentId(_)), "{path}: {refused}");
    }
    assert_eq!(services.counts().agents, 0);
}

#[tokio::test]
async fn a_refusing_or_unknown_attestor_admits_nobody() {
    let services = services(false).await;
    let refused = prove(&services, AGENT, "lie").await.unwrap_err();
    assert_eq!(refused.to_string(), "nodeattestor(gullible): no");
    let request = AttestRequest { kind: "nope".into(), payload: vec![1], csr: csr(), peer: None };
    let unknown = services.attest(NOW, request).await.unwrap_err().to_string();
    assert_eq!(unknown, "error getting node attestor: could not find node attestor type \"nope\"");
    assert_eq!(services.counts().agents, 0);
}

#[tokio::test]
async fn the_agents_own_id_becomes_a_selector_if_it_is_wanted() {
    for wanted in [true, false] {
        let services = services(wanted).await;
        let attested = prove(&services, AGENT, "k:1").await.unwrap();
        let own = Selector::new("spiffe_id", attested.svid.id.as_str()).unwrap();
        assert_eq!(attested.selectors.iter().any(|s| *s == own), wanted);
    }
}
