//! Certificate chains of x509pop: every path from the leaf to a configured root, as SPIRE's selectors need.
//!
//! Never: no name in a certificate is believed before a path was found.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use avouch_domain::Timestamp;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{
    ALL_VERIFICATION_ALGS, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, VerifiedPath,
    anchor_from_trusted_cert,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A node certificate may be made for any purpose: possession of its key is what counts.
struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

/// The certificates above the leaf, intermediates and roots, of all paths that verify at `now`.
///
/// # Errors
/// A text that says why no path was found.
pub(super) fn issuers(
    leaf: &[u8],
    intermediates: &[Vec<u8>],
    roots: &[Vec<u8>],
    now: Timestamp,
) -> Result<BTreeSet<Vec<u8>>, String> {
    let leaf = CertificateDer::from(leaf);
    let leaf = EndEntityCert::try_from(&leaf).map_err(|e| e.to_string())?;
    let intermediates: Vec<_> = intermediates.iter().map(|c| CertificateDer::from(c.as_slice())).collect();
    // webpki takes a root as it is; one that has ended, or is no CA, must not vouch.
    let roots: Vec<_> =
        roots.iter().filter(|r| may_vouch(r, now)).map(|r| CertificateDer::from(r.as_slice())).collect();
    let anchors: Vec<_> = roots
        .iter()
        .map(|r| anchor_from_trusted_cert(r))
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.secs()).unwrap_or(0)));
    let found = RefCell::new(BTreeSet::new());
    // Refusing each path makes the search go on to the next one, until all are seen.
    let collect = |path: &VerifiedPath<'_>| {
        let mut found = found.borrow_mut();
        found.extend(path.intermediate_certificates().map(|c| c.der().to_vec()));
        for (root, anchor) in roots.iter().zip(&anchors) {
            if anchor.subject == path.anchor().subject
                && anchor.subject_public_key_info == path.anchor().subject_public_key_info
            {
                found.insert(root.to_vec());
            }
        }
        Err(webpki::Error::UnknownIssuer)
    };
    let end = leaf.verify_for_usage(
        ALL_VERIFICATION_ALGS,
        &anchors,
        &intermediates,
        time,
        AnyPurpose,
        None,
        Some(&collect),
    );
    let found = found.into_inner();
    match end {
        Err(e) if found.is_empty() => Err(e.to_string()),
        Err(
            e
            @ (webpki::Error::MaximumSignatureChecksExceeded | webpki::Error::MaximumPathBuildCallsExceeded),
        ) => Err(e.to_string()),
        _ => Ok(found),
    }
}

fn may_vouch(root: &[u8], now: Timestamp) -> bool {
    let Ok((_, root)) = X509Certificate::from_der(root) else { return false };
    let validity = root.validity();
    let constraints = root.basic_constraints().ok().flatten();
    let is_ca = match constraints {
        Some(c) => c.value.ca,
        None => root.version().0 < 2, // before v3 there is no such extension
    };
    is_ca && validity.not_before.timestamp() <= now.secs() && now.secs() <= validity.not_after.timestamp()
}
