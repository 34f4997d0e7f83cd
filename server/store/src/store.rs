//! The store of a running server: one thread owns the connection that writes, one the connection that reads. Callers
//! hand over work and wait without holding a thread of their own.
//!
//! Never loses an answer: whoever waited for a commit hears its outcome, or that the store is closed.

use std::path::{Path, PathBuf};

use avouch_credential::ledger::{Hash, SignedHead};
use avouch_domain::{
    Epoch, Image, LogPosition, Plan, RequestHash, RequestText, RulesDigest, RulesFolder, SpiffeId, Stand,
    Timestamp,
};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use tokio::sync::{mpsc, oneshot};

use crate::backup;
use crate::db::Db;
use crate::error::{CommitError, StoreError, TailError};
use crate::limits::QUEUE;
use crate::node_records::{Kept, NodeBatch, NodeStretch, StoredChain};
use crate::records::Stretch;
use crate::tail::Tail;
use crate::uses::Uses;

/// Work for a thread that owns a connection.
enum Job {
    Run(Box<dyn FnOnce(&mut Db) + Send>),
    Close(oneshot::Sender<()>),
}

/// Handle to the store; clones share the threads, which end with the last clone.
#[derive(Clone, Debug)]
pub struct Store {
    writer: mpsc::Sender<Job>,
    /// The writer's own queue for a database in memory.
    reader: mpsc::Sender<Job>,
    /// `None` = in memory.
    path: Option<PathBuf>,
}

impl Store {
    /// Opens or creates the database at `path` (`:memory:` = in memory) and reads all of it. Blocks.
    ///
    /// # Errors
    /// A file that is newer, damaged, foreign or being restored is refused untouched.
    pub fn open(path: &Path, now: Timestamp) -> Result<(Self, Image), StoreError> {
        let fresh = Epoch { started: now.0, random: random_bits()? };
        if path == Path::new(":memory:") {
            return Self::start(Db::in_memory(fresh)?, None, now);
        }
        Self::start(Db::open(path, fresh)?, Some(path), now)
    }

    fn start(mut db: Db, path: Option<&Path>, now: Timestamp) -> Result<(Self, Image), StoreError> {
        let image = match path {
            Some(path) => db.image(now).map_err(|e| e.in_file(path))?,
            None => db.image(now)?,
        };
        let reading = path.map(Db::reader).transpose()?;
        let writer = spawn("store-writer", db)?;
        let reader = match reading {
            Some(db) => spawn("store-reader", db)?,
            None => writer.clone(),
        };
        Ok((Self { writer, reader, path: path.map(Path::to_owned) }, image))
    }

    /// Writes plans made from `base` in one transaction and waits until the disk has them; each non-empty plan takes
    /// the next revision. Returns the position after each plan. Goes on if the caller stops waiting.
    ///
    /// # Errors
    /// [`CommitError::Behind`] if another writer was first: follow the log and plan again.
    pub async fn commit(&self, base: LogPosition, plans: Vec<Plan>) -> Result<Vec<LogPosition>, CommitError> {
        run(&self.writer, move |db| db.commit(base, &plans)).await?
    }

    /// Changes after `from`, about `limit` of them, in whole revisions.
    ///
    /// # Errors
    /// [`TailError::Lost`] if `from` is no point of this log, or too old: read the image.
    pub async fn changes_since(&self, from: LogPosition, limit: usize) -> Result<Tail, TailError> {
        run(&self.reader, move |db| db.changes_since(from, limit)).await?
    }

