//! The message `EntryRevision`, written by hand: ten thousand of them are one answer, so none may ask for memory.
//!
//! On the wire it is what the generated code would make of `spire/api/server/entry/v1/entry.proto`. Never decides what
//! an ID may look like.

use avouch_domain::ShortText;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, int64, key_len, skip_field, string};
use prost::encoding::{encode_key, encode_varint, encoded_len_varint};
use prost::{DecodeError, Message};

/// What tells an agent whether it holds an entry as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryRevision {
    pub id: ShortText,
    pub revision_number: i64,
    /// Unix seconds.
    pub created_at: i64,
}

const ID: u32 = 1;
const REVISION_NUMBER: u32 = 2;
const CREATED_AT: u32 = 3;
/// Largest encoding of one whose ID is kept in place: three keys, a length and two numbers besides.
const SMALL: usize = ShortText::IN_PLACE + 3 + 1 + 2 * 10;

impl EntryRevision {
    fn write(&self, buf: &mut impl BufMut) {
        let id = self.id.as_bytes();
        if !id.is_empty() {
            encode_key(ID, WireType::LengthDelimited, buf);
            encode_varint(id.len() as u64, buf);
            buf.put_slice(id);
        }
        if self.revision_number != 0 {
            int64::encode(REVISION_NUMBER, &self.revision_number, buf);
        }
        if self.created_at != 0 {
            int64::encode(CREATED_AT, &self.created_at, buf);
        }
    }
}

impl Message for EntryRevision {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if self.id.as_bytes().len() > ShortText::IN_PLACE {
            return self.write(buf);
        }
        // The message's buffer is asked for room once, not for every byte.
        let mut small = [0; SMALL];
        let mut room = small.as_mut_slice();
        self.write(&mut room);
        let written = SMALL - room.len();
        buf.put_slice(small.get(..written).unwrap_or_default());
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let (field, merged) = match tag {
            ID => {
                let mut text = String::new();
                let merged = string::merge(wire_type, &mut text, buf, ctx);
                self.id = ShortText::new(&text);
                ("id", merged)
            }
            REVISION_NUMBER => {
                ("revision_number", int64::merge(wire_type, &mut self.revision_number, buf, ctx))
            }
            CREATED_AT => ("created_at", int64::merge(wire_type, &mut self.created_at, buf, ctx)),
            _ => return skip_field(wire_type, tag, buf, ctx),
        };
        merged.map_err(|mut error| {
            error.push("EntryRevision", field);
            error
        })
    }

    fn encoded_len(&self) -> usize {
        let id = match self.id.as_bytes().len() {
            0 => 0,
            len => key_len(ID) + encoded_len_varint(len as u64) + len,
        };
        let number = |tag, value: i64| if value == 0 { 0 } else { int64::encoded_len(tag, &value) };
        id + number(REVISION_NUMBER, self.revision_number) + number(CREATED_AT, self.created_at)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As generated code has it.
    #[derive(Clone, PartialEq, Message)]
    struct Generated {
        #[prost(string, tag = "1")]
        id: String,
        #[prost(int64, tag = "2")]
        revision_number: i64,
        #[prost(int64, tag = "3")]
        created_at: i64,
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_generated_code(
            id in "[a-z0-9-]{0,50}",
            revision_number in prop_oneof![Just(0), any::<i64>()],
            created_at in prop_oneof![Just(0), any::<i64>()],
        ) {
            let generated = Generated { id, revision_number, created_at };
            let revision = EntryRevision { id: ShortText::new(&generated.id), revision_number, created_at };
            let bytes = revision.encode_to_vec();
            prop_assert_eq!(&bytes, &generated.encode_to_vec());
            prop_assert_eq!(revision.encoded_len(), bytes.len());
            prop_assert_eq!(EntryRevision::decode(bytes.as_slice()).unwrap(), revision);
        }

        #[test]
        fn other_bytes_are_read_and_refused_as_by_generated_code(
            bytes in prop::collection::vec(prop_oneof![0u8..40, any::<u8>()], 0..40),
        ) {
            let generated = Generated::decode(bytes.as_slice());
            let read = EntryRevision::decode(bytes.as_slice());
            prop_assert_eq!(generated.is_ok(), read.is_ok());
            if let (Ok(generated), Ok(read)) = (generated, read) {
                prop_assert_eq!(generated.encode_to_vec(), read.encode_to_vec());
            }
        }
    }

    #[test]
    fn the_last_of_repeated_fields_counts_and_unknown_ones_are_skipped() {
        let mut bytes = Generated { id: "a".into(), revision_number: 1, created_at: 2 }.encode_to_vec();
        bytes.extend(Generated { id: "b".into(), revision_number: 3, created_at: 0 }.encode_to_vec());
        bytes.extend([0x20, 9]);
        let read = EntryRevision::decode(bytes.as_slice()).unwrap();
        assert_eq!(read, EntryRevision { id: ShortText::new("b"), revision_number: 3, created_at: 2 });
    }
}
