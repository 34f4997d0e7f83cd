//! What is accepted although it is lacking: one row for a name and a finding.

use avouch_domain::why;
use avouch_domain::{Accepted, Finding, Row, Said, SpiffeId};
use rusqlite::types::Value;

use super::{Bad, Fields, Statements, text};

pub(super) const STATEMENTS: Statements = Statements {
    table: "accepted",
    put: "INSERT INTO accepted (name, what, until, why, accepted_by, accepted_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
          ON CONFLICT (name, what) DO UPDATE SET until = excluded.until, why = excluded.why, \
          accepted_by = excluded.accepted_by, accepted_at = excluded.accepted_at",
    delete: "DELETE FROM accepted WHERE name = ?1 AND what = ?2",
    get: "SELECT * FROM accepted WHERE name = ?1 AND what = ?2",
    all: "SELECT * FROM accepted ORDER BY name, what",
    read,
};

pub(super) fn values(accepted: &Accepted) -> Vec<Value> {
    vec![
        text(accepted.name.as_str()),
        text(accepted.what.name()),
        Value::Integer(accepted.until.0),
        text(&accepted.why),
        text(accepted.said.by.as_str()),
        Value::Integer(accepted.said.at.0),
    ]
}

fn read(fields: &mut Fields<'_>) -> Result<Row, Bad> {
    Ok(Row::Accepted(Accepted {
        name: fields.parse(SpiffeId::parse)?,
        what: fields.parse(str::parse::<Finding>)?,
        until: fields.time()?,
        why: fields.parse(why)?,
        said: Said { by: fields.person()?, at: fields.time()? },
    }))
}
