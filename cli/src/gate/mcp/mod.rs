//! The MCP gate: a proxy that is a pure machine, and the shell that moves its bytes.
//!
//! What passes, for revisions 2025-11-25 and 2026-07-28:
//!
//! | From the AI agent | Then |
//! |---|---|
//! | `tools/call` of a tool that is pinned and unchanged | decided; only after an allow do its very bytes go on |
//! | `tools/call` of any other | an error; the server sees nothing |
//! | `tools/list` | answered from the gate's own listing: the tools that are pinned, unchanged and that the task may call |
//! | `initialize`, `server/discover` | pass, without capabilities that do not |
//! | `ping`, `logging/setLevel`, `subscriptions/listen` for lists | pass |
//! | `notifications/initialized`, `…/progress`, `…/cancelled` | pass; a cancelled call that waits never starts |
//! | resources, prompts, completion, tasks, everything else | an error; they read and act past the rules |
//!
//! From the tool server pass the answers to what passed, and notifications of messages, progress, changed tools and
//! subscriptions. Its own requests (sampling, elicitation, roots) are refused, and so is an answer that asks for input
//! in their place.

mod answers;
mod handshake;
pub(in crate::gate) mod json;
mod look;
mod message;
mod params;
#[cfg(test)]
mod props;
mod proxy;
mod serverside;
mod shell;
#[cfg(test)]
mod shell_tests;
#[cfg(test)]
mod tests;
mod tools;

pub use handshake::REVISIONS;
pub use look::{LookError, LookFailure, PinnedTool, look};
pub use proxy::{Effect, Proxy, Ticket};
pub use shell::{End, run};
pub use tools::digest;
