//! What the agent gives up at its start, seen from outside: by the kernel's word, and by what is refused to it.

use std::os::unix::fs::{chown, symlink};
use std::path::Path;

use avouch_tests::actor::{Actor, USER};
use avouch_tests::daemon::binary;
use avouch_tests::{Agent, AgentOptions, Server, entry, eventually};
use nix::sys::signal::Signal;

/// The values of a field in the status of every thread of a process.
fn of_all_threads(pid: i32, field: &str) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads
        .map(|thread| {
            let text = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
            text.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned()
        })
        .collect()
}

fn capabilities(pid: i32, field: &str) -> Vec<u64> {
    of_all_threads(pid, field).iter().map(|set| u64::from_str_radix(set, 16).unwrap()).collect()
}

#[tokio::test]
async fn every_thread_keeps_only_what_looking_at_processes_needs() {
    /// CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE.
    const NEEDED: u64 = 1 << 2 | 1 << 19;
    let server = Server::start().await;
    let agent = Agent::start(&server).await;
    let pid = agent.daemon().pid();
    assert!(of_all_threads(pid, "NoNewPrivs:").iter().all(|value| value == "1"));
    for field in ["CapEff:", "CapPrm:"] {
        assert!(capabilities(pid, field).iter().all(|set| set & !NEEDED == 0), "{field}");
    }
    for field in ["CapInh:", "CapAmb:"] {
        assert!(capabilities(pid, field).iter().all(|set| *set == 0), "{field}");
    }
    if nix::unistd::geteuid().is_root() {
        assert!(capabilities(pid, "CapBnd:").iter().all(|set| set & !NEEDED == 0));
    } else {
        println!("not run: the bounding set (needs root)");
    }
    agent.daemon().line("Gave up other capabilities").await;
}

async fn text_in(path: &Path, text: &str) {
    let found = async || std::fs::read_to_string(path).ok().filter(|all| all.contains(text));
    eventually(&format!("\"{text}\" in {}", path.display()), found).await;
}

#[tokio::test]
async fn a_log_is_opened_anew_in_its_folder_and_not_where_only_any_root_could_write() {
    let (logs, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (log, out) = (logs.path().join("agent.log"), elsewhere.path().join("agent.log"));
    let server = Server::start().await;
    let line = format!("log_file = \"{}\"", log.display());
    let agent = Agent::start_with(&server, AgentOptions { agent: line, ..AgentOptions::default() }).await;
    std::fs::rename(&log, logs.path().join("old.log")).unwrap();
    agent.daemon().signal(Signal::SIGUSR2);
    eventually("a new log", async || log.exists().then_some(())).await;
    if !nix::unistd::geteuid().is_root() {
        println!("not run: a folder of another user (needs root)");
        return;
    }
    chown(elsewhere.path(), Some(4001), Some(4001)).unwrap();
    std::fs::rename(&log, logs.path().join("older.log")).unwrap();
    symlink(&out, &log).unwrap();
    agent.daemon().signal(Signal::SIGUSR2);
    text_in(&logs.path().join("older.log"), "Failed to reopen the log file").await;
    assert!(!out.exists(), "written to what belongs to another user");
    agent.workload().await.validate("x", "no token").await.unwrap_err();
}

#[tokio::test]
async fn an_agent_that_gave_up_the_rest_still_sees_what_processes_of_other_users_run() {
    let server = Server::start().await;
    let unix = "discover_workload_path = true".to_owned();
    let agent = Agent::start_with(&server, AgentOptions { unix, ..AgentOptions::default() }).await;
    if !nix::unistd::geteuid().is_root() {
        println!("not run: a process of another user (needs root)");
        return;
    }
    let program = format!("unix:path:{}", binary("avouch-caller").canonicalize().unwrap().display());
    server.create(entry(&agent.id, "/seen", &[&format!("unix:uid:{USER}"), &program])).await;
    let mut actor = Actor::start(&agent.socket);
    let svids = actor.workload().await.fetch_x509().await.unwrap().svids;
    assert_eq!(svids[0].spiffe_id, "spiffe://example.org/seen");
}
