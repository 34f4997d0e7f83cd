//! What the spool keeps, takes up and ships, one rule per test.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use avouch_credential::key::PrivateKey;
use avouch_credential::ledger::{ChainReader, check_node_head, read_node_line};
use avouch_domain::fixtures::id;
use avouch_domain::{ChainId, KeyType, NodeChain, NodeEvent, Note, Shipment, SpiffeId, Stand};
use parking_lot::Mutex;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::spool::path_of;
use super::*;
use crate::upstream::{CallError, Sink};

const ROOM: Room = Room { spool: 1 << 20, segment: 4096 };

fn source() -> SpiffeId {
    id("/spire/agent/x509pop/a")
}

fn note(subject: &str) -> Note {
    let detail = vec![("outcome", "deny".to_owned())];
    Note {
        event: NodeEvent::Decision,
        actor: "spiffe://example.org/c".into(),
        subject: subject.into(),
        detail,
    }
}

fn records(folder: &Path, room: Room) -> Records {
    let (metrics, clock) = (Metrics::plain(), crate::clock::now);
    Records::start(Parts { folder: folder.join("records"), room, metrics, clock, version: "test" }).unwrap()
}

/// A life of the agent with this folder.
fn life(folder: &Path) -> Records {
    let records = records(folder, ROOM);
    records.bind(&source()).unwrap();
    records
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Files of the chain, oldest first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder.join("records")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        all.filter(|p| !p.file_name().unwrap().to_str().unwrap().starts_with("aside-")).collect();
    files.sort();
    files
}

fn aside(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder.join("records")).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with("aside-")).collect()
}

/// All lines on disk, checked as one chain.
fn lines(folder: &Path) -> Vec<String> {
    let files = files(folder);
    let text: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if let Some(first) = lines.first() {
        let first = read_node_line(first).unwrap();
        let chain = NodeChain { source: source(), id: ChainId::from_text(&first.chain).unwrap() };
        let mut reader = ChainReader::from(chain, first.seq);
        for line in &lines {
            reader.line(line).unwrap();
        }
    }
    lines
}

fn events(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| read_node_line(line).unwrap().event.into_owned()).collect()
}

fn detail(line: &str, name: &str) -> String {
    let record = read_node_line(line).unwrap();
    record.details().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn nothing_is_recorded_before_the_agent_knows_who_it_is() {
    let folder = folder();
    let records = records(folder.path(), ROOM);
    let refused = records.append(&note("a"), Durability::Soon).await;
    assert!(matches!(refused, Err(SpoolError::NotReady)), "{refused:?}");
}

#[tokio::test]
async fn a_record_is_in_the_file_when_its_caller_goes_on_and_the_files_are_private() {
    let folder = folder();
    let records = life(folder.path());
    assert_eq!(records.append(&note("a"), Durability::Soon).await.unwrap(), Receipt { seq: 2 });
    assert_eq!(lines(folder.path()).len(), 2);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder.path().join("records")), 0o700);
    assert_eq!(mode(&files(folder.path())[0]), 0o600);
}

#[tokio::test]
async fn numbers_go_on_without_a_gap_over_restarts_and_files() {
    let folder = folder();
    for turn in 0..3 {
        let records = life(folder.path());
        for n in 0..20 {
            let durability = if n % 7 == 0 { Durability::Synced } else { Durability::Soon };
            let receipt = records.append(&note(&format!("{turn}-{n}")), durability).await.unwrap();
            assert_eq!(receipt.seq, turn * 21 + n + 2);
        }
        records.close();
    }
    assert!(files(folder.path()).len() > 2, "several files were begun");
    let lines = lines(folder.path());
    assert_eq!(lines.len(), 63);
    assert_eq!(events(&lines).iter().filter(|event| *event == "agent.start").count(), 3);
}

#[tokio::test]
async fn many_callers_that_wait_for_the_disk_are_all_answered() {
    let folder = folder();
    let records = life(folder.path());
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..200 {
        let records = records.clone();
        callers.spawn(
            async move { records.append(&note(&n.to_string()), Durability::Synced).await.unwrap().seq },
        );
    }
    let mut seen = callers.join_all().await;
    seen.sort_unstable();
    assert_eq!(seen, (2..=201).collect::<Vec<u64>>());
    assert_eq!(records.0.inner.lock().waiting, 0);
}

