//! The whole system in one thread under virtual time: two servers on one store, three agents, their workloads, an
//! admin, and a network that loses. One seed decides everything.

use std::collections::BTreeSet;
use std::time::Duration;

use avouch_domain::fixtures::{id, set};
use avouch_domain::{Bundle, EntryId, Epoch, Now, SelectorSet, SpiffeId, Tick, Timestamp, TrustDomain, Ttl};
use avouch_engine::entitle::authorized_entries;
use avouch_engine::invariants::{self, Broken};
use avouch_engine::plan;
use avouch_engine::plan::bundles::DeleteMode;
use avouch_engine::plan::entries::{EntryPatch, NewEntry};
use avouch_engine::plan::nodes::Attested;
use avouch_engine::sync::{AgentRefusal, Failure};
use avouch_store::Db;

use crate::agent::Agent;
use crate::net::{Ask, CALL_TIMEOUT, IN_FLIGHT_MAX, KEEPALIVE, Message, Net, Tell};
use crate::rng::Rng;
use crate::server::{Line, Server};

const AGENTS: usize = 3;
const SERVERS: usize = 2;
/// Lines of the trace kept for a failure.
const TRACE_KEPT: usize = 40;
const SERVER_TICK: u64 = 2_000;
const HEARTBEAT: u64 = 10_000;
/// How long after its last trouble an agent may still show what the trouble left behind.
const RECOVERY: Duration = Duration::from_secs(150);

/// What a run looks like.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub seed: u64,
    /// Virtual milliseconds with faults; then everything heals and must converge.
    pub length: u64,
    /// Percent of messages lost.
    pub loss: u64,
}

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub steps: u64,
    pub delivered: u64,
    pub commits: u64,
    pub crashes: u64,
    pub broken_streams: u64,
}

pub struct World {
    now: Now,
    rng: Rng,
    db: Db,
    servers: Vec<Server>,
    agents: Vec<Agent>,
    net: Net,
    domain: TrustDomain,
    healed: bool,
    entries_made: u64,
    serial: u64,
    server_tick: u64,
    heartbeat: u64,
    next_action: u64,
    revive: Vec<(u64, Revive)>,
    trace: std::collections::VecDeque<String>,
    pub echo: bool,
    tally: Tally,
}

#[derive(Clone, Copy, Debug)]
enum Revive {
    Server(usize),
    Agent(usize),
    Link(usize),
}

impl World {
    pub fn new(scenario: Scenario) -> Self {
        let now = Now { wall: Timestamp::from_secs(1_800_000_000), mono: Tick(0) };
        let mut rng = Rng::new(scenario.seed);
        let domain = TrustDomain::new("example.org").expect("a name");
        let mut db = Db::in_memory(Epoch { started: now.wall.0, random: scenario.seed }).expect("a store");
        let servers = ["one", "two"]
            .iter()
            .take(SERVERS)
            .map(|n| Server::start(n, domain.clone(), &mut db, now))
            .collect();
        let agents = (0..AGENTS)
            .map(|i| Agent::new(i, id(&format!("/spire/agent/join_token/{i}")), rng.next()))
            .collect();
        let mut world = Self {
            now,
            rng,
            db,
            servers,
            agents,
            net: Net::new(scenario.loss),
            domain,
            healed: false,
            entries_made: 0,
            serial: 0,
            server_tick: 0,
            heartbeat: HEARTBEAT,
            next_action: 1_000,
            revive: Vec::new(),
            trace: std::collections::VecDeque::new(),
            echo: false,
            tally: Tally::default(),
        };
        world.tick_servers();
        for agent in 0..AGENTS {
            world.attest(agent);
            for workload in 0..3 {
                let selectors = world.workload(workload);
                world.agents[agent].wanted.insert(selectors);
            }
            world.start_agent(agent);
        }
        world
    }

    /// Runs the scenario to its end, or to the first broken promise.
    pub fn run(&mut self, scenario: Scenario) -> Result<Tally, Broken> {
        while self.now.mono.0 < scenario.length {
            self.step()?;
        }
        self.heal();
        let end = self.now.mono.0 + 20 * 60_000;
        while self.now.mono.0 < end {
            self.step()?;
        }
        self.converged()?;
        self.tally.delivered = self.agents.iter().map(|a| a.delivered).sum();
        Ok(self.tally)
    }

