//! The sealed state: what the agent needs to go on without a server, kept over its restarts.
//!
//! Never readable without the secret that lies with the agent's own key, never taken for another agent's or another
//! SVID's, and never a reason to fail: a state that can't be used is one that is not there, with a message.

mod form;
pub mod place;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use avouch_credential::random;
use avouch_credential::sealing::{SECRET_LEN, SealError, Sealer};
use avouch_credential::x509::facts::CertFacts;
use avouch_domain::{LogPosition, SpiffeId, TrustDomain};
use avouch_engine::cache::Snapshot;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use self::place::Place;
use crate::clock::Moment;
use crate::disk::{DiskError, write_private};
use crate::limits::SEALED_STATE_MAX;

/// The state, in the folder of the agent's data.
const STATE: &str = "sealed-state";
/// Its secret, in the folder of the agent's own key.
const SECRET: &str = "sealing-secret";
/// Keeps this use of the secret apart from any other.
const PURPOSE: &str = "avouch.sealed.v1";

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    pub cache: Snapshot,
    /// Where the agent stood in the server's log, if it is certain.
    pub position: Option<LogPosition>,
    /// The latest moment known.
    pub latest: Moment,
}

/// Whose state it is: one agent with one SVID of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    trust_domain: TrustDomain,
    agent: SpiffeId,
    /// Decimal.
    serial: String,
}

impl Owner {
    /// The agent with this SVID.
    #[must_use]
    pub fn new(agent: SpiffeId, svid: &CertFacts) -> Self {
        Self { trust_domain: agent.trust_domain().clone(), agent, serial: svid.serial_decimal.clone() }
    }

    /// The bytes that seal and opening must agree on; none of the parts can hold a line feed.
    fn bytes(&self) -> Vec<u8> {
        format!("{}\n{}\n{}\n{}", form::VERSION, self.trust_domain, self.agent, self.serial).into_bytes()
    }
}

/// Why there is no state to take up.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("there is none")]
    Missing,
    #[error("{0}")]
    Foreign(String),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("{0}")]
    Malformed(String),
    #[error("it has {0} bytes, expected at most {SEALED_STATE_MAX}")]
    TooBig(u64),
    #[error("its secret {path} has {length} bytes, expected {SECRET_LEN}")]
    Secret { path: PathBuf, length: usize },
    #[error("unable to read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
}

/// Why the state can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("it has more than {SEALED_STATE_MAX} bytes, so nothing is kept")]
    TooBig,
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Random(#[from] random::RandomError),
}

/// Counts the times that the state was erased: what was gathered before is not written after.
pub type Life = u64;

#[derive(Debug, Default)]
struct Bound {
    owner: Option<Owner>,
    life: Life,
}

/// The one reader, writer and eraser of the sealed state.
#[derive(Debug)]
pub struct Vault {
    /// Of the state and of its secret. `None`: nothing is kept.
    files: Option<(PathBuf, PathBuf)>,
    bound: Mutex<Bound>,
    /// Held over work on the files, so that no write outlives an erasure.
    busy: Mutex<()>,
}

impl Vault {
    /// Nothing is read or made yet.
    #[must_use]
    pub fn new(place: &Place) -> Self {
        let files = match place {
            Place::Disk { state, secret } => Some((state.join(STATE), secret.join(SECRET))),
            Place::Memory(dir) => Some((dir.join(STATE), dir.join(SECRET))),
            Place::Nowhere(_) => None,
        };
        Self { files, bound: Mutex::default(), busy: Mutex::new(()) }
    }

    /// From now on states are sealed for `owner`.
    pub fn bind(&self, owner: Owner) {
        self.bound.lock().owner = Some(owner);
    }

    /// The present life, if states are kept at all. Never blocks on a file.
    #[must_use]
    pub fn life(&self) -> Option<Life> {
        let bound = self.bound.lock();
        (self.files.is_some() && bound.owner.is_some()).then_some(bound.life)
    }

    /// What an earlier life of `owner` left. Says why if it can't be used. Blocks.
    #[must_use]
    pub fn load(&self, owner: &Owner) -> Option<Kept> {
        match self.read(owner) {
            Ok(kept) => Some(kept),
            Err(Unusable::Missing) => None,
            Err(error) => {
                tracing::warn!(%error, subsystem_name = "sealed", "Sealed state ignored; the agent waits for its server");
                None
            }
        }
    }

