//! The SPIRE API as an agent calls it: works with any SPIRE-compatible server.
//!
//! Never lets one malformed entry or missing bundle spoil a round: it is left out and said.

use std::collections::BTreeMap;
use std::sync::Arc;

use avouch_attestors::node::{NodeProver, ProveError};
use avouch_credential::tls::{ServerExpectation, TlsError};
use avouch_domain::{Bundle, Entry, EntryId, JwtSvid, SpiffeId, TrustDomain};
use avouch_engine::sync::{Known, Polled};
use avouch_proto::agent_v1::agent_client::AgentClient;
use avouch_proto::agent_v1::attest_agent_request::{Params, Step as RequestStep};
use avouch_proto::agent_v1::attest_agent_response::Step as ResponseStep;
use avouch_proto::agent_v1::{AgentX509svidParams, AttestAgentRequest, PostStatusRequest, RenewAgentRequest};
use avouch_proto::bundle_v1::bundle_client::BundleClient;
use avouch_proto::bundle_v1::{GetBundleRequest, GetFederatedBundleRequest};
use avouch_proto::convert::{bundle_from_wire, delivered_entry, spiffe_id, status_of_item, sync_entry_mask};
use avouch_proto::entry_v1::entry_client::EntryClient;
use avouch_proto::entry_v1::{
    GetAuthorizedEntriesRequest, SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse,
};
use avouch_proto::revision::EntryRevision;
use avouch_proto::svid_v1::svid_client::SvidClient;
use avouch_proto::svid_v1::{BatchNewX509svidRequest, NewJwtsvidRequest, NewX509svidParams};
use avouch_proto::types;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use zeroize::Zeroizing;

use super::{CallError, Following, Hello, Line, Server, SignedChain, SignedJwt, Target, Upstream};
use super::{channel, seconds};
use crate::limits::{ANSWER_FROM_SERVER_MAX, ATTEST_MAX, CALL_MAX, FEDERATED_FETCHES};

/// Ends every call within its limit.
async fn within<T>(
    limit: std::time::Duration,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    match timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(CallError::Unreachable(format!("no answer within {} s", limit.as_secs()))),
    }
}

fn malformed(what: impl std::fmt::Display) -> CallError {
    CallError::Failed { code: Code::Internal, message: format!("malformed answer: {what}") }
}

/// What a successful attestation brought.
#[derive(Debug)]
pub struct Attestation {
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    pub reattestable: bool,
    /// Of the own trust domain, fetched over the same connection.
    pub bundle: Bundle,
}

/// Why an attestation did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Prove(#[from] ProveError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl From<Status> for AttestError {
    fn from(status: Status) -> Self {
        Self::Call(status.into())
    }
}

impl Server {
    /// Proves the node over a connection that shows no certificate, and fetches the own bundle over the same.
    /// `insecure`: the server's chain is not checked, only that it names itself the server.
    ///
    /// # Errors
    /// [`AttestError`]; nothing is changed here.
    pub async fn attest(
        &self,
        prover: &mut dyn NodeProver,
        csr: Vec<u8>,
        insecure: bool,
    ) -> Result<Attestation, AttestError> {
        let id = SpiffeId::server(&self.trust_domain);
        let expected =
            if insecure { ServerExpectation::Insecure(id) } else { ServerExpectation::Exactly(id) };
        let channel = channel::open(&self.target, self.resolver.clone(), None, self.roots.clone(), expected)?;
        let session = attest(channel.clone(), prover, csr);
        let (chain, reattestable) = timeout(ATTEST_MAX, session).await.map_err(|_| {
            CallError::Unreachable(format!("no attestation within {} s", ATTEST_MAX.as_secs()))
        })??;
        let bundle = within(CALL_MAX, own_bundle(channel)).await?;
        Ok(Attestation { chain, reattestable, bundle })
    }
}

