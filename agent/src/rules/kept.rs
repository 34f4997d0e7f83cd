//! The rules held, kept in the folder of the agent's data: a start without the server decides by them.
//!
//! Never believed as it lies there: statement, digest and check are gone through again. There is no secret in it; who can
//! write it is who can write the agent's own state.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use avouch_credential::rules::SignedRules;
use avouch_domain::{Epoch, RulesDigest, Timestamp};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::disk::{DiskError, write_private};
use crate::limits::RULES_FILE_MAX;

/// The name of the file.
pub(super) const FILE: &str = "rules.json";
/// Of its form.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Form {
    version: u32,
    epoch_started: i64,
    epoch_random: u64,
    number: u64,
    digest: String,
    /// Unix milliseconds.
    valid_from: i64,
    key: String,
    signature: String,
    files: Vec<(String, String)>,
}

/// Why there are no rules of an earlier life.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("unable to read it: {0}")]
    Io(#[from] io::Error),
    #[error("it has more than {RULES_FILE_MAX} bytes")]
    TooBig,
    #[error("it is malformed: {0}")]
    Malformed(String),
}

/// A statement and the files, names and texts, that lay beside it.
type Kept = (SignedRules, Vec<(String, String)>);

/// What an earlier life kept, unverified; `None` if there is nothing. Blocks.
///
/// # Errors
/// [`LoadError`].
pub(super) fn load(path: &Path) -> Result<Option<Kept>, LoadError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let mut bytes = Vec::new();
    // One byte more than allowed shows that it is too big.
    let most = u64::try_from(RULES_FILE_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes)?;
    if bytes.len() > RULES_FILE_MAX {
        return Err(LoadError::TooBig);
    }
    read(&bytes).map(Some).map_err(LoadError::Malformed)
}

fn read(bytes: &[u8]) -> Result<Kept, String> {
    let form: Form = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if form.version != VERSION {
        return Err(format!("its version is {}, expected {VERSION}", form.version));
    }
    let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|e| e.to_string());
    let signed = SignedRules {
        epoch: Epoch { started: form.epoch_started, random: form.epoch_random },
        number: form.number,
        digest: RulesDigest::parse(&form.digest).map_err(|e| e.to_string())?,
        valid_from: Timestamp(form.valid_from),
        key: decode(&form.key)?,
        signature: decode(&form.signature)?,
    };
    Ok((signed, form.files))
}

/// Keeps rules, mode 0600. Blocks.
///
/// # Errors
/// [`DiskError`]; what was kept before then still is.
pub(super) fn store(
    path: &Path,
    signed: &SignedRules,
    files: Vec<(String, String)>,
) -> Result<(), DiskError> {
    let form = Form {
        version: VERSION,
        epoch_started: signed.epoch.started,
        epoch_random: signed.epoch.random,
        number: signed.number,
        digest: signed.digest.to_string(),
        valid_from: signed.valid_from.0,
        key: BASE64_STANDARD.encode(&signed.key),
        signature: BASE64_STANDARD.encode(&signed.signature),
        files,
    };
    let text = serde_json::to_string(&form).unwrap_or_default();
    write_private(path, text.as_bytes())
}

/// Nothing is kept from now on. Blocks.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::error!(%error, path = %path.display(), subsystem_name = "rules", "Failed to remove kept rules");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn signed() -> SignedRules {
        SignedRules {
            epoch: Epoch { started: -1, random: u64::MAX },
            number: u64::MAX,
            digest: RulesDigest([7; 32]),
            valid_from: Timestamp(9),
            key: vec![0, 255],
            signature: vec![1],
        }
    }

    #[test]
    fn what_is_kept_is_read_back_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        assert!(load(&path).unwrap().is_none());
        let files = vec![("a.cedar".to_owned(), "\"quoted\"\n\u{e9}".to_owned())];
        store(&path, &signed(), files.clone()).unwrap();
        assert_eq!(load(&path).unwrap(), Some((signed(), files)));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        remove(&path);
        assert!(load(&path).unwrap().is_none());
    }

    #[test]
    fn a_file_torn_at_any_byte_or_of_another_form_is_malformed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        store(&path, &signed(), vec![]).unwrap();
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
        let newer = String::from_utf8(whole).unwrap().replace("\"version\":1", "\"version\":2");
        assert_eq!(read(newer.as_bytes()).unwrap_err(), "its version is 2, expected 1");
    }

    #[test]
    fn a_file_that_is_too_big_is_not_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let file = File::create(&path).unwrap();
        file.set_len(u64::try_from(RULES_FILE_MAX).unwrap() + 1).unwrap();
        assert!(matches!(load(&path), Err(LoadError::TooBig)));
    }
}
