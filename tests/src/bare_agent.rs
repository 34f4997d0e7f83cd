//! An agent's part on the server's API without an agent: a node that attests by hand and calls what it likes.

use avouch_credential::key::PrivateKey;
use avouch_credential::x509::csr::{CsrTemplate, build};
use avouch_credential::x509::name::Name;
use avouch_domain::KeyType;
use avouch_proto::agent_v1::agent_client::AgentClient;
use avouch_proto::agent_v1::{self, attest_agent_request, attest_agent_response};
use avouch_proto::types;
use tonic::Status;
use tonic::transport::Channel;

use crate::{Server, mtls};

/// An agent's SVID with its key.
pub struct BareAgent {
    pub key: PrivateKey,
    pub chain: Vec<Vec<u8>>,
    pub id: types::Spiffeid,
}

/// A CSR as agents send it.
pub fn request_for(key: &PrivateKey) -> Vec<u8> {
    build(&CsrTemplate { subject: &Name::svid_default(), id: None, dns_names: &[] }, key).unwrap()
}

/// A P-256 key.
pub fn fresh_key() -> PrivateKey {
    PrivateKey::generate(KeyType::EcP256).unwrap()
}

impl BareAgent {
    /// Attests with a join token over TLS without a client certificate.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn attest(server: &Server, token: &str) -> Result<Self, Status> {
        let key = fresh_key();
        let params = attest_agent_request::Params {
            data: Some(types::AttestationData { r#type: "join_token".into(), payload: token.into() }),
            params: Some(agent_v1::AgentX509svidParams { csr: request_for(&key) }),
        };
        let step = Some(attest_agent_request::Step::Params(params));
        let steps = tokio_stream::iter([agent_v1::AttestAgentRequest { step }]);
        let (channel, _) = mtls::channel(server.address(), &[], &[]).await.unwrap();
        let mut answers = AgentClient::new(channel).attest_agent(steps).await?.into_inner();
        let answer = answers.message().await?.unwrap();
        let Some(attest_agent_response::Step::Result(result)) = answer.step else { panic!("{answer:?}") };
        assert!(!result.reattestable);
        assert!(answers.message().await.unwrap().is_none(), "the stream ends by itself");
        let svid = result.svid.unwrap();
        Ok(Self { key, chain: svid.cert_chain, id: svid.id.unwrap() })
    }

    /// Attests with a token of this server's.
    pub async fn join(server: &Server) -> Self {
        Self::attest(server, &server.token().await).await.unwrap()
    }

    /// A connection that shows the SVID.
    pub async fn connect(&self, server: &Server) -> Channel {
        mtls::channel(server.address(), &self.chain, &self.key.pkcs8()).await.unwrap().0
    }

    /// The ID as text.
    pub fn uri(&self) -> String {
        format!("spiffe://{}{}", self.id.trust_domain, self.id.path)
    }
}
