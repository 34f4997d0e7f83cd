//! Plans, stores and folders for the tests of the store.

use std::path::{Path, PathBuf};

use std::num::NonZeroU16;

use avouch_domain::fixtures::{
    accepted, domain, emergency, entry, grant, id, identity, node, person, person_id, request, rules,
};
use avouch_domain::{
    AuditEvent, AuditRow, Authority, AuthorityKind, Bundle, Case, Cause, Change, Code, CodeDigest, Emergency,
    Entry, Finding, Grant, Holder, Identity, Image, JoinToken, JwtAuthority, Kind, LogPosition, Person,
    PersonState, Plan, PublishedRules, Request, RequestState, Revision, Row, RowKey, RulesStanding, Said,
    SignIn, Slot, SlotState, Standing, StopTried, Timestamp, Whose, X509Authority,
};

use crate::Store;

pub const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// A store, what it held when opened, and its folder, if it has one, which must live as long.
pub struct Opened {
    pub store: Store,
    pub image: Image,
    pub _folder: Option<tempfile::TempDir>,
}

pub fn memory() -> Opened {
    let (store, image) = Store::open(Path::new(":memory:"), NOW).unwrap();
    Opened { store, image, _folder: None }
}

pub fn file() -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let (store, image) = Store::open(&folder.path().join("data.sqlite3"), NOW).unwrap();
    Opened { store, image, _folder: Some(folder) }
}

/// A folder and the path of a database in it.
pub fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.sqlite3");
    (folder, path)
}

pub fn change(key: RowKey, deleted: bool) -> Change {
    Change { revision: Revision(0), key, deleted, parent_before: None, parent_after: None }
}

/// A plan that puts rows.
pub fn put(rows: impl IntoIterator<Item = Row>) -> Plan {
    let puts: Vec<Row> = rows.into_iter().collect();
    let changes = puts.iter().map(|r| change(r.key(), false)).collect();
    Plan { puts, changes, ..Plan::default() }
}

/// A plan that deletes a row.
pub fn delete(key: RowKey) -> Plan {
    Plan { changes: vec![change(key.clone(), true)], deletes: vec![key], ..Plan::default() }
}

pub fn an_entry(name: &str) -> Entry {
    entry(name, &format!("/w/{name}"), "/spire/agent/x/1", &["unix:uid:1", "unix:path:/bin/a:b"])
}

pub fn audit_row(subject: &str) -> AuditRow {
    AuditRow {
        at: NOW,
        event: AuditEvent::EntryCreated,
        actor: "server".into(),
        subject: subject.into(),
        detail: Vec::new(),
    }
}

