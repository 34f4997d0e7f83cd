//! How the agent comes to its own SVID and keeps it: bootstrap trust, attest, renew, attest anew, or give up.
//!
//! A new SVID is on disk before it is used, its key before that. Never asks for an SVID with the key of the present
//! one, and never goes on when the server has banned this node.

mod clocks;
mod distrust;
mod fetch;
mod proving;
mod resume;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use avouch_credential::key::PrivateKey;
use avouch_credential::tls::{IdentityCell, RootsCell, TlsError};
use avouch_credential::x509::facts::CertFacts;
use avouch_domain::{AuthorityId, Bundle, Now, SpiffeId, Tick, Timestamp, TrustDomain, X509Svid};
use avouch_engine::backoff::{Backoff, Jitter, Policy};
use avouch_engine::renew::renew_after;
use avouch_engine::sync::AgentRefusal;
use tokio::sync::{mpsc, watch};
use tonic::Code;
use zeroize::Zeroizing;

use trust::{Occasion, TrustError, bundle_of};

use crate::config::{Bootstrap, NodeAttestorConfig};
use crate::disk::{DiskError, StateFile};
use crate::keys::{KeysError, OwnKeys, own_request};
use crate::limits::SLEEP_MAX;
use crate::metrics::Metrics;
use crate::proof::Proof;
use crate::records::Voucher;
use crate::sealed::{Owner, Vault};
use crate::shell::{OwnSvid, Shell};
use crate::upstream::{AttestError, CallError, Server, Upstream as _};

/// Pauses between attempts to attest or renew (as SPIRE's agent, but spread wider: a fleet returns over half of each).
const AGAIN: Policy =
    Policy { first: Duration::from_secs(5), most: Duration::from_secs(120), growth_percent: 150 };
/// A server that answers, but not with an SVID, is asked this long; one that can't be reached, for ever.
const ANSWERED_BUDGET: Duration = Duration::from_secs(60);

/// Why the agent can't go on. All of them end the process.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("agent is banned: {0}")]
    Banned(String),
    #[error(
        "the server does not serve this agent any more ({0:?}), and its node can't be attested twice: start it with a new join token"
    )]
    CannotReattest(AgentRefusal),
    #[error("failed to attest: {0}")]
    Attest(String),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(
        "agent-data.json has an SVID but no trust bundle, which no agent writes: move it away to attest anew"
    )]
    NoBundle,
}

/// What joining needs.
pub struct Parts {
    pub trust_domain: TrustDomain,
    pub trust: Bootstrap,
    /// For a helper that hands out the first trust.
    pub server_address: String,
    pub server_port: u16,
    pub attestor: NodeAttestorConfig,
    /// A secret; given, the node is proved by it.
    pub join_token: Option<Zeroizing<String>>,
    pub server: Arc<Server>,
    pub state: Arc<StateFile>,
    pub keys: Arc<OwnKeys>,
    pub vault: Arc<Vault>,
    pub identity: Arc<IdentityCell>,
    pub roots: Arc<RootsCell>,
    pub own: watch::Sender<Option<OwnSvid>>,
    /// Told when the node has proved itself, and wants it anew.
    pub proof: Proof,
    /// Who signs the records.
    pub voucher: watch::Sender<Option<Voucher>>,
    /// As the server told it last.
    pub own_bundle: watch::Receiver<Option<Arc<Bundle>>>,
    pub metrics: Metrics,
    pub clock: fn() -> Now,
    pub availability_target: Option<Duration>,
    pub seed: u64,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// The SVID in use.
#[derive(Clone)]
struct Current {
    key: Arc<PrivateKey>,
    id: SpiffeId,
    not_after: Timestamp,
    renew_at: Timestamp,
    reattestable: bool,
    /// Who signed its chain.
    issuers: Vec<AuthorityId>,
}

/// One failed attempt.
enum Attempt {
    /// No use in trying again.
    Final(JoinError),
    /// The server answered, not with an SVID.
    Answered(String),
    /// It could not be asked.
    Unreachable(String),
}

impl From<JoinError> for Attempt {
    fn from(error: JoinError) -> Self {
        Self::Final(error)
    }
}

impl From<KeysError> for Attempt {
    fn from(error: KeysError) -> Self {
        Self::Final(error.into())
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Final(error) => error.fmt(f),
            Self::Answered(text) | Self::Unreachable(text) => f.write_str(text),
        }
    }
}