#[tokio::test]
async fn a_last_line_torn_at_any_byte_is_cut_off_and_recorded() {
    let folder = folder();
    let records = life(folder.path());
    for subject in ["a", "b"] {
        records.append(&note(subject), Durability::Synced).await.unwrap();
    }
    records.close();
    let path = files(folder.path()).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    let before = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for end in before..whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        let again = life(folder.path());
        again.close();
        let lines = lines(folder.path());
        assert_eq!(&lines.concat()[..20], &std::str::from_utf8(&whole).unwrap()[..20]);
        let mut expected = vec!["agent.start", "decision"];
        if end > before {
            expected.push("spool.gap");
            assert_eq!(detail(&lines[2], "reason"), "torn");
            assert_eq!(
                (detail(&lines[2], "after"), detail(&lines[2], "bytes")),
                ("2".into(), (end - before).to_string())
            );
        }
        expected.push("agent.start");
        assert_eq!(events(&lines), expected, "cut at {end}");
        assert!(aside(folder.path()).is_empty());
    }
}

#[tokio::test]
async fn blocks_that_were_never_written_count_as_torn() {
    let folder = folder();
    let records = life(folder.path());
    records.close();
    let path = files(folder.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend([0; 700]);
    fs::write(&path, bytes).unwrap();
    life(folder.path()).close();
    assert_eq!(events(&lines(folder.path())), ["agent.start", "spool.gap", "agent.start"]);
}

#[tokio::test]
async fn a_crash_in_the_very_first_write_leaves_nothing_in_the_way() {
    let folder = folder();
    let path = path_of(&folder.path().join("records"), 1);
    for torn in ["", "{\"v\":2,\"sou"] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, torn).unwrap();
        life(folder.path()).close();
        assert_eq!(events(&lines(folder.path())), ["agent.start"]);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}

#[tokio::test]
async fn a_chain_that_does_not_hold_is_set_aside_untouched_and_the_new_one_says_so() {
    let folder = folder();
    let records = life(folder.path());
    for n in 0..30 {
        records.append(&note(&n.to_string()), Durability::Soon).await.unwrap();
    }
    let (old, _) = records.stand().unwrap();
    records.close();
    let all = files(folder.path());
    let text = fs::read_to_string(&all[1]).unwrap();
    let changed = text.replacen("\"deny\"", "\"allow\"", 1);
    fs::write(&all[1], &changed).unwrap();
    let again = life(folder.path());
    let (new, stand) = again.stand().unwrap();
    again.close();
    assert!(new.id != old.id && stand.seq == 2);
    let lines = lines(folder.path());
    assert_eq!(events(&lines), ["spool.gap", "agent.start"]);
    assert_eq!(detail(&lines[0], "reason"), "broken");
    let kept = aside(folder.path());
    assert_eq!(kept.len(), all.len());
    assert!(kept.iter().any(|path| fs::read_to_string(path).unwrap() == changed));
    assert!(kept.iter().any(|path| path.ends_with(detail(&lines[0], "kept_as"))));
}

#[tokio::test]
async fn records_of_another_node_are_set_aside() {
    let folder = folder();
    life(folder.path()).close();
    let records = records(folder.path(), ROOM);
    records.bind(&id("/spire/agent/x509pop/b")).unwrap();
    let (chain, _) = records.stand().unwrap();
    assert_eq!(chain.source, id("/spire/agent/x509pop/b"));
    records.close();
    let text = fs::read_to_string(&files(folder.path())[0]).unwrap();
    assert_eq!(detail(text.lines().next().unwrap(), "reason"), "another_node");
    assert_eq!(aside(folder.path()).len(), 1);
}

#[tokio::test]
async fn a_full_spool_refuses_until_the_server_has_something_of_it() {
    let folder = folder();
    let records = records(folder.path(), Room { spool: 8192, segment: 2048 });
    records.bind(&source()).unwrap();
    let mut last = 1;
    let full = loop {
        match records.append(&note("x"), Durability::Synced).await {
            Ok(receipt) => last = receipt.seq,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, SpoolError::Full { .. }), "{full}");
    assert!(files(folder.path()).len() > 2);
    let (chain, stand) = records.stand().unwrap();
    assert_eq!(stand.seq, last, "what is refused takes no number");
    records.acknowledged(&chain, last);
    assert_eq!(files(folder.path()).len(), 1, "the last record stays: the next one hangs on it");
    assert_eq!(records.append(&note("x"), Durability::Soon).await.unwrap().seq, last + 1);
    records.close();
    let again = life(folder.path());
    assert_eq!(again.stand().unwrap().1.seq, last + 2);
    lines(folder.path());
}

