//! Where an identity may run: which local user of which node.

use avouch_proto::governance_v1 as wire;
use avouch_proto::run_v1::run_client::RunClient;
use avouch_proto::run_v1::{WhoAmIRequest, WhoAmIResponse};

use super::Session;
use crate::failure::Failure;
use crate::verbs::channel::connect;

/// A place that the server knows of.
pub(super) struct Placed {
    pub node: String,
    pub uid: u32,
    pub entry_id: String,
}

/// Lets a user run it on a node; the caller, on this node, if nothing else is said.
pub(super) async fn place(
    session: &mut Session<'_>,
    name: &str,
    node: Option<String>,
    uid: Option<u32>,
) -> Result<Placed, Failure> {
    let (node, uid) = match (node, uid) {
        (Some(node), Some(uid)) => (node, uid),
        (node, uid) => {
            let me = who_am_i(session).await?;
            (node.unwrap_or(me.agent_id), uid.unwrap_or(me.uid))
        }
    };
    let request = wire::PlaceIdentityRequest { name: name.to_owned(), node: node.clone(), uid };
    let placed = session.client.place_identity(request).await?.into_inner();
    Ok(Placed { node, uid, entry_id: placed.entry_id })
}

/// Lets the caller run it on this node, if there is a node agent that the server knows; says where.
pub(super) async fn here(session: &mut Session<'_>, name: &str) -> Option<String> {
    let placed = place(session, name, None, None).await.ok()?;
    Some(format!("as user {} on {}", placed.uid, placed.node))
}

async fn who_am_i(session: &Session<'_>) -> Result<WhoAmIResponse, Failure> {
    let channel = connect(&session.place.agent_socket).await?;
    Ok(RunClient::new(channel).who_am_i(WhoAmIRequest {}).await?.into_inner())
}
