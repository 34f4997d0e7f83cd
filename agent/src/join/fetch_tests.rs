//! The fetch of a trust bundle against web servers of this process, one rule per test.

use std::net::SocketAddr;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A private authority and a web server's configuration for `localhost` and `127.0.0.1`.
fn pki() -> (CertificateDer<'static>, Arc<rustls::ServerConfig>) {
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_der = root.self_signed(&root_key).unwrap().der().clone();
    let leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = rustls::ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (root_der, Arc::new(config))
}

/// Reads one request head and answers it.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, site: fn(&str) -> String) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    let _ = stream.write_all(site(&String::from_utf8_lossy(&head)).as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// A web server with a private authority, and a client that trusts it.
async fn https(site: fn(&str) -> String) -> (SocketAddr, Arc<ClientConfig>) {
    let (root, config) = pki();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = TlsAcceptor::from(config.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    answer(stream, site).await;
                }
            });
        }
    });
    (address, tls::web_client_config([root]).unwrap())
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn moved(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
}

fn url(address: SocketAddr, path: &str) -> Uri {
    format!("https://localhost:{}{path}", address.port()).parse().unwrap()
}

#[tokio::test]
async fn a_document_comes_over_https_with_host_and_path_as_asked() {
    let (address, trusting) = https(|head| ok(&head.replace("\r\n", "|"))).await;
    let said = get(&url(address, "/b?a=1"), Way::Https(&trusting)).await.unwrap();
    let said = String::from_utf8(said).unwrap();
    assert!(said.starts_with("GET /b?a=1 HTTP/1.1|"), "{said}");
    assert!(said.to_lowercase().contains(&format!("|host: localhost:{}|", address.port())), "{said}");
}

#[tokio::test]
async fn a_server_that_no_known_authority_signed_is_refused_with_the_way_out() {
    let (address, _) = https(|_| ok("x")).await;
    let (stranger, _) = pki();
    let other = tls::web_client_config([stranger]).unwrap();
    let error = get(&url(address, "/"), Way::Https(&other)).await.unwrap_err().to_string();
    assert!(error.starts_with("unable to fetch trust bundle URL https://localhost"), "{error}");
    assert!(error.contains("SSL_CERT_FILE"), "{error}");
}

#[tokio::test]
async fn a_server_of_another_name_is_refused() {
    let (address, trusting) = https(|_| ok("x")).await;
    let url = format!("https://127.0.0.2:{}/", address.port()).parse().unwrap();
    assert!(get(&url, Way::Https(&trusting)).await.is_err());
}

#[tokio::test]
async fn redirects_are_followed_and_then_the_answer_counts() {
    let (address, trusting) = https(|head| match head.split(' ').nth(1) {
        Some("/a/one") => moved("two?x=1"),
        Some("/a/two?x=1") => moved("/three"),
        Some("/three") => ok("here"),
        other => panic!("{other:?}"),
    })
    .await;
    assert_eq!(get(&url(address, "/a/one"), Way::Https(&trusting)).await.unwrap(), b"here");
}

#[tokio::test]
async fn endless_redirects_end() {
    let (address, trusting) = https(|_| moved("/again")).await;
    let error = get(&url(address, "/"), Way::Https(&trusting)).await.unwrap_err().to_string();
    assert!(error.ends_with("stopped after 10 redirects"), "{error}");
}

#[tokio::test]
async fn a_redirect_to_plain_http_is_not_followed() {
    let (address, trusting) = https(|_| moved("http://localhost:1/b")).await;
    let error = get(&url(address, "/"), Way::Https(&trusting)).await.unwrap_err().to_string();
    assert!(error.contains("http://localhost:1/b: expected https"), "{error}");
}

#[tokio::test]
async fn any_other_status_is_named() {
    let (address, trusting) = https(|_| "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into()).await;
    let error = get(&url(address, "/"), Way::Https(&trusting)).await.unwrap_err().to_string();
    assert!(error.starts_with("error downloading trust bundle: 404 Not Found"), "{error}");
}

#[tokio::test]
async fn a_document_beyond_the_limit_is_refused_told_or_not() {
    let told = |_: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BOOTSTRAP_BUNDLE_MAX + 1);
    let untold = |_: &str| format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(BOOTSTRAP_BUNDLE_MAX + 1));
    for site in [told as fn(&str) -> String, untold] {
        let (address, trusting) = https(site).await;
        let error = get(&url(address, "/"), Way::Https(&trusting)).await.unwrap_err().to_string();
        assert!(error.contains("it has more than 4194304 bytes"), "{error}");
    }
}

#[tokio::test]
async fn a_document_cut_short_is_no_document() {
    let (address, trusting) = https(|_| "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".into()).await;
    let error = get(&url(address, "/"), Way::Https(&trusting)).await.unwrap_err().to_string();
    assert!(error.starts_with("unable to read from trust bundle URL"), "{error}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_left_in_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (root, _) = pki();
    let trusting = tls::web_client_config([root]).unwrap();
    let url = url(address, "/");
    let asked = tokio::spawn(async move { get(&url, Way::Https(&trusting)).await });
    let (held, _) = tokio::task::spawn_blocking(move || listener.accept()).await.unwrap().unwrap();
    tokio::time::pause();
    tokio::time::advance(BOOTSTRAP_FETCH_MAX).await;
    let error = asked.await.unwrap().unwrap_err().to_string();
    assert!(error.ends_with("no answer within 30 s"), "{error}");
    drop(held);
}

#[tokio::test]
async fn a_unix_socket_is_asked_by_plain_http_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            answer(stream, |head| {
                let away = head.starts_with("GET /away");
                if away { moved("https://localhost/b") } else { ok("bundle") }
            })
            .await;
        }
    });
    let way = Way::Socket(&path);
    assert_eq!(get(&"http://anything/b".parse().unwrap(), way).await.unwrap(), b"bundle");
    let error = get(&"http://anything/away".parse().unwrap(), way).await.unwrap_err().to_string();
    assert!(error.contains("expected http over the Unix socket"), "{error}");
}

#[test]
fn user_and_password_of_a_url_stay_out_of_messages() {
    let url: Uri = "https://user:secret@host:1/b?c".parse().unwrap();
    assert_eq!(shown(&url), "https://host:1/b?c");
}

#[test]
fn a_redirect_is_read_from_where_it_came() {
    let from = "https://h:1/a/b?c".parse().unwrap();
    for (to, expected) in [
        ("https://other/x#part", "https://other/x"),
        ("//other/x", "https://other/x"),
        ("/x", "https://h:1/x"),
        ("x", "https://h:1/a/x"),
        ("?x", "https://h:1/a/b?x"),
    ] {
        assert_eq!(resolve(&from, to).unwrap().to_string(), expected);
    }
    assert_eq!(resolve(&from, "https://a b/"), None);
}
