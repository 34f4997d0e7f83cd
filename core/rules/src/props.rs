//! A slice answers as all rules together would; nothing is allowed without a permit; a yes never takes away.

use proptest::prelude::*;

use crate::tests::rules_with;
use crate::words::type_name;
use crate::{
    Act, Caller, Environment, Grant, Identity, IdentityFacts, Kind, Outcome, Rules, Standing, Task, Yes,
};
use avouch_domain::{SpiffeId, Timestamp};

const ACTIONS: [(&str, &str, &str); 5] = [
    ("tool.call", "Tool", "files/read_file"),
    ("repo.push", "Repository", "git/pay"),
    ("repo.merge", "Repository", "git/pay"),
    ("telemetry.read", "Dataset", "telemetry/requests"),
    ("secret.read", "Secret", "vault/deploy"),
];
/// Those of the resources.
const DOMAINS: [&str; 3] = ["code", "operations", "deploy"];
const CONDITIONS: [&str; 7] = [
    "context.yes.person",
    "context.yes.owner",
    "context.irreversible",
    "context has grant && context.grant.uses_left > 1",
    "context.params has path && context.params.path like \"*x*\"",
    "resource.sensitivity > principal.max_sensitivity - 1 && context.now > 3",
    "context.now * context.yes.age > 9000000000000000000 || context.now > 50",
];

/// One rule with any scope: kind, action, resource and condition are chosen.
fn rule() -> impl Strategy<Value = String> {
    let scope = (0..7_usize, 0..8_usize, 0..9_usize);
    (0..6_usize, scope, 0..CONDITIONS.len(), any::<bool>()).prop_map(
        |(does, (who, action, what), when, negated)| {
            let head = [
                "permit",
                "permit",
                "@grant permit",
                "forbid",
                "@ask(\"person\") forbid",
                "@limit(\"max_rows=5\") permit",
            ];
            let who = match who {
                0..=4 => format!("principal is {}", type_name(Kind::ALL[who])),
                5 => "principal in Preset::\"coding-agent\"".to_owned(),
                _ => "principal".to_owned(),
            };
            let named = |n: usize| format!("Action::\"{}\"", ACTIONS[n].0);
            let action = match action {
                0..=4 => format!("action == {}", named(action)),
                5 => format!("action in [{}, {}]", named(0), named(3)),
                _ => "action".to_owned(),
            };
            let what = match what {
                0..=4 => format!("resource is {}", ACTIONS[what].1),
                5 => "resource in Gate::\"git\"".to_owned(),
                6 => "resource == Repository::\"git/pay\"".to_owned(),
                7 => "resource is Tool in Gate::\"files\"".to_owned(),
                _ => "resource".to_owned(),
            };
            let word = if negated { "unless" } else { "when" };
            // Parameters of other actions are unknown to the schema: only tools have this one.
            let condition = CONDITIONS[when];
            let condition = if condition.contains("params") { "context.now > 10" } else { condition };
            format!("{} ({who}, {action}, {what}) {word} {{ {condition} }};", head[does])
        },
    )
}

/// Rules that can match somewhere; the others are findings and no rules.
fn rules(texts: &[String]) -> Rules {
    let possible: Vec<_> = texts.iter().filter(|text| possible(text)).collect();
    let numbered = possible.iter().enumerate().map(|(n, text)| format!("@id(\"r{n}\") {text}\n"));
    rules_with(&numbered.collect::<String>())
}

fn possible(text: &str) -> bool {
    let goes = |(action, kind, resource): &(&str, &str, &str)| {
        let gate = resource.split('/').next().unwrap_or_default();
        (!text.contains("Action::") || text.contains(action))
            && (!text.contains("resource is") || text.contains(&format!("resource is {kind}")))
            && (!text.contains("Gate::") || text.contains(&format!("Gate::\"{gate}\"")))
            && (!text.contains("git/pay") || *kind == "Repository")
    };
    ACTIONS.iter().any(goes)
}

#[derive(Clone, Debug)]
struct Asked {
    identity: Identity,
    task: Option<Task>,
    grant: Option<Grant>,
    yes: Yes,
    worn: bool,
    what: usize,
    now: i64,
}

