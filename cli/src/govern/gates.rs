//! Adding a gate: its tool server is looked at once, and the rules in force get the gate with its tools as they are now; or a
//! hook, which guards what they list already.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use avouch_proto::governance_v1 as wire;
use avouch_proto::rules_v1::File;
use avouch_rules::{
    Environment, Finding, Folder, NewGate, TOOL_CALL, add_hook_gate, add_mcp_gate, let_preset,
};
use clap::Args;
use serde_json::json;
use tonic::Code;

use super::{Failure, Place, Session, open, reach, rules};
use crate::exit::{FAILED, FINDING, PENDING};
use crate::gate::mcp::{PinnedTool, look};
use crate::out::Out;

/// The preset that the first rules come with.
pub(super) const FIRST_PRESET: &str = "coding-agent";

/// A gate in front of a tool server that speaks MCP.
#[derive(Debug, Args)]
pub struct AddMcp {
    /// Its name, which the IDs of its tools begin with
    pub name: String,
    /// test, staging or prod: identities of another environment never get in
    #[arg(long, default_value = "test")]
    pub env: String,
    /// The domain of its tools
    #[arg(long, default_value = "code")]
    pub domain: String,
    /// How sensitive what they reach is; 0 is what everybody may see
    #[arg(long, default_value_t = 1)]
    pub sensitivity: i64,
    /// A folder or file that only the tool server may touch; can be repeated
    #[arg(long = "guard", value_name = "PATH")]
    pub guards: Vec<PathBuf>,
    /// The tool server's command and its arguments; a file or folder among them is kept as an absolute path
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// A workload of its own in front of what the rules list below its name.
#[derive(Debug, Args)]
pub struct AddHook {
    /// Its name, which the IDs of what it guards begin with
    pub name: String,
    /// The path of its SPIFFE ID, as /test/git
    #[arg(long, value_name = "PATH")]
    pub caller: String,
}

/// Adds the hook and publishes the rules with it.
pub async fn add_hook(add: AddHook, place: &Place, out: &mut Out) -> u8 {
    let done = hook_added(add, place, out).await;
    Failure::code_of(done, out)
}

async fn hook_added(add: AddHook, place: &Place, out: &mut Out) -> Result<(), Failure> {
    let session = &mut open(place, out).await?;
    let before = in_force(session).await?.ok_or_else(|| {
        let next = "list what the hook guards in resources.toml, and `avouch rules publish`";
        Failure::new(FAILED, format!("no rules are published; {next}"))
    })?;
    let folder = add_hook_gate(&before, &add.name, &add.caller).map_err(found)?;
    let rules = publish(session, &folder, &add.name).await?;
    let (number, waits) = (rules.number, rules.standing == "proposed");
    session.print(
        || json!({"gate": add.name, "caller": add.caller, "rules": number, "standing": rules.standing}),
        || {
            let AddHook { name, caller } = &add;
            let next = match waits {
                true => format!(
                    "rules {number} wait for another security person: `avouch rules approve {number}`"
                ),
                false => format!("rules {number} are in force"),
            };
            format!(
                "gate {name}: guards what is listed below {name}/, for whoever asks as {caller}\n{next}\n"
            )
        },
    );
    if waits { Err(Failure::new(PENDING, "")) } else { Ok(()) }
}

pub(super) fn found(findings: Vec<Finding>) -> Failure {
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    Failure::new(FINDING, lines.join("\n"))
}

/// Publishes rules with a gate of this name.
pub(super) async fn publish(
    session: &mut Session<'_>,
    folder: &Folder,
    gate: &str,
) -> Result<wire::PublishedRules, Failure> {
    let files =
        folder.files().map(|(name, text)| File { name: name.to_owned(), text: text.to_owned() }).collect();
    rules::published(session, files, format!("gate {gate}")).await
}

/// Adds the gate and publishes the rules with it.
pub async fn add_mcp(add: AddMcp, place: &Place, out: &mut Out) -> u8 {
    let done = added(add, place, out).await;
    Failure::code_of(done, out)
}

async fn added(add: AddMcp, place: &Place, out: &mut Out) -> Result<(), Failure> {
    let environment: Environment =
        add.env.parse().map_err(|e| Failure::usage(format!("--env {}: {e}", add.env)))?;
    let guards = add.guards.iter().map(|path| {
        let real = path.canonicalize().ok().and_then(|path| path.into_os_string().into_string().ok());
        real.ok_or_else(|| {
            Failure::new(
                FAILED,
                format!("--guard {}: expected a folder or file that is there", path.display()),
            )
        })
    });
    let guards: BTreeSet<String> = guards.collect::<Result<_, _>>()?;
    let command = reach::kept(&add.command)?;
    let unguarded = reach::unguarded(&add.command, &guards);
    let tools = look(&command).await.map_err(|e| Failure::new(FAILED, e))?;
    let session = &mut open(place, out).await?;
    let before = in_force(session).await?;
    let digests: BTreeMap<_, _> = tools.iter().map(|tool| (tool.name.clone(), tool.digest)).collect();
    let new = NewGate {
        name: &add.name,
        command: &command,
        guards: &guards,
        tools: &digests,
        environment,
        domain: &add.domain,
        sensitivity: add.sensitivity,
    };
    let tool = tools.first().map_or("tool", |tool| tool.name.as_str());
    let folder = match before {
        Some(folder) => add_mcp_gate(&folder, &new)
            .and_then(|folder| let_preset(&folder, FIRST_PRESET, TOOL_CALL, (&add.name, tool))),
        None => add_mcp_gate(&first(TOOL_CALL, &add.name, tool), &new),
    };
    let rules = publish(session, &folder.map_err(found)?, &add.name).await?;
    let waits = rules.standing == "proposed";
    for open in unguarded.iter().filter(|_| !place.json) {
        session.out.complain(&format!("{}\n", open.told()));
    }
    session.print(
        || {
            let one = |tool: &PinnedTool| json!({"name": tool.name, "description": tool.description});
            json!({"gate": add.name, "tools": tools.iter().map(one).collect::<Vec<_>>(), "rules": rules.number,
                "standing": rules.standing, "unguarded": unguarded.iter().map(reach::Unguarded::word).collect::<Vec<_>>()})
        },
        || told(&add.name, &tools, &rules),
    );
    if waits { Err(Failure::new(PENDING, "")) } else { Ok(()) }
}

/// The folder of the rules in force; `None` if there are none.
pub(super) async fn in_force(session: &mut Session<'_>) -> Result<Option<Folder>, Failure> {
    let answer = match session.client.get_rules(wire::RulesRequest { number: 0 }).await {
        Ok(answer) => answer.into_inner(),
        Err(status) if status.code() == Code::NotFound => return Ok(None),
        Err(status) => return Err(status.into()),
    };
    let files = answer.files.into_iter().map(|file| (file.name, file.text));
    let folder = Folder::new(files).map_err(|_| Failure::new(FAILED, "the rules in force can't be read"))?;
    Ok(Some(folder))
}

/// The first rules of all: one preset for AI agents, held to its purpose, that may do this behind any gate.
pub(super) fn first(action: &str, gate: &str, resource: &str) -> Folder {
    let example = |expect: &str, more: &str| {
        format!(
            "[[example]]\nrule = \"preset.{FIRST_PRESET}\"\nexpect = \"{expect}\"\nrequest = {{ kind = \"ai_agent\", \
             preset = \"{FIRST_PRESET}\", action = \"{action}\", resource = \"{gate}/{resource}\"{more} }}\n"
        )
    };
    let files = [
        (
            "presets.toml",
            format!(
                "# What AI agents may do that follow this preset: whatever serves their purpose, behind any gate.\n\
                 [{FIRST_PRESET}]\nkind = \"ai_agent\"\nactions = [\"{action}\"]\n"
            ),
        ),
        (
            "examples.toml",
            format!("{}\n{}", example("allow", ""), example("deny", ", task = \"something-else\"")),
        ),
    ];
    // Two small files of known names: nothing about them can be refused.
    Folder::new(files.map(|(name, text)| (name.to_owned(), text))).unwrap_or_default()
}

fn told(gate: &str, tools: &[PinnedTool], rules: &wire::PublishedRules) -> String {
    let mut text = format!("gate {gate}: {} tools, as they are now\n", tools.len());
    for tool in tools {
        let line: String = tool.description.lines().next().unwrap_or_default().chars().take(80).collect();
        text.push_str(&format!("  {gate}/{}  {line}\n", tool.name));
    }
    let number = rules.number;
    text.push_str(&match rules.standing.as_str() {
        "proposed" => format!("rules {number} wait for another security person: `avouch rules approve {number}`\n"),
        _ => format!(
            "rules {number} are in force. Next: `avouch run IDENTITY -- COMMAND`, and in the AI agent's list of MCP \
             servers `avouch gate mcp {gate}`\n"
        ),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rules_allow_what_serves_the_purpose_and_nothing_else() {
        let tools =
            [PinnedTool { name: "read_file".to_owned(), digest: [7; 32], description: "Reads".to_owned() }];
        let digests = [("read_file".to_owned(), [7; 32])].into();
        let new = NewGate {
            name: "files",
            command: &["server".to_owned()],
            guards: &BTreeSet::new(),
            tools: &digests,
            environment: Environment::Test,
            domain: "code",
            sensitivity: 1,
        };
        let folder = add_mcp_gate(&first(TOOL_CALL, "files", &tools[0].name), &new).unwrap();
        let rules = avouch_rules::check(&folder).unwrap();
        assert_eq!((rules.len(), rules.examples()), (1, 2));
        assert_eq!(rules.ceiling(Some(FIRST_PRESET)), (["code".to_owned()].into(), 1));
    }
}
