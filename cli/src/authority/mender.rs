//! The bytes: frames are passed on as they come, header blocks are read and written anew (RFC 9113 4, RFC 7541).
//!
//! Never holds more than one header block, and that within a limit. What does not look like HTTP/2 is passed on:
//! judging it is the HTTP library's business. So is everything after a first request whose authority can be read: a
//! client has one authority for all requests of a connection.

use std::fmt;

use loona_hpack::{Decoder, Encoder};
use parking_lot::Mutex;

use super::fields;

/// Bytes of the client's connection preface (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame header.
const HEADER: usize = 9;
/// Largest frame every peer accepts (RFC 9113 4.2).
const FRAME_MAX: usize = 16_384;
/// Most bytes of one encoded header block, continuations included: four times the largest metadata taken.
const BLOCK_MAX: usize = 64 * 1024;
/// Most frames of one header block: a client that fills its frames needs four, and an empty one has no bytes to count.
const BLOCK_FRAMES_MAX: usize = 64;
/// Most bytes of one decoded header list: a short block may unfold to a long one.
const LIST_MAX: usize = 256 * 1024;

/// Longest field that is remembered: a host name.
const REMEMBERED_MAX: usize = 256;

const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;

/// Why a connection can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MendError {
    #[error("a header block has more than 65536 bytes")]
    BlockTooLong,
    #[error("a header block has more than 64 frames")]
    TooManyFrames,
    #[error("a header list has more than 262144 bytes")]
    ListTooLong,
    #[error("a header block can't be decoded")]
    Undecodable,
    #[error("a header frame is shorter than its padding and priority")]
    Short,
}

/// The authority of the first request of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    NotSeen,
    /// Nothing is to be mended on this connection.
    Readable,
    Unreadable,
}

#[derive(Debug)]
enum State {
    /// Comparing with the preface; so many bytes fit.
    Preface(usize),
    Header,
    /// So many bytes of the frame are passed on as they are.
    Pass(usize),
    /// So many bytes of the frame belong to the header block.
    Block(usize),
    /// Not HTTP/2, or nothing to mend: everything is passed on.
    Foreign,
}

/// One direction of one connection.
pub struct Mender {
    state: State,
    header: Vec<u8>,
    frame: Vec<u8>,
    block: Vec<u8>,
    /// Stream, flags and priority bytes of the block being gathered.
    open: Option<Open>,
    first: First,
    tables: Option<Box<(Decoder<'static>, Encoder<'static>)>>,
}

#[derive(Clone, Debug)]
struct Open {
    stream: [u8; 4],
    flags: u8,
    priority: Vec<u8>,
    frames: usize,
}

