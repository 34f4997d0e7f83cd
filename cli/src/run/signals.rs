//! Signals that reach the supervisor and are meant for the command.

use std::io::{self, IsTerminal as _};

use nix::sys::signal::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// To be passed on.
    Pass(Signal),
    /// Some process below has ended.
    Ended,
}

/// See the module.
pub(super) struct Signals {
    terminate: Stream,
    hangup: Stream,
    interrupt: Stream,
    quit: Stream,
    user1: Stream,
    user2: Stream,
    child: Stream,
    /// The terminal tells the command itself, which is in the same group.
    terminal: bool,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            child: signal(SignalKind::child())?,
            terminal: io::stdin().is_terminal(),
        })
    }

    /// The next one that the command has not had yet.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            let (signal, by_terminal) = tokio::select! {
                _ = self.terminate.recv() => (Signal::SIGTERM, false),
                _ = self.hangup.recv() => (Signal::SIGHUP, false),
                _ = self.interrupt.recv() => (Signal::SIGINT, true),
                _ = self.quit.recv() => (Signal::SIGQUIT, true),
                _ = self.user1.recv() => (Signal::SIGUSR1, false),
                _ = self.user2.recv() => (Signal::SIGUSR2, false),
                _ = self.child.recv() => return Heard::Ended,
            };
            if !(by_terminal && self.terminal) {
                return Heard::Pass(signal);
            }
        }
    }
}
