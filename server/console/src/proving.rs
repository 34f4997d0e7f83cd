//! What the log proves: a part of it is read as an export is, and checked before anything is said of it.
//!
//! Never more than [`READ_MAX`] lines, never longer than [`READ_TIME`], and for one visitor at a time: whoever wants more has
//! the command line.

use avouch::exported::{ExportError, Exported, Source};
use avouch_credential::ledger::trace::{self, Hop, Nodes, People, TraceError, Traced};
use avouch_credential::ledger::{Log, LogError, LogSummary};
use avouch_proto::governance_v1 as wire;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Status;

use crate::Governance;
use crate::ask::Visit;
use crate::limits::{READ_MAX, READ_TIME};

/// What a part of the log amounts to, or where it does not hold.
pub(crate) type Checked = Result<LogSummary, LogError>;

/// Reads and checks the records of a chain, or of the server (`None`).
pub(crate) async fn verify(
    visit: &mut Visit,
    turn: &Semaphore,
    chain: Option<&wire::NodeChain>,
) -> Result<Checked, Status> {
    let _turn = in_turn(turn).await?;
    read(&mut visit.governance, chain, |_| {}).await
}

/// Who is behind a decision of a chain. `Err` within: a part of the log does not hold.
pub(crate) async fn trace(
    visit: &mut Visit,
    turn: &Semaphore,
    chain: &wire::NodeChain,
    record: u64,
) -> Result<Result<Vec<Hop>, LogError>, Status> {
    let _turn = in_turn(turn).await?;
    let what = Traced::Decision(record);
    let mut nodes = Nodes::new(&what, None);
    if let Err(broken) = read(&mut visit.governance, Some(chain), |line| nodes.line(line)).await? {
        return Ok(Err(broken));
    }
    let instance = nodes.one().map_err(|error| match error {
        TraceError::Nobody => Status::not_found("No decision has this number in this chain."),
        other => Status::invalid_argument(other.to_string()),
    })?;
    let mut people = People::behind(&instance);
    if let Err(broken) = read(&mut visit.governance, None, |line| people.line(line)).await? {
        return Ok(Err(broken));
    }
    let named = |id: &str| visit.names.get(id).map_or_else(|| id.to_owned(), |name| format!("{name} ({id})"));
    Ok(Ok(trace::hops(&instance, &people, named)))
}

async fn in_turn(turn: &Semaphore) -> Result<SemaphorePermit<'_>, Status> {
    // The semaphore lives as long as the pages and is never closed.
    let turn = tokio::time::timeout(READ_TIME, turn.acquire()).await.ok().and_then(Result::ok);
    turn.ok_or_else(|| Status::resource_exhausted("The log is being read for others: try again in a moment."))
}

async fn read(
    governance: &mut Governance,
    chain: Option<&wire::NodeChain>,
    each: impl FnMut(&str),
) -> Result<Checked, Status> {
    let read = tokio::time::timeout(READ_TIME, read_all(governance, chain, each)).await;
    read.unwrap_or_else(|_| {
        let most = READ_TIME.as_secs();
        Err(Status::resource_exhausted(format!(
            "This takes longer than {most} s: `avouch audit verify` takes its time."
        )))
    })
}

async fn read_all(
    governance: &mut Governance,
    chain: Option<&wire::NodeChain>,
    mut each: impl FnMut(&str),
) -> Result<Checked, Status> {
    let exported = match chain {
        Some(chain) => Exported::of_chain(chain),
        None => Exported::of(governance, &Source::Server).await,
    };
    let (mut exported, mut log, mut count) = (exported.map_err(refused)?, Log::new(None), 0);
    while let Some(lines) = exported.next(governance).await.map_err(refused)? {
        count += lines.len();
        if count > READ_MAX {
            return Err(Status::resource_exhausted(format!(
                "There are more than {READ_MAX} records: `avouch audit verify` and `avouch trace` read all of them."
            )));
        }
        for line in &lines {
            if let Err(broken) = log.line(line) {
                return Ok(Err(broken));
            }
            each(line);
        }
        // A page of lines is checked without a pause: others have their turn between two.
        tokio::task::yield_now().await;
    }
    Ok(log.finish())
}

fn refused(error: ExportError) -> Status {
    match error {
        ExportError::Status(status) => status,
        other => Status::internal(other.to_string()),
    }
}
