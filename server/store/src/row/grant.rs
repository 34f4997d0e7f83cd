//! Grants: one row each, by ID. The table itself refuses one that is widened, another case, and a use that
//! comes back.

use avouch_domain::{Case, Grant, GrantId, GrantUse, Row, Said, SpiffeId, Timestamp};
use rusqlite::types::Value;

use super::{Bad, Fields, Statements, bad, person_or_null, text};

/// Bytes of one use: its key, and its moment in milliseconds.
const USE: usize = 24;

pub(super) const STATEMENTS: Statements = Statements {
    table: "grants",
    put: "INSERT INTO grants (id, identity, owner, stop_number, action, resource, given_by, given_at, ends_at, max_uses, \
          uses, keys, ended_by, ended_at, for_case) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) \
          ON CONFLICT (id) DO UPDATE SET identity = excluded.identity, owner = excluded.owner, \
          stop_number = excluded.stop_number, action = excluded.action, resource = excluded.resource, \
          given_by = excluded.given_by, given_at = excluded.given_at, ends_at = excluded.ends_at, \
          max_uses = excluded.max_uses, uses = excluded.uses, keys = excluded.keys, ended_by = excluded.ended_by, \
          ended_at = excluded.ended_at, for_case = excluded.for_case",
    delete: "DELETE FROM grants WHERE id = ?1",
    get: "SELECT * FROM grants WHERE id = ?1",
    all: "SELECT * FROM grants ORDER BY id",
    read,
};

pub(super) fn values(grant: &Grant) -> Vec<Value> {
    let keys = grant.keys.iter().flat_map(|one| one.key.into_iter().chain(one.at.0.to_be_bytes()));
    vec![
        text(grant.id.as_str()),
        text(grant.identity.as_str()),
        text(grant.owner.as_str()),
        Value::Integer(grant.stop_number.cast_signed()),
        text(&grant.action),
        text(&grant.resource),
        text(grant.given.by.as_str()),
        Value::Integer(grant.given.at.0),
        Value::Integer(grant.ends_at.0),
        Value::Integer(grant.max_uses.into()),
        Value::Integer(grant.uses.into()),
        Value::Blob(keys.collect()),
        person_or_null(grant.ended.as_ref().map(|said| &said.by)),
        grant.ended.as_ref().map_or(Value::Null, |said| Value::Integer(said.at.0)),
        grant.case.as_ref().map_or(Value::Null, |case| text(case.as_str())),
    ]
}

fn read(fields: &mut Fields<'_>) -> Result<Row, Bad> {
    Ok(Row::Grant(Grant {
        id: fields.parse(GrantId::new)?,
        identity: fields.parse(SpiffeId::parse)?,
        owner: fields.person()?,
        stop_number: fields.take::<i64>()?.cast_unsigned(),
        action: fields.take()?,
        resource: fields.take()?,
        given: Said { by: fields.person()?, at: fields.time()? },
        ends_at: fields.time()?,
        max_uses: fields.take()?,
        uses: fields.take()?,
        keys: keys(&fields.take::<Vec<u8>>()?)?,
        ended: fields.said_or_none()?,
        case: fields.take::<Option<String>>()?.map(|case| Case::new(&case)).transpose().map_err(bad)?,
    }))
}

fn keys(bytes: &[u8]) -> Result<Vec<GrantUse>, Bad> {
    let one = |bytes: &[u8]| {
        let (key, at) = bytes.split_first_chunk::<16>()?;
        Some(GrantUse { key: *key, at: Timestamp(i64::from_be_bytes(at.try_into().ok()?)) })
    };
    let whole = bytes.chunks(USE).map(one).collect::<Option<_>>();
    whole.ok_or_else(|| bad("a use of a grant has other than 24 bytes"))
}
