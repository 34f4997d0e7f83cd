//! One request through an HTTP gate: read, decided, sent, and answered within limits.
//!
//! Nothing is sent before an allow, and then only what was decided. Never decides itself.

use std::sync::Arc;

use avouch_domain::limits::REQUEST_TEXT_MAX;
use avouch_rules::{HttpMethod, Limits, Params};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::http::{request, response};
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::answers::{LIMITS, Refusal, denied};
use super::asked::{Not, asked};
use super::body::{Begun, Body, Watched, find, whole};
use super::head::{self, Pass};
use super::limit::{Form, Rows};
use super::pool::{Pool, Unanswered};
use super::target::{self, Target};
use super::telling::{Telling, shown};
use super::{Api, Held, Route, Secret};
use crate::gate::limits::{
    HTTP_BODY_MAX, HTTP_BODY_TIME_MAX, HTTP_HELD_AT_ONCE, HTTP_HELD_MAX, HTTP_HELD_TIME_MAX,
    HTTP_LOOKED_AT_MAX, QUOTE_MAX,
};
use crate::gate::{Ask, Decided, GateEvent, Happened, Judge, Verdict, decided, noted, quote};

/// A gate and its connections.
#[derive(Debug)]
pub struct Proxy {
    api: Arc<Api>,
    pool: Arc<Pool>,
    /// Places for answers that are held back.
    held: Semaphore,
}

/// A request that a route stands for.
struct Wanted<'a> {
    route: &'a Route,
    params: Params,
    method: HttpMethod,
    target: Target,
    /// HEAD: the answer has no body.
    head_only: bool,
}

/// A refusal before anything was asked, and what is to be recorded of it.
type Unsent = Box<(Refusal, Option<Happened>)>;

impl Proxy {
    /// A gate that has not been asked anything.
    pub fn new(api: Arc<Api>) -> Self {
        let pool = Arc::new(Pool::new(api.upstream.clone(), api.ca.clone()));
        Self { api, pool, held: Semaphore::new(HTTP_HELD_AT_ONCE) }
    }

    /// The answer to a request. `raw`: its path and query, as it wrote them.
    pub async fn answer<J: Judge>(&self, judge: &J, raw: &str, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let answered = self.answered(judge, raw, parts, body).await;
        answered.unwrap_or_else(|refusal| refusal.response())
    }

