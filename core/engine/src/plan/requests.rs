//! Plans on requests: what waits for a person, whose yes it takes, and that a yes is used once.
//!
//! Never lets a yes outlive the pause of its identity. What is asked is a hash here; whoever hands it over has hashed the text.

use std::sync::Arc;

use avouch_domain::limits::{
    AGAIN_WITHIN, NO_REST, REQUEST_WAIT, REQUESTS_AN_HOUR_MAX, REQUESTS_WAITING_ALL_MAX,
    REQUESTS_WAITING_MAX, REQUESTS_WAITING_NODE_MAX, YES_FOR,
};
use avouch_domain::{
    AuditEvent, Grant, Identity, Needs, PersonId, Plan, Request, RequestHash, RequestId, RequestState,
    RequestText, Row, RowKey, Said, SpiffeId, Timestamp, Whose,
};

use super::consent::{ConsentError, Role, active, role};
use super::{Draft, grants};
use crate::registry::Registry;

/// Over how long [`REQUESTS_AN_HOUR_MAX`] counts.
const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);
/// Most requests that one plan forgets; the next plan goes on.
pub const FORGET_BATCH: usize = 1_000;

/// What somebody wants a yes for, or has a grant of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Unused; taken if it is a new request.
    pub id: RequestId,
    pub text: RequestText,
    pub identity: SpiffeId,
    /// The node agent that asks.
    pub node: SpiffeId,
    pub action: Arc<str>,
    pub resource: Arc<str>,
    /// At least one thing.
    pub needs: Needs,
    /// Of this one call: made again with the same key, it is the same call.
    pub key: [u8; 16],
}

/// What comes of an ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Somebody's yes is missing.
    Waits(Request),
    /// A grant is missing, so nobody's yes would help.
    NoGrant,
    /// Nothing is missing, and this call has used what there was.
    Used(Used),
}

/// What a call has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Whose yeses were needed and said.
    pub request: Option<Request>,
    /// As it was before this use.
    pub grant: Option<Box<Grant>>,
}

/// Why nobody is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("{0} is not in force, so it asks for nothing")]
    NotInForce(SpiffeId),
    #[error("nobody's yes and no grant is needed")]
    NothingNeeded,
    #[error("{REQUESTS_WAITING_MAX} requests of {0} wait already: ask again when some are answered")]
    TooManyWait(SpiffeId),
    #[error(
        "{REQUESTS_WAITING_ALL_MAX} requests wait already, or {REQUESTS_WAITING_NODE_MAX} of this node: ask again when some \
         are answered"
    )]
    TooManyInAll,
    #[error("{0} asked {REQUESTS_AN_HOUR_MAX} times within an hour: ask again later")]
    TooOften(SpiffeId),
    #[error("{id} was answered with no: the same may be asked again in {seconds} s")]
    Resting { id: RequestId, seconds: u64 },
    #[error("the ID {0} is taken: ask again")]
    IdTaken(RequestId),
}

