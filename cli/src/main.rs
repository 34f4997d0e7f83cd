//! `avouch`: what neither the server's nor the agent's command line has.
//!
//! Exit codes: 0 ok, 1 failed, 2 denied, 3 finding, 4 unreachable, 5 pending, 64 usage.

mod rules;

use std::path::PathBuf;
use std::process::ExitCode;

use avouch::demo;
use avouch::exit::{FAILED, USAGE};
use avouch::explain;
use avouch::gate;
use avouch::govern;
use avouch::hook;
use avouch::out::Out;
use avouch::run;
use avouch::task;
use avouch::up;
use avouch::verbs::channel;
use avouch_domain::SpiffeId;
use clap::{CommandFactory as _, Parser, Subcommand};

const EXAMPLES: &str = "Examples:
  avouch up
  avouch identity new coder --kind ai-agent --env test --purpose fix-bugs --ends 30d
  avouch pause coder
  avouch ask list
  avouch explain 4711 spiffe://example.org/web
  avouch rules new rules
  avouch completions bash > ~/.local/share/bash-completion/completions/avouch";
const RULES_EXAMPLES: &str = "Examples:
  avouch rules new rules
  avouch rules check rules
  avouch rules try rules --kind ai_agent --preset coding-agent --action tool.call --resource files/read_file
  avouch rules publish rules";
const RUN_EXAMPLES: &str = "Examples:
  avouch run coder -- python my_agent.py
  avouch run coder --task fix-4711 --tools files/read_file -- python my_agent.py

Exit codes: that of the command, 128 and the signal's number if one ended it; 2 the identity may not run here as you,
4 no node agent answers.";
const UP_EXAMPLES: &str = "Examples:
  avouch up           until Ctrl-C
  avouch up --once    exit code 0 once the first SVIDs are fetched and verified";
const DEMO_EXAMPLES: &str = "Examples:
  avouch demo up
  avouch demo up --once";
const EXPLAIN_EXAMPLES: &str = "Examples:
  avouch explain 4711 spiffe://example.org/web
  avouch explain --json $$ spiffe://example.org/web

Exit codes: 0 the process gets the ID, 2 it does not, 4 somebody does not answer, 5 it will come by itself.";
const GATE_EXAMPLES: &str = "Examples:
  avouch gate mcp files    as the command of a tool server in the settings of an MCP client
  avouch gate check --peer-file token --param branch=fix repo.push git/pay    in a hook";
const GATE_CHECK_EXAMPLES: &str = "Examples:
  avouch gate check --peer-file token --param branch=fix repo.push git/pay
  printf %s \"$TOKEN\" | avouch gate check --peer-file - --json secret.read vault/deploy

In a pre-receive hook of git, with receive.advertisePushOptions set, and the token as the first push option:
  while read -r old new ref; do
    printf %s \"$GIT_PUSH_OPTION_0\" |
      avouch gate check --peer-file - --param branch=\"${ref#refs/heads/}\" repo.push git/pay || exit 1
  done

Who runs it has to be the workload that the rules name as the hook (`avouch gate add hook`).
Exit codes: 0 it may, 2 it may not, 4 nobody answers, 5 somebody has to say yes first, 64 the call can't be understood.";
const GATE_ADD_HOOK_EXAMPLES: &str = "Examples:
  avouch gate add hook git --caller /test/git    what resources.toml lists below git/ is guarded by spiffe://DOMAIN/test/git";
const GATE_ADD_HTTP_EXAMPLES: &str = "Examples:
  avouch gate add http api https://api.example.org --secret-file secrets/token --env-var API_URL
  avouch gate add http tickets https://tickets.example.org/v1 --route 'GET /tickets?state,page=list' \\
      --route 'GET /tickets/{id}=ticket' --route 'POST /tickets=new' --secret-file secrets/key --secret-header x-api-key
  avouch gate add http local http://127.0.0.1:8080

Without --route the gate lets every path be read (GET and HEAD), as the resource NAME/read. AI agents of the preset may read;
what writes takes a rule of its own. `avouch run` sets the variable to the URL of the gate, with a key that is good for
that run only; the secret stays with the gate. Put it where AI agents make nothing new: the kernel closes it to the
command, and the folders above a closed file take no new entries meanwhile; those beside it do.";
const GATE_SERVE_EXAMPLES: &str = "Examples:
  avouch gate add http tickets https://tickets.example.org --secret-file secrets/key --caller /prod/tickets-gate
  avouch gate serve tickets --listen 10.0.0.7:8443

