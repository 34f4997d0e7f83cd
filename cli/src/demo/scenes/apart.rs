//! Scenes 8 and 10: what is kept apart, environments and identities.

use super::super::fault::{Fault, hold, there};
use super::super::setup;
use super::super::teller::{Decision, Who, at, number};
use super::Stage;
use super::code::{self, RUN};

pub(super) async fn environments(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let estate = stage.estate;
    let denied = knock(stage, "coder", "live").await?;
    stage.seen(&format!(
        "record {}: coder of test pushes to the repository of prod, deny ({}); it is as it was",
        denied.number, denied.reason
    ));
    // Waits for a second person.
    setup::register(estate, &["coder", "ai-agent", "coding-agent", "prod", "fix-bugs", "Ada Example"])
        .await?;
    let name = format!("spiffe://{}/prod/coder", estate.world.trust_domain);
    let early = estate.run(0, &name, &RUN, "true").await?;
    hold(early.said.code == 2, "what waits to run nowhere", &early)?;
    let own = estate.ask(Who::Ada, &["identity", "approve", &name]).await?;
    hold(own.code == 2, "the yes of who registered it to be refused", &own)?;
    estate.good_by(Who::Ben, &["identity", "approve", &name]).await?;
    setup::place(estate, &name).await?;
    let grants = estate.good(&["grant", "list", &name, "--all", "--json"]).await?;
    hold(grants.out.contains("\"grants\":[]"), "no grants", &grants)?;
    estate
        .until("the promoted identity at the node", async || {
            let ran = estate.run(0, &name, &RUN, "true").await?;
            Ok((!ran.instance.is_empty()).then_some(()))
        })
        .await?;
    let script = format!(
        "cd pay; {}; git push -q \"$GIT_URL/live.git\" HEAD:refs/heads/promoted",
        code::token("live")
    );
    let pushed = estate.run(0, &name, &RUN, &script).await?;
    hold(pushed.said.code == 0, "a push to the repository of prod", &pushed)?;
    let branch = code::in_bare(stage, "live", &["rev-parse", "--verify", "-q", "promoted"]).await?;
    hold(branch.code == 0, "the branch in the repository of prod", &branch)?;
    let denied = knock(stage, &name, "pay").await?;
    stage.seen(&format!(
        "{name}: another name, after Ben's yes, with 0 grants; it pushes to the repository of prod"
    ));
    stage.seen(&format!(
        "record {}: it pushes to the repository of test, deny ({}); it is as it was",
        denied.number, denied.reason
    ));
    Ok(())
}

/// An identity pushes where it must not; what was decided.
async fn knock(stage: &Stage<'_>, identity: &str, repository: &str) -> Result<Decision, Fault> {
    let branches = ["for-each-ref", "--format=%(refname) %(objectname)"];
    let before = code::in_bare(stage, repository, &branches).await?.out;
    let script = format!(
        "cd pay; {}; git push -q \"$GIT_URL/{repository}.git\" HEAD:refs/heads/knock",
        code::token(repository)
    );
    let ran = stage.estate.run(0, identity, &RUN, &script).await?;
    hold(ran.said.code != 0, "the push to be denied", &ran)?;
    let mut decisions = stage.estate.decisions(&ran.instance, 1).await?;
    let after = code::in_bare(stage, repository, &branches).await?.out;
    hold(before == after, "the repository as it was", (&before, &after))?;
    match decisions.pop() {
        Some(denied) if denied.outcome == "deny" && denied.reason == "environment" => Ok(denied),
        other => Err(Fault::expected("the environment to be why", other)),
    }
}

pub(super) async fn worn(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let estate = stage.estate;
    let node = there(estate.nodes.first(), "a node")?;
    let socket = node.socket.to_string_lossy();
    let fetch = ["api", "fetch", "x509", "-socketPath", &socket];
    let service = estate.program("avouch-agent", &fetch).await?;
    hold(service.out.contains("/test/billing"), "the service to have its identity", &service)?;
    let script = format!(
        "avouch-agent {fetch}; (setsid sh -c 'avouch-agent {fetch} > orphan; echo > orphan.done' &); \
         while [ ! -e orphan.done ]; do :; done; cat orphan",
        fetch = fetch.join(" ")
    );
    // There are two of this name now.
    let coder = format!("spiffe://{}/test/coder", estate.world.trust_domain);
    let ran = estate.run(0, &coder, &RUN, &script).await?;
    let own = ran.said.out.matches(&coder).count();
    hold(own >= 2 && !ran.said.out.contains("billing"), "the AI agent's own identity and no other", &ran)?;
    let refused = estate
        .until("the record of the refusal", async || {
            let records = estate.records().await?;
            let of = |record: &&serde_json::Value| {
                at(record, "/event") == "svid.refused" && at(record, "/actor") == ran.instance
            };
            Ok(records.iter().find(of).map(number))
        })
        .await?;
    stage.seen("a process of this user: billing; the same, started by coder: coder, also when it has left its parents");
    stage.seen(&format!("record {refused}: svid.refused"));
    Ok(())
}
