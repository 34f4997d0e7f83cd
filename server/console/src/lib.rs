//! The pages: what a person sees of the identities of this server, and does about them, in a browser.
//!
//! Never decides anything and never reads the store: it asks the governance service, as the command line does, in the name
//! of the person who is signed in. Time and randomness come from outside.

mod actions;
mod arrivals;
mod ask;
mod flows;
mod forms;
mod http;
mod limits;
mod live;
pub mod pages;
mod places;
mod proving;
mod routes;
pub mod sessions;
mod whose;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;

use avouch_domain::{LogPosition, Now};
use avouch_proto::governance_v1::governance_client::GovernanceClient;
use tokio::sync::{Semaphore, watch};
use tonic::body::Body;
use tower::util::BoxCloneSyncService;

pub use crate::arrivals::{Arrivals, Whose};
pub use crate::http::serve;
pub use crate::limits::FRESH;
use crate::limits::{STREAMS_MAX, STREAMS_PER_SESSION};
use crate::places::Places;
use crate::sessions::{Sessions, Visitor};

/// The API of this server, for calls without a wire.
pub type Api = BoxCloneSyncService<::http::Request<Body>, ::http::Response<Body>, Infallible>;

/// The governance service in the name of one person.
pub type Governance = GovernanceClient<Api>;

/// What the pages are made of. Cheap to clone.
#[derive(Clone)]
pub struct Console {
    trust_domain: Arc<str>,
    sessions: Arc<Sessions>,
    /// `None`: links sign in.
    arrivals: Option<Arc<Arrivals>>,
    /// The API in the name of a visitor.
    api: Arc<dyn Fn(Visitor) -> Api + Send + Sync>,
    /// Tells that something was written.
    changes: watch::Receiver<LogPosition>,
    clock: fn() -> Now,
    /// Streams of news, by the form token of their session.
    streams: Places<String>,
    /// Whose turn it is to have the log read.
    reading: Arc<Semaphore>,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

impl Console {
    /// Pages of a server. `api` gives its API in the name of a visitor; whether the visitor may do a thing is decided there.
    pub fn new(
        trust_domain: &str,
        sessions: Arc<Sessions>,
        api: impl Fn(Visitor) -> Api + Send + Sync + 'static,
        changes: watch::Receiver<LogPosition>,
        clock: fn() -> Now,
    ) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            sessions,
            arrivals: None,
            api: Arc::new(api),
            changes,
            clock,
            streams: Places::new(STREAMS_PER_SESSION, STREAMS_MAX),
            reading: Arc::new(Semaphore::new(1)),
        }
    }

    /// The same with sign-in at a provider.
    #[must_use]
    pub fn with_arrivals(self, arrivals: Arrivals) -> Self {
        Self { arrivals: Some(Arc::new(arrivals)), ..self }
    }

    /// What people know the provider by; `None`: links sign in.
    fn provider(&self) -> Option<&str> {
        self.arrivals.as_ref().map(|arrivals| arrivals.host())
    }

    fn governance(&self, visitor: &Visitor) -> Governance {
        // Replies never leave this process: the limits of a wire are not theirs.
        GovernanceClient::new((self.api)(visitor.clone())).max_decoding_message_size(usize::MAX)
    }
}
