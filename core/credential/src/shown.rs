//! Texts that others wrote, made fit for a person's eyes: on a terminal and on a page alike.
//!
//! Never hides, reorders or joins anything: what can't be seen as it was written is written out.

use std::fmt::Write as _;

use serde_json::Value;

/// Widest piece of a text of others, in characters: wide ones take two columns.
const WIDTH: usize = 60;

/// What a gate shows, indented: the arguments of a tool one by one, anything else line by line. Nothing of it is wider than a
/// screen, so that no text gets from behind its bar.
#[must_use]
pub fn laid_out(shown: &str) -> String {
    let mut text = String::new();
    let mut lines = |indent: &str, lines: &str| {
        for line in lines.split('\n') {
            let line: Vec<char> = plain(line).chars().collect();
            for piece in line.chunks(WIDTH) {
                let _ = writeln!(text, "{indent}| {}", piece.iter().collect::<String>());
            }
            if line.is_empty() {
                let _ = writeln!(text, "{indent}|");
            }
        }
    };
    match serde_json::from_str::<Value>(shown) {
        Ok(Value::Object(fields)) if !fields.is_empty() => {
            for (name, value) in fields {
                match value {
                    Value::String(long) if long.contains('\n') => {
                        lines("  ", &format!("{name}:"));
                        lines("    ", &long);
                    }
                    value => lines("  ", &format!("{name}: {value}")),
                }
            }
        }
        _ => lines("  ", shown),
    }
    text
}

/// Text of others for a terminal. Only what has a shape of its own and stands where it was written is shown; everything
/// else, such as what moves the cursor, reorders, combines or can't be seen, is written out.
#[must_use]
pub fn plain(text: &str) -> String {
    let right_to_left = |c: char| {
        matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}')
            || matches!(c, '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}')
    };
    let empty =
        |c: char| matches!(c, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{17b4}' | '\u{17b5}');
    let sign = |c: char| {
        matches!(c, '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{bf}' | '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}')
            || matches!(c, '\u{20a0}'..='\u{20c0}' | '\u{2190}'..='\u{21ff}' | '\u{2200}'..='\u{22ff}')
    };
    let shows = |c: char| {
        c == ' ' || c.is_ascii_graphic() || sign(c) || (c.is_alphanumeric() && !right_to_left(c) && !empty(c))
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if shows(c) { out.push(c) } else { out.extend(c.escape_unicode()) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_others_wrote_moves_the_cursor_or_hides_itself() {
        assert_eq!(
            plain("pay\u{1b}[2K\u{202e}txt\u{200b}\r\n"),
            "pay\\u{1b}[2K\\u{202e}txt\\u{200b}\\u{d}\\u{a}"
        );
        assert_eq!(plain("tag\u{e0041} \u{e9}\u{4e2d}\u{2014}"), "tag\\u{e0041} \u{e9}\u{4e2d}\u{2014}");
        for hidden in [
            '\u{ad}',
            '\u{34f}',
            '\u{301}',
            '\u{3164}',
            '\u{2800}',
            '\u{a0}',
            '\u{3000}',
            '\u{5d0}',
            '\u{1d173}',
        ] {
            assert!(plain(&hidden.to_string()).starts_with("\\u{"), "{}", hidden.escape_unicode());
        }
    }

    #[test]
    fn arguments_stand_one_by_one_and_their_lines_under_each_other() {
        let text = laid_out("{\"content\":\"a\\nb\\u001b\",\"path\":\"main.py\",\"n\":5}");
        assert_eq!(text, "  | content:\n    | a\n    | b\\u{1b}\n  | path: \"main.py\"\n  | n: 5\n");
        assert_eq!(laid_out("-old\n+new"), "  | -old\n  | +new\n");
    }

    #[test]
    fn a_line_that_a_text_makes_up_stands_behind_a_bar() {
        let text = laid_out("{\"x\":\"1\\nnext: all is well\"}");
        assert!(text.lines().all(|line| line.trim_start().starts_with("| ")), "{text}");
        let wide = laid_out(&format!("{}next: all is well", " ".repeat(200)));
        assert!(wide.lines().all(|line| line.chars().count() <= 70 && line.starts_with("  | ")), "{wide}");
        assert_eq!(laid_out("a\n\nb"), "  | a\n  |\n  | b\n");
    }
}
