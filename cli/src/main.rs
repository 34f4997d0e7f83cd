//! `avouch`: what neither the server's nor the agent's command line has.
//!
//! Exit codes: 0 ok, 1 failed, 2 denied, 3 finding, 4 unreachable, 5 pending, 64 usage.

mod rules;

use std::path::PathBuf;
use std::process::ExitCode;

use avouch::exit::{FAILED, USAGE};
use avouch::explain;
use avouch::govern;
use avouch::out::Out;
use avouch::up;
use avouch::verbs::channel;
use avouch_domain::SpiffeId;
use clap::{CommandFactory as _, Parser, Subcommand};

const EXAMPLES: &str = "Examples:
  avouch up
  avouch identity new coder --kind ai-agent --env test --purpose fix-bugs --ends 30d
  avouch pause coder
  avouch explain 4711 spiffe://example.org/web
  avouch rules new rules
  avouch completions bash > ~/.local/share/bash-completion/completions/avouch";
const RULES_EXAMPLES: &str = "Examples:
  avouch rules new rules
  avouch rules check rules
  avouch rules try rules --kind ai_agent --preset coding-agent --action tool.call --resource files/read_file";
const UP_EXAMPLES: &str = "Examples:
  avouch up           until Ctrl-C
  avouch up --once    exit code 0 once the first SVIDs are fetched and verified";
const EXPLAIN_EXAMPLES: &str = "Examples:
  avouch explain 4711 spiffe://example.org/web
  avouch explain --json $$ spiffe://example.org/web

Exit codes: 0 the process gets the ID, 2 it does not, 4 somebody does not answer, 5 it will come by itself.";
const COMPLETIONS_EXAMPLES: &str = "Examples:
  avouch completions bash > ~/.local/share/bash-completion/completions/avouch
  avouch completions zsh > \"${fpath[1]}/_avouch\"
  avouch completions fish > ~/.config/fish/completions/avouch.fish";

/// Workload identity that speaks SPIFFE.
#[derive(Debug, Parser)]
#[command(name = "avouch", version, disable_help_subcommand = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    place: Place,
}

/// Where the verbs on people, identities and records ask, and how they answer.
#[derive(Debug, clap::Args)]
struct Place {
    /// The server's private socket
    #[arg(long, global = true, env = "SPIRE_SERVER_PRIVATE_SOCKET", default_value = channel::SERVER.default)]
    server_socket: PathBuf,
    /// Answer in one line of JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Govern(govern::Command),
    #[command(after_help = UP_EXAMPLES)]
    /// Start a private server and agent, register you, show your first SVIDs; Ctrl-C stops
    Up {
        /// Stop after the first verified fetch
        #[arg(long)]
        once: bool,
    },
    #[command(after_help = EXPLAIN_EXAMPLES)]
    /// Why a process gets a SPIFFE ID, or why it does not
    Explain(Explain),
    #[command(subcommand, disable_help_subcommand = true, after_help = RULES_EXAMPLES)]
    /// Who may do what with what: check a folder of rules, try requests against it
    Rules(rules::Command),
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    /// The completion script for a shell
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
    /// The version
    Version,
}

#[derive(Debug, clap::Args)]
struct Explain {
    /// The process
    pid: i32,
    /// The SPIFFE ID it should have
    spiffe_id: SpiffeId,
    /// The agent's Workload API socket
    #[arg(long, env = "SPIRE_AGENT_PUBLIC_SOCKET", default_value = channel::AGENT.default)]
    agent_socket: PathBuf,
    /// The agent's administration socket
    #[arg(long, default_value = channel::AGENT_ADMIN.default)]
    admin_socket: PathBuf,
}

fn main() -> ExitCode {
    let mut out = Out::standard();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            // Help and version are what was asked for; they are no errors.
            let code = if e.use_stderr() { USAGE } else { 0 };
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    ExitCode::from(run(arguments, &mut out))
}

fn run(Arguments { command, place }: Arguments, out: &mut Out) -> u8 {
    match command {
        Command::Govern(command) => {
            let place = govern::Place { server_socket: place.server_socket, json: place.json };
            on_runtime(out, async |out| govern::run(command, &place, out).await)
        }
        Command::Version => {
            out.line(env!("CARGO_PKG_VERSION"));
            0
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "avouch", &mut script);
            out.say(&String::from_utf8_lossy(&script));
            0
        }
        Command::Explain(e) => {
            let question = explain::Question {
                pid: e.pid,
                spiffe_id: e.spiffe_id,
                server_socket: place.server_socket,
                agent_socket: e.agent_socket,
                admin_socket: e.admin_socket,
                json: place.json,
            };
            on_runtime(out, async |out| explain::run(&question, out).await)
        }
        Command::Rules(command) => rules::run(command, out),
        Command::Up { once } => on_runtime(out, async |out| match up::run(once, out).await {
            Ok(()) => 0,
            Err(e) => {
                out.complain(&format!("avouch up: {e}\n"));
                e.exit_code()
            }
        }),
    }
}

fn on_runtime(out: &mut Out, work: impl AsyncFnOnce(&mut Out) -> u8) -> u8 {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work(out)),
        Err(e) => {
            out.complain(&format!("cannot start the runtime: {e}\n"));
            FAILED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn completions_know_every_command() {
        let (mut out, captured) = Out::captured();
        let asked = Arguments::try_parse_from(["avouch", "completions", "bash"]).unwrap();
        assert_eq!(run(asked, &mut out), 0);
        assert!(captured.out().contains("explain") && captured.out().contains("completions"));
        assert!(captured.out().contains("--worn-by-ai-agent"));
    }

    #[test]
    fn every_command_has_examples() {
        for command in Arguments::command().get_subcommands_mut().filter(|c| c.get_name() != "version") {
            assert!(command.render_help().to_string().contains("Examples:"), "{}", command.get_name());
            for verb in command.get_subcommands_mut() {
                assert!(verb.render_help().to_string().contains("Examples:"), "{}", verb.get_name());
            }
        }
    }

    #[test]
    fn every_command_of_the_guide_about_ownership_is_understood() {
        let guide = include_str!("../../docs/guides/ownership.md");
        let commands: Vec<_> = guide.lines().filter_map(|line| line.strip_prefix("    avouch ")).collect();
        assert!(commands.len() > 10, "{commands:?}");
        for command in commands {
            let line = command.split(" > ").next().unwrap_or_default();
            // Texts between quotes are one word.
            let words = line.split('\'').enumerate().flat_map(|(part, text)| match part % 2 {
                0 => text.split_whitespace().collect::<Vec<_>>(),
                _ => vec![text],
            });
            let parsed = Arguments::try_parse_from(std::iter::once("avouch").chain(words));
            assert!(parsed.is_ok(), "{command}: {parsed:?}");
        }
    }

    #[test]
    fn a_text_that_is_no_id_is_a_wrong_question() {
        let asked = Arguments::try_parse_from(["avouch", "explain", "1", "example.org/web"]);
        let error = asked.unwrap_err().to_string();
        assert!(error.contains("invalid value 'example.org/web' for '<SPIFFE_ID>'"), "{error}");
    }
}
