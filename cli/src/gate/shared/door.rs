//! The door itself: TLS in which both sides prove who they are, then HTTP/1.1.
//!
//! Who shows no X509-SVID of the trust domain does not get past the handshake.

use std::sync::Arc;

use avouch_domain::Presented;
use avouch_proto::gate_v1::gate_client::GateClient;
use hyper::body::Incoming;
use hyper::header::HeaderName;
use hyper::{Request, StatusCode};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tonic::transport::Channel;
use zeroize::Zeroizing;

use super::definitions::Current;
use super::judge::PeerJudge;
use crate::exit::FAILED;
use crate::failure::Failure;
use crate::gate::http::{Refusal, raw_of, speak};
use crate::gate::limits::{ACCEPT_PAUSE, HANDSHAKE_TIME_MAX, SHARED_CONNECTIONS_MAX, TASK_TOKEN_MAX};

/// The header in which a caller shows a task token beside its certificate.
pub(super) const TASK: HeaderName = HeaderName::from_static("x-avouch-task");

/// Serves callers; ends only if it can't go on. Dropping it ends every connection.
pub(super) async fn serve(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    current: Arc<Current>,
    client: GateClient<Channel>,
) -> Failure {
    let places = Arc::new(Semaphore::new(SHARED_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return Failure::new(FAILED, "the gate takes nobody any more");
        };
        match listener.accept().await {
            Ok((stream, address)) => {
                let (config, current, client) = (config.clone(), current.clone(), client.clone());
                connections.spawn(async move {
                    let _place = place;
                    if let Err(why) = connection(stream, config, current, client).await {
                        tracing::debug!(caller_addr = %address, why, "A caller did not come in");
                    }
                });
            }
            Err(e) => {
                tracing::warn!("cannot accept a connection to the gate: {e}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    current: Arc<Current>,
    client: GateClient<Channel>,
) -> Result<(), String> {
    let _ = stream.set_nodelay(true);
    let shaken = timeout(HANDSHAKE_TIME_MAX, TlsAcceptor::from(config).accept(stream)).await;
    let stream = shaken.map_err(|_| "the handshake took too long".to_owned())?.map_err(|e| e.to_string())?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let chain: Vec<Vec<u8>> = chain.iter().map(|der| der.to_vec()).collect();
    speak(stream, move |request| {
        let (proxy, client, chain) = (current.lock().clone(), client.clone(), chain.clone());
        async move {
            match token(&request) {
                Ok(token) => {
                    let judge = PeerJudge { client, presented: Presented { token, chain } };
                    proxy.answer(&judge, &raw_of(&request), request).await
                }
                Err(refusal) => refusal.response(),
            }
        }
    })
    .await;
    Ok(())
}

/// The task token of a request; empty if it shows none.
fn token(request: &Request<Incoming>) -> Result<Zeroizing<String>, Refusal> {
    let unfit = |why: &str| {
        let error = format!("it was not sent: {why}");
        Refusal::new(StatusCode::BAD_REQUEST, "request", error, "show one task token of at most 16 KiB")
    };
    let mut shown = request.headers().get_all(TASK).iter();
    let Some(token) = shown.next() else { return Ok(Zeroizing::default()) };
    if shown.next().is_some() {
        return Err(unfit("it shows two task tokens"));
    }
    let token = token.to_str().map_err(|_| unfit("its task token is no text"))?;
    if token.len() > TASK_TOKEN_MAX {
        return Err(unfit("its task token is too long"));
    }
    Ok(Zeroizing::new(token.to_owned()))
}
