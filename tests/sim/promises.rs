//! The promises, asked after every step and at the end.
//!
//! Never asks a machine whether it is right: what is held is compared with what the log entitles to.

use std::collections::BTreeSet;
use std::time::Duration;

use avouch_domain::{EntryId, LogPosition, Timestamp};
use avouch_engine::entitle::authorized_entries;
use avouch_engine::invariants::{self, Broken};

use crate::net::IN_FLIGHT_MAX;
use crate::world::{AGENTS, SERVERS, World};

/// Streams of one agent that a server has not noticed the end of, and the one that lives.
const FOLLOWERS_MAX: usize = AGENTS * 8;
/// How soon after its end an identity is paused at the latest, by a server that is up.
const PAUSE_WITHIN: Duration = Duration::from_secs(5);

impl World {
    pub(crate) fn check(&mut self) -> Result<(), Broken> {
        for server in &mut self.servers {
            self.unheard.append(&mut server.unheard);
        }
        if let Some(broken) = self.servers.iter_mut().find_map(|server| server.broken.pop()) {
            return Err(broken);
        }
        invariants::inv9_queue_is_bounded("network", self.net.len(), IN_FLIGHT_MAX)?;
        for server in 0..SERVERS {
            self.check_server(server)?;
        }
        for agent in 0..AGENTS {
            self.check_agent(agent)?;
        }
        Ok(())
    }

    fn check_server(&mut self, server: usize) -> Result<(), Broken> {
        let now = self.at_server(server);
        let server = &self.servers[server];
        invariants::inv9_queue_is_bounded("followers", server.followers.len(), FOLLOWERS_MAX)?;
        invariants::inv9_queue_is_bounded("acknowledgements", server.acknowledged.len(), AGENTS)?;
        // INV-1 on the server's side: what an agent is handed and what it may have signed are the same. Asked when
        // something was written, of the server that knows first, and once in a while: entries end by themselves.
        let (position, minute) = (server.registry.position(), now.mono.0 / 60_000);
        let (known, then) = &mut self.judged;
        let newer = (position.epoch, position.revision) > (known.epoch, known.revision);
        if server.up && (newer || minute != *then) {
            (*known, *then) = (position, minute);
            for agent in &self.agents {
                invariants::inv1_entitled_only(&server.registry, &agent.id, now.wall)?;
            }
        }
        Ok(())
    }

    fn check_agent(&mut self, number: usize) -> Result<(), Broken> {
        let now = self.at_agent(number);
        let agent = &mut self.agents[number];
        if let Some(broken) = agent.broken.pop() {
            return Err(broken);
        }
        if !agent.up {
            return Ok(());
        }
        if let Some(broken) = agent.holds_nothing_expired(now).or_else(|| agent.keeps_nobody_waiting(now)) {
            return Err(broken);
        }
        // What no input has touched is as it was; nothing below depends on the time.
        if !std::mem::take(&mut agent.touched) {
            return Ok(());
        }
        if let Some(broken) = agent.keeps_within_limits() {
            return Err(broken);
        }
        if let Some((life, at)) = self.acknowledged[number]
            && life == agent.life
            && agent.learnt == Some(at.epoch)
        {
            let heard = |stop: &LogPosition| stop.epoch == at.epoch && stop.revision <= at.revision;
            for (name, _) in self.stops.iter().filter(|(_, stop)| heard(stop)) {
                invariants::inv11_acknowledged_stop(&agent.id, name, agent.serves(now.wall))?;
            }
        }
        if !std::mem::take(&mut agent.shown) {
            return Ok(());
        }
        // The operator's word, and the silence of an agent that was waited for long enough, are no mistakes.
        let (revoked, unheard, id) = (&self.revoked, &self.unheard, agent.id.clone());
        let unverifiable = agent.holds_something_unverifiable(|authority| {
            revoked.contains(authority) || unheard.contains(&(authority.clone(), id.clone()))
        });
        match unverifiable {
            Some(broken) => Err(broken),
            None => Ok(()),
        }
    }

    /// INV-10, and that every workload has exactly its identities.
    pub(crate) fn converged(&mut self) -> Result<(), Broken> {
        let now = self.now;
        self.host.audit_is_whole().map_err(|what| Broken { number: 8, what })?;
        self.servers[0].follow(&mut self.host, now);
        let registry = self.servers[0].registry.clone();
        // An identity whose end has come this very moment is still to be paused, and the agents to be told.
        let ending = |at: Timestamp| at <= now.wall && now.wall.since(at) < PAUSE_WITHIN;
        if registry.next_pause().is_some_and(ending) {
            return Ok(());
        }
        for agent in &self.agents {
            let held: BTreeSet<(String, i64)> = agent
                .held
                .values()
                .filter(|e| !e.is_expired(now.wall))
                .map(|e| (e.id.to_string(), e.revision_number))
                .collect();
            invariants::inv10_converged(&registry, &agent.id, now.wall, &held)?;
            invariants::inv1_entitled_only(&registry, &agent.id, now.wall)?;
            let entitled = authorized_entries(&registry, &agent.id, now.wall);
            for selectors in &agent.wanted {
                let wanted: BTreeSet<EntryId> = entitled
                    .iter()
                    .filter(|e| e.selector_set().is_subset_of(selectors))
                    .map(|e| e.id.clone())
                    .collect();
                let view = agent.views.get(selectors);
                let got: BTreeSet<EntryId> =
                    view.iter().flat_map(|v| &v.identities).map(|i| i.entry_id.clone()).collect();
                if wanted != got {
                    let what = format!(
                        "{selectors:?} of {} has {got:?}, is entitled to {wanted:?}; {}",
                        agent.id,
                        agent.says_of(wanted.symmetric_difference(&got))
                    );
                    return Err(Broken { number: 10, what });
                }
            }
        }
        Ok(())
    }
}
