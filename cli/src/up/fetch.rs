//! The calls of the demonstration: admit an agent, register the caller, watch and verify its SVIDs.
//!
//! Talks to both daemons only over their public APIs, as any client would.

use std::path::Path;
use std::time::Duration;

use avouch_credential::jwt::verify::{JwtKeys, verify as verify_jwt};
use avouch_credential::x509::{facts::CertFacts, pem, verify::TrustRoots, verify::verify_svid};
use avouch_credential::{bundle_doc, x509};
use avouch_domain::{SpiffeId, Timestamp, TrustDomain};
use avouch_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use avouch_proto::{agent_v1, bundle_v1, entry_v1, types, workload};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};
use zeroize::Zeroizing;

use super::UpError;
use crate::clock;
use crate::verbs::channel::workload_request;

/// Between two tries to reach a daemon that is still starting.
const RETRY_EVERY: Duration = Duration::from_millis(20);
/// Join tokens of the demonstration live this long, in seconds.
const TOKEN_TTL: i32 = 60;
/// Audience of the demonstration's JWT-SVID.
const AUDIENCE: &str = "demo";

/// What the server gave for the agent to start with.
#[derive(Debug)]
pub struct Registration {
    pub token: Zeroizing<String>,
    pub bundle_pem: String,
    pub agent_id: SpiffeId,
}

