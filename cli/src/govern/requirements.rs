//! Whether everything that runs has what is required of it.

use avouch_domain::Timestamp;
use avouch_domain::limits::DRILL_COUNTS;
use avouch_proto::governance_v1 as wire;
use serde_json::{Value, json};

use super::Session;
use super::identities::{every, every_found, withheld_from};
use super::table::table;
use crate::clock;
use crate::exit::FINDING;
use crate::failure::Failure;

/// What lacks something.
struct Lack {
    name: String,
    what: &'static str,
    next: String,
}

pub(super) async fn verify(session: &mut Session<'_>, require: &[String]) -> Result<(), Failure> {
    let unknown = require.iter().find(|wanted| !["owner", "end", "stop"].contains(&wanted.as_str()));
    if let Some(unknown) = unknown {
        return Err(Failure::usage(format!(
            "\"{unknown}\" is nothing to require, expected owner, end or stop"
        )));
    }
    let wants = |what: &str| require.iter().any(|wanted| wanted == what);
    let mut lacks = Vec::new();
    let mut withheld = None;
    for found in every_found(session).await? {
        withheld = withheld.or_else(|| withheld_from(&found));
        // What has no identity has none of them.
        lacks.push(Lack {
            next: format!("avouch adopt --path {} ...", path_of(&found.spiffe_id)),
            name: found.spiffe_id,
            what: if wants("owner") { "no owner" } else { "no identity" },
        });
    }
    let identities = every(session).await?;
    if wants("stop") {
        let now = clock::now().wall;
        for identity in identities.iter().filter(|identity| identity.standing == "active") {
            let name = &identity.spiffe_id;
            let asked = wire::IdentityRequest { name: name.clone() };
            let nodes = session.client.get_identity(asked).await?.into_inner().agent_ids.len();
            let what = stop_lacks(identity.stop_tried.as_ref(), nodes, now);
            lacks.extend(what.map(|what| Lack {
                name: name.clone(),
                what,
                next: format!("avouch stop {name} --drill"),
            }));
        }
    }
    if wants("owner") {
        let unconfirmed = identities.iter().filter(|i| i.confirm_by != 0 && i.standing == "active");
        lacks.extend(unconfirmed.map(|identity| Lack {
            name: identity.spiffe_id.clone(),
            what: "owner not confirmed",
            next: format!("avouch identity confirm {}", identity.spiffe_id),
        }));
    }
    let checked = identities.len();
    session.print(
        || {
            let one = |l: &Lack| json!({"name": l.name, "lacks": l.what, "next": l.next});
            let lacking = Value::Array(lacks.iter().map(one).collect());
            json!({"identities": checked, "lacking": lacking, "unowned_withheld_from": withheld})
        },
        || {
            if lacks.is_empty() {
                return format!("All hold: {checked} identities, and nothing runs without one.\n");
            }
            let rows: Vec<_> =
                lacks.iter().map(|l| [l.name.clone(), l.what.into(), l.next.clone()]).collect();
            let mut text = table(["NAME", "LACKS", "NEXT"], &rows);
            if let Some(from) = &withheld {
                text.push_str(&format!("What has no identity is withheld from {from} on.\n"));
            }
            text
        },
    );
    if lacks.is_empty() { Ok(()) } else { Err(Failure::new(FINDING, "")) }
}

/// What is wrong with the last stop, or the last drill of one, of what `nodes` may run now.
fn stop_lacks(tried: Option<&wire::StopTried>, nodes: usize, now: Timestamp) -> Option<&'static str> {
    match tried {
        None => Some("stop never tried"),
        Some(tried) if now.since(Timestamp::from_secs(tried.at)) >= DRILL_COUNTS => {
            Some("stop tried long ago")
        }
        Some(tried) if tried.confirmed < tried.nodes => Some("stop not confirmed by every node"),
        Some(tried) if (tried.nodes as usize) < nodes => Some("stop not tried on every node"),
        Some(_) => None,
    }
}

fn path_of(spiffe_id: &str) -> &str {
    let name = spiffe_id.strip_prefix("spiffe://").unwrap_or(spiffe_id);
    name.find('/').and_then(|at| name.get(at..)).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_counts_for_a_while_and_only_if_every_node_confirmed() {
        let now = Timestamp::from_secs(100 * 86_400);
        let tried =
            |days: i64, confirmed| wire::StopTried { at: days * 86_400, nodes: 2, confirmed, took_ms: 1 };
        assert_eq!(stop_lacks(None, 0, now), Some("stop never tried"));
        assert_eq!(stop_lacks(Some(&tried(10, 2)), 2, now), Some("stop tried long ago"));
        assert_eq!(stop_lacks(Some(&tried(11, 1)), 2, now), Some("stop not confirmed by every node"));
        assert_eq!(stop_lacks(Some(&tried(11, 2)), 2, now), None);
        assert_eq!(stop_lacks(Some(&tried(11, 2)), 3, now), Some("stop not tried on every node"));
        let nowhere = wire::StopTried { at: now.secs(), ..Default::default() };
        assert_eq!(stop_lacks(Some(&nowhere), 0, now), None, "what runs nowhere is stopped everywhere");
    }
}
