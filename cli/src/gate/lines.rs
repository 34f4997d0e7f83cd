//! Lines out of a stream of bytes, each with a limit.
//!
//! Never holds more than one line and what came with it; what is too long is thrown away up to its end.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What is asked of the kernel at once.
const CHUNK: usize = 16 * 1024;

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Without its line end.
    Whole(Vec<u8>),
    /// It was longer than the limit, and is gone.
    TooLong,
    /// Nothing more comes. What stood behind the last line end is gone.
    End,
}

/// Reads lines.
#[derive(Debug)]
pub struct Lines<R> {
    from: R,
    most: usize,
    bytes: Vec<u8>,
    /// So much of it holds no line end.
    looked: usize,
    skipping: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads lines of at most `most` bytes.
    pub fn new(from: R, most: usize) -> Self {
        Self { from, most, bytes: Vec::new(), looked: 0, skipping: false }
    }

    /// As [`Lines::new`], where these bytes came before.
    pub fn after(bytes: Vec<u8>, from: R, most: usize) -> Self {
        Self { bytes, ..Self::new(from, most) }
    }

    /// From now on with another limit.
    pub fn limit(&mut self, most: usize) {
        self.most = most;
    }

    /// The next line. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> io::Result<Line> {
        loop {
            if let Some(line) = self.take() {
                return Ok(line);
            }
            self.bytes.reserve(CHUNK);
            if self.from.read_buf(&mut self.bytes).await? == 0 {
                return Ok(Line::End);
            }
        }
    }

    fn take(&mut self) -> Option<Line> {
        let end = self.bytes.iter().skip(self.looked).position(|byte| *byte == b'\n');
        let Some(end) = end.map(|n| n + self.looked) else {
            self.looked = self.bytes.len();
            if self.skipping || self.bytes.len() > self.most {
                (self.skipping, self.looked) = (true, 0);
                self.bytes.clear();
            }
            return None;
        };
        let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
        self.looked = 0;
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let whole = !std::mem::take(&mut self.skipping) && line.len() <= self.most;
        Some(if whole { Line::Whole(line) } else { Line::TooLong })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(bytes: &[u8], most: usize) -> Vec<Line> {
        let mut lines = Lines::new(bytes, most);
        let mut found = Vec::new();
        loop {
            match lines.next().await.unwrap() {
                Line::End => return found,
                line => found.push(line),
            }
        }
    }

    #[tokio::test]
    async fn lines_end_with_a_line_feed_and_lose_one_carriage_return() {
        let whole = |text: &str| Line::Whole(text.as_bytes().to_vec());
        assert_eq!(
            all(b"a\n\nb\r\nc\r\r\nlost", 10).await,
            [whole("a"), whole(""), whole("b"), whole("c\r")]
        );
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_thrown_away_and_the_next_is_read() {
        let whole = |text: &str| Line::Whole(text.as_bytes().to_vec());
        assert_eq!(all(b"abcd\nabc\n", 3).await, [Line::TooLong, whole("abc")]);
        let mut long = vec![b'x'; 3 * CHUNK];
        long.extend(b"\nok\n");
        assert_eq!(all(&long, CHUNK).await, [Line::TooLong, whole("ok")]);
    }
}
