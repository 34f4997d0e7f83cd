//! From an HTTP request on the workload socket to a call of the Workload API.
//!
//! Reads nothing of a request's body before the header rule holds and the caller has its share.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use avouch::rpc;
use avouch_proto::workload as wire;
use prost::bytes::Bytes;
use tonic::body::Body;
use tonic::{Request, Response, Status};

use super::answer::Kind;
use super::codec::EncodedCodec;
use super::status::Refusal;
use super::steps::{Step, Steps};
use super::workload::Workload;
use crate::limits::REQUEST_MAX;
use crate::peer::Caller;

const SERVICE: &str = "SpiffeWorkloadAPI";
const HEADER: &str = "workload.spiffe.io";
/// The methods that are built.
const METHODS: [&str; 5] =
    ["FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID", "FetchJWTBundles", "ValidateJWTSVID"];

/// The service as tonic's router wants it.
#[derive(Clone)]
pub struct WorkloadService(pub(super) Arc<Workload>);

impl std::fmt::Debug for WorkloadService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WorkloadService")
    }
}

impl tonic::server::NamedService for WorkloadService {
    const NAME: &'static str = SERVICE;
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl tower::Service<http::Request<Body>> for WorkloadService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let workload = self.0.clone();
        Box::pin(async move { Ok(workload.route(request).await) })
    }
}

fn has_header(request: &http::Request<Body>) -> bool {
    let mut values = request.headers().get_all(HEADER).iter();
    values.next().is_some_and(|value| value.as_bytes() == b"true") && values.next().is_none()
}

impl Workload {
    /// Header rule, then the method, the sync state and a fair share; nothing of the body is read before all hold.
    async fn route(self: Arc<Self>, request: http::Request<Body>) -> http::Response<Body> {
        if !has_header(&request) {
            return Status::from(Refusal::HeaderMissing).into_http();
        }
        let caller = request.extensions().get::<Arc<Caller>>().cloned();
        let name = request.uri().path().strip_prefix("/SpiffeWorkloadAPI/").unwrap_or_default();
        let Some(method) = METHODS.into_iter().find(|method| *method == name) else {
            let refusal = match name {
                "FetchWITSVID" => Refusal::WitSvid,
                "FetchWITBundles" => Refusal::WitBundles,
                other => Refusal::UnknownMethod(other.to_owned()),
            };
            return Status::from(refusal).into_http();
        };
        let call = match self.open(method, caller) {
            Ok(call) => call,
            Err(status) => return status.into_http(),
        };
        let mut answer = match method {
            "FetchX509SVID" => {
                streaming::<wire::X509svidRequest, _, _>(request, self.stream(Kind::X509Svid, call)).await
            }
            "FetchX509Bundles" => {
                streaming::<wire::X509BundlesRequest, _, _>(request, self.stream(Kind::X509Bundles, call))
                    .await
            }
            "FetchJWTBundles" => {
                streaming::<wire::JwtBundlesRequest, _, _>(request, self.stream(Kind::JwtBundles, call)).await
            }
            "FetchJWTSVID" => unary(request, |message| self.fetch_jwt(call, message)).await,
            _ => unary(request, |message| self.validate(call, message)).await,
        };
        rpc::reword_too_large(answer.headers_mut());
        answer
    }
}

/// Runs `handle` on a request without content.
async fn streaming<R, F, S>(request: http::Request<Body>, handle: F) -> http::Response<Body>
where
    R: prost::Message + Default + Send + 'static,
    F: Future<Output = Result<Response<Steps<S>>, Status>> + Send + 'static,
    S: Step,
{
    let mut handle = Some(handle);
    let service = tower::service_fn(move |_: Request<R>| {
        let handle = handle.take();
        async move {
            match handle {
                Some(handle) => handle.await,
                None => Err(Status::internal("a request was handled twice")),
            }
        }
    });
    let mut grpc =
        tonic::server::Grpc::new(EncodedCodec::<R>::default()).max_decoding_message_size(REQUEST_MAX);
    grpc.server_streaming(service, request).await
}

/// Runs `handle` on the message of the request.
async fn unary<R, H, F>(request: http::Request<Body>, handle: H) -> http::Response<Body>
where
    R: prost::Message + Default + Send + 'static,
    H: FnOnce(R) -> F + Send + 'static,
    F: Future<Output = Result<Response<Bytes>, Status>> + Send + 'static,
{
    let mut handle = Some(handle);
    let service = tower::service_fn(move |request: Request<R>| {
        let handle = handle.take();
        async move {
            match handle {
                Some(handle) => handle(request.into_inner()).await,
                None => Err(Status::internal("a request was handled twice")),
            }
        }
    });
    let mut grpc =
        tonic::server::Grpc::new(EncodedCodec::<R>::default()).max_decoding_message_size(REQUEST_MAX);
    grpc.unary(service, request).await
}
