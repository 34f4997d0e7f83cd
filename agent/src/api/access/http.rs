//! HTTP/1.1 on the decision socket: paths, bodies within limits, answers as JSON.

use std::convert::Infallible;
use std::sync::Arc;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming as Received};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::time::timeout;

use super::{Access, Problem};
use crate::api::listener::Incoming;
use crate::api::steps::to_its_end;
use crate::api::{Stop, conn};
use crate::fair::{FairShare, Share};
use crate::limits::{ACCESS_BODY_MAX, ACCESS_HEAD_MAX, REQUEST_ID_MAX, REQUEST_TIME_MAX};
use crate::peer::{Caller, PeerStream};

const EVALUATION: &str = "/access/v1/evaluation";
const EVALUATIONS: &str = "/access/v1/evaluations";
const TASKS: &str = "/v1/tasks/";
const TOKEN: &str = "/token";
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// RFC 9457.
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Accepts and serves until `stop`; then callers have a while to take their last answer. `calls`: shared with the other
/// doors of workloads.
pub async fn serve(incoming: Incoming, access: Access, calls: FairShare, stop: Stop) {
    conn::accept(incoming, &stop, |stream| connection(stream, access.clone(), calls.clone(), stop.clone()))
        .await;
}

async fn connection(stream: PeerStream, access: Access, calls: FairShare, stop: Stop) {
    let caller = stream.caller().clone();
    let service = service_fn(move |request: Request<Received>| {
        let (access, caller, calls) = (access.clone(), caller.clone(), calls.clone());
        async move { Ok::<_, Infallible>(answer(&access, &caller, &calls, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME_MAX)
        .max_buf_size(ACCESS_HEAD_MAX)
        // Who has said all it wants to say still hears the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let outcome = tokio::select! {
        outcome = served.as_mut() => outcome,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    conn::ended(outcome);
}

async fn answer(
    access: &Access,
    caller: &Arc<Caller>,
    calls: &FairShare,
    request: Request<Received>,
) -> Response<Full<Bytes>> {
    let id = request_id(request.headers());
    let answered = match calls.take(caller.pid, caller.uid) {
        Ok(share) => routed(access, caller, share, request).await,
        Err(error) => Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())),
    };
    let (status, kind, body) = match answered {
        Ok(body) => (StatusCode::OK, JSON, body),
        Err(Problem { status, detail, .. }) => {
            let title = status.canonical_reason().unwrap_or_default();
            let body = json!({ "title": title, "status": status.as_u16(), "detail": detail });
            (status, PROBLEM, body.to_string().into_bytes())
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    if let Some(id) = id {
        headers.insert(REQUEST_ID, id);
    }
    response
}

/// What the caller calls its request, to find the answer by.
fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(REQUEST_ID).filter(|id| id.len() <= REQUEST_ID_MAX).cloned()
}

/// What a path stands for.
enum Route {
    One,
    Many,
    Token(String),
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        match path {
            EVALUATION => Some(Self::One),
            EVALUATIONS => Some(Self::Many),
            _ => Some(Self::Token(path.strip_prefix(TASKS)?.strip_suffix(TOKEN)?.to_owned())),
        }
    }
}

async fn routed(
    access: &Access,
    caller: &Arc<Caller>,
    share: Share,
    request: Request<Received>,
) -> Result<Vec<u8>, Problem> {
    let route = Route::of(request.uri().path()).ok_or_else(|| {
        let detail = format!("expected {EVALUATION}, {EVALUATIONS} or {TASKS}TASK{TOKEN}");
        Problem::new(StatusCode::NOT_FOUND, detail)
    })?;
    if request.method() != Method::POST {
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "expected POST"));
    }
    let body = whole(request.into_body()).await?;
    let (access, caller) = (access.clone(), caller.clone());
    // Goes on if the caller hangs up.
    let decided = to_its_end(async move {
        let _share = share;
        match route {
            Route::One => access.evaluation(&caller, &body).await,
            Route::Many => access.evaluations(&caller, &body).await,
            Route::Token(task) => access.token(&caller, &task, &body).await,
        }
    });
    decided
        .await
        .unwrap_or_else(|| Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "it was not decided")))
}

/// The body, if it comes soon and is small.
async fn whole(body: Received) -> Result<Bytes, Problem> {
    let collected = timeout(REQUEST_TIME_MAX, Limited::new(body, ACCESS_BODY_MAX).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("expected at most {ACCESS_BODY_MAX} bytes");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Ok(Err(error)) => Err(Problem::new(StatusCode::BAD_REQUEST, error.to_string())),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come")),
    }
}
