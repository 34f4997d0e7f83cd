//! The verbs that SPIRE's command lines have, with SPIRE's flags, texts and exit codes.
//!
//! They talk over the API only and hold no state. Never coloured, never prompting: scripts read them.

pub mod agent;
pub mod channel;
mod examples;
pub mod flags;
mod json;
pub mod place;
pub mod server;
pub(crate) mod text;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;

use avouch_domain::SpiffeId;
use serde_json::Value;
use tonic::Status;
use tonic::transport::Channel;

use crate::out::Out;
use channel::Door;
use flags::{FlagError, FlagSet, Flags};
use place::Place;

/// How long a health check may take.
const HEALTH_WAIT: std::time::Duration = std::time::Duration::from_secs(5);
/// Exit code of an unknown or missing command.
const UNKNOWN_COMMAND: u8 = 127;

/// Why a verb failed. `Display` is what follows "Error: ".
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// The other side said no, or did not answer.
    #[error("{}", text::rpc_error(.0))]
    Rpc(#[from] Status),
    #[error("{0}")]
    Text(String),
    /// Everything has been said on standard error already.
    #[error("")]
    Said,
}

impl VerbError {
    fn text(reason: impl std::fmt::Display) -> Self {
        Self::Text(reason.to_string())
    }
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<(), VerbError>> + 'a>>;

/// One verb of a command line.
struct Verb {
    /// Words separated by blanks, such as `entry create`.
    words: &'static str,
    summary: &'static str,
    door: Door,
    /// Adds the verb's own flags.
    flags: fn(FlagSet) -> FlagSet,
    /// Has it `-output`?
    output: bool,
    run: for<'a> fn(&'a mut Call<'_>) -> Running<'a>,
    /// What stands before an error on standard error.
    error_prefix: &'static str,
    /// Goes on until it is stopped, so that waiting is what it is for.
    endless: bool,
}

/// A verb that the daemon's own crate runs.
struct Daemon {
    word: &'static str,
    summary: &'static str,
    run: fn(&[String]) -> u8,
}

/// A command line: its name and what it knows.
struct Program<'a> {
    name: &'static str,
    verbs: &'a [Verb],
    daemons: &'a [Daemon],
    /// First words of SPIRE's verbs whose parts are not built yet.
    not_yet: &'static [&'static str],
}

/// One call of a verb.
struct Call<'a> {
    flags: Flags,
    place: Place,
    json: bool,
    out: &'a mut Out,
}

impl Call<'_> {
    async fn channel(&self) -> Result<Channel, VerbError> {
        channel::dial(&self.place).await
    }

    /// Prints one message as SPIRE's JSON: one line, sorted keys.
    fn print_json(&mut self, value: &Value) {
        self.out.say(&json::one_line(value));
    }

    /// Prints `value` if JSON is wanted, else `pretty`.
    fn print(&mut self, value: impl FnOnce() -> Value, pretty: impl FnOnce() -> String) {
        if self.json {
            self.print_json(&value());
        } else {
            self.out.say(&pretty());
        }
    }
}

/// Finds the verb that `args` begin with, runs it and gives its exit code: 0 done, 1 failed, 127 no such command.
fn dispatch(program: &Program<'_>, args: &[String], out: &mut Out) -> u8 {
    let words: Vec<&str> = args.iter().map_while(|a| (!a.starts_with('-')).then_some(a.as_str())).collect();
    let Some(first) = words.first() else {
        if asks(args, &["version", "v"]) {
            out.complain(&format!("{}\n", env!("CARGO_PKG_VERSION")));
            return 0;
        }
        out.complain(&usage(program));
        return if asks(args, &["help", "h"]) { 0 } else { UNKNOWN_COMMAND };
    };
    let fits = |v: &&Verb| {
        let mut mine = words.iter();
        v.words.split(' ').all(|w| mine.next() == Some(&w))
    };
    if let Some(verb) = program.verbs.iter().filter(fits).max_by_key(|v| v.words.len()) {
        let taken = verb.words.split(' ').count();
        return run(program.name, verb, args.get(taken..).unwrap_or_default(), out);
    }
    if let Some(daemon) = program.daemons.iter().find(|d| d.word == *first) {
        let rest = args.get(1..).unwrap_or_default();
        if asks(rest, &["help", "h"]) {
            out.complain(&examples::text(program.name, daemon.word));
        }
        return (daemon.run)(rest);
    }
    if program.not_yet.contains(first) {
        out.complain(&format!("Error: not supported yet: {}\n", words.join(" ")));
        return 1;
    }
    if program.verbs.iter().any(|v| v.words.split(' ').next() == Some(first)) {
        out.complain(&group_usage(first, program.verbs));
        return u8::from(!asks(args, &["help", "h"]));
    }
    out.complain(&usage(program));
    UNKNOWN_COMMAND
}

