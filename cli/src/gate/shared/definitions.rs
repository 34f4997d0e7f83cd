//! What the gate is at this moment, as the node agent says.
//!
//! A node agent that is away leaves the gate as it was: whatever comes is asked of that node agent anyway.

use std::sync::Arc;

use avouch_domain::SpiffeId;
use avouch_proto::gate_v1::gate_client::GateClient;
use avouch_proto::gate_v1::{ServeRequest, ServeResponse};
use parking_lot::Mutex;
use tokio::time::sleep;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::exit::{DENIED, FAILED};
use crate::failure::Failure;
use crate::gate::http::Proxy;
use crate::gate::limits::AGENT_PAUSE;
use crate::gate::{Definition, wire};

/// The gate as it is served now.
pub(super) type Current = Mutex<Arc<Proxy>>;

/// An open stream of definitions.
pub(super) struct Definitions {
    client: GateClient<Channel>,
    gate: String,
    id: SpiffeId,
    stream: Streaming<ServeResponse>,
}

impl Definitions {
    /// The gate and the SPIFFE ID that serves it.
    ///
    /// # Errors
    /// This process is not that gate, or nobody answers.
    pub(super) async fn open(
        channel: Channel,
        gate: &str,
    ) -> Result<(Self, Arc<Current>, SpiffeId), Failure> {
        let mut client = GateClient::new(channel);
        let request = ServeRequest { gate: gate.to_owned() };
        let mut stream = client.serve(request).await?.into_inner();
        let first =
            stream.message().await?.ok_or_else(|| Status::unavailable("the node agent said nothing"))?;
        let (proxy, id) = read(first)?;
        let definitions = Self { client, gate: gate.to_owned(), id: id.clone(), stream };
        Ok((definitions, Arc::new(Mutex::new(proxy)), id))
    }

    /// Puts each new definition in place, until this process is that gate no more.
    pub(super) async fn follow(mut self, current: &Current) -> Failure {
        loop {
            let status = match self.stream.message().await {
                Ok(Some(next)) => match read(next) {
                    Ok((proxy, id)) if id == self.id => {
                        *current.lock() = proxy;
                        continue;
                    }
                    Ok((_, id)) => {
                        let text = format!("the gate is {id} now, and this was {}: start it anew", self.id);
                        return Failure::new(DENIED, text);
                    }
                    Err(failure) => return failure,
                },
                Ok(None) => Status::unavailable("the node agent ended the stream"),
                Err(status) => status,
            };
            if status.code() == Code::PermissionDenied {
                return status.into();
            }
            tracing::warn!(%status, "The node agent does not say any more what the gate is; it is asked until it does");
            loop {
                sleep(AGENT_PAUSE).await;
                match self.client.serve(ServeRequest { gate: self.gate.clone() }).await {
                    Ok(stream) => break self.stream = stream.into_inner(),
                    Err(status) if status.code() == Code::PermissionDenied => return status.into(),
                    Err(_) => {}
                }
            }
        }
    }
}

fn read(response: ServeResponse) -> Result<(Arc<Proxy>, SpiffeId), Failure> {
    let newer = || Failure::new(FAILED, "the node agent says what the gate is in words of a newer version");
    let mut gate = response.gate.ok_or_else(newer)?;
    let id = SpiffeId::parse(&response.spiffe_id).map_err(|_| newer())?;
    match wire::definition(&mut gate).ok_or_else(newer)? {
        Definition::Api(api) => Ok((Arc::new(Proxy::new(api)), id)),
        Definition::Tools(_) => Err(newer()),
    }
}
