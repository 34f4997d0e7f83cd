//! The first trust: where the authorities come from by which an agent without a state knows its server.
//!
//! Read anew at every attempt to attest, so that a source that is put right helps a running agent. Never used once
//! the server has been met: from then on its own bundle counts.

use std::path::PathBuf;

use avouch_credential::bundle_doc;
use avouch_credential::x509::pem;
use avouch_domain::{Bundle, Timestamp, TrustDomain, X509Authority};
use http::Uri;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::fetch::{self, FetchError, Way};
use crate::config::{Bootstrap, BundleFormat};
use crate::limits::BOOTSTRAP_BUNDLE_MAX;

/// Why there is no first trust yet.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("could not parse trust bundle: {path}: {problem}")]
    File { path: PathBuf, problem: String },
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("could not parse trust bundle: {url}: {problem}")]
    Document { url: String, problem: String },
}

/// What a helper behind the Unix socket is told with each request.
#[derive(Clone, Debug)]
pub struct Occasion {
    /// Attempts so far, this one included.
    pub attempt: u32,
    /// When the first attempt began.
    pub since: Timestamp,
    pub server_address: String,
    pub server_port: u16,
}

/// Reads the source. `None`: whoever answers is to be believed.
///
/// # Errors
/// [`TrustError`]; another try may go well.
pub async fn read(
    bootstrap: &Bootstrap,
    domain: &TrustDomain,
    occasion: &Occasion,
) -> Result<Option<Bundle>, TrustError> {
    match bootstrap {
        Bootstrap::Insecure => Ok(None),
        Bootstrap::File { path, format } => {
            let fail = |problem: String| TrustError::File { path: path.clone(), problem };
            let bytes = tokio::fs::read(path).await.map_err(|e| fail(e.to_string()))?;
            parse(domain, &bytes, *format).map(Some).map_err(fail)
        }
        Bootstrap::Url { url, socket, format } => {
            let bytes = match socket {
                Some(socket) => {
                    let url = with_occasion(url, domain, occasion);
                    fetch::get(&url, Way::Socket(socket)).await?
                }
                None => {
                    let roots = tokio::task::spawn_blocking(fetch::system_roots).await;
                    let roots = roots.map_err(|e| TrustError::Document {
                        url: fetch::shown(url),
                        problem: e.to_string(),
                    })??;
                    fetch::get(url, Way::Https(&roots)).await?
                }
            };
            let fail = |problem| TrustError::Document { url: fetch::shown(url), problem };
            parse(domain, &bytes, *format).map(Some).map_err(fail)
        }
    }
}

/// The URL with what SPIRE's agent tells such a helper; parameters in Go's order, the alphabet's.
fn with_occasion(url: &Uri, domain: &TrustDomain, occasion: &Occasion) -> Uri {
    let mut params: Vec<_> =
        url.query().unwrap_or_default().split('&').filter(|p| !p.is_empty()).map(ToOwned::to_owned).collect();
    params.push(format!("spiffe-trust-domain={domain}"));
    params.push("spire-attest-mode=bootstrap".to_owned());
    let since = OffsetDateTime::from_unix_timestamp(occasion.since.secs()).ok();
    let since = since.and_then(|t| t.format(&Rfc3339).ok()).unwrap_or_default();
    params.push(format!("spire-attest-start-time={}", escaped(&since)));
    params.push(format!("spire-connection-attempts={}", occasion.attempt));
    params.push(format!("spire-server-address={}", escaped(&occasion.server_address)));
    params.push(format!("spire-server-port={}", occasion.server_port));
    params.sort();
    let authority = url.authority().map(ToString::to_string).unwrap_or_default();
    let text = format!("http://{authority}{}?{}", url.path(), params.join("&"));
    text.parse().unwrap_or_else(|_| url.clone())
}

