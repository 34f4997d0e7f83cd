//! A gRPC codec whose answers are encoded already: one encoding serves every stream that gets the same answer.

use std::marker::PhantomData;

use prost::Message;
use prost::bytes::{BufMut, Bytes};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Bytes of an answer's buffer at first: the head of its message.
const ANSWER_BUFFER: usize = 8;
/// Bytes of answers that are gathered before they are sent: a stream has one at a time.
const ANSWER_YIELD: usize = 1;

/// Decodes requests of type `R`, sends answers as the bytes they are.
#[derive(Debug)]
pub struct EncodedCodec<R>(PhantomData<fn() -> R>);

impl<R> Default for EncodedCodec<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R: Message + Default + 'static> Codec for EncodedCodec<R> {
    type Encode = Bytes;
    type Decode = R;
    type Encoder = EncodedEncoder;
    type Decoder = RequestDecoder<R>;

    fn encoder(&mut self) -> EncodedEncoder {
        EncodedEncoder
    }
    fn decoder(&mut self) -> RequestDecoder<R> {
        RequestDecoder(PhantomData)
    }
}

/// Writes a message that is encoded already.
#[derive(Debug)]
pub struct EncodedEncoder;

impl Encoder for EncodedEncoder {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.len());
        buffer.put(item);
        Ok(())
    }

    /// It stays as long as its stream, and streams are many: it grows with the answer that goes through it.
    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(ANSWER_BUFFER, ANSWER_YIELD)
    }
}

/// Reads one request message.
#[derive(Debug)]
pub struct RequestDecoder<R>(PhantomData<fn() -> R>);

impl<R: Message + Default> Decoder for RequestDecoder<R> {
    type Item = R;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<R>, Status> {
        R::decode(buffer)
            .map(Some)
            .map_err(|e| Status::internal(format!("the request is not a message of this method: {e}")))
    }
}
