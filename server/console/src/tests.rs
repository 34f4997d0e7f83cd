//! The shell of the pages: what it takes from whom. What it does for a person is tested with a real server.

use hyper::header::{COOKIE, HeaderMap};

use crate::forms::{Fields, url};
use crate::http::Place;
use crate::limits::{FIELDS_MAX, STREAMS_MAX, STREAMS_PER_SESSION};
use crate::live::Streams;

fn place() -> Place {
    Place::at(8090)
}

#[test]
fn a_page_has_loopback_s_names_and_its_own_port_alone() {
    for (host, own) in [
        ("127.0.0.1:8090", true),
        ("localhost:8090", true),
        ("[::1]:8090", true),
        ("127.0.0.1:8091", false),
        ("127.0.0.1", false),
        ("example.org:8090", false),
        ("127.0.0.1.example.org:8090", false),
        ("", false),
    ] {
        assert_eq!(place().is_host(host), own, "{host}");
    }
}

#[test]
fn a_cookie_is_found_among_others_and_each_port_has_its_own() {
    let mut headers = HeaderMap::new();
    headers.append(COOKIE, "a=b; avouch_session_8091=x".parse().unwrap());
    assert_eq!(place().cookie_of(&headers), None);
    headers.append(COOKIE, "c; avouch_session_8090=y".parse().unwrap());
    assert_eq!(place().cookie_of(&headers), Some("y"));
    let cookie = place().cookie("z").unwrap();
    assert_eq!(cookie.to_str().unwrap(), "avouch_session_8090=z; Path=/; HttpOnly; SameSite=Lax");
    assert!(cookie.is_sensitive(), "no log shows it");
    assert!(place().cookie("").unwrap().to_str().unwrap().ends_with("; Max-Age=0"));
}

#[test]
fn fields_are_decoded_and_bounded() {
    let fields = Fields::read(b"name=a%20b&name=c+d&do=&x");
    assert_eq!(fields.all("name").collect::<Vec<_>>(), ["a b", "c d"]);
    assert_eq!(
        (fields.get("name"), fields.get("do"), fields.get("none"), fields.number("name")),
        ("a b", "", "", 0)
    );
    let many = "n=1&".repeat(2 * FIELDS_MAX);
    assert_eq!(Fields::read(many.as_bytes()).all("n").count(), FIELDS_MAX);
    let there = url("/identity", &[("name", "spiffe://example.org/a b&c")]);
    assert_eq!(there, "/identity?name=spiffe%3A%2F%2Fexample.org%2Fa+b%26c");
}

#[test]
fn a_session_has_few_streams_and_all_together_have_a_limit() {
    let streams = Streams::default();
    let open = |session: &str| streams.open(session.to_owned());
    let mut held: Vec<_> = (0..STREAMS_PER_SESSION).map(|_| open("a").unwrap()).collect();
    assert!(open("a").is_none());
    held.pop();
    held.push(open("a").unwrap());
    for n in held.len()..STREAMS_MAX {
        held.push(open(&n.to_string()).unwrap());
    }
    assert!(open("another").is_none());
    held.clear();
    assert!(open("another").is_some(), "what has ended takes no place");
}
