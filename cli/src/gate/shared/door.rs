//! The door itself: TLS in which both sides prove who they are, then HTTP/1.1.
//!
//! Who shows no X509-SVID of the trust domain does not get past the handshake.

use std::collections::BTreeMap;
use std::sync::Arc;

use avouch_credential::limits::PRESENTED_TOKEN_MAX;
use avouch_credential::x509::verify::svid_id;
use avouch_domain::{Presented, SpiffeId};
use hyper::body::Incoming;
use hyper::header::HeaderName;
use hyper::{Request, StatusCode};
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::definitions::Current;
use super::judge::{Line, PeerJudge};
use crate::exit::FAILED;
use crate::failure::Failure;
use crate::gate::http::{Refusal, raw_of, speak};
use crate::gate::limits::{
    ACCEPT_PAUSE, CALLER_CONNECTIONS_MAX, HANDSHAKE_TIME_MAX, HANDSHAKES_MAX, SHARED_CONNECTION_TIME_MAX,
    SHARED_CONNECTIONS_MAX,
};

/// The header in which a caller shows a task token beside its certificate.
pub(super) const TASK: HeaderName = HeaderName::from_static("x-avouch-task");

/// What all connections of a gate share.
pub(super) struct Door {
    pub config: Arc<ServerConfig>,
    pub current: Arc<Current>,
    pub line: Line,
}

/// How many connections each caller has.
#[derive(Default)]
struct Callers(Mutex<BTreeMap<SpiffeId, usize>>);

impl Callers {
    /// A place for a connection of this caller, if there is one.
    fn place(self: &Arc<Self>, caller: SpiffeId) -> Option<Place> {
        let mut callers = self.0.lock();
        if callers.values().sum::<usize>() >= SHARED_CONNECTIONS_MAX {
            return None;
        }
        let had = callers.entry(caller.clone()).or_default();
        if *had >= CALLER_CONNECTIONS_MAX {
            return None;
        }
        *had += 1;
        Some(Place { callers: self.clone(), caller })
    }
}

/// One connection of a caller. Dropping it gives the place back.
struct Place {
    callers: Arc<Callers>,
    caller: SpiffeId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut callers = self.callers.0.lock();
        if let Some(had) = callers.get_mut(&self.caller) {
            *had -= 1;
            if *had == 0 {
                callers.remove(&self.caller);
            }
        }
    }
}

/// Serves callers; ends only if it can't go on. Dropping it ends every connection.
pub(super) async fn serve(listener: TcpListener, door: Door) -> Failure {
    let (door, callers) = (Arc::new(door), Arc::<Callers>::default());
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(turn) = handshakes.clone().acquire_owned().await else {
            return Failure::new(FAILED, "the gate takes nobody any more");
        };
        match listener.accept().await {
            Ok((stream, address)) => {
                let (door, callers) = (door.clone(), callers.clone());
                connections.spawn(async move {
                    if let Err(why) = connection(stream, &door, &callers, turn).await {
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
    door: &Door,
    callers: &Arc<Callers>,
    turn: OwnedSemaphorePermit,
) -> Result<(), String> {
    let _ = stream.set_nodelay(true);
    let shaken = timeout(HANDSHAKE_TIME_MAX, TlsAcceptor::from(door.config.clone()).accept(stream)).await;
    let stream = shaken.map_err(|_| "the handshake took too long".to_owned())?.map_err(|e| e.to_string())?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let chain: Vec<Vec<u8>> = chain.iter().map(|der| der.to_vec()).collect();
    let leaf = chain.first().ok_or_else(|| "it showed no certificate".to_owned())?;
    let caller = svid_id(leaf).map_err(|e| e.to_string())?;
    let full = || format!("{caller} or all callers together have all connections that there are");
    let _place = callers.place(caller.clone()).ok_or_else(full)?;
    drop(turn);
    let spoken = speak(stream, move |request| {
        let (proxy, line, chain) = (door.current.lock().clone(), door.line.clone(), chain.clone());
        async move {
            match token(&request) {
                Ok(token) => {
                    let judge = PeerJudge { line, presented: Presented { token, chain } };
                    proxy.answer(&judge, &raw_of(&request), request).await
                }
                Err(refusal) => refusal.response(),
            }
        }
    });
    timeout(SHARED_CONNECTION_TIME_MAX, spoken).await.map_err(|_| "its time was over".to_owned())
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
    if token.len() > PRESENTED_TOKEN_MAX {
        return Err(unfit("its task token is too long"));
    }
    Ok(Zeroizing::new(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_has_so_many_connections_and_leaves_room_for_others() {
        let callers = Arc::<Callers>::default();
        let id = |name: &str| SpiffeId::parse(&format!("spiffe://example.org/{name}")).unwrap();
        let mut places: Vec<_> =
            (0..CALLER_CONNECTIONS_MAX).map(|_| callers.place(id("a")).unwrap()).collect();
        assert!(callers.place(id("a")).is_none());
        let other = callers.place(id("b")).unwrap();
        places.pop();
        assert!(callers.place(id("a")).is_some());
        drop((places, other));
        assert!(callers.0.lock().is_empty());
    }
}
