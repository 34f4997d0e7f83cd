//! The JSON of AuthZEN 1.0: what is asked, and what is answered. Unknown fields are ignored, but for a name that stands twice.
//!
//! Reads and writes text, and decides nothing.

use std::sync::Arc;

use avouch_credential::json as strict;
use avouch_rules::limits::{NAME_MAX, RESOURCE_ID_MAX};
use avouch_rules::{Limits, Param};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::limits::EVALUATIONS_MAX;
use crate::runs::{Answer, Said};

/// What a caller that keeps limits names in `context.supported_obligations`.
const CUSTOM: &str = "custom";

/// A body that can't be meant, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

fn malformed(text: impl Into<String>) -> Malformed {
    Malformed(text.into())
}

/// `null` is as good as nothing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entity {
    #[serde(rename = "type")]
    kind: Option<String>,
    id: Option<String>,
    #[serde(deserialize_with = "or_default")]
    properties: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Action {
    name: Option<String>,
    #[serde(deserialize_with = "or_default")]
    properties: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    #[serde(deserialize_with = "or_default")]
    supported_obligations: Vec<Value>,
}

/// One question as it comes; in a batch, what is left out is as above the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    subject: Option<Entity>,
    action: Option<Action>,
    resource: Option<Entity>,
    context: Option<Context>,
}

#[derive(Debug, Deserialize)]
struct Batch {
    #[serde(flatten)]
    common: Asked,
    #[serde(default, deserialize_with = "or_default")]
    evaluations: Vec<Asked>,
    #[serde(default, deserialize_with = "or_default")]
    options: Options,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    #[serde(deserialize_with = "or_default")]
    evaluations_semantic: Semantic,
}

/// When a batch ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Semantic {
    #[default]
    ExecuteAll,
    DenyOnFirstDeny,
    PermitOnFirstPermit,
}

/// About whom it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The caller itself.
    Caller,
    /// Whoever this token proves.
    Shown(Arc<str>),
    /// Somebody who is only named.
    Named(Arc<str>),
}

/// The parts of a question that can be meant, as far as they are there. What is large in them is shared.
#[derive(Clone, Debug, Default)]
struct Parts {
    who: Option<Who>,
    /// Name, and properties.
    action: Option<(Arc<str>, Said)>,
    /// Type, ID, and properties.
    resource: Option<(Arc<str>, Arc<str>, Said)>,
    keeps_limits: Option<bool>,
}

/// One question that can be meant.
#[derive(Clone, Debug)]
pub struct Evaluation {
    pub who: Who,
    pub action: Arc<str>,
    /// ID in the catalogue.
    pub resource: Arc<str>,
    /// Type of the resource, as the caller says.
    pub kind: Arc<str>,
    /// Whoever asks keeps limits.
    pub keeps_limits: bool,
    /// Properties of the resource, and of the action.
    pub said: [Said; 2],
}

/// Several questions, in their order.
#[derive(Debug)]
pub struct Evaluations {
    pub list: Vec<Evaluation>,
    semantic: Semantic,
    /// There was no list: it is answered as one question.
    pub alone: bool,
}

impl Evaluation {
    /// Reads the body of `POST /access/v1/evaluation`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        let asked: Asked = strict::read(body).map_err(|e| malformed(e.to_string()))?;
        Self::of(Parts::of(asked)?)
    }

    fn of(parts: Parts) -> Result<Self, Malformed> {
        let (action, of_action) = parts.action.ok_or_else(|| malformed("action is missing"))?;
        let (kind, resource, of_resource) = parts.resource.ok_or_else(|| malformed("resource is missing"))?;
        Ok(Self {
            who: parts.who.unwrap_or(Who::Caller),
            action,
            resource,
            kind,
            keeps_limits: parts.keeps_limits.unwrap_or(false),
            said: [of_resource, of_action],
        })
    }
}

impl Parts {
    fn of(asked: Asked) -> Result<Self, Malformed> {
        let action = |action: Action| {
            Ok::<_, Malformed>((text("action.name", action.name, NAME_MAX)?, said(&action.properties)))
        };
        let resource = |resource: Entity| {
            let id = text("resource.id", resource.id, RESOURCE_ID_MAX)?;
            let kind = text("resource.type", resource.kind, NAME_MAX)?;
            Ok::<_, Malformed>((kind, id, said(&resource.properties)))
        };
        let keeps = |context: Context| context.supported_obligations.iter().any(|kind| kind == CUSTOM);
        Ok(Self {
            who: asked.subject.map(Who::of).transpose()?,
            action: asked.action.map(action).transpose()?,
            resource: asked.resource.map(resource).transpose()?,
            keeps_limits: asked.context.map(keeps),
        })
    }

