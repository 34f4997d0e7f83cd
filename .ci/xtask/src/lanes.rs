//! The lanes: what `up`, `demo`, `test` and `ci` run, in order.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::{Outcome, claims, conformance, files, integration, scenarios, tidy};

/// How much of the pyramid a test run climbs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Tidy, unit and property tests.
    Quick,
    /// Also the store suite, conformance and end to end with the real binaries.
    Full,
}

const PROFILE: [&str; 2] = ["--profile", "ci"];

/// `cargo xtask up` and `demo`: builds the three binaries and hands over to this verb of `avouch`.
pub fn hand_over(verb: &[&str], rest: &[&str]) -> Outcome {
    eprintln!("building avouch (the first time takes about six minutes on two cores, later seconds)");
    files::run("cargo", &["build", PROFILE[0], PROFILE[1], "--workspace", "--bins"])?;
    let avouch = files::root().join("target/ci/avouch");
    // In place of this process, so that Ctrl-C has one listener and the shell waits until everything has stopped.
    let error = Command::new(&avouch).args(verb).args(rest).exec();
    Err(format!("cannot start {}: {error}", avouch.display()))
}

/// Builds binaries and tests in one go: built apart, their dependencies would be compiled twice, with and without
/// what only tests need.
pub fn build_all() -> Outcome {
    files::run("cargo", &["build", PROFILE[0], PROFILE[1], "--workspace", "--all-targets"])
}

/// `cargo xtask bench`: builds and runs the benchmarks; `--release` measures the binaries that are shipped.
pub fn bench(rest: &[&str]) -> Outcome {
    build_all()?;
    let mut command = Command::new(files::root().join("target/ci/avouch-bench"));
    if rest.contains(&"--release") {
        eprintln!("building the release binaries (link-time optimisation: some ten minutes the first time)");
        files::run("cargo", &["build", "--release", "--workspace", "--bins"])?;
        for (variable, name) in [("SERVER_BIN", "avouch-server"), ("AGENT_BIN", "avouch-agent")] {
            command.env(variable, files::root().join("target/release").join(name));
        }
    }
    command.args(rest.iter().filter(|word| **word != "--release"));
    let status = command.status().map_err(|e| format!("cannot start avouch-bench: {e}"))?;
    if status.success() { Ok(()) } else { Err("a row is over its bar: the lines above name it".into()) }
}

/// What `cargo xtask sim --help` says.
const SIM_HELP: &str = "\
cargo xtask sim [OPTIONS]      the whole system in one thread under virtual time

  (none)          what CI runs: every promise on every seed, the table of what is visited, planted mistakes found
  --seed S        one seed
    --trace       prints one line per event: time, host, role, event, revision, authority, what ends first
    --shrink      drops actions while the same promise is still broken, prints what is left and how to replay it
    --only N,N    does only these actions of the seed
  --seeds N       seeds 0 to N-1 on all cores; counts seeds per second
    --from S      begins with seed S
    --coverage    prints how often every transition and every pair of faults was visited
  --fault NAME    plants a mistake first (an unknown name lists them)

Examples:
  cargo xtask sim --seeds 20000
  cargo xtask sim --seeds 200 --coverage
  cargo xtask sim --seed 17 --trace
  cargo xtask sim --seed 4 --fault ForgetAliasChange --shrink

docs/SIMULATION.md tells how to read a trace and how to add a fault or a promise.
";

/// `cargo xtask sim`: the simulation alone.
pub fn sim(options: &[&str]) -> Outcome {
    if options.iter().any(|option| matches!(*option, "--help" | "-h" | "help")) {
        println!("{SIM_HELP}");
        return Ok(());
    }
    let mut command = Command::new("cargo");
    // The whole workspace is named so that dependencies are built as for the other lanes.
    command.args(["test", PROFILE[0], PROFILE[1], "--workspace", "--test", "sim", "--"]);
    command.arg("--nocapture").current_dir(files::root());
    if !options.is_empty() {
        // What broke is in the report; where a test panics says nothing.
        command.arg("every_promise").env("AVOUCH_SIM", options.join(" ")).env("RUST_BACKTRACE", "0");
    }
    let status = command.status().map_err(|e| format!("cannot run cargo: {e}"))?;
    if status.success() {
        Ok(())
    } else {
        Err("the lines above say what is broken and how to replay it".into())
    }
}

