//! Routes of an HTTP gate: which requests a method and a template of a path stand for.
//!
//! Works on segments that are decoded already. Never prefers one route to another: two that fit one request are a
//! finding before anything is decided by them.

use std::fmt;

use crate::limits::{ROUTE_PARTS_MAX, ROUTE_PATH_MAX};
use crate::words::is_word;

/// What can be done with a path behind an HTTP gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HttpMethod {
    /// HEAD as well, which is a GET without its body.
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl HttpMethod {
    pub const ALL: [Self; 5] = [Self::Get, Self::Post, Self::Put, Self::Patch, Self::Delete];

    /// As a request spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Reads what [`Self::name`] gives.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// Nothing is changed by it.
    #[must_use]
    pub fn reads(self) -> bool {
        self == Self::Get
    }
}

/// One part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// Any one segment.
    One(String),
    /// All that is left; always the last.
    Rest(String),
}

/// The path of a request: what stands between its slashes, decoded, and whether it ends with one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    pub segments: Vec<String>,
    /// `/` alone ends with one as well.
    pub slash: bool,
}

/// Paths that are treated alike: `/tickets/{id}/notes`, `/files/{path..}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    slash: bool,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// One sentence on what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shown = || text.escape_default();
        let Some(inside) = text.strip_prefix('/') else {
            return Err(format!("path \"{}\" does not begin with /", shown()));
        };
        if text.len() > ROUTE_PATH_MAX {
            return Err(format!("path of {} bytes, at most {ROUTE_PATH_MAX}", text.len()));
        }
        let mut words: Vec<_> = inside.split('/').collect();
        let slash = words.last().is_some_and(|last| last.is_empty());
        if slash {
            words.pop();
        }
        if words.len() > ROUTE_PARTS_MAX {
            return Err(format!("path of {} parts, at most {ROUTE_PARTS_MAX}", words.len()));
        }
        let parts = words.iter().map(|word| part(word)).collect::<Option<Vec<_>>>().ok_or_else(|| {
            format!("path \"{}\" has a part that is neither plain text nor one variable", shown())
        })?;
        let rest = parts.iter().position(|part| matches!(part, Part::Rest(_)));
        if rest.is_some_and(|at| at + 1 < parts.len() || slash) {
            return Err(format!("path \"{}\" goes on after what takes the rest", shown()));
        }
        let template = Self { parts, slash };
        let names: Vec<_> = template.names().collect();
        match names.iter().enumerate().find(|(n, name)| names.iter().skip(n + 1).any(|other| other == *name))
        {
            Some((_, name)) => Err(format!("variable \"{name}\" stands twice in \"{}\"", shown())),
            None => Ok(template),
        }
    }

    /// The variables, as they are written.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::One(name) | Part::Rest(name) => Some(name.as_str()),
        })
    }

    /// The values of its variables if it stands for this path.
    #[must_use]
    pub fn values<'a>(&'a self, path: &Path) -> Option<Vec<(&'a str, String)>> {
        let (mut values, mut segments) = (Vec::new(), path.segments.iter());
        for part in &self.parts {
            match (part, segments.as_slice()) {
                (Part::Rest(_), []) if !path.slash => return None,
                (Part::Rest(name), rest) => {
                    let end = if path.slash && !rest.is_empty() { "/" } else { "" };
                    values.push((name.as_str(), format!("{}{end}", rest.join("/"))));
                    return Some(values);
                }
                (Part::Literal(text), [first, ..]) if text == first => {}
                (Part::One(name), [first, ..]) => values.push((name.as_str(), first.clone())),
                _ => return None,
            }
            segments.next();
        }
        (segments.as_slice().is_empty() && path.slash == self.slash).then_some(values)
    }

    /// True if there is a path for which both stand.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let mut at = 0;
        loop {
            match (self.parts.get(at), other.parts.get(at)) {
                (Some(Part::Rest(_)), Some(_)) | (Some(_), Some(Part::Rest(_))) => return true,
                (Some(Part::Rest(_)), None) => return other.slash,
                (None, Some(Part::Rest(_))) => return self.slash,
                (Some(Part::Literal(one)), Some(Part::Literal(two))) if one != two => return false,
                (Some(_), Some(_)) => at += 1,
                (None, None) => return self.slash == other.slash,
                (None, Some(_)) | (Some(_), None) => return false,
            }
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Literal(text) => write!(f, "/{text}")?,
                Part::One(name) => write!(f, "/{{{name}}}")?,
                Part::Rest(name) => write!(f, "/{{{name}..}}")?,
            }
        }
        f.write_str(if self.slash { "/" } else { "" })
    }
}

fn part(word: &str) -> Option<Part> {
    match word.strip_prefix('{').map(|inner| inner.strip_suffix('}')) {
        Some(inner) => {
            let inner = inner?;
            let (name, rest) = inner.strip_suffix("..").map_or((inner, false), |name| (name, true));
            let part = if rest { Part::Rest } else { Part::One };
            is_word(name).then(|| part(name.to_owned()))
        }
        None => is_plain_segment(word).then(|| Part::Literal(word.to_owned())),
    }
}

