//! One identity: what it is, who answers for it, who said yes, what it may do, and how it is stopped.
//!
//! Offers only what fits its standing and the person who looks; the server decides anyway.

use askama::Template;
use avouch_credential::shown::plain;
use avouch_proto::governance_v1 as wire;

use super::moment::{Moment, date, moment};
use super::parts::{Decided, Named, Page, Shell, Spoken, active, decided, named, spoken, who};
use super::words::{argument, cause, class, kind, path};
use super::{Frame, IdentityView};

#[derive(Template)]
#[template(path = "identity.html")]
struct IdentityPage<'a> {
    shell: Shell<'a>,
    notice: Spoken,
    it: It<'a>,
    entries: usize,
    nodes: Vec<String>,
    grants: Vec<Grant>,
    used: Vec<Decided>,
    people: Vec<(&'a str, String)>,
    may: May,
}

/// The identity in words.
struct It<'a> {
    id: &'a str,
    name: String,
    path: String,
    /// As an argument of a command.
    argument: String,
    kind: String,
    environment: String,
    purpose: String,
    standing: String,
    class: &'static str,
    cause: String,
    ends: Moment,
    added_by: String,
    added: Moment,
    /// The day on which it was used last, as far as is known.
    last_used: Option<String>,
    owner: String,
    /// The owner is not there any more.
    left: bool,
    successor: String,
    confirm_by: Option<Moment>,
    yes: String,
    preset: String,
    /// The code that its runs have; empty: any.
    code: String,
    /// 0: as many as a node has.
    runs_max: u32,
    stops: u64,
    tried: Option<Tried>,
}

struct Tried {
    at: Moment,
    nodes: u32,
    confirmed: u32,
    took_ms: u32,
}

struct Grant {
    id: String,
    what: String,
    left: u32,
    uses: u32,
    ends: Moment,
    by: String,
    standing: String,
    class: &'static str,
}

/// What fits its standing; for each the sentence why this person may not, empty if they may.
#[derive(Default)]
struct May {
    approve: Option<&'static str>,
    confirm: bool,
    pause: Option<&'static str>,
    resume: Option<&'static str>,
    stop: Option<&'static str>,
    change: bool,
}

/// One identity.
///
/// # Errors
/// The page could not be written.
pub fn identity(frame: &Frame<'_>, view: &IdentityView<'_>) -> Result<String, askama::Error> {
    let identity = view.identity;
    IdentityPage {
        shell: Shell::new(frame, Page::Identities, here(&identity.spiffe_id)?),
        notice: spoken(view.notice),
        it: described(frame, view),
        entries: view.entry_ids.len(),
        nodes: view.agent_ids.iter().map(|node| plain(path(node, frame.trust_domain))).collect(),
        grants: view.grants.iter().map(|grant| given(frame, grant)).collect(),
        used: view.used.iter().map(|record| decided(frame, record)).collect(),
        people: active(view.people).map(|(id, name)| (id, plain(name))).collect(),
        may: may(identity, frame.me),
    }
    .render()
}

#[derive(Template)]
#[template(source = "identity?name={{ id|urlencode_strict }}", ext = "txt")]
struct Here<'a> {
    id: &'a str,
}

fn here(id: &str) -> Result<String, askama::Error> {
    Here { id }.render()
}

fn described<'a>(frame: &Frame<'_>, view: &IdentityView<'a>) -> It<'a> {
    let identity = view.identity;
    let yes = match identity.yes_by.as_str() {
        "" if identity.standing == "proposed" => "Nobody yet.".to_owned(),
        "" => "Nobody: it was adopted as it ran.".to_owned(),
        by if by == identity.owner => {
            format!("{}, its owner, alone: that counts in test only.", who(frame, by))
        }
        by => format!("{}.", who(frame, by)),
    };
    It {
        id: &identity.spiffe_id,
        name: plain(&identity.spiffe_id),
        path: plain(path(&identity.spiffe_id, frame.trust_domain)),
        argument: argument(&identity.spiffe_id),
        kind: kind(&identity.kind).into_owned(),
        environment: plain(&identity.environment),
        purpose: plain(&identity.purpose),
        standing: plain(&identity.standing),
        class: class(&identity.standing),
        cause: cause(&identity.cause).into_owned(),
        ends: moment(identity.ends_at, frame.now),
        last_used: (identity.last_used != 0).then(|| date(identity.last_used)),
        added_by: who(frame, &identity.added_by),
        added: moment(identity.added_at, frame.now),
        owner: who(frame, &identity.owner),
        left: !active(view.people).any(|(id, _)| id == identity.owner),
        successor: who(frame, &identity.successor),
        confirm_by: (identity.confirm_by != 0).then(|| moment(identity.confirm_by, frame.now)),
        yes,
        preset: plain(&identity.preset),
        code: hex::encode(&identity.code),
        runs_max: identity.runs_max,
        stops: identity.stop_number,
        tried: identity.stop_tried.as_ref().map(|tried| Tried {
            at: moment(tried.at, frame.now),
            nodes: tried.nodes,
            confirmed: tried.confirmed,
            took_ms: tried.took_ms,
        }),
    }
}

