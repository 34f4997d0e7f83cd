//! Scenes 4 and 5: what takes a grant.

use std::time::Duration;

use super::super::fault::{Fault, hold};
use super::super::service::{DEPLOY_KEY, ROWS};
use super::super::teller::Who;
use super::Stage;
use crate::clock;

/// How long the grant for telemetry lives.
const LIVES: Duration = Duration::from_secs(6);
const LIVES_TEXT: &str = "6s";
/// What the rules let through of it.
const ROWS_LET: usize = 1000;
/// Prints the status of a request.
pub(super) const CURL: &str = "curl -s -o /dev/null -w '%{http_code}\\n'";

pub(super) async fn one_secret_once(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let estate = stage.estate;
    let given = estate.good_by(Who::Ben, &["grant", "give", "ci", "vault/deploy-key"]).await?;
    stage.seen(&format!("Ben: {}", given.out.lines().next().unwrap_or_default()));
    let secret = estate.world.dir.join("secrets/vault");
    let script = format!(
        "curl -s \"$VAULT_URL/kv/data/ci/pay/deploy-key\"; echo
         {CURL} \"$VAULT_URL/kv/data/ci/pay/deploy-key\"
         {CURL} \"$VAULT_URL/kv/data/ci/pay/deploy-key2\"
         {CURL} \"$VAULT_URL/kv/data/ci/pay/\"
         {CURL} -X LIST \"$VAULT_URL/kv/data/ci/pay\"
         {CURL} --path-as-is \"$VAULT_URL/kv/data/ci/pay/deploy-key/../deploy-key\"
         {CURL} http://{}/v1/kv/data/ci/pay/deploy-key
         env; cat '{}'",
        estate.address("vault"),
        secret.display(),
    );
    let ran = estate.run(0, "ci", &["--task", "deploy"], &script).await?;
    let mut lines = ran.said.out.lines();
    let first = lines.next().unwrap_or_default();
    hold(first.contains(DEPLOY_KEY), "the secret, once", &ran)?;
    let codes: Vec<_> = lines.by_ref().take(6).collect();
    hold(
        codes == ["403", "403", "403", "403", "400", "401"],
        "five refusals of the gate, and 401 of the vault itself",
        &codes,
    )?;
    let token = std::fs::read_to_string(&secret).map_err(|why| Fault::File { what: "a secret", why })?;
    let held = ran.said.out.contains(token.trim());
    let confined = !ran.said.err.contains("advisory");
    hold(!held || !confined, "the token to be nowhere where the pipeline looks", "it was there")?;
    let closed = ran.said.err.contains("Permission denied");
    hold(closed || !confined, "its file to be closed", &ran.said.err)?;
    let (served, refused) = (estate.reached("vault", "served")?, estate.reached("vault", "refused")?);
    hold((served, refused) == (1, 1), "the vault to have answered once and refused once", (served, refused))?;
    let decisions = estate.decisions(&ran.instance, 2).await?;
    let outcomes: Vec<_> =
        decisions.iter().map(|decision| (decision.outcome.as_str(), decision.reason.as_str())).collect();
    hold(outcomes.first().is_some_and(|first| first.0 == "allow"), "an allow first", &outcomes)?;
    hold(outcomes.iter().skip(1).all(|other| other.0 == "deny"), "denials after it", &outcomes)?;
    let open = estate.good(&["grant", "list", "ci", "--json"]).await?;
    hold(open.out.contains("\"grants\":[]"), "no grant of the pipeline to be left", &open)?;
    let number = decisions.first().map_or(0, |decision| decision.number);
    let why = outcomes.get(1).map_or("", |second| second.1);
    stage.seen(&format!("record {number}: allow, and the grant is used up; the second time: deny ({why}); and no other path is open"));
    let kept =
        if confined { "its file is closed to the pipeline" } else { "advisory here: its file is not closed" };
    stage.seen(&format!("the vault answered 1; the gate adds its token, and {kept}; around the gate: 401"));
    Ok(())
}

pub(super) async fn telemetry(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let estate = stage.estate;
    // The reporter has one as well: that it reads nothing is its purpose.
    for name in ["analyst", "reporter"] {
        let give = ["grant", "give", name, "telemetry/requests", "--uses", "20", "--for", LIVES_TEXT];
        estate.good_by(Who::Ben, &give).await?;
    }
    let begun = clock::now().mono;
    let script = "curl -s \"$TELEMETRY_URL/requests\"";
    let ran = estate.run(0, "analyst", &["--task", "incident-7"], script).await?;
    let rows = ran.said.out.lines().count();
    hold(rows == ROWS_LET, "1,000 rows", (rows, ran.said.out.lines().next()))?;
    hold(!ran.said.out.contains("customer"), "no column but those of the rule", ran.said.out.lines().next())?;
    let decisions = estate.decisions(&ran.instance, 1).await?;
    hold(decisions.iter().all(|decision| decision.outcome == "constrain"), "a limit", &decisions)?;
    let number = decisions.first().map_or(0, |decision| decision.number);
    stage.seen(&format!("record {number}: limit; {rows} of {ROWS} rows, and of each what the rule names"));
    let served = estate.reached("telemetry", "served")?;
    let ask = format!("{CURL} \"$TELEMETRY_URL/requests\"");
    let write = format!("{CURL} -d '{{}}' \"$TELEMETRY_URL/requests\"");
    let wrote = estate.run(0, "analyst", &["--task", "incident-7"], &write).await?;
    hold(wrote.said.out.trim() == "403", "telemetry to be for reading only", &wrote)?;
    let other = estate.run(0, "reporter", &["--task", "report-3"], &ask).await?;
    hold(other.said.out.trim() == "403", "another purpose to be denied", &other)?;
    let left = LIVES.saturating_sub(clock::now().mono.since(begun)) + Duration::from_secs(1);
    tokio::time::sleep(left).await;
    let late = estate.run(0, "analyst", &["--task", "incident-7"], &ask).await?;
    hold(late.said.out.trim() == "403", "the analyst to be denied after its time", &late)?;
    let (other, late) =
        (estate.decisions(&other.instance, 1).await?, estate.decisions(&late.instance, 1).await?);
    let why = |decisions: &[super::super::teller::Decision]| {
        decisions.first().map(|decision| format!("record {}: deny ({})", decision.number, decision.reason))
    };
    hold(served == estate.reached("telemetry", "")?, "telemetry to have seen nothing more", served)?;
    stage.seen(&format!("{}, for another purpose", why(&other).unwrap_or_default()));
    stage.seen(&format!(
        "{}, after its time; telemetry saw {served} request in all",
        why(&late).unwrap_or_default()
    ));
    Ok(())
}
