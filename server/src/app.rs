//! The server put together, in the order in which its parts depend on each other.
//!
//! A parts list: no part is built in here and none knows this file.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use avouch::health_http::{serve_health, serve_metrics};
use avouch::logs::{self, LogHandle};
use avouch::turns::Turns;
use avouch_attestors::node::{NodeVerifier, x509pop};
use avouch_credential::tls::{ServerPolicy, TlsError, server_config};
use avouch_domain::{Holder, Image, Row, SlotState, Tick};
use avouch_store::StoreError;
use nix::sys::resource::{Resource, getrlimit};
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::authz::method_names;
use crate::api::gate::{Gate, Limits};
use crate::api::listen::{
    Door, ListenError, TcpTerms, bind_tcp, bind_unix, connections_for, serve_tcp, serve_unix,
};
use crate::api::pages::Pages;
use crate::api::{admin_stack, people_stack, tcp_stack};
use crate::clock;
use crate::config::{KeyManagerConfig, NodeAttestorConfig, ServerConfig};
use crate::datadir::{DataDir, DataDirError};
use crate::datastore::Datastore;
use crate::drain::Drain;
use crate::health::ServerHealth;
use crate::keys::counted::CountedKeys;
use crate::keys::disk::DiskKeys;
use crate::keys::memory::MemoryKeys;
use crate::keys::{KeyError, KeyManager};
use crate::limits::{FAREWELL_TIME, GAUGE_INTERVAL};
use crate::metrics::Metrics;
use crate::people_file;
use crate::service::{Parts, Services, Settings, StartError};