async fn attest(
    channel: Channel,
    prover: &mut dyn NodeProver,
    csr: Vec<u8>,
) -> Result<(Vec<Vec<u8>>, bool), AttestError> {
    let payload = prover.open().await?;
    let data = types::AttestationData { r#type: prover.name().to_owned(), payload: payload.to_vec() };
    let params = Params { data: Some(data), params: Some(AgentX509svidParams { csr }) };
    let (send, requests) = mpsc::channel(2);
    let closed = || CallError::Unreachable("the attestation stream ended".to_owned());
    let say = |step| AttestAgentRequest { step: Some(step) };
    send.send(say(RequestStep::Params(params))).await.map_err(|_| closed())?;
    let mut client = AgentClient::new(channel);
    let mut answers = client.attest_agent(ReceiverStream::new(requests)).await?.into_inner();
    loop {
        let answer = answers.message().await?.ok_or_else(closed)?;
        match answer.step {
            Some(ResponseStep::Challenge(challenge)) => {
                let response = prover.answer(&challenge).await?;
                send.send(say(RequestStep::ChallengeResponse(response))).await.map_err(|_| closed())?;
            }
            Some(ResponseStep::Result(result)) => {
                let svid = result.svid.ok_or_else(|| malformed("an attestation result without SVID"))?;
                return Ok((svid.cert_chain, result.reattestable));
            }
            None => return Err(malformed("an empty attestation step").into()),
        }
    }
}

async fn own_bundle(channel: Channel) -> Result<Bundle, CallError> {
    let mut client = BundleClient::new(channel).max_decoding_message_size(ANSWER_FROM_SERVER_MAX);
    let wire = client.get_bundle(GetBundleRequest { output_mask: None }).await?.into_inner();
    bundle_from_wire(&wire).map_err(malformed)
}

/// `None` if the server has no such bundle.
async fn federated_bundle(channel: Channel, domain: TrustDomain) -> Result<Option<Bundle>, CallError> {
    let mut client = BundleClient::new(channel).max_decoding_message_size(ANSWER_FROM_SERVER_MAX);
    let request = GetFederatedBundleRequest { trust_domain: domain.to_string(), output_mask: None };
    match client.get_federated_bundle(request).await {
        Ok(wire) => bundle_from_wire(&wire.into_inner()).map(Some).map_err(malformed),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

/// Bundles of foreign domains: those that came, and those the server does not have. One that can't be fetched
/// for another reason is in neither list: the old one stays.
///
/// # Errors
/// [`CallError::Interrupted`] alone.
async fn federated_bundles(
    channel: &Channel,
    domains: Vec<TrustDomain>,
) -> Result<(Vec<Bundle>, Vec<TrustDomain>), CallError> {
    let (mut came, mut gone) = (Vec::new(), Vec::new());
    let mut waiting = domains.into_iter();
    let mut fetches = tokio::task::JoinSet::new();
    loop {
        while fetches.len() < FEDERATED_FETCHES {
            let Some(domain) = waiting.next() else { break };
            let channel = channel.clone();
            fetches.spawn(async move { (domain.clone(), federated_bundle(channel, domain).await) });
        }
        match fetches.join_next().await {
            None => return Ok((came, gone)),
            Some(Ok((_, Ok(Some(bundle))))) => came.push(bundle),
            Some(Ok((domain, Ok(None)))) => {
                tracing::warn!(trust_domain_id = %domain.id(), "Bundle of a federated trust domain not found");
                gone.push(domain);
            }
            Some(Ok((_, Err(error @ CallError::Interrupted(_))))) => return Err(error),
            Some(Ok((domain, Err(error)))) => {
                tracing::warn!(trust_domain_id = %domain.id(), %error, "Failed to fetch a federated bundle");
            }
            Some(Err(_)) => {}
        }
    }
}

fn understood(agent: &SpiffeId, wire: &[types::Entry], refused: &mut Vec<String>) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(wire.len());
    for one in wire {
        match delivered_entry(agent, one) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                tracing::warn!(entry_id = %one.id, %error, "Malformed entry left out");
                refused.push(one.id.clone());
            }
        }
    }
    entries
}

/// Entries of one round and which of those held are the same.
type Entries = (Vec<Entry>, Vec<EntryId>);

async fn all_entries(line: &Line) -> Result<Entries, CallError> {
    let mut client = EntryClient::new(line.channel.clone()).max_decoding_message_size(ANSWER_FROM_SERVER_MAX);
    let request = GetAuthorizedEntriesRequest { output_mask: Some(sync_entry_mask()) };
    let answer = client.get_authorized_entries(request).await?.into_inner();
    Ok((understood(&line.agent, &answer.entries, &mut Vec::new()), Vec::new()))
}

