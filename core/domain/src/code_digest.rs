//! Digests of code: which program, script and files a run is made of.

use std::fmt;
use std::str::FromStr;

/// SHA-256 over the code of a run, as the node agent takes it before the command starts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeDigest(pub [u8; 32]);

/// Why a text is no digest of code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no digest of code, expected the 64 hexadecimal digits that `avouch --json run` shows")]
pub struct CodeDigestError(String);

impl FromStr for CodeDigest {
    type Err = CodeDigestError;

    /// Reads 64 hexadecimal digits, also behind `sha256:`.
    fn from_str(text: &str) -> Result<Self, CodeDigestError> {
        let wrong = || CodeDigestError(text.chars().take(80).collect());
        let digits = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        let (pairs, rest) = digits.as_chunks::<2>();
        let mut digest = [0; 32];
        if pairs.len() != digest.len() || !rest.is_empty() {
            return Err(wrong());
        }
        for (byte, pair) in digest.iter_mut().zip(pairs) {
            let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
            let value = high.zip(low).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
            *byte = value.ok_or_else(wrong)?;
        }
        Ok(Self(digest))
    }
}

impl fmt::Display for CodeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CodeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_written_as_hexadecimal_digits_and_read_back() {
        let mut digest = CodeDigest([0xa7; 32]);
        digest.0[0] = 0x0f;
        let text = digest.to_string();
        assert!(text.starts_with("0fa7a7") && text.len() == 64, "{text}");
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(format!("sha256:{}", text.to_uppercase()).parse(), Ok(digest));
    }

    #[test]
    fn what_is_shorter_longer_or_no_hexadecimal_is_no_digest() {
        for wrong in ["", "a7", &"a".repeat(63), &"a".repeat(65), &"g".repeat(64), &"é".repeat(32)] {
            assert!(wrong.parse::<CodeDigest>().is_err(), "{wrong}");
        }
    }
}
