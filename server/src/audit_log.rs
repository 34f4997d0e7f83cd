//! Audit lines of the log: who called what, on which subject, with which result.
//!
//! Never holds a token, key or other secret: certificate requests appear as digests. The audit rows that belong to
//! changes are another thing; they live in the store, in the transaction of the change.

use avouch::rpc::code_name;
use avouch_domain::Timestamp;
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::{Code, Status};

use crate::api::caller::Peer;

/// One line under construction. Does nothing if the audit log is off.
#[derive(Debug)]
#[must_use = "a line is written by `conclude` or `item`"]
pub struct AuditLine(Option<Map<String, Value>>);

impl AuditLine {
    /// A line that is never written.
    pub fn off() -> Self {
        Self(None)
    }

    /// A line with the fields every call has.
    pub fn new(call_fields: Map<String, Value>, peer: &Peer) -> Self {
        let mut line = Self(Some(call_fields));
        line.text("type", "audit");
        if let Peer::Local(local) = peer {
            line.number("caller_uid", i64::from(local.uid));
            line.number("caller_gid", i64::from(local.gid));
            if let Some(pid) = local.pid {
                line.number("caller_pid", i64::from(pid));
            }
            if let Some(exe) = &local.exe {
                line.text("caller_path", exe);
            }
        }
        line
    }

    fn set(&mut self, name: &str, value: Value) {
        if let Some(fields) = &mut self.0 {
            fields.insert(name.to_owned(), value);
        }
    }

    /// Adds a text; an empty one is left out.
    pub fn text(&mut self, name: &str, value: impl AsRef<str>) {
        if !value.as_ref().is_empty() {
            self.set(name, value.as_ref().into());
        }
    }

    /// Adds a number.
    pub fn number(&mut self, name: &str, value: i64) {
        self.set(name, value.into());
    }

    /// Adds a truth value.
    pub fn flag(&mut self, name: &str, value: bool) {
        self.set(name, value.into());
    }

    /// Adds the digest of a certificate request.
    pub fn csr(&mut self, der: &[u8]) {
        self.text("csr", hex::encode(digest(&SHA256, der)));
    }

    /// Adds a time as RFC 3339 text.
    pub fn time(&mut self, name: &str, at: Timestamp) {
        let text = OffsetDateTime::from_unix_timestamp(at.secs()).ok().and_then(|t| t.format(&Rfc3339).ok());
        self.text(name, text.unwrap_or_default());
    }

    /// Writes the line of a call and hands its result on.
    ///
    /// # Errors
    /// Those of `result`, unchanged.
    pub fn conclude<T>(self, result: Result<T, Status>) -> Result<T, Status> {
        match &result {
            Ok(_) => self.write(Code::Ok, ""),
            Err(status) => self.write(status.code(), status.message()),
        }
        result
    }

    /// Writes the line of one item of a batch.
    pub fn item(self, code: Code, message: &str) {
        self.write(code, message);
    }

    fn write(mut self, code: Code, message: &str) {
        if code == Code::Ok {
            self.text("status", "success");
        } else {
            self.text("status", "error");
            self.text("status_code", code_name(code));
            self.text("status_message", message);
        }
        if let Some(fields) = self.0 {
            log_fields(fields, "API accessed");
        }
    }
}

/// Writes an `info` line with fields known only at run time.
pub fn log_fields(fields: Map<String, Value>, message: &str) {
    let json = Value::Object(fields).to_string();
    tracing::info!(json_fields = json.as_str(), "{message}");
}
