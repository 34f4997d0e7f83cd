//! Cuts the text of a Cedar file into its policies, each with the line it begins at.
//!
//! One policy at a time is parsed, so that each mistake has its own line and one does not hide the next. Never judges:
//! what is no policy the parser refuses.

/// One policy as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    pub text: &'a str,
    /// Line of its first character, counted from 1.
    pub line: u32,
    /// The same text with strings and comments blanked.
    pub bare: String,
}

impl Statement<'_> {
    /// The line in the file of a place in the text.
    pub fn line_at(&self, offset: usize) -> u32 {
        self.line + line_ends(self.text, offset)
    }

    /// True if the word stands outside strings and comments.
    pub fn mentions(&self, word: &str) -> bool {
        self.words().any(|w| w == word)
    }

    /// How deep its brackets go.
    pub fn nesting(&self) -> usize {
        let (mut depth, mut deepest) = (0_usize, 0);
        for byte in self.bare.bytes() {
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        deepest
    }

    /// How many signs and words of operators it has.
    pub fn operators(&self) -> usize {
        let signs = self.bare.bytes().filter(|b| b"!.+-*<>=&|".contains(b)).count();
        signs + self.words().filter(|w| matches!(*w, "if" | "has" | "in" | "is" | "like")).count()
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.bare.split(|c: char| !c.is_alphanumeric() && c != '_')
    }
}

/// The policies of a file in their order. What follows the last `;` is one more, if it is more than space and comments.
pub(crate) fn split(text: &str) -> Vec<Statement<'_>> {
    let mut found = Vec::new();
    let (mut start, mut line) = (0, 1);
    let bare = blank(text);
    for end in bare.match_indices(';').map(|(at, _)| at + 1).chain([text.len()]) {
        let (Some(piece), Some(piece_bare)) = (text.get(start..end), bare.get(start..end)) else { continue };
        let lead = piece_bare.len() - piece_bare.trim_start().len();
        if let (Some(statement), Some(bare)) = (piece.get(lead..), piece_bare.get(lead..))
            && !bare.is_empty()
        {
            let line = line + line_ends(piece, lead);
            found.push(Statement { text: statement, line, bare: bare.to_owned() });
        }
        line += line_ends(piece, piece.len());
        start = end;
    }
    found
}

/// How many lines end before a place in a text.
pub(crate) fn line_ends(text: &str, offset: usize) -> u32 {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    u32::try_from(before.iter().filter(|b| **b == b'\n').count()).unwrap_or(u32::MAX)
}

/// The text with every byte of a string or comment replaced by a space, so that places stay the same. A quote is kept
/// at both ends of a string.
fn blank(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let (mut string, mut comment, mut escaped, mut slash) = (false, false, false, false);
    for byte in text.bytes() {
        let shown = match byte {
            b'\n' => {
                (comment, escaped) = (false, false);
                byte
            }
            _ if comment => b' ',
            _ if string => {
                let ends = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                string = !ends;
                if ends { byte } else { b' ' }
            }
            b'/' if slash => {
                comment = true;
                out.pop();
                out.push(b' ');
                b' '
            }
            b'"' => {
                string = true;
                byte
            }
            _ if byte.is_ascii() => byte,
            _ => b'x', // outside strings only a mistake; the parser says which
        };
        slash = !comment && !string && byte == b'/';
        out.push(shown);
    }
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_cut_at_their_semicolons_and_know_their_lines() {
        let text =
            "// a; comment\npermit (principal); // \"x\nforbid (\n  action == Action::\";\\\";\"\n);\n\nleft";
        let found = split(text);
        let starts: Vec<_> = found.iter().map(|s| (s.line, s.text.lines().next().unwrap())).collect();
        assert_eq!(starts, [(2, "permit (principal);"), (3, "forbid ("), (7, "left")]);
        assert_eq!(found[1].line_at(found[1].text.find("Action").unwrap()), 4);
    }

    #[test]
    fn only_space_and_comments_are_no_policy() {
        assert!(split("  // nothing\n\n").is_empty());
        assert!(split("").is_empty());
    }

    #[test]
    fn brackets_and_operators_are_counted_outside_strings() {
        let found = split("permit (principal, action, resource) when { a.b == [(\"((( && \")] && !c };");
        assert_eq!((found[0].nesting(), found[0].operators()), (3, 6));
    }

    #[test]
    fn words_in_strings_and_comments_are_not_mentioned() {
        let found = split("@id(\"context\") permit (principal, action, resource); // context");
        assert!(!found[0].mentions("context") && found[0].mentions("principal"));
        assert!(
            split("permit (principal, action, resource) when { context.now > 1 };")[0].mentions("context")
        );
    }
}
