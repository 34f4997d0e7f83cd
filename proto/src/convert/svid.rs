//! SVIDs in replies of the server. Private keys never pass here: a server does not have them.

use avouch_domain::{JwtSvid, SpiffeId, Timestamp};

use super::ConvertError;
use super::ids::{spiffe_id, spiffe_id_to_wire};
use crate::types;

/// A signed X.509 chain, leaf first.
#[must_use]
pub fn x509_svid_to_wire(
    id: &SpiffeId,
    chain: &[impl AsRef<[u8]>],
    expires_at: Timestamp,
) -> types::X509svid {
    types::X509svid {
        cert_chain: chain.iter().map(|der| der.as_ref().to_vec()).collect(),
        id: Some(spiffe_id_to_wire(id)),
        expires_at: expires_at.secs(),
        hint: String::new(),
    }
}

/// ID, chain (leaf first) and end of a signed X.509 chain. The caller verifies the chain itself.
///
/// # Errors
/// A missing ID or an empty chain.
pub fn x509_svid_from_wire(
    wire: types::X509svid,
) -> Result<(SpiffeId, Vec<Vec<u8>>, Timestamp), ConvertError> {
    let id = spiffe_id(wire.id.as_ref())?;
    if wire.cert_chain.iter().all(Vec::is_empty) {
        return Err(ConvertError::Unreadable("X509-SVID has an empty certificate chain".to_owned()));
    }
    Ok((id, wire.cert_chain, Timestamp::from_secs(wire.expires_at)))
}

/// A signed token; the hint is the agent's to add.
#[must_use]
pub fn jwt_svid_to_wire(svid: &JwtSvid) -> types::Jwtsvid {
    types::Jwtsvid {
        token: svid.token.to_string(),
        id: Some(spiffe_id_to_wire(&svid.id)),
        expires_at: svid.expires_at.secs(),
        issued_at: svid.issued_at.secs(),
        hint: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::id;

    use super::*;

    #[test]
    fn a_chain_survives_the_wire() {
        let wire = x509_svid_to_wire(&id("/a"), &[b"leaf", b"next"], Timestamp::from_secs(9));
        let chain = vec![b"leaf".to_vec(), b"next".to_vec()];
        assert_eq!(x509_svid_from_wire(wire), Ok((id("/a"), chain, Timestamp::from_secs(9))));
    }

    #[test]
    fn an_empty_chain_is_no_svid() {
        let wire = types::X509svid { id: Some(spiffe_id_to_wire(&id("/a"))), ..Default::default() };
        assert!(x509_svid_from_wire(wire).is_err());
    }
}
