//! The name of a trust domain (SPIFFE-ID 2.1).
//!
//! Never folds case, decodes or looks a name up: a bad form is refused, not repaired (ID-20, ID-21).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::TRUST_DOMAIN_MAX;
use crate::spiffe_id::{IdError, SpiffeId};

/// Name of a trust domain: 1 to 255 bytes of `[a-z0-9.-_]` (ID-02, ID-07, ID-08, ID-18).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Reads a bare name, such as `example.org`.
    ///
    /// # Errors
    /// [`IdError`] names the rule that the text breaks.
    pub fn new(name: &str) -> Result<Self, IdError> {
        if name.is_empty() {
            return Err(IdError::MissingTrustDomain);
        }
        if name.len() > TRUST_DOMAIN_MAX {
            return Err(IdError::TrustDomainTooLong(name.len()));
        }
        if !name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')) {
            return Err(IdError::TrustDomainCharacter);
        }
        Ok(Self(name.into()))
    }

    /// Reads a name or a SPIFFE ID of the domain (`example.org`, `spiffe://example.org`,
    /// `spiffe://example.org/a`), as configuration keys and API fields allow.
    ///
    /// # Errors
    /// [`IdError`] names the rule that the text breaks.
    pub fn from_name_or_id(text: &str) -> Result<Self, IdError> {
        if text.contains(":/") {
            SpiffeId::parse(text).map(|id| id.trust_domain().clone())
        } else {
            Self::new(text)
        }
    }

    /// The bare name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ID of the domain itself: `spiffe://name`, with an empty path.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        SpiffeId::of_domain(self)
    }
}

impl FromStr for TrustDomain {
    type Err = IdError;
    fn from_str(s: &str) -> Result<Self, IdError> {
        Self::new(s)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_mix_of_the_allowed_characters_is_a_name() {
        for ok in ["example.org", "a_b-c.d", "1.2.3.4", "-", "_", ".", ".."] {
            assert_eq!(TrustDomain::new(ok).map(|d| d.to_string()), Ok(ok.to_owned()));
        }
    }

    #[test]
    fn other_characters_are_refused_and_never_folded() {
        for bad in ["td!", "td*", "[::1]", "tä.org", "td,x", "Example.org", "a b", "a/b", "a:1", "%65"] {
            assert_eq!(TrustDomain::new(bad), Err(IdError::TrustDomainCharacter), "{bad}");
        }
    }

    #[test]
    fn a_name_has_at_most_255_bytes() {
        assert!(TrustDomain::new(&"a".repeat(255)).is_ok());
        assert_eq!(TrustDomain::new(&"a".repeat(256)), Err(IdError::TrustDomainTooLong(256)));
    }

    #[test]
    fn a_domain_may_be_named_by_one_of_its_ids() {
        assert_eq!(TrustDomain::from_name_or_id("spiffe://example.org/a").unwrap().as_str(), "example.org");
        assert!(TrustDomain::from_name_or_id("spiffe://Example.org").is_err());
    }
}
