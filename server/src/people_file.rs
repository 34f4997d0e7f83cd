//! The file with the people who are there: whoever it does not name any more leaves.
//!
//! Never believes half a file, one that others can write, or one that names nobody: its last line says that it ends, and what
//! can't be believed lets nobody leave.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use avouch_domain::{Person, PersonId};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::limits::{PEOPLE_FILE_AGE_MAX, PEOPLE_FILE_MAX, PEOPLE_FILE_PAUSE, PEOPLE_FILE_RETRY};
use crate::service::{Services, Word};

/// The last line.
const END: &str = "end";
/// Modes of those who could let others leave.
const OTHERS_WRITE: u32 = 0o022;

/// Who is there.
#[derive(Debug, Default, PartialEq, Eq)]
struct Present {
    uids: BTreeSet<u32>,
    people: BTreeSet<PersonId>,
}

/// Why a file is not believed.
#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error("it can't be read: {0}")]
    Read(#[from] io::Error),
    #[error("it has more than {PEOPLE_FILE_MAX} bytes")]
    TooLarge,
    #[error("others than root and the server's user can write it: `chown root` and `chmod go-w` it")]
    Writable,
    #[error("line {0}: expected the number of a local user, or a person's ID (per_...)")]
    Line(usize),
    #[error("its last line is not \"{END}\": it may be half of a list")]
    NoEnd,
    #[error("it names nobody")]
    Nobody,
    #[error("it names no security person who is there: it may be the list of others")]
    Strange,
}

impl Present {
    fn parse(text: &str) -> Result<Self, ListError> {
        let mut present = Self::default();
        let mut ended = false;
        for (number, line) in text.lines().enumerate() {
            let said = line.split('#').next().unwrap_or_default().trim();
            if said.is_empty() {
                continue;
            }
            if ended {
                return Err(ListError::NoEnd);
            }
            if said == END {
                ended = true;
            } else if let Ok(uid) = said.parse() {
                present.uids.insert(uid);
            } else {
                present.people.insert(PersonId::new(said).map_err(|_| ListError::Line(number + 1))?);
            }
        }
        match ended {
            false => Err(ListError::NoEnd),
            true if present == Self::default() => Err(ListError::Nobody),
            true => Ok(present),
        }
    }

    fn read(path: &Path) -> Result<Self, ListError> {
        let file = std::fs::File::open(path)?;
        let facts = file.metadata()?;
        let own = [0, nix::unistd::geteuid().as_raw()].contains(&facts.uid());
        if !own || facts.mode() & OTHERS_WRITE != 0 {
            return Err(ListError::Writable);
        }
        let mut text = String::new();
        file.take(PEOPLE_FILE_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > PEOPLE_FILE_MAX {
            return Err(ListError::TooLarge);
        }
        Self::parse(&text)
    }

    fn names(&self, person: &Person) -> bool {
        self.people.contains(&person.id) || person.uid.is_some_and(|uid| self.uids.contains(&uid))
    }
}

/// Becomes readable when something happens in the folder of a file. The folder is watched and not the file: editors and
/// orchestrators put another file in its place.
fn watch(path: &Path) -> io::Result<pipe::Receiver> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let events = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ATTRIB;
    let events = events | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
    inotify::add_watch(&inotify, folder, events | WatchFlags::ONLYDIR)?;
    // Read as a pipe is: how much there is to read does not matter, only that there is something.
    pipe::Receiver::from_owned_fd_unchecked(inotify)
}

/// What became of a file that was read.
enum Obeyed {
    /// It says this, and nobody is left to leave.
    Done(Present),
    /// It is not believed, or says what was done before.
    Nothing,
    /// Somebody stays who should leave: to be tried again.
    Again,
}

