//! An HTTP gate that is a workload of its own: callers prove by their X509-SVID who they are, and a real upstream behind it
//! writes down what reaches it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use avouch_credential::tls::{Alpn, RootsCell, ServerExpectation, client_config_with, server_name};
use avouch_credential::x509::facts::check_authority;
use avouch_domain::Bundle;
use avouch_domain::fixtures::{domain, id};
use avouch_tests::cli::{self, Said};
use avouch_tests::daemon::{Daemon, binary};
use avouch_tests::{World, eventually, within};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::http_gate::Upstream;

const SECRET: &str = "s3cret-of-the-shared-api";

struct Scene {
    world: World,
    upstream: Upstream,
    gate: Daemon,
    /// Where callers come.
    url: String,
    dir: tempfile::TempDir,
}

impl Scene {
    /// A person, an AI agent of hers that may run here, and a gate in front of an API, served by a workload.
    async fn start() -> Self {
        let world = World::start().await;
        let (upstream, port) = Upstream::start().await;
        let (dir, secrets) = (tempfile::tempdir().unwrap(), world.server.dir.path().join("secrets"));
        std::fs::create_dir(&secrets).unwrap();
        let token = secrets.join("token");
        std::fs::write(&token, format!("{SECRET}\n")).unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        let coder = "identity new coder --kind ai-agent --preset coding-agent --env test --purpose fix-bugs --ends 30d";
        let (api, token) = (format!("http://127.0.0.1:{port}/v1"), token.display());
        let add = format!("gate add http api {api} --caller /test/api-gate --secret-file {token}");
        for line in ["init Ada", coder, &add] {
            let said = said(&world, &line.split(' ').collect::<Vec<_>>()).await;
            assert_eq!(said.code, 0, "{line}: {said:?}");
        }
        world.grant("/test/api-gate").await;
        let gate = eventually("the gate", async || {
            let gate = Daemon::spawn(
                "gate",
                Command::new(binary("avouch")).args(places(&world)).args([
                    "--json",
                    "gate",
                    "serve",
                    "api",
                    "--listen",
                    "127.0.0.1:0",
                ]),
            );
            eventually("its first line or its end", async || {
                (gate.log().contains("\"url\"") || gate.status().is_some()).then_some(())
            })
            .await;
            gate.status().is_none().then_some(gate)
        })
        .await;
        let told: Value = serde_json::from_str(&gate.line("\"url\"").await).unwrap();
        assert_eq!(told["spiffe_id"], "spiffe://example.org/test/api-gate");
        let url = told["url"].as_str().unwrap().to_owned();
        Self { world, upstream, gate, url, dir }
    }

    async fn run(&self, args: &[&str]) -> Said {
        said(&self.world, args).await
    }

    /// What the AI agent's script says, which may use `ask PATH [ARGUMENTS OF CURL]`: a request under its X509-SVID.
    async fn script(&self, script: &str) -> Said {
        let (dir, agent) = (self.dir.path().display(), binary("avouch-agent"));
        let path = binary("avouch").parent().unwrap().display().to_string();
        let script = format!(
            "cd {dir}; export PATH={path}:$PATH\n\
             {} api fetch x509 -socketPath ${{SPIFFE_ENDPOINT_SOCKET#unix://}} -silent -write . || exit 1\n\
             ask() {{ path=$1; shift; curl -sSk --cert svid.0.pem --key svid.0.key \"$@\" {}$path; }}\n\
             {script}",
            agent.display(),
            self.url
        );
        let said = self.run(&["run", "coder", "--task", "fix-4711", "--", "sh", "-c", &script]).await;
        assert_eq!(said.code, 0, "{script}: {said:?}");
        said
    }
}

fn places(world: &World) -> [PathBuf; 4] {
    let World { server, agent } = world;
    ["--server-socket".into(), server.socket.clone(), "--agent-socket".into(), agent.socket.clone()]
}

async fn said(world: &World, args: &[&str]) -> Said {
    let args = places(world).into_iter().chain(args.iter().map(PathBuf::from));
    cli::run("avouch", args).await
}

/// A request that shows the AI agent's task as well.
const WITH_TASK: &str = "ask /tickets/7 -H \"x-avouch-task: $(avouch task token api/read)\"";

#[tokio::test]
async fn an_ai_agent_is_let_through_by_its_certificate_and_its_task_and_the_secret_is_the_gates() {
    let scene = Scene::start().await;
    let bare = scene.script("ask /tickets/7").await;
    assert!(bare.out.contains("\"reason\":\"task\""), "a certificate knows of no task: {bare:?}");
    let other = scene.script("ask /tickets/7 -H \"x-avouch-task: junk\"").await;
    assert!(other.out.contains("\"reason\":\"token\""), "{other:?}");
    assert_eq!(scene.upstream.lines(), Vec::<String>::new());
    let read = scene.script(WITH_TASK).await;
    assert!(read.out.contains("It does not add up"), "{read:?}");
    let came = scene.upstream.came.lock().clone();
    let [came] = &came[..] else { panic!("{came:?}") };
    assert_eq!(came.line, "GET /v1/tickets/7");
    assert_eq!(came.secret.as_deref(), Some(format!("Bearer {SECRET}").as_str()));
    let written = scene.script(&WITH_TASK.replace("/tickets/7", "/tickets -d '{}'")).await;
    assert!(written.out.contains("\"reason\":\"unmapped\""), "{written:?}");
    assert_eq!(scene.upstream.lines().len(), 1);
    let log = eventually("both in the log", async || {
        let log = scene.run(&["audit", "export", "--source", "all"]).await.out;
        let unmapped = log.lines().find(|line| line.contains("POST /tickets"))?;
        assert!(unmapped.contains("/test/coder") && unmapped.contains("\"certificate\""), "{unmapped}");
        Some(log)
    })
    .await;
    let decided = log.lines().any(|line| {
        line.contains("\"outcome\":\"allow\"")
            && line.contains("\"gate\":\"api\"")
            && line.contains("fix-4711")
    });
    assert!(decided, "{log}");
    let none = scene.script("env").await;
    assert!(!none.out.contains("API_URL"), "no run has a gate of its own for it: {none:?}");
}

