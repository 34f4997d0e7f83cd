//! The HTTP gate: what an AI agent asks of a web API, decided by method and path, and limited on its way back.
//!
//! A request is taken apart, decided, and put together anew from its parts, so that the upstream sees what was decided and
//! nothing else; only then does the gate add the secret. What no route stands for does not exist.
//!
//! | Of the caller | Then |
//! |---|---|
//! | a path in one reading only | decoded once; dot segments, doubled slashes, encoded slashes and the like are refused |
//! | query parameters | those of the route, and others only where the route says so |
//! | credentials, cookies, what claims another origin, method or path | taken out |
//! | a body | goes on as it comes, up to a limit; what a person is to see is read first |
//!
//! | Of the upstream | Then |
//! |---|---|
//! | an answer after an allow | goes through as it comes, without cookies, and ends where it would tell the secret |
//! | an answer within limits | held back, and let through as rows of JSON or NDJSON that keep the limits; else refused whole |
//! | a redirect | goes to the caller; nobody follows it |

mod answers;
mod asked;
mod body;
mod head;
pub mod limit;
mod pool;
#[cfg(test)]
mod props;
mod proxy;
mod server;
pub mod target;
mod telling;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use avouch_rules::{HttpMethod, ParamKind, Template, Upstream};
use zeroize::Zeroizing;

pub use answers::Refusal;
pub use proxy::Proxy;
pub use server::{Door, raw_of, serve, speak};

/// A web API behind a gate of a run, or of a workload of its own.
#[derive(Debug)]
pub struct Api {
    pub name: String,
    pub upstream: Upstream,
    /// The variable that says where the gate is; empty: a workload of its own serves it.
    pub env_var: String,
    /// Certificates in PEM that alone vouch for the upstream; the system's if there are none.
    pub ca: Option<String>,
    pub secret: Secret,
    pub routes: Vec<Route>,
}

/// What the gate adds to what it lets through.
#[derive(Debug)]
pub enum Secret {
    None,
    Held(Held),
    /// There should be one; why there is none.
    Missing(String),
}

/// A secret and the header it goes into. Never printed.
pub struct Held {
    /// In lower case.
    pub header: String,
    /// What stands before it.
    pub prefix: String,
    pub value: Zeroizing<String>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("header", &self.header).finish_non_exhaustive()
    }
}

/// Requests that are treated alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub method: HttpMethod,
    pub path: Template,
    /// ID in the catalogue.
    pub resource: String,
    pub action: String,
    /// What rules want to know, by the name of a variable or a query parameter.
    pub params: BTreeMap<String, ParamKind>,
    /// The query parameters among them.
    pub query: BTreeSet<String>,
    /// Other query parameters go through.
    pub other_query: bool,
    /// Where in an answer the rows are: a JSON pointer; empty: the answer itself.
    pub rows_at: String,
}

impl Api {
    /// The secret, if there is one to add.
    fn held(&self) -> Option<&Held> {
        match &self.secret {
            Secret::Held(held) => Some(held),
            Secret::None | Secret::Missing(_) => None,
        }
    }
}
