//! The agent's configuration: the file and the flags become one checked [`AgentConfig`].
//!
//! Never starts anything and never creates a file; `validate` is the same reading without an agent behind it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use avouch::config::decode::{self, Section};
use avouch::config::{env, hcl};
use avouch::logs;
use avouch_attestors::workload::unix;
use avouch_domain::{KeyType, TrustDomain};
use http::Uri;
use zeroize::Zeroizing;

mod flags;
mod plugins;
pub mod table;

#[cfg(test)]
mod tests;

pub use flags::Flags;
pub use plugins::{KeyManagerConfig, NodeAttestorConfig};

use crate::api::listener::check_admin_place;

/// Longest hold of a process without an entry: client libraries give up waiting at some point.
const HOLD_MAX: Duration = Duration::from_secs(60);
/// Default hold.
const HOLD: Duration = Duration::from_secs(1);
/// Least availability target, as SPIRE's.
const AVAILABILITY_MIN: Duration = Duration::from_secs(24 * 3600);
/// Default size of both caches.
const CACHE_SIZE: usize = 1000;
/// Default time between syncs with a server that does not push.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// Why the configuration can't be used. `Display` is what follows "configuration file is invalid: ".
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}")]
    Flag(String),
    #[error("could not find config file {0}: please use the -config flag")]
    Missing(PathBuf),
    #[error("unable to read configuration at {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("unable to decode configuration at {path:?}: {problem}")]
    Decode { path: PathBuf, problem: String },
    #[error("{0}")]
    Keys(decode::ConfigError),
    #[error("{0} must be configured")]
    Required(&'static str),
    #[error("could not parse {key} {value:?}: {problem}")]
    Value { key: &'static str, value: String, problem: String },
    #[error("not supported yet: {0}")]
    NotYet(String),
    #[error("{0}")]
    Plugin(String),
    #[error("only one of {0} or {1} can be specified, not both")]
    Both(&'static str, &'static str),
    /// In SPIRE's words.
    #[error("{0}")]
    Plain(String),
    #[error("unable to read join token file {path:?}: {source}")]
    JoinTokenFile { path: PathBuf, source: std::io::Error },
    #[error("join token file is empty: {0}")]
    JoinTokenEmpty(PathBuf),
    #[error(transparent)]
    Socket(#[from] crate::api::listener::ListenError),
}

/// Everything the agent is told. Plain data, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct AgentConfig {
    pub server_address: String,
    pub server_port: u16,
    pub trust_domain: TrustDomain,
    pub data_dir: PathBuf,
    pub socket_path: PathBuf,
    pub admin_socket_path: Option<PathBuf>,
    pub bootstrap: Bootstrap,
    /// A secret; given, the node is proved by it whatever attestor is configured.
    pub join_token: Option<Zeroizing<String>>,
    pub node_attestor: NodeAttestorConfig,
    pub key_manager: KeyManagerConfig,
    pub workload_key_type: KeyType,
    pub availability_target: Option<Duration>,
    pub x509_svid_cache_max_size: usize,
    pub jwt_svid_cache_max_size: usize,
    pub sync_interval: Duration,
    pub use_sync_authorized_entries: bool,
    pub no_identity_hold: Duration,
    pub sealed_state_dir: SealedStateDir,
    /// Files of the agent's own in it are secrets that gates add to what they let through.
    pub gate_secrets_dir: Option<PathBuf>,
    pub allow_unauthenticated_verifiers: bool,
    pub allowed_foreign_jwt_claims: Vec<String>,
    pub log_selectors: Vec<String>,
    pub unix: unix::Config,
    pub log: logs::Options,
    pub health: Option<HealthConfig>,
    pub telemetry: TelemetryConfig,
    /// To be logged once logging works.
    pub warnings: Vec<String>,
}

impl std::fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentConfig")
            .field("trust_domain", &self.trust_domain)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

/// Why the agent trusts the first server it meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// It does not know; it takes whoever answers.
    Insecure,
    File {
        path: PathBuf,
        format: BundleFormat,
    },
    /// By https, or by http over a Unix socket.
    Url {
        url: Uri,
        socket: Option<PathBuf>,
        format: BundleFormat,
    },
}

