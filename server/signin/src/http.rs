//! Questions to a provider: one connection each, within limits.
//!
//! Never follows a redirect, and never takes an answer that is not whole.

use std::sync::Arc;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

use crate::error::SignInFailed;
use crate::limits::{ANSWER_MAX, ANSWER_TIME, HEAD_MAX};
use crate::url::Url;

/// How to ask.
#[derive(Clone)]
pub(crate) struct Client(TlsConnector);

/// A form that is sent, and the credentials beside it.
pub(crate) struct Form {
    pub(crate) body: String,
    pub(crate) authorization: Option<HeaderValue>,
}

impl Client {
    pub(crate) fn new(tls: Arc<ClientConfig>) -> Self {
        Self(TlsConnector::from(tls))
    }

    /// Status and body of an answer.
    pub(crate) async fn ask(
        &self,
        url: &Url,
        form: Option<Form>,
    ) -> Result<(StatusCode, Bytes), SignInFailed> {
        match timeout(ANSWER_TIME, self.asked(url, form)).await {
            Ok(answer) => answer,
            Err(_) => Err(unreachable(format!("no answer within {} s", ANSWER_TIME.as_secs()))),
        }
    }

    async fn asked(&self, url: &Url, form: Option<Form>) -> Result<(StatusCode, Bytes), SignInFailed> {
        let request = request(url, form)?;
        let stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(unreachable)?;
        if !url.tls {
            return exchange(stream, request).await;
        }
        let name = ServerName::try_from(url.host.clone()).map_err(unreachable)?;
        exchange(self.0.connect(name, stream).await.map_err(unreachable)?, request).await
    }
}

fn unreachable(error: impl std::fmt::Display) -> SignInFailed {
    SignInFailed::Unreachable(error.to_string())
}

fn request(url: &Url, form: Option<Form>) -> Result<Request<Full<Bytes>>, SignInFailed> {
    let request = Request::builder()
        .uri(&url.path_and_query)
        .header(HOST, &url.authority)
        .header(ACCEPT, "application/json");
    let request = match form {
        None => request.body(Full::default()),
        Some(Form { body, authorization }) => {
            let mut request =
                request.method(Method::POST).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            if let Some(secret) = authorization {
                request = request.header(AUTHORIZATION, secret);
            }
            request.body(Full::new(body.into()))
        }
    };
    request.map_err(unreachable)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), SignInFailed>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    let made = builder.max_buf_size(HEAD_MAX).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = made.map_err(unreachable)?;
    // Runs beside the question, and ends with it.
    let answered = async {
        let answer = sender.send_request(request).await.map_err(unreachable)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|e| SignInFailed::Answer(format!("its body: {e}")))?;
        Ok((status, body.to_bytes()))
    };
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => match ended {
            // What came before the end is read still.
            Ok(()) => answered.await,
            Err(error) => Err(unreachable(error)),
        },
    }
}
