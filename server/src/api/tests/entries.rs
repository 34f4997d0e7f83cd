//! Entry service: texts of refusals, masks, paging, both sync forms.

use avouch_proto::entry_v1::{
    BatchDeleteEntryRequest, BatchUpdateEntryRequest, CountEntriesRequest, GetAuthorizedEntriesRequest,
    GetEntryRequest, ListEntriesRequest, SyncAuthorizedEntriesRequest, list_entries_request,
};

use super::*;

async fn create(world: &World, entries: Vec<types::Entry>) -> Vec<(i32, String, Option<types::Entry>)> {
    let request = BatchCreateEntryRequest { entries, output_mask: None };
    let reply = EntryClient::new(world.local()).batch_create_entry(request).await.unwrap().into_inner();
    let item = |r: avouch_proto::entry_v1::batch_create_entry_response::Result| {
        let status = r.status.unwrap();
        (status.code, status.message, r.entry)
    };
    reply.results.into_iter().map(item).collect()
}

fn entry_with(change: impl FnOnce(&mut types::Entry)) -> types::Entry {
    let mut entry = wire_entry(&id("/node"), "/w");
    change(&mut entry);
    entry
}

#[tokio::test]
async fn items_are_refused_one_by_one_with_known_texts() {
    let world = World::start().await;
    let convert = |e: &str| format!("failed to convert entry: {e}");
    let invalid =
        |e: &str| format!("failed to create entry: datastore-validation: invalid registration entry: {e}");
    let cases = vec![
        (entry_with(|e| e.parent_id = None), convert("invalid parent ID: request must specify SPIFFE ID")),
        (entry_with(|e| e.selectors.clear()), convert("selector list is empty")),
        (entry_with(|e| e.selectors[0].r#type = "a:b".into()), convert("selector type contains ':'")),
        (entry_with(|e| e.selectors[0].value.clear()), convert("missing selector value")),
        (
            entry_with(|e| e.hint = "h".repeat(1025)),
            convert("hint is too long, max length is 1024 characters"),
        ),
        (entry_with(|e| e.x509_svid_ttl = -1), invalid("X509SvidTtl is not set")),
        (entry_with(|e| e.jwt_svid_ttl = -1), invalid("JwtSvidTtl is not set")),
        (entry_with(|e| e.id = "a b".into()), invalid("entry ID contains invalid characters")),
        (entry_with(|e| e.id = "a".repeat(256)), invalid("entry ID too long")),
    ];
    let (entries, texts): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let results = create(&world, entries).await;
    for (result, text) in results.into_iter().zip(texts) {
        assert_eq!((result.0, result.1), (i32::from(Code::InvalidArgument), text));
        assert!(result.2.is_none());
    }
    let reserved = entry_with(|e| e.spiffe_id = Some(spiffe_id_to_wire(&id("/spire/x"))));
    let prefixes = [
        (reserved, "failed to convert entry: invalid spiffe ID: "),
        (entry_with(|e| e.dns_names = vec!["a..b".into()]), "failed to convert entry: invalid DNS name: "),
        (
            entry_with(|e| e.federates_with = vec!["Bad".into()]),
            "failed to convert entry: invalid federated trust domain: ",
        ),
    ];
    for (entry, prefix) in prefixes {
        let (code, text, _) = create(&world, vec![entry]).await.remove(0);
        assert_eq!(code, i32::from(Code::InvalidArgument));
        assert!(text.starts_with(prefix), "{text}");
    }
}

#[tokio::test]
async fn good_and_bad_items_of_one_batch_keep_their_places() {
    let world = World::start().await;
    let results = create(
        &world,
        vec![
            wire_entry(&id("/node"), "/a"),
            entry_with(|e| e.selectors.clear()),
            wire_entry(&id("/node"), "/b"),
        ],
    )
    .await;
    let codes: Vec<i32> = results.iter().map(|r| r.0).collect();
    assert_eq!(codes, [0, 3, 0]);
    let paths: Vec<_> =
        results.iter().map(|r| r.2.as_ref().map(|e| e.spiffe_id.clone().unwrap().path)).collect();
    assert_eq!(paths, [Some("/a".to_owned()), None, Some("/b".to_owned())]);
    assert_eq!(results[0].1, "OK");
}

#[tokio::test]
async fn a_similar_entry_is_shown() {
    let world = World::start().await;
    let first = create(&world, vec![wire_entry(&id("/node"), "/w")]).await.remove(0).2.unwrap();
    let again = create(&world, vec![wire_entry(&id("/node"), "/w")]).await.remove(0);
    assert_eq!(
        (again.0, again.1),
        (i32::from(Code::AlreadyExists), "similar entry already exists".to_owned())
    );
    assert_eq!(again.2.unwrap().id, first.id);
}

#[tokio::test]
async fn an_unknown_federated_bundle_is_named() {
    let world = World::start().await;
    let entry = entry_with(|e| e.federates_with = vec!["other.org".into()]);
    let (code, text, _) = create(&world, vec![entry]).await.remove(0);
    assert_eq!(code, i32::from(Code::Internal));
    assert!(text.contains("unable to find federated bundle \"spiffe://other.org\""), "{text}");
}

#[tokio::test]
async fn updates_touch_what_the_mask_names_and_count_up() {
    let world = World::start().await;
    let entry_id = world.entry(&id("/node"), "/w").await;
    let mut client = EntryClient::new(world.local());
    let mut update = async |entry: types::Entry, input_mask: types::EntryMask| {
        let request =
            BatchUpdateEntryRequest { entries: vec![entry], input_mask: Some(input_mask), output_mask: None };
        let result = client.batch_update_entry(request).await.unwrap().into_inner().results.remove(0);
        (result.status.unwrap(), result.entry)
    };
    let hint = types::EntryMask { hint: true, ..Default::default() };
    let sent = types::Entry { id: entry_id.clone(), hint: "h".into(), admin: true, ..Default::default() };
    let (status, entry) = update(sent.clone(), hint).await;
    let entry = entry.unwrap();
    assert_eq!((status.code, entry.hint.as_str(), entry.admin, entry.revision_number), (0, "h", false, 1));
    let (_, entry) = update(sent, types::EntryMask::default()).await;
    assert_eq!(entry.unwrap().revision_number, 2, "an empty mask is an update all the same");
    for id in ["", "unknown"] {
        let (status, entry) = update(types::Entry { id: id.into(), ..Default::default() }, hint).await;
        assert_eq!((status.code, status.message.as_str()), (5, "failed to update entry"));
        assert!(entry.is_none());
    }
}

#[tokio::test]
async fn deletes_answer_for_each_id() {
    let world = World::start().await;
    let entry_id = world.entry(&id("/node"), "/w").await;
    let ids = vec![entry_id.clone(), String::new(), "unknown".into()];
    let mut client = EntryClient::new(world.local());
    let reply = client.batch_delete_entry(BatchDeleteEntryRequest { ids: ids.clone() }).await.unwrap();
    let results = reply.into_inner().results;
    let seen: Vec<_> = results
        .iter()
        .map(|r| (r.status.as_ref().unwrap().code, r.status.as_ref().unwrap().message.as_str()))
        .collect();
    assert_eq!(seen, [(0, "OK"), (3, "missing entry ID"), (5, "entry not found")]);
    assert_eq!(results.into_iter().map(|r| r.id).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn reads_have_known_texts_and_masks() {
    let world = World::start().await;
    let entry_id = world.entry(&id("/node"), "/w").await;
    let mut client = EntryClient::new(world.local());
    let mut get = async |id: &str, output_mask| {
        client
            .get_entry(GetEntryRequest { id: id.into(), output_mask })
            .await
            .map(tonic::Response::into_inner)
    };
    assert_eq!(refusal(get("", None).await), (Code::InvalidArgument, "missing ID".into()));
    assert_eq!(refusal(get("x", None).await), (Code::NotFound, "entry not found".into()));
    let bare = get(&entry_id, Some(types::EntryMask::default())).await.unwrap();
    assert_eq!(bare, types::Entry { id: entry_id, ..Default::default() });
}

#[tokio::test]
async fn lists_are_filtered_paged_and_refuse_bad_filters() {
    let world = World::start().await;
    for n in 0..3 {
        world.entry(&id("/node"), &format!("/w{n}")).await;
    }
    let mut client = EntryClient::new(world.local());
    let request = |page_size, page_token: &str| ListEntriesRequest {
        page_size,
        page_token: page_token.into(),
        ..Default::default()
    };
    let all = client.list_entries(request(0, "")).await.unwrap().into_inner();
    assert_eq!((all.entries.len(), all.next_page_token.as_str()), (3, ""));
    let first = client.list_entries(request(2, "")).await.unwrap().into_inner();
    let second = client.list_entries(request(2, &first.next_page_token)).await.unwrap().into_inner();
    assert_eq!((first.entries.len(), second.entries.len()), (2, 1));
    assert_eq!(
        refusal(client.list_entries(request(2, "a b")).await),
        (Code::InvalidArgument, "failed to list entries: could not parse token 'a b'".into())
    );
    let filter = list_entries_request::Filter {
        by_selectors: Some(types::SelectorMatch::default()),
        ..Default::default()
    };
    let bad = ListEntriesRequest { filter: Some(filter), ..Default::default() };
    assert_eq!(
        refusal(client.list_entries(bad).await),
        (Code::InvalidArgument, "malformed selectors filter: empty selector set".into())
    );
    let filter = list_entries_request::Filter {
        by_spiffe_id: Some(spiffe_id_to_wire(&id("/w1"))),
        ..Default::default()
    };
    let one = ListEntriesRequest { filter: Some(filter), ..Default::default() };
    assert_eq!(client.list_entries(one).await.unwrap().into_inner().entries.len(), 1);
    assert_eq!(client.count_entries(CountEntriesRequest::default()).await.unwrap().into_inner().count, 3);
}

#[tokio::test]
async fn agents_get_their_entries_both_ways() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    world.entry(&agent.id, "/mine").await;
    world.entry(&id("/other"), "/not-mine").await;
    let mut client = EntryClient::new(world.holder(&agent));
    let all = client.get_authorized_entries(GetAuthorizedEntriesRequest::default()).await.unwrap();
    let paths = |entries: Vec<types::Entry>| -> Vec<String> {
        entries.into_iter().map(|e| e.spiffe_id.unwrap().path).collect()
    };
    assert_eq!(paths(all.into_inner().entries), ["/mine"]);
    let ask = SyncAuthorizedEntriesRequest { output_mask: None, ids: vec![] };
    let mut replies = client.sync_authorized_entries(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let reply = replies.message().await.unwrap().unwrap();
    assert!(!reply.more && reply.entry_revisions.is_empty());
    assert_eq!(paths(reply.entries), ["/mine"]);
    assert!(replies.message().await.unwrap().is_none(), "the server ends the stream");
}

#[tokio::test]
async fn a_request_over_the_limit_is_refused_with_the_code_of_every_grpc_server() {
    let world = World::start().await;
    let ids = vec!["x".repeat(255); 17_000];
    let refused = EntryClient::new(world.local()).batch_delete_entry(BatchDeleteEntryRequest { ids }).await;
    let text = "grpc: received message larger than max (4386000 vs. 4194304)";
    assert_eq!(refusal(refused), (Code::ResourceExhausted, text.into()));
}

#[tokio::test]
async fn a_message_of_a_stream_over_the_limit_is_refused_with_the_same_code() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    let ask = SyncAuthorizedEntriesRequest { output_mask: None, ids: vec!["x".repeat(255); 17_000] };
    let mut client = EntryClient::new(world.holder(&agent));
    let mut replies = client.sync_authorized_entries(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let (code, text) = refusal(replies.message().await);
    assert_eq!(code, Code::ResourceExhausted);
    assert!(text.starts_with("grpc: received message larger than max ("), "{text}");
}
