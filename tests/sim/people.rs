//! What people and faults do to the world: entries, bundles, taints, bans; crashes, cuts, clocks that are set.
//!
//! Never decides anything: each action goes through a plan of the real product, or breaks something.

use std::sync::Arc;
use std::time::Duration;

use avouch_domain::fixtures::{id, set};
use avouch_domain::{AuthorityId, Bundle, EntryId, SelectorSet, TrustDomain, Ttl};
use avouch_engine::plan;
use avouch_engine::plan::bundles::DeleteMode;
use avouch_engine::plan::entries::{EntryPatch, NewEntry};
use avouch_engine::plan::nodes::Attested;
use avouch_engine::sync::AgentRefusal;

use crate::server::Server;
use crate::world::{AGENTS, Revive, SERVERS, World};

/// Longer than an ended authority stays in the bundle.
const SLEEP: u64 = 26 * 3_600_000;

impl World {
    fn any_server(&mut self) -> Option<usize> {
        let up: Vec<usize> = (0..SERVERS).filter(|s| self.servers[*s].up).collect();
        self.rng.pick(&up).copied()
    }

    pub(crate) fn workload(&mut self, n: u64) -> SelectorSet {
        let uid = format!("unix:uid:{n}");
        if self.rng.chance(50) {
            set(&[&uid, "unix:gid:1", "unix:path:/bin/a"])
        } else {
            set(&[&uid, "unix:gid:2"])
        }
    }

    pub(crate) fn act(&mut self) {
        match self.rng.below(100) {
            0..=29 => self.create_entry(),
            30..=41 => self.delete_entry(),
            42..=53 => self.update_entry(),
            54..=61 => self.set_bundle(),
            62..=65 => self.drop_bundle(),
            66..=75 => self.change_subscription(),
            76..=80 => self.crash_agent(),
            81..=84 => self.crash_server(),
            85..=90 => self.cut_link(),
            91 | 92 => self.evict(true),
            93 | 94 => self.evict(false),
            95 | 96 => self.taint(),
            97 => self.revoke(),
            _ => self.bend_a_clock(),
        }
        for _ in 0..self.rng.below(3) {
            self.want_token();
        }
    }

    fn create_entry(&mut self) {
        let Some(server) = self.any_server() else { return };
        self.entries_made += 1;
        let n = self.entries_made;
        let agent = self.rng.below(AGENTS as u64);
        let alias = self.rng.chance(15);
        let parent = match self.rng.below(10) {
            _ if alias => id("/spire/server"),
            0..=5 => id(&format!("/spire/agent/join_token/{agent}")),
            6 | 7 => id("/cluster"),
            _ => id(&format!("/w{}", self.rng.below(n))),
        };
        let selectors = if alias {
            set(&[if self.rng.chance(50) { "node:zone:a" } else { "node:all:yes" }])
        } else {
            let uid = format!("unix:uid:{}", self.rng.below(4));
            let extra = ["unix:gid:1", "unix:gid:2", "unix:path:/bin/a"];
            match self.rng.pick(&extra) {
                Some(more) if self.rng.chance(60) => set(&[&uid, more]),
                _ => set(&[&uid]),
            }
        };
        let ends =
            self.rng.chance(20).then(|| self.now.wall + Duration::from_millis(self.rng.below(900_000)));
        let federates = self.federation();
        let new = NewEntry {
            id: EntryId::new(&format!("e{n:05}")).ok(),
            spiffe_id: if alias { id("/cluster") } else { id(&format!("/w{n}")) },
            parent_id: parent,
            selectors: selectors.iter().cloned().collect(),
            x509_svid_ttl: Ttl(0),
            jwt_svid_ttl: Ttl(0),
            federates_with: federates,
            admin: false,
            downstream: false,
            expires_at: ends,
            dns_names: Vec::new(),
            store_svid: false,
            hint: String::new(),
            disable_x509_svid_prefetch: false,
            jwt_svid_include_jti: false,
        };
        let now = self.at_server(server);
        let made = self.servers[server].write(&mut self.db, now, |r| {
            plan::entries::create(r, now.wall, "admin", std::slice::from_ref(&new), &[])
        });
        self.tally.commits += 1;
        self.log(
            "admin",
            &format!("create e{n:05} parent {} -> {}", new.parent_id, made.iter().all(Result::is_ok)),
        );
    }

