//! What a browser may look at: from a path to a page.
//!
//! Never changes anything; that is `actions.rs`.

use hyper::StatusCode;
use hyper::header;
use tonic::{Code, Status};

use avouch_proto::governance_v1 as wire;

use crate::ask::Visit;
use crate::forms::Fields;
use crate::http::{Answer, Asked, Place, html, problem, see};
use crate::limits::{CHAINS, CHAINS_SHOWN, FIRST_FEW, PAST, RECORDS, ROWS, USED};
use crate::sessions::{form_token, room};
use crate::{Console, pages, proving};

/// Uses a link.
pub(crate) fn sign_in(console: &Console, place: &Place, code: &str) -> Answer {
    let begun = console.sessions.redeem(code, place.user(), (console.clock)());
    let begun = match begun {
        Ok(Some(cookie)) => place.cookie(&cookie).map(|header| (header, room(&cookie))),
        Ok(None) => {
            let text = "A link signs in once, within a minute, and nobody but who asked for it. `avouch console` makes a new one.";
            return problem(StatusCode::GONE, "This link has been used, or is too old", text);
        }
        Err(error) => {
            tracing::error!(%error, "Nobody could be signed in");
            None
        }
    };
    let Some((cookie, room)) = begun else {
        let text = "The server could not make a session. Its log says why.";
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "Not signed in", text);
    };
    let mut answer = see(&format!("/{room}/"));
    answer.headers_mut().insert(header::SET_COOKIE, cookie);
    answer
}

/// Who asks, with what every page needs; or what somebody sees who is not signed in.
pub(crate) async fn visit(console: &Console, asked: &Asked<'_>) -> Result<Visit, Answer> {
    let now = (console.clock)();
    let signed_out =
        || html(StatusCode::UNAUTHORIZED, pages::signed_out(&console.trust_domain, console.provider()));
    let Some(cookie) = asked.cookie() else { return Err(signed_out()) };
    let visitor = console.sessions.find(cookie, asked.place.user(), now);
    let Some(visitor) = visitor else { return Err(signed_out()) };
    let governance = console.governance(&visitor);
    match Visit::begin(governance, visitor, form_token(cookie), now).await {
        Ok(visit) => Ok(visit),
        Err(status) => {
            if status.code() == Code::PermissionDenied {
                console.sessions.end(cookie);
            }
            let (code, title) = meaning(&status);
            Err(problem(code, title, status.message()))
        }
    }
}

/// Shows a page.
pub(crate) async fn page(console: &Console, asked: &Asked<'_>, query: &Fields) -> Answer {
    let mut visit = match visit(console, asked).await {
        Ok(visit) => visit,
        Err(answer) => return answer,
    };
    let domain = &console.trust_domain;
    let shown = match asked.path {
        "" => home(&mut visit, domain).await,
        "identities" => {
            let filter = filter(query);
            identities(&mut visit, domain, &filter, &[]).await
        }
        "identity" => identity(&mut visit, domain, query.get("name"), said(query.get("done"))).await,
        "requests" => requests(&mut visit, domain, said(query.get("done"))).await,
        "log" => log(&mut visit, domain, query.number("chain"), query.number("before")).await,
        "verify" => verify(console, &mut visit, query.number("chain")).await,
        "trace" => trace(console, &mut visit, query.number("chain"), query.number("record")).await,
        _ => Err(Status::not_found("There is no such page.")),
    };
    match shown {
        Ok(made) => html(StatusCode::OK, made),
        Err(status) => refused(&visit, domain, &status),
    }
}

/// What a status means to a person.
fn meaning(status: &Status) -> (StatusCode, &'static str) {
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => (StatusCode::BAD_REQUEST, "This was not understood"),
        Code::PermissionDenied | Code::Unauthenticated => (StatusCode::FORBIDDEN, "This is not yours to do"),
        Code::NotFound => (StatusCode::NOT_FOUND, "Not found"),
        Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => (StatusCode::CONFLICT, "Not now"),
        Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "Too much at once"),
        Code::Unavailable | Code::DeadlineExceeded => (StatusCode::SERVICE_UNAVAILABLE, "Not now"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "This went wrong"),
    }
}

