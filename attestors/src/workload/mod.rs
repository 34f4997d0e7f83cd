//! Workload attestation: lookers turn a pinned process into selectors.
//!
//! Never: no looker trusts what the caller says; none answers for a process that changed meanwhile.

pub mod unix;

use std::sync::Arc;

use avouch_domain::{Selector, SelectorError, SelectorSet};

use crate::Boxed;
use crate::process::{Look, PinnedProcess, ProcessError, ProcessGone};

/// Why a looker has no selectors to give.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error("{looker}: {source}")]
    Gone { looker: &'static str, source: ProcessGone },
    #[error("{looker}: {message}")]
    Failed { looker: &'static str, message: String },
}

/// Why no selector set could be made.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    #[error(transparent)]
    Gone(#[from] ProcessGone),
    #[error("no workload attestor succeeded: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    AllFailed(Vec<LookError>),
    #[error(transparent)]
    Selectors(#[from] SelectorError),
}

/// One kind of workload attestation.
pub trait WorkloadLooker: Send + Sync {
    /// The selector type it gives, as in the configuration.
    fn name(&self) -> &'static str;

    /// Looks at a process. Needs a tokio runtime; blocking work runs on its blocking threads. The caller puts
    /// a time limit around it.
    fn look(&self, process: Arc<PinnedProcess>) -> Boxed<'static, Result<Vec<Selector>, LookError>>;
}

/// Asks all lookers at once. Errors of some are handed back beside the selectors of the others.
///
/// # Errors
/// [`AttestError`] if the process is gone or changed, or every looker failed.
pub async fn look_all(
    lookers: &[Arc<dyn WorkloadLooker>],
    process: Arc<PinnedProcess>,
) -> Result<(SelectorSet, Vec<LookError>), AttestError> {
    let running: Vec<_> =
        lookers.iter().map(|looker| tokio::spawn(looker.look(Arc::clone(&process)))).collect();
    let (mut selectors, mut errors) = (Vec::new(), Vec::new());
    for (looker, task) in lookers.iter().zip(running) {
        match task.await {
            Ok(Ok(found)) => selectors.extend(found),
            Ok(Err(LookError::Gone { source, .. })) => return Err(AttestError::Gone(source)),
            Ok(Err(e)) => errors.push(e),
            Err(e) => errors.push(LookError::Failed { looker: looker.name(), message: e.to_string() }),
        }
    }
    if !lookers.is_empty() && errors.len() == lookers.len() {
        return Err(AttestError::AllFailed(errors));
    }
    // Together the lookers took their time: only a process that is still the same owns what they found.
    process.still_same(Look::Whole)?;
    Ok((SelectorSet::new(selectors)?, errors))
}

fn failed(looker: &'static str, message: impl ToString) -> LookError {
    LookError::Failed { looker, message: message.to_string() }
}

fn from_process(looker: &'static str, error: ProcessError) -> LookError {
    match error {
        ProcessError::Gone(source) => LookError::Gone { looker, source },
        ProcessError::Open(_) => failed(looker, error),
    }
}
