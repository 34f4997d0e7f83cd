//! Opaque names of things that people read and type: a prefix and lowercase letters or digits.

/// Longest such name in bytes: the prefix and a UUID without dashes fit.
pub const OPAQUE_ID_MAX: usize = 40;

/// A text is no name of this kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no {what}'s ID, expected {prefix} and lowercase letters or digits")]
pub struct OpaqueIdError {
    what: &'static str,
    prefix: &'static str,
    text: String,
}

/// Whether a text is a name with this prefix.
pub(crate) fn fits(what: &'static str, prefix: &'static str, text: &str) -> Result<(), OpaqueIdError> {
    let rest = text.strip_prefix(prefix).unwrap_or_default();
    let whole = !rest.is_empty() && text.len() <= OPAQUE_ID_MAX;
    if whole && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        Ok(())
    } else {
        Err(OpaqueIdError { what, prefix, text: text.chars().take(OPAQUE_ID_MAX).collect() })
    }
}

/// Makes the type of such names: `opaque_id!(RequestId, "request", "req_")`.
macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(::std::sync::Arc<str>);

        impl $name {
            /// How each of them begins.
            pub const PREFIX: &str = $prefix;

            /// # Errors
            /// [`OpaqueIdError`](crate::opaque_id::OpaqueIdError).
            pub fn new(text: &str) -> Result<Self, $crate::opaque_id::OpaqueIdError> {
                $crate::opaque_id::fits($what, $prefix, text)?;
                Ok(Self(text.into()))
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

pub(crate) use opaque_id;
