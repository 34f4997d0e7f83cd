//! Rows about rules: one decision, uncached, against the bare call of Cedar over the same policies, and what more rules
//! in the folder add to it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;

use avouch_domain::{SpiffeId, Timestamp};
use avouch_rules::{
    Act, Caller, Environment, Folder, Identity, IdentityFacts, Kind, Outcome, Param, Params, Rules, Standing,
    Task, Yes, check,
};
use cedar_policy::{
    Authorizer, Context, Entities, Entity, EntityUid, Policy, PolicyId, PolicySet, Request,
    RestrictedExpression as Expression,
};

use crate::report::{Bar, Report, Yard};
use crate::yardstick::measure;

const NOW: i64 = 1_800_000_000;
/// Types of resource over which the rules that are not asked for are spread.
const TYPES: usize = 32;
/// Most rules that a decision looks at, base rules counted.
const CANDIDATES: usize = 25;
/// Limits among them.
const LIMITS: usize = 2;
/// What a folder may hold.
const MOST: usize = 2_000;

/// All rows of this part.
pub fn run(report: &Report) {
    let asked = Asked::new();
    let full = rules(16, 16);
    let texts = full.candidates(&asked.caller(), &asked.act());
    assert_eq!(texts.len(), CANDIDATES, "{texts:#?}");
    let yard = bare(&texts);
    report.ratio("a decision among 25 policies, uncached", asked.micros(&full), yard, Bar::AtMost(2.0));
    let few = asked.micros(&rules(10, 10));
    let many = asked.micros(&rules(10, 1_000));
    let yard = Yard { name: "with 10", value: few };
    report.ratio("a decision with 1,000 policies in the rules", many, yard, Bar::AtMost(1.3));
    let folder = folder(10, MOST);
    let spent = measure(|| {
        std::hint::black_box(check(&folder).expect("rules in order"));
    });
    report.plain("a folder of 2,000 rules and 4,000 examples checked", spent / 1e3, "ms", Bar::AtMost(1e3));
}

/// The request that is decided: an AI agent calls a tool with one parameter.
struct Asked {
    identity: Identity,
    task: Task,
    params: Params,
}

impl Asked {
    fn new() -> Self {
        let identity = Identity::new(IdentityFacts {
            name: SpiffeId::parse("spiffe://example.org/coder").expect("an ID"),
            kind: Kind::AiAgent,
            environment: Environment::Test,
            standing: Standing::Active,
            owner_active: true,
            domains: BTreeSet::from(["code".to_owned()]),
            max_sensitivity: 2,
            purpose: "work".to_owned(),
            preset: None,
            ends: Timestamp::from_secs(NOW + 1_000),
        });
        let task =
            Task { purpose: "work".to_owned(), tools: BTreeSet::from(["t0/x".to_owned()]), calls_left: 9 };
        let params = Params::from([("path".to_owned(), Param::String("src/main.rs".to_owned()))]);
        Self { identity: identity.expect("an identity"), task, params }
    }

    fn caller(&self) -> Caller<'_> {
        Caller { task: Some(&self.task), yes: Yes::default(), ..Caller::new(&self.identity) }
    }

    fn act(&self) -> Act<'_> {
        let now = Timestamp::from_secs(NOW);
        Act { action: "t0.call", resource: "t0/x", params: &self.params, now }
    }

    fn micros(&self, rules: &Rules) -> f64 {
        let (caller, act) = (self.caller(), self.act());
        let outcome = rules.decide(&caller, &act).outcome;
        assert!(matches!(outcome, Outcome::Limit(_)), "{outcome:?}");
        measure(|| {
            std::hint::black_box(rules.decide(&caller, &act));
        })
    }
}

fn rules(own: usize, all: usize) -> Rules {
    check(&folder(own, all)).expect("rules in order")
}

