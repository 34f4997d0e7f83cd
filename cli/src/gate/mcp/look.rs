//! Looks at a tool server once, when a gate is added: which tools it has, and what each is right now.
//!
//! Never calls a tool.

use std::process::Stdio;

use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::time::timeout;

use super::handshake::{self, STATELESS, WITH_HANDSHAKE};
use super::message::{self, Id, Message};
use super::tools::{self, Listed, Listing, Next, Seen};
use crate::gate::child::ToolServer;
use crate::gate::limits::{LINE_MAX, LOOK_TIME_MAX, QUOTE_MAX, SERVER_END_MAX, TEXT_MAX};
use crate::gate::lines::{Line, Lines};
use crate::gate::{Side, quote};

/// A tool as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedTool {
    pub name: String,
    /// See [`super::digest`].
    pub digest: [u8; 32],
    /// What its server says of it: for the eyes of whoever adds it.
    pub description: String,
}

/// Why a server could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookError {
    #[error("{0}")]
    Start(String),
    #[error("the tool server did not list its tools within {} s; start its command by hand and see what it waits for", LOOK_TIME_MAX.as_secs())]
    Late,
    #[error(
        "the tool server ended before it listed its tools; start its command by hand and read what it says"
    )]
    Ended,
    #[error(
        "the tool server can't be understood: {0}; see whether its command speaks MCP on standard output"
    )]
    Unread(String),
    #[error("the tool server speaks revision \"{0}\" of MCP, and the gate speaks {spoken}; take another version of it", spoken = handshake::REVISIONS.join(" and "))]
    Revision(String),
    #[error("the tool server lists two tools named \"{0}\"; nobody could say which one is called")]
    Doubled(String),
    #[error("the tool server {0}")]
    List(String),
}

/// Why a server could not be looked at, and the end of what it wrote on standard error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}{}", if said.is_empty() { String::new() } else { format!("; it said: {said}") })]
pub struct LookFailure {
    pub why: LookError,
    pub said: String,
}

/// Starts a tool server, lists all its tools and ends it. What it says on standard error is told only if that fails.
///
/// # Errors
/// Why that could not be done, and what to do.
pub async fn look(command: &[String]) -> Result<Vec<PinnedTool>, LookFailure> {
    let started = ToolServer::start(command, Stdio::piped());
    let (mut server, stdin, stdout) =
        started.map_err(|text| LookFailure { why: LookError::Start(text), said: String::new() })?;
    let said = server.stderr().map(|stderr| tokio::spawn(last_of(stderr)));
    let talk = async {
        let mut talk = Talk { to: stdin, from: Lines::new(stdout, LINE_MAX), asked: 0 };
        talk.tools().await
    };
    let found = timeout(LOOK_TIME_MAX, talk).await.unwrap_or(Err(LookError::Late));
    server.end().await;
    match found {
        Ok(tools) => Ok(tools),
        Err(why) => {
            // Somebody it started may hold the pipe open.
            let said = match said {
                Some(said) => timeout(SERVER_END_MAX, said).await.ok().and_then(Result::ok),
                None => None,
            };
            Err(LookFailure { why, said: said.unwrap_or_default() })
        }
    }
}

/// The last line of what is said, as far as it may be quoted.
async fn last_of(stderr: ChildStderr) -> String {
    let (mut lines, mut last) = (Lines::new(stderr, TEXT_MAX), String::new());
    while let Ok(line @ (Line::Whole(_) | Line::TooLong)) = lines.next().await {
        if let Line::Whole(line) = line {
            let text = String::from_utf8_lossy(&line);
            if !text.trim().is_empty() {
                last = quote(text.trim(), TEXT_MAX);
            }
        }
    }
    last
}

struct Talk {
    to: ChildStdin,
    from: Lines<ChildStdout>,
    asked: i64,
}

impl Talk {
    async fn tools(&mut self) -> Result<Vec<PinnedTool>, LookError> {
        let greeting = json!({
            "protocolVersion": WITH_HANDSHAKE, "capabilities": {}, "clientInfo": tools::client_info(),
        });
        // A server that knows only the newer revision answers the handshake of the older with an error.
        let (result, _) = self.ask(|id| message::request(id, "initialize", greeting)).await?;
        let revision = match result {
            Some(result) => {
                handshake::welcome(result).map_err(|unknown| LookError::Revision(unknown.revision))?;
                self.send(&message::notification("notifications/initialized")).await?;
                None
            }
            None => Some(STATELESS),
        };
        let (mut listing, mut cursor) = (Listing::default(), None::<String>);
        let tools = loop {
            let (result, bytes) = self.ask(|id| tools::question(id, cursor.as_deref(), revision)).await?;
            let result =
                result.ok_or_else(|| LookError::List("answered tools/list with an error".to_owned()))?;
            match listing.page(result, bytes).map_err(|e| LookError::List(format!("can't be listed: {e}")))? {
                Next::Page(next) => cursor = Some(next),
                Next::Done(tools) => break tools,
            }
        };
        pinned(&tools)
    }

    async fn send(&mut self, line: &[u8]) -> Result<(), LookError> {
        let line = [line, b"\n"].concat();
        self.to.write_all(&line).await.map_err(|_| LookError::Ended)
    }

    /// Asks, and waits for the answer: the result, or nothing if it is an error, and how many bytes it took.
    async fn ask(
        &mut self,
        question: impl FnOnce(&Id) -> Vec<u8>,
    ) -> Result<(Option<Map<String, Value>>, usize), LookError> {
        self.asked += 1;
        let id = Id::Number(self.asked);
        self.send(&question(&id)).await?;
        loop {
            let line = match self.from.next().await {
                Ok(Line::Whole(line)) if line.is_empty() => continue,
                Ok(Line::Whole(line)) => line,
                Ok(Line::TooLong) => {
                    return Err(LookError::Unread(format!("a line of more than {LINE_MAX} bytes")));
                }
                Ok(Line::End) | Err(_) => return Err(LookError::Ended),
            };
            match message::read(&line, Side::ToolServer).map_err(|unread| LookError::Unread(unread.text))? {
                Message::Answer { id: Some(answered), result } if answered == id => {
                    return Ok((result, line.len()));
                }
                Message::Request { id, method, .. } => {
                    let text = format!("nothing is answered while tools are looked at: {method}");
                    self.send(&message::error(Some(&id), message::METHOD_NOT_FOUND, &text, None)).await?;
                }
                _ => {}
            }
        }
    }
}

fn pinned(tools: &[Listed]) -> Result<Vec<PinnedTool>, LookError> {
    let by_name = tools::by_name(tools);
    if let Some((name, _)) = by_name.iter().find(|(_, seen)| **seen == Seen::Twice) {
        return Err(LookError::Doubled(quote(name, QUOTE_MAX)));
    }
    let one = |tool: &Listed| PinnedTool {
        name: tool.name.clone(),
        digest: tool.digest,
        description: tool.shown.get("description").and_then(Value::as_str).unwrap_or_default().to_owned(),
    };
    Ok(tools.iter().map(one).collect())
}
