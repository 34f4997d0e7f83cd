//! `avouch rules try`: one request, what comes of it, why, and the command to try next. Of a folder of rules; or of the rules
//! in force, for an identity as the server knows it.

use std::path::PathBuf;

use avouch::exit::{DENIED, FAILED, PENDING, USAGE};
use avouch::govern::{self, Place};
use avouch::out::{Colour, Out};
use avouch_rules::{
    Decision, Environment, Kind, Missing, Outcome, Reason, Rules, Sketch, Standing, Who, check,
};
use serde_json::json;

use super::{Format, load};

pub const EXAMPLES: &str = "Examples:
  avouch rules try coder files/read_file    an identity, by the rules in force
  avouch rules try rules --kind ai_agent --preset coding-agent --action tool.call --resource files/read_file
  avouch rules try rules --kind ai_agent --preset coding-agent --action repo.merge --resource git/pay --yes person
  avouch rules try rules --kind ai_agent --env prod --action tool.call --resource files/read_file --param path=x -o json

Exit codes: 0 allow or limit, 1 the folder can't be read, 2 deny, 3 the rules are not in order, 5 ask, 64 usage.";

/// A request as the command line says it.
#[derive(Clone, Debug, clap::Args)]
pub struct Request {
    /// The folder of rules; with WHAT behind it the name of an identity, and the rules in force count
    #[arg(value_name = "FOLDER|IDENTITY")]
    folder: PathBuf,
    /// The ID of a resource, as files/read_file
    #[arg(conflicts_with_all = ["kind", "name", "preset", "environment", "domains", "max_sensitivity", "resource"])]
    what: Option<String>,
    /// service, machine, pipeline, ai_agent or helper
    #[arg(long, required_unless_present = "what")]
    kind: Option<Kind>,
    /// What is to be done; the first that can be done with WHAT when left out
    #[arg(long, required_unless_present = "what")]
    action: Option<String>,
    /// The ID of a resource in resources.toml
    #[arg(long, required_unless_present = "what")]
    resource: Option<String>,
    /// A value that the gate takes out of the call; again for each value of a set
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// The identity's SPIFFE ID
    #[arg(long)]
    name: Option<String>,
    /// test, staging or prod; that of the resource when left out
    #[arg(long = "env")]
    environment: Option<Environment>,
    /// A preset of presets.toml
    #[arg(long)]
    preset: Option<String>,
    /// proposed, active, paused or stopped
    #[arg(long, default_value_t)]
    standing: Standing,
    /// The identity's owner is no longer active
    #[arg(long)]
    owner_left: bool,
    /// The identity's end is reached
    #[arg(long)]
    ended: bool,
    /// A domain of the identity, again for each; that of the resource when left out
    #[arg(long = "domain")]
    domains: Vec<String>,
    /// What the identity may see at most; the sensitivity of the resource when left out
    #[arg(long, allow_negative_numbers = true)]
    max_sensitivity: Option<i64>,
    /// What the identity is for
    #[arg(long)]
    purpose: Option<String>,
    /// What the task is for; as the identity when left out
    #[arg(long, value_name = "PURPOSE")]
    task: Option<String>,
    /// There is no task
    #[arg(long, conflicts_with_all = ["task", "tools", "calls_left"])]
    no_task: bool,
    /// A resource that the task names, again for each
    #[arg(long = "tool")]
    tools: Vec<String>,
    /// Calls left in the task
    #[arg(long)]
    calls_left: Option<u32>,
    /// There is a grant for exactly this
    #[arg(long)]
    grant: bool,
    /// Who said yes to exactly this: owner or person; again for both
    #[arg(long)]
    yes: Vec<Who>,
    /// Seconds since then
    #[arg(long, default_value_t = 0)]
    yes_age: u32,
    /// An AI agent uses the identity
    #[arg(long)]
    worn_by_ai_agent: bool,
    /// Seconds since the node proved itself to the server
    #[arg(long, default_value_t = 0)]
    proof_age: u32,
    /// When the node proved itself is not known, as at a hook
    #[arg(long, conflicts_with = "proof_age")]
    no_proof: bool,
    /// How to answer
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    output: Format,
}

/// Tries it by the rules of a folder and gives the exit code.
pub fn run(request: &Request, out: &mut Out) -> u8 {
    match load(&request.folder, request.output, out) {
        Ok(rules) => decided(request, request, &rules, out),
        Err(code) => code,
    }
}

