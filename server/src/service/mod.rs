//! Everything an API method does, in the words of the domain: one verb = one function = one transaction.
//!
//! Never: no wire types, no clock, no SQL. Reads come from the registry in memory; writes are plans handed to
//! the writer.

mod accepting;
mod agents;
mod attest;
#[cfg(test)]
mod attest_tests;
mod authorities;
mod bundles;
mod demand;
mod emergencies;
#[cfg(test)]
mod end_tests;
mod entries;
mod grants;
mod identities;
mod lifetimes;
mod list;
mod node_records;
mod people;
mod pruner;
mod requests;
mod rules;
mod stopping;
mod svids;
mod tasks;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use avouch_attestors::node::NodeVerifier;
use avouch_credential::x509::facts::CertFacts;
use avouch_domain::{AuthorityKind, Holder, Image, LogPosition, Now, SpiffeId, Timestamp, TrustDomain};
use avouch_engine::Registry;
use avouch_engine::overview::{Overview, overview};
use avouch_store::Stretch;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ca::{Ca, OrderQueue, Rotor, RotorParts, order_queue};
use crate::clock::Clock;
use crate::datastore::Datastore;
use crate::feed::Feed;
use crate::keys::KeyManager;
use crate::ledger;
use crate::limits::{OVERVIEW_AGE_MAX, RULES_CHECKS, RULES_TURNS};
use crate::rules as shown;
use crate::writer::Writer;

pub use crate::ca::{CaFacts, IssuedJwt, IssuedX509, Order, OrderError};
pub use crate::feed::{AgentFeed, AgentUpdate, BundleChange, NodeChange, UpdateKind};
pub use crate::rules::{InForce, Receiver as RulesReceiver, Shown};
pub use crate::settings::Settings;
pub use crate::writer::WriteError;
pub use agents::{JoinTokenError, NewJoinToken, RenewError, ShownJoinToken};
pub use attest::{AttestError, AttestRequest, AttestStep, Attestation, Attested};
pub use authorities::AuthorityPair;
pub use avouch_engine::entitle::{KnownEntry, View};
pub use avouch_engine::found::Found;
pub use avouch_engine::plan::accepting::{AcceptError, Accepting};
pub use avouch_engine::plan::bundles::{BundleError, BundlePatch, DeleteMode};
pub use avouch_engine::plan::consent::ConsentError;
pub use avouch_engine::plan::emergencies::{EmergencyError, NewEmergency};
pub use avouch_engine::plan::entries::{EntryPatch, EntryWriteError, NewEntry};
pub use avouch_engine::plan::grants::{EndError, GiveError, NewGrant};
pub use avouch_engine::plan::identities::{IdentityError, IdentityPatch, NewIdentity, Place};
pub use avouch_engine::plan::leaving::{LeaveError, Word};
pub use avouch_engine::plan::nodes::{AgentRefusal, NodeError};
pub use avouch_engine::plan::operator::{ActivateError, RevokeError, TaintError};
pub use avouch_engine::plan::people::PeopleError;
pub use avouch_engine::plan::requests::{AnswerError, AskError, Asked, Used};
pub use avouch_engine::plan::rules::RulesError;
pub use avouch_engine::registry::Card;
pub use emergencies::{Widening, WideningError};
pub use grants::{ActionError, Giving, GivingError};
pub use identities::{Adoption, Candidate, IdentityFilter, ListError, NameError, Reach, Step, step};
pub use list::{BadToken, EntryFilter, Match, NodeFilter, Page, PageRequest};
pub use node_records::ShipError;
pub use people::Who;
pub use requests::{Asking, AskingError};
pub use rules::Publication;
pub use stopping::{Bounds, Stop, StopNode};
pub use svids::{JwtError, MintX509Error, X509ItemError, X509Param};
pub use tasks::{ShowError, TokenAsk};

