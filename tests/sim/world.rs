//! The whole system in one thread under virtual time: two servers on one store, three agents, their workloads, an
//! admin, and a network that loses. One seed decides everything.

use std::collections::BTreeSet;
use std::time::Duration;

use avouch_domain::fixtures::id;
use avouch_domain::{AuthorityId, Epoch, Now, SpiffeId, Tick, Timestamp, TrustDomain};
use avouch_engine::cache::SignFailure;
use avouch_engine::invariants::Broken;
use avouch_engine::sync::Failure;
use avouch_store::Db;

use crate::agent::Agent;
use crate::clock::Clock;
use crate::net::{Ask, CALL_TIMEOUT, KEEPALIVE, Message, Net, Tell};
use crate::rng::Rng;
use crate::server::{Line, Server};

pub const AGENTS: usize = 3;
pub const SERVERS: usize = 2;
/// Lines of the trace kept for a failure.
const TRACE_KEPT: usize = 40;
const SERVER_TICK: u64 = 2_000;
const HEARTBEAT: u64 = 10_000;
/// The life of the store between the troubled part and the judgement.
const PEACE: u64 = 20 * 60_000;

/// What a run looks like.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub seed: u64,
    /// Virtual milliseconds with faults; then everything heals and must converge.
    pub length: u64,
    /// Percent of messages lost.
    pub loss: u64,
    /// Clocks run wrong and are set.
    pub bent_clocks: bool,
    /// At this moment every host is suspended for longer than an ended authority stays in the bundle.
    pub sleep_at: Option<u64>,
}

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub steps: u64,
    pub delivered: u64,
    pub commits: u64,
    pub crashes: u64,
    pub broken_streams: u64,
    pub tokens: u64,
    pub taints: u64,
    pub revocations: u64,
    pub clock_jumps: u64,
    pub pruned: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        let all = [
            (&mut self.steps, other.steps),
            (&mut self.delivered, other.delivered),
            (&mut self.commits, other.commits),
            (&mut self.crashes, other.crashes),
            (&mut self.broken_streams, other.broken_streams),
            (&mut self.tokens, other.tokens),
            (&mut self.taints, other.taints),
            (&mut self.revocations, other.revocations),
            (&mut self.clock_jumps, other.clock_jumps),
            (&mut self.pruned, other.pruned),
        ];
        all.into_iter().for_each(|(sum, more)| *sum += more);
    }

    /// The kind of event that never happened, if there is one: then the runs were too calm to prove anything.
    pub fn missing(&self) -> Option<&'static str> {
        [
            (self.delivered, "delivered"),
            (self.commits, "commits"),
            (self.crashes, "crashes"),
            (self.broken_streams, "broken streams"),
            (self.tokens, "tokens"),
            (self.taints, "taints"),
            (self.revocations, "revocations"),
            (self.clock_jumps, "clock jumps"),
            (self.pruned, "pruned authorities"),
        ]
        .into_iter()
        .find_map(|(count, name)| (count == 0).then_some(name))
    }
}

