//! What people do to the world: entries, bundles, authorities, bans, backups, and workloads that ask.
//!
//! Never decides anything: each action goes through a plan of the real product.

use std::sync::Arc;
use std::time::Duration;

use avouch_domain::fixtures::{id, person_id, set};
use avouch_domain::{
    AuthorityId, AuthorityKind, Bundle, Code, EntryId, Environment, SelectorSet, SpiffeId, TrustDomain, Ttl,
};
use avouch_engine::found::found;
use avouch_engine::plan;
use avouch_engine::plan::bundles::DeleteMode;
use avouch_engine::plan::entries::{EntryPatch, NewEntry};
use avouch_engine::plan::identities::{IdentityPatch, NewIdentity};
use avouch_engine::plan::nodes::Attested;
use avouch_engine::plan::people::NewPerson;
use avouch_engine::rotation;

use crate::actions::{Action, Kind};
use crate::rng::Rng;
use crate::world::{AGENTS, At, Revive, SERVERS, World};

/// Processes that run on a host at a time.
const PIDS: u64 = 3;

/// What workload `n` looks like, one of two ways.
pub fn selectors_of(n: u64, dice: &mut Rng) -> SelectorSet {
    let uid = format!("unix:uid:{n}");
    if dice.chance(50) { set(&[&uid, "unix:gid:1", "unix:path:/bin/a"]) } else { set(&[&uid, "unix:gid:2"]) }
}

pub fn any_agent(dice: &mut Rng) -> usize {
    usize::try_from(dice.below(AGENTS as u64)).unwrap_or(0)
}

impl World {
    pub(crate) fn any_server(&mut self, dice: &mut Rng) -> Option<usize> {
        let up: Vec<usize> = (0..SERVERS).filter(|s| self.servers[*s].up).collect();
        dice.pick(&up).copied()
    }

    pub(crate) fn act(&mut self, action: Action) {
        let dice = &mut Rng::new(action.dice);
        match action.kind {
            Kind::CreateEntry => self.create_entry(action, dice),
            Kind::DeleteEntry => self.delete_entry(dice),
            Kind::UpdateEntry => self.update_entry(dice),
            Kind::Govern => self.govern(dice),
            Kind::SetBundle => self.set_bundle(dice),
            Kind::DropBundle => self.drop_bundle(dice),
            Kind::Subscribe => self.change_subscription(dice),
            Kind::Token => self.want_token(dice),
            Kind::Ban => self.evict(true, dice),
            Kind::Evict => self.evict(false, dice),
            Kind::Taint => self.taint(dice),
            Kind::Revoke => self.revoke(dice),
            Kind::Prepare => self.hurry_rotation(rotation::Input::Prepare, dice),
            Kind::Advance => self.hurry_rotation(rotation::Input::Advance, dice),
            Kind::Backup => {
                self.host.make_backup();
                self.log(At::Admin, "backup", String::new);
            }
            fault => self.strike(fault, dice),
        }
    }

    fn create_entry(&mut self, action: Action, dice: &mut Rng) {
        let Some(server) = self.any_server(dice) else { return };
        let n = action.number as u64;
        let agent = dice.below(AGENTS as u64);
        let alias = dice.chance(15);
        let parent = match dice.below(10) {
            _ if alias => id("/spire/server"),
            0..=5 => id(&format!("/spire/agent/join_token/{agent}")),
            6 | 7 => id("/cluster"),
            _ => id(&format!("/w{}", dice.below(n))),
        };
        let selectors = if alias {
            set(&[if dice.chance(50) { "node:zone:a" } else { "node:all:yes" }])
        } else {
            let uid = format!("unix:uid:{}", dice.below(4));
            let extra = ["unix:gid:1", "unix:gid:2", "unix:path:/bin/a"];
            match dice.pick(&extra) {
                Some(more) if dice.chance(60) => set(&[&uid, more]),
                _ => set(&[&uid]),
            }
        };
        let ends = dice.chance(20).then(|| self.now.wall + Duration::from_millis(dice.below(900_000)));
        let federates = self.federation(dice);
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
        let made = self.servers[server].write(&mut self.host, now, |r| {
            plan::entries::create(r, now.wall, "admin", std::slice::from_ref(&new), &[])
        });
        self.tally.commits += 1;
        let done = made.iter().all(Result::is_ok);
        self.log(At::Admin, "create entry", || {
            format!("e{n:05} {} below {}, done: {done}", new.spiffe_id, new.parent_id)
        });
    }

