//! What rules decide: each base rule, each outcome, what is found in a folder, and that nothing is decided by default.

use avouch_domain::{SpiffeId, Timestamp};

use crate::{
    Act, Caller, Decision, Environment, Finding, Folder, Identity, IdentityFacts, Kind, Missing, Need,
    Outcome, Params, Reason, Rules, STARTER, Sketch, Standing, Who, check,
};

/// The starter folder with one file replaced by, or extended with, another text.
fn folder_with(name: &str, text: &str) -> Folder {
    let own = |(n, t): &(&str, &str)| ((*n).to_owned(), (*t).to_owned());
    let mut files: Vec<_> = STARTER.iter().map(own).filter(|(n, _)| n != name).collect();
    files.push((name.to_owned(), text.to_owned()));
    Folder::new(files).unwrap()
}

fn starter() -> Rules {
    check(&folder_with("more.cedar", "")).unwrap_or_else(|f| panic!("{f:#?}"))
}

/// Findings of the starter folder with these rules and examples added.
fn found(cedar: &str, examples: &str) -> Vec<Finding> {
    let own = |(n, t): &(&str, &str)| ((*n).to_owned(), (*t).to_owned());
    let more = [("more.cedar", cedar), ("more.examples.toml", examples)];
    let files: Vec<_> = STARTER.iter().chain(&more).map(own).collect();
    check(&Folder::new(files).unwrap()).map(|_| ()).unwrap_err()
}

/// The starter folder with these rules, which have no examples.
pub(crate) fn rules_with(cedar: &str) -> Rules {
    crate::check::unproved(&folder_with("more.cedar", cedar)).unwrap_or_else(|f| panic!("{f:#?}"))
}

fn push() -> Sketch {
    let mut sketch = Sketch::new(Kind::AiAgent, "repo.push", "git/pay");
    sketch.preset = Some("coding-agent".to_owned());
    sketch
}

fn merge() -> Sketch {
    Sketch { action: "repo.merge".to_owned(), ..push() }
}

fn decide(rules: &Rules, sketch: &Sketch) -> Decision {
    sketch.decide(rules).unwrap()
}

fn ids(decision: &Decision) -> Vec<&str> {
    decision.rules.iter().map(|id| &**id).collect()
}

#[test]
fn the_starter_folder_is_in_order() {
    let rules = starter();
    assert_eq!((rules.len(), rules.examples()), (6, 12));
    assert_eq!(rules.place("irreversible.asks").map(|(file, _)| file), Some("rules.cedar"));
    assert_eq!(rules.place("preset.coding-agent").map(|(file, _)| file), Some("presets.toml"));
    assert_eq!(rules.place("base.owner"), None);
}

#[test]
fn what_no_rule_allows_is_denied() {
    let rules = starter();
    let decision = decide(&rules, &Sketch { preset: None, ..push() });
    assert_eq!((&decision.outcome, decision.reason), (&Outcome::Deny, Reason::NoRule));
    assert!(decision.rules.is_empty());
    for kind in Kind::ALL {
        let decision = decide(&rules, &Sketch::new(kind, "repo.push", "git/pay"));
        assert_eq!(decision.outcome, Outcome::Deny, "{kind}");
    }
}

#[test]
fn what_is_not_known_is_denied() {
    let rules = starter();
    for (sketch, reason) in [
        (Sketch { resource: "git/other".to_owned(), ..push() }, Reason::UnknownResource),
        (Sketch { action: "secret.read".to_owned(), ..push() }, Reason::UnknownAction),
        (Sketch { preset: Some("boss".to_owned()), ..push() }, Reason::UnknownPreset),
        (Sketch { kind: Kind::Service, ..push() }, Reason::UnknownPreset),
        (Sketch { params: [("path".to_owned(), crate::Param::Long(1))].into(), ..push() }, Reason::Params),
        (Sketch { params: [("branch".to_owned(), crate::Param::Long(1))].into(), ..push() }, Reason::Params),
    ] {
        let decision = decide(&rules, &sketch);
        assert_eq!((decision.outcome, decision.reason), (Outcome::Deny, reason));
    }
}

