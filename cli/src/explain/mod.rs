//! `avouch explain`: why a process gets a SPIFFE ID, or why it does not, in one named cause and the next step.
//!
//! Looks and never changes anything. Judges by the same rules as server and agent, from what their APIs, the kernel
//! and the file system say; what it cannot see it says it cannot see.

mod agent_config;
mod causes;
mod diagnose;
mod gather;
mod process;

use std::path::PathBuf;

use avouch_domain::SpiffeId;
use serde_json::json;

pub use causes::{Cause, Row, TABLE};
pub use diagnose::{AgentFacts, Facts, NoAgent, ServerFacts, SocketState, Verdict, diagnose};
pub use process::ProcessFacts;

use crate::out::{Colour, Out};

const GRANTED: &str = "the process gets this SPIFFE ID";
const GRANTED_NEXT: &str = "nothing; an open stream has it already";

/// What to explain, and where to look.
#[derive(Clone, Debug)]
pub struct Question {
    pub pid: i32,
    pub spiffe_id: SpiffeId,
    pub server_socket: PathBuf,
    /// The agent's Workload API socket.
    pub agent_socket: PathBuf,
    /// The agent's administration socket.
    pub admin_socket: PathBuf,
    /// Answer as one line of JSON.
    pub json: bool,
}

/// Answers the question and gives the exit code: 0 if the process gets the ID, else that of the cause.
pub async fn run(question: &Question, out: &mut Out) -> u8 {
    let facts =
        out.during("looking at the process, the agent and the server", gather::gather(question)).await;
    let verdict = diagnose(&facts);
    let text = if question.json { json_answer(&verdict) } else { answer(&verdict, out) };
    out.say(&text);
    verdict.cause.map_or(0, |cause| cause.row().exit)
}

/// Name, sentence and next step.
fn words(verdict: &Verdict) -> (&'static str, &'static str, &'static str) {
    match verdict.cause.map(Cause::row) {
        Some(row) => (row.name, row.sentence, row.next),
        None => ("granted", GRANTED, GRANTED_NEXT),
    }
}

fn answer(verdict: &Verdict, out: &Out) -> String {
    let (name, sentence, next) = words(verdict);
    let colour = if verdict.cause.is_none() { Colour::Green } else { Colour::Red };
    let mut text = format!("{}: {sentence}\n", out.paint(colour, name));
    for detail in &verdict.details {
        text.push_str(&format!("  {detail}\n"));
    }
    text.push_str(&format!("{} {next}\n", out.paint(Colour::Dim, "next:")));
    text
}

fn json_answer(verdict: &Verdict) -> String {
    let (name, sentence, next) = words(verdict);
    let granted = verdict.cause.is_none();
    let value = json!({
        "granted": granted, "cause": name, "sentence": sentence, "details": verdict.details, "next": next,
    });
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone() -> Verdict {
        Verdict { cause: Some(Cause::ProcessGone), details: vec!["pid 7".into()] }
    }

    #[test]
    fn an_answer_names_the_cause_the_details_and_the_next_step() {
        let (out, _) = Out::captured();
        assert_eq!(
            answer(&gone(), &out),
            "process_gone: no such process runs now\n  pid 7\nnext: check the process ID; a restarted process has a new one\n"
        );
        let granted = Verdict { cause: None, details: Vec::new() };
        assert!(answer(&granted, &out).starts_with("granted: the process gets this SPIFFE ID\n"));
    }

    #[test]
    fn the_json_answer_is_one_line_with_the_same_words() {
        let text = json_answer(&gone());
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["granted"], false);
        assert_eq!(
            (value["cause"].as_str(), value["details"][0].as_str()),
            (Some("process_gone"), Some("pid 7"))
        );
    }
}
