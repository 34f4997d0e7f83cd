//! One rule: a Cedar policy with its ID, what its annotations say, and whom and what its scope speaks of.
//!
//! Never judges whether it is wise; that is `lint.rs`.

use avouch_domain::SpiffeId;
use cedar_policy::{
    ActionConstraint, Effect, EntityUid, Policy, PolicyId, PrincipalConstraint, ResourceConstraint,
};
use miette::Diagnostic as _;

use crate::base;
use crate::catalogue::Catalogue;
use crate::folder::Finding;
use crate::limit::Limits;
use crate::limits::{NESTING_MAX, OPERATORS_MAX};
use crate::presets::{self, Presets};
use crate::statements::Statement;
use crate::words::{Kind, NAME_FORM, Who, is_name, type_name};

/// Annotations that a rule may carry.
const ANNOTATIONS: [&str; 5] = ["id", "ask", "grant", "limit", "note"];
const ID_NEXT: &str = "write @id(\"some-name\") before it";

/// Who wrote a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Compiled in.
    Base,
    /// Made of a preset.
    Preset,
    /// A `.cedar` file of the folder.
    Folder,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// Allows; or would, with the grant that it asks for.
    Permit { grant: bool },
    /// Forbids; or asks somebody.
    Forbid { ask: Option<Who> },
    /// Limits what is allowed.
    Limit(Limits),
}

/// One rule of base, preset or folder.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub id: String,
    pub file: String,
    pub line: u32,
    pub origin: Origin,
    pub does: Does,
    pub policy: Policy,
    /// It has a `when` or an `unless`.
    pub conditional: bool,
    /// Its conditions look at the call and not only at who and what.
    pub sees_call: bool,
    /// Its text speaks of how long ago the node proved itself.
    pub sees_proof: bool,
}

/// Reads one policy of a file.
pub(crate) fn read(file: &str, statement: &Statement<'_>, origin: Origin) -> Result<Rule, Vec<Finding>> {
    if statement.nesting() > NESTING_MAX || statement.operators() > OPERATORS_MAX {
        let text = format!("more than {NESTING_MAX} nested brackets or {OPERATORS_MAX} signs of operators");
        return Err(vec![Finding::new(file, statement.line, "size", text, "split the rule into several")]);
    }
    let policy = Policy::parse(None, statement.text).map_err(|errors| {
        let one = |e: &cedar_policy::ParseError| {
            let line = place(e).map_or(statement.line, |at| statement.line_at(at));
            let next =
                e.help().map_or_else(|| "see the policy syntax of Cedar".to_owned(), |h| h.to_string());
            Finding::new(file, line, "syntax", e.to_string(), one_line(&next))
        };
        errors.iter().map(one).collect::<Vec<_>>()
    })?;
    let found = |code, text: String, next: &str| vec![Finding::new(file, statement.line, code, text, next)];
    for (key, _) in policy.annotations() {
        if !ANNOTATIONS.contains(&key) {
            let text = format!("unknown annotation \"@{key}\", expected @id, @ask, @grant, @limit or @note");
            return Err(found("annotation", text, "take it out; @note holds any text"));
        }
    }
    let id = policy.annotation("id").unwrap_or_default().to_owned();
    if id.is_empty() {
        return Err(found("id", "the rule has no ID".to_owned(), ID_NEXT));
    }
    if !is_name(&id) {
        return Err(found("id", format!("ID \"{}\" is not {NAME_FORM}", id.escape_default()), "rename it"));
    }
    let reserved = [base::PREFIX, presets::PREFIX].into_iter().find(|prefix| id.starts_with(prefix));
    if let (Origin::Folder, Some(prefix)) = (origin, reserved) {
        return Err(found(
            "id",
            format!("\"{prefix}\" begins only IDs of rules that are made for you"),
            "rename it",
        ));
    }
    let does = does(&policy, origin).map_err(|(code, text, next)| found(code, text, next))?;
    Ok(Rule {
        policy: policy.new_id(PolicyId::new(&id)),
        conditional: policy.has_non_scope_constraint(),
        sees_call: statement.mentions("context"),
        sees_proof: statement.mentions("proof_age"),
        id,
        file: file.to_owned(),
        line: statement.line,
        origin,
        does,
    })
}

/// Where in the text a problem of Cedar's lies.
pub(crate) fn place(problem: &dyn miette::Diagnostic) -> Option<usize> {
    problem.labels()?.next().map(|label| label.offset())
}

pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn does(policy: &Policy, origin: Origin) -> Result<Does, (&'static str, String, &'static str)> {
    let (ask, grant, limit) =
        (policy.annotation("ask"), policy.annotation("grant"), policy.annotation("limit"));
    if origin == Origin::Base && (ask.is_some() || grant.is_some() || limit.is_some()) {
        let text = "a base rule can't be asked away".to_owned();
        return Err(("base", text, "take the annotation out"));
    }
    match (policy.effect(), ask, grant, limit) {
        (Effect::Permit, Some(_), ..) => {
            Err(("ask", "@ask stands on a permit".to_owned(), "put it on the forbid that a yes would lift"))
        }
        (Effect::Forbid, _, Some(_), _) => Err((
            "grant",
            "@grant stands on a forbid".to_owned(),
            "put it on the permit that needs the grant",
        )),
        (Effect::Forbid, _, _, Some(_)) => {
            Err(("limit", "@limit stands on a forbid".to_owned(), "write it on a permit of its own"))
        }
        (Effect::Permit, _, Some(_), Some(_)) => {
            let next = "write two rules: one permits, one limits";
            Err(("limit", "@grant and @limit stand on one rule".to_owned(), next))
        }
        (Effect::Permit, _, _, Some(limit)) => {
            let limits = Limits::parse(limit).map_err(|e| ("limit", e, "mend the limit"))?;
            Ok(Does::Limit(limits))
        }
        (Effect::Permit, _, grant, None) => match grant {
            None | Some("") => Ok(Does::Permit { grant: grant.is_some() }),
            Some(_) => Err(("grant", "@grant takes no value".to_owned(), "write @grant alone")),
        },
        (Effect::Forbid, ask, None, None) => {
            let who = ask.map(str::parse::<Who>).transpose();
            let ask =
                who.map_err(|e| ("ask", format!("@ask: {e}"), "write @ask(\"owner\") or @ask(\"person\")"))?;
            Ok(Does::Forbid { ask })
        }
    }
}

impl Rule {
    /// What the rule names must be there: a misspelt name would never match, and nobody would notice.
    pub fn strangers(&self, catalogue: &Catalogue, presets: &Presets) -> Vec<Finding> {
        let gates = catalogue.gates();
        let stranger = |uid: &EntityUid| -> Option<(String, &'static str)> {
            let (kind, name): (_, &str) = (uid.type_name().to_string(), uid.id().unescaped());
            let shown = name.escape_default();
            match kind.as_str() {
                "Preset" if !presets.contains_key(name) => {
                    Some((format!("there is no preset \"{shown}\""), "name one of presets.toml"))
                }
                "Gate" if !gates.contains(name) => Some((
                    format!("there is no gate \"{shown}\""),
                    "name what stands before / in a resource's ID",
                )),
                _ if catalogue.types().contains(kind.as_str())
                    && catalogue.get(name).is_none_or(|r| r.kind != kind) =>
                {
                    Some((format!("there is no {kind} \"{shown}\""), "name an ID of resources.toml"))
                }
                _ if Kind::ALL.iter().any(|k| type_name(*k) == kind) => SpiffeId::parse(name)
                    .err()
                    .map(|e| (format!("\"{shown}\" is no identity: {e}"), "name it by its SPIFFE ID")),
                _ => None,
            }
        };
        let found = self.policy.entity_literals();
        found
            .iter()
            .filter_map(stranger)
            .map(|(text, next)| Finding::new(&self.file, self.line, "unknown", text, next))
            .collect()
    }

    /// What the scope says of whom, of what and of which action, as far as a slice needs it.
    pub fn scope(&self) -> Scope {
        let kind_of = |name: String| Kind::ALL.into_iter().find(|k| type_name(*k) == name);
        let kind = match self.policy.principal_constraint() {
            // `in` a preset may hold for every kind.
            PrincipalConstraint::Any | PrincipalConstraint::In(_) => None,
            PrincipalConstraint::Eq(uid) => kind_of(uid.type_name().to_string()),
            PrincipalConstraint::Is(name) | PrincipalConstraint::IsIn(name, _) => kind_of(name.to_string()),
        };
        let actions = match self.policy.action_constraint() {
            ActionConstraint::Any => None,
            ActionConstraint::In(uids) => Some(uids.iter().map(|u| u.id().unescaped().to_owned()).collect()),
            ActionConstraint::Eq(uid) => Some(vec![uid.id().unescaped().to_owned()]),
        };
        let resource_type = match self.policy.resource_constraint() {
            ResourceConstraint::Any | ResourceConstraint::In(_) => None,
            ResourceConstraint::Eq(uid) => Some(uid.type_name().to_string()),
            ResourceConstraint::Is(name) | ResourceConstraint::IsIn(name, _) => Some(name.to_string()),
        };
        Scope { kind, actions, resource_type }
    }
}

