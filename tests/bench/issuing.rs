//! Rows about the server's signing, with a real server: its CPU for one SVID, over the wire that agents use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use avouch_credential::x509::csr::{CsrTemplate, build};
use avouch_credential::x509::name::Name;
use avouch_domain::{SpiffeId, TrustDomain};
use avouch_proto::svid_v1;
use avouch_proto::svid_v1::svid_client::SvidClient;
use avouch_tests::bare_agent::{BareAgent, fresh_key, request_for};
use avouch_tests::{Server, ServerOptions, entry};
use tonic::transport::Channel;

use crate::process::{SAMPLES, cpu_each};
use crate::report::{Bar, Report, Yard, median, quantile};
use crate::yardstick;

/// Entries that the agent may have SVIDs of.
const ENTRIES: usize = 1000;
/// Largest batch that SPIRE's agents ask for.
const BATCH: usize = 500;
/// Calls in one sample of a row about single calls.
const CALLS: usize = 300;

/// A server without rate limits that logs as in production.
pub fn production() -> ServerOptions {
    let rate_limits = "attestation = false\n signing = false";
    ServerOptions { rate_limits, log_level: "INFO", ..ServerOptions::default() }
}

/// A node with entries that asks a server for SVIDs.
pub struct Bench<'a> {
    server: &'a Server,
    agent: BareAgent,
    ids: Vec<String>,
}

impl<'a> Bench<'a> {
    pub async fn at(server: &'a Server) -> Self {
        let agent = BareAgent::join(server).await;
        let parent = agent.uri();
        let one = |n| entry(&parent, &format!("/w/{n}"), &[&format!("unix:uid:{n}")]);
        let made = server.create_all((0..ENTRIES).map(one).collect()).await;
        let ids = made.into_iter().map(|entry| entry.id).collect();
        Self { server, agent, ids }
    }

    async fn client(&self) -> SvidClient<Channel> {
        let client = SvidClient::new(self.agent.connect(self.server).await);
        client.max_decoding_message_size(usize::MAX)
    }

    fn batch(&self, size: usize) -> svid_v1::BatchNewX509svidRequest {
        let params = self
            .ids
            .iter()
            .take(size)
            .map(|id| svid_v1::NewX509svidParams { entry_id: id.clone(), csr: request_for(&fresh_key()) });
        svid_v1::BatchNewX509svidRequest { params: params.collect() }
    }

    fn jwt(&self) -> svid_v1::NewJwtsvidRequest {
        svid_v1::NewJwtsvidRequest { entry_id: self.ids[0].clone(), audience: vec!["db".into()] }
    }

    /// What `work` gives while two clients ask for batches of 500 without a pause.
    pub async fn under_load<T>(&self, work: impl Future<Output = T>) -> T {
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = tokio::task::JoinSet::new();
        for _ in 0..2 {
            let (mut client, request, stop) = (self.client().await, self.batch(BATCH), Arc::clone(&stop));
            load.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    client.batch_new_x509svid(request.clone()).await.unwrap();
                }
            });
        }
        let done = work.await;
        stop.store(true, Ordering::Relaxed);
        load.join_all().await;
        done
    }

    /// Two rows about a 99th percentile in milliseconds: without other work, and beside two clients' batches.
    pub async fn beside_batches(&self, report: &Report, what: &str, mut p99: impl AsyncFnMut() -> f64) {
        let (mut idle, mut loaded) = (Vec::new(), Vec::new());
        for _ in 0..SAMPLES {
            idle.push(p99().await * 1e3);
            loaded.push(self.under_load(p99()).await * 1e3);
        }
        let yard = Yard { name: "idle", value: median(idle) };
        let what = format!("{what} p99 under two clients' batches of 500");
        report.ratio(&what, median(loaded.clone()), yard, Bar::AtMost(3.0));
        loaded.sort_by(f64::total_cmp);
        report.each(&loaded, "us");
    }
}

/// All rows of this part.
pub async fn run(report: &Report) {
    let server = Server::start_with(production()).await;
    let bench = Bench::at(&server).await;
    let floor = yardstick::floor();
    batches(report, &bench, floor).await;
    singles(report, &bench, floor).await;
    bench.beside_batches(report, "NewJWTSVID", async || jwt_p99(&bench).await).await;
}

async fn batches(report: &Report, bench: &Bench<'_>, floor: Yard) {
    let pid = bench.server.daemon().pid();
    let mut client = bench.client().await;
    let request = bench.batch(BATCH);
    let large = cpu_each(pid, BATCH, async || {
        let answer = client.batch_new_x509svid(request.clone()).await.unwrap().into_inner();
        assert!(answer.results.iter().all(|r| r.svid.is_some()));
    });
    let large = large.await;
    report.ratio("BatchNewX509SVID of 500: server CPU an SVID", large, floor, Bar::AtMost(1.5));
    let request = bench.batch(1);
    let one = cpu_each(pid, CALLS, async || {
        for _ in 0..CALLS {
            client.batch_new_x509svid(request.clone()).await.unwrap();
        }
    });
    let one = one.await;
    report.ratio("BatchNewX509SVID of 1: server CPU", one, floor, Bar::AtMost(3.0));
}

async fn singles(report: &Report, bench: &Bench<'_>, floor: Yard) {
    let pid = bench.server.daemon().pid();
    let mut client = bench.client().await;
    let jwt = cpu_each(pid, CALLS, async || {
        for _ in 0..CALLS {
            client.new_jwtsvid(bench.jwt()).await.unwrap();
        }
    });
    report.ratio("NewJWTSVID: server CPU", jwt.await, floor, Bar::AtMost(1.8));
    let mut admin = bench.server.svids().await;
    let domain = TrustDomain::new("example.org").expect("a name");
    let id = SpiffeId::new(&domain, "/minted").expect("an ID");
    let template = CsrTemplate { subject: &Name::svid_default(), id: Some(&id), dns_names: &[] };
    let csr = build(&template, &fresh_key()).expect("a CSR");
    let mint = cpu_each(pid, CALLS, async || {
        for _ in 0..CALLS {
            let request = svid_v1::MintX509svidRequest { csr: csr.clone(), ttl: 0 };
            admin.mint_x509svid(request).await.unwrap();
        }
    });
    report.ratio("MintX509SVID on the admin socket: server CPU", mint.await, floor, Bar::AtMost(3.0));
}

/// The 99th percentile of NewJWTSVID in milliseconds.
async fn jwt_p99(bench: &Bench<'_>) -> f64 {
    let mut client = bench.client().await;
    let mut waits = Vec::new();
    for _ in 0..3 * CALLS {
        let begun = Instant::now();
        client.new_jwtsvid(bench.jwt()).await.unwrap();
        waits.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    quantile(&waits, 0.99)
}

/// The row about nodes that attest.
pub async fn attestation(report: &Report) {
    const NODES: usize = 30;
    let server = Server::start_with(production()).await;
    let mut tokens = Vec::new();
    for _ in 0..NODES * SAMPLES {
        tokens.push(server.token().await);
    }
    let each = cpu_each(server.daemon().pid(), NODES, async || {
        for token in tokens.split_off(tokens.len() - NODES) {
            BareAgent::attest(&server, &token).await.unwrap();
        }
    });
    let what = "AttestAgent by join token, new connection, durable: server CPU";
    report.ratio(what, each.await, yardstick::handshake(), Bar::AtMost(3.0));
}
