//! Pausing and stopping identities by people or by time, and the drill of it: what the nodes confirm, and when.
//!
//! Never says that a node has stopped something before the node says so, and never waits for one that does not follow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use avouch_domain::limits::{ALONE_LONG, AWAY_MAX, SELF_ACTING_SVID_MAX};
use avouch_domain::{
    AuditEvent, AuditRow, Authority, Cause, CodeDigest, Holder, Identity, Kind, Now, PersonId, Plan,
    Revision, SpiffeId, StopTried, Tick, Timestamp,
};
use avouch_engine::Registry;
use avouch_engine::entitle::agents_of_name;
use avouch_engine::plan::identities::{self, IdentityError, Trial};

use super::{Services, Settings, Step, WriteError};
use crate::limits::STOP_CONFIRM_MAX;

/// What came of a stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    pub identity: Identity,
    pub bounds: Bounds,
}

/// How far it holds that something is stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The nodes that might have served it, ascending.
    pub nodes: Vec<StopNode>,
    /// Until when somebody who verifies by himself may accept what was given out; `None`: nothing was.
    pub accepted_until: Option<Timestamp>,
}

impl Bounds {
    /// What holds of both: a node has confirmed when it has confirmed both.
    pub(super) fn and(self, other: Self) -> Self {
        let mut nodes: BTreeMap<_, _> =
            self.nodes.into_iter().map(|node| (node.agent.clone(), node)).collect();
        for node in other.nodes {
            let held = nodes.entry(node.agent.clone()).or_insert_with(|| node.clone());
            held.took = held.took.zip(node.took).map(|(one, two)| one.max(two));
            // None is longer than any time.
            held.decides_until = held.decides_until.zip(node.decides_until).map(|(one, two)| one.max(two));
        }
        let accepted_until = self.accepted_until.max(other.accepted_until);
        Self { nodes: nodes.into_values().collect(), accepted_until }
    }
}

/// What one node said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopNode {
    pub agent: SpiffeId,
    /// When it confirmed, counted from the call; `None`: it did not.
    pub took: Option<Duration>,
    /// Until when it may decide by what it knows, if it did not; `None`: until it hears of the server again.
    pub decides_until: Option<Timestamp>,
}

/// What is known of identities at the moment of the write.
#[derive(Default)]
struct Before {
    /// Nodes that may serve them.
    agents: BTreeSet<SpiffeId>,
    /// Those of them whose SVID has ended, or that were banned, and that may not know it.
    gone: BTreeSet<SpiffeId>,
    /// The longest life of an SVID that is out; `None`: no entry gives one.
    longest: Option<Duration>,
    /// One of them is a service, which nodes go on with however long the server is silent.
    endless: bool,
}

impl Before {
    fn of(registry: &Registry, settings: &Settings, wall: Timestamp, name: &SpiffeId) -> Self {
        let alive = |agent: &SpiffeId| registry.node(agent).is_some_and(|node| node.is_alive(wall));
        let (agents, gone) = agents_of_name(registry, name).into_iter().partition(alive);
        let longest = longest_svid(registry, settings, wall, name);
        let endless = registry.identity(name).is_some_and(|identity| identity.kind == Kind::Service);
        Self { agents, gone, longest, endless }
    }

    /// Takes in what is known of another.
    fn and(&mut self, other: &Self) {
        self.agents.extend(other.agents.iter().cloned());
        self.gone.extend(other.gone.iter().cloned());
        self.longest = self.longest.max(other.longest);
        self.endless |= other.endless;
    }

    /// How its stop went, by what the nodes of several said.
    fn trial(&self, name: SpiffeId, at: Timestamp, nodes: &[StopNode]) -> Trial {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let of = |node: &&StopNode| self.agents.contains(&node.agent) || self.gone.contains(&node.agent);
        let (confirmed, silent): (Vec<_>, Vec<_>) =
            nodes.iter().filter(of).partition(|node: &&StopNode| node.took.is_some());
        let last = confirmed.iter().filter_map(|node| node.took).max().unwrap_or_default();
        let tried = StopTried {
            at,
            nodes: count(confirmed.len() + silent.len()),
            confirmed: count(confirmed.len()),
            took_ms: u32::try_from(last.as_millis()).unwrap_or(u32::MAX),
        };
        Trial { name, tried, silent: silent.into_iter().map(|node| node.agent.clone()).collect() }
    }
}

/// Identities that one write took out of force.
pub(super) struct Stopped {
    /// As it was until this very write.
    pub registry: Registry,
    pub names: Vec<SpiffeId>,
}

