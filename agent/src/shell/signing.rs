//! Signatures waiting for a call, and the calls: keys made off the reactor, many entries in one call.
//!
//! Never mixes those somebody waits for with those nobody does, and never lets one bad request spoil a whole call.

use std::collections::BTreeMap;
use std::sync::Arc;

use avouch_credential::x509::facts::CertFacts;
use avouch_domain::{AuthorityId, EntryId, KeyType, SpiffeId, X509Svid};
use avouch_engine::cache::{Priority, SignFailure, Ticket};
use avouch_engine::sync::AgentRefusal;

use crate::keys::{Request, workload_request};
use crate::limits::{MINT_CALLS, SIGN_BATCH, SIGN_CALLS};
use crate::upstream::{CallError, SignedChain, Upstream};

/// One signature asked for.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub ticket: Ticket,
    pub entry: EntryId,
    pub id: SpiffeId,
}

/// How one of them ended.
pub(super) struct Outcome {
    pub ticket: Ticket,
    pub entry: EntryId,
    pub result: Result<(Arc<X509Svid>, Vec<AuthorityId>), SignFailure>,
}

/// Jobs by priority, then in the order they came.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: BTreeMap<(Priority, Ticket), Job>,
    places: BTreeMap<Ticket, Priority>,
    running: usize,
}

impl Queue {
    pub fn push(&mut self, priority: Priority, job: Job) {
        self.places.insert(job.ticket, priority);
        self.jobs.insert((priority, job.ticket), job);
    }

    /// Moves a waiting job to the front; one that is under way is not touched.
    pub fn hurry(&mut self, ticket: Ticket) {
        if let Some(job) = self.places.remove(&ticket).and_then(|p| self.jobs.remove(&(p, ticket))) {
            self.push(Priority::Now, job);
        }
    }

    /// The jobs of the next call, if one may begin now. One call is kept for those somebody waits for.
    pub fn next_call(&mut self) -> Option<Vec<Job>> {
        let (priority, _) = *self.jobs.first_key_value()?.0;
        let allowed = if priority == Priority::Now { SIGN_CALLS + 1 } else { SIGN_CALLS };
        if self.running >= allowed {
            return None;
        }
        let mut call = Vec::new();
        while call.len() < SIGN_BATCH {
            let Some(entry) = self.jobs.first_entry().filter(|e| e.key().0 == priority) else { break };
            let job = entry.remove();
            self.places.remove(&job.ticket);
            call.push(job);
        }
        self.running += 1;
        Some(call)
    }

    pub fn ended(&mut self) {
        self.running = self.running.saturating_sub(1);
    }
}

/// One JWT-SVID asked for.
#[derive(Clone, Debug)]
pub(super) struct Mint {
    pub entry: EntryId,
    pub id: SpiffeId,
    pub audience: Vec<String>,
}

/// JWT-SVIDs waiting for a call, in the order they came.
#[derive(Debug, Default)]
pub(super) struct Mints {
    waiting: BTreeMap<Ticket, Mint>,
    running: usize,
}

impl Mints {
    pub fn push(&mut self, ticket: Ticket, mint: Mint) {
        self.waiting.insert(ticket, mint);
    }

    /// Drops one whose call has not begun; false if it has. What is under way is seen through: its token is cached,
    /// and a caller that asks again finds it.
    pub fn forget(&mut self, ticket: Ticket) -> bool {
        self.waiting.remove(&ticket).is_some()
    }

    /// The next call, if one may begin now.
    pub fn next_call(&mut self) -> Option<(Ticket, Mint)> {
        if self.running >= MINT_CALLS {
            return None;
        }
        let next = self.waiting.pop_first()?;
        self.running += 1;
        Some(next)
    }

    pub fn ended(&mut self) {
        self.running = self.running.saturating_sub(1);
    }
}

