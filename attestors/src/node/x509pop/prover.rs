//! x509pop, the agent's side: shows a certificate and signs the server's nonce with its key.
//!
//! Never: the key is used for anything but both nonces, and is dropped after each attestation.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P521_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair as _, RSA_PSS_SHA256,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::NAME;
use super::message::{
    Bytes, Challenge, EcdsaAnswer, Payload, Response, RsaAnswer, minimal, nonce, read, signed_bytes, write,
};
use crate::Boxed;
use crate::limits::{PEM_FILE_MAX, X509POP_MESSAGE_MAX, X509POP_NONCE};
use crate::node::{NodeProver, ProveError};

/// Where the proof lies. All files are PEM.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProverConfig {
    pub private_key_path: PathBuf,
    /// The leaf, optionally followed by intermediates.
    pub certificate_path: PathBuf,
    /// More intermediates.
    #[serde(default)]
    pub intermediates_path: Option<PathBuf>,
}

/// Proves a node by a certificate and its key. The files are read at each attestation, so that a renewed
/// certificate is used without a restart.
#[derive(Debug)]
pub struct Prover {
    config: ProverConfig,
    key: Option<Key>,
}

enum Key {
    Ecdsa(EcdsaKeyPair),
    Rsa(rsa::KeyPair),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ecdsa(_) => "ECDSA key",
            Self::Rsa(_) => "RSA key",
        })
    }
}

impl Prover {
    /// Reads the files once, so that a wrong path or key is found at start.
    ///
    /// # Errors
    /// [`ProveError`] names the file and what was wrong with it.
    pub fn load(config: ProverConfig) -> Result<Self, ProveError> {
        read_files(&config).map_err(failed)?;
        Ok(Self { config, key: None })
    }
}

impl NodeProver for Prover {
    fn name(&self) -> &'static str {
        NAME
    }

    fn open(&mut self) -> Boxed<'_, Result<Zeroizing<Vec<u8>>, ProveError>> {
        Box::pin(async move {
            let (certificates, key) = read_files(&self.config).map_err(failed)?;
            self.key = Some(key);
            let payload = Payload { certificates: certificates.into_iter().map(Bytes).collect() };
            write(&payload).map(Zeroizing::new).map_err(failed)
        })
    }

    fn answer<'a>(&'a mut self, challenge: &'a [u8]) -> Boxed<'a, Result<Vec<u8>, ProveError>> {
        Box::pin(async move {
            let key = self.key.take().ok_or_else(|| failed("the server sent a second challenge".into()))?;
            answer(&key, challenge).map_err(failed)
        })
    }
}

fn answer(key: &Key, challenge: &[u8]) -> Result<Vec<u8>, String> {
    let challenge: Challenge = read(challenge, X509POP_MESSAGE_MAX)
        .map_err(|e| format!("could not read the server's challenge: {e}"))?;
    let mine = nonce()?;
    let response = match (key, challenge.rsa_signature, challenge.ecdsa_signature) {
        (Key::Rsa(key), Some(asked), _) => {
            check_nonce(&asked.nonce)?;
            let mut signature = vec![0; key.public_modulus_len()];
            key.sign(
                &RSA_PSS_SHA256,
                &SystemRandom::new(),
                &signed_bytes(&asked.nonce.0, &mine),
                &mut signature,
            )
            .map_err(|_| "could not sign with the RSA key")?;
            let answer = RsaAnswer { nonce: Bytes(mine), signature: Bytes(signature) };
            Response { rsa_signature: Some(answer), ..Response::default() }
        }
        (Key::Ecdsa(key), _, Some(asked)) => {
            check_nonce(&asked.nonce)?;
            let signature = key
                .sign(&SystemRandom::new(), &signed_bytes(&asked.nonce.0, &mine))
                .map_err(|_| "could not sign with the ECDSA key")?;
            let (r, s) = signature.as_ref().split_at(signature.as_ref().len() / 2);
            let answer = EcdsaAnswer {
                nonce: Bytes(mine),
                r: Bytes(minimal(r).to_vec()),
                s: Bytes(minimal(s).to_vec()),
            };
            Response { ecdsa_signature: Some(answer), ..Response::default() }
        }
        _ => return Err("the server's challenge does not fit the kind of the key".to_owned()),
    };
    write(&response)
}

fn check_nonce(nonce: &Bytes) -> Result<(), String> {
    // Signing bytes of another length could be made to mean something elsewhere.
    if nonce.0.len() == X509POP_NONCE {
        return Ok(());
    }
    Err(format!("the server's nonce has {} bytes, expected {X509POP_NONCE}", nonce.0.len()))
}

fn read_files(config: &ProverConfig) -> Result<(Vec<Vec<u8>>, Key), String> {
    let mut certificates = read_certificates(&config.certificate_path)?;
    if let Some(path) = &config.intermediates_path {
        certificates.extend(read_certificates(path)?);
    }
    let path = &config.private_key_path;
    let key = parse_key(&read_file(path)?).map_err(|e| format!("{e} in {}", path.display()))?;
    let leaf = certificates.first().map(Vec::as_slice).unwrap_or_default();
    let (_, leaf) = X509Certificate::from_der(leaf)
        .map_err(|e| format!("no certificate in {}: {e}", config.certificate_path.display()))?;
    let public = match &key {
        Key::Ecdsa(key) => key.public_key().as_ref().to_vec(),
        Key::Rsa(key) => key.public_key().as_ref().to_vec(),
    };
    if leaf.public_key().subject_public_key.data.as_ref() != public.as_slice() {
        return Err(format!(
            "the key in {} does not belong to the certificate in {}",
            path.display(),
            config.certificate_path.display()
        ));
    }
    Ok((certificates, key))
}

fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let bytes = read_file(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .map(|c| c.map(|c| c.to_vec()).map_err(|e| format!("could not read {}: {e}", path.display())))
        .collect::<Result<_, _>>()?;
    if certificates.is_empty() {
        return Err(format!("no PEM certificate in {}", path.display()));
    }
    Ok(certificates)
}

/// Reads a file of sane size; the bytes may be a key.
pub(super) fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)
        .and_then(|file| file.take(PEM_FILE_MAX + 1).read_to_end(&mut bytes))
        .map_err(|e| format!("could not read {}: {e}", path.display()))?;
    if bytes.len() as u64 > PEM_FILE_MAX {
        return Err(format!("{} is larger than {PEM_FILE_MAX} bytes", path.display()));
    }
    Ok(bytes)
}

fn parse_key(pem: &[u8]) -> Result<Key, String> {
    let der = PrivateKeyDer::from_pem_slice(pem).map_err(|e| format!("no private key ({e})"))?;
    let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm, der: &[u8]| {
        EcdsaKeyPair::from_private_key_der(algorithm, der).ok().map(Key::Ecdsa)
    };
    let bytes = der.secret_der();
    ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes)
        .or_else(|| ecdsa(&ECDSA_P521_SHA256_FIXED_SIGNING, bytes))
        .or_else(|| rsa::KeyPair::from_pkcs8(bytes).ok().map(Key::Rsa))
        .or_else(|| rsa::KeyPair::from_der(bytes).ok().map(Key::Rsa))
        .ok_or_else(|| {
            "unsupported key, expected ECDSA P-256 or P-521, or RSA of 2048 to 8192 bits,".to_owned()
        })
}

fn failed(message: String) -> ProveError {
    ProveError { name: NAME, message }
}
