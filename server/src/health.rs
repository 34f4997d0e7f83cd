//! What the health listener says: the four subsystems that SPIRE's probes name.
//!
//! Looks anew at most once in a named time, however often it is asked.

use avouch::health_http::{HealthState, Probe};
use avouch_domain::Tick;
use serde_json::Map;
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::datastore::Datastore;
use crate::limits::{HEALTH_AGE, HEALTH_TIME_MAX};
use crate::service::Services;

/// The state behind the listener.
pub struct ServerHealth {
    services: Services,
    store: Datastore,
    clock: Clock,
    last: Mutex<Option<(Tick, Probe)>>,
}

impl std::fmt::Debug for ServerHealth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerHealth")
    }
}

impl ServerHealth {
    #[must_use]
    pub fn new(services: Services, store: Datastore, clock: Clock) -> Self {
        Self { services, store, clock, last: Mutex::new(None) }
    }

    async fn look(&self) -> Probe {
        let datastore = match tokio::time::timeout(HEALTH_TIME_MAX, self.store.position()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("store does not answer".to_owned()),
        };
        let bundle = if self.services.bundle().x509_authorities.is_empty() {
            Err("bundle not found".to_owned())
        } else {
            Ok(())
        };
        let ca = self.services.ca().health((self.clock)().wall);
        probe(vec![
            ("catalog.datastore", "list_bundle_err", datastore),
            ("server", "get_bundle_err", bundle),
            ("server.ca", "sign_x509_svid_err", ca.clone()),
            ("server.ca.rotator", "rotation_err", ca),
        ])
    }

    async fn ask(&self) -> Probe {
        let mut last = self.last.lock().await;
        let now = (self.clock)().mono;
        if let Some((at, probe)) = &*last
            && now.since(*at) < HEALTH_AGE
        {
            return probe.clone();
        }
        let probe = self.look().await;
        *last = Some((now, probe.clone()));
        probe
    }
}

/// An empty object for each good subsystem, the reason for each bad one.
fn probe(subsystems: Vec<(&str, &str, Result<(), String>)>) -> Probe {
    let good = subsystems.iter().all(|(_, _, state)| state.is_ok());
    let detail = |(name, key, state): (&str, &str, Result<(), String>)| {
        let mut object = Map::new();
        if let Err(reason) = state {
            object.insert(key.to_owned(), reason.into());
        }
        (name.to_owned(), object)
    };
    Probe { good, details: subsystems.into_iter().map(detail).collect() }
}

#[tonic::async_trait]
impl HealthState for ServerHealth {
    async fn live(&self) -> Probe {
        self.ask().await
    }
    async fn ready(&self) -> Probe {
        self.ask().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_subsystem_makes_the_whole_bad_and_names_its_reason() {
        let probe = probe(vec![
            ("server", "get_bundle_err", Ok(())),
            ("server.ca", "sign_x509_svid_err", Err("no key".into())),
        ]);
        assert!(!probe.good);
        let texts: Vec<_> =
            probe.details.iter().map(|(n, o)| format!("{n} {}", serde_json::to_string(o).unwrap())).collect();
        assert_eq!(texts, ["server {}", "server.ca {\"sign_x509_svid_err\":\"no key\"}"]);
    }
}
