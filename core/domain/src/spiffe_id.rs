//! SPIFFE ID: parse, join, compare (SPIFFE-ID 2).
//!
//! Never normalises: IDs are compared byte by byte and bad forms are refused (ID-19, ID-20).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::SPIFFE_ID_MAX;
use crate::trust_domain::TrustDomain;

const SCHEME: &str = "spiffe://";

/// A checked SPIFFE ID. Cheap to clone; ordered and compared as text.
#[derive(Clone)]
pub struct SpiffeId {
    uri: Arc<str>,
    domain: TrustDomain,
}

/// The trust domain is part of the text. Clones are equal without a look at it, which is what a walk over entries of
/// one parent compares.
impl PartialEq for SpiffeId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.uri, &other.uri) || self.uri == other.uri
    }
}

impl Eq for SpiffeId {}

impl Ord for SpiffeId {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.uri, &other.uri) { Ordering::Equal } else { self.uri.cmp(&other.uri) }
    }
}

impl PartialOrd for SpiffeId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for SpiffeId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uri.hash(state);
    }
}

/// Why a text is no SPIFFE ID. Messages are go-spiffe's, which users of SPIRE know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("cannot be empty")]
    Empty,
    #[error("scheme is missing or invalid")]
    Scheme,
    #[error("trust domain is missing")]
    MissingTrustDomain,
    #[error(
        "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores"
    )]
    TrustDomainCharacter,
    #[error("trust domain has {0} bytes, expected at most 255")]
    TrustDomainTooLong(usize),
    #[error("path must have a leading slash")]
    NoLeadingSlash,
    #[error("path cannot contain empty segments")]
    EmptySegment,
    #[error("path cannot have a trailing slash")]
    TrailingSlash,
    #[error("path cannot contain dot segments")]
    DotSegment,
    #[error("path segment characters are limited to letters, numbers, dots, dashes, and underscores")]
    SegmentCharacter,
    #[error("SPIFFE ID has {0} bytes, expected at most 2048")]
    TooLong(usize),
}

impl SpiffeId {
    /// Parses a whole URI.
    ///
    /// # Errors
    /// The first rule broken, in go-spiffe's order.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(IdError::Scheme)?;
        let (name, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let domain = TrustDomain::new(name)?;
        check_path(path)?;
        if text.len() > SPIFFE_ID_MAX {
            return Err(IdError::TooLong(text.len()));
        }
        Ok(Self { uri: text.into(), domain })
    }

    /// Joins a trust domain and a path, which is empty or begins with a slash.
    ///
    /// # Errors
    /// The first path rule broken.
    pub fn new(domain: &TrustDomain, path: &str) -> Result<Self, IdError> {
        check_path(path)?;
        let uri = format!("{SCHEME}{domain}{path}");
        if uri.len() > SPIFFE_ID_MAX {
            return Err(IdError::TooLong(uri.len()));
        }
        Ok(Self { uri: uri.into(), domain: domain.clone() })
    }

    /// The ID of the trust domain itself, with no path.
    #[must_use]
    pub fn of_domain(domain: &TrustDomain) -> Self {
        Self { uri: format!("{SCHEME}{domain}").into(), domain: domain.clone() }
    }

    /// The ID every server of the trust domain has: path `/spire/server`.
    #[must_use]
    pub fn server(domain: &TrustDomain) -> Self {
        Self { uri: format!("{SCHEME}{domain}/spire/server").into(), domain: domain.clone() }
    }

    /// The ID of an agent: `/spire/agent/<attestor>/<name>`.
    ///
    /// # Errors
    /// [`IdError`] if attestor or name has characters that a path forbids.
    pub fn agent(domain: &TrustDomain, attestor: &str, name: &str) -> Result<Self, IdError> {
        Self::new(domain, &format!("/spire/agent/{attestor}/{name}"))
    }

    /// The same ID, with the text of its trust domain shared with `other` if both are members of one.
    pub fn share_domain(&mut self, other: &Self) {
        if self.domain == other.domain {
            self.domain = other.domain.clone();
        }
    }

    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The path with its leading slash, or an empty text.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.get(SCHEME.len() + self.domain.as_str().len()..).unwrap_or_default()
    }

    /// The whole URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// True for `/spire` and everything below it, which no workload may have.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.path() == "/spire" || self.path().starts_with("/spire/")
    }

    /// True below `/spire/agent/`.
    #[must_use]
    pub fn is_agent(&self) -> bool {
        self.path().starts_with("/spire/agent/")
    }

    /// True for the path `/spire/server`.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.path() == "/spire/server"
    }
}

