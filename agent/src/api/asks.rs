//! What the gates of a run ask on a stream of their own: each question is decided where the stream is served, and no other task
//! is woken for it.
//!
//! Never decides two questions of one stream at once, and never answers after the run has ended.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use avouch_proto::run_v1 as wire;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::Stop;
use super::run::{no_token, question, wire_answer};
use super::status::Refusal;
use super::steps::to_its_end;
use crate::runs::OwnCode;

/// A stream of questions, and for whom it is.
pub(super) struct Asks {
    pub gates: OwnCode,
    pub questions: Streaming<wire::Ask>,
    pub stop: Stop,
}

/// The next answer, and what answers after it; `None` when nothing more is asked.
type Next = Result<Option<(Asks, wire::Answer)>, Status>;

/// The answers, in the order of the questions.
pub struct Answers(Option<Pin<Box<dyn Future<Output = Next> + Send>>>);

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Answers").field(&self.0.is_some()).finish()
    }
}

impl Answers {
    pub(super) fn to(asks: Asks) -> Self {
        Self(Some(Box::pin(asks.next())))
    }
}

impl Stream for Answers {
    type Item = Result<wire::Answer, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(next) = &mut self.0 else { return Poll::Ready(None) };
        let next = std::task::ready!(next.as_mut().poll(cx));
        let (rest, item) = match next {
            Ok(Some((asks, answer))) => (Some(asks), Some(Ok(answer))),
            Ok(None) => (None, None),
            Err(status) => (None, Some(Err(status))),
        };
        self.0 = rest.map(|asks| Box::pin(asks.next()) as _);
        Poll::Ready(item)
    }
}

impl Asks {
    async fn next(mut self) -> Next {
        let asked = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(Refusal::Stopping.into()),
            () = self.gates.ended() => return Err(Status::cancelled("the run has ended")),
            asked = self.questions.message() => asked?,
        };
        let Some(ask) = asked else { return Ok(None) };
        let number = ask.number;
        let Some(question) = question(ask) else {
            return Err(Status::invalid_argument("a parameter has no value"));
        };
        let turn = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(Refusal::Stopping.into()),
            () = self.gates.ended() => return Err(Status::cancelled("the run has ended")),
            turn = self.gates.turn() => turn,
        };
        let gates = self.gates.clone();
        let decided = to_its_end(async move {
            let _turn = turn;
            gates.decide(&question).await
        })
        .await;
        let answer = decided.ok_or_else(|| Status::internal("it was not decided"))?;
        let answer = answer.map_err(|e| no_token(&e.into()))?;
        Ok(Some((self, wire_answer(number, answer))))
    }
}
