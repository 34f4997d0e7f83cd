//! Finds one field of a header block without decoding the others (RFC 7541 6): decoding all of them costs as much as
//! the whole call, and most clients' authority is in order.
//!
//! Never reads a value: that is the library's part.

/// Index of `:authority` in the static table (RFC 7541 appendix A).
const AUTHORITY: usize = 1;
/// Bytes of an integer beyond which nothing sensible is meant: 28 bits of value.
const INTEGER_BYTES_MAX: usize = 5;

/// The bytes of the field that gives `:authority` literally, if the fields up to it can be walked over.
pub fn authority(block: &[u8]) -> Option<&[u8]> {
    let mut rest = block;
    loop {
        let field = rest;
        let first = *field.first()?;
        // 1: indexed; 01: literal, kept; 001: new table size; 0000 and 0001: literal, not kept.
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let (index, after) = integer(field, prefix)?;
        rest = after;
        if literal {
            if index == 0 {
                rest = string(rest)?;
            }
            rest = string(rest)?;
            if index == AUTHORITY {
                return field.get(..field.len() - rest.len());
            }
        }
    }
}

/// An integer with a prefix of so many bits (RFC 7541 5.1), and what follows it.
fn integer(bytes: &[u8], prefix: u32) -> Option<(usize, &[u8])> {
    let full = (1_usize << prefix) - 1;
    let (first, mut rest) = bytes.split_first()?;
    let mut value = usize::from(*first) & full;
    if value < full {
        return Some((value, rest));
    }
    for place in 0..INTEGER_BYTES_MAX - 1 {
        let (byte, after) = rest.split_first()?;
        rest = after;
        value += (usize::from(*byte) & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

/// What follows a string (RFC 7541 5.2).
fn string(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = integer(bytes, 7)?;
    rest.get(length..)
}

#[cfg(test)]
mod tests {
    use loona_hpack::{Decoder, Encoder};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_field_is_found_behind_indexed_literal_and_huffman_coded_ones() {
        // RFC 7541 C.4.1: method, scheme and path indexed, www.example.com in Huffman code.
        let block = [
            0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4,
            0xff,
        ];
        assert_eq!(authority(&block), Some(&block[3..]));
        let block = Encoder::new().encode([
            (&b":path"[..], &[b'p'; 300][..]),
            (&b"own-name"[..], &b"v"[..]),
            (&b":authority"[..], &b"a%2Fb"[..]),
            (&b"x"[..], &b"y"[..]),
        ]);
        let field = authority(&block).unwrap();
        assert_eq!(Decoder::new().decode(field).unwrap(), [(b":authority".to_vec(), b"a%2Fb".to_vec())]);
    }

    #[test]
    fn a_block_without_it_or_cut_short_has_none() {
        assert_eq!(authority(&[0x82, 0x86, 0x84]), None);
        assert_eq!(authority(&[0x41, 0x8c, 0xf1]), None);
        assert_eq!(authority(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_over_without_a_panic(block in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(field) = authority(&block) {
                prop_assert!(!field.is_empty());
            }
        }
    }
}
