//! Processes that ask for themselves, and who may ask for the gates of a run.

use super::*;

/// A process of a run that asks for itself.
fn own(action: &str, resource: &str) -> Question {
    Question { own_code: true, unlimited: true, ..Question::of(action, resource) }
}

#[tokio::test]
async fn what_a_process_asks_for_itself_is_counted_and_recorded_as_what_gates_ask_and_says_so() {
    let rig = rig();
    let child = Child::start();
    let mut running = rig.runs.begin(&myself(), Wanted { calls: 2, ..wanted() }).await.unwrap();
    let itself = rig.runs.own_code(&child.caller()).unwrap();
    assert_eq!((itself.identity(), itself.task().as_str()), (&id("/test/coder"), "fix-4711"));
    let read = own("tool.call", "files/read_file");
    assert!(itself.decide(&read).await.unwrap().goes_on);
    assert!(running.decide(&question("files/read_file")).await.goes_on, "the other call is the gate's");
    let third = itself.decide(&read).await.unwrap();
    assert_eq!((third.outcome, third.reason), ("deny", "task"), "there are no calls left");
    let notes = rig.book.notes.lock().clone();
    let own_code = ("asked_by", "own_code".to_owned());
    let by_itself: Vec<_> = notes.iter().map(|(note, _)| note.detail.contains(&own_code)).collect();
    assert_eq!(by_itself[by_itself.len() - 3..], [true, false, true]);
    running.end("test").await;
    assert!(matches!(itself.decide(&read).await, Err(NoRun::Outside)), "the run is over");
}

#[tokio::test]
async fn a_stop_counts_for_own_code_before_the_run_has_ended_by_it() {
    let rig = rig();
    let child = Child::start();
    let _running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    let itself = rig.runs.own_code(&child.caller()).unwrap();
    let read = own("tool.call", "files/read_file");
    assert!(itself.decide(&read).await.unwrap().goes_on);
    rig.middle.entitled.send_replace(0);
    let stopped = itself.decide(&read).await.unwrap();
    assert_eq!((stopped.outcome, stopped.reason), ("deny", "not_in_force"));
    let (last, _) = rig.book.notes.lock().last().unwrap().clone();
    assert!(last.detail.contains(&("reason", "not_in_force".to_owned())), "{last:?}");
}

#[tokio::test]
async fn a_grant_is_used_for_nobody_who_would_not_keep_its_limits() {
    let rig = rig();
    let child = Child::start();
    let _running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    let itself = rig.runs.own_code(&child.caller()).unwrap();
    *rig.people.uses.lock() = 1;
    let read = own("telemetry.read", "telemetry/requests");
    let denied = itself.decide(&read).await.unwrap();
    assert_eq!((denied.outcome, denied.reason), ("deny", "limits"), "{denied:?}");
    assert_eq!((*rig.people.uses.lock(), rig.people.asked.lock().len()), (1, 0));
    let kept = itself.decide(&Question { unlimited: false, ..read }).await.unwrap();
    assert_eq!((kept.outcome, *rig.people.uses.lock()), ("constrain", 0), "{kept:?}");
}

#[tokio::test]
async fn values_are_read_by_the_rules_that_decide_and_what_can_not_be_meant_is_denied() {
    let rig = rig();
    let mut running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    let said = |value: Option<avouch_rules::Param>| {
        let said: Said = Arc::new([("path".to_owned(), value), ("unknown".to_owned(), None)].into());
        Question { said: vec![said], kind: "Tool".into(), ..question("files/read_file") }
    };
    let text = |text: &str| Some(avouch_rules::Param::String(text.into()));
    assert!(running.decide(&said(text("pay/main.py"))).await.goes_on);
    let secret = running.decide(&said(text("pay/secrets/key"))).await;
    assert!(!secret.goes_on && secret.text.contains("files.secrets"), "{secret:?}");
    assert_eq!(running.decide(&said(None)).await.reason, "params");
    let other = Question { kind: "File".into(), ..question("files/read_file") };
    assert_eq!(running.decide(&other).await.reason, "resource_type");
}

#[tokio::test]
async fn only_the_root_of_a_run_asks_for_its_gates() {
    let rig = rig();
    let child = Child::start();
    assert!(matches!(rig.runs.gates_of(&myself()), Err(NoRun::Outside)));
    let running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    assert!(matches!(rig.runs.gates_of(&child.caller()), Err(NoRun::Outside)), "its word is not the gate's");
    let gates = rig.runs.gates_of(&myself()).unwrap();
    assert!(gates.decide(&question("files/read_file")).await.unwrap().goes_on);
    let (last, _) = rig.book.notes.lock().last().unwrap().clone();
    assert!(last.detail.iter().all(|(name, _)| *name != "asked_by"), "{last:?}");
    rig.middle.entitled.send_replace(0);
    assert_eq!(gates.decide(&question("files/read_file")).await.unwrap().reason, "not_in_force");
    running.end("test").await;
    gates.ended().await;
    assert!(matches!(gates.decide(&question("files/read_file")).await, Err(NoRun::Outside)));
}

#[tokio::test]
async fn who_becomes_another_program_meanwhile_hears_nothing_and_uses_nothing_up() {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Command, Stdio};
    let rig = rig();
    let mut shell = Command::new("sh");
    shell.args(["-c", "echo ready; read go; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Child(shell.spawn().unwrap());
    let mut said = BufReader::new(child.0.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let _running = rig.runs.begin(&myself(), wanted()).await.unwrap();
    let itself = rig.runs.own_code(&child.caller()).unwrap();
    child.0.stdin.as_mut().unwrap().write_all(b"go\necho of cat\n").unwrap();
    line.clear();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "echo of cat\n", "cat runs now");
    *rig.people.uses.lock() = 1;
    let read = Question { unlimited: false, ..own("telemetry.read", "telemetry/requests") };
    assert!(matches!(itself.decide(&read).await, Err(NoRun::Gone(_))));
    assert_eq!((*rig.people.uses.lock(), rig.people.asked.lock().len()), (1, 0));
}

#[tokio::test]
async fn a_supervisor_that_becomes_another_program_asks_for_no_gates() {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Command, Stdio};
    let rig = rig();
    let mut shell = Command::new("sh");
    shell.args(["-c", "echo ready; read go; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Child(shell.spawn().unwrap());
    let mut said = BufReader::new(child.0.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let _running = rig.runs.begin(&child.caller(), wanted()).await.unwrap();
    assert!(rig.runs.gates_of(&child.caller()).is_ok());
    child.0.stdin.as_mut().unwrap().write_all(b"go\necho of cat\n").unwrap();
    line.clear();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "echo of cat\n", "cat runs now");
    assert!(matches!(rig.runs.gates_of(&child.caller()), Err(NoRun::Outside)));
}
