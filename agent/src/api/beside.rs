//! Runs the calls of a connection in the task of that connection.
//!
//! A task for each call would be handed to another thread as often as not, and waking a thread costs more than most
//! answers do. Never polls what was not woken, and never keeps its thread: a connection that still has work when its
//! share of the thread is used up comes again after the others.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::task::coop;

use crate::limits::ROUNDS_MAX;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes the calls that a connection begins.
#[derive(Clone, Default)]
pub struct Calls(Arc<Desk>);

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Calls")
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Calls {
    fn execute(&self, call: F) {
        self.0.state.lock().begun.push(Box::pin(call));
    }
}

/// Where a connection and its calls say that they can go on.
#[derive(Default)]
struct Desk {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    begun: Vec<Running>,
    rung: Vec<Who>,
    /// The task looks at `rung` again before it rests: nobody need wake it.
    busy: bool,
    task: Option<Waker>,
}

/// Whom a bell is for: the connection, or the call in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Connection,
    Call(usize),
}

struct Bell {
    who: Who,
    rung: AtomicBool,
    desk: Arc<Desk>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let sleeping = {
            let state = &mut *self.desk.state.lock();
            state.rung.push(self.who);
            if state.busy { None } else { state.task.take() }
        };
        if let Some(task) = sleeping {
            task.wake();
        }
    }
}

/// A bell and the waker that rings it.
struct Line {
    bell: Arc<Bell>,
    waker: Waker,
}

impl Line {
    /// A line whose bell rings already: whatever is new is looked at.
    fn rung(who: Who, desk: &Arc<Desk>) -> Self {
        let bell = Arc::new(Bell { who, rung: AtomicBool::new(false), desk: desk.clone() });
        let waker = Waker::from(bell.clone());
        waker.wake_by_ref();
        Self { bell, waker }
    }

    /// The context of a look that answers the bell: what rings from now on asks for another look.
    fn answered(&self) -> Context<'_> {
        self.bell.rung.store(false, Ordering::Release);
        Context::from_waker(&self.waker)
    }
}

struct Call {
    line: Line,
    running: Running,
}

/// A connection and its calls, as one task polls them.
pub struct Beside {
    desk: Arc<Desk>,
    connection: Line,
    calls: Vec<Option<Call>>,
}

impl std::fmt::Debug for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beside").field("calls", &self.calls.len()).finish_non_exhaustive()
    }
}

impl Beside {
    /// For the connection whose calls come to `calls`.
    #[must_use]
    pub fn new(calls: &Calls) -> Self {
        let desk = calls.0.clone();
        Self { connection: Line::rung(Who::Connection, &desk), desk, calls: Vec::new() }
    }

    /// Has the connection polled in any case: something was done to it from outside.
    pub fn look_again(&self) {
        self.connection.waker.wake_by_ref();
    }

