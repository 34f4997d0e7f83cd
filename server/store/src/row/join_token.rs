//! Join tokens: a digest and an end. The text of a token never comes here.

use avouch_domain::{JoinToken, Row};
use rusqlite::types::Value;

use super::{Bad, Fields, Statements};

pub(super) const STATEMENTS: Statements = Statements {
    table: "join_tokens",
    put: "INSERT INTO join_tokens (digest, expires_at) VALUES (?1, ?2) \
          ON CONFLICT (digest) DO UPDATE SET expires_at = excluded.expires_at",
    delete: "DELETE FROM join_tokens WHERE digest = ?1",
    get: "SELECT * FROM join_tokens WHERE digest = ?1",
    all: "SELECT * FROM join_tokens ORDER BY digest",
    read,
};

pub(super) fn values(token: &JoinToken) -> Vec<Value> {
    vec![Value::Blob(token.digest.to_vec()), Value::Integer(token.expires_at.0)]
}

fn read(fields: &mut Fields<'_>) -> Result<Row, Bad> {
    Ok(Row::JoinToken(JoinToken { digest: fields.take()?, expires_at: fields.time()? }))
}