/// One exchange of SyncAuthorizedEntries: the whole list if it is short, else revisions first and then only what
/// differs from `known`.
async fn sync_entries(line: &Line, known: &Known) -> Result<Entries, CallError> {
    let mut client = EntryClient::new(line.channel.clone()).max_decoding_message_size(ANSWER_FROM_SERVER_MAX);
    let (send, requests) = mpsc::channel(2);
    let first = SyncAuthorizedEntriesRequest { output_mask: Some(sync_entry_mask()), ids: Vec::new() };
    let _ = send.send(first).await;
    let mut answers = client.sync_authorized_entries(ReceiverStream::new(requests)).await?.into_inner();
    let mut answer = next(&mut answers).await?;
    if answer.entry_revisions.is_empty() {
        return Ok((understood(&line.agent, &answer.entries, &mut Vec::new()), Vec::new()));
    }
    let page = answer.entry_revisions.len();
    let (mut unchanged, mut needed) = (Vec::new(), Vec::new());
    loop {
        if !answer.entries.is_empty() {
            return Err(malformed("entries among entry revisions"));
        }
        sort_out(answer.entry_revisions, known, &mut unchanged, &mut needed);
        if !answer.more {
            break;
        }
        answer = next(&mut answers).await?;
    }
    needed.sort_unstable();
    let (mut entries, mut refused) = (Vec::new(), Vec::new());
    for ids in needed.chunks(page) {
        let request = SyncAuthorizedEntriesRequest { output_mask: None, ids: ids.to_vec() };
        send.send(request).await.map_err(|_| malformed("the sync stream ended"))?;
        loop {
            let answer = next(&mut answers).await?;
            if !answer.entry_revisions.is_empty() {
                return Err(malformed("entry revisions among entries"));
            }
            entries.extend(understood(&line.agent, &answer.entries, &mut refused));
            if !answer.more {
                break;
            }
        }
    }
    // The server still grants what it could not say well: the form held stays.
    unchanged.extend(refused.iter().filter_map(|id| EntryId::new(id).ok()));
    Ok((entries, unchanged))
}

async fn next(
    answers: &mut Streaming<SyncAuthorizedEntriesResponse>,
) -> Result<SyncAuthorizedEntriesResponse, CallError> {
    answers.message().await?.ok_or_else(|| malformed("the sync stream ended"))
}

fn sort_out(
    revisions: Vec<EntryRevision>,
    known: &Known,
    unchanged: &mut Vec<EntryId>,
    needed: &mut Vec<String>,
) {
    for one in revisions {
        let Ok(id) = EntryId::new(one.id.as_str()) else { continue };
        if one.revision_number < 0 {
            continue;
        }
        // A server that does not say when an entry was made leaves zero.
        let same = known.get(&id).is_some_and(|held| {
            held.revision == one.revision_number
                && (one.created_at == 0 || held.created_at == seconds(one.created_at))
        });
        if same {
            unchanged.push(id);
        } else {
            needed.push(one.id.to_string());
        }
    }
}

fn token(wire: types::Jwtsvid) -> Result<SignedJwt, CallError> {
    let text = Zeroizing::new(wire.token);
    let id = spiffe_id(wire.id.as_ref()).map_err(malformed)?;
    if wire.issued_at == 0 || wire.expires_at == 0 || wire.issued_at > wire.expires_at {
        return Err(malformed("a JWT-SVID without a sound issue and expiry time"));
    }
    let key_id = key_id(&text).ok_or_else(|| malformed("a JWT-SVID without a readable header"))?;
    let svid = JwtSvid {
        id,
        token: Arc::new(text),
        issued_at: seconds(wire.issued_at),
        expires_at: seconds(wire.expires_at),
    };
    Ok(SignedJwt { svid, key_id })
}

fn key_id(token: &str) -> Option<Arc<str>> {
    let header = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header).ok()?;
    Some(header.get("kid")?.as_str()?.into())
}

#[tonic::async_trait]
impl Upstream for Server {
    async fn follow(&self, hello: Hello) -> Result<Following, CallError> {
        let hello = &hello;
        self.call(|line| async move { super::watch::follow(&line, hello, &self.announced).await }).await
    }

    async fn fetch_bundles(&self, domains: Vec<TrustDomain>) -> Result<Vec<Bundle>, CallError> {
        let domains = &domains;
        self.call(|line| async move { super::watch::fetch_bundles(&line, domains).await }).await
    }

    async fn poll(
        &self,
        whole: bool,
        known: Known,
        federated: Vec<TrustDomain>,
    ) -> Result<Polled, CallError> {
        let (known, federated) = (&known, &federated);
        self.call(|line| async move {
            let (entries, unchanged) =
                if whole { all_entries(&line).await? } else { sync_entries(&line, known).await? };
            let own = own_bundle(line.channel.clone()).await?;
            let mut domains: std::collections::BTreeSet<_> = federated.iter().cloned().collect();
            domains.extend(entries.iter().flat_map(|e| e.federates_with.iter().cloned()));
            domains.remove(&self.trust_domain);
            let domains = domains.into_iter().collect();
            let (mut bundles, bundles_gone) = federated_bundles(&line.channel, domains).await?;
            bundles.push(own);
            Ok(Polled { entries, unchanged, bundles, bundles_gone })
        })
        .await
    }

