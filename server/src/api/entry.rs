//! Entry service: registration entries, and what agents are authorized to serve.
//!
//! Never decides who gets what; never pages agents' entries by anything but the fixed page size.

use avouch_domain::{Entry as DomainEntry, EntryId, Selector};
use avouch_proto::convert::{EntryFilter as WireFilter, Match as WireMatch, entry_input, entry_to_wire};
use avouch_proto::entry_v1::entry_server::Entry;
use avouch_proto::entry_v1::{
    BatchCreateEntryRequest, BatchCreateEntryResponse, BatchDeleteEntryRequest, BatchDeleteEntryResponse,
    BatchUpdateEntryRequest, BatchUpdateEntryResponse, CountEntriesRequest, CountEntriesResponse,
    GetAuthorizedEntriesRequest, GetAuthorizedEntriesResponse, GetEntryRequest, ListEntriesRequest,
    ListEntriesResponse, SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse,
    batch_create_entry_response, batch_delete_entry_response, batch_update_entry_response,
};
use avouch_proto::types;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::api::agent::id_text;
use crate::api::batch::{self, ItemError, wire_status};
use crate::api::call::{Call, open};
use crate::api::status::{Refusal, bad_token, entry_refused, invalid, write_refused};
use crate::api::sync;
use crate::audit_log::AuditLine;
use crate::service::{EntryFilter, EntryPatch, EntryWriteError, Match, NewEntry, PageRequest, Services};

/// The service over TCP and on the admin socket.
#[derive(Clone)]
pub struct EntryApi {
    pub services: Services,
}

impl std::fmt::Debug for EntryApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EntryApi")
    }
}

/// The services' word for a match behaviour.
pub(super) fn match_of(how: WireMatch) -> Match {
    match how {
        WireMatch::Exact => Match::Exact,
        WireMatch::Subset => Match::Subset,
        WireMatch::Superset => Match::Superset,
        WireMatch::Any => Match::Any,
    }
}

/// The audit log's word for a match behaviour.
pub(super) fn match_word(how: WireMatch) -> &'static str {
    match how {
        WireMatch::Exact => "MATCH_EXACT",
        WireMatch::Subset => "MATCH_SUBSET",
        WireMatch::Superset => "MATCH_SUPERSET",
        WireMatch::Any => "MATCH_ANY",
    }
}

/// Selectors in one text, for logs.
pub(super) fn selector_text<'a>(selectors: impl Iterator<Item = &'a Selector>) -> String {
    selectors.map(Selector::as_str).collect::<Vec<_>>().join(",")
}

fn entry_filter(filter: WireFilter) -> EntryFilter {
    EntryFilter {
        hint: filter.hint,
        parent_id: filter.parent_id,
        spiffe_id: filter.spiffe_id,
        selectors: filter.selectors.map(|(how, set)| (match_of(how), set)),
        federates_with: filter.federates_with.map(|(how, set)| (match_of(how), set)),
        downstream: filter.downstream,
    }
}

fn audit_filter(line: &mut AuditLine, filter: &WireFilter) {
    line.text("hint", filter.hint.as_deref().unwrap_or_default());
    line.text("parent_id", filter.parent_id.as_ref().map(|id| id.as_str()).unwrap_or_default());
    line.text("spiffe_id", filter.spiffe_id.as_ref().map(|id| id.as_str()).unwrap_or_default());
    if let Some((how, set)) = &filter.selectors {
        line.text("by_selector_match", match_word(*how));
        line.text("by_selectors", selector_text(set.iter()));
    }
    if let Some((how, set)) = &filter.federates_with {
        line.text("federates_with_match", match_word(*how));
        line.text("federates_with", set.iter().map(|d| d.as_str()).collect::<Vec<_>>().join(","));
    }
    if let Some(downstream) = filter.downstream {
        line.flag("downstream", downstream);
    }
}

