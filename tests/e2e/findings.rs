//! What lacks something and is accepted until a day: the real command line against a real server.

use avouch_tests::{Server, World};

use crate::governed::{BEN, CODER, as_user, avouch, can_be_others, first_person, good, json};

const WEB: &str = "spiffe://example.org/billing/web";

#[tokio::test]
async fn what_is_accepted_is_named_apart_and_counts_again_when_it_is_reopened() {
    let world = World::start().await;
    let server = &world.server;
    first_person(server).await;
    world.grant("/billing/web").await;
    let verify = ["verify", "--require", "owner,end"];
    assert_eq!(avouch(server, &verify).await.code, 3);

    let accept = ["finding", "accept", WEB, "owner", "--until", "30d", "--why", "moves in May"];
    let accepted = good(server, &accept).await;
    assert_eq!((&accepted["name"], &accepted["what"]), (&WEB.into(), &"owner".into()));
    let said = avouch(server, &verify).await;
    assert!(said.code == 0 && said.out.contains("accepted until 2"), "{said:?}");
    assert!(said.out.contains(": moves in May, by Ada Example"), "{said:?}");
    let shown = good(server, &verify).await;
    let first = &shown["accepted"][0];
    assert_eq!((&first["name"], &first["lacks"]), (&WEB.into(), &"no owner".into()), "{shown}");
    assert_eq!(shown["lacking"], serde_json::json!([]), "{shown}");
    let listed = good(server, &["finding", "list"]).await;
    assert_eq!(listed["accepted"][0], accepted);

    good(server, &["finding", "reopen", "/billing/web", "owner"]).await;
    let said = avouch(server, &[&verify[..], &["--json"]].concat()).await;
    assert_eq!((said.code, &json(&said)["lacking"][0]["lacks"]), (3, &"no owner".into()), "{said:?}");
    assert_eq!(avouch(server, &["finding", "reopen", WEB, "owner"]).await.code, 1, "once");

    let log = avouch(server, &["audit", "export", "--source", "server"]).await.out;
    assert!(log.contains("\"finding_accepted\"") && log.contains("\"finding_unaccepted\""), "{log}");
    assert!(!log.contains("moves in May"), "a reason is in no record");
}

#[tokio::test]
async fn a_stop_that_nobody_tried_is_accepted_for_its_identity() {
    let server = Server::start().await;
    first_person(&server).await;
    good(&server, CODER).await;
    let verify = ["verify", "--require", "stop"];
    assert_eq!(avouch(&server, &verify).await.code, 3);
    let accept = async |what: &str, until: &str, why: &str| {
        avouch(&server, &["finding", "accept", "coder", what, "--until", until, "--why", why]).await
    };
    for (what, until, why, code) in [
        ("stop", "91d", "moves in May", 64),
        ("stop", "2020-01-01", "moves in May", 64),
        ("stop", "soon", "moves in May", 64),
        ("stop", "1d", "", 64),
        ("end", "1d", "moves in May", 64),
        ("owner", "1d", "moves in May", 64),
    ] {
        let said = accept(what, until, why).await;
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{what} {until}: {said:?}");
    }
    assert_eq!(accept("stop", "1d", "moves in May").await.code, 0);
    assert_eq!(avouch(&server, &verify).await.code, 0);
    good(&server, &["finding", "reopen", "coder", "stop"]).await;
    assert_eq!(avouch(&server, &verify).await.code, 3);
}

#[tokio::test]
async fn what_has_no_owner_is_accepted_by_a_security_person_alone() {
    if !can_be_others() {
        return;
    }
    let world = World::start().await;
    let server = &world.server;
    first_person(server).await;
    good(server, &["person", "add", "Ben Example", "--uid", &BEN.to_string()]).await;
    world.grant("/billing/web").await;
    let accept = ["finding", "accept", WEB, "owner", "--until", "30d", "--why", "moves in May"];
    let refused = as_user(server, BEN, &accept).await;
    assert!(refused.code == 2 && refused.err.contains("a security person accepts that"), "{refused:?}");
    good(server, &accept).await;
    let reopened = as_user(server, BEN, &["finding", "reopen", WEB, "owner"]).await;
    assert_eq!(reopened.code, 0, "anybody: {reopened:?}");
}
