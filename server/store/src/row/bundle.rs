//! Bundles: one row per trust domain, authorities as JSON in the order of the bundle.

use avouch_domain::{Bundle, JwtAuthority, Row, Timestamp, TrustDomain, X509Authority};
use rusqlite::types::Value;
use serde::{Deserialize, Serialize};

use super::{Bad, Fields, Statements, bad, text};

pub(super) const STATEMENTS: Statements = Statements {
    table: "bundles",
    put: "INSERT INTO bundles (trust_domain, x509_authorities, jwt_authorities, refresh_hint, sequence_number) \
          VALUES (?1, ?2, ?3, ?4, ?5) \
          ON CONFLICT (trust_domain) DO UPDATE SET x509_authorities = excluded.x509_authorities, \
          jwt_authorities = excluded.jwt_authorities, refresh_hint = excluded.refresh_hint, \
          sequence_number = excluded.sequence_number",
    delete: "DELETE FROM bundles WHERE trust_domain = ?1",
    get: "SELECT * FROM bundles WHERE trust_domain = ?1",
    all: "SELECT * FROM bundles ORDER BY trust_domain",
    read,
};

/// Bytes are hex.
#[derive(Serialize, Deserialize)]
struct X509Column {
    der: String,
    tainted: bool,
}

/// Bytes are hex, times milliseconds.
#[derive(Serialize, Deserialize)]
struct JwtColumn {
    key_id: String,
    public_key: String,
    expires_at: Option<i64>,
    tainted: bool,
}

pub(super) fn values(bundle: &Bundle) -> Vec<Value> {
    let x509 = bundle.x509_authorities.iter().map(|a| {
        let der = hex::encode(&a.der);
        serde_json::json!(X509Column { der, tainted: a.tainted })
    });
    let jwt = bundle.jwt_authorities.iter().map(|a| {
        serde_json::json!(JwtColumn {
            key_id: a.key_id.to_string(),
            public_key: hex::encode(&a.public_key),
            expires_at: a.expires_at.map(|t| t.0),
            tainted: a.tainted,
        })
    });
    vec![
        text(bundle.trust_domain.as_str()),
        Value::Text(serde_json::Value::Array(x509.collect()).to_string()),
        Value::Text(serde_json::Value::Array(jwt.collect()).to_string()),
        Value::Integer(bundle.refresh_hint),
        // The column is signed: the bits are kept.
        Value::Integer(bundle.sequence_number.cast_signed()),
    ]
}

fn read(fields: &mut Fields<'_>) -> Result<Row, Bad> {
    let trust_domain = fields.parse(TrustDomain::new)?;
    let x509: Vec<X509Column> = fields.json()?;
    let jwt: Vec<JwtColumn> = fields.json()?;
    Ok(Row::Bundle(Bundle {
        trust_domain,
        x509_authorities: x509.into_iter().map(read_x509).collect::<Result<_, _>>()?,
        jwt_authorities: jwt.into_iter().map(read_jwt).collect::<Result<_, _>>()?,
        refresh_hint: fields.take()?,
        sequence_number: fields.take::<i64>()?.cast_unsigned(),
    }))
}

fn read_x509(column: X509Column) -> Result<X509Authority, Bad> {
    Ok(X509Authority { der: hex::decode(column.der).map_err(bad)?.into(), tainted: column.tainted })
}

fn read_jwt(column: JwtColumn) -> Result<JwtAuthority, Bad> {
    Ok(JwtAuthority {
        key_id: column.key_id.into(),
        public_key: hex::decode(column.public_key).map_err(bad)?.into(),
        expires_at: column.expires_at.map(Timestamp),
        tainted: column.tainted,
    })
}
