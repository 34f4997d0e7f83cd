//! Verbs on grants: what somebody gives an identity for a time and a number of uses.

use avouch_proto::governance_v1 as wire;
use serde_json::{Value, json};

use super::table::table;
use super::{GrantVerb, Session, moment};
use crate::failure::Failure;
use crate::verbs::text::rfc3339;

pub(super) async fn run(session: &mut Session<'_>, verb: GrantVerb) -> Result<(), Failure> {
    match verb {
        GrantVerb::Give { name, resource, action, uses, lasts, case } => {
            let seconds = moment::length(&lasts)?;
            let action = action.unwrap_or_default();
            let case = case.unwrap_or_default();
            let give = wire::GiveGrantRequest { name, action, resource, uses, seconds, case };
            let given = session.client.give_grant(give).await?.into_inner();
            session.print(|| shown(&given), || format!("{}\n", told(&given)));
            Ok(())
        }
        GrantVerb::List { name, all, case } => {
            let (name, case) = (name.unwrap_or_default(), case.unwrap_or_default());
            list(session, wire::ListGrantsRequest { name, all, case }).await
        }
        GrantVerb::End { case: Some(case), .. } => end_case(session, case).await,
        GrantVerb::End { id, case: None } => {
            let end = wire::EndGrantRequest { id: id.unwrap_or_default() };
            let ended = session.client.end_grant(end).await?.into_inner();
            let text = format!("{} was taken back; {} of its uses were left\n", ended.id, left(&ended));
            session.print(|| shown(&ended), || text);
            Ok(())
        }
    }
}

async fn end_case(session: &mut Session<'_>, case: String) -> Result<(), Failure> {
    let ended =
        session.client.end_case(wire::EndCaseRequest { case: case.clone() }).await?.into_inner().ended;
    session.print(
        || json!({ "case": case, "ended": ended }),
        || match ended {
            0 => format!("Nothing that was given for {case} is open any more\n"),
            1 => format!("One grant for {case} was taken back\n"),
            many => format!("{many} grants for {case} were taken back\n"),
        },
    );
    Ok(())
}

async fn list(session: &mut Session<'_>, wanted: wire::ListGrantsRequest) -> Result<(), Failure> {
    let grants = session.client.list_grants(wanted).await?.into_inner().grants;
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
                    if grant.case.is_empty() { "-".to_owned() } else { grant.case.clone() },
                    names.get(&grant.given_by).cloned().unwrap_or_else(|| grant.given_by.clone()),
                ]
            };
            let rows: Vec<_> = grants.iter().map(row).collect();
            table(["ID", "STANDING", "IDENTITY", "MAY", "USED", "ENDS", "CASE", "GIVEN BY"], &rows)
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
    let case = if grant.case.is_empty() { String::new() } else { format!(", for {}", grant.case) };
    format!(
        "{}: {} may {} {} {times}, until {}{case}; `avouch grant end {}` takes it back",
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
        "case": (!grant.case.is_empty()).then_some(&grant.case),
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
        let of_case = wire::Grant { max_uses: 3, case: "PROC-88".into(), ..once };
        let text = told(&of_case);
        assert!(text.contains(" 3 times, until 1970-01-01T01:00:00Z, for PROC-88; "), "{text}");
    }
}