#[derive(Clone, Debug)]
enum Act {
    Soon(u8),
    Synced(u8),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => any::<u8>().prop_map(Act::Soon),
        3 => any::<u8>().prop_map(Act::Synced),
        1 => Just(Act::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A power cut takes what the disk had not been told to keep, at any byte; nothing else.
    #[test]
    fn what_was_synced_survives_a_power_cut_at_any_byte(
        acts in prop::collection::vec(act(), 1..40),
        cut in any::<prop::sample::Index>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = folder();
        let mut records = life(folder.path());
        // The last record that the disk was said to have, and how long the files were then.
        let (mut acknowledged, mut safe) = (0, (0, 0));
        for act in acts {
            let (durability, size) = match act {
                Act::Soon(size) => (Durability::Soon, size),
                Act::Synced(size) => (Durability::Synced, size),
                Act::Restart => {
                    records.close();
                    records = life(folder.path());
                    continue;
                }
            };
            let text = "s".repeat(usize::from(size) + 1);
            let seq = runtime.block_on(records.append(&note(&text), durability)).unwrap().seq;
            if durability == Durability::Synced {
                let all = files(folder.path());
                let length = fs::metadata(all.last().unwrap()).unwrap().len();
                (acknowledged, safe) = (seq, (all.len(), length));
            }
        }
        records.close();
        let all = files(folder.path());
        let last = all.last().unwrap();
        let length = fs::metadata(last).unwrap().len();
        let least = if safe.0 == all.len() { safe.1 } else { 0 };
        prop_assume!(safe.0 + 1 >= all.len() && least < length);
        let end = least + cut.index(usize::try_from(length - least + 1).unwrap()) as u64;
        fs::OpenOptions::new().write(true).open(last).unwrap().set_len(end).unwrap();
        life(folder.path()).close();
        let lines = lines(folder.path());
        prop_assert!(lines.len() as u64 >= acknowledged, "{} lines, {acknowledged} acknowledged", lines.len());
        prop_assert!(aside(folder.path()).is_empty());
    }
}

/// A server that keeps what comes, as the real one does.
#[derive(Default)]
struct Kept {
    chains: Vec<(ChainId, Stand, Vec<String>)>,
    away: bool,
    gaps: u32,
    /// Answers with this once.
    next: Option<CallError>,
}

#[derive(Default)]
struct Fake {
    kept: Mutex<Kept>,
    changed: Notify,
}

#[tonic::async_trait]
impl Sink for Fake {
    async fn ship(&self, shipment: Shipment) -> Result<Stand, CallError> {
        let mut kept = self.kept.lock();
        if kept.away {
            return Err(CallError::Unreachable("away".into()));
        }
        if let Some(error) = kept.next.take_if(|_| !shipment.lines.is_empty()) {
            return Err(error);
        }
        let chain = NodeChain { source: source(), id: shipment.chain };
        let at = match kept.chains.iter().position(|(id, ..)| *id == shipment.chain) {
            Some(at) => at,
            None => {
                kept.chains.push((shipment.chain, Stand::default(), Vec::new()));
                kept.chains.len() - 1
            }
        };
        let stand = kept.chains[at].1;
        let Some(head) = &shipment.head else { return Ok(stand) };
        check_node_head(&chain, head).unwrap();
        let mut reader = if shipment.first > stand.seq + 1 {
            if !shipment.gap {
                return Err(CallError::Failed { code: Code::FailedPrecondition, message: "gap".into() });
            }
            kept.gaps += 1;
            ChainReader::from(chain, shipment.first)
        } else {
            ChainReader::after(chain, stand)
        };
        for line in &shipment.lines {
            reader.line(line).unwrap();
        }
        assert_eq!(reader.stand(), Some(head.stand));
        kept.chains[at].1 = head.stand;
        kept.chains[at].2.extend(shipment.lines);
        drop(kept);
        self.changed.notify_waiters();
        Ok(head.stand)
    }
}

impl Fake {
    /// Waits until the chain of now is here up to this record.
    async fn has(&self, records: &Records, seq: u64) {
        let all = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let chain = records.stand().map(|(chain, _)| chain.id);
                if self.kept.lock().chains.iter().any(|(id, stand, _)| Some(*id) == chain && stand.seq >= seq)
                {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("the records in time");
    }
}

fn voucher() -> Voucher {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(
        &key.pkcs8().to_vec().into(),
        &rcgen::PKCS_ECDSA_P256_SHA256,
    )
    .unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(source().to_string().try_into().unwrap()));
    let certificate = params.self_signed(&pair).unwrap().der().to_vec().into();
    Voucher { id: source(), certificate, key: Arc::new(key) }
}

/// Records that are shipped to a fake server.
struct Shipping {
    records: Records,
    fake: Arc<Fake>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _voucher: watch::Sender<Option<Voucher>>,
}

fn ship(folder: &Path, fake: &Arc<Fake>) -> Shipping {
    let records = records(folder, ROOM);
    let (sender, receiver) = watch::channel(Some(voucher()));
    let stop = CancellationToken::new();
    let sink: Arc<dyn Sink> = fake.clone();
    let task = tokio::spawn(keep_shipped(records.clone(), sink, receiver, 1, stop.clone()));
    Shipping { records, fake: fake.clone(), stop, task, _voucher: sender }
}

impl Shipping {
    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.records.close();
    }
}

