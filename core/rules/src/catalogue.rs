//! The catalogue: what gates guard, read from `resources.toml`.
//!
//! A resource is known here or is denied. Never holds what changes with a request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use avouch_domain::limits::{ALONE_LONG, ALONE_MIDDLE, ALONE_SHORT};
use serde::Deserialize;
use toml::Spanned;

use crate::folder::{Finding, Folder, RESOURCES};
use crate::limits::{ACTIONS_MAX, PARAMS_MAX, RESOURCE_ID_MAX, RESOURCES_MAX, TYPES_MAX};
use crate::tables;
use crate::words::{self, Alone, Environment, Kind, NAME_FORM, ParamKind, is_name, is_word};

/// Names of types that the schema has already, or that Cedar reads in its own way.
const TAKEN: [&str; 21] = [
    "Action",
    "AiAgent",
    "Bool",
    "Boolean",
    "Entity",
    "Environment",
    "Extension",
    "Gate",
    "Grant",
    "Helper",
    "Long",
    "Machine",
    "Pipeline",
    "Preset",
    "Record",
    "Service",
    "Set",
    "String",
    "Task",
    "Yes",
    "Context",
];

/// Something that a gate guards.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(deserialize_with = "words::word")]
    pub environment: Environment,
    pub domain: String,
    pub sensitivity: i64,
    pub actions: BTreeSet<String>,
    /// Those of the actions that can't be taken back.
    #[serde(default)]
    pub irreversible: BTreeSet<String>,
    /// How long a node decides about it by itself; left out: by its sensitivity.
    #[serde(default, deserialize_with = "words::word_or_none")]
    pub alone: Option<Alone>,
    /// Values that the gate takes out of a call, by name.
    #[serde(default)]
    pub params: BTreeMap<String, ParamKind>,
}

impl Resource {
    /// How long a node decides about this action by itself after the server was last heard; `None`: for ever. What is
    /// written counts; else what can't be taken back or is most sensitive holds shortest.
    #[must_use]
    pub fn alone(&self, action: &str, kind: Kind) -> Option<Duration> {
        let alone = self.alone.unwrap_or(match self.sensitivity {
            _ if self.irreversible.contains(action) => Alone::Short,
            ..=1 => Alone::Long,
            2 => Alone::Middle,
            _ => Alone::Short,
        });
        match alone {
            Alone::Short => Some(ALONE_SHORT),
            Alone::Middle => Some(ALONE_MIDDLE),
            Alone::Always if kind == Kind::Service => None,
            Alone::Long | Alone::Always => Some(ALONE_LONG),
        }
    }

    /// The gate that guards it: what stands before the first `/` of its ID.
    #[must_use]
    pub fn gate(&self) -> Option<&str> {
        self.id.split_once('/').map(|(gate, _)| gate)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    resource: Vec<Spanned<Resource>>,
}

/// The actions of each resource of a folder; nothing of what can't be read.
#[must_use]
pub fn actions(folder: &Folder) -> BTreeMap<String, BTreeSet<String>> {
    let catalogue = Catalogue::read(folder.get(RESOURCES).unwrap_or_default()).unwrap_or_default();
    catalogue.resources.into_iter().map(|(id, resource)| (id, resource.actions)).collect()
}

/// All resources by ID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    resources: BTreeMap<String, Resource>,
}

impl Catalogue {
    /// Reads `resources.toml`.
    pub(crate) fn read(text: &str) -> Result<Self, Vec<Finding>> {
        let file: File = tables::read(RESOURCES, text).map_err(|f| vec![f])?;
        let mut findings = Vec::new();
        let mut catalogue = Self::default();
        let mut params: BTreeMap<(String, String), ParamKind> = BTreeMap::new();
        for spanned in file.resource {
            let line = tables::line_at(text, spanned.span().start);
            let resource = spanned.into_inner();
            let mut find = |code, text: String, next: &str| {
                findings.push(Finding::new(RESOURCES, line, code, text, next));
            };
            for (wrong, next) in mistakes(&resource) {
                find("resource", wrong, next);
            }
            for action in &resource.actions {
                for (name, kind) in &resource.params {
                    let before = params.entry((action.clone(), name.clone())).or_insert(*kind);
                    if before != kind {
                        let text = format!(
                            "parameter \"{name}\" of action \"{action}\" is a {} here and a {} elsewhere",
                            kind.name(),
                            before.name()
                        );
                        find("params", text, "give one of them another name");
                    }
                }
            }
            if catalogue.resources.contains_key(&resource.id) {
                find("doubled", format!("resource \"{}\" stands twice", resource.id), "take one of them out");
            }
            catalogue.resources.insert(resource.id.clone(), resource);
        }
        findings.extend(catalogue.too_much());
        if findings.is_empty() { Ok(catalogue) } else { Err(findings) }
    }

