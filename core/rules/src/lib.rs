//! Rules: who may do what with what, decided purely from a checked folder of Cedar policies.
//!
//! `check` turns a [`Folder`] into [`Rules`] or says everything that is wrong with it; [`Rules::decide`] answers one
//! request, [`Rules::chain`] one that is made on behalf of others. Never: no I/O, no clock, no JSON on the way of a
//! decision, and no type of Cedar's in what is public.

mod add_gate;
mod base;
mod catalogue;
mod check;
mod decide;
mod digest;
mod examples;
mod folder;
mod gates;
mod http_gate;
mod limit;
pub mod limits;
mod lint;
mod possible;
mod presets;
mod reason;
mod request;
mod route;
mod rule;
mod schema;
mod sketch;
mod slice;
mod starter;
mod statements;
mod tables;
mod upstream;
mod words;

#[cfg(test)]
mod props;
#[cfg(test)]
mod tests;

pub use add_gate::{NewGate, NewHttpGate, NewRoute, add_hook_gate, add_http_gate, add_mcp_gate, let_preset};
pub use catalogue::{Catalogue, Resource, actions};
pub use check::check;
pub use decide::{Decision, FRESH_GRANT, Missing, Need, Outcome, Rules};
pub use folder::{Finding, Folder};
pub use gates::{Behind, Gate, GateTool, Hook, TOOL_CALL, ToolGate, hooks};
pub use http_gate::{HTTP_READ, HTTP_WRITE, HttpDoor, HttpGate, HttpRoute, SecretPlace};
pub use limit::Limits;
pub use possible::Possible;
pub use reason::Reason;
pub use request::{Act, BuildError, Caller, Grant, Identity, IdentityFacts, Param, Params, Task, Yes};
pub use route::{HttpMethod, Path, Template};
pub use sketch::Sketch;
pub use starter::STARTER;
pub use upstream::{Reach, Upstream};
pub use words::{Alone, Environment, Kind, ParamKind, Standing, Who};