fn given(frame: &Frame<'_>, grant: &wire::Grant) -> Grant {
    Grant {
        id: argument(&grant.id),
        what: plain(&format!("{} {}", grant.action, grant.resource)),
        left: grant.max_uses.saturating_sub(grant.uses),
        uses: grant.max_uses,
        ends: moment(grant.ends_at, frame.now),
        by: who(frame, &grant.given_by),
        standing: plain(&grant.standing.replace('_', " ")),
        class: class(&grant.standing),
    }
}

fn may(identity: &wire::Identity, me: &wire::Person) -> May {
    let (mine, test) = (identity.owner == me.id, identity.environment == "test");
    let shrink = if mine || me.security { "" } else { "Its owner or a security person does that." };
    let widen = match (mine, me.security) {
        _ if test => shrink,
        (false, true) => "",
        _ => "Outside of test it takes a security person who does not own it.",
    };
    let second = me.security && !mine && identity.added_by != me.id;
    let approve = match second || (test && mine) {
        true => "",
        false => "It takes a security person who neither owns it nor asked for it.",
    };
    let confirm = identity.confirm_by != 0 && mine && identity.standing != "stopped";
    let only = May { confirm, change: true, ..May::default() };
    match identity.standing.as_str() {
        "proposed" => May { approve: Some(approve), ..only },
        "active" => May { pause: Some(shrink), stop: Some(shrink), ..only },
        "paused" => May { resume: Some(widen), stop: Some(shrink), ..only },
        _ => May::default(),
    }
}

#[derive(Template)]
#[template(path = "stopped.html")]
struct StoppedPage<'a> {
    shell: Shell<'a>,
    title: &'static str,
    sentence: &'static str,
    name: Named<'a>,
    path: String,
    total: usize,
    last_ms: u32,
    confirmed: Vec<(String, u32)>,
    silent: Vec<(String, Option<Moment>)>,
    outside: Option<Moment>,
    now: Moment,
}

/// What a pause, a stop or a drill (`what`) has reached, and what it has not.
///
/// # Errors
/// The page could not be written.
pub fn stopped(frame: &Frame<'_>, what: &str, stop: &wire::StopResponse) -> Result<String, askama::Error> {
    let id = stop.identity.as_ref().map_or("", |identity| identity.spiffe_id.as_str());
    let (title, sentence) = match what {
        "pause" => ("Paused", "is paused. “Resume” on its page brings it back."),
        "stop" => ("Stopped for good", "is stopped for good."),
        _ => ("Drill of a stop", "would be stopped. It goes on: this was a drill."),
    };
    let name = |node: &wire::StopNode| plain(path(&node.node, frame.trust_domain));
    let (confirmed, silent): (Vec<_>, Vec<_>) = stop.nodes.iter().partition(|node| node.confirmed);
    let until =
        |node: &wire::StopNode| (node.decides_until != 0).then(|| moment(node.decides_until, frame.now));
    StoppedPage {
        shell: Shell::new(frame, Page::Identities, here(id)?),
        title,
        sentence,
        name: named(frame, id),
        path: plain(path(id, frame.trust_domain)),
        total: stop.nodes.len(),
        last_ms: confirmed.iter().map(|node| node.took_ms).max().unwrap_or_default(),
        confirmed: confirmed.iter().map(|node| (name(node), node.took_ms)).collect(),
        silent: silent.iter().map(|node| (name(node), until(node))).collect(),
        outside: (stop.accepted_until != 0).then(|| moment(stop.accepted_until, frame.now)),
        now: moment(frame.now.secs(), frame.now),
    }
    .render()
}
