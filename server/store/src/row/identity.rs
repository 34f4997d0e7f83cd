//! Identities: one row each, by name. The table itself refuses another environment and a falling stop number.

use std::num::NonZeroU16;

use avouch_domain::{
    Cause, Code, CodeDigest, Environment, Identity, Kind, Row, SpiffeId, Standing, StopTried, Timestamp,
};
use rusqlite::types::Value;

use super::{Bad, Fields, Statements, bad, person_or_null, text};

pub(super) const STATEMENTS: Statements = Statements {
    table: "identities",
    put: "INSERT INTO identities (spiffe_id, kind, environment, purpose, owner, successor, ends_at, standing, cause, \
          stop_number, added_by, added_at, yes_by, confirm_by, preset, stop_tried_at, stop_nodes, stop_confirmed, \
          stop_took_ms, code, runs_max) \
          VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, \
          ?21) \
          ON CONFLICT (spiffe_id) DO UPDATE SET kind = excluded.kind, environment = excluded.environment, \
          purpose = excluded.purpose, owner = excluded.owner, successor = excluded.successor, \
          ends_at = excluded.ends_at, standing = excluded.standing, cause = excluded.cause, \
          stop_number = excluded.stop_number, added_by = excluded.added_by, added_at = excluded.added_at, \
          yes_by = excluded.yes_by, confirm_by = excluded.confirm_by, preset = excluded.preset, \
          stop_tried_at = excluded.stop_tried_at, stop_nodes = excluded.stop_nodes, \
          stop_confirmed = excluded.stop_confirmed, stop_took_ms = excluded.stop_took_ms, \
          code = excluded.code, runs_max = excluded.runs_max",
    delete: "DELETE FROM identities WHERE spiffe_id = ?1",
    get: "SELECT * FROM identities WHERE spiffe_id = ?1",
    all: "SELECT * FROM identities ORDER BY spiffe_id",
    read,
};

pub(super) fn values(identity: &Identity) -> Vec<Value> {
    let time_or_null = |at: Option<Timestamp>| at.map_or(Value::Null, |at| Value::Integer(at.0));
    let tried = identity.stop_tried;
    let number_or_null = |number: Option<u32>| number.map_or(Value::Null, |n| Value::Integer(n.into()));
    vec![
        text(identity.spiffe_id.as_str()),
        text(identity.kind.name()),
        text(identity.environment.name()),
        text(identity.purpose.as_str()),
        text(identity.owner.as_str()),
        person_or_null(identity.successor.as_ref()),
        Value::Integer(identity.end.0),
        text(identity.standing.name()),
        identity.standing.cause().map_or(Value::Null, |cause| text(cause.name())),
        Value::Integer(identity.stop_number.cast_signed()),
        text(identity.added_by.as_str()),
        Value::Integer(identity.added_at.0),
        person_or_null(identity.yes_by.as_ref()),
        time_or_null(identity.confirm_by),
        identity.preset.as_ref().map_or(Value::Null, |preset| text(preset.as_str())),
        time_or_null(tried.map(|tried| tried.at)),
        number_or_null(tried.map(|tried| tried.nodes)),
        number_or_null(tried.map(|tried| tried.confirmed)),
        number_or_null(tried.map(|tried| tried.took_ms)),
        identity.code.map_or(Value::Null, |code| Value::Blob(code.0.to_vec())),
        number_or_null(identity.runs_max.map(|most| most.get().into())),
    ]
}

fn read(fields: &mut Fields<'_>) -> Result<Row, Bad> {
    Ok(Row::Identity(Identity {
        spiffe_id: fields.parse(SpiffeId::parse)?,
        kind: fields.name(Kind::from_name)?,
        environment: fields.name(Environment::from_name)?,
        purpose: fields.parse(Code::new)?,
        owner: fields.person()?,
        successor: fields.person_or_none()?,
        end: fields.time()?,
        standing: standing(fields)?,
        stop_number: fields.take::<i64>()?.cast_unsigned(),
        added_by: fields.person()?,
        added_at: fields.time()?,
        yes_by: fields.person_or_none()?,
        confirm_by: fields.time_or_none()?,
        preset: preset(fields)?,
        stop_tried: stop_tried(fields)?,
        code: fields.take::<Option<[u8; 32]>>()?.map(CodeDigest),
        runs_max: runs_max(fields)?,
    }))
}

fn standing(fields: &mut Fields<'_>) -> Result<Standing, Bad> {
    let name: String = fields.take()?;
    let cause: Option<String> = fields.take()?;
    let known = cause.as_deref().map(|cause| Cause::from_name(cause).ok_or(cause)).transpose();
    let cause = known.map_err(|cause| bad(format!("\"{cause}\" is no known cause")))?;
    Standing::from_parts(&name, cause).ok_or_else(|| bad(format!("no identity stands at \"{name}\" so")))
}

fn preset(fields: &mut Fields<'_>) -> Result<Option<Code>, Bad> {
    let name: Option<String> = fields.take()?;
    name.map(|name| Code::new(&name).map_err(|e| bad(e.to_string()))).transpose()
}

fn runs_max(fields: &mut Fields<'_>) -> Result<Option<NonZeroU16>, Bad> {
    let most: Option<u16> = fields.take()?;
    most.map(|most| {
        NonZeroU16::new(most).ok_or_else(|| bad("no run at a time, expected none or more".to_owned()))
    })
    .transpose()
}

fn stop_tried(fields: &mut Fields<'_>) -> Result<Option<StopTried>, Bad> {
    let (at, nodes, confirmed, took_ms) =
        (fields.time_or_none()?, fields.take()?, fields.take()?, fields.take()?);
    match (at, nodes, confirmed, took_ms) {
        (Some(at), Some(nodes), Some(confirmed), Some(took_ms)) => {
            Ok(Some(StopTried { at, nodes, confirmed, took_ms }))
        }
        (None, None, None, None) => Ok(None),
        _ => Err(bad("a stop that was tried in part")),
    }
}