/// Where the sealed state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedStateDir {
    /// By the KeyManager.
    Default,
    At(PathBuf),
    /// Nowhere.
    Off,
}

/// Form of a trust bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleFormat {
    Pem,
    Spiffe,
}

/// The health listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    pub host: String,
    pub port: u16,
    pub live_path: String,
    pub ready_path: String,
}

/// Metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryConfig {
    pub prefix: String,
    pub host_label: bool,
    pub trust_domain_label: bool,
    /// Address and port of the page.
    pub prometheus: Option<(String, u16)>,
}

/// Reads flags and file, and checks everything that can be checked without starting.
///
/// # Errors
/// [`ConfigError`] for the first thing wrong; all unknown keys at once.
pub fn load(args: &[String]) -> Result<AgentConfig, ConfigError> {
    let flags = Flags::parse(args)?;
    let path = flags.config_path();
    let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => ConfigError::Missing(path.clone()),
        _ => ConfigError::Read { path: path.clone(), source },
    })?;
    let text = if flags.expand_env { env::expand(&text, |name| std::env::var(name).ok()) } else { text };
    read(&text, &path, &flags)
}

/// As [`load`], from a text; `path` is only for messages.
///
/// # Errors
/// As [`load`].
pub fn read(text: &str, path: &Path, flags: &Flags) -> Result<AgentConfig, ConfigError> {
    let undecodable = |problem: String| ConfigError::Decode { path: path.to_owned(), problem };
    let document = hcl::parse(text).map_err(|e| undecodable(e.to_string()))?;
    let file = decode::read(&document, &table::FILE).map_err(|e| match e {
        decode::ConfigError::Type(problem) => undecodable(problem),
        other => ConfigError::Keys(other),
    })?;
    let agent = file.block("agent").ok_or(ConfigError::Required("agent section"))?;
    let plugins = file.block("plugins").ok_or(ConfigError::Required("plugins section"))?;
    Reader { agent: &agent, flags }.config(&file, &plugins)
}

/// Checks a configuration without starting anything.
///
/// # Errors
/// As [`load`].
pub fn validate(args: &[String]) -> Result<(), ConfigError> {
    load(args).map(drop)
}

struct Reader<'a> {
    agent: &'a Section<'a>,
    flags: &'a Flags,
}

fn wrong(key: &'static str, value: &str, problem: &str) -> ConfigError {
    ConfigError::Value { key, value: value.to_owned(), problem: problem.to_owned() }
}

