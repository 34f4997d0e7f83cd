//! The log of a server as the lines of an export, read page by page over the governance API.
//!
//! Never checks what it reads: that is for `avouch_credential::ledger::Log`.

use avouch_credential::ledger::{Header, NodeHeader, SignedHead, head_line};
use avouch_domain::{
    ChainId, KeptHead, NodeChain, NodeHead, Receipt, SpiffeId, Stand, Timestamp, TrustDomain,
};
use avouch_proto::governance_v1 as wire;
use avouch_proto::governance_v1::governance_client::GovernanceClient;
use hyper::body::{Body as HttpBody, Bytes};
use tonic::Status;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::StdError;

/// Whose records are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    All,
    Server,
    Node(SpiffeId),
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("{}", .0.message())]
    Status(#[from] Status),
    /// The server said what it never says.
    #[error("{0}")]
    Odd(String),
    #[error("the server has no records of {0}")]
    Nothing(SpiffeId),
}

/// Whatever calls go through: a connection, or the server's own service.
pub trait Reach:
    GrpcService<
        Body,
        Error: Into<StdError>,
        ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    >
{
}

impl<T> Reach for T where
    T: GrpcService<
            Body,
            Error: Into<StdError>,
            ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
        >
{
}

/// One part of the log.
#[derive(Debug)]
enum Part {
    Server,
    /// With the number by which the server knows it.
    Chain(u64, NodeChain),
}

/// The log as the lines of an export: the server's, then the nodes', in the order in which their chains began.
#[derive(Debug)]
pub struct Exported {
    /// Last first.
    parts: Vec<Part>,
    after: u64,
    begun: bool,
}

impl Exported {
    /// The log of these sources.
    ///
    /// # Errors
    /// [`ExportError`].
    pub async fn of<T: Reach>(
        client: &mut GovernanceClient<T>,
        source: &Source,
    ) -> Result<Self, ExportError> {
        let mut parts = Vec::new();
        if !matches!(source, Source::Node(_)) {
            parts.push(Part::Server);
        }
        let named = match source {
            Source::Server => return Ok(Self { parts, after: 0, begun: false }),
            Source::All => String::new(),
            Source::Node(id) => id.to_string(),
        };
        let mut after = 0;
        loop {
            let request = wire::ListChainsRequest { source: named.clone(), after };
            let page = client.list_chains(request).await?.into_inner().chains;
            let Some(last) = page.last() else { break };
            after = last.number;
            for chain in page.into_iter().filter(|chain| chain.first > 0) {
                parts.push(Part::Chain(chain.number, chain_of(&chain)?));
            }
        }
        if let (Source::Node(id), true) = (source, parts.is_empty()) {
            return Err(ExportError::Nothing(id.clone()));
        }
        parts.reverse();
        Ok(Self { parts, after: 0, begun: false })
    }

    /// One chain of a node.
    ///
    /// # Errors
    /// [`ExportError::Odd`].
    pub fn of_chain(chain: &wire::NodeChain) -> Result<Self, ExportError> {
        Ok(Self { parts: vec![Part::Chain(chain.number, chain_of(chain)?)], after: 0, begun: false })
    }

    /// The next lines, which may be none; `None` at the end.
    ///
    /// # Errors
    /// [`ExportError`].
    pub async fn next<T: Reach>(
        &mut self,
        client: &mut GovernanceClient<T>,
    ) -> Result<Option<Vec<String>>, ExportError> {
        let Some(part) = self.parts.last() else { return Ok(None) };
        let chain = match part {
            Part::Server => 0,
            Part::Chain(number, _) => *number,
        };
        let request = wire::ListRecordsRequest { after: self.after, limit: 0, chain };
        let page = client.list_records(request).await?.into_inner();
        let mut lines = Vec::with_capacity(page.lines.len() + page.heads.len() + 1);
        if !self.begun {
            self.begun = true;
            lines.push(match part {
                Part::Server => {
                    let domain = TrustDomain::new(&page.trust_domain)
                        .map_err(|e| ExportError::Odd(format!("the server's trust domain: {e}")))?;
                    Header::new(&domain, page.first.max(1)).line()
                }
                Part::Chain(_, chain) => NodeHeader::new(chain, page.first.max(1)).line(),
            });
        } else if page.lines.is_empty() {
            self.parts.pop();
            (self.after, self.begun) = (0, false);
            return Ok(Some(lines));
        }
        let mut heads = page.heads.into_iter().peekable();
        for (seq, line) in (page.first..).zip(page.lines) {
            lines.push(line);
            self.after = seq;
            while let Some(head) = heads.next_if(|head| head.seq <= seq) {
                lines.push(match part {
                    Part::Server => head_of(head)?.line(),
                    Part::Chain(..) => head_line(&kept_head_of(head)?),
                });
            }
        }
        Ok(Some(lines))
    }
}

fn chain_of(chain: &wire::NodeChain) -> Result<NodeChain, ExportError> {
    let source = SpiffeId::parse(&chain.source)
        .map_err(|e| ExportError::Odd(format!("a chain is of \"{}\": {e}", chain.source)))?;
    let id = ChainId::from_text(&chain.chain)
        .ok_or_else(|| ExportError::Odd(format!("a chain has the name \"{}\"", chain.chain)))?;
    Ok(NodeChain { source, id })
}

fn hash_of(hash: Vec<u8>) -> Result<[u8; 32], ExportError> {
    hash.try_into().map_err(|_| ExportError::Odd("a head has a hash of another length".to_owned()))
}

fn kept_head_of(head: wire::Head) -> Result<KeptHead, ExportError> {
    Ok(KeptHead {
        head: NodeHead {
            stand: Stand { seq: head.seq, hash: hash_of(head.hash)? },
            at: Timestamp(head.at_ms),
            certificate: head.certificate,
            signature: head.node_signature,
        },
        receipt: Receipt { key: head.key, signature: head.signature },
    })
}

fn head_of(head: wire::Head) -> Result<SignedHead, ExportError> {
    Ok(SignedHead {
        seq: head.seq,
        hash: hash_of(head.hash)?,
        at: Timestamp(head.at_ms),
        key: head.key,
        signature: head.signature,
    })
}
