//! The first page: how it stands, which emergencies there are, what lacks something, what waits, what was refused, and what is
//! not protected now.
//!
//! Never says that all is well where this server can't know it.

use askama::Template;
use avouch_credential::shown::plain;
use avouch_proto::governance_v1 as wire;

use super::moment::{Moment, moment};
use super::parts::{Decided, Named, Page, Shell, decided, named, who};
use super::words::{argument, count, path, whose};
use super::{Frame, Home};

#[derive(Template)]
#[template(path = "home.html")]
struct HomePage<'a> {
    shell: Shell<'a>,
    clauses: Vec<Clause>,
    /// There are neither identities nor names without one.
    empty: bool,
    emergencies: Vec<Emergency<'a>>,
    lacks: Vec<Lack>,
    more_found: u32,
    waiting: Vec<Waiting<'a>>,
    more_waiting: bool,
    refused: Vec<Decided>,
    gaps: Vec<Gap>,
    rules: Option<Rules>,
}

/// A part of the first sentence, with what comes before it.
struct Clause {
    before: &'static str,
    text: String,
    href: &'static str,
}

struct Lack {
    /// A name, or how many identities.
    name: String,
    note: String,
    href: &'static str,
    what: &'static str,
    next: String,
}

struct Emergency<'a> {
    identity: Named<'a>,
    what: String,
    until: Moment,
    asked_by: String,
    /// Empty: it waits for a second person.
    agreed_by: String,
    why: String,
    next: String,
}

struct Waiting<'a> {
    what: String,
    identity: Named<'a>,
    needs: &'static str,
    until: Moment,
}

struct Gap {
    what: String,
    next: &'static str,
}

struct Rules {
    number: u64,
    since: Moment,
    by: String,
}

/// The first page.
///
/// # Errors
/// The page could not be written.
pub fn home(frame: &Frame<'_>, home: &Home<'_>) -> Result<String, askama::Error> {
    let overview = frame.overview;
    let waiting: Vec<_> = home.waiting.iter().map(|request| waits(frame, request)).collect();
    HomePage {
        shell: Shell::new(frame, Page::Home, "./".to_owned()),
        clauses: sentence(overview),
        empty: [overview.proposed, overview.active, overview.paused, overview.stopped, overview.found]
            == [0; 5],
        emergencies: home.emergencies.iter().map(|one| emergency(frame, one)).collect(),
        lacks: lacks(frame, home.found),
        more_found: overview.found.saturating_sub(u32::try_from(home.found.len()).unwrap_or(u32::MAX)),
        more_waiting: overview.waiting as usize > waiting.len(),
        waiting,
        refused: home.refused.iter().map(|record| decided(frame, record)).collect(),
        gaps: gaps(overview, home.rules.is_some()),
        rules: home.rules.map(|rules| Rules {
            number: rules.number,
            since: moment(rules.valid_from, frame.now),
            by: who(frame, &rules.published_by),
        }),
    }
    .render()
}

fn sentence(overview: &wire::OverviewResponse) -> Vec<Clause> {
    let first = count(overview.active, "identity is active", "identities are active");
    let first = if overview.active == 0 { "No identity is active".to_owned() } else { first };
    let is = |number: u32, standing: &str| match number {
        1 => format!("1 is {standing}"),
        number => format!("{number} are {standing}"),
    };
    let standing = |text, href| Clause { before: ", ", text, href };
    let mut clauses = vec![Clause { before: "", text: first, href: "identities?standing=active" }];
    clauses.push(standing(is(overview.paused, "paused"), "identities?standing=paused"));
    if overview.proposed > 0 {
        clauses.push(standing(is(overview.proposed, "proposed"), "identities?standing=proposed"));
    }
    clauses.push(Clause {
        before: "; ",
        text: count(overview.found, "name runs without an owner", "names run without an owner"),
        href: "#lacks",
    });
    clauses.push(Clause {
        before: "; ",
        text: count(overview.waiting, "request waits for a yes", "requests wait for a yes"),
        href: "requests",
    });
    clauses
}

