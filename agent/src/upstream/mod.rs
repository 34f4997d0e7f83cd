//! The agent's side of the server's API: everything asked of a server goes through [`Upstream`].
//!
//! Wire types end here. Never decides when to ask or what a refusal means: the machines and `join` do.

mod channel;
mod identities;
mod records;
mod requests;
mod rules;
mod spire;
mod tasks;
mod watch;

use std::error::Error as _;
use std::sync::Arc;

use avouch::rpc::causes;
use avouch_credential::tls::{IdentityCell, RootsCell, ServerExpectation, TlsError};
use avouch_domain::{Bundle, EntryId, JwtSvid, LogPosition, Revision, SpiffeId, Timestamp, TrustDomain};
use avouch_engine::sync::{AgentRefusal, Failure, Frame, Known, Polled};
use avouch_proto::convert::{DeniedReason, denied_reason};
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch as tokio_watch};
use tonic::transport::Channel;
use tonic::{Code, Status};

pub(crate) use channel::connect_tcp;
pub use channel::{Resolve, System, Target};
pub use identities::{Emergency, Governed, Identities, Told};
pub use records::Sink;
pub use requests::{Asked, Asking, Requests, UsedGrant, UsedYes};
pub use rules::{Announced, AnnouncedRules, FetchedRules, RulesSource};
pub use spire::{AttestError, Attestation};
pub use tasks::{SignedToken, Tasks, TokenAsk};

use crate::limits::{CALL_MAX, INTERRUPTIONS_MAX};

/// How a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("the server does not know this call")]
    Unimplemented,
    #[error("{message}")]
    Refused { refusal: AgentRefusal, message: String },
    /// The connection ended before the server took up the call: it may be made again at once.
    #[error("{0}")]
    Interrupted(String),
    /// The call did not come through, or its answer did not.
    #[error("{0}")]
    Unreachable(String),
    /// The server answered, and not with what was asked.
    #[error("{message} ({code:?})")]
    Failed { code: Code, message: String },
}

impl CallError {
    /// What the machines need to know of it.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Unimplemented => Failure::Unimplemented,
            Self::Refused { refusal, .. } => Failure::Refused(*refusal),
            Self::Interrupted(_) | Self::Unreachable(_) | Self::Failed { .. } => {
                Failure::Away(self.to_string())
            }
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let message = describe(&status);
        let refusal = denied_reason(&status).and_then(|reason| match reason {
            DeniedReason::AgentExpired => Some(AgentRefusal::Expired),
            DeniedReason::AgentNotAttested => Some(AgentRefusal::NotAttested),
            DeniedReason::AgentNotActive => Some(AgentRefusal::NotActive),
            DeniedReason::AgentBanned => Some(AgentRefusal::Banned),
            DeniedReason::AgentMustReattest => Some(AgentRefusal::MustReattest),
            DeniedReason::Unknown => None,
        });
        let refusal = refusal.or_else(|| was_told_expired(&status).then_some(AgentRefusal::Expired));
        match (refusal, status.code()) {
            (Some(refusal), _) => Self::Refused { refusal, message },
            (None, _) if was_interrupted(&status) => Self::Interrupted(message),
            (None, Code::Unimplemented) => Self::Unimplemented,
            (None, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown) => {
                Self::Unreachable(message)
            }
            (None, code) => Self::Failed { code, message },
        }
    }
}

/// Servers end their connections every few minutes (GOAWAY). What was about to go over one was not looked at.
fn was_interrupted(status: &Status) -> bool {
    causes(status.source()).any(|error| {
        let unsent = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        let turned_away = error.downcast_ref::<h2::Error>().is_some_and(|e| {
            let reason = e.reason();
            reason == Some(h2::Reason::REFUSED_STREAM)
                || (e.is_go_away() && e.is_remote() && reason == Some(h2::Reason::NO_ERROR))
        });
        unsent || turned_away
    })
}

/// A server that looks at the agent's certificate in the handshake says there, once it has proved who it is, that the
/// certificate has ended.
fn was_told_expired(status: &Status) -> bool {
    // The HTTP library keeps the words of what its transport said and nothing else.
    let words = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateExpired).to_string();
    causes(status.source()).any(|error| error.to_string() == words)
}

/// The message with the causes below it: "transport error" alone helps nobody.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    for error in causes(status.source()) {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
    }
    text
}

/// A certificate chain the server signed, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedChain {
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
}

/// A token the server signed.
#[derive(Debug)]
pub struct SignedJwt {
    pub svid: JwtSvid,
    /// `kid` of its header.
    pub key_id: Arc<str>,
}

/// How the agent introduces itself on the stream.
#[derive(Clone, Debug)]
pub struct Hello {
    pub position: Option<LogPosition>,
    pub known: Known,
    pub agent_version: String,
}

