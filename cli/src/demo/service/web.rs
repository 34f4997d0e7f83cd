//! Five web APIs with a secret: a store of secrets, telemetry, purchases, tickets, payroll.
//!
//! Never tells anything to who does not show the secret, and writes such a request down as refused.

use std::fmt::Write as _;
use std::io;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use clap::ValueEnum;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, StatusCode};
use http_body_util::Full;
use zeroize::Zeroizing;

use super::{Request, Response, Seen};

/// Rows of telemetry that are there.
pub(in crate::demo) const ROWS: usize = 50_000;
/// What the store of secrets holds.
pub(in crate::demo) const DEPLOY_KEY: &str = "the-deploy-key-of-pay";

/// A web API of the demonstration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Api {
    /// Secrets by path, in the shape of Vault's key-value store
    Vault,
    /// Requests that a service answered
    Telemetry,
    /// Drafts and orders
    Purchases,
    /// What customers ask for
    Tickets,
    /// Who earns what
    Payroll,
}

impl Api {
    pub(in crate::demo) const ALL: [Self; 5] =
        [Self::Vault, Self::Telemetry, Self::Purchases, Self::Tickets, Self::Payroll];

    /// The name of its gate, its secret and its list of requests.
    pub(in crate::demo) fn name(self) -> &'static str {
        match self {
            Self::Vault => "vault",
            Self::Telemetry => "telemetry",
            Self::Purchases => "purchases",
            Self::Tickets => "tickets",
            Self::Payroll => "payroll",
        }
    }
}

pub(super) struct Shelf {
    pub api: Api,
    pub seen: Seen,
    pub secret: Zeroizing<String>,
}

impl Shelf {
    pub(super) fn answer(&self, request: &Request) -> io::Result<Response> {
        let (method, path) = (request.method(), request.uri().path());
        let known = self.is_known(request);
        self.seen.note(&format!("{} {method} {path}", if known { "served" } else { "refused" }))?;
        if !known {
            return Ok(said(StatusCode::UNAUTHORIZED, "text/plain", "no secret\n".to_owned()));
        }
        let json = |text: &str| said(StatusCode::OK, "application/json", text.to_owned());
        Ok(match (self.api, method, path) {
            (Api::Vault, &Method::GET, "/v1/kv/data/ci/pay/deploy-key") => {
                json(&format!(r#"{{"data":{{"data":{{"key":"{DEPLOY_KEY}"}},"metadata":{{"version":1}}}}}}"#))
            }
            (Api::Telemetry, &Method::GET, "/requests") => {
                said(StatusCode::OK, "application/x-ndjson", telemetry())
            }
            (Api::Purchases, &Method::POST, "/drafts") => json(r#"{"draft":1}"#),
            (Api::Purchases, &Method::POST, "/orders") => json(r#"{"order":1,"paid":true}"#),
            (Api::Tickets, &Method::GET, "/tickets/9") => {
                json(r#"{"id":9,"title":"The invoice does not add up"}"#)
            }
            (Api::Tickets, &Method::POST, "/tickets/9/reply") => json(r#"{"sent":true}"#),
            (Api::Payroll, &Method::GET, "/salaries") => json(r#"[{"name":"Ada Example","salary":1}]"#),
            _ => said(StatusCode::NOT_FOUND, "text/plain", "nothing is here\n".to_owned()),
        })
    }

    fn is_known(&self, request: &Request) -> bool {
        let header = match self.api {
            Api::Vault => request.headers().get("x-vault-token"),
            _ => request.headers().get(AUTHORIZATION),
        };
        let shown = header.map(http::HeaderValue::as_bytes).unwrap_or_default();
        let shown = shown.strip_prefix(b"Bearer ").unwrap_or(shown);
        verify_slices_are_equal(shown, self.secret.trim().as_bytes()).is_ok()
    }
}

fn said(status: StatusCode, kind: &'static str, text: String) -> Response {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// One row a line; who asked is in each, and is nobody's business.
fn telemetry() -> String {
    let mut rows = String::with_capacity(ROWS * 80);
    for row in 0..ROWS {
        let _ =
            writeln!(rows, r#"{{"ts":{row},"level":"info","service":"pay","customer":"customer-{row}"}}"#);
    }
    rows
}
