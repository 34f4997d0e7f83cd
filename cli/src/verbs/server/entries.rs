//! `entry create|update|show|delete|count`: registration entries.

use avouch_proto::entry_v1::entry_client::EntryClient;
use avouch_proto::entry_v1::{self, count_entries_request, list_entries_request};
use avouch_proto::{convert, types};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::{entry_input, verb};
use crate::rpc::code_name;
use crate::verbs::channel::REPLY_MAX;
use crate::verbs::flags::{FlagSet, Flags};
use crate::verbs::{Call, Verb, VerbError, id_flag, id_text, json, read_input, text};

/// Entries asked for at once.
const PAGE: i32 = 500;

pub fn verbs() -> Vec<Verb> {
    vec![
        verb("entry create", "Creates registration entries", create_flags, |c| Box::pin(create(c))),
        verb("entry update", "Replaces registration entries", entry_input::flags, |c| Box::pin(update(c))),
        verb("entry delete", "Deletes registration entries", delete_flags, |c| Box::pin(delete(c))),
        verb("entry show", "Shows registration entries", show_flags, |c| Box::pin(show(c))),
        verb("entry count", "Counts registration entries", filter_flags, |c| Box::pin(count(c))),
    ]
}

fn create_flags(set: FlagSet) -> FlagSet {
    entry_input::flags(set).bool(
        "node",
        false,
        "Gives the ID to agents that have the selectors, not to workloads",
    )
}

fn delete_flags(set: FlagSet) -> FlagSet {
    set.text("entryID", "", "ID of the entry").text(
        "file",
        "",
        "File with the IDs as JSON, {\"ids\": [...]}; - for standard input",
    )
}

fn filter_flags(set: FlagSet) -> FlagSet {
    set.text("parentID", "", "SPIFFE ID of the parent")
        .text("spiffeID", "", "SPIFFE ID that the entry gives")
        .bool("downstream", false, "Only entries of servers below this one")
        .texts("selector", "A selector as type:value; may be repeated")
        .texts("federatesWith", "A trust domain the entry federates with; may be repeated")
        .text("matchSelectorsOn", "superset", "How selectors are matched: exact, any, superset or subset")
        .text(
            "matchFederatesWithOn",
            "superset",
            "How trust domains are matched: exact, any, superset or subset",
        )
        .text("hint", "", "The hint of the entry")
}

fn show_flags(set: FlagSet) -> FlagSet {
    filter_flags(set).text("entryID", "", "ID of the entry; goes with no other filter")
}

async fn client(call: &Call<'_>) -> Result<EntryClient<Channel>, VerbError> {
    let channel = call.channel().await?;
    Ok(EntryClient::new(channel).max_decoding_message_size(REPLY_MAX).max_encoding_message_size(REPLY_MAX))
}

/// One item of a create or update: what was asked for, or what is stored now, and how it went.
struct Outcome {
    status: Option<types::Status>,
    entry: types::Entry,
}

fn outcomes(
    asked: Vec<types::Entry>,
    results: impl Iterator<Item = (Option<types::Status>, Option<types::Entry>)>,
) -> Vec<Outcome> {
    let one = |(asked, (status, stored)): (types::Entry, (Option<types::Status>, Option<types::Entry>))| {
        let went_well = convert::status_of_item(status.as_ref()).is_ok();
        // SPIRE shows a failed item as it was asked for, also if the server sent the one it clashed with.
        let entry = if went_well { stored.unwrap_or_default() } else { asked };
        Outcome { status, entry }
    };
    asked.into_iter().zip(results).map(one).collect()
}

async fn create(call: &mut Call<'_>) -> Result<(), VerbError> {
    let data = call.flags.text("data");
    let entries = if data.is_empty() {
        vec![entry_input::from_flags(&call.flags, call.flags.bool("node"), false)?]
    } else {
        entry_input::from_file(data)?
    };
    let request = entry_v1::BatchCreateEntryRequest { entries: entries.clone(), output_mask: None };
    let reply = client(call).await?.batch_create_entry(request).await?.into_inner();
    print_outcomes(call, &outcomes(entries, reply.results.into_iter().map(|r| (r.status, r.entry))), "create")
}