    fn federation(&mut self, dice: &mut Rng) -> Vec<TrustDomain> {
        let known: Vec<TrustDomain> = self.servers[0]
            .registry
            .bundles()
            .map(|b| b.trust_domain.clone())
            .filter(|d| *d != self.domain)
            .collect();
        if dice.chance(30) { dice.pick(&known).cloned().into_iter().collect() } else { Vec::new() }
    }

    fn any_entry(&mut self, server: usize, dice: &mut Rng) -> Option<EntryId> {
        let ids: Vec<EntryId> = self.servers[server].registry.entries().map(|e| e.id.clone()).collect();
        dice.pick(&ids).cloned()
    }

    fn delete_entry(&mut self, dice: &mut Rng) {
        let Some(server) = self.any_server(dice) else { return };
        let Some(entry) = self.any_entry(server, dice) else { return };
        let now = self.at_server(server);
        let _ = self.servers[server].write(&mut self.host, now, |r| {
            plan::entries::delete(r, now.wall, "admin", std::slice::from_ref(&entry))
        });
        self.log(At::Admin, "delete entry", || entry.to_string());
    }

    fn update_entry(&mut self, dice: &mut Rng) {
        let Some(server) = self.any_server(dice) else { return };
        let Some(entry) = self.any_entry(server, dice) else { return };
        let mut patch = EntryPatch::empty(entry.clone());
        match dice.below(3) {
            0 => {
                let selectors = set(&[&format!("unix:uid:{}", dice.below(4))]);
                patch.selectors = Some(selectors.iter().cloned().collect());
            }
            1 => {
                patch.parent_id = Some(id(&format!("/spire/agent/join_token/{}", dice.below(AGENTS as u64))))
            }
            _ => patch.hint = Some(format!("h{}", dice.below(9))),
        }
        let now = self.at_server(server);
        let _ = self.servers[server].write(&mut self.host, now, |r| {
            plan::entries::update(r, now.wall, "admin", std::slice::from_ref(&patch))
        });
        self.log(At::Admin, "update entry", || format!("{patch:?}"));
    }

    /// The one person of this world owns everything that he adopts.
    fn govern(&mut self, dice: &mut Rng) {
        let Some(server) = self.any_server(dice) else { return };
        let now = self.at_server(server);
        let me = person_id("per_admin");
        if self.servers[server].registry.person(&me).is_none() {
            let first = NewPerson { id: me, name: "admin".into(), uid: None, sign_in: None, security: true };
            let made =
                self.servers[server].write(&mut self.host, now, |r| plan::people::first(r, now.wall, &first));
            self.log(At::Admin, "first person", || format!("done: {}", made.is_ok()));
            return;
        }
        let registry = &self.servers[server].registry;
        let known: Vec<SpiffeId> = registry.identities().map(|i| i.spiffe_id.clone()).collect();
        let free: Vec<SpiffeId> = found(registry, None).map(|f| f.name).collect();
        let adopts = known.is_empty() || dice.chance(30);
        let Some(name) = dice.pick(if adopts { &free } else { &known }).cloned() else { return };
        let end = now.wall + Duration::from_millis(1 + dice.below(900_000));
        let kind = if dice.chance(50) { avouch_domain::Kind::AiAgent } else { avouch_domain::Kind::Service };
        let deed = if adopts { 0 } else { 1 + dice.below(20) };
        let done = self.servers[server].write(&mut self.host, now, |r| match deed {
            0 => {
                let new = NewIdentity {
                    name: name.clone(),
                    kind,
                    environment: Environment::Test,
                    purpose: Code::new("tests").expect("a purpose"),
                    preset: None,
                    owner: me.clone(),
                    successor: None,
                    end,
                };
                let (plan, mut outcomes) = plan::identities::adopt(r, now.wall, &me, &[new]);
                (plan, outcomes.remove(0))
            }
            1..=8 => plan::identities::pause(r, now.wall, &me, &name),
            9..=15 => plan::identities::resume(r, now.wall, &me, &name),
            16..=18 => {
                let patch = IdentityPatch { end: Some(end), ..IdentityPatch::default() };
                plan::identities::patch(r, now.wall, &me, &name, &patch)
            }
            _ => plan::identities::stop(r, now.wall, &me, &name),
        });
        let position = self.servers[server].registry.position();
        match deed {
            1..=8 | 19.. if done.is_ok() => drop(self.stops.insert(name.clone(), position)),
            9..=15 if done.is_ok() => drop(self.stops.remove(&name)),
            _ => {}
        }
        self.log(At::Admin, "govern", || format!("{name}, deed {deed}, done: {}", done.is_ok()));
    }

