//! The agent put together, in the order in which its parts depend on each other.
//!
//! A parts list: no part is built in here and none knows this file. The sockets are bound before anything is asked
//! of the server and answer Unavailable until the first sync.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use avouch::access_place;
use avouch::data_lock::{DataLock, DataLockError};
use avouch::descriptors;
use avouch::health_http::{serve_health, serve_metrics};
use avouch::logs::{self, LogHandle};
use avouch::turns::Turns;
use avouch_attestors::workload::{WorkloadLooker, unix};
use avouch_credential::random;
use avouch_credential::tls::{IdentityCell, RootsCell, TlsError};
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::api::{self, AdminOptions, ServeError, WorkloadOptions, WorkloadParts, listener};
use crate::clock;
use crate::config::{AgentConfig, KeyManagerConfig};
use crate::confine::Confined;
use crate::disk::{DiskError, StateFile};
use crate::health::AgentHealth;
use crate::heard::Heard;
use crate::hooks::{self, Hooks};
use crate::join::{self, Join, JoinError};
use crate::keys::{KeysError, OwnKeys};
use crate::limits::{DRAIN_MAX, GAUGE_INTERVAL, REFUSALS_WAITING};
use crate::metrics::Metrics;
use crate::proof::Proof;
use crate::records::{self, Records, SpoolError};
use crate::rules;
use crate::runs::{self, Runs};
use crate::sealed::Vault;
use crate::sealed::place;
use crate::shell::{self, Shell};
use crate::supply::Supply;
use crate::upstream::{Server, System, Target};
use crate::used::Used;
use crate::workload::WorkloadAttestor;

