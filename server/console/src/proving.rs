//! What the log proves: a part of it is read as an export is, and checked before anything is said of it.
//!
//! Never more than [`READ_MAX`] lines, never longer than [`READ_TIME`], and for one visitor at a time: whoever wants more has
//! the command line.

use avouch::exported::{ExportError, Exported, Source};
use avouch_credential::ledger::trace::{self, Hop, Nodes, People, TraceError, Traced};
use avouch_credential::ledger::{Log, LogError, LogSummary};
use avouch_proto::governance_v1 as wire;
use tokio::sync::Semaphore;
use tonic::Status;

use crate::Governance;
use crate::ask::Visit;
use crate::limits::{LINES_AT_ONCE, READ_MAX, READ_TIME};

/// What a part of the log amounts to, or where it does not hold.
pub(crate) type Checked = Result<LogSummary, LogError>;

/// Reads and checks the records of a chain, or of the server (`None`).
pub(crate) async fn verify(
    visit: &mut Visit,
    turn: &Semaphore,
    chain: Option<&wire::NodeChain>,
) -> Result<Checked, Status> {
    in_time(turn, read(&mut visit.governance, chain, |_| {})).await
}

/// Who is behind a decision of a chain. `Err` within: a part of the log does not hold.
pub(crate) async fn trace(
    visit: &mut Visit,
    turn: &Semaphore,
    chain: &wire::NodeChain,
    record: u64,
) -> Result<Result<Vec<Hop>, LogError>, Status> {
    in_time(turn, traced(visit, chain, record)).await
}

async fn traced(
    visit: &mut Visit,
    chain: &wire::NodeChain,
    record: u64,
) -> Result<Result<Vec<Hop>, LogError>, Status> {
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

/// Does what reads the log when it has its turn, all of it in [`READ_TIME`].
async fn in_time<T>(turn: &Semaphore, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let in_turn = async {
        // The semaphore lives as long as the pages and is never closed.
        let _turn = turn.acquire().await;
        work.await
    };
    tokio::time::timeout(READ_TIME, in_turn).await.unwrap_or_else(|_| {
        let most = READ_TIME.as_secs();
        Err(Status::resource_exhausted(format!(
            "This takes longer than {most} s now: try again, or let `avouch audit verify` and `avouch trace` take their time."
        )))
    })
}

async fn read(
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
        for some in lines.chunks(LINES_AT_ONCE) {
            for line in some {
                if let Err(broken) = log.line(line) {
                    return Ok(Err(broken));
                }
                each(line);
            }
            // A line may be a head, which takes a verification: others have their turn in between.
            tokio::task::yield_now().await;
        }
    }
    Ok(log.finish())
}

fn refused(error: ExportError) -> Status {
    match error {
        ExportError::Status(status) => status,
        other => Status::internal(other.to_string()),
    }
}