#[tokio::test]
async fn records_come_to_the_server_and_files_that_it_has_go() {
    let (folder, fake) = (folder(), Arc::new(Fake::default()));
    let shipping = ship(folder.path(), &fake);
    shipping.fake.has(&shipping.records, 1).await;
    for n in 0..60 {
        shipping.records.append(&note(&n.to_string()), Durability::Soon).await.unwrap();
    }
    shipping.fake.has(&shipping.records, 61).await;
    shipping.end().await;
    assert_eq!(files(folder.path()).len(), 1);
    let kept = fake.kept.lock();
    assert_eq!((kept.chains.len(), kept.chains[0].2.len(), kept.gaps), (1, 61, 0));
}

#[tokio::test]
async fn a_server_that_was_away_gets_everything_in_order_when_it_is_back() {
    let (folder, fake) = (folder(), Arc::new(Fake::default()));
    fake.kept.lock().away = true;
    let records = life(folder.path());
    for n in 0..50 {
        records.append(&note(&n.to_string()), Durability::Soon).await.unwrap();
    }
    records.close();
    let shipping = ship(folder.path(), &fake);
    fake.kept.lock().away = false;
    shipping.fake.has(&shipping.records, 52).await;
    shipping.end().await;
    assert_eq!(fake.kept.lock().gaps, 0);
}

#[tokio::test]
async fn a_server_that_lost_records_hears_that_they_are_gone_here_too() {
    let (folder, fake) = (folder(), Arc::new(Fake::default()));
    let shipping = ship(folder.path(), &fake);
    shipping.fake.has(&shipping.records, 1).await;
    for n in 0..60 {
        shipping.records.append(&note(&n.to_string()), Durability::Synced).await.unwrap();
    }
    shipping.fake.has(&shipping.records, 61).await;
    shipping.end().await;
    {
        let mut kept = fake.kept.lock();
        let chain = &mut kept.chains[0];
        chain.2.truncate(3);
        chain.1 = Stand { seq: 3, hash: avouch_credential::ledger::hash_of(&chain.2[2]) };
    }
    let shipping = ship(folder.path(), &fake);
    shipping.fake.has(&shipping.records, 62).await;
    shipping.end().await;
    assert_eq!(fake.kept.lock().gaps, 1);
}

#[tokio::test]
async fn a_folder_of_an_earlier_moment_begins_a_new_chain() {
    let (folder, fake) = (folder(), Arc::new(Fake::default()));
    let shipping = ship(folder.path(), &fake);
    shipping.fake.has(&shipping.records, 1).await;
    let path = files(folder.path()).pop().unwrap();
    let early = fs::read(&path).unwrap();
    for n in 0..3 {
        shipping.records.append(&note(&n.to_string()), Durability::Synced).await.unwrap();
    }
    shipping.fake.has(&shipping.records, 4).await;
    shipping.end().await;
    fs::write(&path, early).unwrap();
    let shipping = ship(folder.path(), &fake);
    while fake.kept.lock().chains.len() < 2 {
        tokio::task::yield_now().await;
        fake.changed.notified().await;
    }
    shipping.fake.has(&shipping.records, 1).await;
    shipping.end().await;
    let kept = fake.kept.lock();
    assert_eq!(kept.chains[0].2.len(), 4, "the server's own are as they were");
    assert_eq!(events(&kept.chains[1].2)[0], "spool.gap");
    assert_eq!(detail(&kept.chains[1].2[0], "reason"), "server_ahead");
}

#[tokio::test]
async fn other_records_under_the_same_numbers_begin_a_new_chain() {
    let (folder, fake) = (folder(), Arc::new(Fake::default()));
    fake.kept.lock().next =
        Some(CallError::Failed { code: Code::Aborted, message: "another record is kept".into() });
    let shipping = ship(folder.path(), &fake);
    loop {
        let changed = fake.changed.notified();
        if fake.kept.lock().chains.iter().any(|(_, stand, _)| stand.seq > 0) {
            break;
        }
        changed.await;
    }
    shipping.end().await;
    let kept = fake.kept.lock();
    let chain = kept.chains.iter().find(|(_, stand, _)| stand.seq > 0).unwrap();
    assert_eq!(detail(&chain.2[0], "reason"), "conflict");
    assert_eq!(aside(folder.path()).len(), 1);
}