    fn too_much(&self) -> Option<Finding> {
        let counts = [
            ("resources", self.resources.len(), RESOURCES_MAX),
            ("actions", self.actions().len(), ACTIONS_MAX),
            ("types", self.types().len(), TYPES_MAX),
        ];
        if self.resources.is_empty() {
            let next = "add a [[resource]] with id, type, environment, domain, sensitivity and actions";
            return Some(Finding::new(RESOURCES, None, "empty", "no resource is listed", next));
        }
        let (what, count, most) = counts.into_iter().find(|(_, count, most)| count > most)?;
        let text = format!("{count} {what}, at most {most}");
        Some(Finding::new(RESOURCES, None, "size", text, "list one resource for all that are treated alike"))
    }

    /// The resource of this ID.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Resource> {
        self.resources.get(id)
    }

    /// All of them, in the order of their IDs.
    pub fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.resources.values()
    }

    /// Each action with the types of resource it is for.
    pub(crate) fn actions(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut actions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for resource in self.iter() {
            for action in &resource.actions {
                actions.entry(action).or_default().insert(&resource.kind);
            }
        }
        actions
    }

    pub(crate) fn types(&self) -> BTreeSet<&str> {
        self.iter().map(|r| r.kind.as_str()).collect()
    }

    pub(crate) fn gates(&self) -> BTreeSet<&str> {
        self.iter().filter_map(Resource::gate).collect()
    }

    /// The parameters of an action at all its resources.
    pub(crate) fn params(&self, action: &str) -> BTreeMap<&str, ParamKind> {
        let with = self.iter().filter(|r| r.actions.contains(action));
        with.flat_map(|r| r.params.iter().map(|(name, kind)| (name.as_str(), *kind))).collect()
    }
}

