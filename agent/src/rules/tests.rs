//! What is held after what was announced and given, one rule per test.

use std::path::Path;
use std::time::Duration;

use avouch_credential::key::PrivateKey;
use avouch_credential::rules::SignedRules;
use avouch_domain::fixtures::domain;
use avouch_domain::{Epoch, KeyType, Timestamp, TrustDomain};
use avouch_rules::{Folder, STARTER};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::*;
use crate::clock;
use crate::upstream::{Announced, AnnouncedRules, CallError, FetchedRules};

const LIFE: Epoch = Epoch { started: 5, random: 5 };

/// A server as the holder sees it: announces on a board and gives what it is told to.
struct Fake {
    board: watch::Sender<Option<Announced>>,
    gives: Mutex<Vec<Result<FetchedRules, CallError>>>,
    asked: watch::Sender<usize>,
}

#[tonic::async_trait]
impl RulesSource for Fake {
    fn announced(&self) -> watch::Receiver<Option<Announced>> {
        self.board.subscribe()
    }

    async fn fetch_rules(&self) -> Result<FetchedRules, CallError> {
        self.asked.send_modify(|asked| *asked += 1);
        let mut gives = self.gives.lock();
        if gives.len() > 1 { gives.remove(0) } else { gives[0].clone() }
    }
}

/// A holder, its server and the folder of its data.
struct Rig {
    fake: Arc<Fake>,
    key: PrivateKey,
    dir: tempfile::TempDir,
    stop: CancellationToken,
}

fn files(more: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = STARTER.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
    for (name, text) in &mut files {
        if name == "rules.cedar" {
            text.push_str(more);
        }
    }
    files
}

fn sign(
    domain: &TrustDomain,
    epoch: Epoch,
    number: u64,
    files: &[(String, String)],
    key: &PrivateKey,
) -> SignedRules {
    let digest = Folder::new(files.iter().cloned()).unwrap().rules_digest();
    SignedRules::sign(domain, epoch, number, digest, Timestamp(9), key).unwrap()
}

impl Rig {
    fn new() -> Self {
        let (board, asked) = (watch::channel(None).0, watch::channel(0).0);
        let fake = Arc::new(Fake { board, gives: Mutex::default(), asked });
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        Self { fake, key, dir: tempfile::tempdir().unwrap(), stop: CancellationToken::new() }
    }

    fn start(&self) -> Book {
        let parts = Parts {
            source: self.fake.clone(),
            trust_domain: domain(),
            data_dir: self.dir.path(),
            metrics: Metrics::plain(),
            clock: clock::now,
            seed: 1,
        };
        start(parts, self.stop.clone())
    }

    fn fetched(&self, epoch: Epoch, number: u64, more: &str) -> FetchedRules {
        let files = files(more);
        FetchedRules { signed: sign(&domain(), epoch, number, &files, &self.key), files }
    }

    /// Gives these from now on, the last again and again.
    fn give(&self, gives: Vec<Result<FetchedRules, CallError>>) {
        *self.fake.gives.lock() = gives;
    }

    fn announce(&self, signed: &SignedRules) {
        let rules = AnnouncedRules { number: signed.number, digest: signed.digest, key: signed.key.clone() };
        let announced = Announced { epoch: signed.epoch, rules: Some(rules), fleet: None };
        self.fake.board.send_replace(Some(announced));
    }

    fn publish(&self, epoch: Epoch, number: u64, more: &str) {
        let fetched = self.fetched(epoch, number, more);
        let signed = fetched.signed.clone();
        self.give(vec![Ok(fetched)]);
        self.announce(&signed);
    }

    /// Waits until so many fetches began.
    async fn asked(&self, times: usize) {
        let mut asked = self.fake.asked.subscribe();
        asked.wait_for(|asked| *asked >= times).await.unwrap();
    }

    fn file(&self) -> &Path {
        self.dir.path()
    }
}

fn number(book: &Book) -> u64 {
    book.current().map_or(0, |held| held.number)
}

/// Waits until this number is held.
async fn holds(book: &Book, wanted: u64) {
    let held = tokio::time::timeout(Duration::from_secs(20), async {
        while number(book) != wanted {
            tokio::task::yield_now().await;
        }
    });
    held.await.unwrap_or_else(|_| panic!("holds {}, expected {wanted}", number(book)));
}

