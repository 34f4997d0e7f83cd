//! What is going to happen in a run: a list drawn from its seed, of which any part can be left out.
//!
//! Never reads the world: each action carries dice of its own, so that leaving one out changes no other.

use crate::rng::Rng;

/// What people do, and what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    CreateEntry,
    DeleteEntry,
    UpdateEntry,
    /// Somebody adopts, pauses, resumes or stops an identity.
    Govern,
    SetBundle,
    DropBundle,
    Subscribe,
    Token,
    Ban,
    Evict,
    Taint,
    Revoke,
    Prepare,
    Advance,
    Backup,
    /// Messages are lost all the time, more or less.
    Weather,
    Loss,
    Delay,
    Duplicate,
    Reorder,
    Partition,
    AgentCrash,
    ServerCrash,
    PowerCut,
    DiskFull,
    Jump,
    Drift,
    Freeze,
    Suspend,
    Restore,
    /// A server comes back as one that does not push.
    Downgrade,
}

/// The kinds of fault: every pair of them must meet.
pub const FAULTS: [Kind; 15] = [
    Kind::Loss,
    Kind::Delay,
    Kind::Duplicate,
    Kind::Reorder,
    Kind::Partition,
    Kind::AgentCrash,
    Kind::ServerCrash,
    Kind::PowerCut,
    Kind::DiskFull,
    Kind::Jump,
    Kind::Drift,
    Kind::Freeze,
    Kind::Suspend,
    Kind::Restore,
    Kind::Downgrade,
];

const PEOPLE: [(u64, Kind); 14] = [
    (29, Kind::CreateEntry),
    (12, Kind::DeleteEntry),
    (12, Kind::UpdateEntry),
    (10, Kind::Govern),
    (8, Kind::SetBundle),
    (4, Kind::DropBundle),
    (10, Kind::Subscribe),
    (2, Kind::Ban),
    (2, Kind::Evict),
    (2, Kind::Taint),
    (1, Kind::Revoke),
    (1, Kind::Prepare),
    (1, Kind::Advance),
    (1, Kind::Backup),
];

const SINGLE_FAULTS: [(u64, Kind); 12] = [
    (20, Kind::AgentCrash),
    (14, Kind::ServerCrash),
    (24, Kind::Partition),
    (6, Kind::Jump),
    (4, Kind::Drift),
    (4, Kind::Freeze),
    (5, Kind::Loss),
    (5, Kind::Delay),
    (5, Kind::Duplicate),
    (5, Kind::Reorder),
    (4, Kind::PowerCut),
    (4, Kind::DiskFull),
];

/// One thing that will happen.
#[derive(Clone, Copy, Debug)]
pub struct Action {
    /// Its place in the whole list.
    pub number: usize,
    /// Milliseconds from the start, times at which all hosts are suspended left out.
    pub at: u64,
    pub kind: Kind,
    /// Decides everything about it.
    pub dice: u64,
}

fn weighed(rng: &mut Rng, list: &[(u64, Kind)]) -> Kind {
    let mut left = rng.below(list.iter().map(|(weight, _)| weight).sum());
    for (weight, kind) in list {
        if left < *weight {
            return *kind;
        }
        left -= weight;
    }
    list[0].1
}

/// Everything that happens in the run of this seed, in order of time.
pub fn draw(seed: u64, length: u64) -> Vec<Action> {
    let mut rng = Rng::new(seed.rotate_left(17) ^ 0xACED);
    let mut list = vec![(0, Kind::Weather)];
    // Every fifth run has true clocks, every fourth is spared the faults that shake all hosts.
    let (true_clocks, no_quakes) = (seed.is_multiple_of(5), seed % 4 == 1);
    let clocks = |kind| matches!(kind, Kind::Jump | Kind::Drift | Kind::Freeze);
    let quakes = |kind| matches!(kind, Kind::Suspend | Kind::Restore | Kind::Downgrade | Kind::PowerCut);
    let left_out = |kind| (true_clocks && clocks(kind)) || (no_quakes && quakes(kind));
    let mut at = 1_000;
    while at < length {
        match rng.below(100) {
            0..=16 => list.push((at, weighed(&mut rng, &SINGLE_FAULTS))),
            17 | 18 => {
                // Two kinds meet, now and then in the very same moment.
                let apart = if rng.chance(30) { 0 } else { rng.below(20_000) };
                for at in [at, at + apart] {
                    list.extend(rng.pick(&FAULTS).map(|kind| (at, *kind)));
                }
            }
            _ => list.push((at, weighed(&mut rng, &PEOPLE))),
        }
        for _ in 0..rng.below(3) {
            list.push((at, Kind::Token));
        }
        at += 500 + rng.below(20_000);
    }
    list.sort_by_key(|(at, _)| *at);
    let dice = list.iter().map(|_| rng.next()).collect::<Vec<_>>();
    let all = list.into_iter().zip(dice).enumerate();
    all.map(|(number, ((at, kind), dice))| Action { number, at, kind, dice })
        .filter(|action| !left_out(action.kind))
        .collect()
}
