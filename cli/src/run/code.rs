//! Which files are the code of a run: what the node agent hashes before the command starts.

use std::env;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::exit::FAILED;
use crate::failure::Failure;

/// The executable that a name means, as the shell finds it: by the very path, since a link may be how it knows what to be.
pub(crate) fn find(program: &str) -> Result<PathBuf, Failure> {
    let runs = |path: &PathBuf| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    let found = if program.contains('/') {
        Some(PathBuf::from(program)).filter(runs)
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).map(|dir| dir.join(program)).find(runs)
    };
    let found = found.ok_or_else(|| Failure::new(FAILED, format!("{program}: no such command")))?;
    std::path::absolute(&found).map_err(|e| Failure::new(FAILED, format!("{}: {e}", found.display())))
}

/// The command, the files among its arguments (a script, a lock file), and what was named. Absolute, in this order.
pub(super) fn listed(program: &Path, rest: &[String], named: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let arguments = rest.iter().map(PathBuf::from).filter(|path| path.is_file());
    let mut paths = vec![absolute(program)?];
    for path in arguments.chain(named.iter().cloned()) {
        paths.push(absolute(&path)?);
    }
    let text = |path: PathBuf| {
        path.into_os_string().into_string().map_err(|path| {
            Failure::new(FAILED, format!("{}: expected a path that is text (UTF-8)", path.display()))
        })
    };
    paths.into_iter().map(text).collect()
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .and_then(|path| path.canonicalize())
        .map_err(|e| Failure::new(FAILED, format!("{}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_as_the_shell_finds_it() {
        assert!(find("sh").unwrap().is_absolute());
        assert!(find("/bin/sh").is_ok());
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("other-name");
        std::os::unix::fs::symlink("/bin/sh", &link).unwrap();
        assert_eq!(find(link.to_str().unwrap()).unwrap(), link, "the name says what it is to be");
        std::fs::write(dir.path().join("text"), "").unwrap();
        assert!(find(dir.path().join("text").to_str().unwrap()).is_err(), "nobody may run it");
        assert_eq!(find("no-such-command").unwrap_err().text, "no-such-command: no such command");
    }

    #[test]
    fn files_among_the_arguments_belong_to_the_code_and_words_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("agent.py");
        std::fs::write(&script, "pass").unwrap();
        let rest = [script.to_str().unwrap().to_owned(), "--fast".to_owned()];
        let listed = listed(Path::new("/bin/sh"), &rest, &[dir.path().to_owned()]).unwrap();
        let real = |path: &Path| path.canonicalize().unwrap().to_str().unwrap().to_owned();
        assert_eq!(listed, [real(Path::new("/bin/sh")), real(&script), real(dir.path())]);
    }
}
