//! One suite for every kind of database: a new one is one line at the end.

use avouch_credential::ledger::{FIRST_PREVIOUS, SignedHead, hash_of, read_line};
use avouch_domain::{
    Identity, Kind, LogPosition, Plan, PublishedRules, Request, Row, RowKey, RulesDigest, RulesFolder,
    RulesStanding,
};

use super::kit::*;
use crate::{CommitError, Lost, Stretch, TailError};

async fn what_is_put_is_read_back_the_same(at: Opened) {
    let rows = one_of_each();
    at.store.commit(at.image.position, vec![put(rows.clone())]).await.unwrap();
    let image = at.store.image(NOW).await.unwrap();
    assert_eq!(sorted(image.rows), sorted(rows));
}

async fn a_deleted_row_is_gone(at: Opened) {
    let mut rows = one_of_each();
    rows.retain(|row| !matches!(row, Row::Rules(_))); // they stay, see below
    let mut plans = vec![put(rows.clone())];
    plans.extend(rows.iter().map(|r| delete(r.key())));
    at.store.commit(at.image.position, plans).await.unwrap();
    assert!(at.store.image(NOW).await.unwrap().rows.is_empty());
}

async fn each_plan_takes_the_next_revision(at: Opened) {
    let plans = vec![moved("a"), moved("b"), moved("c")];
    let positions = at.store.commit(at.image.position, plans).await.unwrap();
    assert_eq!(positions.iter().map(|p| p.revision.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(at.store.position().await.unwrap(), positions[2]);
    assert!(positions[0].head != positions[1].head && positions[1].head != positions[2].head);
}

async fn a_plan_without_rows_takes_no_revision_and_its_record_is_kept(at: Opened) {
    let only_audit = Plan { audit: vec![audit_row("refused")], ..Plan::default() };
    let positions = at.store.commit(at.image.position, vec![moved("a"), only_audit]).await.unwrap();
    assert_eq!(positions[0], positions[1]);
    let record = read_line(&at.store.records(0, 10).await.unwrap().records[0].line).unwrap();
    assert_eq!((record.revision, record.subject.as_str()), (1, "refused"));
}

async fn a_plan_made_elsewhere_is_behind_and_writes_nothing(at: Opened) {
    let now = last(&at.store.commit(at.image.position, vec![moved("a")]).await.unwrap());
    let mut late = moved("b");
    late.audit.push(audit_row("b"));
    let refused = at.store.commit(at.image.position, vec![late]).await;
    assert!(matches!(refused, Err(CommitError::Behind(p)) if p == now), "{refused:?}");
    assert_eq!(at.store.image(NOW).await.unwrap().rows.len(), 1);
    assert_eq!(at.store.records(0, 10).await.unwrap(), Stretch::default());
}

async fn a_plan_that_hides_a_row_from_the_log_is_refused_whole(at: Opened) {
    let base = at.image.position;
    let hidden = Plan { changes: Vec::new(), ..moved("b") };
    let refused = at.store.commit(base, vec![moved("a"), hidden]).await;
    assert!(matches!(refused, Err(CommitError::Plan { .. })), "{refused:?}");
    let idle = Plan { puts: Vec::new(), ..moved("c") };
    assert!(matches!(at.store.commit(base, vec![idle]).await, Err(CommitError::Plan { .. })));
    let mut both = moved("d");
    both.deletes.push(Row::Entry(an_entry("d")).key());
    assert!(matches!(at.store.commit(base, vec![both]).await, Err(CommitError::Plan { .. })));
    assert_eq!(at.store.position().await.unwrap(), base);
    assert!(at.store.image(NOW).await.unwrap().rows.is_empty());
}

async fn waiting_commits_are_judged_one_by_one(at: Opened) {
    let base = at.image.position;
    let commits = ["a", "b", "c", "d"].map(|name| {
        let store = at.store.clone();
        tokio::spawn(async move { store.commit(base, vec![moved(name)]).await.is_ok() })
    });
    let mut done = 0;
    for commit in commits {
        done += usize::from(commit.await.unwrap());
    }
    assert_eq!((done, at.store.position().await.unwrap().revision.0), (1, 1));
}

async fn the_log_tells_what_happened_with_parents_and_rows(at: Opened) {
    let key = Row::Entry(an_entry("a")).key();
    let plans = vec![moved("a"), moved("b"), delete(key.clone())];
    let end = last(&at.store.commit(at.image.position, plans).await.unwrap());
    let tail = at.store.changes_since(at.image.position, 100).await.unwrap();
    assert_eq!((tail.position, tail.latest), (end, end));
    assert_eq!(
        tail.changes.iter().map(|c| (c.revision.0, c.deleted)).collect::<Vec<_>>(),
        [(1, false), (2, false), (3, true)]
    );
    assert_eq!(tail.changes[0].parent_before.as_ref().unwrap().path(), "/before");
    assert_eq!(tail.changes[0].parent_after.as_ref().unwrap().path(), "/after");
    let (plan, position) = tail.into_plan();
    assert_eq!((plan.puts, plan.deletes, position), (vec![Row::Entry(an_entry("b"))], vec![key], end));
}

async fn the_log_is_cut_between_revisions_only(at: Opened) {
    let two = put([Row::Entry(an_entry("a")), Row::Entry(an_entry("b"))]);
    let positions = at.store.commit(at.image.position, vec![two, moved("c")]).await.unwrap();
    let tail = at.store.changes_since(at.image.position, 1).await.unwrap();
    assert_eq!((tail.changes.len(), tail.position, tail.latest), (2, positions[0], positions[1]));
    let rest = at.store.changes_since(tail.position, 1).await.unwrap();
    assert_eq!((rest.changes.len(), rest.position), (1, positions[1]));
    let nothing = at.store.changes_since(rest.position, 1).await.unwrap();
    assert_eq!((nothing.changes.len(), nothing.position), (0, positions[1]));
}

async fn a_position_of_another_history_is_lost(at: Opened) {
    let positions = at.store.commit(at.image.position, vec![moved("a"), moved("b")]).await.unwrap();
    let lost = async |from: LogPosition| match at.store.changes_since(from, 9).await {
        Err(TailError::Lost(why)) => why,
        other => panic!("not lost: {other:?}"),
    };
    let mut other_epoch = positions[0];
    other_epoch.epoch.random ^= 1;
    assert_eq!(lost(other_epoch).await, Lost::Epoch);
    let mut ahead = positions[1];
    ahead.revision.0 += 1;
    assert_eq!(lost(ahead).await, Lost::Ahead);
    for at_revision in [at.image.position, positions[0], positions[1]] {
        let mut other_head = at_revision;
        other_head.head.0[0] ^= 1;
        assert_eq!(lost(other_head).await, Lost::Head);
    }
}

async fn records_are_read_in_order_and_onwards_and_each_holds_the_hash_of_the_one_before(at: Opened) {
    let mut plan = moved("a");
    plan.audit = vec![audit_row("one"), audit_row("two")];
    let now = last(&at.store.commit(at.image.position, vec![plan]).await.unwrap());
    let mut plan = moved("b");
    plan.audit = vec![audit_row("three")];
    at.store.commit(now, vec![plan]).await.unwrap();
    let first = at.store.records(0, 2).await.unwrap().records;
    let rest = at.store.records(first[1].seq, 2).await.unwrap().records;
    let lines: Vec<_> = first.iter().chain(&rest).map(|r| r.line.as_str()).collect();
    let read: Vec<_> = lines.iter().map(|line| read_line(line).unwrap()).collect();
    let subjects: Vec<_> = read.iter().map(|r| r.subject.as_str()).collect();
    assert_eq!(subjects, ["one", "two", "three"]);
    assert_eq!((read[2].event.as_str(), read[2].actor.as_str()), ("entry_created", "server"));
    let before: Vec<_> = read.iter().map(|r| r.previous).collect();
    assert_eq!(before, [FIRST_PREVIOUS, hash_of(lines[0]), hash_of(lines[1])]);
}

async fn a_head_is_wanted_until_the_last_record_has_one_and_is_read_with_it(at: Opened) {
    assert_eq!(at.store.unsigned().await.unwrap(), None);
    let mut plan = moved("a");
    plan.audit = vec![audit_row("one"), audit_row("two")];
    at.store.commit(at.image.position, vec![plan]).await.unwrap();
    let (seq, hash) = at.store.unsigned().await.unwrap().unwrap();
    let head = SignedHead { seq, hash, at: NOW, key: vec![1], signature: vec![2] };
    at.store.keep_head(head.clone()).await.unwrap();
    assert_eq!((seq, at.store.unsigned().await.unwrap()), (2, None));
    assert_eq!(at.store.records(0, 1).await.unwrap().heads, []);
    assert_eq!(at.store.records(1, 9).await.unwrap().heads, [head]);
}

async fn the_table_itself_keeps_environments_stop_numbers_and_stops(at: Opened) {
    use avouch_domain::fixtures::{identity, person};
    use avouch_domain::{Cause, Environment, Standing};
    let first = Identity { stop_number: 2, ..identity("/test/x", Kind::Service) };
    let rows = [Row::Person(person("per_owner", 1, false)), Row::Identity(first.clone())];
    let now = last(&at.store.commit(at.image.position, vec![put(rows)]).await.unwrap());
    let nobodys = Identity { owner: avouch_domain::fixtures::person_id("per_nobody"), ..first.clone() };
    let moved = Identity { environment: Environment::Prod, ..first.clone() };
    let fallen = Identity { stop_number: 1, ..first.clone() };
    for wrong in [nobodys, moved, fallen] {
        let refused = at.store.commit(now, vec![put([Row::Identity(wrong)])]).await;
        assert!(matches!(refused, Err(CommitError::Store(_))), "{refused:?}");
    }
    let stopped = Identity { standing: Standing::Stopped(Cause::Person), stop_number: 3, ..first.clone() };
    let now = last(&at.store.commit(now, vec![put([Row::Identity(stopped)])]).await.unwrap());
    let again = Identity { stop_number: 4, ..first };
    let refused = at.store.commit(now, vec![put([Row::Identity(again)])]).await;
    assert!(matches!(refused, Err(CommitError::Store(_))), "{refused:?}");
}

fn folder(content: u8, text: &str) -> RulesFolder {
    let files = vec![("a.cedar".to_owned(), text.to_owned()), ("resources.toml".to_owned(), String::new())];
    RulesFolder { digest: RulesDigest([content; 32]), files: files.into() }
}

fn published(number: u64, standing: RulesStanding) -> PublishedRules {
    use avouch_domain::fixtures::rules;
    let rules = PublishedRules { digest: RulesDigest([7; 32]), standing, ..rules(number) };
    match standing {
        RulesStanding::Approved => rules,
        _ => PublishedRules { yes_by: None, valid_from: None, ..rules },
    }
}

async fn a_folder_of_rules_is_written_with_its_row_and_read_by_its_digest(at: Opened) {
    use avouch_domain::fixtures::person;
    let folder = folder(7, "text with \"quotes\"\nand lines");
    let rows = [Row::Person(person("per_s", 1, true)), Row::Rules(published(1, RulesStanding::Approved))];
    let plan = Plan { folders: vec![folder.clone()], ..put(rows.clone()) };
    let late = at.store.commit(
        LogPosition { revision: avouch_domain::Revision(9), ..at.image.position },
        vec![plan.clone()],
    );
    assert!(late.await.is_err());
    assert_eq!(at.store.rules_folder(folder.digest).await.unwrap(), None, "with its row or not at all");
    let now = last(&at.store.commit(at.image.position, vec![plan]).await.unwrap());
    assert_eq!(at.store.rules_folder(folder.digest).await.unwrap(), Some(folder.clone()));
    assert_eq!(sorted(at.store.image(NOW).await.unwrap().rows), sorted(rows.to_vec()));
    let again =
        Plan { folders: vec![folder.clone()], ..put([Row::Rules(published(2, RulesStanding::Proposed))]) };
    at.store.commit(now, vec![again]).await.unwrap();
    assert_eq!(at.store.rules_folder(folder.digest).await.unwrap(), Some(folder));
}

async fn only_folders_of_the_newest_rules_and_of_those_in_force_are_kept(at: Opened) {
    use avouch_domain::fixtures::person;
    let many = u8::try_from(crate::limits::FOLDERS_KEPT).unwrap() + 2;
    let of = |number: u8, standing| PublishedRules {
        digest: RulesDigest([number; 32]),
        ..published(number.into(), standing)
    };
    let mut plans = vec![put([Row::Person(person("per_s", 1, true))])];
    plans.extend((1..=many).map(|number| {
        let standing = if number == 1 { RulesStanding::Approved } else { RulesStanding::Proposed };
        Plan { folders: vec![folder(number, "")], ..put([Row::Rules(of(number, standing))]) }
    }));
    at.store.commit(at.image.position, plans).await.unwrap();
    let kept = async |number: u8| at.store.rules_folder(RulesDigest([number; 32])).await.unwrap().is_some();
    assert_eq!([kept(1).await, kept(2).await, kept(3).await, kept(many).await], [true, false, true, true]);
}

async fn the_table_itself_keeps_rules_as_they_were_published(at: Opened) {
    use RulesStanding::{Approved, Proposed, Withdrawn};
    use avouch_domain::fixtures::{person, person_id};
    let mut rows = vec![Row::Person(person("per_s", 1, true)), Row::Person(person("per_t", 2, true))];
    rows.extend(
        [(1, Approved), (2, Proposed), (3, Approved), (5, Withdrawn)]
            .map(|(n, s)| Row::Rules(published(n, s))),
    );
    let now = last(&at.store.commit(at.image.position, vec![put(rows)]).await.unwrap());
    let one = published(1, Approved);
    let wrong = [
        ("a number below the highest", published(4, Approved)),
        ("below the rules in force", published(2, Approved)),
        ("other files", PublishedRules { digest: RulesDigest([8; 32]), ..one.clone() }),
        ("another publisher", PublishedRules { published_by: person_id("per_t"), ..one.clone() }),
        ("a yes taken back", published(1, Proposed)),
        ("another yes", PublishedRules { yes_by: Some(person_id("per_t")), ..one.clone() }),
        ("a withdrawal taken back", published(5, Proposed)),
        ("a yes that is none", PublishedRules { yes_by: None, ..published(6, Approved) }),
        ("of nobody", PublishedRules { published_by: person_id("per_nobody"), ..published(6, Approved) }),
    ];
    for (what, wrong) in wrong {
        let refused = at.store.commit(now, vec![put([Row::Rules(wrong)])]).await;
        assert!(matches!(refused, Err(CommitError::Store(_))), "{what}: {refused:?}");
    }
    let refused = at.store.commit(now, vec![delete(Row::Rules(one).key())]).await;
    assert!(matches!(refused, Err(CommitError::Store(_))), "{refused:?}");
    at.store.commit(now, vec![put([Row::Rules(published(6, Proposed))])]).await.unwrap();
}

async fn a_text_of_a_request_goes_with_the_last_request_that_names_it(at: Opened) {
    use avouch_domain::fixtures::request;
    use avouch_domain::{RequestHash, RequestText};
    let text =
        |n: u8| RequestText { hash: RequestHash([n; 32]), text: format!("text {n} \"quoted\"").into() };
    let of = |id: &str, n: u8| Row::Request(Request { hash: text(n).hash, ..request(id, "/test/plain") });
    let mut first = put(one_of_each());
    first.puts.retain(|row| !matches!(row, Row::Request(_)));
    first.changes.retain(|change| !matches!(change.key, RowKey::Request(_)));
    let asked = Plan {
        texts: vec![text(1), text(2), text(1)],
        ..put([of("req_1", 1), of("req_2", 2), of("req_3", 1)])
    };
    let now = last(&at.store.commit(at.image.position, vec![first, asked]).await.unwrap());
    let kept = async |n: u8| at.store.request_text(RequestHash([n; 32])).await.unwrap();
    assert_eq!([kept(1).await, kept(2).await, kept(3).await], [Some(text(1)), Some(text(2)), None]);
    let plans = vec![delete(of("req_1", 1).key()), delete(of("req_2", 2).key())];
    at.store.commit(now, plans).await.unwrap();
    assert_eq!([kept(1).await, kept(2).await], [Some(text(1)), None]);
}

async fn the_table_itself_keeps_requests_to_one_text_and_one_use(at: Opened) {
    use avouch_domain::fixtures::{person_id, request};
    use avouch_domain::{RequestHash, RequestState, Said};
    let said = Some(Said { by: person_id("per_a"), at: NOW });
    let waiting = request("req_1", "/test/plain");
    let yes =
        Request { state: RequestState::Yes, person_yes: said.clone(), ..request("req_2", "/test/plain") };
    let spent = Request { state: RequestState::Spent, spent_with: Some([1; 16]), ..yes.clone() };
    let spent = Request { id: request("req_3", "/test/plain").id, ..spent };
    let no = Request { state: RequestState::No, no: said.clone(), ..request("req_4", "/test/plain") };
    let mut rows = one_of_each();
    rows.extend([&waiting, &yes, &spent, &no].map(|request| Row::Request(request.clone())));
    let now = last(&at.store.commit(at.image.position, vec![put(rows)]).await.unwrap());
    let wrong = [
        ("another text", Request { hash: RequestHash([9; 32]), ..waiting.clone() }),
        ("a yes of nobody", Request { state: RequestState::Yes, ..waiting.clone() }),
        ("spent with nothing", Request { state: RequestState::Spent, ..yes.clone() }),
        ("a no of nobody", Request { state: RequestState::No, ..waiting.clone() }),
        ("spent twice", Request { spent_with: Some([2; 16]), ..spent.clone() }),
        ("spent and back", Request { state: RequestState::Yes, spent_with: None, ..spent }),
        ("a no and back", Request { state: RequestState::Waiting, no: None, ..no }),
    ];
    for (what, wrong) in wrong {
        let refused = at.store.commit(now, vec![put([Row::Request(wrong)])]).await;
        assert!(matches!(refused, Err(CommitError::Store(_))), "{what}: {refused:?}");
    }
}

async fn the_table_itself_keeps_grants_from_being_widened(at: Opened) {
    use avouch_domain::fixtures::{grant, id, person_id};
    use avouch_domain::{Case, Grant, Said, Timestamp};
    let case = |name| Some(Case::new(name).unwrap());
    let given = Grant { max_uses: 2, case: case("PROC-88"), ..grant("gr_1", "/test/plain") };
    let used = given.clone().used([1; 16], NOW);
    let ended = Some(Said { by: person_id("per_a"), at: NOW });
    let gone = Grant { ended, ..grant("gr_2", "/test/plain") };
    let mut rows = one_of_each();
    rows.extend([&used, &gone].map(|grant| Row::Grant(grant.clone())));
    let now = last(&at.store.commit(at.image.position, vec![put(rows)]).await.unwrap());
    let wrong = [
        ("a use that comes back", Grant { uses: 0, ..used.clone() }),
        ("more uses than it has", Grant { uses: 3, ..used.clone() }),
        ("more uses than were given", Grant { max_uses: 3, ..used.clone() }),
        ("a later end", Grant { ends_at: Timestamp(used.ends_at.0 + 1), ..used.clone() }),
        ("another resource", Grant { resource: "vault/other".into(), ..used.clone() }),
        ("another identity", Grant { identity: id("/test/full"), ..used.clone() }),
        ("another case", Grant { case: case("PROC-89"), ..used.clone() }),
        ("no case any more", Grant { case: None, ..used.clone() }),
        ("a life after a stop", Grant { stop_number: 1, ..used.clone() }),
        ("what was taken back", Grant { ended: None, ..gone }),
    ];
    for (what, wrong) in wrong {
        let refused = at.store.commit(now, vec![put([Row::Grant(wrong)])]).await;
        assert!(matches!(refused, Err(CommitError::Store(_))), "{what}: {refused:?}");
    }
    assert!(at.store.commit(now, vec![put([Row::Grant(used.used([2; 16], NOW))])]).await.is_ok());
}

async fn the_table_itself_keeps_emergencies_from_being_widened_and_from_one_person(at: Opened) {
    use avouch_domain::fixtures::{emergency, id, person_id};
    use avouch_domain::{Emergency, Said, Timestamp};
    use std::time::Duration;
    let said = |by, at| Some(Said { by: person_id(by), at: Timestamp(at) });
    let waits = emergency("em_1", "/test/plain");
    let agreed = |by| Emergency {
        agreed: said(by, 60_000),
        ends_at: Timestamp(960_000),
        ..emergency("em_1", "/test/plain")
    };
    let open = Emergency { id: avouch_domain::EmergencyId::new("em_2").unwrap(), ..agreed("per_a") };
    let gone = Emergency {
        id: avouch_domain::EmergencyId::new("em_3").unwrap(),
        ended: said("per_a", 70_000),
        ..open.clone()
    };
    let mut rows = one_of_each();
    rows.extend([&waits, &open, &gone].map(|emergency| Row::Emergency(emergency.clone())));
    let now = last(&at.store.commit(at.image.position, vec![put(rows)]).await.unwrap());
    let wrong = [
        ("one person twice", agreed("per_s")),
        ("a longer wait", Emergency { ends_at: Timestamp(600_001), ..waits.clone() }),
        ("more time than was agreed to", Emergency { ends_at: Timestamp(960_001), ..agreed("per_a") }),
        ("another length", Emergency { lasts: Duration::from_secs(901), ..waits.clone() }),
        ("more than half an hour", Emergency { lasts: Duration::from_secs(1801), ..waits.clone() }),
        ("another resource", Emergency { resource: "vault/other".into(), ..open.clone() }),
        ("another identity", Emergency { identity: id("/test/full"), ..open.clone() }),
        ("a life after a stop", Emergency { stop_number: 1, ..open.clone() }),
        ("another second person", Emergency { agreed: said("per_owner", 60_000), ..open.clone() }),
        ("a later yes", Emergency { agreed: said("per_a", 61_000), ..open.clone() }),
        ("what was ended", Emergency { ended: None, ..gone }),
    ];
    for (what, wrong) in wrong {
        let refused = at.store.commit(now, vec![put([Row::Emergency(wrong)])]).await;
        assert!(matches!(refused, Err(CommitError::Store(_))), "{what}: {refused:?}");
    }
    assert!(at.store.commit(now, vec![put([Row::Emergency(agreed("per_a"))])]).await.is_ok());
}

async fn a_backup_holds_everything_and_overwrites_nothing(at: Opened) {
    let (_folder, to) = place();
    let end = last(&at.store.commit(at.image.position, vec![put(one_of_each())]).await.unwrap());
    assert_eq!(at.store.backup(to.clone(), |_, _| {}).await.unwrap(), end);
    let again = at.store.backup(to.clone(), |_, _| {}).await;
    assert!(matches!(again, Err(crate::StoreError::Exists { .. })), "{again:?}");
    let (copy, image) = crate::Store::open(&to, NOW).unwrap();
    assert_eq!((image.position, sorted(image.rows)), (end, sorted(one_of_each())));
    copy.close().await;
}

async fn a_closed_store_says_so(at: Opened) {
    at.store.close().await;
    at.store.close().await;
    let refused = at.store.commit(at.image.position, vec![moved("a")]).await;
    assert!(matches!(refused, Err(CommitError::Store(crate::StoreError::Closed))), "{refused:?}");
    assert!(matches!(at.store.position().await, Err(crate::StoreError::Closed)));
}

/// Runs every rule against the stores that a function opens.
macro_rules! store_suite {
    ($kind:ident, $open:expr; $($rule:ident),+ $(,)?) => {
        mod $kind {
            $(#[tokio::test]
            async fn $rule() {
                let opened = $open();
                super::$rule(opened).await;
            })+
        }
    };
    ($($kind:ident = $open:expr),+ $(,)?) => {
        $(store_suite!($kind, $open;
            what_is_put_is_read_back_the_same,
            a_deleted_row_is_gone,
            each_plan_takes_the_next_revision,
            a_plan_without_rows_takes_no_revision_and_its_record_is_kept,
            a_plan_made_elsewhere_is_behind_and_writes_nothing,
            a_plan_that_hides_a_row_from_the_log_is_refused_whole,
            waiting_commits_are_judged_one_by_one,
            the_log_tells_what_happened_with_parents_and_rows,
            the_log_is_cut_between_revisions_only,
            a_position_of_another_history_is_lost,
            the_table_itself_keeps_environments_stop_numbers_and_stops,
            the_table_itself_keeps_rules_as_they_were_published,
            the_table_itself_keeps_requests_to_one_text_and_one_use,
            the_table_itself_keeps_grants_from_being_widened,
            the_table_itself_keeps_emergencies_from_being_widened_and_from_one_person,
            a_text_of_a_request_goes_with_the_last_request_that_names_it,
            a_folder_of_rules_is_written_with_its_row_and_read_by_its_digest,
            only_folders_of_the_newest_rules_and_of_those_in_force_are_kept,
            records_are_read_in_order_and_onwards_and_each_holds_the_hash_of_the_one_before,
            a_head_is_wanted_until_the_last_record_has_one_and_is_read_with_it,
            a_backup_holds_everything_and_overwrites_nothing,
            a_closed_store_says_so,
        );)+
    };
}

store_suite!(memory = crate::tests::kit::memory, file = crate::tests::kit::file);
