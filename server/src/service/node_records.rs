//! What nodes send of their own logs: checked, written in batches of several nodes, answered when it is on disk.
//!
//! Never keeps a line that does not go on where its node's chain stands, and never takes a node's word for whose records
//! these are: the edge names the node by its certificate. What does not fit leaves a record of the server's own.

use std::collections::BTreeSet;
use std::sync::Arc;

use avouch_credential::ledger::{
    Broken, ChainReader, HeadError, check_node_head, read_node_line, sign_receipt,
};
use avouch_credential::signer::Signer;
use avouch_domain::{
    AuditEvent, AuditRow, KeptHead, NodeChain, NodeEvent, NodeHead, Now, Plan, Shipment, SpiffeId, Stand,
    TELLS_USE, Timestamp,
};
use avouch_engine::entitle::served_identity;
use avouch_store::{Kept, NodeBatch, NodeStretch, StoreError, StoredChain, StoredRecord};
use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::{OnceCell, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Services, WriteError};
use crate::datastore::Datastore;
use crate::keys::KeyManager;
use crate::ledger;
use crate::limits::{
    HEAD_CERTIFICATE_MAX, NODE_RECORDS_PER_COMMIT, SHIPMENT_BYTES_MAX, SHIPMENT_LINES_MAX, SHIPMENTS_WAITING,
};

/// Why a shipment was not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShipError {
    #[error(
        "{lines} lines of {bytes} bytes came, expected at most {SHIPMENT_LINES_MAX} of {SHIPMENT_BYTES_MAX}"
    )]
    Size { lines: usize, bytes: usize },
    #[error("the lines are no chain: {0}")]
    Lines(Broken),
    #[error("the lines have no head that names the last of them")]
    NoHead,
    #[error("the head does not fit: {0}")]
    Head(HeadError),
    #[error("the head's certificate is not the one of this connection: sign again with the SVID in use")]
    Certificate,
    #[error(
        "record {first} of chain {chain} came, expected {}: send what is missing, or say that it is lost",
        stand.seq.saturating_add(1)
    )]
    Gap { chain: String, first: u64, stand: Stand },
    #[error("another record is kept as {seq} of chain {chain}: what is kept is never changed")]
    Conflict { chain: String, seq: u64 },
    #[error("this node began too many chains in a day, or lost records too often: look at its disk")]
    TooMany,
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A batch that waits, and who waits for it.
type Waiting = (NodeBatch, oneshot::Sender<Result<Kept, StoreError>>);

/// The way to the store, and the key of receipts.
pub(super) struct Receiver {
    queue: mpsc::Sender<Waiting>,
    keys: Arc<dyn KeyManager>,
    signer: OnceCell<Arc<dyn Signer>>,
}

impl Receiver {
    /// Gives the task too that writes what comes; it ends after `stop`, once what waits is answered.
    pub(super) fn new(
        store: Datastore,
        keys: Arc<dyn KeyManager>,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()>) {
        let (queue, waiting) = mpsc::channel(SHIPMENTS_WAITING);
        (Self { queue, keys, signer: OnceCell::new() }, write(store, waiting, stop))
    }

    async fn signer(&self) -> Result<Arc<dyn Signer>, WriteError> {
        let made = self.signer.get_or_try_init(|| ledger::key(self.keys.clone())).await;
        made.cloned().map_err(|e| WriteError::Store(format!("the key of the records: {e}")))
    }

    async fn keep(&self, batch: NodeBatch) -> Result<Kept, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send((batch, reply)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => WriteError::Busy,
            mpsc::error::TrySendError::Closed(_) => WriteError::Stopped,
        })?;
        let kept = answer.await.map_err(|_| WriteError::Stopped)?;
        kept.map_err(|e| WriteError::Store(e.to_string()))
    }
}

/// Writes what came from all nodes meanwhile in one transaction, and answers.
async fn write(store: Datastore, mut waiting: mpsc::Receiver<Waiting>, stop: CancellationToken) {
    loop {
        let first = tokio::select! {
            biased;
            first = waiting.recv() => first,
            () = stop.cancelled(), if !waiting.is_closed() => {
                waiting.close();
                continue;
            }
        };
        let Some((batch, reply)) = first else { return };
        let mut lines = batch.records.len();
        let (mut batches, mut replies) = (vec![batch], vec![reply]);
        while lines < NODE_RECORDS_PER_COMMIT {
            let Ok((batch, reply)) = waiting.try_recv() else { break };
            lines += batch.records.len();
            batches.push(batch);
            replies.push(reply);
        }
        match store.keep_node_records(batches.clone()).await {
            Ok(kept) => {
                replies.into_iter().zip(kept).for_each(|(reply, kept)| answer(reply, Ok(kept)));
            }
            // One bad batch must not take the others down.
            Err(_) if batches.len() > 1 => {
                for (batch, reply) in batches.into_iter().zip(replies) {
                    let alone = store.keep_node_records(vec![batch]).await;
                    let alone = alone.map(|kept| kept.first().copied().unwrap_or(Kept::TooMany));
                    answer(reply, alone);
                }
            }
            Err(e) => replies.into_iter().for_each(|reply| answer(reply, Err(e.clone()))),
        }
    }
}