fn asked() -> impl Strategy<Value = Asked> {
    let facts =
        (0..5_usize, any::<bool>(), prop::sample::select(&Standing::ALL[..]), 0..4_i64, any::<bool>());
    let given = (any::<bool>(), prop::option::of(0..3_u32), any::<(bool, bool)>(), 0..3_u32, any::<bool>());
    // Most fit, so that more than base rules is seen.
    let bounds = (0..8_u8, 0..8_u8, 0..6_u8);
    (facts, given, bounds, 0..ACTIONS.len(), 0..110_i64).prop_map(|(facts, given, bounds, what, now)| {
        let (environment, lacks, tools) = bounds;
        let (kind, preset, standing, max_sensitivity, owner_active) = facts;
        let (task, grant, (owner, person), age, worn) = given;
        let kind = Kind::ALL[kind];
        let identity = Identity::new(IdentityFacts {
            name: SpiffeId::parse("spiffe://example.org/x").unwrap(),
            kind,
            environment: if environment == 0 { Environment::Prod } else { Environment::Test },
            // Most are in order, so that more than base rules is seen.
            standing: if now % 4 == 0 { standing } else { Standing::Active },
            owner_active: owner_active || now % 3 != 0,
            domains: DOMAINS
                .iter()
                .enumerate()
                .filter(|(n, _)| usize::from(lacks) != *n)
                .map(|(_, d)| (*d).to_owned())
                .collect(),
            max_sensitivity,
            purpose: "work".to_owned(),
            preset: (preset && kind == Kind::AiAgent).then(|| "coding-agent".to_owned()),
            ends: Timestamp::from_secs(100),
        })
        .unwrap();
        let tools = match tools {
            0 => [ACTIONS[what].2.to_owned()].into(),
            1 => ["files/other".to_owned()].into(),
            _ => Default::default(),
        };
        let task = task.then(|| Task { purpose: "work".to_owned(), tools, calls_left: age });
        let grant = grant.map(|uses_left| Grant { uses_left, seconds_left: 9 });
        Asked {
            identity,
            task,
            grant,
            yes: Yes { owner, person, age },
            worn: worn && now % 5 == 0,
            what,
            now,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_slice_answers_as_all_rules_together_would(
        texts in proptest::collection::vec(rule(), 0..12), all in proptest::collection::vec(asked(), 24)
    ) {
        let rules = rules(&texts);
        let whole = crate::slice::whole(&rules.rules);
        let params = Default::default();
        for one in &all {
            let caller = Caller {
                identity: &one.identity, task: one.task.as_ref(), grant: one.grant, yes: one.yes, worn_by_ai_agent: one.worn,
                proof_age: None,
                emergency: false,
            };
            let (action, _, resource) = ACTIONS[one.what];
            let act = Act { action, resource, params: &params, now: Timestamp::from_secs(one.now) };
            let (target, guarded) = rules.target(&caller, &act).unwrap();
            let decision = rules.decide(&caller, &act);
            prop_assert_eq!(&decision, &rules.decide_in(&whole, target, guarded, &caller, &act));
            // An emergency changes nothing of what is allowed, and goes beyond no base rule.
            let lifted = rules.decide(&Caller { emergency: true, ..caller }, &act);
            prop_assert!(!decision.outcome.goes_on() || decision == lifted);
            let base = decision.rules.iter().any(|id| id.starts_with("base."));
            prop_assert!(!base || !lifted.outcome.goes_on());
            // What goes on has a permit that says so, and nobody whom a base rule denies goes on.
            if decision.outcome.goes_on() {
                prop_assert!(!decision.rules.is_empty());
                let facts = one.identity.facts();
                prop_assert!(facts.standing == Standing::Active && facts.owner_active && one.now < 100);
                let guards = rules.catalogue().get(resource).unwrap();
                prop_assert!(facts.environment == guards.environment && facts.domains.contains(&guards.domain));
                prop_assert!(facts.max_sensitivity >= guards.sensitivity);
                let named = |t: &Task| t.tools.is_empty() || t.tools.contains(resource);
                prop_assert!(facts.kind != Kind::AiAgent || one.task.as_ref().is_some_and(named));
                prop_assert!(!(one.worn && facts.kind != Kind::AiAgent));
                prop_assert!(facts.kind != Kind::AiAgent || one.task.as_ref().is_some_and(|t| t.calls_left > 0));
            }
            // The base rules drawn together let pass what they let pass one by one.
            let slice = guarded.slice(one.identity.facts().kind);
            let passes = |set| {
                let found = rules.evaluate(slice, set, target, guarded, &caller, &act).unwrap();
                found.allowed && found.failed.is_empty()
            };
            prop_assert_eq!(passes(&slice.first), passes(&slice.rules));
            // What somebody is let do, or may ask for, is among what is possible.
            if decision.outcome != Outcome::Deny {
                let all = rules.possible(&one.identity, act.now).unwrap();
                prop_assert!(all.iter().any(|p| p.resource == resource && p.action == action), "{:?}", all);
            }
            // What is asked for is enough.
            if let Outcome::Ask(needs) = &decision.outcome {
                let given = crate::decide::with(&caller, &needs.iter().map(|n| n.what).collect::<Vec<_>>());
                prop_assert!(rules.decide(&given, &act).outcome.goes_on());
            }
        }
    }
}
