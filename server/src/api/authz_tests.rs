//! The authorization matrix as a table.

use avouch_console::sessions::Visitor;
use avouch_domain::fixtures::{entry_parts, id};

use super::*;
use crate::api::caller::{LocalPeer, Standing};

const NOW: Timestamp = Timestamp::from_secs(1_000);

#[derive(Default)]
struct World {
    admins: Vec<SpiffeId>,
    entries: Vec<Entry>,
}

impl Known for World {
    fn is_admin_id(&self, id: &SpiffeId) -> bool {
        self.admins.contains(id)
    }
    fn entries_of(&self, wall: Timestamp, id: &SpiffeId) -> Vec<Entry> {
        self.entries.iter().filter(|e| e.spiffe_id == *id && !e.is_expired(wall)).cloned().collect()
    }
}

fn entry_with(path: &str, change: impl FnOnce(&mut avouch_domain::EntryParts)) -> Entry {
    let mut parts = entry_parts(path.trim_start_matches('/'), path, "/node", &["unix:uid:0"]);
    change(&mut parts);
    Entry::new(parts).unwrap()
}

fn world() -> World {
    World {
        admins: vec![id("/configured")],
        entries: vec![
            entry_with("/admin", |p| p.admin = true),
            entry_with("/stale", |p| {
                p.admin = true;
                p.expires_at = Some(NOW);
            }),
            entry_with("/downstream", |p| p.downstream = true),
        ],
    }
}

fn remote(leaf: Leaf) -> Peer {
    Peer::Remote { address: "192.0.2.1:4".parse().unwrap(), leaf }
}

fn svid(path: &str, serial: &str, not_after: i64) -> CallerSvid {
    let not_after = Timestamp::from_secs(not_after);
    CallerSvid { id: id(path), serial: serial.into(), not_after, leaf: [0; 32] }
}

fn caller(path: &str) -> Peer {
    remote(Leaf::Svid(svid(path, "7", 2_000)))
}

fn method(name: &str) -> &'static Method {
    METHODS.iter().find(|m| m.name == name).unwrap()
}