impl Services {
    /// This server goes away on purpose. Records that, and has the nodes that follow it, and have heard of everything, decide alone
    /// for [`AWAY_MAX`] longer; if it can't be recorded, they do not.
    pub async fn leave(&self, now: Now) {
        let agents = self.followers();
        if agents == 0 {
            return;
        }
        let detail = vec![("agents", agents.to_string()), ("alone_longer_s", AWAY_MAX.as_secs().to_string())];
        let subject = match &self.0.holder {
            Holder::Server(name) => name.to_string(),
            Holder::TrustDomain => self.trust_domain().to_string(),
        };
        let (event, actor) = (AuditEvent::ServerLeaving, "server".to_owned());
        let row = AuditRow { at: now.wall, event, actor, subject, detail };
        let plan = Plan { audit: vec![row], ..Plan::default() };
        match self.0.writer.write(move |_| (plan.clone(), ())).await {
            Ok(()) => self.0.feed.leave(|| self.registry().position().revision).await,
            Err(error) => tracing::error!(%error, "Could not record that this server goes away"),
        }
    }

    /// Does a step that takes an identity out of force, or the drill of one, and waits until the nodes that follow have
    /// confirmed it, at most [`STOP_CONFIRM_MAX`].
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was stopped.
    pub async fn stop_identity(
        &self,
        now: Now,
        actor: &PersonId,
        name: SpiffeId,
        step: Step,
    ) -> Result<Result<Stop, IdentityError>, WriteError> {
        let (actor, of) = (actor.clone(), name.clone());
        let write = move |registry: &Registry| {
            let (plan, done) = step(registry, now.wall, &actor, &of);
            (plan, done.map(|identity| (identity, registry.clone())))
        };
        let (identity, registry) = match self.0.writer.write(write).await? {
            Ok(done) => done,
            Err(refused) => return Ok(Err(refused)),
        };
        let bounds = self.confirmations(now, vec![Stopped { registry, names: vec![name.clone()] }]).await;
        let identity = self.registry().identity(&name).cloned().unwrap_or(identity);
        Ok(Ok(Stop { identity, bounds }))
    }

    /// Pauses what has reached its end, or was not confirmed in time; at most as much as one write takes.
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was paused.
    pub(super) async fn pause_due(&self, now: Now) -> Result<Stopped, WriteError> {
        let due = move |registry: &Registry| {
            let (plan, paused) = identities::pause_due(registry, now.wall, "server");
            (plan, (paused, registry.clone()))
        };
        let (paused, registry) = self.0.writer.write(due).await?;
        let named = |(name, cause): (SpiffeId, Cause)| {
            tracing::warn!(identity = %name, cause = cause.name(), "Paused an identity");
            name
        };
        Ok(Stopped { registry, names: paused.into_iter().map(named).collect() })
    }

    /// Pauses what acts by itself and was to be run by this agent with other code than it has. True if it is paused for it; who else
    /// serves it confirms beside this.
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was paused.
    pub async fn other_code(
        &self,
        now: Now,
        agent: &SpiffeId,
        name: SpiffeId,
        found: CodeDigest,
    ) -> Result<bool, WriteError> {
        // What changes nothing does not stand in the way of those who write.
        let (plan, paused) = identities::pause_for_code(&self.registry(), now.wall, agent, &name, found);
        if plan == Plan::default() {
            return Ok(paused);
        }
        let (agent, of) = (agent.clone(), name.clone());
        let write = move |registry: &Registry| {
            let (plan, paused) = identities::pause_for_code(registry, now.wall, &agent, &of, found);
            let before = (plan != Plan::default()).then(|| registry.clone());
            (plan, (paused, before))
        };
        // Another report may have come first.
        let (paused, before) = self.0.writer.write(write).await?;
        let Some(registry) = before else { return Ok(paused) };
        tracing::warn!(identity = %name, cause = Cause::OtherCode.name(), "Paused an identity");
        let (services, stopped) = (self.clone(), Stopped { registry, names: vec![name] });
        self.0.tasks.spawn(async move { services.confirmations(now, vec![stopped]).await });
        Ok(true)
    }

    /// Waits until the nodes that follow have confirmed what these writes took out of force, at most [`STOP_CONFIRM_MAX`]
    /// for each, and keeps how that went.
    pub(super) async fn confirmations(&self, now: Now, writes: Vec<Stopped>) -> Bounds {
        let mut all = Bounds::default();
        for Stopped { registry, names } in writes {
            let (settings, revision) = (self.0.settings.clone(), registry.position().revision.next());
            let read = tokio::task::spawn_blocking(move || {
                let of = |name| (Before::of(&registry, &settings, now.wall, &name), name);
                names.into_iter().map(of).collect::<Vec<_>>()
            });
            // Fails only if the process is ending.
            let Ok(each) = read.await else { continue };
            let mut before = Before::default();
            each.iter().for_each(|(one, _)| before.and(one));
            let bounds = self.bounds(now, before, revision).await;
            let trial = |(one, name): (Before, SpiffeId)| one.trial(name, now.wall, &bounds.nodes);
            self.keep_tried(now, each.into_iter().map(trial).collect()).await;
            all = all.and(bounds);
        }
        all
    }