Who serves it has to be the workload that the rules name (--caller): an entry gives it that SPIFFE ID, and its X509-SVID is
what callers see. A caller shows its own X509-SVID in the handshake, and an AI agent its task beside it, a token for each
resource, in the header x-avouch-task: `avouch task token tickets/read`. Each request is decided and recorded by the node agent
of this machine, and a stop counts from the next one. The secret is read when the gate begins, and with each new rules.
It ends with code 2 when the rules name another workload; SIGTERM ends every connection, also one with an answer under way.";
const TASK_EXAMPLES: &str = "Examples:
  avouch task token git/pay    inside `avouch run`";
const TASK_TOKEN_EXAMPLES: &str = "Examples:
  avouch task token git/pay > token
  GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=push.pushOption GIT_CONFIG_VALUE_0=\"$(avouch task token git/pay)\" git push

It holds for five minutes, for this task and this resource, and costs a call of the task.
Exit codes: 0 printed, 2 refused, 4 no node agent answers.";
const GATE_ADD_EXAMPLES: &str = "Examples:
  avouch gate add mcp files --guard ./pay -- npx -y @modelcontextprotocol/server-filesystem ./pay
  avouch gate add mcp tickets --env prod --domain tickets --sensitivity 2 -- tickets-server
  avouch gate add http api https://api.example.org --secret-file secrets/token --env-var API_URL
  avouch gate add hook git --caller /test/git

A tool server is started once and asked for its tools; one that changes later is hidden and denied.";
const GATE_MCP_EXAMPLES: &str = "Examples:
  avouch gate mcp files    as the command of a tool server in the settings of an MCP client

Exit codes: 0 the MCP client ended it, 1 the gate is unknown or the tool server ended, 2 not admitted, 4 the run does not
answer, 64 it was started outside a run.";
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
    /// The agent's Workload API socket
    #[arg(long, global = true, env = "SPIRE_AGENT_PUBLIC_SOCKET", default_value = channel::AGENT.default)]
    agent_socket: PathBuf,
    /// Answer in one line of JSON
    #[arg(long, global = true)]
    json: bool,
}

