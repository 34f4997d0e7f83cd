//! The whole system in one thread under virtual time: two servers on one store, three agents, their workloads, an
//! admin, and a network that loses. One seed decides everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use avouch_domain::fixtures::id;
use avouch_domain::{AuthorityId, Epoch, LogPosition, Now, SpiffeId, Tick, Timestamp, TrustDomain};
use avouch_engine::cache::SignFailure;
use avouch_engine::invariants::{self, Broken};
use avouch_engine::sync::Failure;

use crate::actions::{Action, Kind};
use crate::agent::Agent;
use crate::clock::Clock;
use crate::coverage::Coverage;
use crate::feed::{Line, Speaks};
use crate::host::Host;
use crate::net::{Ask, CALL_TIMEOUT, KEEPALIVE, Message, Net, Tell};
use crate::people::selectors_of;
use crate::rng::Rng;
use crate::server::Server;
use crate::trace::{Place, Trace, Tracing};

pub const AGENTS: usize = 3;
pub const SERVERS: usize = 2;
const SERVER_TICK: u64 = 4_000;
const HEARTBEAT: u64 = 10_000;
/// Steps of a whole run: a hundred times more than usual, then something never rests.
const STEPS_MAX: usize = 2_000_000;
/// The life of the store between the troubled part and the judgement.
const PEACE: u64 = 20 * 60_000;
/// So long before the end nothing is committed: what is, has to reach even an agent that polls.
const TELLING: u64 = 15_000;

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub steps: u64,
    pub delivered: u64,
    pub commits: u64,
    pub broken_streams: u64,
    pub tokens: u64,
    pub revocations: u64,
    pub pruned: u64,
    /// Tokens that found their caller gone.
    pub unreached: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        let all = [
            (&mut self.steps, other.steps),
            (&mut self.delivered, other.delivered),
            (&mut self.commits, other.commits),
            (&mut self.broken_streams, other.broken_streams),
            (&mut self.tokens, other.tokens),
            (&mut self.revocations, other.revocations),
            (&mut self.pruned, other.pruned),
            (&mut self.unreached, other.unreached),
        ];
        all.into_iter().for_each(|(sum, more)| *sum += more);
    }

    /// The kind of event that never happened, if there is one: then the runs were too calm to prove anything.
    pub fn missing(&self) -> Option<&'static str> {
        [
            (self.delivered, "delivered"),
            (self.commits, "commits"),
            (self.broken_streams, "broken streams"),
            (self.tokens, "tokens"),
            (self.revocations, "revocations"),
            (self.pruned, "pruned authorities"),
            (self.unreached, "callers gone"),
        ]
        .into_iter()
        .find_map(|(count, name)| (count == 0).then_some(name))
    }
}

pub struct World {
    pub(crate) now: Now,
    pub(crate) seed: u64,
    pub(crate) host: Host,
    pub(crate) servers: Vec<Server>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) net: Net,
    pub(crate) domain: TrustDomain,
    actions: VecDeque<Action>,
    /// When the troubled part ends, times asleep left out.
    length: u64,
    /// Milliseconds for which all hosts were suspended.
    pub(crate) slept: u64,
    healed: bool,
    pub(crate) serial: u64,
    server_tick: u64,
    heartbeat: u64,
    pub(crate) revive: Vec<(u64, Revive)>,
    trace: Trace,
    pub(crate) tally: Tally,
    pub(crate) coverage: Coverage,
    /// Authorities that an operator took out of the bundle before their end, or lost by going back to a backup.
    pub(crate) revoked: BTreeSet<AuthorityId>,
    /// Agents that did not say in time that they know an authority.
    pub(crate) unheard: BTreeSet<(AuthorityId, SpiffeId)>,
    /// Identities that people took out of force and did not bring back, and where the log stood then.
    pub(crate) stops: BTreeMap<SpiffeId, LogPosition>,
    /// What each agent has acknowledged in which of its lives.
    pub(crate) acknowledged: [Option<(u64, LogPosition)>; AGENTS],
    /// Position and minute for which INV-1 was asked of a server.
    pub(crate) judged: (LogPosition, u64),
}

/// What comes back by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Revive {
    Server(usize),
    Agent(usize),
    Link(usize),
    AgentClock(usize),
    ServerClock(usize),
    /// A server that does not push is replaced by one that does.
    Upgrade(usize),
}

/// Where something happens, for the trace.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    Admin,
    Fault,
    Server(usize),
    Agent(usize),
}

