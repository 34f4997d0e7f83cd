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
use tonic::transport::Channel;
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
    /// Calls go beside the stream.
    client: Option<RunClient<Channel>>,
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

    /// Gives a receipt, once there is a stream; the caller bounds the time. One that is not taken is lost.
    pub(super) async fn did(&self, did: wire::DidRequest) {
        loop {
            let client = self.0.lock().client.clone();
            let Some(mut client) = client else {
                sleep(AGENT_PAUSE).await;
                continue;
            };
            let record = did.record;
            if let Err(status) = client.did(did).await {
                tracing::debug!(record, %status, "The node agent did not take a receipt");
            }
            return;
        }
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
        let mut client = RunClient::new(channel);
        let asked = client.asks(ReceiverStream::new(queue)).await;
        let answers = asked.map_err(|status| match status.code() {
            Code::Unimplemented => Closed::Unknown,
            _ => Closed::Away,
        })?;
        let open = &mut *self.0.lock();
        (open.say, open.client) = (Some(say), Some(client));
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
        (open.say, open.client) = (None, None);
        open.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use avouch_proto::run_v1::run_server::{Run, RunServer};
    use tokio::net::UnixListener;
    use tokio::time::timeout;
    use tokio_stream::wrappers::UnixListenerStream;
    use tokio_stream::{Stream, StreamExt as _};
    use tonic::{Request, Response, Status};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// What a node agent does with a stream of questions.
    #[derive(Clone, Copy, PartialEq)]
    enum Manner {
        KnowsNone,
        Allows,
        /// Takes one and ends the stream without an answer.
        BreaksOff,
    }

    struct Agent {
        manner: Manner,
        heard: Arc<AtomicUsize>,
    }

    type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

    #[tonic::async_trait]
    impl Run for Agent {
        type HoldStream = Answers<wire::HoldResponse>;
        type AsksStream = Answers<wire::Answer>;

        async fn who_am_i(
            &self,
            _: Request<wire::WhoAmIRequest>,
        ) -> Result<Response<wire::WhoAmIResponse>, Status> {
            Err(Status::unimplemented("not here"))
        }

        async fn hold(
            &self,
            _: Request<Streaming<wire::HoldRequest>>,
        ) -> Result<Response<Self::HoldStream>, Status> {
            Err(Status::unimplemented("not here"))
        }

        async fn asks(
            &self,
            questions: Request<Streaming<wire::Ask>>,
        ) -> Result<Response<Self::AsksStream>, Status> {
            let (manner, heard) = (self.manner, Arc::clone(&self.heard));
            if manner == Manner::KnowsNone {
                return Err(Status::unimplemented("not here"));
            }
            let most = if manner == Manner::BreaksOff { 1 } else { usize::MAX };
            let answers = questions.into_inner().take(most).filter_map(move |ask| {
                heard.fetch_add(1, Ordering::SeqCst);
                let answer = |ask: wire::Ask| wire::Answer {
                    number: ask.number,
                    outcome: "allow".to_owned(),
                    ..wire::Answer::default()
                };
                (manner == Manner::Allows).then(|| ask.map(answer))
            });
            Ok(Response::new(Box::pin(answers)))
        }

        async fn did(&self, did: Request<wire::DidRequest>) -> Result<Response<wire::DidResponse>, Status> {
            if self.manner == Manner::BreaksOff {
                return Err(Status::unimplemented("not here"));
            }
            self.heard.fetch_add(usize::try_from(did.into_inner().record).unwrap(), Ordering::SeqCst);
            Ok(Response::new(wire::DidResponse {}))
        }

        async fn task_token(
            &self,
            _: Request<wire::TaskTokenRequest>,
        ) -> Result<Response<wire::TaskTokenResponse>, Status> {
            Err(Status::unimplemented("not here"))
        }
    }

    /// A node agent, its socket's folder, and how many questions it heard.
    fn agent(manner: Manner) -> (tempfile::TempDir, Arc<AtomicUsize>) {
        let (dir, heard) = (tempfile::tempdir().unwrap(), Arc::<AtomicUsize>::default());
        let socket = UnixListenerStream::new(UnixListener::bind(dir.path().join("socket")).unwrap());
        let run = RunServer::new(Agent { manner, heard: Arc::clone(&heard) });
        tokio::spawn(tonic::transport::Server::builder().add_service(run).serve_with_incoming(socket));
        (dir, heard)
    }

    /// Sends a question as soon as there is a stream.
    async fn sent(asks: &Asks) -> oneshot::Receiver<Answer> {
        let mut ask = wire::Ask::default();
        loop {
            match asks.send(ask).await {
                Ok(answer) => return answer,
                Err(back) => ask = back,
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_node_agent_that_knows_no_stream_is_asked_over_the_line_for_good() {
        let (dir, _) = agent(Manner::KnowsNone);
        let asks = Asks::default();
        timeout(SOON, asks.keep(&dir.path().join("socket"))).await.unwrap();
        assert!(asks.send(wire::Ask::default()).await.is_err());
    }

    #[tokio::test]
    async fn a_question_is_answered_on_the_stream() {
        let (dir, _) = agent(Manner::Allows);
        let (asks, socket) = (Asks::default(), dir.path().join("socket"));
        let answer = async { sent(&asks).await.await };
        let answer = tokio::select! {
            () = asks.keep(&socket) => panic!("it keeps a stream"),
            answer = timeout(SOON, answer) => answer.unwrap().unwrap(),
        };
        assert_eq!((answer.number, answer.outcome.as_str()), (1, "allow"));
    }

    #[tokio::test]
    async fn a_receipt_goes_beside_the_stream_and_a_node_agent_that_knows_none_is_no_error() {
        for (manner, heard_in_all) in [(Manner::Allows, 7), (Manner::BreaksOff, 0)] {
            let (dir, heard) = agent(manner);
            let (asks, socket) = (Asks::default(), dir.path().join("socket"));
            let told = asks.did(wire::DidRequest { record: 7, ..wire::DidRequest::default() });
            tokio::select! {
                () = asks.keep(&socket) => panic!("it keeps a stream"),
                told = timeout(SOON, told) => told.unwrap(),
            }
            assert_eq!(heard.load(Ordering::SeqCst), heard_in_all);
        }
    }

    #[tokio::test]
    async fn a_question_whose_stream_ends_has_no_answer_and_is_never_sent_again() {
        let (dir, heard) = agent(Manner::BreaksOff);
        let (asks, socket) = (Asks::default(), dir.path().join("socket"));
        let both = async {
            let first = sent(&asks).await.await;
            // On the next stream.
            let second = sent(&asks).await.await;
            (first, second)
        };
        let answers = tokio::select! {
            () = asks.keep(&socket) => panic!("it keeps a stream"),
            answers = timeout(SOON, both) => answers.unwrap(),
        };
        assert!(answers.0.is_err() && answers.1.is_err());
        assert_eq!(heard.load(Ordering::SeqCst), 2, "each of them once");
    }
}
