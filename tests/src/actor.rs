//! A process that connects to the workload socket, hands the connection over to this one, and then does what it is
//! told: so a test holds a connection whose peer, for the agent, is somebody else.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::daemon::binary;
use crate::sys;
use crate::wait::LIMIT;
use crate::workload::Workload;

/// The user that an actor is; only root can make one.
pub const USER: u32 = 4001;
/// The user that it can become.
pub const LATER_USER: u32 = 4002;

/// The other process. Dropped, it ends.
pub struct Actor {
    child: Child,
    line: BufReader<UnixStream>,
    connection: Option<UnixStream>,
}

impl Actor {
    /// Starts it and takes its connection over.
    pub fn start(socket: &Path) -> Self {
        Self::start_below(&[], socket).unwrap()
    }

    /// As [`Actor::start`], run by another command; `None` if that could not run it.
    pub fn start_below(wrapper: &[&str], socket: &Path) -> Option<Self> {
        let program = binary("avouch-caller");
        let mut words = wrapper.iter().map(AsRef::as_ref).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg("hand-over").arg(socket);
        let (line, theirs) = UnixStream::pair().unwrap();
        let again: OwnedFd = theirs.try_clone().unwrap().into();
        let child =
            command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::from(again)).spawn().ok()?;
        // The command holds copies of the other end; without it, the end of the child is the end of the line.
        drop(command);
        line.set_read_timeout(Some(LIMIT)).unwrap();
        let Some(connection) = sys::received(&line) else {
            let mut child = child;
            child.wait().unwrap();
            return None;
        };
        let connection = Some(UnixStream::from(connection));
        Some(Self { child, line: BufReader::new(line), connection })
    }

    /// Tells it a word and waits until it has obeyed; for `exit`, until it is gone.
    pub fn tell(&mut self, word: &str) {
        if word == "exit" {
            writeln!(self.line.get_mut(), "exit").unwrap();
            self.child.wait().unwrap();
            return;
        }
        write!(self.line.get_mut(), "{word}\nobeyed\n").unwrap();
        let mut said = String::new();
        self.line.read_line(&mut said).unwrap();
        assert_eq!(said, "obeyed\n", "after {word}");
    }

    /// Ends it outright, at any moment.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A Workload API client of this process over the connection of the other.
    pub async fn workload(&mut self) -> Workload {
        Workload::over(self.connection.take().expect("taken once")).await.unwrap()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
