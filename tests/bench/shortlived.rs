//! Rows about short lives: thousands of `avouch run`, each of a process that asks for one decision and ends.
//!
//! Never takes what was printed for what happened: it is counted in the log, once that is verified.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use avouch_tests::daemon::binary;
use serde_json::Value;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::gating::{GATE, Gated, TOOLS_WORD};
use crate::report::{Bar, Report};

/// Processes of the row.
const MANY: usize = 10_000;
/// And of a look at it (`--quick`).
const FEW: usize = 100;
/// Processes at once for each core: one works while another waits.
const PER_CORE: usize = 2;
/// What their runs are about.
const TASK: &str = "short-lived";
/// Looks for the last records at the server, and the pause between two.
const LOOKS: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);
/// Events that say that records are missing, or may be.
const GAPS: [&str; 3] = ["spool.gap", "node_gap", "node_conflict"];

/// All rows of this part.
pub async fn run(report: &Report, quick: bool) {
    let processes = if quick { FEW } else { MANY };
    let cores = std::thread::available_parallelism().expect("the number of cores").get();
    let what =
        format!("processes of `avouch run`, {processes}, {} at once, a decision each", cores * PER_CORE);
    if let Err(e) = Command::new("curl").arg("--version").stdout(Stdio::null()).status().await {
        return report.absent(&what, &format!("curl: {e}"));
    }
    let itself = std::env::current_exe().expect("this binary");
    let gated = Gated::start().await;
    gated.add(&format!("gate add mcp {GATE} -- {} {TOOLS_WORD}", itself.display())).await;
    let begun = Instant::now();
    let odd = all(&gated, processes, cores * PER_CORE).await;
    let rate = processes as f64 / begun.elapsed().as_secs_f64();
    odd.iter().take(3).for_each(|odd| println!("  {odd}"));
    let log = Log::whole(&gated, processes).await;
    report.plain(&what, rate, "a second", Bar::Free);
    let none = |what: &str, count: usize| report.plain(what, count as f64, "", Bar::AtMost(0.0));
    none("the same: failed, or told otherwise than allowed", odd.len());
    none("the same: without an owner", log.count(|life| !life.owned));
    none("the same: of an instance that there had been", log.count(|life| life.began > 1));
    none("the same: not begun, decided and ended once in the log", processes.abs_diff(log.whole_lives()));
    none("the same: gaps in the log", log.gaps);
}

/// Starts all of them, so many at once; gives what went otherwise than it should.
async fn all(gated: &Gated, processes: usize, at_once: usize) -> Vec<String> {
    let command: Arc<(PathBuf, Vec<OsString>)> = Arc::new((binary("avouch"), words(gated)));
    let begun = Arc::new(AtomicUsize::new(0));
    let mut lanes = JoinSet::new();
    for _ in 0..at_once {
        let (command, begun) = (command.clone(), begun.clone());
        lanes.spawn(async move {
            let mut odd = Vec::new();
            while begun.fetch_add(1, Ordering::Relaxed) < processes {
                odd.extend(one(&command.0, &command.1).await);
            }
            odd
        });
    }
    lanes.join_all().await.into_iter().flatten().collect()
}

/// The run of one process, which is small: its code is hashed each time.
fn words(gated: &Gated) -> Vec<OsString> {
    let question = format!(
        r#"{{"action":{{"name":"tool.call"}},"resource":{{"type":"Tool","id":"{GATE}/read_file","properties":{{"path":"a"}}}}}}"#
    );
    let run = ["run", "coder", "--task", TASK, "--calls", "1", "--", "curl", "-s", "--unix-socket"];
    let mut words: Vec<OsString> = gated.places().into_iter().map(OsString::from).collect();
    words.extend(run.map(OsString::from));
    words.push(gated.decisions().into_os_string());
    words.extend(["-d", &question, "http://localhost/access/v1/evaluation"].map(OsString::from));
    words
}

/// Starts one; `None` if it was allowed what it asked for, and ended well.
async fn one(program: &Path, words: &[OsString]) -> Option<String> {
    let done = Command::new(program).args(words).stdin(Stdio::null()).output().await.expect("it runs");
    let answer = serde_json::from_slice::<Value>(&done.stdout).unwrap_or_default();
    let well = done.status.success() && answer["decision"] == true;
    let said = || format!("{}: {answer} {}", done.status, String::from_utf8_lossy(&done.stderr));
    (!well).then(said)
}

/// What the log says of one instance.
#[derive(Default)]
struct Life {
    began: usize,
    owned: bool,
    /// It is of this task.
    ours: bool,
    allowed: usize,
    ended: usize,
}

/// What the log says of all.
#[derive(Default)]
struct Log {
    lives: BTreeMap<String, Life>,
    gaps: usize,
}

impl Log {
    /// The verified log when it tells the whole of so many lives, or as it is when that was waited for.
    async fn whole(gated: &Gated, processes: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("records.jsonl");
        let mut read = Self::default();
        for _ in 0..LOOKS {
            let lines = gated.run("audit export --source all").await;
            assert_eq!(lines.code, 0, "{}", lines.err);
            read = Self::of(&lines.out);
            std::fs::write(&file, lines.out).expect("a file");
            if read.whole_lives() >= processes {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let verified = gated.run(&format!("audit verify --offline {}", file.display())).await;
        assert_eq!(verified.code, 0, "{verified:?}");
        read
    }

    fn of(lines: &str) -> Self {
        let mut log = Self::default();
        for line in lines.lines() {
            let record: Value = serde_json::from_str(line).expect("JSON");
            // A head or a header is no record.
            let Some(event) = record["event"].as_str() else { continue };
            log.gaps += usize::from(GAPS.contains(&event));
            let Some(actor) = record["actor"].as_str().filter(|actor| actor.starts_with("ins_")) else {
                continue;
            };
            let life = log.lives.entry(actor.to_owned()).or_default();
            let detail = &record["detail"];
            match event {
                "instance.start" => {
                    life.began += 1;
                    life.owned = detail["owner"].as_str().is_some_and(|owner| !owner.is_empty());
                }
                "task.open" => life.ours = record["subject"] == TASK,
                "decision" => life.allowed += usize::from(detail["outcome"] == "allow"),
                "instance.end" => life.ended += 1,
                _ => {}
            }
        }
        log
    }

    /// How many instances of the task are such.
    fn count(&self, such: impl Fn(&Life) -> bool) -> usize {
        self.lives.values().filter(|life| life.ours && such(life)).count()
    }

    fn whole_lives(&self) -> usize {
        self.count(|life| (life.began, life.allowed, life.ended) == (1, 1, 1))
    }
}
