//! The listener of the pages: HTTP/1.1 on loopback, within limits, with the headers that keep a browser honest. What a session
//! sees lies in a room of its own, `/ROOM/identities`: see [`crate::sessions::room`].
//!
//! Never answers under another name than its own (a name of somebody else that leads here is an attack), and never takes a
//! form that another site sent.

use std::convert::Infallible;
use std::sync::Arc;

use avouch_domain::is_loopback;
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
use crate::limits::{ACCEPT_PAUSE, CONNECTIONS_MAX, CONNECTIONS_PER_USER, FORM_MAX, HEAD_MAX, REQUEST_TIME};
use crate::places::Places;
use crate::sessions::room;
use crate::whose::owner_of;
use crate::{Console, actions, arrivals, live, pages, routes};

/// What goes back.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const FORM: &[u8] = b"application/x-www-form-urlencoded";
const COOKIE: &str = "avouch_session";
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// A browser that fetches ahead says so.
const PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");

/// On every answer: nothing from elsewhere, nothing kept, nothing framed, nothing told to others.
const HEADERS: [(HeaderName, HeaderValue); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    // None at all would make browsers hide the origin of a form from this server, too.
    (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Where the pages are, as a browser names it, and who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    port: u16,
    /// The local user whose connection it is.
    user: u32,
    stop: CancellationToken,
}

impl Place {
    #[cfg(test)]
    pub(crate) fn at(port: u16) -> Self {
        Self { port, user: 0, stop: CancellationToken::new() }
    }

    pub(crate) fn user(&self) -> u32 {
        self.user
    }

    pub(crate) fn is_host(&self, host: &str) -> bool {
        // Browsers leave out the port that HTTP has by itself.
        let name = host.strip_suffix(&format!(":{}", self.port)).or((self.port == 80).then_some(host));
        name.is_some_and(is_loopback)
    }

    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// The header that gives a browser its cookie, for the room of its session alone.
    pub(crate) fn cookie(&self, value: &str) -> Option<HeaderValue> {
        self.set_cookie(value, &room(value), "")
    }

    /// The header that takes the cookie away again.
    pub(crate) fn no_cookie(&self, room: &str) -> Option<HeaderValue> {
        self.set_cookie("", room, "; Max-Age=0")
    }

    fn set_cookie(&self, value: &str, room: &str, more: &str) -> Option<HeaderValue> {
        let text = format!("{COOKIE}={value}; Path=/{room}/; HttpOnly; SameSite=Lax{more}");
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(header)
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
        let site = text(FETCH_SITE).is_none_or(|site| site == "same-origin");
        (!origin || !site).then_some("A page of another site sent this form.")
    }
}

/// A request as far as it is read, within the room of a session.
pub(crate) struct Asked<'a> {
    pub(crate) place: &'a Place,
    pub(crate) headers: &'a HeaderMap,
    /// The first part of its path.
    pub(crate) room: &'a str,
    /// What follows.
    pub(crate) path: &'a str,
}

impl Asked<'_> {
    /// The cookie that a browser shows, if this is its room.
    pub(crate) fn cookie(&self) -> Option<&str> {
        cookies(self.headers, COOKIE).find(|value| room(value) == self.room)
    }
}

/// The values of all cookies of a name that a browser shows.
pub(crate) fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let texts = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(move |(known, _)| *known == name).map(|(_, value)| value)
}

/// Whether somebody follows a link of their own: typed, pasted or opened by a program, and no page's and no browser's guess.
fn is_own_step(headers: &HeaderMap) -> bool {
    is_step_from(headers, &["none"])
}

/// As [`is_own_step`], or from one of these pages.
pub(crate) fn is_step_of_a_page(headers: &HeaderMap) -> bool {
    is_step_from(headers, &["none", "same-origin"])
}

fn is_step_from(headers: &HeaderMap, sites: &[&str]) -> bool {
    let known = headers.get(FETCH_SITE).is_none_or(|site| sites.iter().any(|known| site == known));
    known && !headers.contains_key(PURPOSE)
}

/// Serves the pages until `stop`; then runs out what was asked before.
pub async fn serve(listener: TcpListener, console: Console, stop: CancellationToken) {
    let Ok(address) = listener.local_addr() else { return };
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let users = Places::new(CONNECTIONS_PER_USER, CONNECTIONS_MAX);
    let running = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "Unable to accept a connection to the pages");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(turn) = free.clone().try_acquire_owned() else {
            tracing::warn!(limit = CONNECTIONS_MAX, "Too many connections to the pages: one is closed");
            continue;
        };
        let (console, users, stop) = (console.clone(), users.clone(), stop.clone());
        running.spawn(async move {
            let _turn = turn;
            let served = async {
                let Some(user) = owner_of(&stream).await else {
                    return tracing::warn!(
                        "The kernel does not say whose connection to the pages it is: it is closed"
                    );
                };
                let Some(_share) = users.open(user) else {
                    return tracing::warn!(
                        user,
                        limit = CONNECTIONS_PER_USER,
                        "Too many connections of a user to the pages: one is closed"
                    );
                };
                connection(stream, console, Place { port: address.port(), user, stop: stop.clone() }).await;
            };
            // A browser that does not read holds nobody up.
            tokio::select! {
                () = served => {}
                () = async { stop.cancelled().await; sleep(REQUEST_TIME).await } => {}
            }
        });
    }
    running.close();
    running.wait().await;
}

async fn connection(stream: TcpStream, console: Console, place: Place) {
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
        tracing::debug!(%error, "Connection to the pages ended");
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
    let whole_path = head.uri.path();
    let (room, path) = whole_path.trim_start_matches('/').split_once('/').unwrap_or_default();
    let asked = Asked { place, headers: &head.headers, room, path };
    match (&head.method, whole_path) {
        (&Method::GET, "/assets/console.css") => asset("text/css; charset=utf-8", pages::STYLE),
        (&Method::GET, "/assets/console.js") => asset("text/javascript; charset=utf-8", pages::SCRIPT),
        // Browsers ask for a picture of every site.
        (&Method::GET, "/favicon.ico") => whole(StatusCode::NO_CONTENT, HTML, ""),
        (&Method::GET, "/sign-in") if is_own_step(&head.headers) => {
            routes::sign_in(console, place, query.get("code"))
        }
        (&Method::GET, "/sign-in") => {
            let text = "Copy the link that `avouch console` printed into the address bar.";
            problem(StatusCode::FORBIDDEN, "A page of another site leads here", text)
        }
        (&Method::GET, "/sign-in/begin") => arrivals::begin(console, place, &head.headers, &query).await,
        (&Method::GET, arrivals::BACK) => arrivals::back(console, place, &head.headers, &query).await,
        (&Method::GET, _) if path == "live" => live::stream(console, &asked, query.number("after")),
        (&Method::GET, _) => routes::page(console, &asked, &query).await,
        (&Method::POST, _) => {
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
                    actions::take(console, &asked, &query, form).await
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
    html(status, pages::failed(None, false, status.as_u16(), title, text))
}

/// Sends a browser on with GET.
pub(crate) fn see(place: &str) -> Answer {
    let mut answer = whole(StatusCode::SEE_OTHER, HTML, "");
    if let Ok(place) = HeaderValue::from_str(place) {
        answer.headers_mut().insert(header::LOCATION, place);
    }
    answer
}
