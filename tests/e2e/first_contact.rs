//! `avouch up`: a newcomer's first minute, as an ordinary user, and nothing left behind.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use avouch_tests::daemon::{Daemon, binary};
use avouch_tests::eventually;
use avouch_tests::server::private_dir;
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// A user who owns nothing but a run-time folder and copies of the binaries.
struct Newcomer {
    run: Arc<TempDir>,
    bin: Arc<TempDir>,
}

impl Newcomer {
    fn new() -> Self {
        let newcomer = Self { run: private_dir(), bin: private_dir() };
        let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755));
        open(newcomer.bin.path()).unwrap();
        for name in ["avouch", "avouch-server", "avouch-agent"] {
            std::fs::copy(binary(name), newcomer.bin.path().join(name)).unwrap();
        }
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(newcomer.run.path(), Some(65_534), Some(65_534)).unwrap();
        }
        newcomer
    }

    fn up(&self, more: &[&str]) -> Daemon {
        let mut command = Command::new(self.bin.path().join("avouch"));
        command.arg("up").args(more).env_clear().env("XDG_RUNTIME_DIR", self.run.path());
        if nix::unistd::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        Daemon::spawn("up", &mut command)
    }

    /// Names in the run-time folder.
    fn left(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.run.path()).unwrap();
        names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    /// Processes that were started from this user's binaries.
    fn processes(&self) -> Vec<(i32, String)> {
        let bin = self.bin.path().to_str().unwrap();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().map_while(Result::ok) {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.starts_with(bin) {
                found.push((pid, line));
            }
        }
        found
    }

    fn nothing_is_left(&self) {
        assert_eq!(self.left(), Vec::<String>::new());
        assert_eq!(self.processes(), Vec::new());
    }
}

/// A failed test leaves nothing behind either.
impl Drop for Newcomer {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[tokio::test]
async fn once_ends_with_0_after_the_first_verified_fetch() {
    let newcomer = Newcomer::new();
    let up = newcomer.up(&["--once"]);
    assert_eq!(up.end().await.code(), Some(0), "{}", up.log());
    let log = up.log();
    assert!(log.contains("you           spiffe://example.org/demo/you   valid "), "{log}");
    let verified =
        "verified      X.509-SVID against the bundle, JWT-SVID for \"demo\" of spiffe://example.org/demo/you";
    assert!(log.contains(verified), "{log}");
    assert!(!log.contains('\u{1b}'), "no colours and no drawing where there is no terminal: {log}");
    newcomer.nothing_is_left();
}

#[tokio::test]
async fn it_shows_a_table_until_it_is_told_to_stop_and_leaves_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let newcomer = Newcomer::new();
        let up = newcomer.up(&[]);
        up.line("Ctrl-C stops").await;
        let log = up.log();
        assert!(log.contains("SPIFFE ID") && log.contains("spiffe://example.org/demo/you  "), "{log}");
        assert_eq!(newcomer.processes().len(), 3, "{:?}", newcomer.processes());
        let folder = newcomer.run.path().join(&newcomer.left()[0]);
        let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "the folder is private");
        up.signal(signal);
        assert_eq!(up.end().await.code(), Some(0), "{signal}: {}", up.log());
        newcomer.nothing_is_left();
    }
}

#[tokio::test]
async fn killed_outright_it_takes_its_daemons_with_it() {
    let newcomer = Newcomer::new();
    let up = newcomer.up(&[]);
    up.line("Ctrl-C stops").await;
    assert_eq!(newcomer.processes().len(), 3, "{:?}", newcomer.processes());
    up.kill().await;
    eventually("the end of both daemons", async || newcomer.processes().is_empty().then_some(())).await;
}

#[tokio::test]
async fn what_it_says_to_try_next_works_as_it_stands() {
    let newcomer = Newcomer::new();
    let up = newcomer.up(&[]);
    up.line("Ctrl-C stops").await;
    let log = up.log();
    let commands: Vec<_> = log.lines().filter_map(|l| l.strip_prefix("  ")).collect();
    assert_eq!(commands.len(), 7, "{log}");
    let mut exports = String::new();
    for command in &commands {
        // The commands are told to a shell of the same user, as they stand on the screen.
        if command.starts_with("export") {
            exports.push_str(&format!("{command}\n"));
        }
        let run = async || {
            let mut shell = tokio::process::Command::new("sh");
            shell.args(["-c", &format!("{exports}{command}\n")]);
            if nix::unistd::geteuid().is_root() {
                shell.uid(65_534).gid(65_534);
            }
            let done = shell.output().await.unwrap();
            done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
        };
        let said = if command.contains("explain") || command.contains("api fetch") {
            eventually(command, run).await
        } else {
            run().await.unwrap_or_else(|| panic!("{command} failed"))
        };
        if command.contains("explain") {
            assert!(said.starts_with("granted: "), "{said}");
        }
    }
    up.signal(Signal::SIGINT);
    assert_eq!(up.end().await.code(), Some(0));
    newcomer.nothing_is_left();
}

#[tokio::test]
async fn a_missing_binary_is_named_with_what_to_build() {
    let newcomer = Newcomer::new();
    std::fs::remove_file(newcomer.bin.path().join("avouch-agent")).unwrap();
    let up = newcomer.up(&["--once"]);
    assert_eq!(up.end().await.code(), Some(1));
    let text = up.log();
    assert!(text.contains("`avouch-agent` is not in ") && text.contains("cargo build"), "{text}");
    newcomer.nothing_is_left();
}
