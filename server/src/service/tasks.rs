//! Task tokens: signed for the node of a run, and looked at for the node of a gate.
//!
//! A node learns of an identity that it does not serve only from the identity's own hand: it must have what the identity
//! presented at a gate that runs there. Never signs for an identity that is not in force, and takes nothing of a
//! token's claims from a node but the task and the run.

use avouch_credential::jwt::task::{TaskClaims, TaskToken};
use avouch_credential::presented::{At, Unproved, prove};
use avouch_domain::{Bundle, Code, Identity, Now, Person, Presented, SpiffeId, Timestamp};
use avouch_engine::entitle::{served_identity, serves_name};

use super::Services;
use super::svids::{JwtError, in_force};

/// What a node asks a token for.
#[derive(Clone, Debug)]
pub struct TokenAsk {
    pub name: SpiffeId,
    /// ID in the catalogue.
    pub resource: String,
    pub task: Code,
    /// ID of the run.
    pub instance: String,
}

/// Why a node is not told whose it is that it was presented.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShowError {
    #[error("no hook of this node guards \"{0}\": the rules in force name none whose SPIFFE ID it may serve")]
    NoHook(String),
    #[error(transparent)]
    Presented(#[from] Unproved),
}

/// Who presented something at a gate.
#[derive(Clone, Debug)]
pub struct PresentedIdentity {
    /// And whether its owner is active; `None` if it is not in force.
    pub identity: Option<(Identity, bool)>,
    /// The task that was proved.
    pub task: Option<Code>,
}

impl Services {
    /// Signs a task token for an identity that the agent may serve.
    ///
    /// # Errors
    /// [`JwtError`].
    pub async fn sign_task(&self, now: Now, agent: &SpiffeId, ask: TokenAsk) -> Result<TaskToken, JwtError> {
        if self.settings().jwt_disabled {
            return Err(JwtError::Disabled);
        }
        let registry = self.registry();
        in_force(&registry, now.wall, &ask.name).map_err(JwtError::NotInForce)?;
        let identity =
            served_identity(&registry, agent, &ask.name, now.wall).ok_or(JwtError::NotAuthorized)?;
        let claims = TaskClaims {
            id: ask.name,
            task: ask.task,
            instance: ask.instance.into(),
            purpose: identity.purpose.clone(),
            stop_number: identity.stop_number,
        };
        let signed = self.ca().sign_task(now.wall, claims, ask.resource, identity.end).await;
        signed.map_err(JwtError::Sign)
    }

    /// The identity that presented this at the gate of a resource, which runs on this agent's node.
    ///
    /// # Errors
    /// [`ShowError`]; then nothing is told.
    pub fn presented_identity(
        &self,
        wall: Timestamp,
        agent: &SpiffeId,
        resource: &str,
        presented: &Presented,
    ) -> Result<PresentedIdentity, ShowError> {
        let registry = self.registry();
        let shown = self.shown_rules();
        let hooks = shown.as_ref().and_then(|in_force| in_force.rules.as_ref()).map(|rules| &rules.hooks);
        let gate = resource.split_once('/').map(|(gate, _)| gate);
        let hook = gate
            .and_then(|gate| hooks?.get(gate))
            .filter(|hook| serves_name(&registry, agent, &hook.caller, wall))
            .ok_or_else(|| ShowError::NoHook(resource.to_owned()))?;
        let none = Bundle::empty(self.trust_domain().clone());
        let own = registry.bundle(self.trust_domain()).map_or(&none, |bundle| &**bundle);
        let at = At { resource, gate: &hook.caller, handshakes: hook.handshakes };
        let proof = prove(presented, own, at, wall)?;
        let identity = registry.identity(&proof.identity).filter(|identity| identity.is_in_force(wall));
        let identity = identity.map(|identity| {
            let active = registry.person(&identity.owner).is_some_and(Person::is_active);
            (identity.clone(), active)
        });
        Ok(PresentedIdentity { identity, task: proof.task.map(|task| task.task) })
    }
}
