//! A private server and agent of the caller: their folder, their files, their processes.
//!
//! Never touches anything outside its folder, and ends only what it started.

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use avouch_domain::TrustDomain;
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use super::UpError;
use crate::sys;

/// How long a daemon may take to end after SIGTERM before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(12);
/// Longest folder, in bytes, in which the names of the sockets still fit into the 107 bytes of a socket address.
const BASE_MAX: usize = 50;

/// Paths of one demonstration.
#[derive(Debug)]
pub struct World {
    pub trust_domain: TrustDomain,
    pub dir: PathBuf,
    pub server_socket: PathBuf,
    pub agent_socket: PathBuf,
    pub admin_socket: PathBuf,
    pub port: u16,
    /// Where the three binaries are.
    pub bin: PathBuf,
}

impl World {
    /// Makes the folder (mode 0700) and finds a free loopback port.
    ///
    /// # Errors
    /// [`UpError`] if the folder can't be made or a sibling binary is missing.
    pub fn new(trust_domain: TrustDomain) -> Result<Self, UpError> {
        let bin =
            std::env::current_exe().ok().and_then(|p| p.parent().map(Path::to_path_buf)).unwrap_or_default();
        for name in ["avouch-server", "avouch-agent"] {
            if !bin.join(name).is_file() {
                return Err(UpError::MissingBinary { name, dir: bin });
            }
        }
        let dir = private_dir()?;
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(UpError::Port)?.port();
        Ok(Self {
            trust_domain,
            server_socket: dir.join("server-admin/api.sock"),
            agent_socket: dir.join("agent-public/api.sock"),
            admin_socket: dir.join("agent-admin/api.sock"),
            dir,
            port,
            bin,
        })
    }

    /// Writes the server's configuration and starts it.
    ///
    /// # Errors
    /// [`UpError`] if a file can't be written or the process can't start.
    pub fn start_server(&self) -> Result<Daemon, UpError> {
        let dir = self.dir.display();
        let text = format!(
            "server {{\n  bind_address = \"127.0.0.1\"\n  bind_port = \"{}\"\n  trust_domain = \"{}\"\n  data_dir = \"{dir}/server\"\n  socket_path = \"{}\"\n  console_address = \"127.0.0.1:0\"\n  log_level = \"INFO\"\n}}\nplugins {{\n  DataStore \"sql\" {{ plugin_data {{ database_type = \"sqlite3\" connection_string = \"{dir}/server/datastore.sqlite3\" }} }}\n  KeyManager \"disk\" {{ plugin_data {{ keys_path = \"{dir}/server/keys.json\" }} }}\n  NodeAttestor \"join_token\" {{ plugin_data {{}} }}\n}}\n",
            self.port,
            self.trust_domain,
            self.server_socket.display(),
        );
        self.make_dir("server")?;
        self.write("server.conf", &text)?;
        self.spawn("avouch-server", "server.conf")
    }

    /// Writes the agent's configuration and starts it. The token goes through a file of mode 0600, never argv.
    ///
    /// # Errors
    /// [`UpError`] if a file can't be written or the process can't start.
    pub fn start_agent(&self, token: &Zeroizing<String>) -> Result<Daemon, UpError> {
        let dir = self.dir.display();
        let text = format!(
            "agent {{\n  data_dir = \"{dir}/agent\"\n  server_address = \"127.0.0.1\"\n  server_port = \"{}\"\n  trust_domain = \"{}\"\n  socket_path = \"{}\"\n  admin_socket_path = \"{}\"\n  trust_bundle_path = \"{dir}/bundle.pem\"\n  join_token_file = \"{dir}/token\"\n  log_level = \"INFO\"\n}}\nplugins {{\n  NodeAttestor \"join_token\" {{ plugin_data {{}} }}\n  KeyManager \"memory\" {{ plugin_data {{}} }}\n  WorkloadAttestor \"unix\" {{ plugin_data {{}} }}\n}}\n",
            self.port,
            self.trust_domain,
            self.agent_socket.display(),
            self.admin_socket.display(),
        );
        self.make_dir("agent")?;
        self.write("token", token)?;
        self.write("agent.conf", &text)?;
        self.spawn("avouch-agent", "agent.conf")
    }

    /// Puts the server's bundle where the agent looks for it.
    ///
    /// # Errors
    /// [`UpError`] if the file can't be written.
    pub fn write_bundle(&self, pem: &str) -> Result<(), UpError> {
        self.write("bundle.pem", pem)
    }

    /// Removes the folder and everything in it.
    pub fn remove(&self) {
        // Nothing is lost if this fails: the folder is the caller's own and named after this process.
        let _ = std::fs::remove_dir_all(&self.dir);
    }

    fn make_dir(&self, name: &str) -> Result<(), UpError> {
        let path = self.dir.join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|e| UpError::folder(&path, &e))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), UpError> {
        let path = self.dir.join(name);
        let write = || -> io::Result<()> {
            let mut file =
                std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            io::Write::write_all(&mut file, text.as_bytes())
        };
        write().map_err(|e| UpError::folder(&path, &e))
    }

    fn spawn(&self, name: &'static str, config: &str) -> Result<Daemon, UpError> {
        let log = self.dir.join(format!("{name}.log"));
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&log)
            .map_err(|e| UpError::folder(&log, &e))?;
        let errors = file.try_clone().map_err(|e| UpError::folder(&log, &e))?;
        let mut command = Command::new(self.bin.join(name));
        command.arg("run").arg("-config").arg(self.dir.join(config));
        command.stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0).kill_on_drop(true);
        // `avouch` has one thread of its own, which ends with the process.
        sys::end_with_parent(&mut command);
        let child = command.spawn().map_err(|source| UpError::Spawn { name, source })?;
        Ok(Daemon { name, child, log })
    }
}

/// A daemon that this process started. Dropped without [`Daemon::stop`], it is killed.
#[derive(Debug)]
pub struct Daemon {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Waits for the daemon to end by itself, which in a demonstration is always a fault.
    pub async fn ended(&mut self) -> UpError {
        let status = self.child.wait().await.map_or_else(|e| e.to_string(), |s| s.to_string());
        UpError::Ended { name: self.name, status, log: last_lines(&self.log) }
    }

    /// Asks it to end and waits; past the limit it is killed.
    pub async fn stop(&mut self) {
        if let Some(pid) = self.child.id().and_then(|p| i32::try_from(p).ok()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        if tokio::time::timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// A fresh folder of mode 0700 in the run-time folder of the user, else in /tmp: the variable may be that of another
/// user (`su`, `sudo`), or too long for a socket path.
fn private_dir() -> Result<PathBuf, UpError> {
    let make = |base: &Path| {
        let dir = base.join(format!("avouch-up-{}", std::process::id()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&dir);
        made.map(|()| dir.clone()).map_err(|e| UpError::folder(&dir, &e))
    };
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let own = own.filter(|base| base.is_absolute() && base.as_os_str().len() <= BASE_MAX);
    own.and_then(|base| make(&base).ok()).map_or_else(|| make(Path::new("/tmp")), Ok)
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n")
}
