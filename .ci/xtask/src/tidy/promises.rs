//! The threat model is tied to tests: each promise names tests, and each named test is there.

use super::Finding;
use crate::{files, proofs};

const PAGE: &str = "docs/SECURITY.md";
/// What the first cell of a promise begins with.
const ID: &str = "SEC-";

/// Checks every promise of the page.
pub fn check() -> Result<Vec<Finding>, String> {
    let page = files::read(PAGE)?;
    let mut findings = Vec::new();
    let mut promises = 0;
    for (number, line) in page.lines().enumerate() {
        let Some((id, proofs)) = promise(line) else { continue };
        promises += 1;
        let place = format!("{PAGE}:{}: {id}", number + 1);
        if proofs.is_empty() {
            findings
                .push(format!("{place} names no test; add `path/file.rs::test` or take the promise back"));
        }
        for proof in proofs {
            if !proofs::lives(proof) {
                findings.push(format!("{place}: there is no test `{proof}`"));
            }
        }
    }
    if promises == 0 {
        findings.push(format!("{PAGE}: no promise found; expected rows that begin with `| {ID}`"));
    }
    Ok(findings)
}

/// Number and proofs of a row that promises something.
pub fn promise(line: &str) -> Option<(&str, Vec<&str>)> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let id = cells.next()?;
    id.strip_prefix(ID)?;
    let proofs = cells.nth(1).unwrap_or_default();
    Some((id, proofs.split('`').skip(1).step_by(2).collect()))
}
