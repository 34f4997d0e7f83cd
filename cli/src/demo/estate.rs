//! What there is: a server, two node agents, six servers with something to guard, and a folder for all of it.
//!
//! Never leaves anything: who opened it closes it, and what it started ends with it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use avouch_domain::{SpiffeId, TrustDomain};
use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use zeroize::Zeroizing;

use super::fault::{Fault, there};
use super::people::Others;
use super::service::Api;
use crate::out::Out;
use crate::run::code::find;
use crate::up::fetch;
use crate::up::world::{Base, Daemon, Node, World};

/// What it takes beside `avouch`.
const PROGRAMS: [&str; 2] = ["git", "curl"];
/// How long a daemon or a server has until it answers.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// Where the daemons of the nodes are among all.
const FIRST_NODE: usize = 1;

/// All of it.
#[derive(Debug)]
pub(super) struct Estate {
    pub world: World,
    pub nodes: [Node; 2],
    /// SPIFFE IDs of the node agents.
    pub agents: Vec<SpiffeId>,
    pub people_socket: PathBuf,
    pub others: Others,
    /// Where the callers find programs.
    pub path: OsString,
    daemons: Vec<Daemon>,
    addresses: BTreeMap<&'static str, SocketAddr>,
}

impl Estate {
    /// Makes the folder.
    pub fn found() -> Result<Self, Fault> {
        let domain = TrustDomain::new("example.org").map_err(|e| Fault::DoesNotHold(e.to_string()))?;
        let world = World::new(domain, "demo", Base::Shared)?;
        let nodes = [world.node("node-a"), world.node("node-b")];
        let usual = std::env::var_os("PATH").unwrap_or_default();
        if let Some(program) = PROGRAMS.into_iter().find(|program| find(program).is_err()) {
            world.remove();
            return Err(Fault::Missing { program });
        }
        let folders = std::iter::once(world.dir.join("bin")).chain(std::env::split_paths(&usual));
        let path = std::env::join_paths(folders).map_err(|e| Fault::DoesNotHold(e.to_string()))?;
        Ok(Self {
            nodes,
            agents: Vec::new(),
            people_socket: world.dir.join("people/api.sock"),
            others: Others::Nobody,
            path,
            daemons: Vec::new(),
            addresses: BTreeMap::new(),
            world,
        })
    }

    /// Starts everything.
    pub async fn start(&mut self, out: &mut Out) -> Result<(), Fault> {
        self.furnish_folders()?;
        self.others = Others::here(&self.world.dir.join("bin/avouch")).await;
        let people = self.people_socket.display();
        self.daemons.push(self.world.start_server(&format!("  people_socket_path = \"{people}\"\n"))?);
        self.wait_for("the server's start", out, async |estate: &Self| {
            Ok(fetch::server_ready(&estate.world.server_socket).await?)
        })
        .await?;
        for node in 0..self.nodes.len() {
            self.start_node(node, out).await?;
        }
        for api in Api::ALL {
            let mut command = self.serve("web", api.name());
            command.arg(api.name()).arg("--secret-file").arg(self.secret(api.name())?);
            self.start_service(api.name(), command).await?;
        }
        let mut command = self.serve("git", "git");
        command.arg("--repositories").arg(self.world.dir.join("repositories"));
        self.start_service("git", command).await
    }

    async fn start_node(&mut self, number: usize, out: &mut Out) -> Result<(), Fault> {
        let node = there(self.nodes.get(number), "a node")?;
        let (socket, domain) = (&self.world.server_socket, &self.world.trust_domain);
        let admitted = fetch::admit_agent(socket, domain).await?;
        self.daemons.push(self.world.start_agent(node, &admitted.bundle_pem, &admitted.token)?);
        self.wait_for("a node agent's start", out, async |estate: &Self| {
            estate
                .until("a node agent's socket", async || {
                    Ok(estate.nodes.get(number).filter(|node| node.socket.exists()).map(drop))
                })
                .await
        })
        .await?;
        self.agents.push(admitted.agent_id);
        Ok(())
    }