impl World {
    pub fn new(seed: u64, length: u64, actions: &[Action]) -> Self {
        let now = Now { wall: Timestamp::from_secs(1_800_000_000), mono: Tick(0) };
        let domain = TrustDomain::new("example.org").expect("a name");
        let mut host = Host::new(Epoch { started: now.wall.0, random: seed });
        let servers = ["one", "two"]
            .iter()
            .take(SERVERS)
            .map(|n| Server::start(n, domain.clone(), &mut host, Clock::default(), now))
            .collect();
        let agents =
            (0..AGENTS).map(|i| Agent::new(id(&format!("/spire/agent/join_token/{i}")), seed)).collect();
        Self {
            now,
            seed,
            host,
            servers,
            agents,
            net: Net::new(seed, AGENTS),
            domain,
            actions: actions.iter().copied().collect(),
            length,
            slept: 0,
            healed: false,
            serial: 0,
            server_tick: 0,
            heartbeat: HEARTBEAT,
            revive: Vec::new(),
            trace: Trace::default(),
            tally: Tally::default(),
            coverage: Coverage::default(),
            revoked: BTreeSet::new(),
            unheard: BTreeSet::new(),
            stops: BTreeMap::new(),
            acknowledged: [None; AGENTS],
            judged: (LogPosition::default(), u64::MAX),
        }
    }

    /// Counts what is visited.
    pub fn watch(&mut self) {
        self.coverage.on = true;
        self.servers.iter_mut().for_each(|s| s.coverage.on = true);
        self.agents.iter_mut().for_each(|a| a.coverage.on = true);
    }

    pub fn tracing(&mut self, tracing: Tracing) {
        self.trace.tracing = tracing;
    }

    /// Runs to the end, or to the first broken promise.
    pub fn run(&mut self) -> Result<Tally, Broken> {
        self.begin();
        while self.awake() < self.length {
            self.step()?;
        }
        self.heal();
        let (mut end, mut last) = (self.now.mono.0 + PEACE, self.host.position());
        while self.now.mono.0 < end {
            self.step()?;
            let position = self.host.position();
            if position != last {
                (end, last) = (end.max(self.now.mono.0 + TELLING), position);
            }
        }
        self.converged()?;
        self.tally.delivered = self.agents.iter().map(|a| a.delivered).sum();
        self.tally.tokens = self.agents.iter().map(|a| a.tokens).sum();
        self.tally.unreached = self.agents.iter().map(|a| a.unreached).sum();
        self.tally.pruned = self.servers.iter().map(|s| s.pruned).sum();
        Ok(self.tally)
    }

    /// What was visited, all hosts together.
    pub fn visited(&self) -> Coverage {
        let mut all = self.coverage.clone();
        self.servers.iter().for_each(|s| all.add(&s.coverage));
        self.agents.iter().for_each(|a| all.add(&a.coverage));
        all
    }

    pub fn steps(&self) -> u64 {
        self.tally.steps
    }

    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    fn begin(&mut self) {
        self.tick_servers();
        let mut dice = Rng::new(self.seed);
        for agent in 0..AGENTS {
            self.attest(agent, &mut dice);
            for workload in 0..3 {
                let selectors = selectors_of(workload, &mut dice);
                self.agents[agent].wanted.insert(selectors);
            }
            self.start_agent(agent);
        }
    }

    /// Milliseconds since the start, times asleep left out.
    fn awake(&self) -> u64 {
        self.now.mono.0 - self.slept
    }

    /// The moment as an agent's clock shows it.
    pub(crate) fn at_agent(&self, agent: usize) -> Now {
        self.agents[agent].clock.see(self.now)
    }

    /// The moment as a server's clock shows it.
    pub(crate) fn at_server(&self, server: usize) -> Now {
        self.servers[server].clock.see(self.now)
    }

    pub(crate) fn log(&mut self, at: At, event: &str, words: impl FnOnce() -> String) {
        if self.trace.on() {
            let place = self.place(at);
            self.trace.line(self.now.mono.0, &place, event, &words());
        }
    }

    fn place(&self, at: At) -> Place {
        let (host, role) = match at {
            At::Admin => ("-".to_owned(), "admin"),
            At::Fault => ("-".to_owned(), "fault"),
            At::Server(s) => (self.servers[s].name.to_string(), "server"),
            At::Agent(a) => (format!("agent{a}"), "agent"),
        };
        let (wall, revision, oldest) = match at {
            At::Agent(a) => (self.at_agent(a).wall, self.agents[a].revision(), self.agents[a].oldest()),
            At::Server(s) => {
                let server = &self.servers[s];
                (self.at_server(s).wall, server.registry.position().revision.0, server.signer())
            }
            At::Admin | At::Fault => (self.now.wall, self.host.position().revision.0, None),
        };
        Place { host, role, revision, oldest, wall }
    }

