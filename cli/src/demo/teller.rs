//! What the demonstration does, by whom, and what came of it: commands of `avouch`, scripts of AI agents, records.
//!
//! Never believes a command alone: what was decided is read from the log.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use super::estate::Estate;
use super::fault::{Fault, hold};

/// How long a command may take.
const COMMAND_MAX: Duration = Duration::from_secs(60);
/// How long something that was pushed is waited for, and how often it is looked at.
pub(super) const COMES_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Who does something: the others only own and leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// The user who started the demonstration: a security person, who owns most of it.
    Ada,
    /// The second security person.
    Ben,
}

/// What a command came to.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// One decision as its record has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// Number in the chain of its node.
    pub number: u64,
    pub outcome: String,
    pub reason: String,
}

impl Estate {
    /// A command of `avouch` by a person.
    pub async fn ask(&self, who: Who, args: &[&str]) -> Result<Said, Fault> {
        let avouch = self.world.dir.join("bin/avouch");
        let command = match who {
            Who::Ada => Some(Command::new(&avouch)),
            Who::Ben => self.others.command(0, &avouch),
        };
        let mut command = command.ok_or_else(|| {
            Fault::DoesNotHold("nobody else can be asked for here: a scene forgot to look".into())
        })?;
        self.surround(&mut command, 0);
        if who != Who::Ada {
            // Everything else here is closed to them.
            command.env("SPIRE_SERVER_PRIVATE_SOCKET", &self.people_socket).current_dir("/");
        }
        command.args(args);
        self.said(command).await
    }

    /// As [`Self::ask`] by Ada, where anything but success ends the demonstration.
    pub async fn good(&self, args: &[&str]) -> Result<Said, Fault> {
        self.good_by(Who::Ada, args).await
    }

    /// As [`Self::ask`], where anything but success ends the demonstration.
    pub async fn good_by(&self, who: Who, args: &[&str]) -> Result<Said, Fault> {
        let said = self.ask(who, args).await?;
        hold(said.code == 0, &format!("`avouch {}` to succeed", args.join(" ")), &said)?;
        Ok(said)
    }

    /// A script that runs as an identity on a node, with these arguments of `avouch run` before it.
    pub async fn run(&self, node: usize, identity: &str, more: &[&str], script: &str) -> Result<Ran, Fault> {
        let said = self.said(self.running(node, identity, more, script)).await?;
        let instance = word_from(&said.err, "ins_").unwrap_or_default();
        Ok(Ran { said, instance })
    }

    /// The command of [`Self::run`].
    pub fn running(&self, node: usize, identity: &str, more: &[&str], script: &str) -> Command {
        let mut command = if nix::unistd::geteuid().is_root() {
            // What runs as an AI agent has no power of root, so that the kernel can hold it.
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set", "-all", "--inh-caps", "-all", "avouch"]);
            command
        } else {
            Command::new("avouch")
        };
        self.surround(&mut command, node);
        command.args(["run", identity]).args(more).args(["--", "sh", "-c", script]);
        command
    }

    /// A program that is no AI agent.
    pub async fn program<S: AsRef<OsStr>>(&self, name: &str, args: &[S]) -> Result<Said, Fault> {
        let mut command = Command::new(name);
        self.surround(&mut command, 0);
        command.args(args);
        self.said(command).await
    }

    /// What every process of the demonstration knows, and nothing else: the caller's settings are none of its business.
    pub fn surround(&self, command: &mut Command, node: usize) {
        command.env_clear();
        command.env("PATH", &self.path).env("HOME", self.world.dir.join("home")).env("LANG", "C");
        command.env("XDG_RUNTIME_DIR", &self.world.dir);
        command.env("SPIRE_SERVER_PRIVATE_SOCKET", &self.world.server_socket);
        if let Some(node) = self.nodes.get(node) {
            command.env("SPIRE_AGENT_PUBLIC_SOCKET", &node.socket);
        }
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "coder")
                .env(format!("GIT_{role}_EMAIL"), "coder@example.org");
        }
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_URL", format!("http://{}", self.address("git")));
        command.current_dir(self.world.dir.join("home"));
    }

    async fn said(&self, mut command: Command) -> Result<Said, Fault> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        let said = match tokio::time::timeout(COMMAND_MAX, command.output()).await {
            Ok(said) => said.map_err(|why| Fault::Command { name, why })?,
            Err(_) => return Err(Fault::expected(&format!("{name} to end within a minute"), "nothing")),
        };
        Ok(Said {
            // Whoever was ended by a signal has none; no command of the demonstration should be.
            code: said.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&said.stdout).into_owned(),
            err: String::from_utf8_lossy(&said.stderr).into_owned(),
        })
    }

    /// Waits for something that comes by itself.
    pub async fn until<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Result<Option<T>, Fault>,
    ) -> Result<T, Fault> {
        let looking = async {
            loop {
                if let Some(seen) = look().await? {
                    return Ok(seen);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let late = || Fault::expected(&format!("{what} within {} s", COMES_WITHIN.as_secs()), "nothing");
        tokio::time::timeout(COMES_WITHIN, looking).await.unwrap_or_else(|_| Err(late()))
    }

    /// All records that the server has.
    pub async fn records(&self) -> Result<Vec<Value>, Fault> {
        let said = self.good(&["audit", "export", "--source", "all"]).await?;
        let read = |line: &str| serde_json::from_str(line).map_err(|e| Fault::expected("records in JSON", e));
        said.out.lines().map(read).collect()
    }

    /// The decisions about an instance, once there are this many.
    pub async fn decisions(&self, instance: &str, many: usize) -> Result<Vec<Decision>, Fault> {
        let what = format!("{many} decisions about {instance} in the log");
        self.until(&what, async || {
            let records = self.records().await?;
            let of = |record: &&Value| at(record, "/event") == "decision" && at(record, "/actor") == instance;
            let decisions: Vec<_> = records.iter().filter(of).map(Decision::of).collect();
            Ok((decisions.len() >= many).then_some(decisions))
        })
        .await
    }

    /// How many requests reached something, by the words that its lines begin with.
    pub fn reached(&self, name: &str, begins: &str) -> Result<usize, Fault> {
        let path = self.world.dir.join("seen").join(name);
        let text =
            std::fs::read_to_string(&path).map_err(|why| Fault::File { what: "what was seen", why })?;
        Ok(text.lines().filter(|line| line.starts_with(begins)).count())
    }
}

/// A script that ran.
#[derive(Clone, Debug)]
pub(super) struct Ran {
    pub said: Said,
    /// Of the run.
    pub instance: String,
}

impl Decision {
    fn of(record: &Value) -> Self {
        let text = |name: &str| at(record, &format!("/detail/{name}")).to_owned();
        Self { number: number(record), outcome: text("outcome"), reason: text("reason") }
    }
}

/// The text at a place of a message or record; empty if there is none.
pub(super) fn at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number of a record.
pub(super) fn number(record: &Value) -> u64 {
    record.get("seq").and_then(Value::as_u64).unwrap_or_default()
}

/// The word in a text that begins so.
pub(super) fn word_from(text: &str, begins: &str) -> Option<String> {
    let (_, rest) = text.split_once(begins)?;
    let rest: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    Some(format!("{begins}{rest}"))
}
