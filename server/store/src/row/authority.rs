//! Authorities: the journal of slots, public halves only. Private keys never come here.

use avouch_domain::{Authority, AuthorityKind, Holder, Revision, Row, RowKey, Slot, SlotState};
use rusqlite::types::Value;

use super::{Bad, Fields, Statements, bad, flag, text};

pub(super) const STATEMENTS: Statements = Statements {
    table: "authorities",
    put: "INSERT INTO authorities (kind, holder, slot, state, id, public, issued_at, not_after, tainted, \
          published_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
          ON CONFLICT (kind, holder, slot) DO UPDATE SET state = excluded.state, id = excluded.id, \
          public = excluded.public, issued_at = excluded.issued_at, not_after = excluded.not_after, \
          tainted = excluded.tainted, published_at = excluded.published_at",
    delete: "DELETE FROM authorities WHERE kind = ?1 AND holder = ?2 AND slot = ?3",
    get: "SELECT * FROM authorities WHERE kind = ?1 AND holder = ?2 AND slot = ?3",
    all: "SELECT * FROM authorities ORDER BY kind, holder, slot",
    read,
};

pub(super) fn values(authority: &Authority) -> Vec<Value> {
    let mut values = key_values(authority.kind, &authority.holder, authority.slot);
    values.extend([
        text(state_name(authority.state)),
        text(&authority.id),
        Value::Blob(authority.public.to_vec()),
        Value::Integer(authority.issued_at.0),
        Value::Integer(authority.not_after.0),
        flag(authority.tainted),
        authority.published_at.map_or(Value::Null, |r| Value::Integer(r.0.cast_signed())),
    ]);
    values
}

pub(super) fn key_values(kind: AuthorityKind, holder: &Holder, slot: Slot) -> Vec<Value> {
    vec![text(kind_name(kind)), Value::Text(holder_name(holder)), text(slot_name(slot))]
}

/// `kind/slot/holder`; the holder comes last since a server's name may hold slashes.
pub(super) fn key_to_log(kind: AuthorityKind, holder: &Holder, slot: Slot) -> String {
    format!("{}/{}/{}", kind_name(kind), slot_name(slot), holder_name(holder))
}

pub(super) fn key_from_log(key: &str) -> Result<RowKey, Bad> {
    let mut parts = key.splitn(3, '/');
    let mut next = || parts.next().ok_or_else(|| bad(format!("authority key `{key}` has too few parts")));
    let (kind, slot, holder) = (next()?, next()?, next()?);
    Ok(RowKey::Authority(read_kind(kind)?, read_holder(holder)?, read_slot(slot)?))
}

fn read(fields: &mut Fields<'_>) -> Result<Row, Bad> {
    Ok(Row::Authority(Authority {
        kind: fields.parse(read_kind)?,
        holder: fields.parse(read_holder)?,
        slot: fields.parse(read_slot)?,
        state: fields.parse(read_state)?,
        id: fields.take()?,
        public: fields.take()?,
        issued_at: fields.time()?,
        not_after: fields.time()?,
        tainted: fields.take()?,
        published_at: fields.take::<Option<i64>>()?.map(|r| Revision(r.cast_unsigned())),
    }))
}

fn kind_name(kind: AuthorityKind) -> &'static str {
    match kind {
        AuthorityKind::X509 => "x509",
        AuthorityKind::Jwt => "jwt",
    }
}

fn read_kind(name: &str) -> Result<AuthorityKind, Bad> {
    match name {
        "x509" => Ok(AuthorityKind::X509),
        "jwt" => Ok(AuthorityKind::Jwt),
        _ => Err(bad(format!("authority kind `{name}` is unknown"))),
    }
}

fn slot_name(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "A",
        Slot::B => "B",
    }
}

fn read_slot(name: &str) -> Result<Slot, Bad> {
    match name {
        "A" => Ok(Slot::A),
        "B" => Ok(Slot::B),
        _ => Err(bad(format!("authority slot `{name}` is unknown"))),
    }
}

fn holder_name(holder: &Holder) -> String {
    match holder {
        Holder::TrustDomain => "domain".to_owned(),
        Holder::Server(name) => format!("server:{name}"),
    }
}

fn read_holder(name: &str) -> Result<Holder, Bad> {
    match name.strip_prefix("server:") {
        Some(server) => Ok(Holder::Server(server.into())),
        None if name == "domain" => Ok(Holder::TrustDomain),
        None => Err(bad(format!("authority holder `{name}` is unknown"))),
    }
}

fn state_name(state: SlotState) -> &'static str {
    match state {
        SlotState::Prepared => "prepared",
        SlotState::Active => "active",
        SlotState::Old => "old",
    }
}

fn read_state(name: &str) -> Result<SlotState, String> {
    match name {
        "prepared" => Ok(SlotState::Prepared),
        "active" => Ok(SlotState::Active),
        "old" => Ok(SlotState::Old),
        _ => Err(format!("authority state `{name}` is unknown")),
    }
}