fn answer(reply: oneshot::Sender<Result<Kept, StoreError>>, kept: Result<Kept, StoreError>) {
    // The caller may have gone; what is kept stays kept.
    let _ = reply.send(kept);
}

/// A shipment with the facts that its connection adds.
struct Arrived {
    chain: NodeChain,
    /// SHA-256 of the certificate of the connection.
    leaf: [u8; 32],
    shipment: Shipment,
    at: Timestamp,
}

impl Arrived {
    /// Checks everything that needs no store, and signs the receipt.
    fn check(self, signer: &dyn Signer) -> Result<NodeBatch, ShipError> {
        let Self { chain, leaf, shipment, at } = self;
        let head = shipment.head.ok_or(ShipError::NoHead)?;
        if head.certificate.len() > HEAD_CERTIFICATE_MAX
            || digest(&SHA256, &head.certificate).as_ref() != leaf
        {
            return Err(ShipError::Certificate);
        }
        check_node_head(&chain, &head).map_err(ShipError::Head)?;
        let (before, records) = follow(&chain, shipment.first, shipment.lines, &head)?;
        let receipt = sign_receipt(&chain, &head, signer)
            .map_err(|e| WriteError::Store(format!("the receipt: {e}")))?;
        let NodeChain { source, id } = chain;
        let (chain, head) = (id.to_string(), KeptHead { head, receipt });
        let used = told_used(&records);
        Ok(NodeBatch { source, chain, before, records, head, gap: shipment.gap, used, at })
    }
}

/// Follows the lines to the head; gives what the first of them holds of the one before.
fn follow(
    chain: &NodeChain,
    first: u64,
    lines: Vec<String>,
    head: &NodeHead,
) -> Result<(Stand, Vec<StoredRecord>), ShipError> {
    let mut reader = ChainReader::from(chain.clone(), first);
    let mut before = None;
    let mut records = Vec::with_capacity(lines.len());
    for line in lines {
        let seq = reader.next();
        let (previous, _) = reader.line(&line).map_err(ShipError::Lines)?;
        before.get_or_insert(Stand { seq: seq.saturating_sub(1), hash: previous });
        records.push(StoredRecord { seq, line });
    }
    if reader.stand() != Some(head.stand) {
        return Err(ShipError::NoHead);
    }
    Ok((before.unwrap_or_default(), records))
}

/// Names that records tell are used; `None` if they come from an agent that may not tell. Whether the node serves them is not
/// looked at.
fn told_used(records: &[StoredRecord]) -> Option<Vec<SpiffeId>> {
    use NodeEvent::{AgentStart, IdentityUsed, InstanceStart};
    let (mut tells, mut names) = (false, BTreeSet::new());
    for line in records.iter().map(|record| &record.line) {
        // Few records are of these: most are not read again.
        let event = [AgentStart, IdentityUsed, InstanceStart].into_iter().find(|e| line.contains(e.name()));
        let Some(record) = event.and_then(|_| read_node_line(line).ok()) else { continue };
        match NodeEvent::from_name(&record.event) {
            Some(AgentStart) => tells |= record.details().any(|detail| detail == ("tells", TELLS_USE)),
            Some(event @ (IdentityUsed | InstanceStart)) => {
                tells |= event == IdentityUsed;
                names.extend(SpiffeId::parse(&record.subject).ok());
            }
            _ => {}
        }
    }
    (tells || !names.is_empty()).then(|| names.into_iter().collect())
}

