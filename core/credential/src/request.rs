//! The text of a request: what a person is shown, and what is hashed. One codec for who asks, who keeps it and who shows it.
//!
//! Never two texts for one question: the fields stand in one order, and what is read must be what would be written.

use avouch_domain::limits::{REQUEST_NAME_MAX, REQUEST_TEXT_MAX};
use avouch_domain::{Code, RequestContent, RequestHash, RequestText, SpiffeId};
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

/// The form of the text.
const VERSION: u32 = 1;
/// Stands before the text where it is hashed: nothing else hashes to the same.
const DOMAIN: &[u8] = b"avouch request v1\n";

/// Why something is no text of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestTextError {
    #[error("it takes {0} bytes to show, expected at most {REQUEST_TEXT_MAX}: nobody would read it all")]
    TooLarge(usize),
    #[error("the {field} has {length} bytes, expected 1 to {REQUEST_NAME_MAX}")]
    Name { field: &'static str, length: usize },
    #[error("the {0} holds a blank or a control character, expected a name")]
    Blank(&'static str),
    #[error("it can't be read: {0}")]
    Unreadable(String),
    #[error("it is not in the form in which requests are written")]
    Form,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    v: u32,
    identity: String,
    task: String,
    action: String,
    resource: String,
    shown: String,
}

/// The text of a request under its hash.
///
/// # Errors
/// [`RequestTextError::TooLarge`], [`RequestTextError::Name`].
pub fn text_of(content: &RequestContent) -> Result<RequestText, RequestTextError> {
    for (field, name) in [("action", &content.action), ("resource", &content.resource)] {
        if name.is_empty() || name.len() > REQUEST_NAME_MAX {
            return Err(RequestTextError::Name { field, length: name.len() });
        }
        if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(RequestTextError::Blank(field));
        }
    }
    let written = Written {
        v: VERSION,
        identity: content.identity.to_string(),
        task: content.task.to_string(),
        action: content.action.clone(),
        resource: content.resource.clone(),
        shown: content.shown.clone(),
    };
    let text = serde_json::to_string(&written).map_err(|e| RequestTextError::Unreadable(e.to_string()))?;
    if text.len() > REQUEST_TEXT_MAX {
        return Err(RequestTextError::TooLarge(text.len()));
    }
    Ok(RequestText { hash: hash(&text), text: text.into() })
}

/// Reads a text as [`text_of`] writes it, and no other.
///
/// # Errors
/// [`RequestTextError`].
pub fn read(text: &str) -> Result<RequestContent, RequestTextError> {
    if text.len() > REQUEST_TEXT_MAX {
        return Err(RequestTextError::TooLarge(text.len()));
    }
    let unreadable = |e: &dyn std::fmt::Display| RequestTextError::Unreadable(e.to_string());
    let written: Written = serde_json::from_str(text).map_err(|e| unreadable(&e))?;
    if written.v != VERSION {
        return Err(RequestTextError::Unreadable(format!("form {}, expected {VERSION}", written.v)));
    }
    let content = RequestContent {
        identity: SpiffeId::parse(&written.identity).map_err(|e| unreadable(&e))?,
        task: Code::new(&written.task).map_err(|e| unreadable(&e))?,
        action: written.action,
        resource: written.resource,
        shown: written.shown,
    };
    if &*text_of(&content)?.text == text { Ok(content) } else { Err(RequestTextError::Form) }
}

/// SHA-256 over the text of a request.
#[must_use]
pub fn hash(text: &str) -> RequestHash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(DOMAIN);
    context.update(text.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    RequestHash(hash)
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::id;
    use proptest::prelude::*;

    use super::*;

    fn content() -> RequestContent {
        RequestContent {
            identity: id("/test/coder"),
            task: Code::new("fix-4711").unwrap(),
            action: "repo.merge".to_owned(),
            resource: "git/pay".to_owned(),
            shown: "-old\n+new \"1\"".to_owned(),
        }
    }

    #[test]
    fn the_form_of_a_text_never_changes() {
        let text = text_of(&content()).unwrap();
        assert_eq!(
            &*text.text,
            r#"{"v":1,"identity":"spiffe://example.org/test/coder","task":"fix-4711","action":"repo.merge","resource":"git/pay","shown":"-old\n+new \"1\""}"#
        );
        assert_eq!(text.hash.to_string(), "a3000d5d0e222942747efe2d30523f79e0ea0f6a9880094ac5cd3d65a2e73c36");
    }

    #[test]
    fn whatever_differs_has_another_hash() {
        let mut hashes = std::collections::BTreeSet::new();
        for change in [
            |_: &mut RequestContent| {},
            |q: &mut RequestContent| q.identity = id("/test/other"),
            |q: &mut RequestContent| q.task = Code::new("fix-4712").unwrap(),
            |q: &mut RequestContent| q.action.push('x'),
            |q: &mut RequestContent| q.resource.push('x'),
            |q: &mut RequestContent| q.shown.push(' '),
        ] {
            let mut changed = content();
            change(&mut changed);
            assert!(hashes.insert(text_of(&changed).unwrap().hash));
        }
    }

    #[test]
    fn a_text_in_another_form_is_refused_although_it_says_the_same() {
        let text = text_of(&content()).unwrap().text.to_string();
        assert_eq!(read(&text), Ok(content()));
        for (from, to) in [
            (",\"task\"", ", \"task\""),
            ("coder", "c\\u006fder"),
            ("\"v\":1", "\"v\":2"),
            ("\"shown\"", "\"more\":1,\"shown\""),
            ("fix-4711", "Fix"),
            ("git/pay", ""),
        ] {
            assert!(read(&text.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn more_than_a_person_reads_is_no_request() {
        let large = RequestContent { shown: "x".repeat(REQUEST_TEXT_MAX), ..content() };
        assert!(matches!(text_of(&large), Err(RequestTextError::TooLarge(_))));
        let long = RequestContent { resource: "x".repeat(REQUEST_NAME_MAX + 1), ..content() };
        let story = RequestContent { action: "do all this".to_owned(), ..content() };
        assert_eq!(text_of(&story), Err(RequestTextError::Blank("action")));
        assert_eq!(text_of(&long), Err(RequestTextError::Name { field: "resource", length: 257 }));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(shown in ".{0,200}", action in "[a-z.]{1,20}") {
            let content = RequestContent { shown, action, ..content() };
            prop_assert_eq!(read(&text_of(&content).unwrap().text), Ok(content));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,300}") {
            let _ = read(&text);
        }
    }
}
