//! The one list of attestors: name as in SPIRE's configuration, keys, and how to build it.
//!
//! Never: no attestor is reachable but through its row, and no row builds half of one.

use std::sync::Arc;

use avouch_domain::TrustDomain;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::node::{NodeProver, NodeVerifier, join_token, x509pop};
use crate::workload::{WorkloadLooker, unix};

/// A plugin's configuration block (`plugin_data`).
pub type Block = serde_json::Map<String, serde_json::Value>;

/// What some constructors need beside their block.
#[derive(Clone, Debug)]
pub struct Context {
    pub trust_domain: TrustDomain,
    pub join_token: Option<Zeroizing<String>>,
}

/// Why an attestor can't be built from its block.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("{name}: not supported yet: {key}")]
    NotBuilt { name: &'static str, key: String },
    #[error("{name}: {message}")]
    Config { name: &'static str, message: String },
}

/// One attestor of a kind.
#[derive(Debug)]
pub struct Row<T> {
    /// As in the configuration and on the wire.
    pub name: &'static str,
    /// Keys of its block.
    pub keys: &'static [&'static str],
    /// Keys that SPIRE knows and this does not: "not supported yet".
    pub unbuilt_keys: &'static [&'static str],
    /// Where it is described, below docs/.
    pub doc: &'static str,
    pub build: fn(&Block, &Context) -> Result<T, BuildError>,
}

/// The agent's side.
pub const NODE_PROVERS: &[Row<Box<dyn NodeProver>>] = &[
    Row {
        name: join_token::NAME,
        keys: &[],
        unbuilt_keys: &[],
        doc: "GLOSSARY.md#join-token",
        build: |_, context| {
            Ok(Box::new(join_token::Prover::new(context.join_token.clone().unwrap_or_default())))
        },
    },
    Row {
        name: x509pop::NAME,
        keys: &["private_key_path", "certificate_path", "intermediates_path"],
        unbuilt_keys: &["spiffe_endpoint_socket"],
        doc: "GLOSSARY.md#node-attestation",
        build: |block, _| {
            let name = x509pop::NAME;
            refuse_unbuilt(name, block, &["spiffe_endpoint_socket"])?;
            let prover = x509pop::Prover::load(decode(name, block)?)
                .map_err(|e| BuildError::Config { name, message: e.message })?;
            Ok(Box::new(prover))
        },
    },
];

/// The server's side. A join token has no row: spending it is one write of the server.
pub const NODE_VERIFIERS: &[Row<Arc<dyn NodeVerifier>>] = &[Row {
    name: x509pop::NAME,
    keys: &[
        "mode",
        "ca_bundle_path",
        "ca_bundle_paths",
        "spiffe_prefix",
        "agent_path_template",
        "max_intermediates",
        "max_rsa_key_size",
        "verify_client_ip",
    ],
    unbuilt_keys: &[],
    doc: "GLOSSARY.md#node-attestation",
    build: build_x509pop_verifier,
}];

/// Workload attestors.
pub const WORKLOAD_LOOKERS: &[Row<Arc<dyn WorkloadLooker>>] = &[Row {
    name: "unix",
    keys: &["discover_workload_path", "workload_size_limit"],
    unbuilt_keys: &[],
    doc: "GLOSSARY.md#workload-attestation",
    build: |block, _| Ok(Arc::new(unix::Unix::new(decode("unix", block)?))),
}];

/// The row with that name.
#[must_use]
pub fn find<T>(rows: &'static [Row<T>], name: &str) -> Option<&'static Row<T>> {
    rows.iter().find(|row| row.name == name)
}

fn build_x509pop_verifier(block: &Block, context: &Context) -> Result<Arc<dyn NodeVerifier>, BuildError> {
    let name = x509pop::NAME;
    let config = |message: String| BuildError::Config { name, message };
    let keys: x509pop::VerifierKeys = decode(name, block)?;
    let verifier = x509pop::Verifier::load(context.trust_domain.clone(), keys.check().map_err(config)?)
        .map_err(|e| config(e.to_string()))?;
    Ok(Arc::new(verifier))
}

fn refuse_unbuilt(name: &'static str, block: &Block, keys: &[&str]) -> Result<(), BuildError> {
    match keys.iter().find(|key| block.contains_key(**key)) {
        Some(key) => Err(BuildError::NotBuilt { name, key: (*key).to_owned() }),
        None => Ok(()),
    }
}

fn decode<T: DeserializeOwned>(name: &'static str, block: &Block) -> Result<T, BuildError> {
    serde_json::from_value(serde_json::Value::Object(block.clone()))
        .map_err(|e| BuildError::Config { name, message: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context { trust_domain: avouch_domain::fixtures::domain(), join_token: None }
    }

    fn block(json: serde_json::Value) -> Block {
        json.as_object().cloned().unwrap()
    }

    fn verifier_error(json: serde_json::Value) -> String {
        match (find(NODE_VERIFIERS, "x509pop").unwrap().build)(&block(json), &context()) {
            Ok(_) => String::new(),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn each_name_stands_once_in_its_table() {
        assert!(find(NODE_PROVERS, "join_token").is_some() && find(NODE_PROVERS, "x509pop").is_some());
        assert!(find(WORKLOAD_LOOKERS, "unix").is_some() && find(WORKLOAD_LOOKERS, "docker").is_none());
    }

    #[test]
    fn the_default_template_may_be_written_out() {
        let json = serde_json::json!({"agent_path_template": "/{{.PluginName}}/{{.Fingerprint}}"});
        assert_eq!(
            verifier_error(json),
            "x509pop: one of ca_bundle_path or ca_bundle_paths must be configured"
        );
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(verifier_error(serde_json::json!({"ca_bundle": "x"})).contains("unknown field `ca_bundle`"));
    }
}
