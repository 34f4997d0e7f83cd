//! What the gates of a run ask: on a stream of their own, which the thread that serves them opens.
//!
//! Beside the line that holds the run: that one the supervisor hears whatever goes on here. Where there is no stream a question
//! goes over the line. One that was sent and has no answer is denied, and never sent again.

use std::collections::BTreeMap;
use std::path::Path;

use avouch_proto::run_v1 as wire;
use avouch_proto::run_v1::run_client::RunClient;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::hold::{ASKS_WAITING, Answer};
use crate::gate::limits::AGENT_PAUSE;
use crate::verbs::channel::connect;

/// See the module.
#[derive(Default)]
pub(super) struct Asks(Mutex<Open>);

/// The stream of this moment.
#[derive(Default)]
struct Open {
    say: Option<mpsc::Sender<wire::Ask>>,
    number: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
}

/// Why there is no stream.
enum Closed {
    /// The node agent knows none.
    Unknown,
    /// It may open later.
    Away,
}

impl Asks {
    /// Sends a question, if there is a stream; else gives it back. The answer is none if the stream ends before it comes.
    pub(super) async fn send(&self, ask: wire::Ask) -> Result<oneshot::Receiver<Answer>, wire::Ask> {
        let say = self.0.lock().say.clone();
        let Some(say) = say else { return Err(ask) };
        // Room first: what waits for an answer was sent.
        let Ok(room) = say.reserve().await else { return Err(ask) };
        let (reply, answer) = oneshot::channel();
        let open = &mut *self.0.lock();
        if !open.say.as_ref().is_some_and(|now| now.same_channel(&say)) {
            return Err(ask);
        }
        open.number += 1;
        open.waiting.insert(open.number, reply);
        room.send(wire::Ask { number: open.number, ..ask });
        Ok(answer)
    }

    /// Keeps a stream open on the runtime that this is awaited on, until it is dropped.
    pub(super) async fn keep(&self, socket: &Path) {
        loop {
            match self.opened(socket).await {
                Ok(answers) => self.hear(answers).await,
                Err(Closed::Unknown) => return,
                Err(Closed::Away) => {}
            }
            sleep(AGENT_PAUSE).await;
        }
    }

    async fn opened(&self, socket: &Path) -> Result<Streaming<wire::Answer>, Closed> {
        let channel = connect(socket).await.map_err(|_| Closed::Away)?;
        let (say, queue) = mpsc::channel(ASKS_WAITING);
        let asked = RunClient::new(channel).asks(ReceiverStream::new(queue)).await;
        let answers = asked.map_err(|status| match status.code() {
            Code::Unimplemented => Closed::Unknown,
            _ => Closed::Away,
        })?;
        self.0.lock().say = Some(say);
        Ok(answers.into_inner())
    }

    async fn hear(&self, mut answers: Streaming<wire::Answer>) {
        while let Ok(Some(answer)) = answers.message().await {
            let reply = self.0.lock().waiting.remove(&answer.number);
            if let Some(reply) = reply {
                let _ = reply.send(answer);
            }
        }
        let open = &mut *self.0.lock();
        open.say = None;
        open.waiting.clear();
    }
}
