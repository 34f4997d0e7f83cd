//! What the words of a tool server's command lead to: each is kept as what it is from any folder, and said if an AI agent
//! reaches it without the gate.
//!
//! Never starts the command, and never guards anything by itself.

use std::collections::BTreeSet;
use std::path::{Path, absolute};

use rustix::fs::{Access, access};

use crate::exit::FAILED;
use crate::failure::Failure;

/// The command with every file and folder among its words as an absolute path, so that it is the same in each folder that
/// a run begins in. Options stay, and so does a program that is found on the PATH.
pub(super) fn kept(command: &[String]) -> Result<Vec<String>, Failure> {
    command.iter().enumerate().map(|(index, word)| kept_word(index, word)).collect()
}

fn kept_word(index: usize, word: &str) -> Result<String, Failure> {
    if !is_place(index, word) {
        return Ok(word.to_owned());
    }
    let path = absolute(word).map_err(|e| Failure::new(FAILED, format!("'{word}': {e}")))?;
    path.into_os_string().into_string().map_err(|path| {
        Failure::new(FAILED, format!("{}: expected a path that is text", Path::new(&path).display()))
    })
}

/// Whether a word names a file or folder that is there.
fn is_place(index: usize, word: &str) -> bool {
    let on_the_path = index == 0 && !word.contains('/');
    !on_the_path && !word.starts_with('-') && Path::new(word).exists()
}

/// What whoever runs behind the gate reaches without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unguarded {
    Folder(String),
    /// A file that this user may write, or put another in the place of.
    File(String),
}

impl Unguarded {
    /// The word as it was given.
    pub(super) fn word(&self) -> &str {
        match self {
            Self::Folder(word) | Self::File(word) => word,
        }
    }

    /// What that means, and what helps: one line.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Folder(word) => format!(
                "{word} is not guarded: whoever runs behind the gate reaches it without the gate too; add the gate with \
                 `--guard {word}`"
            ),
            Self::File(word) => format!(
                "{word} is not guarded: the AI agent may change it, and the tool server runs what it then is; put it where \
                 the AI agent can't write, or add the gate with `--guard {word}`"
            ),
        }
    }
}

/// The folders among the words, and the files that this user may change, that are below nothing guarded. The guards are
/// real paths.
pub(super) fn unguarded(command: &[String], guards: &BTreeSet<String>) -> Vec<Unguarded> {
    let places = command.iter().enumerate().filter(|(index, word)| is_place(*index, word));
    places.filter_map(|(_, word)| open(word, guards)).collect()
}

fn open(word: &str, guards: &BTreeSet<String>) -> Option<Unguarded> {
    let real = Path::new(word).canonicalize().ok()?;
    if guards.iter().any(|guard| real.starts_with(guard)) {
        return None;
    }
    if real.is_dir() {
        return Some(Unguarded::Folder(word.to_owned()));
    }
    let writes = |path: &Path| access(path, Access::WRITE_OK).is_ok();
    let changes = real.is_file() && (writes(&real) || real.parent().is_some_and(writes));
    changes.then(|| Unguarded::File(word.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// Tests run in the folder of this crate, which has a `src` and a `Cargo.toml`.
    #[test]
    fn a_file_or_folder_is_kept_as_what_it_is_from_any_folder() {
        let here = std::env::current_dir().unwrap();
        let at = |name: &str| here.join(name).to_str().unwrap().to_owned();
        let given = words(&["./Cargo.toml", "-y", "src", "./src", "no-such-thing", "", "/dev/null"]);
        let (file, folder) = (at("Cargo.toml"), at("src"));
        let expected = words(&[&file, "-y", &folder, &folder, "no-such-thing", "", "/dev/null"]);
        assert_eq!(kept(&given).unwrap(), expected);
    }

    #[test]
    fn a_program_that_is_found_on_the_path_stays_a_name() {
        assert_eq!(kept(&words(&["src", "src"])).unwrap()[0], "src");
        assert!(unguarded(&words(&["src"]), &BTreeSet::new()).is_empty());
    }

    #[test]
    fn what_an_ai_agent_reaches_without_the_gate_is_said_unless_it_is_guarded() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("pay/below")).unwrap();
        std::fs::write(root.join("server.py"), "").unwrap();
        let at = |name: &str| root.join(name).to_str().unwrap().to_owned();
        let (program, folder) = (at("server.py"), at("pay/below"));
        let command = words(&["python3", &program, "--root", &folder, "/dev/null", "pay"]);
        let both = [Unguarded::File(program.clone()), Unguarded::Folder(folder.clone())];
        assert_eq!(unguarded(&command, &BTreeSet::new()), both);
        assert_eq!(unguarded(&command, &[at("pay")].into()), both[..1]);
        assert!(unguarded(&command, &[at("pay"), program.clone()].into()).is_empty());
        assert_eq!(unguarded(&command, &[at("pa")].into()).len(), 2, "a name that only begins alike");
        assert!(both[0].told().contains(&format!("`--guard {program}`")), "{}", both[0].told());
        assert!(both[1].told().contains(&format!("`--guard {folder}`")), "{}", both[1].told());
    }
}
