//! Attested nodes: one row each; a missing serial means banned.

use std::sync::Arc;

use avouch_domain::{Node, Row, SelectorSet, SpiffeId};
use rusqlite::types::Value;

use super::{Bad, Fields, Statements, bad, flag, list, text};

pub(super) const STATEMENTS: Statements = Statements {
    table: "nodes",
    put: "INSERT INTO nodes (id, attestation_type, serial, expires_at, new_serial, new_expires_at, selectors, \
          can_reattest, agent_version) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) \
          ON CONFLICT (id) DO UPDATE SET attestation_type = excluded.attestation_type, serial = excluded.serial, \
          expires_at = excluded.expires_at, new_serial = excluded.new_serial, \
          new_expires_at = excluded.new_expires_at, selectors = excluded.selectors, \
          can_reattest = excluded.can_reattest, agent_version = excluded.agent_version",
    delete: "DELETE FROM nodes WHERE id = ?1",
    get: "SELECT * FROM nodes WHERE id = ?1",
    all: "SELECT * FROM nodes ORDER BY id",
    read,
};

pub(super) fn values(node: &Node) -> Vec<Value> {
    let new = node.new_serial.as_ref();
    vec![
        text(node.id.as_str()),
        text(&node.attestation_type),
        node.serial.as_deref().map_or(Value::Null, text),
        Value::Integer(node.expires_at.0),
        new.map_or(Value::Null, |(serial, _)| text(serial)),
        new.map_or(Value::Null, |(_, end)| Value::Integer(end.0)),
        list(&node.selectors),
        flag(node.can_reattest),
        text(&node.agent_version),
    ]
}

fn read(fields: &mut Fields<'_>) -> Result<Row, Bad> {
    Ok(Row::Node(Node {
        id: fields.parse(SpiffeId::parse)?,
        attestation_type: fields.take()?,
        serial: fields.take()?,
        expires_at: fields.time()?,
        new_serial: fields.take::<Option<Arc<str>>>()?.zip(fields.time_or_none()?),
        selectors: SelectorSet::new(fields.list(str::parse)?).map_err(bad)?,
        can_reattest: fields.take()?,
        agent_version: fields.take()?,
    }))
}