    async fn sign_x509(
        &self,
        batch: Vec<(EntryId, Vec<u8>)>,
    ) -> Result<Vec<Result<SignedChain, String>>, CallError> {
        let asked = batch.len();
        let params: Vec<_> =
            batch.into_iter().map(|(id, csr)| NewX509svidParams { entry_id: id.to_string(), csr }).collect();
        let params = &params;
        self.call(|line| async move {
            let mut client = SvidClient::new(line.channel).max_decoding_message_size(ANSWER_FROM_SERVER_MAX);
            let request = BatchNewX509svidRequest { params: params.clone() };
            let results = client.batch_new_x509svid(request).await?.into_inner().results;
            if results.len() != asked {
                return Err(malformed(format!("{} results for {asked} requests", results.len())));
            }
            Ok(results.into_iter().map(signed_chain).collect())
        })
        .await
    }

    async fn sign_jwt(&self, entry: &EntryId, audience: &[String]) -> Result<SignedJwt, CallError> {
        self.call(|line| async move {
            let request = NewJwtsvidRequest { entry_id: entry.to_string(), audience: audience.to_vec() };
            let answer = SvidClient::new(line.channel).new_jwtsvid(request).await?.into_inner();
            token(answer.svid.ok_or_else(|| malformed("an answer without JWT-SVID"))?)
        })
        .await
    }

    async fn renew(&self, csr: Vec<u8>) -> Result<SignedChain, CallError> {
        let csr = &csr;
        self.call(|line| async move {
            let request = RenewAgentRequest { params: Some(AgentX509svidParams { csr: csr.clone() }) };
            let answer = AgentClient::new(line.channel).renew_agent(request).await?.into_inner();
            let svid = answer.svid.ok_or_else(|| malformed("a renewal without SVID"))?;
            Ok(SignedChain { chain: svid.cert_chain })
        })
        .await
    }

    async fn post_status(&self, version: &str) -> Result<(), CallError> {
        self.call(|line| async move {
            let request =
                PostStatusRequest { agent_version: version.to_owned(), ..PostStatusRequest::default() };
            AgentClient::new(line.channel).post_status(request).await?;
            Ok(())
        })
        .await
    }
}

fn signed_chain(
    result: avouch_proto::svid_v1::batch_new_x509svid_response::Result,
) -> Result<SignedChain, String> {
    status_of_item(result.status.as_ref()).map_err(|s| s.message().to_owned())?;
    match result.svid {
        Some(svid) if !svid.cert_chain.is_empty() => Ok(SignedChain { chain: svid.cert_chain }),
        _ => Err("the server sent no certificate".to_owned()),
    }
}

/// A target as configured: a host with its port.
impl From<(&str, u16)> for Target {
    fn from((host, port): (&str, u16)) -> Self {
        Self { host: host.to_owned(), port }
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::{ShortText, Timestamp};
    use avouch_engine::sync::Version;

    use super::*;

    #[test]
    fn only_what_differs_is_asked_for() {
        let version = Version { revision: 2, created_at: Timestamp::from_secs(9) };
        let known: Known =
            ["a", "b", "c", "d"].into_iter().map(|id| (EntryId::new(id).unwrap(), version)).collect();
        let revision = |id: &str, revision_number, created_at| EntryRevision {
            id: ShortText::new(id),
            revision_number,
            created_at,
        };
        let (mut unchanged, mut needed) = (Vec::new(), Vec::new());
        let revisions = vec![
            revision("a", 2, 9),
            revision("b", 3, 9),
            revision("c", 2, 10),
            revision("d", 2, 0),
            revision("new", 0, 1),
            revision("", 0, 0),
            revision("negative", -1, 0),
        ];
        sort_out(revisions, &known, &mut unchanged, &mut needed);
        assert_eq!(needed, ["b", "c", "new"]);
        assert_eq!(unchanged.iter().map(EntryId::as_str).collect::<Vec<_>>(), ["a", "d"]);
    }

    #[test]
    fn the_key_id_is_read_from_the_header() {
        let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"K","typ":"JWT"}"#);
        assert_eq!(key_id(&format!("{header}.x.y")).as_deref(), Some("K"));
        assert_eq!(key_id("x.y.z"), None);
    }
}
