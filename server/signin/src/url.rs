//! URLs that a provider names.
//!
//! Never one without TLS, unless it is on this machine and the provider is, too.

use avouch_domain::{Issuer, is_loopback};
use http::Uri;

use crate::error::SignInFailed;
use crate::limits::URL_MAX;

/// Where to ask, in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) text: String,
    pub(crate) tls: bool,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// As the header `Host` has it.
    pub(crate) authority: String,
    pub(crate) path_and_query: String,
}

impl Url {
    /// Reads a URL of this provider; `what` names it in errors.
    pub(crate) fn read(text: &str, what: &'static str, issuer: &Issuer) -> Result<Self, SignInFailed> {
        let wrong =
            || SignInFailed::Document(format!("{what} is no URL that can be used: expected https://"));
        if text.len() > URL_MAX || text.contains('#') {
            return Err(wrong());
        }
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        let local = issuer.as_str().starts_with("http://");
        let tls = match uri.scheme_str() {
            Some("https") => true,
            // What is said to be on this machine is asked on this machine alone.
            Some("http") if local && is_loopback(authority.host()) => false,
            _ => return Err(wrong()),
        };
        Ok(Self {
            text: text.to_owned(),
            tls,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path_and_query: uri
                .path_and_query()
                .map_or_else(|| "/".to_owned(), |path| path.as_str().to_owned()),
        })
    }

    /// The same with more fields in its query.
    pub(crate) fn with(&self, fields: &[(&str, &str)]) -> String {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let sign = if self.text.contains('?') { '&' } else { '?' };
        format!("{}{sign}{query}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, issuer: &str) -> Option<Url> {
        Url::read(text, "token_endpoint", &Issuer::new(issuer).unwrap()).ok()
    }

    #[test]
    fn a_url_of_a_provider_has_tls() {
        let there = "https://idp.example.org";
        let url = read("https://api.example.org:8443/token?x=1", there).unwrap();
        assert_eq!((url.host.as_str(), url.port, url.tls), ("api.example.org", 8443, true));
        assert_eq!(
            (url.authority.as_str(), url.path_and_query.as_str()),
            ("api.example.org:8443", "/token?x=1")
        );
        assert_eq!(url.with(&[("a", "b c")]), "https://api.example.org:8443/token?x=1&a=b+c");
        let long = format!("https://idp.example.org/{}", "a".repeat(URL_MAX));
        for wrong in [
            "",
            "/token",
            "http://idp.example.org/token",
            "http://127.0.0.1/token",
            "https://a@idp.example.org/",
            "https://idp.example.org/#a",
            "ftp://idp.example.org/",
            "javascript:alert(1)",
            long.as_str(),
        ] {
            assert!(read(wrong, there).is_none(), "{wrong}");
        }
    }

    #[test]
    fn without_tls_is_asked_on_this_machine_for_a_provider_of_this_machine_alone() {
        let url = read("http://127.0.0.1:3000/token", "http://127.0.0.1:3000").unwrap();
        assert_eq!((url.tls, url.port), (false, 3000));
        assert_eq!(read("http://[::1]/", "http://localhost").unwrap().host, "::1");
        assert!(read("http://idp.example.org/token", "http://127.0.0.1:3000").is_none());
    }
}
