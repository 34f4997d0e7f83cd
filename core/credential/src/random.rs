//! Random bytes for serial numbers, key IDs and token IDs, from the library's system generator.
//!
//! Never a seedable or user-space generator: these values must not be guessable.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::limits::KID_LENGTH;

/// The system's random source failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct RandomError;

/// `N` random bytes.
///
/// # Errors
/// If the system's source fails.
pub fn bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut out = [0; N];
    SystemRandom::new().fill(&mut out).map_err(|_| RandomError)?;
    Ok(out)
}

/// A certificate serial number, uniform in [1, 2^128 - 1], big-endian.
///
/// # Errors
/// If the system's source fails.
pub fn serial() -> Result<[u8; 16], RandomError> {
    loop {
        let serial = bytes()?;
        if serial != [0; 16] {
            return Ok(serial);
        }
    }
}

/// An ID for a JWT key: 32 letters and digits, each equally likely.
///
/// # Errors
/// If the system's source fails.
pub fn kid() -> Result<String, RandomError> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut kid = String::with_capacity(KID_LENGTH);
    while kid.len() < KID_LENGTH {
        // 248 = 4 * 62: larger bytes would make some characters likelier than others.
        let letters = bytes::<64>()?.into_iter().filter(|b| *b < 248);
        let letters = letters.filter_map(|b| ALPHABET.get(usize::from(b % 62)));
        kid.extend(letters.take(KID_LENGTH - kid.len()).map(|b| char::from(*b)));
    }
    Ok(kid)
}

/// A `jti`: 22 characters, the unpadded base64url form of a version 4 UUID.
///
/// # Errors
/// If the system's source fails.
pub fn jti() -> Result<String, RandomError> {
    let mut uuid = u128::from_be_bytes(bytes()?);
    uuid = uuid & !(0xf << 76) | 4 << 76;
    uuid = uuid & !(0x3 << 62) | 0x2 << 62;
    Ok(URL_SAFE_NO_PAD.encode(uuid.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_differ() {
        assert_ne!(serial().unwrap(), serial().unwrap());
    }

    #[test]
    fn a_key_id_is_32_letters_and_digits() {
        let kid = kid().unwrap();
        assert_eq!(kid.len(), 32);
        assert!(kid.bytes().all(|b| b.is_ascii_alphanumeric()));
    }

    #[test]
    fn a_token_id_is_a_version_4_uuid_in_22_characters() {
        let jti = jti().unwrap();
        assert_eq!(jti.len(), 22);
        let uuid = URL_SAFE_NO_PAD.decode(jti).unwrap();
        assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (4, 2));
    }
}