fn check_path(path: &str) -> Result<(), IdError> {
    if path.is_empty() {
        return Ok(());
    }
    let inner = path.strip_prefix('/').ok_or(IdError::NoLeadingSlash)?;
    let mut segments = inner.split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "" if segments.peek().is_none() => return Err(IdError::TrailingSlash),
            "" => return Err(IdError::EmptySegment),
            "." | ".." => return Err(IdError::DotSegment),
            _ if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) => {
                return Err(IdError::SegmentCharacter);
            }
            _ => {}
        }
    }
    Ok(())
}

impl FromStr for SpiffeId {
    type Err = IdError;
    fn from_str(s: &str) -> Result<Self, IdError> {
        Self::parse(s)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> Option<IdError> {
        SpiffeId::parse(text).err()
    }

    #[test]
    fn an_id_is_kept_as_written() {
        for ok in [
            "spiffe://td",
            "spiffe://td/a",
            "spiffe://td/a/B.c-d_e",
            "spiffe://td/...",
            "spiffe://td/.a/a..b",
        ] {
            assert_eq!(SpiffeId::parse(ok).map(|i| i.to_string()), Ok(ok.to_owned()));
        }
    }

    #[test]
    fn the_scheme_is_spiffe_in_lower_case() {
        for bad in ["http://td/a", "spiffe:/td/a", "//td/a", "SPIFFE://td/a", "td"] {
            assert_eq!(error(bad), Some(IdError::Scheme), "{bad}");
        }
        assert_eq!(error(""), Some(IdError::Empty));
    }

    #[test]
    fn the_authority_is_a_bare_trust_domain_name() {
        assert_eq!(error("spiffe://"), Some(IdError::MissingTrustDomain));
        assert_eq!(error("spiffe:///a"), Some(IdError::MissingTrustDomain));
        for bad in [
            "spiffe://u@td/a",
            "spiffe://u:p@td/a",
            "spiffe://@td/a",
            "spiffe://td:8080/a",
            "spiffe://td:/a",
            "spiffe://%65/a",
        ] {
            assert_eq!(error(bad), Some(IdError::TrustDomainCharacter), "{bad}");
        }
    }

    #[test]
    fn query_and_fragment_are_refused() {
        for bad in ["spiffe://td/a?x=1", "spiffe://td/a?", "spiffe://td/a#f", "spiffe://td/a#"] {
            assert_eq!(error(bad), Some(IdError::SegmentCharacter), "{bad}");
        }
    }

    #[test]
    fn path_segments_are_neither_empty_nor_dots() {
        assert_eq!(error("spiffe://td/"), Some(IdError::TrailingSlash));
        assert_eq!(error("spiffe://td/a/"), Some(IdError::TrailingSlash));
        assert_eq!(error("spiffe://td//a"), Some(IdError::EmptySegment));
        assert_eq!(error("spiffe://td/a//b"), Some(IdError::EmptySegment));
        for bad in ["spiffe://td/a/./b", "spiffe://td/a/..", "spiffe://td/.", "spiffe://td/.."] {
            assert_eq!(error(bad), Some(IdError::DotSegment), "{bad}");
        }
    }

    #[test]
    fn path_characters_are_never_decoded() {
        for bad in [
            "spiffe://td/a%2Fb",
            "spiffe://td/%61",
            "spiffe://td/a b",
            "spiffe://td/a:b",
            "spiffe://td/é",
            "spiffe://td/a\0",
        ] {
            assert_eq!(error(bad), Some(IdError::SegmentCharacter), "{bad}");
        }
    }

    #[test]
    fn an_id_has_at_most_2048_bytes() {
        let path = |n: usize| format!("spiffe://td/{}", "a".repeat(n - 12));
        assert!(SpiffeId::parse(&path(2048)).is_ok());
        assert_eq!(error(&path(2049)), Some(IdError::TooLong(2049)));
    }

    #[test]
    fn the_path_is_case_sensitive() {
        assert_ne!(SpiffeId::parse("spiffe://td/A"), SpiffeId::parse("spiffe://td/a"));
    }

    #[test]
    fn the_reserved_namespace_ends_at_a_segment() {
        let reserved = |p| SpiffeId::parse(p).unwrap().is_reserved();
        assert!(reserved("spiffe://td/spire/server") && reserved("spiffe://td/spire"));
        assert!(!reserved("spiffe://td/spires/a") && !reserved("spiffe://td"));
    }
}
