//! One SyncAuthorizedEntries stream: everything at once, or revisions first and then the entries asked for.
//!
//! Works on the entries of the moment the stream opened; a stream never sees changes.

use std::sync::Arc;

use avouch_proto::convert::entry_to_wire;
use avouch_proto::entry_v1::{SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse};
use avouch_proto::revision::EntryRevision;
use avouch_proto::types::EntryMask;
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Status};

use crate::api::call::Call;
use crate::limits::SYNC_PAGE;
use crate::service::{Card, View};

type Replies = Sender<Result<SyncAuthorizedEntriesResponse, Status>>;

/// Runs one sync in its own task.
pub fn run(
    call: Arc<Call>,
    view: View,
    asks: impl Stream<Item = Result<SyncAuthorizedEntriesRequest, Status>> + Send + Unpin + 'static,
) -> ReceiverStream<Result<SyncAuthorizedEntriesResponse, Status>> {
    let (replies, stream) = mpsc::channel(2);
    tokio::spawn(async move {
        let line = call.audit();
        let cards = view.cards();
        let ended = tokio::select! {
            ended = converse(&cards, asks, &replies) => ended,
            // The agent is done or gone; both are fine.
            () = replies.closed() => Ok(()),
        };
        let ended = ended.or_else(|status| match status.code() {
            Code::Cancelled => Ok(()),
            _ => Err(status),
        });
        if let Err(status) = line.conclude(ended) {
            let _ = replies.send(Err(status)).await;
        }
    });
    ReceiverStream::new(stream)
}

/// `cards` come in ascending order of their IDs.
async fn converse(
    cards: &[&Card],
    mut asks: impl Stream<Item = Result<SyncAuthorizedEntriesRequest, Status>> + Unpin,
    replies: &Replies,
) -> Result<(), Status> {
    let gone = |_| Status::cancelled("agent went away");
    let Some(first) = asks.next().await.transpose()? else { return Ok(()) };
    if !first.ids.is_empty() {
        return Err(Status::invalid_argument("specifying IDs on initial request is not supported"));
    }
    let mask = first.output_mask;
    if mask.as_ref().is_some_and(|mask| !mask.revision_number) {
        return Err(Status::invalid_argument("revision number cannot be masked"));
    }
    if cards.len() <= SYNC_PAGE {
        return replies.send(Ok(entry_page(cards, mask.as_ref(), false))).await.map_err(gone);
    }
    let mut pages = cards.chunks(SYNC_PAGE).peekable();
    while let Some(page) = pages.next() {
        let entry_revisions = page.iter().copied().map(revision).collect();
        let more = pages.peek().is_some();
        let reply = SyncAuthorizedEntriesResponse { entry_revisions, entries: Vec::new(), more };
        replies.send(Ok(reply)).await.map_err(gone)?;
    }
    while let Some(ask) = asks.next().await.transpose()? {
        let mut ids = ask.ids;
        ids.sort_unstable();
        ids.dedup();
        let asked: Vec<&Card> = ids.iter().filter_map(|id| find(cards, id)).collect();
        let mut pages = asked.chunks(SYNC_PAGE).peekable();
        if pages.peek().is_none() {
            replies.send(Ok(entry_page(&[], mask.as_ref(), false))).await.map_err(gone)?;
        }
        while let Some(page) = pages.next() {
            let more = pages.peek().is_some();
            replies.send(Ok(entry_page(page, mask.as_ref(), more))).await.map_err(gone)?;
        }
    }
    Ok(())
}

fn entry_page(cards: &[&Card], mask: Option<&EntryMask>, more: bool) -> SyncAuthorizedEntriesResponse {
    let entries = cards.iter().map(|card| entry_to_wire(card.entry(), mask)).collect();
    SyncAuthorizedEntriesResponse { entry_revisions: Vec::new(), entries, more }
}

fn revision(card: &Card) -> EntryRevision {
    EntryRevision {
        id: card.id_text(),
        revision_number: card.revision_number(),
        created_at: card.created_at().secs(),
    }
}