/// Why an answer does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error("no request has the ID {0}: `avouch ask list` shows what waits")]
    Unknown(RequestId),
    #[error("{id} is {standing}, expected one that waits")]
    NotWaiting { id: RequestId, standing: &'static str },
    #[error("{0}, whose request it is, is not in force any more")]
    NotInForce(SpiffeId),
    #[error("{id} asks for something else than was answered: look at it again with `avouch ask show {id}`")]
    OtherText { id: RequestId },
    #[error(transparent)]
    Consent(#[from] ConsentError),
}

/// Asks for the yes of a person, or uses one that was said to exactly this.
pub fn ask(registry: &Registry, at: Timestamp, wanted: &Wanted) -> (Plan, Result<Asked, AskError>) {
    let mut draft = Draft::new(registry, at, wanted.identity.as_str());
    let asked = asked(&mut draft, at, wanted);
    let is_new = matches!(&asked, Ok(Asked::Waits(request)) if registry.request(&request.id).is_none());
    let mut plan = draft.finish();
    if is_new {
        plan.texts.push(wanted.text.clone());
    }
    (plan, asked)
}

fn asked(draft: &mut Draft<'_>, at: Timestamp, wanted: &Wanted) -> Result<Asked, AskError> {
    let registry = draft.before;
    if wanted.needs.nothing() {
        return Err(AskError::NothingNeeded);
    }
    let name = &wanted.identity;
    let identity = registry.identity(name).filter(|identity| identity.is_in_force(at));
    let identity = identity.ok_or_else(|| AskError::NotInForce(name.clone()))?;
    let grant = wanted
        .needs
        .grant
        .then(|| grants::fitting(registry, at, identity, (&wanted.action, &wanted.resource), wanted.key));
    if let Some(None) = grant {
        return Ok(Asked::NoGrant);
    }
    let request = match wanted.needs.yes.nobodys() {
        true => None,
        false => match agreed_to(draft, at, identity, wanted)? {
            Agreed::Used(request) => Some(request),
            Agreed::Waits(request) => return Ok(Asked::Waits(request)),
        },
    };
    let grant = grant.flatten().map(|grant| Box::new(grants::use_once(draft, grant, wanted.key)));
    Ok(Asked::Used(Used { request, grant }))
}

/// What became of the yes.
enum Agreed {
    Waits(Request),
    Used(Request),
}

/// Uses the yes that was said to exactly this, or lets a request wait for it.
fn agreed_to(
    draft: &mut Draft<'_>,
    at: Timestamp,
    identity: &Identity,
    wanted: &Wanted,
) -> Result<Agreed, AskError> {
    let (registry, needs) = (draft.before, wanted.needs.yes);
    let (mut agreed, mut waiting) = (None, None);
    for request in registry.requests_of(&wanted.identity) {
        // Tool servers and repositories are a node's own: what is done on another is another act.
        let fits = request.hash == wanted.text.hash && request.node == wanted.node;
        if !fits || request.stop_number != identity.stop_number {
            continue;
        }
        if request.spent_with == Some(wanted.key) && at.since(request.until) < AGAIN_WITHIN {
            return Ok(Agreed::Used(request.clone()));
        }
        if request.may_be_done(at) {
            agreed = Some(request);
        } else if request.waits(at) {
            waiting = Some(request);
        }
    }
    if let Some(open) = agreed.or(waiting) {
        // Who said yes may have left since, or own it by now, and the rules may want more than was asked for then.
        let now = Request { needs: open.needs.and(needs), ..counting(registry, identity, open) };
        if now.missing(at).nobodys() && agreed.is_some() {
            let (state, spent_with) = (RequestState::Spent, Some(wanted.key));
            let spent = Request { state, spent_with, until: at, ..now };
            return Ok(Agreed::Used(put(draft, AuditEvent::RequestSpent, spent, Vec::new())));
        }
        let now = Request { state: RequestState::Waiting, ..now };
        if now == *open {
            return Ok(Agreed::Waits(now));
        }
        let now = Request { until: at + REQUEST_WAIT, ..now };
        return Ok(Agreed::Waits(put(draft, AuditEvent::RequestAsked, now, asks(wanted))));
    }
    has_room(registry, at, identity, wanted)?;
    let request = Request {
        id: wanted.id.clone(),
        hash: wanted.text.hash,
        identity: wanted.identity.clone(),
        stop_number: identity.stop_number,
        node: wanted.node.clone(),
        action: wanted.action.clone(),
        resource: wanted.resource.clone(),
        needs,
        owner_yes: None,
        person_yes: None,
        no: None,
        state: RequestState::Waiting,
        asked_at: at,
        until: at + REQUEST_WAIT,
        spent_with: None,
    };
    Ok(Agreed::Waits(put(draft, AuditEvent::RequestAsked, request, asks(wanted))))
}

/// A request with those of its yeses that count now: of people who are there, in the role that they still have.
fn counting(registry: &Registry, identity: &Identity, request: &Request) -> Request {
    request.clone().with_only(|said, whose| {
        registry
            .person(&said.by)
            .filter(|person| person.is_active())
            .and_then(|person| role(registry, identity, whose, person).ok())
            .is_some_and(|role| matches!(role, Role::Owner) == whose.owner)
    })
}

fn asks(wanted: &Wanted) -> Vec<(&'static str, String)> {
    let Whose { owner, person } = wanted.needs.yes;
    let needs = [("owner", owner), ("person", person)].into_iter().filter(|(_, needed)| *needed);
    let needs: Vec<_> = needs.map(|(who, _)| who).collect();
    vec![
        ("action", wanted.action.to_string()),
        ("resource", wanted.resource.to_string()),
        ("needs", needs.join(",")),
    ]
}

/// Whether one more may wait.
fn has_room(
    registry: &Registry,
    at: Timestamp,
    identity: &Identity,
    wanted: &Wanted,
) -> Result<(), AskError> {
    let name = &wanted.identity;
    let of_it = || registry.requests_of(name);
    let refused = of_it().find(|request| {
        request.state == RequestState::No
            && at < request.until
            && (&request.action, &request.resource) == (&wanted.action, &wanted.resource)
    });
    if let Some(refused) = refused {
        let seconds = refused.until.since(at).as_secs().max(1);
        return Err(AskError::Resting { id: refused.id.clone(), seconds });
    }
    let waits = |request: &&Request| request.waits(at) && request.stop_number == identity.stop_number;
    if of_it().filter(waits).count() >= REQUESTS_WAITING_MAX {
        return Err(AskError::TooManyWait(name.clone()));
    }
    if of_it().filter(|request| at.since(request.asked_at) < HOUR).count() >= REQUESTS_AN_HOUR_MAX {
        return Err(AskError::TooOften(name.clone()));
    }
    let (of_all, of_node) = registry.requests_waiting(at, &wanted.node);
    if of_all >= REQUESTS_WAITING_ALL_MAX || of_node >= REQUESTS_WAITING_NODE_MAX {
        return Err(AskError::TooManyInAll);
    }
    match registry.request(&wanted.id) {
        Some(_) => Err(AskError::IdTaken(wanted.id.clone())),
        None => Ok(()),
    }
}

/// Says yes. `hash` is that of the text which the person was shown.
pub fn say_yes(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    id: &RequestId,
    hash: RequestHash,
) -> (Plan, Result<Request, AnswerError>) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let said = agreed(registry, at, actor, id, hash).map(|(request, role)| {
        let identity = ("identity", request.identity.to_string());
        put(&mut draft, AuditEvent::RequestYes, request, vec![("as", role.to_owned()), identity])
    });
    (draft.finish(), said)
}

