//! A git server over HTTP: `git http-backend`, as a web server starts it for each request.
//!
//! Never decides who may push: the hook of the repository does.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{Request, Response, Seen};

/// A push of the demonstration has a few kilobytes.
const PUSH_MAX: usize = 1 << 20;

pub(super) struct Shelf {
    pub repositories: PathBuf,
    pub seen: Seen,
}

impl Shelf {
    pub(super) async fn answer(&self, request: Request) -> io::Result<Response> {
        let (parts, body) = request.into_parts();
        self.seen.note(&format!("{} {}", parts.method, parts.uri.path()))?;
        let body = Limited::new(body, PUSH_MAX).collect().await.map_err(io::Error::other)?.to_bytes();
        let text = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let mut git = Command::new("git");
        git.arg("http-backend")
            .env("GIT_PROJECT_ROOT", &self.repositories)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REQUEST_METHOD", parts.method.as_str())
            .env("PATH_INFO", parts.uri.path())
            .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
            .env("CONTENT_TYPE", text("content-type"))
            .env("CONTENT_LENGTH", body.len().to_string())
            .env("HTTP_CONTENT_ENCODING", text("content-encoding"))
            .env("GIT_PROTOCOL", text("git-protocol"))
            .env("REMOTE_ADDR", "127.0.0.1");
        let mut git = git.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdin = git.stdin.take();
        let fed = async {
            if let Some(mut stdin) = stdin {
                // It need not read all of it; what it says then counts.
                let _ = stdin.write_all(&body).await;
            }
        };
        let ((), said) = tokio::join!(fed, git.wait_with_output());
        from_cgi(&said?.stdout)
    }
}

/// What a CGI program says: header lines, an empty line, the body.
fn from_cgi(said: &[u8]) -> io::Result<Response> {
    let malformed = || {
        io::Error::new(io::ErrorKind::InvalidData, "the answer of git http-backend has no end of its head")
    };
    let end = said.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(malformed)?;
    let (head, body) = said.split_at(end);
    let body = body.get(4..).unwrap_or_default();
    let mut response = Response::new(Full::from(Bytes::copy_from_slice(body)));
    for line in String::from_utf8_lossy(head).lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        let status = value.get(..3).and_then(|code| StatusCode::from_bytes(code.as_bytes()).ok());
        match (name, status, HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            ("Status", Some(status), ..) => *response.status_mut() = status,
            (_, _, Ok(name), Ok(value)) => drop(response.headers_mut().append(name, value)),
            _ => {}
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cgi_program_says_becomes_an_answer() {
        let response =
            from_cgi(b"Status: 404 Not Found\r\nContent-Type: text/plain\r\n\r\nnone\r\n\r\n").unwrap();
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (StatusCode::NOT_FOUND, &HeaderValue::from_static("text/plain"))
        );
        assert!(from_cgi(b"Content-Type: text/plain\r\n").is_err());
    }
}