fn lacks(frame: &Frame<'_>, found: &[wire::Found]) -> Vec<Lack> {
    let nameless = found.iter().map(|found| {
        let name = path(&found.spiffe_id, frame.trust_domain);
        let note = match found.suggested_owner.as_str() {
            "" => String::new(),
            id => format!("may belong to {}: {}", who(frame, id), plain(&found.reason)),
        };
        let next = format!("avouch adopt --path {} ...", argument(name));
        let what = match found.withheld_from {
            0 => "no owner",
            from if from <= frame.now.secs() => "no owner: withheld",
            _ => "no owner: withheld soon",
        };
        Lack { name: plain(name), note, href: "", what, next }
    });
    let numbers = [
        (
            frame.overview.proposed,
            "identities?standing=proposed",
            "a yes: they are proposed",
            "avouch identity approve NAME",
        ),
        (
            frame.overview.not_confirmed,
            "identities?standing=active",
            "owner not confirmed",
            "avouch verify --require owner",
        ),
        (
            frame.overview.ending,
            "identities?standing=active",
            "an end that is more than a week away",
            "avouch identity set NAME --ends 90d",
        ),
        (
            frame.overview.stop_untried,
            "identities?standing=active",
            "stop never tried, or too long ago",
            "avouch verify --require stop",
        ),
        (
            frame.overview.unused,
            "identities?standing=active&unused=1",
            "a use: nobody used them for 30 days",
            "avouch identity list --unused",
        ),
    ];
    let numbers = numbers.into_iter().filter(|(number, ..)| *number > 0).map(|(number, href, what, next)| {
        let name = count(number, "identity", "identities");
        Lack { name, note: String::new(), href, what, next: next.to_owned() }
    });
    nameless.chain(numbers).collect()
}

fn emergency<'a>(frame: &Frame<'_>, emergency: &'a wire::Emergency) -> Emergency<'a> {
    let waits = emergency.agreed_by.is_empty();
    let verb = if waits { "agree" } else { "end" };
    Emergency {
        identity: named(frame, &emergency.spiffe_id),
        what: plain(&format!("{} {}", emergency.action, emergency.resource)),
        until: moment(emergency.ends_at, frame.now),
        asked_by: who(frame, &emergency.asked_by),
        agreed_by: if waits { String::new() } else { who(frame, &emergency.agreed_by) },
        why: plain(&emergency.why),
        next: format!("avouch emergency {verb} {}", argument(&emergency.id)),
    }
}

fn waits<'a>(frame: &Frame<'_>, request: &'a wire::Request) -> Waiting<'a> {
    Waiting {
        what: plain(&format!("{} {}", request.action, request.resource)),
        identity: named(frame, &request.spiffe_id),
        needs: whose(request),
        until: moment(request.until, frame.now),
    }
}

/// What nobody would notice until it is needed.
fn gaps(overview: &wire::OverviewResponse, rules: bool) -> Vec<Gap> {
    let mut gaps = Vec::new();
    if overview.people < 2 {
        gaps.push(Gap {
            what:
                "Only one person is active: nobody can say yes for production, where nobody says yes to his \
                   own."
                    .into(),
            next: "avouch person add 'NAME' --uid UID --security",
        });
    } else if overview.security_people < 2 {
        gaps.push(Gap {
            what: "Only one person is a security person: rules come into force without a second yes.".into(),
            next: "avouch person add 'NAME' --uid UID --security",
        });
    }
    if !rules {
        gaps.push(Gap {
            what: "No rules are in force: every request at a gate is denied.".into(),
            next: "avouch rules publish FOLDER",
        });
    }
    let away = overview.nodes.saturating_sub(overview.following);
    if away > 0 {
        let nodes = match away {
            1 => "1 node does not follow this server now: a stop reaches it".to_owned(),
            away => format!("{away} nodes do not follow this server now: a stop reaches them"),
        };
        gaps.push(Gap {
            what: format!("Of {} nodes, {nodes} only when they are back.", overview.nodes),
            next: "avouch agent list",
        });
    }
    gaps
}
