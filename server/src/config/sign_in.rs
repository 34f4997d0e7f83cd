//! Sign-in to the pages at a provider: what the configuration says of it.
//!
//! Never reads the files that it names; that is for the start of the server.

use std::net::SocketAddr;
use std::path::PathBuf;

use avouch::config::decode::Section;
use avouch_domain::{Issuer, is_loopback};

use super::ConfigError;

/// Longest ID of a client in bytes: providers give out UUIDs and names of hosts.
const CLIENT_ID_MAX: usize = 256;

/// A provider, and what this server is to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInConfig {
    pub issuer: Issuer,
    pub client_id: String,
    /// `None`: a public client.
    pub secret_file: Option<PathBuf>,
    /// `None`: who vouches for web servers on this machine.
    pub ca_file: Option<PathBuf>,
    /// Host and port as the provider knows the pages; `None`: as they are.
    pub host: Option<String>,
}

/// Reads the keys, of which all are about the one that names the provider.
pub(super) fn sign_in(
    server: &Section<'_>,
    pages: Option<SocketAddr>,
) -> Result<Option<SignInConfig>, ConfigError> {
    let text = |key| server.text(key).filter(|text| !text.is_empty());
    let Some(issuer) = text("console_issuer") else {
        let others = ["console_client_id", "console_client_secret_file", "console_ca_file", "console_url"];
        return match others.into_iter().find_map(|key| text(key).map(|value| (key, value))) {
            Some((key, value)) => Err(ConfigError::Value {
                key,
                value,
                problem: "expected console_issuer beside it: the URL of the provider".into(),
            }),
            None => Ok(None),
        };
    };
    let issuer = Issuer::new(&issuer).map_err(|e| ConfigError::Value {
        key: "console_issuer",
        value: issuer,
        problem: e.to_string(),
    })?;
    let pages = pages.ok_or_else(|| ConfigError::Value {
        key: "console_issuer",
        value: issuer.to_string(),
        problem: "expected console_address beside it: there are no pages to sign in to".into(),
    })?;
    Ok(Some(SignInConfig {
        client_id: client_id(text("console_client_id"))?,
        secret_file: text("console_client_secret_file").map(PathBuf::from),
        ca_file: text("console_ca_file").map(PathBuf::from),
        host: text("console_url").map(|url| host(url, pages)).transpose()?,
        issuer,
    }))
}

fn client_id(text: Option<String>) -> Result<String, ConfigError> {
    let id = text.ok_or(ConfigError::Required("console_client_id, which the provider gave this server,"))?;
    if id.len() <= CLIENT_ID_MAX && id.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(id);
    }
    Err(ConfigError::Value {
        key: "console_client_id",
        value: id,
        problem: format!("expected at most {CLIENT_ID_MAX} visible ASCII characters"),
    })
}

/// The pages answer under their own names and at their own port alone.
fn host(url: String, pages: SocketAddr) -> Result<String, ConfigError> {
    let read = || {
        let host = url.strip_prefix("http://")?;
        let host = host.strip_suffix('/').unwrap_or(host);
        let name = match pages.port() {
            80 => host.strip_suffix(":80").unwrap_or(host),
            port => host.strip_suffix(&format!(":{port}"))?,
        };
        let whole = if pages.port() == 80 { name } else { host };
        is_loopback(name).then(|| whole.to_owned())
    };
    read().ok_or_else(|| ConfigError::Value {
        key: "console_url",
        problem: format!(
            "expected http://localhost:{0}, http://127.0.0.1:{0} or http://[::1]:{0}, with the port of console_address",
            pages.port()
        ),
        value: url,
    })
}