#[test]
fn each_base_rule_denies_what_would_be_allowed_and_no_yes_helps() {
    let rules = starter();
    let allowed = decide(&rules, &push());
    assert_eq!((&allowed.outcome, ids(&allowed)), (&Outcome::Allow, vec!["preset.coding-agent"]));
    let standing = |standing| Sketch { standing, ..push() };
    let pipeline = Sketch::new(Kind::Pipeline, "secret.read", "vault/deploy");
    assert_eq!(decide(&rules, &pipeline).outcome, Outcome::Allow);
    for (sketch, rule, reason) in [
        (standing(Standing::Proposed), "base.standing", Reason::Standing),
        (standing(Standing::Paused), "base.standing", Reason::Standing),
        (standing(Standing::Stopped), "base.standing", Reason::Standing),
        (Sketch { ended: true, ..push() }, "base.end", Reason::Ended),
        (Sketch { owner_left: true, ..push() }, "base.owner", Reason::Owner),
        (Sketch { worn_by_ai_agent: true, ..pipeline }, "base.worn", Reason::Worn),
        (Sketch { environment: Some(Environment::Prod), ..push() }, "base.environment", Reason::Environment),
        (Sketch { domains: Some(["payroll".to_owned()].into()), ..push() }, "base.domain", Reason::Domain),
        (Sketch { max_sensitivity: Some(0), ..push() }, "base.sensitivity", Reason::Sensitivity),
        (Sketch { no_task: true, ..push() }, "base.task", Reason::Task),
        (Sketch { calls_left: Some(0), ..push() }, "base.task", Reason::Task),
        (Sketch { tools: ["git/other".to_owned()].into(), ..push() }, "base.tools", Reason::Tools),
    ] {
        for yes in [vec![], vec![Who::Owner, Who::Person]] {
            let sketch = Sketch { yes: yes.into_iter().collect(), grant: true, ..sketch.clone() };
            let decision = decide(&rules, &sketch);
            assert_eq!((&decision.outcome, decision.reason), (&Outcome::Deny, reason), "{rule}");
            assert!(ids(&decision).contains(&rule), "{decision:?}");
        }
    }
    // An AI agent that wears what is its own is none that wears another's.
    assert!(decide(&rules, &Sketch { worn_by_ai_agent: true, ..push() }).outcome.goes_on());
    // Beside a base rule, what could be asked is not asked.
    let decision = decide(&rules, &Sketch { owner_left: true, ..merge() });
    assert_eq!(ids(&decision), ["base.owner", "irreversible.asks"]);
    assert_eq!((decision.outcome, decision.reason), (Outcome::Deny, Reason::Owner));
}

#[test]
fn no_base_rule_carries_an_annotation_but_its_id() {
    for base in crate::base::RULES {
        assert_eq!(base.text.matches('@').count(), 1, "{}", base.id);
        assert!(base.text.starts_with(&format!("@id(\"{}\")", base.id)));
    }
}

#[test]
fn the_base_rules_drawn_together_are_in_order_with_the_schema() {
    let (schema, _) =
        cedar_policy::Schema::from_cedarschema_str(&crate::schema::text(&starter().catalogue)).unwrap();
    let policy = cedar_policy::Policy::parse(None, crate::base::TOGETHER).unwrap();
    let set = cedar_policy::PolicySet::from_policies([policy]).unwrap();
    let result = cedar_policy::Validator::new(schema).validate(&set, cedar_policy::ValidationMode::Strict);
    assert!(result.validation_passed(), "{result}");
}

#[test]
fn every_slice_holds_every_base_rule_of_its_kind() {
    let rules = starter();
    for target in rules.index.targets.values() {
        for guarded in target.actions.values() {
            for kind in Kind::ALL {
                let slice = guarded.slice(kind);
                let all = crate::base::RULES
                    .iter()
                    .filter(|b| kind == Kind::AiAgent || !b.text.contains("is AiAgent"));
                for base in all {
                    assert!(slice.marks.values().any(|mark| &*mark.id == base.id), "{} {kind}", base.id);
                }
            }
        }
    }
}

