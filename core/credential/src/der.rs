//! DER, as much as certificates need: nested writing into one buffer, and a reader of definite lengths.
//!
//! Certificates are written here and not by a builder crate because an issuer name has to be copied byte by
//! byte and the subject may repeat attributes. Never interprets what it reads and never panics on input.

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const PRINTABLE_STRING: u8 = 0x13;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// Primitive context-specific tag.
pub(crate) const fn context(number: u8) -> u8 {
    0x80 | number
}

/// Constructed context-specific tag.
pub(crate) const fn context_constructed(number: u8) -> u8 {
    0xa0 | number
}

/// Appends one element whose content `body` appends.
pub(crate) fn element(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let at = out.len();
    body(out);
    let length = out.len() - at;
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.insert(at, short),
        _ => {
            let bytes = length.to_be_bytes();
            let zeros = bytes.iter().take_while(|b| **b == 0).count();
            let count = u8::try_from(bytes.len() - zeros).unwrap_or(u8::MAX);
            let long = std::iter::once(0x80 | count).chain(bytes.into_iter().skip(zeros));
            drop(out.splice(at..at, long));
        }
    }
}

/// Appends one element with the content given.
pub(crate) fn primitive(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    element(out, tag, |out| out.extend_from_slice(content));
}

/// Appends a non-negative INTEGER from big-endian bytes, shortest form.
pub(crate) fn unsigned(out: &mut Vec<u8>, big_endian: &[u8]) {
    let significant = strip_zeros(big_endian);
    element(out, INTEGER, |out| {
        if significant.first().is_none_or(|b| b & 0x80 != 0) {
            out.push(0);
        }
        out.extend_from_slice(significant);
    });
}

/// Appends a BIT STRING of whole bytes.
pub(crate) fn bit_string(out: &mut Vec<u8>, content: &[u8]) {
    element(out, BIT_STRING, |out| {
        out.push(0);
        out.extend_from_slice(content);
    });
}

/// The number without leading zero bytes; zero is the empty slice.
pub(crate) fn strip_zeros(big_endian: &[u8]) -> &[u8] {
    let zeros = big_endian.iter().take_while(|b| **b == 0).count();
    big_endian.get(zeros..).unwrap_or_default()
}

/// Why bytes are no DER of the expected shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DerError {
    #[error("data is cut short")]
    CutShort,
    #[error("length is not in its shortest definite form")]
    Length,
    #[error("tag has more than one byte")]
    LongTag,
    #[error("expected tag {expected:#04x}, found {found:#04x}")]
    Tag { expected: u8, found: u8 },
    #[error("trailing data")]
    Trailing,
    #[error("integer is negative or not in its shortest form")]
    Integer,
    #[error("bit string has unused bits")]
    UnusedBits,
}

/// One element: its tag, its content, and all of its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub tag: u8,
    pub content: &'a [u8],
    pub raw: &'a [u8],
}

impl<'a> Element<'a> {
    /// A reader of the content.
    pub(crate) fn inside(self) -> Reader<'a> {
        Reader { rest: self.content }
    }
}

