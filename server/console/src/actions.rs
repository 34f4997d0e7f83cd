//! What a person does on a page: from a form to a call of the governance service.
//!
//! Never without the token of the session in the form, and never a yes to more than one thing at a time.

use hyper::StatusCode;
use hyper::header;
use tokio::task::JoinSet;
use tonic::Status;

use avouch_proto::governance_v1 as wire;

use crate::arrivals::out;
use crate::ask::Visit;
use crate::forms::{Fields, url};
use crate::http::{Answer, Asked, html, problem, see};
use crate::limits::ROWS;
use crate::routes::{filter, identities, refused, visit};
use crate::sessions::fits;
use crate::{Console, Governance, pages};

const DAY: i64 = 86_400;

/// Does what a form says.
pub(crate) async fn take(console: &Console, asked: &Asked<'_>, query: &Fields, form: Fields) -> Answer {
    let mut visit = match visit(console, asked).await {
        Ok(visit) => visit,
        Err(answer) => return answer,
    };
    let Some(cookie) = asked.cookie().filter(|cookie| fits(cookie, form.get("token"))) else {
        let text = "The form is of another session. Open the page again, and send it from there.";
        return problem(StatusCode::FORBIDDEN, "Not from this session", text);
    };
    let domain = &console.trust_domain;
    let done = match asked.path {
        "identity" => step(&mut visit, domain, &form).await,
        "identities" => bulk(&mut visit, domain, &filter(query), &form).await,
        "requests" => answer(&mut visit, &form).await,
        "sign-out" => {
            let mut answer = out(console, console.sessions.end(cookie)).await;
            if let Some(gone) = asked.place.no_cookie(asked.room) {
                answer.headers_mut().insert(header::SET_COOKIE, gone);
            }
            Ok(answer)
        }
        _ => Err(Status::not_found("There is no such form.")),
    };
    done.unwrap_or_else(|status| refused(&visit, domain, &status))
}

/// One step of one identity.
async fn step(visit: &mut Visit, domain: &str, form: &Fields) -> Result<Answer, Status> {
    let named = wire::IdentityRequest { name: form.get("name").to_owned() };
    let word = form.get("do");
    let governance = &mut visit.governance;
    let stopped = match word {
        "pause" => governance.pause_identity(named).await?,
        "drill" => governance.drill_stop(named).await?,
        "stop" if form.get("sure").is_empty() => {
            return Err(Status::invalid_argument(
                "A stop is for good: tick the box that says so, then send it again.",
            ));
        }
        "stop" => governance.stop_identity(named).await?,
        _ => {
            let identity = match word {
                "resume" => governance.resume_identity(named).await?,
                "approve" => governance.approve_identity(named).await?,
                "confirm" => governance.confirm_identity(named).await?,
                _ => return Err(unknown()),
            };
            let name = &identity.get_ref().spiffe_id;
            return Ok(see(&url("identity", &[("name", name), ("done", word)])));
        }
    };
    // What this did is no news on the page that tells of it.
    visit.count_anew().await?;
    Ok(html(StatusCode::OK, pages::stopped(&visit.frame(domain), word, stopped.get_ref())))
}

fn unknown() -> Status {
    Status::invalid_argument("The page has no such button: open it again.")
}

/// What is done to each of several identities.
#[derive(Clone)]
enum Bulk {
    Pause,
    Change { owner: String, ends_at: i64 },
}

impl Bulk {
    fn read(form: &Fields, now: i64) -> Result<Self, Status> {
        Ok(match form.get("do") {
            "pause" => Self::Pause,
            "owner" if !form.get("owner").is_empty() => {
                Self::Change { owner: form.get("owner").to_owned(), ends_at: 0 }
            }
            "owner" => return Err(Status::invalid_argument("Choose who is to answer for them.")),
            "end" => {
                let days = match form.get("ends") {
                    "30d" => 30,
                    "90d" => 90,
                    "365d" => 365,
                    _ => return Err(Status::invalid_argument("Choose when they are to end.")),
                };
                Self::Change { owner: String::new(), ends_at: now + days * DAY }
            }
            _ => return Err(unknown()),
        })
    }

    async fn take(self, mut governance: Governance, name: String) -> Result<(), Status> {
        match self {
            Self::Pause => governance.pause_identity(wire::IdentityRequest { name }).await.map(drop),
            Self::Change { owner, ends_at } => {
                let asked = wire::ChangeIdentityRequest { name, owner, ends_at, ..Default::default() };
                governance.change_identity(asked).await.map(drop)
            }
        }
    }
}

async fn bulk(
    visit: &mut Visit,
    domain: &str,
    filter: &pages::Filter,
    form: &Fields,
) -> Result<Answer, Status> {
    let bulk = Bulk::read(form, visit.now.wall.secs())?;
    let names: std::collections::BTreeSet<_> = form.all("name").map(str::to_owned).collect();
    if names.is_empty() || names.len() > ROWS.unsigned_abs() as usize {
        return Err(Status::invalid_argument("Tick the identities that are meant, a page of them at most."));
    }
    // Beside each other: one silent node holds up a pause for a second, not each of them.
    let mut running = JoinSet::new();
    for name in names {
        let (bulk, governance) = (bulk.clone(), visit.governance.clone());
        running.spawn(async move {
            let error = bulk.take(governance, name.clone()).await.err();
            pages::Done { spiffe_id: name, error: error.map_or_else(String::new, |e| e.message().to_owned()) }
        });
    }
    let mut done = running.join_all().await;
    done.sort_by(|a, b| a.spiffe_id.cmp(&b.spiffe_id));
    visit.count_anew().await?;
    let made = identities(visit, domain, filter, &done).await?;
    Ok(html(StatusCode::OK, made))
}

/// A yes or a no to exactly the text that was on the page.
async fn answer(visit: &mut Visit, form: &Fields) -> Result<Answer, Status> {
    let yes = match form.get("answer") {
        "yes" => true,
        "no" => false,
        _ => return Err(unknown()),
    };
    let hash = hex::decode(form.get("hash")).map_err(|_| unknown())?;
    let asked = wire::AnswerRequestRequest { id: form.get("id").to_owned(), hash, yes };
    visit.governance.answer_request(asked).await?;
    Ok(see(&url("requests", &[("done", form.get("answer"))])))
}
