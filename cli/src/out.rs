//! The one module of this crate that speaks on standard output and standard error.
//!
//! Never colours what is not a terminal, and never a verb that SPIRE spells: scripts read those.

use std::fmt;
use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use avouch_domain::Tick;
use parking_lot::Mutex;

use crate::clock;

/// What takes longer than this is shown to go on, and how often.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Where a command writes. A reader that has gone away (`| head`) is no error.
pub struct Out {
    out: Box<dyn Write + Send>,
    progress: Progress,
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
        let progress = Progress::new(Box::new(io::stderr()), io::stderr().is_terminal());
        Self { out: Box::new(io::stdout()), progress, terminal, colour, drawn: None }
    }

    /// Two buffers in place of the streams, for tests.
    #[must_use]
    pub fn captured() -> (Self, Captured) {
        Self::captured_as(false)
    }

    /// As [`Out::captured`], behaving as on a terminal or not.
    #[must_use]
    pub fn captured_as(terminal: bool) -> (Self, Captured) {
        let captured = Captured::default();
        let out = Box::new(Buffer(Arc::clone(&captured.out)));
        let progress = Progress::new(Box::new(Buffer(Arc::clone(&captured.err))), terminal);
        (Self { out, progress, terminal, colour: terminal, drawn: None }, captured)
    }

    /// The handle by which something long shows that it goes on.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Waits for `work`; past a second a line on standard error says what is waited for, if that is a terminal.
    pub async fn during<T>(&mut self, what: &str, work: impl Future<Output = T>) -> T {
        self.progress().during(what, work).await
    }

    /// Writes `text` to standard output as it is.
    pub fn say(&mut self, text: &str) {
        self.progress.clear();
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
        self.progress.clear();
        self.progress.write(text);
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

/// One line on standard error that says what is waited for. Written to terminals only, and taken away at the end.
#[derive(Clone)]
pub struct Progress {
    err: Arc<Mutex<Box<dyn Write + Send>>>,
    terminal: bool,
    shown: Arc<AtomicBool>,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

impl Progress {
    fn new(err: Box<dyn Write + Send>, terminal: bool) -> Self {
        Self { err: Arc::new(Mutex::new(err)), terminal, shown: Arc::default() }
    }

    /// As [`Out::during`], for work that writes to the streams itself.
    pub async fn during<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        if !self.terminal {
            return work.await;
        }
        tokio::pin!(work);
        let begun = clock::now().mono;
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                () = tokio::time::sleep(PROGRESS_EVERY) => self.show(what, begun),
            }
        };
        self.clear();
        done
    }

    /// For work that waits for no future: shows the share done, once it goes on for more than a second.
    pub fn share(&self, what: &str, begun: Tick, done: u64, all: u64) {
        if self.terminal && clock::now().mono.since(begun) >= PROGRESS_EVERY {
            let percent = done.saturating_mul(100).checked_div(all).unwrap_or(100);
            self.line(&format!("{what}: {percent} %"));
        }
    }

    fn show(&self, what: &str, begun: Tick) {
        self.line(&format!("{what} … {} s", clock::now().mono.since(begun).as_secs()));
    }

    fn line(&self, text: &str) {
        self.shown.store(true, Ordering::Relaxed);
        self.write(&format!("\r\x1b[K{text}"));
    }

    /// Takes the line away.
    pub fn clear(&self) {
        if self.shown.swap(false, Ordering::Relaxed) {
            self.write("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        let mut err = self.err.lock();
        let _ = err.write_all(text.as_bytes());
        let _ = err.flush();
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

    #[test]
    fn a_terminal_gets_colours_and_one_drawing_over_the_other() {
        let (mut out, captured) = Out::captured_as(true);
        out.line(&out.paint(Colour::Red, "red"));
        out.redraw("a\nb");
        out.redraw("c");
        assert_eq!(captured.out(), "\x1b[31mred\x1b[0m\na\nb\n\x1b[2A\x1b[0Jc\n");
    }

    /// Ends once something stands on standard error.
    async fn until_said(captured: &Captured) {
        while captured.err().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn on_a_terminal_a_long_wait_is_shown_and_taken_away() {
        let (mut out, captured) = Out::captured_as(true);
        out.during("waiting", until_said(&captured)).await;
        assert_eq!(captured.err(), "\r\x1b[Kwaiting … 1 s\r\x1b[K");
        assert_eq!(captured.out(), "");
    }

    #[tokio::test]
    async fn what_is_no_terminal_gets_no_progress() {
        let (mut out, captured) = Out::captured();
        let begun = Tick(0);
        out.progress().share("copying", begun, 1, 2);
        assert_eq!(out.during("waiting", async { 7 }).await, 7);
        assert_eq!(captured.err(), "");
    }

    #[test]
    fn what_is_said_takes_the_progress_away_first() {
        let (mut out, captured) = Out::captured_as(true);
        out.progress().line("half");
        out.complain("done\n");
        assert_eq!(captured.err(), "\r\x1b[Khalf\r\x1b[Kdone\n");
    }
}