impl Reader<'_> {
    fn config(&self, file: &Section<'_>, plugins: &Section<'_>) -> Result<AgentConfig, ConfigError> {
        let experimental = self.agent.block("experimental");
        let sync_entries = experimental.as_ref().and_then(|e| e.bool("use_sync_authorized_entries"));
        let (socket_path, admin_socket_path) = self.sockets()?;
        Ok(AgentConfig {
            server_address: self
                .text("server_address", self.flags.server_address.as_ref())
                .ok_or(ConfigError::Required("server_address"))?,
            server_port: self.server_port()?,
            trust_domain: self.trust_domain()?,
            data_dir: self.path("data_dir", self.flags.data_dir.as_ref()).unwrap_or_else(|| ".".into()),
            socket_path,
            admin_socket_path,
            bootstrap: self.bootstrap()?,
            join_token: self.join_token()?,
            node_attestor: plugins::node_attestor(plugins)?,
            key_manager: plugins::key_manager(plugins)?,
            workload_key_type: self.key_type()?,
            availability_target: self.availability()?,
            x509_svid_cache_max_size: self.size("x509_svid_cache_max_size")?,
            jwt_svid_cache_max_size: self.size("jwt_svid_cache_max_size")?,
            sync_interval: self.sync_interval(experimental.as_ref())?,
            use_sync_authorized_entries: sync_entries.unwrap_or(true),
            no_identity_hold: self.hold(experimental.as_ref())?,
            sealed_state_dir: sealed_state_dir(experimental.as_ref()),
            gate_secrets_dir: experimental
                .as_ref()
                .and_then(|e| e.text("gate_secrets_dir"))
                .filter(|dir| !dir.is_empty())
                .map(PathBuf::from),
            allow_unauthenticated_verifiers: self.flags.allow_unauthenticated_verifiers
                || self.agent.bool("allow_unauthenticated_verifiers").unwrap_or(false),
            allowed_foreign_jwt_claims: self.agent.texts("allowed_foreign_jwt_claims").unwrap_or_default(),
            log_selectors: self.agent.texts("log_selectors").unwrap_or_default(),
            unix: plugins::workload_attestor(plugins)?,
            log: self.log()?,
            health: health(file.block("health_checks"))?,
            telemetry: telemetry(file.block("telemetry"))?,
            warnings: self.warnings(experimental.as_ref()),
        })
    }

    fn text(&self, key: &str, flag: Option<&String>) -> Option<String> {
        flag.cloned().filter(|t| !t.is_empty()).or_else(|| self.agent.text(key)).filter(|t| !t.is_empty())
    }

    fn path(&self, key: &str, flag: Option<&String>) -> Option<PathBuf> {
        self.text(key, flag).map(PathBuf::from)
    }

    fn server_port(&self) -> Result<u16, ConfigError> {
        let number = match &self.flags.server_port {
            Some(text) => text.parse().map_err(|_| wrong("serverPort", text, "expected a number"))?,
            None => self.agent.int("server_port").ok_or(ConfigError::Required("server_port"))?,
        };
        if number == 0 {
            return Err(ConfigError::Required("server_port"));
        }
        port("server_port", number)
    }

    fn trust_domain(&self) -> Result<TrustDomain, ConfigError> {
        let text = self
            .text("trust_domain", self.flags.trust_domain.as_ref())
            .ok_or(ConfigError::Required("trust_domain"))?;
        TrustDomain::from_name_or_id(&text).map_err(|e| wrong("trust_domain", &text, &e.to_string()))
    }

    fn sockets(&self) -> Result<(PathBuf, Option<PathBuf>), ConfigError> {
        let workload = self
            .path("socket_path", self.flags.socket_path.as_ref())
            .unwrap_or_else(|| "/tmp/spire-agent/public/api.sock".into());
        let admin = self.path("admin_socket_path", None);
        if let Some(admin) = &admin {
            check_admin_place(admin, &workload)?;
        }
        Ok((workload, admin))
    }

    fn bootstrap(&self) -> Result<Bootstrap, ConfigError> {
        let mode = self.text("rebootstrap_mode", self.flags.rebootstrap_mode.as_ref());
        match mode.as_deref() {
            None | Some("never") => {}
            Some(mode @ ("auto" | "always")) => {
                return Err(ConfigError::NotYet(format!("agent.rebootstrap_mode = \"{mode}\"")));
            }
            Some(mode) => {
                return Err(ConfigError::Plain(format!(
                    "unknown rebootstrap mode specified: {mode} (expected never, auto or always)"
                )));
            }
        }
        let insecure =
            self.flags.insecure_bootstrap || self.agent.bool("insecure_bootstrap").unwrap_or(false);
        let path = self.path("trust_bundle_path", self.flags.trust_bundle.as_ref());
        let url = self.text("trust_bundle_url", self.flags.trust_bundle_url.as_ref());
        let socket = self.path("trust_bundle_unix_socket", None);
        let refuse = |text: &str| Err(ConfigError::Plain(text.to_owned()));
        match (insecure, &url, &path) {
            (true, Some(_), Some(_)) => {
                return refuse(
                    "only one of insecure_bootstrap, trust_bundle_url, or trust_bundle_path can be specified, not the three options",
                );
            }
            (true, Some(_), None) => return Err(ConfigError::Both("insecure_bootstrap", "trust_bundle_url")),
            (true, None, Some(_)) => {
                return Err(ConfigError::Both("insecure_bootstrap", "trust_bundle_path"));
            }
            (false, Some(_), Some(_)) => {
                return Err(ConfigError::Both("trust_bundle_url", "trust_bundle_path"));
            }
            (false, None, None) => {
                return refuse(
                    "trust_bundle_path or trust_bundle_url must be configured unless insecure_bootstrap is set",
                );
            }
            _ => {}
        }
        let format = self.bundle_format()?;
        if socket.is_some() && url.is_none() {
            return refuse("if trust_bundle_unix_socket is specified, so must be trust_bundle_url");
        }
        match (url, path) {
            (Some(url), _) => Ok(Bootstrap::Url { url: bundle_url(&url, socket.is_some())?, socket, format }),
            (None, Some(path)) => Ok(Bootstrap::File { path, format }),
            (None, None) => Ok(Bootstrap::Insecure),
        }
    }

    fn bundle_format(&self) -> Result<BundleFormat, ConfigError> {
        let text = self.text("trust_bundle_format", self.flags.trust_bundle_format.as_ref());
        match text.as_deref() {
            None | Some("pem") => Ok(BundleFormat::Pem),
            Some("spiffe") => Ok(BundleFormat::Spiffe),
            Some(other) => Err(ConfigError::Plain(format!(
                "invalid value for trust_bundle_format, expected \"pem\" or \"spiffe\", got {other:?}"
            ))),
        }
    }

    fn join_token(&self) -> Result<Option<Zeroizing<String>>, ConfigError> {
        let token = match &self.flags.join_token {
            Some(token) if !token.is_empty() => Some(token.clone()),
            _ => self.text("join_token", None).map(Zeroizing::new),
        };
        let Some(path) = self.path("join_token_file", self.flags.join_token_file.as_ref()) else {
            return Ok(token);
        };
        if token.is_some() {
            return Err(ConfigError::Both("join_token", "join_token_file"));
        }
        let text = std::fs::read_to_string(&path)
            .map(Zeroizing::new)
            .map_err(|source| ConfigError::JoinTokenFile { path: path.clone(), source })?;
        match text.trim() {
            "" => Err(ConfigError::JoinTokenEmpty(path)),
            token => Ok(Some(Zeroizing::new(token.to_owned()))),
        }
    }

    fn key_type(&self) -> Result<KeyType, ConfigError> {
        match self.text("workload_x509_svid_key_type", None).as_deref() {
            None | Some("ec-p256") => Ok(KeyType::EcP256),
            Some("ec-p384") => Ok(KeyType::EcP384),
            Some("rsa-2048") => Ok(KeyType::Rsa2048),
            Some(other) => {
                Err(wrong("workload_x509_svid_key_type", other, "expected rsa-2048, ec-p256 or ec-p384"))
            }
        }
    }

    fn duration(section: &Section<'_>, key: &str) -> Result<Option<Duration>, ConfigError> {
        section.duration(key).map_err(ConfigError::Keys)
    }

    fn availability(&self) -> Result<Option<Duration>, ConfigError> {
        let target = Self::duration(self.agent, "availability_target")?;
        match target.filter(|t| !t.is_zero()) {
            Some(t) if t < AVAILABILITY_MIN => {
                let asked = t.as_secs();
                Err(ConfigError::Plain(format!("availability_target must be at least 24h0m0s, got {asked}s")))
            }
            target => Ok(target),
        }
    }

    fn sync_interval(&self, experimental: Option<&Section<'_>>) -> Result<Duration, ConfigError> {
        let interval = experimental.map(|e| Self::duration(e, "sync_interval")).transpose()?.flatten();
        Ok(interval.filter(|i| !i.is_zero()).unwrap_or(SYNC_INTERVAL))
    }

    fn hold(&self, experimental: Option<&Section<'_>>) -> Result<Duration, ConfigError> {
        let hold = experimental.map(|e| Self::duration(e, "no_identity_hold")).transpose()?.flatten();
        match hold.unwrap_or(HOLD) {
            hold if hold > HOLD_MAX => {
                Err(wrong("no_identity_hold", &format!("{}s", hold.as_secs()), "expected at most 1m"))
            }
            hold => Ok(hold),
        }
    }

    fn size(&self, key: &'static str) -> Result<usize, ConfigError> {
        let number = self.agent.int(key).unwrap_or(0);
        match usize::try_from(number) {
            Ok(0) => Ok(CACHE_SIZE),
            Ok(size) => Ok(size),
            Err(_) => Err(ConfigError::Plain(format!("{key} should not be negative, got {number}"))),
        }
    }

    fn log(&self) -> Result<logs::Options, ConfigError> {
        let level = self.text("log_level", self.flags.log_level.as_ref()).unwrap_or_else(|| "INFO".into());
        let format = self.text("log_format", self.flags.log_format.as_ref()).unwrap_or_default();
        Ok(logs::Options {
            level: logs::Level::parse(&level)
                .ok_or_else(|| wrong("log_level", &level, "expected error, warn, info, debug or trace"))?,
            format: logs::Format::parse(&format)
                .ok_or_else(|| wrong("log_format", &format, "expected text or json"))?,
            file: self.path("log_file", self.flags.log_file.as_ref()),
            source_location: self.flags.log_source_location
                || self.agent.bool("log_source_location").unwrap_or(false),
        })
    }

    fn warnings(&self, experimental: Option<&Section<'_>>) -> Vec<String> {
        let mut warnings = Vec::new();
        if experimental.is_some_and(|e| !e.is_empty()) {
            warnings.push(
                "Experimental features have been enabled. They may change from one version to the next."
                    .into(),
            );
        }
        if self.flags.join_token.is_some() {
            warnings.push(
                "The join token is in the argument list, which other users can read: use -joinTokenFile"
                    .into(),
            );
        }
        warnings
    }
}

