//! A hook as a gate, with real binaries and a real git: an AI agent pushes to a bare repository whose hook asks.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use avouch_tests::cli::{self, Said};
use avouch_tests::daemon::binary;
use avouch_tests::world::my_uid;
use avouch_tests::{Agent, AgentOptions, Proof, World, entry, eventually};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::asks::request_in;
use crate::governed::{BEN, as_user, can_be_others};

const GUIDE: &str = include_str!("../../docs/guides/hook-gate.md");
/// What may not be pushed to, as the guide has it.
const FILES: [&str; 2] = ["main.cedar", "main.examples.toml"];

/// What the guide writes to a file of the rules.
fn of_the_guide(file: &str) -> String {
    let begin = format!("$ cat > rules/{file} <<'END'\n");
    let (_, rest) = GUIDE.split_once(&begin).unwrap();
    let lines = rest.lines().map_while(|line| line.strip_prefix('>')).take_while(|line| *line != " END");
    lines.map(|line| format!("{}\n", line.trim_start())).collect()
}

/// A block of the guide that begins with this line.
fn block(first: &str) -> String {
    let (_, rest) = GUIDE.split_once(&format!("```sh\n{first}")).unwrap();
    format!("{first}{}", rest.split("```").next().unwrap())
}

struct Scene {
    world: World,
    /// The bare repository and the clone of the AI agent.
    bare: PathBuf,
    clone: PathBuf,
    remote: String,
}

impl Scene {
    /// A person, an AI agent of hers, rules with two hooks, and the one of git in a repository that is served.
    async fn start() -> Self {
        let world = World::start().await;
        let dir = world.server.dir.path().to_owned();
        let (bare, clone) = (dir.join("served/pay.git"), dir.join("clone"));
        let mut scene = Self { world, bare, clone, remote: String::new() };
        scene.good(&["init", "Ada Example"]).await;
        let coder = "identity new coder --kind ai-agent --preset coding-agent --env test --purpose fix-bugs --ends 30d";
        scene.good(&coder.split(' ').collect::<Vec<_>>()).await;
        let rules = dir.join("rules");
        let folder = rules.to_str().unwrap();
        scene.good(&["rules", "new", folder]).await;
        for file in FILES {
            std::fs::write(rules.join(file), of_the_guide(file)).unwrap();
        }
        scene.good(&["rules", "publish", folder]).await;
        scene.good(&["gate", "add", "hook", "git", "--caller", "/test/git"]).await;
        scene.good(&["gate", "add", "hook", "vault", "--caller", "/test/vault"]).await;
        scene.world.grant("/test/git").await;
        scene.repository().await;
        scene.remote = format!("git://{}/pay.git", scene.serve().await);
        eventually("rules and entry at the node", async || {
            let began = scene.run(&["run", "coder", "--", "true"]).await;
            let asked = scene.check("junk", &["--what-if", "repo.push", "git/pay"]).await;
            (began.err.contains("rules 3") && asked.err.contains("the token does not hold")).then_some(())
        })
        .await;
        scene
    }

    /// A bare repository with the hook of the guide, and a clone with a commit.
    async fn repository(&self) {
        let (bare, clone) = (self.bare.to_str().unwrap(), self.clone.to_str().unwrap());
        self.git(&["init", "-q", "--bare", bare]).await;
        self.git(&["-C", bare, "config", "receive.advertisePushOptions", "true"]).await;
        let hook = self.bare.join("hooks/pre-receive");
        std::fs::write(&hook, block("#!/bin/sh\n")).unwrap();
        std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        self.git(&["init", "-q", clone]).await;
        self.git(&["-C", clone, "commit", "-q", "--allow-empty", "-m", "A fix"]).await;
    }

