//! Registration entries: what a request asks for, what a reply shows, what an agent was sent.
//!
//! Never checks what only the store can know (taken IDs, known bundles, negative times to live): see the engine.

use avouch_domain::entry::check_dns_name;
use avouch_domain::limits::HINT_MAX;
use avouch_domain::{
    Entry, EntryError, EntryId, EntryParts, Selector, SpiffeId, Timestamp, TrustDomain, Ttl,
};

use super::ConvertError;
use super::ids::{member_id, spiffe_id, spiffe_id_to_wire, trust_domain, workload_id};
use super::selectors::{selectors, selectors_to_wire};
use crate::types;

/// What a create or update request says about one entry. `None`: the input mask leaves the field alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryInput {
    /// As sent: empty means that the server makes one (create). Not checked yet.
    pub id: String,
    pub parent_id: Option<SpiffeId>,
    pub spiffe_id: Option<SpiffeId>,
    pub selectors: Option<Vec<Selector>>,
    /// May be negative, which the engine refuses.
    pub x509_svid_ttl: Option<Ttl>,
    /// May be negative, which the engine refuses.
    pub jwt_svid_ttl: Option<Ttl>,
    pub federates_with: Option<Vec<TrustDomain>>,
    pub admin: Option<bool>,
    pub downstream: Option<bool>,
    /// `Some(None)`: never ends.
    pub expires_at: Option<Option<Timestamp>>,
    pub dns_names: Option<Vec<String>>,
    pub store_svid: Option<bool>,
    pub hint: Option<String>,
    pub disable_x509_svid_prefetch: Option<bool>,
    pub jwt_svid_include_jti: Option<bool>,
}

impl EntryInput {
    /// The content of a new entry; `None` if the request left out the parent, the SPIFFE ID or the selectors.
    #[must_use]
    pub fn into_new(self, id: EntryId, created_at: Timestamp) -> Option<EntryParts> {
        let parts = EntryParts {
            id,
            spiffe_id: self.spiffe_id.clone()?,
            parent_id: self.parent_id.clone()?,
            selectors: self.selectors.clone()?,
            x509_svid_ttl: Ttl(0),
            jwt_svid_ttl: Ttl(0),
            federates_with: Vec::new(),
            admin: false,
            downstream: false,
            expires_at: None,
            dns_names: Vec::new(),
            store_svid: false,
            hint: String::new(),
            disable_x509_svid_prefetch: false,
            jwt_svid_include_jti: false,
            revision_number: 0,
            created_at,
        };
        Some(self.apply(parts))
    }

    /// `parts` with every field that the request gives; ID, revision and creation time stay.
    #[must_use]
    pub fn apply(self, parts: EntryParts) -> EntryParts {
        EntryParts {
            spiffe_id: self.spiffe_id.unwrap_or(parts.spiffe_id),
            parent_id: self.parent_id.unwrap_or(parts.parent_id),
            selectors: self.selectors.unwrap_or(parts.selectors),
            x509_svid_ttl: self.x509_svid_ttl.unwrap_or(parts.x509_svid_ttl),
            jwt_svid_ttl: self.jwt_svid_ttl.unwrap_or(parts.jwt_svid_ttl),
            federates_with: self.federates_with.unwrap_or(parts.federates_with),
            admin: self.admin.unwrap_or(parts.admin),
            downstream: self.downstream.unwrap_or(parts.downstream),
            expires_at: self.expires_at.unwrap_or(parts.expires_at),
            dns_names: self.dns_names.unwrap_or(parts.dns_names),
            store_svid: self.store_svid.unwrap_or(parts.store_svid),
            hint: self.hint.unwrap_or(parts.hint),
            disable_x509_svid_prefetch: self
                .disable_x509_svid_prefetch
                .unwrap_or(parts.disable_x509_svid_prefetch),
            jwt_svid_include_jti: self.jwt_svid_include_jti.unwrap_or(parts.jwt_svid_include_jti),
            ..parts
        }
    }
}

