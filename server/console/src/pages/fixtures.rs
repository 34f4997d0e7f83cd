//! A made-up server for tests of the pages, in which others wrote one text wherever they can write.

use std::collections::BTreeMap;

use avouch_credential::ledger::trace::Seen;
use avouch_credential::shown::laid_out;
use avouch_domain::Timestamp;
use avouch_proto::governance_v1 as wire;

use super::*;
use crate::limits::{PAST, RECORDS, ROWS};

/// 2026-11-29T02:00:00Z.
pub(super) const NOW: i64 = 1_795_917_600;
pub(super) const TOKEN: &str = "0f3a5b7c9d1e2f3a5b7c9d1e2f3a5b7c";
pub(super) const CODER: &str = "spiffe://example.org/test/coder";

pub(super) fn person(id: &str, name: &str, security: bool) -> wire::Person {
    wire::Person { id: id.into(), name: name.into(), security, state: "active".into(), ..Default::default() }
}

pub(super) fn coder() -> wire::Identity {
    wire::Identity {
        spiffe_id: CODER.into(),
        kind: "ai_agent".into(),
        environment: "test".into(),
        purpose: "fix-bugs".into(),
        owner: "per_a".into(),
        ends_at: NOW + 12 * 86_400,
        standing: "active".into(),
        added_by: "per_a".into(),
        added_at: NOW - 86_400,
        yes_by: "per_b".into(),
        ..Default::default()
    }
}

pub(super) fn waiting() -> wire::Request {
    wire::Request {
        id: "req_3f9a0c51d2e7".into(),
        hash: vec![0xab; 32],
        spiffe_id: CODER.into(),
        node: "spiffe://example.org/spire/agent/x509pop/0f3a".into(),
        action: "repo.merge".into(),
        resource: "git/pay".into(),
        needs_person: true,
        standing: "waiting".into(),
        asked_at: NOW - 90,
        until: NOW + 900,
        ..Default::default()
    }
}

/// What a frame borrows from, and rows for every page.
pub(super) struct World {
    pub(super) me: wire::Person,
    pub(super) people: Vec<wire::Person>,
    pub(super) names: BTreeMap<String, String>,
    pub(super) overview: wire::OverviewResponse,
    pub(super) identities: Vec<wire::Identity>,
    pub(super) cards: Vec<Card>,
    pub(super) past: Vec<wire::Request>,
    pub(super) records: Vec<Happened>,
    pub(super) grants: Vec<wire::Grant>,
    pub(super) emergencies: Vec<wire::Emergency>,
    pub(super) found: Vec<wire::Found>,
    pub(super) chains: Vec<wire::NodeChain>,
    pub(super) stop: wire::StopResponse,
    pub(super) rules: wire::PublishedRules,
    pub(super) filter: Filter,
    pub(super) text: String,
    /// At which provider they signed in.
    pub(super) provider: Option<String>,
}

impl World {
    /// Nothing but two people.
    pub(super) fn empty() -> Self {
        let people = vec![person("per_a", "Alice", true), person("per_b", "Bob", true)];
        Self {
            me: people[0].clone(),
            names: people.iter().map(|person| (person.id.clone(), person.name.clone())).collect(),
            people,
            overview: wire::OverviewResponse { people: 2, security_people: 2, ..Default::default() },
            identities: Vec::new(),
            cards: Vec::new(),
            past: Vec::new(),
            records: Vec::new(),
            grants: Vec::new(),
            emergencies: Vec::new(),
            found: Vec::new(),
            chains: Vec::new(),
            stop: wire::StopResponse::default(),
            rules: wire::PublishedRules::default(),
            filter: Filter::default(),
            text: String::new(),
            provider: None,
        }
    }

