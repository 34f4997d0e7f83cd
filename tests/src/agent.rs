//! A real agent in the server's folder, and its Workload API.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use tonic::Code;

use crate::daemon::{Daemon, binary};
use crate::eventually;
use crate::server::Server;
use crate::workload::Workload;

/// How the agent proves its node.
#[derive(Clone, Debug)]
pub enum Proof {
    JoinToken(String),
    /// Certificate and key, PEM files.
    X509pop(PathBuf, PathBuf),
}

/// What a test may want different.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// More lines in `agent {}`.
    pub agent: String,
    /// Lines in the unix attestor's `plugin_data {}`.
    pub unix: String,
    /// The block of the KeyManager, if not "disk".
    pub key_manager: Option<String>,
    pub log_level: &'static str,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self { agent: String::new(), unix: String::new(), key_manager: None, log_level: "DEBUG" }
    }
}

/// An agent, running or stopped.
pub struct Agent {
    pub id: String,
    pub socket: PathBuf,
    pub admin_socket: PathBuf,
    pub config: PathBuf,
    pub data_dir: PathBuf,
    _dir: Arc<TempDir>,
    daemon: Option<Daemon>,
}

impl Agent {
    /// Starts an agent by a fresh join token and waits until it answers.
    pub async fn start(server: &Server) -> Self {
        Self::start_with(server, AgentOptions::default()).await
    }

    /// As [`Agent::start`], with options.
    pub async fn start_with(server: &Server, options: AgentOptions) -> Self {
        let token = server.token().await;
        let mut agent = Self::prepare(server, "a", &Proof::JoinToken(token), &options).await;
        agent.restart().await;
        agent
    }

    /// Writes the configuration, with the server's bundle, without starting anything. `name` tells several agents of
    /// one server apart.
    pub async fn prepare(server: &Server, name: &str, proof: &Proof, options: &AgentOptions) -> Self {
        let base = server.dir.path();
        let path = |what: &str| base.join(format!("{name}{what}"));
        let (bundle, data_dir) = (path("b.pem"), path("d"));
        std::fs::write(&bundle, server.bundle_pem().await).unwrap();
        std::fs::create_dir(&data_dir).unwrap();
        let (line, block, id) = match proof {
            Proof::JoinToken(token) => (
                format!("join_token = \"{token}\""),
                "NodeAttestor \"join_token\" {\n    plugin_data {}\n  }".to_owned(),
                server.agent_id(token),
            ),
            Proof::X509pop(certificate, key) => {
                (String::new(), x509pop_block(certificate, key), String::new())
            }
        };
        let agent = Self {
            id,
            socket: path("p/api.sock"),
            admin_socket: path("admin/api.sock"),
            config: path(".conf"),
            data_dir,
            _dir: Arc::clone(&server.dir),
            daemon: None,
        };
        let text = format!(
            r#"agent {{
  data_dir = "{data}"
  server_address = "127.0.0.1"
  server_port = "{port}"
  trust_domain = "{domain}"
  trust_bundle_path = "{bundle}"
  socket_path = "{socket}"
  admin_socket_path = "{admin}"
  log_level = "{log_level}"
  {line}
  {more}
}}
plugins {{
  {block}
  {keys}
  WorkloadAttestor "unix" {{
    plugin_data {{
      {unix}
    }}
  }}
}}
"#,
            data = agent.data_dir.display(),
            port = server.port,
            domain = server.trust_domain,
            bundle = bundle.display(),
            socket = agent.socket.display(),
            admin = agent.admin_socket.display(),
            log_level = options.log_level,
            keys = options.key_manager.clone().unwrap_or_else(|| keys_on_disk(&agent.data_dir)),
            more = options.agent,
            unix = options.unix,
        );
        std::fs::write(&agent.config, text).unwrap();
        agent
    }

    /// Starts the stopped agent again with the same folder, and waits until it answers its callers.
    pub async fn restart(&mut self) {
        let daemon = self.spawn();
        self.adopt(daemon).await;
    }

    /// Takes a process of this agent's that somebody else started, and waits until it answers its callers.
    pub async fn adopt(&mut self, daemon: Daemon) {
        let socket = self.socket.clone();
        eventually("an agent that answers", async || {
            assert!(daemon.status().is_none(), "the agent ended: {}", daemon.log());
            let mut workload = Workload::connect(&socket).await.ok()?;
            // A validation is never held back for an entry to come, as the fetches are.
            match workload.validate("x", "no token").await {
                Err(status) if status.code() == Code::Unavailable => None,
                _ => Some(()),
            }
        })
        .await;
        self.daemon = Some(daemon);
    }

    /// Starts the process only.
    pub fn spawn(&self) -> Daemon {
        let mut command = Command::new(binary("avouch-agent"));
        Daemon::spawn("agent", command.args(["run", "-config"]).arg(&self.config))
    }

    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("a running agent")
    }

    /// Stops the agent politely; its folder stays.
    pub async fn stop(&mut self) -> std::process::ExitStatus {
        self.daemon.take().expect("a running agent").stop().await
    }

    /// A Workload API client of this process.
    pub async fn workload(&self) -> Workload {
        Workload::connect(&self.socket).await.unwrap()
    }

    /// The socket as the URI that SPIFFE clients take.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

fn keys_on_disk(dir: &Path) -> String {
    format!(
        "KeyManager \"disk\" {{\n    plugin_data {{\n      directory = \"{}\"\n    }}\n  }}",
        dir.display()
    )
}

fn x509pop_block(certificate: &Path, key: &Path) -> String {
    format!(
        "NodeAttestor \"x509pop\" {{\n    plugin_data {{\n      certificate_path = \"{}\"\n      private_key_path = \"{}\"\n    }}\n  }}",
        certificate.display(),
        key.display()
    )
}
