//! What goes wrong, and what comes back: messages, crashes, power cuts, clocks, suspended hosts, lost stores.

use avouch_domain::AuthorityId;
use avouch_engine::sync::AgentRefusal;
use std::collections::BTreeSet;

use crate::actions::Kind;
use crate::feed::Speaks;
use crate::net::{Ask, KEEPALIVE, Message};
use crate::people::any_agent;
use crate::rng::Rng;
use crate::server::Server;
use crate::world::{AGENTS, At, Revive, SERVERS, World};

/// Longer than an ended authority stays in the bundle.
const SLEEP: u64 = 26 * 3_600_000;
/// How long a trouble of all messages lasts.
const SPELL: u64 = 40_000;

impl World {
    fn now_ms(&self) -> u64 {
        self.now.mono.0
    }

    pub(crate) fn strike(&mut self, kind: Kind, dice: &mut Rng) {
        let spell = self.now_ms() + SPELL;
        match kind {
            Kind::Weather => {
                let [calm, bad @ ..] = [0, 1, 5, 20];
                self.net.weather = *dice.pick(&bad).filter(|_| !self.seed.is_multiple_of(4)).unwrap_or(&calm);
                return self.log(At::Fault, "weather", || "messages are lost all the time".to_owned());
            }
            Kind::Loss => self.net.trouble.loss = spell,
            Kind::Delay => self.net.trouble.delay = spell,
            Kind::Duplicate => self.net.trouble.duplicate = spell,
            Kind::Reorder => self.net.trouble.reorder = spell,
            Kind::DiskFull => self.host.full_until = spell,
            Kind::Partition => self.cut_link(dice),
            Kind::AgentCrash => self.crash_agent(dice),
            Kind::ServerCrash => self.crash_server(dice),
            Kind::PowerCut => self.power_cut(dice),
            Kind::Jump | Kind::Drift | Kind::Freeze => self.bend_a_clock(kind, dice),
            Kind::Restore => self.restore(dice),
            Kind::Downgrade => self.downgrade(dice),
            _ => return,
        }
        self.coverage.strike(self.now.mono.0, kind);
        let at = self.now_ms();
        if matches!(kind, Kind::Loss | Kind::Delay | Kind::Duplicate | Kind::Reorder | Kind::DiskFull) {
            self.log(At::Fault, "spell", || format!("{kind:?} from {at} to {spell}"));
        }
    }

    fn crash_agent(&mut self, dice: &mut Rng) {
        let agent = any_agent(dice);
        if self.agents[agent].up {
            self.stop_agent(agent);
            self.revive.push((self.now_ms() + dice.below(60_000), Revive::Agent(agent)));
            self.log(At::Fault, "agent crash", || format!("agent{agent}"));
        }
    }

    /// Its process is gone; servers notice it after a while.
    fn stop_agent(&mut self, agent: usize) {
        self.agents[agent].up = false;
        let at = self.now_ms() + KEEPALIVE;
        for server in 0..SERVERS {
            for (_, life, stream) in self.servers[server].lines().into_iter().filter(|line| line.0 == agent) {
                let message = Message::ToServer { server, agent, life, ask: Ask::Close { stream } };
                self.net.send_in(at, message);
            }
        }
    }

    fn crash_server(&mut self, dice: &mut Rng) {
        let Some(server) = self.any_server(dice) else { return };
        if dice.chance(30) {
            self.servers[server].doomed = true;
            self.log(At::Fault, "doomed", || format!("server {server} dies at its next step of a rotation"));
        } else {
            self.log(At::Fault, "server crash", || format!("server {server}"));
            self.stop_server(server);
        }
    }

    /// It is back after two minutes at most.
    pub(crate) fn stop_server(&mut self, server: usize) {
        let for_long = Rng::new(self.seed ^ self.now_ms()).below(120_000);
        self.end_server(server);
        self.revive.push((self.now_ms() + for_long, Revive::Server(server)));
    }

    fn end_server(&mut self, server: usize) {
        for line in self.servers[server].crash() {
            self.break_stream(server, line);
        }
    }

