//! The yardstick of the Workload API: a bare tonic service on a Unix socket, in a process of its own, that sends bytes of
//! the same size and knows nothing.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;

use avouch_proto::workload as wire;
use avouch_proto::workload::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use avouch_tests::daemon::Daemon;
use avouch_tests::{eventually, uds};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

/// The word by which this program becomes the echo.
pub const WORD: &str = "--echo";

/// A running echo.
pub struct Echo {
    pub daemon: Daemon,
    pub socket: PathBuf,
}

impl Echo {
    /// Starts this program again as an echo of `size` bytes.
    pub async fn start(dir: &Path, size: usize) -> Self {
        let socket = dir.join("echo.sock");
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg(WORD).arg(&socket).arg(size.to_string());
        let daemon = Daemon::spawn("echo", &mut command);
        eventually("an echo", async || uds(&socket).await.ok()).await;
        Self { daemon, socket }
    }
}

/// Runs as the echo until it is killed.
pub async fn serve(socket: &str, size: &str) {
    let listener = UnixListener::bind(socket).expect("a socket");
    let echo = Bare { text: "x".repeat(size.parse().expect("a size in bytes")) };
    tonic::transport::Server::builder()
        .add_service(SpiffeWorkloadApiServer::new(echo))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
        .expect("an echo");
}

struct Bare {
    text: String,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SpiffeWorkloadApi for Bare {
    type FetchX509SVIDStream = Answers<wire::X509svidResponse>;
    type FetchX509BundlesStream = Answers<wire::X509BundlesResponse>;
    type FetchJWTBundlesStream = Answers<wire::JwtBundlesResponse>;
    type FetchWITSVIDStream = Answers<wire::WitsvidResponse>;
    type FetchWITBundlesStream = Answers<wire::WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        _: Request<wire::X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let svid = wire::X509svid { x509_svid: self.text.clone().into(), ..Default::default() };
        let answer = wire::X509svidResponse { svids: vec![svid], ..Default::default() };
        let stays_open = tokio_stream::once(Ok(answer)).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(stays_open)))
    }

    async fn fetch_jwtsvid(
        &self,
        _: Request<wire::JwtsvidRequest>,
    ) -> Result<Response<wire::JwtsvidResponse>, Status> {
        let svid = wire::Jwtsvid { svid: self.text.clone(), ..Default::default() };
        Ok(Response::new(wire::JwtsvidResponse { svids: vec![svid] }))
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<wire::X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<wire::JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn validate_jwtsvid(
        &self,
        _: Request<wire::ValidateJwtsvidRequest>,
    ) -> Result<Response<wire::ValidateJwtsvidResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn fetch_witsvid(
        &self,
        _: Request<wire::WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<wire::WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        Err(Status::unimplemented("an echo"))
    }
}
