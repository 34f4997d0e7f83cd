//! Answers to questions for JWT-SVIDs that may be given again without asking the task.
//!
//! The task alone writes them, and takes all of them back before anything changes what they say. Never gives one past
//! its end by either clock, and none for longer than a moment: the cache must hear which tokens are in use.

use std::collections::HashMap;
use std::sync::Arc;

use avouch_domain::{Now, Tick, Timestamp};
use parking_lot::Mutex;

use crate::limits::{LENT_AGE_MAX, LENT_MAX};
use crate::supply::{JwtGrant, JwtQuestion};

/// See the module.
#[derive(Default)]
pub(super) struct Lent {
    answers: Mutex<HashMap<JwtQuestion, Answer>>,
}

struct Answer {
    grants: Arc<[JwtGrant]>,
    until: Timestamp,
    /// By the clock that nobody sets.
    until_mono: Tick,
}

impl Answer {
    fn holds(&self, now: Now) -> bool {
        now.wall < self.until && now.mono < self.until_mono
    }
}

impl Lent {
    /// The answer to a question, if there is one that holds at `now`.
    pub fn find(&self, question: &JwtQuestion, now: Now) -> Option<Arc<[JwtGrant]>> {
        let answers = self.answers.lock();
        answers.get(question).filter(|answer| answer.holds(now)).map(|answer| answer.grants.clone())
    }

    /// Lends an answer that holds from `now` until then.
    pub fn lend(&self, question: JwtQuestion, grants: Arc<[JwtGrant]>, until: Timestamp, now: Now) {
        let until_mono = now.mono + until.since(now.wall).min(LENT_AGE_MAX);
        let answers = &mut *self.answers.lock();
        if answers.len() >= LENT_MAX {
            answers.retain(|_, answer| answer.holds(now));
            if answers.len() >= LENT_MAX {
                return; // those in use come first; the others ask the task
            }
        }
        answers.insert(question, Answer { grants, until, until_mono });
    }

    /// Takes all of them back.
    pub fn recall(&self) {
        self.answers.lock().clear();
    }

    /// Forgets what has ended: tokens are no longer in memory than they are of use.
    pub fn sweep(&self, now: Now) {
        self.answers.lock().retain(|_, answer| answer.holds(now));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use avouch_domain::fixtures::set;

    use super::*;

    const START: Now = Now { wall: Timestamp(1_000_000), mono: Tick(5000) };

    fn question(audience: &str) -> JwtQuestion {
        JwtQuestion { selectors: set(&["u:1"]), audience: vec![audience.to_owned()], id: None }
    }

    fn after(wall: Duration, mono: Duration) -> Now {
        Now { wall: START.wall + wall, mono: START.mono + mono }
    }

    fn lent_until(until: Timestamp) -> Lent {
        let lent = Lent::default();
        lent.lend(question("x"), Arc::new([]), until, START);
        lent
    }

    #[test]
    fn an_answer_is_given_until_its_end_by_whichever_clock_is_there_first() {
        let (half, all) = (Duration::from_millis(500), Duration::from_millis(600));
        let lent = lent_until(START.wall + all);
        assert!(lent.find(&question("x"), after(half, half)).is_some());
        assert!(lent.find(&question("y"), after(half, half)).is_none());
        assert!(lent.find(&question("x"), after(all, half)).is_none(), "the wall clock was set forward");
        assert!(lent.find(&question("x"), after(Duration::ZERO, all)).is_none(), "it was set back");
        lent.sweep(after(all, all));
        assert!(lent.answers.lock().is_empty());
    }

    #[test]
    fn even_an_answer_that_holds_long_is_asked_for_again_after_a_moment() {
        let lent = lent_until(Timestamp::MAX);
        assert!(lent.find(&question("x"), START).is_some());
        assert!(lent.find(&question("x"), after(Duration::ZERO, LENT_AGE_MAX)).is_none());
    }

    #[test]
    fn what_is_recalled_is_gone() {
        let lent = lent_until(Timestamp::MAX);
        lent.recall();
        assert!(lent.find(&question("x"), START).is_none());
    }

    #[test]
    fn the_table_is_bounded_and_what_ended_makes_room() {
        let lent = Lent::default();
        let lend = |n: usize, now: Now| {
            lent.lend(question(&n.to_string()), Arc::new([]), Timestamp::MAX, now);
            lent.answers.lock().len()
        };
        for n in 0..LENT_MAX {
            lend(n, START);
        }
        assert_eq!(lend(LENT_MAX, START), LENT_MAX);
        assert!(lent.find(&question(&LENT_MAX.to_string()), START).is_none());
        assert_eq!(lend(LENT_MAX, after(LENT_AGE_MAX, LENT_AGE_MAX)), 1);
    }
}
