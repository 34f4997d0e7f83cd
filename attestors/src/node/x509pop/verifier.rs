//! x509pop, the server's side: a chain to a configured root, then a signature over fresh nonces.
//!
//! Never: no challenge is made for a chain that does not verify, and a response counts for its challenge only.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use avouch_domain::{Now, Selector, SelectorSet, SpiffeId, TrustDomain};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P521_SHA256_ASN1, RSA_PSS_2048_8192_SHA256,
    RsaParameters, RsaPssSaltLength, VerificationAlgorithm,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::der_parser::asn1_rs::Oid;
use x509_parser::oid_registry::{
    OID_X509_COUNTRY_NAME, OID_X509_LOCALITY_NAME, OID_X509_ORGANIZATION_NAME, OID_X509_ORGANIZATIONAL_UNIT,
    OID_X509_POSTAL_CODE, OID_X509_SERIALNUMBER, OID_X509_STATE_OR_PROVINCE_NAME, OID_X509_STREET_ADDRESS,
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate, X509Name};
use x509_parser::public_key::PublicKey;

use super::NAME;
use super::chain;
use super::message::{
    Bytes, Challenge, Nonce, Payload, Response, ecdsa_asn1, fingerprint, minimal, nonce, read, signed_bytes,
    write,
};
use super::prover::read_file;
use super::settings::{Trust, VerifierConfig};
use super::template::{Facts, NAME_LISTS, NAME_TEXTS, Value};
use crate::Boxed;
use crate::limits::{X509POP_MESSAGE_MAX, X509POP_NONCE, X509POP_PAYLOAD_MAX};
use crate::node::{Exchange, NodeProof, NodeVerifier, Reason, Step, VerifyError};

/// Why a verifier can't be built.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{0}")]
    File(String),
    #[error("no PEM certificate in {0}")]
    Empty(PathBuf),
}

/// Judges certificates of one PKI.
#[derive(Debug)]
pub struct Verifier {
    trust_domain: TrustDomain,
    config: VerifierConfig,
    /// Of the files; empty if the trust domain vouches.
    roots: Vec<Vec<u8>>,
}

/// What the chain of a certificate has shown.
struct Chain<'a> {
    leaf_der: &'a [u8],
    leaf: &'a X509Certificate<'a>,
    issuers: BTreeSet<Vec<u8>>,
}

type Refusal = (Reason, String);

/// PSS as Go signs it by default: the longest salt that fits the key.
const PSS_LONGEST_SALT: RsaParameters = RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);

impl Verifier {
    /// Reads the roots.
    ///
    /// # Errors
    /// [`LoadError`] names the file and what was wrong with it.
    pub fn load(trust_domain: TrustDomain, config: VerifierConfig) -> Result<Self, LoadError> {
        let mut roots = Vec::new();
        if let Trust::Files(paths) = &config.trust {
            for path in paths {
                roots.extend(read_roots(path)?);
            }
        }
        Ok(Self { trust_domain, config, roots })
    }

    fn judge_now(&self, seen: &Exchange, now: Now) -> Result<Step, Refusal> {
        let payload: Payload = read(&seen.payload, X509POP_PAYLOAD_MAX)
            .map_err(|e| malformed(format!("failed to unmarshal data: {e}")))?;
        let (leaf_der, rest) =
            payload.certificates.split_first().ok_or_else(|| malformed("no certificate to attest"))?;
        if rest.len() > self.config.max_intermediates {
            return Err(malformed(format!(
                "too many intermediates: {} exceeds the maximum of {}",
                rest.len(),
                self.config.max_intermediates
            )));
        }
        let leaf =
            parse(&leaf_der.0).map_err(|e| malformed(format!("unable to parse leaf certificate: {e}")))?;
        for der in rest {
            let parsed = parse(&der.0)
                .map_err(|e| malformed(format!("unable to parse intermediate certificate: {e}")))?;
            self.check_rsa_size(&parsed)?;
        }
        self.check_rsa_size(&leaf)?;
        let intermediates: Vec<_> = rest.iter().map(|b| b.0.clone()).collect();
        let own_roots: Vec<Vec<u8>>;
        let roots = match &self.config.trust {
            Trust::Files(_) => &self.roots,
            Trust::OwnBundle { .. } => {
                own_roots = seen.own_roots.iter().map(|root| root.to_vec()).collect();
                &own_roots
            }
        };
        let issuers = chain::issuers(&leaf_der.0, &intermediates, roots, now.wall)
            .map_err(|e| refused(format!("certificate verification failed: {e}")))?;
        let svid_path = self.svid_path(&leaf)?;
        if self.config.verify_client_ip {
            check_ip(&leaf, seen.peer)?;
        }
        match seen.rounds.as_slice() {
            [] => ask(&leaf).map(Step::Ask),
            [round] => {
                check_answer(&leaf, &round.challenge, &round.response)?;
                let chain = Chain { leaf_der: &leaf_der.0, leaf: &leaf, issuers };
                self.proof(&chain, svid_path).map(Step::Accept)
            }
            _ => Err(malformed("more than one answer to one challenge")),
        }
    }