#[test]
fn a_limit_is_merged_from_all_rules_that_limit() {
    let more = "@id(\"a\") @limit(\"max_rows=20;fields=ts,host;ttl=60\") permit (principal, action == Action::\"telemetry.read\", resource);\n\
                @id(\"b\") @limit(\"max_rows=1\") permit (principal, action, resource) when { context.irreversible };";
    let mut sketch = Sketch::new(Kind::AiAgent, "telemetry.read", "telemetry/requests");
    sketch.grant = true;
    let decision = decide(&rules_with(more), &sketch);
    let Outcome::Limit(limits) = &decision.outcome else { panic!("{decision:?}") };
    assert_eq!(limits.to_string(), "max_rows=20;fields=ts;read_only;ttl=60");
    assert_eq!(ids(&decision), ["a", "telemetry.limit", "telemetry.read"]);
    assert_eq!((decision.outcome.name(), decision.outcome.wire_name()), ("limit", "constrain"));
}

#[test]
fn a_limit_allows_nothing_by_itself() {
    let decision = decide(&starter(), &Sketch::new(Kind::AiAgent, "telemetry.read", "telemetry/requests"));
    assert_eq!(decision.outcome, Outcome::Ask(vec![Need { link: 0, what: Missing::Grant }]));
    let more = "@id(\"a\") @limit(\"read_only\") permit (principal is Service, action, resource);";
    let decision =
        decide(&rules_with(more), &Sketch::new(Kind::Service, "telemetry.read", "telemetry/requests"));
    assert_eq!((decision.outcome, decision.reason), (Outcome::Deny, Reason::NoRule));
}

#[test]
fn what_a_yes_would_lift_is_asked_and_the_yes_lifts_it() {
    let rules = starter();
    let decision = decide(&rules, &merge());
    assert_eq!(decision.outcome, Outcome::Ask(vec![Need { link: 0, what: Missing::Yes(Who::Person) }]));
    assert_eq!((decision.outcome.name(), decision.outcome.wire_name()), ("ask", "step_up"));
    assert_eq!((ids(&decision), decision.outcome.goes_on()), (vec!["irreversible.asks"], false));
    let person = Sketch { yes: [Who::Person].into(), ..merge() };
    assert_eq!(decide(&rules, &person).outcome, Outcome::Allow);
    let owner = Sketch { yes: [Who::Owner].into(), ..merge() };
    assert_eq!(decide(&rules, &owner).outcome, decision.outcome);
    let late = Sketch { yes_age: 901, ..person };
    assert_eq!(decide(&rules, &late).outcome, decision.outcome);
}

#[test]
fn nothing_is_asked_where_the_yes_would_not_help() {
    let rules = starter();
    // Nothing allows it, so that lifting the forbid would change nothing.
    let decision = decide(&rules, &Sketch { preset: None, ..merge() });
    assert_eq!((&decision.outcome, decision.reason), (&Outcome::Deny, Reason::NoRule));
    // A second forbid has nobody to ask.
    let more = "@id(\"never\") forbid (principal, action == Action::\"repo.merge\", resource);";
    let decision = decide(&rules_with(more), &merge());
    assert_eq!((&decision.outcome, decision.reason), (&Outcome::Deny, Reason::Forbidden));
    // The yes that it asks for is not the one that lifts it.
    let more = "@id(\"odd\") @ask(\"owner\") forbid (principal, action == Action::\"repo.push\", resource) unless { context.yes.person };";
    let decision = decide(&rules_with(more), &push());
    assert_eq!((&decision.outcome, decision.reason), (&Outcome::Deny, Reason::Forbidden));
    // The yes wakes another forbid.
    let more = "@id(\"one\") @ask(\"owner\") forbid (principal, action == Action::\"repo.push\", resource) unless { context.yes.owner };\n\
                @id(\"two\") forbid (principal, action, resource) when { context.yes.owner };";
    assert_eq!(decide(&rules_with(more), &push()).outcome, Outcome::Deny);
    // The permit that a grant would wake does not wait for one.
    let more = "@id(\"odd\") permit (principal is Machine, action == Action::\"telemetry.read\", resource) when { context has grant };";
    let sketch = Sketch::new(Kind::Machine, "telemetry.read", "telemetry/requests");
    assert_eq!(decide(&rules_with(more), &sketch).outcome, Outcome::Deny);
    // A grant would not help against a forbid.
    let more = "@id(\"never\") forbid (principal, action == Action::\"telemetry.read\", resource);";
    let sketch = Sketch::new(Kind::AiAgent, "telemetry.read", "telemetry/requests");
    assert_eq!(decide(&rules_with(more), &sketch).outcome, Outcome::Deny);
}

