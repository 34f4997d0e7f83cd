//! The code of a run: one digest over the files that it names, taken before it starts.
//!
//! A digest of the executable alone does not tell two scripts apart; so the script, its lock file and listed folders
//! count too. Paths are read as the process sees them. Never reads what is no regular file, nor more than is named in
//! `limits.rs`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use avouch_domain::CodeDigest;
use aws_lc_rs::digest::{Context, SHA256};

use crate::limits::{CODE_BYTES_MAX, CODE_FILES_MAX, CODE_PATHS_MAX, HASH_CHUNK};
use crate::process::{PinnedProcess, ProcessGone};

/// Why there is no digest.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    #[error("{0} paths of code, expected at most {CODE_PATHS_MAX}")]
    TooManyPaths(usize),
    #[error("more than {CODE_FILES_MAX} files of code: name the folders that matter")]
    TooManyFiles,
    #[error("more than {} MiB of code: name the folders that matter", CODE_BYTES_MAX >> 20)]
    TooManyBytes,
    #[error("\"{0}\" is no absolute path without dots")]
    Path(String),
    #[error("{path}: {source}")]
    Read { path: String, source: io::Error },
    #[error(transparent)]
    Gone(#[from] ProcessGone),
}

/// The digest of what lies at these paths, in their order, as the process sees them. Blocks for as long as reading takes.
///
/// # Errors
/// [`CodeError`].
pub fn code_of(process: &PinnedProcess, paths: &[String]) -> Result<CodeDigest, CodeError> {
    let digest = digest(&root_of(process), paths)?;
    // Else what was read was somebody else's.
    process.still_same(crate::process::Look::Whole)?;
    Ok(digest)
}

/// The root of the process. An agent without privileges may not look there; then both are one user's, and it has none but
/// its own to offer.
fn root_of(process: &PinnedProcess) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", process.pid()));
    let own = nix::unistd::geteuid().as_raw() == process.uid();
    match fs::metadata(&root) {
        Err(e) if own && e.kind() == io::ErrorKind::PermissionDenied => PathBuf::from("/"),
        _ => root,
    }
}

fn digest(root: &Path, paths: &[String]) -> Result<CodeDigest, CodeError> {
    if paths.len() > CODE_PATHS_MAX {
        return Err(CodeError::TooManyPaths(paths.len()));
    }
    let mut reader =
        Reader { context: Context::new(&SHA256), files: 0, bytes: 0, buffer: vec![0; HASH_CHUNK] };
    for path in paths {
        let below = path.strip_prefix('/').filter(|rest| !rest.split('/').any(|part| part == ".."));
        let below = below.ok_or_else(|| CodeError::Path(path.chars().take(256).collect()))?;
        reader.read(&root.join(below), path)?;
    }
    Ok(CodeDigest(sum(reader.context)))
}

fn sum(context: Context) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

struct Reader {
    context: Context,
    files: usize,
    bytes: u64,
    buffer: Vec<u8>,
}

impl Reader {
    /// Takes in a file, or all files of a folder by ascending name. `shown`: what it is called.
    fn read(&mut self, path: &Path, shown: &str) -> Result<(), CodeError> {
        let failed = |source| CodeError::Read { path: shown.to_owned(), source };
        let meta = fs::metadata(path).map_err(failed)?;
        if meta.is_file() {
            return self.file(path, shown);
        }
        if !meta.is_dir() {
            return Err(failed(io::Error::other("expected a file or a folder")));
        }
        let mut names: Vec<OsString> = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name());
            if self.files + names.len() > CODE_FILES_MAX {
                return Err(CodeError::TooManyFiles);
            }
        }
        names.sort_unstable();
        for name in names {
            let child = path.join(&name);
            // A link in a folder counts by where it leads, not by what is there: it may lead out, or in circles.
            let meta = fs::symlink_metadata(&child).map_err(failed)?;
            let shown = format!("{shown}/{}", name.to_string_lossy());
            if meta.is_symlink() {
                let target = fs::read_link(&child).map_err(failed)?;
                self.files += 1;
                self.part(b"link", shown.as_bytes());
                self.part(b"to", target.as_os_str().as_encoded_bytes());
            } else if meta.is_file() || meta.is_dir() {
                self.read(&child, &shown)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, shown: &str) -> Result<(), CodeError> {
        let failed = |source| CodeError::Read { path: shown.to_owned(), source };
        self.files += 1;
        if self.files > CODE_FILES_MAX {
            return Err(CodeError::TooManyFiles);
        }
        // What became a pipe since it was looked at must not hold the reader.
        let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let mut file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() {
            return Err(failed(io::Error::other("expected a file or a folder")));
        }
        self.part(b"file", shown.as_bytes());
        let content = self.content(&mut file, shown)?;
        self.part(b"is", &content);
        Ok(())
    }

    fn content(&mut self, file: &mut File, shown: &str) -> Result<[u8; 32], CodeError> {
        let mut context = Context::new(&SHA256);
        loop {
            let read = file
                .read(&mut self.buffer)
                .map_err(|source| CodeError::Read { path: shown.to_owned(), source })?;
            if read == 0 {
                break;
            }
            self.bytes += read as u64;
            if self.bytes > CODE_BYTES_MAX {
                return Err(CodeError::TooManyBytes);
            }
            context.update(self.buffer.get(..read).unwrap_or_default());
        }
        Ok(sum(context))
    }

    /// With its length, so that no two lists of parts read alike.
    fn part(&mut self, what: &[u8], bytes: &[u8]) {
        self.context.update(what);
        self.context.update(&(bytes.len() as u64).to_be_bytes());
        self.context.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dir: &Path, paths: &[&str]) -> Result<CodeDigest, CodeError> {
        let paths: Vec<_> = paths.iter().map(|p| format!("/{p}")).collect();
        digest(dir, &paths)
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("agent.py"), "print(1)").unwrap();
        fs::create_dir(dir.path().join("lib")).unwrap();
        fs::write(dir.path().join("lib/a.py"), "a").unwrap();
        fs::write(dir.path().join("lib/b.py"), "b").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("lib/link")).unwrap();
        dir
    }

    #[test]
    fn any_change_of_a_file_a_name_or_the_order_is_another_code() {
        let dir = tree();
        let was = of(dir.path(), &["agent.py", "lib"]).unwrap();
        assert_eq!(of(dir.path(), &["agent.py", "lib"]).unwrap(), was);
        assert_ne!(of(dir.path(), &["lib", "agent.py"]).unwrap(), was);
        fs::write(dir.path().join("lib/b.py"), "B").unwrap();
        let changed = of(dir.path(), &["agent.py", "lib"]).unwrap();
        assert_ne!(changed, was);
        fs::rename(dir.path().join("lib/b.py"), dir.path().join("lib/c.py")).unwrap();
        assert_ne!(of(dir.path(), &["agent.py", "lib"]).unwrap(), changed);
    }

    #[test]
    fn a_path_that_leads_out_or_to_no_file_is_refused() {
        let dir = tree();
        for wrong in ["../x", "lib/../agent.py", "gone"] {
            assert!(of(dir.path(), &[wrong]).is_err(), "{wrong}");
        }
        assert!(digest(dir.path(), &["agent.py".to_owned()]).is_err(), "not absolute");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(of(dir.path(), &["fifo"]).unwrap_err().to_string().contains("expected a file or a folder"));
        let many = vec!["/agent.py".to_owned(); CODE_PATHS_MAX + 1];
        assert!(matches!(digest(dir.path(), &many), Err(CodeError::TooManyPaths(_))));
    }
}