fn find<'a>(cards: &[&'a Card], id: &str) -> Option<&'a Card> {
    let at = cards.binary_search_by(|card| card.id().cmp(id.as_bytes()));
    at.ok().and_then(|at| cards.get(at)).copied()
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::{entry, id};
    use avouch_domain::{Image, LogPosition, Row, Timestamp};
    use avouch_engine::Registry;

    use super::*;

    fn view(count: usize) -> View {
        let one = |n| entry(&format!("e{n:04}"), &format!("/w{n}"), "/node", &["unix:uid:0"]);
        let rows = (0..count).map(|n| Row::Entry(one(n))).collect();
        let image = Image { position: LogPosition::default(), rows, read_at: Timestamp(0) };
        View::new(&Registry::from_image(image), &id("/node"), Timestamp(0))
    }

    fn ask(ids: impl IntoIterator<Item = usize>) -> SyncAuthorizedEntriesRequest {
        let ids = ids.into_iter().map(|n| format!("e{n:04}")).collect();
        SyncAuthorizedEntriesRequest { output_mask: None, ids }
    }

    /// Entries, revisions and `more` of each reply.
    async fn converse_with(
        count: usize,
        asks: Vec<SyncAuthorizedEntriesRequest>,
    ) -> Result<Vec<(usize, usize, bool)>, Status> {
        let (replies, mut received) = mpsc::channel(100);
        let view = view(count);
        converse(&view.cards(), tokio_stream::iter(asks.into_iter().map(Ok)), &replies).await?;
        drop(replies);
        let mut seen = Vec::new();
        while let Some(reply) = received.recv().await {
            let reply = reply?;
            seen.push((reply.entries.len(), reply.entry_revisions.len(), reply.more));
        }
        Ok(seen)
    }

    #[tokio::test]
    async fn up_to_a_page_comes_at_once_and_ends_the_stream() {
        for count in [0, 4, 500] {
            assert_eq!(converse_with(count, vec![ask([])]).await.unwrap(), [(count, 0, false)]);
        }
    }

    #[tokio::test]
    async fn more_than_a_page_comes_as_revisions_first() {
        let seen = converse_with(1_201, vec![ask([])]).await.unwrap();
        assert_eq!(seen, [(0, 500, true), (0, 500, true), (0, 201, false)]);
        assert_eq!(converse_with(501, vec![ask([])]).await.unwrap(), [(0, 500, true), (0, 1, false)]);
    }

    #[tokio::test]
    async fn entries_asked_for_come_in_pages_without_the_unknown() {
        let asks = vec![ask([]), ask([3, 1, 2, 9_999]), ask((0..701).map(|n| n + 600)), ask([])];
        let seen = converse_with(1_201, asks).await.unwrap();
        assert_eq!(seen.get(3..), Some(&[(3, 0, false), (500, 0, true), (101, 0, false), (0, 0, false)][..]));
    }

    #[tokio::test]
    async fn a_full_page_asked_for_is_the_last() {
        let seen = converse_with(501, vec![ask([]), ask(0..500)]).await.unwrap();
        assert_eq!(seen.last(), Some(&(500, 0, false)));
    }

    #[tokio::test]
    async fn the_first_message_names_no_ids_and_keeps_the_revision() {
        let refused = |asks| async move { converse_with(1, asks).await.unwrap_err() };
        let status = refused(vec![ask([1])]).await;
        assert_eq!(status.message(), "specifying IDs on initial request is not supported");
        let masked = SyncAuthorizedEntriesRequest { output_mask: Some(EntryMask::default()), ids: vec![] };
        let status = refused(vec![masked]).await;
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, "revision number cannot be masked")
        );
    }

    #[tokio::test]
    async fn a_stream_without_a_message_ends_well() {
        assert_eq!(converse_with(9, vec![]).await.unwrap(), []);
    }
}