    /// A git server outside of every run, as it is: each connection is one `git daemon`.
    async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let base = format!("--base-path={}", self.bare.parent().unwrap().display());
        let (home, socket, path) = (self.home(), self.world.agent.socket.clone(), path());
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let connection = connection.into_std().unwrap();
                connection.set_nonblocking(false).unwrap();
                let half = || Stdio::from(OwnedFd::from(connection.try_clone().unwrap()));
                let mut git = Command::new("git");
                git.args(["daemon", "--inetd", "--export-all", "--enable=receive-pack", &base]);
                git.env("HOME", &home).env("PATH", &path).env("SPIRE_AGENT_PUBLIC_SOCKET", &socket);
                let mut served = git.stdin(half()).stdout(half()).stderr(Stdio::null()).spawn().unwrap();
                drop(connection);
                tokio::spawn(async move { served.wait().await });
            }
        });
        address
    }

    /// Nobody's settings of git count.
    fn home(&self) -> PathBuf {
        self.world.server.dir.path().to_owned()
    }

    async fn git(&self, args: &[&str]) {
        let said = cli::run_program(Path::new("git"), args, |command| {
            command.env("HOME", self.home());
            for who in ["AUTHOR", "COMMITTER"] {
                command
                    .env(format!("GIT_{who}_NAME"), "Ada")
                    .env(format!("GIT_{who}_EMAIL"), "ada@example.org");
            }
        })
        .await;
        assert_eq!(said.code, 0, "{args:?}: {said:?}");
    }

    /// What `avouch` says to these arguments. The places come first: what follows `--` belongs to a command.
    async fn run(&self, args: &[&str]) -> Said {
        let World { server, agent } = &self.world;
        let (server, agent) = (server.socket.to_str().unwrap(), agent.socket.to_str().unwrap());
        let places = ["--server-socket", server, "--agent-socket", agent];
        cli::run_with("avouch", places.iter().chain(args), |command| {
            command.env("HOME", self.home()).env("PATH", path()).env("REMOTE", &self.remote);
            command.current_dir(self.clone_or_home());
        })
        .await
    }

    fn clone_or_home(&self) -> PathBuf {
        if self.clone.exists() { self.clone.clone() } else { self.home() }
    }

    async fn good(&self, args: &[&str]) -> Said {
        let said = self.run(args).await;
        assert_eq!(said.code, 0, "{args:?}: {said:?}");
        said
    }

    /// A script as the AI agent.
    async fn as_coder(&self, more: &[&str], script: &str) -> Said {
        let command = ["--", "sh", "-c", script];
        let args: Vec<_> = ["run", "coder"].iter().chain(more).chain(&command).copied().collect();
        self.run(&args).await
    }

    /// Pushes as the AI agent does by the guide, to this branch.
    async fn push(&self, branch: &str) -> Said {
        let script = block("export GIT_CONFIG_COUNT").replace("HEAD", &format!("HEAD:refs/heads/{branch}"));
        self.as_coder(&["--task", "fix-4711"], &script).await
    }

    /// A token of the AI agent for a resource.
    async fn token(&self, resource: &str) -> String {
        let said = self.as_coder(&[], &format!("avouch task token {resource}")).await;
        assert_eq!(said.code, 0, "{said:?}");
        said.out.trim().to_owned()
    }

    /// Asks as a hook about whoever shows this token.
    async fn check(&self, token: &str, more: &[&str]) -> Said {
        let file = self.home().join("shown");
        std::fs::write(&file, token).unwrap();
        let args: Vec<_> =
            ["gate", "check", "--peer-file", file.to_str().unwrap()].iter().chain(more).copied().collect();
        self.run(&args).await
    }

    /// True if the branch came to the repository.
    fn has(&self, branch: &str) -> bool {
        self.bare.join("refs/heads").join(branch).exists()
    }

    async fn log(&self, has: &[&str]) -> String {
        eventually(&format!("{has:?} in the log"), async || {
            let log = self.run(&["audit", "export", "--source", "all"]).await.out;
            log.lines().any(|line| has.iter().all(|word| line.contains(word))).then_some(log)
        })
        .await
    }
}

/// With the binaries under test.
fn path() -> String {
    let folder = binary("avouch").parent().unwrap().display().to_string();
    format!("{folder}:{}", std::env::var("PATH").unwrap_or_default())
}

