//! Sealing: bytes at rest that only the holder of a secret can read, and only for what they were sealed for.
//!
//! AES-256-GCM below a key that HKDF derives from the secret. Never leaves a plain copy behind: plain bytes are
//! overwritten in place, in memory that is wiped.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

/// Length of the secret in bytes.
pub const SECRET_LEN: usize = 32;

/// Why bytes can't be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the cryptography library refused to seal")]
    Seal,
    /// Which of them it is can't be told, on purpose of the cipher.
    #[error("damaged, or sealed with another secret or for another owner")]
    Open,
}

/// Seals and opens with one secret for one purpose.
pub struct Sealer(RandomizedNonceKey);

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// `secret`: random bytes. `purpose` keeps what one secret seals for different ends apart.
    ///
    /// # Errors
    /// [`SealError::Seal`] from the library.
    pub fn new(secret: &[u8; SECRET_LEN], purpose: &str) -> Result<Self, SealError> {
        let prk = Salt::new(HKDF_SHA256, &[]).extract(secret);
        let mut key = Zeroizing::new([0; SECRET_LEN]);
        let filled = prk.expand(&[purpose.as_bytes()], &AES_256_GCM).and_then(|okm| okm.fill(&mut *key));
        filled.map_err(|_| SealError::Seal)?;
        RandomizedNonceKey::new(&AES_256_GCM, &*key).map(Self).map_err(|_| SealError::Seal)
    }

    /// Seals `plain` for `owner`: the same bytes are needed to open it. The nonce is random, which is good for
    /// 2^32 times.
    ///
    /// # Errors
    /// [`SealError::Seal`] from the library.
    pub fn seal(&self, owner: &[u8], mut plain: Zeroizing<Vec<u8>>) -> Result<Vec<u8>, SealError> {
        let sealed = self.0.seal_in_place_separate_tag(Aad::from(owner), plain.as_mut_slice());
        let (nonce, tag) = sealed.map_err(|_| SealError::Seal)?;
        let mut sealed = std::mem::take(&mut *plain);
        sealed.extend_from_slice(tag.as_ref());
        sealed.extend_from_slice(nonce.as_ref());
        Ok(sealed)
    }

    /// Opens what [`Sealer::seal`] made.
    ///
    /// # Errors
    /// [`SealError::Open`] if a bit is another, or the secret or the owner is.
    pub fn open(&self, owner: &[u8], sealed: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let mut bytes = Zeroizing::new(sealed);
        let end = bytes.len().checked_sub(NONCE_LEN).ok_or(SealError::Open)?;
        let nonce = bytes.get(end..).and_then(|n| Nonce::try_assume_unique_for_key(n).ok());
        bytes.truncate(end);
        let opened = self.0.open_in_place(nonce.ok_or(SealError::Open)?, Aad::from(owner), &mut bytes);
        let length = opened.map_err(|_| SealError::Open)?.len();
        bytes.truncate(length);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; SECRET_LEN] = [7; SECRET_LEN];

    fn sealer() -> Sealer {
        Sealer::new(&SECRET, "test").unwrap()
    }

    fn plain() -> Zeroizing<Vec<u8>> {
        Zeroizing::new(b"a key that nobody may see".to_vec())
    }

    #[test]
    fn what_was_sealed_opens_for_its_owner_and_shows_nothing_of_itself() {
        let sealed = sealer().seal(b"me", plain()).unwrap();
        assert!(!sealed.windows(3).any(|w| w == b"key"));
        assert_eq!(sealer().open(b"me", sealed).unwrap(), plain());
    }

    #[test]
    fn equal_bytes_are_sealed_differently_each_time() {
        assert_ne!(sealer().seal(b"me", plain()).unwrap(), sealer().seal(b"me", plain()).unwrap());
    }

    #[test]
    fn another_owner_secret_or_purpose_opens_nothing() {
        let sealed = sealer().seal(b"me", plain()).unwrap();
        let other_secret = Sealer::new(&[8; SECRET_LEN], "test").unwrap();
        let other_purpose = Sealer::new(&SECRET, "tests").unwrap();
        assert_eq!(sealer().open(b"you", sealed.clone()), Err(SealError::Open));
        assert_eq!(other_secret.open(b"me", sealed.clone()), Err(SealError::Open));
        assert_eq!(other_purpose.open(b"me", sealed), Err(SealError::Open));
    }

    #[test]
    fn a_cut_or_a_flipped_bit_anywhere_opens_nothing() {
        let sealed = sealer().seal(b"me", plain()).unwrap();
        for end in 0..sealed.len() {
            assert_eq!(sealer().open(b"me", sealed[..end].to_vec()), Err(SealError::Open));
            for bit in 0..8 {
                let mut flipped = sealed.clone();
                flipped[end] ^= 1 << bit;
                assert_eq!(sealer().open(b"me", flipped), Err(SealError::Open));
            }
        }
    }
}