    fn set_bundle(&mut self, dice: &mut Rng) {
        let Some(server) = self.any_server(dice) else { return };
        let name = format!("fed{}.org", dice.below(3));
        let mut bundle = Bundle::empty(TrustDomain::new(&name).expect("a name"));
        bundle.sequence_number = dice.below(1000);
        let (now, domain) = (self.at_server(server), self.domain.clone());
        let _ = self.servers[server].write(&mut self.host, now, |r| {
            plan::bundles::set(r, now.wall, "admin", &domain, std::slice::from_ref(&bundle))
        });
        self.log(At::Admin, "set bundle", || name);
    }

    fn drop_bundle(&mut self, dice: &mut Rng) {
        let Some(server) = self.any_server(dice) else { return };
        let name = TrustDomain::new(&format!("fed{}.org", dice.below(3))).expect("a name");
        let (now, domain) = (self.at_server(server), self.domain.clone());
        let _ = self.servers[server].write(&mut self.host, now, |r| {
            let mode = DeleteMode::Dissociate;
            plan::bundles::delete(r, now.wall, "admin", &domain, std::slice::from_ref(&name), mode)
        });
        self.log(At::Admin, "drop bundle", || name.to_string());
    }

    fn change_subscription(&mut self, dice: &mut Rng) {
        let agent = any_agent(dice);
        let number = dice.below(4);
        let selectors = selectors_of(number, dice);
        let now = self.at_agent(agent);
        let joins = dice.chance(60);
        self.log(At::Agent(agent), if joins { "subscribe" } else { "unsubscribe" }, || {
            format!("{selectors:?}")
        });
        let asks = if joins {
            self.agents[agent].subscribe(now, selectors)
        } else {
            self.agents[agent].unsubscribe(now, &selectors)
        };
        self.ask(agent, asks);
    }

    fn evict(&mut self, ban: bool, dice: &mut Rng) {
        let Some(server) = self.any_server(dice) else { return };
        let agent = any_agent(dice);
        let (now, agent_id) = (self.at_server(server), self.agents[agent].id.clone());
        let _ = self.servers[server].write(&mut self.host, now, |r| {
            if ban {
                plan::nodes::ban(r, now.wall, "admin", &agent_id)
            } else {
                plan::nodes::delete(r, now.wall, "admin", &agent_id)
            }
        });
        self.log(At::Admin, if ban { "ban" } else { "evict" }, || format!("agent{agent}"));
        if ban {
            self.revive.push((self.now.mono.0 + 30_000 + dice.below(60_000), Revive::Agent(agent)));
        }
    }

    /// Gives the own bundle, which comes with the answer.
    pub(crate) fn attest(&mut self, agent: usize, dice: &mut Rng) -> Option<Arc<Bundle>> {
        let server = self.any_server(dice)?;
        self.serial += 1;
        let (now, agent_id) = (self.at_server(server), self.agents[agent].id.clone());
        self.servers[server].follow(&mut self.host, now);
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
            .write(&mut self.host, now, |r| plan::nodes::attest(r, now.wall, "agent", &attested))
            .ok()?;
        self.servers[server].registry.bundle(&self.domain).cloned()
    }

