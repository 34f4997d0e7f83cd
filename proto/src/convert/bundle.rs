//! Bundles and their authorities.
//!
//! Never looks inside a certificate or key beyond where it ends: whether it may be an authority is for the credential
//! crate to say, which the edge asks next. A `tainted` flag from outside is dropped: only the server taints.

use std::sync::Arc;

use avouch_domain::{Bundle, JwtAuthority, Timestamp, TrustDomain, X509Authority};

use super::ConvertError;
use super::ids::trust_domain;
use crate::types;

/// What a request says about one bundle. `None`: the input mask leaves the field alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleInput {
    pub trust_domain: TrustDomain,
    pub x509_authorities: Option<Vec<X509Authority>>,
    pub jwt_authorities: Option<Vec<JwtAuthority>>,
    /// Seconds.
    pub refresh_hint: Option<i64>,
    pub sequence_number: Option<u64>,
}

/// Reads what a create, set (no mask) or update request says. The trust domain is read first, by
/// [`trust_domain`], since the edge has a message of its own for it.
///
/// # Errors
/// SPIRE's words, to follow "failed to convert bundle: ".
pub fn bundle_input(
    domain: TrustDomain,
    wire: &types::Bundle,
    mask: Option<&types::BundleMask>,
) -> Result<BundleInput, ConvertError> {
    let full = full_mask();
    let mask = mask.unwrap_or(&full);
    let x509 = if mask.x509_authorities {
        let list = x509_authorities(&wire.x509_authorities);
        Some(list.map_err(|e| e.within("unable to parse X.509 authority"))?)
    } else {
        None
    };
    let jwt = if mask.jwt_authorities {
        let list = jwt_authorities(&wire.jwt_authorities);
        Some(list.map_err(|e| e.within("unable to parse JWT authority"))?)
    } else {
        None
    };
    Ok(BundleInput {
        trust_domain: domain,
        x509_authorities: x509,
        jwt_authorities: jwt,
        refresh_hint: mask.refresh_hint.then_some(wire.refresh_hint),
        sequence_number: mask.sequence_number.then_some(wire.sequence_number),
    })
}

/// A whole bundle as a server sent it. Keeps `tainted`, which a server may say to its agents.
///
/// # Errors
/// A malformed trust domain or authority.
pub fn bundle_from_wire(wire: &types::Bundle) -> Result<Bundle, ConvertError> {
    let mut bundle = Bundle::empty(trust_domain(&wire.trust_domain)?);
    for authority in &wire.x509_authorities {
        let list = split_certificates(&authority.asn1)
            .map_err(|e| e.within("unable to parse X.509 authority"))?
            .into_iter()
            .map(|der| X509Authority { der: der.into(), tainted: authority.tainted });
        bundle.x509_authorities.extend(list);
    }
    for (authority, key) in jwt_authorities(&wire.jwt_authorities)
        .map_err(|e| e.within("unable to parse JWT authority"))?
        .into_iter()
        .zip(&wire.jwt_authorities)
    {
        bundle.jwt_authorities.push(JwtAuthority { tainted: key.tainted, ..authority });
    }
    bundle.refresh_hint = wire.refresh_hint;
    bundle.sequence_number = wire.sequence_number;
    Ok(bundle)
}

/// X.509 authorities of a request; each item may hold several certificates.
///
/// # Errors
/// An item that is not one or more whole certificates.
pub fn x509_authorities(wire: &[types::X509Certificate]) -> Result<Vec<X509Authority>, ConvertError> {
    let mut list = Vec::new();
    for item in wire {
        let certificates = split_certificates(&item.asn1)?;
        list.extend(certificates.into_iter().map(|der| X509Authority { der: der.into(), tainted: false }));
    }
    Ok(list)
}

/// JWT authorities of a request.
///
/// # Errors
/// A missing key ID or key.
pub fn jwt_authorities(wire: &[types::JwtKey]) -> Result<Vec<JwtAuthority>, ConvertError> {
    wire.iter()
        .map(|key| {
            if key.public_key.is_empty() {
                return Err(ConvertError::Unreadable("missing public key".to_owned()));
            }
            if key.key_id.is_empty() {
                return Err(ConvertError::Unreadable("missing key ID".to_owned()));
            }
            Ok(JwtAuthority {
                key_id: key.key_id.as_str().into(),
                public_key: key.public_key.as_slice().into(),
                expires_at: (key.expires_at != 0).then_some(Timestamp::from_secs(key.expires_at)),
                tainted: false,
            })
        })
        .collect()
}

/// Splits certificates that stand one after the other, by the length each of them states.
///
/// # Errors
/// Nothing there, or the last one is cut short or is followed by something else.
pub fn split_certificates(der: &[u8]) -> Result<Vec<&[u8]>, ConvertError> {
    let malformed = || ConvertError::Unreadable("x509: malformed certificate".to_owned());
    let (mut rest, mut list) = (der, Vec::new());
    while !rest.is_empty() {
        let len = sequence_len(rest).ok_or_else(malformed)?;
        let (certificate, after) = rest.split_at_checked(len).ok_or_else(malformed)?;
        list.push(certificate);
        rest = after;
    }
    if list.is_empty() { Err(malformed()) } else { Ok(list) }
}

