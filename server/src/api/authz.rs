//! Who may call what: one table of methods, one pure judgement.
//!
//! Never writes, never looks a node up: whether the caller is an agent in good standing is left to the services,
//! which promote a renewed serial at its first use.

use avouch_domain::{Entry, SpiffeId, Timestamp};

use crate::api::caller::{CallerSvid, Leaf, Peer, Standing};

/// Anyone, also without a certificate.
const ANY: u8 = 1;
/// A process on the admin socket.
const LOCAL: u8 = 2;
/// A SPIFFE ID of `admin_ids`, or with an admin entry.
const ADMIN: u8 = 4;
/// A SPIFFE ID with a downstream entry.
const DOWNSTREAM: u8 = 8;
/// An attested node.
const AGENT: u8 = 16;

/// The buckets that calls of one address share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    Attest,
    SignX509,
    SignJwt,
    PostStatus,
}

/// A limit on a method: its bucket, and what a refusal calls the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub bucket: Bucket,
    pub work: &'static str,
}

/// One method of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Full name of the service, such as `spire.api.server.agent.v1.Agent`.
    pub service: &'static str,
    pub name: &'static str,
    who: u8,
    pub limit: Option<Limit>,
    /// The service exists only on the admin socket; over TCP it is unknown.
    pub local_only: bool,
    /// When the server stops, the method ends its stream itself, between two steps.
    pub drains_itself: bool,
}

impl Method {
    /// The service as logs and metrics name it.
    #[must_use]
    pub fn short_service(&self) -> &'static str {
        match self.service {
            "spire.api.server.logger.v1.Logger" => "Logger",
            "grpc.health.v1.Health" => "Health",
            "avouch.records.v1.Records" => "records.v1.Records",
            "avouch.watch.v1.Watch" => "watch.v1.Watch",
            "avouch.governance.v1.Governance" => "governance.v1.Governance",
            "avouch.requests.v1.Requests" => "requests.v1.Requests",
            "avouch.rules.v1.Rules" => "rules.v1.Rules",
            "avouch.task.v1.Tasks" => "task.v1.Tasks",
            other => other.strip_prefix("spire.api.server.").unwrap_or(other),
        }
    }

    /// `/service/name`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/{}/{}", self.service, self.name)
    }
}

const fn row(service: &'static str, name: &'static str, who: u8) -> Method {
    Method { service, name, who, limit: None, local_only: false, drains_itself: false }
}

const fn limited(
    service: &'static str,
    name: &'static str,
    who: u8,
    bucket: Bucket,
    work: &'static str,
) -> Method {
    Method {
        service,
        name,
        who,
        limit: Some(Limit { bucket, work }),
        local_only: false,
        drains_itself: false,
    }
}

const fn local(service: &'static str, name: &'static str) -> Method {
    Method { service, name, who: LOCAL, limit: None, local_only: true, drains_itself: false }
}

const AGENT_SERVICE: &str = "spire.api.server.agent.v1.Agent";
const BUNDLE: &str = "spire.api.server.bundle.v1.Bundle";
const ENTRY: &str = "spire.api.server.entry.v1.Entry";
const SVID: &str = "spire.api.server.svid.v1.SVID";
const AUTHORITY: &str = "spire.api.server.localauthority.v1.LocalAuthority";
const DEBUG: &str = "spire.api.server.debug.v1.Debug";
const LOGGER: &str = "spire.api.server.logger.v1.Logger";
const HEALTH: &str = "grpc.health.v1.Health";
const WATCH: &str = "avouch.watch.v1.Watch";
const RULES: &str = "avouch.rules.v1.Rules";
const TASKS: &str = "avouch.task.v1.Tasks";
const RECORDS: &str = "avouch.records.v1.Records";
const REQUESTS: &str = "avouch.requests.v1.Requests";
const GOVERNANCE: &str = "avouch.governance.v1.Governance";

