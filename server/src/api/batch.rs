//! Batches: each item is read on its own, those that could be read are written together, and every item gets its own
//! result in the order of the request.

use avouch_proto::convert::{item_failure, item_ok};
use avouch_proto::types;

use crate::api::status::Refusal;
use crate::service::WriteError;

/// Why one item failed.
#[derive(Debug)]
pub enum ItemError<E> {
    /// It could not be read.
    Read(Refusal),
    /// It was refused.
    Write(E),
    /// Nothing could be written.
    Machinery(WriteError),
}

/// Writes the readable items in one go and puts all results in order.
pub async fn write<I, O, E>(
    items: Vec<Result<I, Refusal>>,
    write: impl AsyncFnOnce(Vec<I>) -> Result<Vec<Result<O, E>>, WriteError>,
) -> Vec<Result<O, ItemError<E>>>
where
    WriteError: Clone,
{
    let mut readable = Vec::new();
    let unreadable: Vec<Option<Refusal>> = items
        .into_iter()
        .map(|item| match item {
            Ok(item) => {
                readable.push(item);
                None
            }
            Err(refusal) => Some(refusal),
        })
        .collect();
    let written = if readable.is_empty() { Ok(Vec::new()) } else { write(readable).await };
    let (mut written, broken) = match written {
        Ok(results) => (results.into_iter(), WriteError::Stopped),
        Err(error) => (Vec::new().into_iter(), error),
    };
    unreadable
        .into_iter()
        .map(|refusal| match refusal {
            Some(refusal) => Err(ItemError::Read(refusal)),
            None => match written.next() {
                Some(result) => result.map_err(ItemError::Write),
                None => Err(ItemError::Machinery(broken.clone())),
            },
        })
        .collect()
}

/// The status of an item on the wire.
#[must_use]
pub fn wire_status(refusal: Option<&Refusal>) -> Option<types::Status> {
    Some(match refusal {
        None => item_ok(),
        Some(refusal) => item_failure(refusal.code, refusal.message.as_str()),
    })
}