    fn federation(&mut self) -> Vec<TrustDomain> {
        let known: Vec<TrustDomain> = self.servers[0]
            .registry
            .bundles()
            .map(|b| b.trust_domain.clone())
            .filter(|d| *d != self.domain)
            .collect();
        if self.rng.chance(30) { self.rng.pick(&known).cloned().into_iter().collect() } else { Vec::new() }
    }

    fn any_entry(&mut self, server: usize) -> Option<EntryId> {
        let ids: Vec<EntryId> = self.servers[server].registry.entries().map(|e| e.id.clone()).collect();
        self.rng.pick(&ids).cloned()
    }

    fn delete_entry(&mut self) {
        let Some(server) = self.any_server() else { return };
        let Some(entry) = self.any_entry(server) else { return };
        let now = self.at_server(server);
        let _ = self.servers[server].write(&mut self.db, now, |r| {
            plan::entries::delete(r, now.wall, "admin", std::slice::from_ref(&entry))
        });
        self.log("admin", &format!("delete {entry}"));
    }

    fn update_entry(&mut self) {
        let Some(server) = self.any_server() else { return };
        let Some(entry) = self.any_entry(server) else { return };
        let mut patch = EntryPatch::empty(entry.clone());
        match self.rng.below(3) {
            0 => {
                let selectors = set(&[&format!("unix:uid:{}", self.rng.below(4))]);
                patch.selectors = Some(selectors.iter().cloned().collect());
            }
            1 => {
                patch.parent_id =
                    Some(id(&format!("/spire/agent/join_token/{}", self.rng.below(AGENTS as u64))))
            }
            _ => patch.hint = Some(format!("h{}", self.rng.below(9))),
        }
        let now = self.at_server(server);
        let _ = self.servers[server].write(&mut self.db, now, |r| {
            plan::entries::update(r, now.wall, "admin", std::slice::from_ref(&patch))
        });
        self.log("admin", &format!("update {entry}"));
    }

    fn set_bundle(&mut self) {
        let Some(server) = self.any_server() else { return };
        let name = format!("fed{}.org", self.rng.below(3));
        let mut bundle = Bundle::empty(TrustDomain::new(&name).expect("a name"));
        bundle.sequence_number = self.rng.below(1000);
        let (now, domain) = (self.at_server(server), self.domain.clone());
        let _ = self.servers[server].write(&mut self.db, now, |r| {
            plan::bundles::set(r, now.wall, "admin", &domain, std::slice::from_ref(&bundle))
        });
        self.log("admin", &format!("set bundle {name}"));
    }

    fn drop_bundle(&mut self) {
        let Some(server) = self.any_server() else { return };
        let name = TrustDomain::new(&format!("fed{}.org", self.rng.below(3))).expect("a name");
        let (now, domain) = (self.at_server(server), self.domain.clone());
        let _ = self.servers[server].write(&mut self.db, now, |r| {
            let mode = DeleteMode::Dissociate;
            plan::bundles::delete(r, now.wall, "admin", &domain, std::slice::from_ref(&name), mode)
        });
        self.log("admin", &format!("drop bundle {name}"));
    }

    fn change_subscription(&mut self) {
        let agent = usize::try_from(self.rng.below(AGENTS as u64)).unwrap_or(0);
        let number = self.rng.below(4);
        let selectors = self.workload(number);
        let now = self.at_agent(agent);
        let asks = if self.rng.chance(60) {
            self.agents[agent].subscribe(now, selectors)
        } else {
            self.agents[agent].unsubscribe(now, &selectors)
        };
        self.ask(agent, asks);
    }

    fn crash_agent(&mut self) {
        let agent = usize::try_from(self.rng.below(AGENTS as u64)).unwrap_or(0);
        if self.agents[agent].up {
            self.tally.crashes += 1;
            self.agents[agent].up = false;
            self.revive.push((self.now.mono.0 + self.rng.below(60_000), Revive::Agent(agent)));
            self.log("fault", &format!("agent {agent} crashes"));
        }
    }

    fn crash_server(&mut self) {
        let Some(server) = self.any_server() else { return };
        self.tally.crashes += 1;
        for line in self.servers[server].crash() {
            self.break_stream(server, line);
        }
        self.revive.push((self.now.mono.0 + self.rng.below(120_000), Revive::Server(server)));
        self.log("fault", &format!("server {server} crashes"));
    }

    fn cut_link(&mut self) {
        let agent = usize::try_from(self.rng.below(AGENTS as u64)).unwrap_or(0);
        if !self.agents[agent].cut {
            self.agents[agent].cut = true;
            let for_long = if self.rng.chance(20) { 600_000 } else { 60_000 };
            self.revive.push((self.now.mono.0 + self.rng.below(for_long), Revive::Link(agent)));
            self.log("fault", &format!("agent {agent} is cut off"));
        }
    }

