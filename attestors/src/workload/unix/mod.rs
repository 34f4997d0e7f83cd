//! The `unix` workload attestor: user, groups, path and digest of the caller's binary, as SPIRE names them.
//!
//! Never: no file is opened by the path a process shows: that path may mean another file in its own mount
//! namespace; where a user could have made it so, it is no selector (`path.rs`). The digest is of the image that runs, read through /proc/PID/exe.

mod digest;
mod path;

use std::sync::Arc;

use avouch_domain::Selector;
use nix::unistd::{Gid, Group, Uid, User};

use super::{LookError, WorkloadLooker, failed, from_process};
use crate::Boxed;
use crate::process::{Look, PinnedProcess};
use digest::{DigestError, Digests};

const NAME: &str = "unix";

/// What the configuration says about the attestor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Gives `path` and `sha256`. Off by default.
    pub discover_workload_path: bool,
    /// Largest binary that is hashed, in bytes: 0 = any, above 0 = a larger one is an error, below 0 = never hash.
    pub workload_size_limit: i64,
}

/// The attestor.
#[derive(Debug)]
pub struct Unix {
    config: Config,
    digests: Arc<Digests>,
}

impl Unix {
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, digests: Arc::new(Digests::default()) }
    }
}

impl WorkloadLooker for Unix {
    fn name(&self) -> &'static str {
        NAME
    }

    fn look(&self, process: Arc<PinnedProcess>) -> Boxed<'static, Result<Vec<Selector>, LookError>> {
        let (config, digests) = (self.config, Arc::clone(&self.digests));
        // Name look-ups may ask a directory service and hashing reads a whole binary: neither may hold up the
        // threads that serve other callers.
        let work = tokio::task::spawn_blocking(move || look(&config, &digests, &process));
        Box::pin(async move { work.await.unwrap_or_else(|e| Err(failed(NAME, e))) })
    }
}

fn look(config: &Config, digests: &Digests, process: &PinnedProcess) -> Result<Vec<Selector>, LookError> {
    let key = process.key();
    let mut found = vec![selector("uid", key.uid)?];
    if let Some(name) = user_name(key.uid) {
        found.push(selector("user", name)?);
    }
    found.push(selector("gid", key.gid)?);
    if let Some(name) = group_name(key.gid) {
        found.push(selector("group", name)?);
    }
    for gid in key.groups.iter().copied() {
        found.push(selector("supplementary_gid", gid)?);
        if let Some(name) = group_name(gid) {
            found.push(selector("supplementary_group", name)?);
        }
    }
    if config.discover_workload_path {
        let facts = process.facts().map_err(|source| LookError::Gone { looker: NAME, source })?;
        let path = facts
            .exe_path
            .as_deref()
            .ok_or_else(|| failed(NAME, "the agent may not see the path of the binary"))?;
        // A path that is not UTF-8 can't stand in any entry, so nothing could match it.
        match str::from_utf8(path) {
            Ok(path) if path::is_everybodys(&facts, path) => found.push(selector("path", path)?),
            Ok(path) => {
                tracing::debug!(
                    pid = key.pid,
                    path,
                    "The path of a binary is another's outside of its user namespace: not taken"
                );
            }
            Err(_) => {}
        }
        if config.workload_size_limit >= 0 {
            found.push(selector("sha256", sha256(config, digests, process)?)?);
        }
    }
    process.still_same(Look::Whole).map_err(|source| LookError::Gone { looker: NAME, source })?;
    Ok(found)
}

fn sha256(config: &Config, digests: &Digests, process: &PinnedProcess) -> Result<String, LookError> {
    let file = process.open_exe().map_err(|e| from_process(NAME, e))?;
    let limit = u64::try_from(config.workload_size_limit).unwrap_or(0);
    let digest = digests.of(file, limit, || process.still_same(Look::Whole)).map_err(|e| match e {
        DigestError::Gone(source) => LookError::Gone { looker: NAME, source },
        other => failed(NAME, other),
    })?;
    Ok(hex::encode(digest))
}

fn selector(kind: &str, value: impl std::fmt::Display) -> Result<Selector, LookError> {
    Selector::new(NAME, &format!("{kind}:{value}")).map_err(|e| failed(NAME, e))
}

/// A missing or failing look-up leaves the name out, as SPIRE does: the number is the proof, the name a comfort.
fn user_name(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|u| u.name).filter(|n| !n.is_empty())
}

fn group_name(gid: u32) -> Option<String> {
    Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|g| g.name).filter(|n| !n.is_empty())
}

#[cfg(test)]
mod tests;
