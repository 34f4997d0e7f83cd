//! Where an endpoint is: a Unix socket, or what `SPIFFE_ENDPOINT_SOCKET` may name beside that.
//!
//! Never looks a host name up: the standard allows addresses only (SPIFFE Workload Endpoint, locating the endpoint).

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::VerbError;

/// The variable of the standard.
pub const VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";

/// An address that can be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Place {
    /// Reads the variable's value: `unix:///path`, `unix:/path` or `tcp://IP:port`, and nothing beside it.
    ///
    /// # Errors
    /// A text with the value and the forms that are allowed.
    pub fn parse(value: &str) -> Result<Self, VerbError> {
        Self::read(value).ok_or_else(|| {
            VerbError::Text(format!("{VARIABLE} is \"{value}\", expected unix:///path or tcp://IP:port"))
        })
    }

    fn read(value: &str) -> Option<Self> {
        if value.contains(['?', '#']) {
            return None;
        }
        if let Some(rest) = value.strip_prefix("unix:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            return path.starts_with('/').then(|| Self::Unix(path.into()));
        }
        value.strip_prefix("tcp://")?.parse().ok().map(Self::Tcp)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix {}", path.display()),
            Self::Tcp(address) => write!(f, "tcp {address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_paths_are_absolute_and_alone() {
        for good in ["unix:///a/b", "unix:/a/b"] {
            assert_eq!(Place::read(good), Some(Place::Unix("/a/b".into())));
        }
        for bad in ["/a", "unix:a", "unix://a/b", "unix:///a?x", "unix:///a#x", "http:///a", "UNIX:///a"] {
            assert_eq!(Place::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn tcp_addresses_are_numbers_with_a_port() {
        for good in ["tcp://127.0.0.1:1", "tcp://[::1]:1"] {
            assert!(matches!(Place::read(good), Some(Place::Tcp(_))), "{good}");
        }
        for bad in
            ["tcp://localhost:1", "tcp://1.2.3.4", "tcp://1.2.3.4:1/", "tcp://u@1.2.3.4:1", "tcp:1.2.3.4:1"]
        {
            assert_eq!(Place::read(bad), None, "{bad}");
        }
    }
}
