//! Environment variables in a configuration text, put in before it is parsed (`-expandEnv`).
//!
//! Never reads the environment: the caller looks names up.

/// Replaces `$NAME` and `${NAME}` as Go's `os.Expand` does, and `$$` by `$`. An unset variable becomes empty, `${}` and
/// an unclosed `${` vanish, a `$` before anything else stays.
#[must_use]
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        match name(after) {
            (None, 0) => out.push('$'),
            (None, _) => {}
            (Some("$"), _) => out.push('$'),
            (Some(name), _) => out.push_str(&lookup(name).unwrap_or_default()),
        }
        rest = after.get(name(after).1..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// The variable named at the start of a text, and the bytes that its name takes with braces.
fn name(text: &str) -> (Option<&str>, usize) {
    if let Some(inner) = text.strip_prefix('{') {
        return match inner.find('}') {
            Some(0) => (None, 2),
            Some(end) => (inner.get(..end), end + 2),
            None => (None, 1),
        };
    }
    if text.starts_with(|c: char| "*#$@!?-".contains(c) || c.is_ascii_digit()) {
        return (text.get(..1), 1);
    }
    let end = text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    (text.get(..end).filter(|n| !n.is_empty()), end)
}

#[cfg(test)]
mod tests {
    fn expand(text: &str) -> String {
        super::expand(text, |name| match name {
            "A" => Some("one".into()),
            "LONG_1" => Some("two".into()),
            "1" => Some("arg".into()),
            _ => None,
        })
    }

    #[test]
    fn both_spellings_are_replaced_and_unset_is_empty() {
        assert_eq!(expand("x=\"$A\" ${LONG_1}/$LONG_1-$A.b $NOPE|"), "x=\"one\" two/two-one.b |");
    }

    #[test]
    fn two_dollars_are_one() {
        assert_eq!(expand("a$$A ${$}"), "a$A $");
    }

    #[test]
    fn what_names_no_variable_is_treated_as_go_does() {
        assert_eq!(expand("5$ $% ${}| ${A"), "5$ $% | A");
        assert_eq!(expand("$12 $"), "arg2 $");
        assert_eq!(expand("$ä"), "$ä");
    }
}