/// Reads elements one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The tag of the next element, if there is one.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Error unless everything was read.
    pub(crate) fn end(self) -> Result<(), DerError> {
        if self.is_empty() { Ok(()) } else { Err(DerError::Trailing) }
    }

    /// The next element, whatever it is.
    pub(crate) fn any(&mut self) -> Result<Element<'a>, DerError> {
        let (tag, rest) = self.rest.split_first().ok_or(DerError::CutShort)?;
        if tag & 0x1f == 0x1f {
            return Err(DerError::LongTag);
        }
        let (first, rest) = rest.split_first().ok_or(DerError::CutShort)?;
        let (length, rest) = match first {
            short if *short < 0x80 => (usize::from(*short), rest),
            long => {
                let count = usize::from(long & 0x7f);
                if count == 0 || count > 4 {
                    return Err(DerError::Length);
                }
                let (bytes, rest) = rest.split_at_checked(count).ok_or(DerError::CutShort)?;
                let length = bytes.iter().fold(0_usize, |n, b| n << 8 | usize::from(*b));
                if bytes.first() == Some(&0) || length < 0x80 {
                    return Err(DerError::Length);
                }
                (length, rest)
            }
        };
        let (content, after) = rest.split_at_checked(length).ok_or(DerError::CutShort)?;
        let size = self.rest.len() - after.len();
        let raw = self.rest.get(..size).unwrap_or_default();
        self.rest = after;
        Ok(Element { tag: *tag, content, raw })
    }

    /// The next element, which has this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<Element<'a>, DerError> {
        let element = self.any()?;
        if element.tag == tag {
            Ok(element)
        } else {
            Err(DerError::Tag { expected: tag, found: element.tag })
        }
    }

    /// The next element if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, DerError> {
        if self.peek() == Some(tag) { self.any().map(Some) } else { Ok(None) }
    }

    /// The bytes of a BIT STRING without unused bits.
    pub(crate) fn bits(&mut self) -> Result<&'a [u8], DerError> {
        match self.expect(BIT_STRING)?.content.split_first() {
            Some((0, bytes)) => Ok(bytes),
            _ => Err(DerError::UnusedBits),
        }
    }

    /// A non-negative INTEGER as big-endian bytes without leading zeros.
    pub(crate) fn unsigned(&mut self) -> Result<&'a [u8], DerError> {
        match self.expect(INTEGER)?.content {
            [] => Err(DerError::Integer),
            [0] => Ok(&[]),
            [0, rest @ ..] if rest.first().is_some_and(|b| b & 0x80 != 0) => Ok(rest),
            [0, ..] => Err(DerError::Integer),
            [first, ..] if first & 0x80 != 0 => Err(DerError::Integer),
            content => Ok(content),
        }
    }
}

/// The one element that `bytes` is.
pub(crate) fn only(bytes: &[u8], tag: u8) -> Result<Element<'_>, DerError> {
    let mut reader = Reader::new(bytes);
    let element = reader.expect(tag)?;
    reader.end()?;
    Ok(element)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_in_their_shortest_form_and_read_back() {
        for (size, header) in [
            (0, vec![4, 0]),
            (127, vec![4, 127]),
            (128, vec![4, 0x81, 128]),
            (256, vec![4, 0x82, 1, 0]),
            (65_536, vec![4, 0x83, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            primitive(&mut out, OCTET_STRING, &vec![7; size]);
            assert!(out.starts_with(&header), "{size}");
            assert_eq!(only(&out, OCTET_STRING).unwrap().content.len(), size);
        }
    }

    #[test]
    fn longer_forms_of_a_length_are_refused() {
        for bad in [&[4, 0x81, 1, 7][..], &[4, 0x80, 0, 0], &[4, 0x82, 0, 200], &[4, 0x85, 0, 0, 0, 0, 1]] {
            assert_eq!(Reader::new(bad).any().unwrap_err(), DerError::Length, "{bad:?}");
        }
    }

    #[test]
    fn data_that_ends_early_is_refused() {
        for bad in [&[][..], &[4], &[4, 2, 1], &[4, 0x82, 1]] {
            assert_eq!(Reader::new(bad).any().unwrap_err(), DerError::CutShort, "{bad:?}");
        }
    }

    #[test]
    fn integers_are_positive_and_shortest() {
        for (bytes, encoded) in [
            (&[0, 0][..], &[2, 1, 0][..]),
            (&[0, 1], &[2, 1, 1]),
            (&[0x80], &[2, 2, 0, 0x80]),
            (&[1, 0], &[2, 2, 1, 0]),
        ] {
            let mut out = Vec::new();
            unsigned(&mut out, bytes);
            assert_eq!(out, encoded);
            assert_eq!(Reader::new(&out).unsigned().unwrap(), strip_zeros(bytes));
        }
        for bad in [&[2, 0][..], &[2, 1, 0x80], &[2, 2, 0, 1]] {
            assert_eq!(Reader::new(bad).unsigned().unwrap_err(), DerError::Integer);
        }
    }

    #[test]
    fn nothing_may_follow_the_only_element() {
        assert_eq!(only(&[4, 0, 0], OCTET_STRING).unwrap_err(), DerError::Trailing);
    }
}
