//! News on an open page, as server-sent events: how many records came since, and how many requests wait.
//!
//! Never a name or a text: what is new is seen on the page, when the person wants to. A session does not live on because a
//! page of it stands open.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use avouch_proto::governance_v1 as wire;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::http::{Answer, Place, whole};
use crate::limits::{NEWS_PAUSE, NEWS_SILENCE, STREAMS_MAX, STREAMS_PER_SESSION};
use crate::sessions::form_token;
use crate::{Console, Governance};

/// How many streams are open, by session.
#[derive(Clone, Default)]
pub(crate) struct Streams(Arc<Mutex<HashMap<String, usize>>>);

/// One open stream.
pub(crate) struct Open {
    streams: Streams,
    session: String,
}

impl Streams {
    pub(crate) fn open(&self, session: String) -> Option<Open> {
        let mut open = self.0.lock();
        if open.values().sum::<usize>() >= STREAMS_MAX {
            return None;
        }
        let count = open.entry(session.clone()).or_default();
        if *count >= STREAMS_PER_SESSION {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Open { streams: self.clone(), session })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.streams.0.lock();
        if let Some(count) = open.get_mut(&self.session) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.session);
            }
        }
    }
}

/// Opens a stream for a page that shows the server's log up to the record `after`. No content for whom there is none: a
/// browser does not try again then.
pub(crate) fn stream(console: &Console, place: &Place, headers: &HeaderMap, after: u64) -> Answer {
    let none = || whole(StatusCode::NO_CONTENT, HeaderValue::from_static("text/plain"), "");
    let Some(cookie) = place.cookie_of(headers) else { return none() };
    let Some(visitor) = console.sessions.find(cookie, (console.clock)()) else { return none() };
    let Some(open) = console.streams.open(form_token(cookie)) else { return none() };
    let (news, told) = mpsc::channel(1);
    let teller = Teller {
        governance: console.governance(&visitor),
        console: console.clone(),
        cookie: zeroize::Zeroizing::new(cookie.to_owned()),
        stop: place.stop().clone(),
        news,
        seen: (after, None),
    };
    tokio::spawn(async move {
        let _open = open;
        teller.run().await;
    });
    let body = StreamBody::new(ReceiverStream::new(told).map(|text| Ok::<_, Infallible>(Frame::data(text))));
    let mut answer = Response::new(body.boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer
}

struct Teller {
    governance: Governance,
    console: Console,
    cookie: zeroize::Zeroizing<String>,
    stop: CancellationToken,
    news: mpsc::Sender<Bytes>,
    /// The record that the page shows last, and what was told last.
    seen: (u64, Option<(u64, u32)>),
}

impl Teller {
    async fn run(mut self) {
        let mut changes = self.console.changes.clone();
        loop {
            changes.mark_unchanged();
            if !self.tell().await {
                return;
            }
            let news = async {
                sleep(NEWS_PAUSE).await;
                tokio::select! {
                    changed = changes.changed() => changed.is_ok(),
                    () = sleep(NEWS_SILENCE) => self.news.send(Bytes::from_static(b":\n\n")).await.is_ok(),
                }
            };
            let goes_on = tokio::select! {
                goes_on = news => goes_on,
                () = self.news.closed() => false,
                () = self.stop.cancelled() => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Tells what is new, if anything is; false: there is nobody to tell.
    async fn tell(&mut self) -> bool {
        if !self.console.sessions.lives(&self.cookie, (self.console.clock)()) {
            return false;
        }
        let Ok(overview) = self.governance.overview(wire::OverviewRequest {}).await else { return false };
        let overview = overview.into_inner();
        let (after, told) = self.seen;
        let news = (overview.last_record.saturating_sub(after), overview.waiting);
        // A page is told first when something has happened since it was made.
        let known = told.map_or_else(|| news.0 == 0, |told| told == news);
        self.seen = (after, Some(news));
        if known {
            return true;
        }
        let text = format!("event: new\ndata: {{\"records\":{},\"waiting\":{}}}\n\n", news.0, news.1);
        self.news.send(text.into()).await.is_ok()
    }
}
