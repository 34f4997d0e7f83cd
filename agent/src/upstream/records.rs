//! The agent's records on their way to our own server, `avouch.records.v1`.
//!
//! Never looks into a line.

use avouch_domain::{Shipment, Stand};
use avouch_proto::convert::{shipment_to_wire, stand_from_wire};
use avouch_proto::records_v1::records_client::RecordsClient;
use tonic::Code;

use super::{CallError, Server};

/// Where records go.
#[tonic::async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Hands over a stretch of this agent's records, or asks without lines; gives where the server stands.
    ///
    /// # Errors
    /// [`CallError`]; then the server may have them all the same.
    async fn ship(&self, shipment: Shipment) -> Result<Stand, CallError>;
}

#[tonic::async_trait]
impl Sink for Server {
    async fn ship(&self, shipment: Shipment) -> Result<Stand, CallError> {
        let request = &shipment_to_wire(shipment);
        self.call(|line| async move {
            let answer = RecordsClient::new(line.channel).ship(request.clone()).await?.into_inner();
            stand_from_wire(&answer).map_err(|e| CallError::Failed {
                code: Code::Internal,
                message: format!("malformed answer: {e}"),
            })
        })
        .await
    }
}
