//! Shim, host and a real tool server process together; and what belongs to no part of them.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Write as _, pipe};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use super::hello::Hello;
use super::limits::CONNECTIONS_MAX;
use super::script::Script;
use super::*;
use crate::exit::{DENIED, FAILED, UNREACHABLE, USAGE};
use crate::out::{Captured, Out};

/// A tool server in a few lines of shell: it keeps what it is told, and has the tools `read` and `write`.
const SERVER: &str = r#"
while read -r line; do
  printf '%s\n' "$line" >> "$0"
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\("[^"]*"\|[0-9]*\).*/\1/p')
  case $line in
    *'"method":"tools/list"'*) result='{"tools":[{"name":"read","inputSchema":{}},{"name":"write","inputSchema":{}}]}';;
    *'"method":"initialize"'*) result='{"protocolVersion":"2025-11-25","capabilities":{"tools":{}}}';;
    *) result='{"content":[]}';;
  esac
  [ -z "$id" ] || printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done
echo ended >> "$0"
"#;

struct Run {
    folder: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    serving: tokio::task::JoinHandle<()>,
    decider: Arc<Script>,
}

impl Run {
    fn socket(&self) -> PathBuf {
        self.folder.path().join("gates")
    }

    fn seen(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("seen")).unwrap_or_default()
    }

    async fn end(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        (&mut self.serving).await.unwrap();
    }
}

fn start(decider: Script) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen").display().to_string();
    let gate = |name: &str, command: &[&str]| {
        let tools = ["read", "write"].map(|tool| {
            let digest = mcp::digest(tool, None, &json!({}));
            (tool.to_owned(), Tool { digest, params: BTreeMap::new() })
        });
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        (name.to_owned(), GateDefinition { name: name.to_owned(), command, tools: tools.into() }.into())
    };
    let gates = [
        gate("files", &["sh", "-c", SERVER, &seen]),
        gate("cat", &["cat"]),
        gate("talks", &["sh", "-c", "echo for people >&2; cat"]),
        gate("gone", &["/no/such/program"]),
    ];
    let listener = UnixListener::bind(folder.path().join("gates")).unwrap();
    let (stop, stopped) = oneshot::channel();
    let decider = Arc::new(decider);
    let served = host::serve(listener, gates.into(), decider.clone(), async {
        let _ = stopped.await;
    });
    Run { folder, stop: Some(stop), serving: tokio::spawn(served), decider }
}

/// A shim as an MCP client has it: with both of its ends, its exit code and what it says on standard error.
struct Shim {
    to: PipeWriter,
    from: BufReader<PipeReader>,
    ended: JoinHandle<u8>,
    said: Captured,
}

fn shim(gate: &str, socket: &Path) -> Shim {
    let ((input, to), (from, output)) = (pipe().unwrap(), pipe().unwrap());
    let (mut out, said) = Out::captured();
    let (gate, socket) = (gate.to_owned(), Some(socket.as_os_str().to_owned()));
    let ended = std::thread::spawn(move || shim::run(&gate, socket, input, output, &mut out));
    Shim { to, from: BufReader::new(from), ended, said }
}

impl Shim {
    fn send(&mut self, message: &Value) {
        writeln!(self.to, "{message}").unwrap();
    }

    fn ask(&mut self, id: u32, method: &str, params: Value) -> Value {
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or(Value::Null)
    }

    fn greet(&mut self) {
        let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {} });
        assert_eq!(self.ask(0, "initialize", hello)["result"]["protocolVersion"], "2025-11-25");
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    }
}

/// Does what blocks beside the runtime.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test]
async fn a_call_goes_from_the_shim_to_the_tool_server_and_a_denied_one_does_not() {
    let mut run = start(Script::default());
    let socket = run.socket();
    let code = beside(move || {
        let mut shim = shim("files", &socket);
        shim.greet();
        let tools = shim.ask(1, "tools/list", json!({}));
        assert_eq!(tools["result"]["tools"].as_array().unwrap().len(), 2, "{tools}");
        assert_eq!(shim.ask(2, "tools/call", json!({ "name": "read" }))["result"], json!({ "content": [] }));
        let denied = shim.ask(3, "tools/call", json!({ "name": "write", "arguments": { "x": "unseen" } }));
        assert_eq!(denied["result"]["isError"], true);
        drop(shim.to);
        (shim.ended.join().unwrap(), shim.said.err())
    });
    assert_eq!(code.await, (0, String::new()));
    run.end().await;
    let seen = run.seen();
    assert!(seen.contains("\"name\":\"read\"") && !seen.contains("unseen"), "{seen}");
    assert!(seen.ends_with("ended\n"), "the server was not asked to end: {seen}");
    assert_eq!(run.decider.asked.lock().len(), 2);
}

