//! Just enough of a reader of HTML to check what the templates write. Panics at whatever they never write.

/// A tag that opens, with those around it.
#[derive(Debug)]
pub(super) struct Tag {
    pub(super) name: String,
    pub(super) attributes: Vec<(String, String)>,
    /// Places of the tags around it, outermost first.
    pub(super) around: Vec<usize>,
    /// The text directly in it.
    pub(super) text: String,
}

impl Tag {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

const VOID: [&str; 4] = ["br", "input", "link", "meta"];

/// The tags of a page, in order. Every one that opens is closed where it should.
pub(super) fn read(html: &str) -> Vec<Tag> {
    let mut rest = html.strip_prefix("<!doctype html>").unwrap();
    let (mut tags, mut open) = (Vec::<Tag>::new(), Vec::<usize>::new());
    while let Some(at) = rest.find('<') {
        let (text, tag) = rest.split_at(at);
        if let Some(last) = open.last() {
            tags[*last].text.push_str(text);
        }
        let tag = &tag[1..];
        let end = tag_end(tag);
        rest = &tag[end + 1..];
        let tag = &tag[..end];
        if let Some(name) = tag.strip_prefix('/') {
            let last = open.pop().map(|at| tags[at].name.as_str());
            assert_eq!(last, Some(name), "closed after: {text}");
            continue;
        }
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "<{tag}>");
        let around = open.clone();
        if !VOID.contains(&name) {
            open.push(tags.len());
        }
        tags.push(Tag {
            name: name.into(),
            attributes: attributes_of(attributes),
            around,
            text: String::new(),
        });
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{} are open", open.len());
    tags
}

/// Where a tag ends: at the first `>` outside of quotes.
fn tag_end(tag: &str) -> usize {
    let mut quoted = false;
    let end = tag.find(|c: char| {
        quoted ^= c == '"';
        c == '>' && !quoted
    });
    end.unwrap_or_else(|| panic!("a tag has no end: {tag:.80}"))
}

fn attributes_of(mut text: &str) -> Vec<(String, String)> {
    let mut attributes = Vec::new();
    while !text.trim().is_empty() {
        text = text.trim_start();
        let end = text.find(['=', ' ']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "an attribute is named {name}");
        let (value, rest) = match rest.strip_prefix("=\"") {
            Some(rest) => rest.split_once('"').unwrap(),
            None => ("", rest),
        };
        attributes.push((name.to_owned(), value.to_owned()));
        text = rest;
    }
    attributes
}