    pub fn trace(&self) -> String {
        self.trace.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    fn log(&mut self, host: &str, event: &str) {
        let line = format!(
            "{:>9} {host:<8} {:>5} {event}",
            self.now.mono.0,
            self.servers[0].registry.position().revision.0
        );
        if self.echo {
            println!("{line}");
        }
        self.trace.push_back(line);
        if self.trace.len() > TRACE_KEPT {
            self.trace.pop_front();
        }
    }

    /// Moves to the next moment at which anything happens, lets it happen, and asks every invariant.
    fn step(&mut self) -> Result<(), Broken> {
        let next = self.next_moment();
        let passed = next.saturating_sub(self.now.mono.0);
        self.now = Now { wall: self.now.wall + Duration::from_millis(passed), mono: Tick(next) };
        self.tally.steps += 1;
        while let Some(message) = self.net.due(next) {
            self.deliver(message);
        }
        for i in 0..AGENTS {
            if self.agents[i].next_wakeup().is_some_and(|at| at <= self.now.wall) {
                let asks = self.agents[i].tick(self.now);
                self.ask(i, asks);
            }
        }
        if next >= self.server_tick {
            self.server_tick = next + SERVER_TICK;
            self.tick_servers();
        }
        if next >= self.heartbeat {
            self.heartbeat = next + HEARTBEAT;
            self.heartbeats();
        }
        self.revive_due();
        if !self.healed && next >= self.next_action {
            self.next_action = next + 500 + self.rng.below(20_000);
            self.act();
        }
        self.refused_agents();
        self.tell();
        self.check()
    }

    fn next_moment(&self) -> u64 {
        let mut next = self.server_tick.min(self.heartbeat);
        if !self.healed {
            next = next.min(self.next_action);
        }
        let wakeups = self.agents.iter().filter_map(Agent::next_wakeup);
        let wakeups = wakeups
            .map(|at| self.now.mono.0 + u64::try_from(at.since(self.now.wall).as_millis()).unwrap_or(0));
        let revivals = self.revive.iter().map(|(at, _)| *at);
        let soonest = wakeups.chain(revivals).chain(self.net.next_at()).fold(next, u64::min);
        soonest.max(self.now.mono.0 + 1)
    }

    // --- messages ---

    fn ask(&mut self, agent: usize, asks: Vec<Ask>) {
        for ask in asks {
            if matches!(ask, Ask::Open { .. }) {
                self.agents[agent].server = usize::try_from(self.rng.below(SERVERS as u64)).unwrap_or(0);
            }
            let (server, life) = (self.agents[agent].server, self.agents[agent].life);
            let lost = self.agents[agent].cut || !self.servers[server].up || self.net.lost(&mut self.rng);
            if lost {
                self.give_up(agent, life, &ask);
            } else {
                self.net.send(self.now.mono.0, &mut self.rng, Message::ToServer { server, agent, life, ask });
            }
        }
    }

    /// What an agent hears in place of the answer that will not come.
    fn give_up(&mut self, agent: usize, life: u64, ask: &Ask) {
        self.agents[agent].troubled_at = self.now.wall;
        let away = "no answer".to_owned();
        let (after, tell) = match ask.clone() {
            Ask::Open { stream, .. } => (KEEPALIVE, Tell::Ended { stream, failure: Failure::Away(away) }),
            Ask::Sign { ticket, entry } => {
                let failure = avouch_engine::cache::SignFailure::Away(away);
                (CALL_TIMEOUT, Tell::SignFailed { ticket, entry, failure })
            }
            Ask::Fetch { .. } => (CALL_TIMEOUT, Tell::BundlesFailed),
            Ask::Ack { .. } => return,
        };
        self.net.send_in(self.now.mono.0 + after, Message::ToAgent { agent, life, tell });
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::ToAgent { agent, life, tell } => {
                if self.agents[agent].up && self.agents[agent].life == life {
                    let asks = self.agents[agent].hear(self.now, tell);
                    self.ask(agent, asks);
                }
            }
            Message::ToServer { server, agent, life, ask } => {
                if !self.servers[server].up || self.agents[agent].cut {
                    self.give_up(agent, life, &ask);
                } else {
                    self.serve(server, agent, life, ask);
                }
            }
        }
    }

