//! Scene 12, and what a security team asks at the end.

use super::super::fault::{Fault, hold, there};
use super::super::people::Others;
use super::super::teller::Who;
use super::Stage;

pub(super) async fn trace(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let estate = stage.estate;
    let agent = there(estate.agents.first(), "a node")?;
    let (file, key) =
        (estate.world.dir.join("home/records.jsonl"), estate.world.dir.join("home/records.pem"));
    let failed = |why| Fault::File { what: "the exported log", why };
    let log = estate.good(&["audit", "export", "--source", "all"]).await?.out;
    std::fs::write(&file, &log).map_err(failed)?;
    std::fs::write(&key, estate.good(&["audit", "key"]).await?.out).map_err(failed)?;
    let (file, key) = (file.to_string_lossy().into_owned(), key.to_string_lossy().into_owned());
    let offline = ["--offline", file.as_str(), "--key", key.as_str()];
    let (number, source) = (stage.left.decision.to_string(), agent.to_string());
    let traced =
        estate.good(&[["trace", &number, "--source", &source].as_slice(), &offline].concat()).await?;
    hold(traced.out.contains("/test/coder"), "the identity in the trace", &traced)?;
    for line in traced.out.lines().filter(|line| !line.trim().is_empty()) {
        stage.seen(line);
    }
    let verified = estate.good(&[["audit", "verify"].as_slice(), &offline].concat()).await?;
    stage.seen(&format!("without a server: {}", verified.out.lines().next().unwrap_or_default()));
    let asked = log.lines().find(|line| line.contains("\"outcome\":\"step_up\"")).unwrap_or_default();
    let flipped = log.replacen("\"outcome\":\"step_up\"", "\"outcome\":\"step_uq\"", 1);
    let without = log.replacen(&format!("{asked}\n"), "", 1);
    for (what, changed) in [("one byte changed", flipped), ("one decision taken out", without)] {
        hold(changed != log, "a decision to change", "none")?;
        std::fs::write(&file, changed).map_err(failed)?;
        let found = estate.ask(Who::Ada, &[["audit", "verify"].as_slice(), &offline].concat()).await?;
        hold(found.code == 3, "the changed log to be found", &found)?;
        let told = format!("{}{}", found.out, found.err);
        hold(told.contains(&source), "its node by name", &told)?;
        let told = told.lines().find(|line| line.contains("record")).unwrap_or_default().trim().to_owned();
        stage.seen(&format!("with {what}: {told}"));
    }
    std::fs::write(&file, &log).map_err(failed)?;
    estate.good(&[["audit", "verify"].as_slice(), &offline].concat()).await?;
    estate.good(&["audit", "verify"]).await?;
    Ok(())
}

/// Everything that runs has an owner, an end, and a stop that was tried.
pub(super) async fn nothing_is_left_open(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let estate = stage.estate;
    stage.out.line("\n      And what a security team asks: `avouch verify --require owner,end,stop`");
    let adopt = [
        "adopt",
        "--path",
        "/",
        "--kind",
        "service",
        "--env",
        "test",
        "--purpose",
        "operations",
        "--ends",
        "30d",
        "--apply",
    ];
    estate.good(&adopt).await?;
    let mut names = vec!["coder", "support", "blue"];
    let mut listed = Vec::new();
    if estate.others != Others::Nobody {
        names = vec!["support", "blue", "notes", "ci", "analyst", "reporter"];
        listed = vec![
            format!("spiffe://{}/test/coder", estate.world.trust_domain),
            format!("spiffe://{}/prod/coder", estate.world.trust_domain),
        ];
    }
    for name in names.into_iter().chain(["git", "billing"]).chain(listed.iter().map(String::as_str)) {
        estate
            .until("a drill that every node confirms", async || {
                Ok((estate.ask(Who::Ada, &["stop", name, "--drill"]).await?.code == 0).then_some(()))
            })
            .await?;
    }
    let verified = estate.good(&["verify", "--require", "owner,end,stop"]).await?;
    stage.seen(verified.out.lines().next().unwrap_or_default());
    Ok(())
}