    fn evict(&mut self, ban: bool) {
        let Some(server) = self.any_server() else { return };
        let agent = usize::try_from(self.rng.below(AGENTS as u64)).unwrap_or(0);
        let (now, agent_id) = (self.at_server(server), self.agents[agent].id.clone());
        let _ = self.servers[server].write(&mut self.db, now, |r| {
            if ban {
                plan::nodes::ban(r, now.wall, "admin", &agent_id)
            } else {
                plan::nodes::delete(r, now.wall, "admin", &agent_id)
            }
        });
        self.log("admin", &format!("{} agent {agent}", if ban { "ban" } else { "evict" }));
        if ban {
            self.revive.push((self.now.mono.0 + 30_000 + self.rng.below(60_000), Revive::Agent(agent)));
        }
    }

    pub(crate) fn revive_due(&mut self) {
        let due: Vec<Revive> =
            self.revive.iter().filter(|(at, _)| *at <= self.now.mono.0).map(|(_, what)| *what).collect();
        let now = self.now.mono.0;
        self.revive.retain(|(at, _)| *at > now);
        for what in due {
            match what {
                Revive::Server(s) if !self.servers[s].up => {
                    let name = self.servers[s].name.clone();
                    let (clock, now) = (self.servers[s].clock, self.at_server(s));
                    let pruned = self.servers[s].pruned;
                    self.servers[s] = Server::start(&name, self.domain.clone(), &mut self.db, clock, now);
                    self.servers[s].pruned = pruned;
                    self.log("heal", &format!("server {s} is back"));
                }
                Revive::Agent(a) => self.readmit(a),
                Revive::Link(a) => self.agents[a].cut = false,
                Revive::Server(_) => {}
            }
        }
    }

    /// Lifts a ban and starts the agent again.
    fn readmit(&mut self, agent: usize) {
        let Some(server) = self.any_server() else {
            let again = self.now.mono.0 + 5_000;
            self.revive.push((again, Revive::Agent(agent)));
            return;
        };
        let (now, agent_id) = (self.at_server(server), self.agents[agent].id.clone());
        self.servers[server].follow(&mut self.db, now);
        if self.servers[server].registry.node(&agent_id).is_some_and(avouch_domain::Node::is_banned) {
            let _ = self.servers[server]
                .write(&mut self.db, now, |r| plan::nodes::delete(r, now.wall, "admin", &agent_id));
        }
        // One that still runs attests by itself when it is refused.
        if !self.agents[agent].up && self.attest(agent).is_some() {
            self.start_agent(agent);
            self.log("heal", &format!("agent {agent} is back"));
        }
    }

    /// Agents that the server does not serve attest anew; a banned one stops.
    pub(crate) fn refused_agents(&mut self) {
        for agent in 0..AGENTS {
            let (refused, cut) = (self.agents[agent].refused, self.agents[agent].cut);
            match refused {
                Some(AgentRefusal::Banned) => {
                    self.agents[agent].refused = None;
                    self.agents[agent].up = false;
                    self.agents[agent].views.clear();
                    self.revive.push((self.now.mono.0 + 60_000, Revive::Agent(agent)));
                }
                Some(_) if !cut => {
                    let Some(own) = self.attest(agent) else { continue };
                    let now = self.at_agent(agent);
                    let asks = self.agents[agent].restart_sync(now, own);
                    self.ask(agent, asks);
                }
                _ => {}
            }
        }
    }

    /// Gives the own bundle, which comes with the answer.
    pub(crate) fn attest(&mut self, agent: usize) -> Option<Arc<Bundle>> {
        let server = self.any_server()?;
        self.serial += 1;
        let (now, agent_id) = (self.at_server(server), self.agents[agent].id.clone());
        self.servers[server].follow(&mut self.db, now);
        if self.servers[server].registry.node(&agent_id).is_some_and(avouch_domain::Node::is_banned) {
            return None;
        }
        let zone = if agent == 0 { "node:zone:a" } else { "node:zone:b" };
        let attested = Attested {
            id: agent_id,
            kind: "join_token".into(),
            serial: self.serial.to_string().into(),
            expires_at: now.wall + Duration::from_secs(30 * 24 * 3600),
            selectors: set(&[zone, "node:all:yes"]),
            can_reattest: true,
            token: None,
        };
        self.servers[server]
            .write(&mut self.db, now, |r| plan::nodes::attest(r, now.wall, "agent", &attested))
            .ok()?;
        self.servers[server].registry.bundle(&self.domain).cloned()
    }

