//! What the runs of an identity are held to: which code they have, and how many there are at a time.

use std::num::NonZeroU16;

use avouch_domain::CodeDigest;
use avouch_proto::governance_v1 as wire;

use crate::failure::Failure;

/// Takes a limit away.
const ANY: &str = "any";

/// The code as it was typed; empty: any.
pub(super) fn code(typed: &str) -> Result<Vec<u8>, Failure> {
    if typed == ANY {
        return Ok(Vec::new());
    }
    let digest: CodeDigest = typed.parse().map_err(|e| Failure::usage(format!("{e}, or {ANY}")))?;
    Ok(digest.0.to_vec())
}

/// The number of runs as it was typed; 0: any.
pub(super) fn runs(typed: &str) -> Result<u32, Failure> {
    if typed == ANY {
        return Ok(0);
    }
    let wrong = |_| Failure::usage(format!("\"{typed}\" runs: expected 1 to {}, or {ANY}", u16::MAX));
    typed.parse::<NonZeroU16>().map(|most| most.get().into()).map_err(wrong)
}

/// Both in words.
pub(super) fn shown(identity: &wire::Identity) -> String {
    let code = match identity.code.as_slice() {
        [] => "any code".to_owned(),
        digest => format!("code {} and no other", hex::encode(digest)),
    };
    match identity.runs_max {
        0 => code,
        1 => format!("{code}; one run at a time on a node"),
        most => format!("{code}; {most} runs at a time on a node"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_set_or_taken_away_and_anything_else_is_answered_with_what_is_expected() {
        assert_eq!(code(&"0a".repeat(32)).ok(), Some(vec![0x0a; 32]));
        assert_eq!(
            (code("any").ok(), runs("any").ok(), runs("2").ok()),
            (Some(Vec::new()), Some(0), Some(2))
        );
        for wrong in ["", "0", "-1", "65536", "all"] {
            assert!(runs(wrong).is_err(), "{wrong}");
        }
        assert!(code("0a0a").is_err());
    }

    #[test]
    fn limits_are_shown_in_words() {
        let free = wire::Identity::default();
        assert_eq!(shown(&free), "any code");
        let held = wire::Identity { code: vec![0xab, 0xcd], runs_max: 1, ..free };
        assert_eq!(shown(&held), "code abcd and no other; one run at a time on a node");
    }
}
