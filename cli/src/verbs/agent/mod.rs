//! The verbs of `avouch-agent`.
//!
//! `run` and `validate` belong to the agent's own crate and are handed in.

mod jwt;
mod x509;

use std::process::ExitCode;
use std::time::Duration;

use avouch_proto::agent_debug_v1::{self, debug_client::DebugClient};
use avouch_proto::agent_logger_v1::{self, logger_client::LoggerClient};
use avouch_proto::types;
use avouch_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use tonic::Status;
use tonic::transport::Channel;

use super::channel::{AGENT, AGENT_ADMIN, REPLY_MAX};
use super::flags::FlagSet;
use super::{Call, Daemon, Program, Running, Verb, VerbError};
use crate::out::Out;
use crate::verbs::{json, text};

/// What only the agent's crate can do. Each gets the arguments after its word and gives the exit code.
#[derive(Clone, Copy, Debug)]
pub struct Callbacks {
    pub run: fn(&[String]) -> u8,
    pub validate: fn(&[String]) -> u8,
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
        Daemon { word: "run", summary: "Runs the agent", run: callbacks.run },
        Daemon { word: "validate", summary: "Validates a configuration file", run: callbacks.validate },
    ];
    let program = Program { name: "avouch-agent", verbs: &verbs(), daemons: &daemons, not_yet: &[] };
    super::dispatch(&program, args, out)
}

/// A verb on the Workload API socket: its errors stand alone.
fn api(
    words: &'static str,
    summary: &'static str,
    flags: fn(FlagSet) -> FlagSet,
    run: for<'a> fn(&'a mut Call<'_>) -> Running<'a>,
) -> Verb {
    Verb { words, summary, door: AGENT, flags, output: true, run, error_prefix: "", endless: false }
}

/// A verb on the administration socket.
fn admin(
    words: &'static str,
    summary: &'static str,
    flags: fn(FlagSet) -> FlagSet,
    run: for<'a> fn(&'a mut Call<'_>) -> Running<'a>,
) -> Verb {
    Verb {
        words,
        summary,
        door: AGENT_ADMIN,
        flags,
        output: true,
        run,
        error_prefix: "Error: ",
        endless: false,
    }
}

fn no_flags(set: FlagSet) -> FlagSet {
    set
}

fn timeout_flag(set: FlagSet) -> FlagSet {
    set.duration("timeout", "5s", "How long to wait for an answer")
}

fn verbs() -> Vec<Verb> {
    vec![
        api("api fetch", "Fetches X509-SVIDs", x509::flags, |c| Box::pin(x509::fetch(c))),
        api("api fetch x509", "Fetches X509-SVIDs", x509::flags, |c| Box::pin(x509::fetch(c))),
        Verb {
            output: false,
            endless: true,
            ..api("api watch", "Shows every X509-SVID as it comes", no_flags, |c| Box::pin(x509::watch(c)))
        },
        api("api fetch jwt", "Fetches a JWT-SVID", jwt::fetch_flags, |c| Box::pin(jwt::fetch(c))),
        api("api validate jwt", "Validates a JWT-SVID", jwt::validate_flags, |c| Box::pin(jwt::validate(c))),
        api("validate jwt", "Validates a JWT-SVID", jwt::validate_flags, |c| Box::pin(jwt::validate(c))),
        Verb {
            output: false,
            ..api("healthcheck", "Asks whether the agent is healthy", super::health_flags, |c| {
                Box::pin(healthcheck(c))
            })
        },
        admin("logger get", "Shows the log level", no_flags, |c| Box::pin(logger_get(c))),
        admin("logger set", "Sets the log level", super::logger_flags, |c| Box::pin(logger_set(c))),
        admin("logger reset", "Sets the log level back to that of the launch", no_flags, |c| {
            Box::pin(logger_reset(c))
        }),
        admin("debug getinfo", "Shows facts about the running agent", no_flags, |c| Box::pin(getinfo(c))),
    ]
}

async fn client(call: &Call<'_>) -> Result<SpiffeWorkloadApiClient<Channel>, VerbError> {
    let channel = call.channel().await?;
    Ok(SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(REPLY_MAX))
}

/// Waits for `work` as long as `-timeout` says.
async fn in_time<T>(
    call: &Call<'_>,
    work: impl Future<Output = Result<T, VerbError>>,
) -> Result<T, VerbError> {
    let limit = u64::try_from(call.flags.duration_ns("timeout")).unwrap_or(0);
    match tokio::time::timeout(Duration::from_nanos(limit), work).await {
        Ok(done) => done,
        Err(_) => Err(Status::deadline_exceeded("context deadline exceeded").into()),
    }
}

async fn logger_get(call: &mut Call<'_>) -> Result<(), VerbError> {
    let mut client = LoggerClient::new(call.channel().await?);
    let reply = client.get_logger(agent_logger_v1::GetLoggerRequest {}).await?.into_inner();
    print_logger(call, &reply)
}

