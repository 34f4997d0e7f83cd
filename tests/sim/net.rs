//! The network: delays, losses, duplicates and partitions; streams are in order until they break.

use std::collections::BTreeMap;
use std::sync::Arc;

use avouch_domain::{AuthorityId, Bundle, EntryId, JwtSvid, LogPosition, Revision, TrustDomain, X509Svid};
use avouch_engine::cache::SignFailure;
use avouch_engine::sync::{Failure, Frame, Known, StreamId};

use crate::rng::Rng;

/// What an agent asks a server.
#[derive(Clone, Debug)]
pub enum Ask {
    Open { stream: StreamId, position: Option<LogPosition>, known: Known },
    Ack { stream: StreamId, revision: Revision },
    Sign { ticket: u64, entry: EntryId },
    Mint { ticket: u64, entry: EntryId },
    Fetch { domains: Vec<TrustDomain> },
}

/// What a server (or a timeout) tells an agent.
#[derive(Clone, Debug)]
pub enum Tell {
    Frame { stream: StreamId, frame: Frame },
    Ended { stream: StreamId, failure: Failure },
    Signed { ticket: u64, entry: EntryId, svid: Arc<X509Svid>, authority: AuthorityId },
    SignFailed { ticket: u64, entry: EntryId, failure: SignFailure },
    Minted { ticket: u64, svid: JwtSvid, key_id: AuthorityId },
    MintFailed { ticket: u64, failure: SignFailure },
    Bundles(Vec<Bundle>),
    BundlesFailed,
}

#[derive(Clone, Debug)]
pub enum Message {
    ToServer { server: usize, agent: usize, life: u64, ask: Ask },
    ToAgent { agent: usize, life: u64, tell: Tell },
}

/// Milliseconds until a lost call is given up.
pub const CALL_TIMEOUT: u64 = 30_000;
/// Milliseconds until a broken stream is noticed.
pub const KEEPALIVE: u64 = 10_000;
/// Most messages that may be under way (INV-9).
pub const IN_FLIGHT_MAX: usize = 20_000;

#[derive(Debug)]
pub struct Net {
    queue: BTreeMap<(u64, u64), Message>,
    sequence: u64,
    /// Last delivery time per (agent, life, stream): frames keep their order.
    fifo: BTreeMap<(usize, u64, StreamId), u64>,
    /// Percent of messages lost.
    pub loss: u64,
}

impl Net {
    pub fn new(loss: u64) -> Self {
        Self { queue: BTreeMap::new(), sequence: 0, fifo: BTreeMap::new(), loss }
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn next_at(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next message due at `now`.
    pub fn due(&mut self, now: u64) -> Option<Message> {
        if self.next_at()? > now {
            return None;
        }
        self.queue.pop_first().map(|(_, message)| message)
    }

    pub fn lost(&self, rng: &mut Rng) -> bool {
        rng.chance(self.loss)
    }

    /// Delivers after a chance delay, now and then twice.
    pub fn send(&mut self, now: u64, rng: &mut Rng, message: Message) {
        if self.loss > 0 && rng.chance(2) && Self::may_repeat(&message) {
            let at = now + delay(rng);
            self.put(at, message.clone());
        }
        let at = now + delay(rng);
        self.put(at, message);
    }

    pub fn send_in(&mut self, at: u64, message: Message) {
        self.put(at, message);
    }

    /// A frame of a stream: never before the frames sent earlier.
    pub fn send_frame(
        &mut self,
        now: u64,
        rng: &mut Rng,
        agent: usize,
        life: u64,
        stream: StreamId,
        frame: Frame,
    ) {
        let last = self.fifo.entry((agent, life, stream)).or_default();
        let at = (now + delay(rng)).max(*last);
        *last = at;
        self.put(at, Message::ToAgent { agent, life, tell: Tell::Frame { stream, frame } });
    }

    /// What carries a ticket may come twice; other calls have one answer.
    fn may_repeat(message: &Message) -> bool {
        matches!(
            message,
            Message::ToAgent { tell: Tell::Signed { .. } | Tell::Minted { .. }, .. }
                | Message::ToServer { ask: Ask::Sign { .. } | Ask::Mint { .. } | Ask::Ack { .. }, .. }
        )
    }

    fn put(&mut self, at: u64, message: Message) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), message);
    }
}

fn delay(rng: &mut Rng) -> u64 {
    if rng.chance(5) { 200 + rng.below(3_000) } else { 1 + rng.below(40) }
}
