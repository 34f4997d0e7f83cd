//! Tests of the entry verbs' texts.

use tonic::Code;

use super::*;
use crate::out::Out;

fn id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() })
}

fn entry() -> types::Entry {
    types::Entry {
        id: "e1".into(),
        spiffe_id: id("/web"),
        parent_id: id("/node"),
        selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:0".into() }],
        ..Default::default()
    }
}

const PLAIN: &str = "\
Entry ID                : e1
SPIFFE ID               : spiffe://example.org/web
Parent ID               : spiffe://example.org/node
Revision                : 0
X509-SVID TTL           : default
JWT-SVID TTL            : default
Selector                : unix:uid:0

";

#[test]
fn a_plain_entry_reads_as_spire_prints_it() {
    assert_eq!(block(&entry()), PLAIN);
}

#[test]
fn every_optional_line_has_its_place() {
    let full = types::Entry {
        id: String::new(),
        downstream: true,
        x509_svid_ttl: 600,
        expires_at: 4_102_444_800,
        federates_with: vec!["other.org".into()],
        dns_names: vec!["web".into()],
        admin: true,
        store_svid: true,
        hint: "h".into(),
        additional_attributes: Some(types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: true,
            jwt_svid_include_jti: true,
        }),
        ..entry()
    };
    assert_eq!(
        block(&full),
        "\
Entry ID                : (none)
SPIFFE ID               : spiffe://example.org/web
Parent ID               : spiffe://example.org/node
Revision                : 0
Downstream              : true
X509-SVID TTL           : 600
JWT-SVID TTL            : default
Expiration time         : 2100-01-01 00:00:00 +0000 UTC
Selector                : unix:uid:0
FederatesWith           : other.org
DNS name                : web
Admin                   : true
StoreSvid               : true
Hint                    : h
DisableX509SvidPrefetch : true
JwtSvidIncludeJti       : true

"
    );
}

#[test]
fn entries_are_counted_and_sorted() {
    assert_eq!(show_text(&[]), "Found 0 entries\n");
    assert_eq!(show_text(&[entry()]), format!("Found 1 entry\n{PLAIN}"));
    let mut list = [types::Entry { spiffe_id: id("/z"), ..entry() }, entry()];
    sort(&mut list);
    assert_eq!(list[0], entry());
}

fn call(out: &mut Out, json: bool) -> Call<'_> {
    let flags = FlagSet::new("x").parse(&[]).unwrap();
    Call { flags, place: crate::verbs::place::Place::Unix("/none".into()), json, out }
}

#[test]
fn a_failed_item_is_shown_as_asked_for_on_stderr_and_fails_the_verb() {
    let status = Some(convert::item_failure(Code::AlreadyExists, "similar entry already exists"));
    let asked = types::Entry { id: String::new(), ..entry() };
    let stored = types::Entry { x509_svid_ttl: 9, ..entry() };
    let list = outcomes(vec![asked], [(status, Some(stored))].into_iter());
    let (mut out, captured) = Out::captured();
    let error = print_outcomes(&mut call(&mut out, false), &list, "create").unwrap_err();
    assert_eq!(error.to_string(), "failed to create one or more entries");
    assert_eq!(captured.out(), "");
    let block = PLAIN.replace(": e1", ": (none)");
    assert_eq!(
        captured.err(),
        format!(
            "Failed to create the following entry (code: AlreadyExists, msg: \"similar entry already exists\"):\n{block}"
        )
    );
}

#[test]
fn in_json_a_failed_item_is_told_by_its_status_only() {
    let status = Some(convert::item_failure(Code::NotFound, "failed to update entry"));
    let list = outcomes(vec![entry()], [(status, None)].into_iter());
    let (mut out, captured) = Out::captured();
    assert!(print_outcomes(&mut call(&mut out, true), &list, "update").is_ok());
    assert!(captured.out().contains("\"status\":{\"code\":5,\"message\":\"failed to update entry\"}"));
}

#[test]
fn deletions_are_summed_up_with_the_plural_always() {
    let result = |id: &str, status| entry_v1::batch_delete_entry_response::Result {
        id: id.into(),
        status: Some(status),
    };
    let ok = || result("a", convert::item_ok());
    let bad = || result("b", convert::item_failure(Code::NotFound, "entry not found"));
    let text = |results| deleted_text(&entry_v1::BatchDeleteEntryResponse { results });
    assert_eq!(
        text(vec![ok()]),
        ("Deleted entry with ID: a\n\n\nDeleted 1 entries successfully".into(), String::new(), false)
    );
    let complaint = "Failed to delete entry with ID b (code: NotFound, msg: \"entry not found\")\n";
    assert_eq!(text(vec![bad()]), ("\n\nFailed to delete 1 entries".into(), complaint.into(), true));
    let (said, _, failed) = text(vec![ok(), bad()]);
    assert!(said.ends_with("Deleted 1 entries successfully, but failed to delete 1 entries") && failed);
}

#[test]
fn downstream_is_always_part_of_the_filter() {
    let flags = filter_flags(FlagSet::new("entry show")).parse(&[]).unwrap();
    assert_eq!(list_filter(&flags).unwrap().by_downstream, Some(false));
}