/// Letters of the callers that get in: `*` anyone, L admin socket, A admin, D downstream, G agent.
const MATRIX: &[(&str, &str)] = &[
    ("agent.v1.Agent/CountAgents", "LA"),
    ("agent.v1.Agent/ListAgents", "LA"),
    ("agent.v1.Agent/GetAgent", "LA"),
    ("agent.v1.Agent/DeleteAgent", "LA"),
    ("agent.v1.Agent/BanAgent", "LA"),
    ("agent.v1.Agent/CreateJoinToken", "LA"),
    ("agent.v1.Agent/AttestAgent", "*"),
    ("agent.v1.Agent/RenewAgent", "G"),
    ("agent.v1.Agent/PostStatus", "G"),
    ("bundle.v1.Bundle/GetBundle", "*"),
    ("bundle.v1.Bundle/AppendBundle", "LA"),
    ("bundle.v1.Bundle/CountBundles", "LA"),
    ("bundle.v1.Bundle/ListFederatedBundles", "LA"),
    ("bundle.v1.Bundle/BatchCreateFederatedBundle", "LA"),
    ("bundle.v1.Bundle/BatchUpdateFederatedBundle", "LA"),
    ("bundle.v1.Bundle/BatchSetFederatedBundle", "LA"),
    ("bundle.v1.Bundle/BatchDeleteFederatedBundle", "LA"),
    ("bundle.v1.Bundle/GetFederatedBundle", "LAG"),
    ("bundle.v1.Bundle/PublishJWTAuthority", "D"),
    ("bundle.v1.Bundle/PublishWITAuthority", "D"),
    ("entry.v1.Entry/CountEntries", "LA"),
    ("entry.v1.Entry/ListEntries", "LA"),
    ("entry.v1.Entry/GetEntry", "LA"),
    ("entry.v1.Entry/BatchCreateEntry", "LA"),
    ("entry.v1.Entry/BatchUpdateEntry", "LA"),
    ("entry.v1.Entry/BatchDeleteEntry", "LA"),
    ("entry.v1.Entry/GetAuthorizedEntries", "G"),
    ("entry.v1.Entry/SyncAuthorizedEntries", "G"),
    ("svid.v1.SVID/MintX509SVID", "LA"),
    ("svid.v1.SVID/MintJWTSVID", "LA"),
    ("svid.v1.SVID/MintWITSVID", "LA"),
    ("svid.v1.SVID/BatchNewX509SVID", "G"),
    ("svid.v1.SVID/NewJWTSVID", "G"),
    ("svid.v1.SVID/BatchNewWITSVID", "G"),
    ("svid.v1.SVID/NewDownstreamX509CA", "D"),
    ("localauthority.v1.LocalAuthority/GetX509AuthorityState", "LA"),
    ("localauthority.v1.LocalAuthority/PrepareX509Authority", "LA"),
    ("localauthority.v1.LocalAuthority/ActivateX509Authority", "LA"),
    ("localauthority.v1.LocalAuthority/TaintX509Authority", "LA"),
    ("localauthority.v1.LocalAuthority/TaintX509UpstreamAuthority", "LA"),
    ("localauthority.v1.LocalAuthority/RevokeX509Authority", "LA"),
    ("localauthority.v1.LocalAuthority/RevokeX509UpstreamAuthority", "LA"),
    ("localauthority.v1.LocalAuthority/GetJWTAuthorityState", "LA"),
    ("localauthority.v1.LocalAuthority/PrepareJWTAuthority", "LA"),
    ("localauthority.v1.LocalAuthority/ActivateJWTAuthority", "LA"),
    ("localauthority.v1.LocalAuthority/TaintJWTAuthority", "LA"),
    ("localauthority.v1.LocalAuthority/RevokeJWTAuthority", "LA"),
    ("localauthority.v1.LocalAuthority/GetWITAuthorityState", "LA"),
    ("localauthority.v1.LocalAuthority/PrepareWITAuthority", "LA"),
    ("localauthority.v1.LocalAuthority/ActivateWITAuthority", "LA"),
    ("localauthority.v1.LocalAuthority/TaintWITAuthority", "LA"),
    ("localauthority.v1.LocalAuthority/RevokeWITAuthority", "LA"),
    ("debug.v1.Debug/GetInfo", "L"),
    ("Logger/GetLogger", "L"),
    ("Logger/SetLogLevel", "L"),
    ("Logger/ResetLogLevel", "L"),
    ("Health/Check", "L"),
    ("Health/Watch", "L"),
    ("watch.v1.Watch/Follow", "G"),
    ("watch.v1.Watch/FetchBundles", "G"),
    ("watch.v1.Watch/FetchIdentities", "G"),
    ("watch.v1.Watch/ReportCode", "G"),
    ("rules.v1.Rules/Fetch", "G"),
    ("records.v1.Records/Ship", "G"),
    ("requests.v1.Requests/Ask", "G"),
    ("task.v1.Tasks/SignToken", "G"),
    ("task.v1.Tasks/ShowToken", "G"),
    ("governance.v1.Governance/Init", "L"),
    ("governance.v1.Governance/AddPerson", "L"),
    ("governance.v1.Governance/SetSignIn", "L"),
    ("governance.v1.Governance/ApprovePerson", "L"),
    ("governance.v1.Governance/LeavePerson", "L"),
    ("governance.v1.Governance/ListPeople", "L"),
    ("governance.v1.Governance/RegisterIdentity", "L"),
    ("governance.v1.Governance/ApproveIdentity", "L"),
    ("governance.v1.Governance/ChangeIdentity", "L"),
    ("governance.v1.Governance/ConfirmIdentity", "L"),
    ("governance.v1.Governance/PauseIdentity", "L"),
    ("governance.v1.Governance/ResumeIdentity", "L"),
    ("governance.v1.Governance/StopIdentity", "L"),
    ("governance.v1.Governance/DrillStop", "L"),
    ("governance.v1.Governance/PlaceIdentity", "L"),
    ("governance.v1.Governance/GetIdentity", "L"),
    ("governance.v1.Governance/ListIdentities", "L"),
    ("governance.v1.Governance/ListFound", "L"),
    ("governance.v1.Governance/Adopt", "L"),
    ("governance.v1.Governance/PublishRules", "L"),
    ("governance.v1.Governance/ApproveRules", "L"),
    ("governance.v1.Governance/WithdrawRules", "L"),
    ("governance.v1.Governance/ListRules", "L"),
    ("governance.v1.Governance/GetRules", "L"),
    ("governance.v1.Governance/ListRequests", "L"),
    ("governance.v1.Governance/GetRequest", "L"),
    ("governance.v1.Governance/AnswerRequest", "L"),
    ("governance.v1.Governance/GiveGrant", "L"),
    ("governance.v1.Governance/EndGrant", "L"),
    ("governance.v1.Governance/EndCase", "L"),
    ("governance.v1.Governance/ListGrants", "L"),
    ("governance.v1.Governance/AcceptFinding", "L"),
    ("governance.v1.Governance/UnacceptFinding", "L"),
    ("governance.v1.Governance/ListAccepted", "L"),
    ("governance.v1.Governance/AskEmergency", "L"),
    ("governance.v1.Governance/AgreeEmergency", "L"),
    ("governance.v1.Governance/EndEmergency", "L"),
    ("governance.v1.Governance/ListEmergencies", "L"),
    ("governance.v1.Governance/ListRecords", "L"),
    ("governance.v1.Governance/ListChains", "L"),
    ("governance.v1.Governance/Overview", "L"),
    ("governance.v1.Governance/OpenPages", "L"),
];

