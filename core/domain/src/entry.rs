//! Registration entry: who gets which identity, below which parent.

use std::fmt;
use std::sync::Arc;

use crate::limits::{DNS_NAME_MAX, ENTRY_ID_MAX, HINT_MAX};
use crate::selector::{Selector, SelectorError, SelectorSet};
use crate::short_text::ShortText;
use crate::spiffe_id::SpiffeId;
use crate::time::{Timestamp, Ttl};
use crate::trust_domain::TrustDomain;

/// Text that names one entry: 1 to 255 bytes of `[A-Za-z0-9-_.]`. A UUID, which is what a server makes, lies in the
/// value itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(ShortText);

impl EntryId {
    /// Checks characters and length.
    ///
    /// # Errors
    /// [`EntryError`] with SPIRE's message.
    pub fn new(text: &str) -> Result<Self, EntryError> {
        if text.len() > ENTRY_ID_MAX {
            return Err(EntryError::IdTooLong);
        }
        if text.is_empty()
            || !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        {
            return Err(EntryError::IdCharacter);
        }
        Ok(Self(ShortText::new(text)))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The ID as the text it is kept as, to be passed on without a copy of its own.
    #[must_use]
    pub fn text(&self) -> &ShortText {
        &self.0
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an entry can't be built. Messages are SPIRE's where SPIRE has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("entry ID contains invalid characters")]
    IdCharacter,
    #[error("entry ID too long")]
    IdTooLong,
    #[error(transparent)]
    Selector(#[from] SelectorError),
    #[error("selector types must be the same when store SVID is enabled")]
    StoreSvidKinds,
    #[error("store SVID and disabled X509-SVID prefetch exclude each other")]
    StoreSvidPrefetch,
    #[error("X509SvidTtl is not set")]
    X509Ttl,
    #[error("JwtSvidTtl is not set")]
    JwtTtl,
    #[error("hint is too long, max length is 1024 characters")]
    HintTooLong,
    #[error("invalid DNS name: {0}")]
    DnsName(&'static str),
    #[error("repeated selector or DNS name")]
    Repeated,
}

/// The editable content of an entry, unchecked: the one way in is [`Entry::new`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryParts {
    pub id: EntryId,
    pub spiffe_id: SpiffeId,
    pub parent_id: SpiffeId,
    /// In insertion order, which replies keep.
    pub selectors: Vec<Selector>,
    /// Seconds; zero = the server's default.
    pub x509_svid_ttl: Ttl,
    /// Seconds; zero = the server's default.
    pub jwt_svid_ttl: Ttl,
    pub federates_with: Vec<TrustDomain>,
    pub admin: bool,
    pub downstream: bool,
    /// Ends at this second; `None` = never.
    pub expires_at: Option<Timestamp>,
    /// In insertion order; the first becomes the common name.
    pub dns_names: Vec<String>,
    pub store_svid: bool,
    pub hint: String,
    pub disable_x509_svid_prefetch: bool,
    pub jwt_svid_include_jti: bool,
    /// Per entry, from 0, bumped by every change an agent can see.
    pub revision_number: i64,
    pub created_at: Timestamp,
}

/// A checked registration entry; shared, never edited in place. As large as a pointer, since indexes are full of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry(Arc<Checked>);

#[derive(Debug, PartialEq, Eq)]
struct Checked {
    parts: EntryParts,
    set: SelectorSet,
}

impl Entry {
    /// Checks the rules that hold for an entry on its own.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn new(mut parts: EntryParts) -> Result<Self, EntryError> {
        if parts.selectors.is_empty() {
            return Err(SelectorError::EmptyList.into());
        }
        if parts.store_svid && parts.disable_x509_svid_prefetch {
            return Err(EntryError::StoreSvidPrefetch);
        }
        let set = SelectorSet::new(parts.selectors.iter().cloned())?;
        if set.len() != parts.selectors.len() {
            return Err(EntryError::Repeated);
        }
        if parts.store_svid
            && set.iter().any(|s| Some(s.kind()) != parts.selectors.first().map(Selector::kind))
        {
            return Err(EntryError::StoreSvidKinds);
        }
        if parts.x509_svid_ttl.0 < 0 {
            return Err(EntryError::X509Ttl);
        }
        if parts.jwt_svid_ttl.0 < 0 {
            return Err(EntryError::JwtTtl);
        }
        if parts.hint.len() > HINT_MAX {
            return Err(EntryError::HintTooLong);
        }
        let mut names: Vec<_> = parts.dns_names.iter().collect();
        names.sort_unstable();
        names.dedup();
        if names.len() != parts.dns_names.len() {
            return Err(EntryError::Repeated);
        }
        for name in names {
            check_dns_name(name)?;
        }
        // Entries are many and stay: what a list has grown to is not what it holds.
        parts.selectors.shrink_to_fit();
        parts.dns_names.shrink_to_fit();
        parts.federates_with.shrink_to_fit();
        Ok(Self(Arc::new(Checked { parts, set })))
    }

    /// The same entry with the texts that it has in common with `neighbour`, its parent's ID above all, kept once for
    /// both. Only of an entry that nobody else holds yet; another stays as it is.
    #[must_use]
    pub fn sharing_texts_of(mut self, neighbour: &Self) -> Self {
        if let Some(Checked { parts, .. }) = Arc::get_mut(&mut self.0) {
            if parts.parent_id == neighbour.parent_id {
                parts.parent_id = neighbour.parent_id.clone();
            }
            parts.spiffe_id.share_domain(&neighbour.parent_id);
        }
        self
    }

    /// The selectors as a set, for matching.
    #[must_use]
    pub fn selector_set(&self) -> &SelectorSet {
        &self.0.set
    }

    /// True if a process needs supplementary groups to match.
    #[must_use]
    pub fn rests_on_groups(&self) -> bool {
        self.selector_set().iter().any(Selector::is_of_groups)
    }

    /// An owned copy of the content, to build a changed entry from.
    #[must_use]
    pub fn to_parts(&self) -> EntryParts {
        self.0.parts.clone()
    }

    /// True once the entry's end has come. It acts by time, not by pruning.
    #[must_use]
    pub fn is_expired(&self, wall: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= wall)
    }