#[tokio::test]
async fn an_ai_agent_pushes_to_a_branch_and_not_to_main() {
    let scene = Scene::start().await;
    let pushed = scene.push("fix").await;
    assert_eq!(pushed.code, 0, "{pushed:?}");
    assert!(pushed.err.contains("allow: a rule allows it (rule preset.coding-agent)"), "{pushed:?}");
    assert!(scene.has("fix"));
    let refused = scene.push("main").await;
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(
        refused.err.contains("(rule push.main)") && refused.err.contains("pre-receive hook declined"),
        "{refused:?}"
    );
    // Without a token nobody pushes.
    let bare = scene.as_coder(&[], "git push \"$REMOTE\" HEAD:refs/heads/bare").await;
    assert!(bare.code != 0 && bare.err.contains("holds no token, so it is denied"), "{bare:?}");
    assert!(!scene.has("main") && !scene.has("bare"));

    let log = scene.log(&["\"decision\"", "push.main"]).await;
    let record = |words: &[&str]| {
        let line = log.lines().find(|line| words.iter().all(|word| line.contains(word)));
        serde_json::from_str::<Value>(line.unwrap_or_else(|| panic!("no {words:?} in\n{log}"))).unwrap()
    };
    let (given, allowed) =
        (record(&["task.token", "git/pay"]), record(&["\"decision\"", "git/pay", "\"outcome\":\"allow\""]));
    assert_eq!(given["actor"], allowed["actor"], "both are the run's");
    assert_eq!(given["detail"]["token"], allowed["detail"]["token"]);
    assert_eq!(allowed["detail"]["task"], "fix-4711");
    assert!(!log.contains("eyJ"), "no token stands in a record");
    scene.good(&["audit", "verify"]).await;
}

/// A hook that shows what comes: the commits with their changes, in its own words.
const SHOWS: &str = r#"#!/bin/sh
while read -r old new ref; do
  change=$(mktemp)
  { echo "$ref: $old -> $new"; git show --format='%H %s' --patch "$new"; } > "$change"
  printf %s "$GIT_PUSH_OPTION_0" |
    avouch gate check --peer-file - --show "$change" --param branch="${ref#refs/heads/}" repo.push git/pay
  code=$?
  rm -f "$change"
  test $code = 0 || exit 1
done
"#;

#[tokio::test]
async fn a_push_to_main_waits_for_a_yes_that_fits_this_commit_only() {
    if !can_be_others() {
        return;
    }
    let scene = Scene::start().await;
    std::fs::write(scene.bare.join("hooks/pre-receive"), SHOWS).unwrap();
    let rules = scene.home().join("asks");
    let folder = rules.to_str().unwrap();
    scene.good(&["rules", "show", "--out", folder]).await;
    let asks = |text: String| text.replace("@id(\"push.main\")", "@id(\"push.main\") @ask(\"person\")");
    std::fs::write(
        rules.join("main.cedar"),
        asks(of_the_guide("main.cedar")).replace("\"main\" }", "\"main\" } unless { context.yes.person }"),
    )
    .unwrap();
    let examples = of_the_guide("main.examples.toml").replace("\"deny\"", "\"ask\"");
    std::fs::write(rules.join("main.examples.toml"), examples).unwrap();
    scene.good(&["rules", "publish", folder]).await;
    scene.good(&["person", "add", "Ben Example", "--uid", &BEN.to_string()]).await;
    let waits = scene.push("main").await;
    let id = request_in(&waits.err);
    assert!(
        waits.code != 0 && waits.err.contains("ask: it needs the yes of a person") && !scene.has("main"),
        "{waits:?}"
    );
    let server = &scene.world.server;
    let shown = as_user(server, BEN, &["ask", "show", &id]).await;
    assert!(shown.out.contains("| branch = main") && shown.out.contains("A fix"), "{shown:?}");
    let own = scene.run(&["ask", "yes", &id]).await;
    assert!(own.code == 2 && own.err.contains("the yes is another person's"), "{own:?}");
    let said = as_user(server, BEN, &["ask", "yes", &id]).await;
    assert_eq!(said.code, 0, "{said:?}");
    // Another commit is another question.
    let clone = scene.clone.to_str().unwrap();
    scene.git(&["-C", clone, "commit", "-q", "--allow-empty", "-m", "And more"]).await;
    let other = scene.push("main").await;
    assert!(other.code != 0 && request_in(&other.err) != id && !scene.has("main"), "{other:?}");
    scene.git(&["-C", clone, "reset", "-q", "--hard", "HEAD~1"]).await;
    let pushed = scene.push("main").await;
    assert!(pushed.code == 0 && scene.has("main"), "{pushed:?}");
    let log = scene.log(&["\"decision\"", &id, "\"outcome\":\"allow\""]).await;
    for event in ["request_asked", "request_yes", "request_spent"] {
        assert!(log.lines().any(|line| line.contains(event) && line.contains(&id)), "{event}: {log}");
    }
}