/// Version of this program, for logs and metrics.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why the server can't start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Log(#[from] logs::LogError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("unable to open the store: {0}")]
    Store(#[from] StoreError),
    #[error("unable to open the keys: {0}")]
    Keys(#[from] KeyError),
    #[error("unable to set up node attestation: {0}")]
    Attestor(String),
    #[error("unable to start: {0}")]
    Start(#[from] StartError),
    #[error("unable to set up TLS: {0}")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("unable to set up the sign-in to the pages: {0}")]
    SignIn(String),
    #[error("unable to listen on {address}: {source}")]
    Http { address: String, source: io::Error },
    #[error("unable to wait for signals: {0}")]
    Signals(io::Error),
}

/// Runs a server until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// [`AppError`] if it can't start.
pub async fn run(config: ServerConfig, turns: Turns) -> Result<(), AppError> {
    let logs = logs::init(config.log.clone())?;
    turns.tell();
    let stop = CancellationToken::new();
    spawn_signals(stop.clone(), logs.clone())?;
    let outcome = serve(config, logs, stop).await;
    match &outcome {
        Ok(()) => tracing::info!("Server stopped gracefully"),
        Err(error) => tracing::error!(error = %error, "Server crashed"),
    }
    outcome
}

/// Runs a server until `stop`.
///
/// # Errors
/// As [`run`].
pub async fn serve(config: ServerConfig, logs: LogHandle, stop: CancellationToken) -> Result<(), AppError> {
    let started = clock::now();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let data = DataDir::open(&config.data_dir)?;
    tracing::info!(version = VERSION, data_dir = %config.data_dir.display(), server_name = %data.server_name, "Server starts");

    let metrics = Metrics::new(&config.telemetry, &config.trust_domain, &method_names());
    let (store, image) = open_store(config.datastore.file.clone(), metrics.clone()).await?;
    let keys = open_keys(&config.key_manager, &image, &data.server_name, metrics.clone())?;
    let verifiers = load_verifiers(&config)?;
    // The services outlive the doors: calls that are still running need them while the doors close.
    let services_stop = CancellationToken::new();
    let services = Services::start(Parts {
        store: store.clone(),
        image,
        trust_domain: config.trust_domain.clone(),
        server_name: data.server_name.clone(),
        keys,
        settings: settings(&config),
        verifiers,
        clock: clock::now,
        stop: services_stop.clone(),
    })
    .await?;

    let drain = Drain::default();
    let gate = Arc::new(Gate {
        services: services.clone(),
        admin_ids: config.admin_ids.iter().cloned().collect(),
        limits: Limits::new(config.rate_limit.attestation, config.rate_limit.signing, clock::now),
        metrics: metrics.clone(),
        audit_log: config.audit_log_enabled,
        clock: clock::now,
        drain: drain.clone(),
    });
    let ca = services.ca();
    let tls = server_config(ca.identity(), ca.roots(), ServerPolicy::GRPC)?;
    let admin_ids = Arc::new(gate.admin_ids.clone());
    let connections = connections_for(descriptor_limit());
    let terms = TcpTerms { tls, trust_domain: config.trust_domain.clone(), admin_ids, connections };
    let mut doors = open_doors(&config, &gate, terms, logs, started.mono)?;
    if let Some(file) = config.people_file.clone() {
        tokio::spawn(people_file::follow(file, services.clone(), clock::now, stop.clone()));
    }
    tracing::info!(subsystem_name = "endpoints", address = %config.bind, network = "tcp", "Starting Server APIs");
    tracing::info!(subsystem_name = "endpoints", address = %config.socket_path.display(), network = "unix", "Starting Server APIs");
    serve_http(&config, &services, &store, &metrics, &stop).await?;
    metrics.started(VERSION);
    notify(&[NotifyState::Ready]);

    keep_gauges(&metrics, &services, started.mono, &stop).await;
    notify(&[NotifyState::Stopping]);
    tracing::info!("Server is stopping");
    say_farewell(&services).await;
    drain.finish().await;
    while doors.join_next().await.is_some() {}
    [Some(&config.socket_path), config.people_socket_path.as_ref()]
        .into_iter()
        .flatten()
        .for_each(remove_socket);
    services_stop.cancel();
    services.finished().await;
    store.close().await;
    Ok(())
}

/// Nodes that follow decide alone for a while longer, if that can be recorded in time.
async fn say_farewell(services: &Services) {
    if tokio::time::timeout(FAREWELL_TIME, services.leave(clock::now())).await.is_err() {
        tracing::warn!("Recording that this server goes away takes too long: nodes may not have been told");
    }
}

/// What the server listens on.
struct Doors {
    tcp: tokio::net::TcpListener,
    admin: tokio::net::UnixListener,
    people: Option<tokio::net::UnixListener>,
    console: Option<tokio::net::TcpListener>,
}

impl Doors {
    fn open(config: &ServerConfig) -> Result<Self, ListenError> {
        let tcp = bind_tcp(config.bind)?;
        let admin = bind_unix(&config.socket_path, Door::Admin)?;
        let people =
            config.people_socket_path.as_ref().map(|path| bind_unix(path, Door::People)).transpose()?;
        let console = config.console_address.map(bind_tcp).transpose()?;
        if crate::sys::unclaimed() > 0 {
            tracing::warn!(
                subsystem_name = "endpoints",
                unclaimed = crate::sys::unclaimed(),
                "The service manager passed sockets that are neither bind_address and bind_port, nor socket_path, \
                 people_socket_path or console_address"
            );
        }
        Ok(Self { tcp, admin, people, console })
    }
}

/// Serves on everything that the configuration names, until the drain begins.
fn open_doors(
    config: &ServerConfig,
    gate: &Arc<Gate>,
    terms: TcpTerms,
    logs: LogHandle,
    started: Tick,
) -> Result<JoinSet<()>, AppError> {
    let Doors { tcp, admin, people, console } = Doors::open(config)?;
    let pages = console.as_ref().and_then(|listener| listener.local_addr().ok());
    let pages = pages.map(|address| Pages::at(address, config.console_sign_in.clone()));
    let mut doors = JoinSet::new();
    doors.spawn(serve_tcp(tcp, terms, tcp_stack(gate)));
    doors.spawn(serve_unix(admin, admin_stack(gate, logs, started, pages.as_ref())));
    if let Some(people) = people {
        doors.spawn(serve_unix(people, people_stack(gate, pages.as_ref())));
    }
    if let (Some(listener), Some(pages)) = (console, &pages) {
        tracing::info!(address = %pages.address, "Serving the pages for people");
        let console = pages.console(gate).map_err(AppError::SignIn)?;
        doors.spawn(avouch_console::serve(listener, console, gate.drain.begun().clone()));
    }
    Ok(doors)
}

/// Refreshes the gauges until `stop`.
async fn keep_gauges(metrics: &Metrics, services: &Services, started: Tick, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        let (now, counts) = (clock::now(), services.counts());
        metrics.uptime(now.mono.since(started));
        metrics.sizes(counts.agents, counts.entries, services.followers());
        metrics.authority_ends(services.ca().facts().x509_not_after, now.wall);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(GAUGE_INTERVAL) => {}
        }
    }
}

async fn open_store(file: PathBuf, metrics: Metrics) -> Result<(Datastore, Image), AppError> {
    let opened = tokio::task::spawn_blocking(move || Datastore::open(&file, metrics, clock::now)).await;
    Ok(opened
        .map_err(|e| StoreError::Io { path: PathBuf::new(), source: Arc::new(io::Error::other(e)) })??)
}

/// Files that this process may have open.
fn descriptor_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

