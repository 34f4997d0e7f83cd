//! A private server of the caller and its node agents: their folder, their files, their processes.
//!
//! Never touches anything outside its folder, and ends only what it started.

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use avouch_domain::TrustDomain;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStdout, Command};
use zeroize::Zeroizing;

use super::UpError;
use crate::sys;

/// How long a daemon may take to end after SIGTERM before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(12);
/// Longest folder, in bytes, in which the names of the sockets still fit into the 107 bytes of a socket address.
const BASE_MAX: usize = 50;

/// Paths of a private server.
#[derive(Debug)]
pub struct World {
    pub trust_domain: TrustDomain,
    pub dir: PathBuf,
    pub server_socket: PathBuf,
    pub port: u16,
    /// Where the three binaries are.
    pub bin: PathBuf,
}

/// Paths of one of its node agents.
#[derive(Debug)]
pub struct Node {
    /// What its files are named after.
    name: &'static str,
    pub socket: PathBuf,
    pub admin_socket: PathBuf,
}

impl World {
    /// Makes the folder (mode 0700), named after what it is for and this process, and finds a free loopback port.
    ///
    /// # Errors
    /// [`UpError`] if the folder can't be made or a sibling binary is missing.
    pub fn new(trust_domain: TrustDomain, what: &str, base: Base) -> Result<Self, UpError> {
        let bin =
            std::env::current_exe().ok().and_then(|p| p.parent().map(Path::to_path_buf)).unwrap_or_default();
        for name in ["avouch-server", "avouch-agent"] {
            if !bin.join(name).is_file() {
                return Err(UpError::MissingBinary { name, dir: bin });
            }
        }
        let dir = private_dir(what, base)?;
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(UpError::Port)?.port();
        Ok(Self { trust_domain, server_socket: dir.join("server-admin/api.sock"), dir, port, bin })
    }

    /// Where a node agent of this name has its sockets.
    #[must_use]
    pub fn node(&self, name: &'static str) -> Node {
        let socket = |whose: &str| self.dir.join(format!("{name}-{whose}/api.sock"));
        Node { name, socket: socket("public"), admin_socket: socket("admin") }
    }

    /// Writes the server's configuration, with these lines more, and starts it.
    ///
    /// # Errors
    /// [`UpError`] if a file can't be written or the process can't start.
    pub fn start_server(&self, more: &str) -> Result<Daemon, UpError> {
        let dir = self.dir.display();
        let text = format!(
            "server {{\n  bind_address = \"127.0.0.1\"\n  bind_port = \"{}\"\n  trust_domain = \"{}\"\n  data_dir = \"{dir}/server\"\n  socket_path = \"{}\"\n  console_address = \"127.0.0.1:0\"\n  log_level = \"INFO\"\n{more}}}\nplugins {{\n  DataStore \"sql\" {{ plugin_data {{ database_type = \"sqlite3\" connection_string = \"{dir}/server/datastore.sqlite3\" }} }}\n  KeyManager \"disk\" {{ plugin_data {{ keys_path = \"{dir}/server/keys.json\" }} }}\n  NodeAttestor \"join_token\" {{ plugin_data {{}} }}\n}}\n",
            self.port,
            self.trust_domain,
            self.server_socket.display(),
        );
        self.make_dir("server")?;
        self.write("server.conf", &text)?;
        self.spawn("avouch-server", "server")
    }

    /// Writes the configuration of a node's agent and starts it. The token goes through a file of mode 0600, never argv.
    ///
    /// # Errors
    /// [`UpError`] if a file can't be written or the process can't start.
    pub fn start_agent(
        &self,
        node: &Node,
        bundle_pem: &str,
        token: &Zeroizing<String>,
    ) -> Result<Daemon, UpError> {
        let (dir, name) = (self.dir.display(), node.name);
        let text = format!(
            "agent {{\n  data_dir = \"{dir}/{name}\"\n  server_address = \"127.0.0.1\"\n  server_port = \"{}\"\n  trust_domain = \"{}\"\n  socket_path = \"{}\"\n  admin_socket_path = \"{}\"\n  trust_bundle_path = \"{dir}/{name}.pem\"\n  join_token_file = \"{dir}/{name}.token\"\n  log_level = \"INFO\"\n}}\nplugins {{\n  NodeAttestor \"join_token\" {{ plugin_data {{}} }}\n  KeyManager \"memory\" {{ plugin_data {{}} }}\n  WorkloadAttestor \"unix\" {{ plugin_data {{}} }}\n}}\n",
            self.port,
            self.trust_domain,
            node.socket.display(),
            node.admin_socket.display(),
        );
        self.make_dir(name)?;
        self.write(&format!("{name}.pem"), bundle_pem)?;
        self.write(&format!("{name}.token"), token)?;
        self.write(&format!("{name}.conf"), &text)?;
        self.spawn("avouch-agent", name)
    }