impl fmt::Debug for Mender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mender").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Mender {
    pub fn new() -> Self {
        Self {
            state: State::Preface(0),
            header: Vec::new(),
            frame: Vec::new(),
            block: Vec::new(),
            open: None,
            first: First::NotSeen,
            tables: None,
        }
    }

    /// Takes in what came and appends what goes on.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), MendError> {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Preface(fits) => self.preface(fits, bytes, out),
                State::Header => self.header(bytes, out)?,
                State::Pass(rest) => {
                    let (now, later) = split(bytes, rest);
                    out.extend_from_slice(now);
                    self.state = next(State::Pass(rest - now.len()), rest - now.len());
                    later
                }
                State::Block(rest) => {
                    let (now, later) = split(bytes, rest);
                    self.frame.extend_from_slice(now);
                    let left = rest - now.len();
                    self.state = next(State::Block(left), left);
                    if left == 0 {
                        self.end_of_frame(out)?;
                    }
                    if self.first == First::Readable {
                        self.state = State::Foreign;
                    }
                    later
                }
                State::Foreign => {
                    out.extend_from_slice(bytes);
                    &[]
                }
            };
        }
        Ok(())
    }

    fn preface<'a>(&mut self, fits: usize, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let wanted = PREFACE.get(fits..).unwrap_or_default();
        let (now, later) = split(bytes, wanted.len());
        out.extend_from_slice(now);
        self.state = if !wanted.starts_with(now) {
            State::Foreign
        } else if now.len() == wanted.len() {
            State::Header
        } else {
            State::Preface(fits + now.len())
        };
        later
    }

    fn header<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], MendError> {
        let (now, later) = split(bytes, HEADER - self.header.len());
        self.header.extend_from_slice(now);
        let &[l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.header.as_slice() else { return Ok(later) };
        let length = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
        let head = std::mem::take(&mut self.header);
        match (kind, &mut self.open) {
            (HEADERS, None) => {
                self.open = Some(Open { stream: [s0, s1, s2, s3], flags, priority: Vec::new(), frames: 1 });
            }
            (CONTINUATION, Some(open)) => {
                open.flags |= flags & END_HEADERS;
                open.frames += 1;
                if open.frames > BLOCK_FRAMES_MAX {
                    return Err(MendError::TooManyFrames);
                }
            }
            _ => {
                out.extend_from_slice(&head);
                self.state = next(State::Pass(length), length);
                return Ok(later);
            }
        }
        if self.block.len() + length > BLOCK_MAX {
            return Err(MendError::BlockTooLong);
        }
        self.state = next(State::Block(length), length);
        if length == 0 {
            self.end_of_frame(out)?;
        }
        Ok(later)
    }

    /// Takes the block's part out of the frame; after the last part the block is mended and sent on.
    fn end_of_frame(&mut self, out: &mut Vec<u8>) -> Result<(), MendError> {
        let frame = std::mem::take(&mut self.frame);
        let Some(open) = &mut self.open else { return Ok(()) };
        let mut part = frame.as_slice();
        if open.flags & PADDED != 0 {
            let (padding, rest) = part.split_first().ok_or(MendError::Short)?;
            part = rest
                .get(..rest.len().checked_sub(usize::from(*padding)).ok_or(MendError::Short)?)
                .unwrap_or_default();
            open.flags &= !PADDED;
        }
        if open.flags & PRIORITY != 0 && open.priority.is_empty() {
            let (priority, rest) = part.split_at_checked(PRIORITY_BYTES).ok_or(MendError::Short)?;
            open.priority = priority.to_vec();
            part = rest;
        }
        self.block.extend_from_slice(part);
        if open.flags & END_HEADERS == 0 {
            return Ok(());
        }
        let open = self.open.take();
        let block = std::mem::take(&mut self.block);
        if self.first == First::NotSeen {
            let readable = fields::authority(&block).is_some_and(is_readable);
            self.first = if readable { First::Readable } else { First::Unreadable };
        }
        let mended = if self.first == First::Readable { block } else { self.mend(&block)? };
        if let Some(open) = open {
            write(&open, &mended, out);
        }
        Ok(())
    }

    fn mend(&mut self, block: &[u8]) -> Result<Vec<u8>, MendError> {
        let (decoder, encoder) =
            &mut **self.tables.get_or_insert_with(|| Box::new((Decoder::new(), Encoder::new())));
        let mut list: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        decoder
            .decode_with_cb(block, |name, value| {
                bytes += name.len() + value.len();
                if bytes <= LIST_MAX {
                    list.push((name.into_owned(), value.into_owned()));
                }
            })
            .map_err(|_| MendError::Undecodable)?;
        if bytes > LIST_MAX {
            return Err(MendError::ListTooLong);
        }
        for (name, value) in &mut list {
            if name == b":authority" && http::uri::Authority::try_from(value.as_slice()).is_err() {
                *value = b"localhost".to_vec();
            }
        }
        Ok(encoder.encode(list.iter().map(|(n, v)| (n.as_slice(), v.as_slice()))))
    }
}