impl Place {
    fn of_governance(self) -> govern::Place {
        let Self { server_socket, agent_socket, json } = self;
        govern::Place { server_socket, agent_socket, json }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Govern(govern::Command),
    #[command(after_help = RUN_EXAMPLES)]
    /// Run a command as an identity: it, and all it starts, gets this identity and no other
    Run(run::Run),
    #[command(after_help = UP_EXAMPLES)]
    /// Start a private server and agent, register you, show your first SVIDs; Ctrl-C stops
    Up {
        /// Stop after the first verified fetch
        #[arg(long)]
        once: bool,
    },
    #[command(subcommand, disable_help_subcommand = true, after_help = DEMO_EXAMPLES)]
    /// A small company of your own, and twelve scenes of it
    Demo(demo::Command),
    #[command(after_help = EXPLAIN_EXAMPLES)]
    /// Why a process gets a SPIFFE ID, or why it does not
    Explain(Explain),
    #[command(after_help = rules::what_can::EXAMPLES)]
    /// What an identity could be let do by the rules in force
    WhatCan {
        /// Its SPIFFE ID, or the last part of it
        name: String,
    },
    #[command(subcommand, disable_help_subcommand = true, after_help = RULES_EXAMPLES)]
    /// Who may do what with what: check a folder of rules, try requests against it, publish it
    Rules(RulesCommand),
    #[command(subcommand, disable_help_subcommand = true, after_help = GATE_EXAMPLES)]
    /// What stands between an AI agent and its tools
    Gate(Gate),
    #[command(subcommand, disable_help_subcommand = true, after_help = TASK_EXAMPLES)]
    /// What a process of a run shows elsewhere of its task
    Task(Task),
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    /// The completion script for a shell
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
    /// The version
    Version,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    #[command(flatten)]
    Folder(rules::Command),
    #[command(flatten)]
    Published(govern::RulesVerb),
}

#[derive(Debug, Subcommand)]
enum Gate {
    #[command(after_help = GATE_MCP_EXAMPLES)]
    /// Stand in for a tool server behind a gate of this run, on standard input and output
    Mcp {
        /// The gate's name
        name: String,
    },
    #[command(subcommand, disable_help_subcommand = true, after_help = GATE_ADD_EXAMPLES)]
    /// Add a gate: the rules in force are published with it
    Add(GateAdd),
    #[command(after_help = GATE_CHECK_EXAMPLES)]
    /// Ask, as a hook, whether somebody may do something who showed a token
    Check(hook::Check),
    #[command(after_help = GATE_SERVE_EXAMPLES)]
    /// Serve an HTTP gate of its own, for all who show an X509-SVID
    Serve(gate::shared::Serve),
}

#[derive(Debug, Subcommand)]
enum Task {
    #[command(after_help = TASK_TOKEN_EXAMPLES)]
    /// A token for one resource, on standard output
    Token {
        /// An ID of resources.toml, as git/pay
        resource: String,
    },
}

#[derive(Debug, Subcommand)]
enum GateAdd {
    #[command(after_help = GATE_ADD_EXAMPLES)]
    /// In front of a tool server that speaks MCP on standard input and output
    Mcp(govern::AddMcp),
    #[command(after_help = GATE_ADD_HOOK_EXAMPLES)]
    /// A workload of its own that asks with `avouch gate check`, in front of what the rules list already
    Hook(govern::AddHook),
    #[command(after_help = GATE_ADD_HTTP_EXAMPLES)]
    /// In front of a web API, whose secret the gate adds itself
    Http(govern::AddHttp),
}

#[derive(Debug, clap::Args)]
struct Explain {
    /// The process
    pid: i32,
    /// The SPIFFE ID it should have
    spiffe_id: SpiffeId,
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
            let place = place.of_governance();
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
                agent_socket: place.agent_socket,
                admin_socket: e.admin_socket,
                json: place.json,
            };
            on_runtime(out, async |out| explain::run(&question, out).await)
        }
        Command::Run(arguments) => {
            on_runtime(out, async |out| run::run(arguments, &place.agent_socket, place.json, out).await)
        }
        Command::Rules(RulesCommand::Folder(rules::Command::Try(request))) if request.is_in_force() => {
            let place = place.of_governance();
            on_runtime(out, async |out| rules::run_in_force(&request, &place, out).await)
        }
        Command::WhatCan { name } => {
            let place = place.of_governance();
            on_runtime(out, async |out| rules::what_can::run(name, &place, out).await)
        }
        Command::Rules(RulesCommand::Folder(command)) => rules::run(command, out),
        Command::Rules(RulesCommand::Published(verb)) => {
            let place = place.of_governance();
            on_runtime(out, async |out| govern::run_rules(verb, &place, out).await)
        }
        Command::Gate(gate) => run_gate(gate, place, out),
        Command::Task(Task::Token { resource }) => {
            on_runtime(out, async |out| task::token(resource, &place.agent_socket, out).await)
        }
        Command::Demo(command) => on_runtime(out, async |out| demo::run(command, out).await),
        Command::Up { once } => on_runtime(out, async |out| match up::run(once, out).await {
            Ok(()) => 0,
            Err(e) => {
                out.complain(&format!("avouch up: {e}\n"));
                e.exit_code()
            }
        }),
    }
}

fn run_gate(gate: Gate, place: Place, out: &mut Out) -> u8 {
    match gate {
        Gate::Add(add) => {
            let place = place.of_governance();
            on_runtime(out, async |out| match add {
                GateAdd::Mcp(add) => govern::add_mcp(add, &place, out).await,
                GateAdd::Hook(add) => govern::add_hook(add, &place, out).await,
                GateAdd::Http(add) => govern::add_http(add, &place, out).await,
            })
        }
        Gate::Check(check) => {
            on_runtime(out, async |out| hook::run(check, &place.agent_socket, place.json, out).await)
        }
        Gate::Serve(serve) => {
            on_runtime(out, async |out| gate::shared::run(serve, &place.agent_socket, place.json, out).await)
        }
        Gate::Mcp { name } => {
            let socket = std::env::var_os(gate::SOCKET_VARIABLE);
            gate::shim::run(&name, socket, std::io::stdin(), std::io::stdout(), out)
        }
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
            for verb in command.get_subcommands_mut().filter(|verb| !verb.is_hide_set()) {
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
