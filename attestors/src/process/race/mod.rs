//! Thousands of callers that exit, exec and change user while they are attested: none may get facts that were
//! never true of it at connect().

mod sys;

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid};

use super::{Look, Pins, ProcessFacts, ProcessGone};
use crate::peer::Peer;
use sys::{OTHER, Then, fork_caller, fork_ghost};

/// Callers of one run: some ten seconds on two free cores. AVOUCH_RACES sets another number, such as 100000 (a minute)
/// or 10000000 by hand.
const CALLERS: u32 = 20_000;
const REUSES: u32 = 150;
const LAST: u32 = u32::MAX;

/// One kind of caller: the user it connects as, and what it does next.
#[derive(Clone, Copy)]
struct Plan {
    user: Option<u32>,
    then: Then,
}

fn plans() -> Vec<Plan> {
    let plan = |user, then| Plan { user, then };
    let mut plans = vec![plan(None, Then::Stay), plan(None, Then::Exit), plan(None, Then::Exec)];
    if geteuid().is_root() {
        plans.extend([
            plan(Some(4001), Then::Stay),
            plan(Some(4002), Then::Exit),
            plan(None, Then::SetUid(4003)),
            plan(None, Then::SetUidExec(4004)),
            plan(Some(4005), Then::Exec),
        ]);
    } else {
        println!("not run: callers that change user (needs root)");
    }
    plans
}

struct Truth {
    me: u32,
    own_exe: (u64, u64),
    other_exe: (u64, u64),
    own_path: Vec<u8>,
    other_path: Vec<u8>,
}

impl Truth {
    fn new() -> Self {
        use std::os::unix::ffi::OsStrExt;
        let own = std::env::current_exe().unwrap();
        let other = std::fs::canonicalize(OTHER).unwrap();
        let id = |path: &Path| {
            let meta = std::fs::metadata(path).unwrap();
            (meta.dev(), meta.ino())
        };
        Self {
            me: geteuid().as_raw(),
            own_exe: id(&own),
            other_exe: id(&other),
            own_path: own.as_os_str().as_bytes().to_vec(),
            other_path: other.as_os_str().as_bytes().to_vec(),
        }
    }

    /// Panics if the facts were never true of a caller with this plan while it had its connect() credentials.
    fn check(&self, plan: Plan, facts: &ProcessFacts) {
        let key = &facts.key;
        assert_eq!(key.uid, plan.user.unwrap_or(self.me), "user of {:?}", plan.then);
        let Some(exe) = key.exe else { return };
        let exe = (exe.device, exe.inode);
        let path = facts.exe_path.as_deref();
        let own = exe == self.own_exe && path == Some(&self.own_path);
        let other = exe == self.other_exe && path == Some(&self.other_path);
        match plan.then {
            // The same user throughout: both programs were true of it, a mix of them never was.
            Then::Exec => assert!(own || other, "a mix of two programs: {facts:?}"),
            Then::Stay | Then::Exit | Then::SetUid(_) | Then::SetUidExec(_) => {
                assert!(own, "a program that {:?} did not run as this user: {facts:?}", plan.then);
            }
        }
    }
}

fn tag_of(mut stream: &UnixStream) -> u32 {
    let mut tag = [0; 4];
    stream.read_exact(&mut tag).unwrap();
    u32::from_ne_bytes(tag)
}

fn attest(pins: &Pins, peer: Peer) -> Result<ProcessFacts, ProcessGone> {
    let pin = pins.pin(peer)?;
    // That looks at the whole, the last look before an answer at what it rests on.
    let facts = pin.facts()?;
    pin.still_same(Look::ButGroups)?;
    Ok(facts)
}

/// Attests callers until the last tag; how many of each plan got an answer.
fn serve(listener: &UnixListener, pins: &Pins, plans: &[Plan], truth: &Truth) -> Vec<u32> {
    let mut accepted = vec![0; plans.len()];
    loop {
        let (stream, _) = listener.accept().unwrap();
        let result = attest(pins, Peer::of(&stream).unwrap());
        let tag = tag_of(&stream);
        if tag == LAST {
            return accepted;
        }
        let index = tag as usize % plans.len();
        if let Ok(facts) = result {
            truth.check(plans[index], &facts);
            accepted[index] += 1;
        }
    }
}