/// A page that says why something was not shown or not done.
pub(crate) fn refused(visit: &Visit, domain: &str, status: &Status) -> Answer {
    let (code, title) = meaning(status);
    let frame = visit.frame(domain);
    let stale = status.code() == Code::FailedPrecondition && visit.is_stale();
    html(code, pages::failed(Some(&frame), stale, code.as_u16(), title, status.message()))
}

/// What was done, by the word in the URL: never a text that somebody else may have put there.
fn said(word: &str) -> &'static str {
    match word {
        "yes" => "Your yes is kept. It fits exactly what you were shown.",
        "no" => "Your no is kept.",
        "resume" => "It goes on.",
        "approve" => "You agreed to it.",
        "confirm" => "You answer for it.",
        _ => "",
    }
}

/// What the table is narrowed to.
pub(crate) fn filter(query: &Fields) -> pages::Filter {
    let text = |name| query.get(name).to_owned();
    pages::Filter {
        standing: text("standing"),
        kind: text("kind"),
        env: text("env"),
        owner: text("owner"),
        unused: text("unused"),
        page: text("page"),
    }
}

/// A page that was made, or why not; and before that, what the service refused.
type Made = Result<Result<String, askama::Error>, Status>;

async fn home(visit: &mut Visit, domain: &str) -> Made {
    let few = i32::try_from(FIRST_FEW).unwrap_or(i32::MAX);
    let asked = wire::ListFoundRequest { page_size: few, ..Default::default() };
    let found = visit.governance.list_found(asked).await?.into_inner().found;
    let waiting = visit.governance.list_requests(wire::ListRequestsRequest { all: false }).await?;
    let mut waiting = waiting.into_inner().requests;
    waiting.truncate(FIRST_FEW);
    let asked = wire::ListEmergenciesRequest::default();
    let mut emergencies = visit.governance.list_emergencies(asked).await?.into_inner().emergencies;
    emergencies.truncate(FIRST_FEW);
    let rules = wire::ListRulesRequest { limit: 100, ..Default::default() };
    let rules = visit.governance.list_rules(rules).await?.into_inner().rules;
    let chains = visit.chains("").await?;
    let mut refused = visit.recent(&chains).await?;
    refused
        .retain(|record| record.event == "decision" && outcome(record).is_some_and(|o| REFUSED.contains(&o)));
    refused.truncate(FIRST_FEW);
    let home = pages::Home {
        found: &found,
        emergencies: &emergencies,
        waiting: &waiting,
        refused: &refused,
        rules: rules.iter().find(|rules| rules.standing == "in_force"),
    };
    Ok(pages::home(&visit.frame(domain), &home))
}

/// Outcomes by which nothing was done.
const REFUSED: [&str; 2] = ["deny", "step_up"];

fn outcome(record: &pages::Happened) -> Option<&str> {
    record.detail.iter().find(|(name, _)| name == "outcome").map(|(_, value)| value.as_str())
}

/// The table, with what became of a bulk action.
pub(crate) async fn identities(
    visit: &mut Visit,
    domain: &str,
    filter: &pages::Filter,
    done: &[pages::Done],
) -> Made {
    let asked = wire::ListIdentitiesRequest {
        standing: filter.standing.clone(),
        owner: filter.owner.clone(),
        kind: filter.kind.clone(),
        environment: filter.env.clone(),
        unused: !filter.unused.is_empty(),
        page_size: ROWS,
        page_token: filter.page.clone(),
    };
    let got = visit.governance.list_identities(asked).await?.into_inner();
    let (rows, next_page_token) = (&got.identities, &got.next_page_token);
    let shown = pages::Identities { rows, filter, next_page_token, people: &visit.people, done };
    Ok(pages::identities(&visit.frame(domain), &shown))
}