    fn or(self, common: &Self) -> Self {
        Self {
            who: self.who.or_else(|| common.who.clone()),
            action: self.action.or_else(|| common.action.clone()),
            resource: self.resource.or_else(|| common.resource.clone()),
            keeps_limits: self.keeps_limits.or(common.keeps_limits),
        }
    }
}

/// Properties as parameters can be.
fn said(properties: &Map<String, Value>) -> Said {
    let param = |value: &Value| Param::deserialize(value).ok();
    Arc::new(properties.iter().map(|(name, value)| (name.clone(), param(value))).collect())
}

impl Who {
    fn of(subject: Entity) -> Result<Self, Malformed> {
        if let Some(token) = subject.properties.get("token") {
            let token =
                token.as_str().ok_or_else(|| malformed("subject.properties.token: expected a text"))?;
            return Ok(Self::Shown(token.into()));
        }
        text("subject.type", subject.kind, NAME_MAX)?;
        text("subject.id", subject.id, avouch_domain::limits::SPIFFE_ID_MAX).map(Self::Named)
    }
}

impl Evaluations {
    /// Reads the body of `POST /access/v1/evaluations`; without a list, it is one question.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        let Batch { common, evaluations, options } =
            strict::read(body).map_err(|e| malformed(e.to_string()))?;
        let (common, semantic) = (Parts::of(common)?, options.evaluations_semantic);
        if evaluations.is_empty() {
            return Ok(Self { list: vec![Evaluation::of(common)?], semantic, alone: true });
        }
        if evaluations.len() > EVALUATIONS_MAX {
            let had = evaluations.len();
            return Err(malformed(format!("{had} evaluations, expected at most {EVALUATIONS_MAX}")));
        }
        let of = |(at, asked): (usize, Asked)| {
            let whole = Parts::of(asked).and_then(|parts| Evaluation::of(parts.or(&common)));
            whole.map_err(|e| malformed(format!("evaluations[{at}]: {e}")))
        };
        let list = evaluations.into_iter().enumerate().map(of).collect::<Result<_, _>>()?;
        Ok(Self { list, semantic, alone: false })
    }

    /// True if nothing after this decision is to be asked.
    pub fn ends_with(&self, decision: bool) -> bool {
        match self.semantic {
            Semantic::ExecuteAll => false,
            Semantic::DenyOnFirstDeny => !decision,
            Semantic::PermitOnFirstPermit => decision,
        }
    }
}

/// A text that has to be there.
fn text(what: &str, had: Option<String>, most: usize) -> Result<Arc<str>, Malformed> {
    let text = had.ok_or_else(|| malformed(format!("{what} is missing")))?;
    let len = text.len();
    if text.is_empty() || len > most {
        return Err(malformed(format!("{what}: {len} bytes, expected 1 to {most}")));
    }
    Ok(text.into())
}

/// One answer as it goes out.
#[derive(Debug, Serialize)]
pub struct Verdict {
    pub decision: bool,
    context: Told,
}

/// What is told beside it.
#[derive(Debug, Default, Serialize)]
struct Told {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    obligations: Option<[Value; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    what_if: bool,
}

impl Verdict {
    /// `what_if`: nothing of it is recorded, and nobody may act on it.
    pub fn of(answer: Answer, what_if: bool) -> Self {
        let context = Told {
            error: None,
            obligations: obligation(&answer.limits).map(|limits| [limits]),
            outcome: Some(answer.outcome),
            reason: Some(answer.reason),
            record: (answer.record > 0).then_some(answer.record),
            request: Some(answer.request).filter(|request| !request.is_empty()),
            rules: Some(answer.rules_number),
            text: Some(answer.text),
            what_if,
        };
        Self { decision: answer.goes_on, context }
    }