/// Tries it by the rules in force, for an identity of the server's, and gives the exit code.
pub async fn run_in_force(request: &Request, place: &Place, out: &mut Out) -> u8 {
    let known = match govern::known(request.folder.display().to_string(), place, out).await {
        Ok(known) => known,
        Err(code) => return code,
    };
    let Ok(rules) = check(&known.rules) else {
        out.complain("avouch rules try: the rules in force are not in order for this release: `avouch rules show --out rules`, and `avouch rules check rules`\n");
        return FAILED;
    };
    match request.of(&known, &rules) {
        Ok(filled) => decided(request, &filled, &rules, out),
        Err(e) => {
            out.complain(&format!("avouch rules try: {e}\n"));
            USAGE
        }
    }
}

/// `said`: as it was written, which the next command is; `request`: with what is known of the identity.
fn decided(said: &Request, request: &Request, rules: &Rules, out: &mut Out) -> u8 {
    let decision = match request.sketch(rules).and_then(|sketch| sketch.decide(rules)) {
        Ok(decision) => decision,
        Err(e) => {
            out.complain(&format!("avouch rules try: {e}\n"));
            return USAGE;
        }
    };
    let next = said.next(rules, &decision);
    let text = match request.output {
        Format::Text => text(rules, &decision, &next, out),
        Format::Json => json_line(&decision, &next),
    };
    out.say(&text);
    match decision.outcome {
        Outcome::Allow | Outcome::Limit(_) => 0,
        Outcome::Ask(_) => PENDING,
        Outcome::Deny => DENIED,
    }
}

impl Request {
    /// True if it is about an identity that the server knows.
    pub fn is_in_force(&self) -> bool {
        self.what.is_some()
    }

    /// The request with what is known of the identity.
    fn of(&self, known: &govern::Known, rules: &Rules) -> Result<Self, String> {
        let resource = self.what.clone().unwrap_or_default();
        let first = || rules.catalogue().get(&resource).and_then(|found| found.actions.first().cloned());
        let action = self.action.clone().or_else(first).ok_or_else(|| {
            format!(
                "no rule in force knows \"{resource}\": `avouch rules show --out rules` shows resources.toml"
            )
        })?;
        let (domains, max_sensitivity) = rules.ceiling(known.preset.as_deref());
        Ok(Self {
            name: Some(known.name.clone()),
            kind: Some(known.kind),
            environment: Some(known.environment),
            preset: known.preset.clone(),
            standing: known.standing,
            ended: self.ended || known.ended,
            purpose: self.purpose.clone().or_else(|| Some(known.purpose.clone())),
            domains: domains.into_iter().collect(),
            max_sensitivity: Some(max_sensitivity),
            action: Some(action),
            resource: Some(resource),
            ..self.clone()
        })
    }

    fn sketch(&self, rules: &Rules) -> Result<Sketch, String> {
        let (Some(kind), Some(action), Some(resource)) = (self.kind, &self.action, &self.resource) else {
            return Err("expected --kind, --action and --resource".to_owned());
        };
        let mut sketch = Sketch {
            name: self.name.clone(),
            environment: self.environment,
            preset: self.preset.clone(),
            standing: self.standing,
            owner_left: self.owner_left,
            ended: self.ended,
            domains: (self.is_in_force() || !self.domains.is_empty())
                .then(|| self.domains.iter().cloned().collect()),
            max_sensitivity: self.max_sensitivity,
            purpose: self.purpose.clone(),
            task: self.task.clone(),
            no_task: self.no_task,
            tools: self.tools.iter().cloned().collect(),
            calls_left: self.calls_left,
            grant: self.grant,
            yes: self.yes.iter().copied().collect(),
            yes_age: self.yes_age,
            worn_by_ai_agent: self.worn_by_ai_agent,
            proof_age: self.proof_age,
            no_proof: self.no_proof,
            ..Sketch::new(kind, action, resource)
        };
        for param in &self.params {
            let Some((name, value)) = param.split_once('=') else {
                return Err(format!("--param is NAME=VALUE, not \"{param}\""));
            };
            sketch.set_param(rules, name, value)?;
        }
        Ok(sketch)
    }

    /// What to do next: this command with what is missing, where that is known, else what the reason says.
    fn next(&self, rules: &Rules, decision: &Decision) -> String {
        let mut with = self.clone();
        match (&decision.outcome, decision.reason) {
            (Outcome::Ask(needs), _) => {
                for need in needs {
                    match need.what {
                        Missing::Grant => with.grant = true,
                        Missing::Yes(who) if !with.yes.contains(&who) => with.yes.push(who),
                        Missing::Yes(_) => {}
                    }
                    with.yes_age = 0;
                }
            }
            (_, Reason::Environment) if self.what.is_none() => with.environment = None,
            (_, Reason::Task) => (with.no_task, with.calls_left) = (false, None),
            (_, Reason::NoRule) if self.preset.is_none() && self.what.is_none() => {
                let action = self.action.as_deref().unwrap_or_default();
                let allows = |(_, kind, actions): &(&str, Kind, Vec<&str>)| {
                    Some(*kind) == self.kind && actions.contains(&action)
                };
                match rules.presets().find(allows) {
                    Some((name, ..)) => with.preset = Some(name.to_owned()),
                    None => return self.said(decision.reason),
                }
            }
            _ => return self.said(decision.reason),
        }
        with.command()
    }

