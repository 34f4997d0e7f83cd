//! Rows to columns and back. The only place that knows the tables of the kinds of rows.
//!
//! Never trusts a column: what is read passes the domain's constructors again.

mod accepted;
mod authority;
mod bundle;
mod emergency;
mod entry;
mod grant;
mod identity;
mod join_token;
mod node;
mod person;
mod request;
mod rules;

use std::borrow::Cow;
use std::collections::BTreeMap;

use avouch_domain::{
    EmergencyId, Entry, EntryId, Finding, GrantId, PersonId, RequestId, Row, RowKey, Said, SpiffeId,
    Timestamp, TrustDomain,
};
use aws_lc_rs::digest;
use rusqlite::types::{FromSql, Value};
use rusqlite::{Connection, Row as Columns, params_from_iter};

use crate::error::StoreError;

/// A column does not hold what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Bad {
    #[error("{0}")]
    Sqlite(rusqlite::Error),
    #[error("{0}")]
    Value(String),
}

impl From<rusqlite::Error> for Bad {
    fn from(e: rusqlite::Error) -> Self {
        Self::Sqlite(e)
    }
}

/// Turns any domain error into "this column is bad".
pub(crate) fn bad(e: impl std::fmt::Display) -> Bad {
    Bad::Value(e.to_string())
}

/// The statements of one kind of row.
struct Statements {
    table: &'static str,
    put: &'static str,
    delete: &'static str,
    get: &'static str,
    all: &'static str,
    /// Takes the columns in the order of the table.
    read: fn(&mut Fields<'_>) -> Result<Row, Bad>,
}

const ALL: [&Statements; 12] = [
    &entry::STATEMENTS,
    &node::STATEMENTS,
    &bundle::STATEMENTS,
    &join_token::STATEMENTS,
    &authority::STATEMENTS,
    &person::STATEMENTS,
    &identity::STATEMENTS,
    &rules::STATEMENTS,
    &request::STATEMENTS,
    &grant::STATEMENTS,
    &accepted::STATEMENTS,
    &emergency::STATEMENTS,
];

fn statements(key: &RowKey) -> &'static Statements {
    match key {
        RowKey::Entry(_) => &entry::STATEMENTS,
        RowKey::Node(_) => &node::STATEMENTS,
        RowKey::Bundle(_) => &bundle::STATEMENTS,
        RowKey::JoinToken(_) => &join_token::STATEMENTS,
        RowKey::Authority(..) => &authority::STATEMENTS,
        RowKey::Person(_) => &person::STATEMENTS,
        RowKey::Identity(_) => &identity::STATEMENTS,
        RowKey::Rules(_) => &rules::STATEMENTS,
        RowKey::Request(_) => &request::STATEMENTS,
        RowKey::Grant(_) => &grant::STATEMENTS,
        RowKey::Accepted(..) => &accepted::STATEMENTS,
        RowKey::Emergency(_) => &emergency::STATEMENTS,
    }
}

/// Writes a row over what is there and returns the digest of its content.
pub(crate) fn put(conn: &Connection, row: &Row) -> Result<[u8; 32], StoreError> {
    let (statements, values) = match row {
        Row::Entry(e) => (&entry::STATEMENTS, entry::values(e)),
        Row::Node(n) => (&node::STATEMENTS, node::values(n)),
        Row::Bundle(b) => (&bundle::STATEMENTS, bundle::values(b)),
        Row::JoinToken(t) => (&join_token::STATEMENTS, join_token::values(t)),
        Row::Authority(a) => (&authority::STATEMENTS, authority::values(a)),
        Row::Person(p) => (&person::STATEMENTS, person::values(p)),
        Row::Identity(i) => (&identity::STATEMENTS, identity::values(i)),
        Row::Rules(r) => (&rules::STATEMENTS, rules::values(r)),
        Row::Request(r) => (&request::STATEMENTS, request::values(r)),
        Row::Grant(g) => (&grant::STATEMENTS, grant::values(g)),
        Row::Accepted(a) => (&accepted::STATEMENTS, accepted::values(a)),
        Row::Emergency(e) => (&emergency::STATEMENTS, emergency::values(e)),
    };
    let content = content_digest(&values);
    conn.prepare_cached(statements.put)?.execute(params_from_iter(values))?;
    Ok(content)
}

/// Removes a row; that it was not there is no error.
pub(crate) fn delete(conn: &Connection, key: &RowKey) -> Result<(), StoreError> {
    conn.prepare_cached(statements(key).delete)?.execute(params_from_iter(key_values(key)))?;
    Ok(())
}

/// Reads one row.
pub(crate) fn get(conn: &Connection, key: &RowKey) -> Result<Option<Row>, StoreError> {
    let statements = statements(key);
    let mut prepared = conn.prepare_cached(statements.get)?;
    let mut rows = prepared.query(params_from_iter(key_values(key)))?;
    rows.next()?.map(|columns| read(statements, columns)).transpose()
}