    /// Polls what was woken, until nothing is; ready when the connection is.
    pub fn poll<T>(
        &mut self,
        task: &Context<'_>,
        mut connection: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        for _ in 0..ROUNDS_MAX {
            let Some(rung) = self.desk.next_round(task.waker()) else { return Poll::Pending };
            for who in rung {
                match who {
                    Who::Connection => {
                        if let Poll::Ready(outcome) = connection(&mut self.connection.answered()) {
                            return Poll::Ready(outcome);
                        }
                    }
                    Who::Call(place) => self.go_on(place),
                }
            }
            self.seat();
            if !coop::has_budget_remaining() {
                break;
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }

    fn go_on(&mut self, place: usize) {
        // A call that has ended may have rung before.
        let Some(seat) = self.calls.get_mut(place) else { return };
        let Some(call) = seat else { return };
        if call.running.as_mut().poll(&mut call.line.answered()).is_ready() {
            *seat = None;
        }
        while self.calls.last().is_some_and(Option::is_none) {
            self.calls.pop();
        }
    }

    /// Gives each call that has begun a place, where it is polled in the next round.
    fn seat(&mut self) {
        let begun = std::mem::take(&mut self.desk.state.lock().begun);
        for running in begun {
            let free = self.calls.iter().position(Option::is_none);
            let place = free.unwrap_or(self.calls.len());
            let call = Some(Call { line: Line::rung(Who::Call(place), &self.desk), running });
            match self.calls.get_mut(place) {
                Some(seat) => *seat = call,
                None => self.calls.push(call),
            }
        }
    }
}

impl Desk {
    /// Who has rung since the last round; `None` if nobody has, and then whoever rings wakes the task.
    fn next_round(&self, task: &Waker) -> Option<Vec<Who>> {
        let state = &mut *self.state.lock();
        state.busy = !state.rung.is_empty();
        if state.busy {
            return Some(std::mem::take(&mut state.rung));
        }
        if !state.task.as_ref().is_some_and(|known| known.will_wake(task)) {
            state.task = Some(task.clone());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A task that counts how often it is woken.
    struct Rig {
        woken: Arc<Counted>,
        waker: Waker,
        calls: Calls,
        beside: Beside,
        /// How often the connection was polled.
        polled: usize,
    }

    impl Rig {
        fn new() -> Self {
            let (woken, calls) = (Arc::new(Counted::default()), Calls::default());
            let beside = Beside::new(&calls);
            Self { waker: woken.clone().into(), woken, beside, calls, polled: 0 }
        }

        /// One poll of the task, whose connection does `work`.
        fn poll(&mut self, mut work: impl FnMut(&Calls, &mut Context<'_>)) {
            let (calls, polled) = (&self.calls, &mut self.polled);
            let outcome: Poll<()> = self.beside.poll(&Context::from_waker(&self.waker), |cx| {
                *polled += 1;
                work(calls, cx);
                Poll::Pending
            });
            assert!(outcome.is_pending());
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn a_call_that_wakes_its_connection_wakes_no_task() {
        let mut rig = Rig::new();
        let mut begun = false;
        rig.poll(|calls, cx| {
            if !std::mem::replace(&mut begun, true) {
                let connection = cx.waker().clone();
                calls.execute(async move { connection.wake() });
            }
        });
        assert_eq!((rig.polled, rig.woken()), (2, 0));
        assert!(rig.beside.calls.is_empty(), "it has ended");
    }

    #[test]
    fn only_the_call_that_was_woken_is_polled() {
        let mut rig = Rig::new();
        let polls: Arc<[AtomicUsize; 2]> = Arc::default();
        let mut ends = Vec::new();
        for n in 0..2 {
            let (end, ended) = oneshot::channel::<()>();
            let (polls, mut ended) = (polls.clone(), Box::pin(ended));
            ends.push(end);
            rig.calls.execute(std::future::poll_fn(move |cx| {
                polls[n].fetch_add(1, Ordering::SeqCst);
                ended.as_mut().poll(cx).map(|_| ())
            }));
        }
        rig.poll(|_, _| {});
        assert_eq!((rig.polled, rig.woken()), (1, 0));
        ends.pop().unwrap().send(()).unwrap();
        assert_eq!(rig.woken(), 1);
        rig.poll(|_, _| {});
        assert_eq!(polls.each_ref().map(|polls| polls.load(Ordering::SeqCst)), [1, 2]);
        assert_eq!((rig.polled, rig.woken()), (1, 1), "the connection was left alone");
        rig.beside.look_again();
        assert_eq!(rig.woken(), 2);
        rig.poll(|_, _| {});
        assert_eq!(rig.polled, 2);
    }

    #[test]
    fn who_always_has_more_to_do_lets_others_have_the_thread() {
        let mut rig = Rig::new();
        rig.calls.execute(std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        rig.poll(|_, _| {});
        assert_eq!(rig.woken(), 1, "the task comes again");
    }

    #[test]
    fn the_place_of_a_call_that_ended_is_given_to_the_next() {
        let mut rig = Rig::new();
        let stay = |calls: &Calls| calls.execute(std::future::pending());
        let (end, ended) = oneshot::channel::<()>();
        rig.calls.execute(async move {
            let _ = ended.await;
        });
        stay(&rig.calls);
        rig.poll(|_, _| {});
        end.send(()).unwrap();
        rig.poll(|_, _| {});
        stay(&rig.calls);
        rig.beside.look_again();
        rig.poll(|_, _| {});
        assert_eq!(rig.beside.calls.iter().flatten().count(), 2);
        assert_eq!(rig.beside.calls.len(), 2);
    }
}