    /// As [`Vault::load`].
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn read(&self, owner: &Owner) -> Result<Kept, Unusable> {
        let (state, secret) = self.files.as_ref().ok_or(Unusable::Missing)?;
        let _busy = self.busy.lock();
        let bytes = read_file(state, SEALED_STATE_MAX)?;
        let secret = read_secret(secret)?;
        let sealed = form::unwrap(&bytes, owner)?;
        drop(bytes);
        let plain = Sealer::new(&secret, PURPOSE)?.open(&owner.bytes(), sealed)?;
        form::decode(&owner.agent, &plain).map_err(Unusable::Malformed)
    }

    /// Seals and writes what was gathered in `life`; false if the state was erased meanwhile, so that nothing is
    /// written. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]; the file then is gone: an old one would bring back what has been withdrawn since.
    pub fn store(&self, life: Life, kept: &Kept) -> Result<bool, StoreError> {
        let Some((state, secret)) = &self.files else { return Ok(false) };
        let _busy = self.busy.lock();
        let owner = match &*self.bound.lock() {
            Bound { owner: Some(owner), life: now } if *now == life => owner.clone(),
            _ => return Ok(false),
        };
        match write(state, secret, &owner, kept) {
            Ok(bytes) => {
                let (x509, jwt) = (kept.cache.x509.len(), kept.cache.jwt.len());
                tracing::debug!(bytes, x509, jwt, subsystem_name = "sealed", "Sealed state written");
                Ok(true)
            }
            Err(error) => {
                remove(state);
                Err(error)
            }
        }
    }

    /// Ends the present life: the state is gone, and copies of it open no more. Blocks.
    pub fn erase(&self) {
        {
            let mut bound = self.bound.lock();
            bound.owner = None;
            bound.life += 1;
        }
        if let Some((state, secret)) = &self.files {
            let _busy = self.busy.lock();
            if remove(state) {
                tracing::info!(subsystem_name = "sealed", "Sealed state erased");
            }
            remove(secret);
        }
    }
}

fn write(state: &Path, secret: &Path, owner: &Owner, kept: &Kept) -> Result<usize, StoreError> {
    let plain = form::encode(kept, SEALED_STATE_MAX).ok_or(StoreError::TooBig)?;
    let secret = match read_secret(secret) {
        Ok(secret) => secret,
        Err(_) => make_secret(secret)?,
    };
    let sealed = Sealer::new(&secret, PURPOSE)?.seal(&owner.bytes(), plain)?;
    let bytes = form::wrap(sealed, owner);
    write_private(state, &bytes)?;
    Ok(bytes.len())
}

/// True if there was one.
fn remove(path: &Path) -> bool {
    match fs::remove_file(path) {
        Ok(()) => true,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::error!(%error, path = %path.display(), subsystem_name = "sealed", "Failed to erase");
            }
            false
        }
    }
}

fn read_file(path: &Path, most: usize) -> Result<Vec<u8>, Unusable> {
    let fail = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Unusable::Missing,
        _ => Unusable::Read { path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(fail)?;
    let length = file.metadata().map_err(fail)?.len();
    match usize::try_from(length) {
        Ok(size) if size <= most => {
            let mut bytes = Vec::with_capacity(size);
            file.take(length).read_to_end(&mut bytes).map_err(fail)?;
            Ok(bytes)
        }
        _ => Err(Unusable::TooBig(length)),
    }
}

fn read_secret(path: &Path) -> Result<Zeroizing<[u8; SECRET_LEN]>, Unusable> {
    let bytes = fs::read(path).map(Zeroizing::new);
    let bytes = bytes.map_err(|source| Unusable::Read { path: path.to_owned(), source })?;
    let mut secret = Zeroizing::new([0; SECRET_LEN]);
    if bytes.len() != SECRET_LEN {
        return Err(Unusable::Secret { path: path.to_owned(), length: bytes.len() });
    }
    secret.copy_from_slice(&bytes);
    Ok(secret)
}

fn make_secret(path: &Path) -> Result<Zeroizing<[u8; SECRET_LEN]>, StoreError> {
    let secret = Zeroizing::new(random::bytes::<SECRET_LEN>()?);
    write_private(path, &*secret)?;
    Ok(secret)
}