    /// Waits until the nodes that follow have confirmed a write, at most [`STOP_CONFIRM_MAX`].
    async fn bounds(&self, now: Now, before: Before, revision: Revision) -> Bounds {
        let answered = self.0.feed.confirmed(&before.agents, revision, STOP_CONFIRM_MAX).await;
        let ended = (self.0.clock)();
        let alone = !self.shares_its_store(ended.wall);
        // Who does not follow here may follow another server, and this one knows of old news only.
        let known = |agent: &SpiffeId| alone || self.0.feed.has(agent);
        let heard = |agent: &SpiffeId| self.0.feed.renewed(agent).filter(|_| known(agent));
        let node = |agent: SpiffeId| StopNode {
            took: answered.get(&agent).map(|at| at.since(now.mono)),
            decides_until: (!before.endless).then(|| decides_until(heard(&agent), ended)),
            agent,
        };
        // Who was shut out hears nothing, and goes on as long as somebody who is cut off.
        let cut_off = before.gone.into_iter().map(node).filter(|node| {
            self.0.feed.renewed(&node.agent).is_some()
                && node.decides_until.is_none_or(|until| until > ended.wall)
        });
        let mut nodes: Vec<_> = before.agents.into_iter().map(node).chain(cut_off).collect();
        nodes.sort_by(|a, b| a.agent.cmp(&b.agent));
        // What was signed until the commit is out as long as what was signed just then.
        let accepted_until = before.longest.map(|longest| ended.wall + longest);
        Bounds { nodes, accepted_until }
    }

    /// True if another server signs for this trust domain by the same store, or did lately.
    fn shares_its_store(&self, wall: Timestamp) -> bool {
        let other = |authority: &Authority| match &authority.holder {
            Holder::Server(_) => authority.holder != self.0.holder && authority.not_after > wall,
            Holder::TrustDomain => false,
        };
        self.registry().authorities().any(other)
    }

    /// Keeps how it went. If that fails, what was stopped is stopped all the same.
    async fn keep_tried(&self, now: Now, trials: Vec<Trial>) {
        let keep = move |registry: &Registry| (identities::tried(registry, now.wall, &trials), ());
        if let Err(error) = self.0.writer.write(keep).await {
            tracing::error!(%error, "Stopped, but how that went could not be written");
        }
    }
}

/// The longest that a node goes on which hears nothing from now on. `renewed`: from when on it counts; `None`: nobody knows, so
/// perhaps from now, and from a server that went away on purpose.
fn decides_until(renewed: Option<Tick>, now: Now) -> Timestamp {
    let from = renewed.unwrap_or(now.mono + AWAY_MAX);
    now.wall + (from + ALONE_LONG).since(now.mono)
}

/// The longest life of an SVID of this name that may be out; `None`: no entry gives one.
fn longest_svid(
    registry: &Registry,
    settings: &Settings,
    wall: Timestamp,
    name: &SpiffeId,
) -> Option<Duration> {
    let of_entry = |entry: &avouch_domain::Entry| {
        let (x509, jwt) = (settings.x509_svid_ttl, settings.jwt_svid_ttl);
        entry.x509_svid_ttl.or(x509).max(entry.jwt_svid_ttl.or(jwt))
    };
    let longest = registry.entries_by_spiffe_id(name).map(of_entry).max()?;
    // What acts by itself gets short ones, but for those from before it was registered as that.
    let short = registry
        .identity(name)
        .is_some_and(|identity| identity.kind.acts_by_itself() && wall.since(identity.added_at) >= longest);
    Some(if short { longest.min(SELF_ACTING_SVID_MAX) } else { longest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_confirmed_two_stops_when_it_has_confirmed_both() {
        let node = |name: &str, took: Option<u64>| StopNode {
            agent: avouch_domain::fixtures::id(name),
            took: took.map(Duration::from_millis),
            decides_until: Some(Timestamp::from_secs(7)),
        };
        let bounds = |nodes, until| Bounds { nodes, accepted_until: Some(Timestamp::from_secs(until)) };
        let one = bounds(vec![node("/a", Some(3)), node("/b", Some(5))], 10);
        let both = one.and(bounds(vec![node("/b", None), node("/c", Some(9))], 4));
        assert_eq!(both, bounds(vec![node("/a", Some(3)), node("/b", None), node("/c", Some(9))], 10));
    }

    #[test]
    fn a_node_that_was_heard_long_ago_decides_nothing_any_more() {
        let now = Now { wall: Timestamp::from_secs(5_000), mono: Tick(1_000_000) };
        assert_eq!(decides_until(Some(Tick(999_000)), now), Timestamp::from_secs(5_000 + 599));
        assert_eq!(decides_until(Some(Tick(0)), now), now.wall);
        assert_eq!(decides_until(None, now), Timestamp::from_secs(5_660), "what is not known is the longest");
    }
}
