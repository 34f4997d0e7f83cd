//! What signs at the moment: X509-SVIDs, JWT-SVIDs and the server's own identity.
//!
//! Never signs with an authority that is not active in the store, and never on the reactor for longer than a
//! moment: batches and slow keys go to lanes, as many as there are cores.

mod lanes;
mod roots;
mod rotor;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use avouch_credential::jwt::issue::{JwtIssuer, JwtTemplate};
use avouch_credential::jwt::task::{self, TaskClaims, TaskTemplate, TaskToken};
use avouch_credential::key::PublicKey;
use avouch_credential::random;
use avouch_credential::tls::{IdentityCell, RootsCell};
use avouch_credential::x509::issue::{Issuer, LeafTemplate};
use avouch_credential::x509::name::Name;
use avouch_domain::{AuthorityKind, KeyType, SpiffeId, Timestamp, TrustDomain, X509Svid};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::limits::SIGN_INLINE_MAX;
use crate::settings::Settings;

use lanes::Lanes;
pub use rotor::{Order, OrderError};
pub(crate) use rotor::{OrderQueue, Rotor, RotorParts, order_queue};

/// An issued X509-SVID, without a private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedX509 {
    pub id: SpiffeId,
    /// DER, leaf first; the root is never in it.
    pub chain: Vec<Arc<[u8]>>,
    pub expires_at: Timestamp,
    /// Decimal.
    pub serial: Arc<str>,
}

/// An issued JWT-SVID. The token is a bearer secret.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedJwt {
    pub id: SpiffeId,
    pub token: Zeroizing<String>,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

impl fmt::Debug for IssuedJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedJwt")
            .field("id", &self.id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What may be in trouble, each for itself: one that works says nothing of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Authority(AuthorityKind),
    ServerSvid,
}

/// What a certificate is asked to say.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub id: SpiffeId,
    pub public_key: PublicKey,
    pub dns_names: Vec<String>,
    pub subject: Name,
    pub ttl: Duration,
}

/// What Debug, gauges and health tell about the authorities. Empty texts and zero times: there is none.
#[derive(Clone, Debug)]
pub struct CaFacts {
    pub x509_authority_id: Arc<str>,
    pub x509_not_after: Timestamp,
    /// The CA certificate, DER.
    pub x509_root: Arc<[u8]>,
    pub jwt_key_id: Arc<str>,
    pub jwt_not_after: Timestamp,
    /// DER, leaf first.
    pub server_svid_chain: Vec<Arc<[u8]>>,
    pub server_svid_not_after: Timestamp,
}

struct Inner {
    trust_domain: TrustDomain,
    settings: Arc<Settings>,
    x509: ArcSwapOption<Issuer>,
    jwt: ArcSwapOption<JwtIssuer>,
    identity: Arc<IdentityCell>,
    roots: Arc<RootsCell>,
    server_svid: ArcSwapOption<X509Svid>,
    /// Why the last step of a part did not work out; a part that works is not here.
    troubles: Mutex<BTreeMap<Part, String>>,
    lanes: Lanes,
}

/// Handle to the signers. Cheap to clone.
#[derive(Clone)]
pub struct Ca(Arc<Inner>);

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").field("trust_domain", &self.0.trust_domain).finish_non_exhaustive()
    }
}