/// Header and content length of the DER SEQUENCE at the start of `der`.
fn sequence_len(der: &[u8]) -> Option<usize> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if tag != 0x30 {
        return None;
    }
    if first < 0x80 {
        return Some(2 + usize::from(first));
    }
    let octets = usize::from(first & 0x7f);
    // Four octets state up to 4 GiB, far above any certificate; 0x80 alone is BER.
    let content = rest.get(..octets).filter(|o| (1..=4).contains(&o.len()))?;
    let len = content.iter().fold(0_usize, |len, octet| (len << 8) | usize::from(*octet));
    len.checked_add(2 + octets)
}

/// A bundle as a reply shows it: the trust domain always, the rest by mask; no mask = everything.
#[must_use]
pub fn bundle_to_wire(bundle: &Bundle, mask: Option<&types::BundleMask>) -> types::Bundle {
    let full = full_mask();
    let mask = mask.unwrap_or(&full);
    types::Bundle {
        trust_domain: bundle.trust_domain.to_string(),
        x509_authorities: if mask.x509_authorities {
            bundle
                .x509_authorities
                .iter()
                .map(|a| types::X509Certificate { asn1: a.der.to_vec(), tainted: a.tainted })
                .collect()
        } else {
            Vec::new()
        },
        jwt_authorities: if mask.jwt_authorities {
            jwt_authorities_to_wire(&bundle.jwt_authorities)
        } else {
            Vec::new()
        },
        refresh_hint: if mask.refresh_hint { bundle.refresh_hint } else { 0 },
        sequence_number: if mask.sequence_number { bundle.sequence_number } else { 0 },
        wit_authorities: Vec::new(),
    }
}

/// JWT authorities in the order given.
#[must_use]
pub fn jwt_authorities_to_wire(list: &[JwtAuthority]) -> Vec<types::JwtKey> {
    let one = |a: &JwtAuthority| types::JwtKey {
        public_key: Arc::as_ref(&a.public_key).to_vec(),
        key_id: a.key_id.to_string(),
        expires_at: a.expires_at.map_or(0, Timestamp::secs),
        tainted: a.tainted,
    };
    list.iter().map(one).collect()
}

fn full_mask() -> types::BundleMask {
    types::BundleMask {
        x509_authorities: true,
        jwt_authorities: true,
        refresh_hint: true,
        sequence_number: true,
        wit_authorities: true,
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::domain;
    use proptest::prelude::*;

    use super::*;

    fn der(content: &[u8]) -> Vec<u8> {
        let len = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[0x30, 0x82, len[0], len[1]], content].concat()
    }

    fn bundle() -> Bundle {
        Bundle {
            trust_domain: domain(),
            x509_authorities: vec![X509Authority { der: der(b"one").into(), tainted: true }],
            jwt_authorities: vec![JwtAuthority {
                key_id: "k".into(),
                public_key: b"pkix".as_slice().into(),
                expires_at: Some(Timestamp::from_secs(5)),
                tainted: false,
            }],
            refresh_hint: 300,
            sequence_number: 7,
        }
    }

    #[test]
    fn a_bundle_survives_the_wire() {
        assert_eq!(bundle_from_wire(&bundle_to_wire(&bundle(), None)), Ok(bundle()));
    }

    #[test]
    fn an_empty_mask_shows_the_trust_domain_only() {
        let shown = bundle_to_wire(&bundle(), Some(&types::BundleMask::default()));
        assert_eq!(shown, types::Bundle { trust_domain: "example.org".into(), ..Default::default() });
    }

    #[test]
    fn one_item_may_hold_several_certificates_and_taint_from_outside_is_dropped() {
        let asn1 = [der(b"one"), der(b"two")].concat();
        let list = x509_authorities(&[types::X509Certificate { asn1, tainted: true }]).unwrap();
        let plain = |content: &[u8]| X509Authority { der: der(content).into(), tainted: false };
        assert_eq!(list, [plain(b"one"), plain(b"two")]);
    }

    #[test]
    fn fields_outside_the_input_mask_are_left_alone() {
        let mask = types::BundleMask { refresh_hint: true, ..Default::default() };
        let sent = types::Bundle {
            jwt_authorities: vec![Default::default()],
            refresh_hint: 9,
            ..Default::default()
        };
        let input = bundle_input(domain(), &sent, Some(&mask)).unwrap();
        assert_eq!((input.refresh_hint, input.jwt_authorities, input.sequence_number), (Some(9), None, None));
    }

    #[test]
    fn a_key_without_an_id_is_refused() {
        let sent = types::Bundle {
            jwt_authorities: vec![types::JwtKey { public_key: vec![1], ..Default::default() }],
            ..Default::default()
        };
        assert_eq!(
            bundle_input(domain(), &sent, None).unwrap_err().to_string(),
            "unable to parse JWT authority: missing key ID"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_splitter_lose_or_invent_any(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(list) = split_certificates(&bytes) {
                prop_assert_eq!(list.concat(), bytes);
            }
        }

        #[test]
        fn certificates_come_apart_as_they_were_joined(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..5)) {
            let parts: Vec<_> = parts.iter().map(|p| der(p)).collect();
            let joined = parts.concat();
            prop_assert_eq!(split_certificates(&joined).unwrap(), parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }
}
