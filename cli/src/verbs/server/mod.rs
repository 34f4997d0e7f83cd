//! The verbs of `avouch-server`.
//!
//! `run`, `validate`, `backup` and `restore` belong to the server's own crate and are handed in.

mod agents;
mod authorities;
mod bundles;
mod entries;
mod entry_input;
mod mint;
mod token;

use std::process::ExitCode;

use super::channel::SERVER;
use super::flags::FlagSet;
use super::{Call, Daemon, Program, Running, Verb, VerbError};
use crate::out::Out;
use crate::verbs::{json, text};
use avouch_proto::debug_v1::{self, debug_client::DebugClient};
use avouch_proto::logger_v1::{self, logger_client::LoggerClient};
use avouch_proto::types;

/// First words of SPIRE's verbs whose parts of the server are not built yet.
const NOT_YET: &[&str] = &["federation", "wit"];

/// What only the server's crate can do. Each gets the arguments after its word and gives the exit code.
#[derive(Clone, Copy, Debug)]
pub struct Callbacks {
    pub run: fn(&[String]) -> u8,
    pub validate: fn(&[String]) -> u8,
    pub backup: fn(&[String]) -> u8,
    pub restore: fn(&[String]) -> u8,
}

/// Runs the verb that `args` (without the program's name) begin with.
#[must_use]
pub fn main(args: Vec<String>, callbacks: &Callbacks) -> ExitCode {
    super::exit(main_into(&args, callbacks, &mut Out::standard()))
}

/// As [`main`], with the streams given.
#[must_use]
pub fn main_into(args: &[String], callbacks: &Callbacks, out: &mut Out) -> u8 {
    let daemons = [
        Daemon { word: "run", summary: "Runs the server", run: callbacks.run },
        Daemon { word: "validate", summary: "Validates a configuration file", run: callbacks.validate },
        Daemon {
            word: "backup",
            summary: "Writes a backup of the store while it runs",
            run: callbacks.backup,
        },
        Daemon { word: "restore", summary: "Replaces the store by a backup", run: callbacks.restore },
    ];
    let program = Program { name: "avouch-server", verbs: &verbs(), daemons: &daemons, not_yet: NOT_YET };
    super::dispatch(&program, args, out)
}

fn verb(
    words: &'static str,
    summary: &'static str,
    flags: fn(FlagSet) -> FlagSet,
    run: for<'a> fn(&'a mut Call<'_>) -> Running<'a>,
) -> Verb {
    Verb { words, summary, door: SERVER, flags, output: true, run, error_prefix: "Error: ", endless: false }
}

fn no_flags(set: FlagSet) -> FlagSet {
    set
}

fn verbs() -> Vec<Verb> {
    let mut verbs = vec![
        verb("token generate", "Makes a join token", token::flags, |c| Box::pin(token::generate(c))),
        verb("logger get", "Shows the log level", no_flags, |c| Box::pin(logger_get(c))),
        verb("logger set", "Sets the log level", super::logger_flags, |c| Box::pin(logger_set(c))),
        verb("logger reset", "Sets the log level back to that of the launch", no_flags, |c| {
            Box::pin(logger_reset(c))
        }),
        verb("debug getinfo", "Shows facts about the running server", no_flags, |c| Box::pin(getinfo(c))),
        Verb {
            output: false,
            ..verb("healthcheck", "Asks whether the server is healthy", super::health_flags, |c| {
                Box::pin(healthcheck(c))
            })
        },
    ];
    verbs.extend(agents::verbs());
    verbs.extend(authorities::verbs());
    verbs.extend(bundles::verbs());
    verbs.extend(entries::verbs());
    verbs.extend(mint::verbs());
    verbs
}

async fn logger_get(call: &mut Call<'_>) -> Result<(), VerbError> {
    let mut client = LoggerClient::new(call.channel().await?);
    let reply = client.get_logger(logger_v1::GetLoggerRequest {}).await?.into_inner();
    print_logger(call, &reply)
}

