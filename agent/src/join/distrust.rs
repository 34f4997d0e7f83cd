//! The agent's own SVID when its authority is not relied on any more: replaced before its time, so that the server
//! still lets the agent in when the authority has left the bundle.
//!
//! Never decides what is replaced: that is `engine::renew`.

use avouch_credential::x509::facts::{CertFacts, authority_id};
use avouch_domain::AuthorityId;
use avouch_engine::renew::replace_early;

use super::{Current, Join};

/// Who signed the certificates of a chain.
pub(super) fn issuers(chain: &[Vec<u8>]) -> Vec<AuthorityId> {
    let facts = chain.iter().filter_map(|der| CertFacts::parse(der).ok());
    facts.filter_map(|facts| facts.aki.map(|aki| hex::encode(aki).into())).collect()
}

impl Join {
    /// The own bundle has changed: perhaps the SVID in use is due now.
    pub(super) fn look_at_issuers(&mut self, current: &mut Current) {
        let Some(bundle) = self.parts.own_bundle.borrow_and_update().clone() else { return };
        if current.issuers.is_empty() {
            return; // Its certificates do not say who signed them.
        }
        let name = |root: &avouch_domain::X509Authority| {
            Some((AuthorityId::from(authority_id(&root.der).ok()?), root.tainted))
        };
        let named: Vec<_> = bundle.x509_authorities.iter().filter_map(name).collect();
        let Some(pace) = replace_early(&current.issuers, &named) else { return };
        let due = (self.parts.clock)().wall + self.jitter.within(pace.spread(1));
        if due < current.renew_at {
            tracing::info!(
                subsystem_name = "rotator",
                "Agent SVID is tainted by a root authority, forcing rotation"
            );
            current.renew_at = due;
        }
    }
}
