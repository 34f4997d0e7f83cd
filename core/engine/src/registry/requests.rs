//! Requests, by ID, by identity and by the moment after which nothing comes of them.

use avouch_domain::{Request, RequestId, SpiffeId, Timestamp};
use imbl::{OrdMap, OrdSet};

use super::Registry;
use super::index::Index;

#[derive(Clone, Default)]
pub(super) struct Requests {
    by_id: OrdMap<RequestId, Request>,
    by_identity: Index<SpiffeId, RequestId>,
    ends: OrdSet<(Timestamp, RequestId)>,
}

impl Requests {
    pub(super) fn put(&mut self, request: Request) {
        self.delete(&request.id);
        self.by_identity.insert(request.identity.clone(), request.id.clone());
        self.ends.insert((request.until, request.id.clone()));
        self.by_id.insert(request.id.clone(), request);
    }

    pub(super) fn delete(&mut self, id: &RequestId) {
        if let Some(old) = self.by_id.remove(id) {
            self.by_identity.remove(old.identity, id.clone());
            self.ends.remove(&(old.until, id.clone()));
        }
    }
}

impl Registry {
    #[must_use]
    pub fn request(&self, id: &RequestId) -> Option<&Request> {
        self.requests.by_id.get(id)
    }

    /// All requests, ascending by ID.
    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        self.requests.by_id.values()
    }

    /// Those of one identity.
    pub fn requests_of<'a>(&'a self, identity: &'a SpiffeId) -> impl Iterator<Item = &'a Request> + 'a {
        self.requests.by_identity.get(identity).filter_map(|id| self.request(id))
    }

    /// How many wait for a yes, and how many of them this node has asked for.
    #[must_use]
    pub fn requests_waiting(&self, wall: Timestamp, node: &SpiffeId) -> (usize, usize) {
        let waiting = self.requests_ending_after(wall).filter(|request| request.waits(wall));
        waiting.fold((0, 0), |(all, own), request| (all + 1, own + usize::from(request.node == *node)))
    }

    /// Where a request stands, in the word that people read.
    #[must_use]
    pub fn request_standing(&self, request: &Request, wall: Timestamp) -> &'static str {
        let stop_number = self.identity(&request.identity).map_or(u64::MAX, |identity| identity.stop_number);
        request.standing(wall, stop_number)
    }

    /// The moment after which nothing comes of the oldest one any more.
    #[must_use]
    pub fn next_request_end(&self) -> Option<Timestamp> {
        self.requests.ends.get_min().map(|(at, _)| *at)
    }

    /// Those of which nothing has come since `wall`, earliest first.
    pub fn requests_ended(&self, wall: Timestamp) -> impl Iterator<Item = &Request> {
        let ended = self.requests.ends.iter().take_while(move |(at, _)| *at <= wall);
        ended.filter_map(|(_, id)| self.request(id))
    }

    fn requests_ending_after(&self, wall: Timestamp) -> impl Iterator<Item = &Request> {
        let ends = self.requests.ends.iter().rev().take_while(move |(at, _)| *at > wall);
        ends.filter_map(|(_, id)| self.request(id))
    }
}
