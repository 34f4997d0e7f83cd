//! Folders of published rules, by digest: texts that are read when somebody asks for them, and in no image.
//!
//! Never changes a folder that is written; the oldest go when there are too many.

use avouch_domain::{RulesDigest, RulesFolder};
use rusqlite::{Connection, OptionalExtension};

use crate::error::StoreError;
use crate::limits::FOLDERS_KEPT;

/// Keeps a folder, unless one with its digest is there.
pub(crate) fn keep(conn: &Connection, folder: &RulesFolder) -> Result<(), StoreError> {
    let files = serde_json::to_string(&*folder.files).map_err(|e| bad(e.to_string()))?;
    conn.prepare_cached(
        "INSERT INTO rules_folders (digest, files) VALUES (?1, ?2) ON CONFLICT (digest) DO NOTHING",
    )?
    .execute((folder.digest.0, files))?;
    Ok(())
}

/// Drops folders that neither the newest rules name nor those in force.
pub(crate) fn prune(conn: &Connection) -> Result<(), StoreError> {
    conn.prepare_cached(
        "DELETE FROM rules_folders WHERE digest NOT IN (SELECT digest FROM rules ORDER BY number DESC LIMIT ?1) \
         AND digest NOT IN (SELECT digest FROM rules WHERE standing = 'approved' ORDER BY number DESC LIMIT 1)",
    )?
    .execute([FOLDERS_KEPT])?;
    Ok(())
}

/// Reads a folder; `None` if it is not kept.
pub(crate) fn read(conn: &Connection, digest: &RulesDigest) -> Result<Option<RulesFolder>, StoreError> {
    let files: Option<String> = conn
        .prepare_cached("SELECT files FROM rules_folders WHERE digest = ?1")?
        .query_row([digest.0], |r| r.get(0))
        .optional()?;
    let Some(files) = files else { return Ok(None) };
    let files: Vec<(String, String)> = serde_json::from_str(&files).map_err(|e| bad(e.to_string()))?;
    Ok(Some(RulesFolder { digest: *digest, files: files.into() }))
}

fn bad(problem: String) -> StoreError {
    StoreError::Row { table: "rules_folders", problem }
}
