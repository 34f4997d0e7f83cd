//! Emergencies: one row each, by ID. The table itself refuses one that is widened, or opened by one person.

use std::time::Duration;

use avouch_domain::{Emergency, EmergencyId, Row, Said, SpiffeId};
use rusqlite::types::Value;

use super::{Bad, Fields, Statements, person_or_null, text};

pub(super) const STATEMENTS: Statements = Statements {
    table: "emergencies",
    put: "INSERT INTO emergencies (id, identity, owner, stop_number, action, resource, why, asked_by, asked_at, lasts, \
          agreed_by, agreed_at, ends_at, ended_by, ended_at) \
          VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) \
          ON CONFLICT (id) DO UPDATE SET identity = excluded.identity, owner = excluded.owner, \
          stop_number = excluded.stop_number, action = excluded.action, resource = excluded.resource, \
          why = excluded.why, asked_by = excluded.asked_by, asked_at = excluded.asked_at, lasts = excluded.lasts, \
          agreed_by = excluded.agreed_by, agreed_at = excluded.agreed_at, ends_at = excluded.ends_at, \
          ended_by = excluded.ended_by, ended_at = excluded.ended_at",
    delete: "DELETE FROM emergencies WHERE id = ?1",
    get: "SELECT * FROM emergencies WHERE id = ?1",
    all: "SELECT * FROM emergencies ORDER BY id",
    read,
};

pub(super) fn values(emergency: &Emergency) -> Vec<Value> {
    let who = |said: &Option<Said>| person_or_null(said.as_ref().map(|said| &said.by));
    let when = |said: &Option<Said>| said.as_ref().map_or(Value::Null, |said| Value::Integer(said.at.0));
    vec![
        text(emergency.id.as_str()),
        text(emergency.identity.as_str()),
        text(emergency.owner.as_str()),
        Value::Integer(emergency.stop_number.cast_signed()),
        text(&emergency.action),
        text(&emergency.resource),
        text(&emergency.why),
        text(emergency.asked.by.as_str()),
        Value::Integer(emergency.asked.at.0),
        Value::Integer(emergency.lasts.as_secs().cast_signed()),
        who(&emergency.agreed),
        when(&emergency.agreed),
        Value::Integer(emergency.ends_at.0),
        who(&emergency.ended),
        when(&emergency.ended),
    ]
}

fn read(fields: &mut Fields<'_>) -> Result<Row, Bad> {
    Ok(Row::Emergency(Emergency {
        id: fields.parse(EmergencyId::new)?,
        identity: fields.parse(SpiffeId::parse)?,
        owner: fields.person()?,
        stop_number: fields.take::<i64>()?.cast_unsigned(),
        action: fields.take()?,
        resource: fields.take()?,
        why: fields.take()?,
        asked: Said { by: fields.person()?, at: fields.time()? },
        lasts: Duration::from_secs(fields.take::<i64>()?.cast_unsigned()),
        agreed: fields.said_or_none()?,
        ends_at: fields.time()?,
        ended: fields.said_or_none()?,
    }))
}