#[test]
fn what_is_asked_is_no_more_than_what_helps() {
    let need = |what| Need { link: 0, what };
    let more = "@id(\"both\") @ask(\"owner\") forbid (principal, action == Action::\"repo.merge\", resource) unless { context.yes.owner };";
    let all = vec![need(Missing::Yes(Who::Owner)), need(Missing::Yes(Who::Person))];
    assert_eq!(decide(&rules_with(more), &merge()).outcome, Outcome::Ask(all));
    let more = "@id(\"any\") @ask(\"owner\") forbid (principal, action == Action::\"repo.merge\", resource) unless { context.yes.owner || context.yes.person };";
    let one = vec![need(Missing::Yes(Who::Person))];
    assert_eq!(decide(&rules_with(more), &merge()).outcome, Outcome::Ask(one));
    let more = "@id(\"reads\") @ask(\"owner\") forbid (principal, action == Action::\"telemetry.read\", resource) unless { context.yes.owner };";
    let sketch = Sketch::new(Kind::AiAgent, "telemetry.read", "telemetry/requests");
    let both = vec![need(Missing::Yes(Who::Owner)), need(Missing::Grant)];
    assert_eq!(decide(&rules_with(more), &sketch).outcome, Outcome::Ask(both));
}

fn in_emergency(rules: &Rules, sketch: &Sketch) -> Decision {
    decide(rules, &Sketch { emergency: true, ..sketch.clone() })
}

#[test]
fn an_emergency_lifts_a_missing_permit_and_a_missing_yes() {
    let rules = starter();
    for sketch in [Sketch { preset: None, ..push() }, merge(), Sketch { preset: None, ..merge() }] {
        assert!(!decide(&rules, &sketch).outcome.goes_on());
        let lifted = in_emergency(&rules, &sketch);
        assert_eq!((&lifted.outcome, lifted.reason), (&Outcome::Allow, Reason::Emergency), "{sketch:?}");
    }
    let allowed = in_emergency(&rules, &push());
    assert_eq!(allowed, decide(&rules, &push()), "what is allowed needs no emergency, and does not name it");
}

#[test]
fn an_emergency_lifts_no_forbid_of_the_folder() {
    let more = "@id(\"never\") forbid (principal, action == Action::\"repo.merge\", resource);";
    let denied = in_emergency(&rules_with(more), &merge());
    assert_eq!((&denied.outcome, denied.reason), (&Outcome::Deny, Reason::Forbidden));
    // Also not one that the yes would wake.
    let more = "@id(\"odd\") forbid (principal, action, resource) when { context.yes.person };";
    assert_eq!(in_emergency(&rules_with(more), &merge()).outcome, Outcome::Deny);
}

#[test]
fn an_emergency_lifts_no_base_rule_and_nothing_that_is_not_known() {
    let rules = starter();
    for (sketch, reason) in [
        (Sketch { environment: Some(Environment::Prod), ..push() }, Reason::Environment),
        (Sketch { standing: Standing::Paused, ..push() }, Reason::Standing),
        (Sketch { owner_left: true, ..merge() }, Reason::Owner),
        (Sketch { no_task: true, ..merge() }, Reason::Task),
        (Sketch { tools: ["git/other".to_owned()].into(), ..merge() }, Reason::Tools),
        (Sketch { resource: "git/other".to_owned(), ..push() }, Reason::UnknownResource),
        (Sketch { action: "secret.read".to_owned(), ..push() }, Reason::UnknownAction),
    ] {
        let denied = in_emergency(&rules, &sketch);
        assert_eq!((denied.outcome, denied.reason), (Outcome::Deny, reason));
    }
}