    fn serve(&mut self, server: usize, agent: usize, life: u64, ask: Ask) {
        let agent_id = self.agents[agent].id.clone();
        let now = self.now;
        let tell = match ask.clone() {
            Ask::Open { stream, position, known } => {
                let opened = self.servers[server].open(
                    &mut self.db,
                    now,
                    (agent, life, stream),
                    &agent_id,
                    position,
                    &known,
                );
                match opened {
                    Ok(frames) => {
                        for frame in frames {
                            self.send_frame(server, (agent, life, stream), frame);
                        }
                        return;
                    }
                    Err(failure) => Tell::Ended { stream, failure },
                }
            }
            Ask::Ack { stream, revision } => {
                if self.servers[server].has((agent, life, stream)) {
                    self.servers[server].acknowledge(&agent_id, revision);
                }
                return;
            }
            Ask::Sign { ticket, entry } => match self.servers[server].sign(now, &agent_id, &entry) {
                Ok((svid, authority)) => Tell::Signed { ticket, entry, svid, authority },
                Err(failure) => Tell::SignFailed { ticket, entry, failure },
            },
            Ask::Fetch { domains } => Tell::Bundles(self.servers[server].fetch(now, &agent_id, &domains)),
        };
        if self.net.lost(&mut self.rng) {
            self.give_up(agent, life, &ask);
        } else {
            self.net.send(now.mono.0, &mut self.rng, Message::ToAgent { agent, life, tell });
        }
    }

    /// A frame on a stream; a lost one breaks the stream on both sides.
    fn send_frame(&mut self, server: usize, line: Line, frame: avouch_engine::sync::Frame) {
        let (agent, life, stream) = line;
        if !self.servers[server].has(line) {
            return;
        }
        if self.agents[agent].cut || self.net.lost(&mut self.rng) {
            self.break_stream(server, line);
        } else {
            self.net.send_frame(self.now.mono.0, &mut self.rng, agent, life, stream, frame);
        }
    }

    fn break_stream(&mut self, server: usize, line: Line) {
        let (agent, life, stream) = line;
        self.tally.broken_streams += 1;
        self.servers[server].close(line);
        self.agents[agent].troubled_at = self.now.wall;
        let failure = Failure::Away("connection lost".into());
        let message = Message::ToAgent { agent, life, tell: Tell::Ended { stream, failure } };
        self.net.send_in(self.now.mono.0 + KEEPALIVE, message);
    }

    fn tell(&mut self) {
        let ids: Vec<SpiffeId> = self.agents.iter().map(|a| a.id.clone()).collect();
        for server in 0..SERVERS {
            if !self.servers[server].up {
                continue;
            }
            for (line, frame) in self.servers[server].tell(self.now, &ids) {
                self.send_frame(server, line, frame);
            }
        }
    }

    fn heartbeats(&mut self) {
        for server in 0..SERVERS {
            if self.servers[server].up {
                for (line, frame) in self.servers[server].heartbeats(self.now) {
                    self.send_frame(server, line, frame);
                }
            }
        }
    }

    fn tick_servers(&mut self) {
        for server in 0..SERVERS {
            if self.servers[server].up {
                self.servers[server].tick(&mut self.db, self.now);
            }
        }
    }

    // --- people and faults ---

    fn any_server(&mut self) -> Option<usize> {
        let up: Vec<usize> = (0..SERVERS).filter(|s| self.servers[*s].up).collect();
        self.rng.pick(&up).copied()
    }

    fn workload(&mut self, n: u64) -> SelectorSet {
        let uid = format!("unix:uid:{n}");
        if self.rng.chance(50) {
            set(&[&uid, "unix:gid:1", "unix:path:/bin/a"])
        } else {
            set(&[&uid, "unix:gid:2"])
        }
    }

