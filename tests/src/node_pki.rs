//! A foreign PKI of nodes: what a server that attests by x509pop trusts, and one node's certificate and key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use tempfile::TempDir;

use crate::server::private_dir;
use crate::{Agent, AgentOptions, Proof, Server, ServerOptions};

/// PEM files of a root and of one node.
#[derive(Debug)]
pub struct NodePki {
    pub root: PathBuf,
    pub leaf: PathBuf,
    pub key: PathBuf,
}

impl NodePki {
    /// Writes the three files into a folder; the node's common name is `node-7`.
    pub fn new(dir: &Path) -> Self {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut leaf = CertificateParams::new(Vec::new()).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, "node-7");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let made = Self { root: dir.join("root.pem"), leaf: dir.join("leaf.pem"), key: dir.join("leaf.key") };
        std::fs::write(&made.root, root.self_signed(&root_key).unwrap().pem()).unwrap();
        let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
        std::fs::write(&made.leaf, leaf.pem()).unwrap();
        std::fs::write(&made.key, key.serialize_pem()).unwrap();
        made
    }

    /// The block of `plugins {}` by which a server trusts these nodes.
    pub fn plugin(&self) -> String {
        format!(
            "NodeAttestor \"x509pop\" {{\n plugin_data {{\n ca_bundle_path = \"{}\"\n }}\n }}",
            self.root.display()
        )
    }

    /// How the node proves itself.
    pub fn proof(&self) -> Proof {
        Proof::X509pop(self.leaf.clone(), self.key.clone())
    }
}

/// A server that trusts a node PKI, and a running agent that proves its node by it.
pub struct PkiWorld {
    // The agent goes first: it must not outlive its server in the log of a failed test.
    pub agent: Agent,
    pub server: Server,
    /// The folder of the PKI: it lasts as long as this.
    pub pki: Arc<TempDir>,
}

impl PkiWorld {
    /// A fresh one without entries, with these options besides.
    pub async fn start(mut options: ServerOptions) -> Self {
        let dir = private_dir();
        let pki = NodePki::new(dir.path());
        options.plugins.push_str(&pki.plugin());
        let server = Server::start_with(options).await;
        let mut agent = Agent::prepare(&server, "a", &pki.proof(), &AgentOptions::default()).await;
        agent.restart().await;
        Self { agent, server, pki: dir }
    }
}
