//! An HTTP gate with real binaries: real callers inside a run, a real upstream behind it that writes down what reaches it.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use avouch_tests::cli::{self, Said};
use avouch_tests::daemon::binary;
use avouch_tests::{World, eventually, within};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, UnixStream};
use tokio::process::{Child, Command};

use crate::asks::request_in;
use crate::governed::{BEN, as_user, can_be_others};

const SECRET: &str = "s3cret-of-the-api";
const RULES: &str = r#"
@id("rows.limit")
@limit("max_rows=2;fields=id,title")
permit (principal is AiAgent, action == Action::"http.read", resource == Api::"api/rows");

@id("new.write")
permit (principal is AiAgent in Preset::"coding-agent", action == Action::"http.write", resource == Api::"api/new")
when { context has task && context.task.purpose == principal.purpose };

@id("pulls.write")
permit (principal is AiAgent in Preset::"coding-agent", action == Action::"http.write", resource == Api::"api/pulls")
when { context has task && context.task.purpose == principal.purpose };

@id("drafts.write")
@grant
permit (principal is AiAgent in Preset::"coding-agent", action == Action::"http.write", resource == Api::"api/drafts")
when { context has task && context.task.purpose == principal.purpose && context has grant };

@id("new.asks")
@ask("person")
forbid (principal is AiAgent, action == Action::"http.write", resource == Api::"api/new")
unless { context.yes.person };
"#;

/// One example of each rule, and one that it leaves alone.
fn examples() -> String {
    let one = |rule: &str, expect: &str, action: &str, more: &str| {
        format!(
            "[[example]]\nrule = \"{rule}\"\nexpect = \"{expect}\"\nrequest = {{ kind = \"ai_agent\", preset = \"coding-agent\", \
             action = \"http.{action}\"{more} }}\n\n"
        )
    };
    let (new, yes) = (", resource = \"api/new\"", ", resource = \"api/new\", yes = [\"person\"]");
    let drafts = ", resource = \"api/drafts\", grant = true";
    [
        one("rows.limit", "limit", "read", ", resource = \"api/rows\""),
        one("rows.limit", "allow", "read", ", resource = \"api/ticket\""),
        one("new.write", "allow", "write", yes),
        one("new.write", "deny", "write", &format!("{yes}, task = \"holidays\"")),
        one("pulls.write", "allow", "write", ", resource = \"api/pulls\""),
        one("pulls.write", "deny", "write", ", resource = \"api/pulls\", task = \"holidays\""),
        one("drafts.write", "allow", "write", drafts),
        one("drafts.write", "deny", "write", &format!("{drafts}, task = \"holidays\"")),
        one("new.asks", "ask", "write", new),
        one("new.asks", "allow", "write", yes),
    ]
    .concat()
}

/// A request as it reached the upstream.
#[derive(Clone, Debug)]
pub struct Came {
    pub line: String,
    pub secret: Option<String>,
    pub body: String,
}

/// What the upstream says; an answer without end if there is no text.
struct Says(Option<Bytes>, bool);

impl Body for Says {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match (self.0.take(), self.1) {
            (Some(text), _) => std::task::Poll::Ready(Some(Ok(Frame::data(text)))),
            (None, true) => std::task::Poll::Pending,
            (None, false) => std::task::Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.0, self.1) {
            (Some(text), false) => SizeHint::with_exact(u64::try_from(text.len()).unwrap()),
            _ => SizeHint::default(),
        }
    }
}

/// A web API that writes down what reaches it.
#[derive(Clone, Default)]
pub struct Upstream {
    pub came: Arc<Mutex<Vec<Came>>>,
}

