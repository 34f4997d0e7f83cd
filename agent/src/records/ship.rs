//! Brings the records to the server, as soon as there are some, and again when it was away.
//!
//! Never gives up and never forgets a record that the server has not acknowledged. Only what the disk has is sent: so a
//! power cut takes back nothing that the server knows.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use avouch_credential::key::PrivateKey;
use avouch_credential::ledger::{ChainReader, hash_of, sign_node_head};
use avouch_domain::{NodeChain, Now, Shipment, SpiffeId, Stand};
use avouch_engine::backoff::{Backoff, Jitter, Policy};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::open::Aside;
use super::spool::{Batch, Cursor, SpoolError};
use super::{Progress, Records};
use crate::limits::{SHIP_BYTES, SHIP_EVERY, SHIP_LINES, SHIP_UNKNOWN_PAUSE};
use crate::metrics::Metrics;
use crate::upstream::{CallError, Sink};

/// Pauses before a server that did not take records is tried again.
const AGAIN: Policy =
    Policy { first: Duration::from_secs(1), most: Duration::from_secs(60), growth_percent: 200 };

/// Who vouches for the records: the agent's SVID of now.
#[derive(Clone, Debug)]
pub struct Voucher {
    pub id: SpiffeId,
    /// DER of the leaf.
    pub certificate: Arc<[u8]>,
    pub key: Arc<PrivateKey>,
}

/// Why a step did not come to an end.
enum Trouble {
    Spool(SpoolError),
    Call(CallError),
}

impl From<SpoolError> for Trouble {
    fn from(error: SpoolError) -> Self {
        Self::Spool(error)
    }
}

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Spool(error) => error.fmt(f),
            Self::Call(error) => error.fmt(f),
        }
    }
}

struct Shipper {
    records: Records,
    sink: Arc<dyn Sink>,
    voucher: watch::Receiver<Option<Voucher>>,
    progress: watch::Receiver<Progress>,
    metrics: Metrics,
    clock: fn() -> Now,
    /// Where the server stands, as it said itself in this life.
    known: Option<(NodeChain, Stand)>,
    cursor: Cursor,
    /// When the next call may be made if it is not a full one.
    next: Instant,
}