fn agreed(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    id: &RequestId,
    hash: RequestHash,
) -> Result<(Request, &'static str), AnswerError> {
    let (request, person) = (shown(registry, id, hash)?, active(registry, actor)?);
    if !request.waits(at) {
        return Err(over(registry, at, request));
    }
    let identity = registry.identity(&request.identity);
    let identity = identity.filter(|it| it.is_in_force(at) && it.stop_number == request.stop_number);
    let identity = identity.ok_or_else(|| AnswerError::NotInForce(request.identity.clone()))?;
    let request = counting(registry, identity, request);
    let role = role(registry, identity, request.missing(at), person)?;
    let other = if matches!(role, Role::Owner) { &request.person_yes } else { &request.owner_yes };
    // Two that are needed are two people; only who is alone is both.
    if !matches!(role, Role::Itself) && other.as_ref().is_some_and(|said| said.by == *actor) {
        return Err(ConsentError::SecondPerson(actor.clone()).into());
    }
    let said = Some(Said { by: actor.clone(), at });
    let mut request = match role {
        Role::Owner => Request { owner_yes: said, ..request },
        Role::Person | Role::Itself => Request { person_yes: said, ..request },
    };
    if request.missing(at).nobodys() {
        request.state = RequestState::Yes;
        request.until = request.said_at().unwrap_or(at) + YES_FOR;
    }
    Ok((request, role.name()))
}

/// Says no, or takes back a yes that was not used yet. Any person may.
pub fn say_no(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    id: &RequestId,
    hash: RequestHash,
) -> (Plan, Result<Request, AnswerError>) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let said = refused(registry, at, actor, id, hash).map(|request| {
        let identity = ("identity", request.identity.to_string());
        put(&mut draft, AuditEvent::RequestNo, request, vec![identity])
    });
    (draft.finish(), said)
}

fn refused(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    id: &RequestId,
    hash: RequestHash,
) -> Result<Request, AnswerError> {
    let (request, _) = (shown(registry, id, hash)?, active(registry, actor)?);
    if !request.waits(at) && !request.may_be_done(at) {
        return Err(over(registry, at, request));
    }
    let no = Some(Said { by: actor.clone(), at });
    Ok(Request { no, state: RequestState::No, until: at + NO_REST, ..request.clone() })
}

/// The request, if this is what it asks for.
fn shown<'a>(registry: &'a Registry, id: &RequestId, hash: RequestHash) -> Result<&'a Request, AnswerError> {
    let request = registry.request(id).ok_or_else(|| AnswerError::Unknown(id.clone()))?;
    if request.hash == hash { Ok(request) } else { Err(AnswerError::OtherText { id: id.clone() }) }
}

/// It waits for nothing any more.
fn over(registry: &Registry, at: Timestamp, request: &Request) -> AnswerError {
    AnswerError::NotWaiting { id: request.id.clone(), standing: registry.request_standing(request, at) }
}

/// Forgets requests of which nothing has come since `before`, [`FORGET_BATCH`] at most.
#[must_use]
pub fn forget(registry: &Registry, at: Timestamp, before: Timestamp, actor: &str) -> (Plan, usize) {
    let mut draft = Draft::new(registry, at, actor);
    let mut gone = 0;
    for request in registry.requests_ended(before).take(FORGET_BATCH) {
        draft.note(AuditEvent::RequestForgotten, &request.id);
        draft.delete(RowKey::Request(request.id.clone()));
        gone += 1;
    }
    (draft.finish(), gone)
}

fn put(
    draft: &mut Draft<'_>,
    event: AuditEvent,
    request: Request,
    more: Vec<(&'static str, String)>,
) -> Request {
    let mut detail = vec![
        ("hash", request.hash.to_string()),
        ("node", request.node.to_string()),
        ("state", request.state.name().to_owned()),
    ];
    detail.extend(more);
    draft.note_with(event, &request.id, detail);
    draft.put(Row::Request(request.clone()));
    request
}
