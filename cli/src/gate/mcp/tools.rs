//! Tools as a server lists them: read page by page, each with its digest.
//!
//! Only what the digest covers is ever shown to an AI agent, so that it reads what somebody looked at when the tool was
//! added. Titles, hints, icons and output schemas are not covered.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest as hash};
use serde_json::{Map, Value, json};

use super::json::canonical;
use super::message::{Id, request};
use crate::gate::limits::{CURSOR_MAX, LISTING_MAX, PAGES_MAX, TOOLS_MAX};

/// The member of `_meta` that names the revision of a request, since revision 2026-07-28.
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const META_INFO: &str = "io.modelcontextprotocol/clientInfo";

/// A tool as a server lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub name: String,
    pub digest: [u8; 32],
    /// Name, description and input schema.
    pub shown: Value,
}

impl Listed {
    /// Reads one item of a list. What has no name or no schema is no tool.
    fn read(mut tool: Map<String, Value>) -> Option<Self> {
        let Some(Value::String(name)) = tool.remove("name") else { return None };
        let schema = tool.remove("inputSchema").filter(Value::is_object)?;
        let mut shown = json!({ "name": name, "inputSchema": schema });
        if let (Some(description), Some(map)) = (tool.remove("description"), shown.as_object_mut()) {
            map.insert("description".to_owned(), description);
        }
        Some(Self { name, digest: digest_of(&shown), shown })
    }
}

/// SHA-256 over a value in its canonical form.
pub fn digest_of(value: &Value) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(hash(&SHA256, canonical(value).as_bytes()).as_ref());
    digest
}

/// What a tool is: SHA-256 over the canonical form (RFC 8785) of the object of its name, description and input schema.
/// A description that the server leaves out is left out.
#[must_use]
pub fn digest(name: &str, description: Option<&str>, input_schema: &Value) -> [u8; 32] {
    let mut tool = json!({ "name": name, "inputSchema": input_schema });
    if let (Some(description), Some(map)) = (description, tool.as_object_mut()) {
        map.insert("description".to_owned(), description.into());
    }
    digest_of(&tool)
}

/// A listing under way.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    tools: Vec<Listed>,
    pages: usize,
    bytes: usize,
}

/// What follows a page.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The page after this cursor.
    Page(String),
    Done(Vec<Listed>),
}

impl Listing {
    /// Takes a page that came in a line of `bytes`.
    ///
    /// # Errors
    /// Why it is no page, or too much of it.
    pub fn page(&mut self, mut result: Map<String, Value>, bytes: usize) -> Result<Next, String> {
        (self.pages, self.bytes) = (self.pages + 1, self.bytes + bytes);
        let Some(Value::Array(tools)) = result.remove("tools") else {
            return Err("its answer has no list of tools".to_owned());
        };
        for tool in tools {
            let Value::Object(tool) = tool else { return Err("one of its tools is no object".to_owned()) };
            self.tools.extend(Listed::read(tool));
        }
        for (what, count, most) in [
            ("tools", self.tools.len(), TOOLS_MAX),
            ("pages", self.pages, PAGES_MAX),
            ("bytes", self.bytes, LISTING_MAX),
        ] {
            if count > most {
                return Err(format!("it lists more than {most} {what}"));
            }
        }
        match result.remove("nextCursor") {
            None | Some(Value::Null) => Ok(Next::Done(std::mem::take(&mut self.tools))),
            Some(Value::String(cursor)) if cursor.len() <= CURSOR_MAX => Ok(Next::Page(cursor)),
            Some(_) => Err(format!("its cursor is no text of at most {CURSOR_MAX} bytes")),
        }
    }
}

/// The gate's own question for a page. `revision` is that of the request that made it ask, if it named one.
pub fn question(id: &Id, cursor: Option<&str>, revision: Option<&str>) -> Vec<u8> {
    let mut params = Map::new();
    if let Some(cursor) = cursor {
        params.insert("cursor".to_owned(), cursor.into());
    }
    if let Some(revision) = revision {
        params.insert("_meta".to_owned(), meta(revision));
    }
    request(id, "tools/list", Value::Object(params))
}