    fn said(&self, reason: Reason) -> String {
        let folder =
            if self.is_in_force() { "rules".to_owned() } else { quoted(&self.folder.display().to_string()) };
        reason.next().replace("FOLDER", &folder)
    }

    /// The command line that says the same.
    fn command(&self) -> String {
        let mut words = vec!["avouch rules try".to_owned(), quoted(&self.folder.display().to_string())];
        words.extend(self.what.as_deref().map(quoted));
        let mut flag = |name: &str, value: &str| words.push(format!("--{name} {}", quoted(value)));
        let one = [
            ("kind", self.kind.map(|kind| kind.name().to_owned())),
            ("name", self.name.clone()),
            ("env", self.environment.map(|e| e.to_string())),
            ("preset", self.preset.clone()),
            ("standing", (self.standing != Standing::Active).then(|| self.standing.to_string())),
            ("max-sensitivity", self.max_sensitivity.map(|n| n.to_string())),
            ("purpose", self.purpose.clone()),
            ("task", self.task.clone()),
            ("calls-left", self.calls_left.map(|n| n.to_string())),
            ("action", self.action.clone()),
            ("resource", self.resource.clone()),
            ("yes-age", (self.yes_age > 0).then(|| self.yes_age.to_string())),
            ("proof-age", (self.proof_age > 0).then(|| self.proof_age.to_string())),
        ];
        for (name, value) in one {
            if let Some(value) = value {
                flag(name, &value);
            }
        }
        let yes: Vec<_> = self.yes.iter().map(ToString::to_string).collect();
        for (name, values) in
            [("param", &self.params), ("domain", &self.domains), ("tool", &self.tools), ("yes", &yes)]
        {
            values.iter().for_each(|value| flag(name, value));
        }
        for (name, said) in [
            ("--owner-left", self.owner_left),
            ("--ended", self.ended),
            ("--no-task", self.no_task),
            ("--grant", self.grant),
            ("--worn-by-ai-agent", self.worn_by_ai_agent),
            ("--no-proof", self.no_proof),
        ] {
            words.extend(said.then(|| name.to_owned()));
        }
        words.join(" ")
    }
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:=,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// What an outcome needs, and what it is limited to, in words.
pub(super) fn details(outcome: &Outcome) -> (Vec<String>, Option<String>) {
    let needs = match outcome {
        Outcome::Ask(needs) => needs.iter().map(|need| need.what.to_string()).collect(),
        _ => Vec::new(),
    };
    let limits = match outcome {
        Outcome::Limit(limits) => Some(limits.to_string()),
        _ => None,
    };
    (needs, limits)
}

fn text(rules: &Rules, decision: &Decision, next: &str, out: &Out) -> String {
    let colour = match decision.outcome {
        Outcome::Allow => Colour::Green,
        Outcome::Limit(_) | Outcome::Ask(_) => Colour::Yellow,
        Outcome::Deny => Colour::Red,
    };
    let reason = decision.reason;
    let mut text = format!("{}: {}\n", out.paint(colour, decision.outcome.name()), reason.sentence());
    text.push_str(&format!("  reason: {}\n", reason.code()));
    let (needs, limits) = details(&decision.outcome);
    for need in needs {
        text.push_str(&format!("  needs: {need}\n"));
    }
    if let Some(limits) = limits {
        text.push_str(&format!("  limits: {limits}\n"));
    }
    for id in &decision.rules {
        let place = match rules.place(id) {
            Some((file, line)) => format!("{file}:{line}"),
            None => "compiled in".to_owned(),
        };
        text.push_str(&format!("  rule: {id} ({place})\n"));
    }
    text.push_str(&format!("{} {next}\n", out.paint(Colour::Dim, "next:")));
    text
}

fn json_line(decision: &Decision, next: &str) -> String {
    let (needs, limits) = details(&decision.outcome);
    let value = json!({
        "outcome": decision.outcome.name(), "wire": decision.outcome.wire_name(),
        "decision": decision.outcome.goes_on(), "reason": decision.reason.code(),
        "sentence": decision.reason.sentence(), "rules": decision.rules.iter().map(|id| &**id).collect::<Vec<_>>(),
        "needs": needs, "limits": limits, "next": next,
    });
    format!("{value}\n")
}