    /// As many rows of each kind as a page has.
    pub(super) fn full() -> Self {
        let mut world = Self::empty();
        let ids = (0..ROWS).map(|n| format!("spiffe://example.org/prod/payments/worker-{n:03}"));
        world.identities = ids
            .map(|spiffe_id| wire::Identity {
                spiffe_id,
                stop_tried: Some(wire::StopTried { at: NOW - 86_400, nodes: 3, confirmed: 3, took_ms: 9 }),
                ..coder()
            })
            .collect();
        world.past = vec![wire::Request { standing: "no".into(), no_by: "per_b".into(), ..waiting() }; PAST];
        let shown = laid_out("-let limit = 1;\n+let limit = 2;\n");
        world.cards =
            vec![Card { request: waiting(), identity: Some(coder()), task: "fix-4711".into(), shown }; 5];
        world.records = vec![decision(); usize::try_from(RECORDS).unwrap()];
        world.grants = vec![grant(); 5];
        world.emergencies = vec![emergency(); 10];
        world.stop = wire::StopResponse {
            identity: Some(coder()),
            nodes: (0..100)
                .map(|n| node(&format!("spiffe://example.org/spire/agent/x509pop/{n:040x}"), n % 2 > 0))
                .collect(),
            accepted_until: NOW + 600,
        };
        world.overview = wire::OverviewResponse {
            active: 12,
            paused: 1,
            found: 3,
            waiting: 2,
            people: 2,
            security_people: 1,
            nodes: 3,
            following: 2,
            last_record: 4711,
            not_confirmed: 1,
            ending: 2,
            stop_untried: 4,
            ..Default::default()
        };
        world.found = vec![found("spiffe://example.org/billing/api"); 3];
        world
    }

    /// Everything that others write is this text.
    pub(super) fn hostile(text: &str) -> Self {
        let mut world = Self::full();
        let all = || text.to_owned();
        let people = [person("per_a", text, true), person(text, text, false)];
        world.people = people.to_vec();
        world.me = people[0].clone();
        world.names = people.into_iter().map(|person| (person.id, person.name)).collect();
        let identity = wire::Identity {
            spiffe_id: format!("spiffe://example.org/{text}"),
            kind: all(),
            environment: all(),
            purpose: all(),
            successor: all(),
            standing: all(),
            cause: all(),
            added_by: all(),
            yes_by: all(),
            preset: all(),
            confirm_by: i64::MAX,
            ends_at: i64::MIN,
            ..coder()
        };
        let request = request_of(text);
        let waits = wire::Request { standing: "waiting".into(), ..request.clone() };
        let card =
            Card { request: waits, identity: Some(identity.clone()), task: all(), shown: laid_out(text) };
        world.cards = vec![card.clone(), Card { request: request.clone(), identity: None, ..card }];
        world.past = vec![request];
        let record = Happened {
            source: all(),
            at: all(),
            actor: all(),
            subject: all(),
            detail: ["action", "outcome", "reason", "by", text].map(|name| (name.into(), all())).into(),
            ..decision()
        };
        world.records = vec![Happened { event: all(), ..record.clone() }, record];
        let given = wire::Grant {
            id: all(),
            action: all(),
            resource: all(),
            given_by: all(),
            standing: all(),
            ..grant()
        };
        world.grants = vec![given];
        world.emergencies = emergencies_of(text);
        world.found = vec![wire::Found { suggested_owner: all(), reason: all(), ..found(text) }];
        world.chains = vec![wire::NodeChain { number: 1, source: all(), chain: all(), ..Default::default() }];
        world.stop = wire::StopResponse {
            identity: Some(identity.clone()),
            nodes: vec![node(text, true), node(text, false)],
            ..world.stop
        };
        world.identities = vec![identity];
        world.rules = wire::PublishedRules { published_by: all(), ..Default::default() };
        world.filter = any_filter(text);
        world.text = all();
        world.provider = Some(all());
        world
    }

