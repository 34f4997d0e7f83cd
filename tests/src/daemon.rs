//! One process under test: its log lines as events, its end as an event, and nothing left behind.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::wait::within;

/// Where the binaries under test lie: SERVER_BIN, AGENT_BIN and AVOUCH_BIN, else beside this program or its folder.
pub fn binary(name: &str) -> PathBuf {
    let variable = match name {
        "avouch-server" => Some("SERVER_BIN"),
        "avouch-agent" => Some("AGENT_BIN"),
        "avouch" => Some("AVOUCH_BIN"),
        _ => None, // parts of the tests
    };
    if let Some(path) = variable.and_then(std::env::var_os) {
        return path.into();
    }
    let program = std::env::current_exe().unwrap();
    let mut places = program.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    places.find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("no {name} near {}: cargo build --profile ci --workspace --bins", program.display())
    })
}

#[derive(Default)]
struct Seen {
    lines: Vec<String>,
    status: Option<ExitStatus>,
    /// Pipes that are still open.
    open: usize,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Notify,
}

/// A running daemon. Dropped, it is killed; if the test failed, its log is shown.
pub struct Daemon {
    name: String,
    pid: Pid,
    shared: Arc<Shared>,
}

impl Daemon {
    /// Starts a command with its output captured.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        Self::spawn_with(name, command, Stdio::null())
    }

    /// As [`Daemon::spawn`], with something to read.
    pub fn spawn_with(name: &str, command: &mut Command, stdin: Stdio) -> Self {
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("could not start {name}: {e}"));
        let shared = Arc::new(Shared::default());
        shared.seen.lock().open = 2;
        follow(child.stdout.take().unwrap(), &shared);
        follow(child.stderr.take().unwrap(), &shared);
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let watched = Arc::clone(&shared);
        std::thread::spawn(move || await_end(child, pid, &watched));
        Self { name: name.to_owned(), pid, shared }
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Everything it wrote so far.
    pub fn log(&self) -> String {
        self.shared.seen.lock().lines.join("\n")
    }

    /// `None` while it runs.
    pub fn status(&self) -> Option<ExitStatus> {
        self.shared.seen.lock().status
    }

    /// Waits for a line that holds `text`.
    pub async fn line(&self, text: &str) -> String {
        let what = format!("a line with \"{text}\" of {}", self.name);
        self.until(&what, |seen| seen.lines.iter().find(|l| l.contains(text)).cloned()).await
    }

    /// Waits for its end and the end of its output.
    pub async fn end(&self) -> ExitStatus {
        self.until(&format!("the end of {}", self.name), |seen| seen.status.filter(|_| seen.open == 0)).await
    }

    /// Sends a signal, unless it has ended already.
    pub fn signal(&self, signal: Signal) {
        let seen = self.shared.seen.lock();
        if seen.status.is_none() {
            kill(self.pid, signal).unwrap();
        }
    }

    /// Ends it politely and waits.
    pub async fn stop(&self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.end().await
    }

    /// Ends it at once and waits.
    pub async fn kill(&self) {
        self.signal(Signal::SIGKILL);
        self.end().await;
    }

    async fn until<T>(&self, what: &str, look: impl Fn(&Seen) -> Option<T>) -> T {
        within(what, async {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = look(&self.shared.seen.lock()) {
                    return found;
                }
                changed.await;
            }
        })
        .await
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        if std::thread::panicking() {
            println!("---- log of {} ----\n{}\n----", self.name, self.log());
        }
    }
}

fn follow(pipe: impl Read + Send + 'static, shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            shared.seen.lock().lines.push(String::from_utf8_lossy(&line).into_owned());
            shared.changed.notify_waiters();
        }
        shared.seen.lock().open -= 1;
        shared.changed.notify_waiters();
    });
}

/// The end is first seen, then reaped under the lock: no signal can reach a later process of the same number.
fn await_end(mut child: Child, pid: Pid, shared: &Shared) {
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).is_err() {}
    let mut seen = shared.seen.lock();
    seen.status = child.wait().ok();
    drop(seen);
    shared.changed.notify_waiters();
}