#[tokio::test]
async fn a_stop_counts_at_the_gate_from_the_next_request_and_a_resume_does_not_bring_back_old_tokens() {
    let scene = Scene::start().await;
    let kept = "avouch task token api/read > token; ask /tickets/7 -H \"x-avouch-task: $(cat token)\"";
    let before = scene.script(kept).await;
    assert!(before.out.contains("It does not add up"), "{before:?}");
    assert_eq!(scene.run(&["pause", "coder"]).await.code, 0);
    // From outside of any run, with what the AI agent had.
    let again = async || {
        let (dir, token) =
            (scene.dir.path(), std::fs::read_to_string(scene.dir.path().join("token")).unwrap());
        let header = format!("x-avouch-task: {}", token.trim());
        let (cert, key) = (dir.join("svid.0.pem"), dir.join("svid.0.key"));
        let args = ["-sSk", "--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap(), "-H", &header];
        let url = format!("{}/tickets/7", scene.url);
        let args = args.into_iter().chain([url.as_str()]);
        cli::run_program(std::path::Path::new("curl"), args, |_| {}).await.out
    };
    let paused = again().await;
    assert!(paused.contains("\"reason\":\"not_in_force\""), "{paused}");
    assert_eq!(scene.run(&["resume", "coder"]).await.code, 0);
    let resumed = again().await;
    assert!(resumed.contains("\"reason\":\"stopped_since\""), "{resumed}");
    assert_eq!(scene.upstream.lines().len(), 1);
}

#[tokio::test]
async fn whoever_shows_no_certificate_does_not_get_in_and_the_gate_proves_itself_by_its_own() {
    let scene = Scene::start().await;
    let roots = Arc::new(RootsCell::empty());
    let mut own = Bundle::empty(domain());
    for authority in scene.world.server.bundle().await.x509_authorities {
        own.x509_authorities.push(check_authority(&authority.asn1).unwrap());
    }
    roots.set(&own);
    let connect = async |expected: &str| {
        let expected = ServerExpectation::Exactly(id(expected));
        let config = client_config_with(None, roots.clone(), expected, Alpn::Http1).unwrap();
        let stream = TcpStream::connect(scene.url.trim_start_matches("https://")).await.unwrap();
        within("a handshake", TlsConnector::from(config).connect(server_name("localhost"), stream)).await
    };
    assert!(connect("/test/other").await.is_err());
    // In TLS 1.3 a client learns only afterwards that it should have shown something.
    let mut stream = connect("/test/api-gate").await.unwrap();
    let _ = stream.write_all(b"GET /tickets/7 HTTP/1.1\r\nhost: gate\r\n\r\n").await;
    let mut answer = Vec::new();
    let read = within("an end", stream.read_to_end(&mut answer)).await;
    assert!(read.is_err() && answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(scene.upstream.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn a_gate_is_served_by_the_workload_that_the_rules_name_and_until_they_name_another() {
    let scene = Scene::start().await;
    let other = ["gate", "add", "http", "other", "http://127.0.0.1:1", "--caller", "/test/other-gate"];
    assert_eq!(scene.run(&other).await.code, 0);
    let serve = async |name: &str| scene.run(&["gate", "serve", name, "--listen", "127.0.0.1:0"]).await;
    eventually("the new rules at the node", async || {
        let said = serve("other").await;
        (said.code == 2 && said.err.contains("the rules want spiffe://example.org/test/other-gate"))
            .then_some(())
    })
    .await;
    assert!(serve("nothing").await.err.contains("no HTTP gate \"nothing\""));
    // New rules leave it as it is; those without it end it.
    assert!(scene.script(WITH_TASK).await.out.contains("It does not add up"));
    let rules = scene.dir.path().join("rules");
    let folder = rules.to_str().unwrap();
    assert_eq!(scene.run(&["rules", "show", "--out", folder]).await.code, 0);
    let gates = rules.join("gates.toml");
    let moved = std::fs::read_to_string(&gates).unwrap().replace("/test/api-gate", "/test/moved-gate");
    std::fs::write(&gates, moved).unwrap();
    let published = scene.run(&["rules", "publish", folder]).await;
    assert_eq!(published.code, 0, "{published:?}");
    let ended = within("the end of the gate", scene.gate.end()).await;
    assert_eq!(ended.code(), Some(2), "{}", scene.gate.log());
    assert!(
        scene.gate.log().contains("the rules want spiffe://example.org/test/moved-gate"),
        "{}",
        scene.gate.log()
    );
}
