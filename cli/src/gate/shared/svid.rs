//! The X509-SVID that the gate shows, and the authorities of those it takes: its own trust domain's and no other's.

use std::convert::Infallible;
use std::sync::Arc;

use avouch_credential::tls::{IdentityCell, RootsCell};
use avouch_credential::x509::facts::{CertFacts, check_authority, split};
use avouch_domain::{Bundle, SpiffeId, X509Svid};
use avouch_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use avouch_proto::workload::{X509svidRequest, X509svidResponse};
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::Status;
use tonic::transport::Channel;
use zeroize::Zeroizing;

use crate::gate::limits::AGENT_PAUSE;
use crate::verbs::channel::{REPLY_MAX, workload_request};

/// See the module.
pub(super) struct Svids {
    id: SpiffeId,
    pub identity: Arc<IdentityCell>,
    pub roots: Arc<RootsCell>,
    shown: watch::Sender<bool>,
}

impl Svids {
    /// Shows nothing yet, and takes nobody.
    pub(super) fn new(id: SpiffeId) -> Self {
        Self { id, identity: Arc::default(), roots: Arc::default(), shown: watch::Sender::new(false) }
    }

    /// Turns true with the first SVID.
    pub(super) fn ready(&self) -> watch::Receiver<bool> {
        self.shown.subscribe()
    }

    /// Follows the node agent. While it is away what it said last counts: certificates end by themselves.
    pub(super) async fn keep(self, channel: Channel) -> Infallible {
        let mut client = SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(REPLY_MAX);
        let mut told = false;
        loop {
            let ended = match client.fetch_x509svid(workload_request(X509svidRequest {})).await {
                Ok(stream) => {
                    let mut stream = stream.into_inner();
                    loop {
                        match stream.message().await {
                            Ok(Some(next)) => {
                                told = false;
                                self.take(next);
                            }
                            Ok(None) => break Status::unavailable("the stream ended"),
                            Err(status) => break status,
                        }
                    }
                }
                Err(status) => status,
            };
            if ended.code() == tonic::Code::PermissionDenied {
                // It was taken away.
                self.identity.clear();
            }
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(status = %ended, "No X509-SVID comes any more; the node agent is asked until one does");
            }
            sleep(AGENT_PAUSE).await;
        }
    }

    fn take(&self, response: X509svidResponse) {
        let taken = match response.svids.into_iter().find(|svid| svid.spiffe_id == self.id.as_str()) {
            Some(svid) => self.show(&svid.x509_svid, svid.x509_svid_key, &svid.bundle),
            None => Err(format!("the node agent has none for {}", self.id)),
        };
        match taken {
            Ok(()) => drop(self.shown.send_replace(true)),
            Err(why) => {
                tracing::warn!(why, "The gate has no X509-SVID to show");
                self.identity.clear();
            }
        }
    }

    fn show(&self, chain: &[u8], key: Vec<u8>, bundle: &[u8]) -> Result<(), String> {
        let key = Zeroizing::new(key);
        let chain = split(chain).map_err(|e| e.to_string())?;
        let leaf = chain.first().ok_or("there is no certificate")?;
        let facts = CertFacts::parse(leaf).map_err(|e| e.to_string())?;
        let mut own = Bundle::empty(self.id.trust_domain().clone());
        for der in split(bundle).map_err(|e| e.to_string())? {
            own.x509_authorities.push(check_authority(&der).map_err(|e| e.to_string())?);
        }
        let svid = X509Svid {
            id: self.id.clone(),
            not_before: facts.not_before,
            not_after: facts.not_after,
            chain: chain.iter().map(|der| Arc::from(der.as_slice())).collect(),
            key: Arc::new(key),
        };
        self.identity.set(&svid).map_err(|e| e.to_string())?;
        self.roots.replace([&own]);
        Ok(())
    }
}
