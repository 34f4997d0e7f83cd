//! The admin socket: Debug and Logger. The file's mode and directory are the only guard, as with SPIRE.
//!
//! Never hands out a key; never shares a directory with the workload socket.

use std::sync::Arc;
use std::time::Duration;

use avouch::logs::{Level, LogHandle};
use avouch_credential::x509::facts::CertFacts;
use avouch_domain::{Now, SelectorSet, SpiffeId, Tick};
use avouch_proto::agent_debug_v1::debug_server::Debug as DebugApi;
use avouch_proto::agent_debug_v1::{GetInfoRequest, GetInfoResponse, get_info_response::Cert};
use avouch_proto::agent_logger_v1::logger_server::Logger as LoggerApi;
use avouch_proto::agent_logger_v1::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
use avouch_proto::types;
use tonic::{Code, Request, Response, Status};

use crate::metrics::{Api, Metrics};
use crate::supply::{Supply, Want};

/// What the admin socket needs besides the supply.
#[derive(Clone, Debug)]
pub struct AdminOptions {
    pub logs: LogHandle,
    /// Monotonic time of the agent's start.
    pub started: Tick,
    pub metrics: Metrics,
    pub clock: fn() -> Now,
}

/// Both services of the admin socket.
#[derive(Clone)]
pub struct Admin {
    supply: Arc<dyn Supply>,
    options: AdminOptions,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Admin {
    #[must_use]
    pub fn new(supply: Arc<dyn Supply>, options: AdminOptions) -> Self {
        Self { supply, options }
    }

    fn count<T>(&self, api: Api, method: &'static str, begun: Tick, result: &Result<T, Status>) {
        let code = result.as_ref().err().map_or(Code::Ok, Status::code);
        let elapsed = (self.options.clock)().mono.since(begun);
        let service = if api == Api::Debug { "Debug" } else { "Logger" };
        self.options.metrics.connections(api, 1);
        self.options.metrics.connections(api, -1);
        self.options.metrics.rpc(service, method, code, elapsed);
    }

    async fn info(&self) -> GetInfoResponse {
        let facts = self.supply.facts().await;
        let mut chain: Vec<Arc<[u8]>> = facts.svid_chain;
        if facts.synced
            && let Some(root) = self.root_of(&chain).await
        {
            chain.push(root);
        }
        let uptime = (self.options.clock)().mono.since(self.options.started);
        let cached_x509 = count(facts.cached_x509);
        #[allow(deprecated)] // SPIRE still fills the old field beside the new one
        GetInfoResponse {
            svid_chain: chain.iter().filter_map(|der| certificate(der)).collect(),
            uptime: seconds(uptime),
            svids_count: cached_x509,
            last_sync_success: facts.last_sync.map_or(0, avouch_domain::Timestamp::secs),
            cached_x509_svids_count: cached_x509,
            cached_jwt_svids_count: count(facts.cached_jwt),
            cached_svidstore_x509_svids_count: 0,
        }
    }

    /// The authority of the own bundle that issued the last certificate of the chain.
    async fn root_of(&self, chain: &[Arc<[u8]>]) -> Option<Arc<[u8]>> {
        let issuer = CertFacts::parse(chain.last()?).ok()?.aki?;
        let mut feed = self.supply.subscribe(SelectorSet::default(), Want::Bundles).await;
        let update = feed.next().await?;
        let authorities = update.own.x509_authorities.iter();
        authorities
            .map(|authority| authority.der.clone())
            .find(|der| CertFacts::parse(der).is_ok_and(|facts| facts.ski.as_ref() == Some(&issuer)))
    }

    fn levels(&self) -> types::Logger {
        types::Logger {
            current_level: self.options.logs.level().number(),
            launch_level: self.options.logs.launch_level().number(),
        }
    }

    fn set(&self, number: i32) -> Result<types::Logger, Status> {
        if number == 0 {
            return Err(Status::invalid_argument("newLevel value cannot be LogLevel_UNSPECIFIED"));
        }
        let level =
            Level::from_number(number).ok_or_else(|| Status::invalid_argument("unsupported log level"))?;
        tracing::info!(subsystem_name = "logger_api", new_level = level.name(), "SetLogLevel Called");
        self.options.logs.set_level(level);
        Ok(self.levels())
    }
}

fn certificate(der: &[u8]) -> Option<Cert> {
    let facts = CertFacts::parse(der).ok()?;
    let id = facts.uri_sans.first().and_then(|uri| SpiffeId::parse(uri).ok());
    Some(Cert {
        id: id.as_ref().map(avouch_proto::convert::spiffe_id_to_wire),
        expires_at: facts.not_after.secs(),
        subject: facts.subject_text,
    })
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn seconds(time: Duration) -> i32 {
    i32::try_from(time.as_secs()).unwrap_or(i32::MAX)
}

#[tonic::async_trait]
impl DebugApi for Admin {
    async fn get_info(&self, _: Request<GetInfoRequest>) -> Result<Response<GetInfoResponse>, Status> {
        let begun = (self.options.clock)().mono;
        let result = Ok(Response::new(self.info().await));
        self.count(Api::Debug, "GetInfo", begun, &result);
        result
    }
}

#[tonic::async_trait]
impl LoggerApi for Admin {
    async fn get_logger(&self, _: Request<GetLoggerRequest>) -> Result<Response<types::Logger>, Status> {
        let begun = (self.options.clock)().mono;
        let result = Ok(Response::new(self.levels()));
        self.count(Api::Logger, "GetLogger", begun, &result);
        result
    }

    async fn set_log_level(
        &self,
        request: Request<SetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        let begun = (self.options.clock)().mono;
        let result = self.set(request.get_ref().new_level).map(Response::new);
        self.count(Api::Logger, "SetLogLevel", begun, &result);
        result
    }

    async fn reset_log_level(
        &self,
        _: Request<ResetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        let begun = (self.options.clock)().mono;
        tracing::info!(subsystem_name = "logger_api", "ResetLogLevel Called");
        self.options.logs.reset_level();
        let result = Ok(Response::new(self.levels()));
        self.count(Api::Logger, "ResetLogLevel", begun, &result);
        result
    }
}
