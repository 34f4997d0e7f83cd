//! Whether everything that runs has what is required of it.

use serde_json::{Value, json};

use super::Session;
use super::identities::{every, every_found};
use super::table::table;
use crate::exit::FINDING;
use crate::failure::Failure;

/// What lacks something.
struct Lack {
    name: String,
    what: &'static str,
    next: String,
}

pub(super) async fn verify(session: &mut Session<'_>, require: &[String]) -> Result<(), Failure> {
    let unknown = require.iter().find(|wanted| !["owner", "end"].contains(&wanted.as_str()));
    if let Some(unknown) = unknown {
        return Err(Failure::usage(format!("\"{unknown}\" is nothing to require, expected owner or end")));
    }
    let mut lacks = Vec::new();
    for found in every_found(session).await? {
        // What has no identity has neither.
        lacks.push(Lack {
            next: format!("avouch adopt --path {} ...", path_of(&found.spiffe_id)),
            name: found.spiffe_id,
            what: if require.iter().any(|r| r == "owner") { "no owner" } else { "no end" },
        });
    }
    let identities = every(session).await?;
    if require.iter().any(|r| r == "owner") {
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
            json!({"identities": checked, "lacking": Value::Array(lacks.iter().map(one).collect())})
        },
        || {
            if lacks.is_empty() {
                return format!("All hold: {checked} identities, and nothing runs without one.\n");
            }
            let rows: Vec<_> =
                lacks.iter().map(|l| [l.name.clone(), l.what.into(), l.next.clone()]).collect();
            table(["NAME", "LACKS", "NEXT"], &rows)
        },
    );
    if lacks.is_empty() { Ok(()) } else { Err(Failure::new(FINDING, "")) }
}

fn path_of(spiffe_id: &str) -> &str {
    let name = spiffe_id.strip_prefix("spiffe://").unwrap_or(spiffe_id);
    name.find('/').and_then(|at| name.get(at..)).unwrap_or("/")
}
