//! Proofs: what a page says is tied to tests by their IDs, `path/file.rs::test`.
//!
//! Never takes a function for a proof that is no test.

use std::path::Path;

use crate::files;

/// True if the file has a function of that name right below a line that makes it a test.
pub fn lives(proof: &str) -> bool {
    let Some((path, name)) = proof.rsplit_once("::") else { return false };
    if !files::root().join(Path::new(path)).is_file() {
        return false;
    }
    files::read(path).is_ok_and(|text| has_test(&text, name))
}

/// True if `text` has a test of that name.
fn has_test(text: &str, name: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_test_proves_something() {
        let text =
            "#[tokio::test]\n#[cfg(unix)]\nasync fn good() {}\nfn helper() {}\n#[test]\nfn other() {}\n";
        assert!(has_test(text, "good") && has_test(text, "other"));
        assert!(!has_test(text, "helper") && !has_test(text, "go"));
    }

    #[test]
    fn a_proof_is_a_file_and_a_test_of_it() {
        let here = ".ci/xtask/src/proofs.rs::";
        assert!(lives(&format!("{here}a_proof_is_a_file_and_a_test_of_it")));
        assert!(!lives(&format!("{here}lives")) && !lives(".ci/nowhere.rs::a") && !lives("a_proof"));
    }
}