impl Ca {
    pub(crate) fn new(trust_domain: TrustDomain, settings: Arc<Settings>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Arc::new(Inner {
            trust_domain,
            settings,
            x509: ArcSwapOption::empty(),
            jwt: ArcSwapOption::empty(),
            identity: Arc::new(IdentityCell::empty()),
            roots: Arc::new(RootsCell::empty()),
            server_svid: ArcSwapOption::empty(),
            troubles: Mutex::new(BTreeMap::new()),
            lanes: Lanes::new(cores),
        }))
    }

    /// The server's own X509-SVID for TLS; replaced in place.
    #[must_use]
    pub fn identity(&self) -> Arc<IdentityCell> {
        self.0.identity.clone()
    }

    /// The roots of every trust domain with a bundle; replaced in place.
    #[must_use]
    pub fn roots(&self) -> Arc<RootsCell> {
        self.0.roots.clone()
    }

    /// Whether certificates can be signed and the last rotation step worked out.
    ///
    /// # Errors
    /// The reason in words.
    pub fn health(&self, wall: Timestamp) -> Result<(), String> {
        if let Some(trouble) = self.trouble() {
            return Err(trouble);
        }
        match self.0.x509.load().as_ref() {
            None => Err("no X.509 authority is active".into()),
            Some(issuer) if issuer.not_after() <= wall => Err("the active X.509 authority has ended".into()),
            Some(_) => Ok(()),
        }
    }

    /// What does not work at the moment, the first of it.
    fn trouble(&self) -> Option<String> {
        self.0.troubles.lock().values().next().cloned()
    }

    /// Why the last step of an authority did not work out.
    fn trouble_of(&self, kind: AuthorityKind) -> Option<String> {
        self.0.troubles.lock().get(&Part::Authority(kind)).cloned()
    }

    /// Notes how the last step of a part went.
    fn note(&self, part: Part, outcome: Result<(), String>) {
        let mut troubles = self.0.troubles.lock();
        match outcome {
            Ok(()) => troubles.remove(&part),
            Err(why) => troubles.insert(part, why),
        };
    }

    #[must_use]
    pub fn facts(&self) -> CaFacts {
        let x509 = self.0.x509.load_full();
        let jwt = self.0.jwt.load_full();
        let svid = self.0.server_svid.load_full();
        CaFacts {
            x509_authority_id: x509.as_ref().map_or("", |i| i.authority_id()).into(),
            x509_not_after: x509.as_ref().map_or(Timestamp(0), |i| i.not_after()),
            x509_root: x509.as_ref().map_or_else(|| Vec::new().into(), |i| i.ca_der().clone()),
            jwt_key_id: jwt.as_ref().map_or_else(|| "".into(), |i| i.key_id().clone()),
            jwt_not_after: jwt.as_ref().map_or(Timestamp(0), |i| i.not_after()),
            server_svid_chain: svid.as_ref().map_or_else(Vec::new, |s| s.chain.to_vec()),
            server_svid_not_after: svid.as_ref().map_or(Timestamp(0), |s| s.not_after),
        }
    }

    /// Runs signing work that makes one thing: here if the key of this type is quick, else on a lane.
    async fn work<T: Send + 'static>(
        &self,
        key_type: KeyType,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, String> {
        if matches!(key_type, KeyType::EcP256 | KeyType::EcP384) {
            return Ok(work(self));
        }
        let ca = self.clone();
        self.0.lanes.run(move || work(&ca)).await
    }

    /// Runs signing work for each of `items`: here if they are few and the key is quick, else on a lane.
    pub(crate) async fn batch<I: Send + 'static, T: Send + 'static>(
        &self,
        items: Vec<I>,
        each: impl Fn(&Self, &I) -> T + Send + 'static,
    ) -> Result<Vec<T>, String> {
        if items.len() <= SIGN_INLINE_MAX {
            let all = move |ca: &Self| items.iter().map(|item| each(ca, item)).collect();
            return self.work(self.0.settings.ca_key_type, all).await;
        }
        let ca = self.clone();
        self.0.lanes.run_batch(items, move |item| each(&ca, item)).await
    }

    /// Signs one certificate with the authority of the moment.
    pub(crate) async fn sign(&self, now: Timestamp, leaf: Leaf) -> Result<IssuedX509, String> {
        self.work(self.0.settings.ca_key_type, move |ca| ca.sign_leaf(now, &leaf)).await?
    }

    /// As [`Ca::sign`]. CPU work: call it inside [`Ca::batch`].
    pub(crate) fn sign_leaf(&self, now: Timestamp, leaf: &Leaf) -> Result<IssuedX509, String> {
        let issuer = self.0.x509.load_full().ok_or("no X.509 authority is active")?;
        let certificate = issuer
            .leaf(&LeafTemplate {
                id: &leaf.id,
                public_key: &leaf.public_key,
                dns_names: &leaf.dns_names,
                subject: &leaf.subject,
                serial: random::serial().map_err(|e| e.to_string())?,
                now,
                ttl: leaf.ttl,
            })
            .map_err(|e| e.to_string())?;
        Ok(IssuedX509 {
            id: leaf.id.clone(),
            expires_at: certificate.not_after,
            serial: certificate.serial_decimal().into(),
            chain: vec![certificate.der.into()],
        })
    }

    /// Signs a token with the authority of the moment.
    pub(crate) async fn sign_jwt(
        &self,
        now: Timestamp,
        id: &SpiffeId,
        audience: Vec<String>,
        ttl: Duration,
        with_jti: bool,
    ) -> Result<IssuedJwt, String> {
        let id = id.clone();
        let sign = move |ca: &Self| {
            let issuer = ca.0.jwt.load_full().ok_or("no JWT authority is active")?;
            let jti = if with_jti { Some(random::jti().map_err(|e| e.to_string())?) } else { None };
            let iss = Some(ca.0.settings.jwt_issuer.as_str()).filter(|i| !i.is_empty());
            let svid = issuer
                .sign(&JwtTemplate {
                    id: &id,
                    audience: &audience,
                    issuer: iss,
                    jti: jti.as_deref(),
                    now,
                    ttl,
                })
                .map_err(|e| e.to_string())?;
            Ok(IssuedJwt {
                id: svid.id,
                token: (*svid.token).clone(),
                issued_at: svid.issued_at,
                expires_at: svid.expires_at,
            })
        };
        self.work(self.0.settings.jwt_key_type, sign).await?
    }

    /// Signs a task token with the authority of the moment. `end`: nothing of the identity lives longer.
    pub(crate) async fn sign_task(
        &self,
        now: Timestamp,
        claims: TaskClaims,
        resource: String,
        end: Timestamp,
    ) -> Result<TaskToken, String> {
        let sign = move |ca: &Self| {
            let issuer = ca.0.jwt.load_full().ok_or("no JWT authority is active")?;
            let jti = random::jti().map_err(|e| e.to_string())?;
            let iss = Some(ca.0.settings.jwt_issuer.as_str()).filter(|i| !i.is_empty());
            let template =
                TaskTemplate { claims: &claims, resource: &resource, issuer: iss, jti: &jti, now, end };
            task::sign(&issuer, &template).map_err(|e| e.to_string())
        };
        self.work(self.0.settings.jwt_key_type, sign).await?
    }
}