async fn update(call: &mut Call<'_>) -> Result<(), VerbError> {
    let data = call.flags.text("data").to_owned();
    let mut client = client(call).await?;
    let entries = if data.is_empty() {
        let mut entry = entry_input::from_flags(&call.flags, false, true)?;
        if entry_input::names_attributes(&call.flags) {
            merge_attributes(&mut client, &call.flags, &mut entry).await?;
        }
        vec![entry]
    } else {
        entry_input::from_file(&data)?
    };
    let request =
        entry_v1::BatchUpdateEntryRequest { entries: entries.clone(), input_mask: None, output_mask: None };
    let reply = client.batch_update_entry(request).await?.into_inner();
    print_outcomes(call, &outcomes(entries, reply.results.into_iter().map(|r| (r.status, r.entry))), "update")
}

/// An attribute whose flag was not given stays as it is stored.
async fn merge_attributes(
    client: &mut EntryClient<Channel>,
    flags: &Flags,
    entry: &mut types::Entry,
) -> Result<(), VerbError> {
    let request = entry_v1::GetEntryRequest { id: entry.id.clone(), output_mask: None };
    let stored = client.get_entry(request).await?.into_inner().additional_attributes.unwrap_or_default();
    if let Some(wanted) = entry.additional_attributes.as_mut() {
        if !flags.is_set("disableX509SVIDPrefetch") {
            wanted.disable_x509_svid_prefetch = stored.disable_x509_svid_prefetch;
        }
        if !flags.is_set("jwtSVIDIncludeJTI") {
            wanted.jwt_svid_include_jti = stored.jwt_svid_include_jti;
        }
    }
    Ok(())
}