/// Does one of the arguments before `--` say one of these names, with one dash or two?
fn asks(args: &[String], names: &[&str]) -> bool {
    let mut flags = args.iter().take_while(|a| *a != "--").filter(|a| a.starts_with('-'));
    flags.any(|a| names.contains(&a.trim_start_matches('-')))
}

fn run(program: &str, verb: &Verb, args: &[String], out: &mut Out) -> u8 {
    let mut set = (verb.flags)(verb.door.flags(FlagSet::new(verb.words)));
    if verb.output {
        set = set.text("output", "pretty", "Form of the output: pretty or json");
    }
    let flags = match set.parse(args) {
        Ok(flags) => flags,
        Err(FlagError::Help(usage)) => {
            out.complain(&format!("{}{usage}", examples::text(program, verb.words)));
            return 0;
        }
        Err(FlagError::Bad { message, usage }) => {
            out.complain(&format!("{message}\n{usage}"));
            return 1;
        }
    };
    match start(verb, flags, out) {
        Ok(()) => 0,
        Err(VerbError::Said) => 1,
        Err(e) => {
            out.complain(&format!("{}{e}\n", verb.error_prefix));
            1
        }
    }
}

fn start(verb: &Verb, flags: Flags, out: &mut Out) -> Result<(), VerbError> {
    let json = match flags.text("output") {
        "" | "pretty" => false,
        "json" => true,
        other => {
            return Err(VerbError::Text(format!(
                "unknown output format \"{other}\", expected pretty or json"
            )));
        }
    };
    // SPIRE ignores words after the flags. A flag among them would be ignored too, which nobody means.
    if let (Some(word), Some(lost)) = (flags.rest().first(), flags.rest().iter().find(|a| a.starts_with('-')))
    {
        return Err(VerbError::Text(format!("\"{word}\" ends the flags, so {lost} would be ignored")));
    }
    let place = verb.door.place(&flags, |name| std::env::var(name).ok())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| VerbError::Text(format!("cannot start the runtime: {e}")))?;
    let progress = out.progress();
    let what = format!("waiting for the answer to `{}`", verb.words);
    let mut call = Call { flags, place, json, out };
    let work = (verb.run)(&mut call);
    runtime.block_on(async { if verb.endless { work.await } else { progress.during(&what, work).await } })
}

fn usage(program: &Program<'_>) -> String {
    let name = program.name;
    let mut text =
        format!("Usage: {name} [--version] [--help] <command> [<args>]\n\nAvailable commands are:\n");
    let mut rows: Vec<_> = program.verbs.iter().map(|v| (v.words, v.summary)).collect();
    rows.extend(program.daemons.iter().map(|d| (d.word, d.summary)));
    rows.sort_unstable();
    for (words, summary) in rows {
        text.push_str(&format!("    {words:<32}{summary}\n"));
    }
    text.push_str(&format!("\n`{name} <command> -help` shows an example and the flags.\n"));
    text
}

fn group_usage(group: &str, verbs: &[Verb]) -> String {
    let mut text = format!("`{group}` needs a second word:\n");
    for verb in verbs.iter().filter(|v| v.words.split(' ').next() == Some(group)) {
        text.push_str(&format!("    {:<32}{}\n", verb.words, verb.summary));
    }
    text
}

fn exit(code: u8) -> ExitCode {
    ExitCode::from(code)
}