/// The last field that could be read: nearly all clients of a socket send the same one, and reading it takes longer than
/// all the rest of a connection's first request.
static READABLE: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// True if this field, a whole header block of its own, holds an authority that can be read.
fn is_readable(field: &[u8]) -> bool {
    if !field.is_empty() && *READABLE.lock() == field {
        return true;
    }
    let Ok(list) = Decoder::new().decode(field) else { return false };
    let readable = matches!(list.as_slice(), [(name, value)] if name == b":authority" && http::uri::Authority::try_from(value.as_slice()).is_ok());
    if readable && field.len() <= REMEMBERED_MAX {
        *READABLE.lock() = field.to_vec();
    }
    readable
}

/// Writes a block as one HEADERS frame and as many CONTINUATION frames as it takes.
fn write(open: &Open, block: &[u8], out: &mut Vec<u8>) {
    let (first, rest) = split(block, FRAME_MAX - open.priority.len());
    let mut rest = rest.chunks(FRAME_MAX).peekable();
    let end = |last: bool| if last { END_HEADERS } else { 0 };
    let flags = open.flags & (END_STREAM | PRIORITY) | end(rest.peek().is_none());
    frame(HEADERS, flags, open.stream, &[&open.priority, first], out);
    while let Some(part) = rest.next() {
        frame(CONTINUATION, end(rest.peek().is_none()), open.stream, &[part], out);
    }
}

fn frame(kind: u8, flags: u8, stream: [u8; 4], parts: &[&[u8]], out: &mut Vec<u8>) {
    let length: usize = parts.iter().map(|p| p.len()).sum();
    // Below FRAME_MAX, so three bytes hold it.
    let [.., l0, l1, l2] = length.to_be_bytes();
    out.extend_from_slice(&[l0, l1, l2, kind, flags]);
    out.extend_from_slice(&stream);
    parts.iter().for_each(|p| out.extend_from_slice(p));
}

fn split(bytes: &[u8], at: usize) -> (&[u8], &[u8]) {
    bytes.split_at(at.min(bytes.len()))
}

fn next(state: State, left: usize) -> State {
    if left == 0 { State::Header } else { state }
}

#[cfg(test)]
mod tests {
    use super::*;

    type List = Vec<(Vec<u8>, Vec<u8>)>;

    fn request(authority: &str) -> List {
        [(":method", "POST"), (":authority", authority), (":path", "/a"), ("x", "y")]
            .map(|(n, v)| (n.into(), v.into()))
            .to_vec()
    }

    fn sent(blocks: &[&List]) -> Vec<u8> {
        let mut encoder = Encoder::new();
        let mut bytes = PREFACE.to_vec();
        for list in blocks {
            let block = encoder.encode(list.iter().map(|(n, v)| (n.as_slice(), v.as_slice())));
            frame(HEADERS, END_HEADERS | END_STREAM, [0, 0, 0, 1], &[&block], &mut bytes);
            frame(0, 0, [0, 0, 0, 1], &[b"payload"], &mut bytes);
        }
        bytes
    }

    fn received(mut bytes: &[u8]) -> Vec<List> {
        bytes = bytes.strip_prefix(PREFACE).unwrap();
        let (mut decoder, mut lists) = (Decoder::new(), Vec::new());
        while !bytes.is_empty() {
            let length = usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
            let (kind, payload) = (bytes[3], &bytes[HEADER..HEADER + length]);
            if kind == HEADERS {
                lists.push(decoder.decode(payload).unwrap());
            } else {
                assert_eq!(payload, b"payload");
            }
            bytes = &bytes[HEADER + length..];
        }
        lists
    }

    fn mended(bytes: &[u8], chunk: usize) -> Vec<u8> {
        let (mut mender, mut out) = (Mender::new(), Vec::new());
        bytes.chunks(chunk).for_each(|c| mender.push(c, &mut out).unwrap());
        out
    }

    #[test]
    fn a_socket_path_becomes_localhost_on_every_request_however_the_bytes_are_cut() {
        let bytes =
            sent(&[&request("tmp%2Fapi.sock"), &request("/tmp/api.sock"), &request("tmp%2Fapi.sock")]);
        for chunk in [1, 7, 4096] {
            assert_eq!(received(&mended(&bytes, chunk)), vec![request("localhost"); 3]);
        }
    }