async fn logger_set(call: &mut Call<'_>) -> Result<(), VerbError> {
    let new_level = super::level_flag(call)?;
    let mut client = LoggerClient::new(call.channel().await?);
    let reply = client.set_log_level(logger_v1::SetLogLevelRequest { new_level }).await?.into_inner();
    print_logger(call, &reply)
}

async fn logger_reset(call: &mut Call<'_>) -> Result<(), VerbError> {
    let mut client = LoggerClient::new(call.channel().await?);
    let reply = client.reset_log_level(logger_v1::ResetLogLevelRequest {}).await?.into_inner();
    print_logger(call, &reply)
}

fn print_logger(call: &mut Call<'_>, reply: &types::Logger) -> Result<(), VerbError> {
    call.print(|| json::logger(reply), || super::logger_text(reply));
    Ok(())
}

async fn getinfo(call: &mut Call<'_>) -> Result<(), VerbError> {
    let mut client = DebugClient::new(call.channel().await?);
    let reply = client.get_info(debug_v1::GetInfoRequest {}).await?.into_inner();
    call.print(|| json::server_info(&reply), || info_text(&reply));
    Ok(())
}

fn info_text(info: &debug_v1::GetInfoResponse) -> String {
    let mut out = String::from("Server Debug Info:\n");
    let uptime = u64::try_from(info.uptime).unwrap_or(0).saturating_mul(1_000_000_000);
    for (label, value) in [
        ("Uptime:", text::go_duration(uptime)),
        ("Registered Agents:", info.agents_count.to_string()),
        ("Registration Entries:", info.entries_count.to_string()),
        ("Federated Bundles:", info.federated_bundles_count.to_string()),
    ] {
        out.push_str(&format!("  {label:<25}{value}\n"));
    }
    let chain = info.svid_chain.iter().map(|c| (c.id.as_ref(), c.subject.as_str(), c.expires_at));
    out.push_str(&super::chain_text(chain));
    out
}

async fn healthcheck(call: &mut Call<'_>) -> Result<(), VerbError> {
    if call.flags.bool("verbose") {
        call.out.say("Checking server health...\n");
    }
    super::check_health(call)
        .await
        .map_err(|reason| VerbError::Text(format!("server is unhealthy: {reason}")))?;
    call.out.say("Server is healthy.\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_info_block_reads_as_spire_prints_it() {
        let id = Some(types::Spiffeid { trust_domain: "example.org".into(), path: "/spire/server".into() });
        let link = debug_v1::get_info_response::Cert {
            id,
            expires_at: 1_795_346_809,
            subject: "O=SPIRE,C=US".into(),
        };
        let info = debug_v1::GetInfoResponse {
            svid_chain: vec![link],
            uptime: 18,
            agents_count: 1,
            federated_bundles_count: 3,
            entries_count: 10,
        };
        assert_eq!(
            info_text(&info),
            "Server Debug Info:
  Uptime:                  18s
  Registered Agents:       1
  Registration Entries:    10
  Federated Bundles:       3
  SVID Chain:
    [0] SPIFFE ID:  spiffe://example.org/spire/server
        Subject:    O=SPIRE,C=US
        Expires At: 2026-11-22T11:26:49Z
"
        );
    }

    #[test]
    fn every_verb_explains_its_flags() {
        fn none(_: &[String]) -> u8 {
            9
        }
        let callbacks = Callbacks { run: none, validate: none, backup: none, restore: none };
        for verb in verbs() {
            let (mut out, captured) = Out::captured();
            let mut args: Vec<_> = verb.words.split(' ').map(str::to_owned).collect();
            args.push("-help".into());
            assert_eq!(main_into(&args, &callbacks, &mut out), 0);
            assert!(captured.err().contains("  -socketPath string\n"), "{}", verb.words);
            let example = format!("Example:\n    avouch-server {}", verb.words);
            assert!(captured.err().starts_with(&example), "{}", verb.words);
        }
        let (mut out, _) = Out::captured();
        assert_eq!(main_into(&["backup".into()], &callbacks, &mut out), 9);
    }
}
