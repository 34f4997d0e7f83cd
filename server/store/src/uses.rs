//! On which day each identity was used last, as far as nodes have told.
//!
//! Never goes back, and forgets what nobody used for longer than anybody asks about.

use std::collections::HashSet;

use avouch_domain::{SpiffeId, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use crate::error::StoreError;
use crate::limits::USES_KEPT_DAYS;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// Which identities were used lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Since when nodes are asked: what was used before that is not known.
    pub since: Timestamp,
    /// SPIFFE IDs of identities.
    pub lately: HashSet<String>,
    /// SPIFFE IDs of nodes that tell what is used there.
    pub tellers: HashSet<String>,
}

fn day_of(at: Timestamp) -> i64 {
    at.secs().div_euclid(DAY)
}

/// Keeps that a node told that these were used.
pub(crate) fn keep(
    conn: &Connection,
    node: &SpiffeId,
    names: &[SpiffeId],
    at: Timestamp,
) -> Result<(), StoreError> {
    let day = day_of(at);
    conn.prepare_cached(
        "INSERT INTO use_tellers (node, day) VALUES (?1, ?2) \
         ON CONFLICT (node) DO UPDATE SET day = excluded.day WHERE excluded.day > day",
    )?
    .execute((node.as_str(), day))?;
    let mut put = conn.prepare_cached(
        "INSERT INTO uses (spiffe_id, day) VALUES (?1, ?2) \
         ON CONFLICT (spiffe_id) DO UPDATE SET day = excluded.day WHERE excluded.day > day",
    )?;
    for name in names {
        put.execute((name.as_str(), day))?;
    }
    conn.prepare_cached("DELETE FROM uses WHERE day < ?1")?.execute([day - USES_KEPT_DAYS])?;
    conn.prepare_cached("DELETE FROM use_tellers WHERE day < ?1")?.execute([day - USES_KEPT_DAYS])?;
    Ok(())
}

/// Those that were used since a moment, to a day.
pub(crate) fn since(conn: &Connection, at: Timestamp) -> Result<Uses, StoreError> {
    let since = conn.query_row("SELECT uses_since FROM meta WHERE id = 1", (), |r| r.get(0))?;
    let mut statement = conn.prepare_cached("SELECT spiffe_id FROM uses WHERE day >= ?1")?;
    let lately = statement.query_map([day_of(at)], |r| r.get(0))?.collect::<Result<_, _>>()?;
    let mut statement = conn.prepare_cached("SELECT node FROM use_tellers")?;
    let tellers = statement.query_map((), |r| r.get(0))?.collect::<Result<_, _>>()?;
    Ok(Uses { since: Timestamp(since), lately, tellers })
}

/// The beginning of the day on which each of these was used last; `None`: not known.
pub(crate) fn last(conn: &Connection, names: &[SpiffeId]) -> Result<Vec<Option<Timestamp>>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT day FROM uses WHERE spiffe_id = ?1")?;
    let days = names.iter().map(|name| {
        let day: Option<i64> = statement.query_row([name.as_str()], |r| r.get(0)).optional()?;
        Ok(day.map(|day| Timestamp::from_secs(day.saturating_mul(DAY))))
    });
    days.collect()
}
