//! `avouch run` with real binaries: what a run gets, what its tools may do, and how it ends.

use std::process::Stdio;

use avouch_tests::cli::Said;
use avouch_tests::daemon::binary;
use avouch_tests::{eventually, within};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::coder::Scene;

#[tokio::test]
async fn a_tool_of_the_task_reaches_its_server_and_every_other_call_does_not() {
    let scene = Scene::start().await;
    let mut client =
        scene.client(&["--task", "fix-4711", "--tools", "files/read_file", "--calls", "2"]).await;
    let listed = client.ask("tools/list", json!({})).await;
    let names: Vec<_> =
        listed["result"]["tools"].as_array().unwrap().iter().map(|t| t["name"].clone()).collect();
    assert_eq!(names, ["read_file"], "the task names one tool");
    let done = client.call("read_file").await;
    assert_eq!(done["result"]["content"][0]["text"], "done", "{done}");
    for hidden in ["write_file", "delete_file"] {
        let unknown = client.call(hidden).await;
        assert!(unknown["error"]["message"].as_str().unwrap().contains("Unknown tool"), "{unknown}");
    }
    assert_eq!(scene.calls(), 1, "the server saw what was allowed");
    client.call("read_file").await;
    let over = client.call("read_file").await;
    assert_eq!(
        (over["result"]["isError"].clone(), scene.calls()),
        (true.into(), 2),
        "two calls were all it had"
    );
}

#[tokio::test]
async fn a_pause_ends_the_run_and_no_call_gets_through_after_it() {
    let scene = Scene::start().await;
    let mut client = scene.client(&[]).await;
    client.call("read_file").await;
    scene.good(&["pause", "coder"]).await;
    let ended = within("the end of the run", client.child.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(143), "told to end by SIGTERM");
    let again = scene.run(&["run", "coder", "--", "true"]).await;
    assert_eq!(again.code, 2, "{again:?}");
    scene.good(&["resume", "coder"]).await;
    eventually("the run after the resume", async || {
        (scene.run(&["run", "coder", "--", "true"]).await.code == 0).then_some(())
    })
    .await;
    assert_eq!(scene.calls(), 1);
}

/// What the Workload API gives to a process that runs `command` in a run of coder.
async fn seen_in_a_run(scene: &Scene, command: &[&str]) -> Said {
    let args: Vec<_> = ["run", "coder", "--"].iter().copied().chain(command.iter().copied()).collect();
    scene.run(&args).await
}