#[test]
fn limits_bind_in_an_emergency_too() {
    let rules = starter();
    let lifted = in_emergency(&rules, &Sketch::new(Kind::AiAgent, "telemetry.read", "telemetry/requests"));
    assert!(matches!(lifted.outcome, Outcome::Limit(_)) && lifted.reason == Reason::Emergency, "{lifted:?}");
    let more = "@id(\"a\") @limit(\"max_rows=7\") permit (principal is Service, action, resource);";
    let service = Sketch::new(Kind::Service, "telemetry.read", "telemetry/requests");
    let lifted = in_emergency(&rules_with(more), &service);
    let Outcome::Limit(limits) = &lifted.outcome else { panic!("{lifted:?}") };
    assert_eq!((limits.max_rows, ids(&lifted)), (Some(7), vec!["a"]), "no permit is what is missing");
}

#[test]
fn in_an_emergency_a_rule_that_can_not_be_evaluated_denies() {
    let bad = "@id(\"bad\") permit (principal, action, resource) when { context.yes.age * 9223372036854775807 > 1 };";
    let denied = in_emergency(&rules_with(bad), &Sketch { yes_age: 2, ..merge() });
    assert_eq!((&denied.outcome, denied.reason), (&Outcome::Deny, Reason::PolicyError));
    // Nor one that only the yes leads to.
    let text = "@id(\"bad\") forbid (principal, action, resource) when { context.yes.person && 9223372036854775807 * 2 > context.yes.age };";
    assert_eq!(in_emergency(&rules_with(text), &merge()).outcome, Outcome::Deny);
}

#[test]
fn a_chain_that_an_emergency_lets_through_says_so() {
    let rules = rules_with(
        "@id(\"helpers\") permit (principal is Helper, action == Action::\"repo.push\", resource);",
    );
    let agent = identity(Kind::AiAgent, None, Standing::Active);
    let helper = identity(Kind::Helper, None, Standing::Active);
    let task = crate::Task { purpose: "work".to_owned(), tools: Default::default(), calls_left: 1 };
    let acts = Caller { task: Some(&task), emergency: true, ..Caller::new(&agent) };
    let params = Params::new();
    let act = Act { action: "repo.push", resource: "git/pay", params: &params, now: Timestamp::from_secs(1) };
    let through = rules.chain(&[acts, Caller::new(&helper)], &act);
    assert_eq!((through.outcome, through.reason), (Outcome::Allow, Reason::Emergency));
}

#[test]
fn a_rule_that_can_not_be_evaluated_denies_whatever_the_others_say() {
    let overflow = "context.yes.age * 9223372036854775807 > 1";
    let effects = ["@id(\"bad\") permit", "@id(\"bad\") forbid", "@id(\"bad\") @limit(\"read_only\") permit"];
    for effect in effects {
        let rules = rules_with(&format!("{effect} (principal, action, resource) when {{ {overflow} }};"));
        let sketch = Sketch { yes: [Who::Person].into(), yes_age: 2, ..merge() };
        let decision = decide(&rules, &sketch);
        assert_eq!((&decision.outcome, decision.reason), (&Outcome::Deny, Reason::PolicyError), "{effect}");
        assert_eq!(ids(&decision), ["bad"]);
        assert!(decide(&rules, &push()).outcome.goes_on(), "{effect}");
    }
    // Nothing is asked either if the yes would end in an error.
    let text = "@id(\"bad\") permit (principal, action, resource) when { context.yes.person && 9223372036854775807 * 2 > context.yes.age };";
    assert_eq!(decide(&rules_with(text), &merge()).outcome, Outcome::Deny);
}

fn identity(kind: Kind, preset: Option<&str>, standing: Standing) -> Identity {
    Identity::new(IdentityFacts {
        name: SpiffeId::parse(&format!("spiffe://example.org/{kind}")).unwrap(),
        kind,
        environment: Environment::Test,
        standing,
        owner_active: true,
        domains: ["code".to_owned(), "operations".to_owned()].into(),
        max_sensitivity: 3,
        purpose: "work".to_owned(),
        preset: preset.map(str::to_owned),
        ends: Timestamp::from_secs(100),
    })
    .unwrap()
}

