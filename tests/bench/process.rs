//! What a process costs: its CPU clock and its memory, as the kernel keeps them.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::report::median;

/// Samples of a CPU row; the median counts.
pub const SAMPLES: usize = 7;

/// Files that a process may open here, as a service does on a small node.
const DESCRIPTORS: u64 = 20_000;

/// Lets this process, and those that it starts, open as many files. Daemons raise their own limit to the hard one.
pub fn allow_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let most = hard.min(DESCRIPTORS);
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("a limit");
}

/// CPU time of all threads so far, ended ones included.
pub fn cpu(pid: i32) -> Duration {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).expect("the clock of a running process");
    clock_gettime(clock).expect("its time").into()
}

/// CPU microseconds of `pid` for one operation: the median over samples of `operations` each.
pub async fn cpu_each(pid: i32, operations: usize, mut sample: impl AsyncFnMut()) -> f64 {
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let before = cpu(pid);
        sample().await;
        samples.push((cpu(pid) - before).as_secs_f64() * 1e6 / operations as f64);
    }
    median(samples)
}

/// How often `pid` asks its disk to keep what it wrote while `work` is done, as strace counts it.
///
/// # Errors
/// Why there is no count.
pub async fn syncs(pid: i32, work: impl AsyncFnOnce()) -> Result<f64, String> {
    let mut strace = tokio::process::Command::new("strace")
        .args(["-f", "-c", "-e", "trace=fsync,fdatasync", "-p", &pid.to_string()])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("strace: {e}"))?;
    let mut said = BufReader::new(strace.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("attached") {
        line.clear();
        if said.read_line(&mut line).await.expect("a text") == 0 {
            return Err("strace may not attach to the server".to_owned());
        }
    }
    work().await;
    let id = strace.id().and_then(|id| i32::try_from(id).ok()).expect("a running process");
    kill(Pid::from_raw(id), Signal::SIGINT).expect("a signal");
    let mut table = String::new();
    said.read_to_string(&mut table).await.expect("a table");
    strace.wait().await.expect("its end");
    let calls = |line: &str| {
        let mut words = line.split_whitespace();
        let calls = words.nth(3)?.parse::<f64>().ok()?;
        words.last().filter(|name| name.ends_with("sync")).map(|_| calls)
    };
    Ok(table.lines().filter_map(calls).sum())
}

/// Resident and anonymous memory in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub resident: f64,
    pub anonymous: f64,
}

/// Memory of a process now.
pub fn memory(pid: i32) -> Memory {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let mib = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)).expect("a line of the kernel's");
        line.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).expect("a number") / 1024.0
    };
    Memory { resident: mib("VmRSS:"), anonymous: mib("RssAnon:") }
}
