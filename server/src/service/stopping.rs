//! Pausing and stopping an identity, and the drill of it: answered when the nodes have confirmed.
//!
//! Never says that a node has stopped something before the node says so, and never waits for one that does not follow.

use std::collections::BTreeSet;
use std::time::Duration;

use avouch_domain::limits::ALONE_LONG;
use avouch_domain::{Identity, Now, PersonId, SpiffeId, StopTried, Tick, Timestamp};
use avouch_engine::Registry;
use avouch_engine::entitle::agents_of_name;
use avouch_engine::plan::identities::{self, IdentityError};

use super::svids::governed;
use super::{Services, Settings, Step, WriteError};
use crate::limits::STOP_CONFIRM_MAX;

/// What came of a stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    pub identity: Identity,
    /// The nodes that might have served it, ascending.
    pub nodes: Vec<StopNode>,
    /// Until when somebody who verifies by himself may accept what was given out; `None`: nothing was.
    pub accepted_until: Option<Timestamp>,
}

/// What one node said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopNode {
    pub agent: SpiffeId,
    /// When it confirmed, counted from the call; `None`: it did not.
    pub took: Option<Duration>,
    /// Until when it may decide by what it knows, if it did not.
    pub decides_until: Timestamp,
}

impl Services {
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
        let before = self.registry();
        let (actor, of) = (actor.clone(), name.clone());
        let write = move |registry: &Registry| {
            let (plan, done) = step(registry, now.wall, &actor, &of);
            // What the plan is committed as.
            (plan, done.map(|identity| (identity, registry.position().revision.next())))
        };
        let (identity, revision) = match self.0.writer.write(write).await? {
            Ok(done) => done,
            Err(refused) => return Ok(Err(refused)),
        };
        let alive = |agent: &SpiffeId| {
            before.node(agent).is_some_and(|node| !node.is_banned() && node.expires_at > now.wall)
        };
        let agents: BTreeSet<_> = agents_of_name(&before, &name).into_iter().filter(alive).collect();
        let answered = self.0.feed.confirmed(&agents, revision, STOP_CONFIRM_MAX).await;
        let ended = (self.0.clock)();
        let node = |agent: SpiffeId| StopNode {
            took: answered.get(&agent).map(|at| at.since(now.mono)),
            decides_until: decides_until(self.0.feed.renewed(&agent), ended),
            agent,
        };
        let nodes: Vec<_> = agents.into_iter().map(node).collect();
        let identity = self.keep_tried(now, &name, &nodes).await?.unwrap_or(identity);
        let accepted_until =
            longest_svid(&before, self.settings(), now.wall, &name).map(|ttl| now.wall + ttl);
        Ok(Ok(Stop { identity, nodes, accepted_until }))
    }

    async fn keep_tried(
        &self,
        now: Now,
        name: &SpiffeId,
        nodes: &[StopNode],
    ) -> Result<Option<Identity>, WriteError> {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let last = nodes.iter().filter_map(|node| node.took).max().unwrap_or_default();
        let tried = StopTried {
            at: now.wall,
            nodes: count(nodes.len()),
            confirmed: count(nodes.iter().filter(|node| node.took.is_some()).count()),
            took_ms: u32::try_from(last.as_millis()).unwrap_or(u32::MAX),
        };
        let silent = nodes.iter().filter(|node| node.took.is_none()).map(|node| node.agent.clone());
        let (name, silent) = (name.clone(), silent.collect::<Vec<_>>());
        let keep = move |registry: &Registry| identities::tried(registry, now.wall, &name, tried, &silent);
        self.0.writer.write(keep).await
    }
}

/// The longest that a node goes on that wanted to hear of this server at `renewed` and hears nothing since.
fn decides_until(renewed: Tick, now: Now) -> Timestamp {
    now.wall + ALONE_LONG.saturating_sub(now.mono.since(renewed))
}

/// The longest life that an SVID of this name is given; `None`: no entry gives one.
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
    Some(governed(registry, wall, name, longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_was_heard_long_ago_decides_nothing_any_more() {
        let now = Now { wall: Timestamp::from_secs(5_000), mono: Tick(1_000_000) };
        assert_eq!(decides_until(Tick(999_000), now), Timestamp::from_secs(5_000 + 599));
        assert_eq!(decides_until(Tick(0), now), now.wall);
    }
}
