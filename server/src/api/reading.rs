//! What the governance service reads of records: the records themselves, and what they tell of use.

use avouch_credential::ledger::SignedHead;
use avouch_domain::{Identity, KeptHead, SpiffeId, Timestamp};
use avouch_proto::convert::identity_to_wire;
use avouch_proto::governance_v1 as wire;
use tonic::Status;

use crate::api::call::Call;
use crate::api::governance::GovernanceApi;
use crate::api::status::{bad, write_failed};
use crate::limits::{RECORD_BYTES_PER_CALL, RECORDS_PER_CALL};
use crate::service::WriteError;

impl GovernanceApi {
    /// Identities with the day on which each was used last.
    pub(super) async fn with_uses(&self, identities: Vec<Identity>) -> Result<Vec<wire::Identity>, Status> {
        let names = identities.iter().map(|identity| identity.spiffe_id.clone()).collect();
        let days = self.services.last_uses(names).await;
        let days = days.map_err(|e| write_failed("failed to read what is used", &e))?;
        let one = |(identity, day): (&Identity, Option<Timestamp>)| wire::Identity {
            last_used: day.map_or(0, Timestamp::secs),
            ..identity_to_wire(identity)
        };
        Ok(identities.iter().zip(days).map(one).collect())
    }

    pub(super) async fn read_records(
        &self,
        call: &Call,
        request: &wire::ListRecordsRequest,
    ) -> Result<wire::ListRecordsResponse, Status> {
        self.person(call)?;
        let wanted = usize::try_from(request.limit).unwrap_or(0);
        let wanted = if wanted == 0 { RECORDS_PER_CALL } else { wanted.min(RECORDS_PER_CALL) };
        let failed = |e: WriteError| write_failed("failed to read the records", &e);
        let (records, heads): (_, Vec<wire::Head>) = if request.chain == 0 {
            let stretch = self.services.records(request.after, wanted).await.map_err(failed)?;
            (stretch.records, stretch.heads.into_iter().map(head_to_wire).collect())
        } else {
            let stretch = self.services.node_records(request.chain, request.after, wanted).await;
            let stretch = stretch.map_err(failed)?;
            (stretch.records, stretch.heads.into_iter().map(node_head_to_wire).collect())
        };
        let first = records.first().map_or(0, |record| record.seq);
        let mut bytes = 0;
        let mut last = first;
        let mut lines = Vec::with_capacity(records.len());
        for record in records {
            bytes += record.line.len();
            if bytes > RECORD_BYTES_PER_CALL && !lines.is_empty() {
                break;
            }
            last = record.seq;
            lines.push(record.line);
        }
        let heads = heads.into_iter().filter(|head| head.seq <= last).collect();
        let trust_domain = self.services.trust_domain().to_string();
        Ok(wire::ListRecordsResponse { trust_domain, lines, first, heads })
    }

    pub(super) async fn read_chains(
        &self,
        call: &Call,
        request: &wire::ListChainsRequest,
    ) -> Result<wire::ListChainsResponse, Status> {
        self.person(call)?;
        let named = (!request.source.is_empty()).then_some(request.source.as_str());
        let source = named.map(SpiffeId::parse).transpose().map_err(|e| bad(&format!("source: {e}")))?;
        let chains = self.services.node_chains(source, request.after).await;
        let chains = chains.map_err(|e| write_failed("failed to read the chains", &e))?;
        let chains = chains.into_iter().map(|chain| wire::NodeChain {
            number: chain.number,
            source: chain.source,
            chain: chain.chain,
            first: chain.first,
            last: chain.last,
            began_at_ms: chain.began_at.0,
        });
        Ok(wire::ListChainsResponse { chains: chains.collect() })
    }
}

fn head_to_wire(head: SignedHead) -> wire::Head {
    wire::Head {
        seq: head.seq,
        hash: head.hash.to_vec(),
        at_ms: head.at.0,
        key: head.key,
        signature: head.signature,
        ..wire::Head::default()
    }
}

fn node_head_to_wire(kept: KeptHead) -> wire::Head {
    let KeptHead { head, receipt } = kept;
    wire::Head {
        seq: head.stand.seq,
        hash: head.stand.hash.to_vec(),
        at_ms: head.at.0,
        key: receipt.key,
        signature: receipt.signature,
        certificate: head.certificate,
        node_signature: head.signature,
    }
}
