//! `avouch gate serve`: an HTTP gate that is a workload of its own, for all who prove by a certificate who they are.
//!
//! Shows its X509-SVID, takes whoever of its trust domain shows one, and hands that on with each request: the node agent
//! decides, and hears from the server what the caller is at this moment. Never decides itself, and takes no name for a proof.

mod definitions;
mod door;
mod judge;
mod svid;

use std::net::SocketAddr;
use std::path::Path;

use avouch_credential::tls::{ServerPolicy, server_config};
use clap::Args;
use nix::sys::prctl::set_dumpable;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use self::definitions::Definitions;
use self::door::Door;
use self::judge::Line;
use self::svid::Svids;
use super::limits::SVID_TIME_MAX;
use crate::descriptors;
use crate::exit::{FAILED, UNREACHABLE};
use crate::failure::Failure;
use crate::logs::{self, Format};
use crate::out::Out;
use crate::verbs::channel::{AGENT, dial};

/// An HTTP gate of the rules, and where it is served.
#[derive(Debug, Args)]
pub struct Serve {
    /// The gate's name
    pub name: String,
    /// Where callers come, over TLS and with an X509-SVID of their own
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443")]
    pub listen: SocketAddr,
}

/// Serves until a signal, and gives the exit code.
pub async fn run(serve: Serve, agent_socket: &Path, as_json: bool, out: &mut Out) -> u8 {
    let done = served(&serve, agent_socket, as_json, out).await;
    Failure::code_of(done, out)
}

async fn served(serve: &Serve, agent_socket: &Path, as_json: bool, out: &mut Out) -> Result<(), Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(FAILED, e);
    // It is to hold a secret that processes of the same user must not read.
    set_dumpable(false).map_err(|e| failed(&e))?;
    // Each caller takes a descriptor, and each request may take another.
    descriptors::raise_limit().map_err(|e| failed(&e))?;
    let format = if as_json { Format::Json } else { Format::Text };
    logs::init(logs::Options { format, ..logs::Options::default() }).map_err(|e| failed(&e))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| failed(&e))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| failed(&e))?;
    let place = AGENT.found(agent_socket, |name| std::env::var(name).ok())?;
    let channel = dial(&place).await?;
    let (definitions, current, id) = Definitions::open(channel.clone(), &serve.name).await?;
    let svids = Svids::new(id.clone());
    let config = server_config(svids.identity.clone(), svids.roots.clone(), ServerPolicy::GATE);
    let config = config.map_err(|e| failed(&e))?;
    let listener = TcpListener::bind(serve.listen).await;
    let listener = listener.map_err(|e| failed(&format!("--listen {}: {e}", serve.listen)))?;
    let address = listener.local_addr().map_err(|e| failed(&e))?;
    let mut ready = svids.ready();
    let keeping = svids.keep(channel.clone());
    let following = definitions.follow(&current);
    let (line, telling) = Line::new(channel);
    let door = Door { config, current: current.clone(), line };
    let open = async {
        // Nothing of the channel is held on to: who shows the next SVID waits for that.
        if !timeout(SVID_TIME_MAX, ready.wait_for(|ready| *ready)).await.is_ok_and(|shown| shown.is_ok()) {
            let within = SVID_TIME_MAX.as_secs();
            let text = format!("the node agent gave no X509-SVID for {id} within {within} s");
            return Failure::new(UNREACHABLE, text);
        }
        told(serve, &address, id.as_str(), as_json, out);
        door::serve(listener, door).await
    };
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        failure = following => Err(failure),
        failure = open => Err(failure),
        never = keeping => match never {},
    };
    telling.end().await;
    ended
}

fn told(serve: &Serve, address: &SocketAddr, id: &str, as_json: bool, out: &mut Out) {
    let name = &serve.name;
    out.line(&match as_json {
        true => json!({ "gate": name, "url": format!("https://{address}"), "spiffe_id": id }).to_string(),
        false => format!("gate {name}: https://{address}, as {id}"),
    });
}
