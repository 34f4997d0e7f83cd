//! Calls to the server: each runs in a task of its own and comes back as an event.
//!
//! Never waits for an answer, and never judges one.

use avouch_domain::TrustDomain;
use avouch_engine::cache::Ticket;
use avouch_engine::sync::{Failure, Known, StreamId};

use super::super::signing::{self, Job, Mint};
use super::{CancelOnDrop, Event, Stream, Task};
use crate::upstream::Hello;

impl Task {
    pub(super) fn follow(&mut self, id: StreamId, hello: Hello) {
        let (upstream, events) = (self.parts.upstream.clone(), self.events_tx.clone());
        let reader = tokio::spawn(async move {
            let failure = match upstream.follow(hello).await {
                Err(error) => error.failure(),
                Ok(mut following) => {
                    let _ = events.send(Event::FollowOpened(id, following.says)).await;
                    loop {
                        match following.frames.recv().await {
                            Some(Ok(frame)) => {
                                if events.send(Event::Frame(id, frame)).await.is_err() {
                                    return;
                                }
                            }
                            Some(Err(error)) => break error.failure(),
                            None => break Failure::Away("the stream ended".to_owned()),
                        }
                    }
                }
            };
            let _ = events.send(Event::FollowEnded(id, failure)).await;
        });
        self.stream = Some(Stream { id, says: None, _reader: CancelOnDrop(reader.abort_handle()) });
    }

    pub(super) fn fetch_bundles(&self, domains: Vec<TrustDomain>) {
        let (upstream, events) = (self.parts.upstream.clone(), self.events_tx.clone());
        tokio::spawn(async move {
            let result = upstream.fetch_bundles(domains).await;
            let _ = events.send(Event::BundlesFetched(result)).await;
        });
    }

    pub(super) fn poll(&self, whole: bool, known: Known) {
        let (upstream, events) = (self.parts.upstream.clone(), self.events_tx.clone());
        let federated = self.cache.federated_domains().cloned().collect();
        let (clock, begun) = (self.parts.clock, (self.parts.clock)());
        tokio::spawn(async move {
            let result = upstream.poll(whole, known, federated).await;
            let _ = events.send(Event::Polled(result, clock().mono.since(begun.mono))).await;
        });
    }

    pub(super) fn sign(&self, jobs: Vec<Job>) {
        let (upstream, events) = (self.parts.upstream.clone(), self.events_tx.clone());
        let kind = self.parts.settings.workload_key_type;
        let (clock, begun) = (self.parts.clock, (self.parts.clock)());
        tokio::spawn(async move {
            let (outcomes, refusal) = signing::perform(upstream, kind, jobs).await;
            let elapsed = clock().mono.since(begun.mono);
            let _ = events.send(Event::Signed(outcomes, refusal, elapsed)).await;
        });
    }

    pub(super) fn mint(&self, ticket: Ticket, Mint { entry, id, audience }: Mint) {
        tracing::debug!(entry_id = %entry, spiffe_id = %id, subsystem_name = "manager", "Fetching JWT-SVID");
        let (upstream, events) = (self.parts.upstream.clone(), self.events_tx.clone());
        tokio::spawn(async move {
            let result = upstream.sign_jwt(&entry, &audience).await;
            let _ = events.send(Event::Minted(ticket, result)).await;
        });
    }

    pub(super) fn post_status(&self) {
        let (upstream, version) = (self.parts.upstream.clone(), self.parts.version.clone());
        tokio::spawn(async move {
            if let Err(error) = upstream.post_status(&version).await {
                tracing::debug!(%error, subsystem_name = "manager", "Failed to post status");
            }
        });
    }
}