    fn check_rsa_size(&self, certificate: &X509Certificate<'_>) -> Result<(), Refusal> {
        if let Ok(PublicKey::RSA(key)) = certificate.public_key().parsed() {
            let bits = minimal(key.modulus).len() * 8;
            if bits > self.config.max_rsa_key_size {
                return Err(malformed(format!(
                    "RSA key of {bits} bits exceeds the maximum of {}",
                    self.config.max_rsa_key_size
                )));
            }
        }
        Ok(())
    }

    /// What is left of the SVID's path behind the prefix; `None` if foreign certificates are taken.
    fn svid_path(&self, leaf: &X509Certificate<'_>) -> Result<Option<String>, Refusal> {
        let Trust::OwnBundle { prefix } = &self.config.trust else { return Ok(None) };
        let uris: Vec<_> = uris(leaf).collect();
        let [uri] = uris.as_slice() else {
            return Err(refused(format!("certificate has {} URI names, an X509-SVID has one", uris.len())));
        };
        let id = SpiffeId::parse(uri).map_err(|e| refused(format!("certificate is no X509-SVID: {e}")))?;
        if *id.trust_domain() != self.trust_domain {
            return Err(refused(format!(
                "\"{id}\" is not a member of trust domain \"{}\"",
                self.trust_domain
            )));
        }
        let rest = id.path().strip_prefix(prefix.as_str()).filter(|rest| !rest.is_empty());
        let rest =
            rest.ok_or_else(|| refused(format!("\"{id}\" is not below spiffe_prefix \"{prefix}\"")))?;
        Ok(Some(rest.to_owned()))
    }

    fn proof(&self, chain: &Chain<'_>, svid_path: Option<String>) -> Result<NodeProof, Refusal> {
        let internal =
            |e: &dyn std::fmt::Display| (Reason::Internal, format!("unable to build selectors: {e}"));
        let leaf = chain.leaf;
        let mut values = Vec::new();
        let name = common_name(leaf.subject());
        if !name.is_empty() {
            values.push(format!("subject:cn:{name}"));
        }
        values.extend(chain.issuers.iter().map(|der| format!("ca:fingerprint:{}", fingerprint(der))));
        values.push(format!("serialnumber:{}", serial_hex(leaf)));
        let sans = self.san_selectors(leaf);
        values.extend(sans.iter().map(|(key, value)| format!("san:{key}:{value}")));
        let selectors = values
            .iter()
            .map(|value| Selector::new(NAME, value))
            .collect::<Result<Vec<_>, _>>()
            .and_then(SelectorSet::new)
            .map_err(|e| internal(&e))?;
        let facts = self.facts(chain, sans, svid_path);
        let no_id = |e: &dyn std::fmt::Display| (Reason::Internal, format!("failed to create agent ID: {e}"));
        let path = self.config.template.render(&facts).map_err(|e| no_id(&e))?;
        let agent_id = SpiffeId::new(&self.trust_domain, &format!("/spire/agent{path}"));
        Ok(NodeProof { agent_id: agent_id.map_err(|e| no_id(&e))?, selectors, can_reattest: true })
    }

    /// What a template may name.
    fn facts(&self, chain: &Chain<'_>, sans: Vec<(String, String)>, svid_path: Option<String>) -> Facts {
        let leaf = chain.leaf;
        let mut facts = Facts::new();
        let mut text = |name: &str, value: String| facts.insert(name.to_owned(), Value::Text(value));
        text("PluginName", NAME.to_owned());
        text("TrustDomain", self.trust_domain.to_string());
        text("Fingerprint", fingerprint(chain.leaf_der));
        text("SerialNumberHex", serial_hex(leaf));
        text("SerialNumber", leaf.tbs_certificate.serial.to_string());
        if let Some(path) = svid_path {
            text("SVIDPathTrimmed", path);
        }
        let sans = sans.into_iter().map(|(key, value)| (key, Value::Text(value))).collect();
        facts.insert("URISanSelectors".to_owned(), Value::Map(sans));
        facts.insert("Subject".to_owned(), name_facts(leaf.subject()));
        facts.insert("Issuer".to_owned(), name_facts(leaf.issuer()));
        let (mut dns, mut mails) = (Vec::new(), Vec::new());
        for name in names(leaf) {
            match name {
                GeneralName::DNSName(name) => dns.push((*name).to_owned()),
                GeneralName::RFC822Name(name) => mails.push((*name).to_owned()),
                _ => {}
            }
        }
        facts.insert("DNSNames".to_owned(), Value::List(dns));
        facts.insert("EmailAddresses".to_owned(), Value::List(mails));
        facts
    }

