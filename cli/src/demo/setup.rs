//! Who is there, what they may do, and what there is to be had: by the commands that anybody would give.
//!
//! Never sets anything that a command could not.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::estate::Estate;
use super::fault::{Fault, hold};
use super::people::Others;
use super::service::Api;
use super::teller::{Who, word_from};
use crate::out::Out;

/// The folder of rules that is published.
const RULES: [(&str, &str); 5] = [
    ("resources.toml", include_str!("rules/resources.toml")),
    ("presets.toml", include_str!("rules/presets.toml")),
    ("rules.cedar", include_str!("rules/rules.cedar")),
    ("examples.toml", include_str!("rules/examples.toml")),
    ("gates.toml", include_str!("rules/gates.toml")),
];
/// What stands before a push in the repository: what a person is shown comes from here, never from who pushes.
const HOOK: &str = include_str!("rules/pre-receive");

/// An identity of the demonstration.
struct New {
    name: &'static str,
    kind: &'static str,
    preset: &'static str,
    environment: &'static str,
    purpose: &'static str,
}

/// Those that need one person.
const OF_TEST: [New; 4] = [
    New { name: "coder", kind: "ai-agent", preset: "coding-agent", environment: "test", purpose: "fix-bugs" },
    New { name: "support", kind: "ai-agent", preset: "support", environment: "test", purpose: "support" },
    New { name: "red", kind: "ai-agent", preset: "support", environment: "test", purpose: "support" },
    New { name: "blue", kind: "ai-agent", preset: "support", environment: "test", purpose: "support" },
];
/// Those that need a second one.
const OF_PROD: [New; 4] = [
    New { name: "ci", kind: "pipeline", preset: "deploy-pipeline", environment: "prod", purpose: "deploy" },
    New {
        name: "analyst",
        kind: "ai-agent",
        preset: "telemetry-reader",
        environment: "prod",
        purpose: "operations",
    },
    New {
        name: "reporter",
        kind: "ai-agent",
        preset: "telemetry-reader",
        environment: "prod",
        purpose: "reports",
    },
    New { name: "buyer", kind: "ai-agent", preset: "buyer", environment: "prod", purpose: "purchases" },
];

/// Makes all of it.
pub(super) async fn furnish(estate: &Estate, out: &mut Out) -> Result<(), Fault> {
    repository(estate).await?;
    estate.good(&["init", "Ada Example"]).await?;
    rules(estate).await?;
    services(estate).await?;
    let others = estate.others != Others::Nobody;
    if others {
        people(estate).await?;
    }
    for new in &OF_TEST {
        register(estate, new, "Ada Example").await?;
    }
    if others {
        for new in &OF_PROD {
            let owner = if new.name == "buyer" { "Cyd Example" } else { "Ada Example" };
            register(estate, new, owner).await?;
            estate.good_by(Who::Ben, &["identity", "approve", new.name]).await?;
        }
        estate.good(&["identity", "place", "ci"]).await?;
        out.line("people        Ada and Ben keep it safe, Cyd works here; each is another local user");
    } else {
        out.line(
            "people        Ada alone: this user can be nobody else (root can; so can who has `newuidmap` and a line in /etc/subuid)",
        );
    }
    out.line(
        "guarded       git, vault, telemetry, purchases, tickets, payroll, and six tools, behind their gates",
    );
    ready(estate).await
}

async fn repository(estate: &Estate) -> Result<(), Fault> {
    let bare = estate.bare();
    let bare = bare.to_string_lossy();
    let git = async |args: &[&str]| {
        let said = estate.program("git", args).await?;
        hold(said.code == 0, &format!("`git {}` to succeed", args.join(" ")), &said)
    };
    git(&["init", "-q", "--bare", "-b", "main", &bare]).await?;
    git(&["-C", &bare, "config", "http.receivepack", "true"]).await?;
    git(&["-C", &bare, "config", "receive.advertisePushOptions", "true"]).await?;
    git(&["init", "-q", "-b", "main", "first"]).await?;
    git(&["-C", "first", "commit", "-q", "--allow-empty", "-m", "The first"]).await?;
    git(&["-C", "first", "push", "-q", &bare, "main"]).await?;
    let hook = estate.bare().join("hooks/pre-receive");
    write(&hook, HOOK, 0o700)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Fault> {
    let written = std::fs::write(path, text)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)));
    written.map_err(|why| Fault::File { what: "a file of the demonstration", why })
}

