//! The network: delays, losses, duplicates, reordering and partitions; streams are in order until they break.
//!
//! Each agent's messages have dice of their own: what happens to one changes nothing for the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use avouch_domain::{
    AuthorityId, Bundle, Entry, EntryId, Epoch, JwtSvid, LogPosition, Revision, TrustDomain, X509Svid,
};
use avouch_engine::cache::SignFailure;
use avouch_engine::sync::{Failure, Frame, Known, StreamId};

use crate::rng::Rng;

/// What an agent asks a server.
#[derive(Clone, Debug)]
pub enum Ask {
    Open {
        stream: StreamId,
        position: Option<LogPosition>,
        known: Known,
    },
    Ack {
        stream: StreamId,
        revision: Revision,
    },
    /// The agent has closed this stream.
    Close {
        stream: StreamId,
    },
    Sign {
        ticket: u64,
        entry: EntryId,
    },
    Mint {
        ticket: u64,
        entry: EntryId,
    },
    Fetch {
        domains: Vec<TrustDomain>,
    },
    Poll {
        whole: bool,
        known: Known,
    },
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
    Polled { entries: Vec<Entry>, unchanged: Vec<EntryId>, bundles: Vec<Bundle>, epoch: Epoch },
    PollFailed(Failure),
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

/// What is wrong with the whole network, until when.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    pub loss: u64,
    pub delay: u64,
    pub duplicate: u64,
    pub reorder: u64,
}

#[derive(Debug)]
pub struct Net {
    queue: BTreeMap<(u64, u64), Message>,
    sequence: u64,
    /// Last delivery time per agent, for its newest (life, stream): frames keep their order.
    fifo: Vec<((u64, StreamId), u64)>,
    dice: Vec<Rng>,
    /// Percent of messages lost at any time.
    pub weather: u64,
    pub trouble: Trouble,
}

impl Net {
    pub fn new(seed: u64, agents: usize) -> Self {
        let dice = (0..agents as u64).map(|agent| Rng::new(seed ^ (agent + 1).rotate_left(40))).collect();
        Self {
            queue: BTreeMap::new(),
            sequence: 0,
            fifo: vec![((0, 0), 0); agents],
            dice,
            weather: 0,
            trouble: Trouble::default(),
        }
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

    /// One of `servers` for an agent that connects.
    pub fn choose(&mut self, agent: usize, servers: usize) -> usize {
        usize::try_from(self.dice[agent].below(servers as u64)).unwrap_or(0)
    }

    pub fn lost(&mut self, now: u64, agent: usize) -> bool {
        let percent = if now < self.trouble.loss { self.weather.max(40) } else { self.weather };
        self.dice[agent].chance(percent)
    }

    /// Delivers after a chance delay, now and then twice.
    pub fn send(&mut self, now: u64, agent: usize, message: Message) {
        let often = if now < self.trouble.duplicate { 50 } else { u64::from(self.weather > 0) * 2 };
        if may_repeat(&message) && self.dice[agent].chance(often) {
            let at = now + self.delay(now, agent);
            self.send_in(at, message.clone());
        }
        let at = now + self.delay(now, agent);
        self.send_in(at, message);
    }

    pub fn send_in(&mut self, at: u64, message: Message) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), message);
    }

    /// A frame of a stream: never before the frames sent earlier.
    pub fn send_frame(&mut self, now: u64, agent: usize, life: u64, stream: StreamId, frame: Frame) {
        let mut at = now + self.delay(now, agent);
        let (newest, last) = &mut self.fifo[agent];
        if *newest < (life, stream) {
            (*newest, *last) = ((life, stream), 0);
        }
        // A late word on an older stream is not heeded: it must not undo the order of the newest.
        if *newest == (life, stream) {
            at = at.max(*last);
            *last = at;
        }
        self.send_in(at, Message::ToAgent { agent, life, tell: Tell::Frame { stream, frame } });
    }

    fn delay(&mut self, now: u64, agent: usize) -> u64 {
        let dice = &mut self.dice[agent];
        let slow = if now < self.trouble.delay { 3_000 + dice.below(9_000) } else { 0 };
        let mixed = if now < self.trouble.reorder { dice.below(4_000) } else { 0 };
        let usual = if dice.chance(5) { 200 + dice.below(3_000) } else { 1 + dice.below(40) };
        usual + slow + mixed
    }
}

/// What carries a ticket may come twice; other calls have one answer.
fn may_repeat(message: &Message) -> bool {
    matches!(
        message,
        Message::ToAgent { tell: Tell::Signed { .. } | Tell::Minted { .. }, .. }
            | Message::ToServer { ask: Ask::Sign { .. } | Ask::Mint { .. } | Ask::Ack { .. }, .. }
    )
}
