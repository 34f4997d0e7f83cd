//! House rules as code: a rule that is not checked is a wish.

mod arrows;
mod promises;
mod source;
#[cfg(test)]
mod tests;

use crate::{Outcome, files, r#gen};

/// A place that breaks a rule: `path:line: what, and what to do`.
pub type Finding = String;

/// Runs every rule and prints all findings at once.
pub fn run() -> Outcome {
    let mut findings = arrows::check()?;
    for path in files::with_ending(".rs")? {
        let text = files::read(&path)?;
        findings.extend(source::check(&path, &text));
    }
    findings.extend(workplace_words()?);
    findings.extend(map_names_every_room()?);
    findings.extend(promises::check()?);
    if let Err(e) = r#gen::run(true) {
        findings.push(e);
    }
    if findings.is_empty() {
        println!("tidy: ok");
        return Ok(());
    }
    for finding in &findings {
        println!("{finding}");
    }
    Err(format!("tidy: {} findings", findings.len()))
}

/// The project speaks of itself alone: no path of one machine, no package registry's host.
fn workplace_words() -> Result<Vec<Finding>, String> {
    // Written in halves so that this file does not find itself.
    let words = [
        ["/work", "/main"].concat(),
        ["crates", ".io"].concat(),
        ["pypi", ".org"].concat(),
        ["proxy.golang", ".org"].concat(),
        ["registry.npmjs", ".org"].concat(),
    ];
    let mut findings = Vec::new();
    for ending in [".rs", ".md", ".toml", ".conf", ".sh", ".py", ".go", ".service", "run", ".proto", ".sql"] {
        for path in files::with_ending(ending)? {
            let Ok(text) = files::read(&path) else { continue };
            for (number, line) in text.lines().enumerate() {
                if let Some(word) = words.iter().find(|w| line.contains(w.as_str())) {
                    findings
                        .push(format!("{path}:{}: `{word}` names a place outside the project", number + 1));
                }
            }
        }
    }
    Ok(findings)
}

/// Every crate folder has its paragraph in the map that newcomers read.
fn map_names_every_room() -> Result<Vec<Finding>, String> {
    let map = files::read("docs/ARCHITECTURE.md")?;
    let mut findings = Vec::new();
    for manifest in files::with_ending("Cargo.toml")? {
        let folder = manifest.trim_end_matches("Cargo.toml").trim_end_matches('/');
        if !folder.is_empty() && !map.contains(&format!("`{folder}/`")) {
            findings.push(format!(
                "docs/ARCHITECTURE.md: no paragraph names `{folder}/`; add one with its \"Never:\" line"
            ));
        }
    }
    Ok(findings)
}