/// What each request carries since revision 2026-07-28.
pub fn meta(revision: &str) -> Value {
    json!({ META_VERSION: revision, META_CAPABILITIES: {}, META_INFO: client_info() })
}

/// How the gate calls itself.
pub fn client_info() -> Value {
    json!({ "name": "avouch-gate", "version": env!("CARGO_PKG_VERSION") })
}

/// What a server says of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Once([u8; 32]),
    /// Two tools have this name; nobody knows which of them a call would reach.
    Twice,
}

/// A whole listing by name.
pub fn by_name(tools: &[Listed]) -> BTreeMap<String, Seen> {
    let mut seen = BTreeMap::new();
    for tool in tools {
        let entry = seen.entry(tool.name.clone());
        entry.and_modify(|seen| *seen = Seen::Twice).or_insert(Seen::Once(tool.digest));
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(json: Value) -> Map<String, Value> {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn the_digest_is_over_name_description_and_schema_and_nothing_else() {
        let tool = |more: Value| {
            let mut tool =
                page(json!({ "name": "a", "description": "reads", "inputSchema": { "type": "object" } }));
            tool.extend(page(more));
            Listed::read(tool).unwrap()
        };
        let plain = tool(json!({}));
        assert_eq!(plain.digest, digest("a", Some("reads"), &json!({ "type": "object" })));
        assert_eq!(
            plain,
            tool(json!({ "title": "x", "annotations": { "readOnlyHint": true }, "_meta": {} }))
        );
        for changed in [
            json!({ "name": "b" }),
            json!({ "description": "reads all" }),
            json!({ "inputSchema": { "type": "object", "required": [] } }),
        ] {
            assert_ne!(plain.digest, tool(changed).digest);
        }
        assert_ne!(digest("a", Some(""), &json!({})), digest("a", None, &json!({})));
        // Known bytes, so that a pinned digest stays what it is from version to version.
        let known =
            digest("read", Some("Reads."), &json!({ "type": "object", "properties": { "b": {}, "a": 1.0 } }));
        let bytes = br#"{"description":"Reads.","inputSchema":{"properties":{"a":1,"b":{}},"type":"object"},"name":"read"}"#;
        assert_eq!(known.as_slice(), hash(&SHA256, bytes).as_ref());
    }

    #[test]
    fn pages_are_read_until_there_is_no_cursor() {
        let mut listing = Listing::default();
        let one = page(json!({ "tools": [{ "name": "a", "inputSchema": {} }], "nextCursor": "" }));
        assert_eq!(listing.page(one, 1), Ok(Next::Page(String::new())));
        let two = page(json!({ "tools": [{ "name": "b", "inputSchema": {} }, { "name": "c" }] }));
        let Ok(Next::Done(tools)) = listing.page(two, 1) else { panic!("not done") };
        assert_eq!(tools.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_listing_without_end_or_sense_is_refused() {
        for (wrong, told) in [
            (json!({}), "no list of tools"),
            (json!({ "tools": [1] }), "no object"),
            (json!({ "tools": [], "nextCursor": 1 }), "its cursor"),
            (json!({ "tools": [], "nextCursor": "x".repeat(CURSOR_MAX + 1) }), "its cursor"),
            (
                json!({ "tools": vec![json!({ "name": "a", "inputSchema": {} }); TOOLS_MAX + 1] }),
                "1024 tools",
            ),
        ] {
            assert!(Listing::default().page(page(wrong), 1).unwrap_err().contains(told), "{told}");
        }
        let mut listing = Listing::default();
        let more = || page(json!({ "tools": [], "nextCursor": "x" }));
        for _ in 0..PAGES_MAX {
            assert!(listing.page(more(), 1).is_ok());
        }
        assert!(listing.page(more(), 1).unwrap_err().contains("64 pages"));
        assert!(Listing::default().page(more(), LISTING_MAX + 1).unwrap_err().contains("bytes"));
    }

    #[test]
    fn a_name_that_stands_twice_is_known_as_such() {
        let tool = |name: &str| Listed { name: name.to_owned(), digest: [1; 32], shown: Value::Null };
        let seen = by_name(&[tool("a"), tool("b"), tool("a")]);
        assert_eq!((seen["a"], seen["b"]), (Seen::Twice, Seen::Once([1; 32])));
    }
}
