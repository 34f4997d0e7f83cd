//! Reading of /proc texts, and a pinned process that exits, changes or lives on.

use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use super::texts::{Credentials, Stat, parse_stat, parse_status};
use super::*;

fn pin_of(child: &Child, uid: u32, gid: u32) -> Result<PinnedProcess, ProcessGone> {
    PinnedProcess::from_peer(i32::try_from(child.id()).unwrap(), uid, gid, None)
}

fn sleeper() -> Child {
    crate::child::waiting("cat".as_ref())
}

fn me() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

/// Our own pin through a socket pair, whose peer is this process.
fn own_pin() -> PinnedProcess {
    let (a, _b) = UnixStream::pair().unwrap();
    PinnedProcess::pin(Peer::of(&a).unwrap()).unwrap()
}

#[test]
fn a_process_name_may_hold_parentheses_and_spaces() {
    let numbers: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
    let text = format!("7 (a) R (b) c) S {}", numbers.join(" "));
    assert_eq!(parse_stat(text.as_bytes()), Some(Stat { parent: 4, start_time: 22, dead: false }));
}

#[test]
fn a_zombie_counts_as_dead() {
    let numbers: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
    let text = format!("7 (a) Z {}", numbers.join(" "));
    assert!(parse_stat(text.as_bytes()).unwrap().dead);
}

#[test]
fn the_effective_ids_are_the_second_ones() {
    let text = b"Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n";
    assert_eq!(parse_status(text), Some(Credentials { uid: 2, gid: 6, groups: vec![9, 10] }));
    assert_eq!(parse_status(b"Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n"), None, "no groups line");
}

#[test]
fn a_name_that_looks_like_a_field_is_not_one() {
    let text = b"Name:\tUid:\t0\t0\t0\t0\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t\n";
    assert_eq!(parse_status(text).unwrap().uid, 2);
}

#[test]
fn the_peer_of_a_socket_is_pinned_with_its_facts() {
    let pin = own_pin();
    assert_eq!((pin.uid(), pin.gid()), me());
    let facts = pin.facts().unwrap();
    let exe = std::env::current_exe().unwrap().into_os_string().into_vec();
    assert_eq!(facts.exe_path, Some(exe));
    assert!(facts.namespaces.contains_key("mnt"));
    pin.still_same(Look::Whole).unwrap();
}

#[test]
fn an_exited_process_is_gone() {
    let (uid, gid) = me();
    let mut child = sleeper();
    let pin = pin_of(&child, uid, gid).unwrap();
    pin.still_same(Look::Whole).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(pin.still_same(Look::Whole), Err(ProcessGone::Exited)));
}

