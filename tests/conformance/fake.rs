//! A Workload API of our own making, to see what our client side sends and how it takes answers.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use avouch_proto::workload as wire;
use avouch_proto::workload::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use avouch_tests::forge::Authority;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The fake and what it saw.
pub struct Fake {
    pub socket: PathBuf,
    pub tcp_port: u16,
    seen: Arc<Mutex<Vec<MetadataMap>>>,
    send: mpsc::UnboundedSender<wire::X509svidResponse>,
    _dir: Arc<TempDir>,
}

struct Service {
    seen: Arc<Mutex<Vec<MetadataMap>>>,
    answers: Mutex<Option<mpsc::UnboundedReceiver<wire::X509svidResponse>>>,
}

/// A full answer with one identity.
pub fn answer(hint: &str) -> wire::X509svidResponse {
    let authority = Authority::fresh("spiffe://example.org");
    let leaf = authority.leaf("spiffe://example.org/fake");
    wire::X509svidResponse {
        svids: vec![wire::X509svid {
            spiffe_id: "spiffe://example.org/fake".into(),
            x509_svid: leaf.der,
            x509_svid_key: leaf.key,
            bundle: authority.der,
            hint: hint.into(),
        }],
        ..Default::default()
    }
}

impl Fake {
    /// Starts the fake on a Unix socket and on loopback TCP; it answers one X.509 stream, with what is sent.
    pub async fn start() -> Self {
        let dir = avouch_tests::server::private_dir();
        let socket = dir.path().join("fake.sock");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (send, receive) = mpsc::unbounded_channel();
        let service = Service { seen: Arc::clone(&seen), answers: Mutex::new(Some(receive)) };
        let service = SpiffeWorkloadApiServer::new(service);
        let unix = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp_port = listener.local_addr().unwrap().port();
        let server = |service| tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server(service.clone()).serve_with_incoming(unix));
        tokio::spawn(server(service).serve_with_incoming(TcpListenerStream::new(listener)));
        Self { socket, tcp_port, seen, send, _dir: dir }
    }

    /// The next message of the stream.
    pub fn say(&self, answer: wire::X509svidResponse) {
        self.send.send(answer).unwrap();
    }

    /// Headers of the requests so far.
    pub fn headers(&self) -> Vec<MetadataMap> {
        self.seen.lock().clone()
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Service {
    type FetchX509SVIDStream = Answers<wire::X509svidResponse>;
    type FetchX509BundlesStream = Answers<wire::X509BundlesResponse>;
    type FetchJWTBundlesStream = Answers<wire::JwtBundlesResponse>;
    type FetchWITSVIDStream = Answers<wire::WitsvidResponse>;
    type FetchWITBundlesStream = Answers<wire::WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<wire::X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.seen.lock().push(request.metadata().clone());
        let answers = self.answers.lock().take().ok_or_else(|| Status::unavailable("one stream only"))?;
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(answers).map(Ok))))
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<wire::X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<wire::JwtsvidRequest>,
    ) -> Result<Response<wire::JwtsvidResponse>, Status> {
        self.seen.lock().push(request.metadata().clone());
        Err(Status::permission_denied("no identity issued"))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<wire::JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        self.seen.lock().push(request.metadata().clone());
        Err(Status::permission_denied("no identity issued"))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<wire::ValidateJwtsvidRequest>,
    ) -> Result<Response<wire::ValidateJwtsvidResponse>, Status> {
        self.seen.lock().push(request.metadata().clone());
        Err(Status::invalid_argument("not faked"))
    }

    async fn fetch_witsvid(
        &self,
        _: Request<wire::WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<wire::WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }
}
