//! Published rules: one row each, by number. The table itself refuses a number that does not rise, other content under a
//! number, and a way back from a yes. Their folders are texts beside it, by digest.

use avouch_domain::rules::rules_note;
use avouch_domain::{PublishedRules, Row, RulesDigest, RulesStanding};
use rusqlite::types::Value;

use super::{Bad, Fields, Statements, person_or_null, text};

pub(super) const STATEMENTS: Statements = Statements {
    table: "rules",
    put: "INSERT INTO rules (number, digest, note, standing, published_by, published_at, yes_by, valid_from) \
          VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
          ON CONFLICT (number) DO UPDATE SET digest = excluded.digest, note = excluded.note, \
          standing = excluded.standing, published_by = excluded.published_by, \
          published_at = excluded.published_at, yes_by = excluded.yes_by, valid_from = excluded.valid_from",
    delete: "DELETE FROM rules WHERE number = ?1",
    get: "SELECT * FROM rules WHERE number = ?1",
    all: "SELECT * FROM rules ORDER BY number",
    read,
};

pub(super) fn values(rules: &PublishedRules) -> Vec<Value> {
    vec![
        Value::Integer(rules.number.cast_signed()),
        Value::Blob(rules.digest.0.to_vec()),
        text(&rules.note),
        text(rules.standing.name()),
        text(rules.published_by.as_str()),
        Value::Integer(rules.published_at.0),
        person_or_null(rules.yes_by.as_ref()),
        rules.valid_from.map_or(Value::Null, |at| Value::Integer(at.0)),
    ]
}

fn read(fields: &mut Fields<'_>) -> Result<Row, Bad> {
    Ok(Row::Rules(PublishedRules {
        number: fields.take::<i64>()?.cast_unsigned(),
        digest: RulesDigest(fields.take()?),
        note: fields.parse(rules_note)?,
        standing: fields.name(RulesStanding::from_name)?,
        published_by: fields.person()?,
        published_at: fields.time()?,
        yes_by: fields.person_or_none()?,
        valid_from: fields.time_or_none()?,
    }))
}