    /// Moves to the next moment at which anything happens, lets it happen, and asks every invariant.
    fn step(&mut self) -> Result<(), Broken> {
        let next = self.next_moment();
        self.pass(next.saturating_sub(self.now.mono.0));
        self.tally.steps += 1;
        invariants::inv9_queue_is_bounded(
            "steps",
            usize::try_from(self.tally.steps).unwrap_or(0),
            STEPS_MAX,
        )?;
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
        let mut sleeps = 0;
        while let Some(action) = self.actions.pop_front_if(|a| !self.healed && a.at <= next - self.slept) {
            // A fall into sleep comes last: what is said before it is heard after it.
            match action.kind {
                Kind::Suspend => sleeps += 1,
                _ => self.act(action),
            }
        }
        self.refused_agents();
        self.tell();
        self.check()?;
        for _ in 0..sleeps {
            self.sleep();
        }
        Ok(())
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        let passed = Duration::from_millis(millis);
        self.now = Now { wall: self.now.wall + passed, mono: self.now.mono + passed };
    }

    fn next_moment(&self) -> u64 {
        let mut next = self.server_tick.min(self.heartbeat);
        if let Some(action) = self.actions.front().filter(|_| !self.healed) {
            next = next.min(action.at + self.slept);
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
                self.agents[agent].server = self.net.choose(agent, SERVERS);
            }
            let (server, life) = (self.agents[agent].server, self.agents[agent].life);
            self.log(At::Agent(agent), "asks", || asked(&ask));
            let now = self.now.mono.0;
            if self.agents[agent].cut || !self.servers[server].up || self.net.lost(now, agent) {
                self.give_up(agent, life, &ask);
            } else {
                self.net.send(now, agent, Message::ToServer { server, agent, life, ask });
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
            Ask::Poll { .. } => (CALL_TIMEOUT, Tell::PollFailed(Failure::Away(away))),
            Ask::Ack { .. } => return,
            Ask::Close { .. } => {
                let server = self.agents[agent].server;
                let message = Message::ToServer { server, agent, life, ask: ask.clone() };
                return self.net.send_in(self.now.mono.0 + KEEPALIVE, message);
            }
        };
        self.net.send_in(self.now.mono.0 + after, Message::ToAgent { agent, life, tell });
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::ToAgent { agent, life, tell } => {
                if self.agents[agent].up && self.agents[agent].life == life {
                    let now = self.at_agent(agent);
                    let (event, words) = if self.trace.on() { told(&tell) } else { Default::default() };
                    let delivered = self.agents[agent].delivered;
                    let asks = self.agents[agent].hear(now, tell);
                    let news = self.agents[agent].delivered - delivered;
                    self.log(At::Agent(agent), event, || {
                        if news == 0 { words } else { format!("{words}; {news} workloads told") }
                    });
                    self.ask(agent, asks);
                }
            }
            Message::ToServer { server, agent, life, ask } => {
                let closes = matches!(ask, Ask::Close { .. });
                if !closes && (!self.servers[server].up || self.agents[agent].cut) {
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
        let line = |stream| (agent, life, stream);
        let (host, it) = (&mut self.host, &mut self.servers[server]);
        let tell = match ask.clone() {
            // The connection is gone that this came on.
            Ask::Open { stream, .. } if !self.agents[agent].waits_for(life, stream) => return,
            Ask::Close { stream } => return it.close(line(stream)),
            Ask::Open { stream, position, known } => {
                match it.open(host, now, line(stream), &agent_id, position, &known) {
                    Ok((began, frames)) => {
                        self.coverage.resume(began);
                        self.log(At::Server(server), "stream", || format!("to agent{agent}: {began}"));
                        for frame in frames {
                            self.send_frame(server, line(stream), frame);
                        }
                        return;
                    }
                    Err(failure) => Tell::Ended { stream, failure },
                }
            }
            Ask::Ack { stream, revision } => {
                if it.has(line(stream)) {
                    it.acknowledge(&agent_id, revision);
                    self.acknowledged[agent] =
                        Some((life, LogPosition { revision, ..it.registry.position() }));
                    self.agents[agent].touched = true;
                }
                return;
            }
            Ask::Sign { ticket, entry } => match it.sign(now, &agent_id, &entry) {
                Ok((svid, authority)) => Tell::Signed { ticket, entry, svid, authority },
                Err(failure) => Tell::SignFailed { ticket, entry, failure },
            },
            Ask::Mint { ticket, entry } => match it.mint(now, &agent_id, &entry) {
                Ok((svid, key_id)) => Tell::Minted { ticket, svid, key_id },
                Err(failure) => Tell::MintFailed { ticket, failure },
            },
            Ask::Fetch { domains } => Tell::Bundles(it.fetch(now, &agent_id, &domains)),
            Ask::Poll { whole, known } => it.poll(now, &agent_id, whole, &known, self.agents[agent].learnt),
        };
        let now = self.now.mono.0;
        if self.net.lost(now, agent) {
            self.give_up(agent, life, &ask);
        } else {
            self.net.send(now, agent, Message::ToAgent { agent, life, tell });
        }
    }

    /// A frame on a stream; a lost one breaks the stream on both sides.
    fn send_frame(&mut self, server: usize, line: Line, frame: avouch_engine::sync::Frame) {
        let (agent, life, stream) = line;
        if !self.servers[server].has(line) {
            return;
        }
        if self.agents[agent].cut || self.net.lost(self.now.mono.0, agent) {
            self.break_stream(server, line);
        } else {
            self.net.send_frame(self.now.mono.0, agent, life, stream, frame);
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
                let before = self.servers[server].registry.position();
                self.servers[server].tick(&mut self.host, now);
                let after = self.servers[server].registry.position();
                if before != after {
                    self.log(At::Server(server), "commit", || format!("from {}", before.revision.0));
                }
            }
            if std::mem::take(&mut self.servers[server].died) {
                self.log(At::Fault, "server crash", || format!("server {server}, in the middle of a step"));
                self.stop_server(server);
            }
        }
    }

    fn heal(&mut self) {
        self.healed = true;
        self.net.weather = 0;
        self.net.trouble = Default::default();
        self.host.full_until = 0;
        for what in std::mem::take(&mut self.revive) {
            self.revive.push((self.now.mono.0, what.1));
        }
        for server in 0..SERVERS {
            self.servers[server].clock = Clock::default();
            self.servers[server].doomed = false;
            if self.servers[server].speaks != Speaks::Push {
                self.revive.push((self.now.mono.0, Revive::Upgrade(server)));
            }
        }
        for agent in 0..AGENTS {
            self.agents[agent].clock = Clock::default();
            self.agents[agent].unaware = true;
            self.agents[agent].cut = false;
            self.revive.push((self.now.mono.0 + 1, Revive::Agent(agent)));
        }
        self.log(At::Fault, "heal", || "no more faults".to_owned());
    }
}

/// What an agent asks, in words.
fn asked(ask: &Ask) -> String {
    match ask {
        Ask::Open { stream, position, .. } => {
            format!("stream {stream} from {:?}", position.map(|position| position.revision.0))
        }
        Ask::Poll { whole, known } => format!("all it may have (whole: {whole}), holds {}", known.len()),
        other => format!("{other:?}"),
    }
}

/// The event and the words of what an agent is told.
fn told(tell: &Tell) -> (&'static str, String) {
    match tell {
        Tell::Frame { stream, frame } => {
            let input = avouch_engine::sync::Input::Frame { stream: *stream, frame: frame.clone() };
            (avouch_engine::sync::phase::kind(&input), String::new())
        }
        Tell::Ended { failure, .. } => ("stream ended", format!("{failure:?}")),
        Tell::Signed { entry, svid, authority, .. } => {
            ("signed", format!("{entry} as {} by {authority} until {}", svid.id, svid.not_after))
        }
        Tell::SignFailed { entry, failure, .. } => ("sign failed", format!("{entry}: {failure}")),
        Tell::Minted { svid, key_id, .. } => {
            ("minted", format!("{} by {key_id} until {}", svid.id, svid.expires_at))
        }
        Tell::MintFailed { failure, .. } => ("mint failed", failure.to_string()),
        Tell::Bundles(bundles) => ("bundles", format!("{} of them", bundles.len())),
        Tell::BundlesFailed => ("bundles lost", String::new()),
        Tell::Polled { entries, unchanged, .. } => {
            ("polled", format!("{} entries, {} as before", entries.len(), unchanged.len()))
        }
        Tell::PollFailed(failure) => ("poll failed", format!("{failure:?}")),
    }
}
