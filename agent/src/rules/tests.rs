//! What is held after what was announced and given, one rule per test.

use std::time::Duration;

use avouch_credential::key::PrivateKey;
use avouch_credential::rules::SignedRules;
use avouch_domain::fixtures::domain;
use avouch_domain::{Epoch, KeyType, Timestamp, TrustDomain};
use avouch_rules::{Folder, STARTER};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::task::Task;
use super::*;
use crate::clock;
use crate::upstream::{Announced, AnnouncedRules, CallError, FetchedRules};

const LIFE: Epoch = Epoch { started: 5, random: 5 };

type Given = Result<FetchedRules, CallError>;

/// A server as the holder sees it: announces on a board and gives what it is told to.
struct Fake {
    board: watch::Sender<Option<Announced>>,
    gives: Mutex<Option<Given>>,
}

#[tonic::async_trait]
impl RulesSource for Fake {
    fn announced(&self) -> watch::Receiver<Option<Announced>> {
        self.board.subscribe()
    }

    async fn fetch_rules(&self) -> Given {
        self.gives.lock().take().unwrap_or_else(|| panic!("nothing was to be fetched"))
    }
}

/// A server, its key, and the folder of the agent's data.
struct Rig {
    fake: Arc<Fake>,
    key: PrivateKey,
    dir: tempfile::TempDir,
}

fn files(more: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = STARTER.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
    for (_, text) in files.iter_mut().filter(|(name, _)| name == "rules.cedar") {
        text.push_str(more);
    }
    files
}

fn sign(epoch: Epoch, number: u64, files: &[(String, String)], key: &PrivateKey) -> SignedRules {
    let digest = Folder::new(files.iter().cloned()).unwrap().rules_digest();
    SignedRules::sign(&domain(), epoch, number, digest, Timestamp(9), key).unwrap()
}

fn announced(signed: &SignedRules) -> Announced {
    let rules = AnnouncedRules { number: signed.number, digest: signed.digest, key: signed.key.clone() };
    Announced { epoch: signed.epoch, rules: Some(rules), fleet: None }
}

impl Rig {
    fn new() -> Self {
        let fake = Arc::new(Fake { board: watch::channel(None).0, gives: Mutex::default() });
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        Self { fake, key, dir: tempfile::tempdir().unwrap() }
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            source: self.fake.clone(),
            trust_domain: domain(),
            data_dir: self.dir.path(),
            metrics: Metrics::plain(),
            clock: clock::now,
            seed: 1,
        }
    }

    /// A holder whose steps the test takes.
    fn holder(&self) -> (Task, Book) {
        let book = Book::default();
        (Task::new(self.parts(), book.clone()), book)
    }

    fn fetched(&self, epoch: Epoch, number: u64, more: &str) -> FetchedRules {
        let files = files(more);
        FetchedRules { signed: sign(epoch, number, &files, &self.key), files }
    }

    /// The server announces these and gives them when asked.
    async fn show(&self, task: &mut Task, epoch: Epoch, number: u64, more: &str) {
        let fetched = self.fetched(epoch, number, more);
        let announced = announced(&fetched.signed);
        *self.fake.gives.lock() = Some(Ok(fetched));
        assert_eq!(task.follow(&announced).await, None);
    }
}

fn number(book: &Book) -> u64 {
    book.current().map_or(0, |held| held.number)
}

#[tokio::test]
async fn what_is_announced_is_held_while_the_task_runs() {
    let rig = Rig::new();
    let stop = CancellationToken::new();
    let book = start(rig.parts(), stop.clone());
    let fetched = rig.fetched(LIFE, 1, "");
    let announced = announced(&fetched.signed);
    *rig.fake.gives.lock() = Some(Ok(fetched));
    rig.fake.board.send_replace(Some(announced));
    let held = tokio::time::timeout(Duration::from_secs(20), async {
        while number(&book) != 1 {
            tokio::task::yield_now().await;
        }
    });
    held.await.unwrap();
    stop.cancel();
}

#[tokio::test]
async fn announced_rules_are_fetched_checked_and_decide() {
    let rig = Rig::new();
    let (mut task, book) = rig.holder();
    assert!(book.current().is_none());
    rig.show(&mut task, LIFE, 1, "").await;
    let held = book.current().unwrap();
    assert_eq!((held.rules.len(), held.rules.digest()), (6, held.digest.to_string().as_str()));
    rig.show(&mut task, LIFE, 2, "\n// changed\n").await;
    assert_eq!((number(&book), held.number), (2, 1), "who has begun with the old ones still has them");
}

