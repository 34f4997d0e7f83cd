//! The table of identities, what it is narrowed to, and what is done to several at once.
//!
//! Never offers a stop for several: what is final is done one by one.

use askama::Template;
use avouch_credential::shown::plain;
use avouch_domain::{Environment, Kind, Standing};
use avouch_proto::governance_v1 as wire;

use super::moment::{Day, Far, date, day, words_of};
use super::parts::{Choice, Named, Page, Shell, Spoken, active, choices, named, spoken, who};
use super::words::{cause, class, kind};
use super::{Done, Filter, Frame, Identities};

/// So many are named one by one although all went well.
const FEW: usize = 3;

#[derive(Template)]
#[template(path = "identities.html")]
struct IdentitiesPage<'a> {
    shell: Shell<'a>,
    rows: Vec<Row<'a>>,
    /// The table is narrowed.
    narrowed: bool,
    /// Only what nobody uses.
    unused: bool,
    /// Standing, kind, environment and owner: the name in the URL, what people see, the choices.
    selects: [(&'static str, &'static str, Vec<Choice>); 4],
    people: Vec<(&'a str, String)>,
    first: bool,
    /// Where the next page is; empty: this is the last.
    next: String,
    start: String,
    /// To how many identities something was to be done, and to how many it was.
    meant: usize,
    done: usize,
    /// How those fared to which it was not done; of few, all of them.
    fared: Vec<Fared<'a>>,
}

struct Row<'a> {
    id: &'a str,
    name: Named<'a>,
    kind: String,
    environment: String,
    owner: String,
    confirmed: bool,
    standing: String,
    class: &'static str,
    cause: String,
    ends: Day,
    purpose: String,
    /// A day.
    used: Option<String>,
    tried: Option<Tried>,
}

struct Tried {
    at: Far,
    confirmed: u32,
    nodes: u32,
}

struct Fared<'a> {
    name: Named<'a>,
    error: Spoken,
}

#[derive(Template)]
#[template(
    source = "standing={{ filter.standing|urlencode_strict }}&kind={{ filter.kind|urlencode_strict }}\
              &env={{ filter.env|urlencode_strict }}&owner={{ filter.owner|urlencode_strict }}\
              &unused={{ filter.unused|urlencode_strict }}",
    ext = "txt"
)]
struct Query<'a> {
    filter: &'a Filter,
}

/// The table of identities.
///
/// # Errors
/// The page could not be written.
pub fn identities(frame: &Frame<'_>, page: &Identities<'_>) -> Result<String, askama::Error> {
    let filter = page.filter;
    let narrowed = Filter { page: String::new(), ..filter.clone() } != Filter::default();
    let start = match narrowed {
        true => format!("identities?{}", Query { filter }.render()?),
        false => "identities".to_owned(),
    };
    let at = |token: &str| -> Result<String, askama::Error> {
        let sign = if narrowed { '&' } else { '?' };
        Ok(format!("{start}{sign}page={}", Token { token }.render()?))
    };
    let next = if page.next_page_token.is_empty() { String::new() } else { at(page.next_page_token)? };
    let kinds = Kind::ALL.map(|it| (it.name(), kind(it.name())));
    let as_it_is = |name: &'static str| (name, name);
    let here = if filter.page.is_empty() { start.clone() } else { at(&filter.page)? };
    IdentitiesPage {
        shell: Shell::new(frame, Page::Identities, here),
        rows: page.rows.iter().map(|identity| row(frame, identity)).collect(),
        narrowed,
        unused: !filter.unused.is_empty(),
        selects: [
            ("standing", "Standing", choices(Standing::NAMES.map(as_it_is), &filter.standing)),
            ("kind", "Kind", choices(kinds.iter().map(|(name, word)| (*name, &**word)), &filter.kind)),
            ("env", "Environment", choices(Environment::ALL.map(|it| as_it_is(it.name())), &filter.env)),
            ("owner", "Owner", choices(active(page.people), &filter.owner)),
        ],
        people: active(page.people).map(|(id, name)| (id, plain(name))).collect(),
        first: filter.page.is_empty(),
        next,
        start,
        meant: page.done.len(),
        done: page.done.iter().filter(|done| done.error.is_empty()).count(),
        fared: fared(frame, page.done),
    }
    .render()
}

#[derive(Template)]
#[template(source = "{{ token|urlencode_strict }}", ext = "txt")]
struct Token<'a> {
    token: &'a str,
}

fn fared<'a>(frame: &Frame<'_>, done: &'a [Done]) -> Vec<Fared<'a>> {
    let listed = done.iter().filter(|one| done.len() <= FEW || !one.error.is_empty());
    listed.map(|one| Fared { name: named(frame, &one.spiffe_id), error: spoken(&one.error) }).collect()
}

fn row<'a>(frame: &Frame<'_>, identity: &'a wire::Identity) -> Row<'a> {
    Row {
        id: &identity.spiffe_id,
        name: named(frame, &identity.spiffe_id),
        kind: kind(&identity.kind).into_owned(),
        environment: plain(&identity.environment),
        owner: who(frame, &identity.owner),
        confirmed: identity.confirm_by == 0,
        standing: plain(&identity.standing),
        class: class(&identity.standing),
        cause: cause(&identity.cause).into_owned(),
        ends: day(identity.ends_at, frame.now),
        purpose: plain(&identity.purpose),
        used: (identity.last_used != 0).then(|| date(identity.last_used)),
        tried: identity.stop_tried.as_ref().map(|tried| Tried {
            at: words_of(tried.at, frame.now),
            confirmed: tried.confirmed,
            nodes: tried.nodes,
        }),
    }
}
