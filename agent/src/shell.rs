//! The middle of the agent: one task owns the cache and sync machines and performs what they ask for.
//!
//! Holds no rule: what is due, expired, matched or retried is decided in `avouch_engine`. Never waits inside the
//! task for anything outside it; calls and signatures run in tasks of their own and come back as events.

mod feeds;
mod lent;
mod signing;
mod task;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use avouch_domain::{Bundle, KeyType, Now, SelectorSet, SpiffeId, Timestamp, TrustDomain};
use avouch_engine::cache::RequestId;
use avouch_engine::sync::AgentRefusal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::feeds::{Feeds, ShellFeed};
use self::lent::Lent;
use crate::heard::Heard;
use crate::limits::COMMANDS_WAITING;
use crate::metrics::Metrics;
use crate::sealed::{Kept, Vault};
use crate::supply::{
    AgentFacts, Feed, JwtGrant, JwtQuestion, JwtRefusal, Nearest, Supply, Want, WorkloadUpdate,
};
use crate::upstream::Upstream;

/// The agent's own SVID, as far as others may know it.
#[derive(Clone, Debug)]
pub struct OwnSvid {
    /// DER, leaf first.
    pub chain: Vec<Arc<[u8]>>,
    pub not_after: Timestamp,
}

/// What the shell is told at birth.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub workload_key_type: KeyType,
    pub x509_max: usize,
    pub jwt_max: usize,
    pub availability_target: Option<Duration>,
    pub sync_interval: Duration,
    pub sync_entries: bool,
    /// Seed of all jitter.
    pub seed: u64,
}

/// What the shell works with.
pub struct Parts {
    pub trust_domain: TrustDomain,
    pub settings: Settings,
    pub upstream: Arc<dyn Upstream>,
    /// Written by `join`.
    pub own: watch::Receiver<Option<OwnSvid>>,
    /// Each own bundle the server sends, to be kept.
    pub own_bundle: watch::Sender<Option<Arc<Bundle>>>,
    /// The server's refusals of this agent, for `join`.
    pub refusals: mpsc::Sender<AgentRefusal>,
    /// Keeps what a later life needs.
    pub vault: Arc<Vault>,
    pub metrics: Metrics,
    pub clock: fn() -> Now,
    pub version: String,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// The answer to a question for JWT-SVIDs.
type Granted = Result<Arc<[JwtGrant]>, JwtRefusal>;

/// What callers ask of the task.
enum Command {
    /// The agent has a new SVID; and the own bundle, if it came with it.
    Identity {
        bundle: Option<Box<Bundle>>,
    },
    Restore {
        kept: Box<Kept>,
        least: Timestamp,
        done: oneshot::Sender<()>,
    },
    Subscribe {
        key: feeds::Key,
        reply: oneshot::Sender<ShellFeed>,
    },
    FetchJwt {
        request: RequestId,
        question: JwtQuestion,
        reply: oneshot::Sender<Granted>,
    },
    Nearest {
        selectors: SelectorSet,
        reply: oneshot::Sender<Option<Nearest>>,
    },
    Runnable {
        uid: u32,
        reply: oneshot::Sender<BTreeSet<SpiffeId>>,
    },
    Names {
        selectors: SelectorSet,
        reply: oneshot::Sender<BTreeSet<SpiffeId>>,
    },
    Facts {
        reply: oneshot::Sender<AgentFacts>,
    },
}

/// Handle to the one task that owns the machines. Cheap to clone.
#[derive(Clone)]
pub struct Shell {
    trust_domain: TrustDomain,
    commands: mpsc::Sender<Command>,
    /// Unbounded because a drop can't wait; one message at most for each command that went through the queue.
    gone: mpsc::UnboundedSender<RequestId>,
    requests: Arc<AtomicU64>,
    ready: watch::Receiver<bool>,
    signs: Arc<Signs>,
    feeds: Arc<Feeds>,
    lent: Arc<Lent>,
    heard: Heard,
    clock: fn() -> Now,
}

/// What callers see without asking the task.
#[derive(Debug, Default)]
struct Signs {
    pushed: AtomicBool,
    synced: AtomicBool,
}

impl std::fmt::Debug for Shell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shell").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

impl Shell {
    /// Starts the task; it ends with `stop`. Nothing is asked of the server before [`Shell::identity`].
    #[must_use]
    pub fn start(parts: Parts, stop: CancellationToken) -> (Self, tokio::task::JoinHandle<()>) {
        let (commands, queue) = mpsc::channel(COMMANDS_WAITING);
        let (gone, goners) = mpsc::unbounded_channel();
        let (ready_tx, ready) = watch::channel(false);
        let signs = Arc::new(Signs::default());
        let (feeds, sweeps) = Feeds::new();
        let (trust_domain, requests, clock) = (parts.trust_domain.clone(), Arc::default(), parts.clock);
        let queues = task::Queues { commands: queue, goners, sweeps };
        let boards = task::Boards {
            feeds: feeds.clone(),
            lent: Arc::default(),
            signs: signs.clone(),
            heard: Heard::default(),
        };
        let (lent, heard) = (boards.lent.clone(), boards.heard.clone());
        let task = task::Task::new(parts, queues, boards, ready_tx);
        let shell = Self { trust_domain, commands, gone, requests, ready, signs, feeds, lent, heard, clock };
        (shell, tokio::spawn(task.run(stop)))
    }