/// Percent-encoding of a query value.
fn escaped(value: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// The bundle of these certificates (DER).
pub fn bundle_of(domain: &TrustDomain, ders: &[Vec<u8>]) -> Bundle {
    let mut bundle = Bundle::empty(domain.clone());
    let one = |der: &Vec<u8>| X509Authority { der: der.as_slice().into(), tainted: false };
    bundle.x509_authorities = ders.iter().map(one).collect();
    bundle
}

/// Reads a trust bundle an operator gave.
fn parse(domain: &TrustDomain, bytes: &[u8], format: BundleFormat) -> Result<Bundle, String> {
    if bytes.len() > BOOTSTRAP_BUNDLE_MAX {
        return Err(format!("it has {} bytes, expected at most {BOOTSTRAP_BUNDLE_MAX}", bytes.len()));
    }
    let hint = |other: &str| format!("is it of the other format? (trust_bundle_format = \"{other}\")");
    let bundle = match format {
        BundleFormat::Pem => {
            let looks_like_json = bytes.trim_ascii_start().starts_with(b"{");
            let ders = pem::certificates(bytes).map_err(|e| match looks_like_json {
                true => format!("{e}; {}", hint("spiffe")),
                false => e.to_string(),
            })?;
            bundle_of(domain, &ders)
        }
        BundleFormat::Spiffe => {
            let looks_like_pem = bytes.trim_ascii_start().starts_with(b"-----BEGIN");
            bundle_doc::parse(domain, bytes).map_err(|e| match looks_like_pem {
                true => format!("{e}; {}", hint("pem")),
                false => e.to_string(),
            })?
        }
    };
    if bundle.x509_authorities.is_empty() {
        return Err("no certificates found in trust bundle".to_owned());
    }
    Ok(bundle)
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::domain;

    use super::*;

    fn occasion() -> Occasion {
        Occasion {
            attempt: 3,
            since: Timestamp::from_secs(1_767_323_045),
            server_address: "spire.example.org".into(),
            server_port: 8081,
        }
    }

    #[test]
    fn an_empty_trust_bundle_is_refused() {
        assert!(parse(&domain(), b"", BundleFormat::Pem).is_err());
        let error = parse(&domain(), b"{\"keys\":[]}", BundleFormat::Spiffe).unwrap_err();
        assert_eq!(error, "no certificates found in trust bundle");
    }

    #[test]
    fn a_bundle_of_the_other_format_is_recognised() {
        let error = parse(&domain(), b"{\"keys\":[]}", BundleFormat::Pem).unwrap_err();
        assert!(error.contains("trust_bundle_format = \"spiffe\""), "{error}");
        let error = parse(&domain(), b"-----BEGIN CERTIFICATE-----", BundleFormat::Spiffe).unwrap_err();
        assert!(error.contains("trust_bundle_format = \"pem\""), "{error}");
    }

    #[test]
    fn a_trust_bundle_beyond_the_limit_is_refused() {
        let error = parse(&domain(), &vec![b' '; BOOTSTRAP_BUNDLE_MAX + 1], BundleFormat::Pem).unwrap_err();
        assert!(error.contains("expected at most"), "{error}");
    }

    #[test]
    fn a_helper_behind_a_socket_is_told_the_occasion() {
        let url = "http://localhost/bundle?zone=a".parse().unwrap();
        assert_eq!(
            with_occasion(&url, &domain(), &occasion()).to_string(),
            "http://localhost/bundle?spiffe-trust-domain=example.org&spire-attest-mode=bootstrap&spire-attest-start-time=2026-01-02T03%3A04%3A05Z&spire-connection-attempts=3&spire-server-address=spire.example.org&spire-server-port=8081&zone=a"
        );
    }

    #[tokio::test]
    async fn a_helper_behind_a_socket_hands_out_the_bundle() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap();
            let body = pem::encode(pem::CERTIFICATE, b"root");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&head[..length]).into_owned()
        });
        let url = "http://helper/bundle".parse().unwrap();
        let trust = Bootstrap::Url { url, socket: Some(path), format: BundleFormat::Pem };
        let bundle = read(&trust, &domain(), &occasion()).await.unwrap().unwrap();
        assert_eq!(&*bundle.x509_authorities[0].der, b"root");
        let asked = asked.await.unwrap();
        assert!(
            asked.starts_with("GET /bundle?") && asked.contains("spire-connection-attempts=3"),
            "{asked}"
        );
    }

    #[tokio::test]
    async fn a_file_that_is_put_right_is_read_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.pem");
        let trust = Bootstrap::File { path: path.clone(), format: BundleFormat::Pem };
        let error = read(&trust, &domain(), &occasion()).await.unwrap_err().to_string();
        assert!(
            error.starts_with("could not parse trust bundle: ") && error.contains("bundle.pem"),
            "{error}"
        );
        std::fs::write(&path, pem::encode(pem::CERTIFICATE, b"root")).unwrap();
        let bundle = read(&trust, &domain(), &occasion()).await.unwrap().unwrap();
        assert_eq!(&*bundle.x509_authorities[0].der, b"root");
    }
}