async fn identity(visit: &mut Visit, domain: &str, name: &str, notice: &str) -> Made {
    let named = wire::IdentityRequest { name: name.to_owned() };
    let got = visit.governance.get_identity(named).await?.into_inner();
    let identity = got.identity.unwrap_or_default();
    let name = identity.spiffe_id.clone();
    let asked = wire::ListGrantsRequest { name, ..Default::default() };
    let grants = visit.governance.list_grants(asked).await?.into_inner().grants;
    let mut chains = Vec::new();
    for agent in got.agent_ids.iter().take(CHAINS) {
        // What an older chain of a node says is old.
        chains.extend(visit.chains(agent).await?.into_iter().next());
    }
    let used = used(visit.recent(&chains).await?, &identity.spiffe_id);
    let shown = pages::IdentityView {
        identity: &identity,
        entry_ids: &got.entry_ids,
        agent_ids: &got.agent_ids,
        grants: &grants,
        used: &used,
        people: &visit.people,
        notice,
    };
    Ok(pages::identity(&visit.frame(domain), &shown))
}

/// Decisions about instances of one identity.
fn used(recent: Vec<pages::Happened>, name: &str) -> Vec<pages::Happened> {
    let begun = recent.iter().filter(|record| record.event == "instance.start" && record.subject == name);
    let instances: std::collections::HashSet<_> = begun.map(|record| record.actor.clone()).collect();
    let decisions = recent.into_iter().filter(|record| record.event == "decision");
    decisions.filter(|record| instances.contains(&record.actor)).take(USED).collect()
}

async fn requests(visit: &mut Visit, domain: &str, notice: &str) -> Made {
    let asked = wire::ListRequestsRequest { all: true };
    let all = visit.governance.list_requests(asked).await?.into_inner().requests;
    let open = |request: &wire::Request| ["waiting", "yes"].contains(&request.standing.as_str());
    let (open, mut past): (Vec<_>, Vec<_>) = all.into_iter().partition(open);
    past.truncate(PAST);
    let cards = visit.cards(&open).await?;
    let stale = visit.is_stale();
    let more = open.len() - cards.len();
    let shown = pages::Requests { cards: &cards, more, past: &past, notice, stale };
    Ok(pages::requests(&visit.frame(domain), &shown))
}

async fn log(visit: &mut Visit, domain: &str, chain: u64, before: u64) -> Made {
    let mut chains = visit.chains("").await?;
    chains.truncate(CHAINS_SHOWN);
    let last = match chain {
        0 => visit.overview.last_record,
        number => chains.iter().find(|chain| chain.number == number).map_or(0, |chain| chain.last),
    };
    let end = if before == 0 { last.saturating_add(1) } else { before.min(last.saturating_add(1)) };
    let after = end.saturating_sub(1).saturating_sub(RECORDS);
    let (mut records, head) = visit.records(chain, after, RECORDS).await?;
    records.retain(|record| record.seq < end);
    records.reverse();
    // What is older than the oldest here, unless that is the first there is.
    let older = records.last().map_or(0, |oldest| if oldest.seq > 1 { oldest.seq } else { 0 });
    let shown = pages::Log { records: &records, chains: &chains, chain, older, head: head.as_ref() };
    Ok(pages::log(&visit.frame(domain), &shown))
}

async fn verify(console: &Console, visit: &mut Visit, chain: u64) -> Made {
    let found = match chain {
        0 => None,
        number => Some(visit.chain(number).await?),
    };
    let checked = proving::verify(visit, &console.reading, found.as_ref()).await?;
    let whose = found.as_ref().map_or("the server", |chain| &chain.source);
    let shown = pages::Verified { whose, chain, checked: checked.as_ref() };
    Ok(pages::verified(&visit.frame(&console.trust_domain), &shown))
}

async fn trace(console: &Console, visit: &mut Visit, chain: u64, record: u64) -> Made {
    let found = visit.chain(chain).await?;
    let story = proving::trace(visit, &console.reading, &found, record).await?;
    let hops = story.as_ref().map(|hops| hops.as_slice());
    let shown = pages::Traced { source: &found.source, chain, record, hops };
    Ok(pages::traced(&visit.frame(&console.trust_domain), &shown))
}
