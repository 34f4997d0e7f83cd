//! What the demonstration guards: real servers, each a process of its own, which write down each request that reaches them.
//!
//! Never listens on anything but loopback, and knows nothing of identities, rules or gates: what is refused at a gate must not
//! be seen here. Started by the demonstration alone.

mod git;
mod tools;
mod web;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

pub use web::Api;
pub(super) use web::{DEPLOY_KEY, ROWS};

/// A server of the demonstration.
#[derive(Debug, Subcommand)]
pub enum Service {
    /// A web API with a secret
    Web {
        /// Which one
        api: Api,
        /// Where each request that reaches it is written down
        #[arg(long)]
        seen: PathBuf,
        /// The secret that it asks for
        #[arg(long)]
        secret_file: PathBuf,
    },
    /// A git server over HTTP
    Git {
        /// The folder of its bare repositories
        #[arg(long)]
        repositories: PathBuf,
        /// Where each request that reaches it is written down
        #[arg(long)]
        seen: PathBuf,
    },
    /// A tool server that speaks MCP on standard input and output
    Tools {
        /// Where each call that reaches it is written down
        #[arg(long)]
        seen: PathBuf,
        /// Once this file is there, one tool says of itself that it does something else
        #[arg(long)]
        changed: PathBuf,
    },
}

/// Serves until it is ended. What listens on a port prints its address first.
///
/// # Errors
/// Of the file system, the network, or standard input and output.
pub async fn serve(service: Service) -> io::Result<()> {
    match service {
        Service::Web { api, seen, secret_file } => {
            let secret = Zeroizing::new(std::fs::read_to_string(secret_file)?);
            let shelf = Arc::new(web::Shelf { api, seen: Seen::open(&seen)?, secret });
            listen(async move |request| shelf.answer(&request)).await
        }
        Service::Git { repositories, seen } => {
            let shelf = Arc::new(git::Shelf { repositories, seen: Seen::open(&seen)? });
            listen(async move |request| shelf.answer(request).await).await
        }
        Service::Tools { seen, changed } => tools::serve(&Seen::open(&seen)?, &changed),
    }
}

/// What has come, a line each.
#[derive(Debug)]
struct Seen(Mutex<File>);

impl Seen {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Mutex::new(OpenOptions::new().append(true).create(true).mode(0o600).open(path)?)))
    }

    /// Writes down that something came, before anything else is done with it.
    fn note(&self, line: &str) -> io::Result<()> {
        self.0.lock().write_all(format!("{line}\n").as_bytes())
    }
}

type Request = hyper::Request<hyper::body::Incoming>;
type Response = hyper::Response<http_body_util::Full<hyper::body::Bytes>>;

async fn listen<A>(answer: A) -> io::Result<()>
where
    A: AsyncFn(Request) -> io::Result<Response> + 'static,
{
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let mut out = io::stdout();
    writeln!(out, "{}", listener.local_addr()?)?;
    out.flush()?;
    let (answer, here) = (std::rc::Rc::new(answer), tokio::task::LocalSet::new());
    here.run_until(async {
        loop {
            let (stream, _) = listener.accept().await?;
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |request| {
                let answer = answer.clone();
                async move { answer(request).await }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A caller that goes away in the middle is none of the server's business.
            tokio::task::spawn_local(async move { drop(connection.await) });
        }
    })
    .await
}
