//! Fetches a document from a web server: HTTPS checked with the system's roots, or plain HTTP over a Unix socket.
//!
//! Never plain HTTP over a network, not even by a redirect; never more bytes or time than the named limits.

use std::path::Path;
use std::sync::Arc;

use avouch_credential::tls::{self, TlsError};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, LOCATION, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

use crate::limits::{BOOTSTRAP_BUNDLE_MAX, BOOTSTRAP_FETCH_MAX, BOOTSTRAP_REDIRECTS_MAX};
use crate::upstream::connect_tcp;

/// Why there is no document. The first words are SPIRE's.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("unable to fetch trust bundle URL {url}: {problem}")]
    Fetch { url: String, problem: String },
    #[error("error downloading trust bundle: {status} from {url}, expected 200 OK")]
    Status { url: String, status: StatusCode },
    #[error("unable to read from trust bundle URL {url}: {problem}")]
    Read { url: String, problem: String },
    #[error("unable to use the system's certificate authorities: {0}")]
    Tls(#[from] TlsError),
}

/// How a web server is reached.
#[derive(Clone, Copy, Debug)]
pub enum Way<'a> {
    /// Over the network, the server's name checked by this.
    Https(&'a Arc<ClientConfig>),
    /// Over a Unix socket, whatever host the URL names.
    Socket(&'a Path),
}

/// What [`Way::Https`] needs: the system's roots, or those that SSL_CERT_FILE and SSL_CERT_DIR name. Reads files.
///
/// # Errors
/// [`FetchError`] if there is no root at all.
pub fn system_roots() -> Result<Arc<ClientConfig>, FetchError> {
    let loaded = rustls_native_certs::load_native_certs();
    if loaded.certs.is_empty() {
        let problems: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
        return Err(TlsError::Library(format!(
            "none found ({}): install the package of CA certificates, or name a file in SSL_CERT_FILE",
            problems.join("; ")
        ))
        .into());
    }
    Ok(tls::web_client_config(loaded.certs)?)
}

/// Gets the document at `url`, following redirects.
///
/// # Errors
/// [`FetchError`] says at which URL it ended and why.
pub async fn get(url: &Uri, way: Way<'_>) -> Result<Vec<u8>, FetchError> {
    match tokio::time::timeout(BOOTSTRAP_FETCH_MAX, follow(url.clone(), way)).await {
        Ok(result) => result,
        Err(_) => Err(fail(url, format!("no answer within {} s", BOOTSTRAP_FETCH_MAX.as_secs()))),
    }
}

async fn follow(mut url: Uri, way: Way<'_>) -> Result<Vec<u8>, FetchError> {
    for _ in 0..=BOOTSTRAP_REDIRECTS_MAX {
        let response = ask(&url, way).await?;
        match redirect(&url, &response)? {
            Some(next) => url = next,
            None if response.status() == StatusCode::OK => return body(&url, response).await,
            None => return Err(FetchError::Status { url: shown(&url), status: response.status() }),
        }
    }
    Err(fail(&url, format!("stopped after {BOOTSTRAP_REDIRECTS_MAX} redirects")))
}

/// A URL fit for logs: without user and password.
#[must_use]
pub fn shown(url: &Uri) -> String {
    let text = url.to_string();
    match url.authority().and_then(|a| a.as_str().rsplit_once('@')) {
        Some((secret, _)) => text.replacen(&format!("{secret}@"), "", 1),
        None => text,
    }
}

fn fail(url: &Uri, problem: impl ToString) -> FetchError {
    FetchError::Fetch { url: shown(url), problem: problem.to_string() }
}

/// Where an answer sends us. As Go's client, an answer without a place to go is an answer.
fn redirect(from: &Uri, response: &Response<Incoming>) -> Result<Option<Uri>, FetchError> {
    let moved = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(to) = response.headers().get(LOCATION).filter(|_| moved) else { return Ok(None) };
    let to = String::from_utf8_lossy(to.as_bytes()).into_owned();
    resolve(from, &to).map(Some).ok_or_else(|| fail(from, format!("a redirect to {to:?}, which is no URL")))
}

/// `to` as seen from `from`, a URL with scheme and authority.
fn resolve(from: &Uri, to: &str) -> Option<Uri> {
    let to = to.split('#').next().unwrap_or_default();
    let (scheme, authority) = (from.scheme_str()?, from.authority()?.as_str());
    let text = if to.contains("://") {
        to.to_owned()
    } else if let Some(rest) = to.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if to.starts_with('/') {
        format!("{scheme}://{authority}{to}")
    } else if to.starts_with('?') {
        format!("{scheme}://{authority}{}{to}", from.path())
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{to}")
    };
    text.parse().ok()
}

async fn ask(url: &Uri, way: Way<'_>) -> Result<Response<Incoming>, FetchError> {
    let host = url.host().unwrap_or_default();
    match (way, url.scheme_str()) {
        (Way::Https(config), Some("https")) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let stream = connect_tcp(host, url.port_u16().unwrap_or(443)).await.map_err(|e| fail(url, e))?;
            let name = rustls_pki_types::ServerName::try_from(host.to_owned())
                .map_err(|_| fail(url, format!("{host:?} is no name of a host")))?;
            let tls = TlsConnector::from(config.clone()).connect(name, stream).await;
            send(url, tls.map_err(|e| fail(url, untrusted(&e)))?).await
        }
        (Way::Https(_), _) => Err(fail(url, "expected https: over plain http anybody could answer")),
        (Way::Socket(path), Some("http")) => {
            let stream = UnixStream::connect(path).await;
            send(url, stream.map_err(|e| fail(url, format!("{}: {e}", path.display())))?).await
        }
        (Way::Socket(_), _) => Err(fail(url, "expected http over the Unix socket")),
    }
}

fn untrusted(error: &std::io::Error) -> String {
    let text = error.to_string();
    if text.contains("UnknownIssuer") || text.contains("BadSignature") {
        return format!(
            "{text} (none of the system's authorities signed it; SSL_CERT_FILE names other ones)"
        );
    }
    text
}

async fn send<S>(url: &Uri, stream: S) -> Result<Response<Incoming>, FetchError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| fail(url, e))?;
    // Ends with the answer's body, or when that is dropped.
    tokio::spawn(connection);
    let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let (secret, host) = authority.rsplit_once('@').map_or((None, authority), |(s, h)| (Some(s), h));
    let path = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("avouch-agent/", env!("CARGO_PKG_VERSION")));
    if let Some(secret) = secret {
        request = request.header(AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode(secret)));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| fail(url, e))?;
    sender.send_request(request).await.map_err(|e| fail(url, e))
}

async fn body(url: &Uri, response: Response<Incoming>) -> Result<Vec<u8>, FetchError> {
    let too_big = || FetchError::Read {
        url: shown(url),
        problem: format!("it has more than {BOOTSTRAP_BUNDLE_MAX} bytes, the most a trust bundle may have"),
    };
    let told = response.headers().get(CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse().ok());
    if told.is_some_and(|bytes: usize| bytes > BOOTSTRAP_BUNDLE_MAX) {
        return Err(too_big());
    }
    match Limited::new(response.into_body(), BOOTSTRAP_BUNDLE_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => Err(too_big()),
        Err(e) => Err(FetchError::Read { url: shown(url), problem: e.to_string() }),
    }
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