    pub(crate) fn start_agent(&mut self, agent: usize) {
        let seed = Rng::new(self.seed ^ ((agent as u64) << 48) ^ self.agents[agent].life).next();
        let now = self.at_agent(agent);
        let asks = self.agents[agent].start(now, seed);
        self.ask(agent, asks);
    }

    // --- authorities ---

    fn any_authority(&mut self, server: usize, dice: &mut Rng) -> Option<AuthorityId> {
        let all: Vec<_> = self.servers[server].registry.authorities().map(|a| a.id.clone()).collect();
        dice.pick(&all).cloned()
    }

    fn taint(&mut self, dice: &mut Rng) {
        let Some(server) = self.any_server(dice) else { return };
        let Some(authority) = self.any_authority(server, dice) else { return };
        let (now, domain) = (self.at_server(server), self.domain.clone());
        let found = self.servers[server].write(&mut self.host, now, |r| {
            plan::authorities::taint(r, now.wall, "admin", &domain, &authority)
        });
        self.log(At::Admin, "taint", || format!("{authority}, done: {found}"));
    }

    /// Asks for any authority to be revoked: only a tainted one that does not sign may be.
    fn revoke(&mut self, dice: &mut Rng) {
        let Some(server) = self.any_server(dice) else { return };
        let tainted = self.servers[server].registry.authorities().filter(|a| a.tainted);
        let tainted: Vec<_> = tainted.map(|a| a.id.clone()).collect();
        let wanted = if dice.chance(70) { tainted } else { Vec::new() };
        let Some(authority) = dice.pick(&wanted).cloned().or_else(|| self.any_authority(server, dice)) else {
            return;
        };
        let (now, domain) = (self.at_server(server), self.domain.clone());
        let found = self.servers[server].write(&mut self.host, now, |r| {
            plan::authorities::revoke(r, now.wall, "admin", &domain, &authority)
        });
        if found {
            self.revoked.insert(authority.clone());
            self.tally.revocations += 1;
            for kind in [AuthorityKind::X509, AuthorityKind::Jwt] {
                let input = rotation::Input::Revoke(authority.clone());
                self.servers[server].drive(&mut self.host, now, kind, input);
            }
        }
        self.log(At::Admin, "revoke", || format!("{authority}, done: {found}"));
    }

    /// An operator wants the next authority sooner.
    fn hurry_rotation(&mut self, input: rotation::Input, dice: &mut Rng) {
        let Some(server) = self.any_server(dice) else { return };
        let kind = if dice.chance(70) { AuthorityKind::X509 } else { AuthorityKind::Jwt };
        self.log(At::Admin, "hurry", || format!("{input:?} of {kind:?} at server {server}"));
        let now = self.at_server(server);
        if input == rotation::Input::Prepare {
            self.servers[server].make_room(&mut self.host, now, kind);
        }
        self.servers[server].drive(&mut self.host, now, kind, input);
    }

    // --- tokens ---

    /// Processes ask for tokens, and may be gone before they have them.
    fn want_token(&mut self, dice: &mut Rng) {
        let agent = any_agent(dice);
        let now = self.at_agent(agent);
        let (pid, number) = (dice.below(PIDS), dice.below(4));
        let (fresh, next) = (selectors_of(number, dice), selectors_of((number + 1) % 4, dice));
        if dice.chance(20) {
            self.agents[agent].processes.replace(pid, fresh.clone());
        }
        for audience in ["a", "b", "c"].iter().take(1 + usize::from(dice.chance(60)) * 2) {
            for _ in 0..=dice.below(2) {
                let caller = self.agents[agent].processes.connect(pid, fresh.clone());
                let asks = self.agents[agent].want_token(now, caller, audience);
                self.ask(agent, asks);
            }
        }
        if dice.chance(15) {
            // It exits, and its number is given out again before the agent has heard of it.
            self.agents[agent].processes.replace(pid, next);
        }
        if dice.chance(10) {
            let asks = self.agents[agent].abandon_one(now);
            self.ask(agent, asks);
        }
    }
}