/// See the module.
pub struct Join {
    parts: Parts,
    jitter: Jitter,
    again: Backoff,
    /// The SVID of an earlier life, taken up and not in charge yet.
    resumed: Option<Current>,
    /// The authorities in use are the server's own word, of now or of an earlier life.
    met: bool,
    attempts: u32,
    since: Timestamp,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join").field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl Join {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let since = (parts.clock)().wall;
        let (jitter, again) = (Jitter::new(parts.seed), Backoff::new(AGAIN));
        Self { jitter, again, parts, resumed: None, met: false, attempts: 0, since }
    }

    /// Joins and keeps the SVID until something ends the agent, which is what it returns.
    pub async fn run(mut self, shell: Shell, mut refusals: mpsc::Receiver<AgentRefusal>) -> JoinError {
        let mut current = match self.begin(&shell).await {
            Ok(current) => current,
            Err(error) => return error,
        };
        let mut again_at: Option<Tick> = None;
        loop {
            let wait = self.until_due(&current, again_at);
            tokio::select! {
                Ok(()) = self.parts.own_bundle.changed() => self.look_at_issuers(&mut current),
                refusal = refusals.recv() => match refusal {
                    Some(refusal) => {
                        current = match self.refused(refusal, &current, &shell).await {
                            Ok(new) => new,
                            Err(error) => return error,
                        };
                        // Others that came meanwhile were about the SVID of before.
                        while refusals.try_recv().is_ok() {}
                        again_at = None;
                    }
                    None => std::future::pending::<()>().await,
                },
                () = self.parts.proof.wanted() => match self.prove_anew(&current, &shell).await {
                    Ok(new) => current = new.unwrap_or(current),
                    Err(error) => return error,
                },
                () = tokio::time::sleep(wait) => {
                    let now = (self.parts.clock)();
                    if current.renew_at > now.wall || again_at.is_some_and(|at| at > now.mono) {
                        continue;
                    }
                    match self.renew(&current, &shell).await {
                        Ok(new) => (current, again_at) = (new, None),
                        Err(Attempt::Final(error)) => return error,
                        Err(attempt) => {
                            let now = (self.parts.clock)();
                            tracing::error!(error = %attempt, subsystem_name = "rotator", "Failed to rotate agent SVID");
                            self.tell_end(&current, now);
                            again_at = Some(now.mono + self.again.failed(&mut self.jitter));
                        }
                    }
                }
            }
        }
    }

    fn until_due(&self, current: &Current, again_at: Option<Tick>) -> Duration {
        let now = (self.parts.clock)();
        let due = current.renew_at.since(now.wall);
        let again = again_at.map_or(Duration::ZERO, |at| at.since(now.mono));
        due.max(again).min(SLEEP_MAX)
    }

    async fn begin(&mut self, shell: &Shell) -> Result<Current, JoinError> {
        if let Some(current) = self.resumed.take() {
            shell.identity(None).await;
            return Ok(current);
        }
        tracing::info!(subsystem_name = "attestor", "SVID is not found. Starting node attestation");
        self.attest_until_done(None, shell).await
    }

    async fn attest_until_done(
        &mut self,
        current: Option<&Current>,
        shell: &Shell,
    ) -> Result<Current, JoinError> {
        let mut answered_since: Option<Tick> = None;
        loop {
            match self.attest(current, shell).await {
                Ok(current) => return Ok(current),
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Answered(text)) => {
                    let now = (self.parts.clock)().mono;
                    let since = *answered_since.get_or_insert(now);
                    if now.since(since) >= ANSWERED_BUDGET {
                        return Err(JoinError::Attest(text));
                    }
                    self.rest(&text).await;
                }
                Err(Attempt::Unreachable(text)) => {
                    answered_since = None;
                    self.rest(&text).await;
                }
            }
            // A clock that was ahead made a good SVID look ended.
            if current.is_none()
                && self.stored_svid_is_good()
                && let Some((resumed, _)) = self.resume().await?
            {
                shell.identity(None).await;
                return Ok(resumed);
            }
        }
    }

    /// The pause after a failed attestation.
    async fn rest(&mut self, error: &str) {
        let pause = self.again.failed(&mut self.jitter);
        let retry_interval = format!("{:.1}s", pause.as_secs_f64());
        tracing::error!(
            error,
            retry_interval,
            subsystem_name = "attestor",
            "Failed to attest the node; will try again"
        );
        tokio::time::sleep(pause).await;
    }

    /// One attestation.
    async fn attest(&mut self, current: Option<&Current>, shell: &Shell) -> Result<Current, Attempt> {
        let begun = (self.parts.clock)().mono;
        let mut prover = self.prover()?;
        let name = prover.name();
        let insecure = self.first_trust().await?;
        let (key, csr) = self.new_key(current).await?;
        let result = self.parts.server.attest(prover.as_mut(), csr, insecure).await;
        let elapsed = (self.parts.clock)().mono.since(begun);
        self.parts.metrics.node_attested(name, result.is_ok(), elapsed);
        if current.is_some() {
            self.parts.metrics.node_reattested(result.is_ok(), elapsed);
        }
        let attestation = match result.map_err(|error| judge(error, current.is_some())) {
            Ok(attestation) => attestation,
            Err(attempt) => {
                if matches!(attempt, Attempt::Final(JoinError::Banned(_))) {
                    self.erase().await;
                }
                return Err(attempt);
            }
        };
        if attestation.bundle.x509_authorities.is_empty() {
            return Err(Attempt::Answered("the server has no X.509 authority".to_owned()));
        }
        self.check(&key, &attestation.chain).map_err(Attempt::Answered)?;
        if current.is_none() {
            self.erase().await;
        }
        let bundle = attestation.bundle;
        let ders: Vec<_> = bundle.x509_authorities.iter().map(|a| a.der.to_vec()).collect();
        let chain = attestation.chain.clone();
        self.commit(move |data| {
            data.svid = chain;
            data.bundle = ders;
            data.reattestable = attestation.reattestable;
        })
        .await?;
        self.parts.roots.set(&bundle);
        self.met = true;
        let current = self.use_svid(&key, &attestation.chain, attestation.reattestable)?;
        tracing::info!(
            reattestable = current.reattestable,
            spiffe_id = %current.id,
            trust_domain_id = %self.parts.trust_domain.id(),
            subsystem_name = "attestor",
            "Node attestation was successful"
        );
        self.again.succeeded();
        self.parts.proof.given(begun);
        self.parts.metrics.bootstrapped(true);
        shell.identity(Some(bundle)).await;
        Ok(current)
    }

    /// Makes sure that there is something to trust the server by; true if whoever answers is to be believed.
    async fn first_trust(&mut self) -> Result<bool, Attempt> {
        if self.met {
            return Ok(false);
        }
        self.attempts = self.attempts.saturating_add(1);
        self.parts.metrics.bootstrapping(self.attempts, self.since);
        let occasion = Occasion {
            attempt: self.attempts,
            since: self.since,
            server_address: self.parts.server_address.clone(),
            server_port: self.parts.server_port,
        };
        match trust::read(&self.parts.trust, &self.parts.trust_domain, &occasion).await {
            Ok(Some(bundle)) => {
                self.parts.roots.set(&bundle);
                Ok(false)
            }
            Ok(None) => {
                tracing::warn!(
                    subsystem_name = "attestor",
                    "Insecure bootstrap enabled; skipping server certificate verification"
                );
                Ok(true)
            }
            Err(error @ TrustError::Fetch(_)) => Err(Attempt::Unreachable(error.to_string())),
            // Like a server that refuses: most likely a mistake in the configuration.
            Err(error) => Err(Attempt::Answered(error.to_string())),
        }
    }

    async fn new_key(&self, current: Option<&Current>) -> Result<(Arc<PrivateKey>, Vec<u8>), Attempt> {
        let keys = self.parts.keys.clone();
        let in_use = current.map(|c| c.key.public_key().pkix().to_vec()).or_else(|| self.stored_key());
        let begun = (self.parts.clock)().mono;
        let made = tokio::task::spawn_blocking(move || {
            let key = keys.make(in_use.as_deref())?;
            let csr = own_request(&key)?;
            Ok::<_, KeysError>((key, csr))
        })
        .await;
        let made = made.map_err(|e| Attempt::Answered(e.to_string()))?;
        let elapsed = (self.parts.clock)().mono.since(begun);
        self.parts.metrics.key_generated(made.is_ok(), elapsed);
        Ok(made?)
    }

    async fn renew(&mut self, current: &Current, shell: &Shell) -> Result<Current, Attempt> {
        if current.reattestable {
            return self.attest(Some(current), shell).await;
        }
        let begun = (self.parts.clock)().mono;
        let (key, csr) = self.new_key(Some(current)).await?;
        let result = self.parts.server.renew(csr).await;
        let elapsed = (self.parts.clock)().mono.since(begun);
        self.parts.metrics.agent_svid_rotated(result.is_ok(), elapsed);
        let signed = match result {
            Ok(signed) => signed,
            Err(CallError::Refused { refusal: AgentRefusal::MustReattest, .. }) => {
                return self.attest(Some(current), shell).await;
            }
            Err(CallError::Refused { refusal, .. }) => {
                return self.refused(refusal, current, shell).await.map_err(Attempt::Final);
            }
            Err(error) => return Err(Attempt::Unreachable(error.to_string())),
        };
        self.check(&key, &signed.chain).map_err(Attempt::Answered)?;
        let chain = signed.chain.clone();
        self.commit(move |data| data.svid = chain).await?;
        let current = self.use_svid(&key, &signed.chain, false)?;
        tracing::info!(
            spiffe_id = %current.id,
            expires_at = current.not_after.secs(),
            subsystem_name = "rotator",
            "Agent SVID renewed"
        );
        self.again.succeeded();
        shell.identity(None).await;
        Ok(current)
    }

    /// The server does not serve this agent: attest anew if that is possible, else stop.
    async fn refused(
        &mut self,
        refusal: AgentRefusal,
        current: &Current,
        shell: &Shell,
    ) -> Result<Current, JoinError> {
        if refusal == AgentRefusal::Expired && self.disputes(current) {
            self.wait_for_clocks(current).await;
            shell.identity(None).await;
            return Ok(current.clone());
        }
        self.erase().await;
        let error =
            format!("failed to fetch authorized entries: the server refuses this agent ({refusal:?})");
        if refusal == AgentRefusal::Banned {
            tracing::warn!(%error, subsystem_name = "manager", "Agent is banned: removing SVID and shutting down");
            self.forget_svid().await?;
            return Err(JoinError::Banned(current.id.to_string()));
        }
        tracing::warn!(%error, subsystem_name = "manager", "Agent needs to attest again");
        if !current.reattestable {
            self.forget_svid().await?;
            return Err(JoinError::CannotReattest(refusal));
        }
        match Box::pin(self.attest_until_done(Some(current), shell)).await {
            Err(JoinError::Banned(text)) => {
                self.forget_svid().await?;
                Err(JoinError::Banned(text))
            }
            other => other,
        }
    }

    async fn forget_svid(&self) -> Result<(), JoinError> {
        self.parts.identity.clear();
        self.parts.own.send_replace(None);
        self.commit(|data| data.svid.clear()).await
    }

    async fn commit(
        &self,
        change: impl FnOnce(&mut crate::disk::AgentData) + Send + 'static,
    ) -> Result<(), JoinError> {
        let state = self.parts.state.clone();
        match tokio::task::spawn_blocking(move || state.update(change)).await {
            Ok(result) => Ok(result?),
            Err(error) => Err(JoinError::Attest(error.to_string())),
        }
    }

    /// The chain is for this key, and names an agent of this trust domain.
    fn check(&self, key: &PrivateKey, chain: &[Vec<u8>]) -> Result<(), String> {
        let leaf = chain.first().ok_or("the server sent no certificate")?;
        let facts = CertFacts::parse(leaf).map_err(|e| e.to_string())?;
        if facts.public_key_pkix != key.public_key().pkix() {
            return Err("the server signed another key than the one it was sent".to_owned());
        }
        let id = facts.spiffe_id().map_err(|e| e.to_string())?;
        if id.trust_domain() != &self.parts.trust_domain || !id.is_agent() {
            return Err(format!("got an SVID for {id}, expected an agent of {}", self.parts.trust_domain));
        }
        Ok(())
    }

    /// From now on the agent is this.
    fn use_svid(
        &mut self,
        key: &Arc<PrivateKey>,
        chain: &[Vec<u8>],
        reattestable: bool,
    ) -> Result<Current, Attempt> {
        self.check(key, chain).map_err(Attempt::Answered)?;
        let answered = |e: &dyn std::fmt::Display| Attempt::Answered(e.to_string());
        let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
        let facts = CertFacts::parse(leaf).map_err(|e| answered(&e))?;
        let id = facts.spiffe_id().map_err(|e| answered(&e))?;
        let issuers = distrust::issuers(chain);
        let shared: Vec<Arc<[u8]>> = chain.iter().map(|der| der.as_slice().into()).collect();
        let svid = X509Svid {
            id: id.clone(),
            chain: shared.clone().into(),
            key: Arc::new(key.pkcs8()),
            not_before: facts.not_before,
            not_after: facts.not_after,
        };
        let parts = &self.parts;
        parts.identity.set(&svid).map_err(JoinError::from)?;
        parts.vault.bind(Owner::new(id.clone(), &facts));
        parts.server.turn(id.clone()).map_err(JoinError::from)?;
        let voucher = Voucher { id: id.clone(), certificate: leaf.into(), key: key.clone() };
        parts.voucher.send_replace(Some(voucher));
        parts.own.send_replace(Some(OwnSvid { chain: shared, not_after: facts.not_after }));
        let (target, now) = (parts.availability_target, (parts.clock)().wall);
        Ok(Current {
            key: key.clone(),
            id,
            not_after: facts.not_after,
            renew_at: renew_after(facts.not_before, facts.not_after, target, now, &mut self.jitter),
            reattestable,
            issuers,
        })
    }
}

