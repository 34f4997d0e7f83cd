//! Requests: one row each, by ID. The table itself refuses another text under an ID and a way back from a spent yes. Their
//! texts lie beside it, by hash.

use avouch_domain::{Request, RequestHash, RequestId, RequestState, Row, SpiffeId, Whose};
use rusqlite::types::Value;

use super::{Bad, Fields, Statements, flag, person_or_null, text};

pub(super) const STATEMENTS: Statements = Statements {
    table: "requests",
    put: "INSERT INTO requests (id, hash, identity, stop_number, node, action, resource, needs_owner, needs_person, \
          owner_yes_by, owner_yes_at, person_yes_by, person_yes_at, no_by, no_at, state, asked_at, until, spent_with) \
          VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19) \
          ON CONFLICT (id) DO UPDATE SET hash = excluded.hash, identity = excluded.identity, \
          stop_number = excluded.stop_number, node = excluded.node, action = excluded.action, \
          resource = excluded.resource, needs_owner = excluded.needs_owner, needs_person = excluded.needs_person, \
          owner_yes_by = excluded.owner_yes_by, owner_yes_at = excluded.owner_yes_at, \
          person_yes_by = excluded.person_yes_by, person_yes_at = excluded.person_yes_at, no_by = excluded.no_by, \
          no_at = excluded.no_at, state = excluded.state, asked_at = excluded.asked_at, until = excluded.until, \
          spent_with = excluded.spent_with",
    delete: "DELETE FROM requests WHERE id = ?1",
    get: "SELECT * FROM requests WHERE id = ?1",
    all: "SELECT * FROM requests ORDER BY id",
    read,
};

pub(super) fn values(request: &Request) -> Vec<Value> {
    let mut values = vec![
        text(request.id.as_str()),
        Value::Blob(request.hash.0.to_vec()),
        text(request.identity.as_str()),
        Value::Integer(request.stop_number.cast_signed()),
        text(request.node.as_str()),
        text(&request.action),
        text(&request.resource),
        flag(request.needs.owner),
        flag(request.needs.person),
    ];
    for said in [&request.owner_yes, &request.person_yes, &request.no] {
        values.push(person_or_null(said.as_ref().map(|said| &said.by)));
        values.push(said.as_ref().map_or(Value::Null, |said| Value::Integer(said.at.0)));
    }
    values.extend([
        text(request.state.name()),
        Value::Integer(request.asked_at.0),
        Value::Integer(request.until.0),
        request.spent_with.map_or(Value::Null, |key| Value::Blob(key.to_vec())),
    ]);
    values
}

fn read(fields: &mut Fields<'_>) -> Result<Row, Bad> {
    Ok(Row::Request(Request {
        id: fields.parse(RequestId::new)?,
        hash: RequestHash(fields.take()?),
        identity: fields.parse(SpiffeId::parse)?,
        stop_number: fields.take::<i64>()?.cast_unsigned(),
        node: fields.parse(SpiffeId::parse)?,
        action: fields.take()?,
        resource: fields.take()?,
        needs: Whose { owner: fields.take()?, person: fields.take()? },
        owner_yes: fields.said_or_none()?,
        person_yes: fields.said_or_none()?,
        no: fields.said_or_none()?,
        state: fields.name(RequestState::from_name)?,
        asked_at: fields.time()?,
        until: fields.time()?,
        spent_with: fields.take()?,
    }))
}