/// What the services are built of.
pub struct Parts {
    pub store: Datastore,
    /// As the store gave it when it was opened.
    pub image: Image,
    pub trust_domain: TrustDomain,
    /// Stable name of this server, unlike that of any other on the same store.
    pub server_name: Arc<str>,
    pub keys: Arc<dyn KeyManager>,
    pub settings: Settings,
    /// By attestation type. `join_token` needs none.
    pub verifiers: Vec<(String, Arc<dyn NodeVerifier>)>,
    pub clock: Clock,
    pub stop: CancellationToken,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// Why the services could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "the store belongs to trust domain {found}, the configuration says {expected}: set trust_domain to {found} or \
         choose another store"
    )]
    TrustDomain { found: TrustDomain, expected: TrustDomain },
    #[error("no authority could be made ready: {0}")]
    Ca(String),
}

struct Inner {
    trust_domain: TrustDomain,
    settings: Arc<Settings>,
    store: Datastore,
    writer: Writer,
    feed: Feed,
    ca: Ca,
    /// Who holds the keys: this server.
    holder: Holder,
    orders: OrderQueue,
    rules: shown::Receiver,
    /// Turns for checking folders of rules.
    rules_check: Semaphore,
    rules_turns: Semaphore,
    receiver: node_records::Receiver,
    verifiers: BTreeMap<String, Arc<dyn NodeVerifier>>,
    clock: Clock,
    /// What was counted last: of which registry, when, and the log's last record then.
    counted: tokio::sync::Mutex<Option<(LogPosition, Now, Overview, u64)>>,
    /// Those that still need the store after `stop`.
    tasks: TaskTracker,
}

/// Handle to all verbs. Cheap to clone.
#[derive(Clone)]
pub struct Services(Arc<Inner>);

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("trust_domain", &self.0.trust_domain).finish_non_exhaustive()
    }
}

impl Services {
    /// Starts the tasks behind the verbs. Returns once something can be signed.
    ///
    /// # Errors
    /// [`StartError`]; the tasks are told to stop then.
    pub async fn start(parts: Parts) -> Result<Self, StartError> {
        let stop = parts.stop.clone();
        let began = (parts.clock)().wall;
        let started = Self::start_tasks(parts).await;
        match &started {
            Ok(services) => {
                if let Some(from) = services.settings().owners_demanded_from {
                    tokio::spawn(demand::follow(services.clone(), from, began, stop));
                }
            }
            Err(_) => stop.cancel(),
        }
        started
    }

    async fn start_tasks(parts: Parts) -> Result<Self, StartError> {
        let Parts { store, image, trust_domain, server_name, keys, settings, verifiers, clock, stop } = parts;
        let holder = Holder::Server(server_name);
        let settings = Arc::new(settings);
        warn_of_cut_lifetimes(&settings);
        let metrics = store.metrics().clone();
        let registry = Registry::from_image(image).demanding_owners(settings.owners_demanded_from);
        let (writer, _) = Writer::start(store.clone(), registry, holder.clone(), clock, stop.clone());
        check_trust_domain(&writer.registry(), &trust_domain)?;
        let (feed, _) = Feed::start(&writer, store.clone(), trust_domain.clone(), clock, stop.clone());
        let ca = Ca::new(trust_domain.clone(), settings.clone());
        let rotor = Rotor::start(RotorParts {
            ca: ca.clone(),
            writer: writer.clone(),
            feed: feed.clone(),
            keys: keys.clone(),
            metrics: metrics.clone(),
            holder: holder.clone(),
            clock,
        })
        .await
        .map_err(StartError::Ca)?;
        let (orders, given) = order_queue();
        tokio::spawn(rotor.run(given, stop.clone()));
        let rules = shown::Parts {
            store: store.clone(),
            writer: writer.clone(),
            keys: keys.clone(),
            trust_domain: trust_domain.clone(),
            clock,
        };
        let rules = shown::start(rules, stop.clone());
        let heads = ledger::Parts {
            store: store.clone(),
            keys: keys.clone(),
            trust_domain: trust_domain.clone(),
            positions: writer.subscribe(),
            clock,
        };
        let tasks = TaskTracker::new();
        tasks.spawn(ledger::run(heads, stop.clone()));
        let (receiver, receiving) = node_records::Receiver::new(store.clone(), keys, stop.clone());
        tasks.spawn(receiving);
        tasks.close();
        let verifiers = verifiers.into_iter().collect();
        let services = Self(Arc::new(Inner {
            trust_domain,
            settings,
            store,
            writer,
            feed,
            ca,
            holder,
            orders,
            rules,
            rules_check: Semaphore::new(RULES_CHECKS),
            rules_turns: Semaphore::new(RULES_TURNS),
            receiver,
            verifiers,
            clock,
            counted: tokio::sync::Mutex::default(),
            tasks,
        }));
        tokio::spawn(pruner::run(pruner::Parts { services: services.clone(), metrics }, stop));
        Ok(services)
    }