#[tokio::test]
async fn after_a_pause_no_token_opens_the_hook_also_when_the_identity_is_back() {
    let scene = Scene::start().await;
    let push = ["--param", "branch=fix", "repo.push", "git/pay"];
    let token = scene.token("git/pay").await;
    assert_eq!(scene.check(&token, &push).await.code, 0);
    scene.good(&["pause", "coder"]).await;
    let paused = scene.check(&token, &push).await;
    assert_eq!(paused.code, 2, "{paused:?}");
    assert!(paused.err.contains("spiffe://example.org/test/coder is not in force"), "{paused:?}");
    // Whoever holds it may push it from anywhere: the hook is not opened.
    let shown = format!(
        "GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=push.pushOption GIT_CONFIG_VALUE_0={token} git push {} HEAD:refs/heads/fix",
        scene.remote
    );
    let pushed = cli::run_program(Path::new("sh"), ["-c", &shown], |command| {
        command.env("HOME", scene.home()).current_dir(&scene.clone);
    })
    .await;
    assert!(pushed.code != 0 && pushed.err.contains("is not in force") && !scene.has("fix"), "{pushed:?}");
    scene.good(&["resume", "coder"]).await;
    let void = scene.check(&token, &push).await;
    assert!(void.code == 2 && void.err.contains("was paused since the token was signed"), "{void:?}");
    let fresh = eventually("a token after the resume", async || {
        let said = scene.as_coder(&[], "avouch task token git/pay").await;
        (said.code == 0).then(|| said.out.trim().to_owned())
    })
    .await;
    assert_eq!(scene.check(&fresh, &push).await.code, 0);
}

#[tokio::test]
async fn a_token_is_for_its_resource_and_a_task_gives_none_for_another() {
    let scene = Scene::start().await;
    let other = scene.token("files/read_file").await;
    let refused = scene.check(&other, &["repo.push", "git/pay"]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("avouch-resource:files/read_file"), "{refused:?}");
    let narrow = scene.as_coder(&["--tools", "files/read_file"], "avouch task token git/pay").await;
    assert_eq!((narrow.code, narrow.out.as_str()), (2, ""), "{narrow:?}");
    assert!(narrow.err.contains("the task was opened for other resources"), "{narrow:?}");
    let spent =
        scene.as_coder(&["--calls", "1"], "avouch task token git/pay; avouch task token git/pay").await;
    assert!(spent.code == 2 && spent.err.contains("no calls left"), "{spent:?}");
    let unknown = scene.as_coder(&[], "avouch task token git/nothing").await;
    assert!(unknown.code == 2 && unknown.err.contains("know no resource"), "{unknown:?}");
    let outside = scene.run(&["task", "token", "git/pay"]).await;
    assert!(outside.code == 2 && outside.err.contains("belongs to no run"), "{outside:?}");
}

#[tokio::test]
async fn only_the_hook_itself_is_told_anything_and_a_process_of_a_run_never_is() {
    let scene = Scene::start().await;
    let token = scene.token("git/pay").await;
    let not_it = scene.check(&token, &["secret.read", "vault/deploy"]).await;
    assert_eq!(not_it.code, 2, "{not_it:?}");
    assert!(not_it.err.contains("is not the hook of \"vault/deploy\""), "{not_it:?}");
    let unguarded = scene.check(&token, &["tool.call", "files/read_file"]).await;
    assert!(unguarded.code == 2 && unguarded.err.contains("name no hook"), "{unguarded:?}");
    let inside = "avouch task token git/pay | avouch gate check --peer-file - repo.push git/pay";
    let inside = scene.as_coder(&[], inside).await;
    assert!(inside.code == 2 && inside.err.contains("a process of a run is never a gate"), "{inside:?}");
    let file = scene.home().join("shown");
    let away = [
        &["task", "token", "git/pay"][..],
        &["gate", "check", "--peer-file", file.to_str().unwrap(), "repo.push", "git/pay"],
    ];
    for args in away {
        let said = cli::run("avouch", ["--agent-socket", "/nonexistent"].iter().chain(args)).await;
        assert_eq!((said.code, said.out.as_str()), (4, ""), "{said:?}");
    }
}