/// `cargo xtask test`: levels 0 to 6 of the pyramid, or 0 to 2.
pub fn test(depth: Depth) -> Outcome {
    tidy::run()?;
    let mut args = vec!["test", PROFILE[0], PROFILE[1], "--workspace", "--no-fail-fast"];
    if depth == Depth::Full {
        build_all()?;
    } else {
        args.extend(["--lib", "--bins"]);
    }
    let counts = run_tests(&args)?;
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    if counts.failed > 0 || !counts.clean_exit {
        return Err("tests failed: the lines above name them".into());
    }
    if counts.passed == 0 {
        return Err("no test ran".into());
    }
    Ok(())
}

#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
    clean_exit: bool,
}

/// Runs cargo test, passing its output through and adding up the closing lines of every test binary.
fn run_tests(args: &[&str]) -> Result<Counts, String> {
    eprintln!("+ cargo {}", args.join(" "));
    let mut child = Command::new("cargo")
        .args(args)
        .current_dir(files::root())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    let mut counts = Counts::default();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            println!("{line}");
            count(&line, &mut counts);
        }
    }
    counts.clean_exit = child.wait().map_err(|e| format!("cannot wait for cargo: {e}"))?.success();
    Ok(counts)
}

fn count(line: &str, counts: &mut Counts) {
    let Some(rest) = line.strip_prefix("test result: ") else { return };
    let number = |word: &str| {
        rest.split([';', '.'])
            .filter_map(|part| part.trim().strip_suffix(word))
            .filter_map(|n| n.trim().parse::<u64>().ok())
            .sum::<u64>()
    };
    counts.passed += number("passed");
    counts.failed += number("failed");
    counts.skipped += number("ignored");
}

/// `cargo xtask ci`: what has to hold before anything lands.
pub fn ci() -> Outcome {
    let start = Instant::now();
    let lane = |name: &str, work: &dyn Fn() -> Outcome| -> Outcome {
        let begun = Instant::now();
        println!("== {name}");
        let outcome = work();
        println!(
            "== {name}: {} in {} s",
            if outcome.is_ok() { "ok" } else { "FAILED" },
            begun.elapsed().as_secs()
        );
        outcome
    };
    lane("format", &|| files::run("cargo", &["fmt", "--all", "--check"]))?;
    lane("tests", &readme_test_command)?;
    lane("lints", &|| {
        files::run(
            "cargo",
            &["clippy", PROFILE[0], PROFILE[1], "--workspace", "--all-targets", "--", "-D", "warnings"],
        )
    })?;
    lane("dependencies", &dependencies)?;
    lane("pages", &|| {
        conformance::run(true)?;
        claims::run(true)?;
        scenarios::run(true)
    })?;
    lane("instructions", &instructions)?;
    lane("integration", &|| integration::run(None))?;
    println!("ci: ok in {} min", start.elapsed().as_secs() / 60);
    Ok(())
}

/// Runs the very command the README names, so that the page can't drift from CI.
fn readme_test_command() -> Outcome {
    let readme = files::read("README.md")?;
    let line = readme
        .lines()
        .map(str::trim)
        .find(|l| l.starts_with("cargo xtask test"))
        .ok_or("README.md names no `cargo xtask test` command")?;
    let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
    match words.split_first() {
        Some((program, args)) => files::run(program, args),
        None => Err("the README's test command is empty".into()),
    }
}

/// What is done most in process, counted in instructions, which no other work on the machine disturbs: 3 % more than was
/// measured last is too much.
fn instructions() -> Outcome {
    files::run("cargo", &["build", PROFILE[0], PROFILE[1], "--workspace", "--bins"])?;
    files::run("target/ci/avouch-bench", &["counts", "--check"])
}

fn dependencies() -> Outcome {
    if files::exists("cargo-deny", "--version") {
        return files::run("cargo", &["deny", "check", "bans", "licenses", "sources"]);
    }
    println!("not run: cargo-deny is not installed (cargo install cargo-deny --locked)");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_test_binaries_add_up() {
        let mut counts = Counts::default();
        count(
            "test result: ok. 16 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            &mut counts,
        );
        count("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out", &mut counts);
        assert_eq!((counts.passed, counts.failed, counts.skipped), (19, 2, 1));
    }
}
