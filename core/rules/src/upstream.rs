//! Where an HTTP gate sends what it lets through.
//!
//! Never plain text over a network: a secret goes along.

use core::net::{IpAddr, Ipv6Addr};

use crate::limits::UPSTREAM_MAX;
use crate::route::is_plain_segment;

/// How it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// TLS, its name checked.
    Tls { host: String, port: u16 },
    /// This machine only.
    Loopback { host: String, port: u16 },
    /// A Unix socket; an absolute path.
    Socket(String),
}

/// `https://HOST[:PORT][/BASE]`, `http://` to this machine, or `unix:/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub reach: Reach,
    /// What it is called in `Host`.
    pub authority: String,
    /// What stands before each path: nothing, or parts that each begin with `/`.
    pub base: String,
}

/// What [`Upstream::parse`] expects, for messages.
pub(crate) const FORM: &str =
    "write https://HOST[:PORT][/BASE], http://127.0.0.1:PORT for a server on this machine, or unix:/PATH";

impl Upstream {
    /// Reads where it is.
    ///
    /// # Errors
    /// One sentence on what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("upstream \"{}\" {why}", text.escape_default());
        if text.len() > UPSTREAM_MAX {
            return Err(format!("upstream of {} bytes, at most {UPSTREAM_MAX}", text.len()));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let inside = |c: char| c.is_control() || c == '\0';
            let whole =
                path.starts_with('/') && !path.contains(inside) && !path.split('/').any(|p| p == "..");
            let here = Self {
                reach: Reach::Socket(path.to_owned()),
                authority: "localhost".to_owned(),
                base: String::new(),
            };
            return if whole { Ok(here) } else { Err(wrong("is no absolute path of a socket")) };
        }
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(wrong("is neither https:// nor unix:")),
        };
        let (authority, base) = rest.split_once('/').map_or((rest, ""), |(a, base)| (a, base));
        let base = base.strip_suffix('/').unwrap_or(base);
        if !base.is_empty() && !base.split('/').all(is_plain_segment) {
            return Err(wrong("has a path with more than plain parts in it"));
        }
        let (host, port) = split_authority(authority).ok_or_else(|| wrong("names no host and port"))?;
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        let reach = match (tls, is_loopback(&host)) {
            (true, _) => Reach::Tls { host, port },
            (false, true) => Reach::Loopback { host, port },
            (false, false) => return Err(wrong("would be asked in plain text over a network")),
        };
        let base = if base.is_empty() { String::new() } else { format!("/{base}") };
        Ok(Self { reach, authority: authority.to_owned(), base })
    }
}

/// Host, without the brackets of an address, and port.
fn split_authority(text: &str) -> Option<(String, Option<u16>)> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port > 0)
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let port = match after.strip_prefix(':') {
            Some(text) => Some(port(text)?),
            None if after.is_empty() => None,
            None => return None,
        };
        return Some((address.to_string(), port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, text)) => (host, Some(port(text)?)),
        None => (text, None),
    };
    let label = |label: &str| {
        let inside = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_';
        !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && label.bytes().all(inside)
    };
    (host.len() <= 253 && host.split('.').all(label)).then(|| (host.to_owned(), port))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_gate_sends_is_read_with_its_port_and_its_base() {
        let tls = |host: &str, port| Reach::Tls { host: host.to_owned(), port };
        let plain = |host: &str, port| Reach::Loopback { host: host.to_owned(), port };
        for (text, reach, authority, base) in [
            ("https://api.example.org", tls("api.example.org", 443), "api.example.org", ""),
            ("https://api.example.org:8443/v1/", tls("api.example.org", 8443), "api.example.org:8443", "/v1"),
            ("https://[2001:db8::1]:1/a/b", tls("2001:db8::1", 1), "[2001:db8::1]:1", "/a/b"),
            ("http://127.0.0.1:8080", plain("127.0.0.1", 8080), "127.0.0.1:8080", ""),
            ("http://localhost/x", plain("localhost", 80), "localhost", "/x"),
            ("unix:/run/api.sock", Reach::Socket("/run/api.sock".to_owned()), "localhost", ""),
        ] {
            let base = base.to_owned();
            assert_eq!(Upstream::parse(text), Ok(Upstream { reach, authority: authority.to_owned(), base }));
        }
    }

    #[test]
    fn what_is_no_place_to_send_to_is_told() {
        for (text, told) in [
            ("http://api.example.org", "in plain text over a network"),
            ("http://10.0.0.1:80", "in plain text over a network"),
            ("ftp://api.example.org", "neither https:// nor unix:"),
            ("https://", "names no host"),
            ("https://ada:pw@api.example.org", "names no host"),
            ("https://api.example.org:0", "names no host"),
            ("https://api.example.org:99999", "names no host"),
            ("https://api..example.org", "names no host"),
            ("https://API.example.org", "names no host"),
            ("https://[::1", "names no host"),
            ("https://api.example.org/a/../b", "more than plain parts"),
            ("https://api.example.org/?q", "more than plain parts"),
            ("unix:run/api.sock", "no absolute path of a socket"),
            ("unix:/run/../api.sock", "no absolute path of a socket"),
        ] {
            assert!(Upstream::parse(text).unwrap_err().contains(told), "{text}");
        }
        assert!(
            Upstream::parse(&format!("https://{}", "a".repeat(UPSTREAM_MAX)))
                .unwrap_err()
                .contains("at most")
        );
    }
}
