//! Code that asks for itself: the decision API on a socket of its own, with real binaries and ordinary HTTP clients.

use std::fmt::Display;
use std::process::Stdio;
use std::time::Duration;

use avouch_tests::daemon::binary;
use avouch_tests::{Agent, eventually, within};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::coder::Scene;
use crate::governed::{BEN, as_user, can_be_others};

/// Sends each line of its input as a body over one connection, and says what came.
const CLIENT: &str = r#"
import http.client, os, socket, sys
class Local(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["AVOUCH_SOCKET"])
local = Local("localhost")
for line in sys.stdin:
    try:
        local.request("POST", "/access/v1/evaluation", line)
        answer = local.getresponse()
        print(answer.status, answer.read().decode(), flush=True)
    except Exception as e:
        print(0, e, flush=True)
"#;

/// Asks without a pause on eight connections, and says so when the first hundred are answered.
const GREEDY: &str = r#"
import http.client, os, socket, threading
class Local(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["AVOUCH_SOCKET"])
body = '{"action":{"name":"tool.call"},"resource":{"type":"Tool","id":"files/read_file"}}'
told = threading.Event()
def ask():
    local, count = Local("localhost"), 0
    while True:
        try:
            local.request("POST", "/access/v1/evaluation", body)
            local.getresponse().read()
        except Exception:
            local = Local("localhost")
        count += 1
        if count == 100 and not told.is_set():
            told.set()
            print("begun", flush=True)
for _ in range(8):
    threading.Thread(target=ask, daemon=True).start()
input()
"#;

/// Longest wait beside a flood, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(10);

/// An AI agent under the rules to start with.
async fn starter() -> Scene {
    let scene = Scene::start().await;
    let folder = scene.world.server.dir.path().join("starter");
    let folder = folder.to_str().unwrap();
    scene.good(&["rules", "new", folder]).await;
    scene.good(&["rules", "publish", folder]).await;
    eventually("the rules at the node", async || {
        let began = scene.run(&["run", "coder", "--", "true"]).await;
        began.err.contains("rules 2").then_some(())
    })
    .await;
    scene
}

