//! The shell of authority rotation: performs what `engine::rotation` asks for, and renews the server's SVID.
//!
//! Never decides when: that is the machine's. Never lets a signer work before its activation is committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use avouch_credential::jwt::issue::JwtIssuer;
use avouch_credential::key::PrivateKey;
use avouch_credential::random;
use avouch_credential::signer::Signer;
use avouch_credential::x509::facts::{CertFacts, authority_id};
use avouch_credential::x509::issue::{CaTemplate, Issuer, LeafTemplate, self_signed_ca};
use avouch_credential::x509::name::Name;
use avouch_domain::{
    Authority, AuthorityId, AuthorityKind, Bundle, Holder, Plan, Slot, SlotState, SpiffeId, Timestamp,
    X509Svid,
};
use avouch_engine::machine::Machine;
use avouch_engine::plan::authorities::{Prepared, activate, forget, publish};
use avouch_engine::plan::bundles;
use avouch_engine::rotation::timing::{KEEP_AFTER_END, RETRY_AFTER, half_life};
use avouch_engine::rotation::{Effect, Input, Rotation, Settings as RotationSettings, can_go_on};
use tokio_util::sync::CancellationToken;

use super::{Ca, Part, roots};
use crate::clock::{Clock, log_time, timed};
use crate::feed::Feed;
use crate::keys::{KeyManager, key_id};
use crate::limits::{ACKNOWLEDGEMENT_PAUSE, PROPAGATION_BOUND, SERVER_SVID_PAUSE, WALL_SLEEP_MAX};
use crate::metrics::Metrics;
use crate::writer::Writer;

/// What a rotor works with.
pub(crate) struct RotorParts {
    pub ca: Ca,
    pub writer: Writer,
    pub feed: Feed,
    pub keys: Arc<dyn KeyManager>,
    pub metrics: Metrics,
    /// Who holds the keys: this server.
    pub holder: Holder,
    pub clock: Clock,
}

mod orders;

pub use orders::{Order, OrderError};
pub(crate) use orders::{OrderQueue, Orders, order_queue};

/// Who acts when no operator does.
const SELF: &str = "server";

/// See the module.
pub(crate) struct Rotor {
    parts: RotorParts,
    machines: BTreeMap<AuthorityKind, Rotation>,
    made: BTreeMap<(AuthorityKind, Slot), Made>,
    /// When the server's SVID is due.
    renew_at: Timestamp,
    /// Who wanted the step that is under way.
    actors: BTreeMap<AuthorityKind, String>,
    /// Operators who wait for an authority to sign.
    waiting: Vec<orders::Waiting>,
}

/// What signs once its slot is active.
#[derive(Clone)]
enum Ready {
    X509(Arc<Issuer>),
    Jwt(Arc<JwtIssuer>),
}

/// An authority whose key is at hand.
#[derive(Clone)]
struct Made {
    id: AuthorityId,
    public: Arc<[u8]>,
    issued_at: Timestamp,
    not_after: Timestamp,
    ready: Ready,
    /// How long making it took; zero for one of an earlier life.
    making: Duration,
}

impl Rotor {
    /// Reads the journal, makes what is missing, and returns once certificates (and tokens) can be signed.
    ///
    /// # Errors
    /// The reason in words.
    pub(crate) async fn start(parts: RotorParts) -> Result<Self, String> {
        let mut rotor = Self {
            parts,
            machines: BTreeMap::new(),
            made: BTreeMap::new(),
            renew_at: Timestamp(0),
            actors: BTreeMap::new(),
            waiting: Vec::new(),
        };
        let disabled = rotor.parts.ca.0.settings.jwt_disabled;
        let kinds = [AuthorityKind::X509, AuthorityKind::Jwt];
        for kind in kinds.into_iter().filter(|k| !disabled || *k == AuthorityKind::X509) {
            let journal = rotor.load(kind).await?;
            let settings = RotationSettings { kind, propagation_bound: PROPAGATION_BOUND };
            let machine = Rotation::new(settings, (rotor.parts.clock)(), &journal);
            rotor.machines.insert(kind, machine);
        }
        rotor.turn().await;
        if let Some(trouble) = rotor.parts.ca.trouble() {
            return Err(trouble);
        }
        Ok(rotor)
    }