fn print_outcomes(call: &mut Call<'_>, outcomes: &[Outcome], verb: &str) -> Result<(), VerbError> {
    if call.json {
        let one = |o: &Outcome| json::item(o.status.as_ref(), "entry", Some(&o.entry), json::entry);
        call.print_json(&json!({"results": outcomes.iter().map(one).collect::<Vec<Value>>()}));
        return Ok(());
    }
    let mut failures = String::new();
    for outcome in outcomes {
        match convert::status_of_item(outcome.status.as_ref()) {
            Ok(()) => call.out.say(&block(&outcome.entry)),
            Err(status) => failures.push_str(&format!(
                "Failed to {verb} the following entry (code: {}, msg: {:?}):\n{}",
                code_name(status.code()),
                status.message(),
                block(&outcome.entry)
            )),
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    call.out.complain(&failures);
    Err(VerbError::Text(format!("failed to {verb} one or more entries")))
}

#[derive(Deserialize)]
struct Ids {
    ids: Vec<String>,
}

async fn delete(call: &mut Call<'_>) -> Result<(), VerbError> {
    let (id, file) = (call.flags.text("entryID"), call.flags.text("file"));
    let ids = match (id.is_empty(), file.is_empty()) {
        (true, true) => return Err(VerbError::text("an entry ID is required")),
        (_, false) => {
            let file: Ids = serde_json::from_slice(&read_input(file)?)
                .map_err(|e| VerbError::Text(format!("unable to parse IDs: {e}")))?;
            file.ids
        }
        (false, true) => vec![id.to_owned()],
    };
    let request = entry_v1::BatchDeleteEntryRequest { ids };
    let reply = client(call).await?.batch_delete_entry(request).await?.into_inner();
    if call.json {
        call.print_json(&json::deleted_entries(&reply));
        return Ok(());
    }
    let (said, complaints, failed) = deleted_text(&reply);
    call.out.complain(&complaints);
    call.out.say(&said);
    if failed { Err(VerbError::text("failed to delete one or more entries")) } else { Ok(()) }
}

/// What goes to standard output, what to standard error, and whether anything failed.
fn deleted_text(reply: &entry_v1::BatchDeleteEntryResponse) -> (String, String, bool) {
    let (mut said, mut complaints, mut done, mut failed) = (String::new(), String::new(), 0, 0);
    for result in &reply.results {
        match convert::status_of_item(result.status.as_ref()) {
            Ok(()) => {
                done += 1;
                said.push_str(&format!("Deleted entry with ID: {}\n", result.id));
            }
            Err(status) => {
                failed += 1;
                complaints.push_str(&format!(
                    "Failed to delete entry with ID {} (code: {}, msg: {:?})\n",
                    result.id,
                    code_name(status.code()),
                    status.message()
                ));
            }
        }
    }
    said.push_str("\n\n");
    said.push_str(&match (done, failed) {
        (_, 0) => format!("Deleted {done} entries successfully"),
        (0, _) => format!("Failed to delete {failed} entries"),
        _ => format!("Deleted {done} entries successfully, but failed to delete {failed} entries"),
    });
    (said, complaints, failed > 0)
}

/// The four ways to match, by their numbers on the wire, which both filters share.
fn match_number(how: &str) -> Result<i32, VerbError> {
    use types::selector_match::MatchBehavior as B;
    let how = match how {
        "exact" => B::MatchExact,
        "any" => B::MatchAny,
        "superset" => B::MatchSuperset,
        "subset" => B::MatchSubset,
        other => {
            return Err(VerbError::Text(format!(
                "match behavior \"{other}\" unknown, expected exact, any, superset or subset"
            )));
        }
    };
    Ok(how.into())
}

fn list_filter(flags: &Flags) -> Result<list_entries_request::Filter, VerbError> {
    let id = |name: &str| match flags.text(name) {
        "" => Ok(None),
        text => id_flag(text).map(Some),
    };
    let selectors = entry_input::selectors(flags.texts("selector"))?;
    let by_selectors = if selectors.is_empty() {
        None
    } else {
        Some(types::SelectorMatch { selectors, r#match: match_number(flags.text("matchSelectorsOn"))? })
    };
    let trust_domains = flags.texts("federatesWith").to_vec();
    let by_federates_with = if trust_domains.is_empty() {
        None
    } else {
        let how = match_number(flags.text("matchFederatesWithOn"))?;
        Some(types::FederatesWithMatch { trust_domains, r#match: how })
    };
    let hint = flags.text("hint");
    Ok(list_entries_request::Filter {
        by_spiffe_id: id("spiffeID")?,
        by_parent_id: id("parentID")?,
        by_selectors,
        by_federates_with,
        by_hint: (!hint.is_empty()).then(|| hint.to_owned()),
        // Always sent, as SPIRE does; false filters nothing.
        by_downstream: Some(flags.bool("downstream")),
    })
}

async fn count(call: &mut Call<'_>) -> Result<(), VerbError> {
    let f = list_filter(&call.flags)?;
    let filter = count_entries_request::Filter {
        by_spiffe_id: f.by_spiffe_id,
        by_parent_id: f.by_parent_id,
        by_selectors: f.by_selectors,
        by_federates_with: f.by_federates_with,
        by_hint: f.by_hint,
        by_downstream: f.by_downstream,
    };
    let request = entry_v1::CountEntriesRequest { filter: Some(filter) };
    let n = client(call).await?.count_entries(request).await?.into_inner().count;
    let many = usize::try_from(n).unwrap_or(0);
    call.print(
        || json::count(n),
        || format!("{}\n", text::count(many, "registration entry", "registration entries")),
    );
    Ok(())
}

async fn show(call: &mut Call<'_>) -> Result<(), VerbError> {
    let id = call.flags.text("entryID").to_owned();
    let mut client = client(call).await?;
    let mut entries = if id.is_empty() {
        let filter = list_filter(&call.flags)?;
        list_all(&mut client, &filter).await?
    } else {
        let others = ["parentID", "spiffeID", "selector", "federatesWith", "hint"];
        if others.iter().any(|name| call.flags.is_set(name)) {
            return Err(VerbError::text("the -entryID flag can't be combined with others"));
        }
        let request = entry_v1::GetEntryRequest { id: id.clone(), output_mask: None };
        let reply = client
            .get_entry(request)
            .await
            .map_err(|s| VerbError::Text(format!("error fetching entry ID {id}: {}", text::rpc_error(&s))))?;
        vec![reply.into_inner()]
    };
    sort(&mut entries);
    call.print(|| json::entries(&entries), || show_text(&entries));
    Ok(())
}

async fn list_all(
    client: &mut EntryClient<Channel>,
    filter: &list_entries_request::Filter,
) -> Result<Vec<types::Entry>, VerbError> {
    let (mut entries, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = entry_v1::ListEntriesRequest {
            filter: Some(filter.clone()),
            output_mask: None,
            page_size: PAGE,
            page_token,
        };
        let reply = client
            .list_entries(request)
            .await
            .map_err(|s| VerbError::Text(format!("error fetching entries: {}", text::rpc_error(&s))))?
            .into_inner();
        entries.extend(reply.entries);
        page_token = reply.next_page_token;
        if page_token.is_empty() {
            return Ok(entries);
        }
    }
}

/// By SPIFFE ID, parent, selectors and ID.
fn sort(entries: &mut [types::Entry]) {
    entries.sort_by_cached_key(|e| {
        let selectors: Vec<_> = e.selectors.iter().map(|s| (s.r#type.clone(), s.value.clone())).collect();
        (id_text(e.spiffe_id.as_ref()), id_text(e.parent_id.as_ref()), selectors, e.id.clone())
    });
}

fn show_text(entries: &[types::Entry]) -> String {
    let mut out = format!("Found {}\n", text::count(entries.len(), "entry", "entries"));
    for entry in entries {
        out.push_str(&block(entry));
    }
    out
}

/// The lines of one entry and a blank one.
fn block(e: &types::Entry) -> String {
    let mut out = String::new();
    let mut row = |label: &str, value: &str| out.push_str(&format!("{label:<24}: {value}\n"));
    let ttl = |seconds: i32| if seconds == 0 { "default".to_owned() } else { seconds.to_string() };
    row("Entry ID", if e.id.is_empty() { "(none)" } else { &e.id });
    row("SPIFFE ID", &id_text(e.spiffe_id.as_ref()));
    row("Parent ID", &id_text(e.parent_id.as_ref()));
    row("Revision", &e.revision_number.to_string());
    if e.downstream {
        row("Downstream", "true");
    }
    row("X509-SVID TTL", &ttl(e.x509_svid_ttl));
    row("JWT-SVID TTL", &ttl(e.jwt_svid_ttl));
    if e.expires_at != 0 {
        row("Expiration time", &text::go_time(e.expires_at));
    }
    for s in &e.selectors {
        row("Selector", &format!("{}:{}", s.r#type, s.value));
    }
    for domain in &e.federates_with {
        row("FederatesWith", domain);
    }
    for name in &e.dns_names {
        row("DNS name", name);
    }
    if e.admin {
        row("Admin", "true");
    }
    if e.store_svid {
        row("StoreSvid", "true");
    }
    if !e.hint.is_empty() {
        row("Hint", &e.hint);
    }
    let attributes = e.additional_attributes.unwrap_or_default();
    if attributes.disable_x509_svid_prefetch {
        row("DisableX509SvidPrefetch", "true");
    }
    if attributes.jwt_svid_include_jti {
        row("JwtSvidIncludeJti", "true");
    }
    out.push('\n');
    out
}

#[cfg(test)]
#[path = "entries_tests.rs"]
mod tests;