fn sealed_state_dir(experimental: Option<&Section<'_>>) -> SealedStateDir {
    match experimental.and_then(|e| e.text("sealed_state_dir")).as_deref() {
        None | Some("") => SealedStateDir::Default,
        Some("none") => SealedStateDir::Off,
        Some(dir) => SealedStateDir::At(dir.into()),
    }
}

/// Checks the URL of the trust bundle, in SPIRE's words.
fn bundle_url(text: &str, over_socket: bool) -> Result<Uri, ConfigError> {
    let refuse = |text: String| Err(ConfigError::Plain(text));
    let url: Uri = match text.parse() {
        Ok(url) => url,
        Err(error) => return refuse(format!("unable to parse trust bundle URL: {error}")),
    };
    if !over_socket {
        return match url.scheme_str() {
            Some("https") => Ok(url),
            _ => refuse("trust bundle URL must start with https://".into()),
        };
    }
    if url.scheme_str() != Some("http") {
        return refuse(
            "trust bundle URL must start with http:// when used with trust bundle unix socket".into(),
        );
    }
    for prefix in ["spiffe-", "spire-"] {
        if url.query().unwrap_or_default().split('&').any(|p| p.starts_with(prefix)) {
            return refuse(format!("trust_bundle_url query params can not start with {prefix}"));
        }
    }
    Ok(url)
}