/// Version of this program, for logs, metrics and the server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why the agent can't start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Log(#[from] logs::LogError),
    #[error(transparent)]
    Lock(#[from] DataLockError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error("unable to set up TLS: {0}")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Listen(#[from] listener::ListenError),
    #[error("unable to raise the limit of open files: {0}")]
    Descriptors(io::Error),
    #[error("unable to listen on {address}: {source}")]
    Http { address: String, source: io::Error },
    #[error("unable to draw a random seed: {0}")]
    Random(#[from] random::RandomError),
    #[error("unable to wait for signals: {0}")]
    Signals(io::Error),
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error(transparent)]
    Records(#[from] SpoolError),
    #[error("unable to keep which processes belong to runs: {0}")]
    Runs(io::Error),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs an agent until it is told to stop by SIGTERM or SIGINT, or can't go on.
///
/// # Errors
/// [`AppError`]; the process then ends with 1.
pub async fn run(config: AgentConfig, confined: Confined, turns: Turns) -> Result<(), AppError> {
    let logs = logs::init(config.log.clone())?;
    confined.tell();
    turns.tell();
    let stop = CancellationToken::new();
    spawn_signals(stop.clone(), logs.clone())?;
    let outcome = serve(config, logs, stop).await;
    match &outcome {
        Ok(()) => tracing::info!("Agent stopped gracefully"),
        Err(error) => tracing::error!(error = %error, "Agent crashed"),
    }
    outcome
}

/// Runs an agent until `stop`, or until it can't go on.
///
/// # Errors
/// As [`run`].
pub async fn serve(config: AgentConfig, logs: LogHandle, stop: CancellationToken) -> Result<(), AppError> {
    let started = clock::now();
    greet(&config);
    let metrics = metrics(&config);
    let Keepers { state, keys, vault, _alone } = keepers(&config, &metrics)?;
    let Line { identity, roots, server } = upstream(&config)?;
    let (own_tx, own) = watch::channel(None);
    let (bundle_tx, bundle) = watch::channel(None);
    let (refusals_tx, refusals) = mpsc::channel(REFUSALS_WAITING);
    // The middle outlives the doors: open calls need it while the doors close.
    let shell_stop = CancellationToken::new();
    let (recording, voucher) = Recording::start(&config, &metrics, &server, &shell_stop)?;
    let (shell, shell_task) = Shell::start(
        shell::Parts {
            trust_domain: config.trust_domain.clone(),
            settings: settings(&config)?,
            upstream: server.clone(),
            own,
            own_bundle: bundle_tx,
            refusals: refusals_tx,
            vault: vault.clone(),
            metrics: metrics.clone(),
            clock: clock::now,
            version: VERSION.to_owned(),
        },
        shell_stop.clone(),
    );
    let supply: Arc<dyn Supply> = Arc::new(shell.clone());
    let (deciding, proof) =
        hold_runs(&config, &server, (&supply, shell.heard()), &recording, &metrics, &shell_stop)?;
    let mut join = Join::new(join::Parts {
        own_bundle: bundle.clone(),
        trust_domain: config.trust_domain.clone(),
        trust: config.bootstrap.clone(),
        server_address: config.server_address.clone(),
        server_port: config.server_port,
        attestor: config.node_attestor.clone(),
        join_token: config.join_token.clone(),
        server,
        state: state.clone(),
        keys,
        vault,
        identity,
        roots: roots.clone(),
        own: own_tx,
        proof,
        voucher,
        metrics: metrics.clone(),
        clock: clock::now,
        availability_target: config.availability_target,
        seed: seed()?,
    });
    // Before the doors open: a caller finds identities or nobody, but is not sent away to come again.
    join.take_up(&shell).await?;

    let node = (deciding, &recording);
    let mut doors = open_doors(&config, &supply, node, &metrics, logs, started.mono, &stop)?;
    serve_http(&config, &supply, &metrics, &stop).await?;
    notify(&[NotifyState::Ready]);

    let keeper = tokio::spawn(join::keep_bundle(bundle, roots, state));
    let outcome = tokio::select! {
        outcome = until_a_door_closes(&mut doors, &stop) => outcome,
        error = join.run(shell, refusals) => Err(AppError::Join(error)),
        () = beat(metrics, supply, started.mono) => Ok(()),
    };
    stop.cancel();
    close(doors, shell_stop, shell_task, keeper, recording).await;
    outcome
}

/// A door that closes before `stop` is an error.
async fn until_a_door_closes(
    doors: &mut JoinSet<Result<(), ServeError>>,
    stop: &CancellationToken,
) -> Result<(), AppError> {
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        Some(ended) = doors.join_next() => match ended {
            Ok(Err(error)) if !stop.is_cancelled() => Err(AppError::Serve(error)),
            _ => Ok(()),
        },
    }
}

/// The records of this node, and the task that brings them to the server.
struct Recording {
    records: Records,
    /// What records the use of identities.
    used: Used,
    shipping: JoinHandle<()>,
}

impl Recording {
    /// Records begin once it is said through the sender whose they are; they are shipped until `stop`.
    fn start(
        config: &AgentConfig,
        metrics: &Metrics,
        server: &Arc<Server>,
        stop: &CancellationToken,
    ) -> Result<(Self, watch::Sender<Option<records::Voucher>>), AppError> {
        let parts = records::Parts::below(&config.data_dir, metrics.clone(), clock::now, VERSION);
        let records = Records::start(parts)?;
        let (sender, voucher) = watch::channel(None);
        let shipping = records::keep_shipped(records.clone(), server.clone(), voucher, seed()?, stop.clone());
        let used = Used::start(Arc::new(records.clone()));
        Ok((Self { records, used, shipping: tokio::spawn(shipping) }, sender))
    }

    /// After `stop`. What is written last is on the disk when the process ends.
    async fn end(self) {
        let _ = self.shipping.await;
        let _ = tokio::task::spawn_blocking(move || self.records.close()).await;
    }
}

/// What was started with `avouch run`, the hooks that ask here, and the rules by which it is decided for both: those kept
/// from an earlier life, and followed at the server until `stop`.
fn hold_runs(
    config: &AgentConfig,
    server: &Arc<Server>,
    (supply, heard): (&Arc<dyn Supply>, &Heard),
    recording: &Recording,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<((Runs, Hooks), Proof), AppError> {
    let held = rules::Parts {
        source: server.clone(),
        trust_domain: config.trust_domain.clone(),
        data_dir: &config.data_dir,
        metrics: metrics.clone(),
        clock: clock::now,
        seed: seed()?,
    };
    let rules = rules::start(held, stop.clone());
    let (scribe, proof) = (Arc::new(recording.records.clone()), Proof::default());
    let hooks = Hooks::new(hooks::Parts {
        supply: supply.clone(),
        identities: server.clone(),
        tasks: server.clone(),
        requests: server.clone(),
        rules: rules.clone(),
        scribe: scribe.clone(),
        gate_secrets: config.gate_secrets_dir.clone(),
        clock: clock::now,
    });
    let runs = Runs::new(runs::Parts {
        supply: supply.clone(),
        identities: server.clone(),
        requests: server.clone(),
        tasks: server.clone(),
        rules,
        heard: heard.clone(),
        proof: proof.clone(),
        scribe,
        used: Some(recording.used.clone()),
        own_folders: own_folders(config),
        gate_secrets: config.gate_secrets_dir.clone(),
        folder: config.data_dir.join("runs"),
        clock: clock::now,
    });
    Ok(((runs.map_err(AppError::Runs)?, hooks), proof))
}

/// Waits in order for open calls, the shell, and the last bundle and records on their way to the disk; for no call
/// and no bundle for ever.
async fn close(
    mut doors: JoinSet<Result<(), ServeError>>,
    shell_stop: CancellationToken,
    shell: JoinHandle<()>,
    keeper: JoinHandle<()>,
    recording: Recording,
) {
    notify(&[NotifyState::Stopping]);
    let _ = tokio::time::timeout(DRAIN_MAX, async { while doors.join_next().await.is_some() {} }).await;
    shell_stop.cancel();
    let _ = shell.await;
    let _ = tokio::time::timeout(DRAIN_MAX, keeper).await;
    recording.end().await;
}

/// What no workload has any business in, absolute.
fn own_folders(config: &AgentConfig) -> Vec<PathBuf> {
    let admin = config.admin_socket_path.as_ref().and_then(|path| path.parent());
    let secrets = config.gate_secrets_dir.as_deref();
    let folders = [Some(config.data_dir.as_path()), admin, secrets].into_iter().flatten();
    folders.filter_map(|folder| folder.canonicalize().ok()).collect()
}

fn greet(config: &AgentConfig) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(version = VERSION, data_dir = %config.data_dir.display(), "Starting agent");
}

/// What outlives the process, as far as anything does.
struct Keepers {
    state: Arc<StateFile>,
    keys: Arc<OwnKeys>,
    vault: Arc<Vault>,
    /// No other agent uses the directory while this lives.
    _alone: DataLock,
}

fn keepers(config: &AgentConfig, metrics: &Metrics) -> Result<Keepers, AppError> {
    let alone = DataLock::take(&config.data_dir, "agent")?;
    let place = place::choose(config, place::runtime_dir().as_deref());
    place.tell();
    let begun = clock::tick();
    let keys = match (&config.key_manager, place.memory()) {
        (KeyManagerConfig::Disk { directory }, _) => OwnKeys::on_disk(directory),
        // This memory outlives the process.
        (KeyManagerConfig::Memory, Some(dir)) => OwnKeys::on_disk(dir),
        (KeyManagerConfig::Memory, None) => Ok(OwnKeys::in_memory()),
    };
    metrics.keys_fetched(keys.is_ok(), clock::tick().since(begun));
    Ok(Keepers {
        state: Arc::new(StateFile::open_with_keys(place.memory(), &config.data_dir)?),
        keys: Arc::new(keys?),
        vault: Arc::new(Vault::new(&place)),
        _alone: alone,
    })
}

/// The way to the server, and what it is opened with.
struct Line {
    identity: Arc<IdentityCell>,
    roots: Arc<RootsCell>,
    server: Arc<Server>,
}

fn upstream(config: &AgentConfig) -> Result<Line, TlsError> {
    let (identity, roots) = (Arc::new(IdentityCell::empty()), Arc::new(RootsCell::empty()));
    let target = Target::from((config.server_address.as_str(), config.server_port));
    let domain = config.trust_domain.clone();
    let server = Server::new(target, Arc::new(System), domain, identity.clone(), roots.clone())?;
    Ok(Line { identity, roots, server: Arc::new(server) })
}

fn seed() -> Result<u64, AppError> {
    Ok(u64::from_le_bytes(random::bytes::<8>()?))
}

fn settings(config: &AgentConfig) -> Result<shell::Settings, AppError> {
    Ok(shell::Settings {
        workload_key_type: config.workload_key_type,
        x509_max: config.x509_svid_cache_max_size,
        jwt_max: config.jwt_svid_cache_max_size,
        availability_target: config.availability_target,
        sync_interval: config.sync_interval,
        sync_entries: config.use_sync_authorized_entries,
        seed: seed()?,
    })
}

fn metrics(config: &AgentConfig) -> Metrics {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let mut labels = Vec::new();
    if let Some(host) = host.as_deref().filter(|_| config.telemetry.host_label) {
        labels.push(("host", host));
    }
    if config.telemetry.trust_domain_label {
        labels.push(("trust_domain", config.trust_domain.as_str()));
    }
    let metrics = Metrics::new(&config.telemetry.prefix, &labels);
    metrics.started(VERSION, &config.trust_domain);
    metrics
}

fn open_doors(
    config: &AgentConfig,
    supply: &Arc<dyn Supply>,
    ((runs, hooks), recording): ((Runs, Hooks), &Recording),
    metrics: &Metrics,
    logs: LogHandle,
    started: avouch_domain::Tick,
    stop: &CancellationToken,
) -> Result<JoinSet<Result<(), ServeError>>, AppError> {
    let descriptors = descriptors::raise_limit().map_err(AppError::Descriptors)?;
    let workload = listener::bind_workload(&config.socket_path)?;
    let access = bind_access(&config.socket_path);
    let sockets = api::Sockets { workload, access };
    let lookers: Vec<Arc<dyn WorkloadLooker>> = vec![Arc::new(unix::Unix::new(config.unix))];
    let parts = WorkloadParts {
        attestor: Arc::new(
            WorkloadAttestor::new(lookers, metrics.clone(), clock::tick).with_runs(runs.clone()),
        ),
        runs: Some(runs),
        hooks: Some(hooks),
        options: WorkloadOptions {
            no_identity_hold: config.no_identity_hold,
            allow_unauthenticated_verifiers: config.allow_unauthenticated_verifiers,
            allowed_foreign_jwt_claims: config.allowed_foreign_jwt_claims.clone(),
            log_selectors: config.log_selectors.clone(),
        },
        room: listener::room_for(descriptors),
        metrics: metrics.clone(),
        used: Some(recording.used.clone()),
        clock: clock::now,
    };
    let mut doors = JoinSet::new();
    tracing::info!(subsystem_name = "endpoints", "Starting agent APIs");
    doors.spawn(api::serve_workload(sockets, supply.clone(), parts, stop.clone()));
    tracing::info!(address = %config.socket_path.display(), network = "unix", subsystem_name = "endpoints", "Starting Workload API");
    if let Some(path) = &config.admin_socket_path {
        let admin = listener::bind_admin(path, &config.socket_path)?;
        let options = AdminOptions { logs, started, metrics: metrics.clone(), clock: clock::now };
        let served = api::serve_admin(admin, supply.clone(), options, stop.clone());
        doors.spawn(async move {
            served.await;
            Ok(())
        });
        tracing::info!(address = %path.display(), network = "unix", subsystem_name = "endpoints", "Starting Admin APIs");
    }
    Ok(doors)
}

/// The socket of the decision API. Workloads have their identities also where it can't be.
fn bind_access(workload: &Path) -> Option<UnixListener> {
    let path = access_place::beside(workload);
    match listener::bind_workload(&path) {
        Ok(listener) => {
            tracing::info!(address = %path.display(), network = "unix", subsystem_name = "endpoints", "Starting decision API");
            Some(listener)
        }
        Err(error) => {
            tracing::warn!(%error, subsystem_name = "endpoints", "No decision API: its socket can't be served");
            None
        }
    }
}

async fn serve_http(
    config: &AgentConfig,
    supply: &Arc<dyn Supply>,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<(), AppError> {
    if let Some(health) = &config.health {
        let listener = bind_http(&health.host, health.port).await?;
        let state = Arc::new(AgentHealth::new(supply.clone()));
        let (live, ready) = (health.live_path.clone(), health.ready_path.clone());
        tokio::spawn(serve_health(listener, live, ready, state, stop.clone().cancelled_owned()));
    }
    if let Some((host, port)) = &config.telemetry.prometheus {
        let listener = bind_http(host, *port).await?;
        tokio::spawn(serve_metrics(listener, metrics.registry(), stop.clone().cancelled_owned()));
    }
    Ok(())
}

async fn bind_http(host: &str, port: u16) -> Result<TcpListener, AppError> {
    let fail = |source| AppError::Http { address: format!("{host}:{port}"), source };
    TcpListener::bind((host, port)).await.map_err(fail)
}

fn spawn_signals(stop: CancellationToken, logs: LogHandle) -> Result<(), AppError> {
    let on = |kind| signal(kind).map_err(AppError::Signals);
    let (mut interrupt, mut terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    let mut reopen = on(SignalKind::user_defined2())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = reopen.recv() => {
                    if let Err(error) = logs.reopen() {
                        tracing::error!(%error, "Failed to reopen the log file");
                    }
                }
            }
        }
        stop.cancel();
    });
    Ok(())
}

/// Keeps the watchdog quiet and the uptime gauge moving. Never ends; a middle that no longer answers silences it.
async fn beat(metrics: Metrics, supply: Arc<dyn Supply>, started: avouch_domain::Tick) {
    let every = sd_notify::watchdog_enabled().map_or(GAUGE_INTERVAL, |limit| limit / 2).min(GAUGE_INTERVAL);
    loop {
        let _ = supply.facts().await;
        metrics.uptime(clock::tick().since(started));
        notify(&[NotifyState::Watchdog]);
        tokio::time::sleep(every.max(Duration::from_millis(100))).await;
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "The service manager was not told");
    }
}
