//! The one shape of every deciding machine: inputs in, effects out, a next time to be woken.
//!
//! Never: no clock, no I/O, no randomness. A machine is told the time and what happened; a shell performs what
//! it asks for and tells it the outcome. So production, property tests and the simulator run the same code.

use avouch_domain::{Now, Timestamp};

/// A state machine without I/O.
pub trait Machine {
    /// What may happen to it.
    type Input;
    /// What it asks its shell to do. Every effect is answered by exactly one later input, success or failure,
    /// unless its documentation says that nothing answers it.
    type Effect;

    /// Takes in one thing that happened at `now`.
    fn handle(&mut self, now: Now, input: Self::Input);

    /// The next thing to do; the shell drains it after each [`Machine::handle`].
    fn poll(&mut self) -> Option<Self::Effect>;

    /// When the shell must hand in a tick at the latest, although nothing else happened.
    fn next_wakeup(&self) -> Option<Timestamp>;
}