#[tokio::test]
async fn a_run_gets_its_own_identity_and_never_that_of_a_service_of_the_same_user() {
    let scene = Scene::start().await;
    scene.world.grant("/billing").await;
    eventually("the service's identity", async || {
        let answer = scene.world.agent.workload().await.fetch_x509().await.ok()?;
        (answer.svids.len() == 1).then_some(())
    })
    .await;
    let agent = binary("avouch-agent");
    let socket = scene.world.agent.socket.to_str().unwrap();
    let fetch = [agent.to_str().unwrap(), "api", "fetch", "x509", "-socketPath", socket];
    let seen = seen_in_a_run(&scene, &fetch).await;
    assert!(seen.out.contains("spiffe://example.org/test/coder"), "{seen:?}");
    assert!(!seen.out.contains("billing"), "{seen:?}");
    let refused = eventually("the refusal in the log", async || {
        let log = scene.good(&["audit", "export", "--source", "all"]).await.out;
        let of = |line: &&str| line.contains("\"svid.refused\"");
        let refused: Vec<Value> =
            log.lines().filter(of).map(|line| serde_json::from_str(line).unwrap()).collect();
        (!refused.is_empty()).then_some(refused)
    })
    .await;
    assert_eq!(refused.len(), 1, "once for each run: {refused:?}");
    assert_eq!(
        (&refused[0]["subject"], &refused[0]["detail"]["worn_by"]),
        (&"spiffe://example.org/billing".into(), &"spiffe://example.org/test/coder".into())
    );
    assert!(refused[0]["actor"].as_str().unwrap().starts_with("ins_"), "{refused:?}");
    // Nor does a process that forks twice and leaves its session.
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("orphan");
    let script = format!(
        "mkfifo {out}.gone {out}.done; (setsid sh -c 'read go < {out}.gone; {fetch} > {out} 2>&1; echo ok > {out}.done' &) ; \
         echo > {out}.gone; read ok < {out}.done",
        out = out.display(),
        fetch = fetch.join(" "),
    );
    let ran = seen_in_a_run(&scene, &["sh", "-c", &script]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let seen = std::fs::read_to_string(&out).unwrap();
    assert!(seen.contains("spiffe://example.org/test/coder") && !seen.contains("billing"), "{seen}");
}

#[tokio::test]
async fn a_run_starts_no_other_identity_and_nobody_runs_what_he_may_not() {
    let scene = Scene::start().await;
    let avouch = binary("avouch");
    let mut inner: Vec<String> = vec![avouch.to_str().unwrap().to_owned()];
    inner.extend(scene.places());
    inner.extend(["run", "coder", "--", "true"].map(str::to_owned));
    let inner: Vec<_> = inner.iter().map(String::as_str).collect();
    let nested = seen_in_a_run(&scene, &inner).await;
    assert_eq!(nested.code, 2, "{nested:?}");
    assert!(nested.err.contains("belongs to a run of spiffe://example.org/test/coder"), "{nested:?}");
    let unknown = scene.run(&["run", "payroll", "--", "true"]).await;
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(
        unknown.err.contains("avouch identity place") && unknown.err.contains("test/coder"),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn the_exit_code_and_the_output_are_those_of_the_command() {
    let scene = Scene::start().await;
    let said = seen_in_a_run(&scene, &["sh", "-c", "echo out; exit 7"]).await;
    assert_eq!((said.code, said.out.as_str()), (7, "out\n"), "{said:?}");
    let killed = seen_in_a_run(&scene, &["sh", "-c", "kill -9 $$"]).await;
    assert_eq!(killed.code, 137, "{killed:?}");
    let told = seen_in_a_run(&scene, &["sh", "-c", "echo $AVOUCH_IDENTITY $AVOUCH_TASK"]).await;
    assert_eq!(told.out, "spiffe://example.org/test/coder run\n");
}

/// True if this process has not exited.
fn runs(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

#[tokio::test]
async fn nothing_that_a_command_leaves_behind_outlives_its_run() {
    let scene = Scene::start().await;
    let place = tempfile::tempdir().unwrap();
    let pids = place.path().join("pids");
    let script = format!(
        "mkfifo {pids}.go; (setsid sh -c 'trap \"\" TERM HUP; echo $$ > {pids}; echo > {pids}.go; sleep 600; :' &); \
         read go < {pids}.go",
        pids = pids.display()
    );
    let ran = seen_in_a_run(&scene, &["sh", "-c", &script]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let left = std::fs::read_to_string(&pids).unwrap();
    assert!(!runs(left.trim()), "process {left} outlived its run");
}

#[tokio::test]
async fn a_command_that_does_not_end_when_its_identity_is_paused_is_killed() {
    let scene = Scene::start().await;
    let mut command = Command::new(binary("avouch"));
    command.args(scene.places()).args(["run", "coder", "--", "sh", "-c"]);
    command.arg("trap '' TERM; (trap '' TERM; setsid sleep 600) & echo begun; while :; do sleep 600; done");
    let mut run = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut said = BufReader::new(run.stdout.take().unwrap()).lines();
    assert_eq!(within("the command", said.next_line()).await.unwrap().as_deref(), Some("begun"));
    scene.good(&["pause", "coder"]).await;
    let ended = within("the end of the run", run.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(137), "killed once its time was over");
}

#[tokio::test]
async fn runs_and_decisions_stand_in_the_verified_log() {
    let scene = Scene::start().await;
    let mut client = scene.client(&["--task", "fix-4711"]).await;
    client.call("read_file").await;
    client.call("delete_file").await;
    drop(client.to);
    within("the end of the run", client.child.wait()).await.unwrap();
    let log = eventually("the end of the task in the log", async || {
        let log = scene.run(&["audit", "export", "--source", "all"]).await.out;
        log.lines().any(|line| line.contains("task.end") && line.contains("fix-4711")).then_some(log)
    })
    .await;
    for wanted in [
        ["instance.start", "spiffe://example.org/test/coder"],
        ["task.open", "fix-4711"],
        ["\"decision\"", "files/read_file"],
        ["unknown_resource", "files/delete_file"],
        ["instance.end", "spiffe://example.org/test/coder"],
    ] {
        assert!(
            log.lines().any(|line| wanted.iter().all(|w| line.contains(w))),
            "{wanted:?} is not in\n{log}"
        );
    }
    scene.good(&["audit", "verify"]).await;
    // And each of them leads to the people behind it, also without a server.
    let decision = log.lines().find(|line| line.contains("files/read_file")).unwrap();
    let decision: Value = serde_json::from_str(decision).unwrap();
    let (number, instance) = (decision["seq"].to_string(), decision["actor"].as_str().unwrap());
    let file = scene.world.server.dir.path().join("records.jsonl");
    std::fs::write(&file, &log).unwrap();
    let offline = ["trace", &number, "--offline", file.to_str().unwrap()];
    for args in [&["trace", &number][..], &["trace", instance], &offline] {
        let traced = scene.good(args).await;
        for wanted in ["fix-4711", "spiffe://example.org/test/coder", "the owner's own"] {
            assert!(traced.out.contains(wanted), "{args:?} without {wanted}: {traced:?}");
        }
    }
    let unknown = scene.run(&["trace", "100000"]).await;
    assert_eq!(unknown.code, 1, "{unknown:?}");
}

#[tokio::test]
async fn a_confined_command_reaches_nothing_around_its_gates() {
    let scene = Scene::start().await;
    let place = tempfile::tempdir().unwrap();
    let guarded = place.path().join("guarded");
    std::fs::create_dir(&guarded).unwrap();
    std::fs::write(guarded.join("secret"), "secret").unwrap();
    let (script, calls) = (scene.world.server.dir.path().join("server.sh"), scene.calls.to_str().unwrap());
    let guard = guarded.to_str().unwrap();
    scene
        .good(&["gate", "add", "mcp", "vault", "--guard", guard, "--", "sh", script.to_str().unwrap(), calls])
        .await;
    eventually("the rules at the node", async || {
        scene.run(&["run", "coder", "--", "true"]).await.err.contains("rules 2").then_some(())
    })
    .await;
    let tries = format!(
        "cat {guard}/secret; kill -0 $PPID; kill -9 $PPID; cat /proc/$PPID/environ > /dev/null; \
         prlimit --pid $PPID --nofile=0; echo alive; cat {}",
        script.display()
    );
    let held = scene.run_without_powers(&["run", "coder", "--", "sh", "-c", &tries]).await;
    if held.err.contains("this kernel cannot") {
        println!("not run: this kernel holds no domain with signals (Linux 6.12)");
        return;
    }
    assert!(!held.err.contains("advisory"), "{held:?}");
    assert!(held.out.starts_with("alive\n#!/bin/sh"), "what is not closed is open: {held:?}");
    let refused = held.err.matches("ermitted").count() + held.err.matches("ermission denied").count();
    assert_eq!(refused, 5, "{held:?}");
    let loose = scene.run(&["run", "coder", "--unconfined", "--", "cat", &format!("{guard}/secret")]).await;
    assert_eq!(loose.out, "secret");
    assert!(loose.err.contains("advisory"), "{loose:?}");
    if nix::unistd::geteuid().is_root() {
        let powerful = scene.run(&["run", "coder", "--", "true"]).await;
        assert!(powerful.err.contains("run it as an ordinary user"), "{powerful:?}");
    }
}