#[tokio::test(flavor = "multi_thread")]
async fn announced_rules_are_fetched_checked_and_decide() {
    let rig = Rig::new();
    let book = rig.start();
    assert!(book.current().is_none());
    rig.publish(LIFE, 1, "");
    holds(&book, 1).await;
    let held = book.current().unwrap();
    assert_eq!((held.rules.len(), held.rules.digest()), (6, held.digest.to_string().as_str()));
    rig.publish(LIFE, 2, "\n// changed\n");
    holds(&book, 2).await;
    assert_eq!(held.number, 1, "who has begun with the old ones still has them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_number_is_refused_until_the_store_was_restored() {
    let rig = Rig::new();
    let book = rig.start();
    rig.publish(LIFE, 3, "");
    holds(&book, 3).await;
    rig.publish(LIFE, 2, "\n// older\n");
    // Judged in order: by the time the next one is held, the one before was refused.
    rig.publish(LIFE, 4, "\n// newer\n");
    holds(&book, 4).await;
    rig.asked(2).await;
    rig.publish(LIFE, 1, "");
    rig.publish(Epoch { started: 6, random: 0 }, 1, "");
    holds(&book, 1).await;
    let none = Announced { epoch: Epoch { started: 7, random: 0 }, rules: None, fleet: None };
    rig.fake.board.send_replace(Some(none));
    holds(&book, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_hold_is_not_taken_up_and_what_is_held_stays() {
    let rig = Rig::new();
    let book = rig.start();
    rig.publish(LIFE, 1, "");
    holds(&book, 1).await;
    let good = |number| rig.fetched(LIFE, number, "\n// next\n");
    let other_key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let mut wrong: Vec<(&str, FetchedRules)> = Vec::new();
    let mut files_changed = good(2);
    files_changed.files = files("\n// other\n");
    wrong.push(("bad digest", files_changed));
    let mut unsigned = good(3);
    unsigned.signed.signature = vec![0; 70];
    wrong.push(("bad signature", unsigned));
    let elsewhere = TrustDomain::new("other.org").unwrap();
    let mut foreign = good(4);
    foreign.signed = sign(&elsewhere, LIFE, 4, &foreign.files, &rig.key);
    wrong.push(("other trust domain", foreign));
    let broken = files("\npermit (principal, action, resource);\n");
    let signed = sign(&domain(), LIFE, 5, &broken, &rig.key);
    wrong.push(("a finding of the check", FetchedRules { signed, files: broken }));
    for (n, (what, fetched)) in wrong.into_iter().enumerate() {
        let signed = fetched.signed.clone();
        rig.give(vec![Ok(fetched)]);
        rig.announce(&signed);
        rig.asked(n + 2).await;
        assert_eq!(number(&book), 1, "{what}");
    }
    // Signed by another key than announced: whoever gives it is not who announced it.
    let mut other = good(6);
    let announced = other.signed.clone();
    other.signed = sign(&domain(), LIFE, 6, &other.files, &other_key);
    rig.give(vec![Ok(other)]);
    rig.announce(&announced);
    rig.asked(6).await;
    rig.publish(LIFE, 7, "");
    holds(&book, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_fetch_is_tried_again() {
    let rig = Rig::new();
    let book = rig.start();
    let fetched = rig.fetched(LIFE, 1, "");
    let signed = fetched.signed.clone();
    rig.give(vec![Err(CallError::Unreachable("away".into())), Ok(fetched)]);
    rig.announce(&signed);
    holds(&book, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_the_server_takes_up_what_was_kept_unless_somebody_touched_it() {
    let mut rig = Rig::new();
    let book = rig.start();
    rig.publish(LIFE, 4, "");
    holds(&book, 4).await;
    let path = rig.file().join(kept::FILE);
    while !path.exists() {
        tokio::task::yield_now().await;
    }
    rig.stop.cancel();
    // Away: nothing is announced, nothing is given.
    rig.fake.board.send_replace(None);
    rig.stop = CancellationToken::new();
    let again = rig.start();
    holds(&again, 4).await;
    rig.publish(LIFE, 3, "");
    rig.publish(LIFE, 5, "\n// newer\n");
    holds(&again, 5).await;
    rig.stop.cancel();
    rig.fake.board.send_replace(None);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        text.replace("\"number\":4", "\"number\":9").replace("\"number\":5", "\"number\":9"),
    )
    .unwrap();
    rig.stop = CancellationToken::new();
    let touched = rig.start();
    // The file of 9 is refused; the server's word of now is taken.
    rig.publish(LIFE, 6, "");
    holds(&touched, 6).await;
}