    /// Removes the folder and everything in it.
    pub fn remove(&self) {
        // Nothing is lost if this fails: the folder is the caller's own and named after this process.
        let _ = std::fs::remove_dir_all(&self.dir);
    }

    /// Makes a folder of mode 0700 in the world's.
    ///
    /// # Errors
    /// [`UpError::Folder`].
    pub fn make_dir(&self, name: &str) -> Result<(), UpError> {
        let path = self.dir.join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|e| UpError::folder(&path, &e))
    }

    /// Writes a new file of mode 0600 in the world's folder.
    ///
    /// # Errors
    /// [`UpError::Folder`].
    pub fn write(&self, name: &str, text: &str) -> Result<(), UpError> {
        let path = self.dir.join(name);
        let write = || -> io::Result<()> {
            let mut file =
                std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            io::Write::write_all(&mut file, text.as_bytes())
        };
        write().map_err(|e| UpError::folder(&path, &e))
    }

    fn spawn(&self, program: &str, name: &'static str) -> Result<Daemon, UpError> {
        let mut command = Command::new(self.bin.join(program));
        command.arg("run").arg("-config").arg(self.dir.join(format!("{name}.conf")));
        let log = self.log(name)?;
        let errors = log.try_clone().map_err(|e| UpError::folder(&self.dir, &e))?;
        command.stdout(log).stderr(errors);
        self.keep(name, command)
    }

    /// Starts what ends with this process. What it says on standard output and error is for the caller to lead somewhere.
    ///
    /// # Errors
    /// [`UpError::Spawn`].
    pub fn keep(&self, name: &'static str, mut command: Command) -> Result<Daemon, UpError> {
        command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        // `avouch` has one thread of its own, which ends with the process.
        sys::end_with_parent(&mut command);
        let child = command.spawn().map_err(|source| UpError::Spawn { name, source })?;
        Ok(Daemon { name, child, log: self.dir.join(format!("{name}.log")) })
    }

    /// The file with what a process of this name says.
    ///
    /// # Errors
    /// [`UpError::Folder`].
    pub fn log(&self, name: &str) -> Result<std::fs::File, UpError> {
        let path = self.dir.join(format!("{name}.log"));
        let open = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        open.map_err(|e| UpError::folder(&path, &e))
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
    /// What it says on standard output, if that is a pipe; once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// If it has ended by itself, that fault.
    pub fn fault(&mut self) -> Option<UpError> {
        let status = self.child.try_wait().ok()??;
        Some(UpError::Ended { name: self.name, status: status.to_string(), log: last_lines(&self.log) })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // One that has ended meanwhile needs none.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Waits for the daemon to end by itself, which in a demonstration is always a fault.
    pub async fn ended(&mut self) -> UpError {
        let status = self.child.wait().await.map_or_else(|e| e.to_string(), |s| s.to_string());
        UpError::Ended { name: self.name, status, log: last_lines(&self.log) }
    }

    /// Asks it to end and waits; past the limit it is killed.
    pub async fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        if tokio::time::timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Where the folder of a world is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Where only the caller gets: the run-time folder, else the temporary one. The variable may be that of another user
    /// (`su`, `sudo`).
    Own,
    /// Where others get as well: the temporary folder.
    Shared,
}

/// A fresh folder of mode 0700, named after what it is for and this process.
fn private_dir(what: &str, base: Base) -> Result<PathBuf, UpError> {
    let make = |base: &Path| {
        let dir = base.join(format!("avouch-{what}-{}", std::process::id()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&dir);
        made.map(|()| dir.clone()).map_err(|e| UpError::folder(&dir, &e))
    };
    let named =
        std::env::var_os(if base == Base::Own { "XDG_RUNTIME_DIR" } else { "TMPDIR" }).map(PathBuf::from);
    let named = named.filter(|base| base.is_absolute() && base.as_os_str().len() <= BASE_MAX);
    named.and_then(|base| make(&base).ok()).map_or_else(|| make(Path::new("/tmp")), Ok)
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n")
}
