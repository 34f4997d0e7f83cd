//! Records service: what agents send of their own logs.
//!
//! Never believes a message whose records these are: the certificate of the connection says it.

use avouch_proto::convert::{shipment_from_wire, stand_to_wire};
use avouch_proto::records_v1::records_server::Records;
use avouch_proto::records_v1::{ShipRequest, ShipResponse};
use tonic::{Request, Response, Status};

use crate::api::call::open;
use crate::api::status::{bad, ship_failed};
use crate::service::Services;

/// The service over TCP.
#[derive(Clone)]
pub struct RecordsApi {
    pub services: Services,
}

impl std::fmt::Debug for RecordsApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecordsApi")
    }
}

#[tonic::async_trait]
impl Records for RecordsApi {
    async fn ship(&self, request: Request<ShipRequest>) -> Result<Response<ShipResponse>, Status> {
        let (call, request) = open(request)?;
        let svid = call.svid()?;
        let mut line = call.audit();
        line.number("records", i64::try_from(request.lines.len()).unwrap_or(i64::MAX));
        let shipped = async {
            let shipment = shipment_from_wire(request).map_err(|e| bad(&e.to_string()))?;
            let shipped = self.services.ship(call.now(), &svid.id, svid.leaf, shipment).await;
            shipped.map_err(|e| ship_failed(&e))
        };
        let stand = line.conclude(shipped.await)?;
        Ok(Response::new(stand_to_wire(&stand)))
    }
}
