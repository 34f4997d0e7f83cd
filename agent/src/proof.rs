//! How long ago this node proved itself to the server, and who wants it to do so anew.
//!
//! A renewal of the agent's SVID that takes nothing but its key proves nothing of the node and does not count. Of an earlier life
//! of the agent nothing is known. Never asks a clock.

use std::sync::Arc;
use std::time::Duration;

use avouch_domain::Tick;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::limits::PROOF_AGAIN;

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Proof(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    proved: Option<Tick>,
    /// When somebody wanted it anew the last time that was passed on.
    wanted: Option<Tick>,
}

impl Proof {
    /// The node has proved itself: at `at` it began to.
    pub fn given(&self, at: Tick) {
        self.0.state.lock().proved = Some(at);
    }

    /// How long ago; `None`: not in this life of the agent.
    #[must_use]
    pub fn age(&self, now: Tick) -> Option<Duration> {
        self.0.state.lock().proved.map(|at| now.since(at))
    }

    /// Somebody would be let do something if the node proved itself now. Passed on once in [`PROOF_AGAIN`].
    pub fn want(&self, now: Tick) {
        let mut state = self.0.state.lock();
        if state.wanted.is_none_or(|at| now.since(at) >= PROOF_AGAIN) {
            state.wanted = Some(now);
            self.0.wanted.notify_one();
        }
    }

    /// Until it is wanted.
    pub async fn wanted(&self) {
        self.0.wanted.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_age_counts_from_the_last_one_of_this_life() {
        let proof = Proof::default();
        assert_eq!(proof.age(Tick(7)), None);
        proof.given(Tick(10));
        proof.given(Tick(20));
        assert_eq!(proof.age(Tick(50)), Some(Tick(50).since(Tick(20))));
    }

    #[tokio::test]
    async fn who_wants_it_again_and_again_is_heard_once_in_a_while() {
        let (proof, at) = (Proof::default(), Tick(0));
        proof.want(at);
        proof.wanted().await;
        proof.want(at + PROOF_AGAIN / 2);
        assert!(tokio::time::timeout(Duration::ZERO, proof.wanted()).await.is_err());
        proof.want(at + PROOF_AGAIN);
        proof.wanted().await;
    }
}