    pub(super) fn frame(&self) -> Frame<'_> {
        Frame {
            trust_domain: "example.org",
            me: &self.me,
            provider: self.provider.as_deref(),
            signed_in_at: Timestamp::from_secs(NOW - 120),
            names: &self.names,
            form_token: TOKEN,
            now: Timestamp::from_secs(NOW),
            overview: &self.overview,
        }
    }

    pub(super) fn home(&self) -> String {
        let waiting: Vec<_> = self.cards.iter().map(|card| card.request.clone()).collect();
        let refused = &self.records[..self.records.len().min(10)];
        let (found, emergencies, rules) = (&self.found, &self.emergencies, Some(&self.rules));
        let page = Home { found, emergencies, waiting: &waiting, refused, rules };
        home(&self.frame(), &page).unwrap()
    }

    pub(super) fn identities(&self) -> String {
        let done = self
            .identities
            .iter()
            .take(5)
            .map(|identity| Done { spiffe_id: identity.spiffe_id.clone(), error: self.text.clone() });
        let done: Vec<_> = done.collect();
        let page = Identities {
            rows: &self.identities,
            filter: &self.filter,
            next_page_token: if self.identities.is_empty() { "" } else { "a&b" },
            people: &self.people,
            done: &done,
        };
        identities(&self.frame(), &page).unwrap()
    }

    pub(super) fn identity(&self, it: &wire::Identity) -> String {
        let nodes: Vec<_> = self.stop.nodes.iter().take(10).map(|node| node.node.clone()).collect();
        let view = IdentityView {
            identity: it,
            entry_ids: &nodes,
            agent_ids: &nodes,
            grants: &self.grants,
            used: &self.records,
            people: &self.people,
            notice: &self.text,
        };
        identity(&self.frame(), &view).unwrap()
    }

    pub(super) fn requests(&self, stale: bool) -> String {
        let page = Requests { cards: &self.cards, more: 0, past: &self.past, notice: &self.text, stale };
        requests(&self.frame(), &page).unwrap()
    }

    pub(super) fn log(&self, chain: u64) -> String {
        let head = wire::Head {
            seq: 4711,
            hash: vec![1; 32],
            at_ms: NOW * 1_000,
            key: vec![2; 91],
            ..Default::default()
        };
        let head = (!self.records.is_empty()).then_some(head);
        let page =
            Log { records: &self.records, chains: &self.chains, chain, older: 4_611, head: head.as_ref() };
        log(&self.frame(), &page).unwrap()
    }

    /// Who is behind a decision: one hop known, one not.
    pub(super) fn traced(&self) -> String {
        let text = |known: &str| if self.text.is_empty() { known.to_owned() } else { self.text.clone() };
        let seen = Seen { source: text("spiffe://example.org/spire/agent/a"), seq: 7, ..Seen::default() };
        let known = Some((text("tool.call of files/write_file: deny"), seen));
        let hops = [Hop { name: "decision", known }, Hop { name: "owner", known: None }];
        let shown = Traced { source: &self.text, chain: 1, record: 7, hops: Ok(&hops) };
        traced(&self.frame(), &shown).unwrap()
    }

    /// A part of the log that holds, or does not.
    pub(super) fn verified(&self, holds: bool) -> String {
        let (summary, broken) = (LogSummary::default(), LogError::Twice(self.text.clone()));
        let checked = if holds { Ok(&summary) } else { Err(&broken) };
        verified(&self.frame(), &Verified { whose: &self.text, chain: 0, checked }).unwrap()
    }

    /// All pages in all their forms, by name.
    pub(super) fn pages(&self) -> Vec<(&'static str, String)> {
        let it = self.identities.first().cloned().unwrap_or_else(coder);
        let frame = &self.frame();
        let mut pages = vec![
            ("home", self.home()),
            ("identities", self.identities()),
            ("identity", self.identity(&it)),
            ("requests", self.requests(false)),
            ("stale requests", self.requests(true)),
            ("log", self.log(0)),
            ("log of a chain", self.log(1)),
            ("verified", self.verified(true)),
            ("broken", self.verified(false)),
            ("traced", self.traced()),
            ("signed out", signed_out("example.org", self.provider.as_deref()).unwrap()),
            ("stranger", stranger(&self.text, &self.text, false).unwrap()),
            ("stranger who waits", stranger(&self.text, &self.text, true).unwrap()),
            ("failed", failed(Some(frame), false, 404, &self.text, &self.text).unwrap()),
            ("too late", failed(Some(frame), true, 409, &self.text, &self.text).unwrap()),
            ("failed without a frame", failed(None, false, 403, &self.text, &self.text).unwrap()),
        ];
        for what in ["pause", "stop", "drill"] {
            pages.push((what, stopped(frame, what, &self.stop).unwrap()));
        }
        for standing in ["proposed", "active", "paused", "stopped"] {
            let it = wire::Identity { standing: standing.into(), ..it.clone() };
            pages.push((standing, self.identity(&it)));
        }
        pages
    }
}

