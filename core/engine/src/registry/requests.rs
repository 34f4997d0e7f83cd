//! Requests: what is asked of them.

use avouch_domain::{Request, RequestId, SpiffeId, Timestamp};

use super::Registry;

impl Registry {
    #[must_use]
    pub fn request(&self, id: &RequestId) -> Option<&Request> {
        self.requests.get(id)
    }

    /// All requests, ascending by ID.
    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        self.requests.all()
    }

    /// Those of one identity.
    pub fn requests_of<'a>(&'a self, identity: &'a SpiffeId) -> impl Iterator<Item = &'a Request> + 'a {
        self.requests.of(identity)
    }

    /// How many wait for a yes, and how many of them this node has asked for.
    #[must_use]
    pub fn requests_waiting(&self, wall: Timestamp, node: &SpiffeId) -> (usize, usize) {
        let waiting = self.requests.not_over(wall).filter(|request| request.waits(wall));
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
        self.requests.next_end()
    }

    /// Those of which nothing has come since `wall`, earliest first.
    pub fn requests_ended(&self, wall: Timestamp) -> impl Iterator<Item = &Request> {
        self.requests.over(wall)
    }
}
