//! The one table from refusal to gRPC code and text for the workload socket. Texts that SPIRE has are SPIRE's:
//! clients and operators look for them.
//!
//! Never says to a caller why attestation failed or what others may have.

use avouch_credential::jwt::verify::JwtError;
use avouch_domain::IdError;
use tonic::{Code, Status};

use crate::limits::{AUDIENCES_MAX, REQUEST_TIME_MAX};

/// Why a call of the Workload API ends without an answer.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// WE-06
    #[error("security header missing from request")]
    HeaderMissing,
    /// WE-17
    #[error("the agent is not in sync with its server yet")]
    NotSynced,
    #[error("workload attestation failed")]
    AttestationFailed,
    #[error("workload attestation failed: the calling process changed since it connected")]
    ProcessChanged,
    #[error("rate limit exceeded for {0}")]
    OverShare(&'static str),
    /// WE-18; the words are what rust clients look for.
    #[error("no identity issued")]
    NoIdentity,
    /// WA-16
    #[error("audience must be specified")]
    AudienceMissing,
    #[error(
        "{0} audiences are too many: a token holds at most {AUDIENCES_MAX}, ask for the service it is for"
    )]
    AudiencesTooMany(usize),
    /// WA-16
    #[error("svid must be specified")]
    SvidMissing,
    #[error("invalid requested SPIFFE ID: {0}")]
    SpiffeId(IdError),
    #[error("could not fetch JWT-SVID: {0}")]
    Mint(String),
    #[error("could not serialize response: {0}")]
    Answer(String),
    /// WA-42
    #[error(transparent)]
    Token(JwtError),
    /// CL-01
    #[error("the agent is stopping")]
    Stopping,
    /// WA-44
    #[error("fetching WIT-SVIDs is not implemented")]
    WitSvid,
    /// WA-44
    #[error("fetching WIT bundles is not implemented")]
    WitBundles,
    #[error("the request did not come to its end within {REQUEST_TIME_MAX:?}")]
    RequestUnfinished,
    /// WE-20
    #[error("method {0} not implemented")]
    UnknownMethod(String),
    #[error("per-service health is not supported")]
    HealthOfService,
}

impl Refusal {
    /// The code of the standard, or of SPIRE where the standard is silent.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::HeaderMissing
            | Self::AudienceMissing
            | Self::AudiencesTooMany(_)
            | Self::SvidMissing
            | Self::SpiffeId(_)
            | Self::Token(_)
            | Self::HealthOfService => Code::InvalidArgument,
            Self::NotSynced
            | Self::AttestationFailed
            | Self::ProcessChanged
            | Self::OverShare(_)
            | Self::Mint(_)
            | Self::Answer(_)
            | Self::Stopping => Code::Unavailable,
            Self::NoIdentity => Code::PermissionDenied,
            Self::RequestUnfinished => Code::DeadlineExceeded,
            Self::WitSvid | Self::WitBundles | Self::UnknownMethod(_) => Code::Unimplemented,
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), refusal.to_string())
    }
}