#[tokio::test]
async fn a_hook_is_told_in_codes_and_in_json_and_what_it_only_asks_leaves_no_record() {
    let scene = Scene::start().await;
    let token = scene.token("git/pay").await;
    let asks = scene.check(&token, &["repo.merge", "git/pay"]).await;
    assert!(asks.code == 5 && asks.err.starts_with("ask: it needs the yes of a person"), "{asks:?}");
    let what_if = ["--what-if", "--json", "--param", "branch=fix", "repo.push", "git/pay"];
    let said = scene.check(&token, &what_if).await;
    let line: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, line["allowed"].clone(), line["record"].clone()), (0, true.into(), 0.into()));
    assert_eq!(line["spiffe_id"], "spiffe://example.org/test/coder");
    let wrong = scene.check(&token, &["--param", "colour=red", "repo.push", "git/pay"]).await;
    assert!(wrong.code == 2 && wrong.err.contains("expected one of: branch"), "{wrong:?}");
    // A JWT-SVID knows of no task, and this one is of nobody who has an owner.
    let agent = binary("avouch-agent");
    let socket = scene.world.agent.socket.to_str().unwrap();
    let fetch = ["api", "fetch", "jwt", "-audience", "spiffe://example.org/test/git", "-socketPath", socket];
    let fetched = cli::run_program(&agent, fetch, |_| {}).await;
    let svid = fetched.out.split_whitespace().find(|word| word.starts_with("eyJ")).unwrap();
    let found = scene.check(svid, &["repo.push", "git/pay"]).await;
    assert!(
        found.code == 2 && found.err.contains("spiffe://example.org/test/git is not in force"),
        "{found:?}"
    );
    let log = scene.log(&["\"decision\"", "irreversible.asks"]).await;
    assert_eq!(
        log.lines()
            .filter(|line| line.contains("\"outcome\":\"allow\"") && line.contains("\"decision\""))
            .count(),
        0
    );
}

#[tokio::test]
async fn a_hook_asks_by_json_about_a_token_and_of_who_is_only_named_it_hears_what_would_be() {
    let scene = Scene::start().await;
    let token = scene.token("git/pay").await;
    let socket = avouch::access_place::beside(&scene.world.agent.socket);
    let ask = async |subject: Value| {
        let body = serde_json::json!({
            "subject": subject, "action": { "name": "repo.push" },
            "resource": { "type": "Repository", "id": "git/pay", "properties": { "branch": "fix" } }
        });
        let curl = format!(
            "curl -s --unix-socket {} -d '{body}' http://localhost/access/v1/evaluation",
            socket.display()
        );
        let said = cli::run_program(Path::new("sh"), ["-c", &curl], |_| {}).await;
        serde_json::from_str::<Value>(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}"))
    };
    let shown = ask(serde_json::json!({ "properties": { "token": token } })).await;
    assert_eq!(
        (&shown["decision"], &shown["context"]["outcome"]),
        (&true.into(), &"allow".into()),
        "{shown}"
    );
    assert!(shown["context"]["record"].as_u64().unwrap() > 0, "{shown}");
    let name = "spiffe://example.org/test/coder";
    let named = ask(serde_json::json!({ "type": "ai_agent", "id": name })).await;
    assert_eq!((&named["decision"], &named["context"]["what_if"]), (&false.into(), &true.into()), "{named}");
    assert_eq!(
        (&named["context"]["reason"], named["context"].get("record")),
        (&"task".into(), None),
        "{named}"
    );
    let nobody = ask(serde_json::json!({ "type": "user", "id": "ada@example.org" })).await;
    assert_eq!(nobody["context"]["reason"], "unknown_here", "{nobody}");
}

#[tokio::test]
async fn a_hook_on_another_node_decides_for_who_runs_here_and_a_pause_counts_there_with_the_next_question() {
    let scene = Scene::start().await;
    let server = &scene.world.server;
    let token = server.token().await;
    let id = server.agent_id(&token);
    let mut far = Agent::prepare(server, "b", &Proof::JoinToken(token), &AgentOptions::default()).await;
    far.restart().await;
    let shown = scene.home().join("shown");
    std::fs::write(&shown, scene.token("git/pay").await).unwrap();
    let socket = ["--agent-socket", far.socket.to_str().unwrap()];
    let check = ["gate", "check", "--peer-file", shown.to_str().unwrap(), "--param", "branch=fix"];
    let ask = async || cli::run("avouch", socket.iter().chain(&check).chain(&["repo.push", "git/pay"])).await;
    let no_hook = ask().await;
    assert!(no_hook.code == 2 && no_hook.err.contains("no entry gives it that SPIFFE ID"), "{no_hook:?}");
    server.create(entry(&id, "/test/git", &[&my_uid()])).await;
    let allowed = eventually("the hook of the far node", async || {
        let said = ask().await;
        (said.code == 0).then_some(said)
    })
    .await;
    assert!(allowed.err.starts_with("allow: "), "{allowed:?}");
    scene.good(&["pause", "coder"]).await;
    let paused = ask().await;
    assert!(paused.code == 2 && paused.err.contains("is not in force"), "{paused:?}");
    scene.log(&[&id, "\"decision\"", "not_in_force"]).await;
    scene.good(&["audit", "verify"]).await;
}