#[test]
fn a_chain_may_do_what_every_link_may_do() {
    let more = "@id(\"helpers\") permit (principal is Helper, action in [Action::\"repo.push\", Action::\"telemetry.read\"], resource);\n\
                @id(\"helpers.limit\") @limit(\"max_rows=7\") permit (principal is Helper, action == Action::\"telemetry.read\", resource);";
    let rules = rules_with(more);
    let agent = identity(Kind::AiAgent, Some("coding-agent"), Standing::Active);
    let helper = identity(Kind::Helper, None, Standing::Active);
    let paused = identity(Kind::Helper, None, Standing::Paused);
    let task = crate::Task { purpose: "work".to_owned(), tools: Default::default(), calls_left: 1 };
    let acts = Caller { task: Some(&task), ..Caller::new(&agent) };
    let params = Params::new();
    let act = |action, resource| Act { action, resource, params: &params, now: Timestamp::from_secs(1) };
    let (push, merge) = (act("repo.push", "git/pay"), act("repo.merge", "git/pay"));
    let read = act("telemetry.read", "telemetry/requests");

    let both = rules.chain(&[acts, Caller::new(&helper)], &push);
    assert_eq!((&both.outcome, ids(&both)), (&Outcome::Allow, vec!["helpers", "preset.coding-agent"]));
    let denied = rules.chain(&[acts, Caller::new(&helper), Caller::new(&paused)], &push);
    assert_eq!((denied.outcome, denied.reason, denied.link), (Outcome::Deny, Reason::Standing, 2));
    // The AI agent could ask; the one behind it may not at all, so that nothing is asked.
    let denied = rules.chain(&[acts, Caller::new(&helper)], &merge);
    assert_eq!((denied.outcome, denied.link), (Outcome::Deny, 1));
    let asked = rules.chain(&[Caller::new(&helper), acts], &read);
    assert_eq!(asked.outcome, Outcome::Ask(vec![Need { link: 1, what: Missing::Grant }]));
    let granted = Caller { grant: Some(crate::Grant { uses_left: 1, seconds_left: 1 }), ..acts };
    let Outcome::Limit(limits) = rules.chain(&[granted, Caller::new(&helper)], &read).outcome else {
        panic!()
    };
    assert_eq!(limits.to_string(), "max_rows=7;fields=level,service,ts;read_only");
}

#[test]
fn a_chain_of_nobody_or_of_too_many_is_denied() {
    let rules = starter();
    let helper = identity(Kind::Helper, None, Standing::Active);
    let params = Params::new();
    let act = Act { action: "repo.push", resource: "git/pay", params: &params, now: Timestamp::from_secs(1) };
    for links in [0, crate::limits::CHAIN_MAX + 1] {
        let decision = rules.chain(&vec![Caller::new(&helper); links], &act);
        assert_eq!((decision.outcome, decision.reason), (Outcome::Deny, Reason::NoCaller));
    }
}

#[test]
fn an_identity_ends_at_its_second() {
    let rules = rules_with("@id(\"helpers\") permit (principal is Helper, action, resource);");
    let helper = identity(Kind::Helper, None, Standing::Active);
    let params = Params::new();
    for (now, goes_on) in [(99, true), (100, false)] {
        let now = Timestamp::from_secs(now);
        let act = Act { action: "repo.push", resource: "git/pay", params: &params, now };
        assert_eq!(rules.decide(&Caller::new(&helper), &act).outcome.goes_on(), goes_on);
    }
}

#[test]
fn a_permit_that_looks_at_nothing_of_the_call_is_found() {
    let codes = |cedar: &str| found(cedar, "").iter().map(|f| f.code).collect::<Vec<_>>();
    let bare = "\n@id(\"a\") permit (principal is AiAgent, action, resource);";
    assert_eq!(codes(bare), ["no_condition"]);
    assert_eq!(found(bare, "")[0].line, Some(2));
    let role =
        "@id(\"a\") permit (principal, action, resource) when { principal in Preset::\"coding-agent\" };";
    assert_eq!(codes(role), ["role_only"]);
    // Nobody is an AI agent here.
    assert_eq!(codes("@id(\"a\") permit (principal is Machine, action, resource);"), ["no_example"]);
}

