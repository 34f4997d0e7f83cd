//! What the store promises about the records of nodes.

use avouch_domain::fixtures::id;
use avouch_domain::{KeptHead, NodeHead, Receipt, Stand, Timestamp};

use crate::limits::{CHAINS_PER_DAY, FINDINGS_PER_CHAIN, NODE_HEADS_KEPT};
use crate::tests::kit::{NOW, file, memory};
use crate::{Kept, NodeBatch, Store, StoredRecord};

const CHAIN: &str = "0707070707070707";

/// A hash that tells records apart.
fn hash(seq: u64) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&seq.to_be_bytes());
    hash
}

/// Records `first` to `last` of a chain, whose lines end with `mark`.
fn batch(chain: &str, first: u64, last: u64, mark: &str) -> NodeBatch {
    let head = NodeHead {
        stand: Stand { seq: last, hash: hash(last) },
        at: Timestamp(5),
        certificate: vec![1],
        signature: vec![2],
    };
    NodeBatch {
        source: id("/spire/agent/x509pop/a"),
        chain: chain.into(),
        before: Stand { seq: first - 1, hash: hash(first - 1) },
        records: (first..=last).map(|seq| StoredRecord { seq, line: format!("{seq}{mark}") }).collect(),
        head: KeptHead { head, receipt: Receipt { key: vec![3], signature: vec![4] } },
        gap: false,
        used: None,
        at: NOW,
    }
}

async fn keep(store: &Store, batch: NodeBatch) -> Kept {
    store.keep_node_records(vec![batch]).await.unwrap()[0]
}

fn yes(last: u64, began: bool) -> Kept {
    Kept::Yes { stand: Stand { seq: last, hash: hash(last) }, began, gap_after: None }
}

#[tokio::test]
async fn what_a_node_sends_is_kept_once_and_read_in_order() {
    for at in [memory(), file()] {
        let store = &at.store;
        assert_eq!(keep(store, batch(CHAIN, 1, 3, "")).await, yes(3, true));
        assert_eq!(keep(store, batch(CHAIN, 1, 3, "")).await, yes(3, false), "sent again");
        assert_eq!(keep(store, batch(CHAIN, 2, 5, "")).await, yes(5, false), "sent again, and more");
        let stand = store.node_stand(id("/spire/agent/x509pop/a"), CHAIN.into()).await.unwrap();
        assert_eq!(stand, Stand { seq: 5, hash: hash(5) });
        let chains = store.node_chains(None, 0).await.unwrap();
        assert_eq!((chains.len(), chains[0].first, chains[0].last), (1, 1, 5));
        assert!(store.node_chains(Some(id("/spire/agent/x509pop/b")), 0).await.unwrap().is_empty());
        let page = store.node_records(chains[0].number, 1, 3).await.unwrap();
        let lines: Vec<_> = page.records.iter().map(|record| record.line.as_str()).collect();
        assert_eq!((lines, page.heads.len()), (vec!["2", "3", "4"], 1));
        let rest = store.node_records(chains[0].number, 4, 10).await.unwrap();
        assert_eq!(rest.heads[0], batch(CHAIN, 5, 5, "").head);
    }
}

#[tokio::test]
async fn a_chain_does_not_go_on_behind_a_gap_unless_the_node_says_that_it_lost_the_records() {
    let at = memory();
    let store = &at.store;
    let early = keep(store, batch(CHAIN, 4, 5, "")).await;
    assert_eq!(early, Kept::Gap { stand: Stand::default() });
    keep(store, batch(CHAIN, 1, 2, "")).await;
    let refused = keep(store, batch(CHAIN, 4, 5, "")).await;
    assert_eq!(refused, Kept::Gap { stand: Stand { seq: 2, hash: hash(2) } });
    let admitted = keep(store, NodeBatch { gap: true, ..batch(CHAIN, 4, 5, "") }).await;
    assert!(matches!(admitted, Kept::Yes { gap_after: Some(2), .. }), "{admitted:?}");
}