    fn act(&mut self) {
        match self.rng.below(100) {
            0..=29 => self.create_entry(),
            30..=41 => self.delete_entry(),
            42..=53 => self.update_entry(),
            54..=61 => self.set_bundle(),
            62..=65 => self.drop_bundle(),
            66..=75 => self.change_subscription(),
            76..=80 => self.crash_agent(),
            81..=85 => self.crash_server(),
            86..=92 => self.cut_link(),
            93..=95 => self.evict(true),
            _ => self.evict(false),
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
        let now = self.now;
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
        let now = self.now;
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
        let now = self.now;
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
        let (now, domain) = (self.now, self.domain.clone());
        let _ = self.servers[server].write(&mut self.db, now, |r| {
            plan::bundles::set(r, now.wall, "admin", &domain, std::slice::from_ref(&bundle))
        });
        self.log("admin", &format!("set bundle {name}"));
    }

    fn drop_bundle(&mut self) {
        let Some(server) = self.any_server() else { return };
        let name = TrustDomain::new(&format!("fed{}.org", self.rng.below(3))).expect("a name");
        let (now, domain) = (self.now, self.domain.clone());
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
        let asks = if self.rng.chance(60) {
            self.agents[agent].subscribe(self.now, selectors)
        } else {
            self.agents[agent].unsubscribe(self.now, &selectors)
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
            self.agents[agent].troubled_at = self.now.wall;
            let for_long = if self.rng.chance(20) { 600_000 } else { 60_000 };
            self.revive.push((self.now.mono.0 + self.rng.below(for_long), Revive::Link(agent)));
            self.log("fault", &format!("agent {agent} is cut off"));
        }
    }

    fn evict(&mut self, ban: bool) {
        let Some(server) = self.any_server() else { return };
        let agent = usize::try_from(self.rng.below(AGENTS as u64)).unwrap_or(0);
        let (now, agent_id) = (self.now, self.agents[agent].id.clone());
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

    fn revive_due(&mut self) {
        let due: Vec<Revive> =
            self.revive.iter().filter(|(at, _)| *at <= self.now.mono.0).map(|(_, what)| *what).collect();
        let now = self.now.mono.0;
        self.revive.retain(|(at, _)| *at > now);
        for what in due {
            match what {
                Revive::Server(s) if !self.servers[s].up => {
                    let name = self.servers[s].name.clone();
                    self.servers[s] = Server::start(&name, self.domain.clone(), &mut self.db, self.now);
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
        let (now, agent_id) = (self.now, self.agents[agent].id.clone());
        self.servers[server].follow(&mut self.db, now);
        if self.servers[server].registry.node(&agent_id).is_some_and(avouch_domain::Node::is_banned) {
            let _ = self.servers[server]
                .write(&mut self.db, now, |r| plan::nodes::delete(r, now.wall, "admin", &agent_id));
        }
        self.attest(agent);
        if !self.agents[agent].up {
            self.start_agent(agent);
            self.log("heal", &format!("agent {agent} is back"));
        }
    }

    /// Agents that the server does not serve attest anew; a banned one stops.
    fn refused_agents(&mut self) {
        for agent in 0..AGENTS {
            let (refused, cut) = (self.agents[agent].refused, self.agents[agent].cut);
            match refused {
                Some(AgentRefusal::Banned) => {
                    self.agents[agent].refused = None;
                    self.agents[agent].up = false;
                    self.agents[agent].views.clear();
                    self.revive.push((self.now.mono.0 + 60_000, Revive::Agent(agent)));
                }
                Some(_) if !cut && self.attest(agent) => {
                    let asks = self.agents[agent].restart_sync(self.now);
                    self.ask(agent, asks);
                }
                _ => {}
            }
        }
    }

    fn attest(&mut self, agent: usize) -> bool {
        let Some(server) = self.any_server() else { return false };
        self.serial += 1;
        let (now, agent_id) = (self.now, self.agents[agent].id.clone());
        self.servers[server].follow(&mut self.db, now);
        if self.servers[server].registry.node(&agent_id).is_some_and(avouch_domain::Node::is_banned) {
            return false;
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
            .is_ok()
    }

    fn start_agent(&mut self, agent: usize) {
        let seed = self.rng.next();
        self.agents[agent].troubled_at = self.now.wall;
        let asks = self.agents[agent].start(self.now, seed);
        self.ask(agent, asks);
    }

    fn heal(&mut self) {
        self.healed = true;
        self.net.loss = 0;
        for what in std::mem::take(&mut self.revive) {
            self.revive.push((self.now.mono.0, what.1));
        }
        for agent in 0..AGENTS {
            self.agents[agent].cut = false;
            self.revive.push((self.now.mono.0 + 1, Revive::Agent(agent)));
        }
        self.log("heal", "no more faults");
    }

    // --- promises ---

    fn check(&mut self) -> Result<(), Broken> {
        for broken in self.servers.iter_mut().flat_map(|s| s.broken.drain(..)) {
            return Err(broken);
        }
        invariants::inv9_queue_is_bounded("network", self.net.len(), IN_FLIGHT_MAX)?;
        for agent in &mut self.agents {
            if let Some(broken) = agent.broken.pop() {
                return Err(broken);
            }
            if !agent.up {
                continue;
            }
            if let Some(broken) = agent.holds_nothing_expired(self.now) {
                return Err(broken);
            }
            let calm = self.now.wall.since(agent.troubled_at) > RECOVERY;
            if let Some(broken) = agent.holds_nothing_unverifiable().filter(|_| calm) {
                return Err(broken);
            }
        }
        Ok(())
    }

    /// INV-10, and that every workload has exactly its identities.
    fn converged(&mut self) -> Result<(), Broken> {
        let now = self.now;
        self.servers[0].follow(&mut self.db, now);
        let registry = self.servers[0].registry.clone();
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
                    let what =
                        format!("{selectors:?} of {} has {got:?}, is entitled to {wanted:?}", agent.id);
                    return Err(Broken { number: 10, what });
                }
            }
        }
        Ok(())
    }
}