    #[test]
    fn an_authority_that_can_be_read_stays() {
        let bytes = sent(&[&request("localhost"), &request("example.org:80")]);
        assert_eq!(received(&mended(&bytes, 100)), [request("localhost"), request("example.org:80")]);
    }

    #[test]
    fn after_a_first_request_that_can_be_read_nothing_is_touched_any_more() {
        let bytes = sent(&[&request("localhost"), &request("a%2Fb")]);
        for chunk in [1, 7, 4096] {
            assert_eq!(mended(&bytes, chunk), bytes);
        }
    }

    #[test]
    fn what_was_read_of_one_connection_is_not_believed_of_another_authority() {
        for authority in ["localhost", "a%2Fb", "localhost", "a%2Fb"] {
            let out = received(&mended(&sent(&[&request(authority)]), 100));
            assert_eq!(out, [request("localhost")]);
        }
    }

    #[test]
    fn padding_and_priority_are_taken_apart() {
        let block = Encoder::new().encode([(&b":authority"[..], &b"a%2Fb"[..])]);
        let mut bytes = PREFACE.to_vec();
        let priority = [0, 0, 0, 0, 7];
        frame(
            HEADERS,
            END_HEADERS | PADDED | PRIORITY,
            [0, 0, 0, 3],
            &[&[2], &priority, &block, &[0, 0]],
            &mut bytes,
        );
        let out = mended(&bytes, 5);
        let payload = &out[PREFACE.len() + HEADER..];
        assert_eq!(&payload[..5], priority);
        assert_eq!(
            Decoder::new().decode(&payload[5..]).unwrap(),
            [(b":authority".to_vec(), b"localhost".to_vec())]
        );
    }

    #[test]
    fn a_block_over_the_limit_ends_the_connection() {
        let mut bytes = PREFACE.to_vec();
        frame(HEADERS, 0, [0, 0, 0, 1], &[&[0; 60_000]], &mut bytes);
        frame(CONTINUATION, 0, [0, 0, 0, 1], &[&[0; 10_000]], &mut bytes);
        assert_eq!(Mender::new().push(&bytes, &mut Vec::new()), Err(MendError::BlockTooLong));
    }

    #[test]
    fn a_block_of_frames_without_end_ends_the_connection_even_if_they_are_empty() {
        let mut bytes = PREFACE.to_vec();
        frame(HEADERS, 0, [0, 0, 0, 1], &[&[]], &mut bytes);
        for _ in 1..BLOCK_FRAMES_MAX {
            frame(CONTINUATION, 0, [0, 0, 0, 1], &[&[]], &mut bytes);
        }
        let mut mender = Mender::new();
        assert_eq!(mender.push(&bytes, &mut Vec::new()), Ok(()));
        bytes.clear();
        frame(CONTINUATION, 0, [0, 0, 0, 1], &[&[]], &mut bytes);
        assert_eq!(mender.push(&bytes, &mut Vec::new()), Err(MendError::TooManyFrames));
    }

    #[test]
    fn a_block_that_unfolds_without_end_is_refused() {
        let mut encoder = Encoder::new();
        let long = vec![b'a'; 3000];
        let mut block = encoder.encode([(&b"x"[..], long.as_slice())]);
        block.extend(std::iter::repeat_n(0xbe, 1000));
        let mut bytes = PREFACE.to_vec();
        frame(HEADERS, END_HEADERS, [0, 0, 0, 1], &[&block], &mut bytes);
        assert_eq!(Mender::new().push(&bytes, &mut Vec::new()), Err(MendError::ListTooLong));
    }

    #[test]
    fn what_is_no_http2_is_passed_on() {
        assert_eq!(mended(b"GET / HTTP/1.1\r\n\r\n", 3), b"GET / HTTP/1.1\r\n\r\n");
    }
}