/// Reads a file, or standard input for `-` and the empty path.
fn read_input(path: &str) -> Result<Vec<u8>, VerbError> {
    let read = if matches!(path, "" | "-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    read.map_err(|e| {
        VerbError::Text(format!("unable to read {}: {e}", if path.is_empty() { "-" } else { path }))
    })
}

/// Writes a file with the given mode from its first byte on.
fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), VerbError> {
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
        // An older file keeps its mode through `open`.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)
    };
    write().map_err(|e: std::io::Error| VerbError::Text(format!("cannot write {}: {e}", path.display())))
}

fn logger_flags(set: FlagSet) -> FlagSet {
    set.text("level", "", "The new log level: panic, fatal, error, warn, info, debug or trace")
}

/// The number of the level that `-level` names.
fn level_flag(call: &Call<'_>) -> Result<i32, VerbError> {
    use avouch_proto::types::LogLevel;
    let name = call.flags.text("level");
    let level = match name.to_lowercase().as_str() {
        "" => return Err(VerbError::text("a value (-level) must be set")),
        "warning" => Some(LogLevel::Warn),
        other => LogLevel::from_str_name(&other.to_uppercase()).filter(|l| *l != LogLevel::Unspecified),
    };
    level.map(i32::from).ok_or_else(|| VerbError::Text(format!("the value {name:?} is not a valid setting")))
}

fn logger_text(logger: &avouch_proto::types::Logger) -> String {
    use avouch_proto::types::LogLevel;
    let name = |number: i32| match LogLevel::try_from(number) {
        Ok(LogLevel::Warn) => "warning".to_owned(),
        Ok(level) => level.as_str_name().to_lowercase(),
        Err(_) => number.to_string(),
    };
    format!("Logger Level : {}\nLaunch Level : {}\n\n", name(logger.current_level), name(logger.launch_level))
}

/// The chain of a daemon's own SVID in its block of facts.
fn chain_text<'a>(
    chain: impl Iterator<Item = (Option<&'a avouch_proto::types::Spiffeid>, &'a str, i64)>,
) -> String {
    let mut out = String::from("  SVID Chain:\n");
    for (at, (id, subject, expires_at)) in chain.enumerate() {
        let (id, end) = (id_text(id), text::rfc3339(expires_at));
        out.push_str(&format!(
            "    [{at}] SPIFFE ID:  {id}\n        Subject:    {subject}\n        Expires At: {end}\n"
        ));
    }
    out
}

fn health_flags(set: FlagSet) -> FlagSet {
    set.bool("shallow", false, "Accepted and ignored, as in SPIRE").bool(
        "verbose",
        false,
        "Say what is being done and why it failed",
    )
}

