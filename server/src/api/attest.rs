//! One AttestAgent stream: the proof, challenges and answers, the agent's SVID.
//!
//! Bounded in rounds and time; ends when the agent leaves. A stopping server asks nothing more, but what it has begun
//! to judge it answers: the answer may have spent a token.

use std::sync::Arc;

use avouch_proto::agent_v1::attest_agent_request::{Params, Step};
use avouch_proto::agent_v1::attest_agent_response::{self, Step as Reply};
use avouch_proto::agent_v1::{AttestAgentRequest, AttestAgentResponse};
use avouch_proto::convert::x509_svid_to_wire;
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::api::agent::peer_address;
use crate::api::call::Call;
use crate::api::status::attest_failed;
use crate::audit_log::AuditLine;
use crate::limits::{ATTEST_ROUNDS_MAX, ATTEST_TIME_MAX};
use crate::service::{AttestRequest, AttestStep, Attested, Services};

type Replies = Sender<Result<AttestAgentResponse, Status>>;

/// Runs one attestation in its own task.
pub fn run(
    services: Services,
    call: Arc<Call>,
    steps: Streaming<AttestAgentRequest>,
) -> ReceiverStream<Result<AttestAgentResponse, Status>> {
    let (replies, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut line = call.audit();
        let attested = tokio::select! {
            attested = attest(&services, &call, &mut line, steps, &replies) => attested,
            () = replies.closed() => Err(Status::cancelled("agent went away")),
            () = tokio::time::sleep(ATTEST_TIME_MAX) => {
                Err(Status::deadline_exceeded("attestation took too long"))
            }
        };
        let last = line.conclude(attested).map(|attested| AttestAgentResponse {
            step: Some(Reply::Result(attest_agent_response::Result {
                svid: Some(x509_svid_to_wire(
                    &attested.svid.id,
                    &attested.svid.chain,
                    attested.svid.expires_at,
                )),
                reattestable: attested.reattestable,
            })),
        });
        // The agent may be gone already; then there is nobody to tell.
        let _ = replies.send(last).await;
    });
    ReceiverStream::new(stream)
}

async fn attest(
    services: &Services,
    call: &Arc<Call>,
    line: &mut AuditLine,
    mut steps: Streaming<AttestAgentRequest>,
    replies: &Replies,
) -> Result<Attested, Status> {
    call.wait_turn(1).await?;
    let first = said(call, &mut steps)
        .await?
        .ok_or_else(|| Status::invalid_argument("failed to receive request from stream: EOF"))?;
    let (kind, payload, csr) = proof_of(first)?;
    line.text("node_attestor_type", &kind);
    let request = AttestRequest { kind, payload, csr, peer: peer_address(call) };
    let mut step = services.attest(call.now(), request).await;
    for _ in 0..=ATTEST_ROUNDS_MAX {
        let (attestation, challenge) = match step.map_err(|e| attest_failed(&e))? {
            AttestStep::Done(attested) => {
                let id = &attested.svid.id;
                line.text("agent_id", id.as_str());
                tracing::info!(subsystem_name = "api", agent_id = %id, "Agent attested");
                return Ok(attested);
            }
            AttestStep::Challenge(attestation, challenge) => (attestation, challenge),
        };
        let asked = AttestAgentResponse { step: Some(Reply::Challenge(challenge)) };
        replies.send(Ok(asked)).await.map_err(|_| Status::cancelled("agent went away"))?;
        let answer = said(call, &mut steps)
            .await?
            .ok_or_else(|| Status::invalid_argument("failed to receive challenge from stream: EOF"))?;
        let Some(Step::ChallengeResponse(answer)) = answer.step else {
            return Err(Status::invalid_argument("expected a challenge response"));
        };
        step = attestation.answer(call.now(), answer).await;
    }
    Err(Status::invalid_argument("attestation has too many rounds"))
}

/// What the agent says next.
async fn said(
    call: &Call,
    steps: &mut Streaming<AttestAgentRequest>,
) -> Result<Option<AttestAgentRequest>, Status> {
    tokio::select! {
        biased;
        said = steps.message() => said,
        () = call.gate.drain.begun().cancelled() => Err(Status::unavailable("server is stopping")),
    }
}

/// Type, payload and certificate request; the first missing part is named, in SPIRE's order.
fn proof_of(request: AttestAgentRequest) -> Result<(String, Vec<u8>, Vec<u8>), Status> {
    let missing = |part: &str| Status::invalid_argument(format!("malformed param: missing {part}"));
    let Some(Step::Params(Params { data, params })) = request.step else {
        return Err(missing("params"));
    };
    let data = data.ok_or_else(|| missing("attestation data"))?;
    let params = params.ok_or_else(|| missing("X509-SVID parameters"))?;
    if params.csr.is_empty() {
        return Err(missing("CSR"));
    }
    if data.r#type.is_empty() {
        return Err(missing("attestation data type"));
    }
    if data.payload.is_empty() {
        return Err(missing("attestation data payload"));
    }
    Ok((data.r#type, data.payload, params.csr))
}

#[cfg(test)]
mod tests {
    use avouch_proto::agent_v1::AgentX509svidParams;
    use avouch_proto::types::AttestationData;

    use super::*;

    #[test]
    fn the_first_missing_part_is_named_in_order() {
        let mut params = Params { data: None, params: None };
        let missing = |params: &Params| {
            let request = AttestAgentRequest { step: Some(Step::Params(params.clone())) };
            proof_of(request).map_err(|s| s.message().to_owned())
        };
        let expect = |params: &Params, part: &str| {
            assert_eq!(missing(params).unwrap_err(), format!("malformed param: missing {part}"));
        };
        expect(&params, "attestation data");
        params.data = Some(AttestationData::default());
        expect(&params, "X509-SVID parameters");
        params.params = Some(AgentX509svidParams::default());
        expect(&params, "CSR");
        params.params = Some(AgentX509svidParams { csr: vec![1] });
        expect(&params, "attestation data type");
        params.data = Some(AttestationData { r#type: "t".into(), ..Default::default() });
        expect(&params, "attestation data payload");
        params.data = Some(AttestationData { r#type: "t".into(), payload: vec![2] });
        assert_eq!(missing(&params), Ok(("t".into(), vec![2], vec![1])));
        let wrong = AttestAgentRequest { step: Some(Step::ChallengeResponse(vec![])) };
        assert_eq!(proof_of(wrong).unwrap_err().message(), "malformed param: missing params");
    }
}