async fn rules(estate: &Estate) -> Result<(), Fault> {
    let folder = estate.world.dir.join("rules");
    let secrets = estate.world.dir.join("secrets");
    for (name, text) in RULES {
        let mut text = text.replace("{secrets}", &secrets.to_string_lossy());
        for api in Api::ALL {
            text = text.replace(&format!("{{{}}}", api.name()), &estate.address(api.name()));
        }
        write(&folder.join(name), &text, 0o600)?;
    }
    let folder = folder.to_string_lossy();
    estate.good(&["rules", "publish", &folder]).await?;
    let seen = estate.world.dir.join("seen");
    let (seen, changed) = (seen.join("tools"), seen.join("changed"));
    let avouch = estate.world.dir.join("bin/avouch");
    let (seen, changed, avouch) =
        (seen.to_string_lossy(), changed.to_string_lossy(), avouch.to_string_lossy());
    let server = [&avouch, "demo", "serve", "tools", "--seen", &seen, "--changed", &changed];
    estate.good(&[&["gate", "add", "mcp", "tools", "--"], server.as_slice()].concat()).await?;
    Ok(())
}

/// The hook's identity, and that of a service of the same user.
async fn services(estate: &Estate) -> Result<(), Fault> {
    let Some(agent) = estate.agents.first() else { return Ok(()) };
    let server = estate.world.server_socket.to_string_lossy();
    let uid = format!("unix:uid:{}", nix::unistd::getuid());
    for path in ["/test/git", "/test/billing"] {
        let id = format!("spiffe://{}{path}", estate.world.trust_domain);
        let args = [
            "entry",
            "create",
            "-socketPath",
            &server,
            "-parentID",
            &agent.to_string(),
            "-spiffeID",
            &id,
            "-selector",
            &uid,
        ];
        let said = estate.program("avouch-server", &args).await?;
        hold(said.code == 0, "an entry", &said)?;
    }
    Ok(())
}

async fn people(estate: &Estate) -> Result<(), Fault> {
    let uid = |nth| estate.others.uid(nth).unwrap_or_default().to_string();
    estate.good(&["person", "add", "Ben Example", "--uid", &uid(0), "--security"]).await?;
    let added = estate.ask(Who::Ada, &["person", "add", "Cyd Example", "--uid", &uid(1)]).await?;
    let cyd = word_from(&added.out, "per_").unwrap_or_default();
    hold(added.code == 5, "a third person to wait for a second yes", &added)?;
    estate.good_by(Who::Ben, &["person", "approve", &cyd]).await?;
    Ok(())
}

async fn register(estate: &Estate, new: &New, owner: &str) -> Result<(), Fault> {
    let New { name, kind, preset, environment, purpose } = new;
    let said = estate
        .ask(
            Who::Ada,
            &[
                "identity",
                "new",
                name,
                "--kind",
                kind,
                "--preset",
                preset,
                "--env",
                environment,
                "--purpose",
                purpose,
                "--ends",
                "30d",
                "--owner",
                owner,
            ],
        )
        .await?;
    let waits = *environment == "prod";
    hold(said.code == if waits { 5 } else { 0 }, &format!("{name} to be registered"), &said)
}

/// Until the nodes have the rules and the entries.
async fn ready(estate: &Estate) -> Result<(), Fault> {
    estate
        .until("the rules at the node", async || {
            let ran = estate.run(0, "blue", &[], "true").await?;
            Ok((ran.said.code == 0 && ran.said.err.contains("rules 2")).then_some(()))
        })
        .await
}
