//! Texts of requests, by hash: read when somebody asks for them, and in no image.
//!
//! Never changes a text that is written; it goes with the last request that names it.

use std::sync::Arc;

use avouch_domain::{RequestHash, RequestId, RequestText};
use rusqlite::{Connection, OptionalExtension};

use crate::error::StoreError;

/// Keeps a text, unless one with its hash is there.
pub(crate) fn keep(conn: &Connection, text: &RequestText) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO request_texts (hash, text) VALUES (?1, ?2) ON CONFLICT (hash) DO NOTHING",
    )?
    .execute((text.hash.0, &*text.text))?;
    Ok(())
}

/// Drops the text of a request that is about to go, unless another one names it.
pub(crate) fn forget(conn: &Connection, id: &RequestId) -> Result<(), StoreError> {
    conn.prepare_cached(
        "DELETE FROM request_texts WHERE hash = (SELECT hash FROM requests WHERE id = ?1) \
         AND NOT EXISTS (SELECT 1 FROM requests WHERE hash = request_texts.hash AND id <> ?1)",
    )?
    .execute([id.as_str()])?;
    Ok(())
}

/// Reads a text; `None` if it is not kept.
pub(crate) fn read(conn: &Connection, hash: RequestHash) -> Result<Option<RequestText>, StoreError> {
    let text: Option<Arc<str>> = conn
        .prepare_cached("SELECT text FROM request_texts WHERE hash = ?1")?
        .query_row([hash.0], |r| r.get(0))
        .optional()?;
    Ok(text.map(|text| RequestText { hash, text }))
}