impl Services {
    /// Takes a stretch of a node's log; without lines, only tells where the server stands. `leaf`: SHA-256 of the
    /// certificate with which the node opened its connection.
    ///
    /// # Errors
    /// [`ShipError`]; then none of it was kept.
    pub async fn ship(
        &self,
        now: Now,
        source: &SpiffeId,
        leaf: [u8; 32],
        shipment: Shipment,
    ) -> Result<Stand, ShipError> {
        let chain = NodeChain { source: source.clone(), id: shipment.chain };
        if shipment.lines.is_empty() {
            let stand = self.0.store.node_stand(source, chain.id.to_string()).await;
            return stand.map_err(|e| WriteError::Store(e.to_string()).into());
        }
        let (lines, bytes) = (shipment.lines.len(), shipment.lines.iter().map(String::len).sum());
        if lines > SHIPMENT_LINES_MAX || bytes > SHIPMENT_BYTES_MAX {
            return Err(ShipError::Size { lines, bytes });
        }
        let first = shipment.first;
        let signer = self.0.receiver.signer().await?;
        let arrived = Arrived { chain: chain.clone(), leaf, shipment, at: now.wall };
        let checked = tokio::task::spawn_blocking(move || arrived.check(&*signer)).await;
        let mut batch = checked.map_err(|_| WriteError::Stopped)??;
        let registry = self.registry();
        // A node speaks of what it serves.
        if let Some(used) = &mut batch.used {
            used.retain(|name| served_identity(&registry, source, name, now.wall).is_some());
        }
        match self.0.receiver.keep(batch).await? {
            Kept::Yes { stand, began, gap_after } => {
                self.0.store.metrics().node_records(lines);
                if began {
                    self.tell(now, AuditEvent::NodeChainBegan, &chain, vec![("first", first.to_string())])
                        .await;
                }
                if let Some(after) = gap_after {
                    self.found(now, AuditEvent::NodeGap, &chain, gap(after, first, true)).await;
                }
                Ok(stand)
            }
            Kept::Gap { stand } => {
                self.found(now, AuditEvent::NodeGap, &chain, gap(stand.seq, first, false)).await;
                Err(ShipError::Gap { chain: chain.id.to_string(), first, stand })
            }
            Kept::Conflict { seq, .. } => {
                let detail = vec![("seq", seq.to_string())];
                self.found(now, AuditEvent::NodeConflict, &chain, detail).await;
                Err(ShipError::Conflict { chain: chain.id.to_string(), seq })
            }
            Kept::TooMany => Err(ShipError::TooMany),
        }
    }

    /// Tells of a gap or a conflict, unless this chain had so many that no more are told.
    async fn found(
        &self,
        now: Now,
        event: AuditEvent,
        chain: &NodeChain,
        detail: Vec<(&'static str, String)>,
    ) {
        tracing::warn!(spiffe_id = %chain.source, chain = %chain.id, event = event.name(), ?detail, "A node's records do not fit");
        match self.0.store.count_node_finding(&chain.source, chain.id.to_string()).await {
            Ok(true) => self.tell(now, event, chain, detail).await,
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "Could not count a finding about a node's records"),
        }
    }

    /// Writes a record of the server's own about a chain.
    async fn tell(&self, now: Now, event: AuditEvent, chain: &NodeChain, more: Vec<(&'static str, String)>) {
        let mut detail = vec![("chain", chain.id.to_string())];
        detail.extend(more);
        let source = chain.source.to_string();
        let row = AuditRow { at: now.wall, event, actor: source.clone(), subject: source, detail };
        let plan = Plan { audit: vec![row], ..Plan::default() };
        if let Err(error) = self.0.writer.write(move |_| (plan.clone(), ())).await {
            tracing::error!(%error, event = event.name(), spiffe_id = %chain.source, "Could not record it");
        }
    }

    /// Chains of nodes' records after a number, all or those of one node.
    ///
    /// # Errors
    /// [`WriteError::Store`] if the store can't be read.
    pub async fn node_chains(
        &self,
        source: Option<SpiffeId>,
        after: u64,
    ) -> Result<Vec<StoredChain>, WriteError> {
        self.0.store.node_chains(source, after).await.map_err(|e| WriteError::Store(e.to_string()))
    }

    /// Records of one chain after a record, about `limit` lines, and the heads over them.
    ///
    /// # Errors
    /// [`WriteError::Store`] if the store can't be read.
    pub async fn node_records(
        &self,
        number: u64,
        after: u64,
        limit: usize,
    ) -> Result<NodeStretch, WriteError> {
        let read = self.0.store.node_records(number, after, limit).await;
        read.map_err(|e| WriteError::Store(e.to_string()))
    }
}

fn gap(after: u64, first: u64, kept: bool) -> Vec<(&'static str, String)> {
    let kept = if kept { "yes" } else { "no" };
    vec![("after", after.to_string()), ("first", first.to_string()), ("kept", kept.into())]
}
