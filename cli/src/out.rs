//! The one module of this crate that speaks on standard output and standard error.
//!
//! Never colours what is not a terminal, and never a verb that SPIRE spells: scripts read those.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use parking_lot::Mutex;

/// Where a command writes. A reader that has gone away (`| head`) is no error.
pub struct Out {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    terminal: bool,
    colour: bool,
    /// Lines of the last drawing, which the next one overwrites.
    drawn: Option<usize>,
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

/// Colours of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
}

impl Out {
    /// The process's own streams. Colours only on a terminal and without `NO_COLOR`.
    #[must_use]
    pub fn standard() -> Self {
        let terminal = io::stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self { out: Box::new(io::stdout()), err: Box::new(io::stderr()), terminal, colour, drawn: None }
    }

    /// Two buffers in place of the streams, for tests.
    #[must_use]
    pub fn captured() -> (Self, Captured) {
        let captured = Captured::default();
        let out = Box::new(Buffer(Arc::clone(&captured.out)));
        let err = Box::new(Buffer(Arc::clone(&captured.err)));
        (Self { out, err, terminal: false, colour: false, drawn: None }, captured)
    }

    /// Writes `text` to standard output as it is.
    pub fn say(&mut self, text: &str) {
        self.drawn = None;
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }

    /// Writes `text` and a line end to standard output.
    pub fn line(&mut self, text: &str) {
        self.say(&format!("{text}\n"));
    }

    /// Writes `text` to standard error as it is.
    pub fn complain(&mut self, text: &str) {
        let _ = self.err.write_all(text.as_bytes());
        let _ = self.err.flush();
    }

    /// Draws `text` over the last drawing. What is not a terminal gets the first drawing only.
    pub fn redraw(&mut self, text: &str) {
        let lines = text.lines().count();
        match (self.terminal, self.drawn) {
            (true, Some(before)) => self.say(&format!("\x1b[{before}A\x1b[0J{text}\n")),
            (false, Some(_)) => {}
            (_, None) => self.say(&format!("{text}\n")),
        }
        self.drawn = Some(lines);
    }

    /// `text` in `colour`, or plain where colours have no place.
    #[must_use]
    pub fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Bold => 1,
            Colour::Dim => 2,
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// What a captured command wrote.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
}

impl Captured {
    /// Everything on standard output.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.out.lock()).into_owned()
    }

    /// Everything on standard error.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.err.lock()).into_owned()
    }
}

struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_terminal_gets_no_colour_and_one_drawing() {
        let (mut out, captured) = Out::captured();
        out.line(&out.paint(Colour::Red, "plain"));
        out.redraw("table");
        out.redraw("table again");
        assert_eq!(captured.out(), "plain\ntable\n");
    }
}