/// The line about one entry of a create or update request, limited to what its input mask lets through.
fn entry_line(call: &Call, entry: &types::Entry, mask: Option<&types::EntryMask>) -> AuditLine {
    let full = avouch_proto::convert::full_entry_mask();
    let mask = mask.unwrap_or(&full);
    let mut line = call.audit();
    line.text("entry_id", &entry.id);
    if mask.spiffe_id {
        line.text("spiffe_id", id_text(entry.spiffe_id.as_ref()));
    }
    if mask.parent_id {
        line.text("parent_id", id_text(entry.parent_id.as_ref()));
    }
    if mask.selectors {
        let selectors = entry.selectors.iter().map(|s| format!("{}:{}", s.r#type, s.value));
        line.text("selectors", selectors.collect::<Vec<_>>().join(","));
    }
    if mask.federates_with {
        line.text("federates_with", entry.federates_with.join(","));
    }
    if mask.dns_names {
        line.text("dns_name", entry.dns_names.join(","));
    }
    if mask.hint {
        line.text("hint", &entry.hint);
    }
    let numbers = [
        (mask.x509_svid_ttl, "x509_svid_ttl", i64::from(entry.x509_svid_ttl)),
        (mask.jwt_svid_ttl, "jwt_svid_ttl", i64::from(entry.jwt_svid_ttl)),
        (mask.expires_at, "expires_at", entry.expires_at),
        (mask.revision_number, "revision_number", entry.revision_number),
        (mask.created_at, "created_at", entry.created_at),
    ];
    for (_, name, value) in numbers.into_iter().filter(|(wanted, ..)| *wanted) {
        line.number(name, value);
    }
    let flags = [
        (mask.admin, "admin", entry.admin),
        (mask.downstream, "downstream", entry.downstream),
        (mask.store_svid, "store_svid", entry.store_svid),
    ];
    for (_, name, value) in flags.into_iter().filter(|(wanted, ..)| *wanted) {
        line.flag(name, value);
    }
    line
}

fn conclude_item(line: AuditLine, refusal: Option<&Refusal>) {
    match refusal {
        None => line.item(Code::Ok, ""),
        Some(refusal) => line.item(refusal.code, &refusal.message),
    }
}

/// Status and entry of one written item.
fn outcome(
    gist: &str,
    result: Result<DomainEntry, ItemError<EntryWriteError>>,
    mask: Option<&types::EntryMask>,
) -> (Option<Refusal>, Option<types::Entry>) {
    match result {
        Ok(entry) => (None, Some(entry_to_wire(&entry, mask))),
        Err(ItemError::Read(refusal)) => (Some(refusal), None),
        Err(ItemError::Machinery(error)) => (Some(write_refused(gist, &error)), None),
        Err(ItemError::Write(error)) => {
            let entry = match &error {
                EntryWriteError::Similar(entry) => Some(entry_to_wire(entry, mask)),
                _ => None,
            };
            (Some(entry_refused(gist, &error)), entry)
        }
    }
}

impl EntryApi {
    fn new_entry(&self, wire: &types::Entry) -> Result<NewEntry, Refusal> {
        let gist = "failed to convert entry";
        let input = entry_input(self.services.trust_domain(), wire, None).map_err(|e| invalid(gist, &e))?;
        let absent = || Refusal::new(Code::InvalidArgument, gist, "missing entry");
        let id =
            if input.id.is_empty() { None } else { Some(entry_id("failed to create entry", &input.id)?) };
        Ok(NewEntry {
            id,
            spiffe_id: input.spiffe_id.ok_or_else(absent)?,
            parent_id: input.parent_id.ok_or_else(absent)?,
            selectors: input.selectors.unwrap_or_default(),
            x509_svid_ttl: input.x509_svid_ttl.unwrap_or_default(),
            jwt_svid_ttl: input.jwt_svid_ttl.unwrap_or_default(),
            federates_with: input.federates_with.unwrap_or_default(),
            admin: input.admin.unwrap_or_default(),
            downstream: input.downstream.unwrap_or_default(),
            expires_at: input.expires_at.flatten(),
            dns_names: input.dns_names.unwrap_or_default(),
            store_svid: input.store_svid.unwrap_or_default(),
            hint: input.hint.unwrap_or_default(),
            disable_x509_svid_prefetch: input.disable_x509_svid_prefetch.unwrap_or_default(),
            jwt_svid_include_jti: input.jwt_svid_include_jti.unwrap_or_default(),
        })
    }

    fn patch(&self, wire: &types::Entry, mask: Option<&types::EntryMask>) -> Result<EntryPatch, Refusal> {
        let input = entry_input(self.services.trust_domain(), wire, mask)
            .map_err(|e| invalid("failed to convert entry", &e))?;
        // No entry has an ID that is no ID.
        let id =
            EntryId::new(&input.id).map_err(|_| Refusal::plain(Code::NotFound, "failed to update entry"))?;
        Ok(EntryPatch {
            id,
            spiffe_id: input.spiffe_id,
            parent_id: input.parent_id,
            selectors: input.selectors,
            x509_svid_ttl: input.x509_svid_ttl,
            jwt_svid_ttl: input.jwt_svid_ttl,
            federates_with: input.federates_with,
            admin: input.admin,
            downstream: input.downstream,
            expires_at: input.expires_at,
            dns_names: input.dns_names,
            store_svid: input.store_svid,
            hint: input.hint,
            disable_x509_svid_prefetch: input.disable_x509_svid_prefetch,
            jwt_svid_include_jti: input.jwt_svid_include_jti,
        })
    }

    fn find(&self, id: &str) -> Result<DomainEntry, Status> {
        if id.is_empty() {
            return Err(Status::invalid_argument("missing ID"));
        }
        let found = EntryId::new(id).ok().and_then(|id| self.services.get_entry(&id));
        found.ok_or_else(|| Status::not_found("entry not found"))
    }
}

fn entry_id(gist: &str, text: &str) -> Result<EntryId, Refusal> {
    EntryId::new(text).map_err(|e| entry_refused(gist, &EntryWriteError::Invalid(e)))
}

#[tonic::async_trait]
impl Entry for EntryApi {
    async fn count_entries(
        &self,
        request: Request<CountEntriesRequest>,
    ) -> Result<Response<CountEntriesResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        let filter = WireFilter::of_count(self.services.trust_domain(), request.filter.as_ref());
        let counted = filter.map_err(|e| Status::invalid_argument(e.to_string())).map(|filter| {
            audit_filter(&mut line, &filter);
            self.services.count_entries(&entry_filter(filter))
        });
        let count = line.conclude(counted)?;
        Ok(Response::new(CountEntriesResponse { count: i32::try_from(count).unwrap_or(i32::MAX) }))
    }

    async fn list_entries(
        &self,
        request: Request<ListEntriesRequest>,
    ) -> Result<Response<ListEntriesResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        let page = PageRequest { size: request.page_size, token: request.page_token };
        let filter = WireFilter::of_list(self.services.trust_domain(), request.filter.as_ref());
        let listed = filter.map_err(|e| Status::invalid_argument(e.to_string())).and_then(|filter| {
            audit_filter(&mut line, &filter);
            self.services
                .list_entries(&entry_filter(filter), &page)
                .map_err(|e| bad_token("failed to list entries", &e))
        });
        let listed = line.conclude(listed)?;
        let mask = request.output_mask.as_ref();
        Ok(Response::new(ListEntriesResponse {
            entries: listed.items.iter().map(|entry| entry_to_wire(entry, mask)).collect(),
            next_page_token: listed.next_token,
        }))
    }

    async fn get_entry(&self, request: Request<GetEntryRequest>) -> Result<Response<types::Entry>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("entry_id", &request.id);
        let entry = line.conclude(self.find(&request.id))?;
        Ok(Response::new(entry_to_wire(&entry, request.output_mask.as_ref())))
    }

    async fn batch_create_entry(
        &self,
        request: Request<BatchCreateEntryRequest>,
    ) -> Result<Response<BatchCreateEntryResponse>, Status> {
        let (call, request) = open(request)?;
        let items = request.entries.iter().map(|wire| self.new_entry(wire)).collect();
        let (now, actor) = (call.now(), call.actor());
        let results =
            batch::write(items, async |list| self.services.create_entries(now, &actor, list).await).await;
        let mask = request.output_mask.as_ref();
        let results = request.entries.iter().zip(results).map(|(wire, result)| {
            let (refusal, entry) = outcome("failed to create entry", result, mask);
            conclude_item(entry_line(&call, wire, None), refusal.as_ref());
            batch_create_entry_response::Result { status: wire_status(refusal.as_ref()), entry }
        });
        Ok(Response::new(BatchCreateEntryResponse { results: results.collect() }))
    }

    async fn batch_update_entry(
        &self,
        request: Request<BatchUpdateEntryRequest>,
    ) -> Result<Response<BatchUpdateEntryResponse>, Status> {
        let (call, request) = open(request)?;
        let input_mask = request.input_mask.as_ref();
        let items = request.entries.iter().map(|wire| self.patch(wire, input_mask)).collect();
        let (now, actor) = (call.now(), call.actor());
        let results =
            batch::write(items, async |list| self.services.update_entries(now, &actor, list).await).await;
        let mask = request.output_mask.as_ref();
        let results = request.entries.iter().zip(results).map(|(wire, result)| {
            let (refusal, entry) = outcome("failed to update entry", result, mask);
            conclude_item(entry_line(&call, wire, input_mask), refusal.as_ref());
            let entry = entry.filter(|_| refusal.is_none());
            batch_update_entry_response::Result { status: wire_status(refusal.as_ref()), entry }
        });
        Ok(Response::new(BatchUpdateEntryResponse { results: results.collect() }))
    }

    async fn batch_delete_entry(
        &self,
        request: Request<BatchDeleteEntryRequest>,
    ) -> Result<Response<BatchDeleteEntryResponse>, Status> {
        let (call, request) = open(request)?;
        let not_found = || Refusal::plain(Code::NotFound, "entry not found");
        let read = |id: &String| match id.as_str() {
            "" => Err(Refusal::plain(Code::InvalidArgument, "missing entry ID")),
            id => EntryId::new(id).map_err(|_| not_found()),
        };
        let items = request.ids.iter().map(read).collect();
        let (now, actor) = (call.now(), call.actor());
        let results =
            batch::write(items, async |list| self.services.delete_entries(now, &actor, list).await).await;
        let results = request.ids.iter().zip(results).map(|(id, result)| {
            let refusal = match result {
                Ok(()) => None,
                Err(ItemError::Read(refusal)) => Some(refusal),
                Err(ItemError::Write(EntryWriteError::NotFound)) => Some(not_found()),
                Err(ItemError::Write(error)) => Some(entry_refused("failed to delete entry", &error)),
                Err(ItemError::Machinery(error)) => Some(write_refused("failed to delete entry", &error)),
            };
            let mut line = call.audit();
            line.text("entry_id", id);
            conclude_item(line, refusal.as_ref());
            batch_delete_entry_response::Result { status: wire_status(refusal.as_ref()), id: id.clone() }
        });
        Ok(Response::new(BatchDeleteEntryResponse { results: results.collect() }))
    }

    async fn get_authorized_entries(
        &self,
        request: Request<GetAuthorizedEntriesRequest>,
    ) -> Result<Response<GetAuthorizedEntriesResponse>, Status> {
        let (call, request) = open(request)?;
        let view = self.services.authorized(call.now().wall, call.caller_id()?);
        let mask = request.output_mask.as_ref();
        call.audit().item(Code::Ok, "");
        Ok(Response::new(GetAuthorizedEntriesResponse {
            entries: view.entries().into_iter().map(|entry| entry_to_wire(entry, mask)).collect(),
        }))
    }

    type SyncAuthorizedEntriesStream = ReceiverStream<Result<SyncAuthorizedEntriesResponse, Status>>;

    async fn sync_authorized_entries(
        &self,
        request: Request<Streaming<SyncAuthorizedEntriesRequest>>,
    ) -> Result<Response<Self::SyncAuthorizedEntriesStream>, Status> {
        let (call, asks) = open(request)?;
        let view = self.services.authorized(call.now().wall, call.caller_id()?);
        Ok(Response::new(sync::run(call, view, asks)))
    }
}