fn reap(pid: i32) {
    match waitpid(Pid::from_raw(pid), None).unwrap() {
        WaitStatus::Exited(_, code) => assert_eq!(code, 0, "a caller failed at its step {code}"),
        WaitStatus::Signaled(..) => {}
        other => panic!("unexpected end of a caller: {other:?}"),
    }
}

#[test]
fn no_caller_gets_facts_that_are_not_its_own() {
    let dir = open_dir();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    make_public(&socket);
    let (plans, truth) = (plans(), Truth::new());
    let callers = std::env::var("AVOUCH_RACES").map_or(CALLERS, |n| n.parse().unwrap());
    // One that keeps files open and one that opens them anew for each look.
    let pins = [Pins::default(), Pins::new(0)];
    let accepted = std::thread::scope(|scope| {
        let (listener, plans, truth) = (&listener, &plans, &truth);
        let serve = |pins| scope.spawn(move || serve(listener, pins, plans, truth));
        let workers: Vec<_> = pins.iter().map(serve).collect();
        let mut running = std::collections::VecDeque::new();
        for tag in 0..callers {
            let plan = plans[tag as usize % plans.len()];
            running.push_back(fork_caller(&socket, plan.user, tag, plan.then));
            if running.len() > 32 {
                reap(running.pop_front().unwrap());
            }
        }
        running.into_iter().for_each(reap);
        for _ in &workers {
            reap(fork_caller(&socket, None, LAST, Then::Exit));
        }
        let counts: Vec<_> = workers.into_iter().map(|w| w.join().unwrap()).collect();
        (0..plans.len()).map(|i| counts.iter().map(|c| c[i]).sum::<u32>()).collect::<Vec<_>>()
    });
    for (index, plan) in plans.iter().enumerate() {
        println!("{:?}: {} of {} answered", plan.then, accepted[index], callers as usize / plans.len());
        if plan.then == Then::Stay {
            let all = (0..callers).filter(|tag| *tag as usize % plans.len() == index).count();
            assert_eq!(accepted[index] as usize, all, "a caller that stays as it is is never refused");
        }
    }
}

#[test]
fn a_pid_that_came_to_mean_another_process_is_noticed() {
    const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
    if !std::fs::metadata(LAST_PID).is_ok_and(|_| geteuid().is_root()) {
        println!("not run: reuse of pids (needs root and {LAST_PID})");
        return;
    }
    let dir = open_dir();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let pins = Pins::default();
    let mut reused = 0;
    for round in 0..REUSES {
        let pid = fork_caller(&socket, None, round, Then::Exit);
        reap(pid);
        if std::fs::write(LAST_PID, (pid - 1).to_string()).is_err() {
            println!("not run: reuse of pids ({LAST_PID} is read-only)");
            return;
        }
        let ghost = fork_ghost(reader.as_raw_fd());
        reused += u32::from(ghost == pid);
        let (stream, _) = listener.accept().unwrap();
        let result = attest(&pins, Peer::of(&stream).unwrap());
        assert_eq!(tag_of(&stream), round);
        assert!(matches!(result, Err(ProcessGone::Exited)), "answered for a dead caller: {result:?}");
        kill(Pid::from_raw(ghost), Signal::SIGKILL).unwrap();
        reap(ghost);
    }
    drop(writer);
    println!("{reused} of {REUSES} pids were given out again in time");
}

#[test]
fn a_caller_that_was_killed_and_reaped_is_gone_however_it_is_looked_at() {
    let dir = open_dir();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let pid = fork_caller(&socket, None, 0, Then::Stay);
    let (stream, _) = listener.accept().unwrap();
    let pin = Pins::default().pin(Peer::of(&stream).unwrap()).unwrap();
    pin.still_same(Look::ButGroups).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    reap(pid);
    for look in [Look::Whole, Look::ButGroups] {
        assert!(matches!(pin.still_same(look), Err(ProcessGone::Exited)));
    }
}

/// A folder that children of every user may enter.
fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    make_public(dir.path());
    dir
}

fn make_public(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}
