//! Benchmarks: each row is a ratio against a yardstick measured in the same run, and says whether it keeps its bar.
//!
//! Never a test: `docs/PERFORMANCE.md` keeps what was measured. Rows about processes start the real binaries and read
//! their CPU clocks, so that a busy machine disturbs the waits only.
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::indexing_slicing, clippy::cast_precision_loss, clippy::cast_possible_truncation)]
#![allow(clippy::cast_sign_loss)] // counts and microseconds become ratios

mod asking;
mod deciding;
mod echo;
mod footprint;
mod gating;
mod gating_http;
mod issuing;
mod last;
mod looking;
mod papers;
mod process;
mod propagation;
mod records;
mod registry;
mod report;
mod shortlived;
mod stopping;
mod workload;
mod yardstick;

use std::process::ExitCode;

use last::Last;
use process::SAMPLES;
use report::{Report, Sum};

const PARTS: [&str; 15] = [
    "counts",
    "papers",
    "deciding",
    "gating",
    "asking",
    "records",
    "issuing",
    "attestation",
    "workload",
    "propagation",
    "registry",
    "stopping",
    "shortlived",
    "looking",
    "footprint",
];

const HELP: &str = "\
avouch-bench [PART...] [--check] [--keep] [--quick]

Measures all parts, or those named: counts (instructions in process, by valgrind), papers (times in process), deciding (rules, in process), gating (a call through an MCP gate and an HTTP gate), asking (code asks for itself), records (of a node, in process), issuing (the server signs), attestation (nodes join), workload (the agent answers),
propagation (a change reaches a stream), registry (entries, durably), stopping (nodes confirm), shortlived (10,000 runs, one decision each), looking (a person opens a page), footprint (start, memory, idle CPU).
--check ends with 1 if a row is over its bar, or worse than last time by three tenths. A part but counts in which a row
        came out otherwise than last time is run seven times, and its medians count. Times are judged as on the
        reference machine: divided by how much slower the floor (a P-256 verification and a signature) is here than 53 us.
--keep  writes down what the rows came to (tests/bench/last.tsv), for the machine that they are compared on.
--quick starts a hundred short processes in place of 10,000.

Binaries: SERVER_BIN, AGENT_BIN, else those beside this one.
";
/// Words that are no part.
const FLAGS: [&str; 3] = ["--check", "--keep", "--quick"];
/// Parts that need no second run: what they count, no other process disturbs.
const EXACT: [&str; 1] = ["counts"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if let [word, socket, size] = words.as_slice()
        && *word == echo::WORD
    {
        runtime.block_on(echo::serve(socket, size));
        return ExitCode::SUCCESS;
    }
    if let [word] = words.as_slice() {
        if *word == gating::TOOLS_WORD {
            gating::tools();
            return ExitCode::SUCCESS;
        }
        if *word == gating::CLIENT_WORD {
            runtime.block_on(gating::client());
            return ExitCode::SUCCESS;
        }
        if *word == gating_http::API_WORD {
            runtime.block_on(gating_http::api());
            return ExitCode::SUCCESS;
        }
        if *word == gating_http::CLIENT_WORD {
            runtime.block_on(gating_http::client());
            return ExitCode::SUCCESS;
        }
        if *word == asking::CLIENT_WORD {
            runtime.block_on(asking::client());
            return ExitCode::SUCCESS;
        }
    }
    if let [word, row, times] = words.as_slice()
        && *word == papers::WORD
    {
        papers::repeat(row, times);
        return ExitCode::SUCCESS;
    }
    let (flags, parts): (Vec<&str>, Vec<&str>) = words.iter().partition(|w| w.starts_with('-'));
    let unknown = parts.iter().find(|p| !PARTS.contains(p)).or(flags.iter().find(|f| !FLAGS.contains(f)));
    if let Some(unknown) = unknown {
        eprintln!("unknown argument `{unknown}`\n\n{HELP}");
        return ExitCode::FAILURE;
    }
    let (check, keep) = (flags.contains(&"--check"), flags.contains(&"--keep"));
    let report = Report::beside(Last::read());
    let parts: &[&str] = if parts.is_empty() { &PARTS } else { &parts };
    runtime.block_on(run(&report, parts, check, flags.contains(&"--quick")));
    println!();
    let Sum { rows, over, worse } = report.sum();
    println!("{rows} rows, {over} over their bar, {worse} worse than last time");
    if keep && let Err(e) = report.kept().write() {
        eprintln!("cannot write what the rows came to: {e}");
        return ExitCode::FAILURE;
    }
    if check && over + worse > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn run(report: &Report, parts: &[&str], check: bool, quick: bool) {
    for part in parts {
        report.part(part, yardstick::floor().value);
        measure(report, part, quick).await;
        if check && !EXACT.contains(part) && report.doubtful() {
            for _ in 1..SAMPLES {
                report.again();
                measure(report, part, quick).await;
            }
        }
    }
}

async fn measure(report: &Report, part: &str, quick: bool) {
    match part {
        "counts" => papers::counts(report),
        "papers" => papers::times(report),
        "deciding" => deciding::run(report),
        "gating" => {
            gating::run(report).await;
            gating_http::run(report).await;
        }
        "asking" => asking::run(report).await,
        "records" => records::run(report).await,
        "issuing" => issuing::run(report).await,
        "attestation" => issuing::attestation(report).await,
        "workload" => workload::run(report).await,
        "propagation" => propagation::run(report).await,
        "registry" => registry::run(report).await,
        "stopping" => stopping::run(report).await,
        "shortlived" => shortlived::run(report, quick).await,
        "looking" => looking::run(report).await,
        _ => footprint::run(report).await,
    }
}
