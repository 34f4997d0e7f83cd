//! The first line each way between the shim and the host: which gate is wanted, and whether it is had.
//!
//! Never carries who asks: the kernel knows that.

use serde::{Deserialize, Serialize};

use super::limits::{HELLO_MAX, QUOTE_MAX};
use super::quote;

/// The form of the two lines.
const VERSION: u32 = 1;

/// What the shim says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    avouch_gate: u32,
    /// The gate's name.
    pub gate: String,
}

/// What the host answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    avouch_gate: u32,
    /// Why the gate is not had; it is if this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// Why a gate is not had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The hello can't be understood.
    Hello,
    /// This process may not use the gates of the run.
    NotAdmitted,
    /// The run has no gate of this name.
    UnknownGate,
    /// The tool server could not be started.
    NoServer,
    /// Too many are in use.
    Full,
}

/// Why a gate is not had, and one sentence on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    pub why: Why,
    pub text: String,
}

impl Hello {
    /// Asks for a gate.
    #[must_use]
    pub fn to(gate: &str) -> Self {
        Self { avouch_gate: VERSION, gate: gate.to_owned() }
    }

    /// Reads what a shim said.
    ///
    /// # Errors
    /// One sentence on what was expected and what came.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        let hello: Self = read(line, "a hello: {\"avouch_gate\":1,\"gate\":NAME}")?;
        if hello.avouch_gate != VERSION {
            return Err(format!(
                "the shim speaks version {} and the gates speak {VERSION}; use one release of avouch for both",
                hello.avouch_gate
            ));
        }
        Ok(hello)
    }

    /// The line, with its end.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

impl Answer {
    /// The gate is had.
    #[must_use]
    pub fn yes() -> Self {
        Self { avouch_gate: VERSION, refused: None }
    }

    /// The gate is not had.
    #[must_use]
    pub fn no(why: Why, text: impl Into<String>) -> Self {
        let text = quote(&text.into(), HELLO_MAX / 2);
        Self { avouch_gate: VERSION, refused: Some(Refused { why, text }) }
    }

    /// Reads what a host answered.
    ///
    /// # Errors
    /// One sentence on what was expected and what came.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        read(line, "the answer of a gate")
    }

    /// The line, with its end.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

fn read<'a, T: Deserialize<'a>>(line: &'a [u8], expected: &str) -> Result<T, String> {
    if line.len() > HELLO_MAX {
        return Err(format!("expected {expected}, and a line of {} bytes came", line.len()));
    }
    serde_json::from_slice(line).map_err(|e| {
        let came = quote(&String::from_utf8_lossy(line), QUOTE_MAX);
        format!("expected {expected}, and \"{came}\" came: {e}")
    })
}

fn line(value: &impl Serialize) -> Vec<u8> {
    // Two flat structures of texts and numbers: there is nothing that could fail.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(mut line: Vec<u8>) -> Vec<u8> {
        assert_eq!(line.pop(), Some(b'\n'));
        line
    }

    #[test]
    fn both_lines_are_read_as_they_are_written() {
        assert_eq!(Hello::read(&bare(Hello::to("files").line())), Ok(Hello::to("files")));
        for answer in [Answer::yes(), Answer::no(Why::UnknownGate, "no\nsuch gate")] {
            assert_eq!(Answer::read(&bare(answer.line())), Ok(answer));
        }
        let long = Answer::no(Why::NoServer, "x".repeat(10 * HELLO_MAX));
        assert!(Answer::read(&bare(long.line())).is_ok());
    }

    #[test]
    fn anything_else_is_told_with_what_was_expected() {
        for (line, told) in [
            ("", "expected a hello"),
            ("{\"avouch_gate\":1}", "expected a hello"),
            ("{\"avouch_gate\":1,\"gate\":\"a\",\"as\":\"b\"}", "unknown field"),
            ("{\"avouch_gate\":2,\"gate\":\"a\"}", "use one release of avouch"),
        ] {
            assert!(Hello::read(line.as_bytes()).unwrap_err().contains(told), "{line}");
        }
        assert!(Hello::read(&vec![b' '; HELLO_MAX + 1]).unwrap_err().contains("a line of 1025 bytes came"));
    }
}