    /// Waits after `stop` until nothing of this needs the store any more.
    pub async fn finished(&self) {
        self.0.tasks.wait().await;
    }

    /// The registry as committed last.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.0.writer.registry()
    }

    /// Tells each new position.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<LogPosition> {
        self.0.writer.subscribe()
    }

    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    #[must_use]
    pub fn ca(&self) -> &Ca {
        &self.0.ca
    }

    /// The log after a record, about `limit` lines, and the heads over them.
    ///
    /// # Errors
    /// [`WriteError::Store`] if the store can't be read.
    pub async fn records(&self, after: u64, limit: usize) -> Result<Stretch, WriteError> {
        self.0.store.records(after, limit).await.map_err(|e| WriteError::Store(e.to_string()))
    }

    /// What there is and what it lacks, and the number of the log's last record.
    ///
    /// # Errors
    /// [`WriteError::Store`] if the store can't be read.
    pub async fn overview(&self, now: Now) -> Result<(Overview, u64), WriteError> {
        // One counts at a time, and whoever waited takes what was counted of the same registry.
        let mut counted = self.0.counted.lock().await;
        let registry = self.registry();
        let position = registry.position();
        if let Some((at, when, counts, last)) = &*counted
            && *at == position
            && now.since(*when) < OVERVIEW_AGE_MAX
        {
            return Ok((*counts, *last));
        }
        let last = self.0.store.last_record().await.map_err(|e| WriteError::Store(e.to_string()))?;
        let used = self.used(now.wall).await?;
        let counts = tokio::task::spawn_blocking(move || overview(&registry, &used, now.wall)).await;
        let counts = counts.map_err(|_| WriteError::Stopped)?;
        *counted = Some((position, now, counts, last));
        Ok((counts, last))
    }

    /// Opens the stream of changes for one agent. `resume` = the position it stands at, `known` = what it holds.
    #[must_use]
    pub fn follow(
        &self,
        _wall: Timestamp,
        agent: &SpiffeId,
        resume: Option<LogPosition>,
        known: Vec<KnownEntry>,
    ) -> AgentFeed {
        self.0.feed.follow(agent, resume, known)
    }

    /// An agent wants to hear that this server is there.
    pub fn renews(&self, agent: &SpiffeId) {
        self.0.feed.renews(agent);
    }

    /// Streams that agents hold open.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.0.feed.followers()
    }

    /// How much there is of everything.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let registry = self.registry();
        Counts {
            agents: registry.node_count(),
            entries: registry.entry_count(),
            bundles: registry.bundle_count(),
        }
    }
}

/// See [`Services::counts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub agents: usize,
    pub entries: usize,
    /// The own one included.
    pub bundles: usize,
}

/// A store with entries, nodes or authorities of another trust domain is another server's: going on would make its
/// roots foreign ones and put new keys in the place of its own.
fn check_trust_domain(registry: &Registry, expected: &TrustDomain) -> Result<(), StartError> {
    let entry = registry.entries().next().map(|e| e.spiffe_id.trust_domain().clone());
    let node = registry.nodes().next().map(|n| n.id.trust_domain().clone());
    let authorities = registry.authorities().filter(|a| a.kind == AuthorityKind::X509);
    let authority = authorities
        .filter_map(|a| CertFacts::parse(&a.public).ok())
        .find_map(|facts| facts.uri_sans.first().and_then(|uri| TrustDomain::from_name_or_id(uri).ok()));
    match [entry, node, authority].into_iter().flatten().find(|found| found != expected) {
        Some(found) => Err(StartError::TrustDomain { found, expected: expected.clone() }),
        None => Ok(()),
    }
}

fn warn_of_cut_lifetimes(settings: &Settings) {
    for cut in lifetimes::of_settings(settings) {
        tracing::warn!(key = cut.key, "{}", cut.text());
    }
}
