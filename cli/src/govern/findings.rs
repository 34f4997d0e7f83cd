//! Verbs on findings: what `avouch verify` lists, and somebody accepts until a day.
//!
//! Never makes a finding go away: it counts again when its day has passed.

use avouch_domain::Timestamp;
use avouch_proto::governance_v1 as wire;
use clap::Subcommand;
use serde_json::{Value, json};

use super::table::table;
use super::{Session, moment};
use crate::clock;
use crate::failure::Failure;
use crate::verbs::text::rfc3339;

pub(super) const FINDING: &str = "Examples:
  avouch finding accept deploy stop --until 30d --why 'its node is replaced in May'
  avouch finding accept spiffe://example.org/billing/web owner --until 2026-12-31 --why 'the team is being formed'
  avouch finding list
  avouch finding reopen deploy stop

Findings are what `avouch verify` lists. What is accepted is listed apart and fails nothing; when its day has passed it counts
again. In staging and prod somebody other than the owner accepts, and what has no owner at all takes a security person.
Exit codes: 0 done, 2 it is somebody else's.";

/// Verbs on findings.
#[derive(Debug, Subcommand)]
pub enum FindingVerb {
    #[command(after_help = FINDING)]
    /// Say that you know of one, until when and why
    Accept {
        /// A SPIFFE ID, or the last part of an identity's
        name: String,
        /// What it lacks: owner (it has no identity), confirmed (by its owner) or stop (tried)
        what: String,
        /// A day, which counts whole (UTC), 30d, or a moment such as 2026-12-31T12:00:00Z; at most 90 days ahead
        #[arg(long, value_name = "WHEN")]
        until: String,
        /// Why, in one line; it stands in no record
        #[arg(long, value_name = "TEXT")]
        why: String,
    },
    #[command(after_help = FINDING)]
    /// What is accepted, also what is over
    List,
    #[command(after_help = FINDING)]
    /// Let one count again; anybody may
    Reopen {
        /// As it was accepted
        name: String,
        /// As it was accepted
        what: String,
    },
}

pub(super) async fn run(session: &mut Session<'_>, verb: FindingVerb) -> Result<(), Failure> {
    match verb {
        FindingVerb::Accept { name, what, until, why } => {
            let until = moment::until(&until, clock::now().wall)?;
            let accept = wire::AcceptFindingRequest { name, what, until, why };
            let accepted = session.client.accept_finding(accept).await?.into_inner();
            session.print(|| shown(&accepted), || told(&accepted));
            Ok(())
        }
        FindingVerb::List => list(session).await,
        FindingVerb::Reopen { name, what } => {
            let reopen = wire::UnacceptFindingRequest { name, what };
            let accepted = session.client.unaccept_finding(reopen).await?.into_inner();
            let text = format!("{}, {}: counts again\n", accepted.spiffe_id, accepted.what);
            session.print(|| shown(&accepted), || text);
            Ok(())
        }
    }
}

/// Everything that is accepted, also what is over.
pub(super) async fn every(session: &mut Session<'_>) -> Result<Vec<wire::Accepted>, Failure> {
    let mut request = wire::ListAcceptedRequest::default();
    let mut accepted = Vec::new();
    loop {
        let page = session.client.list_accepted(request.clone()).await?.into_inner();
        accepted.extend(page.accepted);
        if page.next_page_token.is_empty() {
            return Ok(accepted);
        }
        request.page_token = page.next_page_token;
    }
}

/// True if it is accepted still.
pub(super) fn holds(accepted: &wire::Accepted, now: Timestamp) -> bool {
    now < Timestamp::from_secs(accepted.until)
}

async fn list(session: &mut Session<'_>) -> Result<(), Failure> {
    let all = every(session).await?;
    let names = session.names().await?;
    let now = clock::now().wall;
    session.print(
        || json!({ "accepted": all.iter().map(shown).collect::<Vec<_>>() }),
        || {
            if all.is_empty() {
                return "Nothing is accepted. `avouch verify` shows what lacks something.\n".to_owned();
            }
            let row = |accepted: &wire::Accepted| {
                let until = rfc3339(accepted.until);
                [
                    accepted.spiffe_id.clone(),
                    accepted.what.clone(),
                    if holds(accepted, now) { until } else { format!("{until} (over)") },
                    names.get(&accepted.accepted_by).unwrap_or(&accepted.accepted_by).clone(),
                    accepted.why.clone(),
                ]
            };
            let rows: Vec<_> = all.iter().map(row).collect();
            table(["NAME", "WHAT", "UNTIL", "ACCEPTED BY", "WHY"], &rows)
        },
    );
    Ok(())
}

/// One sentence, and what takes it back.
fn told(accepted: &wire::Accepted) -> String {
    let wire::Accepted { spiffe_id, what, until, .. } = accepted;
    let until = rfc3339(*until);
    format!(
        "{spiffe_id}, {what}: accepted until {until}; `avouch finding reopen {spiffe_id} {what}` takes it back\n"
    )
}

fn shown(accepted: &wire::Accepted) -> Value {
    json!({
        "name": accepted.spiffe_id, "what": accepted.what, "until": rfc3339(accepted.until), "why": accepted.why,
        "accepted_by": accepted.accepted_by, "accepted_at": rfc3339(accepted.accepted_at),
    })
}