/// Which failures of an attestation are worth another try.
fn judge(error: AttestError, had_svid: bool) -> Attempt {
    match error {
        AttestError::Tls(error) => Attempt::Final(error.into()),
        AttestError::Prove(error) => Attempt::Answered(error.to_string()),
        AttestError::Call(CallError::Refused { refusal: AgentRefusal::Banned, message }) => {
            Attempt::Final(JoinError::Banned(message))
        }
        AttestError::Call(CallError::Failed { code: Code::PermissionDenied, message }) => {
            Attempt::Final(JoinError::Attest(message))
        }
        AttestError::Call(error @ CallError::Failed { .. }) if !had_svid => {
            Attempt::Answered(error.to_string())
        }
        AttestError::Call(error) => Attempt::Unreachable(error.to_string()),
    }
}

/// Keeps each own bundle the server sends: for the next handshake, and for the next life.
pub async fn keep_bundle(
    mut bundles: watch::Receiver<Option<Arc<Bundle>>>,
    roots: Arc<RootsCell>,
    state: Arc<StateFile>,
) {
    while bundles.changed().await.is_ok() {
        let Some(bundle) = bundles.borrow_and_update().clone() else { continue };
        if bundle.x509_authorities.is_empty() {
            tracing::warn!(subsystem_name = "manager", "The server's bundle is empty; keeping the last one");
            continue;
        }
        roots.set(&bundle);
        let state = state.clone();
        let ders: Vec<_> = bundle.x509_authorities.iter().map(|a| a.der.to_vec()).collect();
        let kept = tokio::task::spawn_blocking(move || state.update(|data| data.bundle = ders)).await;
        if let Ok(Err(error)) = kept {
            tracing::error!(%error, subsystem_name = "manager", "Failed to store the bundle");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: Code) -> AttestError {
        AttestError::Call(CallError::Failed { code, message: "m".into() })
    }

    #[test]
    fn a_denied_attestation_is_final_and_an_unreachable_server_never_is() {
        assert!(matches!(judge(failed(Code::PermissionDenied), false), Attempt::Final(_)));
        let away = AttestError::Call(CallError::Unreachable("x".into()));
        assert!(matches!(judge(away, false), Attempt::Unreachable(_)));
    }

    #[test]
    fn an_agent_that_has_an_svid_outlasts_a_confused_server() {
        assert!(matches!(judge(failed(Code::Internal), true), Attempt::Unreachable(_)));
        assert!(matches!(judge(failed(Code::InvalidArgument), false), Attempt::Answered(_)));
    }
}