    /// A node alias (parent `/spire/server`): never delivered; it makes matching agents act as its SPIFFE ID.
    #[must_use]
    pub fn is_node_alias(&self) -> bool {
        self.parent_id.is_server()
    }

    /// Two entries are similar if parent, SPIFFE ID and selector set are equal; only one may exist.
    #[must_use]
    pub fn is_similar(&self, other: &Self) -> bool {
        self.parent_id == other.parent_id
            && self.spiffe_id == other.spiffe_id
            && self.selector_set() == other.selector_set()
    }
}

impl std::ops::Deref for Entry {
    type Target = EntryParts;
    fn deref(&self) -> &EntryParts {
        &self.0.parts
    }
}

/// DNS name rules of SPIRE's `x509util`: labels of letters, digits, dash (not at the ends); `*` only as the
/// whole first label of at least two.
///
/// # Errors
/// [`EntryError::DnsName`] with the reason.
pub fn check_dns_name(name: &str) -> Result<(), EntryError> {
    if name.is_empty() {
        return Err(EntryError::DnsName("empty or only whitespace"));
    }
    if name.len() > DNS_NAME_MAX {
        return Err(EntryError::DnsName("length exceeded"));
    }
    let rest = name.strip_prefix("*.").unwrap_or(name);
    for label in rest.split('.') {
        if label.is_empty() {
            return Err(EntryError::DnsName("label is empty"));
        }
        if label.len() > 63 {
            return Err(EntryError::DnsName("label length exceeded"));
        }
        if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(EntryError::DnsName("label does not match regex"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(EntryError::DnsName("label must not start or end with a hyphen"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{entry, id};

    #[test]
    fn ids_of_every_length_are_kept_and_ordered_as_text() {
        let texts =
            ["a".repeat(255), "a".repeat(38), "a".repeat(39), "a".to_owned(), "-".repeat(39), "b".to_owned()];
        let mut ids: Vec<_> = texts.iter().map(|text| EntryId::new(text).unwrap()).collect();
        let mut sorted = texts.to_vec();
        sorted.sort();
        ids.sort();
        assert_eq!(ids.iter().map(EntryId::to_string).collect::<Vec<_>>(), sorted);
        assert_eq!(EntryId::new(&"a".repeat(256)), Err(EntryError::IdTooLong));
    }

    #[test]
    fn texts_are_shared_with_a_neighbour_and_nothing_else_changes() {
        let (one, other) = (entry("e1", "/x", "/p", &["u:1"]), entry("e2", "/y", "/p", &["u:1"]));
        let shared = other.clone().to_parts();
        let shared = Entry::new(shared).unwrap().sharing_texts_of(&one);
        assert_eq!(shared, other);
        assert!(std::ptr::eq(shared.parent_id.as_str(), one.parent_id.as_str()));
        let elsewhere = entry("e3", "/y", "/q", &["u:1"]).sharing_texts_of(&one);
        assert_eq!(elsewhere.parent_id, id("/q"));
    }
}
