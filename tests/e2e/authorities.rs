//! What an operator does with the authorities by hand, and what workloads see of it: real verbs, agents and streams.

use avouch_proto::workload as wire;
use avouch_tests::cli::{self, Said};
use avouch_tests::forge::open;
use avouch_tests::world::my_uid;
use avouch_tests::{AgentOptions, Server, ServerOptions, World, entry, eventually, within};
use serde_json::Value;

use crate::rotations::verified;

async fn said(server: &Server, args: &[&str]) -> Said {
    let socket = ["-socketPath", server.socket.to_str().unwrap()];
    cli::run("avouch-server", args.iter().copied().chain(socket)).await
}

/// What a verb prints in JSON.
async fn json(server: &Server, args: &[&str]) -> Value {
    let args: Vec<_> = args.iter().copied().chain(["-output", "json"]).collect();
    let said = said(server, &args).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{args:?}");
    serde_json::from_str(&said.out).unwrap()
}

async fn prepare(server: &Server, kind: &str) -> String {
    let reply = json(server, &["localauthority", kind, "prepare"]).await;
    reply["prepared_authority"]["authority_id"].as_str().unwrap().to_owned()
}

async fn do_to(server: &Server, kind: &str, deed: &str, id: &str) -> Value {
    json(server, &["localauthority", kind, deed, "-authorityID", id]).await
}

/// Puts a new authority to use; gives the one that signed before, and the new one.
async fn rotate(server: &Server, kind: &str) -> (String, String) {
    let next = prepare(server, kind).await;
    do_to(server, kind, "activate", &next).await;
    let shown = json(server, &["localauthority", kind, "show"]).await;
    assert_eq!(shown["active"]["authority_id"], next.as_str());
    (shown["old"]["authority_id"].as_str().unwrap().to_owned(), next)
}

/// Verifies all SVIDs of an answer by the roots beside them; gives who signed them.
fn signers(answer: &wire::X509svidResponse) -> std::collections::BTreeSet<String> {
    answer.svids.iter().map(verified).collect()
}

