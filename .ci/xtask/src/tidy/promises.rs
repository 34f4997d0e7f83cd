//! The threat model is tied to tests: each promise names tests, and each named test is there.

use std::path::Path;

use super::Finding;
use crate::files;

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
            if !lives(proof) {
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

/// True if the file has a function of that name right below a line that makes it a test.
fn lives(proof: &str) -> bool {
    let Some((path, name)) = proof.rsplit_once("::") else { return false };
    if !files::root().join(Path::new(path)).is_file() {
        return false;
    }
    files::read(path).is_ok_and(|text| has_test(&text, name))
}

/// True if `text` has a test of that name.
pub fn has_test(text: &str, name: &str) -> bool {
    let mut attributed = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributed |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if line.contains("fn ") {
            let signature = format!("fn {name}(");
            if attributed && line.contains(&signature) {
                return true;
            }
            attributed = false;
        }
    }
    false
}
