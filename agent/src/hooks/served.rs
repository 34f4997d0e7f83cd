//! HTTP gates that are workloads of their own: which one a process may serve, and the secret that it adds.
//!
//! Never for a process that is not the workload that the rules name.

use std::sync::Arc;

use avouch_domain::{SelectorSet, SpiffeId};
use avouch_rules::Behind;
use tokio::sync::watch;

use super::{Hooks, NoHook};
use crate::rules::Held;
use crate::runs::{Secret, secrets};

/// A gate as its workload serves it.
#[derive(Clone, Debug)]
pub struct Served {
    pub held: Arc<Held>,
    /// Its name in these rules, which have it.
    pub gate: String,
    /// The workload that serves it.
    pub caller: SpiffeId,
    /// `None`: the gate adds none.
    pub secret: Option<Secret>,
}

impl Hooks {
    /// A gate for the process that serves it. `selectors`, `uid`: of that process, which belongs to no run.
    ///
    /// # Errors
    /// [`NoHook`] if the rules of now do not make it that gate.
    pub async fn served(&self, selectors: &SelectorSet, gate: &str, uid: u32) -> Result<Served, NoHook> {
        let parts = &self.0.parts;
        let held = parts.rules.current().ok_or(NoHook::NoRules)?;
        let unserved = || NoHook::Unserved(gate.to_owned());
        let known = held.rules.gates().get(gate).ok_or_else(unserved)?;
        let hook =
            known.hook(&parts.supply.trust_domain()).filter(|hook| hook.handshakes).ok_or_else(unserved)?;
        if !parts.supply.names(selectors).await.contains(&hook.caller) {
            return Err(NoHook::Caller { resource: gate.to_owned(), caller: hook.caller });
        }
        let place = match &known.behind {
            Behind::Api(api) => api.secret.as_ref().map(|place| place.file.clone()),
            Behind::Tools(_) | Behind::Hook { .. } => None,
        };
        let secret = match place {
            Some(file) => {
                let mut read = secrets::read(vec![file.clone()], uid, parts.gate_secrets.clone()).await;
                Some(read.remove(&file).unwrap_or_else(|| Err("the node agent could not read it".to_owned())))
            }
            None => None,
        };
        Ok(Served { gate: gate.to_owned(), caller: hook.caller, secret, held: held.clone() })
    }

    /// Changes with the rules.
    #[must_use]
    pub fn rules_number(&self) -> watch::Receiver<u64> {
        self.0.parts.rules.number()
    }
}
