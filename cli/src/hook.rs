//! `avouch gate check`: a hook asks the node agent what somebody may do who showed it a token.
//!
//! Never decides, and never goes on where something is unclear: every code but 0 is a no. The token never stands on a
//! command line, where everybody on the machine reads it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use avouch_credential::limits::PRESENTED_TOKEN_MAX;
use avouch_domain::limits::REQUEST_TEXT_MAX;
use avouch_proto::gate_v1::gate_client::GateClient;
use avouch_proto::gate_v1::{CheckRequest, CheckResponse, Param};
use clap::Args;
use serde_json::json;
use zeroize::Zeroizing;

use crate::exit::{DENIED, PENDING, UNREACHABLE};
use crate::failure::Failure;
use crate::out::Out;
use crate::verbs::channel::{AGENT, dial};

/// Longest token that is read, in bytes: as much as a node agent takes.
const TOKEN_MAX: u64 = PRESENTED_TOKEN_MAX as u64;
/// Longest text that is shown to a person, in bytes.
const SHOWN_MAX: u64 = REQUEST_TEXT_MAX as u64;
/// How long an answer may take: the node agent may have to wait for the server, and for new rules.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// What a hook wants to know.
#[derive(Debug, Args)]
pub struct Check {
    /// The file with the token that was shown: a task token or a JWT-SVID; - reads standard input
    #[arg(long, value_name = "FILE")]
    pub peer_file: PathBuf,
    /// A value that rules look at; several times for one that is a set
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub params: Vec<String>,
    /// A file with all that would be done, such as a diff: what a person is shown if it takes one's yes
    #[arg(long, value_name = "FILE")]
    pub show: Option<PathBuf>,
    /// Only to know: nothing is recorded
    #[arg(long)]
    pub what_if: bool,
    /// The hook holds what follows to limits: print them, and take "limit" for a yes
    #[arg(long)]
    pub limits: bool,
    /// What is to be done, as repo.push
    pub action: String,
    /// To what: an ID of resources.toml, as git/pay
    pub resource: String,
}

/// Asks, and gives the exit code: 0 it may, 2 it may not, 4 nobody answers, 5 somebody has to say yes first.
pub async fn run(check: Check, agent_socket: &Path, as_json: bool, out: &mut Out) -> u8 {
    match asked(&check, agent_socket).await {
        Ok(answer) => told(&check, &answer, as_json, out),
        Err(failure) => Failure::code_of(Err(failure), out),
    }
}

async fn asked(check: &Check, agent_socket: &Path) -> Result<CheckResponse, Failure> {
    let params = check.params.iter().map(|param| {
        let (name, value) = param
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--param is NAME=VALUE, not \"{param}\"")))?;
        Ok(Param { name: name.to_owned(), value: value.to_owned() })
    });
    let params = params.collect::<Result<Vec<_>, Failure>>()?;
    let token = token(&check.peer_file)?;
    let request = CheckRequest {
        token: token.to_string(),
        action: check.action.clone(),
        resource: check.resource.clone(),
        params,
        what_if: check.what_if,
        shown: check.show.as_deref().map(shown).transpose()?.unwrap_or_default(),
        certificates: Vec::new(),
    };
    let place = AGENT.found(agent_socket, |name| std::env::var(name).ok())?;
    let answered = async {
        let channel = dial(&place).await?;
        Ok::<_, Failure>(GateClient::new(channel).check(request).await?.into_inner())
    };
    let late = || {
        let within = ANSWER_MAX.as_secs();
        Failure::new(UNREACHABLE, format!("the node agent at {place} gave no answer within {within} s"))
    };
    tokio::time::timeout(ANSWER_MAX, answered).await.unwrap_or_else(|_| Err(late()))
}