    /// Where the log stands, other servers' commits included.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn position(&self) -> Result<LogPosition, StoreError> {
        run(&self.reader, |db| db.position()).await?
    }

    /// Records after a number, oldest first, and the heads over them.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn records(&self, after: u64, limit: usize) -> Result<Stretch, StoreError> {
        run(&self.reader, move |db| db.records(after, limit)).await?
    }

    /// The number of the last record; 0: there is none.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn last_record(&self) -> Result<u64, StoreError> {
        run(&self.reader, |db| db.last_record()).await?
    }

    /// The number and hash of the last record, if no head names it yet.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn unsigned(&self) -> Result<Option<(u64, Hash)>, StoreError> {
        run(&self.reader, |db| db.unsigned()).await?
    }

    /// Keeps a signed head.
    ///
    /// # Errors
    /// If the database can't be written.
    pub async fn keep_head(&self, head: SignedHead) -> Result<(), StoreError> {
        run(&self.writer, move |db| db.keep_head(&head)).await?
    }

    /// The folder of published rules with this digest, if it is kept.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn rules_folder(&self, digest: RulesDigest) -> Result<Option<RulesFolder>, StoreError> {
        run(&self.reader, move |db| db.rules_folder(&digest)).await?
    }

    /// The text of a request with this hash, if it is kept.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn request_text(&self, hash: RequestHash) -> Result<Option<RequestText>, StoreError> {
        run(&self.reader, move |db| db.request_text(hash)).await?
    }

    /// Where a node's chain stands; before its first record if it is not known.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn node_stand(&self, source: SpiffeId, chain: String) -> Result<Stand, StoreError> {
        run(&self.reader, move |db| db.node_stand(&source, &chain)).await?
    }

    /// Keeps batches of nodes' records in one transaction and waits until the disk has them.
    ///
    /// # Errors
    /// If the database can't be written; then nothing was kept.
    pub async fn keep_node_records(&self, batches: Vec<NodeBatch>) -> Result<Vec<Kept>, StoreError> {
        run(&self.writer, move |db| db.keep_node_records(&batches)).await?
    }

    /// Which identities were used since a moment, to a day.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn uses_since(&self, at: Timestamp) -> Result<Uses, StoreError> {
        run(&self.reader, move |db| db.uses_since(at)).await?
    }

    /// The day on which each of these was used last, by its beginning; `None`: not known.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn last_uses(&self, names: Vec<SpiffeId>) -> Result<Vec<Option<Timestamp>>, StoreError> {
        run(&self.reader, move |db| db.last_uses(&names)).await?
    }

    /// Counts a gap or a conflict of a chain; false if there were so many that the log tells of no more.
    ///
    /// # Errors
    /// If the database can't be written.
    pub async fn count_node_finding(&self, source: SpiffeId, chain: String) -> Result<bool, StoreError> {
        run(&self.writer, move |db| db.count_node_finding(&source, &chain)).await?
    }

    /// Chains after a number, all or those of one node.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn node_chains(
        &self,
        source: Option<SpiffeId>,
        after: u64,
    ) -> Result<Vec<StoredChain>, StoreError> {
        run(&self.reader, move |db| db.node_chains(source.as_ref(), after)).await?
    }

    /// Records of a chain after one of them, oldest first, and the heads over them.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn node_records(
        &self,
        number: u64,
        after: u64,
        limit: usize,
    ) -> Result<NodeStretch, StoreError> {
        run(&self.reader, move |db| db.node_records(number, after, limit)).await?
    }

    /// Everything, at one position.
    ///
    /// # Errors
    /// If a row does not pass the domain's checks.
    pub async fn image(&self, now: Timestamp) -> Result<Image, StoreError> {
        run(&self.reader, move |db| db.image(now)).await?
    }

    /// Copies the store as it is at this moment into the new file `to`, while writing goes on. `progress` gets pages
    /// done and pages in all.
    ///
    /// # Errors
    /// If `to` exists or can't be written.
    pub async fn backup(
        &self,
        to: PathBuf,
        mut progress: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<LogPosition, StoreError> {
        match self.path.clone() {
            // On a thread and a connection of its own: a long copy holds up no reader.
            Some(from) => tokio::task::spawn_blocking(move || backup::backup(&from, &to, progress))
                .await
                .map_err(|_| StoreError::Closed)?,
            None => {
                run(&self.writer, move |db| backup::write_copy(db.connection(), &to, &mut progress)).await?
            }
        }
    }

    /// Finishes what is queued and closes the files. Later calls on any clone answer [`StoreError::Closed`].
    pub async fn close(&self) {
        // The reader first: the last connection folds the write-ahead log into the file.
        for thread in [&self.reader, &self.writer] {
            let (done, waiting) = oneshot::channel();
            if thread.send(Job::Close(done)).await.is_ok() {
                // An error means that the thread is gone already.
                let _ = waiting.await;
            }
        }
    }
}

/// 64 bits that no other database has.
pub(crate) fn random_bits() -> Result<u64, StoreError> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| StoreError::Io {
        path: "/dev/urandom".into(),
        source: std::sync::Arc::new(std::io::Error::other("the random source of the system failed")),
    })?;
    Ok(u64::from_be_bytes(bytes))
}

async fn run<T: Send + 'static>(
    thread: &mpsc::Sender<Job>,
    work: impl FnOnce(&mut Db) -> T + Send + 'static,
) -> Result<T, StoreError> {
    let (answer, waiting) = oneshot::channel();
    let job = Job::Run(Box::new(move |db| {
        // Nobody waits any more if this fails.
        let _ = answer.send(work(db));
    }));
    thread.send(job).await.map_err(|_| StoreError::Closed)?;
    waiting.await.map_err(|_| StoreError::Closed)
}

fn spawn(name: &str, db: Db) -> Result<mpsc::Sender<Job>, StoreError> {
    let (sender, jobs) = mpsc::channel(QUEUE);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || serve(db, jobs))
        .map_err(StoreError::io(Path::new(name)))?;
    Ok(sender)
}

fn serve(mut db: Db, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        match job {
            Job::Run(work) => work(&mut db),
            Job::Close(done) => {
                jobs.close();
                drop(db);
                // Nobody waits any more if this fails.
                let _ = done.send(());
                return;
            }
        }
    }
}