/// An open stream. It ends when `frames` ends; dropping both ends it from this side.
#[derive(Debug)]
pub struct Following {
    /// The last item before the end is an error if there was one.
    pub frames: mpsc::Receiver<Result<Frame, CallError>>,
    pub says: mpsc::Sender<Said>,
}

/// What an agent says on an open stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Everything up to this revision is applied.
    Applied(Revision),
    /// Whether the server is there. Not sent to one that does not answer it.
    Renew(u64),
}

/// A server, as an attested agent uses it. Every call ends within the limit of one call.
#[tonic::async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// Opens the push stream.
    async fn follow(&self, hello: Hello) -> Result<Following, CallError>;

    /// Whole bundles, of those that exist.
    async fn fetch_bundles(&self, domains: Vec<TrustDomain>) -> Result<Vec<Bundle>, CallError>;

    /// One round of the SPIRE protocol. `whole`: all entries in one answer. `federated`: foreign domains of the
    /// entries held.
    async fn poll(&self, whole: bool, known: Known, federated: Vec<TrustDomain>)
    -> Result<Polled, CallError>;

    /// Signs a batch; one outcome for each item, in order.
    async fn sign_x509(
        &self,
        batch: Vec<(EntryId, Vec<u8>)>,
    ) -> Result<Vec<Result<SignedChain, String>>, CallError>;

    /// Mints one token.
    async fn sign_jwt(&self, entry: &EntryId, audience: &[String]) -> Result<SignedJwt, CallError>;

    /// Renews the agent's own SVID.
    async fn renew(&self, csr: Vec<u8>) -> Result<SignedChain, CallError>;

    /// Tells the server which version runs here.
    async fn post_status(&self, version: &str) -> Result<(), CallError>;
}

/// A real server, reached over mutual TLS.
#[derive(Debug)]
pub struct Server {
    target: Target,
    resolver: Arc<dyn Resolve>,
    trust_domain: TrustDomain,
    identity: Arc<IdentityCell>,
    roots: Arc<RootsCell>,
    line: RwLock<Line>,
    /// Which rules are in force, as the stream said last.
    announced: tokio_watch::Sender<Option<Announced>>,
}

/// The connection in use and whose it is.
#[derive(Clone, Debug)]
struct Line {
    channel: Channel,
    agent: SpiffeId,
    generation: u64,
}

impl Server {
    /// Nothing is dialled yet. `identity` and `roots` are read anew at each handshake.
    ///
    /// # Errors
    /// [`TlsError`] if the library refuses its own configuration.
    pub fn new(
        target: Target,
        resolver: Arc<dyn Resolve>,
        trust_domain: TrustDomain,
        identity: Arc<IdentityCell>,
        roots: Arc<RootsCell>,
    ) -> Result<Self, TlsError> {
        let expected = ServerExpectation::Exactly(SpiffeId::server(&trust_domain));
        let shown = Some(identity.clone());
        let channel = channel::open(&target, resolver.clone(), shown, roots.clone(), expected)?;
        let line = Line { channel, agent: trust_domain.id(), generation: 0 };
        Ok(Self {
            target,
            resolver,
            trust_domain,
            identity,
            roots,
            line: RwLock::new(line),
            announced: tokio_watch::channel(None).0,
        })
    }

    /// Calls from now on use a new connection, which shows the identity of now. Calls under way end on the old.
    ///
    /// # Errors
    /// As [`Server::new`].
    pub fn turn(&self, agent: SpiffeId) -> Result<(), TlsError> {
        let expected = ServerExpectation::Exactly(SpiffeId::server(&self.trust_domain));
        let shown = Some(self.identity.clone());
        let channel =
            channel::open(&self.target, self.resolver.clone(), shown, self.roots.clone(), expected)?;
        let mut line = self.line.write();
        *line = Line { channel, agent, generation: line.generation + 1 };
        Ok(())
    }

    fn line(&self) -> Line {
        self.line.read().clone()
    }

    /// Makes a call, and again while connections end before the server takes it up.
    async fn call<T, F>(&self, call: impl Fn(Line) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let mut left = INTERRUPTIONS_MAX;
        loop {
            let line = self.line();
            let result = match tokio::time::timeout(CALL_MAX, call(line.clone())).await {
                Ok(result) => result,
                Err(_) => Err(CallError::Unreachable(format!("no answer within {} s", CALL_MAX.as_secs()))),
            };
            match result {
                Err(CallError::Interrupted(_)) if left > 0 => left -= 1,
                result => return result.map_err(|e| self.judged(&line, e)),
            }
        }
    }

    /// A refusal of an SVID that has been replaced since says nothing about the present one.
    fn judged(&self, line: &Line, error: CallError) -> CallError {
        match error {
            CallError::Refused { message, .. } if self.line.read().generation != line.generation => {
                CallError::Unreachable(format!("{message} (the SVID has been replaced since)"))
            }
            other => other,
        }
    }
}

/// Now in the server's certificates and tokens is whole seconds.
fn seconds(at: i64) -> Timestamp {
    Timestamp::from_secs(at)
}