#[tokio::test]
async fn another_record_under_the_same_number_is_refused_and_named() {
    let at = memory();
    let store = &at.store;
    keep(store, batch(CHAIN, 1, 3, "")).await;
    let other = NodeBatch { records: batch(CHAIN, 2, 4, "x").records, ..batch(CHAIN, 2, 4, "") };
    assert!(matches!(keep(store, other).await, Kept::Conflict { seq: 2, .. }));
    let mut elsewhere = batch(CHAIN, 4, 4, "");
    elsewhere.before.hash = hash(99);
    assert!(
        matches!(keep(store, elsewhere).await, Kept::Conflict { seq: 3, .. }),
        "written after another one"
    );
    assert_eq!(store.node_stand(id("/spire/agent/x509pop/a"), CHAIN.into()).await.unwrap().seq, 3);
}

#[tokio::test]
async fn the_batches_of_one_transaction_are_judged_one_by_one() {
    let at = memory();
    let batches = vec![batch(CHAIN, 1, 2, ""), batch(CHAIN, 9, 9, ""), batch("0808080808080808", 1, 1, "")];
    let kept = at.store.keep_node_records(batches).await.unwrap();
    assert_eq!(kept[0], yes(2, true));
    assert!(matches!(kept[1], Kept::Gap { .. }));
    assert_eq!(kept[2], yes(1, true));
}

#[tokio::test]
async fn a_node_can_not_begin_chains_or_lose_records_without_end() {
    let at = memory();
    let store = &at.store;
    for n in 0..CHAINS_PER_DAY {
        assert_eq!(keep(store, batch(&format!("{n:016x}"), 1, 1, "")).await, yes(1, true));
    }
    assert_eq!(keep(store, batch("ffffffffffffffff", 1, 1, "")).await, Kept::TooMany);
    let chain = format!("{:016x}", 0);
    for _ in 0..FINDINGS_PER_CHAIN {
        assert!(store.count_node_finding(id("/spire/agent/x509pop/a"), chain.clone()).await.unwrap());
    }
    assert!(!store.count_node_finding(id("/spire/agent/x509pop/a"), chain.clone()).await.unwrap());
    let gap = NodeBatch { gap: true, ..batch(&chain, 5, 5, "") };
    assert_eq!(keep(store, gap).await, Kept::TooMany);
}

#[tokio::test]
async fn of_many_heads_the_newest_stay() {
    let at = memory();
    for seq in 1..=40 {
        keep(&at.store, batch(CHAIN, seq, seq, "")).await;
    }
    let heads = at.store.node_records(1, 0, 100).await.unwrap().heads;
    assert_eq!(heads.len() as i64, NODE_HEADS_KEPT + 1);
    assert_eq!(heads.last().unwrap().head.stand.seq, 40);
}

#[tokio::test]
async fn the_last_use_of_an_identity_is_kept_to_the_day_and_never_goes_back() {
    const DAY: i64 = 86_400;
    let noon = |day: i64| Timestamp::from_secs(NOW.secs().div_euclid(DAY) * DAY + day * DAY + DAY / 2);
    let (coder, buyer) = (id("/test/coder"), id("/test/buyer"));
    for at in [memory(), file()] {
        let store = &at.store;
        for (seq, day) in [(1, 7), (2, 3), (3, 9)] {
            let used = if day == 9 { vec![buyer.clone()] } else { vec![coder.clone()] };
            keep(store, NodeBatch { used: Some(used), at: noon(day), ..batch(CHAIN, seq, seq, "") }).await;
        }
        let last = store.last_uses(vec![coder.clone(), buyer.clone(), id("/test/other")]).await.unwrap();
        let begins = |day: i64| Some(Timestamp::from_secs(noon(day).secs() - DAY / 2));
        assert_eq!(last, [begins(7), begins(9), None]);
        let uses = store.uses_since(noon(8)).await.unwrap();
        assert_eq!(uses.lately, [buyer.to_string()].into());
        assert_eq!(uses.tellers, [id("/spire/agent/x509pop/a").to_string()].into());
        let gone = NodeBatch { at: noon(7 + 401), used: Some(vec![buyer.clone()]), ..batch(CHAIN, 4, 4, "") };
        keep(store, gone).await;
        assert_eq!(store.last_uses(vec![coder.clone()]).await.unwrap(), [None], "nobody asks so far back");
    }
}
