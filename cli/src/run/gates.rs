//! The gates of a run: where they are asked, and what they ask over the line to the node agent.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, io, thread};

use avouch_proto::run_v1 as wire;
use avouch_proto::run_v1::value::Kind;
use avouch_rules::{HttpMethod, Limits, Param, ParamKind, Template, Upstream};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::hold::{AWAY, Hold};
use super::kin::descends_from_me;
use crate::gate::http::{self, Api, Door, Held, Route, Secret};
use crate::gate::{
    Ask, Decider, Definition, GateDefinition, GateEvent, Gates, Happened, Place, Tool, Verdict, host,
};

/// The node agent's reason when it takes a yes and nobody could be asked.
const NOT_ASKED: &str = "not_asked";
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
        let decider = Arc::new(RunDecider { hold });
        let (tell, ended) = oneshot::channel();
        // A thread of its own: whatever the command does to its gates, the supervisor hears of a stop and ends it.
        thread::Builder::new().name("gates".to_owned()).spawn(move || {
            let served = Builder::new_current_thread().enable_all().build().and_then(|runtime| {
                runtime.block_on(async {
                    let listener = UnixListener::from_std(listener)?;
                    tokio::spawn(async move { beside.ask_here().await });
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

/// `None` for a gate in the words of a newer node agent: what is not understood is not there.
fn definition(gate: &mut wire::Gate) -> Option<Definition> {
    if let Some(api) = &mut gate.api {
        return Some(Definition::Api(Arc::new(api_of(gate.name.clone(), api)?)));
    }
    let tools = gate.tools.iter().map(|tool| {
        let params = tool.params.iter().map(|(name, param)| {
            let kind = ParamKind::from_name(&param.kind)?;
            Some((name.clone(), Place { pointer: param.pointer.clone(), kind }))
        });
        let digest = tool.digest.as_slice().try_into().ok()?;
        Some((tool.name.clone(), Tool { digest, params: params.collect::<Option<_>>()? }))
    });
    Some(Definition::Tools(GateDefinition {
        name: gate.name.clone(),
        command: gate.command.clone(),
        tools: tools.collect::<Option<BTreeMap<_, _>>>()?,
    }))
}

fn api_of(name: String, api: &mut wire::Api) -> Option<Api> {
    let secret = match &mut api.secret {
        None => Secret::None,
        Some(secret) if secret.value.is_empty() => Secret::Missing(secret.missing.clone()),
        Some(secret) => Secret::Held(Held {
            header: secret.header.clone(),
            prefix: secret.prefix.clone(),
            // Moved, not copied: it is wiped when the gate ends.
            value: Zeroizing::new(std::mem::take(&mut secret.value)),
        }),
    };
    let routes = api.routes.iter().map(|route| {
        let params = route.params.iter();
        let params = params.map(|(name, kind)| Some((name.clone(), ParamKind::from_name(kind)?)));
        Some(Route {
            method: HttpMethod::from_name(&route.method)?,
            path: Template::parse(&route.path).ok()?,
            resource: route.resource.clone(),
            action: route.action.clone(),
            params: params.collect::<Option<_>>()?,
            query: route.query.iter().cloned().collect(),
            other_query: route.other_query,
            rows_at: route.rows_at.clone(),
        })
    });
    Some(Api {
        name,
        upstream: Upstream::parse(&api.upstream).ok()?,
        env_var: api.env_var.clone(),
        ca: (!api.ca.is_empty()).then(|| api.ca.clone()),
        secret,
        routes: routes.collect::<Option<_>>()?,
    })
}

struct RunDecider {
    hold: Hold,
}

impl RunDecider {
    /// Asked and denied like any other, so that there is a record of it.
    async fn unknown(&self, action: &str, resource: String) {
        let action = action.to_owned();
        self.hold.ask(wire::Ask { action, resource, ..wire::Ask::default() }).await;
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

    async fn decide(&self, ask: Ask) -> Verdict {
        let params = ask.params.into_iter().map(|(name, value)| (name, value_of(value))).collect();
        let answer = self.hold.ask(wire::Ask {
            action: ask.action.into_owned(),
            resource: ask.resource,
            params,
            content: ask.shown,
            ..wire::Ask::default()
        });
        verdict(answer.await)
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
}

fn value_of(param: Param) -> wire::Value {
    let kind = match param {
        Param::Long(number) => Kind::Long(number),
        Param::String(text) => Kind::Text(text),
        Param::Set(set) => Kind::Set(wire::Texts { texts: set.into_iter().collect() }),
    };
    wire::Value { kind: Some(kind) }
}

/// Whatever is not understood is a denial.
fn verdict(answer: wire::Answer) -> Verdict {
    match answer.outcome.as_str() {
        "allow" if !answer.request.is_empty() => Verdict::Agreed,
        "allow" => Verdict::Allow,
        "constrain" => match Limits::parse(&answer.limits) {
            Ok(limits) => Verdict::Limit(limits),
            Err(text) => Verdict::Deny { reason: "limits".to_owned(), text },
        },
        "step_up" => Verdict::Ask { text: answer.text },
        _ if [AWAY, NOT_ASKED].contains(&answer.reason.as_str()) => {
            Verdict::Unavailable { text: answer.text }
        }
        _ => Verdict::Deny { reason: answer.reason, text: answer.text },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(outcome: &str, reason: &str, limits: &str) -> Verdict {
        let (outcome, reason, limits) = (outcome.to_owned(), reason.to_owned(), limits.to_owned());
        verdict(wire::Answer { outcome, reason, limits, text: "why".to_owned(), ..wire::Answer::default() })
    }

    #[test]
    fn only_what_is_understood_is_allowed() {
        assert_eq!(said("allow", "allowed", ""), Verdict::Allow);
        let agreed =
            wire::Answer { outcome: "allow".to_owned(), request: "req_1".to_owned(), ..Default::default() };
        assert_eq!(verdict(agreed), Verdict::Agreed);
        let limits = Limits { max_rows: Some(5), ..Limits::default() };
        assert_eq!(said("constrain", "limited", "max_rows=5"), Verdict::Limit(limits));
        assert_eq!(said("step_up", "asked", ""), Verdict::Ask { text: "why".to_owned() });
        assert_eq!(said("deny", AWAY, ""), Verdict::Unavailable { text: "why".to_owned() });
        assert_eq!(said("deny", NOT_ASKED, ""), Verdict::Unavailable { text: "why".to_owned() });
        for (outcome, limits) in [("constrain", "max_moons=5"), ("permit", ""), ("", "")] {
            assert!(matches!(said(outcome, "x", limits), Verdict::Deny { .. }), "{outcome}");
        }
    }
}