/// A folder with `all` rules, of which `own` are about what is asked.
fn folder(own: usize, all: usize) -> Folder {
    let (mut resources, mut cedar, mut examples) = (String::new(), Vec::new(), Vec::new());
    for n in 0..TYPES {
        let _ = writeln!(
            resources,
            "[[resource]]\nid = \"t{n}/x\"\ntype = \"T{n}\"\nenvironment = \"test\"\ndomain = \"code\"\n\
             sensitivity = 1\nactions = [\"t{n}.call\"]\nparams = {{ path = \"string\" }}\n"
        );
    }
    for n in 0..all {
        let kind = if n < own { 0 } else { 1 + n % (TYPES - 1) };
        let scope =
            format!("(principal is AiAgent, action == Action::\"t{kind}.call\", resource is T{kind})");
        let path = "context.params has path && context.params.path";
        let rule = match n {
            _ if n < LIMITS => format!("@limit(\"max_rows={n}\") permit {scope}"),
            _ if n % 4 == 0 => format!("permit {scope} when {{ {path} like \"src/*\" && context has task }}"),
            _ if n % 4 == 1 => format!("permit {scope} when {{ {path} == \"only-{n}\" }}"),
            _ => format!("forbid {scope} when {{ {path} like \"*never-{n}*\" }}"),
        };
        cedar.push(format!("@id(\"r{n}\") {rule};\n"));
        let (positive, yes, no) = match n {
            _ if n < LIMITS => ("limit", "src/a", "none"),
            _ if n % 4 == 0 => ("allow", "src/a", "none"),
            _ if n % 4 == 1 => ("allow", &*format!("only-{n}"), "none"),
            _ => ("deny", &*format!("src/never-{n}"), "src/a"),
        };
        let own = kind == 0;
        for (expect, path) in [(positive, yes), (if positive == "deny" { "allow" } else { "deny" }, no)] {
            let expect = if own && expect == "allow" { "limit" } else { expect };
            // What a limit leaves alone is of another kind.
            let who = if n < LIMITS && expect == "deny" { "service" } else { "ai_agent" };
            examples.push(format!(
                "[[example]]\nrule = \"r{n}\"\nexpect = \"{expect}\"\nrequest = {{ kind = \"{who}\", action = \
                 \"t{kind}.call\", resource = \"t{kind}/x\", params = {{ path = \"{path}\" }} }}\n"
            ));
        }
    }
    let mut files = vec![("resources.toml".to_owned(), resources)];
    files.extend(cedar.chunks(200).enumerate().map(|(n, part)| (format!("r{n}.cedar"), part.concat())));
    files.extend(
        examples.chunks(200).enumerate().map(|(n, part)| (format!("e{n}.examples.toml"), part.concat())),
    );
    Folder::new(files).expect("rules in order")
}

/// Cedar alone: all these policies in one set, the request and the entities made beforehand.
fn bare(texts: &[String]) -> Yard {
    let mut set = PolicySet::new();
    for (n, text) in texts.iter().enumerate() {
        set.add(Policy::parse(Some(PolicyId::new(format!("p{n}"))), text).expect("a policy")).expect("a set");
    }
    let uid = |text: &str| -> EntityUid { text.parse().expect("a name") };
    let string = |text: &str| Expression::new_string(text.to_owned());
    let record = |pairs: Vec<(&str, Expression)>| {
        Expression::new_record(pairs.into_iter().map(|(k, v)| (k.to_owned(), v))).expect("a record")
    };
    let attributes = |pairs: Vec<(&str, Expression)>| -> HashMap<String, Expression> {
        pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
    };
    let environment = || Expression::new_entity_uid(uid("Environment::\"test\""));
    let principal = attributes(vec![
        ("environment", environment()),
        ("active", Expression::new_bool(true)),
        ("owner_active", Expression::new_bool(true)),
        ("domains", Expression::new_set([string("code")])),
        ("max_sensitivity", Expression::new_long(2)),
        ("purpose", string("work")),
        ("ends", Expression::new_long(NOW + 1_000)),
    ]);
    let resource = attributes(vec![
        ("name", string("t0/x")),
        ("environment", environment()),
        ("domain", string("code")),
        ("sensitivity", Expression::new_long(1)),
    ]);
    let context = Context::from_pairs(attributes(vec![
        ("now", Expression::new_long(NOW)),
        ("irreversible", Expression::new_bool(false)),
        ("worn_by_ai_agent", Expression::new_bool(false)),
        ("params", record(vec![("path", string("src/main.rs"))])),
        (
            "yes",
            record(vec![
                ("owner", Expression::new_bool(false)),
                ("person", Expression::new_bool(false)),
                ("age", Expression::new_long(0)),
            ]),
        ),
        (
            "task",
            record(vec![
                ("purpose", string("work")),
                ("tools", Expression::new_set([string("t0/x")])),
                ("calls_left", Expression::new_long(9)),
            ]),
        ),
    ]));
    let (who, what) = (uid("AiAgent::\"spiffe://example.org/coder\""), uid("T0::\"t0/x\""));
    let request = Request::new(
        who.clone(),
        uid("Action::\"t0.call\""),
        what.clone(),
        context.expect("a context"),
        None,
    );
    let request = request.expect("a request");
    let entities = [
        Entity::new(who, principal, HashSet::new()).expect("an identity"),
        Entity::new(what, resource, HashSet::from([uid("Gate::\"t0\"")])).expect("a resource"),
    ];
    let entities = Entities::from_entities(entities, None).expect("entities");
    let authorizer = Authorizer::new();
    let response = authorizer.is_authorized(&request, &set, &entities);
    assert_eq!(response.decision(), cedar_policy::Decision::Allow, "{response:?}");
    let value = measure(|| {
        std::hint::black_box(authorizer.is_authorized(&request, &set, &entities));
    });
    Yard { name: "bare Cedar", value }
}