/// Says whose records they are as soon as that is known, and ships them until `stop`.
pub async fn keep_shipped(
    records: Records,
    sink: Arc<dyn Sink>,
    voucher: watch::Receiver<Option<Voucher>>,
    seed: u64,
    stop: CancellationToken,
) {
    let (metrics, clock) = (records.0.parts.metrics.clone(), records.0.parts.clock);
    let progress = records.0.progress.subscribe();
    let (known, cursor, next) = (None, Cursor::default(), Instant::now());
    let mut shipper = Shipper { records, sink, voucher, progress, metrics, clock, known, cursor, next };
    let (mut backoff, mut jitter) = (Backoff::new(AGAIN), Jitter::new(seed));
    let work = async {
        loop {
            match shipper.step().await {
                Ok(true) => {
                    shipper.records.0.unwanted.store(false, Ordering::Relaxed);
                    backoff.succeeded();
                    shipper.next = Instant::now() + SHIP_EVERY;
                    shipper.gather().await;
                }
                Ok(false) => shipper.wait().await,
                Err(trouble) => {
                    if matches!(trouble, Trouble::Call(CallError::Unimplemented)) {
                        shipper.records.0.unwanted.store(true, Ordering::Relaxed);
                    }
                    sleep(pause_after(&trouble, &mut backoff, &mut jitter)).await;
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

fn pause_after(trouble: &Trouble, backoff: &mut Backoff, jitter: &mut Jitter) -> Duration {
    if matches!(trouble, Trouble::Call(CallError::Unimplemented)) {
        tracing::debug!(subsystem_name = "records", "This server takes no records; they stay here");
        return SHIP_UNKNOWN_PAUSE;
    }
    tracing::warn!(error = %trouble, subsystem_name = "records", "Records did not come to the server; will try again");
    backoff.failed(jitter)
}

impl Shipper {
    /// Waits for records, and a little longer so that several go together.
    async fn wait(&mut self) {
        loop {
            tokio::select! {
                changed = self.progress.changed() => if changed.is_err() { return std::future::pending().await },
                changed = self.voucher.changed() => {
                    if changed.is_err() { return std::future::pending().await }
                    return;
                }
            }
            if self.waiting() > 0 {
                return self.gather().await;
            }
        }
    }

    /// Waits until the next call may be made, unless a call's worth of records is there.
    async fn gather(&mut self) {
        while self.waiting() < SHIP_LINES as u64 {
            tokio::select! {
                () = sleep_until(self.next) => return,
                changed = self.progress.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Records that the disk has and the server has not.
    fn waiting(&self) -> u64 {
        let Some((chain, stand)) = &self.known else { return u64::MAX };
        self.records.synced(chain).saturating_sub(stand.seq)
    }

    /// One call, if there is something for it. False: there is nothing to do.
    async fn step(&mut self) -> Result<bool, Trouble> {
        let Some(voucher) = self.voucher.borrow_and_update().clone() else { return Ok(false) };
        self.bind(&voucher.id).await?;
        let Some((chain, _)) = self.records.stand() else { return Ok(false) };
        let known = match &self.known {
            Some((of, stand)) if *of == chain => *stand,
            _ => {
                self.cursor = Cursor::default();
                let stand = self.ask(&chain).await?;
                if let Some(why) = self.differs(&chain, stand)? {
                    self.renew(why).await?;
                    return Ok(true);
                }
                self.records.acknowledged(&chain, stand.seq);
                self.known = Some((chain.clone(), stand));
                stand
            }
        };
        let most = (SHIP_LINES, SHIP_BYTES);
        let Some(batch) = self.records.read_after(&chain, known.seq, &mut self.cursor, most)? else {
            return Ok(false);
        };
        self.send(&chain, known, batch, &voucher).await
    }

    async fn bind(&self, source: &SpiffeId) -> Result<(), Trouble> {
        if self.records.stand().is_some_and(|(chain, _)| chain.source == *source) {
            return Ok(());
        }
        let (records, source) = (self.records.clone(), source.clone());
        let bound = tokio::task::spawn_blocking(move || records.bind(&source)).await;
        bound.map_err(|e| SpoolError::Failed(e.to_string()))??;
        Ok(())
    }

    async fn renew(&mut self, why: Aside) -> Result<(), Trouble> {
        let records = self.records.clone();
        let renewed = tokio::task::spawn_blocking(move || records.renew(why)).await;
        self.known = None;
        renewed.map_err(|e| SpoolError::Failed(e.to_string()))??;
        Ok(())
    }

    async fn ask(&self, chain: &NodeChain) -> Result<Stand, Trouble> {
        let nothing = Shipment { chain: chain.id, first: 0, lines: Vec::new(), head: None, gap: false };
        Ok(self.sink.ship(nothing).await?)
    }

    /// Whether the server's chain is another one than this.
    fn differs(&mut self, chain: &NodeChain, server: Stand) -> Result<Option<Aside>, Trouble> {
        let Some((_, own)) = self.records.stand() else { return Ok(None) };
        if server.seq > own.seq {
            return Ok(Some(Aside::ServerAhead));
        }
        let Some(before) = server.seq.checked_sub(1) else { return Ok(None) };
        let read = self.records.read_after(chain, before, &mut Cursor::default(), (1, SHIP_BYTES))?;
        let same = match read {
            Some(Batch { first, lines }) if first == server.seq => {
                lines.first().is_none_or(|line| hash_of(line) == server.hash)
            }
            // The server's last record is not here any more.
            _ => true,
        };
        Ok((!same).then_some(Aside::Conflict))
    }

    async fn send(
        &mut self,
        chain: &NodeChain,
        known: Stand,
        batch: Batch,
        voucher: &Voucher,
    ) -> Result<bool, Trouble> {
        let Batch { first, lines } = batch;
        let Some(hash) = lines.last().map(|line| hash_of(line)) else { return Ok(false) };
        let last = Stand { seq: first.saturating_add(lines.len() as u64).saturating_sub(1), hash };
        let at = (self.clock)().wall;
        let head = sign_node_head(chain, last, at, &voucher.certificate, &*voucher.key)
            .map_err(|e| SpoolError::Failed(e.to_string()))?;
        let gap = first > known.seq.saturating_add(1);
        let sound = Sound::new(chain, first, known, &lines);
        let count = lines.len();
        let shipment = Shipment { chain: chain.id, first, lines, head: Some(head), gap };
        let begun = (self.clock)().mono;
        let shipped = self.sink.ship(shipment).await;
        self.metrics.shipped(shipped.is_ok(), (self.clock)().mono.since(begun), count);
        match shipped {
            Ok(stand) => {
                self.records.acknowledged(chain, stand.seq);
                self.known = Some((chain.clone(), stand));
                Ok(true)
            }
            Err(CallError::Failed { code: Code::Aborted, message }) => {
                tracing::error!(
                    error = message,
                    subsystem_name = "records",
                    "The server has other records than these"
                );
                self.renew(Aside::Conflict).await?;
                Ok(true)
            }
            Err(CallError::Failed { code: Code::InvalidArgument, .. }) if !sound.0 => {
                self.renew(Aside::Broken).await?;
                Ok(true)
            }
            Err(error) => {
                // Where the server stands is asked anew.
                self.known = None;
                Err(error.into())
            }
        }
    }
}

/// Whether what was read from the disk is a chain: if the server says that it is none, this tells whose fault it is.
struct Sound(bool);

impl Sound {
    fn new(chain: &NodeChain, first: u64, known: Stand, lines: &[String]) -> Self {
        let mut reader = if first == known.seq.saturating_add(1) {
            ChainReader::after(chain.clone(), known)
        } else {
            ChainReader::from(chain.clone(), first)
        };
        Self(lines.iter().all(|line| reader.line(line).is_ok()))
    }
}
