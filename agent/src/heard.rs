//! When the server was last heard, as far as what is decided here by itself rests on it.
//!
//! Counts from the moment a question was sent, never from its answer: the server said nothing later than that. An answer counts
//! only behind everything that the server sent before it (`avouch_engine::sync`), so that it overtakes no stop that was sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::Tick;
use avouch_domain::limits::AWAY_MAX;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::limits::RENEWALS_WAITING;

/// Cheap to clone.
#[derive(Clone)]
pub struct Heard(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    wanted: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    last: u64,
    /// Questions without an answer, oldest first, with when they were sent.
    asked: VecDeque<(u64, Tick)>,
    at: Option<Tick>,
    /// How much later that counts, because the server said that it goes away.
    longer: Duration,
}

impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heard").field("at", &self.at()).finish_non_exhaustive()
    }
}

impl Default for Heard {
    fn default() -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), wanted: watch::Sender::new(false) }))
    }
}

impl Heard {
    /// Whether anything that is decided here rests on it. While nothing does, the server is not asked.
    pub fn want(&self, wanted: bool) {
        self.0.wanted.send_if_modified(|now| std::mem::replace(now, wanted) != wanted);
    }

    /// See [`Heard::want`].
    #[must_use]
    pub fn wanted(&self) -> watch::Receiver<bool> {
        self.0.wanted.subscribe()
    }

    /// Gives the number of a question that is sent now.
    #[must_use]
    pub fn asks(&self, now: Tick) -> u64 {
        let mut state = self.0.state.lock();
        state.last += 1;
        let number = state.last;
        if state.asked.len() >= RENEWALS_WAITING {
            state.asked.pop_front();
        }
        state.asked.push_back((number, now));
        number
    }

    /// The question with this number is answered. A number that was not asked, or long ago, says nothing.
    pub fn answered(&self, number: u64) {
        let mut state = self.0.state.lock();
        while let Some((asked, at)) = state.asked.front().copied() {
            if asked > number {
                return;
            }
            state.asked.pop_front();
            if asked == number {
                state.at = Some(state.at.map_or(at, |before| before.max(at)));
                state.longer = Duration::ZERO;
            }
        }
    }

    /// The server goes away on purpose: what rests on it may for so much longer, [`AWAY_MAX`] at most, until it is heard again.
    pub fn goes_away(&self, longer: Duration) {
        self.0.state.lock().longer = longer.min(AWAY_MAX);
    }

    /// From when on to count how long nothing is heard: when the newest question was sent that is answered, and later if the
    /// server said that it goes away.
    #[must_use]
    pub fn at(&self) -> Option<Tick> {
        let state = self.0.state.lock();
        state.at.map(|at| at + state.longer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_from_when_the_question_was_sent() {
        let heard = Heard::default();
        assert_eq!(heard.at(), None);
        let first = heard.asks(Tick(10));
        let second = heard.asks(Tick(20));
        heard.answered(first);
        assert_eq!(heard.at(), Some(Tick(10)));
        heard.answered(second);
        assert_eq!(heard.at(), Some(Tick(20)));
    }

    #[test]
    fn an_answer_to_nothing_and_one_that_comes_twice_say_nothing() {
        let heard = Heard::default();
        heard.answered(7);
        assert_eq!(heard.at(), None);
        let first = heard.asks(Tick(10));
        let second = heard.asks(Tick(20));
        heard.answered(second);
        heard.answered(first);
        heard.answered(second + 1);
        assert_eq!(heard.at(), Some(Tick(20)));
    }

    #[test]
    fn a_server_that_goes_away_on_purpose_counts_as_heard_for_longer_once() {
        let heard = Heard::default();
        heard.goes_away(AWAY_MAX);
        assert_eq!(heard.at(), None, "who was never heard gives nothing");
        let first = heard.asks(Tick(10));
        heard.answered(first);
        for _ in 0..2 {
            heard.goes_away(AWAY_MAX * 10);
            assert_eq!(heard.at(), Some(Tick(10) + AWAY_MAX));
        }
        let second = heard.asks(Tick(20));
        heard.answered(second);
        assert_eq!(heard.at(), Some(Tick(20)), "it is back");
    }

    #[test]
    fn few_questions_wait_for_their_answer() {
        let heard = Heard::default();
        let first = heard.asks(Tick(1));
        let numbers: Vec<_> = (0..RENEWALS_WAITING).map(|n| heard.asks(Tick(10 + n as u64))).collect();
        heard.answered(first);
        assert_eq!(heard.at(), None, "too old to count");
        heard.answered(numbers[0]);
        assert_eq!(heard.at(), Some(Tick(10)));
    }

    #[test]
    fn who_wants_it_twice_wants_it_once() {
        let heard = Heard::default();
        let mut wanted = heard.wanted();
        heard.want(true);
        assert!(wanted.has_changed().unwrap() && *wanted.borrow_and_update());
        heard.want(true);
        assert!(!wanted.has_changed().unwrap());
    }
}
