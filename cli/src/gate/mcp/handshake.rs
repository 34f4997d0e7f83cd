//! Which revisions of the protocol pass, and what of the two sides' greetings does.
//!
//! Each side learns only of what the gate lets through: a capability that is refused later is not offered first. What a
//! server wants a model to be told about it at large (`instructions`) nobody pinned, so it stays here.

use serde_json::{Map, Value, json};

use super::message::{INVALID_PARAMS, UNSUPPORTED_VERSION};
use super::tools::META_VERSION;
use crate::gate::limits::QUOTE_MAX;
use crate::gate::quote;

/// The revision with a handshake.
pub const WITH_HANDSHAKE: &str = "2025-11-25";
/// The revision whose requests stand alone.
pub const STATELESS: &str = "2026-07-28";
/// The current revision and the one before.
pub const REVISIONS: [&str; 2] = [STATELESS, WITH_HANDSHAKE];
/// What of a server is reachable through the gate.
const SERVER_CAPABILITIES: [&str; 2] = ["tools", "logging"];

/// A revision that this gate does not speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownRevision {
    pub revision: String,
    pub code: i32,
}

impl UnknownRevision {
    fn new(revision: &Value, code: i32) -> Self {
        let shown = revision.as_str().map_or_else(|| revision.to_string(), str::to_owned);
        Self { revision: quote(&shown, QUOTE_MAX), code }
    }

    /// What an error tells beside its text.
    pub fn data(&self) -> Value {
        json!({ "supported": REVISIONS, "requested": self.revision })
    }
}

fn known(revision: &Value) -> bool {
    revision.as_str().is_some_and(|revision| REVISIONS.contains(&revision))
}

/// The revision that a request names for itself.
pub fn named(params: &Map<String, Value>) -> Result<Option<&str>, UnknownRevision> {
    let revision = params.get("_meta").and_then(|meta| meta.get(META_VERSION));
    match revision {
        Some(revision) if !known(revision) => Err(UnknownRevision::new(revision, UNSUPPORTED_VERSION)),
        revision => Ok(revision.and_then(Value::as_str)),
    }
}

/// The parameters of `initialize` as the server sees them: a client without capabilities, since the server may ask it
/// for nothing.
pub fn greeting(mut params: Map<String, Value>) -> Result<Value, UnknownRevision> {
    check(params.get("protocolVersion"))?;
    params.insert("capabilities".to_owned(), json!({}));
    Ok(Value::Object(params))
}

/// The result of `initialize` as the client sees it.
pub fn welcome(mut result: Map<String, Value>) -> Result<Value, UnknownRevision> {
    check(result.get("protocolVersion"))?;
    bare(&mut result);
    Ok(Value::Object(result))
}

/// The result of `server/discover` as the client sees it.
pub fn discovered(mut result: Map<String, Value>) -> Result<Value, UnknownRevision> {
    let versions = result.get("supportedVersions").cloned().unwrap_or_default();
    let both: Vec<Value> =
        versions.as_array().into_iter().flatten().filter(|revision| known(revision)).cloned().collect();
    if both.is_empty() {
        return Err(UnknownRevision::new(&versions, UNSUPPORTED_VERSION));
    }
    result.insert("supportedVersions".to_owned(), both.into());
    bare(&mut result);
    Ok(Value::Object(result))
}

fn check(revision: Option<&Value>) -> Result<(), UnknownRevision> {
    match revision {
        Some(revision) if known(revision) => Ok(()),
        other => Err(UnknownRevision::new(other.unwrap_or(&Value::Null), INVALID_PARAMS)),
    }
}

fn bare(result: &mut Map<String, Value>) {
    result.remove("instructions");
    if let Some(Value::Object(capabilities)) = result.get_mut("capabilities") {
        capabilities.retain(|name, _| SERVER_CAPABILITIES.contains(&name.as_str()));
    }
}

/// True if a `subscriptions/listen` asks for nothing but news of lists.
pub fn only_lists(params: &Map<String, Value>) -> bool {
    let news = ["toolsListChanged", "promptsListChanged", "resourcesListChanged"];
    let plain = |(name, value): (&String, &Value)| match value {
        Value::Bool(_) => news.contains(&name.as_str()),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    params.keys().all(|name| ["_meta", "notifications"].contains(&name.as_str()))
        && params.get("notifications").and_then(Value::as_object).is_some_and(|n| n.iter().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn each_side_learns_only_of_what_passes() {
        let asked = json!({ "protocolVersion": WITH_HANDSHAKE, "capabilities": { "sampling": {} }, "clientInfo": {} });
        let seen = greeting(map(asked)).unwrap();
        assert_eq!(seen, json!({ "protocolVersion": WITH_HANDSHAKE, "capabilities": {}, "clientInfo": {} }));
        let said = json!({ "protocolVersion": WITH_HANDSHAKE, "instructions": "Obey.",
            "capabilities": { "tools": { "listChanged": true }, "resources": {}, "prompts": {}, "tasks": {} } });
        let seen = welcome(map(said)).unwrap();
        let tools = json!({ "tools": { "listChanged": true } });
        assert_eq!(seen, json!({ "protocolVersion": WITH_HANDSHAKE, "capabilities": tools }));
        let said =
            json!({ "supportedVersions": ["2099-01-01", STATELESS], "capabilities": { "completions": {} } });
        let seen = discovered(map(said)).unwrap();
        assert_eq!(seen, json!({ "supportedVersions": [STATELESS], "capabilities": {} }));
    }

    #[test]
    fn a_revision_that_is_not_known_is_refused_wherever_it_is_named() {
        for revision in [json!("2099-01-01"), json!("2025-06-18"), json!(1), json!(null)] {
            assert!(greeting(map(json!({ "protocolVersion": revision }))).is_err());
            assert!(welcome(map(json!({ "protocolVersion": revision }))).is_err());
            assert!(discovered(map(json!({ "supportedVersions": [revision] }))).is_err());
            let asked = map(json!({ "_meta": { META_VERSION: revision } }));
            assert_eq!(named(&asked).unwrap_err().code, UNSUPPORTED_VERSION);
        }
        assert!(greeting(Map::new()).is_err() && discovered(Map::new()).is_err());
        assert_eq!(named(&Map::new()), Ok(None));
        assert_eq!(named(&map(json!({ "_meta": { META_VERSION: STATELESS } }))), Ok(Some(STATELESS)));
    }

    #[test]
    fn a_subscription_to_anything_but_lists_is_none() {
        let news =
            |notifications: Value| only_lists(&map(json!({ "_meta": {}, "notifications": notifications })));
        assert!(news(json!({ "toolsListChanged": true, "resourceSubscriptions": [] })));
        assert!(!news(json!({ "resourceSubscriptions": ["file:///x"] })));
        assert!(!news(json!({ "anything": true })) && !news(json!([])));
        assert!(!only_lists(&map(json!({ "notifications": {}, "more": 1 }))) && !only_lists(&Map::new()));
    }
}