/// True for a segment that stands for itself, whoever reads it.
pub(crate) fn is_plain_segment(word: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&c);
    !word.is_empty() && word != "." && word != ".." && word.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn template(text: &str) -> Template {
        Template::parse(text).unwrap()
    }

    fn path(text: &str) -> Path {
        let mut segments: Vec<_> = text.split('/').skip(1).map(str::to_owned).collect();
        let slash = segments.last().is_some_and(String::is_empty);
        if slash {
            segments.pop();
        }
        Path { segments, slash }
    }

    #[test]
    fn a_template_stands_for_its_paths_and_gives_their_values() {
        let value = |name: &'static str, value: &str| (name, value.to_owned());
        for (text, at, values) in [
            ("/tickets", "/tickets", Some(vec![])),
            ("/tickets", "/tickets/", None),
            ("/tickets/", "/tickets/", Some(vec![])),
            ("/", "/", Some(vec![])),
            ("/", "/x", None),
            ("/tickets/{id}", "/tickets/7", Some(vec![value("id", "7")])),
            ("/tickets/{id}", "/tickets", None),
            ("/tickets/{id}", "/tickets/7/notes", None),
            ("/tickets/{id}/notes", "/tickets/7/notes", Some(vec![value("id", "7")])),
            ("/files/{path..}", "/files/a/b/", Some(vec![value("path", "a/b/")])),
            ("/files/{path..}", "/files/", Some(vec![value("path", "")])),
            ("/files/{path..}", "/files", None),
            ("/{path..}", "/", Some(vec![value("path", "")])),
            ("/{path..}", "/a", Some(vec![value("path", "a")])),
        ] {
            assert_eq!(template(text).values(&path(at)), values, "{text} {at}");
            assert_eq!(template(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_template_is_told() {
        for (text, told) in [
            ("", "does not begin with /"),
            ("tickets", "does not begin with /"),
            ("//", "neither plain text"),
            ("/a//b", "neither plain text"),
            ("/a/../b", "neither plain text"),
            ("/a/%41", "neither plain text"),
            ("/a?b", "neither plain text"),
            ("/a{id}", "neither plain text"),
            ("/{id}x", "neither plain text"),
            ("/{}", "neither plain text"),
            ("/{Id}", "neither plain text"),
            ("/{path..}/x", "goes on after"),
            ("/{path..}/", "goes on after"),
            ("/{id}/{id}", "variable \"id\" stands twice"),
        ] {
            assert!(Template::parse(text).unwrap_err().contains(told), "{text}");
        }
        assert!(Template::parse(&"/a".repeat(ROUTE_PARTS_MAX + 1)).unwrap_err().contains("parts, at most"));
        assert!(Template::parse(&format!("/{}", "a".repeat(ROUTE_PATH_MAX))).unwrap_err().contains("bytes"));
    }

    #[test]
    fn two_templates_for_one_path_are_seen_and_others_are_not() {
        for (one, two, both) in [
            ("/a", "/a", true),
            ("/a", "/a/", false),
            ("/a", "/b", false),
            ("/{x}", "/a", true),
            ("/{x}/b", "/a/{y}", true),
            ("/{x}/b", "/a/c", false),
            ("/{x}", "/a/b", false),
            ("/{x..}", "/a/b", true),
            ("/a/{x..}", "/a", false),
            ("/a/{x..}", "/a/", true),
            ("/a/{x..}", "/{y}", false),
            ("/{x..}", "/", true),
        ] {
            assert_eq!(template(one).overlaps(&template(two)), both, "{one} {two}");
            assert_eq!(template(two).overlaps(&template(one)), both, "{two} {one}");
        }
    }

    fn any_template() -> impl Strategy<Value = Template> {
        let part = prop_oneof![Just("a"), Just("b"), Just("{V}")];
        let parts = proptest::collection::vec(part, 0..4);
        (parts, 0..3_usize).prop_map(|(parts, end)| {
            let mut text: String = parts
                .iter()
                .enumerate()
                .map(|(n, p)| format!("/{}", p.replace('V', &format!("v{n}"))))
                .collect();
            match end {
                0 if !text.is_empty() => {}
                1 => text.push_str("/{r..}"),
                _ => text.push('/'),
            }
            template(&text)
        })
    }

    proptest! {
        #[test]
        fn what_two_templates_stand_for_is_an_overlap(
            one in any_template(), two in any_template(),
            segments in proptest::collection::vec("[ab]", 0..5), slash in any::<bool>()
        ) {
            let path = Path { slash: slash || segments.is_empty(), segments };
            if one.values(&path).is_some() && two.values(&path).is_some() {
                prop_assert!(one.overlaps(&two));
            }
            prop_assert_eq!(one.overlaps(&two), two.overlaps(&one));
            prop_assert!(one.overlaps(&one));
        }
    }
}