#[tokio::test]
async fn what_went_to_the_tool_server_is_told_when_its_answer_is_there() {
    let mut run = start(Script { due: Some(3), ..Script::default() });
    let socket = run.socket();
    beside(move || {
        let mut shim = shim("files", &socket);
        shim.greet();
        let done = shim.ask(2, "tools/call", json!({ "name": "read", "arguments": { "x": "seen" } }));
        assert_eq!(done["result"], json!({ "content": [] }));
    })
    .await;
    run.end().await;
    let told: Vec<_> = run.decider.did.lock().iter().map(|did| (did.record, did.sent.clone())).collect();
    assert_eq!(told, [(3, r#"{"x":"seen"}"#.to_owned())]);
    assert!(run.seen().contains(&told[0].1), "{}", run.seen());
}

#[tokio::test]
async fn each_connection_has_a_tool_server_of_its_own() {
    let mut run = start(Script::default());
    let socket = run.socket();
    beside(move || {
        let (mut one, mut other) = (shim("files", &socket), shim("files", &socket));
        one.greet();
        drop(one.to);
        assert_eq!(one.ended.join().unwrap(), 0);
        other.greet();
    })
    .await;
    run.end().await;
    assert_eq!(run.seen().matches("ended").count(), 2);
}

#[tokio::test]
async fn the_end_of_the_run_ends_tool_servers_and_shims() {
    let mut run = start(Script::default());
    let socket = run.socket();
    let shim = beside(move || {
        let mut shim = shim("files", &socket);
        shim.greet();
        shim
    })
    .await;
    run.end().await;
    assert!(run.seen().ends_with("ended\n"));
    let (code, said) = beside(move || (shim.ended.join().unwrap(), shim.said.err())).await;
    assert_eq!((code, said.as_str()), (FAILED, "avouch gate mcp files: the tool server or the run ended\n"));
}

#[test]
fn a_gate_that_breaks_off_without_having_read_everything_is_told_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(folder.path().join("gates")).unwrap();
    let mut shim = shim("files", &folder.path().join("gates"));
    let (stream, _) = listener.accept().unwrap();
    let mut stream = BufReader::with_capacity(1, stream);
    stream.read_line(&mut String::new()).unwrap();
    stream.get_mut().write_all(&hello::Answer::yes().line()).unwrap();
    shim.send(&json!({ "never": "read" }));
    // Its first byte is there, so the rest is not read when the gate goes.
    stream.fill_buf().unwrap();
    drop(stream);
    assert_eq!(shim.ended.join().unwrap(), FAILED);
    assert!(shim.said.err().contains("the tool server or the run ended"));
}

#[tokio::test]
async fn what_does_not_work_is_told_in_one_sentence_with_what_to_do() {
    let mut run = start(Script::default());
    let closed = start(Script { closed: true, ..Script::default() });
    let away = run.folder.path().join("nobody");
    for (gate, socket, code, told) in [
        (
            "none",
            run.socket(),
            FAILED,
            "this run has no gate \"none\" (it has: cat, files, gone, talks); add it with `avouch gate add mcp",
        ),
        ("gone", run.socket(), FAILED, "cannot start \"/no/such/program\""),
        ("files", closed.socket(), DENIED, "this process is none of the run"),
        ("files", away, UNREACHABLE, "start the AI agent anew with `avouch run"),
        ("files", PathBuf::new(), USAGE, "AVOUCH_GATES is not set"),
    ] {
        let ended = beside(move || {
            let shim = shim(gate, &socket);
            (shim.ended.join().unwrap(), shim.said.err())
        });
        let (ended, said) = ended.await;
        assert!(ended == code && said.contains(told), "{gate}: {ended} {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let (mut out, said) = Out::captured();
    assert_eq!(shim::run("files", None::<OsString>, &b""[..], Vec::new(), &mut out), USAGE);
    assert!(said.err().contains("avouch run IDENTITY -- CMD"));
    assert_eq!(closed.decider.asked.lock().len(), 0);
    run.end().await;
    assert_eq!(run.seen(), "");
}

#[tokio::test]
async fn no_more_tool_servers_run_than_may() {
    let mut run = start(Script::default());
    let socket = run.socket();
    beside(move || {
        let open = |_| {
            let mut stream = StdStream::connect(&socket).unwrap();
            stream.write_all(&hello::Hello::to("cat").line()).unwrap();
            let mut line = String::new();
            let mut stream = BufReader::new(stream);
            stream.read_line(&mut line).unwrap();
            (line, stream)
        };
        let held: Vec<_> = (0..CONNECTIONS_MAX).map(open).collect();
        assert!(held.iter().all(|(line, _)| !line.contains("refused")), "{}", held[0].0);
        assert!(open(0).0.contains("64 tool servers run already"));
    })
    .await;
    run.end().await;
}

#[tokio::test]
async fn what_a_tool_server_says_to_people_goes_where_the_shim_says_such_things() {
    let mut run = start(Script::default());
    let socket = run.socket();
    beside(move || {
        let (heard, said) = pipe().unwrap();
        let stream = StdStream::connect(&socket).unwrap();
        handed::send(&stream, &Hello::to("talks").line(), said.as_fd()).unwrap();
        drop(said);
        let mut line = String::new();
        BufReader::new(heard).read_line(&mut line).unwrap();
        assert_eq!(line, "for people\n");
    })
    .await;
    run.end().await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_let_go() {
    let mut run = start(Script::default());
    let socket = run.socket();
    beside(move || {
        let mut silent = BufReader::new(StdStream::connect(&socket).unwrap());
        assert_eq!(silent.read_line(&mut String::new()).unwrap(), 0);
        let mut odd = BufReader::new(StdStream::connect(&socket).unwrap());
        odd.get_mut().write_all(b"GET / HTTP/1.1\r\n").unwrap();
        let mut line = String::new();
        odd.read_line(&mut line).unwrap();
        assert!(line.contains("expected a hello"), "{line}");
    })
    .await;
    run.end().await;
}

#[tokio::test]
async fn a_tool_server_is_looked_at_when_it_is_added() {
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen").display().to_string();
    let command = ["sh", "-c", SERVER, &seen].map(str::to_owned);
    let found = mcp::look(&command).await.unwrap();
    let digests: Vec<_> = found.iter().map(|tool| (tool.name.as_str(), tool.digest)).collect();
    let digest = |name| (name, mcp::digest(name, None, &json!({})));
    assert_eq!(digests, [digest("read"), digest("write")]);
    assert!(!std::fs::read_to_string(&seen).unwrap().contains("tools/call"));
    let shell = |script: &str| ["sh", "-c", script].map(str::to_owned);
    for (command, told) in [
        (shell("exit 0"), "ended before it listed its tools"),
        (shell("echo one >&2; echo no such folder >&2; exit 1"), "it said: no such folder"),
        (shell("echo Listening on port 80; cat"), "can't be understood"),
        (
            shell(
                "read -r _; echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":\"2020-01-01\"}}'; cat",
            ),
            "revision \"2020-01-01\"",
        ),
        (
            shell(&SERVER.replace("\"write\"", "\"read\"").replace("$0", "/dev/null")),
            "two tools named \"read\"",
        ),
        (
            shell(&SERVER.replace("{\"tools\"", "{\"tulz\"").replace("$0", "/dev/null")),
            "can't be listed: its answer has no list",
        ),
        (["/no/such", "", ""].map(str::to_owned), "cannot start \"/no/such\""),
    ] {
        let error = mcp::look(&command).await.unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[tokio::test]
async fn a_tool_server_of_the_stateless_revision_alone_is_looked_at_as_well() {
    let stateless = SERVER.replace(
        "*'\"method\":\"initialize\"'*) result='{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}}}';;",
        "*'\"method\":\"initialize\"'*) printf '{\"jsonrpc\":\"2.0\",\"id\":%s,\"error\":{\"code\":-32022,\"message\":\"x\"}}\\n' \"$id\"; continue;;",
    );
    assert_ne!(stateless, SERVER);
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen").display().to_string();
    let found = mcp::look(&["sh", "-c", &stateless, &seen].map(str::to_owned)).await.unwrap();
    assert_eq!(found.len(), 2);
    assert!(std::fs::read_to_string(&seen).unwrap().contains("2026-07-28"));
}

#[test]
fn a_gate_of_the_rules_has_the_parameters_of_its_resources() {
    let starter = avouch_rules::STARTER.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned()));
    let digest = format!("sha256:{}", "11".repeat(32));
    let tool =
        |name: &str, more: &str| format!("[[gate.tool]]\nname = \"{name}\"\ndigest = \"{digest}\"\n{more}");
    let gate = format!(
        "[[gate]]\nname = \"files\"\nkind = \"mcp\"\ncommand = [\"server\"]\n{}{}",
        tool("read_file", ""),
        tool("delete_file", "pointers = { path = \"/file/0\" }\n")
    );
    let files = starter.chain([("gates.toml".to_owned(), gate)]);
    let rules = avouch_rules::check(&avouch_rules::Folder::new(files).unwrap()).unwrap();
    let gate = GateDefinition::of(&rules, "files").unwrap();
    let place = |tool: &str| gate.tools[tool].params["path"].clone();
    assert_eq!(place("read_file"), Place { pointer: "/path".to_owned(), kind: ParamKind::String });
    assert_eq!(place("delete_file").pointer, "/file/0");
    assert_eq!(gate.tools["read_file"].digest, [0x11; 32]);
    assert_eq!(GateDefinition::of(&rules, "git"), None);
}

#[test]
fn foreign_text_is_cut_and_loses_its_control_characters() {
    assert_eq!(quote("a\u{1b}[31m\nb", 100), "a [31m b");
    assert_eq!(quote("ääää", 5), "ää…");
}