/// What a person is shown. More than anybody reads is passed on as far as it shows that.
fn shown(file: &Path) -> Result<String, Failure> {
    let unread = |e: &dyn std::fmt::Display| {
        Failure::new(
            DENIED,
            format!("what is to be shown can't be read from {}, so it is denied: {e}", file.display()),
        )
    };
    let mut bytes = Vec::new();
    let read = fs::File::open(file).and_then(|file| file.take(SHOWN_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|e| unread(&e))?;
    if bytes.len() as u64 > SHOWN_MAX {
        let text = format!(
            "{} is longer than {SHOWN_MAX} bytes, more than anybody reads, so it is denied",
            file.display()
        );
        return Err(Failure::new(DENIED, text));
    }
    // A diff may hold bytes that are no text: they are shown as such.
    Ok(bytes.utf8_chunks().fold(String::new(), |mut text, chunk| {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
        text
    }))
}

/// The token without what surrounds it.
fn token(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let shown = file.display();
    let mut text = Zeroizing::new(String::new());
    let read = if file == Path::new("-") {
        io::stdin().lock().take(TOKEN_MAX + 1).read_to_string(&mut text)
    } else {
        fs::File::open(file).and_then(|file| file.take(TOKEN_MAX + 1).read_to_string(&mut text))
    };
    read.map_err(|e| {
        Failure::new(DENIED, format!("no token can be read from {shown}, so it is denied: {e}"))
    })?;
    if text.len() as u64 > TOKEN_MAX {
        let text = format!("{shown} is longer than {TOKEN_MAX} bytes and no token, so it is denied");
        return Err(Failure::new(DENIED, text));
    }
    let token = Zeroizing::new(text.trim().to_owned());
    if token.is_empty() {
        let next = "show one: `avouch task token RESOURCE` inside a run";
        return Err(Failure::new(DENIED, format!("{shown} holds no token, so it is denied; {next}")));
    }
    Ok(token)
}

fn told(check: &Check, answer: &CheckResponse, as_json: bool, out: &mut Out) -> u8 {
    let (code, word, text) = verdict(check.limits, answer);
    if as_json {
        let line = json!({"allowed": code == 0, "outcome": answer.outcome, "reason": answer.reason, "text": text,
            "limits": answer.limits, "rules": answer.rules, "rules_number": answer.rules_number,
            "record": answer.record, "spiffe_id": answer.spiffe_id, "request": answer.request});
        out.line(&line.to_string());
    } else if code == 0 && !answer.limits.is_empty() {
        out.line(&answer.limits);
    }
    out.complain(&format!("{word}: {text}\n"));
    code
}

/// Exit code, the word that people read, and a sentence. What is not understood is a no.
fn verdict(holds_limits: bool, answer: &CheckResponse) -> (u8, &'static str, String) {
    let limits = &answer.limits;
    match answer.outcome.as_str() {
        // An allow never carries limits; if it does, they count.
        "allow" if limits.is_empty() => (0, "allow", answer.text.clone()),
        "constrain" if holds_limits && !limits.is_empty() => (0, "limit", answer.text.clone()),
        "allow" | "constrain" => {
            let next = "a hook that holds what follows to them says so with --limits";
            (DENIED, "deny", format!("it is allowed within limits only ({limits}); {next}"))
        }
        "step_up" => (PENDING, "ask", answer.text.clone()),
        "deny" => (DENIED, "deny", answer.text.clone()),
        other => (
            DENIED,
            "deny",
            format!("the node agent says \"{}\", which is no answer", other.escape_default()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(outcome: &str, limits: &str) -> CheckResponse {
        CheckResponse {
            outcome: outcome.into(),
            limits: limits.into(),
            text: "why".into(),
            ..Default::default()
        }
    }

    fn code(holds_limits: bool, outcome: &str, limits: &str) -> u8 {
        verdict(holds_limits, &answer(outcome, limits)).0
    }

    #[test]
    fn only_an_allow_ends_with_0_and_a_limit_only_for_a_hook_that_holds_it() {
        assert_eq!(code(false, "allow", ""), 0);
        assert_eq!((code(false, "constrain", "read_only"), code(true, "constrain", "read_only")), (2, 0));
        assert_eq!((code(true, "constrain", ""), code(false, "allow", "read_only")), (2, 2));
        assert_eq!((code(true, "deny", ""), code(true, "step_up", "")), (2, 5));
        assert_eq!((code(true, "", ""), code(true, "ALLOW", "")), (2, 2));
        let (_, word, text) = verdict(false, &answer("constrain", "max_rows=5"));
        assert!(word == "deny" && text.contains("max_rows=5") && text.contains("--limits"), "{text}");
    }

    #[test]
    fn a_token_is_read_without_what_surrounds_it_and_nothing_else_is_one() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("token");
        fs::write(&file, " a.b.c\n").unwrap();
        assert_eq!(token(&file).unwrap().as_str(), "a.b.c");
        fs::write(&file, "\n").unwrap();
        assert!(token(&file).unwrap_err().text.contains("holds no token"));
        fs::write(&file, "a".repeat(20_000)).unwrap();
        assert!(token(&file).unwrap_err().text.contains("longer than 16384 bytes"));
        fs::remove_file(&file).unwrap();
        assert_eq!(token(&file).unwrap_err().code, DENIED);
    }

    #[test]
    fn limits_that_the_hook_holds_are_printed_and_json_is_one_line() {
        let check = Check {
            peer_file: "-".into(),
            params: Vec::new(),
            show: None,
            what_if: false,
            limits: true,
            action: "a".into(),
            resource: "g/r".into(),
        };
        let (mut out, captured) = Out::captured();
        assert_eq!(told(&check, &answer("constrain", "max_rows=5"), false, &mut out), 0);
        assert_eq!((captured.out(), captured.err()), ("max_rows=5\n".to_owned(), "limit: why\n".to_owned()));
        let (mut out, captured) = Out::captured();
        assert_eq!(told(&check, &answer("deny", ""), true, &mut out), DENIED);
        let line: serde_json::Value = serde_json::from_str(&captured.out()).unwrap();
        assert_eq!((line["allowed"].clone(), line["outcome"].clone()), (false.into(), "deny".into()));
    }
}
