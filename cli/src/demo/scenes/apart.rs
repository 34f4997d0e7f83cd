//! Scenes 8 and 10: what is kept apart, environments and identities.

use super::super::fault::{Fault, hold};
use super::super::teller::{Who, at, number};
use super::Stage;
use super::secrets::CURL;

const RUN: [&str; 2] = ["--task", "fix-4711"];

pub(super) async fn environments(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let estate = stage.estate;
    let before = estate.reached("vault", "")?;
    let script = format!("{CURL} \"$VAULT_URL/kv/data/ci/pay/deploy-key\"");
    let ran = estate.run(0, "coder", &RUN, &script).await?;
    hold(ran.said.out.trim() == "403", "an identity of test to be denied in prod", &ran)?;
    let decisions = estate.decisions(&ran.instance, 1).await?;
    let Some(denied) = decisions.first() else { return Ok(()) };
    hold(denied.reason == "environment", "the environment to be why", &decisions)?;
    hold(estate.reached("vault", "")? == before, "the vault to have seen nothing more", before)?;
    stage.seen(&format!(
        "record {}: coder of test at a gate of prod, deny ({})",
        denied.number, denied.reason
    ));
    let promoted = [
        "identity",
        "new",
        "coder",
        "--kind",
        "ai-agent",
        "--preset",
        "coding-agent",
        "--env",
        "prod",
        "--purpose",
        "fix-bugs",
        "--ends",
        "30d",
    ];
    let asked = estate.ask(Who::Ada, &promoted).await?;
    hold(asked.code == 5, "the identity of prod to wait for a second person", &asked)?;
    let name = format!("spiffe://{}/prod/coder", estate.world.trust_domain);
    let early = estate.run(0, &name, &RUN, "true").await?;
    hold(early.said.code == 2, "what waits to run nowhere", &early)?;
    estate.good_by(Who::Ben, &["identity", "approve", &name]).await?;
    let grants = estate.good(&["grant", "list", &name, "--all", "--json"]).await?;
    hold(grants.out.contains("\"grants\":[]"), "no grants", &grants)?;
    let token = "avouch task token git/pay";
    let ran = estate
        .until("the promoted identity at the node", async || {
            let ran = estate.run(0, &name, &RUN, token).await?;
            Ok((!ran.instance.is_empty()).then_some(ran))
        })
        .await?;
    hold(ran.said.code == 2, "the repository of test to be closed to it", &ran)?;
    stage.seen(&format!(
        "{name}: another name, after Ben's yes, with 0 grants; even the repository of test is closed to it"
    ));
    Ok(())
}

pub(super) async fn worn(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let estate = stage.estate;
    let Some(node) = estate.nodes.first() else { return Ok(()) };
    let socket = node.socket.to_string_lossy();
    let fetch = ["api", "fetch", "x509", "-socketPath", &socket];
    let service = estate.program("avouch-agent", &fetch).await?;
    hold(service.out.contains("/test/billing"), "the service to have its identity", &service)?;
    let script = format!(
        "avouch-agent {fetch}; (setsid sh -c 'avouch-agent {fetch} > orphan; echo > orphan.done' &); \
         while [ ! -e orphan.done ]; do :; done; cat orphan",
        fetch = fetch.join(" ")
    );
    let ran = estate.run(0, "coder", &RUN, &script).await?;
    let own = ran.said.out.matches("/test/coder").count();
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