#[test]
fn the_matrix_names_every_method_once() {
    let served: Vec<_> = METHODS.iter().map(|m| format!("{}/{}", m.short_service(), m.name)).collect();
    let listed: Vec<_> = MATRIX.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(served, listed);
}

#[test]
fn each_caller_gets_in_where_the_matrix_says() {
    let world = world();
    let callers = [
        ("nobody", '-', remote(Leaf::None)),
        ("local", 'L', Peer::Local(LocalPeer { standing: Standing::Free, ..LocalPeer::default() })),
        ("admin by configuration", 'A', caller("/configured")),
        ("admin by entry", 'A', caller("/admin")),
        ("admin by an expired entry", '-', caller("/stale")),
        ("downstream", 'D', caller("/downstream")),
        ("agent", 'G', caller("/spire/agent/a")),
        ("somebody", '-', caller("/other")),
    ];
    for (method, (name, letters)) in METHODS.iter().zip(MATRIX) {
        for (who, letter, peer) in &callers {
            let verdict = judge(method, peer, &world, NOW);
            let in_matrix = *letters == "*" || letters.contains(*letter);
            // Every other SVID has still to show that it belongs to a node in good standing.
            let asked = letters.contains('G') && peer.id().is_some() && !in_matrix;
            let agent = *letter == 'G' && in_matrix && *letters != "*";
            match verdict {
                Verdict::Allowed(_) => assert!(in_matrix && !agent, "{who} calls {name}"),
                Verdict::IfAgent(_) => assert!(agent || asked, "{who} calls {name}"),
                other => assert!(!in_matrix && !asked, "{who} calls {name}: {other:?}"),
            }
        }
    }
}

#[test]
fn what_descends_from_a_run_is_nobody_on_a_local_socket() {
    let peer = Peer::Local(LocalPeer { standing: Standing::OfARun, ..LocalPeer::default() });
    for method in METHODS.iter().filter(|method| method.who & LOCAL != 0) {
        assert_eq!(judge(method, &peer, &world(), NOW), Verdict::OfARun, "{}", method.path());
    }
}

#[test]
fn who_cannot_be_told_from_a_run_is_no_person_and_still_an_admin() {
    let peer = Peer::Local(LocalPeer { standing: Standing::Hidden, ..LocalPeer::default() });
    for method in METHODS.iter().filter(|method| method.who & LOCAL != 0) {
        let expected =
            if method.service == GOVERNANCE { Verdict::Hidden } else { Verdict::Allowed(Role::Local) };
        assert_eq!(judge(method, &peer, &world(), NOW), expected, "{}", method.path());
    }
}

#[test]
fn who_is_signed_in_to_the_pages_reaches_the_governance_service_alone() {
    let person = avouch_domain::fixtures::person_id("per_a");
    let peer = Peer::Page(Visitor { person, signed_in: avouch_domain::Now::default(), account: None });
    for method in METHODS {
        let expected = match method.service {
            GOVERNANCE => Verdict::Allowed(Role::Person),
            _ if method.who & ANY != 0 => Verdict::Allowed(Role::Nobody),
            _ => Verdict::Denied,
        };
        assert_eq!(judge(method, &peer, &world(), NOW), expected, "{}", method.path());
    }
}

#[test]
fn a_method_for_all_authorizes_nobody_whoever_calls() {
    for peer in [Peer::Local(LocalPeer::default()), caller("/configured")] {
        assert_eq!(judge(method("GetBundle"), &peer, &world(), NOW), Verdict::Allowed(Role::Nobody));
    }
}

#[test]
fn a_certificate_that_names_nobody_is_unauthenticated_everywhere() {
    let peer = remote(Leaf::Unusable("two IDs".into()));
    assert_eq!(judge(method("GetBundle"), &peer, &world(), NOW), Verdict::Unauthenticated("two IDs".into()));
}

#[test]
fn services_of_the_admin_socket_do_not_exist_over_tcp() {
    let path = "/spire.api.server.debug.v1.Debug/GetInfo";
    assert!(matches!(find(path, true), Found::Method(_)));
    assert_eq!(find(path, false), Found::NoService);
    assert_eq!(find("/spire.api.server.agent.v1.Agent/Nope", false), Found::NoMethod);
    assert_eq!(find("/grpc.reflection.v1.ServerReflection/Info", true), Found::NoService);
    assert_eq!(find("", true), Found::NoService);
}

#[test]
fn only_work_that_costs_is_limited() {
    let limited: Vec<_> = METHODS.iter().filter_map(|m| Some((m.name, m.limit?.bucket))).collect();
    assert_eq!(
        limited,
        [
            ("AttestAgent", Bucket::Attest),
            ("RenewAgent", Bucket::SignX509),
            ("PostStatus", Bucket::PostStatus),
            ("BatchNewX509SVID", Bucket::SignX509),
            ("NewJWTSVID", Bucket::SignJwt),
            ("SignToken", Bucket::SignJwt),
        ]
    );
}