/// One row of every kind with every field set, and one with none.
pub fn one_of_each() -> Vec<Row> {
    let mut parts = an_entry("full").to_parts();
    parts.federates_with = vec!["b.test".parse().unwrap(), "a.test".parse().unwrap()];
    parts.dns_names = vec!["z.test".into(), "*.a.test".into()];
    parts.expires_at = Some(Timestamp(5));
    parts.hint = "a \"hint\" with 'quotes'".into();
    (parts.admin, parts.downstream, parts.disable_x509_svid_prefetch) = (true, true, true);
    (parts.jwt_svid_include_jti, parts.revision_number, parts.created_at) = (true, 7, Timestamp(-1));
    (parts.x509_svid_ttl, parts.jwt_svid_ttl) = (avouch_domain::Ttl(60), avouch_domain::Ttl(i32::MAX));
    let mut full_node = node("/spire/agent/x/full", &["a:1", "b:2"], 9);
    full_node.new_serial = Some(("2".into(), Timestamp(77)));
    full_node.can_reattest = true;
    full_node.agent_version = "1.2.3".into();
    let mut banned = node("/spire/agent/x/banned", &[], 9);
    banned.serial = None;
    let bundle = Bundle {
        trust_domain: domain(),
        x509_authorities: vec![X509Authority { der: vec![0, 255, 7].into(), tainted: true }],
        jwt_authorities: vec![
            JwtAuthority {
                key_id: "k".into(),
                public_key: vec![1].into(),
                expires_at: Some(NOW),
                tainted: false,
            },
            JwtAuthority { key_id: "l".into(), public_key: vec![].into(), expires_at: None, tainted: true },
        ],
        refresh_hint: 300,
        sequence_number: u64::MAX,
    };
    vec![
        Row::Entry(an_entry("plain")),
        Row::Entry(Entry::new(parts).unwrap()),
        Row::Node(full_node),
        Row::Node(banned),
        Row::Bundle(bundle),
        Row::JoinToken(JoinToken { digest: crate::sha256(b"token"), expires_at: Timestamp::MAX }),
        Row::Authority(authority(AuthorityKind::X509, Holder::Server("s1".into()), Some(Revision(3)))),
        Row::Authority(authority(AuthorityKind::Jwt, Holder::TrustDomain, None)),
        Row::Person(person("per_a", 1000, true)),
        Row::Person(Person {
            uid: None,
            sign_in: SignIn::read("https://idp.example.org/a", "7").unwrap(),
            state: PersonState::Proposed,
            added_by: Some(person_id("per_a")),
            yes_by: Some(person_id("per_a")),
            ..person("per_owner", 0, false)
        }),
        Row::Identity(identity("/test/plain", Kind::Service)),
        Row::Identity(Identity {
            successor: Some(person_id("per_a")),
            standing: Standing::Paused(Cause::EndReached),
            stop_number: 3,
            yes_by: None,
            confirm_by: Some(Timestamp(7)),
            preset: Some(Code::new("coding-agent").unwrap()),
            stop_tried: Some(StopTried { at: NOW, nodes: 3, confirmed: 2, took_ms: 4 }),
            code: Some(CodeDigest([7; 32])),
            runs_max: NonZeroU16::new(2),
            ..identity("/test/full", Kind::AiAgent)
        }),
        Row::Rules(PublishedRules { published_by: person_id("per_a"), ..rules(1) }),
        Row::Rules(PublishedRules {
            note: "a \"note\" with 'quotes'".into(),
            standing: RulesStanding::Proposed,
            published_by: person_id("per_a"),
            yes_by: None,
            valid_from: None,
            ..rules(2)
        }),
        Row::Request(request("req_a", "/test/plain")),
        Row::Request(Request {
            stop_number: 3,
            needs: Whose { owner: true, person: true },
            owner_yes: Some(Said { by: person_id("per_owner"), at: NOW }),
            person_yes: Some(Said { by: person_id("per_a"), at: Timestamp(7) }),
            state: RequestState::Spent,
            spent_with: Some([5; 16]),
            ..request("req_b", "/test/full")
        }),
        Row::Request(Request {
            no: Some(Said { by: person_id("per_a"), at: NOW }),
            state: RequestState::No,
            ..request("req_c", "/test/full")
        }),
        Row::Grant(grant("gr_a", "/test/plain")),
        Row::Grant(Grant {
            stop_number: 3,
            max_uses: 9,
            case: Some(Case::new("PROC-88").unwrap()),
            ended: Some(Said { by: person_id("per_a"), at: NOW }),
            ..grant("gr_b", "/test/full").used([1; 16], NOW)
        }),
        Row::Accepted(accepted("/billing/web", Finding::Owner)),
        Row::Accepted(accepted("/test/full", Finding::Stop)),
        Row::Emergency(emergency("em_a", "/test/plain")),
        Row::Emergency(Emergency {
            stop_number: 3,
            agreed: Some(Said { by: person_id("per_a"), at: Timestamp(60_000) }),
            ends_at: Timestamp(960_000),
            ended: Some(Said { by: person_id("per_owner"), at: Timestamp(70_000) }),
            ..emergency("em_b", "/test/full")
        }),
    ]
}

fn authority(kind: AuthorityKind, holder: Holder, published_at: Option<Revision>) -> Authority {
    Authority {
        kind,
        holder,
        slot: Slot::B,
        state: SlotState::Prepared,
        id: "abc".into(),
        public: vec![9, 9].into(),
        issued_at: Timestamp(1),
        not_after: Timestamp(2),
        tainted: true,
        published_at,
    }
}

/// An entry below another parent, to tell parents apart in the log.
pub fn moved(name: &str) -> Plan {
    let mut plan = put([Row::Entry(an_entry(name))]);
    plan.changes[0].parent_before = Some(id("/before"));
    plan.changes[0].parent_after = Some(id("/after"));
    plan
}

pub fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(Row::key);
    rows
}

/// The counter after a commit.
pub fn last(positions: &[LogPosition]) -> LogPosition {
    *positions.last().unwrap()
}