/// Lets whoever the file does not name leave, now and after each change of it, until `stop`.
pub async fn follow(path: PathBuf, services: Services, clock: Clock, stop: CancellationToken) {
    let work = async {
        let mut done = None;
        loop {
            // Watched before it is read: what changes meanwhile is read again.
            let events = watch(&path);
            if let Err(error) = &events {
                tracing::error!(people_file = %path.display(), %error, "Unable to watch the file of people");
            }
            let patience = match obey(&path, &services, clock, done.as_ref()).await {
                Obeyed::Again => PEOPLE_FILE_RETRY,
                Obeyed::Nothing => PEOPLE_FILE_AGE_MAX,
                Obeyed::Done(present) => {
                    done = Some(present);
                    PEOPLE_FILE_AGE_MAX
                }
            };
            sleep(PEOPLE_FILE_PAUSE).await;
            match events {
                Ok(events) => drop(timeout(patience, events.readable()).await),
                Err(_) => sleep(PEOPLE_FILE_RETRY).await,
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// Reads the file, and refuses to believe one that names no security person who is there: that is another list.
async fn read(path: &Path, services: &Services) -> Result<Present, ListError> {
    let place = path.to_owned();
    let read = tokio::task::spawn_blocking(move || Present::read(&place)).await;
    let present = read.unwrap_or_else(|error| Err(io::Error::other(error).into()))?;
    let known = services.people().iter().any(|p| p.is_active() && p.security && present.names(p));
    if known { Ok(present) } else { Err(ListError::Strange) }
}

/// Lets people leave one by one; the file is read again before each, so that a mended one holds at once. `done`: what was
/// obeyed before.
async fn obey(path: &Path, services: &Services, clock: Clock, done: Option<&Present>) -> Obeyed {
    let mut stays = BTreeSet::new();
    loop {
        let present = match read(path, services).await {
            Ok(present) => present,
            // Nobody is there yet who could be in it.
            Err(ListError::Strange) if services.people().is_empty() => return Obeyed::Nothing,
            Err(error) => {
                let path = path.display();
                tracing::warn!(people_file = %path, %error, "The file of people is not believed: nobody leaves");
                return Obeyed::Nothing;
            }
        };
        if done == Some(&present) {
            return Obeyed::Nothing;
        }
        let leaves = |p: &Person| p.is_active() && !present.names(p) && !stays.contains(&p.id);
        let Some(person) = services.people().into_iter().find(leaves) else {
            return if stays.is_empty() { Obeyed::Done(present) } else { Obeyed::Again };
        };
        if !leave(services, clock, &person.id).await {
            stays.insert(person.id);
        }
    }
}

/// True if the person has left.
async fn leave(services: &Services, clock: Clock, id: &PersonId) -> bool {
    match services.leave_person(clock(), Word::List, id.clone()).await {
        Ok(Ok((left, bounds))) => {
            let silent = bounds.nodes.iter().filter(|node| node.took.is_none()).count();
            let (paused, passed, nodes) = (left.paused.len(), left.passed.len(), bounds.nodes.len());
            tracing::info!(person = %id, paused, passed, nodes, silent, "A person who is not in the file of people has left");
            true
        }
        Ok(Err(error)) => {
            tracing::warn!(person = %id, %error, "A person who is not in the file of people stays");
            false
        }
        Err(error) => {
            tracing::error!(person = %id, %error, "A person who is not in the file of people could not leave");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::person;

    use super::*;

    fn why(text: &str) -> String {
        Present::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_list_names_users_and_people_until_its_end() {
        let present = Present::parse("# people\n1001 # ben\n\nper_a\nend\n# that was all\n").unwrap();
        assert!(present.names(&person("per_b", 1001, false)) && present.names(&person("per_a", 7, false)));
        assert!(!present.names(&person("per_c", 1002, true)));
    }

    #[test]
    fn half_a_list_or_one_of_nobody_is_not_believed() {
        for half in ["", "1001\n", "1001\n100", "end\n1001\n"] {
            assert!(why(half).contains("half of a list"), "{half:?}: {}", why(half));
        }
        assert!(why("end\n").contains("names nobody"));
        assert!(why("1001\nben\nend\n").contains("line 2"));
        assert!(why("-1\nend\n").contains("line 1"));
    }

    #[test]
    fn a_list_that_others_can_write_is_not_believed() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("people");
        std::fs::write(&path, "1001\nend\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        assert!(Present::read(&path).is_ok());
        mode(0o664);
        assert!(matches!(Present::read(&path), Err(ListError::Writable)));
        mode(0o644);
        std::fs::write(&path, " ".repeat(usize::try_from(PEOPLE_FILE_MAX).unwrap() + 1)).unwrap();
        assert!(matches!(Present::read(&path), Err(ListError::TooLarge)));
    }
}
