//! `avouch rules`: checks a folder of rules, tries a request against it, writes a small one to start with.
//!
//! A folder on disk is all it looks at; only to try or to list what an identity may do by the rules in force does it ask the server. It
//! decides nothing itself; `avouch-rules` does.

mod try_out;
pub mod what_can;

pub use try_out::run_in_force;

use std::path::{Path, PathBuf};

use avouch::exit::{FAILED, FINDING};
use avouch::out::{Colour, Out};
use avouch::rules_folder as folder;
use avouch_rules::{Finding, Rules, STARTER, check};
use serde_json::{Value, json};

const CHECK_EXAMPLES: &str = "Examples:
  avouch rules check rules
  avouch rules check rules -o json

Exit codes: 0 in order, 1 the folder can't be read, 3 something is wrong with it, 64 usage.";
const NEW_EXAMPLES: &str = "Examples:
  avouch rules new rules
  avouch rules new rules && avouch rules check rules";

/// How the answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Text,
    /// One line of JSON
    Json,
}

/// The verbs about rules.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    #[command(after_help = CHECK_EXAMPLES)]
    /// Everything that is wrong with a folder of rules, with its place and what to do
    Check {
        /// The folder
        folder: PathBuf,
        /// How to answer
        #[arg(short = 'o', long = "output", value_enum, default_value_t)]
        output: Format,
    },
    #[command(after_help = try_out::EXAMPLES)]
    /// What a folder of rules, or those in force, say to a request; what is not said of it is in order
    Try(Box<try_out::Request>),
    #[command(after_help = NEW_EXAMPLES)]
    /// Write a small commented folder that passes the check
    New {
        /// The folder, which must be new or empty
        folder: PathBuf,
    },
}

/// Does it and gives the exit code.
pub fn run(command: Command, out: &mut Out) -> u8 {
    match command {
        Command::Check { folder, output } => check_folder(&folder, output, out),
        Command::Try(request) => try_out::run(&request, out),
        Command::New { folder } => match folder::write(&folder, &STARTER) {
            Ok(()) => {
                let shown = folder.display();
                out.line(&format!("wrote {} files to {shown}", STARTER.len()));
                out.line(&format!("{} avouch rules check {shown}", out.paint(Colour::Dim, "next:")));
                0
            }
            Err(e) => failed(&e, out),
        },
    }
}

fn failed(reason: &str, out: &mut Out) -> u8 {
    out.complain(&format!("avouch rules: {reason}\n"));
    FAILED
}

/// Reads and checks a folder. What is wrong with it is said, and is the exit code.
fn load(path: &Path, output: Format, out: &mut Out) -> Result<Rules, u8> {
    let files = folder::read(path).map_err(|e| failed(&e, out))?;
    let folder = files.and_then(|files| avouch_rules::Folder::new(files).map_err(|f| (None, f)));
    let checked = folder.and_then(|folder| check(&folder).map_err(|f| (Some(folder.digest()), f)));
    checked.map_err(|(digest, findings)| {
        let text = match output {
            Format::Text => findings_text(&findings, out),
            Format::Json => format!("{}\n", findings_json(digest.as_deref(), &findings)),
        };
        out.say(&text);
        FINDING
    })
}

fn check_folder(path: &Path, output: Format, out: &mut Out) -> u8 {
    let rules = match load(path, output, out) {
        Ok(rules) => rules,
        Err(code) => return code,
    };
    let resources = rules.catalogue().iter().count();
    let text = match output {
        Format::Text => format!(
            "{}: {} rules, {} examples, {resources} resources\n  {}\n",
            out.paint(Colour::Green, "in order"),
            rules.len(),
            rules.examples(),
            rules.digest()
        ),
        Format::Json => {
            let value = json!({
                "ok": true, "digest": rules.digest(), "rules": rules.len(), "examples": rules.examples(),
                "resources": resources, "findings": [],
            });
            format!("{value}\n")
        }
    };
    out.say(&text);
    0
}

fn findings_text(findings: &[Finding], out: &Out) -> String {
    let mut text: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    let word = if findings.len() == 1 { "finding" } else { "findings" };
    text.push_str(&format!("{}\n", out.paint(Colour::Red, &format!("{} {word}", findings.len()))));
    text
}

fn findings_json(digest: Option<&str>, findings: &[Finding]) -> Value {
    let one = |f: &Finding| json!({ "file": f.file, "line": f.line, "code": f.code, "text": f.text, "next": f.next });
    json!({ "ok": false, "digest": digest, "findings": findings.iter().map(one).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests;