    async fn answered<J: Judge>(
        &self,
        judge: &J,
        raw: &str,
        parts: request::Parts,
        body: Incoming,
    ) -> Result<Response<Body>, Refusal> {
        let wanted = match self.wanted(raw, &parts) {
            Ok(wanted) => wanted,
            Err(unsent) => {
                let (refusal, event) = *unsent;
                if let Some(what) = event {
                    noted(judge, GateEvent { gate: self.api.name.clone(), what }).await;
                }
                return Err(refusal);
            }
        };
        let what = format!("{} {} was not sent", parts.method, wanted.route.resource);
        if let Secret::Missing(why) = &self.api.secret {
            let next = match self.api.env_var.is_empty() {
                true => "mend that, and start `avouch gate serve` again",
                false => "mend that, and start the run again",
            };
            return Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "secret",
                format!("{what}: {why}"),
                next,
            ));
        }
        let body = begun(body, wanted.method).await?;
        let shown = self.shown(&wanted, &parts, &body);
        let ask = Ask {
            action: wanted.route.action.clone().into(),
            resource: wanted.route.resource.clone(),
            params: wanted.params.clone(),
            shown,
        };
        let Decided { verdict, due } = decided(judge, ask).await;
        let mut telling = Telling::new(judge, &self.api, due);
        if let Some(refusal) = denied(&what, &verdict) {
            return Err(refusal);
        }
        let pass = if verdict == Verdict::Agreed { Pass::Few } else { Pass::Most };
        let limits = match verdict {
            Verdict::Limit(limits) => Some(limits),
            _ => None,
        };
        if let Some(limits) = &limits {
            holdable(limits, wanted.method).map_err(|why| {
                Refusal::limit(
                    StatusCode::FORBIDDEN,
                    format!("{what}: it is allowed only within \"{limits}\", {why}"),
                )
            })?;
        }
        let request = self.request(&wanted, &parts, body, pass)?;
        let answer = self.pool.send(telling.sends(request)).await;
        telling.came(&answer);
        drop(telling);
        self.let_through(answer.map_err(unanswered)?, &wanted, limits).await
    }

    /// What is asked for; else why it is refused, and what is to be recorded of it.
    fn wanted(&self, raw: &str, parts: &request::Parts) -> Result<Wanted<'_>, Unsent> {
        let name = &self.api.name;
        let head_only = parts.method == Method::HEAD;
        let method =
            if head_only { Some(HttpMethod::Get) } else { HttpMethod::from_name(parts.method.as_str()) };
        let unmapped = |path: &str| {
            let shown = quote(&format!("{} {path}", parts.method), QUOTE_MAX);
            let error = format!("{shown} was not sent: no route of the gate \"{name}\" stands for it");
            let next = format!(
                "go on without it, or have somebody add a [[gate.route]] to \"{name}\": `avouch rules show --out rules`, edit \
                 rules/gates.toml, `avouch rules publish rules`"
            );
            let reads = method.is_some_and(HttpMethod::reads);
            let action = if reads { avouch_rules::HTTP_READ } else { avouch_rules::HTTP_WRITE };
            // No ID in a catalogue has quotes: whatever the rules are, this is denied.
            let event = Happened::UnknownRoute { action, resource: format!("{name}/\"{shown}\"") };
            Box::new((Refusal::new(StatusCode::FORBIDDEN, "unmapped", error, next), Some(event)))
        };
        let unfit = |why: String| {
            let next = "correct it and send it again";
            let refusal =
                Refusal::new(StatusCode::BAD_REQUEST, "request", format!("it was not sent: {why}"), next);
            Box::new((refusal, None))
        };
        let plain = parts.uri.scheme().is_none() && parts.uri.authority().is_none();
        if !plain || parts.headers.contains_key(UPGRADE) {
            return Err(unfit("expected a path, and no proxied request or change of protocol".to_owned()));
        }
        // A person is shown one of them, and so the upstream sees one.
        if parts.headers.get_all(CONTENT_TYPE).iter().count() > 1 {
            return Err(unfit("it says twice what its body is".to_owned()));
        }
        let target = target::read(raw).map_err(unfit)?;
        let path = || target.written().split('?').next().unwrap_or_default().to_owned();
        let Some(method) = method else { return Err(unmapped(&path())) };
        match asked(&self.api.routes, method, &target) {
            Ok((route, params)) => Ok(Wanted { route, params, method, target, head_only }),
            Err(Not::Mapped) => Err(unmapped(&path())),
            Err(Not::Fitting(why)) => Err(unfit(why)),
        }
    }

    /// What a person would be shown: all that would be sent. Empty if it is more than anybody reads, or no text.
    fn shown(&self, wanted: &Wanted<'_>, parts: &request::Parts, body: &Begun) -> String {
        let Some(body) = body.all() else { return String::new() };
        // What reads goes on without a body, and without a word on what it is.
        let kind = parts.headers.get(CONTENT_TYPE).filter(|_| !wanted.method.reads());
        let method = if wanted.head_only { "HEAD" } else { wanted.method.name() };
        shown(&self.api, (method, &wanted.target), kind, body)
    }

    /// The request as it goes on, written anew from what was decided.
    fn request(
        &self,
        wanted: &Wanted<'_>,
        parts: &request::Parts,
        body: Begun,
        pass: Pass,
    ) -> Result<Request<Body>, Refusal> {
        let unfit =
            |why: String| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "secret", why, "mend the gate");
        let headers = head::to_upstream(&parts.headers, &self.api, pass).map_err(unfit)?;
        let uri = format!("{}{}", self.api.upstream.base, wanted.target.written());
        let method = if wanted.head_only { "HEAD" } else { wanted.method.name() };
        let reads = wanted.method.reads();
        let body = if reads { whole("") } else { body.on() };
        let request = Request::builder().method(method).uri(uri).version(Version::HTTP_11).body(body);
        let mut request = request.map_err(|e| unfit(format!("it can't be sent: {e}")))?;
        *request.headers_mut() = headers;
        if reads {
            request.headers_mut().remove(CONTENT_TYPE);
        }
        Ok(request)
    }

    /// The answer as the caller gets it.
    async fn let_through(
        &self,
        answer: Response<Incoming>,
        wanted: &Wanted<'_>,
        limits: Option<Limits>,
    ) -> Result<Response<Body>, Refusal> {
        let (parts, body) = answer.into_parts();
        let secret = self.api.held().map(|Held { value, .. }| Zeroizing::new(value.as_bytes().to_vec()));
        let secret = secret.unwrap_or_default();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Refusal::upstream("upstream", "the upstream wants to speak another protocol"));
        }
        let encoded = parts.headers.get(CONTENT_ENCODING).is_some_and(|how| how != "identity");
        if encoded && (limits.is_some() || !secret.is_empty()) {
            return Err(Refusal::upstream(
                "encoded",
                "the upstream compresses its answer, though it was told not to",
            ));
        }
        if !secret.is_empty() && head::holds(&parts.headers, &secret) {
            return Err(told_secret());
        }
        let (headers, body) = match limits {
            None => {
                let headers = head::to_caller(&parts.headers, true, wanted.head_only);
                (headers, watched(body, secret, wanted.head_only).await?)
            }
            Some(limits) => {
                let mut headers = head::to_caller(&parts.headers, false, wanted.head_only);
                let body = self.limited(&parts, body, wanted, &limits, &secret).await?;
                if let Ok(text) = HeaderValue::from_str(&limits.to_string()) {
                    headers.insert(LIMITS, text);
                }
                (headers, whole(body))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = parts.status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// What is left of an answer within limits.
    async fn limited(
        &self,
        parts: &response::Parts,
        body: Incoming,
        wanted: &Wanted<'_>,
        limits: &Limits,
        secret: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        let within = || format!("the answer is not within \"{limits}\"");
        let rows = Rows::of(limits);
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let form = Form::of(kind);
        if rows.is_some() && !parts.status.is_success() {
            let error =
                format!("the upstream answered {}, and what it says are no rows", parts.status.as_u16());
            return Err(Refusal { status: parts.status, ..Refusal::limit(StatusCode::BAD_GATEWAY, error) });
        }
        if wanted.head_only || body.is_end_stream() {
            return Ok(Vec::new());
        }
        if rows.is_some() && form.is_none() {
            let error = format!(
                "{}: rows are taken from JSON and NDJSON, and this is \"{}\"",
                within(),
                quote(kind, QUOTE_MAX)
            );
            return Err(Refusal::limit(StatusCode::BAD_GATEWAY, error));
        }
        // Rows are counted in what is held; without them what is held is what is shown.
        let most = match (&rows, limits.max_bytes) {
            (None, Some(most)) => most.min(HTTP_HELD_MAX),
            _ => HTTP_HELD_MAX,
        };
        let Ok(_place) = self.held.acquire().await else {
            return Err(Refusal::limit(StatusCode::BAD_GATEWAY, within()));
        };
        let bytes = held(body, most)
            .await
            .map_err(|why| Refusal::limit(StatusCode::BAD_GATEWAY, format!("{}: {why}", within())))?;
        if find(&bytes, secret).is_some() {
            return Err(told_secret());
        }
        let left = match (rows, form) {
            (Some(rows), Some(form)) => rows
                .left(form, &wanted.route.rows_at, &bytes)
                .map_err(|why| Refusal::limit(StatusCode::BAD_GATEWAY, format!("{}: {why}", within())))?
                .into_bytes(),
            _ => bytes,
        };
        let length = u64::try_from(left.len()).unwrap_or(u64::MAX);
        if limits.max_bytes.is_some_and(|most| length > most) {
            let error = format!("{}: it has {length} bytes", within());
            return Err(Refusal::limit(StatusCode::BAD_GATEWAY, error));
        }
        Ok(left)
    }
}

fn unanswered(why: Unanswered) -> Refusal {
    match why {
        Unanswered::Unknown(text) => Refusal::upstream("upstream", text),
        Unanswered::Unsent(text) => {
            let next = "try again later; nothing has been sent";
            Refusal::new(StatusCode::BAD_GATEWAY, "upstream", text, next)
        }
    }
}

/// An answer that goes through as it comes. A short one is looked at first, so that it can be refused as a whole.
async fn watched(body: Incoming, secret: Zeroizing<Vec<u8>>, head_only: bool) -> Result<Body, Refusal> {
    let short = body.size_hint().exact().is_some_and(|length| length <= HTTP_LOOKED_AT_MAX);
    if secret.is_empty() || head_only || !short {
        return Ok(Watched::body(body, secret));
    }
    let bytes = held(body, HTTP_LOOKED_AT_MAX).await;
    let bytes =
        bytes.map_err(|why| Refusal::upstream("upstream", format!("the answer did not come: {why}")))?;
    if find(&bytes, &secret).is_some() { Err(told_secret()) } else { Ok(whole(bytes)) }
}

fn told_secret() -> Refusal {
    let error = "the answer tells the secret of the gate, so it was not let through";
    Refusal::upstream("secret", error)
}

/// The beginning of a body, as far as a person could be shown it.
async fn begun(body: Incoming, method: HttpMethod) -> Result<Begun, Refusal> {
    let unfit = |status, why: String| {
        Refusal::new(status, "request", format!("it was not sent: {why}"), "correct it and send it again")
    };
    if body.size_hint().exact().is_some_and(|length| length > HTTP_BODY_MAX) {
        let why = format!("its body has more than {HTTP_BODY_MAX} bytes");
        return Err(unfit(StatusCode::PAYLOAD_TOO_LARGE, why));
    }
    let begun = timeout(HTTP_BODY_TIME_MAX, Begun::read(body, REQUEST_TEXT_MAX)).await;
    let begun = begun.map_err(|_| {
        let why = format!("its body did not come within {} s", HTTP_BODY_TIME_MAX.as_secs());
        unfit(StatusCode::REQUEST_TIMEOUT, why)
    })?;
    let begun = begun.map_err(|e| unfit(StatusCode::BAD_REQUEST, format!("its body broke off: {e}")))?;
    if method.reads() && !begun.is_empty() {
        return Err(unfit(StatusCode::BAD_REQUEST, "a request that reads has no body".to_owned()));
    }
    Ok(begun)
}

/// All of an answer, if it is no more than this.
async fn held(body: Incoming, most: u64) -> Result<Vec<u8>, String> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let collected = timeout(HTTP_HELD_TIME_MAX, Limited::new(body, most).collect()).await;
    match collected {
        Err(_) => Err(format!("it did not come within {} s", HTTP_HELD_TIME_MAX.as_secs())),
        Ok(Ok(collected)) => Ok(collected.to_bytes().to_vec()),
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => {
            Err(format!("it has more than {most} bytes"))
        }
        Ok(Err(e)) => Err(format!("it broke off: {e}")),
    }
}

/// Why the gate can't hold an answer to these limits, if it can't; known before anything is sent.
fn holdable(limits: &Limits, method: HttpMethod) -> Result<(), String> {
    let Limits { max_rows: _, max_bytes: _, fields: _, read_only, ttl } = limits;
    if ttl.is_some() {
        return Err("and an HTTP gate can't end what it has let through".to_owned());
    }
    if *read_only && !method.reads() {
        return Err(format!("and {} changes something", method.name()));
    }
    Ok(())
}
