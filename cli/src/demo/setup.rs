//! Who is there, what they may do, and what there is to be had: by the commands that anybody would give.
//!
//! Never sets anything that a command could not.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::estate::Estate;
use super::fault::{Fault, hold, there};
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
/// Repositories, one of test and one of prod.
const REPOSITORIES: [&str; 2] = ["pay", "live"];
/// What stands before a push in a repository: what a person is shown comes from here, never from who pushes.
const HOOK: &str = include_str!("rules/pre-receive");

/// An identity: its name, kind, preset, environment, purpose and owner.
type New = [&'static str; 6];

/// Those that need their owner alone.
const OF_ONE: [New; 4] = [
    ["coder", "ai-agent", "coding-agent", "test", "fix-bugs", "Ada Example"],
    ["support", "ai-agent", "support", "test", "support", "Ada Example"],
    ["red", "ai-agent", "support", "test", "support", "Ada Example"],
    ["blue", "ai-agent", "support", "test", "support", "Ada Example"],
];
/// Those that need a second person. `notes` is no scene's: whoever started the demonstration lets its owner leave.
const OF_TWO: [New; 5] = [
    ["ci", "pipeline", "deploy-pipeline", "prod", "deploy", "Ada Example"],
    ["analyst", "ai-agent", "telemetry-reader", "prod", "operations", "Ada Example"],
    ["reporter", "ai-agent", "telemetry-reader", "prod", "reports", "Ada Example"],
    ["buyer", "ai-agent", "buyer", "prod", "purchases", "Cyd Example"],
    ["notes", "ai-agent", "support", "test", "support", "Dee Example"],
];

/// Makes all of it.
pub(super) async fn furnish(estate: &Estate, out: &mut Out) -> Result<(), Fault> {
    repositories(estate).await?;
    estate.good(&["init", "Ada Example"]).await?;
    rules(estate).await?;
    services(estate).await?;
    let others = estate.others != Others::Nobody;
    if others {
        people(estate).await?;
    }
    for new in &OF_ONE {
        register(estate, new).await?;
    }
    if others {
        for new in &OF_TWO {
            register(estate, new).await?;
            let [name, ..] = new;
            estate.good_by(Who::Ben, &["identity", "approve", name]).await?;
            place(estate, name).await?;
        }
        out.line("people        Ada and Ben keep it safe, Cyd and Dee work here; each is another local user");
    } else {
        out.line(
            "people        Ada alone: this user can start nothing as somebody else here (it takes root, or `newuidmap`, `unshare` of util-linux 2.38 and a line in /etc/subuid)",
        );
    }
    out.line(
        "guarded       git, vault, telemetry, purchases, tickets, payroll, and six tools, behind their gates",
    );
    ready(estate).await
}

async fn repositories(estate: &Estate) -> Result<(), Fault> {
    let git = async |args: &[&str]| {
        let said = estate.program("git", args).await?;
        hold(said.code == 0, &format!("`git {}` to succeed", args.join(" ")), &said)
    };
    git(&["init", "-q", "-b", "main", "first"]).await?;
    git(&["-C", "first", "commit", "-q", "--allow-empty", "-m", "The first"]).await?;
    for name in REPOSITORIES {
        let bare = estate.bare(name);
        let path = bare.to_string_lossy();
        git(&["init", "-q", "--bare", "-b", "main", &path]).await?;
        git(&["-C", &path, "config", "http.receivepack", "true"]).await?;
        git(&["-C", &path, "config", "receive.advertisePushOptions", "true"]).await?;
        git(&["-C", "first", "push", "-q", &path, "main"]).await?;
        write(&bare.join("hooks/pre-receive"), HOOK, 0o700)?;
    }
    Ok(())
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
    let agent = there(estate.agents.first(), "a node")?;
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
    for (nth, name) in [(1, "Cyd Example"), (2, "Dee Example")] {
        let added = estate.ask(Who::Ada, &["person", "add", name, "--uid", &uid(nth)]).await?;
        hold(added.code == 5, "who comes after two to wait for a second yes", &added)?;
        let person = word_from(&added.out, "per_").unwrap_or_default();
        estate.good_by(Who::Ben, &["person", "approve", &person]).await?;
    }
    Ok(())
}

/// An identity, by Ada: of prod, or somebody else's, it waits for a second person.
pub(super) async fn register(estate: &Estate, new: &New) -> Result<(), Fault> {
    let [name, kind, preset, environment, purpose, owner] = new;
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
    let waits = *environment == "prod" || *owner != "Ada Example";
    hold(said.code == if waits { 5 } else { 0 }, &format!("{name} to be registered"), &said)
}

/// Where an identity of prod may run takes a person other than its owner too.
pub(super) async fn place(estate: &Estate, name: &str) -> Result<(), Fault> {
    let agent = there(estate.agents.first(), "a node")?;
    let uid = nix::unistd::getuid().to_string();
    let place = ["identity", "place", name, "--node", &agent.to_string(), "--uid", &uid];
    estate.good_by(Who::Ben, &place).await.map(drop)
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
