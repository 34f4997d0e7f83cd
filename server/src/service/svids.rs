//! Verbs that issue SVIDs for workloads.
//!
//! Never issues for an agent what it is not entitled to, and takes nothing from a request but its public key,
//! except where an admin mints.

use std::sync::Arc;
use std::time::Duration;

use avouch_credential::x509::csr::{Csr, CsrError};
use avouch_credential::x509::name::Name;
use avouch_domain::limits::SELF_ACTING_SVID_MAX;
use avouch_domain::{Entry, EntryId, Now, SpiffeId, Standing, Timestamp, Ttl};
use avouch_engine::Registry;
use avouch_engine::entitle;

use super::{IssuedJwt, IssuedX509, Services};
use crate::ca::{Ca, Leaf};

/// One certificate that an agent asks for.
#[derive(Clone, Debug)]
pub struct X509Param {
    pub entry_id: String,
    /// DER.
    pub csr: Vec<u8>,
}

/// Why one certificate of a batch was not issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum X509ItemError {
    #[error("missing entry ID")]
    MissingEntryId,
    #[error("missing CSR")]
    MissingCsr,
    #[error("entry not found or not authorized")]
    NotAuthorized,
    #[error("malformed CSR: {0}")]
    MalformedCsr(String),
    #[error("invalid CSR signature: {0}")]
    CsrSignature(String),
    #[error("failed to sign X509-SVID: {0}")]
    Sign(String),
}

/// Why a certificate was not minted. The texts of the request's faults are the credential's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintX509Error {
    #[error(transparent)]
    Csr(#[from] CsrError),
    #[error("CSR URI SAN is invalid: {0}")]
    Id(String),
    #[error("{0}")]
    NotInForce(NotInForce),
    #[error("failed to sign X509-SVID: {0}")]
    Sign(String),
}

/// Why a token was not issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    #[error("JWT functionality is disabled")]
    Disabled,
    #[error("entry not found or not authorized")]
    NotAuthorized,
    #[error("at least one audience is required")]
    NoAudience,
    #[error("audience must not be empty")]
    EmptyAudience,
    #[error("{0}")]
    NotInForce(NotInForce),
    #[error("failed to sign JWT-SVID: {0}")]
    Sign(String),
}

/// The identity of this name may have no SVID now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("identity {name} is {}", if self.standing == Standing::Active { "at its end" } else { self.standing.name() })]
pub struct NotInForce {
    pub name: SpiffeId,
    pub standing: Standing,
}

pub(super) fn in_force(registry: &Registry, wall: Timestamp, name: &SpiffeId) -> Result<(), NotInForce> {
    match registry.identity(name).filter(|_| registry.is_name_withheld(name, wall)) {
        Some(identity) => Err(NotInForce { name: name.clone(), standing: identity.standing }),
        None => Ok(()),
    }
}

/// The lifetime that the name's identity allows: never past its end, and short for one that acts by itself.
fn governed(registry: &Registry, wall: Timestamp, name: &SpiffeId, ttl: Duration) -> Duration {
    let Some(identity) = registry.identity(name) else { return ttl };
    let left = ttl.min(identity.end.since(wall));
    if identity.kind.acts_by_itself() { left.min(SELF_ACTING_SVID_MAX) } else { left }
}

fn check_audience(audience: &[String]) -> Result<(), JwtError> {
    if audience.is_empty() {
        return Err(JwtError::NoAudience);
    }
    if audience.iter().all(String::is_empty) {
        return Err(JwtError::EmptyAudience);
    }
    Ok(())
}

impl Services {
    /// Issues a batch of certificates for entries that the agent may serve, all from one registry.
    pub async fn batch_new_x509_svid(
        &self,
        now: Now,
        agent: &SpiffeId,
        params: Vec<X509Param>,
    ) -> Vec<Result<IssuedX509, X509ItemError>> {
        let count = params.len();
        let (services, agent) = (self.clone(), agent.clone());
        let registry = self.registry();
        let each = move |ca: &Ca, param: &X509Param| services.issue_one(ca, &registry, now, &agent, param);
        match self.ca().batch(params, each).await {
            Ok(issued) => issued,
            Err(e) => (0..count).map(|_| Err(X509ItemError::Sign(e.clone()))).collect(),
        }
    }

