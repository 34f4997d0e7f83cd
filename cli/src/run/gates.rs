//! The gates of a run: where they are asked, and what they ask over the line to the node agent.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, io, thread};

use avouch_proto::run_v1 as wire;
use avouch_proto::run_v1::value::Kind;
use avouch_rules::Param;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::hold::Hold;
use super::kin::descends_from_me;
use crate::gate::http::{self, Door};
use crate::gate::wire::{decided, definition};
use crate::gate::{Ask, Decided, Decider, Definition, Did, GateEvent, Gates, Happened, Judge, Teller, host};

/// How long tool servers are waited for; then they are killed with everything else that is left.
const HOST_END_MAX: Duration = Duration::from_secs(5);

/// Serves the gates of a run while it lives.
pub(super) struct Host {
    folder: PathBuf,
    pub socket: PathBuf,
    /// For the command's temporary files: where something is closed, others may not take new ones.
    pub temporary: PathBuf,
    /// What the command is told of gates that are asked by URL.
    pub variables: Vec<(String, String)>,
    stop: Option<oneshot::Sender<()>>,
    /// Resolves when everything has ended.
    ended: oneshot::Receiver<()>,
}

impl Host {
    /// Opens a socket that only this user reaches, in a folder of its own, and a door for each gate that is asked by URL.
    /// Secrets leave `begun` for their gates.
    pub(super) fn open(begun: &mut wire::Begun, hold: Hold) -> io::Result<Self> {
        let folder = runtime_folder().join(format!("avouch-{}", begun.instance_id));
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let (socket, temporary) = (folder.join("gates.sock"), folder.join("tmp"));
        fs::DirBuilder::new().mode(0o700).create(&temporary)?;
        let listener = StdListener::bind(&socket)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
        let gates = begun.gates.iter_mut().filter_map(|gate| Some((gate.name.clone(), definition(gate)?)));
        let (gates, (stop, stopped)) = (gates.collect::<Gates>(), oneshot::channel::<()>());
        let doors = doors(&gates, &folder)?;
        let variables = doors.iter().flat_map(Door::variables).collect();
        let beside = hold.clone();
        let (tell, ended) = oneshot::channel();
        // A thread of its own: whatever the command does to its gates, the supervisor hears of a stop and ends it.
        thread::Builder::new().name("gates".to_owned()).spawn(move || {
            let served = Builder::new_current_thread().enable_all().build().and_then(|runtime| {
                runtime.block_on(async {
                    let listener = UnixListener::from_std(listener)?;
                    let told = beside.clone();
                    tokio::spawn(async move { beside.ask_here().await });
                    let (teller, telling) = Teller::new(move |did: Did| {
                        let told = told.clone();
                        // A tool call has no parameters beside its arguments, and a run's gates show none.
                        async move { told.did(did.wire().0).await }
                    });
                    let decider = Arc::new(RunDecider { hold, teller });
                    let (stopping, stop) = watch::channel(false);
                    let mut also = stop.clone();
                    let stop_of =
                        async |stop: &mut watch::Receiver<bool>| drop(stop.wait_for(|stop| *stop).await);
                    let mut stop = stop;
                    let (served, (), ()) = tokio::join!(
                        http::serve(doors, decider.clone(), stop_of(&mut also)),
                        host::serve(listener, gates, decider, stop_of(&mut stop)),
                        async {
                            let _ = stopped.await;
                            stopping.send_replace(true);
                        }
                    );
                    telling.end().await;
                    served
                })
            });
            if let Err(e) = served {
                tracing::error!("cannot serve the gates: {e}");
            }
            let _ = tell.send(());
        })?;
        Ok(Self { folder, socket, temporary, variables, stop: Some(stop), ended })
    }

    /// Begins to end every connection and every tool server.
    pub(super) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Ends every tool server, and takes the socket away.
    pub(super) async fn close(mut self) {
        self.stop();
        let _ = timeout(HOST_END_MAX, self.ended).await;
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn runtime_folder() -> PathBuf {
    let named = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    named.filter(|folder| Path::is_absolute(folder) && folder.is_dir()).unwrap_or_else(env::temp_dir)
}

/// A door for each gate that is asked by URL. Sockets have short names: so has what the kernel takes.
fn doors(gates: &Gates, folder: &Path) -> io::Result<Vec<Door>> {
    let apis = gates.values().filter_map(|gate| match gate {
        Definition::Api(api) => Some(api.clone()),
        Definition::Tools(_) => None,
    });
    apis.enumerate().map(|(n, api)| Door::open(api, folder.join(format!("http{n}.sock")))).collect()
}

struct RunDecider {
    hold: Hold,
    teller: Teller,
}

impl RunDecider {
    /// Asked and denied like any other, so that there is a record of it.
    async fn unknown(&self, action: &str, resource: String) {
        let action = action.to_owned();
        self.hold.ask(wire::Ask { action, resource, ..wire::Ask::default() }).await;
    }
}

impl Judge for RunDecider {
    async fn decide(&self, ask: Ask) -> Decided {
        let params = ask.params.into_iter().map(|(name, value)| (name, value_of(value))).collect();
        let answer = self.hold.ask(wire::Ask {
            action: ask.action.into_owned(),
            resource: ask.resource,
            params,
            content: ask.shown,
            ..wire::Ask::default()
        });
        decided(answer.await)
    }

    async fn note(&self, event: GateEvent) {
        let GateEvent { gate, what } = event;
        match what {
            Happened::ChangedTool { tool, .. } | Happened::DoubledTool { tool } => {
                self.hold.tell(wire::ToolChanged { gate, tool }).await;
            }
            Happened::UnknownTool { tool } => {
                self.unknown(avouch_rules::TOOL_CALL, format!("{gate}/{tool}")).await;
            }
            Happened::UnknownRoute { action, resource } => self.unknown(action, resource).await,
            other => tracing::debug!(gate, what = ?other, "A gate let something not through"),
        }
    }

    fn did(&self, did: Did) {
        self.teller.take(did);
    }
}

impl Decider for RunDecider {
    async fn admit(&self, connection: &UnixStream) -> Result<(), String> {
        let peer =
            connection.peer_cred().map_err(|e| format!("the kernel does not say who connects: {e}"))?;
        if peer.pid().is_some_and(descends_from_me) {
            return Ok(());
        }
        Err("this process does not belong to the run whose gates these are".to_owned())
    }

    async fn may(&self, resources: Vec<String>) -> Vec<bool> {
        let mut may = Vec::with_capacity(resources.len());
        for resource in resources {
            let action = avouch_rules::TOOL_CALL.to_owned();
            let ask = wire::Ask { action, resource, what_if: true, ..wire::Ask::default() };
            // What would be asked for is shown: else nobody could ask for it.
            may.push(matches!(self.hold.ask(ask).await.outcome.as_str(), "allow" | "constrain" | "step_up"));
        }
        may
    }
}

fn value_of(param: Param) -> wire::Value {
    let kind = match param {
        Param::Long(number) => Kind::Long(number),
        Param::String(text) => Kind::Text(text),
        Param::Set(set) => Kind::Set(wire::Texts { texts: set.into_iter().collect() }),
    };
    wire::Value { kind: Some(kind) }
}