/// One identity as the Workload API shows it; the private key is not kept.
#[derive(Debug)]
pub struct SeenIdentity {
    pub id: SpiffeId,
    pub chain: Vec<Vec<u8>>,
    pub bundle: Vec<Vec<u8>>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// One answer of the watch.
#[derive(Debug)]
pub struct Seen {
    pub identities: Vec<SeenIdentity>,
}

/// Waits until the server's socket answers.
pub async fn server_ready(socket: &Path) -> Result<(), UpError> {
    loop {
        if let Ok(channel) = channel(socket).await {
            let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
            let asked = tonic_health::pb::HealthCheckRequest { service: String::new() };
            if client.check(asked).await.is_ok_and(|a| a.into_inner().status == 1) {
                return Ok(());
            }
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

/// Makes a join token and reads the bundle that the agent trusts the server by.
pub async fn admit_agent(socket: &Path, domain: &TrustDomain) -> Result<Registration, UpError> {
    let channel = channel(socket).await?;
    let request = agent_v1::CreateJoinTokenRequest { ttl: TOKEN_TTL, ..Default::default() };
    let token = agent_v1::agent_client::AgentClient::new(channel.clone())
        .create_join_token(request)
        .await
        .map_err(|e| refused("a join token", &e))?
        .into_inner();
    let bundle = bundle_v1::bundle_client::BundleClient::new(channel)
        .get_bundle(bundle_v1::GetBundleRequest::default())
        .await
        .map_err(|e| refused("the bundle", &e))?
        .into_inner();
    let token = Zeroizing::new(token.value);
    let agent_id = SpiffeId::agent(domain, "join_token", &token)
        .map_err(|e| UpError::Refused { step: "a join token", why: e.to_string() })?;
    let bundle_pem = pem::certificates_to_pem(bundle.x509_authorities.iter().map(|a| a.asn1.as_slice()));
    Ok(Registration { token, bundle_pem, agent_id })
}

/// Registers the processes of the calling user below the agent.
pub async fn register_caller(socket: &Path, agent: &SpiffeId, path: &str) -> Result<(), UpError> {
    let id = |path: &str| {
        Some(types::Spiffeid { trust_domain: agent.trust_domain().to_string(), path: path.into() })
    };
    let entry = types::Entry {
        spiffe_id: id(path),
        parent_id: id(agent.path()),
        selectors: vec![types::Selector {
            r#type: "unix".into(),
            value: format!("uid:{}", nix::unistd::getuid()),
        }],
        ..Default::default()
    };
    let answer = entry_v1::entry_client::EntryClient::new(channel(socket).await?)
        .batch_create_entry(entry_v1::BatchCreateEntryRequest { entries: vec![entry], output_mask: None })
        .await
        .map_err(|e| refused("your entry", &e))?
        .into_inner();
    match answer.results.first().and_then(|r| r.status.as_ref()) {
        Some(status) if status.code == 0 => Ok(()),
        Some(status) => Err(UpError::Refused { step: "your entry", why: status.message.clone() }),
        None => Err(UpError::Refused { step: "your entry", why: "the answer is empty".into() }),
    }
}

/// The open X.509 stream of the caller.
#[derive(Debug)]
pub struct Watch(Streaming<workload::X509svidResponse>);

impl Watch {
    /// Opens the stream, waiting while the agent starts.
    pub async fn open(socket: &Path) -> Result<Self, UpError> {
        loop {
            if let Ok(channel) = channel(socket).await {
                let asked = workload_request(workload::X509svidRequest::default());
                match SpiffeWorkloadApiClient::new(channel).fetch_x509svid(asked).await {
                    Ok(stream) => return Ok(Self(stream.into_inner())),
                    Err(status) if status.code() == Code::Unavailable => {}
                    Err(status) => return Err(refused("your first SVID", &status)),
                }
            }
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }

    /// The next answer on the stream.
    pub async fn next(&mut self) -> Result<Seen, UpError> {
        match self.0.message().await {
            Ok(Some(answer)) => seen(answer),
            Ok(None) => Err(UpError::Refused { step: "the watch", why: "the agent ended the stream".into() }),
            Err(status) => Err(refused("the watch", &status)),
        }
    }
}

fn not_verified(e: &dyn std::fmt::Display) -> UpError {
    UpError::NotVerified(e.to_string())
}

/// Verifies each X.509-SVID against the bundle that came with it.
pub fn verify_x509(seen: &Seen) -> Result<(), UpError> {
    let now = clock::now().wall;
    for identity in &seen.identities {
        let authorities: Result<Vec<_>, _> =
            identity.bundle.iter().map(|der| x509::facts::check_authority(der)).collect();
        let roots = TrustRoots::new(&authorities.map_err(|e| not_verified(&e))?);
        let id = verify_svid(&identity.chain, &roots, identity.id.trust_domain(), now)
            .map_err(|e| not_verified(&e))?;
        if id != identity.id {
            return Err(UpError::NotVerified(format!(
                "the certificate names {id}, the answer names {}",
                identity.id
            )));
        }
    }
    Ok(())
}

/// Verifies the X.509-SVIDs, then fetches and verifies a JWT-SVID; says what was checked.
pub async fn verify(socket: &Path, seen: &Seen) -> Result<String, UpError> {
    verify_x509(seen)?;
    let mut client = SpiffeWorkloadApiClient::new(channel(socket).await?);
    let asked = workload_request(workload::JwtsvidRequest {
        audience: vec![AUDIENCE.into()],
        spiffe_id: String::new(),
    });
    let jwt = client.fetch_jwtsvid(asked).await.map_err(|e| refused("a JWT-SVID", &e))?.into_inner();
    let svid = jwt.svids.into_iter().next().ok_or_else(|| UpError::NotVerified("no JWT-SVID came".into()))?;
    let mut stream = client
        .fetch_jwt_bundles(workload_request(workload::JwtBundlesRequest::default()))
        .await
        .map_err(|e| refused("the JWT bundles", &e))?
        .into_inner();
    let answer = stream.message().await.map_err(|e| refused("the JWT bundles", &e))?.unwrap_or_default();
    let mut bundles = Vec::new();
    for (name, document) in &answer.bundles {
        let domain = TrustDomain::from_name_or_id(name).map_err(|e| not_verified(&e))?;
        bundles.push(bundle_doc::parse_workload_jwks(&domain, document).map_err(|e| not_verified(&e))?);
    }
    let checked = verify_jwt(&svid.svid, &JwtKeys::new(&bundles), &[AUDIENCE.to_owned()], clock::now().wall)
        .map_err(|e| not_verified(&e))?;
    Ok(format!("X.509-SVID against the bundle, JWT-SVID for \"{AUDIENCE}\" of {}", checked.id))
}

fn seen(answer: workload::X509svidResponse) -> Result<Seen, UpError> {
    let bad = |e: &dyn std::fmt::Display| UpError::NotVerified(e.to_string());
    let mut identities = Vec::new();
    for svid in answer.svids {
        let chain = x509::split(&svid.x509_svid).map_err(|e| bad(&e))?;
        let leaf =
            chain.first().ok_or_else(|| UpError::NotVerified("an SVID without a certificate".into()))?;
        let facts = CertFacts::parse(leaf).map_err(|e| bad(&e))?;
        identities.push(SeenIdentity {
            id: SpiffeId::parse(&svid.spiffe_id).map_err(|e| bad(&e))?,
            bundle: x509::split(&svid.bundle).map_err(|e| bad(&e))?,
            not_before: facts.not_before,
            not_after: facts.not_after,
            chain,
        });
    }
    Ok(Seen { identities })
}

async fn channel(socket: &Path) -> Result<Channel, UpError> {
    let step = "connecting";
    Endpoint::from_shared(format!("unix://{}", socket.display()))
        .map_err(|e| UpError::Refused { step, why: e.to_string() })?
        .connect()
        .await
        .map_err(|e| UpError::Refused { step, why: e.to_string() })
}

fn refused(step: &'static str, status: &tonic::Status) -> UpError {
    UpError::Refused { step, why: format!("{:?}: {}", status.code(), status.message()) }
}
