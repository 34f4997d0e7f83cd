//! A workload for tests that need another process than their own: one that hands its connection over and then
//! changes, a crowd, a quiet one.
//!
//! Never judges: it says on its standard output what happened to it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // all of it is test code
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::ffi::CString;
use std::io::{IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use avouch_tests::actor;
use avouch_tests::workload::Workload;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{Uid, execv, setresuid};
use tonic::Status;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["hand-over", socket] => hand_over(Path::new(socket)),
        ["obey"] => obey(),
        ["crowd", socket, count] => on_runtime(crowd(socket.into(), count.parse().unwrap())),
        ["quiet", socket, rounds] => on_runtime(quiet(socket.into(), rounds.parse().unwrap())),
        _ => panic!("no part called {words:?}"),
    }
}

/// Becomes a user, connects, sends the connection over standard input, keeps it, and does what it is told.
fn hand_over(socket: &Path) {
    let (user, later) = (Uid::from_raw(actor::USER), Uid::from_raw(actor::LATER_USER));
    setresuid(user, user, later).unwrap();
    let connection = UnixStream::connect(socket).unwrap();
    let passed = [connection.as_raw_fd()];
    let (word, line) = ([IoSlice::new(b"!")], std::io::stdin().as_raw_fd());
    sendmsg::<()>(line, &word, &[ControlMessage::ScmRights(&passed)], MsgFlags::empty(), None).unwrap();
    obey();
}

/// Does what each line says and says the others back, so that a line that comes back tells that what was said before
/// it is done.
fn obey() {
    while let Some(line) = next_line() {
        match line.as_str() {
            "another user" => {
                let later = Uid::from_raw(actor::LATER_USER);
                setresuid(later, later, later).unwrap();
            }
            // `cat` says every line back as well.
            "another program" => exec("/bin/cat", &["cat"]),
            "the same program" => exec("/proc/self/exe", &["avouch-caller", "obey"]),
            "exit" => return,
            _ => println!("{line}"),
        }
    }
}

fn exec(path: &str, words: &[&str]) -> ! {
    let text = |word: &str| CString::new(word).unwrap();
    let words: Vec<_> = words.iter().map(|word| text(word)).collect();
    let Err(error) = execv(&text(path), &words);
    panic!("{path}: {error}");
}

/// Read byte by byte: what follows the line may be for the next program.
fn next_line() -> Option<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    loop {
        match nix::unistd::read(std::io::stdin(), &mut byte).unwrap() {
            0 => return None,
            _ if byte[0] == b'\n' => return Some(String::from_utf8(line).unwrap()),
            _ => line.push(byte[0]),
        }
    }
}

fn on_runtime(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build()
        .unwrap()
        .block_on(work);
}

/// All who share standard input begin when it ends.
fn wait_for_the_start() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn report(latencies: &[Duration], refusals: &[Status]) {
    let micros: Vec<String> = latencies.iter().map(|d| d.as_micros().to_string()).collect();
    for status in refusals.iter().take(3) {
        println!("refused: {status:?}");
    }
    println!("done {} {}", refusals.len(), micros.join(" "));
    std::io::stdout().flush().unwrap();
}

/// Waits its turn if the kernel's queue of the socket is full, where a connect that does not wait would fail.
async fn connect(socket: PathBuf) -> Result<Workload, Status> {
    let connecting = tokio::task::spawn_blocking(move || UnixStream::connect(&socket));
    let connection = connecting.await.unwrap().map_err(|e| Status::unknown(e.to_string()))?;
    Workload::over(connection).await.map_err(|e| Status::unknown(e.to_string()))
}

/// Opens `count` connections at once, each with a stream, and keeps them.
async fn crowd(socket: PathBuf, count: usize) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    wait_for_the_start();
    let callers: Vec<_> = (0..count)
        .map(|_| {
            let socket = socket.clone();
            tokio::spawn(async move {
                let begun = Instant::now();
                let mut workload = connect(socket).await?;
                let mut stream = workload.x509().await?;
                stream.next().await?;
                Ok::<_, Status>((begun.elapsed(), workload, stream))
            })
        })
        .collect();
    let (mut latencies, mut refusals, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for caller in callers {
        match caller.await.unwrap() {
            Ok((latency, workload, stream)) => {
                latencies.push(latency);
                kept.push((workload, stream));
            }
            Err(status) => refusals.push(status),
        }
    }
    report(&latencies, &refusals);
    std::future::pending::<()>().await;
}

/// Fetches one after the other, each on a fresh connection.
async fn quiet(socket: PathBuf, rounds: usize) {
    let (mut latencies, mut refusals) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begun = Instant::now();
        let fetched = async { connect(socket.clone()).await?.fetch_x509().await };
        match fetched.await {
            Ok(_) => latencies.push(begun.elapsed()),
            Err(status) => refusals.push(status),
        }
    }
    report(&latencies, &refusals);
}
