//! A tool server: a process of the host's, in a group of its own, with both ends of its standard streams here.
//!
//! Never outlives its connection: asked to end, then told to, then killed with everything it started.

use std::io;
use std::process::Stdio;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::limits::{SERVER_END_MAX, SERVER_TERM_MAX};
use crate::children;

/// A tool server that runs.
#[derive(Debug)]
pub struct ToolServer {
    child: Child,
}

impl ToolServer {
    /// Starts it. Standard output is for MCP; what it says to people goes to `stderr`.
    ///
    /// # Errors
    /// One sentence on what could not be started.
    pub fn start(command: &[String], stderr: Stdio) -> Result<(Self, ChildStdin, ChildStdout), String> {
        let Some((program, arguments)) = command.split_first() else {
            return Err("the gate names no command".to_owned());
        };
        let failed = |e: io::Error| {
            format!(
                "cannot start \"{program}\": {e}; see whether it is installed and on the PATH of `avouch run`"
            )
        };
        let mut command = Command::new(program);
        command.args(arguments).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = children::spawn(&mut command).map_err(failed)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let server = Self { child };
        match (stdin, stdout) {
            (Some(stdin), Some(stdout)) => Ok((server, stdin, stdout)),
            _ => Err(failed(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Its standard error, once, if it was started with a pipe for it.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits for its end, which its closed input asks for, and does not wait long.
    pub async fn end(mut self) {
        let pid = self.child.id();
        self.ended().await;
        children::waited(pid);
    }

    async fn ended(&mut self) {
        for (time, signal) in [(SERVER_END_MAX, Signal::SIGTERM), (SERVER_TERM_MAX, Signal::SIGKILL)] {
            if timeout(time, self.child.wait()).await.is_ok() {
                return;
            }
            self.signal(signal);
        }
        let _ = self.child.wait().await;
    }

    /// Signals its group. Its number can't be another's: the process was not waited for yet.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = killpg(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for ToolServer {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn shell(script: &str) -> (ToolServer, ChildStdin, ChildStdout) {
        ToolServer::start(&["sh".to_owned(), "-c".to_owned(), script.to_owned()], Stdio::null()).unwrap()
    }

    #[tokio::test]
    async fn a_server_that_ends_with_its_input_is_not_killed() {
        let (server, stdin, mut stdout) = shell("trap 'echo killed' TERM; cat; echo ended");
        drop(stdin);
        server.end().await;
        let mut said = String::new();
        stdout.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "ended\n");
    }

    #[tokio::test]
    async fn a_server_that_does_not_end_is_killed_with_what_it_started() {
        // Both hold the output open; it ends when both are gone.
        let (server, stdin, mut stdout) = shell("trap '' TERM; sleep 600 & sleep 600; sleep 600");
        drop(stdin);
        server.end().await;
        let mut said = String::new();
        stdout.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "");
    }

    #[tokio::test]
    async fn a_server_is_killed_when_its_host_lets_go_of_it() {
        let (server, _stdin, mut stdout) = shell("trap '' TERM; sleep 600; sleep 600");
        drop(server);
        let mut said = String::new();
        stdout.read_to_string(&mut said).await.unwrap();
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_is_named() {
        let error = ToolServer::start(&["/no/such/program".to_owned()], Stdio::null()).unwrap_err();
        assert!(
            error.contains("cannot start \"/no/such/program\"") && error.contains("installed"),
            "{error}"
        );
        assert!(ToolServer::start(&[], Stdio::null()).is_err());
    }
}
