//! What tells that a process belongs to a run: the node agent itself saw `avouch run` start it.
//!
//! Never mixed with other selectors: a process of a run has this one and no other, so that it can't wear the identity of
//! a service that has the same local user.

use crate::selector::{Selector, SelectorError};
use crate::spiffe_id::SpiffeId;

/// The type of the selectors of runs.
pub const RUN: &str = "run";

/// The selector of a process that `uid` runs as the identity of this name. One for both, so that no entry can ask for
/// the user alone.
///
/// # Errors
/// [`SelectorError`], which no SPIFFE ID is long enough for.
pub fn run_selector(name: &SpiffeId, uid: u32) -> Result<Selector, SelectorError> {
    Selector::new(RUN, &format!("{uid}:{name}"))
}

/// What the selector of a run says.
#[must_use]
pub fn read_run_selector(selector: &Selector) -> Option<(u32, SpiffeId)> {
    let (uid, name) = selector.value().split_once(':').filter(|_| selector.kind() == RUN)?;
    Some((uid.parse().ok()?, SpiffeId::parse(name).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::id;

    #[test]
    fn a_run_is_told_by_its_user_and_its_identity_and_read_back() {
        let selector = run_selector(&id("/test/coder"), 1000).unwrap();
        assert_eq!(selector.as_str(), "run:1000:spiffe://example.org/test/coder");
        assert_eq!(read_run_selector(&selector), Some((1000, id("/test/coder"))));
        for other in
            ["unix:1000:spiffe://example.org/test/coder", "run:x:spiffe://example.org/a", "run:1000:coder"]
        {
            assert_eq!(read_run_selector(&other.parse().unwrap()), None, "{other}");
        }
    }
}