    /// `x509pop://<trust domain>/<key>/<value…>` in a URI SAN becomes `san:<key>:<value…>`. A URI that would
    /// need decoding gives nothing: what is not plainly written must not become a selector.
    fn san_selectors(&self, leaf: &X509Certificate<'_>) -> Vec<(String, String)> {
        let prefix = format!("{NAME}://{}/", self.trust_domain);
        uris(leaf)
            .filter(|uri| !uri.contains(['%', '?', '#']))
            .filter_map(|uri| uri.strip_prefix(&prefix)?.split_once('/'))
            .filter(|(key, value)| !key.is_empty() && !value.is_empty())
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }
}

impl NodeVerifier for Verifier {
    fn name(&self) -> &'static str {
        NAME
    }

    fn judge<'a>(&'a self, seen: &'a Exchange, now: Now) -> Boxed<'a, Result<Step, VerifyError>> {
        Box::pin(async move {
            self.judge_now(seen, now).map_err(|(reason, message)| VerifyError { name: NAME, reason, message })
        })
    }
}

fn read_roots(path: &Path) -> Result<Vec<Vec<u8>>, LoadError> {
    let bytes = read_file(path).map_err(LoadError::File)?;
    let mut roots = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate =
            certificate.map_err(|e| LoadError::File(format!("could not read {}: {e}", path.display())))?;
        parse(&certificate)
            .map_err(|e| LoadError::File(format!("could not read {}: {e}", path.display())))?;
        roots.push(certificate.to_vec());
    }
    if roots.is_empty() { Err(LoadError::Empty(path.to_owned())) } else { Ok(roots) }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok((rest, _)) => Err(format!("{} bytes after the certificate", rest.len())),
        Err(e) => Err(e.to_string()),
    }
}

fn names<'a>(leaf: &'a X509Certificate<'_>) -> &'a [GeneralName<'a>] {
    leaf.subject_alternative_name()
        .ok()
        .flatten()
        .map(|san| san.value.general_names.as_slice())
        .unwrap_or_default()
}

fn uris<'a>(leaf: &'a X509Certificate<'_>) -> impl Iterator<Item = &'a str> {
    names(leaf).iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    })
}

/// The last common name, as Go takes it.
fn common_name<'a>(name: &'a X509Name<'_>) -> &'a str {
    name.iter_common_name().last().and_then(|cn| cn.as_str().ok()).unwrap_or_default()
}

/// Lower hex of whole bytes.
fn serial_hex(leaf: &X509Certificate<'_>) -> String {
    let serial = minimal(leaf.raw_serial());
    hex::encode(if serial.is_empty() { &[0] } else { serial })
}

/// The fields of a subject or issuer; texts that can't be read are left out.
fn name_facts(name: &X509Name<'_>) -> Value {
    let all = |oid: &Oid<'static>| -> Vec<String> {
        name.iter_by_oid(oid).filter_map(|a| a.as_str().ok()).map(str::to_owned).collect()
    };
    let mut facts = Facts::new();
    for field in NAME_TEXTS.iter().chain(NAME_LISTS) {
        let value = match *field {
            "CommonName" => Value::Text(common_name(name).to_owned()),
            "SerialNumber" => Value::Text(all(&OID_X509_SERIALNUMBER).pop().unwrap_or_default()),
            "Country" => Value::List(all(&OID_X509_COUNTRY_NAME)),
            "Organization" => Value::List(all(&OID_X509_ORGANIZATION_NAME)),
            "OrganizationalUnit" => Value::List(all(&OID_X509_ORGANIZATIONAL_UNIT)),
            "Locality" => Value::List(all(&OID_X509_LOCALITY_NAME)),
            "Province" => Value::List(all(&OID_X509_STATE_OR_PROVINCE_NAME)),
            "StreetAddress" => Value::List(all(&OID_X509_STREET_ADDRESS)),
            _ => Value::List(all(&OID_X509_POSTAL_CODE)),
        };
        facts.insert((*field).to_owned(), value);
    }
    Value::Map(facts)
}

