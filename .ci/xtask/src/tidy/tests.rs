//! The rules find what they are for: each is fed one planted fault.

use super::{arrows, promises, source};

#[test]
fn a_file_without_a_header_is_found() {
    assert_eq!(source::check("core/x.rs", "fn a() {}\n").len(), 1);
    assert!(source::check("core/x.rs", "//! Why.\nfn a() {}\n").is_empty());
}

#[test]
fn a_long_function_is_found_and_a_short_one_is_not() {
    let body = |n: usize| format!("//! Why.\npub async fn a() {{\n{}}}\n", "    x();\n".repeat(n));
    assert!(source::check("core/x.rs", &body(68)).is_empty());
    assert_eq!(source::check("core/x.rs", &body(69)).len(), 1);
}

#[test]
fn a_long_file_is_found_but_its_tests_do_not_count() {
    let text = format!("//! Why.\n{}mod tests {{\n{}}}\n", "// x\n".repeat(500), "// y\n".repeat(500));
    assert!(source::check("core/x.rs", &text).is_empty());
    assert_eq!(source::check("core/x.rs", &format!("//! Why.\n{}", "// x\n".repeat(600))).len(), 1);
}

#[test]
fn an_undated_ignore_is_found() {
    assert_eq!(source::check("core/x.rs", "//! Why.\n#[ignore]\nfn a() {}\n").len(), 1);
    assert!(
        source::check("core/x.rs", "//! Why.\n#[ignore = \"2026-01-31: needs a TPM\"]\nfn a() {}\n")
            .is_empty()
    );
}

#[test]
fn a_wire_type_inside_is_found_and_at_the_edge_is_not() {
    let edges = vec!["server/src/api/".to_owned()];
    let text = "use avouch_proto::types;\n";
    assert_eq!(arrows::wire_findings("server/src/service/entries.rs", text, &edges).len(), 1);
    assert!(arrows::wire_findings("server/src/api/entry.rs", text, &edges).is_empty());
}

#[test]
fn a_room_that_names_one_before_it_is_found_and_the_other_way_is_not() {
    let rooms = [("server/src/ca".to_owned(), vec!["service".to_owned()])].into();
    let text = "use crate::service::Settings;\n";
    assert_eq!(arrows::room_findings("server/src/ca/mod.rs", text, &rooms).len(), 1);
    assert!(arrows::room_findings("server/src/cap.rs", text, &rooms).is_empty());
    assert!(arrows::room_findings("server/src/ca/mod.rs", "use crate::feed::Feed;\n", &rooms).is_empty());
}

#[test]
fn a_promise_has_a_number_and_its_proofs() {
    let line = "| SEC-07 | A token works once | `a/b.rs::once`, `c.rs::twice` |";
    assert_eq!(promises::promise(line), Some(("SEC-07", vec!["a/b.rs::once", "c.rs::twice"])));
    assert_eq!(promises::promise("| SEC-08 | Nothing proves it | |"), Some(("SEC-08", vec![])));
    assert_eq!(promises::promise("| An actor | can | must not |"), None);
}