/// Where a rule can match at all; `None` is everywhere. May say too much, never too little.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    kind: Option<Kind>,
    actions: Option<Vec<String>>,
    resource_type: Option<String>,
}

impl Scope {
    /// False only if no request of this kind, action and type of resource matches the rule.
    pub fn reaches(&self, kind: Kind, action: &str, resource_type: &str) -> bool {
        self.reaches_kind(kind)
            && self.actions.as_ref().is_none_or(|a| a.iter().any(|a| a == action))
            && self.resource_type.as_ref().is_none_or(|t| t == resource_type)
    }

    /// False only if no identity of this kind matches the rule.
    pub fn reaches_kind(&self, kind: Kind) -> bool {
        self.kind.is_none_or(|k| k == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statements::split;

    fn read_one(text: &str, origin: Origin) -> Result<Rule, String> {
        read("a.cedar", &split(text)[0], origin).map_err(|f| f[0].to_string())
    }

    #[test]
    fn annotations_say_what_a_rule_does() {
        let does = |text: &str| read_one(text, Origin::Folder).unwrap().does;
        assert_eq!(does("@id(\"a\") permit (principal, action, resource);"), Does::Permit { grant: false });
        assert_eq!(
            does("@id(\"a\") @grant permit (principal, action, resource);"),
            Does::Permit { grant: true }
        );
        let ask = does("@id(\"a\") @ask(\"person\") forbid (principal, action, resource);");
        assert_eq!(ask, Does::Forbid { ask: Some(Who::Person) });
        let limit = does("@id(\"a\") @limit(\"max_rows=3\") permit (principal, action, resource);");
        assert_eq!(limit, Does::Limit(Limits { max_rows: Some(3), ..Limits::default() }));
    }

    #[test]
    fn a_rule_that_can_not_be_meant_is_refused_with_its_line_and_what_to_do() {
        for (annotations, effect, told) in [
            ("", "permit", "a.cedar:2: the rule has no ID; write @id(\"some-name\") before it [id]"),
            ("@id(\"A b\")", "permit", "ID \"A b\" is not a name"),
            ("@id(\"base.owner\")", "permit", "begins only IDs of rules that are made for you"),
            ("@id(\"preset.x\")", "permit", "begins only IDs"),
            ("@id(\"a\") @aks(\"owner\")", "forbid", "unknown annotation \"@aks\""),
            ("@id(\"a\") @ask(\"boss\")", "forbid", "@ask: expected one of owner, person"),
            ("@id(\"a\") @ask(\"owner\")", "permit", "@ask stands on a permit"),
            ("@id(\"a\") @grant", "forbid", "@grant stands on a forbid"),
            ("@id(\"a\") @grant(\"x\")", "permit", "@grant takes no value"),
            ("@id(\"a\") @limit(\"rows=1\")", "permit", "unknown limit \"rows\""),
            ("@id(\"a\") @limit(\"read_only\")", "forbid", "@limit stands on a forbid"),
            ("@id(\"a\") @limit(\"read_only\") @grant", "permit", "write two rules"),
        ] {
            let error =
                read_one(&format!("\n{annotations} {effect} (principal, action, resource);"), Origin::Folder);
            let error = error.unwrap_err();
            assert!(error.contains(told), "{told}: {error}");
        }
    }

    #[test]
    fn a_mistake_of_grammar_has_its_own_line() {
        let text = "\n@id(\"a\")\npermit (principal, action, resource)\nwhen { context.now => 3 };";
        let error = read_one(text, Origin::Folder).unwrap_err();
        assert!(error.starts_with("a.cedar:4: ") && error.ends_with("[syntax]"), "{error}");
        let template =
            read_one("@id(\"a\") permit (principal == ?principal, action, resource);", Origin::Folder);
        assert!(template.unwrap_err().ends_with("[syntax]"));
    }

    #[test]
    fn a_base_rule_that_could_be_asked_away_is_refused() {
        let text = "@id(\"base.x\") @ask(\"owner\") forbid (principal, action, resource);";
        let error = read_one(text, Origin::Base).unwrap_err();
        assert!(error.contains("a base rule can't be asked away"), "{error}");
    }

    #[test]
    fn what_nests_too_deep_is_a_finding() {
        for open in ["(", "!", "[", "if true then ", "1 + ", "true && ", "a."] {
            let text = format!(
                "@id(\"a\") permit (principal, action, resource) when {{ {} true }};",
                open.repeat(4_000)
            );
            assert!(read_one(&text, Origin::Folder).unwrap_err().ends_with("[size]"), "{open}");
        }
    }
}