#[test]
fn a_process_of_another_user_than_at_connect_is_refused() {
    let (uid, gid) = me();
    let mut child = sleeper();
    assert!(matches!(pin_of(&child, uid + 1, gid), Err(ProcessGone::Changed("user"))));
    assert!(matches!(pin_of(&child, uid, gid + 1), Err(ProcessGone::Changed("group"))));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What a pin says of a child that has run its program anew since: the binary is the same, only the image tells.
fn after_an_exec(pins: &Pins) -> Result<(), ProcessGone> {
    use std::io::{BufRead, BufReader, Write};
    let (uid, gid) = me();
    let mut shell = Command::new("sh")
        .args(["-c", "echo ready; read go; exec sh -c 'echo again; read end'"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(shell.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let pid = i32::try_from(shell.id()).unwrap();
    let pin = pins.pin(Peer { pid, uid, gid, pidfd: None }).unwrap();
    pin.still_same(Look::Whole).unwrap();
    writeln!(shell.stdin.as_mut().unwrap(), "go").unwrap();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\nagain\n");
    let result = pin.still_same(Look::Whole);
    drop(shell.stdin.take());
    shell.wait().unwrap();
    result
}

#[test]
fn the_same_binary_run_anew_is_a_change_whether_or_not_files_are_kept_open() {
    for pins in [Pins::default(), Pins::new(0)] {
        assert!(matches!(after_an_exec(&pins), Err(ProcessGone::Changed("program image"))));
    }
}

#[test]
fn files_stay_open_for_as_many_processes_as_there_are_places() {
    let (uid, gid) = me();
    let pins = Pins::new(1);
    let mut children = [sleeper(), sleeper()];
    let pinned = children.each_ref().map(|child| {
        pins.pin(Peer { pid: i32::try_from(child.id()).unwrap(), uid, gid, pidfd: None }).unwrap()
    });
    assert_eq!(pinned.each_ref().map(|pin| pin.kept.is_some()), [true, false]);
    assert!(pinned.iter().all(|pin| pin.still_same(Look::Whole).is_ok()));
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(pinned.iter().all(|pin| matches!(pin.still_same(Look::Whole), Err(ProcessGone::Exited))));
}

#[test]
fn another_binary_is_a_change() {
    use std::io::{BufRead, BufReader, Write};
    let (uid, gid) = me();
    let mut child = Command::new("sh")
        .args(["-c", "echo ready; read go; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let pin = pin_of(&child, uid, gid).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"go\necho of cat\n").unwrap();
    line.clear();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "echo of cat\n", "cat runs now");
    assert!(matches!(pin.still_same(Look::Whole), Err(ProcessGone::Changed("binary"))));
    drop(stdin);
    child.wait().unwrap();
}

#[test]
fn an_unlinked_binary_is_no_change_and_is_still_readable() {
    let (uid, gid) = me();
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("cat-copy");
    // Written by another process: a descriptor open for writing here could slip into a child that another test
    // forks, and what is open for writing can't be executed.
    assert!(Command::new("cp").arg("/bin/cat").arg(&copy).status().unwrap().success());
    let mut child = crate::child::waiting(&copy);
    let pin = pin_of(&child, uid, gid).unwrap();
    std::fs::remove_file(&copy).unwrap();
    pin.still_same(Look::Whole).unwrap();
    let path = String::from_utf8(pin.facts().unwrap().exe_path.unwrap()).unwrap();
    assert!(path.ends_with("cat-copy (deleted)"), "{path}");
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut pin.open_exe().unwrap(), &mut bytes).unwrap();
    assert_eq!(bytes, std::fs::read("/bin/cat").unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn connections_of_one_process_share_one_pin() {
    let pins = Pins::default();
    let pin = || {
        let (a, _b) = UnixStream::pair().unwrap();
        pins.pin(Peer::of(&a).unwrap()).unwrap()
    };
    assert!(Arc::ptr_eq(&pin(), &pin()) || Arc::strong_count(&pin()) == 1);
    let held = pin();
    assert!(Arc::ptr_eq(&held, &pin()));
}

#[test]
fn a_pidfd_tells_the_user_and_group_that_the_status_tells() {
    let pin = own_pin();
    match sys::effective_ids(pin.pidfd.as_ref().unwrap()).unwrap() {
        Some(ids) => assert_eq!(ids, me()),
        None => println!("not run: this kernel is older than 6.13"),
    }
}

#[test]
fn groups_count_only_where_something_rests_on_them() {
    let mut pin = own_pin();
    let known = sys::effective_ids(pin.pidfd.as_ref().unwrap()).unwrap().is_some();
    pin.key.groups = Arc::new([123_456]);
    let changed = |look| matches!(pin.still_same(look), Err(ProcessGone::Changed("supplementary groups")));
    assert!(changed(Look::Whole));
    assert_eq!(changed(Look::ButGroups), !known, "an old kernel tells all or nothing");
}

#[test]
fn another_user_or_group_is_a_change_however_it_is_looked_at() {
    for look in [Look::Whole, Look::ButGroups] {
        let mut pin = own_pin();
        pin.key.gid += 1;
        assert!(matches!(pin.still_same(look), Err(ProcessGone::Changed("group"))));
        pin.key.uid += 1;
        assert!(matches!(pin.still_same(look), Err(ProcessGone::Changed("user"))));
    }
}