fn any_filter(text: &str) -> Filter {
    let all = || text.to_owned();
    Filter { standing: all(), kind: all(), env: all(), owner: all(), unused: all(), page: all() }
}

pub(super) fn decision() -> Happened {
    let detail = [("action", "tool.call"), ("outcome", "deny"), ("reason", "no_rule"), ("rules", "7")];
    Happened {
        source: "spiffe://example.org/spire/agent/x509pop/0f3a".into(),
        chain: 1,
        seq: 4_242,
        at: "2026-11-29T01:57:00.123Z".into(),
        event: "decision".into(),
        actor: "ins_c5e9fdc5679449d3b9449b103ff94892".into(),
        subject: "files/write_file".into(),
        detail: detail.map(|(name, value)| (name.into(), value.into())).into(),
    }
}

pub(super) fn emergency() -> wire::Emergency {
    wire::Emergency {
        id: "em_3f9a0c51d2e7".into(),
        spiffe_id: CODER.into(),
        action: "repo.merge".into(),
        resource: "git/pay".into(),
        why: "the site is down".into(),
        asked_by: "per_a".into(),
        asked_at: NOW - 60,
        agreed_by: "per_b".into(),
        seconds: 900,
        ends_at: NOW + 840,
        standing: "open".into(),
        ..Default::default()
    }
}

/// One that is open and one that waits, in which everything that others write is this text.
fn emergencies_of(text: &str) -> Vec<wire::Emergency> {
    let all = || text.to_owned();
    let open = wire::Emergency {
        id: all(),
        spiffe_id: all(),
        action: all(),
        resource: all(),
        why: all(),
        asked_by: all(),
        agreed_by: all(),
        ..emergency()
    };
    vec![open.clone(), wire::Emergency { agreed_by: String::new(), ..open }]
}

/// A request in which everything that others write is this text.
fn request_of(text: &str) -> wire::Request {
    let all = || text.to_owned();
    wire::Request {
        id: all(),
        spiffe_id: all(),
        node: all(),
        action: all(),
        resource: all(),
        person_yes_by: all(),
        no_by: all(),
        standing: all(),
        ..waiting()
    }
}

fn grant() -> wire::Grant {
    wire::Grant {
        id: "gr_3f9a0c51d2e7".into(),
        action: "secret.read".into(),
        resource: "vault/deploy-key".into(),
        given_by: "per_b".into(),
        ends_at: NOW + 3_600,
        max_uses: 3,
        uses: 1,
        standing: "open".into(),
        ..Default::default()
    }
}

fn found(spiffe_id: &str) -> wire::Found {
    wire::Found {
        spiffe_id: spiffe_id.into(),
        entries: 1,
        suggested_owner: "per_a".into(),
        reason: "it runs as user 1001".into(),
        withheld_from: 0,
    }
}

pub(super) fn node(name: &str, confirmed: bool) -> wire::StopNode {
    wire::StopNode { node: name.into(), confirmed, took_ms: 7, decides_until: 0 }
}