fn check_ip(leaf: &X509Certificate<'_>, peer: Option<IpAddr>) -> Result<(), Refusal> {
    let peer = peer.ok_or_else(|| (Reason::Internal, "the address of the client is unknown".to_owned()))?;
    let octets = match peer.to_canonical() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    if names(leaf).iter().any(|n| matches!(n, GeneralName::IPAddress(ip) if *ip == octets.as_slice())) {
        return Ok(());
    }
    Err(refused(format!("client IP {peer} is not among the IP addresses of the certificate")))
}

fn ask(leaf: &X509Certificate<'_>) -> Result<Vec<u8>, Refusal> {
    let internal = |e: String| (Reason::Internal, format!("unable to generate challenge: {e}"));
    let signs = leaf.key_usage().ok().flatten().is_some_and(|usage| usage.value.digital_signature());
    if !signs {
        return Err(internal("certificate not intended for digital signature use".to_owned()));
    }
    let nonce = Some(Nonce { nonce: Bytes(nonce().map_err(internal)?) });
    let challenge = match key_kind(leaf).map_err(internal)? {
        KeyKind::Rsa(_) => Challenge { rsa_signature: nonce, ..Challenge::default() },
        KeyKind::Ecdsa(..) => Challenge { ecdsa_signature: nonce, ..Challenge::default() },
    };
    write(&challenge).map_err(internal)
}

enum KeyKind {
    /// PKCS#1 key.
    Rsa(Vec<u8>),
    /// Uncompressed point and the algorithm of its curve, always with SHA-256.
    Ecdsa(Vec<u8>, &'static dyn VerificationAlgorithm),
}

fn key_kind(leaf: &X509Certificate<'_>) -> Result<KeyKind, String> {
    let bits = leaf.public_key().subject_public_key.data.to_vec();
    match leaf.public_key().parsed() {
        Ok(PublicKey::RSA(_)) => Ok(KeyKind::Rsa(bits)),
        Ok(PublicKey::EC(_)) => {
            let algorithm: &'static dyn VerificationAlgorithm = match bits.len() {
                65 => &ECDSA_P256_SHA256_ASN1,
                97 => &ECDSA_P384_SHA256_ASN1,
                133 => &ECDSA_P521_SHA256_ASN1,
                _ => return Err("unsupported elliptic curve".to_owned()),
            };
            Ok(KeyKind::Ecdsa(bits, algorithm))
        }
        _ => Err("unsupported public key type, expected RSA or ECDSA".to_owned()),
    }
}

fn check_answer(leaf: &X509Certificate<'_>, challenge: &[u8], response: &[u8]) -> Result<(), Refusal> {
    let asked: Challenge = read(challenge, X509POP_MESSAGE_MAX)
        .map_err(|e| (Reason::Internal, format!("own challenge: {e}")))?;
    let said: Response = read(response, X509POP_MESSAGE_MAX)
        .map_err(|e| malformed(format!("unable to unmarshal challenge response: {e}")))?;
    let failed = |why: &str| refused(format!("challenge response verification failed: {why}"));
    let nonces = |asked: &Nonce, said: &Bytes| {
        if said.0.len() != X509POP_NONCE {
            return Err(failed(&format!("nonce has {} bytes, expected {X509POP_NONCE}", said.0.len())));
        }
        Ok(signed_bytes(&asked.nonce.0, &said.0))
    };
    let kind = key_kind(leaf).map_err(|e| (Reason::Internal, e))?;
    let valid = match (kind, asked.rsa_signature, asked.ecdsa_signature) {
        (KeyKind::Rsa(key), Some(asked), _) => {
            let said = said.rsa_signature.ok_or_else(|| failed("missing RSA signature"))?;
            let message = nonces(&asked, &said.nonce)?;
            // Go signs with the longest salt, or with the digest's length in FIPS mode.
            [PSS_LONGEST_SALT, RSA_PSS_2048_8192_SHA256]
                .iter()
                .any(|algorithm| algorithm.verify_sig(&key, &message, &said.signature.0).is_ok())
        }
        (KeyKind::Ecdsa(key, algorithm), _, Some(asked)) => {
            let said = said.ecdsa_signature.ok_or_else(|| failed("missing ECDSA signature"))?;
            let message = nonces(&asked, &said.nonce)?;
            ecdsa_asn1(&said.r.0, &said.s.0)
                .is_some_and(|asn1| algorithm.verify_sig(&key, &message, &asn1).is_ok())
        }
        _ => return Err((Reason::Internal, "challenge does not fit the certificate".to_owned())),
    };
    if valid { Ok(()) } else { Err(failed("signature is not valid")) }
}

fn malformed(message: impl Into<String>) -> Refusal {
    (Reason::Malformed, message.into())
}

fn refused(message: impl Into<String>) -> Refusal {
    (Reason::Refused, message.into())
}
