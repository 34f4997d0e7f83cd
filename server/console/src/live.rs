//! News on an open page, as server-sent events: how many records came since, and how many requests wait.
//!
//! Never a name or a text: what is new is seen on the page, when the person wants to. A session does not live on because a
//! page of it stands open.

use std::convert::Infallible;

use avouch_proto::governance_v1 as wire;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use crate::http::{Answer, Asked, whole};
use crate::limits::{NEWS_PAUSE, NEWS_SILENCE};
use crate::sessions::form_token;
use crate::{Console, Governance};

/// Opens a stream for a page that shows the server's log up to the record `after`. No content for whom there is none: a
/// browser does not try again then.
pub(crate) fn stream(console: &Console, asked: &Asked<'_>, after: u64) -> Answer {
    let none = || whole(StatusCode::NO_CONTENT, HeaderValue::from_static("text/plain"), "");
    let (Some(cookie), user) = (asked.cookie(), asked.place.user()) else { return none() };
    let Some(visitor) = console.sessions.peek(cookie, user, (console.clock)()) else { return none() };
    let Some(open) = console.streams.open(form_token(cookie)) else { return none() };
    let (news, told) = mpsc::channel(1);
    let teller = Teller {
        governance: console.governance(&visitor),
        console: console.clone(),
        cookie: zeroize::Zeroizing::new(cookie.to_owned()),
        user,
        news,
        seen: (after, None),
    };
    let stop = asked.place.stop().clone();
    tokio::spawn(async move {
        let _open = open;
        tokio::select! {
            () = stop.cancelled() => {}
            () = teller.run() => {}
        }
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
    user: u32,
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
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Tells what is new, if anything is; false: there is nobody to tell.
    async fn tell(&mut self) -> bool {
        if self.console.sessions.peek(&self.cookie, self.user, (self.console.clock)()).is_none() {
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