/// Every method that is served. What is not here does not exist.
pub const METHODS: &[Method] = &[
    row(AGENT_SERVICE, "CountAgents", LOCAL | ADMIN),
    row(AGENT_SERVICE, "ListAgents", LOCAL | ADMIN),
    row(AGENT_SERVICE, "GetAgent", LOCAL | ADMIN),
    row(AGENT_SERVICE, "DeleteAgent", LOCAL | ADMIN),
    row(AGENT_SERVICE, "BanAgent", LOCAL | ADMIN),
    row(AGENT_SERVICE, "CreateJoinToken", LOCAL | ADMIN),
    Method {
        drains_itself: true,
        ..limited(AGENT_SERVICE, "AttestAgent", ANY, Bucket::Attest, "attest agent")
    },
    limited(AGENT_SERVICE, "RenewAgent", AGENT, Bucket::SignX509, "renew agent"),
    limited(AGENT_SERVICE, "PostStatus", AGENT, Bucket::PostStatus, "agent status posting"),
    row(BUNDLE, "GetBundle", ANY),
    row(BUNDLE, "AppendBundle", LOCAL | ADMIN),
    row(BUNDLE, "CountBundles", LOCAL | ADMIN),
    row(BUNDLE, "ListFederatedBundles", LOCAL | ADMIN),
    row(BUNDLE, "BatchCreateFederatedBundle", LOCAL | ADMIN),
    row(BUNDLE, "BatchUpdateFederatedBundle", LOCAL | ADMIN),
    row(BUNDLE, "BatchSetFederatedBundle", LOCAL | ADMIN),
    row(BUNDLE, "BatchDeleteFederatedBundle", LOCAL | ADMIN),
    row(BUNDLE, "GetFederatedBundle", LOCAL | ADMIN | AGENT),
    row(BUNDLE, "PublishJWTAuthority", DOWNSTREAM),
    row(BUNDLE, "PublishWITAuthority", DOWNSTREAM),
    row(ENTRY, "CountEntries", LOCAL | ADMIN),
    row(ENTRY, "ListEntries", LOCAL | ADMIN),
    row(ENTRY, "GetEntry", LOCAL | ADMIN),
    row(ENTRY, "BatchCreateEntry", LOCAL | ADMIN),
    row(ENTRY, "BatchUpdateEntry", LOCAL | ADMIN),
    row(ENTRY, "BatchDeleteEntry", LOCAL | ADMIN),
    row(ENTRY, "GetAuthorizedEntries", AGENT),
    row(ENTRY, "SyncAuthorizedEntries", AGENT),
    row(SVID, "MintX509SVID", LOCAL | ADMIN),
    row(SVID, "MintJWTSVID", LOCAL | ADMIN),
    row(SVID, "MintWITSVID", LOCAL | ADMIN),
    limited(SVID, "BatchNewX509SVID", AGENT, Bucket::SignX509, "certificate signing"),
    limited(SVID, "NewJWTSVID", AGENT, Bucket::SignJwt, "JWT signing request"),
    row(SVID, "BatchNewWITSVID", AGENT),
    row(SVID, "NewDownstreamX509CA", DOWNSTREAM),
    row(AUTHORITY, "GetX509AuthorityState", LOCAL | ADMIN),
    row(AUTHORITY, "PrepareX509Authority", LOCAL | ADMIN),
    row(AUTHORITY, "ActivateX509Authority", LOCAL | ADMIN),
    row(AUTHORITY, "TaintX509Authority", LOCAL | ADMIN),
    row(AUTHORITY, "TaintX509UpstreamAuthority", LOCAL | ADMIN),
    row(AUTHORITY, "RevokeX509Authority", LOCAL | ADMIN),
    row(AUTHORITY, "RevokeX509UpstreamAuthority", LOCAL | ADMIN),
    row(AUTHORITY, "GetJWTAuthorityState", LOCAL | ADMIN),
    row(AUTHORITY, "PrepareJWTAuthority", LOCAL | ADMIN),
    row(AUTHORITY, "ActivateJWTAuthority", LOCAL | ADMIN),
    row(AUTHORITY, "TaintJWTAuthority", LOCAL | ADMIN),
    row(AUTHORITY, "RevokeJWTAuthority", LOCAL | ADMIN),
    row(AUTHORITY, "GetWITAuthorityState", LOCAL | ADMIN),
    row(AUTHORITY, "PrepareWITAuthority", LOCAL | ADMIN),
    row(AUTHORITY, "ActivateWITAuthority", LOCAL | ADMIN),
    row(AUTHORITY, "TaintWITAuthority", LOCAL | ADMIN),
    row(AUTHORITY, "RevokeWITAuthority", LOCAL | ADMIN),
    local(DEBUG, "GetInfo"),
    local(LOGGER, "GetLogger"),
    local(LOGGER, "SetLogLevel"),
    local(LOGGER, "ResetLogLevel"),
    local(HEALTH, "Check"),
    local(HEALTH, "Watch"),
    Method { drains_itself: true, ..row(WATCH, "Follow", AGENT) },
    row(WATCH, "FetchBundles", AGENT),
    row(WATCH, "FetchIdentities", AGENT),
    row(WATCH, "ReportCode", AGENT),
    row(RULES, "Fetch", AGENT),
    row(RECORDS, "Ship", AGENT),
    row(REQUESTS, "Ask", AGENT),
    limited(TASKS, "SignToken", AGENT, Bucket::SignJwt, "JWT signing request"),
    row(TASKS, "ShowToken", AGENT),
    local(GOVERNANCE, "Init"),
    local(GOVERNANCE, "AddPerson"),
    local(GOVERNANCE, "SetSignIn"),
    local(GOVERNANCE, "ApprovePerson"),
    local(GOVERNANCE, "LeavePerson"),
    local(GOVERNANCE, "ListPeople"),
    local(GOVERNANCE, "RegisterIdentity"),
    local(GOVERNANCE, "ApproveIdentity"),
    local(GOVERNANCE, "ChangeIdentity"),
    local(GOVERNANCE, "ConfirmIdentity"),
    local(GOVERNANCE, "PauseIdentity"),
    local(GOVERNANCE, "ResumeIdentity"),
    local(GOVERNANCE, "StopIdentity"),
    local(GOVERNANCE, "DrillStop"),
    local(GOVERNANCE, "PlaceIdentity"),
    local(GOVERNANCE, "GetIdentity"),
    local(GOVERNANCE, "ListIdentities"),
    local(GOVERNANCE, "ListFound"),
    local(GOVERNANCE, "Adopt"),
    local(GOVERNANCE, "PublishRules"),
    local(GOVERNANCE, "ApproveRules"),
    local(GOVERNANCE, "WithdrawRules"),
    local(GOVERNANCE, "ListRules"),
    local(GOVERNANCE, "GetRules"),
    local(GOVERNANCE, "ListRequests"),
    local(GOVERNANCE, "GetRequest"),
    local(GOVERNANCE, "AnswerRequest"),
    local(GOVERNANCE, "GiveGrant"),
    local(GOVERNANCE, "EndGrant"),
    local(GOVERNANCE, "EndCase"),
    local(GOVERNANCE, "ListGrants"),
    local(GOVERNANCE, "AcceptFinding"),
    local(GOVERNANCE, "UnacceptFinding"),
    local(GOVERNANCE, "ListAccepted"),
    local(GOVERNANCE, "AskEmergency"),
    local(GOVERNANCE, "AgreeEmergency"),
    local(GOVERNANCE, "EndEmergency"),
    local(GOVERNANCE, "ListEmergencies"),
    local(GOVERNANCE, "ListRecords"),
    local(GOVERNANCE, "ListChains"),
    local(GOVERNANCE, "Overview"),
    local(GOVERNANCE, "OpenPages"),
];