    async fn wait_for<T>(
        &mut self,
        what: &str,
        out: &mut Out,
        work: impl AsyncFnOnce(&Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let late = || Fault::expected(&format!("{what} within {} s", STARTS_WITHIN.as_secs()), "nothing");
        let work = tokio::time::timeout(STARTS_WITHIN, work(self));
        let done = out.during(&format!("waiting for {what}"), work).await.unwrap_or_else(|_| Err(late()));
        // If a daemon has ended, that is why.
        match done {
            Err(fault) => Err(self.daemons.iter_mut().find_map(Daemon::fault).map_or(fault, Fault::Start)),
            done => done,
        }
    }

    fn furnish_folders(&self) -> Result<(), Fault> {
        for name in ["bin", "home", "people", "repositories", "rules", "secrets", "seen"] {
            self.world.make_dir(name)?;
        }
        // Others reach the socket for people, the program that asks there, and the sockets of workloads, which look at who calls.
        for (name, mode) in [("", 0o711), ("bin", 0o711), ("people", 0o711)] {
            let open =
                std::fs::set_permissions(self.world.dir.join(name), std::fs::Permissions::from_mode(mode));
            open.map_err(|why| Fault::File { what: "a folder for others", why })?;
        }
        for name in ["avouch", "avouch-agent", "avouch-server"] {
            let (from, to) = (self.world.bin.join(name), self.world.dir.join("bin").join(name));
            let linked = std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(drop));
            linked.map_err(|why| Fault::File { what: "the programs", why })?;
        }
        Ok(())
    }

    /// Makes a secret, and says where it lies.
    fn secret(&self, name: &str) -> Result<PathBuf, Fault> {
        let bytes =
            avouch_credential::random::bytes::<16>().map_err(|e| Fault::DoesNotHold(e.to_string()))?;
        let text = Zeroizing::new(hex::encode(bytes));
        self.world.write(&format!("secrets/{name}"), &text)?;
        Ok(self.world.dir.join("secrets").join(name))
    }

    fn serve(&self, kind: &str, seen: &str) -> Command {
        let mut command = Command::new(self.world.dir.join("bin/avouch"));
        self.surround(&mut command, 0);
        command.args(["demo", "serve", kind, "--seen"]).arg(self.world.dir.join("seen").join(seen));
        command
    }

    async fn start_service(&mut self, name: &'static str, mut command: Command) -> Result<(), Fault> {
        command.stdout(Stdio::piped()).stderr(self.world.log(name)?);
        let mut daemon = self.world.keep(name, command)?;
        let mut said = String::new();
        if let Some(stdout) = daemon.stdout() {
            let read = tokio::time::timeout(STARTS_WITHIN, BufReader::new(stdout).read_line(&mut said)).await;
            read.unwrap_or_else(|late| Err(late.into()))
                .map_err(|why| Fault::File { what: "a server's address", why })?;
        }
        let address = said.trim().parse();
        let address = address
            .map_err(|_| daemon.fault().map_or_else(|| Fault::expected("an address", &said), Fault::Start))?;
        self.addresses.insert(name, address);
        self.daemons.push(daemon);
        Ok(())
    }

    /// Where one of the servers listens, as `127.0.0.1:PORT`.
    pub fn address(&self, name: &str) -> String {
        self.addresses.get(name).map(SocketAddr::to_string).unwrap_or_default()
    }

    /// A repository as the git server keeps it.
    pub fn bare(&self, name: &str) -> PathBuf {
        self.world.dir.join(format!("repositories/{name}.git"))
    }

    /// A node agent is frozen, or goes on.
    pub fn freeze(&self, node: usize, frozen: bool) {
        if let Some(daemon) = self.daemons.get(FIRST_NODE + node) {
            daemon.signal(if frozen { Signal::SIGSTOP } else { Signal::SIGCONT });
        }
    }

    /// What somebody can do with it now.
    pub fn to_be_tried(&self) -> String {
        let bin = self.world.dir.join("bin");
        let socket = |path: &Path| path.display().to_string();
        let agent = self.nodes.first().map(|node| socket(&node.socket)).unwrap_or_default();
        let server = socket(&self.world.server_socket);
        let with_others = self.others.before(0).map(|before| {
            format!(
                "
  avouch person leave 'Dee Example'        # what would stop; with --apply it does
  ben() {{ (cd / && SPIRE_SERVER_PRIVATE_SOCKET={} {} {}/avouch \"$@\"); }}
  ben ask list                             # Ben, who says yes to what is yours",
                socket(&self.people_socket),
                before,
                bin.display(),
            )
        });
        format!(
            "\nall of it is yours until Ctrl-C; in another terminal:
  export PATH={}:$PATH SPIRE_SERVER_PRIVATE_SOCKET={server} SPIRE_AGENT_PUBLIC_SOCKET={agent}
  avouch console                           # a link to the pages, in your browser
  avouch identity list{}
  avouch audit verify
the rules are in {}: change them, then `avouch rules publish FOLDER`",
            bin.display(),
            with_others.unwrap_or_default(),
            self.world.dir.join("rules").display(),
        )
    }

    /// Ends everything, and takes the folder away.
    pub async fn close(mut self) {
        for node in 0..self.nodes.len() {
            self.freeze(node, false);
        }
        for daemon in self.daemons.iter_mut().rev() {
            daemon.stop().await;
        }
        self.world.remove();
    }
}