    /// One of a batch that could not be decided.
    pub fn failed(status: u16, message: &str) -> Self {
        let error = Some(json!({ "status": status, "message": message }));
        Self { decision: false, context: Told { error, ..Told::default() } }
    }
}

/// Limits as whoever asks has to keep them.
fn obligation(limits: &str) -> Option<Value> {
    if limits.is_empty() {
        return None;
    }
    let Limits { max_rows, max_bytes, fields, read_only, ttl } = Limits::parse(limits).ok()?;
    let mut properties = json!({ "vendor": "avouch", "action": "limit" });
    let values = [
        ("max_rows", max_rows.map(Value::from)),
        ("max_bytes", max_bytes.map(Value::from)),
        ("fields", fields.map(|fields| fields.into_iter().collect())),
        ("read_only", read_only.then_some(Value::Bool(true))),
        ("ttl", ttl.map(Value::from)),
    ];
    for (name, value) in values {
        if let (Some(object), Some(value)) = (properties.as_object_mut(), value) {
            object.insert(name.to_owned(), value);
        }
    }
    Some(json!({ "id": "limits", "type": CUSTOM, "properties": properties }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<Evaluation, Malformed> {
        Evaluation::read(body.to_string().as_bytes())
    }

    fn batch(body: Value) -> Result<Evaluations, Malformed> {
        Evaluations::read(body.to_string().as_bytes())
    }

    #[test]
    fn the_shape_of_the_interop_payloads_is_read() {
        // As the to-do application of the working group's interoperability tests asks.
        let asked = read(json!({
            "subject": { "type": "identity", "id": "spiffe://example.org/test/coder" },
            "action": { "name": "can_read_todos" },
            "resource": { "type": "todo", "id": "todo-1" },
            "context": { "time": "2026-11-29T10:00:00Z" }
        }))
        .unwrap();
        assert_eq!(asked.who, Who::Named("spiffe://example.org/test/coder".into()));
        assert_eq!((&*asked.action, &*asked.resource), ("can_read_todos", "todo-1"));
        assert!(!asked.keeps_limits);
    }

    #[test]
    fn what_is_left_out_of_an_item_is_as_above_the_list() {
        let asked = batch(json!({
            "subject": { "type": "identity", "id": "x" },
            "action": { "name": "can_update_todo" },
            "evaluations": [
                { "resource": { "type": "todo", "id": "1", "properties": { "owner": "a" } } },
                { "resource": { "type": "todo", "id": "2" }, "action": { "name": "can_delete_todo" } }
            ],
            "options": { "evaluations_semantic": "deny_on_first_deny", "another": 1 }
        }))
        .unwrap();
        let seen: Vec<_> = asked.list.iter().map(|e| (&*e.action, &*e.resource)).collect();
        assert_eq!(seen, [("can_update_todo", "1"), ("can_delete_todo", "2")]);
        assert!(asked.ends_with(false) && !asked.ends_with(true));
    }

    #[test]
    fn a_batch_without_a_list_is_one_question() {
        let asked = batch(json!({
            "action": { "name": "read" }, "resource": { "type": "t", "id": "r" }, "evaluations": []
        }));
        let asked = asked.unwrap();
        assert_eq!((asked.list.len(), &asked.list[0].who), (1, &Who::Caller));
        assert!(!asked.ends_with(false) && !asked.ends_with(true));
    }

    #[test]
    fn what_is_missing_is_named() {
        let (action, resource) = (json!({ "name": "read" }), json!({ "type": "t", "id": "r" }));
        let table = [
            (json!({ "resource": resource }), "action is missing"),
            (json!({ "action": {}, "resource": resource }), "action.name is missing"),
            (json!({ "action": action }), "resource is missing"),
            (json!({ "action": action, "resource": { "id": "r" } }), "resource.type is missing"),
            (json!({ "action": action, "resource": { "type": "t" } }), "resource.id is missing"),
            (
                json!({ "subject": { "id": "x" }, "action": action, "resource": resource }),
                "subject.type is missing",
            ),
            (
                json!({ "subject": { "type": "x" }, "action": action, "resource": resource }),
                "subject.id is missing",
            ),
        ];
        for (body, expected) in table {
            assert_eq!(read(body).unwrap_err().to_string(), expected);
        }
        let error = batch(json!({ "evaluations": [{ "action": action }] })).unwrap_err();
        assert_eq!(error.to_string(), "evaluations[0]: resource is missing");
        assert!(read(json!([1])).is_err() && Evaluation::read(b"{").is_err());
    }

    #[test]
    fn a_name_that_stands_twice_is_refused_also_where_any_name_may_stand() {
        let body = |resource: &str, more: &str| {
            format!(r#"{{"action":{{"name":"a"}},"resource":{{"type":"t","id":"r"{resource}}}{more}}}"#)
        };
        for (twice, name) in [
            (body(r#","id":"s""#, ""), "id"),
            (body(r#","properties":{"path":"a","path":"b"}"#, ""), "path"),
            (body("", r#","subject":{"properties":{"token":"a","token":"b"}}"#), "token"),
            (body("", r#","context":{"of":{"mine":1,"mine":2}}"#), "mine"),
        ] {
            let told = format!("the name \"{name}\" stands twice");
            assert!(
                Evaluation::read(twice.as_bytes()).unwrap_err().to_string().starts_with(&told),
                "{twice}"
            );
            let listed = format!(r#"{{"evaluations":[{twice}]}}"#);
            assert!(
                Evaluations::read(listed.as_bytes()).unwrap_err().to_string().starts_with(&told),
                "{twice}"
            );
        }
        assert!(Evaluation::read(body(r#","properties":{"id":"a"}"#, "").as_bytes()).is_ok());
    }

    #[test]
    fn a_batch_that_is_too_long_or_ends_otherwise_than_known_is_refused() {
        let item = json!({ "action": { "name": "a" }, "resource": { "type": "t", "id": "r" } });
        let long = json!({ "evaluations": vec![item.clone(); EVALUATIONS_MAX + 1] });
        assert!(batch(long).unwrap_err().to_string().contains("expected at most"));
        let odd = json!({ "evaluations": [item], "options": { "evaluations_semantic": "some" } });
        assert!(batch(odd).is_err());
    }

    #[test]
    fn properties_are_what_parameters_can_be_or_nothing_that_can_be_meant() {
        let properties = json!({
            "text": "a", "number": 7, "list": ["b", "a"], "empty": [], "null": null, "half": 1.5, "object": { "a": 1 },
            "numbers": [1]
        });
        let resource = json!({ "type": "Tool", "id": "files/read", "properties": properties });
        let action = json!({ "name": "read", "properties": { "text": "other" } });
        let asked = read(json!({ "action": action, "resource": resource })).unwrap();
        let said = |name: &str| asked.said.iter().find_map(|said| said.get(name)).cloned().unwrap();
        assert_eq!(said("text"), Some(Param::String("a".into())), "of the resource first");
        assert_eq!(said("number"), Some(Param::Long(7)));
        assert_eq!(said("list"), Some(Param::Set(["a".into(), "b".into()].into())));
        assert_eq!(said("empty"), Some(Param::Set(Default::default())));
        for odd in ["null", "half", "object", "numbers"] {
            assert_eq!(said(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_is_null_is_left_out_and_what_is_common_is_kept_once() {
        let asked = batch(json!({
            "subject": null, "action": { "name": "a", "properties": null }, "context": { "supported_obligations": null },
            "resource": { "type": "t", "id": "r", "properties": { "x": [1] } },
            "evaluations": [{}, { "resource": null }], "options": null
        }))
        .unwrap();
        let [one, two] = asked.list.as_slice() else { panic!("{asked:?}") };
        assert!(Arc::ptr_eq(&one.said[0], &two.said[0]));
        assert!(batch(json!({ "action": { "name": "a" }, "resource": { "type": "t", "id": "r" }, "evaluations": null })).unwrap().alone);
    }

    #[test]
    fn a_token_proves_and_is_no_name() {
        let body = |subject: Value| {
            read(
                json!({ "subject": subject, "action": { "name": "a" }, "resource": { "type": "t", "id": "r" } }),
            )
        };
        let shown = body(json!({ "type": "jwt", "id": "x", "properties": { "token": "a.b.c" } })).unwrap();
        assert_eq!(shown.who, Who::Shown("a.b.c".into()));
        assert!(body(json!({ "properties": { "token": 1 } })).is_err());
    }

    #[test]
    fn limits_go_out_as_an_obligation_and_a_denial_without() {
        let limits = "fields=level,ts; max_rows=1000; read_only".to_owned();
        let allowed = Answer {
            outcome: "constrain",
            goes_on: true,
            limits,
            record: 7,
            ..Answer::denied("allowed", String::new())
        };
        let verdict = serde_json::to_value(Verdict::of(allowed, false)).unwrap();
        assert_eq!(verdict["decision"], true);
        assert_eq!(
            (&verdict["context"]["record"], &verdict["context"]["what_if"]),
            (&json!(7), &Value::Null)
        );
        let properties = &verdict["context"]["obligations"][0]["properties"];
        assert_eq!((&properties["max_rows"], &properties["fields"]), (&json!(1000), &json!(["level", "ts"])));
        assert_eq!((&properties["read_only"], &properties["ttl"]), (&json!(true), &Value::Null));
        let denied = Verdict::of(Answer::denied("no_rules", "no".into()), true);
        let denied = serde_json::to_value(denied).unwrap();
        assert_eq!((&denied["decision"], &denied["context"]["outcome"]), (&json!(false), &json!("deny")));
        assert_eq!(
            (&denied["context"]["what_if"], denied["context"].get("obligations")),
            (&json!(true), None)
        );
    }
}
