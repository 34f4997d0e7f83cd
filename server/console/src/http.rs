//! The listener of the pages: HTTP/1.1 on loopback, within limits, with the headers that keep a browser honest.
//!
//! Never answers under another name than its own (a name of somebody else that leads here is an attack), and never takes a
//! form that another site sent.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::forms::Fields;
use crate::limits::{ACCEPT_PAUSE, CONNECTIONS_MAX, FORM_MAX, HEAD_MAX, REQUEST_TIME};
use crate::{Console, actions, live, pages, routes};

/// What goes back.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// On every answer: nothing from elsewhere, nothing kept, nothing framed, nothing told to others.
const HEADERS: [(HeaderName, HeaderValue); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Where the pages are, as a browser names it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    port: u16,
    stop: CancellationToken,
}

impl Place {
    #[cfg(test)]
    pub(crate) fn at(port: u16) -> Self {
        Self { port, stop: CancellationToken::new() }
    }

    pub(crate) fn is_host(&self, host: &str) -> bool {
        let name = host.strip_suffix(&format!(":{}", self.port));
        name.is_some_and(|name| ["127.0.0.1", "localhost", "[::1]"].contains(&name))
    }

    /// Its own for each port: browsers share cookies between the ports of a machine.
    fn cookie_name(&self) -> String {
        format!("avouch_session_{}", self.port)
    }

    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// The header that gives a browser its cookie. An empty one takes it away.
    pub(crate) fn cookie(&self, value: &str) -> Option<HeaderValue> {
        let gone = if value.is_empty() { "; Max-Age=0" } else { "" };
        let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax{gone}", self.cookie_name());
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    /// The cookie that a browser shows.
    pub(crate) fn cookie_of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let name = self.cookie_name();
        let texts = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Why a request is none that a page of this server made.
    fn foreign(&self, request: &Request<Incoming>) -> Option<&'static str> {
        let text =
            |name: HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
        if !text(header::HOST).is_some_and(|host| self.is_host(host)) {
            return Some("These pages are at 127.0.0.1 and under no other name.");
        }
        if request.method() != Method::POST {
            return None;
        }
        let origin = text(header::ORIGIN)
            .is_none_or(|origin| origin.strip_prefix("http://").is_some_and(|host| self.is_host(host)));
        let site = text(HeaderName::from_static("sec-fetch-site")).is_none_or(|site| site == "same-origin");
        (!origin || !site).then_some("A page of another site sent this form.")
    }
}

/// Serves the pages until `stop`; then runs out what was asked before.
pub async fn serve(listener: TcpListener, console: Console, stop: CancellationToken) {
    let Ok(address) = listener.local_addr() else { return };
    let place = Place { port: address.port(), stop: stop.clone() };
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let running = TaskTracker::new();
    loop {
        let Ok(turn) = free.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, caller)) => {
                let (console, place) = (console.clone(), place.clone());
                running.spawn(async move {
                    let _turn = turn;
                    connection(stream, caller, console, place).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "Unable to accept a connection to the pages");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    running.close();
    if timeout(REQUEST_TIME, running.wait()).await.is_err() {
        tracing::debug!("Connections to the pages were cut");
    }
}

async fn connection(stream: TcpStream, caller: SocketAddr, console: Console, place: Place) {
    let stop = place.stop.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (console, place) = (console.clone(), place.clone());
        async move { Ok::<_, Infallible>(guarded(&console, &place, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let outcome = tokio::select! {
        outcome = served.as_mut() => outcome,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(caller_addr = %caller, %error, "Connection to the pages ended");
    }
}

async fn guarded(console: &Console, place: &Place, request: Request<Incoming>) -> Answer {
    let mut answer = match place.foreign(&request) {
        Some(why) => problem(StatusCode::MISDIRECTED_REQUEST, "Not from here", why),
        None => routed(console, place, request).await,
    };
    for (name, value) in HEADERS {
        answer.headers_mut().entry(name).or_insert(value);
    }
    answer
}

async fn routed(console: &Console, place: &Place, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let query = Fields::read(head.uri.query().unwrap_or_default().as_bytes());
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/assets/console.css") => asset("text/css; charset=utf-8", pages::STYLE),
        (&Method::GET, "/assets/console.js") => asset("text/javascript; charset=utf-8", pages::SCRIPT),
        (&Method::GET, "/sign-in") => routes::sign_in(console, place, query.get("code")),
        (&Method::GET, "/live") => live::stream(console, place, &head.headers, query.number("after")),
        (&Method::GET, path) => routes::page(console, place, &head.headers, path, &query).await,
        (&Method::POST, path) => {
            let kind = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
            if !kind.is_some_and(|kind| kind.starts_with(FORM)) {
                return problem(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "No form",
                    "Expected a form of these pages.",
                );
            }
            match timeout(REQUEST_TIME, Limited::new(body, FORM_MAX).collect()).await {
                Ok(Ok(form)) => {
                    let form = Fields::read(&form.to_bytes());
                    actions::take(console, place, &head.headers, path, form).await
                }
                Ok(Err(_)) => problem(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "Too much",
                    &format!("Expected a form of at most {FORM_MAX} bytes."),
                ),
                Err(_) => problem(StatusCode::REQUEST_TIMEOUT, "Too slow", "The form did not come."),
            }
        }
        _ => {
            let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, "Not so", "Expected GET or POST.");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST"));
            answer
        }
    }
}

/// An answer with a whole body.
pub(crate) fn whole(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

fn asset(kind: &'static str, text: &'static str) -> Answer {
    let mut answer = whole(StatusCode::OK, HeaderValue::from_static(kind), text);
    // The next version may have others.
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

/// A page that was made, or a word that it was not.
pub(crate) fn html(status: StatusCode, made: Result<String, askama::Error>) -> Answer {
    match made {
        Ok(page) => whole(status, HTML, page),
        Err(error) => {
            tracing::error!(%error, "A page could not be made");
            whole(
                StatusCode::INTERNAL_SERVER_ERROR,
                HTML,
                "<!doctype html><title>Avouch</title><p>This page could not be made.",
            )
        }
    }
}

/// A page for somebody who is not signed in, or not known yet.
pub(crate) fn problem(status: StatusCode, title: &str, text: &str) -> Answer {
    html(status, pages::failed(None, status.as_u16(), title, text))
}

/// Sends a browser on with GET.
pub(crate) fn see(place: &str) -> Answer {
    let mut answer = whole(StatusCode::SEE_OTHER, HTML, "");
    if let Ok(place) = HeaderValue::from_str(place) {
        answer.headers_mut().insert(header::LOCATION, place);
    }
    answer
}
