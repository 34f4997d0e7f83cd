//! A file with one secret that a gate adds to what it lets through.
//!
//! Never follows a link to it, and never reads what others could have read or written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc;
use zeroize::Zeroizing;

/// Longest secret in bytes: a JWT with many claims fits.
pub const SECRET_MAX: usize = 4 * 1024;
/// Shortest secret in bytes: a gate looks for it in what comes back, and would find a shorter one everywhere.
pub const SECRET_MIN: usize = 8;

/// What a file holds, and whose it is.
pub struct SecretFile {
    /// One line of visible characters, without its end.
    pub secret: Zeroizing<String>,
    pub owner: u32,
    /// Where it lies, by its true name.
    pub path: PathBuf,
}

impl std::fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretFile")
            .field("owner", &self.owner)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Reads the file.
///
/// # Errors
/// One sentence on what was expected, what is there, and what to do.
pub fn read(path: &Path) -> Result<SecretFile, String> {
    let shown = path.display();
    let failed = |e: io::Error| match e.raw_os_error() {
        Some(libc::ELOOP) => format!("{shown} is a link, expected the file itself: name what it leads to"),
        _ => format!("{shown} can't be read: {e}"),
    };
    // A pipe that nobody writes to would hold the reader for ever.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() {
        return Err(format!("{shown} is no regular file: put the secret into one"));
    }
    if facts.mode() & 0o077 != 0 {
        let mode = facts.mode() & 0o777;
        return Err(format!("{shown} has mode {mode:o}, and others could read it: `chmod 600 {shown}`"));
    }
    let secret = text(&file).map_err(failed)?;
    let owner = facts.uid();
    let secret = secret.and_then(one_line).ok_or_else(|| {
        format!(
            "{shown} holds no secret: expected one line of {SECRET_MIN} to {SECRET_MAX} visible ASCII characters"
        )
    })?;
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(failed)?;
    Ok(SecretFile { secret, owner, path })
}

/// Its bytes, unless there are too many.
fn text(file: &File) -> io::Result<Option<Zeroizing<String>>> {
    // A line end, and one byte that is too many.
    let most = SECRET_MAX + 3;
    let mut bytes = Zeroizing::new(Vec::with_capacity(most));
    file.take(u64::try_from(most).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    Ok(std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned())))
}

fn one_line(text: Zeroizing<String>) -> Option<Zeroizing<String>> {
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let fits = (SECRET_MIN..=SECRET_MAX).contains(&line.len());
    (fits && line.bytes().all(|c| c.is_ascii_graphic())).then(|| Zeroizing::new(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_private_file_of_one_line_is_a_secret() {
        for content in ["s3cret-text", "s3cret-text\n", "s3cret-text\r\n"] {
            let (_dir, path) = file(content.as_bytes(), 0o600);
            let read = read(&path).unwrap();
            assert_eq!((read.secret.as_str(), read.path.file_name()), ("s3cret-text", path.file_name()));
            assert!(!format!("{read:?}").contains("s3cret"));
        }
        let longest = format!("{}\n", "x".repeat(SECRET_MAX));
        let (_dir, path) = file(longest.as_bytes(), 0o400);
        assert_eq!(read(&path).unwrap().secret.len(), SECRET_MAX);
    }

    #[test]
    fn what_others_could_read_is_refused_with_the_command_that_mends_it() {
        let (_dir, path) = file(b"s3cret-text", 0o640);
        let error = read(&path).unwrap_err();
        assert!(error.contains("mode 640") && error.contains("`chmod 600 "), "{error}");
    }

    #[test]
    fn a_link_a_folder_a_pipe_and_what_is_no_line_are_refused() {
        let (dir, path) = file(b"s3cret-text", 0o600);
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(read(&link).unwrap_err().contains("is a link"));
        assert!(read(dir.path()).unwrap_err().contains("no regular file"));
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read(&pipe).unwrap_err().contains("no regular file"));
        assert!(read(&dir.path().join("none")).unwrap_err().contains("can't be read"));
        for content in
            ["", "short", "two words", "s3cret-text\nmore", "s3cret-t\u{e9}xt", &"x".repeat(SECRET_MAX + 1)]
        {
            let (_dir, path) = file(content.as_bytes(), 0o600);
            assert!(read(&path).unwrap_err().contains("holds no secret"), "{content}");
        }
    }
}
