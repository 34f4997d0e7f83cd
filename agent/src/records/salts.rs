//! Salts of days: with them the arguments of a call stand in its record as digests.
//!
//! Never in a record, and never sent anywhere: who may read this folder looks an argument up. A salt that was erased makes random
//! numbers of all digests of its day; those of more than [`SALT_DAYS`] days ago are erased when the
//! agent starts, and with the first call of a day.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use avouch_credential::ledger::{Salt, day_name};
use avouch_domain::Timestamp;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::disk::write_private;
use crate::limits::SALT_DAYS;

/// The folder beside that of the records.
const FOLDER: &str = "salts";
/// Seconds of a day.
const DAY: i64 = 86_400;

fn name_of(day: i64) -> io::Result<String> {
    day_name(day).map_err(io::Error::other)
}

/// The salts of this node. Makes that of a day when it is first asked for.
#[derive(Debug)]
pub(super) struct Salts {
    folder: PathBuf,
    today: Mutex<Option<(i64, Salt)>>,
}

impl Salts {
    pub fn beside(records: &Path) -> Self {
        Self { folder: records.with_file_name(FOLDER), today: Mutex::default() }
    }

    /// Makes the salt of this day, so that no call waits for it, and erases those of long ago. Blocks.
    ///
    /// # Errors
    /// As [`Self::digest`].
    pub fn prepare(&self, at: Timestamp) -> io::Result<()> {
        self.digest(at, "", []).map(drop)
    }

    /// The digest of an argument on this day. Reads or makes the salt of the day the first time.
    ///
    /// # Errors
    /// There is no salt for the day, and none could be made.
    pub fn digest<'a>(
        &self,
        at: Timestamp,
        name: &str,
        values: impl IntoIterator<Item = &'a str>,
    ) -> io::Result<String> {
        let day = at.secs().div_euclid(DAY);
        let mut today = self.today.lock();
        let known = today.take().filter(|(known, _)| *known == day);
        let salt = match known {
            Some((_, salt)) => salt,
            None => self.of(day)?,
        };
        let digest = salt.digest(name, values);
        *today = Some((day, salt));
        Ok(digest)
    }

    fn of(&self, day: i64) -> io::Result<Salt> {
        let (name, oldest) = (name_of(day)?, name_of(day.saturating_sub(SALT_DAYS))?);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        self.erase_before(&oldest);
        let path = self.folder.join(name);
        match fs::read_to_string(&path).map(Zeroizing::new) {
            Ok(text) => {
                let wrong =
                    |e| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", path.display()));
                return Salt::read(&text).map_err(wrong);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let text = Salt::fresh().map_err(io::Error::other)?;
        // On the disk before a record is: a digest without its salt says nothing.
        write_private(&path, text.as_bytes()).map_err(io::Error::other)?;
        if let Some(above) = self.folder.parent() {
            File::open(above)?.sync_all()?;
        }
        Salt::read(&text).map_err(io::Error::other)
    }

    fn erase_before(&self, oldest: &str) {
        let names = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let is_date = |name: &String| {
            name.len() == oldest.len() && name.bytes().all(|b| b.is_ascii_digit() || b == b'-')
        };
        let names = names.filter_map(|name| name.into_string().ok()).filter(is_date);
        for name in names.filter(|name| name.as_str() < oldest) {
            match fs::remove_file(self.folder.join(&name)) {
                Ok(()) => tracing::info!(day = name, subsystem_name = "records", "Erased the salt of a day"),
                Err(error) => {
                    tracing::warn!(%error, day = name, subsystem_name = "records", "Could not erase the salt of a day");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_secs(day * DAY + 7)
    }

    fn digest(salts: &Salts, day: i64) -> String {
        salts.digest(at(day), "path", ["a"]).unwrap()
    }

    #[test]
    fn an_argument_has_one_digest_a_day_also_after_a_restart_and_another_the_day_after() {
        let dir = tempfile::tempdir().unwrap();
        let records = dir.path().join("records");
        let salts = Salts::beside(&records);
        let first = digest(&salts, 20_000);
        let next = digest(&salts, 20_001);
        assert_ne!(first, next);
        let again = Salts::beside(&records);
        assert_eq!((digest(&again, 20_001), digest(&again, 20_000)), (next, first));
        let folder = dir.path().join("salts");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("2024-10-04"))), (0o700, 0o600));
    }

    #[test]
    fn salts_of_long_ago_are_erased_and_a_torn_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let records = dir.path().join("records");
        digest(&Salts::beside(&records), 20_000);
        let salts = Salts::beside(&records);
        digest(&salts, 20_000 + SALT_DAYS);
        let old = dir.path().join("salts/2024-10-04");
        assert!(old.exists(), "it is of {SALT_DAYS} days ago");
        digest(&salts, 20_001 + SALT_DAYS);
        assert!(!old.exists());
        fs::write(&old, "0011").unwrap();
        let torn = Salts::beside(&records).digest(at(20_000), "path", ["a"]).unwrap_err();
        assert!(torn.to_string().contains("2024-10-04: no salt"), "{torn}");
    }
}
