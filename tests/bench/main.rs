//! Benchmarks: each row is a ratio against a yardstick measured in the same run, and says whether it keeps its bar.
//!
//! Never a test: `docs/PERFORMANCE.md` keeps what was measured. Rows about processes start the real binaries and read
//! their CPU clocks, so that a busy machine disturbs the waits only.
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::indexing_slicing, clippy::cast_precision_loss, clippy::cast_possible_truncation)]
#![allow(clippy::cast_sign_loss)] // counts and microseconds become ratios

mod deciding;
mod echo;
mod footprint;
mod gating;
mod gating_http;
mod issuing;
mod papers;
mod process;
mod propagation;
mod records;
mod registry;
mod report;
mod workload;
mod yardstick;

use std::process::ExitCode;

use report::Report;

const PARTS: [&str; 10] = [
    "papers",
    "deciding",
    "gating",
    "records",
    "issuing",
    "attestation",
    "workload",
    "propagation",
    "registry",
    "footprint",
];

const HELP: &str = "\
avouch-bench [PART...] [--check]

Measures all parts, or those named: papers (in process, counted by valgrind), deciding (rules, in process), gating (a call through an MCP gate and an HTTP gate), records (of a node, in process), issuing (the server signs), attestation (nodes join), workload (the agent answers),
propagation (a change reaches a stream), registry (entries, durably), footprint (start, memory, idle CPU).
--check ends with 1 if a row is over its bar.

Binaries: SERVER_BIN, AGENT_BIN, else those beside this one.
";

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
    }
    if let [word, row, times] = words.as_slice()
        && *word == papers::WORD
    {
        papers::repeat(row, times);
        return ExitCode::SUCCESS;
    }
    let (flags, parts): (Vec<&str>, Vec<&str>) = words.iter().partition(|w| w.starts_with('-'));
    let unknown = parts.iter().find(|p| !PARTS.contains(p)).or(flags.iter().find(|f| **f != "--check"));
    if let Some(unknown) = unknown {
        eprintln!("unknown argument `{unknown}`\n\n{HELP}");
        return ExitCode::FAILURE;
    }
    let report = Report::default();
    runtime.block_on(run(&report, if parts.is_empty() { &PARTS } else { &parts }));
    let (rows, over) = report.sum();
    println!("\n{rows} rows, {over} over their bar");
    if over > 0 && flags.contains(&"--check") { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn run(report: &Report, parts: &[&str]) {
    for part in parts {
        report.part(part);
        match *part {
            "papers" => papers::run(report),
            "deciding" => deciding::run(report),
            "gating" => {
                gating::run(report).await;
                gating_http::run(report).await;
            }
            "records" => records::run(report).await,
            "issuing" => issuing::run(report).await,
            "attestation" => issuing::attestation(report).await,
            "workload" => workload::run(report).await,
            "propagation" => propagation::run(report).await,
            "registry" => registry::run(report).await,
            _ => footprint::run(report).await,
        }
    }
}