    fn power_cut(&mut self, dice: &mut Rng) {
        self.log(At::Fault, "power cut", || "the host of the servers".to_owned());
        let back = self.now_ms() + 1_000 + dice.below(30_000);
        for server in 0..SERVERS {
            self.end_server(server);
            self.revive.push((back, Revive::Server(server)));
        }
        self.host.power_cut();
    }

    /// The store goes back to the last backup: what came after it has never been.
    fn restore(&mut self, dice: &mut Rng) {
        let before: BTreeSet<AuthorityId> = self.published();
        let now = self.at_server(0);
        if !self.host.restore(now, dice.next()) {
            return self.log(At::Fault, "restore", || "there is no backup".to_owned());
        }
        self.stops.clear();
        let back = self.now_ms() + 1_000 + dice.below(10_000);
        for server in 0..SERVERS {
            self.end_server(server);
            self.revive.push((back, Revive::Server(server)));
        }
        let image = self.host.db.image(now.wall).expect("the store opens");
        let after = published_in(&avouch_engine::Registry::from_image(image), &self.domain);
        self.revoked.extend(before.difference(&after).cloned());
        self.log(At::Fault, "restore", || {
            format!("{} authorities are lost", before.len() - after.len().min(before.len()))
        });
    }

    fn published(&self) -> BTreeSet<AuthorityId> {
        self.servers.iter().flat_map(|s| published_in(&s.registry, &self.domain)).collect()
    }

    fn downgrade(&mut self, dice: &mut Rng) {
        let Some(server) = self.any_server(dice) else { return };
        let speaks = if dice.chance(50) { Speaks::SyncEntries } else { Speaks::GetEntries };
        self.log(At::Fault, "downgrade", || format!("server {server} to {speaks:?}"));
        let lines = self.servers[server].lines();
        self.servers[server].speaks = speaks;
        for line in lines {
            self.break_stream(server, line);
        }
        let back = self.now_ms() + 60_000 + dice.below(900_000);
        self.revive.push((back, Revive::Upgrade(server)));
    }

    fn cut_link(&mut self, dice: &mut Rng) {
        let agent = any_agent(dice);
        if !self.agents[agent].cut {
            self.agents[agent].cut = true;
            let for_long = if dice.chance(20) { 600_000 } else { 60_000 };
            self.revive.push((self.now_ms() + dice.below(for_long), Revive::Link(agent)));
            self.log(At::Fault, "partition", || format!("agent{agent} is cut off"));
        }
    }

    /// A clock is set by up to two minutes (now and then by a quarter of an hour), runs fast or slow, or stands still.
    fn bend_a_clock(&mut self, kind: Kind, dice: &mut Rng) {
        let width = if dice.chance(20) { 900_000 } else { 120_000 };
        let by = i64::try_from(dice.below(2 * width)).unwrap_or(0) - i64::try_from(width).unwrap_or(0);
        let drift = i64::try_from(dice.below(4_000)).unwrap_or(0) - 2_000;
        let host = usize::try_from(dice.below((AGENTS + SERVERS) as u64)).unwrap_or(0);
        let (now, thaw) = (self.now, self.now_ms() + dice.below(180_000));
        let (clock, revive) = match host.checked_sub(AGENTS) {
            Some(server) => (&mut self.servers[server].clock, Revive::ServerClock(server)),
            None => {
                self.agents[host].unaware = true;
                self.agents[host].touched = true;
                (&mut self.agents[host].clock, Revive::AgentClock(host))
            }
        };
        match kind {
            Kind::Jump => clock.jump(now, by),
            Kind::Drift => clock.run_at(now, drift),
            _ => {
                clock.freeze(now);
                self.revive.push((thaw, revive));
            }
        }
        self.log(At::Fault, "clock", || match kind {
            Kind::Jump => format!("of host {host} jumps by {by} ms"),
            Kind::Drift => format!("of host {host} runs at {drift} ppm"),
            _ => format!("of host {host} stands still until {thaw}"),
        });
    }

