//! Salts: by them what is private in a call stands in its record as a digest that nobody can read back or guess without them.
//!
//! Never in a record themselves: a salt that is erased makes a random number of each of its digests.

use std::fmt;

use avouch_domain::Timestamp;
use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use zeroize::Zeroizing;

use super::record::{RecordError, time_text};
use crate::random::{self, RandomError};

/// Bytes of a salt.
const BYTES: usize = 32;
/// Bytes of a digest: enough that two values never share one.
const DIGEST_BYTES: usize = 16;

/// What a day is called, counted from 1970 in UTC: 2026-11-30.
///
/// # Errors
/// [`RecordError`] for a day that no calendar has.
pub fn day_name(day: i64) -> Result<String, RecordError> {
    let mut name = time_text(Timestamp::from_secs(day.saturating_mul(86_400)))?;
    name.truncate("2026-11-30".len());
    Ok(name)
}

/// The salt of a day on one node.
pub struct Salt(Key);

/// Why a text is no salt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no salt, expected {} hexadecimal digits", 2 * BYTES)]
pub struct SaltError;

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt")
    }
}

impl Salt {
    /// A new one, as text.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn fresh() -> Result<Zeroizing<String>, RandomError> {
        let bytes = Zeroizing::new(random::bytes::<BYTES>()?);
        Ok(Zeroizing::new(hex::encode(*bytes)))
    }

    /// Reads what [`Self::fresh`] gives.
    ///
    /// # Errors
    /// [`SaltError`].
    pub fn read(text: &str) -> Result<Self, SaltError> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        hex::decode_to_slice(text.trim_end(), &mut *bytes).map_err(|_| SaltError)?;
        Ok(Self(Key::new(HMAC_SHA256, &*bytes)))
    }

    /// The digest of one argument of a call. `name` holds no zero byte. One value has one digest, and one under each name; what
    /// has several values is given them all, ascending.
    #[must_use]
    pub fn digest<'a>(&self, name: &str, values: impl IntoIterator<Item = &'a str>) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(name.as_bytes());
        for value in values {
            context.update(&[0]);
            // With its length, so that no two lists read alike.
            context.update(&(value.len() as u64).to_be_bytes());
            context.update(value.as_bytes());
        }
        let tag = context.sign();
        hex::encode(tag.as_ref().get(..DIGEST_BYTES).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_argument_has_one_digest_and_no_other_has_it() {
        let text = Salt::fresh().unwrap();
        let salt = Salt::read(&format!("{}\n", *text)).unwrap();
        let path = salt.digest("path", ["a"]);
        assert_eq!((path.len(), salt.digest("path", ["a"])), (32, path.clone()));
        for (name, values) in [("path", &["b"][..]), ("branch", &["a"]), ("path", &["a", ""]), ("path", &[])]
        {
            assert_ne!(salt.digest(name, values.iter().copied()), path, "{name} {values:?}");
        }
        assert_ne!(salt.digest("p", ["a", "b"]), salt.digest("p", ["ab"]));
        let other = Salt::read(&Salt::fresh().unwrap()).unwrap();
        assert_ne!(other.digest("path", ["a"]), path, "another day, another digest");
    }

    #[test]
    fn a_day_has_the_name_of_its_date() {
        let names = [0, 20_000, -1].map(|day| day_name(day).unwrap());
        assert_eq!(names, ["1970-01-01", "2024-10-04", "1969-12-31"]);
    }

    #[test]
    fn what_is_no_salt_is_refused_and_none_is_shown() {
        for wrong in ["", "00", &"g".repeat(64), &"0".repeat(66)] {
            assert_eq!(Salt::read(wrong).err(), Some(SaltError), "{wrong}");
        }
        let text = Salt::fresh().unwrap();
        assert_eq!(format!("{:?}", Salt::read(&text).unwrap()), "Salt");
    }
}
