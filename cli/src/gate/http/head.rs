//! Headers on both ways: what goes on, and what stays out because it could widen what was decided.
//!
//! Never lets a caller's credentials, or its claims about where a request comes from and what it is, reach an upstream; nor
//! an upstream's cookies reach a caller.

use std::collections::BTreeSet;

use hyper::HeaderMap;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST,
    HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
};

use super::{Api, Held};

/// Of one connection only (RFC 9110, section 7.6.1), or about how the message is framed.
const HOP: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Credentials, and what servers take for another origin, method or path than those of the request.
const CLAIMS: [&str; 23] = [
    "accept-encoding",
    "authorization",
    "cf-connecting-ip",
    "client-ip",
    "cookie",
    "cookie2",
    "forwarded",
    "fastly-client-ip",
    "host",
    "range",
    "if-range",
    "true-client-ip",
    "via",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
    "x-real-ip",
];
/// What such headers begin with.
const CLAIM_FAMILIES: [&str; 4] = ["proxy-", "x-avouch-", "x-forwarded-", "x-rewrite-"];
/// What an answer keeps to itself.
const OWN: [&str; 3] = ["alt-svc", "set-cookie", "set-cookie2"];

/// What of a caller's headers goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Whatever does not widen.
    Most,
    /// What says how an answer is to look, and no more: a person was shown the rest.
    Few,
}

/// The headers for the upstream, with the secret.
///
/// # Errors
/// The secret can't stand in a header.
pub fn to_upstream(from: &HeaderMap, api: &Api, pass: Pass) -> Result<HeaderMap, String> {
    let named = named_by_connection(from);
    let mut to = HeaderMap::new();
    for (name, value) in from {
        let goes = match pass {
            Pass::Most => !is_held_back(name, &named, api.held()),
            Pass::Few => [ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE, USER_AGENT].contains(name),
        };
        if goes {
            to.append(name.clone(), value.clone());
        }
    }
    let host =
        HeaderValue::from_str(&api.upstream.authority).map_err(|_| "the upstream has no name".to_owned())?;
    to.insert(HOST, host);
    // A secret that comes back is looked for, and rows are counted, in what is not compressed.
    to.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(Held { header, prefix, value }) = api.held() {
        let wrong = |_| "the secret can't stand in a header".to_owned();
        let name =
            HeaderName::from_bytes(header.as_bytes()).map_err(|_| format!("\"{header}\" is no header"))?;
        let text = zeroize::Zeroizing::new(format!("{prefix}{}", value.as_str()));
        let mut value = HeaderValue::from_str(&text).map_err(wrong)?;
        value.set_sensitive(true);
        to.insert(name, value);
    }
    Ok(to)
}

/// Names that a `Connection` header takes for those of this connection only.
fn named_by_connection(headers: &HeaderMap) -> BTreeSet<String> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

fn is_held_back(name: &HeaderName, named: &BTreeSet<String>, secret: Option<&Held>) -> bool {
    // Servers that hand headers over as variables see no difference between the two.
    let alike = |name: &str| name.replace('_', "-");
    let name = alike(name.as_str());
    let known = |list: &[&str]| list.contains(&name.as_str());
    known(&HOP)
        || known(&CLAIMS)
        || CLAIM_FAMILIES.iter().any(|family| name.starts_with(family))
        || named.iter().any(|named| alike(named) == name)
        || secret.is_some_and(|secret| alike(&secret.header) == name)
}

/// The headers for the caller. `whole`: the answer goes through as it is; else only what says how it is to be read does.
pub fn to_caller(from: &HeaderMap, whole: bool, head_only: bool) -> HeaderMap {
    let named = named_by_connection(from);
    let mut to = HeaderMap::new();
    for (name, value) in from {
        let text = name.as_str();
        let goes = match whole {
            true => {
                !HOP.contains(&text)
                    && !OWN.contains(&text)
                    && !text.starts_with("x-avouch-")
                    && !named.contains(text)
            }
            false => [CONTENT_TYPE, DATE, RETRY_AFTER].contains(name),
        };
        // The length of what is not sent is told, not measured.
        if goes || (whole && head_only && *name == CONTENT_LENGTH) {
            to.append(name.clone(), value.clone());
        }
    }
    to
}

/// True if a header holds these bytes.
pub fn holds(headers: &HeaderMap, secret: &[u8]) -> bool {
    headers.iter().any(|(_, value)| super::body::find(value.as_bytes(), secret).is_some())
}

#[cfg(test)]
mod tests {
    use super::super::tests::api;
    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        list.iter().map(pair).collect()
    }

    #[test]
    fn what_could_widen_stays_out_and_the_secret_is_the_gates() {
        let from = headers(&[
            ("accept", "application/json"),
            ("x-request-id", "7"),
            ("authorization", "Bearer mine"),
            ("Cookie", "a=b"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x_forwarded_for", "10.0.0.1"),
            ("x-http-method-override", "DELETE"),
            ("x-original-url", "/admin"),
            ("x-rewrite-url", "/admin"),
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("host", "127.0.0.1:1"),
            ("x-api-key", "mine"),
            ("x_api_key", "mine"),
            ("range", "bytes=0-1"),
            ("x-avouch-reason", "x"),
        ]);
        let to = to_upstream(&from, &api("http://127.0.0.1:1"), Pass::Most).unwrap();
        let seen: BTreeSet<_> = to.keys().map(HeaderName::as_str).collect();
        assert_eq!(seen, ["accept", "accept-encoding", "host", "x-api-key", "x-request-id"].into());
        assert_eq!(
            (&to["host"], &to["x-api-key"]),
            (&"127.0.0.1:1".parse().unwrap(), &"s3cret-text".parse().unwrap())
        );
        assert!(to["x-api-key"].is_sensitive());
        let few = to_upstream(&from, &api("http://127.0.0.1:1"), Pass::Few).unwrap();
        assert!(!few.contains_key("x-request-id") && few.contains_key("x-api-key"));
    }

    #[test]
    fn an_answer_keeps_its_cookies_and_says_nothing_for_the_gate() {
        let from = headers(&[
            ("content-type", "application/json"),
            ("content-length", "5"),
            ("etag", "\"x\""),
            ("location", "https://other.example.org/"),
            ("set-cookie", "session=1"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("x-avouch-limits", "none"),
        ]);
        let seen = |whole, head_only| {
            let to = to_caller(&from, whole, head_only);
            to.keys().map(|name| name.as_str().to_owned()).collect::<BTreeSet<_>>()
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(seen(true, false), names(&["content-type", "etag", "location"]));
        assert_eq!(seen(true, true), names(&["content-length", "content-type", "etag", "location"]));
        assert_eq!(seen(false, false), names(&["content-type"]));
    }
}