/// Performs one call; exactly one outcome for each job. A refusal of the agent itself is told as well.
pub(super) async fn perform(
    upstream: Arc<dyn Upstream>,
    kind: KeyType,
    jobs: Vec<Job>,
) -> (Vec<Outcome>, Option<AgentRefusal>) {
    let (mut outcomes, mut refused) = (Vec::with_capacity(jobs.len()), None);
    let made = tokio::task::spawn_blocking(move || {
        let one = |job: Job| (workload_request(kind, &job.id).map_err(|e| e.to_string()), job);
        jobs.into_iter().map(one).collect::<Vec<_>>()
    });
    let mut whole = Vec::new();
    for (request, job) in made.await.unwrap_or_default() {
        match request {
            Ok(request) => whole.push((job, request)),
            Err(reason) => outcomes.push(failed(job, SignFailure::Refused(reason))),
        }
    }
    // Halves of a call that was refused as a whole follow here until the culprit stands alone.
    let mut calls = vec![whole];
    while let Some(mut call) = calls.pop() {
        if call.is_empty() {
            continue;
        }
        let batch = call.iter().map(|(job, r)| (job.entry.clone(), r.csr.clone())).collect();
        match upstream.sign_x509(batch).await {
            Ok(chains) => outcomes.extend(assemble(call, chains).await),
            Err(CallError::Failed { .. }) if call.len() > 1 => {
                let rest = call.split_off(call.len() / 2);
                calls.push(rest);
                calls.push(call);
            }
            Err(error) => {
                let failure = match &error {
                    CallError::Failed { .. } => SignFailure::Refused(error.to_string()),
                    _ => SignFailure::Away(error.to_string()),
                };
                if let CallError::Refused { refusal, .. } = error {
                    refused = Some(refusal);
                }
                outcomes.extend(call.into_iter().map(|(job, _)| failed(job, failure.clone())));
            }
        }
    }
    (outcomes, refused)
}

fn failed(job: Job, failure: SignFailure) -> Outcome {
    Outcome { ticket: job.ticket, entry: job.entry, result: Err(failure) }
}

async fn assemble(call: Vec<(Job, Request)>, chains: Vec<Result<SignedChain, String>>) -> Vec<Outcome> {
    let names: Vec<_> = call.iter().map(|(job, _)| job.clone()).collect();
    let work = tokio::task::spawn_blocking(move || {
        let one = |((job, request), chain): ((Job, Request), Result<SignedChain, String>)| Outcome {
            ticket: job.ticket,
            entry: job.entry,
            result: chain.and_then(|chain| svid(&request, &chain)).map_err(SignFailure::Refused),
        };
        call.into_iter().zip(chains).map(one).collect()
    });
    // A panic in there still owes every job its answer.
    let lost = || SignFailure::Refused("reading the certificates failed".to_owned());
    work.await.unwrap_or_else(|_| names.into_iter().map(|job| failed(job, lost())).collect())
}

/// Puts a chain and the key it is for together.
fn svid(request: &Request, signed: &SignedChain) -> Result<(Arc<X509Svid>, Vec<AuthorityId>), String> {
    let parse = |der: &Vec<u8>| CertFacts::parse(der).map_err(|e| e.to_string());
    let facts = signed.chain.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let leaf = facts.first().ok_or("the server sent no certificate")?;
    if leaf.public_key_pkix != request.key.public_key().pkix() {
        return Err("the server signed another key than the one it was sent".to_owned());
    }
    let svid = X509Svid {
        id: leaf.spiffe_id().map_err(|e| e.to_string())?,
        chain: signed.chain.iter().map(|der| der.as_slice().into()).collect(),
        key: Arc::new(request.key.pkcs8()),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
    };
    let issuers = facts.iter().filter_map(|f| f.aki.as_ref()).map(|aki| hex::encode(aki).into()).collect();
    Ok((Arc::new(svid), issuers))
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::id;

    use super::*;

    fn job(ticket: Ticket) -> Job {
        Job { ticket, entry: EntryId::new("e").unwrap(), id: id("/e") }
    }

    #[test]
    fn those_somebody_waits_for_never_wait_for_the_others() {
        let mut queue = Queue::default();
        for ticket in 0..2000 {
            queue.push(Priority::Ahead, job(ticket));
        }
        for _ in 0..SIGN_CALLS {
            assert_eq!(queue.next_call().map(|c| c.len()), Some(SIGN_BATCH));
        }
        assert!(queue.next_call().is_none());
        queue.push(Priority::Now, job(5000));
        assert_eq!(queue.next_call().map(|c| c.len()), Some(1));
    }

    #[test]
    fn a_hurried_job_goes_first() {
        let mut queue = Queue::default();
        for ticket in 0..10 {
            queue.push(Priority::Ahead, job(ticket));
        }
        queue.hurry(7);
        assert_eq!(queue.next_call().unwrap()[0].ticket, 7);
        queue.hurry(7);
        assert_eq!(queue.next_call().map(|c| c.len()), Some(9));
    }
}