/// Reads every row of every table, in key order. Entries of one parent share its text from the start: freed later, the
/// copies would leave holes between what stays.
pub(crate) fn all(conn: &Connection) -> Result<Vec<Row>, StoreError> {
    let mut found = Vec::new();
    let mut first_below: BTreeMap<SpiffeId, Entry> = BTreeMap::new();
    for statements in ALL {
        let mut prepared = conn.prepare(statements.all)?;
        let mut rows = prepared.query(())?;
        while let Some(columns) = rows.next()? {
            found.push(match read(statements, columns)? {
                Row::Entry(entry) => Row::Entry(match first_below.get(&entry.parent_id) {
                    Some(first) => entry.sharing_texts_of(first),
                    None => {
                        first_below.insert(entry.parent_id.clone(), entry.clone());
                        entry
                    }
                }),
                other => other,
            });
        }
    }
    Ok(found)
}

fn read(statements: &Statements, columns: &Columns<'_>) -> Result<Row, StoreError> {
    (statements.read)(&mut Fields { columns, next: 0 }).map_err(|e| match e {
        Bad::Sqlite(e) => e.into(),
        Bad::Value(problem) => StoreError::Row { table: statements.table, problem },
    })
}

fn key_values(key: &RowKey) -> Vec<Value> {
    match key {
        RowKey::Entry(id) => vec![text(id.as_str())],
        RowKey::Node(id) => vec![text(id.as_str())],
        RowKey::Bundle(domain) => vec![text(domain.as_str())],
        RowKey::JoinToken(digest) => vec![Value::Blob(digest.to_vec())],
        RowKey::Authority(kind, holder, slot) => authority::key_values(*kind, holder, *slot),
        RowKey::Person(id) => vec![text(id.as_str())],
        RowKey::Identity(name) => vec![text(name.as_str())],
        RowKey::Rules(number) => vec![Value::Integer(number.cast_signed())],
        RowKey::Request(id) => vec![text(id.as_str())],
        RowKey::Grant(id) => vec![text(id.as_str())],
        RowKey::Accepted(name, what) => vec![text(name.as_str()), text(what.name())],
        RowKey::Emergency(id) => vec![text(id.as_str())],
    }
}

/// The key as the change log keeps it: a number for the kind, and a text.
pub(crate) fn key_to_log(key: &RowKey) -> (i64, String) {
    match key {
        RowKey::Entry(id) => (1, id.to_string()),
        RowKey::Node(id) => (2, id.to_string()),
        RowKey::Bundle(domain) => (3, domain.to_string()),
        RowKey::JoinToken(digest) => (4, hex::encode(digest)),
        RowKey::Authority(kind, holder, slot) => (5, authority::key_to_log(*kind, holder, *slot)),
        RowKey::Person(id) => (6, id.to_string()),
        RowKey::Identity(name) => (7, name.to_string()),
        RowKey::Rules(number) => (8, number.to_string()),
        RowKey::Request(id) => (9, id.to_string()),
        RowKey::Grant(id) => (10, id.to_string()),
        RowKey::Accepted(name, what) => (12, format!("{what} {name}")),
        RowKey::Emergency(id) => (11, id.to_string()),
    }
}

/// Reads what [`key_to_log`] wrote.
pub(crate) fn key_from_log(kind: i64, key: &str) -> Result<RowKey, Bad> {
    match kind {
        1 => EntryId::new(key).map(RowKey::Entry).map_err(bad),
        2 => SpiffeId::parse(key).map(RowKey::Node).map_err(bad),
        3 => TrustDomain::new(key).map(RowKey::Bundle).map_err(bad),
        4 => {
            let mut digest = [0; 32];
            hex::decode_to_slice(key, &mut digest).map_err(bad)?;
            Ok(RowKey::JoinToken(digest))
        }
        5 => authority::key_from_log(key),
        6 => PersonId::new(key).map(RowKey::Person).map_err(bad),
        7 => SpiffeId::parse(key).map(RowKey::Identity).map_err(bad),
        8 => key.parse().map(RowKey::Rules).map_err(bad),
        9 => RequestId::new(key).map(RowKey::Request).map_err(bad),
        10 => GrantId::new(key).map(RowKey::Grant).map_err(bad),
        12 => {
            let (what, name) = key.split_once(' ').ok_or_else(|| bad("a finding without a name"))?;
            let what = what.parse::<Finding>().map_err(bad)?;
            SpiffeId::parse(name).map(|name| RowKey::Accepted(name, what)).map_err(bad)
        }
        11 => EmergencyId::new(key).map(RowKey::Emergency).map_err(bad),
        _ => Err(bad(format!("key kind {kind} is unknown"))),
    }
}

