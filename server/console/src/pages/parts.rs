//! What pages share: the frame around them, names of people and identities, and records in words.
//!
//! Never trusts a text of others: everything passes through [`plain`] here, and through the escaping of a template.

use askama::Template;
use avouch_credential::shown::plain;
use avouch_proto::governance_v1 as wire;

use super::moment::{Moment, moment, recorded};
use super::words::{outcome, path, reason};
use super::{Frame, Happened};

/// The pages of the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Home,
    Identities,
    Requests,
    Log,
    /// None of them.
    Other,
}

/// What the template of every page needs of its frame.
#[derive(Debug)]
pub(super) struct Shell<'a> {
    pub(super) trust_domain: String,
    pub(super) me: String,
    pub(super) security: bool,
    /// The provider at which somebody signed in.
    pub(super) provider: Option<String>,
    pub(super) since: Moment,
    pub(super) waiting: u32,
    pub(super) last: u64,
    pub(super) token: &'a str,
    /// Where this page is had again: never the answer to a form.
    pub(super) here: String,
    page: Page,
}

impl<'a> Shell<'a> {
    pub(super) fn new(frame: &Frame<'a>, page: Page, here: String) -> Self {
        Self {
            trust_domain: plain(frame.trust_domain),
            me: plain(&frame.me.name),
            security: frame.me.security,
            provider: frame.provider.map(plain),
            since: moment(frame.signed_in_at.secs(), frame.now),
            waiting: frame.overview.waiting,
            last: frame.overview.last_record,
            token: frame.form_token,
            here,
            page,
        }
    }

    pub(super) fn items(&self) -> [(&'static str, &'static str, bool); 4] {
        [
            ("./", "Home", self.page == Page::Home),
            ("identities", "Identities", self.page == Page::Identities),
            ("requests", "Requests", self.page == Page::Requests),
            ("log", "Log", self.page == Page::Log),
        ]
    }
}

/// The name of a person; without one, their ID.
pub(super) fn who(frame: &Frame<'_>, id: &str) -> String {
    plain(frame.names.get(id).map_or(id, String::as_str))
}

/// An identity's name, which leads to its page.
#[derive(Debug, Template)]
#[template(source = r#"<a href="identity?name={{ id|urlencode }}">{{ path }}</a>"#, ext = "html")]
pub(super) struct Named<'a> {
    id: &'a str,
    path: String,
}

/// Its own template escapes it.
impl askama::filters::HtmlSafe for Named<'_> {}

pub(super) fn named<'a>(frame: &Frame<'_>, spiffe_id: &'a str) -> Named<'a> {
    Named { id: spiffe_id, path: plain(path(spiffe_id, frame.trust_domain)) }
}

/// A sentence whose commands stand between backticks, as the server writes it.
#[derive(Debug, Template)]
#[template(
    source = "{% for (command, text) in pieces %}{% if command %}<code>{{ text }}</code>{% else %}{{ text }}{% endif %}\
              {% endfor %}",
    ext = "html"
)]
pub(super) struct Spoken {
    pieces: Vec<(bool, String)>,
}

/// Its own template escapes it.
impl askama::filters::HtmlSafe for Spoken {}

impl Spoken {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

pub(super) fn spoken(text: &str) -> Spoken {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some((before, (command, after))) =
        rest.split_once('`').and_then(|(before, rest)| Some((before, rest.split_once('`')?)))
    {
        pieces.extend([(false, plain(before)), (true, plain(command))]);
        rest = after;
    }
    pieces.push((false, plain(rest)));
    pieces.retain(|(_, text)| !text.is_empty());
    Spoken { pieces }
}

/// One choice of a `<select>`.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) value: String,
    pub(super) word: String,
    pub(super) chosen: bool,
}

/// These choices below "all", and what is chosen now although it is none of them.
pub(super) fn choices<'a>(all: impl IntoIterator<Item = (&'a str, &'a str)>, chosen: &str) -> Vec<Choice> {
    let one = |(value, word): (&str, &str)| Choice {
        value: value.to_owned(),
        word: plain(word),
        chosen: value == chosen,
    };
    let mut choices = vec![one(("", "all"))];
    choices.extend(all.into_iter().map(one));
    if !choices.iter().any(|choice| choice.chosen) {
        choices.push(one((chosen, chosen)));
    }
    choices
}

/// People who are there, by ID and name.
pub(super) fn active(people: &[wire::Person]) -> impl Iterator<Item = (&str, &str)> {
    people
        .iter()
        .filter(|person| person.state == "active")
        .map(|person| (person.id.as_str(), person.name.as_str()))
}

/// A decision, or whatever else was refused, in words.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) at: Moment,
    pub(super) who: String,
    pub(super) what: String,
    pub(super) outcome: String,
    pub(super) class: &'static str,
    pub(super) why: String,
    /// Where it stands in the log, if that leads to those who are behind it.
    pub(super) trace: Option<(u64, u64)>,
}

pub(super) fn decided(frame: &Frame<'_>, record: &Happened) -> Decided {
    let get = |name: &str| record.detail.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let (decision, result) = (record.event == "decision", get("outcome").unwrap_or("deny"));
    let what = get("action").unwrap_or(&record.event);
    let why = get("reason").map(|word| reason(word).into_owned());
    let by = get("by").map(|rules| format!(" ({})", plain(rules))).unwrap_or_default();
    Decided {
        at: recorded(&record.at, frame.now),
        who: who(frame, &record.actor),
        what: plain(&format!("{what} {}", path(&record.subject, frame.trust_domain))),
        outcome: if decision { outcome(result).into_owned() } else { "refused".to_owned() },
        class: super::words::class(result),
        why: why.unwrap_or_else(|| "the record says no reason".to_owned()) + &by,
        trace: (decision && record.chain > 0).then_some((record.chain, record.seq)),
    }
}
