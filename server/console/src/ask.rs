//! What the pages ask the governance service for.
//!
//! Never more than a page shows: what is looked through has named limits.

use std::collections::BTreeMap;

use avouch_credential::ledger::{read_line, read_node_line};
use avouch_credential::{request, shown};
use avouch_domain::Now;
use avouch_proto::governance_v1 as wire;
use serde_json::Value;
use tonic::Status;

use crate::Governance;
use crate::limits::{CARDS, CHAIN_PAGES, CHAINS, FRESH, LOOKED_BACK};
use crate::pages::{Card, Frame, Happened};
use crate::sessions::Visitor;

/// What every page needs.
pub(crate) struct Visit {
    pub(crate) governance: Governance,
    pub(crate) visitor: Visitor,
    pub(crate) me: wire::Person,
    pub(crate) people: Vec<wire::Person>,
    pub(crate) names: BTreeMap<String, String>,
    pub(crate) overview: wire::OverviewResponse,
    pub(crate) form_token: String,
    pub(crate) now: Now,
}

impl Visit {
    pub(crate) async fn begin(
        mut governance: Governance,
        visitor: Visitor,
        form_token: String,
        now: Now,
    ) -> Result<Self, Status> {
        let people = governance.list_people(wire::ListPeopleRequest {}).await?.into_inner().people;
        let overview = governance.overview(wire::OverviewRequest {}).await?.into_inner();
        let names = people.iter().map(|person| (person.id.clone(), person.name.clone())).collect();
        let me = people.iter().find(|person| person.id == visitor.person.as_str()).cloned();
        let me = me.ok_or_else(|| Status::permission_denied("whoever is signed in is no person here"))?;
        Ok(Self { governance, visitor, me, people, names, overview, form_token, now })
    }

    /// True if the sign-in is too old for what makes more possible.
    pub(crate) fn is_stale(&self) -> bool {
        self.now.since(self.visitor.signed_in) >= FRESH
    }

    /// Counts again, after something was done.
    pub(crate) async fn count_anew(&mut self) -> Result<(), Status> {
        self.overview = self.governance.overview(wire::OverviewRequest {}).await?.into_inner();
        Ok(())
    }

    pub(crate) fn frame<'a>(&'a self, trust_domain: &'a str) -> Frame<'a> {
        Frame {
            trust_domain,
            me: &self.me,
            provider: self.visitor.account.as_ref().map(|account| account.issuer.host()),
            signed_in_at: self.visitor.signed_in.wall,
            names: &self.names,
            form_token: &self.form_token,
            now: self.now.wall,
            overview: &self.overview,
        }
    }

    /// The chains of a node, or of all, those that began last first.
    pub(crate) async fn chains(&mut self, source: &str) -> Result<Vec<wire::NodeChain>, Status> {
        let mut chains: Vec<wire::NodeChain> = Vec::new();
        for _ in 0..CHAIN_PAGES {
            let after = chains.last().map_or(0, |chain| chain.number);
            let asked = wire::ListChainsRequest { source: source.to_owned(), after };
            let page = self.governance.list_chains(asked).await?.into_inner().chains;
            if page.is_empty() {
                break;
            }
            chains.extend(page);
        }
        chains.reverse();
        Ok(chains)
    }

    /// The chain of this number.
    pub(crate) async fn chain(&mut self, number: u64) -> Result<wire::NodeChain, Status> {
        let after = number.saturating_sub(1);
        let asked = wire::ListChainsRequest { source: String::new(), after };
        let page = self.governance.list_chains(asked).await?.into_inner().chains;
        let found = page.into_iter().find(|chain| chain.number == number);
        found.ok_or_else(|| Status::not_found("No node has a chain of this number."))
    }

    /// The last records of these chains, newest first.
    pub(crate) async fn recent(&mut self, chains: &[wire::NodeChain]) -> Result<Vec<Happened>, Status> {
        let mut all = Vec::new();
        for chain in chains.iter().filter(|chain| chain.last > 0).take(CHAINS) {
            let after = chain.last.saturating_sub(LOOKED_BACK);
            all.extend(self.records(chain.number, after, LOOKED_BACK).await?.0);
        }
        all.sort_by(|a, b| (&b.at, b.seq).cmp(&(&a.at, a.seq)));
        Ok(all)
    }

    /// Records of a chain (0: the server's log) after a number, oldest first, and the newest head over them.
    pub(crate) async fn records(
        &mut self,
        chain: u64,
        after: u64,
        most: u64,
    ) -> Result<(Vec<Happened>, Option<wire::Head>), Status> {
        let limit = i32::try_from(most).unwrap_or(i32::MAX);
        let asked = wire::ListRecordsRequest { after, limit, chain };
        let mut got = self.governance.list_records(asked).await?.into_inner();
        let read = |line: &String| match chain {
            0 => of_server(line),
            _ => of_node(chain, line),
        };
        Ok((got.lines.iter().filter_map(read).collect(), got.heads.pop()))
    }

    /// A request with its text; `None` if the text is not the one that was hashed.
    pub(crate) async fn card(&mut self, asked: &wire::Request) -> Result<Option<Card>, Status> {
        let got = self.governance.get_request(wire::GetRequestRequest { id: asked.id.clone() }).await?;
        let got = got.into_inner();
        let fits = |request: &wire::Request| {
            request.id == asked.id && request::hash(&got.text).0.as_slice() == request.hash
        };
        let Some(request) = got.request.filter(fits) else { return Ok(None) };
        let Ok(content) = request::read(&got.text) else { return Ok(None) };
        let (task, shown) = (content.task.to_string(), shown::laid_out(&content.shown));
        Ok(Some(Card { request, identity: got.identity, task, shown }))
    }

    /// Cards of these, as many as a page has.
    pub(crate) async fn cards(&mut self, requests: &[wire::Request]) -> Result<Vec<Card>, Status> {
        let mut cards = Vec::new();
        for request in requests.iter().take(CARDS) {
            // One that has ended meanwhile is on the page no more.
            cards.extend(self.card(request).await?);
        }
        Ok(cards)
    }
}

fn of_server(line: &str) -> Option<Happened> {
    let record = read_line(line).ok()?;
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Some(Happened {
        source: String::new(),
        chain: 0,
        seq: record.seq,
        at: record.at,
        event: record.event,
        actor: record.actor,
        subject: record.subject,
        detail: record.detail.into_iter().map(|(name, value)| (name, text(value))).collect(),
    })
}

fn of_node(chain: u64, line: &str) -> Option<Happened> {
    let record = read_node_line(line).ok()?;
    let detail = record.details().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Some(Happened {
        source: record.source.into_owned(),
        chain,
        seq: record.seq,
        at: record.at.into_owned(),
        event: record.event.into_owned(),
        actor: record.actor.into_owned(),
        subject: record.subject.into_owned(),
        detail,
    })
}
