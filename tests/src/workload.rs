//! A bare Workload API client: nothing hidden, nothing retried, every status to be seen.

use std::os::unix::net::UnixStream;
use std::path::Path;

use avouch_proto::workload as wire;
use avouch_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::{uds, within};

/// A client of this process.
pub struct Workload {
    pub raw: SpiffeWorkloadApiClient<Channel>,
}

/// A request with the security header.
pub fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

/// An open stream.
pub struct Stream<T>(pub Streaming<T>);

impl<T> Stream<T> {
    /// The next message, or the status that ended the stream.
    ///
    /// # Errors
    /// The stream's status; a stream that ends cleanly fails the test, since no stream of this API may.
    pub async fn next(&mut self) -> Result<T, Status> {
        match within("a message", self.0.message()).await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => panic!("the stream ended with OK"),
            Err(status) => Err(status),
        }
    }

    /// The first later message (or this one) that fits.
    pub async fn until(&mut self, what: &str, fits: impl Fn(&T) -> bool) -> T {
        within(what, async {
            loop {
                match self.next().await {
                    Ok(message) if fits(&message) => return message,
                    Ok(_) => {}
                    Err(status) => panic!("waited for {what}, came {status:?}"),
                }
            }
        })
        .await
    }

    /// The status that ends the stream, past all messages before it.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

impl Workload {
    /// # Errors
    /// The transport's, if nobody listens.
    pub async fn connect(socket: &Path) -> Result<Self, tonic::transport::Error> {
        Ok(Self { raw: SpiffeWorkloadApiClient::new(uds(socket).await?) })
    }

    /// Speaks over a connection that is there already.
    ///
    /// # Errors
    /// The transport's, if nobody answers.
    pub async fn over(connection: UnixStream) -> Result<Self, tonic::transport::Error> {
        connection.set_nonblocking(true).unwrap();
        let mut connection = Some(tokio::net::UnixStream::from_std(connection).unwrap());
        let connector = tower::service_fn(move |_: hyper::Uri| {
            let taken = connection.take().map(TokioIo::new);
            async move { taken.ok_or_else(|| std::io::Error::other("one connection only")) }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await?;
        Ok(Self { raw: SpiffeWorkloadApiClient::new(channel) })
    }

    /// # Errors
    /// The status of the call.
    pub async fn x509(&mut self) -> Result<Stream<wire::X509svidResponse>, Status> {
        let call = self.raw.fetch_x509svid(request(wire::X509svidRequest::default()));
        Ok(Stream(within("the stream", call).await?.into_inner()))
    }

    /// The first answer of a fresh stream.
    ///
    /// # Errors
    /// The status of the call or the stream.
    pub async fn fetch_x509(&mut self) -> Result<wire::X509svidResponse, Status> {
        self.x509().await?.next().await
    }

    /// The first answer of a fresh bundle stream.
    ///
    /// # Errors
    /// The status of the call or the stream.
    pub async fn x509_bundles(&mut self) -> Result<wire::X509BundlesResponse, Status> {
        self.x509_bundle_stream().await?.next().await
    }

    /// # Errors
    /// The status of the call.
    pub async fn x509_bundle_stream(&mut self) -> Result<Stream<wire::X509BundlesResponse>, Status> {
        let call = self.raw.fetch_x509_bundles(request(wire::X509BundlesRequest::default()));
        Ok(Stream(within("the stream", call).await?.into_inner()))
    }

    /// # Errors
    /// The status of the call.
    pub async fn jwt_bundle_stream(&mut self) -> Result<Stream<wire::JwtBundlesResponse>, Status> {
        let call = self.raw.fetch_jwt_bundles(request(wire::JwtBundlesRequest::default()));
        Ok(Stream(within("the stream", call).await?.into_inner()))
    }

    /// # Errors
    /// The status of the call.
    pub async fn jwt(&mut self, audience: &[&str], id: &str) -> Result<Vec<wire::Jwtsvid>, Status> {
        let audience = audience.iter().map(ToString::to_string).collect();
        let message = wire::JwtsvidRequest { audience, spiffe_id: id.to_owned() };
        Ok(within("a JWT-SVID", self.raw.fetch_jwtsvid(request(message))).await?.into_inner().svids)
    }

    /// # Errors
    /// The status of the call.
    pub async fn validate(
        &mut self,
        audience: &str,
        svid: &str,
    ) -> Result<wire::ValidateJwtsvidResponse, Status> {
        let message = wire::ValidateJwtsvidRequest { audience: audience.to_owned(), svid: svid.to_owned() };
        Ok(within("a validation", self.raw.validate_jwtsvid(request(message))).await?.into_inner())
    }
}
