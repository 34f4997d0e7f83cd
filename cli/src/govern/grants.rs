//! Verbs on grants: what somebody gives an identity for a time and a number of uses.

use avouch_proto::governance_v1 as wire;
use serde_json::{Value, json};

use super::table::table;
use super::{GrantVerb, Session, moment};
use crate::failure::Failure;
use crate::verbs::text::rfc3339;

pub(super) async fn run(session: &mut Session<'_>, verb: GrantVerb) -> Result<(), Failure> {
    match verb {
        GrantVerb::Give { name, resource, action, uses, lasts } => {
            let seconds = moment::length(&lasts)?;
            let action = action.unwrap_or_default();
            let give = wire::GiveGrantRequest { name, action, resource, uses, seconds };
            let given = session.client.give_grant(give).await?.into_inner();
            session.print(|| shown(&given), || format!("{}\n", told(&given)));
            Ok(())
        }
        GrantVerb::List { name, all } => list(session, name.unwrap_or_default(), all).await,
        GrantVerb::End { id } => {
            let ended = session.client.end_grant(wire::EndGrantRequest { id }).await?.into_inner();
            let text = format!("{} was taken back; {} of its uses were left\n", ended.id, left(&ended));
            session.print(|| shown(&ended), || text);
            Ok(())
        }
    }
}

async fn list(session: &mut Session<'_>, name: String, all: bool) -> Result<(), Failure> {
    let grants = session.client.list_grants(wire::ListGrantsRequest { name, all }).await?.into_inner().grants;
    let names = session.names().await?;
    session.print(
        || json!({ "grants": grants.iter().map(shown).collect::<Vec<_>>() }),
        || {
            if grants.is_empty() {
                return "No grant is open. `avouch grant list --all` shows those that were.\n".to_owned();
            }
            let row = |grant: &wire::Grant| {
                [
                    grant.id.clone(),
                    grant.standing.replace('_', " "),
                    grant.spiffe_id.clone(),
                    format!("{} {}", grant.action, grant.resource),
                    format!("{} of {}", grant.uses, grant.max_uses),
                    rfc3339(grant.ends_at),
                    names.get(&grant.given_by).cloned().unwrap_or_else(|| grant.given_by.clone()),
                ]
            };
            let rows: Vec<_> = grants.iter().map(row).collect();
            table(["ID", "STANDING", "IDENTITY", "MAY", "USED", "ENDS", "GIVEN BY"], &rows)
        },
    );
    Ok(())
}

fn left(grant: &wire::Grant) -> u32 {
    grant.max_uses.saturating_sub(grant.uses)
}

/// One sentence, and what takes it back.
fn told(grant: &wire::Grant) -> String {
    let times = if grant.max_uses == 1 { "once".to_owned() } else { format!("{} times", grant.max_uses) };
    format!(
        "{}: {} may {} {} {times}, until {}; `avouch grant end {}` takes it back",
        grant.id,
        grant.spiffe_id,
        grant.action,
        grant.resource,
        rfc3339(grant.ends_at),
        grant.id
    )
}

fn shown(grant: &wire::Grant) -> Value {
    json!({
        "id": grant.id, "spiffe_id": grant.spiffe_id, "action": grant.action, "resource": grant.resource,
        "given_by": grant.given_by, "given_at": grant.given_at, "ends_at": grant.ends_at,
        "max_uses": grant.max_uses, "uses": grant.uses, "ended_by": grant.ended_by, "standing": grant.standing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_told_in_one_sentence_that_names_the_way_back() {
        let once = wire::Grant {
            id: "gr_a".into(),
            spiffe_id: "spiffe://example.org/test/ci".into(),
            action: "secret.read".into(),
            resource: "vault/deploy".into(),
            ends_at: 3_600,
            max_uses: 1,
            ..Default::default()
        };
        assert_eq!(
            told(&once),
            "gr_a: spiffe://example.org/test/ci may secret.read vault/deploy once, until 1970-01-01T01:00:00Z; \
             `avouch grant end gr_a` takes it back"
        );
        assert!(told(&wire::Grant { max_uses: 3, ..once }).contains(" 3 times, "));
    }
}
