//! Verbs on bundles.
//!
//! Never lets a caller write the own bundle as if it were a foreign one.

use std::sync::Arc;

use avouch_domain::{Bundle, JwtAuthority, Now, SpiffeId, Timestamp, TrustDomain, X509Authority};
use avouch_engine::entitle;
use avouch_engine::plan::bundles;

use super::{BadToken, BundleError, BundlePatch, DeleteMode, Page, PageRequest, Services, WriteError};

type Outcomes<T> = Result<Vec<Result<T, BundleError>>, WriteError>;

impl Services {
    /// The own bundle.
    #[must_use]
    pub fn bundle(&self) -> Arc<Bundle> {
        let own = self.trust_domain();
        self.registry().bundle(own).cloned().unwrap_or_else(|| Arc::new(Bundle::empty(own.clone())))
    }

    /// The own bundle was served to an agent: it knows every authority published so far.
    pub fn note_bundle_served(&self, agent: &SpiffeId) {
        self.0.feed.acknowledge(agent, self.registry().position().revision);
    }

    /// Adds authorities to the own bundle; gives it as it is then.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn append_bundle(
        &self,
        now: Now,
        actor: &str,
        x509: Vec<X509Authority>,
        jwt: Vec<JwtAuthority>,
    ) -> Result<Arc<Bundle>, WriteError> {
        let (actor, own) = (actor.to_owned(), self.trust_domain().clone());
        self.0
            .writer
            .write(move |registry| bundles::append(registry, now.wall, &actor, &own, &x509, &jwt))
            .await
    }

    /// Bundles there are, the own one included.
    #[must_use]
    pub fn count_bundles(&self) -> usize {
        self.registry().bundle_count()
    }

    /// # Errors
    /// [`BadToken`].
    pub fn list_federated_bundles(&self, page: &PageRequest) -> Result<Page<Arc<Bundle>>, BadToken> {
        let after = page.after(|token| TrustDomain::new(token).ok())?;
        let registry = self.registry();
        let foreign =
            registry.bundles_after(after.as_ref()).filter(|b| b.trust_domain != *self.trust_domain());
        Ok(page.cut(foreign.cloned(), |bundle| bundle.trust_domain.to_string()))
    }

    #[must_use]
    pub fn get_federated_bundle(&self, domain: &TrustDomain) -> Option<Arc<Bundle>> {
        self.registry().bundle(domain).filter(|_| domain != self.trust_domain()).cloned()
    }

    /// # Errors
    /// [`WriteError`]; then none was created.
    pub async fn create_federated_bundles(
        &self,
        now: Now,
        actor: &str,
        items: Vec<Bundle>,
    ) -> Outcomes<Arc<Bundle>> {
        let (actor, own) = (actor.to_owned(), self.trust_domain().clone());
        self.0.writer.write(move |registry| bundles::create(registry, now.wall, &actor, &own, &items)).await
    }

    /// # Errors
    /// [`WriteError`]; then none was set.
    pub async fn set_federated_bundles(
        &self,
        now: Now,
        actor: &str,
        items: Vec<Bundle>,
    ) -> Outcomes<Arc<Bundle>> {
        let (actor, own) = (actor.to_owned(), self.trust_domain().clone());
        self.0.writer.write(move |registry| bundles::set(registry, now.wall, &actor, &own, &items)).await
    }

    /// # Errors
    /// [`WriteError`]; then none was changed.
    pub async fn update_federated_bundles(
        &self,
        now: Now,
        actor: &str,
        items: Vec<BundlePatch>,
    ) -> Outcomes<Arc<Bundle>> {
        let (actor, own) = (actor.to_owned(), self.trust_domain().clone());
        self.0.writer.write(move |registry| bundles::update(registry, now.wall, &actor, &own, &items)).await
    }

    /// # Errors
    /// [`WriteError`]; then none was deleted.
    pub async fn delete_federated_bundles(
        &self,
        now: Now,
        actor: &str,
        domains: Vec<TrustDomain>,
        mode: DeleteMode,
    ) -> Outcomes<()> {
        let (actor, own) = (actor.to_owned(), self.trust_domain().clone());
        self.0
            .writer
            .write(move |registry| bundles::delete(registry, now.wall, &actor, &own, &domains, mode))
            .await
    }

    /// Those of `domains` that exist and that the agent may see.
    #[must_use]
    pub fn visible_bundles(
        &self,
        wall: Timestamp,
        agent: &SpiffeId,
        domains: &[TrustDomain],
    ) -> Vec<Arc<Bundle>> {
        let visible = entitle::visible_bundles(&self.registry(), agent, self.trust_domain(), wall);
        domains.iter().filter_map(|d| visible.get(d).cloned()).collect()
    }
}