#[tokio::test]
async fn a_lower_number_is_refused_until_the_store_was_restored() {
    let rig = Rig::new();
    let (mut task, book) = rig.holder();
    rig.show(&mut task, LIFE, 3, "").await;
    for (lower, more) in [(2, "\n// older\n"), (3, "\n// other content\n")] {
        rig.show(&mut task, LIFE, lower, more).await;
        assert_eq!(number(&book), 3);
        assert!(rig.fake.gives.lock().is_some(), "it is not even fetched");
    }
    rig.show(&mut task, Epoch { started: 4, random: 9 }, 4, "").await;
    assert_eq!(number(&book), 3, "an older life of the store");
    let none = |started| Announced { epoch: Epoch { started, random: 5 }, rules: None, fleet: None };
    task.follow(&none(5)).await;
    assert_eq!(number(&book), 3);
    rig.show(&mut task, Epoch { started: 6, random: 0 }, 1, "").await;
    assert_eq!(number(&book), 1);
    task.follow(&none(7)).await;
    assert!(book.current().is_none(), "restored to a time without rules");
    assert!(!rig.dir.path().join(kept::FILE).exists());
}

#[tokio::test]
async fn what_does_not_hold_is_not_taken_up_and_what_is_held_stays() {
    let rig = Rig::new();
    let (mut task, book) = rig.holder();
    rig.show(&mut task, LIFE, 1, "").await;
    let good = rig.fetched(LIFE, 2, "\n// next\n");
    let SignedRules { digest, valid_from, .. } = good.signed;
    let broken = files("\npermit (principal, action, resource);\n");
    let large: Vec<_> = (0..20).map(|n| (format!("{n}.cedar"), "/".repeat(60_000))).collect();
    let elsewhere = TrustDomain::new("other.org").unwrap();
    let foreign = SignedRules::sign(&elsewhere, LIFE, 2, digest, valid_from, &rig.key).unwrap();
    let wrong = [
        ("other files", FetchedRules { files: files("\n// other\n"), ..good.clone() }),
        (
            "another signature",
            FetchedRules {
                signed: SignedRules { signature: vec![0; 70], ..good.signed.clone() },
                ..good.clone()
            },
        ),
        ("another trust domain", FetchedRules { signed: foreign, ..good.clone() }),
        ("a finding", FetchedRules { signed: sign(LIFE, 2, &broken, &rig.key), files: broken }),
        ("too many bytes", FetchedRules { signed: sign(LIFE, 2, &large, &rig.key), files: large }),
    ];
    for (what, fetched) in wrong {
        let announced = announced(&fetched.signed);
        *rig.fake.gives.lock() = Some(Ok(fetched));
        assert_eq!(task.follow(&announced).await, None, "{what}");
        assert_eq!(number(&book), 1, "{what}");
    }
    // Whoever gives it is not who announced it.
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let other = FetchedRules { signed: sign(LIFE, 2, &good.files, &key), files: good.files.clone() };
    *rig.fake.gives.lock() = Some(Ok(other));
    task.follow(&announced(&good.signed)).await;
    assert_eq!(number(&book), 1);
    rig.show(&mut task, LIFE, 2, "\n// next\n").await;
    assert_eq!(number(&book), 2);
}

#[tokio::test]
async fn a_failed_fetch_is_tried_again_after_a_pause() {
    let rig = Rig::new();
    let (mut task, book) = rig.holder();
    let announced = announced(&rig.fetched(LIFE, 1, "").signed);
    let away = || Some(Err(CallError::Unreachable("away".into())));
    let mut pauses = Vec::new();
    for _ in 0..12 {
        *rig.fake.gives.lock() = away();
        pauses.push(task.follow(&announced).await.unwrap());
    }
    assert!(pauses[0] <= Duration::from_millis(500), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(30)), "{pauses:?}");
    rig.show(&mut task, LIFE, 1, "").await;
    assert_eq!(number(&book), 1);
}

#[tokio::test]
async fn a_start_takes_up_what_was_kept_and_goes_on_from_its_number() {
    let rig = Rig::new();
    let (mut task, _) = rig.holder();
    rig.show(&mut task, LIFE, 4, "").await;
    let (mut again, book) = rig.holder();
    again.take_up().await;
    assert_eq!(number(&book), 4);
    rig.show(&mut again, LIFE, 3, "\n// older\n").await;
    assert_eq!(number(&book), 4, "no way back over a restart");
}

#[tokio::test]
async fn kept_rules_that_somebody_touched_are_ignored() {
    let rig = Rig::new();
    let (mut task, _) = rig.holder();
    rig.show(&mut task, LIFE, 4, "").await;
    let path = rig.dir.path().join(kept::FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    let touched = [
        text.replace("\"number\":4", "\"number\":9"),
        text.replace("max_rows=1000", "max_rows=9999"),
        text[..text.len() / 2].to_owned(),
        "{}".to_owned(),
    ];
    for touched in touched {
        assert_ne!(touched, text);
        std::fs::write(&path, touched).unwrap();
        let (mut again, book) = rig.holder();
        again.take_up().await;
        assert!(book.current().is_none());
    }
}
