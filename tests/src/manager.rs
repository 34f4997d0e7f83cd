//! A service manager's part, as systemd plays it: a listening socket that outlives the agent behind it, and a socket on
//! which the agent says how it is.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::daemon::{Daemon, binary};
use crate::wait::LIMIT;
use crate::{Agent, Server};

/// Standard input becomes descriptor 3, and the process is told that it is meant.
const SCRIPT: &str = "exec 3<&0 </dev/null; LISTEN_PID=$$; export LISTEN_PID; exec \"$@\"";

/// Holds the workload socket of one agent.
pub struct Manager {
    listener: UnixListener,
    notify: UnixDatagram,
    notify_path: PathBuf,
}

impl Manager {
    /// Listens where the agent would.
    pub fn of(agent: &Agent) -> Self {
        let directory = agent.socket.parent().unwrap();
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).unwrap();
        let listener = UnixListener::bind(&agent.socket).unwrap();
        std::fs::set_permissions(&agent.socket, std::fs::Permissions::from_mode(0o777)).unwrap();
        let notify_path = agent.config.with_extension("notify");
        let notify = UnixDatagram::bind(&notify_path).unwrap();
        notify.set_read_timeout(Some(LIMIT)).unwrap();
        Self { listener, notify, notify_path }
    }

    /// Starts the agent with the socket as descriptor 3.
    pub fn spawn(&self, agent: &Agent, watchdog: Option<Duration>) -> Daemon {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "sh"]).arg(binary("avouch-agent")).args(["run", "-config"]);
        command.arg(&agent.config).env("LISTEN_FDS", "1").env("NOTIFY_SOCKET", &self.notify_path);
        if let Some(limit) = watchdog {
            command.env("WATCHDOG_USEC", limit.as_micros().to_string());
        }
        let listener: OwnedFd = self.listener.try_clone().unwrap().into();
        Daemon::spawn_with("agent", &mut command, Stdio::from(listener))
    }

    /// Starts a server with this TCP socket, which listens on its address, as descriptor 3.
    pub fn spawn_server(tcp: &TcpListener, server: &Server) -> Daemon {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "sh"]).arg(binary("avouch-server")).args(["run", "-config"]);
        command.arg(&server.config).env("LISTEN_FDS", "1");
        let listener: OwnedFd = tcp.try_clone().unwrap().into();
        Daemon::spawn_with("server", &mut command, Stdio::from(listener))
    }

    /// What the agent says next.
    pub async fn hear(&self) -> String {
        let notify = self.notify.try_clone().unwrap();
        let heard = tokio::task::spawn_blocking(move || {
            let mut bytes = [0; 1024];
            let length = notify.recv(&mut bytes).expect("a word of the agent");
            String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
        });
        heard.await.unwrap()
    }
}
