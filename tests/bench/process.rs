//! What a process costs: its CPU clock and its memory, as the kernel keeps them.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::report::median;

/// Samples of a CPU row; the median counts.
pub const SAMPLES: usize = 7;

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