/// What a shell in a run says that is answered to these requests, each a path and a body: status and JSON.
async fn asked<B: Display>(scene: &Scene, requests: &[(&str, B)]) -> Vec<(u16, Value)> {
    let one = |(path, body): &(&str, B)| {
        format!(
            "curl -s --unix-socket \"$AVOUCH_SOCKET\" -H 'X-Request-ID: r7' -w '\\n%{{http_code}}\\n' -d '{body}' \
             http://localhost{path}\n"
        )
    };
    let script: String = requests.iter().map(one).collect();
    let said = scene.run(&["run", "coder", "--task", "fix-4711", "--", "sh", "-c", &script]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let lines: Vec<_> = said.out.lines().collect();
    lines.chunks(2).map(|pair| (pair[1].parse().unwrap(), serde_json::from_str(pair[0]).unwrap())).collect()
}

fn act(action: &str, kind: &str, resource: &str) -> Value {
    json!({ "action": { "name": action }, "resource": { "type": kind, "id": resource } })
}

fn call(tool: &str) -> Value {
    act("tool.call", "Tool", tool)
}

/// A process of a run of coder that asks over one connection, and stays when its identity is stopped.
pub(super) struct Own {
    _child: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

impl Own {
    pub fn start(scene: &Scene, agent: &Agent) -> Self {
        let mut command = Command::new(binary("avouch"));
        command.args(scene.places_on(agent)).args(["run", "coder", "--keep-running", "--"]);
        command.args(["python3", "-c", CLIENT]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { _child: child, to, from: BufReader::new(from).lines() }
    }

    /// Asks for a call that is allowed while the identity is in force; what came of it.
    pub async fn ask(&mut self) -> String {
        self.to.write_all(format!("{}\n", call("files/read_file")).as_bytes()).await.unwrap();
        within("an answer", self.from.next_line()).await.unwrap().expect("the client is there")
    }
}

/// Whether it was allowed what it asked for.
pub(super) fn is_let(answer: &str) -> bool {
    answer.starts_with("200 ") && answer.contains("\"decision\":true")
}

/// Whether it was denied, or is of no run any more, or no longer connected.
pub(super) fn is_shut(answer: &str) -> bool {
    let shut = answer.contains("\"not_in_force\"") || answer.starts_with("403 ") || answer.starts_with("0 ");
    shut && !is_let(answer)
}

const ONE: &str = "/access/v1/evaluation";
const MANY: &str = "/access/v1/evaluations";

#[tokio::test]
async fn a_process_of_a_run_asks_for_itself_and_what_it_is_told_is_in_the_log() {
    let scene = starter().await;
    let read = call("files/read_file");
    let mut named = read.clone();
    named["subject"] = json!({ "type": "ai_agent", "id": "spiffe://example.org/test/coder" });
    let mut secret = read.clone();
    secret["resource"]["properties"] = json!({ "path": "pay/secrets/key", "unknown": {} });
    let told = asked(&scene, &[(ONE, read), (ONE, named), (ONE, secret), (ONE, call("payroll/read"))]).await;
    assert!(told.iter().all(|(status, _)| *status == 200), "{told:?}");
    let decisions: Vec<_> = told.iter().map(|(_, answer)| answer["decision"].as_bool().unwrap()).collect();
    assert_eq!(decisions, [true, true, false, false], "{told:?}");
    assert_eq!(told[0].1["context"]["outcome"], "allow");
    let text = told[2].1["context"]["text"].as_str().unwrap();
    assert!(text.contains("files.secrets"), "{text}");
    assert!(told[0].1["context"]["record"].as_u64().unwrap() > 0, "{told:?}");
    let decisions = eventually("the decisions in the log", async || {
        let log = scene.run(&["audit", "export", "--source", "all"]).await.out;
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let decisions: Vec<_> = lines.filter(|line| line["event"] == "decision").collect();
        // Each is sent when the disk has it: the last may come after the others.
        (decisions.len() >= 4).then_some(decisions)
    })
    .await;
    assert_eq!(decisions.len(), 4, "{decisions:?}");
    assert!(decisions.iter().all(|decision| decision["detail"]["asked_by"] == "own_code"), "{decisions:?}");
    assert!(decisions[0]["actor"].as_str().unwrap().starts_with("ins_"), "{decisions:?}");
    let traced = scene.good(&["trace", &decisions[0]["seq"].to_string()]).await.out;
    assert!(traced.contains("coder") && traced.contains("Ada Example"), "{traced}");
}

#[tokio::test]
async fn who_asks_without_a_pause_takes_no_answer_from_another() {
    let scene = starter().await;
    let mut command = Command::new(binary("avouch"));
    command.args(scene.places()).args(["run", "coder", "--task", "greed", "--calls", "100000", "--"]);
    command.args(["python3", "-c", GREEDY]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut greedy = command.spawn().unwrap();
    let mut said = BufReader::new(greedy.stdout.take().unwrap()).lines();
    let begun = within("a flood", said.next_line()).await.unwrap();
    assert_eq!(begun.as_deref(), Some("begun"));
    let mut quiet = Command::new(binary("avouch"));
    quiet.args(scene.places()).args(["run", "coder", "--task", "quiet", "--", "python3", "-c", CLIENT]);
    let mut quiet = quiet.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut to = quiet.stdin.take().unwrap();
    let mut from = BufReader::new(quiet.stdout.take().unwrap()).lines();
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let begun = tokio::time::Instant::now();
        to.write_all(format!("{}\n", call("files/read_file")).as_bytes()).await.unwrap();
        let line = within("an answer", from.next_line()).await.unwrap().unwrap();
        assert!(line.starts_with("200 ") && line.contains("\"decision\":true"), "{line}");
        slowest = slowest.max(begun.elapsed());
    }
    println!("quiet beside greed: the slowest of 50 took {slowest:?}");
    assert!(slowest < PATIENCE, "{slowest:?}");
    assert!(greedy.try_wait().unwrap().is_none(), "it goes on all the while");
}

#[tokio::test]
async fn a_batch_is_answered_in_order_and_ends_where_it_is_to_end() {
    let scene = starter().await;
    let items = json!([
        { "resource": { "type": "Tool", "id": "files/read_file" } },
        { "resource": { "type": "Tool", "id": "payroll/read" } },
        { "resource": { "type": "Tool", "id": "files/read_file", "properties": { "path": "a" } } }
    ]);
    let batch = |semantic: &str| json!({ "action": { "name": "tool.call" }, "evaluations": items, "options": { "evaluations_semantic": semantic } });
    let told = asked(
        &scene,
        &[
            (MANY, batch("execute_all")),
            (MANY, batch("deny_on_first_deny")),
            (MANY, batch("permit_on_first_permit")),
        ],
    )
    .await;
    let decisions = |answer: &Value| {
        let list = answer["evaluations"].as_array().unwrap().clone();
        list.iter().map(|one| one["decision"].as_bool().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(decisions(&told[0].1), [true, false, true], "{told:?}");
    assert_eq!(decisions(&told[1].1), [true, false]);
    assert_eq!(decisions(&told[2].1), [true]);
    // What can't be decided is told in its place, beside the others; without a list it is one question.
    let mut odd = batch("execute_all");
    odd["evaluations"][0]["subject"] = json!({ "type": "identity", "id": "another" });
    let mut alone = batch("execute_all");
    alone["evaluations"] = json!(null);
    alone["resource"] = items[0]["resource"].clone();
    let told = asked(&scene, &[(MANY, odd), (MANY, alone)]).await;
    assert_eq!(told[0].1["evaluations"][0]["context"]["error"]["status"], 403, "{told:?}");
    assert_eq!(decisions(&told[0].1), [false, false, true]);
    assert_eq!((told[1].0, &told[1].1["decision"]), (200, &json!(true)), "{told:?}");
}

#[tokio::test]
async fn what_can_not_be_meant_or_asked_is_refused_with_its_status() {
    let scene = starter().await;
    let mut other = call("files/read_file");
    other["subject"] = json!({ "type": "identity", "id": "spiffe://example.org/test/other" });
    let big = json!({ "action": { "name": "x".repeat(70_000) } });
    let told = asked(
        &scene,
        &[
            (ONE, json!({ "resource": { "type": "Tool", "id": "files/read_file" } })),
            (ONE, act("tool.call", "File", "files/read_file")),
            (ONE, other),
            (ONE, big),
            ("/access/v1/search/subject", json!({})),
        ],
    )
    .await;
    let statuses: Vec<_> = told.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [400, 200, 403, 413, 404], "{told:?}");
    assert_eq!(told[0].1["detail"], "action is missing");
    assert_eq!(
        (&told[1].1["decision"], &told[1].1["context"]["reason"]),
        (&json!(false), &json!("resource_type"))
    );
    assert!(told[2].1["detail"].as_str().unwrap().contains("asks for itself"), "{told:?}");
    // Outside of every run there is nobody to decide about.
    let socket = avouch::access_place::beside(&scene.world.agent.socket);
    let curl = format!(
        "curl -si --unix-socket {} -H 'X-Request-ID: r7' -d '{}' http://localhost{ONE}",
        socket.display(),
        call("files/read_file")
    );
    let said = avouch_tests::cli::run_program(std::path::Path::new("sh"), ["-c", &curl], |_| {}).await;
    assert!(said.out.starts_with("HTTP/1.1 403") && said.out.contains("x-request-id: r7"), "{said:?}");
    assert!(said.out.contains("belongs to no run"), "{said:?}");
}

#[tokio::test]
async fn a_body_in_which_a_name_stands_twice_is_refused_and_nothing_of_it_is_decided() {
    let scene = starter().await;
    let question = |resource: &str| {
        format!(r#"{{"action":{{"name":"tool.call"}},"resource":{{"type":"Tool",{resource}}}}}"#)
    };
    // Whoever took the first value would read of a secret, of pay, or of both.
    let twice = [
        question(r#""id":"files/read_file","properties":{"path":"pay/secrets/key","path":"a"}"#),
        question(r#""id":"payroll/read","id":"files/read_file""#),
        question(r#""id":"payroll/read","\u0069d":"files/read_file""#),
        question(r#""id":"files/read_file","properties":{"of":{"x":1,"x":2}}"#),
    ];
    let listed = format!(r#"{{"evaluations":[{}]}}"#, twice.join(","));
    let bodies = twice.into_iter().map(|body| (ONE, body)).chain([(MANY, listed)]);
    // What is meant in one way only is decided, and its record comes after whatever was recorded before it.
    let last = (ONE, question(r#""id":"files/read_file","properties":{"path":"a"}"#));
    let told = asked(&scene, &bodies.chain([last]).collect::<Vec<_>>()).await;
    let ((status, allowed), refused) = told.split_last().unwrap();
    assert_eq!(refused.len(), 5);
    for (status, body) in refused {
        let detail = body["detail"].as_str().unwrap_or_default();
        assert!(*status == 400 && detail.contains("stands twice"), "{told:?}");
        assert_eq!(body.get("decision").or(body.get("evaluations")), None, "{told:?}");
    }
    assert_eq!((*status, &allowed["decision"]), (200, &json!(true)), "{told:?}");
    let decisions = eventually("a decision in the log", async || {
        let log = scene.run(&["audit", "export", "--source", "all"]).await.out;
        let decisions: Vec<_> =
            log.lines().filter(|line| line.contains("\"decision\"")).map(str::to_owned).collect();
        (!decisions.is_empty()).then_some(decisions)
    })
    .await;
    assert_eq!(decisions.len(), 1, "{decisions:?}");
}

#[tokio::test]
async fn limits_are_for_those_who_keep_them_and_a_grant_is_not_used_up_for_others() {
    if !can_be_others() {
        return;
    }
    let scene = starter().await;
    scene.good(&["person", "add", "Ben Example", "--uid", &BEN.to_string()]).await;
    let give = "grant give coder telemetry/requests --action telemetry.read --for 1h --uses 1";
    let given = as_user(&scene.world.server, BEN, &give.split(' ').collect::<Vec<_>>()).await;
    assert_eq!(given.code, 0, "{given:?}");
    let read = act("telemetry.read", "Dataset", "telemetry/requests");
    let mut keeps = read.clone();
    keeps["context"] = json!({ "supported_obligations": ["custom"] });
    let told = asked(&scene, &[(ONE, read.clone()), (ONE, read), (ONE, keeps.clone()), (ONE, keeps)]).await;
    for (status, refused) in &told[..2] {
        assert_eq!((*status, &refused["decision"]), (200, &json!(false)), "{told:?}");
        assert_eq!(refused["context"]["reason"], "limits", "{told:?}");
    }
    assert_eq!(told[2].1["decision"], true, "the grant is still there: {told:?}");
    let limits = &told[2].1["context"]["obligations"][0]["properties"];
    assert_eq!((&limits["max_rows"], &limits["read_only"]), (&json!(1000), &json!(true)), "{told:?}");
    assert_eq!(
        (&told[3].1["decision"], &told[3].1["context"]["reason"]),
        (&json!(false), &json!("no_grant"))
    );
}

#[tokio::test]
async fn nobody_is_asked_for_what_a_process_says_of_itself() {
    let scene = starter().await;
    let merge = act("repo.merge", "Repository", "git/pay");
    let told = asked(&scene, &[(ONE, merge)]).await;
    assert_eq!(
        (&told[0].1["decision"], &told[0].1["context"]["outcome"]),
        (&json!(false), &json!("step_up"))
    );
    let text = told[0].1["context"]["text"].as_str().unwrap();
    assert!(text.contains("nobody is asked"), "{text}");
    let list = scene.good(&["ask", "list", "--json"]).await.out;
    assert!(!list.contains("req_"), "nothing waits: {list}");
}

#[tokio::test]
async fn a_token_comes_for_the_own_task_only() {
    let scene = starter().await;
    let wanted = json!({ "resource": "git/pay" });
    let told = asked(
        &scene,
        &[
            ("/v1/tasks/fix-4711/token", wanted.clone()),
            ("/v1/tasks/other/token", wanted),
            ("/v1/tasks/fix-4711/token", json!({ "resource": "no/such" })),
        ],
    )
    .await;
    let statuses: Vec<_> = told.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [200, 404, 403], "{told:?}");
    assert!(told[0].1["token"].as_str().unwrap().starts_with("eyJ"), "{told:?}");
    assert!(told[0].1["expires_at"].as_i64().unwrap() > 0);
}

#[tokio::test]
async fn after_a_pause_is_answered_nothing_is_allowed_on_a_connection_that_was_open_before() {
    let scene = starter().await;
    let mut own = Own::start(&scene, &scene.world.agent);
    let before = own.ask().await;
    assert!(is_let(&before), "{before}");
    let paused = scene.good(&["pause", "coder"]).await.out;
    assert!(paused.contains("confirmed  1 of 1 nodes"), "{paused}");
    for _ in 0..3 {
        let after = own.ask().await;
        assert!(is_shut(&after), "{after}");
    }
}
