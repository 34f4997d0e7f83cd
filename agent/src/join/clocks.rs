//! An SVID that has ended by one clock and not by another: who is believed.
//!
//! A node that can't be attested twice is lost with its SVID, so that neither this machine's clock alone nor the
//! server's alone ends it: as long as they differ, the agent waits and says so.

use avouch_credential::x509::facts::CertFacts;
use avouch_domain::Now;

use super::{Current, Join};

impl Join {
    /// Says that the SVID has ended by this machine's clock, if it has. The server has the last word.
    pub(super) fn tell_end(&self, current: &Current, now: Now) {
        if current.not_after <= now.wall && !current.reattestable {
            tracing::error!(
                ended_at = current.not_after.secs(),
                subsystem_name = "rotator",
                "The agent's SVID has ended by this machine's clock, and its node can't be attested twice: if the clock is right, start it with a new join token"
            );
        }
    }

    /// The server says that an SVID has ended which by this machine's clock has not, and there is no way to another.
    pub(super) fn disputes(&self, current: &Current) -> bool {
        !current.reattestable && current.not_after > (self.parts.clock)().wall
    }

    /// The pause before the server is asked again whether the SVID has ended.
    pub(super) async fn wait_for_clocks(&mut self, current: &Current) {
        let pause = self.again.failed(&mut self.jitter);
        tracing::error!(
            ends_at = current.not_after.secs(),
            retry_interval = format!("{:.1}s", pause.as_secs_f64()),
            subsystem_name = "rotator",
            "The agent's SVID has ended by the server's clock and not by this machine's: check the clocks of both machines"
        );
        tokio::time::sleep(pause).await;
    }

    /// The SVID on disk is of a time that has not ended.
    pub(super) fn stored_svid_is_good(&self) -> bool {
        self.stored().is_some_and(|facts| facts.not_after > (self.parts.clock)().wall)
    }

    /// The key of the SVID on disk: it may be good again once the clock is right.
    pub(super) fn stored_key(&self) -> Option<Vec<u8>> {
        Some(self.stored()?.public_key_pkix)
    }

    fn stored(&self) -> Option<CertFacts> {
        CertFacts::parse(self.parts.state.get().svid.first()?).ok()
    }
}