    /// When the server was last heard on the stream.
    #[must_use]
    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    /// The agent has an SVID (again): follow the server with it.
    pub async fn identity(&self, bundle: Option<Bundle>) {
        let _ = self.commands.send(Command::Identity { bundle: bundle.map(Box::new) }).await;
    }

    /// Goes on from what an earlier life left. `least`: what time it is at least. Told before [`Shell::identity`];
    /// callers are served when it returns.
    pub async fn restore(&self, kept: Kept, least: Timestamp) {
        let kept = Box::new(kept);
        let _ = self.ask(|done| Command::Restore { kept, least, done }).await;
    }

    /// Asks the task; `None` if it has ended.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

#[tonic::async_trait]
impl Supply for Shell {
    fn trust_domain(&self) -> TrustDomain {
        self.trust_domain.clone()
    }

    fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    fn synced(&self) -> bool {
        self.signs.synced.load(Ordering::Relaxed)
    }

    fn push_live(&self) -> bool {
        self.signs.pushed.load(Ordering::Relaxed)
    }

    async fn subscribe(&self, selectors: SelectorSet, want: Want) -> Box<dyn Feed> {
        let key = (selectors, want);
        if let Some(feed) = self.feeds.join(&key) {
            return Box::new(feed);
        }
        match self.ask(|reply| Command::Subscribe { key, reply }).await {
            Some(feed) => Box::new(feed),
            None => Box::new(Ended),
        }
    }

    async fn fetch_jwt(&self, question: JwtQuestion) -> Granted {
        let stopping = || Err(JwtRefusal::Unavailable("the agent is stopping".to_owned()));
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let command = Command::FetchJwt { request, question, reply };
        if self.commands.send(command).await.is_err() {
            return stopping();
        }
        let mut waiting = Waiting { answer, request, gone: self.gone.clone(), answered: false };
        let answer = (&mut waiting.answer).await;
        waiting.answered = true;
        answer.unwrap_or_else(|_| stopping())
    }

    fn lent_jwt(&self, question: &JwtQuestion) -> Option<Arc<[JwtGrant]>> {
        self.lent.find(question, (self.clock)())
    }

    async fn nearest(&self, selectors: &SelectorSet) -> Option<Nearest> {
        let selectors = selectors.clone();
        self.ask(|reply| Command::Nearest { selectors, reply }).await.flatten()
    }

    async fn runnable(&self, uid: u32) -> BTreeSet<SpiffeId> {
        self.ask(|reply| Command::Runnable { uid, reply }).await.unwrap_or_default()
    }

    async fn names(&self, selectors: &SelectorSet) -> BTreeSet<SpiffeId> {
        let selectors = selectors.clone();
        self.ask(|reply| Command::Names { selectors, reply }).await.unwrap_or_default()
    }

    async fn facts(&self) -> AgentFacts {
        self.ask(|reply| Command::Facts { reply }).await.unwrap_or_default()
    }
}

/// The feed of a shell that has stopped.
struct Ended;

#[tonic::async_trait]
impl Feed for Ended {
    async fn next(&mut self) -> Option<Arc<WorkloadUpdate>> {
        None
    }
}

/// A caller that waits for its tokens. Dropped before they came, it tells the task.
struct Waiting {
    answer: oneshot::Receiver<Granted>,
    request: RequestId,
    gone: mpsc::UnboundedSender<RequestId>,
    answered: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answered {
            // Closed first: if this word overtakes the question, the task still sees that nobody listens.
            self.answer.close();
            let _ = self.gone.send(self.request);
        }
    }
}
