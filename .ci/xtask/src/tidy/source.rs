//! Rules about one source file: its header, its size, its functions, its marks.

use super::Finding;

/// Longest file without its tests, in lines.
const FILE_MAX: usize = 600;
/// Longest test file, in lines.
const TEST_FILE_MAX: usize = 900;
/// Longest function, in lines from its first to its last.
const FUNCTION_MAX: usize = 70;

/// All findings of one file; `path` is relative to the top.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    if path.contains("/gen/") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings
            .push(format!("{path}:1: no `//!` header: say why the file exists and what it must never do"));
    }
    let lines: Vec<&str> = text.lines().collect();
    findings.extend(size(path, &lines));
    findings.extend(functions(path, &lines));
    findings.extend(marks(path, &lines));
    findings
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/")
        || path.starts_with("integration/")
        || path.contains("/tests/")
        || path.ends_with("tests.rs")
        || path.ends_with("props.rs")
}

fn size(path: &str, lines: &[&str]) -> Vec<Finding> {
    let (length, limit) = if is_test_file(path) {
        (lines.len(), TEST_FILE_MAX)
    } else {
        (lines.iter().position(|l| *l == "mod tests {").unwrap_or(lines.len()), FILE_MAX)
    };
    if length > limit {
        vec![format!("{path}: {length} lines, at most {limit}: split it by idea")]
    } else {
        Vec::new()
    }
}

/// Functions are found by their indentation, which rustfmt keeps.
fn functions(path: &str, lines: &[&str]) -> Vec<Finding> {
    if is_test_file(path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let words = trimmed.split("fn ").next().unwrap_or_default();
        let is_fn = trimmed.contains("fn ")
            && words.split_whitespace().all(|w| {
                w.starts_with("pub")
                    || matches!(
                        w,
                        "async" | "const" | "unsafe" | "extern" | "\"C\"" | "in" | "super)" | "crate)"
                    )
            });
        if !is_fn {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(line.len() - trimmed.len()));
        let Some(length) = lines.iter().skip(start).position(|l| *l == closing) else { continue };
        if length + 1 > FUNCTION_MAX && !line.trim_end().ends_with(';') {
            findings.push(format!(
                "{path}:{}: function of {} lines, at most {FUNCTION_MAX}",
                start + 1,
                length + 1
            ));
        }
    }
    findings
}

fn marks(path: &str, lines: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let ignored = line.contains("#[ignore") && !path.starts_with(".ci/");
        if ignored && !line.contains("202") {
            findings.push(format!(
                "{path}:{}: #[ignore] needs a dated reason: #[ignore = \"2026-01-31: why\"]",
                n + 1
            ));
        }
        let mark = ["TO", "DO"].concat();
        let fix = ["FIX", "ME"].concat();
        if line.contains(&mark) || line.contains(&fix) {
            findings.push(format!("{path}:{}: a mark left behind: do it or file it", n + 1));
        }
    }
    findings
}