fn open_keys(
    config: &KeyManagerConfig,
    image: &Image,
    server_name: &str,
    metrics: Metrics,
) -> Result<Arc<dyn KeyManager>, AppError> {
    let keys: Arc<dyn KeyManager> = match config {
        KeyManagerConfig::Memory => Arc::new(MemoryKeys::new()),
        // A new authority in place of one that is only mislaid would be a surprise for every verifier.
        KeyManagerConfig::Disk { keys_path }
            if keys_path.try_exists().is_ok_and(|there| !there) && has_authorities(image, server_name) =>
        {
            return Err(KeyError::Missing { path: keys_path.clone() }.into());
        }
        KeyManagerConfig::Disk { keys_path } => Arc::new(DiskKeys::open(keys_path)?),
    };
    Ok(Arc::new(CountedKeys::new(keys, metrics, clock::now)))
}

/// Authorities of this server that have not ended are on record.
fn has_authorities(image: &Image, server_name: &str) -> bool {
    image.rows.iter().any(|row| {
        matches!(row, Row::Authority(authority)
            if authority.state != SlotState::Old
                && authority.not_after > image.read_at
                && matches!(&authority.holder, Holder::Server(name) if **name == *server_name))
    })
}

/// By attestation type.
type Verifiers = Vec<(String, Arc<dyn NodeVerifier>)>;

fn load_verifiers(config: &ServerConfig) -> Result<Verifiers, AppError> {
    let mut verifiers = Verifiers::new();
    for attestor in &config.node_attestors {
        match attestor {
            // The services spend tokens themselves, in the write of the node.
            NodeAttestorConfig::JoinToken => {}
            NodeAttestorConfig::X509pop(settings) => {
                let verifier = x509pop::Verifier::load(config.trust_domain.clone(), settings.clone())
                    .map_err(|e| AppError::Attestor(e.to_string()))?;
                verifiers.push(("x509pop".into(), Arc::new(verifier)));
            }
        }
    }
    Ok(verifiers)
}

fn settings(config: &ServerConfig) -> Settings {
    Settings {
        ca_ttl: config.ca_ttl,
        agent_ttl: config.agent_ttl,
        x509_svid_ttl: config.default_x509_svid_ttl,
        jwt_svid_ttl: config.default_jwt_svid_ttl,
        ca_key_type: config.ca_key_type,
        jwt_key_type: config.jwt_key_type,
        ca_subject: config.ca_subject.name(),
        jwt_issuer: config.jwt_issuer.clone(),
        jwt_disabled: config.disable_jwt_svids,
        agent_spiffe_id_as_selector: config.agent_spiffe_id_as_selector,
        prune_attested_nodes_expired_for: config.prune_attested_nodes_expired_for,
        prune_tofu_nodes: config.prune_tofu_nodes,
        prune_attested_nodes_batch_size: config.prune_attested_nodes_batch_size,
        owners_demanded_from: config.owners_demanded_from,
    }
}

/// The plain HTTP listeners, once the API listens: probes must not turn green before it does.
async fn serve_http(
    config: &ServerConfig,
    services: &Services,
    store: &Datastore,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<(), AppError> {
    if let Some(health) = &config.health {
        let listener = bind_http(&health.host, health.port).await?;
        let state = Arc::new(ServerHealth::new(services.clone(), store.clone(), clock::now));
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(serve_health(
            listener,
            health.live_path.clone(),
            health.ready_path.clone(),
            state,
            stopped,
        ));
    }
    if let Some((host, port)) = &config.telemetry.prometheus {
        let listener = bind_http(host, *port).await?;
        tokio::spawn(serve_metrics(listener, metrics.registry(), stop.clone().cancelled_owned()));
    }
    Ok(())
}

async fn bind_http(host: &str, port: u16) -> Result<TcpListener, AppError> {
    let bound = TcpListener::bind((host, port)).await;
    let listener = bound.map_err(|source| AppError::Http { address: format!("{host}:{port}"), source })?;
    tracing::info!(address = format!("{host}:{port}"), "Serving HTTP");
    Ok(listener)
}

fn spawn_signals(stop: CancellationToken, logs: LogHandle) -> Result<(), AppError> {
    let wait = |kind| signal(kind).map_err(AppError::Signals);
    let mut terminate = wait(SignalKind::terminate())?;
    let mut interrupt = wait(SignalKind::interrupt())?;
    let mut reopen = wait(SignalKind::user_defined2())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = reopen.recv() => match logs.reopen() {
                    Ok(()) => tracing::info!("Log file opened anew"),
                    Err(error) => tracing::error!(error = %error, "Unable to open the log file anew"),
                },
            }
        }
        stop.cancel();
    });
    Ok(())
}

/// Tells the service manager, if there is one; without one there is nobody to tell.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(error = %error, "Service manager not told");
    }
}

fn remove_socket(path: &std::path::PathBuf) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!(error = %error, "Socket left behind");
    }
}
