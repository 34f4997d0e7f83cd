//! Debug service, on the admin socket only: how long, how much, with which certificate.

use std::sync::Arc;

use avouch_credential::x509::facts::CertFacts;
use avouch_domain::Tick;
use avouch_proto::convert::spiffe_id_to_wire;
use avouch_proto::debug_v1::debug_server::Debug;
use avouch_proto::debug_v1::{GetInfoRequest, GetInfoResponse, get_info_response::Cert};
use parking_lot::Mutex;
use tonic::{Code, Request, Response, Status};

use crate::api::call::open;
use crate::limits::DEBUG_INFO_AGE;
use crate::service::Services;

/// The service.
#[derive(Clone)]
pub struct DebugApi {
    services: Services,
    started: Tick,
    last: Arc<Mutex<Option<(Tick, GetInfoResponse)>>>,
}

impl std::fmt::Debug for DebugApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DebugApi")
    }
}

impl DebugApi {
    /// A service for a server that started at `started`.
    #[must_use]
    pub fn new(services: Services, started: Tick) -> Self {
        Self { services, started, last: Arc::default() }
    }

    fn look(&self, now: Tick) -> GetInfoResponse {
        let counts = self.services.counts();
        let facts = self.services.ca().facts();
        let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let root = (!facts.x509_root.is_empty()).then_some(&facts.x509_root);
        GetInfoResponse {
            svid_chain: facts.server_svid_chain.iter().chain(root).filter_map(|der| cert(der)).collect(),
            uptime: i32::try_from(now.since(self.started).as_secs()).unwrap_or(i32::MAX),
            agents_count: number(counts.agents),
            federated_bundles_count: number(counts.bundles),
            entries_count: number(counts.entries),
        }
    }
}

fn cert(der: &[u8]) -> Option<Cert> {
    let facts = CertFacts::parse(der).ok()?;
    Some(Cert {
        id: facts.spiffe_id().ok().map(|id| spiffe_id_to_wire(&id)),
        expires_at: facts.not_after.secs(),
        subject: facts.subject_text,
    })
}

#[tonic::async_trait]
impl Debug for DebugApi {
    async fn get_info(&self, request: Request<GetInfoRequest>) -> Result<Response<GetInfoResponse>, Status> {
        let (call, _) = open(request)?;
        call.audit().item(Code::Ok, "");
        let now = call.now().mono;
        let mut last = self.last.lock();
        if let Some((at, info)) = &*last
            && now.since(*at) < DEBUG_INFO_AGE
        {
            return Ok(Response::new(info.clone()));
        }
        let info = self.look(now);
        *last = Some((now, info.clone()));
        Ok(Response::new(info))
    }
}