    fn issue_one(
        &self,
        ca: &Ca,
        registry: &Arc<Registry>,
        now: Now,
        agent: &SpiffeId,
        param: &X509Param,
    ) -> Result<IssuedX509, X509ItemError> {
        if param.entry_id.is_empty() {
            return Err(X509ItemError::MissingEntryId);
        }
        if param.csr.is_empty() {
            return Err(X509ItemError::MissingCsr);
        }
        let entry = EntryId::new(&param.entry_id)
            .ok()
            .and_then(|id| entitle::is_authorized(registry, agent, &id, now.wall))
            .ok_or(X509ItemError::NotAuthorized)?;
        let csr = Csr::parse(&param.csr).map_err(|e| X509ItemError::MalformedCsr(e.reason()))?;
        csr.verify().map_err(|e| X509ItemError::CsrSignature(e.reason()))?;
        ca.sign_leaf(now.wall, &self.leaf_of(registry, now, &entry, &csr)).map_err(X509ItemError::Sign)
    }

    fn leaf_of(&self, registry: &Registry, now: Now, entry: &Entry, csr: &Csr) -> Leaf {
        Leaf {
            id: entry.spiffe_id.clone(),
            public_key: csr.public_key().clone(),
            dns_names: entry.dns_names.clone(),
            subject: Name::svid_default(),
            ttl: governed(
                registry,
                now.wall,
                &entry.spiffe_id,
                entry.x509_svid_ttl.or(self.settings().x509_svid_ttl),
            ),
        }
    }

    /// Issues a token for an entry that the agent may serve.
    ///
    /// # Errors
    /// [`JwtError`].
    pub async fn new_jwt_svid(
        &self,
        now: Now,
        agent: &SpiffeId,
        entry_id: &str,
        audience: Vec<String>,
    ) -> Result<IssuedJwt, JwtError> {
        if self.settings().jwt_disabled {
            return Err(JwtError::Disabled);
        }
        let registry = self.registry();
        let entry = EntryId::new(entry_id)
            .ok()
            .and_then(|id| entitle::is_authorized(&registry, agent, &id, now.wall))
            .ok_or(JwtError::NotAuthorized)?;
        check_audience(&audience)?;
        let ttl = entry.jwt_svid_ttl.or(self.settings().jwt_svid_ttl);
        let ttl = governed(&registry, now.wall, &entry.spiffe_id, ttl);
        self.ca()
            .sign_jwt(now.wall, &entry.spiffe_id, audience, ttl, entry.jwt_svid_include_jti)
            .await
            .map_err(JwtError::Sign)
    }

    /// Mints a certificate for whatever an admin's request says, within the trust domain.
    ///
    /// # Errors
    /// [`MintX509Error`].
    pub async fn mint_x509_svid(&self, now: Now, csr: &[u8], ttl: Ttl) -> Result<IssuedX509, MintX509Error> {
        let csr = Csr::parse(csr)?;
        csr.verify()?;
        let names = csr.names()?;
        self.check_workload(&names.id).map_err(MintX509Error::Id)?;
        let registry = self.registry();
        in_force(&registry, now.wall, &names.id).map_err(MintX509Error::NotInForce)?;
        let ttl = governed(&registry, now.wall, &names.id, ttl.or(self.settings().x509_svid_ttl));
        let subject = if csr.subject().is_empty() { Name::svid_default() } else { csr.subject().clone() };
        let leaf = Leaf {
            id: names.id,
            public_key: csr.public_key().clone(),
            dns_names: names.dns_names,
            subject,
            ttl,
        };
        self.ca().sign(now.wall, leaf).await.map_err(MintX509Error::Sign)
    }

    /// Mints a token for any workload of the trust domain.
    ///
    /// # Errors
    /// [`JwtError`].
    pub async fn mint_jwt_svid(
        &self,
        now: Now,
        id: &SpiffeId,
        audience: Vec<String>,
        ttl: Ttl,
    ) -> Result<IssuedJwt, JwtError> {
        if self.settings().jwt_disabled {
            return Err(JwtError::Disabled);
        }
        check_audience(&audience)?;
        let registry = self.registry();
        in_force(&registry, now.wall, id).map_err(JwtError::NotInForce)?;
        let ttl = governed(&registry, now.wall, id, ttl.or(self.settings().jwt_svid_ttl));
        self.ca().sign_jwt(now.wall, id, audience, ttl, false).await.map_err(JwtError::Sign)
    }

    /// SPIRE's words for an ID that no workload of this trust domain may have.
    pub(super) fn check_workload(&self, id: &SpiffeId) -> Result<(), String> {
        let domain = self.trust_domain();
        let why = if id.trust_domain() != domain {
            return Err(format!("\"{id}\" is not a member of trust domain \"{domain}\""));
        } else if id.path().is_empty() {
            "path is empty"
        } else if id.is_reserved() {
            "path is in the reserved namespace"
        } else {
            return Ok(());
        };
        Err(format!("\"{id}\" is not a workload in trust domain \"{domain}\"; {why}"))
    }
}
