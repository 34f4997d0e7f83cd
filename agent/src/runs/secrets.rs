//! Secrets that gates add to what they let through: read when a run begins, or a gate of its own, for whoever serves the gate and
//! nobody else.
//!
//! Never reads for a user what is another user's, but for what this agent was told to keep.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use avouch::secret_file::{self, SecretFile};
use zeroize::Zeroizing;

/// A secret, or one sentence on why there is none.
pub type Secret = Result<Zeroizing<String>, String>;

/// Reads these files for a run or a gate of this user. `own`: the folder whose files are the agent's to hand out.
pub(crate) async fn read(files: Vec<String>, uid: u32, own: Option<PathBuf>) -> BTreeMap<String, Secret> {
    let read = move || {
        let one = |file: String| {
            let secret = one(Path::new(&file), uid, own.as_deref());
            (file, secret)
        };
        files.into_iter().map(one).collect()
    };
    // Without an entry a gate has no secret, and lets nothing through.
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

fn one(file: &Path, uid: u32, own: Option<&Path>) -> Secret {
    let SecretFile { secret, owner, path } = secret_file::read(file)?;
    let below = own.and_then(|own| own.canonicalize().ok()).is_some_and(|own| path.starts_with(own));
    if owner == uid || (below && owner == nix::unistd::geteuid().as_raw()) {
        return Ok(secret);
    }
    Err(format!(
        "{} is user {owner}'s, expected user {uid}, who runs this, or a file of the node agent's own below \
         experimental.gate_secrets_dir",
        file.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_secret_is_read_for_whose_it_is_or_from_the_folder_of_the_agents_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "s3cret-text\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let file = path.to_str().unwrap().to_owned();
        let me = nix::unistd::geteuid().as_raw();
        let got = async |uid, own: Option<&Path>| {
            read(vec![file.clone()], uid, own.map(Path::to_owned)).await.remove(&file).unwrap()
        };
        assert_eq!(got(me, None).await.unwrap().as_str(), "s3cret-text");
        assert_eq!(got(me + 1, Some(dir.path())).await.unwrap().as_str(), "s3cret-text");
        let elsewhere = tempfile::tempdir().unwrap();
        for own in [None, Some(elsewhere.path())] {
            let error = got(me + 1, own).await.unwrap_err();
            assert!(error.contains(&format!("expected user {}", me + 1)), "{error}");
        }
    }
}
