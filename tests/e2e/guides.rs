//! The guides are true: each command of a page is run as it is printed there, and prints what stands below it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use avouch_tests::daemon::binary;
use avouch_tests::{Agent, Server, World};

/// A command and what stands below it.
#[derive(Debug, Default)]
struct Step {
    command: String,
    printed: String,
}

fn page(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join("docs/guides").join(name)).unwrap()
}

/// The commands of all blocks `console`: a line with `$ ` begins one, lines with `> ` go on with it.
fn steps(page: &str) -> Vec<Step> {
    let blocks = page.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut steps: Vec<Step> = Vec::new();
    for line in blocks.flat_map(str::lines) {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), printed: String::new() });
            continue;
        }
        let step = steps.last_mut().expect("a block begins with a command");
        match line.strip_prefix('>') {
            Some(more) => write!(step.command, "\n{}", more.strip_prefix(' ').unwrap_or(more)).unwrap(),
            None => writeln!(step.printed, "{line}").unwrap(),
        }
    }
    steps
}

/// Line by line; one that ends in `...` says only how it begins.
fn same(printed: &str, said: &str) -> bool {
    let fits = |(printed, said): (&str, &str)| match printed.strip_suffix("...") {
        Some(beginning) => said.starts_with(beginning),
        None => printed == said,
    };
    printed.lines().count() == said.lines().count() && printed.lines().zip(said.lines()).all(fits)
}

/// Runs a page in an empty folder, as a reader does beside a server of his own, and a node agent if the page needs one.
fn follow(name: &str, at_least: usize, server: &Server, agent: Option<&Agent>) {
    let place = tempfile::tempdir().unwrap();
    let avouch = binary("avouch");
    let folder = avouch.parent().unwrap().display();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let steps = steps(&page(name));
    assert!(steps.len() >= at_least, "{name} has {} commands", steps.len());
    for step in steps {
        let mut shell = Command::new("sh");
        // Both streams in the order in which a terminal shows them.
        shell.args(["-c", &format!("exec 2>&1\n{}", step.command)]).current_dir(&place).env("PATH", &path);
        shell.env("SPIRE_SERVER_PRIVATE_SOCKET", &server.socket).env_remove("SPIFFE_ENDPOINT_SOCKET");
        if let Some(agent) = agent {
            shell.env("SPIRE_AGENT_PUBLIC_SOCKET", &agent.socket);
        }
        let output = shell.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(
            same(&step.printed, &said),
            "{name}: $ {}\nprinted:\n{}\nsaid:\n{said}",
            step.command,
            step.printed
        );
    }
}

#[tokio::test]
async fn the_guide_to_rules_is_true() {
    let server = Server::start().await;
    follow("rules.md", 16, &server, None);
}

#[tokio::test]
async fn the_guide_to_hooks_is_true() {
    let World { server, agent } = World::start().await;
    follow("hook-gate.md", 15, &server, Some(&agent));
}

#[tokio::test]
async fn the_guide_to_own_code_is_true() {
    let World { server, agent } = World::start().await;
    follow("own-code.md", 8, &server, Some(&agent));
}

#[tokio::test]
async fn the_guide_to_the_pages_is_true() {
    let World { server, agent } = World::start().await;
    follow("pages.md", 4, &server, Some(&agent));
}
