//! What waits for a person, each with the text of exactly what would be done.
//!
//! Never answers several at once, and offers no yes that the server would refuse; the server decides anyway.

use askama::Template;
use avouch_credential::shown::plain;
use avouch_proto::governance_v1 as wire;

use super::moment::{Moment, moment};
use super::parts::{Named, Page, Shell, Spoken, named, spoken, who};
use super::words::{argument, class, kind, path, whose};
use super::{Card, Frame, Requests};

#[derive(Template)]
#[template(path = "requests.html")]
struct RequestsPage<'a> {
    shell: Shell<'a>,
    notice: Spoken,
    cards: Vec<Shown<'a>>,
    more: usize,
    past: Vec<Past<'a>>,
    stale: bool,
}

struct Shown<'a> {
    id: &'a str,
    /// As an argument of a command.
    argument: String,
    what: String,
    identity: Named<'a>,
    /// What the identity is; empty: the server did not say.
    about: String,
    task: String,
    node: String,
    asked: Moment,
    standing: String,
    class: &'static str,
    needs: &'static str,
    until: Moment,
    said: Vec<String>,
    hash: String,
    short: String,
    /// Each in a block of its own: where a narrow window breaks a line, no part of it looks like another.
    lines: Vec<&'a str>,
    waits: bool,
    /// Why this person gets no yes here; empty: they get one.
    why_not: String,
}

struct Past<'a> {
    what: String,
    identity: Named<'a>,
    asked: Moment,
    standing: String,
    class: &'static str,
    until: Moment,
    by: String,
}

/// The page of requests.
///
/// # Errors
/// The page could not be written.
pub fn requests(frame: &Frame<'_>, page: &Requests<'_>) -> Result<String, askama::Error> {
    RequestsPage {
        shell: Shell::new(frame, Page::Requests, "requests".to_owned()),
        notice: spoken(page.notice),
        cards: page.cards.iter().map(|card| shown(frame, card, page.stale)).collect(),
        more: page.more,
        past: page.past.iter().map(|request| past(frame, request)).collect(),
        stale: page.stale,
    }
    .render()
}

fn shown<'a>(frame: &Frame<'_>, card: &'a Card, stale: bool) -> Shown<'a> {
    let request = &card.request;
    let hash = hex::encode(&request.hash);
    let about = card.identity.as_ref().map(|identity| {
        let (kind, owner) = (kind(&identity.kind), who(frame, &identity.owner));
        plain(&format!("{kind} of {owner}, for {}, in {}", identity.purpose, identity.environment))
    });
    let why_not = if stale {
        // Which words stand there, the page says: they hold a command.
        String::new()
    } else {
        why_not(frame, request, card.identity.as_ref()).unwrap_or_default()
    };
    Shown {
        id: &request.id,
        argument: argument(&request.id),
        what: plain(&format!("{} {}", request.action, request.resource)),
        identity: named(frame, &request.spiffe_id),
        about: about.unwrap_or_default(),
        task: plain(&card.task),
        node: plain(path(&request.node, frame.trust_domain)),
        asked: moment(request.asked_at, frame.now),
        standing: plain(&request.standing),
        class: class(&request.standing),
        needs: whose(request),
        until: moment(request.until, frame.now),
        said: said(frame, request),
        short: hash.chars().take(12).collect(),
        hash,
        lines: card.shown.lines().collect(),
        waits: request.standing == "waiting",
        why_not,
    }
}

/// What was said so far.
fn said(frame: &Frame<'_>, request: &wire::Request) -> Vec<String> {
    let said = [
        (&request.owner_yes_by, "yes, the owner's, by"),
        (&request.person_yes_by, "yes by"),
        (&request.no_by, "no by"),
    ];
    let said = said.into_iter().filter(|(by, _)| !by.is_empty());
    said.map(|(by, what)| format!("{what} {}", who(frame, by))).collect()
}

/// Why a yes of the person who looks would not count.
fn why_not(frame: &Frame<'_>, request: &wire::Request, identity: Option<&wire::Identity>) -> Option<String> {
    let Some(identity) = identity else {
        return Some("The server shows no identity for it.".to_owned());
    };
    if identity.standing != "active" {
        return Some(format!(
            "The identity is {}: only what is active is answered with yes.",
            plain(&identity.standing)
        ));
    }
    let (me, owns) = (frame.me.id.as_str(), identity.owner == frame.me.id);
    let owner = request.needs_owner && request.owner_yes_by.is_empty();
    let person = request.needs_person && request.person_yes_by.is_empty();
    if identity.kind == "helper" {
        return match (owns, person) {
            (true, _) => {
                Some("It is your helper and acts for you: it takes another person's yes.".to_owned())
            }
            (false, false) if !frame.me.security => {
                Some("It takes a security person's yes in place of the owner's.".to_owned())
            }
            _ => None,
        };
    }
    let alone = identity.environment == "test" && frame.overview.people < 2;
    let twice = [&request.owner_yes_by, &request.person_yes_by].into_iter().any(|by| by == me);
    match (owns, owner, person) {
        (true, false, _) if alone => None,
        (true, false, _) => Some("You own this identity: it takes another person's yes.".to_owned()),
        (false, _, false) => Some(format!("It takes the owner's yes: {}.", who(frame, &identity.owner))),
        _ if twice => Some("You said yes already: the other yes is another person's.".to_owned()),
        _ => None,
    }
}

fn past<'a>(frame: &Frame<'_>, request: &'a wire::Request) -> Past<'a> {
    let standing = match request.standing.as_str() {
        "spent" => "yes, and used",
        "yes" => "yes",
        "no" => "no",
        "lapsed" => "lapsed",
        other => other,
    };
    Past {
        what: plain(&format!("{} {}", request.action, request.resource)),
        identity: named(frame, &request.spiffe_id),
        asked: moment(request.asked_at, frame.now),
        standing: plain(standing),
        class: class(if request.standing == "spent" { "yes" } else { &request.standing }),
        until: moment(request.until, frame.now),
        by: said(frame, request).join("; "),
    }
}
