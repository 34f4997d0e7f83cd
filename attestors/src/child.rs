//! A child process for tests, asleep in its own code.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A copy of `cat` that has answered once: right after `spawn` the kernel may still be at work on its image. It
/// waits for more input, and so ends with the test, however that ends.
pub(crate) fn waiting(program: &Path) -> Child {
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    child
}