/// Asks the health service. The error is what follows "unhealthy: ".
async fn check_health(call: &mut Call<'_>) -> Result<(), &'static str> {
    use tonic_health::pb::health_check_response::ServingStatus;
    const UNKNOWN: &str = "unable to determine health";
    let asked = async {
        let mut client = tonic_health::pb::health_client::HealthClient::new(call.channel().await?);
        let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
        Ok::<_, VerbError>(client.check(request).await?.into_inner().status)
    };
    match tokio::time::timeout(HEALTH_WAIT, asked).await {
        Ok(Ok(status)) if status == i32::from(ServingStatus::Serving) => Ok(()),
        Ok(Ok(_)) => Err("returned status \"NOT_SERVING\""),
        Ok(Err(e)) => {
            if call.flags.bool("verbose") {
                call.out.complain(&format!("Failed to check health: {e}\n"));
            }
            Err(UNKNOWN)
        }
        Err(_) => Err(UNKNOWN),
    }
}

/// A SPIFFE ID as a flag gives it.
fn id_flag(text: &str) -> Result<avouch_proto::types::Spiffeid, VerbError> {
    let id: SpiffeId = text.parse().map_err(VerbError::text)?;
    Ok(avouch_proto::convert::spiffe_id_to_wire(&id))
}

/// A wire ID as text; empty if it is absent.
fn id_text(id: Option<&avouch_proto::types::Spiffeid>) -> String {
    id.map(|id| format!("spiffe://{}{}", id.trust_domain, id.path)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verbs() -> Vec<Verb> {
        let verb = |words| Verb {
            words,
            summary: "Does it",
            door: channel::SERVER,
            flags: |set| set.bool("fail", false, "Fail"),
            output: true,
            run: |call| {
                Box::pin(async move {
                    if call.flags.bool("fail") {
                        return Err(Status::not_found("agent not found").into());
                    }
                    call.print(|| serde_json::json!({"b": 1, "a": "2"}), || "done\n".to_owned());
                    Ok(())
                })
            },
            error_prefix: "Error: ",
            endless: false,
        };
        vec![verb("agent show"), verb("api fetch"), verb("api fetch jwt")]
    }

    fn call(args: &[&str]) -> (u8, String, String) {
        let (mut out, captured) = Out::captured();
        let args: Vec<_> = args.iter().map(|a| (*a).to_owned()).collect();
        let daemons =
            [Daemon { word: "run", summary: "Runs", run: |args| u8::try_from(args.len()).unwrap() }];
        let program =
            Program { name: "avouch-server", verbs: &verbs(), daemons: &daemons, not_yet: &["federation"] };
        let code = dispatch(&program, &args, &mut out);
        (code, captured.out(), captured.err())
    }

    #[test]
    fn an_unknown_or_missing_command_exits_127_with_usage_on_stderr() {
        for args in [[].as_slice(), &["nope"]] {
            let (code, out, err) = call(args);
            assert_eq!((code, out.as_str()), (127, ""));
            assert!(err.starts_with("Usage: avouch-server [--version] [--help] <command> [<args>]"));
        }
    }

    #[test]
    fn a_group_without_a_verb_exits_1() {
        assert_eq!(call(&["agent"]).0, 1);
        assert_eq!(call(&["agent", "nope"]).0, 1);
    }

    #[test]
    fn version_and_help_print_to_stderr_and_exit_0() {
        let (code, out, err) = call(&["--version"]);
        assert_eq!((code, out.as_str(), err.trim()), (0, "", env!("CARGO_PKG_VERSION")));
        assert_eq!(call(&["-help"]).0, 0);
        assert_eq!(call(&["agent", "show", "-h"]).0, 0);
    }

    #[test]
    fn a_refusal_is_printed_as_spire_prints_it() {
        let (code, out, err) = call(&["agent", "show", "-fail"]);
        assert_eq!((code, out.as_str()), (1, ""));
        assert_eq!(err, "Error: rpc error: code = NotFound desc = agent not found\n");
    }

    #[test]
    fn the_longest_verb_wins_and_json_is_one_sorted_line() {
        assert_eq!(call(&["api", "fetch", "jwt", "-output", "json"]).1, "{\"a\":\"2\",\"b\":1}\n");
        assert_eq!(call(&["api", "fetch"]).1, "done\n");
        assert_eq!(call(&["api", "fetch", "-output", "xml"]).0, 1);
    }

    #[test]
    fn a_bad_flag_exits_1_and_shows_the_usage() {
        let (code, _, err) = call(&["agent", "show", "-nope"]);
        assert_eq!(code, 1);
        assert!(err.starts_with("flag provided but not defined: -nope\nUsage of agent show:\n"), "{err}");
    }

    #[test]
    fn levels_read_as_spire_prints_them() {
        let logger = avouch_proto::types::Logger { current_level: 4, launch_level: 5 };
        assert_eq!(logger_text(&logger), "Logger Level : warning\nLaunch Level : info\n\n");
    }

    #[test]
    fn a_daemon_verb_gets_the_arguments_after_it() {
        assert_eq!(call(&["run", "-config", "x"]).0, 2);
    }

    #[test]
    fn a_verb_of_a_part_that_is_not_built_says_so() {
        let (code, out, err) = call(&["federation", "list", "-output", "json"]);
        assert_eq!(
            (code, out.as_str(), err.as_str()),
            (1, "", "Error: not supported yet: federation list\n")
        );
    }

    #[test]
    fn help_begins_with_an_example() {
        let (code, _, err) = call(&["agent", "show", "-help"]);
        assert_eq!(code, 0);
        assert!(err.starts_with("Example:\n    avouch-server agent show "), "{err}");
        assert!(err.contains("\nUsage of agent show:\n"), "{err}");
    }
}