/// Service and name of every method, as logs and metrics have them.
#[must_use]
pub fn method_names() -> Vec<(&'static str, &'static str)> {
    METHODS.iter().map(|method| (method.short_service(), method.name)).collect()
}

/// What a path leads to on one kind of listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Method(&'static Method),
    NoMethod,
    NoService,
}

/// Looks a path up. `is_local`: the call came over the admin socket.
#[must_use]
pub fn find(path: &str, is_local: bool) -> Found {
    let (service, name) = path.strip_prefix('/').and_then(|p| p.split_once('/')).unwrap_or_default();
    let mut of_service =
        METHODS.iter().filter(|m| m.service == service && (is_local || !m.local_only)).peekable();
    if of_service.peek().is_none() {
        return Found::NoService;
    }
    of_service.find(|m| m.name == name).map_or(Found::NoMethod, Found::Method)
}

/// As what a call was let in. The words of the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Nobody,
    Local,
    Person,
    AdminByConfig,
    AdminByEntry,
    Downstream,
    Agent,
}

impl Role {
    /// Values of the log fields `authorized_as` and `authorized_via`.
    #[must_use]
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Nobody => ("nobody", ""),
            Self::Local => ("local", "transport"),
            Self::Person => ("person", "session"),
            Self::AdminByConfig => ("admin", "config"),
            Self::AdminByEntry => ("admin", "entries"),
            Self::Downstream => ("downstream", "entries"),
            Self::Agent => ("agent", "datastore"),
        }
    }
}

