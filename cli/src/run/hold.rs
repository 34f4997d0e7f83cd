//! The line to the node agent: one stream for as long as the run lasts, opened anew when the node agent starts again. Gates ask
//! beside it where they can.
//!
//! Never lets a question wait for a node agent that is away: it is answered with a denial at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use avouch_proto::run_v1 as wire;
use avouch_proto::run_v1::hold_request::Step as Say;
use avouch_proto::run_v1::hold_response::Step as Said;
use avouch_proto::run_v1::run_client::RunClient;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use zeroize::Zeroize as _;

use super::asks::Asks;
use crate::exit::{DENIED, UNREACHABLE};
use crate::failure::Failure;
use crate::gate::limits::AGENT_PAUSE;
use crate::gate::wire::AWAY;
use crate::verbs::VerbError;
use crate::verbs::channel::connect;

/// Questions on their way to the node agent.
pub(super) const ASKS_WAITING: usize = 64;

/// What the node agent says to a question.
pub type Answer = wire::Answer;

/// Why the run has no identity any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// For people.
    pub reason: String,
}

enum Want {
    Ask(Box<wire::Ask>, oneshot::Sender<Answer>),
    Tell(wire::ToolChanged),
}

/// Handle to the line. Cheap to clone.
#[derive(Clone)]
pub struct Hold {
    wants: mpsc::Sender<Want>,
    lost: watch::Receiver<Option<Lost>>,
    socket: Arc<Path>,
    asks: Arc<Asks>,
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hold").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Want {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Want")
    }
}

impl Hold {
    /// Begins the run. The line ends with the last handle.
    pub(super) async fn begin(socket: &Path, begin: wire::Begin) -> Result<(Self, wire::Begun), Failure> {
        let (line, begun) = Line::open(socket, &begin).await?;
        let (wants, queue) = mpsc::channel(ASKS_WAITING);
        let (tell, lost) = watch::channel(None);
        tokio::spawn(keep(line, socket.to_owned(), begin, queue, tell));
        Ok((Self { wants, lost, socket: socket.into(), asks: Arc::default() }, begun))
    }

    /// Asks whether something may be done.
    pub async fn ask(&self, ask: wire::Ask) -> Answer {
        let ask = match self.asks.send(ask).await {
            Ok(answer) => return answer.await.unwrap_or_else(|_| away()),
            Err(ask) => ask,
        };
        let (reply, answer) = oneshot::channel();
        if self.wants.send(Want::Ask(Box::new(ask), reply)).await.is_err() {
            return away();
        }
        answer.await.unwrap_or_else(|_| away())
    }

    /// Keeps a stream for what is asked beside the line, so that no other thread is woken for it. Awaited where the gates are
    /// served, until they are no more.
    pub(super) async fn ask_here(&self) {
        self.asks.keep(&self.socket).await;
    }

    /// Gives the receipt of a gate.
    pub(super) async fn did(&self, did: wire::DidRequest) {
        self.asks.did(did).await;
    }

    /// Reports a tool that is not what it was.
    pub async fn tell(&self, changed: wire::ToolChanged) {
        let _ = self.wants.send(Want::Tell(changed)).await;
    }

    /// Resolves when the run has lost its identity.
    pub async fn lost(&mut self) -> Lost {
        match self.lost.wait_for(Option::is_some).await {
            Ok(lost) => lost.clone().unwrap_or_else(|| Lost { reason: "the run has ended".to_owned() }),
            Err(_) => std::future::pending().await,
        }
    }
}

/// The answer when nobody answers.
fn away() -> Answer {
    Answer {
        outcome: "deny".to_owned(),
        reason: AWAY.to_owned(),
        text: "the node agent does not answer, so nothing is allowed: try again when it runs".to_owned(),
        ..Answer::default()
    }
}

/// One open stream.
struct Line {
    say: mpsc::Sender<wire::HoldRequest>,
    said: Streaming<wire::HoldResponse>,
}