/// SHA-256 over typed, length-prefixed columns: equal rows and only equal rows have one digest.
fn content_digest(values: &[Value]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut part = |tag: u8, bytes: &[u8]| {
        context.update(&[tag]);
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    for value in values {
        match value {
            Value::Null => part(0, &[]),
            Value::Integer(n) => part(1, &n.to_be_bytes()),
            Value::Real(n) => part(2, &n.to_be_bytes()),
            Value::Text(s) => part(3, s.as_bytes()),
            Value::Blob(b) => part(4, b),
        }
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

fn text(s: &str) -> Value {
    Value::Text(s.to_owned())
}

fn person_or_null(id: Option<&PersonId>) -> Value {
    id.map_or(Value::Null, |id| text(id.as_str()))
}

fn flag(b: bool) -> Value {
    Value::Integer(i64::from(b))
}

/// A list of texts as a JSON array.
fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> Value {
    let items: Vec<serde_json::Value> =
        items.into_iter().map(|item| serde_json::Value::String(item.to_string())).collect();
    Value::Text(serde_json::Value::Array(items).to_string())
}

/// The columns of a row, read once each in the order of the table: finding them by name took half the time of opening
/// a large database.
struct Fields<'a> {
    columns: &'a Columns<'a>,
    next: usize,
}

impl<'a> Fields<'a> {
    fn take<T: FromSql>(&mut self) -> Result<T, Bad> {
        let value = self.columns.get(self.next)?;
        self.next += 1;
        Ok(value)
    }

    fn take_str(&mut self) -> Result<&'a str, Bad> {
        let value = self.columns.get_ref(self.next)?;
        self.next += 1;
        value.as_str().map_err(bad)
    }

    fn parse<T, E: std::fmt::Display>(&mut self, parse: impl Fn(&str) -> Result<T, E>) -> Result<T, Bad> {
        parse(self.take_str()?).map_err(bad)
    }

    fn json<T: serde::Deserialize<'a>>(&mut self) -> Result<T, Bad> {
        serde_json::from_str(self.take_str()?).map_err(bad)
    }

    /// A JSON array of texts.
    fn list<T, E: std::fmt::Display>(&mut self, parse: impl Fn(&str) -> Result<T, E>) -> Result<Vec<T>, Bad> {
        let texts: Vec<Cow<'a, str>> = self.json()?;
        texts.iter().map(|t| parse(t).map_err(bad)).collect()
    }

    fn time(&mut self) -> Result<Timestamp, Bad> {
        self.take().map(Timestamp)
    }

    /// The name of one of a few values.
    fn name<T>(&mut self, read: impl Fn(&str) -> Option<T>) -> Result<T, Bad> {
        let name = self.take_str()?;
        read(name).ok_or_else(|| bad(format!("\"{name}\" is no known name")))
    }

    fn person(&mut self) -> Result<PersonId, Bad> {
        self.parse(PersonId::new)
    }

    fn person_or_none(&mut self) -> Result<Option<PersonId>, Bad> {
        self.take::<Option<String>>()?.map(|id| PersonId::new(&id)).transpose().map_err(bad)
    }

    fn time_or_none(&mut self) -> Result<Option<Timestamp>, Bad> {
        Ok(self.take::<Option<i64>>()?.map(Timestamp))
    }

    /// Somebody and a moment, in two columns.
    fn said_or_none(&mut self) -> Result<Option<Said>, Bad> {
        match (self.person_or_none()?, self.time_or_none()?) {
            (Some(by), Some(at)) => Ok(Some(Said { by, at })),
            (None, None) => Ok(None),
            _ => Err(bad("somebody without a moment, or a moment without somebody")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use avouch_domain::{AuthorityKind, Holder, Slot};

    #[test]
    fn every_kind_of_key_survives_the_change_log() {
        let keys = [
            RowKey::Entry(EntryId::new("a.b-c_d").unwrap()),
            RowKey::Node(SpiffeId::parse("spiffe://td/spire/agent/x/y").unwrap()),
            RowKey::Bundle(TrustDomain::new("td").unwrap()),
            RowKey::JoinToken([7; 32]),
            RowKey::Authority(AuthorityKind::X509, Holder::Server("a/b:c".into()), Slot::A),
            RowKey::Authority(AuthorityKind::Jwt, Holder::TrustDomain, Slot::B),
            RowKey::Person(PersonId::new("per_1").unwrap()),
            RowKey::Identity(SpiffeId::parse("spiffe://td/test/coder").unwrap()),
            RowKey::Rules(7),
            RowKey::Request(RequestId::new("req_1").unwrap()),
            RowKey::Grant(GrantId::new("gr_1").unwrap()),
            RowKey::Accepted(SpiffeId::parse("spiffe://td/billing/web").unwrap(), Finding::Owner),
            RowKey::Emergency(EmergencyId::new("em_1").unwrap()),
        ];
        for key in keys {
            let (kind, text) = key_to_log(&key);
            assert_eq!(key_from_log(kind, &text).unwrap(), key);
        }
        assert!(key_from_log(13, "x").is_err());
    }

    #[test]
    fn a_digest_does_not_confuse_neighbouring_columns() {
        assert_ne!(content_digest(&[text("ab"), text("c")]), content_digest(&[text("a"), text("bc")]));
        assert_ne!(content_digest(&[Value::Null]), content_digest(&[text("")]));
    }
}
