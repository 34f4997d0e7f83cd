//! Which files are the code of a run: what the node agent hashes before the command starts.

use std::env;
use std::path::{Path, PathBuf};

use crate::exit::FAILED;
use crate::failure::Failure;

/// The executable that a name means, as the shell finds it.
pub(super) fn find(program: &str) -> Result<PathBuf, Failure> {
    let found = if program.contains('/') {
        Some(PathBuf::from(program)).filter(|path| path.is_file())
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
    };
    let found = found.ok_or_else(|| Failure::new(FAILED, format!("{program}: no such command")))?;
    absolute(&found)
}

/// The command, the files among its arguments (a script, a lock file), and what was named. Absolute, in this order.
pub(super) fn listed(program: &Path, rest: &[String], named: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let arguments = rest.iter().map(PathBuf::from).filter(|path| path.is_file());
    let mut paths = vec![program.to_owned()];
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
        assert_eq!(listed, ["/bin/sh".to_owned(), real(&script), real(dir.path())]);
    }
}