/// Reads what a create (no mask) or update request says, in SPIRE's order of checks: parent, SPIFFE ID, DNS names,
/// federated trust domains, selectors, hint. The first failure wins.
///
/// # Errors
/// SPIRE's words, to follow "failed to convert entry: ".
pub fn entry_input(
    domain: &TrustDomain,
    wire: &types::Entry,
    mask: Option<&types::EntryMask>,
) -> Result<EntryInput, ConvertError> {
    let full = full_entry_mask();
    let mask = mask.unwrap_or(&full);
    let parent_id = given(mask.parent_id, || member_id(domain, wire.parent_id.as_ref()))
        .map_err(|e| e.within("invalid parent ID"))?;
    let spiffe_id = given(mask.spiffe_id, || workload_id(domain, wire.spiffe_id.as_ref()))
        .map_err(|e| e.within("invalid spiffe ID"))?;
    let dns_names = given(mask.dns_names, || {
        wire.dns_names.iter().try_for_each(|n| check_dns_name(n)).map_err(ConvertError::unreadable)?;
        Ok(wire.dns_names.clone())
    })?;
    let federates_with = given(mask.federates_with, || domains(&wire.federates_with))?;
    let selectors = given(mask.selectors, || selectors(&wire.selectors))?;
    if mask.hint && wire.hint.len() > HINT_MAX {
        return Err(ConvertError::not_allowed(EntryError::HintTooLong));
    }
    let attributes = wire.additional_attributes.unwrap_or_default();
    Ok(EntryInput {
        id: wire.id.clone(),
        parent_id,
        spiffe_id,
        selectors,
        x509_svid_ttl: mask.x509_svid_ttl.then_some(Ttl(wire.x509_svid_ttl)),
        jwt_svid_ttl: mask.jwt_svid_ttl.then_some(Ttl(wire.jwt_svid_ttl)),
        federates_with,
        admin: mask.admin.then_some(wire.admin),
        downstream: mask.downstream.then_some(wire.downstream),
        expires_at: mask.expires_at.then_some(end(wire.expires_at)),
        dns_names,
        store_svid: mask.store_svid.then_some(wire.store_svid),
        hint: mask.hint.then(|| wire.hint.clone()),
        disable_x509_svid_prefetch: mask
            .additional_attributes
            .then_some(attributes.disable_x509_svid_prefetch),
        jwt_svid_include_jti: mask.additional_attributes.then_some(attributes.jwt_svid_include_jti),
    })
}

fn given<T>(wanted: bool, read: impl FnOnce() -> Result<T, ConvertError>) -> Result<Option<T>, ConvertError> {
    if wanted { read().map(Some) } else { Ok(None) }
}

fn domains(list: &[String]) -> Result<Vec<TrustDomain>, ConvertError> {
    list.iter().map(|d| trust_domain(d).map_err(|e| e.within("invalid federated trust domain"))).collect()
}

/// Zero on the wire is "never".
fn end(seconds: i64) -> Option<Timestamp> {
    (seconds != 0).then_some(Timestamp::from_secs(seconds))
}

