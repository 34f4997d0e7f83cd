//! Entries: one row each, lists as JSON arrays in their order, since replies keep it.

use avouch_domain::{Entry, EntryId, EntryParts, Row, SpiffeId, TrustDomain, Ttl};
use rusqlite::types::Value;

use super::{Bad, Fields, Statements, bad, flag, list, text};

pub(super) const STATEMENTS: Statements = Statements {
    table: "entries",
    put: "INSERT INTO entries (id, spiffe_id, parent_id, selectors, x509_svid_ttl, jwt_svid_ttl, federates_with, \
          admin, downstream, expires_at, dns_names, store_svid, hint, disable_x509_svid_prefetch, \
          jwt_svid_include_jti, revision_number, created_at) \
          VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17) \
          ON CONFLICT (id) DO UPDATE SET spiffe_id = excluded.spiffe_id, parent_id = excluded.parent_id, \
          selectors = excluded.selectors, x509_svid_ttl = excluded.x509_svid_ttl, \
          jwt_svid_ttl = excluded.jwt_svid_ttl, federates_with = excluded.federates_with, admin = excluded.admin, \
          downstream = excluded.downstream, expires_at = excluded.expires_at, dns_names = excluded.dns_names, \
          store_svid = excluded.store_svid, hint = excluded.hint, \
          disable_x509_svid_prefetch = excluded.disable_x509_svid_prefetch, \
          jwt_svid_include_jti = excluded.jwt_svid_include_jti, revision_number = excluded.revision_number, \
          created_at = excluded.created_at",
    delete: "DELETE FROM entries WHERE id = ?1",
    get: "SELECT * FROM entries WHERE id = ?1",
    all: "SELECT * FROM entries ORDER BY id",
    read,
};

pub(super) fn values(entry: &Entry) -> Vec<Value> {
    vec![
        text(entry.id.as_str()),
        text(entry.spiffe_id.as_str()),
        text(entry.parent_id.as_str()),
        list(&entry.selectors),
        Value::Integer(entry.x509_svid_ttl.0.into()),
        Value::Integer(entry.jwt_svid_ttl.0.into()),
        list(&entry.federates_with),
        flag(entry.admin),
        flag(entry.downstream),
        entry.expires_at.map_or(Value::Null, |t| Value::Integer(t.0)),
        list(&entry.dns_names),
        flag(entry.store_svid),
        text(&entry.hint),
        flag(entry.disable_x509_svid_prefetch),
        flag(entry.jwt_svid_include_jti),
        Value::Integer(entry.revision_number),
        Value::Integer(entry.created_at.0),
    ]
}

fn read(fields: &mut Fields<'_>) -> Result<Row, Bad> {
    let parts = EntryParts {
        id: fields.parse(EntryId::new)?,
        spiffe_id: fields.parse(SpiffeId::parse)?,
        parent_id: fields.parse(SpiffeId::parse)?,
        selectors: fields.list(str::parse)?,
        x509_svid_ttl: Ttl(fields.take()?),
        jwt_svid_ttl: Ttl(fields.take()?),
        federates_with: fields.list(TrustDomain::new)?,
        admin: fields.take()?,
        downstream: fields.take()?,
        expires_at: fields.time_or_none()?,
        dns_names: fields.json()?,
        store_svid: fields.take()?,
        hint: fields.take()?,
        disable_x509_svid_prefetch: fields.take()?,
        jwt_svid_include_jti: fields.take()?,
        revision_number: fields.take()?,
        created_at: fields.time()?,
    };
    Entry::new(parts).map(Row::Entry).map_err(bad)
}