#[tokio::test]
async fn svids_verify_beside_their_bundle_while_an_operator_puts_new_authorities_to_use() {
    let server = "default_x509_svid_ttl = \"3s\"";
    let options = ServerOptions { server: server.into(), ..ServerOptions::default() };
    let world = World::start_with(options, AgentOptions::default()).await;
    world.grant("/web").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    let mut last = signers(&stream.next().await.unwrap());
    for _ in 0..2 {
        rotate(&world.server, "x509").await;
        let before = last.clone();
        within("an SVID of the new authority", async {
            while last == before {
                last = signers(&stream.next().await.unwrap());
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_taint_replaces_every_svid_and_a_revocation_shuts_nobody_out() {
    const MANY: usize = 20;
    let mut world = World::start().await;
    let one = |n| entry(&world.agent.id, &format!("/web/{n}"), &[&my_uid()]);
    world.server.create_all((0..MANY).map(one).collect()).await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    let first = stream.until("all SVIDs", |m| m.svids.len() == MANY).await;
    let before = signers(&first);
    let (old, _) = rotate(&world.server, "x509").await;
    do_to(&world.server, "x509", "taint", &old).await;
    let replaced = |m: &wire::X509svidResponse| m.svids.len() == MANY && signers(m).is_disjoint(&before);
    let after = stream.until("all SVIDs of the new authority", replaced).await;
    assert_eq!(signers(&after).len(), 1);
    do_to(&world.server, "x509", "revoke", &old).await;
    let roots = |m: &wire::X509svidResponse| {
        m.svids.iter().all(|s| s.bundle.len() < first.svids[0].bundle.len() * 3 / 2)
    };
    stream.until("bundles without the old authority", roots).await;
    // The agent's own SVID was of the old authority, too.
    world.agent.daemon().line("Agent SVID renewed").await;
    assert!(world.agent.stop().await.success());
    world.agent.restart().await;
    world.grant("/late").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    stream.until("a new SVID", |m| m.svids.iter().any(|s| s.spiffe_id.ends_with("/late"))).await;
}

#[tokio::test]
async fn a_token_of_a_tainted_authority_is_not_handed_out_again() {
    let world = World::start().await;
    world.grant("/web").await;
    let mut workload = world.agent.workload().await;
    let mut kid = async || {
        let svids = workload.jwt(&["api"], "").await.ok()?;
        Some(open(&svids.first()?.svid).0["kid"].as_str().unwrap().to_owned())
    };
    let first = eventually("a token", &mut kid).await;
    let (old, next) = rotate(&world.server, "jwt").await;
    assert_eq!(first, old);
    assert_eq!(kid().await.unwrap(), old, "it is cached, and nothing is wrong with it yet");
    do_to(&world.server, "jwt", "taint", &old).await;
    eventually("a token of the new authority", async || kid().await.filter(|kid| *kid == next)).await;
    assert_eq!(kid().await.unwrap(), next);
    do_to(&world.server, "jwt", "revoke", &old).await;
    let keys = world.server.bundle().await.jwt_authorities;
    assert_eq!(keys.iter().map(|key| key.key_id.as_str()).collect::<Vec<_>>(), [next.as_str()]);
}

#[tokio::test]
async fn the_verbs_print_and_refuse_as_spires_do() {
    let server = Server::start().await;
    let text = said(&server, &["localauthority", "x509", "show"]).await;
    assert!(text.out.starts_with("Active X.509 authority:\n  Authority ID: "), "{text:?}");
    assert!(text.out.ends_with("\nOld X.509 authority:\n  No old X.509 authority found\n"), "{text:?}");
    let shown = json(&server, &["localauthority", "x509", "show"]).await;
    let first = shown["active"]["authority_id"].as_str().unwrap();
    let text = said(&server, &["localauthority", "x509", "prepare"]).await;
    assert!(text.out.starts_with("Prepared X.509 authority:\n  Authority ID: "), "{text:?}");
    assert!(text.out.ends_with("  Upstream authority ID: No upstream authority\n"), "{text:?}");
    let shown = json(&server, &["localauthority", "x509", "show"]).await;
    let second = shown["prepared"]["authority_id"].as_str().unwrap();
    let missing = "Error: an authority ID is required\n".to_owned();
    let refused = |deed: &str, kind: &str, code: &str, text: &str| {
        format!("Error: could not {deed} {kind} authority: rpc error: code = {code} desc = {text}\n")
    };
    let invalid = |deed: &str, text: &str| refused(deed, "X.509", "InvalidArgument", text);
    let prepared = "only Old local authorities can be tainted: unsupported local authority status: PREPARED";
    for (args, expected) in [
        (vec!["x509", "activate"], missing.clone()),
        (vec!["x509", "taint"], missing.clone()),
        (vec!["jwt", "revoke"], missing),
        (vec!["x509", "activate", "-authorityID", "unknown"], invalid("activate", "unexpected authority ID")),
        (vec!["x509", "activate", "-authorityID", first], invalid("activate", "unexpected authority ID")),
        (
            vec!["x509", "taint", "-authorityID", first],
            invalid("taint", "unable to taint current local authority"),
        ),
        (vec!["x509", "taint", "-authorityID", second], invalid("taint", prepared)),
        (
            vec!["x509", "revoke", "-authorityID", first],
            invalid("revoke", "invalid authority ID: unable to use current authority"),
        ),
        (
            vec!["jwt", "revoke", "-authorityID", "unknown"],
            refused(
                "revoke",
                "JWT",
                "InvalidArgument",
                "invalid authority ID: no JWT authority found with provided authority ID",
            ),
        ),
    ] {
        let args: Vec<_> = ["localauthority"].into_iter().chain(args).collect();
        let said = said(&server, &args).await;
        assert_eq!((said.code, said.out.as_str(), said.err), (1, "", expected), "{args:?}");
    }
    for deed in ["taint", "revoke"] {
        let said = said(&server, &["upstreamauthority", deed, "-subjectKeyID", "ab"]).await;
        let text = format!(
            "Error: could not {deed} X.509 upstream authority: rpc error: code = FailedPrecondition desc = upstream authority is not configured\n"
        );
        assert_eq!((said.code, said.out.as_str(), said.err), (1, "", text));
    }
}
