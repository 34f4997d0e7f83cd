//! Verbs on what people accept although it is lacking.
//!
//! Never tells an agent anything: no decision depends on it.

use avouch_domain::{Accepted, Finding, Now, PersonId, SpiffeId};
use avouch_engine::plan::accepting::{self, AcceptError, Accepting};

use super::{BadToken, NameError, Page, PageRequest, Services, WriteError};

type Outcome = Result<Result<Accepted, AcceptError>, WriteError>;

impl Services {
    /// What a text names that may lack this: an identity as everywhere, and without one the whole SPIFFE ID or its path.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn lacking_name(&self, text: &str, what: Finding) -> Result<SpiffeId, NameError> {
        if what != Finding::Owner {
            return self.find_name(text);
        }
        let name = match text.starts_with('/') {
            true => SpiffeId::new(self.trust_domain(), text),
            false => SpiffeId::parse(text),
        };
        let shown = || text.chars().take(128).collect();
        name.map_err(|e| NameError::Form { name: shown(), why: e.to_string() })
    }

    /// Accepts a finding until a moment.
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was accepted.
    pub async fn accept_finding(&self, now: Now, actor: &PersonId, new: Accepting) -> Outcome {
        let actor = actor.clone();
        self.0.writer.write(move |registry| accepting::accept(registry, now.wall, &actor, &new)).await
    }

    /// Lets a finding count again.
    ///
    /// # Errors
    /// [`WriteError`]; then it was not taken back.
    pub async fn unaccept_finding(
        &self,
        now: Now,
        actor: &PersonId,
        name: SpiffeId,
        what: Finding,
    ) -> Outcome {
        let actor = actor.clone();
        let unaccept = move |registry: &_| accepting::unaccept(registry, now.wall, &actor, &name, what);
        self.0.writer.write(unaccept).await
    }

    /// What is accepted, also what is over, ascending by name.
    ///
    /// # Errors
    /// [`BadToken`].
    pub fn list_accepted(&self, page: &PageRequest) -> Result<Page<Accepted>, BadToken> {
        let registry = self.registry();
        let after = page.after(|token| {
            let (what, name) = token.split_once(' ')?;
            Some((SpiffeId::parse(name).ok()?, what.parse::<Finding>().ok()?))
        })?;
        let token = |accepted: &Accepted| format!("{} {}", accepted.what, accepted.name);
        Ok(page.cut(registry.accepted_after(after.as_ref()).cloned(), token))
    }
}