fn port(key: &'static str, number: i64) -> Result<u16, ConfigError> {
    u16::try_from(number).map_err(|_| wrong(key, &number.to_string(), "expected a port from 0 to 65535"))
}

fn health(block: Option<Section<'_>>) -> Result<Option<HealthConfig>, ConfigError> {
    let Some(block) = block.filter(|b| b.bool("listener_enabled").unwrap_or(false)) else { return Ok(None) };
    let text =
        |key, default: &str| block.text(key).filter(|t| !t.is_empty()).unwrap_or_else(|| default.into());
    Ok(Some(HealthConfig {
        host: text("bind_address", "localhost"),
        port: port("health_checks.bind_port", block.int("bind_port").unwrap_or(80))?,
        live_path: text("live_path", "/live"),
        ready_path: text("ready_path", "/ready"),
    }))
}

fn telemetry(block: Option<Section<'_>>) -> Result<TelemetryConfig, ConfigError> {
    let block = block.as_ref();
    let prometheus = match block.and_then(|b| b.block("Prometheus")) {
        Some(page) => {
            let host = page.text("host").filter(|t| !t.is_empty()).unwrap_or_else(|| "localhost".into());
            let number = page.int("port").ok_or(ConfigError::Required("telemetry.Prometheus.port"))?;
            Some((host, port("telemetry.Prometheus.port", number)?))
        }
        None => None,
    };
    let prefix = block.and_then(|b| b.text("MetricPrefix")).filter(|t| !t.is_empty());
    Ok(TelemetryConfig {
        prefix: prefix.unwrap_or_else(|| "spire_agent".into()),
        host_label: block.and_then(|b| b.bool("EnableHostnameLabel")).unwrap_or(true),
        trust_domain_label: block.and_then(|b| b.bool("EnableTrustDomainLabel")).unwrap_or(false),
        prometheus,
    })
}