#[test]
fn a_rule_without_its_examples_is_found() {
    let rule = "@id(\"a\") permit (principal is Service, action == Action::\"repo.read\", resource);";
    let example = |kind: &str, expect: &str| {
        format!(
            "[[example]]\nrule = \"a\"\nexpect = \"{expect}\"\nrequest = {{ kind = \"{kind}\", action = \"repo.read\", resource = \"git/pay\" }}\n"
        )
    };
    let (allows, denies) = (example("service", "allow"), example("machine", "deny"));
    let texts = |examples: &str| found(rule, examples).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(
        texts("")[0]
            .contains("rule \"a\" has no example that it allows and one that is denied; add one that")
    );
    assert!(texts(&allows)[0].contains("has no example that is denied"));
    assert!(texts(&denies)[0].contains("has no example that it allows"));
    let wrong = texts(&example("machine", "allow"));
    assert!(wrong.iter().any(|t| t.contains("more.examples.toml:1: example of \"a\" expects allow, and comes to deny by no rule: no rule allows it")), "{wrong:?}");
    let own = |(n, t): &(&str, &str)| ((*n).to_owned(), (*t).to_owned());
    let both = allows + &denies;
    let more = [("more.cedar", rule), ("more.examples.toml", &both)];
    assert!(check(&Folder::new(STARTER.iter().chain(&more).map(own)).unwrap()).is_ok());
}

#[test]
fn an_example_that_another_rule_decides_is_found() {
    let example = "[[example]]\nrule = \"deploy.secret\"\nexpect = \"allow\"\nrequest = { kind = \"ai_agent\", preset = \"coding-agent\", action = \"repo.push\", resource = \"git/pay\" }\n";
    let text = found("", example)[0].to_string();
    assert!(text.contains("shows nothing of it: allow by preset.coding-agent"), "{text}");
    let text = found("", &example.replace("deploy.secret", "gone"))[0].to_string();
    assert!(text.contains("there is no rule \"gone\""), "{text}");
}

#[test]
fn what_the_schema_does_not_have_is_found_with_its_line() {
    for (text, line, told) in [
        ("@id(\"a\") permit (principal is Robot, action, resource)\nwhen { context.now > 1 };", 1, "Robot"),
        ("@id(\"a\") forbid (principal, action,\nresource) when { resource.owner == 1 };", 2, "owner"),
        ("@id(\"a\") forbid (principal, action == Action::\"x\", resource);", 1, "x"),
        (
            "\n\n@id(\"a\") forbid (principal, action, resource)\nwhen { context.task.calls_left > 1 };",
            4,
            "task",
        ),
        (
            "@id(\"a\") forbid (principal, action, resource)\nwhen { resource.environment == Environment::\"prd\" };",
            2,
            "prd",
        ),
        ("@id(\"a\") forbid (principal in Preset::\"boss\", action, resource);", 1, "no preset \"boss\""),
        ("@id(\"a\") forbid (principal, action, resource in Gate::\"boss\");", 1, "no gate \"boss\""),
        (
            "@id(\"a\") forbid (principal, action, resource == Tool::\"files/reed\");",
            1,
            "no Tool \"files/reed\"",
        ),
        ("@id(\"a\") forbid (principal == Service::\"bob\", action, resource);", 1, "\"bob\" is no identity"),
    ] {
        let findings = found(text, "");
        let hit = findings.iter().find(|f| f.text.contains(told));
        let hit = hit.unwrap_or_else(|| panic!("{told}: {findings:#?}"));
        assert_eq!((hit.file.as_str(), hit.line), ("more.cedar", Some(line)), "{hit}");
        assert!(!hit.next.is_empty());
    }
}

#[test]
fn an_id_that_stands_twice_and_a_missing_catalogue_are_found() {
    let texts: Vec<_> = found("@id(\"files.secrets\") forbid (principal, action, resource);", "");
    assert!(texts[0].text.contains("ID \"files.secrets\" is taken by"), "{texts:?}");
    let nothing = check(&Folder::new([]).unwrap()).map(|_| ()).unwrap_err();
    assert_eq!(
        nothing[0].to_string(),
        "resources.toml: the file is not there; add it, or start with `avouch rules new` [missing]"
    );
}