/// What is wrong with one resource, and what to do.
fn mistakes(resource: &Resource) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    let id = &resource.id;
    if id.is_empty() || id.len() > RESOURCE_ID_MAX || id.chars().any(|c| c.is_control() || c == '"') {
        let next = "give it 1 to 256 bytes without quotes and control characters, as in gate/name";
        found.push((format!("\"{}\" is no ID of a resource", id.escape_default()), next));
    }
    let kind = resource.kind.as_bytes();
    let word = kind.first().is_some_and(u8::is_ascii_uppercase) && kind.iter().all(u8::is_ascii_alphanumeric);
    if !word || kind.len() > crate::limits::NAME_MAX || TAKEN.contains(&resource.kind.as_str()) {
        let next = "take one word that begins with a capital letter, as Tool, Repository or Secret";
        found.push((format!("type \"{}\" can't be used", resource.kind.escape_default()), next));
    }
    let params = resource.params.keys().filter(|p| !is_word(p)).map(|p| ("parameter", p));
    let names = std::iter::once(("domain", &resource.domain));
    let names = names.chain(resource.actions.iter().map(|a| ("action", a)));
    for (what, name) in names.filter(|(_, name)| !is_name(name)).chain(params) {
        found.push((format!("{what} \"{}\" is not {NAME_FORM}", name.escape_default()), "rename it"));
    }
    if resource.actions.is_empty() {
        found.push((format!("resource \"{id}\" has no actions"), "list what can be done with it"));
    }
    if resource.params.len() > PARAMS_MAX {
        found.push((format!("{} parameters, at most {PARAMS_MAX}", resource.params.len()), "take some out"));
    }
    for action in resource.irreversible.difference(&resource.actions) {
        let next = "name one of its actions, or add it to actions";
        found.push((format!("irreversible \"{}\" is none of its actions", action.escape_default()), next));
    }
    if resource.sensitivity < 0 {
        found.push(("sensitivity is below 0".to_owned(), "0 is what everybody may see"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[resource]]\nid = \"files/read\"\ntype = \"Tool\"\nenvironment = \"test\"\ndomain = \"code\"\nsensitivity = 1\nactions = [\"tool.call\"]\nparams = { path = \"string\" }\n";

    fn codes(text: &str) -> Vec<String> {
        Catalogue::read(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_catalogue_knows_its_actions_types_gates_and_parameters() {
        let catalogue = Catalogue::read(GOOD).unwrap();
        assert_eq!(catalogue.get("files/read").and_then(Resource::gate), Some("files"));
        assert_eq!(catalogue.actions(), [("tool.call", ["Tool"].into())].into());
        assert_eq!(catalogue.params("tool.call"), [("path", ParamKind::String)].into());
    }

    #[test]
    fn what_cannot_be_taken_back_or_is_sensitive_is_decided_alone_for_less_long() {
        let alone = |lines: &str, action: &str, kind| {
            let text = GOOD.replace("sensitivity = 1\n", &format!("{lines}\n"));
            let catalogue = Catalogue::read(&text).unwrap();
            catalogue.get("files/read").unwrap().alone(action, kind)
        };
        let of = |lines: &str| alone(lines, "tool.call", Kind::AiAgent);
        assert_eq!(of("sensitivity = 1"), Some(ALONE_LONG));
        assert_eq!(of("sensitivity = 2"), Some(ALONE_MIDDLE));
        assert_eq!(of("sensitivity = 3"), Some(ALONE_SHORT));
        assert_eq!(of("sensitivity = 1\nirreversible = [\"tool.call\"]"), Some(ALONE_SHORT));
        assert_eq!(of("sensitivity = 3\nalone = \"middle\""), Some(ALONE_MIDDLE));
        assert_eq!(of("sensitivity = 1\nalone = \"always\""), Some(ALONE_LONG), "always is for services");
        assert_eq!(alone("sensitivity = 1\nalone = \"always\"", "tool.call", Kind::Service), None);
        let wrong = GOOD.replace("sensitivity = 1", "sensitivity = 1\nalone = \"never\"");
        assert!(
            codes(&wrong)[0].contains("expected one of short, middle, long, always"),
            "{:?}",
            codes(&wrong)
        );
    }

    #[test]
    fn each_mistake_has_its_line_and_what_to_do() {
        for (from, to, told) in [
            ("\"Tool\"", "\"Preset\"", "resources.toml:1: type \"Preset\" can't be used; take one word"),
            ("\"code\"", "\"Code\"", "domain \"Code\" is not a name"),
            ("[\"tool.call\"]", "[]", "has no actions"),
            ("= 1", "= -1", "sensitivity is below 0"),
            ("\"test\"", "\"tset\"", "resources.toml:4: unknown variant `tset`"),
            ("actions =", "irreversible = [\"x\"]\nactions =", "irreversible \"x\" is none of its actions"),
            ("path =", "has =", "parameter \"has\" is not"),
            ("files/read", "fi\\\"les", "is no ID of a resource"),
            ("domain", "domian", "resources.toml:5: unknown field `domian`"),
        ] {
            let found = codes(&GOOD.replace(from, to));
            assert!(found.iter().any(|f| f.contains(told)), "{told}: {found:?}");
        }
        assert!(codes("")[0].contains("no resource is listed"));
    }

    #[test]
    fn one_id_stands_once_and_one_parameter_has_one_type() {
        assert!(
            codes(&format!("{GOOD}\n{GOOD}"))[0]
                .starts_with("resources.toml:10: resource \"files/read\" stands twice")
        );
        let other = GOOD.replace("files/read", "files/write").replace("\"string\"", "\"long\"");
        assert!(codes(&format!("{GOOD}{other}"))[0].contains("is a long here and a string elsewhere"));
    }
}
