//! How somebody signs in at a provider (OpenID Connect): who vouches, and as whom.
//!
//! Never an e-mail address: providers give these to somebody else later. Both parts are compared byte by byte.

use std::fmt;
use std::sync::Arc;

use crate::limits::{ISSUER_MAX, SUBJECT_MAX};

/// Names of this machine as a URL or a header has them, without a port: there TLS would prove nothing.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "[::1]", "localhost"];

/// True for a name of this machine, without a port; that of IPv6 in brackets.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    LOOPBACK.contains(&host)
}

/// Why a text is no issuer, or no subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignInError {
    #[error("issuer has {0} bytes, expected at most {ISSUER_MAX}")]
    IssuerLength(usize),
    #[error(
        "issuer \"{0}\" is no URL of a provider, expected https://HOST as its documentation writes it, without user, \
         query and fragment; http:// only on this machine"
    )]
    Issuer(String),
    #[error("subject has {0} bytes, expected 1 to {SUBJECT_MAX}")]
    SubjectLength(usize),
    #[error(
        "subject holds other characters than printable ASCII, expected the claim sub as the provider writes it"
    )]
    SubjectCharacter,
    #[error("only one of issuer and subject is there, expected both or neither")]
    Half,
}

/// The URL under which a provider vouches. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Issuer(Arc<str>);

/// What a provider calls one account, for ever. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Arc<str>);

/// One account at one provider.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignIn {
    pub issuer: Issuer,
    pub subject: Subject,
}

impl Issuer {
    /// # Errors
    /// [`SignInError`].
    pub fn new(text: &str) -> Result<Self, SignInError> {
        if text.len() > ISSUER_MAX {
            return Err(SignInError::IssuerLength(text.len()));
        }
        if is_issuer(text) { Ok(Self(text.into())) } else { Err(SignInError::Issuer(text.to_owned())) }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host and port: what people know it by.
    #[must_use]
    pub fn host(&self) -> &str {
        parts(&self.0).map_or("", |(_, authority, _)| authority)
    }
}

impl Subject {
    /// # Errors
    /// [`SignInError`].
    pub fn new(text: &str) -> Result<Self, SignInError> {
        if text.is_empty() || text.len() > SUBJECT_MAX {
            return Err(SignInError::SubjectLength(text.len()));
        }
        if !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(SignInError::SubjectCharacter);
        }
        Ok(Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SignIn {
    /// Reads both parts; both empty: `None`.
    ///
    /// # Errors
    /// [`SignInError`].
    pub fn read(issuer: &str, subject: &str) -> Result<Option<Self>, SignInError> {
        match (issuer.is_empty(), subject.is_empty()) {
            (true, true) => Ok(None),
            (false, false) => {
                Ok(Some(Self { issuer: Issuer::new(issuer)?, subject: Subject::new(subject)? }))
            }
            _ => Err(SignInError::Half),
        }
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose account it is stays out of logs.
impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subject")
    }
}

/// Scheme, host with port, and path.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    Some((scheme, authority, path))
}

fn is_issuer(text: &str) -> bool {
    let Some((scheme, authority, path)) = parts(text) else { return false };
    let bracketed = authority.rfind(']');
    let colon = authority.rfind(':').filter(|at| bracketed.is_none_or(|end| *at > end));
    let (host, port) = colon.map_or((authority, None), |at| {
        let (host, port) = authority.split_at(at);
        (host, Some(port.trim_start_matches(':')))
    });
    let port = port.is_none_or(|port| {
        !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
    });
    let scheme = scheme == "https" || (scheme == "http" && is_loopback(host));
    scheme && port && is_host(host) && path.bytes().all(is_path)
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<core::net::Ipv6Addr>().is_ok();
    }
    // Upper case would be another text for the same host.
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    host.len() <= 253 && host.split('.').all(label)
}

fn is_path(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%|".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_https_or_on_this_machine() {
        for good in [
            "https://idp.example.org",
            "https://idp.example.org/",
            "https://login.example.org:8443/tenants/a-1/v2.0",
            "https://[2001:db8::1]:443/x",
            "http://127.0.0.1:3000",
            "http://localhost:3000/op",
            "http://[::1]:3000",
        ] {
            assert_eq!(Issuer::new(good).map(|issuer| issuer.as_str().to_owned()).as_deref(), Ok(good));
        }
        let long = format!("https://idp.example.org/{}", "a".repeat(ISSUER_MAX));
        for wrong in [
            "",
            "idp.example.org",
            "http://idp.example.org",
            "http://127.0.0.1.example.org",
            "http://127.0.0.2",
            "https://",
            "https://a@idp.example.org",
            "https://idp.example.org?tenant=a",
            "https://idp.example.org#a",
            "https://idp.example.org/a b",
            "https://idp.example.org/\"",
            "https://IDP.example.org",
            "https://idp.example.org:",
            "https://idp.example.org:99999",
            "https://idp..example.org",
            "https://[::1",
            "ftp://idp.example.org",
            long.as_str(),
        ] {
            assert!(Issuer::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_subject_is_a_line_of_printable_ascii() {
        for good in ["248289761001", "auth0|5f7c", "a b~", &"x".repeat(SUBJECT_MAX)] {
            assert!(Subject::new(good).is_ok(), "{good}");
        }
        assert_eq!(Subject::new(""), Err(SignInError::SubjectLength(0)));
        assert_eq!(Subject::new(&"x".repeat(SUBJECT_MAX + 1)), Err(SignInError::SubjectLength(256)));
        for wrong in ["a\nb", "\u{e9}", "\u{7f}"] {
            assert_eq!(Subject::new(wrong), Err(SignInError::SubjectCharacter), "{wrong:?}");
        }
    }

    #[test]
    fn a_sign_in_is_whole_or_none() {
        let issuer = "https://idp.example.org";
        assert_eq!(SignIn::read("", ""), Ok(None));
        assert_eq!(SignIn::read(issuer, ""), Err(SignInError::Half));
        assert_eq!(SignIn::read("", "7"), Err(SignInError::Half));
        let read = SignIn::read(issuer, "7").unwrap().unwrap();
        assert_eq!((read.issuer.host(), read.subject.as_str()), ("idp.example.org", "7"));
        assert!(!format!("{read:?}").contains('7'), "no log names an account");
    }
}