async fn logger_set(call: &mut Call<'_>) -> Result<(), VerbError> {
    let new_level = super::level_flag(call)?;
    let mut client = LoggerClient::new(call.channel().await?);
    let reply = client.set_log_level(agent_logger_v1::SetLogLevelRequest { new_level }).await?.into_inner();
    print_logger(call, &reply)
}

async fn logger_reset(call: &mut Call<'_>) -> Result<(), VerbError> {
    let mut client = LoggerClient::new(call.channel().await?);
    let reply = client.reset_log_level(agent_logger_v1::ResetLogLevelRequest {}).await?.into_inner();
    print_logger(call, &reply)
}

fn print_logger(call: &mut Call<'_>, reply: &types::Logger) -> Result<(), VerbError> {
    call.print(|| json::logger(reply), || super::logger_text(reply));
    Ok(())
}

async fn getinfo(call: &mut Call<'_>) -> Result<(), VerbError> {
    let mut client = DebugClient::new(call.channel().await?);
    let reply = client.get_info(agent_debug_v1::GetInfoRequest {}).await?.into_inner();
    call.print(|| json::agent_info(&reply), || info_text(&reply));
    Ok(())
}

fn info_text(info: &agent_debug_v1::GetInfoResponse) -> String {
    let mut out = String::from("Agent Debug Info:\n");
    let uptime = u64::try_from(info.uptime).unwrap_or(0).saturating_mul(1_000_000_000);
    for (label, value) in [
        ("Uptime:", text::go_duration(uptime)),
        ("Last Sync Success:", text::rfc3339(info.last_sync_success)),
        ("Cached X.509 SVIDs:", info.cached_x509_svids_count.to_string()),
        ("Cached JWT SVIDs:", info.cached_jwt_svids_count.to_string()),
        ("Cached SVID Store X.509 SVIDs:", info.cached_svidstore_x509_svids_count.to_string()),
    ] {
        out.push_str(&format!("  {label:<33}{value}\n"));
    }
    let chain = info.svid_chain.iter().map(|c| (c.id.as_ref(), c.subject.as_str(), c.expires_at));
    out.push_str(&super::chain_text(chain));
    out
}

async fn healthcheck(call: &mut Call<'_>) -> Result<(), VerbError> {
    if call.flags.bool("verbose") {
        call.out.say("Checking agent health...\n");
    }
    super::check_health(call)
        .await
        .map_err(|reason| VerbError::Text(format!("Agent is unhealthy: {reason}")))?;
    call.out.say("Agent is healthy.\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_info_block_reads_as_spire_prints_it() {
        let info = agent_debug_v1::GetInfoResponse {
            uptime: 18,
            last_sync_success: 1_795_346_809,
            cached_x509_svids_count: 1,
            ..Default::default()
        };
        assert_eq!(
            info_text(&info),
            "Agent Debug Info:
  Uptime:                          18s
  Last Sync Success:               2026-11-22T11:26:49Z
  Cached X.509 SVIDs:              1
  Cached JWT SVIDs:                0
  Cached SVID Store X.509 SVIDs:   0
  SVID Chain:
"
        );
    }

    fn run(args: &[&str]) -> (u8, String) {
        fn none(_: &[String]) -> u8 {
            0
        }
        let (mut out, captured) = Out::captured();
        let args: Vec<_> = args.iter().map(|a| (*a).to_owned()).collect();
        let code = main_into(&args, &Callbacks { run: none, validate: none }, &mut out);
        (code, captured.err())
    }

    #[test]
    fn an_agent_that_does_not_answer_is_unhealthy() {
        let (code, err) = run(&["healthcheck", "-socketPath", "/nonexistent/api.sock"]);
        assert_eq!((code, err.as_str()), (1, "Agent is unhealthy: unable to determine health\n"));
    }

    #[test]
    fn errors_of_the_api_verbs_stand_alone() {
        let (code, err) = run(&["api", "fetch", "-socketPath", "/nonexistent/api.sock"]);
        assert_eq!(code, 1);
        assert!(err.starts_with("rpc error: code = Unavailable desc = connection error: "), "{err}");
        assert_eq!(run(&["api"]).0, 1);
        assert_eq!(run(&["api", "fetch", "jwt"]), (1, "audience must be specified\n".into()));
    }

    #[test]
    fn every_verb_explains_its_flags_with_an_example() {
        for verb in verbs() {
            let args: Vec<_> = verb.words.split(' ').chain(["-help"]).collect();
            let (code, err) = run(&args);
            assert_eq!(code, 0, "{}", verb.words);
            assert!(err.starts_with(&format!("Example:\n    avouch-agent {}", verb.words)), "{err}");
            assert!(err.contains("  -socketPath string\n"), "{err}");
        }
    }

    #[test]
    fn validate_is_of_a_configuration_and_validate_jwt_of_a_token() {
        assert_eq!(run(&["validate", "-config", "x"]), (0, String::new()));
        assert_eq!(run(&["validate", "jwt"]), (1, "audience must be specified\n".into()));
    }
}
