//! What the edges of the agent ask of its middle: the seam between the API and the shell.
//!
//! Only values of the domain cross it. The shell implements it; tests put a made-up one behind a real socket.

use std::collections::BTreeSet;
use std::sync::Arc;

use avouch_domain::{SelectorSet, SpiffeId, Timestamp, TrustDomain};
use tokio::sync::watch;

pub use avouch_engine::cache::{Identity, JwtGrant, JwtRefusal, Nearest, Want, WorkloadUpdate};

/// What the agent says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentFacts {
    /// DER, leaf first; empty before attestation.
    pub svid_chain: Vec<Arc<[u8]>>,
    /// End of the agent's own SVID.
    pub svid_not_after: Option<Timestamp>,
    /// Last time the server's state was known to be complete.
    pub last_sync: Option<Timestamp>,
    pub cached_x509: usize,
    pub cached_jwt: usize,
    /// Server time minus ours, in milliseconds.
    pub clock_skew_ms: i64,
    /// First full sync done.
    pub synced: bool,
    /// The server answers.
    pub reached: bool,
    /// Entries held.
    pub entries: usize,
    /// The time by which the agent judges what has ended.
    pub now: Timestamp,
}

/// What somebody asks to have a JWT-SVID of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JwtQuestion {
    pub selectors: SelectorSet,
    pub audience: Vec<String>,
    /// Only of this identity.
    pub id: Option<SpiffeId>,
}

/// The middle of the agent, as its edges see it.
#[tonic::async_trait]
pub trait Supply: Send + Sync + 'static {
    /// The agent's own trust domain.
    fn trust_domain(&self) -> TrustDomain;

    /// Turns true with the first full sync, or with the state of an earlier life, and stays so.
    fn ready(&self) -> watch::Receiver<bool>;

    /// False as long as all that is known is what an earlier life left: who has no identity by it may have one by now.
    fn synced(&self) -> bool;

    /// True while the server pushes changes to this agent.
    fn push_live(&self) -> bool;

    /// Follows what `selectors` may have. Waits for the first sync.
    async fn subscribe(&self, selectors: SelectorSet, want: Want) -> Box<dyn Feed>;

    /// JWT-SVIDs for each matching entry, or only for those of the asked ID, by ascending entry ID.
    async fn fetch_jwt(&self, question: JwtQuestion) -> Result<Arc<[JwtGrant]>, JwtRefusal>;

    /// The same, if the answer is there already and still holds.
    fn lent_jwt(&self, question: &JwtQuestion) -> Option<Arc<[JwtGrant]>>;

    /// The entry that misses the fewest selectors: the explanation of a refusal.
    async fn nearest(&self, selectors: &SelectorSet) -> Option<Nearest>;

    /// Identities that this local user may run here with `avouch run`, ascending.
    async fn runnable(&self, uid: u32) -> BTreeSet<SpiffeId>;

    /// The SPIFFE IDs that `selectors` are entitled to, ascending.
    async fn names(&self, selectors: &SelectorSet) -> BTreeSet<SpiffeId>;

    /// The agent's own state.
    async fn facts(&self) -> AgentFacts;
}

/// One subscription; dropping it ends it.
#[tonic::async_trait]
pub trait Feed: Send {
    /// The present state at first (also "nothing matches"), then each new one, the newest if several came
    /// meanwhile. `None` when the agent stops.
    async fn next(&mut self) -> Option<Arc<WorkloadUpdate>>;
}
