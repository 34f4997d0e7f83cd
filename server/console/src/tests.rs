//! The shell of the pages: what it takes from whom. What it does for a person is tested with a real server.

use hyper::header::{COOKIE, HeaderMap};

use crate::forms::{Fields, url};
use crate::http::{Asked, Place};
use crate::limits::FIELDS_MAX;
use crate::sessions::room;

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
fn a_cookie_counts_in_its_own_room_alone() {
    let (place, mut headers) = (place(), HeaderMap::new());
    headers.append(COOKIE, "a=b; avouch_session=x".parse().unwrap());
    headers.append(COOKIE, "c; avouch_session=y".parse().unwrap());
    let cookie =
        |room: &str| Asked { place: &place, headers: &headers, room, path: "" }.cookie().map(str::to_owned);
    assert_eq!((cookie(&room("x")).as_deref(), cookie(&room("y")).as_deref()), (Some("x"), Some("y")));
    assert_eq!((cookie(""), cookie(&room("z")), cookie("x")), (None, None, None));
    let header = place.cookie("z").unwrap();
    let expected = format!("avouch_session=z; Path=/{}/; HttpOnly; SameSite=Lax", room("z"));
    assert_eq!(header.to_str().unwrap(), expected);
    assert!(header.is_sensitive(), "no log shows it");
    assert!(
        place
            .no_cookie("r")
            .unwrap()
            .to_str()
            .unwrap()
            .ends_with("Path=/r/; HttpOnly; SameSite=Lax; Max-Age=0")
    );
}

#[test]
fn the_port_that_http_has_by_itself_may_be_left_out() {
    assert!(Place::at(80).is_host("127.0.0.1") && Place::at(80).is_host("localhost:80"));
    assert!(!Place::at(80).is_host("example.org"));
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
