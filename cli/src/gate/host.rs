//! What the supervisor of a run hosts: a socket for the shims, and a tool server for each connection.
//!
//! Never starts what a connection names: a name is looked up among the gates of the run.

use std::collections::BTreeMap;
use std::future::Future;
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::child::ToolServer;
use super::handed;
use super::hello::{Answer, Hello, Why};
use super::limits::{ACCEPT_PAUSE, CONNECTIONS_MAX, HELLO_MAX, HELLO_TIME_MAX, QUOTE_MAX};
use super::lines::{Line, Lines};
use super::mcp::{Proxy, run};
use super::{Decider, Definition, GateDefinition, Gates, quote};

/// Serves the gates of a run until `stop` is ready; then every connection is ended, and every tool server with it.
/// Dropping the future kills them instead.
pub async fn serve<D: Decider>(
    listener: UnixListener,
    gates: Gates,
    decider: Arc<D>,
    stop: impl Future<Output = ()>,
) {
    let host = Arc::new(Host::new(gates, decider));
    let (stopping, stopped) = watch::channel(false);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept(), if connections.len() < 2 * CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let (host, stopped) = (host.clone(), stopped.clone());
                    let place = places.clone().try_acquire_owned().ok();
                    connections.spawn(async move {
                        match place {
                            Some(_place) => host.connection(stream, stopped).await,
                            None => refuse(stream, &full()).await,
                        }
                    });
                }
                Err(e) => {
                    tracing::warn!("cannot accept a connection to the gates: {e}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    stopping.send_replace(true);
    while connections.join_next().await.is_some() {}
}

fn full() -> Answer {
    let text =
        format!("{CONNECTIONS_MAX} tool servers run already for this AI agent; end one of its MCP clients");
    Answer::no(Why::Full, text)
}

async fn refuse(mut stream: UnixStream, answer: &Answer) {
    // Whoever does not read a line may never learn of it.
    let _ = timeout(HELLO_TIME_MAX, stream.write_all(&answer.line())).await;
}

struct Host<D> {
    tools: BTreeMap<String, Arc<GateDefinition>>,
    /// Gates that are spoken to otherwise, with the variable that says where.
    apis: BTreeMap<String, String>,
    decider: Arc<D>,
}

impl<D: Decider> Host<D> {
    fn new(gates: Gates, decider: Arc<D>) -> Self {
        let mut host = Self { tools: BTreeMap::new(), apis: BTreeMap::new(), decider };
        for (name, gate) in gates {
            match gate {
                Definition::Tools(gate) => drop(host.tools.insert(name, Arc::new(gate))),
                Definition::Api(api) => drop(host.apis.insert(name, api.env_var.clone())),
            }
        }
        host
    }

    async fn connection(&self, stream: UnixStream, mut stopped: watch::Receiver<bool>) {
        let greeted = async {
            if let Err(text) = self.decider.admit(&stream).await {
                return Err((stream, Answer::no(Why::NotAdmitted, text)));
            }
            let (bytes, stderr) = handed::receive(&stream).await.unwrap_or_default();
            let (from, to) = stream.into_split();
            let mut lines = Lines::after(bytes, from, HELLO_MAX);
            let gate = match lines.next().await {
                Ok(Line::Whole(line)) => self.gate(&line),
                Ok(Line::TooLong) => {
                    Err(Answer::no(Why::Hello, format!("the hello is longer than {HELLO_MAX} bytes")))
                }
                Ok(Line::End) | Err(_) => {
                    Err(Answer::no(Why::Hello, "the connection ended before its hello"))
                }
            };
            Ok((lines, to, gate.map(|gate| (gate, stderr))))
        };
        let greeted = tokio::select! {
            greeted = timeout(HELLO_TIME_MAX, greeted) => greeted,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        let (lines, mut to, gate) = match greeted {
            Ok(Ok(greeted)) => greeted,
            Ok(Err((stream, answer))) => return refuse(stream, &answer).await,
            // It said nothing, so it is told nothing.
            Err(_) => return,
        };
        let started = gate.and_then(|(gate, stderr)| {
            match ToolServer::start(&gate.command, stderr.map_or_else(Stdio::null, Stdio::from)) {
                Ok(started) => Ok((gate, started)),
                Err(text) => Err(Answer::no(Why::NoServer, text)),
            }
        });
        let (gate, (server, stdin, stdout)) = match started {
            Ok(started) => started,
            Err(answer) => {
                let _ = timeout(HELLO_TIME_MAX, to.write_all(&answer.line())).await;
                return;
            }
        };
        if to.write_all(&Answer::yes().line()).await.is_ok() {
            let end =
                run(Proxy::new(gate), self.decider.clone(), (lines, to), (stdout, stdin), stopped).await;
            tracing::debug!("a connection to a gate ended: {end:?}");
        } else {
            drop(stdin);
        }
        server.end().await;
    }

    fn gate(&self, line: &[u8]) -> Result<Arc<GateDefinition>, Answer> {
        let hello = Hello::read(line).map_err(|text| Answer::no(Why::Hello, text))?;
        if let Some(variable) = self.apis.get(&hello.gate) {
            let gate = quote(&hello.gate, QUOTE_MAX);
            let text = format!("the gate \"{gate}\" speaks HTTP: its URL is in {variable}");
            return Err(Answer::no(Why::UnknownGate, text));
        }
        self.tools.get(&hello.gate).cloned().ok_or_else(|| {
            let known: Vec<_> = self.tools.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Answer::no(Why::UnknownGate, format!(
                "this run has no gate \"{}\" (it has: {}); add it with `avouch gate add mcp NAME -- CMD` and start the run again",
                quote(&hello.gate, QUOTE_MAX),
                quote(&known, QUOTE_MAX)
            ))
        })
    }
}