/// An entry as an agent gets it. Servers mask what agents need not know; a missing parent is the agent itself. The text
/// of the agent's own trust domain is kept once for all.
///
/// # Errors
/// The entry breaks a rule that any entry keeps; the agent leaves it out and says so.
pub fn delivered_entry(agent: &SpiffeId, wire: &types::Entry) -> Result<Entry, ConvertError> {
    let parent = match wire.parent_id.as_ref() {
        None => agent.clone(),
        some => spiffe_id(some).map_err(|e| e.within("invalid parent ID"))?,
    };
    let attributes = wire.additional_attributes.unwrap_or_default();
    let mut id = spiffe_id(wire.spiffe_id.as_ref()).map_err(|e| e.within("invalid spiffe ID"))?;
    id.share_domain(agent);
    Entry::new(EntryParts {
        id: EntryId::new(&wire.id).map_err(ConvertError::unreadable)?,
        spiffe_id: id,
        parent_id: parent,
        selectors: selectors(&wire.selectors)?,
        x509_svid_ttl: Ttl(wire.x509_svid_ttl),
        jwt_svid_ttl: Ttl(wire.jwt_svid_ttl),
        federates_with: domains(&wire.federates_with)?,
        admin: wire.admin,
        downstream: wire.downstream,
        expires_at: end(wire.expires_at),
        dns_names: wire.dns_names.clone(),
        store_svid: wire.store_svid,
        hint: wire.hint.clone(),
        disable_x509_svid_prefetch: attributes.disable_x509_svid_prefetch,
        jwt_svid_include_jti: attributes.jwt_svid_include_jti,
        revision_number: wire.revision_number,
        created_at: Timestamp::from_secs(wire.created_at),
    })
    .map_err(ConvertError::not_allowed)
}

/// An entry as a reply shows it: the ID always, the rest by mask; no mask = everything.
#[must_use]
pub fn entry_to_wire(entry: &Entry, mask: Option<&types::EntryMask>) -> types::Entry {
    let full = full_entry_mask();
    let mask = mask.unwrap_or(&full);
    let list = |wanted: bool, list: &[String]| if wanted { list.to_vec() } else { Vec::new() };
    types::Entry {
        id: entry.id.to_string(),
        spiffe_id: mask.spiffe_id.then(|| spiffe_id_to_wire(&entry.spiffe_id)),
        parent_id: mask.parent_id.then(|| spiffe_id_to_wire(&entry.parent_id)),
        selectors: if mask.selectors { selectors_to_wire(&entry.selectors) } else { Vec::new() },
        x509_svid_ttl: if mask.x509_svid_ttl { entry.x509_svid_ttl.0 } else { 0 },
        federates_with: if mask.federates_with {
            entry.federates_with.iter().map(ToString::to_string).collect()
        } else {
            Vec::new()
        },
        admin: mask.admin && entry.admin,
        downstream: mask.downstream && entry.downstream,
        expires_at: if mask.expires_at { entry.expires_at.map_or(0, Timestamp::secs) } else { 0 },
        dns_names: list(mask.dns_names, &entry.dns_names),
        revision_number: if mask.revision_number { entry.revision_number } else { 0 },
        store_svid: mask.store_svid && entry.store_svid,
        jwt_svid_ttl: if mask.jwt_svid_ttl { entry.jwt_svid_ttl.0 } else { 0 },
        hint: if mask.hint { entry.hint.clone() } else { String::new() },
        created_at: if mask.created_at { entry.created_at.secs() } else { 0 },
        additional_attributes: (mask.additional_attributes
            && (entry.disable_x509_svid_prefetch || entry.jwt_svid_include_jti))
            .then_some(types::entry::AdditionalAttributes {
                disable_x509_svid_prefetch: entry.disable_x509_svid_prefetch,
                jwt_svid_include_jti: entry.jwt_svid_include_jti,
            }),
    }
}

/// Every field.
#[must_use]
pub fn full_entry_mask() -> types::EntryMask {
    types::EntryMask {
        spiffe_id: true,
        parent_id: true,
        selectors: true,
        x509_svid_ttl: true,
        federates_with: true,
        admin: true,
        downstream: true,
        expires_at: true,
        dns_names: true,
        revision_number: true,
        store_svid: true,
        jwt_svid_ttl: true,
        hint: true,
        created_at: true,
        additional_attributes: true,
    }
}

/// What an agent needs of an entry when it polls: the mask real agents send.
#[must_use]
pub fn sync_entry_mask() -> types::EntryMask {
    types::EntryMask {
        spiffe_id: true,
        selectors: true,
        federates_with: true,
        admin: true,
        downstream: true,
        revision_number: true,
        store_svid: true,
        hint: true,
        created_at: true,
        additional_attributes: true,
        ..Default::default()
    }
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