    /// Every host is suspended, and all come back at once: connections are gone, and so is most of what was held.
    pub(crate) fn sleep(&mut self) {
        self.coverage.strike(self.now_ms(), Kind::Suspend);
        self.log(At::Fault, "suspend", || "every host".to_owned());
        self.pass(SLEEP);
        self.slept += SLEEP;
        for server in 0..SERVERS {
            for line in self.servers[server].lines() {
                self.break_stream(server, line);
            }
        }
        for agent in &mut self.agents {
            agent.clock.resume(SLEEP);
            agent.unaware = true;
            agent.waits_anew(self.now);
        }
        self.servers.iter_mut().for_each(|server| server.clock.resume(SLEEP));
        // What strikes soon after meets it, too.
        self.coverage.strike(self.now_ms(), Kind::Suspend);
        self.log(At::Fault, "wake", || "every host".to_owned());
    }

    // --- what comes back ---

    pub(crate) fn revive_due(&mut self) {
        let now = self.now_ms();
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.revive).into_iter().partition(|(at, _)| *at <= now);
        self.revive = later;
        for (_, what) in due {
            match what {
                Revive::Server(server) if !self.servers[server].up => self.restart_server(server),
                Revive::Server(_) => {}
                Revive::Agent(agent) => self.readmit(agent),
                Revive::Link(agent) => self.agents[agent].cut = false,
                Revive::AgentClock(agent) => {
                    self.agents[agent].clock.thaw(self.now);
                    self.agents[agent].unaware = true;
                }
                Revive::ServerClock(server) => self.servers[server].clock.thaw(self.now),
                Revive::Upgrade(server) => self.servers[server].speaks = Speaks::Push,
            }
        }
    }

    fn restart_server(&mut self, server: usize) {
        let (now, domain) = (self.at_server(server), self.domain.clone());
        let old = &self.servers[server];
        let mut new = Server::start(&old.name, domain, &mut self.host, old.clock, now);
        new.pruned = old.pruned;
        new.speaks = old.speaks;
        new.coverage = old.coverage.clone();
        self.servers[server] = new;
        self.log(At::Server(server), "start", String::new);
    }

    /// Lifts a ban and starts the agent again.
    fn readmit(&mut self, agent: usize) {
        let mut dice = Rng::new(self.seed ^ self.now_ms());
        let Some(server) = self.any_server(&mut dice) else {
            let again = self.now_ms() + 5_000;
            self.revive.push((again, Revive::Agent(agent)));
            return;
        };
        let (now, agent_id) = (self.at_server(server), self.agents[agent].id.clone());
        self.servers[server].follow(&mut self.host, now);
        if self.servers[server].registry.node(&agent_id).is_some_and(avouch_domain::Node::is_banned) {
            let _ = self.servers[server].write(&mut self.host, now, |r| {
                avouch_engine::plan::nodes::delete(r, now.wall, "admin", &agent_id)
            });
        }
        // One that still runs attests by itself when it is refused.
        if !self.agents[agent].up && self.attest(agent, &mut dice).is_some() {
            self.start_agent(agent);
            self.log(At::Agent(agent), "start", String::new);
        }
    }

    /// Agents that the server does not serve attest anew; a banned one stops.
    pub(crate) fn refused_agents(&mut self) {
        for agent in 0..AGENTS {
            let (refused, cut) = (self.agents[agent].refused, self.agents[agent].cut);
            match refused {
                Some(AgentRefusal::Banned) => {
                    self.agents[agent].refused = None;
                    self.stop_agent(agent);
                    self.agents[agent].views.clear();
                    self.revive.push((self.now_ms() + 60_000, Revive::Agent(agent)));
                }
                Some(_) if !cut => {
                    let mut dice = Rng::new(self.seed ^ self.now_ms() ^ 1);
                    let Some(own) = self.attest(agent, &mut dice) else { continue };
                    let now = self.at_agent(agent);
                    let asks = self.agents[agent].restart_sync(now, own);
                    self.log(At::Agent(agent), "attested anew", String::new);
                    self.ask(agent, asks);
                }
                _ => {}
            }
        }
    }
}

fn published_in(
    registry: &avouch_engine::Registry,
    domain: &avouch_domain::TrustDomain,
) -> BTreeSet<AuthorityId> {
    let bundle = registry.bundle(domain);
    bundle.iter().flat_map(|b| &b.x509_authorities).map(|root| crate::server::id_of(&root.der)).collect()
}
