//! Why nobody was signed in.
//!
//! Never holds a code, a token or a secret.

use avouch_credential::random::RandomError;

use crate::limits::REFUSAL_MAX;

/// What failed. The texts are for people: a page shows them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignInFailed {
    #[error("the provider can't be reached: {0}")]
    Unreachable(String),
    #[error("the provider answered with status {0}, expected 200")]
    Status(u16),
    #[error("the provider's answer is not what OpenID Connect says: {0}")]
    Answer(String),
    #[error("the provider's configuration can't be used: {0}")]
    Document(String),
    #[error("the provider refused the code: {0}")]
    Refused(String),
    #[error("the answer is of another provider: {0}")]
    OtherIssuer(&'static str),
    #[error("the ID token does not hold: {0}")]
    Token(#[from] TokenError),
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// True for a word by which a provider says why not (RFC 6749 5.2): one of a few, and what is none is not repeated to anybody.
#[must_use]
pub fn is_refusal(word: &str) -> bool {
    word.len() <= REFUSAL_MAX && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// Which rule an ID token breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("it is no signed JSON Web Token: {0}")]
    Form(&'static str),
    #[error("its algorithm is none of RS256, PS256, ES256 and EdDSA")]
    Algorithm,
    #[error("it does not say which key signed it (kid)")]
    NoKeyId,
    #[error("the provider has no key with its key ID and of its algorithm")]
    UnknownKey,
    #[error("its signature does not match")]
    Signature,
    #[error("claim {0} is missing or of another type than it should have")]
    Claim(&'static str),
    #[error("it is of another issuer (iss)")]
    Issuer,
    #[error("it is for somebody else (aud)")]
    Audience,
    #[error("it was given to somebody else (azp)")]
    Party,
    #[error("it has expired (exp): is the clock of this server right?")]
    Expired,
    #[error("it is from the future ({0}): is the clock of this server right?")]
    Future(&'static str),
    #[error("it answers another question (nonce)")]
    Nonce,
    #[error("it names no account that can be kept (sub): {0}")]
    Subject(String),
    #[error("the sign-in that it speaks of is older than the one that was asked for (auth_time)")]
    Old,
}