    pub(crate) fn start_agent(&mut self, agent: usize) {
        let seed = self.rng.next();
        let now = self.at_agent(agent);
        let asks = self.agents[agent].start(now, seed);
        self.ask(agent, asks);
    }

    // --- authorities ---

    fn any_authority(&mut self, server: usize) -> Option<AuthorityId> {
        let all: Vec<_> = self.servers[server].registry.authorities().map(|a| a.id.clone()).collect();
        self.rng.pick(&all).cloned()
    }

    fn taint(&mut self) {
        let Some(server) = self.any_server() else { return };
        let Some(authority) = self.any_authority(server) else { return };
        let (now, domain) = (self.at_server(server), self.domain.clone());
        let found = self.servers[server].write(&mut self.db, now, |r| {
            plan::authorities::taint(r, now.wall, "admin", &domain, &authority)
        });
        self.tally.taints += u64::from(found);
        self.log("admin", &format!("taint {authority} -> {found}"));
    }

    /// Asks for any authority to be revoked: only a tainted one that does not sign may be.
    fn revoke(&mut self) {
        let Some(server) = self.any_server() else { return };
        let tainted = |w: &Self| {
            let list = w.servers[server].registry.authorities().filter(|a| a.tainted);
            list.map(|a| a.id.clone()).collect::<Vec<_>>()
        };
        let wanted = if self.rng.chance(70) { tainted(self) } else { Vec::new() };
        let Some(authority) = self.rng.pick(&wanted).cloned().or_else(|| self.any_authority(server)) else {
            return;
        };
        let (now, domain) = (self.at_server(server), self.domain.clone());
        let found = self.servers[server].write(&mut self.db, now, |r| {
            plan::authorities::revoke(r, now.wall, "admin", &domain, &authority)
        });
        if found {
            self.revoked.insert(authority.clone());
            self.tally.revocations += 1;
        }
        self.log("admin", &format!("revoke {authority} -> {found}"));
    }

    // --- tokens ---

    fn want_token(&mut self) {
        let agent = usize::try_from(self.rng.below(AGENTS as u64)).unwrap_or(0);
        let number = self.rng.below(4);
        let selectors = self.workload(number);
        let now = self.at_agent(agent);
        for audience in ["a", "b"] {
            for _ in 0..=self.rng.below(2) {
                let asks = self.agents[agent].want_token(now, selectors.clone(), audience);
                self.ask(agent, asks);
            }
        }
        if self.rng.chance(10) {
            self.agents[agent].abandon_one(now);
        }
    }

    // --- clocks ---

    /// A clock is set by up to two minutes (now and then by a quarter of an hour), or runs fast or slow.
    fn bend_a_clock(&mut self) {
        if !self.bent_clocks {
            return;
        }
        let width = if self.rng.chance(20) { 900_000 } else { 120_000 };
        let by = i64::try_from(self.rng.below(2 * width)).unwrap_or(0) - i64::try_from(width).unwrap_or(0);
        let drift = i64::try_from(self.rng.below(4_000)).unwrap_or(0) - 2_000;
        let host = usize::try_from(self.rng.below((AGENTS + SERVERS) as u64)).unwrap_or(0);
        let mono = self.now.mono;
        let clock = match host.checked_sub(AGENTS) {
            Some(server) => &mut self.servers[server].clock,
            None => {
                self.agents[host].unaware = true;
                &mut self.agents[host].clock
            }
        };
        if self.rng.chance(70) {
            clock.jump(mono, by);
            self.tally.clock_jumps += 1;
            self.log("fault", &format!("clock of host {host} jumps by {by} ms"));
        } else {
            clock.run_at(mono, drift);
            self.log("fault", &format!("clock of host {host} runs at {drift} ppm"));
        }
    }

    /// Every host is suspended, and all come back at once: connections are gone, and so is most of what was held.
    /// Gives the milliseconds slept.
    pub(crate) fn sleep(&mut self) -> u64 {
        self.log("fault", "every host sleeps");
        self.pass(SLEEP);
        for server in 0..SERVERS {
            for line in self.servers[server].lines() {
                self.break_stream(server, line);
            }
        }
        for agent in &mut self.agents {
            agent.unaware = true;
            agent.waits_anew(self.now);
        }
        self.log("heal", "every host wakes");
        SLEEP
    }
}