#[tokio::test]
async fn away_from_its_server_a_hook_denies_whoever_it_does_not_know() {
    let mut scene = Scene::start().await;
    let token = scene.token("git/pay").await;
    let push = ["--json", "--param", "branch=fix", "repo.push", "git/pay"];
    assert_eq!(scene.check(&token, &push).await.code, 0);
    scene.world.server.stop().await;
    let away = scene.check(&token, &push).await;
    let line: Value = serde_json::from_str(&away.out).unwrap();
    assert_eq!((away.code, line["reason"].clone()), (2, "unknown_here".into()), "{away:?}");
    let none = scene.as_coder(&[], "true").await;
    assert_eq!(none.code, 4, "nor does a run begin: {none:?}");
}

/// A preset of services, and its examples.
const SERVICES: [(&str, &str); 2] = [
    ("presets.toml", "\n[reporter]\nkind = \"service\"\nactions = [\"secret.read\"]\ngates = [\"vault\"]\n"),
    (
        "examples.toml",
        r#"
[[example]]
rule = "preset.reporter"
expect = "allow"
request = { kind = "service", preset = "reporter", action = "secret.read", resource = "vault/deploy" }

[[example]]
rule = "preset.reporter"
expect = "deny"
request = { kind = "service", action = "secret.read", resource = "vault/deploy" }
"#,
    ),
];
/// A store of secrets: asks before it opens, and writes down each time that it did.
const STORE: &str = "printf %s \"$SHOWN\" | avouch gate check --peer-file - secret.read vault/deploy || exit $?\n\
    echo opened >> \"$OPENED\"";

fn token_in(text: &str) -> Option<String> {
    text.split_whitespace().find(|word| word.starts_with("eyJ")).map(str::to_owned)
}

#[tokio::test]
async fn a_child_of_an_ai_agent_opens_nothing_as_the_service_of_its_user() {
    let scene = Scene::start().await;
    let (rules, opened) = (scene.home().join("services"), scene.home().join("opened"));
    let folder = rules.to_str().unwrap();
    scene.good(&["rules", "show", "--out", folder]).await;
    for (file, more) in SERVICES {
        let text = std::fs::read_to_string(rules.join(file)).unwrap();
        std::fs::write(rules.join(file), format!("{text}{more}")).unwrap();
    }
    scene.good(&["rules", "publish", folder]).await;
    let new =
        "identity new reporter --kind service --preset reporter --env test --purpose reports --ends 30d";
    scene.good(&new.split(' ').collect::<Vec<_>>()).await;
    scene.world.grant("/test/vault").await;
    scene.world.grant("/test/reporter").await;
    let shell = async |script: &str, shown: &str| {
        cli::run_program(Path::new("sh"), ["-c", script], |command| {
            command.env("PATH", path()).env("SPIRE_AGENT_PUBLIC_SOCKET", &scene.world.agent.socket);
            command.env("SHOWN", shown).env("OPENED", &opened);
        })
        .await
    };
    let times = || std::fs::read_to_string(&opened).unwrap_or_default().lines().count();
    let socket = scene.world.agent.socket.display();
    let fetch =
        format!("avouch-agent api fetch jwt -audience spiffe://example.org/test/vault -socketPath {socket}");
    let as_service = format!("{fetch} -spiffeID spiffe://example.org/test/reporter");
    // A process of this user is the service, and the store opens.
    eventually("the store open to the service", async || {
        let token = token_in(&shell(&as_service, "").await.out)?;
        (shell(STORE, &token).await.code == 0).then_some(())
    })
    .await;
    assert_eq!(times(), 1);
    // The same as a child of the AI agent is not, whether it names the service or takes what it gets.
    let refused = scene.as_coder(&[], &as_service).await;
    assert!(refused.code != 0 && token_in(&refused.out).is_none(), "{refused:?}");
    let own = scene.as_coder(&[], &fetch).await;
    assert!(own.out.contains("/test/coder") && !own.out.contains("/test/reporter"), "{own:?}");
    let denied = shell(STORE, &token_in(&own.out).unwrap()).await;
    assert_eq!((denied.code, times()), (2, 1), "{denied:?}");
}