    /// Works until `stop`, and does what operators want meanwhile.
    pub(crate) async fn run(mut self, mut orders: Orders, stop: CancellationToken) {
        let follow = roots::follow(self.parts.ca.roots(), self.parts.writer.clone(), stop.clone());
        let follow = tokio::spawn(follow);
        loop {
            let awaited = self.machines.values().any(|m| m.awaited().is_some());
            let pause = self.pause();
            let order = tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => None,
                () = self.acknowledged(), if awaited => None,
                Some(order) = orders.recv() => Some(order),
            };
            if let Some(order) = order {
                self.obey(order).await;
            }
            self.turn().await;
            self.settle();
        }
        if let Err(e) = follow.await {
            tracing::error!(error = %e, "Task that follows the bundles failed");
        }
    }

    async fn acknowledged(&self) {
        self.parts.feed.acknowledgement().await;
        // Many agents answer at once: look at them together.
        tokio::time::sleep(ACKNOWLEDGEMENT_PAUSE).await;
    }

    fn pause(&self) -> Duration {
        let next = self.machines.values().filter_map(Machine::next_wakeup).chain([self.renew_at]).min();
        let now = (self.parts.clock)().wall;
        next.map_or(WALL_SLEEP_MAX, |at| at.since(now)).min(WALL_SLEEP_MAX)
    }

    /// One round: what the agents know, the time, and everything the machines ask for then.
    async fn turn(&mut self) {
        let kinds: Vec<_> = self.machines.keys().copied().collect();
        for kind in kinds {
            for input in self.news(kind) {
                self.tell(kind, input).await;
            }
            self.tell(kind, Input::Tick).await;
        }
        if (self.parts.clock)().wall >= self.renew_at {
            self.renew_server_svid().await;
        }
    }

    /// What happened outside: acknowledgements and taints.
    fn news(&self, kind: AuthorityKind) -> Vec<Input> {
        let mut news = Vec::new();
        let wall = (self.parts.clock)().wall;
        if let Some(revision) = self.machines.get(&kind).and_then(Rotation::awaited)
            && self.parts.feed.known_everywhere(wall, revision)
        {
            news.push(Input::Acknowledged(revision));
        }
        let registry = self.parts.writer.registry();
        let tainted = registry
            .authorities()
            .filter(|a| a.tainted && a.kind == kind && a.holder == self.parts.holder)
            .map(|a| Input::Taint(a.id.clone()));
        news.extend(tainted);
        news
    }

    async fn tell(&mut self, kind: AuthorityKind, input: Input) {
        let mut input = Some(input);
        while let Some(next) = input.take() {
            let now = (self.parts.clock)();
            let Some(machine) = self.machines.get_mut(&kind) else { return };
            machine.handle(now, next);
            let Some(effect) = machine.poll() else { return };
            input = Some(match self.perform(kind, effect).await {
                Ok(answer) => {
                    self.parts.ca.note(Part::Authority(kind), Ok(()));
                    answer
                }
                Err(e) => {
                    tracing::error!(error = %e, ?kind, subsystem_name = "ca_manager", "Rotation step failed");
                    self.parts.ca.note(Part::Authority(kind), Err(e));
                    Input::Failed
                }
            });
        }
    }

    async fn perform(&mut self, kind: AuthorityKind, effect: Effect) -> Result<Input, String> {
        match effect {
            Effect::MakeKey { slot } => {
                let (made, making) = timed(self.parts.clock, self.make(kind, slot)).await;
                let made = made.inspect_err(|_| self.parts.metrics.prepared(kind, false, making))?;
                let made = Made { making, ..made };
                let input = Input::KeyMade {
                    slot,
                    id: made.id.clone(),
                    issued_at: made.issued_at,
                    not_after: made.not_after,
                };
                self.made.insert((kind, slot), made);
                Ok(input)
            }
            Effect::Publish { slot, .. } => {
                let (published, elapsed) = timed(self.parts.clock, self.publish(kind, slot)).await;
                let making = self.made.get(&(kind, slot)).map_or(Duration::ZERO, |made| made.making);
                self.parts.metrics.prepared(kind, published.is_ok(), making + elapsed);
                published
            }
            Effect::Activate { slot, .. } => self.activate(kind, slot).await,
            Effect::Retire { slot, .. } => {
                self.made.remove(&(kind, slot));
                let keys = self.parts.keys.clone();
                blocking(move || keys.remove(key_id(kind, slot)).map_err(|e| e.to_string())).await?;
                Ok(Input::Retired { slot })
            }
            Effect::Prune => {
                let (removed, elapsed) = timed(self.parts.clock, self.prune()).await;
                self.parts.metrics.bundle_pruned(removed.as_ref().map_err(|_| ()).copied(), elapsed);
                removed.map(|_| Input::Pruned)
            }
        }
    }

    async fn make(&self, kind: AuthorityKind, slot: Slot) -> Result<Made, String> {
        let settings = &self.parts.ca.0.settings;
        let key_type = match kind {
            AuthorityKind::X509 => settings.ca_key_type,
            AuthorityKind::Jwt => settings.jwt_key_type,
        };
        let keys = self.parts.keys.clone();
        let signer =
            blocking(move || keys.generate(key_id(kind, slot), key_type).map_err(|e| e.to_string())).await?;
        let now = (self.parts.clock)().wall;
        match kind {
            AuthorityKind::X509 => {
                let template = CaTemplate {
                    trust_domain: &self.parts.ca.0.trust_domain,
                    subject: &settings.ca_subject,
                    serial: random::serial().map_err(|e| e.to_string())?,
                    now,
                    ttl: settings.ca_ttl,
                };
                let root = self_signed_ca(&template, &*signer).map_err(|e| e.to_string())?;
                x509_made(root.der.into(), signer, now, root.not_after)
            }
            AuthorityKind::Jwt => {
                let kid = random::kid().map_err(|e| e.to_string())?;
                let not_after = Timestamp::from_secs((now + settings.ca_ttl).secs());
                jwt_made(kid.into(), signer, now, not_after)
            }
        }
    }

    async fn publish(&self, kind: AuthorityKind, slot: Slot) -> Result<Input, String> {
        let made = self.made.get(&(kind, slot)).ok_or("the key of the slot is gone")?.clone();
        let (clock, domain) = (self.parts.clock, self.parts.ca.0.trust_domain.clone());
        let actor = self.actor(kind);
        let prepared = Prepared {
            kind,
            holder: self.parts.holder.clone(),
            slot,
            id: made.id.clone(),
            public: made.public.clone(),
            issued_at: made.issued_at,
            not_after: made.not_after,
        };
        let revision = self
            .parts
            .writer
            .write(move |registry| publish(registry, clock().wall, &actor, &domain, &prepared))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        if let Some(bundle) = self.parts.writer.registry().bundle(&self.parts.ca.0.trust_domain) {
            self.parts.ca.0.roots.set(bundle);
        }
        self.log(kind, slot, &made, "prepared");
        Ok(Input::Published { slot, revision })
    }

    async fn activate(&mut self, kind: AuthorityKind, slot: Slot) -> Result<Input, String> {
        let made = self.made.get(&(kind, slot)).ok_or("the key of the slot is gone")?.clone();
        let (clock, holder, id) = (self.parts.clock, self.parts.holder.clone(), made.id.clone());
        let actor = self.actor(kind);
        self.parts
            .writer
            .write(move |registry| activate(registry, clock().wall, &actor, (kind, &holder), slot, &id))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        self.install(&made.ready);
        self.parts.metrics.activated(kind);
        self.log(kind, slot, &made, "activated");
        if kind == AuthorityKind::X509 {
            // The server shows what its newest authority signs.
            self.renew_at = Timestamp(0);
        }
        Ok(Input::Activated { slot })
    }

    fn actor(&self, kind: AuthorityKind) -> String {
        self.actors.get(&kind).map_or(SELF, String::as_str).to_owned()
    }

    fn install(&self, ready: &Ready) {
        match ready {
            Ready::X509(issuer) => self.parts.ca.0.x509.store(Some(issuer.clone())),
            Ready::Jwt(issuer) => self.parts.ca.0.jwt.store(Some(issuer.clone())),
        }
    }

    fn log(&self, kind: AuthorityKind, slot: Slot, made: &Made, done: &str) {
        let what = match kind {
            AuthorityKind::X509 => "X509 CA",
            AuthorityKind::Jwt => "JWT key",
        };
        tracing::info!(
            subsystem_name = "ca_manager",
            slot = ?slot,
            local_authority_id = %made.id,
            issued_at = log_time(made.issued_at),
            expiration = log_time(made.not_after),
            "{what} {done}"
        );
    }

    /// Takes ended authorities out of the own bundle; true if there were some.
    async fn prune(&self) -> Result<bool, String> {
        let (clock, domain) = (self.parts.clock, self.parts.ca.0.trust_domain.clone());
        self.parts
            .writer
            .write(move |registry| {
                let at = clock().wall;
                let Some(bundle) = registry.bundle(&domain) else {
                    return (Plan::default(), Ok(false));
                };
                let (x509, jwt) = ended(bundle, at);
                match bundles::prune(registry, at, &domain, &x509, &jwt) {
                    Ok(plan) => {
                        let removes = !plan.is_empty();
                        (plan, Ok(removes))
                    }
                    Err(e) => (Plan::default(), Err(e.to_string())),
                }
            })
            .await
            .map_err(|e| e.to_string())?
    }

    /// The authorities of the journal that keep their slots; the other slots are freed.
    async fn load(&mut self, kind: AuthorityKind) -> Result<Vec<Authority>, String> {
        let registry = self.parts.writer.registry();
        let wall = (self.parts.clock)().wall;
        let bundle = registry.bundle(&self.parts.ca.0.trust_domain).cloned();
        let mut usable = Vec::new();
        let mut lost = Vec::new();
        for slot in [Slot::A, Slot::B] {
            let Some(row) = registry.authority(kind, &self.parts.holder, slot) else { continue };
            let made = self.at_hand(row);
            if can_go_on(row, bundle.as_deref(), made.is_some(), wall) {
                if let Some(made) = made.filter(|_| row.state != SlotState::Old) {
                    if row.state == SlotState::Active {
                        self.install(&made.ready);
                    }
                    self.made.insert((kind, slot), made);
                }
                usable.push(row.clone());
            } else {
                if row.state == SlotState::Old || row.not_after <= wall {
                    self.destroy(kind, slot).await;
                }
                lost.push(slot);
            }
        }
        if !lost.is_empty() {
            let (clock, holder) = (self.parts.clock, self.parts.holder.clone());
            self.parts
                .writer
                .write(move |registry| forget(registry, clock().wall, kind, &holder, &lost))
                .await
                .map_err(|e| e.to_string())?;
        }
        Ok(usable)
    }

    /// Removes the key of an authority that signs no more: a crash may have come between its last use and this.
    async fn destroy(&self, kind: AuthorityKind, slot: Slot) {
        let keys = self.parts.keys.clone();
        let removed = blocking(move || keys.remove(key_id(kind, slot)).map_err(|e| e.to_string())).await;
        if let Err(e) = removed {
            // It can wait: the next authority of this slot replaces it.
            tracing::warn!(error = %e, ?kind, ?slot, subsystem_name = "ca_manager", "Could not remove an old key");
        }
    }

    fn at_hand(&self, row: &Authority) -> Option<Made> {
        let signer = self.parts.keys.get(key_id(row.kind, row.slot))?;
        let made = match row.kind {
            AuthorityKind::X509 => x509_made(row.public.clone(), signer, row.issued_at, row.not_after),
            AuthorityKind::Jwt if signer.public_key().pkix() != &*row.public => return None,
            AuthorityKind::Jwt => jwt_made(row.id.clone(), signer, row.issued_at, row.not_after),
        };
        made.ok()
    }

    async fn renew_server_svid(&mut self) {
        let now = (self.parts.clock)().wall;
        let (made, elapsed) = timed(self.parts.clock, self.server_svid(now)).await;
        self.parts.metrics.server_svid_rotated(made.is_ok(), elapsed);
        match made {
            Ok(svid) => {
                self.parts.ca.note(Part::ServerSvid, Ok(()));
                // Half of what is left: with its back-dating counted in, a very short life would be due at once.
                self.renew_at = half_life(now, svid.not_after).max(now + SERVER_SVID_PAUSE);
                tracing::debug!(
                    subsystem_name = "svid_rotator",
                    expiration = log_time(svid.not_after),
                    "Server SVID rotated"
                );
            }
            Err(e) => {
                tracing::error!(error = %e, subsystem_name = "svid_rotator", "Could not rotate server SVID");
                let why = format!("could not rotate the server SVID: {e}");
                self.parts.ca.note(Part::ServerSvid, Err(why));
                self.renew_at = now + RETRY_AFTER;
            }
        }
    }

    async fn server_svid(&self, now: Timestamp) -> Result<Arc<X509Svid>, String> {
        let ca = self.parts.ca.clone();
        let svid = blocking(move || {
            let inner = &ca.0;
            let issuer = inner.x509.load_full().ok_or("no X.509 authority is active")?;
            let key = PrivateKey::generate(inner.settings.ca_key_type).map_err(|e| e.to_string())?;
            let id = SpiffeId::server(&inner.trust_domain);
            let leaf = issuer
                .leaf(&LeafTemplate {
                    id: &id,
                    public_key: key.public_key(),
                    dns_names: &[],
                    subject: &Name::svid_default(),
                    serial: random::serial().map_err(|e| e.to_string())?,
                    now,
                    ttl: inner.settings.x509_svid_ttl,
                })
                .map_err(|e| e.to_string())?;
            Ok(X509Svid {
                id,
                chain: Arc::from([Arc::from(leaf.der)]),
                key: Arc::new(key.pkcs8()),
                not_before: leaf.not_before,
                not_after: leaf.not_after,
            })
        })
        .await?;
        self.parts.ca.0.identity.set(&svid).map_err(|e| e.to_string())?;
        let svid = Arc::new(svid);
        self.parts.ca.0.server_svid.store(Some(svid.clone()));
        Ok(svid)
    }
}

