//! `avouch explain`: why a process gets a SPIFFE ID, or why it does not, in one named cause and the next step.
//!
//! Looks and never changes anything. Judges by the same rules as server and agent, from what their APIs, the kernel
//! and the file system say; what it cannot see it says it cannot see.

mod causes;
mod diagnose;
mod gather;
mod process;

use std::path::PathBuf;

pub use causes::{Cause, Row, TABLE};
pub use diagnose::{AgentFacts, Facts, Finding, ServerFacts, SocketState, diagnose};
pub use process::ProcessFacts;

use crate::out::{Colour, Out};

/// What to explain, and where to look.
#[derive(Clone, Debug)]
pub struct Question {
    pub pid: i32,
    /// As typed; it may be malformed, which is one of the causes.
    pub spiffe_id: String,
    pub server_socket: PathBuf,
    /// The agent's Workload API socket.
    pub agent_socket: PathBuf,
    /// The agent's administration socket.
    pub admin_socket: PathBuf,
}

/// Answers the question and gives the exit code of the cause.
pub async fn run(question: &Question, out: &mut Out) -> u8 {
    let facts = gather::gather(question).await;
    let finding = diagnose(&facts);
    out.say(&answer(&finding, out));
    finding.cause.row().exit
}

fn answer(finding: &Finding, out: &Out) -> String {
    let row = finding.cause.row();
    let colour = if finding.cause == Cause::Granted { Colour::Green } else { Colour::Red };
    let mut text = format!("{}: {}\n", out.paint(colour, row.name), row.sentence);
    for detail in &finding.details {
        text.push_str(&format!("  {detail}\n"));
    }
    text.push_str(&format!("{} {}\n", out.paint(Colour::Dim, "next:"), row.next));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_the_cause_the_details_and_the_next_step() {
        let (out, _) = Out::captured();
        let finding = Finding { cause: Cause::ProcessGone, details: vec!["pid 7".into()] };
        assert_eq!(
            answer(&finding, &out),
            "process_gone: no such process runs now\n  pid 7\nnext: check the process ID; a restarted process has a new one\n"
        );
    }
}
