//! `avouch gate mcp NAME`: what an MCP client starts in place of a tool server. It copies bytes to the gate and back,
//! and hands over its standard error for what the tool server says to people.
//!
//! It runs inside the AI agent's process tree, so it holds nothing and decides nothing: whoever replaces it gains a
//! connection to the gate, and no more.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::SOCKET_VARIABLE;
use super::handed;
use super::hello::{Answer, Hello, Why};
use super::limits::HELLO_MAX;
use crate::exit::{DENIED, FAILED, UNREACHABLE, USAGE};
use crate::out::Out;

/// What is copied at once.
const CHUNK: usize = 64 * 1024;

/// Copies until one side ends, and gives the exit code. `socket` is what [`SOCKET_VARIABLE`] says.
pub fn run<I, O>(gate: &str, socket: Option<OsString>, input: I, output: O, out: &mut Out) -> u8
where
    I: Read + Send + 'static,
    O: Write,
{
    match connect(gate, socket) {
        Ok(stream) => copy(gate, stream, input, output, out),
        Err((code, text)) => {
            out.complain(&format!("avouch gate mcp {gate}: {text}\n"));
            code
        }
    }
}

fn connect(gate: &str, socket: Option<OsString>) -> Result<UnixStream, (u8, String)> {
    let Some(socket) = socket.filter(|socket| !socket.is_empty()) else {
        let text = format!(
            "{SOCKET_VARIABLE} is not set, so this process belongs to no run; start the AI agent with `avouch run \
             IDENTITY -- CMD`"
        );
        return Err((USAGE, text));
    };
    let away = |e: io::Error| {
        let shown = std::path::Path::new(&socket).display();
        let text = format!(
            "the gates of the run do not answer at {shown} ({e}); start the AI agent anew with `avouch run IDENTITY \
             -- CMD`"
        );
        (UNREACHABLE, text)
    };
    let mut stream = UnixStream::connect(&socket).map_err(away)?;
    // A gate that refuses at once has closed its side before the hello is written, and has said why.
    let said = handed::send(&stream, &Hello::to(gate).line(), io::stderr().as_fd());
    let line = first_line(&mut stream).map_err(|e| away(said.err().unwrap_or(e)))?;
    let answer = Answer::read(&line).map_err(|text| (FAILED, text))?;
    match answer.refused {
        None => Ok(stream),
        Some(refused) => {
            let code = match refused.why {
                Why::NotAdmitted | Why::Full => DENIED,
                Why::Hello | Why::UnknownGate | Why::NoServer => FAILED,
            };
            Err((code, refused.text))
        }
    }
}

/// The answer, and not a byte of what follows it.
fn first_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < HELLO_MAX && stream.read(&mut byte)? == 1 {
        match byte {
            [b'\n'] => return Ok(line),
            [byte] => line.push(byte),
        }
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection without an answer"))
}

fn copy<I, O>(gate: &str, stream: UnixStream, mut input: I, mut output: O, out: &mut Out) -> u8
where
    I: Read + Send + 'static,
    O: Write,
{
    let mut to_gate = match stream.try_clone() {
        Ok(stream) => stream,
        Err(e) => {
            out.complain(&format!("avouch gate mcp {gate}: {e}\n"));
            return FAILED;
        }
    };
    let ended = Arc::new(AtomicBool::new(false));
    let input_ended = ended.clone();
    // It may hang on its input for ever; the process does not wait for it.
    std::thread::spawn(move || {
        // A gate that no longer takes anything is not an input that has ended.
        if pump(&mut input, &mut to_gate).is_ok() {
            input_ended.store(true, Ordering::SeqCst);
        }
        let _ = to_gate.shutdown(std::net::Shutdown::Write);
    });
    let mut from_gate = stream;
    if pump(&mut from_gate, &mut output).is_ok() && !ended.load(Ordering::SeqCst) {
        out.complain(&format!("avouch gate mcp {gate}: the tool server or the run ended\n"));
        return FAILED;
    }
    0
}

/// Copies until `from` ends, also if it ends by breaking: a gate that is stopped does not read to the end first.
fn pump(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut bytes = vec![0; CHUNK];
    loop {
        let count = match from.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Ok(()),
        };
        to.write_all(bytes.get(..count).unwrap_or_default())?;
        to.flush()?;
    }
}
