//! Bodies on both ways: the beginning of a request's, which is looked at before anything is decided; and an answer's, which
//! ends where it would tell the secret.
//!
//! Never holds more than its limits, and never passes on trailers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use zeroize::Zeroizing;

use crate::gate::limits::HTTP_BODY_MAX;

/// What ends a body early.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// A body of either way.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body of these bytes.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body of which the beginning was read.
#[derive(Debug)]
pub struct Begun {
    first: VecDeque<Bytes>,
    held: usize,
    rest: Option<Incoming>,
}

impl Begun {
    /// Reads until more than `most` bytes are there, or all of them.
    ///
    /// # Errors
    /// The caller broke off.
    pub async fn read(mut from: Incoming, most: usize) -> Result<Self, hyper::Error> {
        let (mut first, mut held) = (VecDeque::new(), 0);
        while held <= most {
            let Some(frame) = from.frame().await else {
                return Ok(Self { first, held, rest: None });
            };
            if let Ok(data) = frame?.into_data() {
                held += data.len();
                first.push_back(data);
            }
        }
        Ok(Self { first, held, rest: Some(from) })
    }

    /// True if there is not a byte in it.
    pub fn is_empty(&self) -> bool {
        self.held == 0 && self.rest.is_none()
    }

    /// All of it, if all of it was read.
    pub fn all(&self) -> Option<Vec<u8>> {
        self.rest.is_none().then(|| self.first.iter().flatten().copied().collect())
    }

    /// The body as it goes on.
    pub fn on(self) -> Body {
        match self.rest {
            None => whole(self.first.iter().flatten().copied().collect::<Vec<u8>>()),
            Some(rest) => Going { first: self.first, rest, passed: 0 }.boxed_unsync(),
        }
    }
}

/// First what was read, then the rest as it comes.
struct Going {
    first: VecDeque<Bytes>,
    rest: Incoming,
    passed: u64,
}

impl hyper::body::Body for Going {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let data = match this.first.pop_front() {
            Some(data) => data,
            None => loop {
                match ready!(Pin::new(&mut this.rest).poll_frame(cx)) {
                    None => return Poll::Ready(None),
                    Some(Err(e)) => return Poll::Ready(Some(Err(e.into()))),
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            break data;
                        }
                    }
                }
            },
        };
        this.passed = this.passed.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if this.passed > HTTP_BODY_MAX {
            return Poll::Ready(Some(Err(format!("the body has more than {HTTP_BODY_MAX} bytes").into())));
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        let first: usize = self.first.iter().map(Bytes::len).sum();
        match (self.rest.size_hint().exact(), u64::try_from(first)) {
            (Some(rest), Ok(first)) => SizeHint::with_exact(rest + first),
            _ => SizeHint::default(),
        }
    }
}

/// Where these bytes stand in others.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, rest) = needle.split_first()?;
    let mut at = 0;
    while let Some(found) = hay.get(at..)?.iter().position(|byte| byte == first) {
        at += found + 1;
        if hay.get(at..)?.starts_with(rest) {
            return Some(at - 1);
        }
    }
    None
}

/// An answer as it comes, up to where the secret would be told. What could be the secret's beginning waits until it is known
/// to be none.
pub struct Watched {
    from: Incoming,
    secret: Zeroizing<Vec<u8>>,
    held: Vec<u8>,
    over: bool,
}

impl Watched {
    /// The body of an answer to a request that went out with this secret; an empty one is never found.
    pub fn body(from: Incoming, secret: Zeroizing<Vec<u8>>) -> Body {
        Self { from, secret, held: Vec::new(), over: false }.boxed_unsync()
    }

    /// What may be passed on of these bytes; `None` if the secret is among them.
    fn pass(&mut self, data: Bytes) -> Option<Bytes> {
        if self.secret.is_empty() {
            return Some(data);
        }
        let data = if self.held.is_empty() {
            data
        } else {
            [&std::mem::take(&mut self.held)[..], &data].concat().into()
        };
        if find(&data, &self.secret).is_some() {
            return None;
        }
        let longest = data.len().min(self.secret.len() - 1);
        let ends = |n: &usize| data.ends_with(self.secret.get(..*n).unwrap_or_default());
        let held = (1..=longest).rev().find(ends).unwrap_or(0);
        let mut data = data;
        self.held = data.split_off(data.len() - held).to_vec();
        Some(data)
    }
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        while !this.over {
            match ready!(Pin::new(&mut this.from).poll_frame(cx)) {
                None => this.over = true,
                Some(Err(e)) => return Poll::Ready(Some(Err(e.into()))),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    match this.pass(data) {
                        None => {
                            return Poll::Ready(Some(Err("the answer tells the secret of the gate".into())));
                        }
                        Some(data) if data.is_empty() => {}
                        Some(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    }
                }
            }
        }
        let last = std::mem::take(&mut this.held);
        Poll::Ready((!last.is_empty()).then(|| Ok(Frame::data(last.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && (self.over || self.from.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let held = u64::try_from(self.held.len()).unwrap_or(u64::MAX);
        self.from.size_hint().exact().map_or_else(SizeHint::default, |n| SizeHint::with_exact(n + held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_wherever_they_stand() {
        for (hay, needle, at) in [
            ("", "ab", None),
            ("ab", "ab", Some(0)),
            ("aab", "ab", Some(1)),
            ("abaab!", "aab", Some(2)),
            ("aba", "abb", None),
        ] {
            assert_eq!(find(hay.as_bytes(), needle.as_bytes()), at, "{hay} {needle}");
        }
        assert_eq!(find(b"x", b""), None);
    }
}
