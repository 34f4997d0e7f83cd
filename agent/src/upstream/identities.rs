//! What the server says of identities that may run here.

use std::num::NonZeroU16;

use avouch_domain::limits::EMERGENCIES_MAX;
use avouch_domain::{Code, CodeDigest, EmergencyId, Environment, Kind, SpiffeId, Timestamp};
use avouch_proto::convert::{optional_code_digest, optional_runs_max};
use avouch_proto::watch_v1::watch_client::WatchClient;
use avouch_proto::watch_v1::{self as wire, FetchIdentitiesRequest, IdentityFacts, ReportCodeRequest};

use super::{CallError, Line, Server};

/// An identity as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Governed {
    pub name: SpiffeId,
    pub kind: Kind,
    pub environment: Environment,
    pub purpose: Code,
    pub preset: Option<Code>,
    /// ID of a person.
    pub owner: String,
    pub owner_active: bool,
    pub ends: Timestamp,
    /// What was given out under a lower one is void.
    pub stop_number: u64,
    /// The code that its runs have. `None`: any.
    pub code: Option<CodeDigest>,
    /// Most runs of it at a time here. `None`: as many as there may be.
    pub runs_max: Option<NonZeroU16>,
    /// Open when this was said: they count for the decision that it was asked for.
    pub emergencies: Vec<Emergency>,
}

/// One action on one resource that two people let an identity do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emergency {
    pub id: EmergencyId,
    pub action: String,
    /// ID in the catalogue.
    pub resource: String,
    pub ends_at: Timestamp,
}

/// What the server says of one identity at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// `None` if it is not in force or may not run here.
    pub identity: Option<Governed>,
    /// Number of the rules in force; 0: none are.
    pub rules_number: u64,
}

/// Where identities are looked up.
#[tonic::async_trait]
pub trait Identities: Send + Sync + 'static {
    /// The agent's own SPIFFE ID.
    fn agent_id(&self) -> SpiffeId;

    /// An identity as it is now.
    async fn identity(&self, name: &SpiffeId) -> Result<Told, CallError>;

    /// Tells that an identity was to be run with code that is not its own. True if it is paused for it.
    async fn other_code(&self, name: &SpiffeId, found: CodeDigest) -> Result<bool, CallError>;
}

#[tonic::async_trait]
impl Identities for Server {
    fn agent_id(&self) -> SpiffeId {
        self.line().agent
    }

    async fn identity(&self, name: &SpiffeId) -> Result<Told, CallError> {
        let request = || FetchIdentitiesRequest { spiffe_ids: vec![name.to_string()] };
        let answer = self
            .call(|line| async move {
                Ok(WatchClient::new(line.channel).fetch_identities(request()).await?.into_inner())
            })
            .await?;
        let found = answer.identities.iter().find(|facts| facts.spiffe_id == name.as_str());
        let identity = found.and_then(|facts| governed(name, facts));
        Ok(Told { identity, rules_number: answer.rules_number })
    }

    async fn other_code(&self, name: &SpiffeId, found: CodeDigest) -> Result<bool, CallError> {
        let request = || ReportCodeRequest { spiffe_id: name.to_string(), code: found.0.to_vec() };
        let report = |line: Line| async move {
            Ok(WatchClient::new(line.channel).report_code(request()).await?.into_inner())
        };
        Ok(self.call(report).await?.paused)
    }
}

/// `None` for words of a newer server: what is not understood is not in force.
pub(super) fn governed(name: &SpiffeId, facts: &IdentityFacts) -> Option<Governed> {
    let preset = if facts.preset.is_empty() { None } else { Some(Code::new(&facts.preset).ok()?) };
    Some(Governed {
        name: name.clone(),
        kind: Kind::from_name(&facts.kind)?,
        environment: Environment::from_name(&facts.environment)?,
        purpose: Code::new(&facts.purpose).ok()?,
        preset,
        owner: facts.owner.clone(),
        owner_active: facts.owner_active,
        ends: Timestamp::from_secs(facts.ends_at),
        stop_number: facts.stop_number,
        code: optional_code_digest(&facts.code).ok()?,
        runs_max: optional_runs_max(facts.runs_max).ok()?,
        emergencies: facts.emergencies.iter().take(EMERGENCIES_MAX).filter_map(emergency).collect(),
    })
}

/// `None` for one without an ID that a record could name.
fn emergency(told: &wire::Emergency) -> Option<Emergency> {
    Some(Emergency {
        id: EmergencyId::new(&told.id).ok()?,
        action: told.action.clone(),
        resource: told.resource.clone(),
        ends_at: Timestamp::from_secs(told.ends_at),
    })
}