impl Upstream {
    /// Itself and its port.
    pub async fn start() -> (Self, u16) {
        let upstream = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = upstream.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                let service = service_fn(move |request| {
                    let serving = serving.clone();
                    async move { Ok::<_, Infallible>(serving.answer(request).await) }
                });
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        (upstream, port)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Says> {
        let (parts, mut body) = request.into_parts();
        let mut bytes = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await
        {
            bytes.extend(frame.unwrap().into_data().unwrap_or_default());
        }
        let line = format!("{} {}", parts.method, parts.uri);
        let secret = parts.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        self.came.lock().push(Came { line, secret, body: String::from_utf8(bytes).unwrap() });
        let rows: Vec<_> =
            (1..=5).map(|n| format!(r#"{{"id":{n},"title":"T{n}","salary":{n}000}}"#)).collect();
        let (kind, text) = match parts.uri.path() {
            "/v1/rows" => ("application/json", format!("[{}]", rows.join(","))),
            "/v1/lines" => ("application/x-ndjson", rows.join("\n")),
            _ => ("application/json", r#"{"id":7,"title":"It does not add up"}"#.to_owned()),
        };
        let endless = parts.uri.path() == "/v1/stream";
        let text = if endless { "begun\n".to_owned() } else { text };
        Response::builder().header("content-type", kind).body(Says(Some(text.into()), endless)).unwrap()
    }

    /// Method and path of each request.
    pub fn lines(&self) -> Vec<String> {
        self.came.lock().iter().map(|came| came.line.clone()).collect()
    }
}

struct Scene {
    world: World,
    upstream: Upstream,
    token: PathBuf,
}

impl Scene {
    /// A person, an AI agent of hers that may run here, and a gate in front of an API with a secret.
    async fn start() -> Self {
        let world = World::start().await;
        let (upstream, port) = Upstream::start().await;
        let dir = world.server.dir.path().join("secrets");
        std::fs::create_dir(&dir).unwrap();
        let token = dir.join("token");
        std::fs::write(&token, format!("{SECRET}\n")).unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        let scene = Self { world, upstream, token };
        scene.good("init Ada").await;
        let coder = "identity new coder --kind ai-agent --preset coding-agent --env test --purpose fix-bugs --ends 30d";
        scene.good(coder).await;
        let url = format!("http://127.0.0.1:{port}/v1");
        let mut add = vec!["gate", "add", "http", "api", &url, "--env-var", "API_URL", "--secret-file"];
        add.push(scene.token.to_str().unwrap());
        for route in [
            "GET /tickets/{id}?state=ticket",
            "GET /rows=rows",
            "GET /lines=rows",
            "GET /stream=stream",
            "POST /tickets=new",
            "POST /pulls=pulls",
            "POST /drafts=drafts",
        ] {
            add.extend(["--route", route]);
        }
        let said = scene.run(&add).await;
        assert_eq!(said.code, 0, "{said:?}");
        let rules = scene.world.server.dir.path().join("rules");
        let folder = rules.to_str().unwrap();
        scene.good(&format!("rules show --out {folder}")).await;
        std::fs::write(rules.join("more.cedar"), RULES).unwrap();
        std::fs::write(rules.join("more.examples.toml"), examples()).unwrap();
        scene.good(&format!("rules publish {folder}")).await;
        eventually("the rules at the node", async || {
            let began = scene.run(&["run", "coder", "--", "true"]).await;
            (began.code == 0 && began.err.contains("rules 2")).then_some(())
        })
        .await;
        scene
    }

    fn places(&self) -> [String; 4] {
        let World { server, agent } = &self.world;
        let (server, agent) = (server.socket.to_str().unwrap(), agent.socket.to_str().unwrap());
        ["--server-socket".into(), server.into(), "--agent-socket".into(), agent.into()]
    }

    async fn run(&self, args: &[&str]) -> Said {
        let places = self.places();
        cli::run("avouch", places.iter().map(String::as_str).chain(args.iter().copied())).await
    }

    async fn good(&self, line: &str) -> Said {
        let said = self.run(&line.split(' ').collect::<Vec<_>>()).await;
        assert_eq!(said.code, 0, "{line}: {said:?}");
        said
    }

    /// What a script says that is the command of a run.
    async fn script(&self, script: &str) -> Said {
        self.run(&["run", "coder", "--task", "fix-4711", "--", "sh", "-c", script]).await
    }

    /// As [`Self::script`], as an ordinary user or as root without its powers.
    async fn without_powers(&self, script: &str) -> Said {
        let run = ["run", "coder", "--", "sh", "-c", script];
        if !nix::unistd::geteuid().is_root() {
            return self.run(&run).await;
        }
        let (places, avouch) = (self.places(), binary("avouch"));
        let setpriv = ["--bounding-set", "-all", "--inh-caps", "-all", avouch.to_str().unwrap()];
        let all = setpriv.into_iter().chain(places.iter().map(String::as_str)).chain(run);
        cli::run_program(std::path::Path::new("setpriv"), all, |_| {}).await
    }

    /// A run that goes on until it is dropped, and its standard output.
    async fn goes_on(
        &self,
        script: &str,
    ) -> (Child, tokio::io::Lines<BufReader<tokio::process::ChildStdout>>) {
        let mut command = Command::new(binary("avouch"));
        command.args(self.places()).args(["run", "coder", "--", "sh", "-c", script]);
        let mut run =
            command.stdout(Stdio::piped()).stdin(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let said = BufReader::new(run.stdout.take().unwrap()).lines();
        (run, said)
    }
}

#[tokio::test]
async fn what_is_allowed_comes_from_the_upstream_for_every_caller_and_the_secret_is_the_gates() {
    let scene = Scene::start().await;
    let callers = [
        ("curl", "curl -sS \"$API_URL/tickets/7?state=open\""),
        ("curl", "curl -sS --unix-socket \"$API_URL_SOCKET\" http://gate/tickets/7?state=open"),
        (
            "python3",
            "python3 -c 'import os, urllib.request as u; print(u.urlopen(os.environ[\"API_URL\"] + \"/tickets/7?state=open\").read().decode())'",
        ),
        (
            "node",
            "node -e 'fetch(process.env.API_URL + \"/tickets/7?state=open\").then(r => r.text()).then(t => console.log(t))'",
        ),
    ];
    let mut asked = 0;
    for (program, script) in callers {
        if scene.script(&format!("command -v {program}")).await.code != 0 {
            println!("not run: there is no {program}");
            continue;
        }
        let said = scene.script(script).await;
        assert!(said.out.contains("It does not add up"), "{script}: {said:?}");
        asked += 1;
    }
    let came = scene.upstream.came.lock().clone();
    assert!(asked > 0 && came.len() == asked, "{came:?}");
    for came in came {
        assert_eq!(came.line, "GET /v1/tickets/7?state=open");
        assert_eq!(came.secret.as_deref(), Some(format!("Bearer {SECRET}").as_str()));
    }
}

#[tokio::test]
async fn fifty_proposals_in_a_row_go_through_and_nobody_is_asked() {
    let scene = Scene::start().await;
    let script = "for n in $(seq 50); do curl -sS -o /dev/null -w '%{http_code}\\n' -d \"change $n\" \"$API_URL/pulls\"; done";
    let said = scene.script(script).await;
    assert_eq!(said.out.lines().filter(|code| *code == "200").count(), 50, "{said:?}");
    let came = scene.upstream.came.lock().clone();
    let bodies: std::collections::BTreeSet<_> = came.iter().map(|came| came.body.as_str()).collect();
    assert_eq!((came.len(), bodies.len()), (50, 50), "each once");
    assert!(came.iter().all(|came| came.line == "POST /v1/pulls"), "{came:?}");
    let asked = scene.good("ask list").await;
    assert!(!asked.out.contains("req_"), "{asked:?}");
}

#[tokio::test]
async fn no_more_rows_and_fields_come_than_the_rules_say() {
    let scene = Scene::start().await;
    let said = scene.script("curl -sS -D - \"$API_URL/rows\"; echo; curl -sS \"$API_URL/lines\"").await;
    assert!(said.out.contains(r#"[{"id":1,"title":"T1"},{"id":2,"title":"T2"}]"#), "{said:?}");
    assert!(said.out.ends_with("{\"id\":1,\"title\":\"T1\"}\n{\"id\":2,\"title\":\"T2\"}\n"), "{said:?}");
    assert!(said.out.contains("x-avouch-limits: max_rows=2;fields=id,title"), "{said:?}");
    assert!(!said.out.contains("salary"), "{said:?}");
}

#[tokio::test]
async fn what_no_route_stands_for_never_reaches_the_upstream_and_stands_in_the_log() {
    let scene = Scene::start().await;
    let said = scene
        .script(
            "curl -sS -D - \"$API_URL/payroll\"; curl -sS -X DELETE \"$API_URL/tickets/7\"; \
             curl -sS --path-as-is \"$API_URL/tickets/../payroll\"",
        )
        .await;
    assert!(said.out.contains("403") && said.out.contains("x-avouch-reason: unmapped"), "{said:?}");
    assert!(said.out.contains("GET /payroll was not sent") && said.out.contains("dot segment"), "{said:?}");
    assert_eq!(scene.upstream.lines(), Vec::<String>::new());
    eventually("the denials in the log", async || {
        let log = scene.run(&["audit", "export", "--source", "all"]).await.out;
        let of =
            |text: &str| log.lines().any(|line| line.contains(text) && line.contains("unknown_resource"));
        (of("GET /payroll") && of("DELETE /tickets/7")).then_some(())
    })
    .await;
    scene.good("audit verify").await;
}

#[tokio::test]
async fn a_write_waits_for_a_second_persons_yes_and_exactly_those_bytes_go_on() {
    if !can_be_others() {
        return;
    }
    let scene = Scene::start().await;
    let server = &scene.world.server;
    scene.good(&format!("person add Ben --uid {BEN}")).await;
    let body = "{\"title\": \"caf\u{e9}\", \"n\": 1.0}";
    let post = |body: &str| {
        format!(
            "curl -sS -H 'content-type: application/json' -H 'x-hidden: 1' -d '{body}' \"$API_URL/tickets\""
        )
    };
    let waits = scene.script(&post(body)).await;
    let told: Value = serde_json::from_str(&waits.out).unwrap_or_else(|e| panic!("{e}: {waits:?}"));
    assert_eq!(told["reason"], "ask", "{told}");
    let id = request_in(told["error"].as_str().unwrap());
    let shown = as_user(server, BEN, &["ask", "show", &id]).await;
    for wanted in ["http.write api/new", "method: \"POST\"", "/v1/tickets", "caf\u{e9}"] {
        assert!(shown.out.contains(wanted), "{wanted}: {shown:?}");
    }
    let own = scene.run(&["ask", "yes", &id]).await;
    assert_eq!(own.code, 2, "{own:?}");
    assert_eq!(as_user(server, BEN, &["ask", "yes", &id]).await.code, 0);
    let other = scene.script(&post("{\"title\": \"other\"}")).await;
    assert!(other.out.contains("\"reason\":\"ask\"") && scene.upstream.lines().is_empty(), "{other:?}");
    let done = scene.script(&post(body)).await;
    assert!(done.out.contains("It does not add up"), "{done:?}");
    let came = scene.upstream.came.lock().clone();
    assert_eq!((came.len(), came[0].line.as_str(), came[0].body.as_str()), (1, "POST /v1/tickets", body));
    let again = scene.script(&post(body)).await;
    assert!(
        again.out.contains("\"reason\":\"ask\"") && scene.upstream.lines().len() == 1,
        "it is used up: {again:?}"
    );
    eventually("the receipt of the write", async || {
        let said = scene.run(&["audit", "match", "--json"]).await;
        let found: Value = serde_json::from_str(&said.out).ok()?;
        let of = |one: &&Value| one["id"] == id.as_str();
        let one = found["matches"].as_array()?.iter().find(of)?.clone();
        let whole = one["state"] == "matched" && one["done"][0]["hash"] == one["hash"];
        (whole && said.code == 0).then_some(())
    })
    .await;
}

/// What an AI agent tries that wants the secret: its environment, its files, the file, the supervisor's memory.
const TRIES: &str = r#"
import ctypes, os, sys
token, secret, parent = sys.argv[1], sys.argv[2][::-1], int(sys.argv[3])
def tried(what, reading):
    try:
        held = reading()
    except OSError as e:
        print(what, "refused", e.errno)
        return
    print(what, "TOLD" if secret.encode() in held else "open")
def read(path):
    with open(path, "rb") as f:
        return f.read(1 << 20)
libc = ctypes.CDLL(None, use_errno=True)
def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return b""
class Span(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
def peek():
    buffer = ctypes.create_string_buffer(8)
    here, there = Span(ctypes.addressof(buffer), 8), Span(0x400000, 8)
    return checked(libc.process_vm_readv(parent, ctypes.byref(here), 1, ctypes.byref(there), 1, 0))
print("environment", "TOLD" if secret in str(os.environ) else "silent")
tried("file", lambda: read(token))
tried("memory", lambda: read("/proc/%d/mem" % parent))
tried("maps", lambda: read("/proc/%d/maps" % parent))
tried("environ", lambda: read("/proc/%d/environ" % parent))
tried("trace", lambda: checked(libc.ptrace(16, parent, 0, 0)))
tried("vm", peek)
"#;

#[tokio::test]
async fn the_secret_is_nowhere_that_an_ai_agent_reaches() {
    let scene = Scene::start().await;
    let tries = scene.world.server.dir.path().join("tries.py");
    std::fs::write(&tries, TRIES).unwrap();
    let reversed: String = SECRET.chars().rev().collect();
    let script = format!(
        "python3 {} {} {reversed} $PPID; curl -sS \"$API_URL/tickets/7\"",
        tries.display(),
        scene.token.display()
    );
    let held = scene.without_powers(&script).await;
    if held.err.contains("this kernel cannot") {
        println!("not run: this kernel holds no domain with signals (Linux 6.12)");
        return;
    }
    assert!(!held.err.contains("advisory"), "{held:?}");
    assert!(held.out.contains("environment silent") && !held.out.contains("TOLD"), "{held:?}");
    for what in ["file", "memory", "environ", "trace", "vm"] {
        assert!(held.out.contains(&format!("{what} refused")), "{what}: {held:?}");
    }
    assert!(held.out.contains("It does not add up"), "and the gate has it all the same: {held:?}");
    assert!(!held.out.contains(SECRET) && !held.err.contains(SECRET), "{held:?}");
    // What others could read is no secret, and the gate says so.
    std::fs::set_permissions(&scene.token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = scene.script("curl -sS \"$API_URL/tickets/7\"").await;
    assert!(open.err.contains("lets nothing through") && open.out.contains("`chmod 600 "), "{open:?}");
    assert_eq!(scene.upstream.lines().len(), 1);
}

#[tokio::test]
async fn a_gate_is_for_its_run_and_nobody_else() {
    let scene = Scene::start().await;
    let (mut run, mut said) = scene.goes_on("echo \"$API_URL $API_URL_SOCKET\"; read end").await;
    let line = within("the run", said.next_line()).await.unwrap().unwrap();
    let (url, socket) = line.split_once(' ').unwrap();
    let (door, key) = url.rsplit_once('/').unwrap();
    assert!(key.len() == 64, "{url}");
    // Another run, which knows the port and has a key of its own.
    let other = scene.script(&format!("curl -sS {door}/${{API_URL##*/}}/tickets/7")).await;
    assert!(other.out.contains("\"reason\":\"key\""), "{other:?}");
    // A process outside of every run, which found the socket.
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(b"GET /tickets/7 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.contains("does not belong to the run"), "{answer}");
    let inside = scene.script(&format!("curl -sS --unix-socket {socket} http://gate/tickets/7")).await;
    assert!(!inside.out.contains("It does not add up"), "nor does another run: {inside:?}");
    assert_eq!(scene.upstream.lines(), Vec::<String>::new());
    drop(run.stdin.take());
    within("the end of the run", run.wait()).await.unwrap();
}

#[tokio::test]
async fn the_key_of_a_gate_opens_nothing_once_its_run_has_ended() {
    let scene = Scene::start().await;
    let script = "curl -sS \"$API_URL/tickets/7\"; echo; echo \"$API_URL $API_URL_SOCKET\"; read end";
    let (mut run, mut said) = scene.goes_on(script).await;
    let answer = within("an answer", said.next_line()).await.unwrap().unwrap();
    assert!(answer.contains("It does not add up"), "{answer}");
    let line = within("the way to the gate", said.next_line()).await.unwrap().unwrap();
    let (url, socket) = line.split_once(' ').unwrap();
    assert!(url.starts_with("http://") && socket.starts_with('/'), "{line}");
    drop(run.stdin.take());
    within("the end of the run", run.wait()).await.unwrap();
    let again =
        format!("curl -sS \"{url}/tickets/7\"; curl -sS --unix-socket \"{socket}\" http://gate/tickets/7; :");
    let outside = cli::run_program(std::path::Path::new("sh"), ["-c", &again], |_| {}).await;
    let inside = scene.script(&again).await;
    assert_eq!(scene.upstream.lines(), ["GET /v1/tickets/7"], "{outside:?} {inside:?}");
}

#[tokio::test]
async fn a_grant_opens_the_gate_no_more_once_the_owner_has_left_until_another_is_given() {
    let scene = Scene::start().await;
    scene.good(&format!("person add Ben --uid {BEN}")).await;
    scene.good("identity set coder --owner Ben --successor Ada").await;
    let give = "grant give coder api/drafts --action http.write --uses 9";
    scene.good(give).await;
    let script = "while read -r text; do echo \"$(curl -sS -d \"$text\" \"$API_URL/drafts\")\"; done";
    let (mut run, mut said) = scene.goes_on(script).await;
    let mut to = run.stdin.take().unwrap();
    let mut draft = async |text: &str| {
        to.write_all(format!("{text}\n").as_bytes()).await.unwrap();
        within("an answer", said.next_line()).await.unwrap().expect("the run is there")
    };
    let before = draft("one").await;
    assert!(before.contains("It does not add up"), "{before}");
    let left = scene.good("person leave Ben --apply").await;
    let after = draft("two").await;
    assert!(after.contains("\"reason\":\"no_grant\""), "{after}: {left:?}");
    assert_eq!(scene.upstream.lines(), ["POST /v1/drafts"], "nothing came after the answer that he has left");
    scene.good(give).await;
    let anew = draft("three").await;
    assert!(anew.contains("It does not add up"), "{anew}");
    assert_eq!(scene.upstream.lines().len(), 2);
}

#[tokio::test]
async fn a_pause_ends_an_answer_that_is_under_way() {
    let scene = Scene::start().await;
    let (mut run, mut said) =
        scene.goes_on("trap '' TERM; curl -sSN \"$API_URL/stream\" 2>&1; echo \"ended $?\"").await;
    assert_eq!(within("the answer", said.next_line()).await.unwrap().as_deref(), Some("begun"));
    scene.good("pause coder").await;
    let mut ended = within("the end", said.next_line()).await.unwrap().unwrap();
    if !ended.starts_with("ended") {
        ended = within("the end", said.next_line()).await.unwrap().unwrap();
    }
    assert!(ended.starts_with("ended ") && ended != "ended 0", "it does not look whole: {ended}");
    within("the end of the run", run.wait()).await.unwrap();
}

#[tokio::test]
async fn a_gate_is_not_added_with_a_secret_that_others_could_read() {
    let scene = Scene::start().await;
    std::fs::set_permissions(&scene.token, std::fs::Permissions::from_mode(0o640)).unwrap();
    let token = scene.token.to_str().unwrap();
    let said =
        scene.run(&["gate", "add", "http", "web", "https://example.org", "--secret-file", token]).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("has mode 640") && said.err.contains("`chmod 600 "), "{said:?}");
    let plain = scene.run(&["gate", "add", "http", "web", "http://example.org"]).await;
    assert_eq!(plain.code, 3, "{plain:?}");
    assert!(plain.err.contains("in plain text over a network"), "{plain:?}");
    let added = scene.run(&["gate", "add", "http", "web", "https://example.org"]).await;
    assert!(
        added.out.contains("GET /{path..}  http.read web/read") && added.out.contains("$WEB_URL"),
        "{added:?}"
    );
}
