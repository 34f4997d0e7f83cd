//! What the keys of the server's x509pop block mean: one reading, whoever the block comes from.
//!
//! Never: no file is read here.

use std::path::PathBuf;

use super::template::Template;

/// Which SVIDs prove a node in mode `spiffe`, if the configuration does not say.
const DEFAULT_SPIFFE_PREFIX: &str = "/spire-exchange/";

/// The keys as they are written; what is absent is `None` or empty.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VerifierKeys {
    pub mode: Option<String>,
    pub ca_bundle_path: Option<PathBuf>,
    pub ca_bundle_paths: Vec<PathBuf>,
    pub spiffe_prefix: Option<String>,
    pub agent_path_template: Option<String>,
    pub max_intermediates: Option<usize>,
    pub max_rsa_key_size: Option<usize>,
    pub verify_client_ip: Option<bool>,
}

/// Who vouches for a node's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The roots in these PEM files; at least one file.
    Files(Vec<PathBuf>),
    /// The trust domain itself: the certificate is an X509-SVID whose path begins with `prefix`.
    OwnBundle { prefix: String },
}

/// What the configuration says, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierConfig {
    pub trust: Trust,
    /// Path of the agent's ID below `/spire/agent`.
    pub template: Template,
    /// Most certificates beside the leaf.
    pub max_intermediates: usize,
    /// Longest RSA key, in bits.
    pub max_rsa_key_size: usize,
    /// The connection must come from an IP address that the certificate names.
    pub verify_client_ip: bool,
}

impl VerifierKeys {
    /// Checks the keys against each other and fills in the defaults.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn check(self) -> Result<VerifierConfig, String> {
        let trust = match self.mode.as_deref() {
            None | Some("" | "external_pki") => {
                Trust::Files(files(self.ca_bundle_path, self.ca_bundle_paths)?)
            }
            Some("spiffe") => {
                if self.ca_bundle_path.is_some() || !self.ca_bundle_paths.is_empty() {
                    return Err("you can not use ca_bundle_path or ca_bundle_paths in spiffe mode: the \
                                bundle of the trust domain is used"
                        .to_owned());
                }
                Trust::OwnBundle { prefix: prefix(self.spiffe_prefix)? }
            }
            Some(other) => {
                return Err(format!("mode can only be either spiffe or external_pki, got {other:?}"));
            }
        };
        let template = match self.agent_path_template.filter(|t| !t.is_empty()) {
            Some(text) => Template::parse(&text).map_err(|e| format!("agent_path_template: {e}"))?,
            None => Template::default_of(&trust),
        };
        if matches!(trust, Trust::Files(_)) && template.names("SVIDPathTrimmed") {
            return Err("agent_path_template: .SVIDPathTrimmed is there in mode spiffe only".to_owned());
        }
        Ok(VerifierConfig {
            trust,
            template,
            max_intermediates: self.max_intermediates.unwrap_or(4),
            max_rsa_key_size: self.max_rsa_key_size.unwrap_or(8192),
            verify_client_ip: self.verify_client_ip.unwrap_or(false),
        })
    }
}

fn files(one: Option<PathBuf>, several: Vec<PathBuf>) -> Result<Vec<PathBuf>, String> {
    match (one, several.is_empty()) {
        (Some(one), true) => Ok(vec![one]),
        (None, false) => Ok(several),
        (None, true) => Err("one of ca_bundle_path or ca_bundle_paths must be configured".to_owned()),
        (Some(_), false) => {
            Err("only one of ca_bundle_path or ca_bundle_paths can be configured, not both".to_owned())
        }
    }
}

fn prefix(given: Option<String>) -> Result<String, String> {
    let prefix = given.filter(|p| !p.is_empty()).unwrap_or_else(|| DEFAULT_SPIFFE_PREFIX.to_owned());
    if prefix.starts_with('/') && prefix.ends_with('/') && prefix != "/" {
        return Ok(prefix);
    }
    Err(format!("spiffe_prefix is {prefix:?}, expected a path that begins and ends with a slash, as /nodes/"))
}