fn x509_made(
    root: Arc<[u8]>,
    signer: Arc<dyn Signer>,
    issued_at: Timestamp,
    not_after: Timestamp,
) -> Result<Made, String> {
    let id = authority_id(&root).map_err(|e| e.to_string())?.into();
    let issuer = Issuer::new(&root, signer).map_err(|e| e.to_string())?;
    Ok(Made {
        id,
        public: root,
        issued_at,
        not_after,
        ready: Ready::X509(Arc::new(issuer)),
        making: Duration::ZERO,
    })
}

fn jwt_made(
    kid: AuthorityId,
    signer: Arc<dyn Signer>,
    issued_at: Timestamp,
    not_after: Timestamp,
) -> Result<Made, String> {
    let public = signer.public_key().pkix().into();
    let issuer = JwtIssuer::new(&kid, signer, not_after).map_err(|e| e.to_string())?;
    Ok(Made {
        id: kid,
        public,
        issued_at,
        not_after,
        ready: Ready::Jwt(Arc::new(issuer)),
        making: Duration::ZERO,
    })
}

type Ended = (std::collections::BTreeSet<Arc<[u8]>>, std::collections::BTreeSet<Arc<str>>);

/// Authorities that ended long enough ago. What can't be read, or has no end, stays.
fn ended(bundle: &Bundle, at: Timestamp) -> Ended {
    let over = |end: Timestamp| end + KEEP_AFTER_END <= at;
    let x509 = bundle
        .x509_authorities
        .iter()
        .filter(|r| CertFacts::parse(&r.der).is_ok_and(|facts| over(facts.not_after)))
        .map(|r| r.der.clone())
        .collect();
    let jwt = bundle
        .jwt_authorities
        .iter()
        .filter(|k| k.expires_at.is_some_and(over))
        .map(|k| k.key_id.clone())
        .collect();
    (x509, jwt)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?
}

#[cfg(test)]
mod tests;
