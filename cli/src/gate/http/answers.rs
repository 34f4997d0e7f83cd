//! What a caller is told when its request does not go on: a status, a stable word, a sentence and what to do next.
//!
//! Never the text of a rule, and nothing of an upstream that was held back.

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;

use super::body::{Body, whole};
use crate::gate::limits::TEXT_MAX;
use crate::gate::{Verdict, quote};

/// Says why a request did not go on, or why its answer did not come.
pub const REASON: HeaderName = HeaderName::from_static("x-avouch-reason");
/// Says what an answer was held to.
pub const LIMITS: HeaderName = HeaderName::from_static("x-avouch-limits");

/// Why something did not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    /// A stable word.
    pub reason: String,
    pub error: String,
    pub next: String,
}

impl Refusal {
    /// A refusal of the gate's own.
    pub fn new(status: StatusCode, reason: &str, error: impl Into<String>, next: impl Into<String>) -> Self {
        Self { status, reason: reason.to_owned(), error: error.into(), next: next.into() }
    }

    /// What an upstream did, or did not do.
    pub fn upstream(reason: &str, error: impl Into<String>) -> Self {
        let next = "try again later, or tell the person you work for: the request may have been carried out";
        Self::new(StatusCode::BAD_GATEWAY, reason, error, next)
    }

    /// What a limit takes away whole.
    pub fn limit(status: StatusCode, error: impl Into<String>) -> Self {
        let next = "ask for less, or go on without it; another way of asking will not help";
        Self::new(status, "limit", error, next)
    }

    /// As it is sent.
    pub fn response(&self) -> Response<Body> {
        let text = |text: &str| quote(text, TEXT_MAX);
        let body =
            json!({ "error": text(&self.error), "reason": text(&self.reason), "next": text(&self.next) });
        let mut response = Response::new(whole(format!("{body}\n")));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let word = HeaderValue::from_str(&text(&self.reason)).ok();
        headers.insert(REASON, word.unwrap_or_else(|| HeaderValue::from_static("denied")));
        response
    }
}

/// Why a request does not go on; nothing if it does, whole or within limits.
pub fn denied(what: &str, verdict: &Verdict) -> Option<Refusal> {
    let refused = |status, reason: &str, text: &str, next: &str| {
        // The node agent says what to do next in the same breath.
        let (why, then) = text.split_once("; next: ").unwrap_or((text.trim_end_matches('.'), ""));
        let next = if then.is_empty() { next.to_owned() } else { format!("{then}; or {next}") };
        Some(Refusal::new(status, reason, format!("{what}: {why}"), next))
    };
    match verdict {
        Verdict::Allow | Verdict::Agreed | Verdict::Limit(_) => None,
        Verdict::Deny { reason, text } => {
            let next = "go on without it: sending it again will not help";
            refused(StatusCode::FORBIDDEN, reason, text, next)
        }
        Verdict::Ask { text } => {
            let next = "a person looks at it with `avouch ask list` and answers; then send exactly the same request again";
            refused(StatusCode::FORBIDDEN, "ask", text, next)
        }
        Verdict::Unavailable { text } => {
            let next = "try again later; nothing has been sent";
            refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text, next)
        }
    }
}