pub struct World {
    pub(crate) now: Now,
    pub(crate) rng: Rng,
    pub(crate) db: Db,
    pub(crate) servers: Vec<Server>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) net: Net,
    pub(crate) domain: TrustDomain,
    pub(crate) bent_clocks: bool,
    sleep_at: Option<u64>,
    /// When the troubled part ends.
    end: u64,
    healed: bool,
    pub(crate) entries_made: u64,
    pub(crate) serial: u64,
    server_tick: u64,
    heartbeat: u64,
    next_action: u64,
    pub(crate) revive: Vec<(u64, Revive)>,
    trace: std::collections::VecDeque<String>,
    pub echo: bool,
    pub(crate) tally: Tally,
    /// Authorities that an operator took out of the bundle before their end.
    pub(crate) revoked: BTreeSet<AuthorityId>,
    /// Agents that did not say in time that they know an authority.
    pub(crate) unheard: BTreeSet<(AuthorityId, SpiffeId)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Revive {
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
            .map(|n| Server::start(n, domain.clone(), &mut db, Clock::default(), now))
            .collect();
        let agents = (0..AGENTS)
            .map(|i| Agent::new(id(&format!("/spire/agent/join_token/{i}")), rng.next()))
            .collect();
        let mut world = Self {
            now,
            rng,
            db,
            servers,
            agents,
            net: Net::new(scenario.loss),
            domain,
            bent_clocks: scenario.bent_clocks,
            sleep_at: scenario.sleep_at,
            end: scenario.length,
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
            revoked: BTreeSet::new(),
            unheard: BTreeSet::new(),
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
        self.end = scenario.length;
        while self.now.mono.0 < self.end {
            self.step()?;
        }
        self.heal();
        let end = self.now.mono.0 + PEACE;
        while self.now.mono.0 < end {
            self.step()?;
        }
        self.converged()?;
        self.tally.delivered = self.agents.iter().map(|a| a.delivered).sum();
        self.tally.tokens = self.agents.iter().map(|a| a.tokens).sum();
        self.tally.pruned = self.servers.iter().map(|s| s.pruned).sum();
        Ok(self.tally)
    }

    pub fn trace(&self) -> String {
        self.trace.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// The moment as an agent's clock shows it.
    pub(crate) fn at_agent(&self, agent: usize) -> Now {
        self.agents[agent].clock.see(self.now)
    }

    /// The moment as a server's clock shows it.
    pub(crate) fn at_server(&self, server: usize) -> Now {
        self.servers[server].clock.see(self.now)
    }

    pub(crate) fn log(&mut self, host: &str, event: &str) {
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
        self.pass(next.saturating_sub(self.now.mono.0));
        self.tally.steps += 1;
        while let Some(message) = self.net.due(next) {
            self.deliver(message);
        }
        for i in 0..AGENTS {
            if self.agents[i].next_wakeup().is_some_and(|at| at <= next) {
                let now = self.at_agent(i);
                let asks = self.agents[i].tick(now);
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
        self.check()?;
        if self.sleep_at.take_if(|at| *at <= next).is_some() {
            self.end += self.sleep();
        }
        Ok(())
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        let passed = Duration::from_millis(millis);
        self.now = Now { wall: self.now.wall + passed, mono: self.now.mono + passed };
    }

    fn next_moment(&self) -> u64 {
        let mut next = self.server_tick.min(self.heartbeat);
        if !self.healed {
            next = next.min(self.next_action);
        }
        let wakeups = self.agents.iter().filter_map(Agent::next_wakeup);
        let revivals = self.revive.iter().map(|(at, _)| *at);
        let soonest = wakeups.chain(revivals).chain(self.net.next_at()).fold(next, u64::min);
        soonest.max(self.now.mono.0 + 1)
    }

    // --- messages ---

    pub(crate) fn ask(&mut self, agent: usize, asks: Vec<Ask>) {
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
        let away = "no answer".to_owned();
        let (after, tell) = match ask.clone() {
            Ask::Open { stream, .. } => (KEEPALIVE, Tell::Ended { stream, failure: Failure::Away(away) }),
            Ask::Sign { ticket, entry } => {
                (CALL_TIMEOUT, Tell::SignFailed { ticket, entry, failure: SignFailure::Away(away) })
            }
            Ask::Mint { ticket, .. } => {
                (CALL_TIMEOUT, Tell::MintFailed { ticket, failure: SignFailure::Away(away) })
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
                    let now = self.at_agent(agent);
                    let asks = self.agents[agent].hear(now, tell);
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
        let now = self.at_server(server);
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
            Ask::Mint { ticket, entry } => match self.servers[server].mint(now, &agent_id, &entry) {
                Ok((svid, key_id)) => Tell::Minted { ticket, svid, key_id },
                Err(failure) => Tell::MintFailed { ticket, failure },
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

    pub(crate) fn break_stream(&mut self, server: usize, line: Line) {
        let (agent, life, stream) = line;
        self.tally.broken_streams += 1;
        self.servers[server].close(line);
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
            let now = self.at_server(server);
            for (line, frame) in self.servers[server].tell(now, &ids) {
                self.send_frame(server, line, frame);
            }
        }
    }

    fn heartbeats(&mut self) {
        for server in 0..SERVERS {
            if self.servers[server].up {
                let now = self.at_server(server);
                for (line, frame) in self.servers[server].heartbeats(now) {
                    self.send_frame(server, line, frame);
                }
            }
        }
    }

    fn tick_servers(&mut self) {
        for server in 0..SERVERS {
            if self.servers[server].up {
                let now = self.at_server(server);
                self.servers[server].tick(&mut self.db, now);
            }
        }
    }

    fn heal(&mut self) {
        self.healed = true;
        self.net.loss = 0;
        for what in std::mem::take(&mut self.revive) {
            self.revive.push((self.now.mono.0, what.1));
        }
        self.servers.iter_mut().for_each(|s| s.clock = Clock::default());
        for agent in 0..AGENTS {
            self.agents[agent].clock = Clock::default();
            self.agents[agent].unaware = true;
            self.agents[agent].cut = false;
            self.revive.push((self.now.mono.0 + 1, Revive::Agent(agent)));
        }
        self.log("heal", "no more faults");
    }
}