impl Line {
    async fn open(socket: &Path, begin: &wire::Begin) -> Result<(Self, wire::Begun), Failure> {
        let channel = connect(socket).await.map_err(|e| match e {
            VerbError::Rpc(_) => Failure::new(
                UNREACHABLE,
                format!(
                    "no node agent answers at {}: start it, or name its socket with --agent-socket",
                    socket.display()
                ),
            ),
            other => other.into(),
        })?;
        let (say, queue) = mpsc::channel(ASKS_WAITING);
        let first = tokio_stream::once(wire::HoldRequest { step: Some(Say::Begin(begin.clone())) });
        let mut said =
            RunClient::new(channel).hold(first.chain(ReceiverStream::new(queue))).await?.into_inner();
        match said.message().await?.and_then(|response| response.step) {
            Some(Said::Begun(begun)) => Ok((Self { say, said }, begun)),
            _ => Err(Status::new(Code::Internal, "the node agent did not begin the run").into()),
        }
    }

    /// Passes questions and answers until the line ends. Questions without an answer are dropped, which denies them.
    async fn serve(&mut self, queue: &mut mpsc::Receiver<Want>, number: &mut u64) -> End {
        let mut waiting: BTreeMap<u64, oneshot::Sender<Answer>> = BTreeMap::new();
        loop {
            tokio::select! {
                want = queue.recv(), if waiting.len() < ASKS_WAITING => {
                    let step = match want {
                        Some(Want::Ask(ask, reply)) => {
                            *number += 1;
                            waiting.insert(*number, reply);
                            Say::Ask(wire::Ask { number: *number, ..*ask })
                        }
                        Some(Want::Tell(changed)) => Say::ToolChanged(changed),
                        None => return End::Unneeded,
                    };
                    if self.say.send(wire::HoldRequest { step: Some(step) }).await.is_err() {
                        return End::Broken;
                    }
                }
                said = self.said.message() => match said.ok().flatten().map(|said| said.step) {
                    Some(Some(Said::Answer(answer))) => {
                        if let Some(reply) = waiting.remove(&answer.number) {
                            let _ = reply.send(answer);
                        }
                    }
                    Some(Some(Said::Stopped(stopped))) => return End::Lost(Lost { reason: stopped.reason }),
                    Some(_) => {}
                    None => return End::Broken,
                },
            }
        }
    }
}

/// How a line ended.
enum End {
    /// Nobody has a handle any more.
    Unneeded,
    Broken,
    Lost(Lost),
}

/// Keeps the line open until all handles are gone or the identity is lost.
async fn keep(
    mut line: Line,
    socket: PathBuf,
    begin: wire::Begin,
    mut queue: mpsc::Receiver<Want>,
    tell: watch::Sender<Option<Lost>>,
) {
    let mut number = 0;
    let end = loop {
        match line.serve(&mut queue, &mut number).await {
            End::Broken => {}
            end => break end,
        }
        match again(&socket, &begin, &mut queue).await {
            Ok(open) => line = open,
            Err(end) => break end,
        }
    };
    if let End::Lost(lost) = end {
        tell.send_replace(Some(lost));
    }
}

/// Opens the line again.
async fn again(socket: &Path, begin: &wire::Begin, queue: &mut mpsc::Receiver<Want>) -> Result<Line, End> {
    loop {
        match Line::open(socket, begin).await {
            Ok((line, mut begun)) => {
                // The gates have their secrets since the run began.
                let apis = begun.gates.iter_mut().filter_map(|gate| gate.api.as_mut()?.secret.as_mut());
                apis.for_each(|secret| secret.value.zeroize());
                return Ok(line);
            }
            Err(failure) if failure.code == DENIED => return Err(End::Lost(Lost { reason: failure.text })),
            Err(_) => {}
        }
        let pause = tokio::time::sleep(AGENT_PAUSE);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                want = queue.recv() => match want {
                    Some(Want::Ask(_, reply)) => {
                        let _ = reply.send(away());
                    }
                    Some(Want::Tell(_)) => {}
                    None => return Err(End::Unneeded),
                },
            }
        }
    }
}
