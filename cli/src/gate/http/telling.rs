//! What is shown of a request, and what is told of it afterwards: in one form, the first from what is asked, the second from what
//! went to the upstream.
//!
//! The receipt is given when the answer is there, or when nobody waits for it any more. Never holds up either way.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use avouch_domain::CallResult;
use avouch_domain::limits::REQUEST_TEXT_MAX;
use avouch_rules::{HttpMethod, Params, Reach};
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::Uri;
use hyper::{Method, Request, Response};
use parking_lot::Mutex;
use serde_json::json;

use super::Api;
use super::asked::asked;
use super::body::{Body, BodyError};
use super::pool::Unanswered;
use super::target::{self, Target};
use crate::gate::mcp::json::canonical;
use crate::gate::{Did, Due, Judge};

/// All of a request in the form that a person is shown. Empty if it is more than anybody reads, or no text.
pub(super) fn shown(
    api: &Api,
    (method, target): (&str, &Target),
    kind: Option<&HeaderValue>,
    body: Vec<u8>,
) -> String {
    let Ok(body) = String::from_utf8(body) else { return String::new() };
    let kind = match kind.map(HeaderValue::to_str) {
        Some(Err(_)) => return String::new(),
        Some(Ok(kind)) => kind,
        None => "",
    };
    let mut shown = json!({ "method": method, "url": url(api, target) });
    let said = [("type", kind.to_owned()), ("body", body)].into_iter().filter(|(_, said)| !said.is_empty());
    if let Some(shown) = shown.as_object_mut() {
        shown.extend(said.map(|(name, said)| (name.to_owned(), said.into())));
    }
    let shown = canonical(&shown);
    if shown.len() > REQUEST_TEXT_MAX { String::new() } else { shown }
}

fn url(api: &Api, target: &Target) -> String {
    let upstream = &api.upstream;
    let scheme = match &upstream.reach {
        Reach::Tls { .. } => "https://",
        Reach::Loopback { .. } => "http://",
        Reach::Socket(path) => return format!("unix:{path}{}", target.written()),
    };
    format!("{scheme}{}{}{}", upstream.authority, upstream.base, target.written())
}

/// What was taken from a body on its way out.
type Taken = Arc<Mutex<Vec<u8>>>;

/// The head of what was sent, and its body as far as it went.
struct Sent {
    method: Method,
    uri: Uri,
    kind: Option<HeaderValue>,
    body: Taken,
}

/// Gives the receipt of a request, if one is to be given, once it is dropped.
pub(super) struct Telling<'a, J: Judge> {
    judge: &'a J,
    api: &'a Api,
    due: Option<Due>,
    sent: Option<Sent>,
    result: CallResult,
    status: u16,
}

impl<'a, J: Judge> Telling<'a, J> {
    /// Nothing is sent yet.
    pub(super) fn new(judge: &'a J, api: &'a Api, due: Option<Due>) -> Self {
        Self { judge, api, due, sent: None, result: CallResult::Failed, status: 0 }
    }

    /// The request as it is to be sent.
    pub(super) fn sends(&mut self, request: Request<Body>) -> Request<Body> {
        let Some(due) = self.due else { return request };
        let (parts, body) = request.into_parts();
        let taken = Taken::default();
        let sent = Sent {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            kind: parts.headers.get(CONTENT_TYPE).cloned(),
            body: taken.clone(),
        };
        (self.sent, self.result) = (Some(sent), CallResult::Lost);
        let body = if due.agreed { Seen { body, taken }.boxed_unsync() } else { body };
        Request::from_parts(parts, body)
    }

    /// What came of it.
    pub(super) fn came(&mut self, answer: &Result<Response<Incoming>, Unanswered>) {
        (self.result, self.status) = match answer {
            Ok(answer) => (CallResult::Answered, answer.status().as_u16()),
            Err(Unanswered::Unsent(_)) => (CallResult::Failed, 0),
            Err(Unanswered::Unknown(_)) => (CallResult::Lost, 0),
        };
    }

    fn did(&mut self) -> Option<Did> {
        let due = self.due.take()?;
        let (result, status) = (self.result, self.status);
        let sent = self.sent.take().filter(|_| result != CallResult::Failed);
        let Some(Sent { method, uri, kind, body }) = sent else { return Some(Did::nothing(due)) };
        let body = std::mem::take(&mut *body.lock());
        let mut did = Did { result, status, ..Did::nothing(due) };
        if let Some((target, action, resource, params)) = self.read(&method, &uri) {
            if due.agreed {
                did.sent = shown(self.api, (method.as_str(), &target), kind.as_ref(), body);
            }
            (did.action, did.resource, did.params) = (action, resource, params);
        }
        Some(did)
    }

    /// What the head of a request asks for, as the gate reads one that comes in.
    fn read(&self, method: &Method, uri: &Uri) -> Option<(Target, String, String, Params)> {
        let raw = uri.path_and_query()?.as_str().strip_prefix(self.api.upstream.base.as_str())?;
        let target = target::read(raw).ok()?;
        let head_only = *method == Method::HEAD;
        let method = if head_only { HttpMethod::Get } else { HttpMethod::from_name(method.as_str())? };
        let (route, params) = asked(&self.api.routes, method, &target).ok()?;
        let (action, resource) = (route.action.clone(), route.resource.clone());
        Some((target, action, resource, params))
    }
}

impl<J: Judge> Drop for Telling<'_, J> {
    fn drop(&mut self) {
        if let Some(did) = self.did() {
            self.judge.did(did);
        }
    }
}

/// A body of which is kept what is taken from it, as far as anybody could be shown.
struct Seen {
    body: Body,
    taken: Taken,
}

impl hyper::body::Body for Seen {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let mut taken = this.taken.lock();
            // One byte more than can be shown: then it is known to be too much.
            let room = (REQUEST_TEXT_MAX + 1).saturating_sub(taken.len());
            taken.extend(data.iter().take(room));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