#[test]
fn a_preset_that_reaches_nothing_is_found() {
    let preset = |lines: &str| {
        let text = format!("[coding-agent]\nkind = \"ai_agent\"\n{lines}");
        check(&folder_with("presets.toml", &text)).map(|_| ()).unwrap_err()[0].to_string()
    };
    let text = preset("actions = [\"repo.fork\"]");
    assert!(
        text.starts_with("presets.toml:1: preset \"coding-agent\" allows \"repo.fork\", which no resource"),
        "{text}"
    );
    assert!(preset("actions = [\"secret.read\"]\ngates = [\"git\"]").ends_with("[unreachable]"));
    assert!(preset("actions = [\"repo.push\"]\ngates = [\"gti\"]").contains("there is no gate \"gti\""));
    assert!(preset("actions = []").contains("allows nothing"));
    assert!(preset("reach = [\"gti\"]").contains("there is no gate \"gti\""));
    assert!(preset("reach = [\"git\"]\ngates = [\"git\"]").contains("actions that it does not list"));
    assert!(preset("actions = [\"repo.push\"]\nlimit = \"rows=1\"").contains("unknown limit \"rows\""));
}

#[test]
fn what_a_preset_reaches_it_does_not_allow() {
    let text = "[coding-agent]\nkind = \"ai_agent\"\nreach = [\"vault\"]\n";
    let rules = crate::check::unproved(&folder_with("presets.toml", text)).unwrap();
    let vault = rules.catalogue().get("vault/deploy").unwrap();
    assert_eq!(rules.ceiling(Some("coding-agent")), ([vault.domain.clone()].into(), vault.sensitivity));
    let read = Sketch { action: "secret.read".into(), resource: "vault/deploy".into(), ..push() };
    assert_eq!(decide(&rules, &read).reason, Reason::NoRule);
    assert_eq!(decide(&rules, &push()).reason, Reason::NoRule, "and nothing else");
}

#[test]
fn a_preset_limits_what_it_allows() {
    let text = "[coding-agent]\nkind = \"ai_agent\"\nactions = [\"tool.call\", \"repo.read\", \"repo.push\", \"repo.merge\"]\nlimit = \"max_bytes=9\"\n";
    let rules = crate::check::unproved(&folder_with("presets.toml", text)).unwrap();
    let decision = decide(&rules, &push());
    assert_eq!(ids(&decision), ["preset.coding-agent", "preset.coding-agent.limit"]);
    assert!(matches!(decision.outcome, Outcome::Limit(l) if l.max_bytes == Some(9)));
}

#[test]
fn a_task_that_names_tools_allows_no_others_whatever_the_rules_permit() {
    let rules =
        rules_with("@id(\"all\") permit (principal is AiAgent, action, resource) when { context has task };");
    for (tool, goes_on) in [("git/pay", true), ("files/read_file", false)] {
        let sketch = Sketch { tools: [tool.to_owned()].into(), ..push() };
        assert_eq!(decide(&rules, &sketch).outcome.goes_on(), goes_on);
    }
}

#[test]
fn the_deepest_rule_that_is_taken_fits_the_smallest_stack() {
    let chains = [
        ("(", ")", crate::limits::NESTING_MAX - 1, "true"),
        ("[", "]", crate::limits::NESTING_MAX - 1, "1"),
        ("if true then ", " else true", 250, "true"),
        ("1 + ", "", 250, "1"),
        ("true && ", "", 125, "true"),
        ("context.yes.person || ", "", 60, "true"),
        ("", ".a", 250, "context"),
    ];
    let read = move || {
        for (open, close, times, inner) in chains {
            let text = format!("{}{inner}{}", open.repeat(times), close.repeat(times));
            for condition in
                [text.clone(), format!("({text}) == ({text})"), format!("context.now > 1 && {text}")]
            {
                let rule = format!("@id(\"a\") forbid (principal, action, resource) when {{ {condition} }};");
                // Whether it is a rule or a finding, the stack is enough.
                if let Ok(rules) = crate::check::unproved(&folder_with("more.cedar", &rule)) {
                    let _ = decide(&rules, &push());
                }
            }
        }
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(read).unwrap().join().unwrap();
}
