//! An AI agent with a gate in front of its tools, and an MCP client that it runs.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use avouch_tests::cli::{self, Said};
use avouch_tests::daemon::binary;
use avouch_tests::{Agent, World, eventually, within};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A tool server with two tools, which writes down each call that reaches it, and beside them what it does not know.
const TOOL_SERVER: &str = r#"#!/bin/sh
calls=$1
tool() {
  printf '{"name":"%s","description":"%s","inputSchema":{"type":"object"}}' "$1" "$2"
}
while IFS= read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([^,}]*\).*/\1/p')
  case $line in
    *'"method":"initialize"'*)
      version=$(printf '%s' "$line" | sed -n 's/.*"protocolVersion":"\([^"]*\)".*/\1/p')
      printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"%s","capabilities":{"tools":{}},"serverInfo":{"name":"t","version":"1"}}}\n' "$id" "$version" ;;
    *'"method":"tools/list"'*)
      printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[%s,%s]}}\n' "$id" "$(tool read_file 'Reads a file')" "$(tool write_file 'Writes a file')" ;;
    *'"method":"tools/call"'*)
      printf '%s\n' "$line" >> "$calls"
      printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"done"}]}}\n' "$id" ;;
    *) printf '%s\n' "$line" >> "$calls.other" ;;
  esac
done
"#;

pub(super) struct Scene {
    pub world: World,
    /// Calls that reached the tool server.
    pub calls: PathBuf,
}

impl Scene {
    /// A person, an AI agent of hers that may run here, and a gate in front of a tool server.
    pub async fn start() -> Self {
        Self::start_in(World::start().await).await
    }

    /// As [`Self::start`], in a world without entries.
    pub async fn start_in(world: World) -> Self {
        let dir = world.server.dir.path();
        let (script, calls) = (dir.join("server.sh"), dir.join("calls"));
        std::fs::write(&script, TOOL_SERVER).unwrap();
        let scene = Self { world, calls };
        scene.good(&["init", "Ada Example"]).await;
        scene
            .good(&[
                "identity",
                "new",
                "coder",
                "--kind",
                "ai-agent",
                "--preset",
                "coding-agent",
                "--env",
                "test",
                "--purpose",
                "fix-bugs",
                "--ends",
                "30d",
            ])
            .await;
        let (script, calls) = (script.to_str().unwrap().to_owned(), scene.calls.to_str().unwrap().to_owned());
        scene.good(&["gate", "add", "mcp", "files", "--", "sh", &script, &calls]).await;
        eventually("the rules at the node", async || {
            let began = scene.run(&["run", "coder", "--", "true"]).await;
            (began.code == 0 && began.err.contains("rules 1")).then_some(())
        })
        .await;
        scene
    }

    pub fn places(&self) -> [String; 4] {
        self.places_on(&self.world.agent)
    }

    /// As [`Self::places`], with another node agent of this server.
    pub fn places_on(&self, agent: &Agent) -> [String; 4] {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let server = text(&self.world.server.socket);
        ["--server-socket".into(), server, "--agent-socket".into(), text(&agent.socket)]
    }

    /// The places come first: what follows `--` belongs to the command.
    pub async fn run(&self, args: &[&str]) -> Said {
        self.run_on(&self.world.agent, args).await
    }

    /// As [`Self::run`], on the node of another agent.
    pub async fn run_on(&self, agent: &Agent, args: &[&str]) -> Said {
        let places = self.places_on(agent);
        cli::run("avouch", places.iter().map(String::as_str).chain(args.iter().copied())).await
    }

    /// As an ordinary user, or as root that has given up its capabilities.
    pub async fn run_without_powers(&self, args: &[&str]) -> Said {
        if !nix::unistd::geteuid().is_root() {
            return self.run(args).await;
        }
        let (places, avouch) = (self.places(), binary("avouch"));
        let setpriv = ["--bounding-set", "-all", "--inh-caps", "-all", avouch.to_str().unwrap()];
        let all = setpriv.into_iter().chain(places.iter().map(String::as_str)).chain(args.iter().copied());
        cli::run_program(Path::new("setpriv"), all, |_| {}).await
    }

    pub async fn good(&self, args: &[&str]) -> Said {
        let said = self.run(args).await;
        assert_eq!(said.code, 0, "{args:?}: {said:?}");
        said
    }

    /// Publishes the rules in force anew, changed in their folder.
    pub async fn change_rules(&self, change: impl FnOnce(&Path)) {
        let folder = self.world.server.dir.path().join("rules");
        let path = folder.to_str().unwrap();
        self.good(&["rules", "show", "--out", path]).await;
        change(&folder);
        self.good(&["rules", "publish", path]).await;
    }

    pub fn calls(&self) -> usize {
        std::fs::read_to_string(&self.calls).map_or(0, |text| text.lines().count())
    }

    /// What reached the tool server and is neither a greeting nor about tools.
    pub fn others(&self) -> String {
        std::fs::read_to_string(self.calls.with_file_name("calls.other")).unwrap_or_default()
    }

    /// An MCP client whose server is the gate, as the only process of a run.
    pub async fn client(&self, more: &[&str]) -> Client {
        self.client_of("coder", more).await
    }

    /// As [`Self::client`], in a run of another identity.
    pub async fn client_of(&self, identity: &str, more: &[&str]) -> Client {
        self.client_at("files", identity, more).await
    }

    /// As [`Self::client_of`], whose server is another gate.
    pub async fn client_at(&self, gate: &str, identity: &str, more: &[&str]) -> Client {
        self.client_on(&self.world.agent, gate, identity, more).await
    }

    /// As [`Self::client_at`], on the node of another agent.
    pub async fn client_on(&self, agent: &Agent, gate: &str, identity: &str, more: &[&str]) -> Client {
        let mut command = Command::new(binary("avouch"));
        command.args(self.places_on(agent)).args(["run", identity]).args(more).arg("--");
        command.arg(binary("avouch")).args(["gate", "mcp", gate]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut client = Client { child, to, from: BufReader::new(from).lines(), next: 0 };
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}});
        client.ask("initialize", hello).await;
        client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        client
    }
}

pub(super) struct Client {
    pub child: Child,
    pub to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
    next: u64,
}

impl Client {
    async fn send(&mut self, message: &Value) {
        self.to.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    pub async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.try_ask(method, params).await.expect("the gate is there")
    }

    /// As [`Self::ask`]; nothing once the gate is gone.
    pub async fn try_ask(&mut self, method: &str, params: Value) -> Option<Value> {
        self.next += 1;
        let id = self.next;
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.to.write_all(format!("{message}\n").as_bytes()).await.ok()?;
        loop {
            let message = self.hear().await?;
            if message["id"] == id {
                return Some(message);
            }
        }
    }

    /// The next message; nothing once the gate is gone, be it in the middle of a line.
    pub async fn hear(&mut self) -> Option<Value> {
        let line = within("a message of the gate", self.from.next_line()).await.ok()??;
        Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e} in a gate's message: {line}")))
    }

    /// What a call of `write_file` comes to: the text of its result.
    pub async fn write(&mut self, content: &str) -> String {
        let arguments = json!({"path": "main.py", "content": content});
        let answer = self.ask("tools/call", json!({"name": "write_file", "arguments": arguments})).await;
        answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    pub async fn call(&mut self, tool: &str) -> Value {
        self.ask("tools/call", json!({"name": tool, "arguments": {"path": "a"}})).await
    }
}