/// What is known about callers: the live state behind a judgement.
pub trait Known {
    /// `admin_ids` of the configuration.
    fn is_admin_id(&self, id: &SpiffeId) -> bool;
    /// Unexpired entries whose SPIFFE ID this is.
    fn entries_of(&self, wall: Timestamp, id: &SpiffeId) -> Vec<Entry>;
}

/// The judgement about one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed(Role),
    /// Allowed if this SVID is the one its node may use now.
    IfAgent(CallerSvid),
    /// The caller belongs to a run: no identity is a person or an admin.
    OfARun,
    /// Only a person may, and whether the caller belongs to a run is hidden from the server.
    Hidden,
    /// The caller's certificate names nobody.
    Unauthenticated(String),
    Denied,
}

/// Judges one call.
#[must_use]
pub fn judge(method: &Method, peer: &Peer, known: &impl Known, wall: Timestamp) -> Verdict {
    let may = |role: u8| method.who & role != 0;
    let svid = match peer {
        Peer::Remote { leaf: Leaf::Unusable(why), .. } => return Verdict::Unauthenticated(why.clone()),
        _ if may(ANY) => return Verdict::Allowed(Role::Nobody),
        // Whoever is signed in to the pages is a person, and nothing else.
        Peer::Page(_) if method.service == GOVERNANCE => return Verdict::Allowed(Role::Person),
        Peer::Page(_) => return Verdict::Denied,
        Peer::Local(local) if local.standing == Standing::OfARun => return Verdict::OfARun,
        Peer::Local(local) if local.standing == Standing::Hidden && method.service == GOVERNANCE => {
            return Verdict::Hidden;
        }
        Peer::Local(_) if may(LOCAL) => return Verdict::Allowed(Role::Local),
        Peer::Remote { leaf: Leaf::Svid(svid), .. } => svid,
        Peer::Local(_) | Peer::Remote { leaf: Leaf::None, .. } => return Verdict::Denied,
    };
    if may(ADMIN) && known.is_admin_id(&svid.id) {
        return Verdict::Allowed(Role::AdminByConfig);
    }
    if may(ADMIN) || may(DOWNSTREAM) {
        let entries = known.entries_of(wall, &svid.id);
        if may(ADMIN) && entries.iter().any(|entry| entry.admin) {
            return Verdict::Allowed(Role::AdminByEntry);
        }
        if may(DOWNSTREAM) && entries.iter().any(|entry| entry.downstream) {
            return Verdict::Allowed(Role::Downstream);
        }
    }
    if may(AGENT) { Verdict::IfAgent(svid.clone()) } else { Verdict::Denied }
}

#[cfg(test)]
#[path = "authz_tests.rs"]
mod tests;
