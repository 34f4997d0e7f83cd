//! The server's configuration: the file and the flags become one checked [`ServerConfig`].
//!
//! Never starts anything and never creates a file; `validate` is the same reading without a server behind it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use avouch::config::decode::{self, Section};
use avouch::config::{env, hcl};
use avouch::logs;
use avouch::verbs::flags::FlagError;
use avouch_credential::x509::name::{Attribute, Name};
use avouch_domain::{KeyType, SpiffeId, Timestamp, TrustDomain};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

mod flags;
mod plugins;
mod sign_in;
pub mod table;

pub use flags::Flags;
pub use plugins::{DatastoreConfig, KeyManagerConfig, NodeAttestorConfig};
pub use sign_in::SignInConfig;

/// Why the configuration can't be used. `Display` is what follows "configuration file is invalid: ".
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Flag(#[from] FlagError),
    #[error("unexpected argument: {0}")]
    Argument(String),
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
}

/// Everything the server is told. Plain data, checked.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub bind: SocketAddr,
    pub socket_path: PathBuf,
    /// `None`: people come through the admin socket alone.
    pub people_socket_path: Option<PathBuf>,
    /// `None`: there are no pages. Always on loopback.
    pub console_address: Option<SocketAddr>,
    /// `None`: links sign in to the pages.
    pub console_sign_in: Option<SignInConfig>,
    /// `None`: people leave by a person's word alone.
    pub people_file: Option<PathBuf>,
    pub trust_domain: TrustDomain,
    pub data_dir: PathBuf,
    pub admin_ids: Vec<SpiffeId>,
    pub agent_ttl: Duration,
    pub default_x509_svid_ttl: Duration,
    pub default_jwt_svid_ttl: Duration,
    pub ca_ttl: Duration,
    pub ca_key_type: KeyType,
    pub jwt_key_type: KeyType,
    pub ca_subject: CaSubject,
    /// Empty = none.
    pub jwt_issuer: String,
    pub disable_jwt_svids: bool,
    pub audit_log_enabled: bool,
    pub log: logs::Options,
    pub rate_limit: RateLimit,
    pub prune_attested_nodes_expired_for: Option<Duration>,
    pub prune_tofu_nodes: bool,
    pub prune_attested_nodes_batch_size: usize,
    /// `None`: what nobody owns is never withheld.
    pub owners_demanded_from: Option<Timestamp>,
    pub agent_spiffe_id_as_selector: bool,
    pub datastore: DatastoreConfig,
    pub key_manager: KeyManagerConfig,
    pub node_attestors: Vec<NodeAttestorConfig>,
    pub health: Option<HealthConfig>,
    pub telemetry: TelemetryConfig,
    /// To be logged once logging works.
    pub warnings: Vec<String>,
}

/// Subject of the X.509 authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaSubject {
    pub country: Vec<String>,
    pub organization: Vec<String>,
    pub common_name: String,
}

impl CaSubject {
    /// The name that goes into the certificate.
    #[must_use]
    pub fn name(&self) -> Name {
        let common_name: Vec<String> =
            Some(self.common_name.clone()).filter(|n| !n.is_empty()).into_iter().collect();
        Name::new(&[
            (Attribute::Country, &self.country),
            (Attribute::Organization, &self.organization),
            (Attribute::CommonName, &common_name),
        ])
    }
}

/// Which limits are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub attestation: bool,
    pub signing: bool,
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
    pub prometheus: Option<(String, u16)>,
}

/// Reads the flags of `verb` and the file, and checks everything that can be checked without starting.
///
/// # Errors
/// [`ConfigError`] for the first thing wrong; all unknown keys at once.
pub fn load(verb: &'static str, args: &[String]) -> Result<ServerConfig, ConfigError> {
    let flags = Flags::parse(verb, args)?;
    match flags.rest.first() {
        Some(argument) => Err(ConfigError::Argument(argument.clone())),
        None => load_with(&flags),
    }
}

/// As [`load`], with flags read already.
///
/// # Errors
/// As [`load`].
pub fn load_with(flags: &Flags) -> Result<ServerConfig, ConfigError> {
    let path = flags.config.clone();
    let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => ConfigError::Missing(path.clone()),
        _ => ConfigError::Read { path: path.clone(), source },
    })?;
    let text = if flags.expand_env { env::expand(&text, |name| std::env::var(name).ok()) } else { text };
    read(&text, &path, flags)
}

/// As [`load`], from a text; `path` is only for messages.
///
/// # Errors
/// As [`load`].
pub fn read(text: &str, path: &Path, flags: &Flags) -> Result<ServerConfig, ConfigError> {
    let undecodable = |problem: String| ConfigError::Decode { path: path.to_owned(), problem };
    let document = hcl::parse(text).map_err(|e| undecodable(e.to_string()))?;
    let file = decode::read(&document, &table::FILE).map_err(|e| match e {
        decode::ConfigError::Type(problem) => undecodable(problem),
        other => ConfigError::Keys(other),
    })?;
    let server = file.block("server").ok_or(ConfigError::Required("server section"))?;
    let plugins = file.block("plugins").ok_or(ConfigError::Required("plugins section"))?;
    Reader { server: &server, flags }.config(&file, &plugins)
}

/// Checks a configuration without starting anything.
///
/// # Errors
/// As [`load`].
pub fn validate(args: &[String]) -> Result<(), ConfigError> {
    load("validate", args).map(drop)
}

struct Reader<'a> {
    server: &'a Section<'a>,
    flags: &'a Flags,
}

impl Reader<'_> {
    fn config(&self, file: &Section<'_>, plugins: &Section<'_>) -> Result<ServerConfig, ConfigError> {
        let server = self.server;
        let hour = Duration::from_secs(3600);
        let x509_ttl = self.duration("default_x509_svid_ttl")?.unwrap_or(hour);
        let jwt_ttl = self.duration("default_jwt_svid_ttl")?.unwrap_or(hour / 12);
        let agent_ttl = self.duration("agent_ttl")?;
        let ca_ttl = self.duration("ca_ttl")?.unwrap_or(hour * 24);
        let ca_key_type = self.key_type("ca_key_type")?.unwrap_or(KeyType::EcP256);
        let rates = server.block("ratelimit");
        let rate = |key| rates.as_ref().and_then(|r| r.bool(key)).unwrap_or(true);
        let experimental = server.block("experimental");
        check_idle(server, experimental.as_ref())?;
        let (ca_subject, warning) = ca_subject(server.block("ca_subject"));
        Ok(ServerConfig {
            bind: self.bind()?,
            socket_path: self
                .path("socket_path", self.flags.socket_path.as_ref())
                .unwrap_or_else(|| "/tmp/spire-server/private/api.sock".into()),
            people_socket_path: self
                .path("people_socket_path", None)
                .filter(|path| !path.as_os_str().is_empty()),
            console_address: self.console_address()?,
            console_sign_in: sign_in::sign_in(server, self.console_address()?)?,
            people_file: self.path("people_file", None),
            trust_domain: self.trust_domain()?,
            data_dir: self
                .path("data_dir", self.flags.data_dir.as_ref())
                .ok_or(ConfigError::Required("data_dir"))?,
            admin_ids: self.admin_ids()?,
            agent_ttl: agent_ttl.unwrap_or(x509_ttl),
            default_x509_svid_ttl: x509_ttl,
            default_jwt_svid_ttl: jwt_ttl,
            ca_ttl,
            ca_key_type,
            jwt_key_type: self.key_type("jwt_key_type")?.unwrap_or(ca_key_type),
            ca_subject,
            jwt_issuer: server.text("jwt_issuer").unwrap_or_default(),
            disable_jwt_svids: server.bool("disable_jwt_svids").unwrap_or(false),
            audit_log_enabled: server.bool("audit_log_enabled").unwrap_or(false),
            log: self.log()?,
            rate_limit: RateLimit { attestation: rate("attestation"), signing: rate("signing") },
            prune_attested_nodes_expired_for: self.duration("prune_attested_nodes_expired_for")?,
            prune_tofu_nodes: server.bool("prune_tofu_nodes").unwrap_or(false),
            prune_attested_nodes_batch_size: self.batch_size()?,
            owners_demanded_from: self.moment("owners_demanded_from")?,
            agent_spiffe_id_as_selector: experimental
                .and_then(|e| e.bool("agent_spiffe_id_as_selector"))
                .unwrap_or(false),
            datastore: plugins::datastore(plugins)?,
            key_manager: plugins::key_manager(plugins)?,
            node_attestors: plugins::node_attestors(plugins)?,
            health: health(file.block("health_checks"))?,
            telemetry: telemetry(file.block("telemetry"))?,
            warnings: warning.into_iter().collect(),
        })
    }

    fn text(&self, key: &str, flag: Option<&String>) -> Option<String> {
        flag.cloned().or_else(|| self.server.text(key)).filter(|text| !text.is_empty())
    }

    fn path(&self, key: &str, flag: Option<&String>) -> Option<PathBuf> {
        self.text(key, flag).map(PathBuf::from)
    }

    fn duration(&self, key: &'static str) -> Result<Option<Duration>, ConfigError> {
        duration(self.server, key)
    }

    /// A day, which begins in UTC, or a moment.
    fn moment(&self, key: &'static str) -> Result<Option<Timestamp>, ConfigError> {
        let Some(text) = self.text(key, None) else { return Ok(None) };
        let whole = if text.contains(['T', 't']) { text.clone() } else { format!("{text}T00:00:00Z") };
        match OffsetDateTime::parse(&whole, &Rfc3339) {
            Ok(moment) => Ok(Some(Timestamp::from_secs(moment.unix_timestamp()))),
            Err(_) => Err(ConfigError::Value {
                key,
                value: text,
                problem: "expected a day or a moment, such as 2026-12-31 or 2026-12-31T08:00:00Z".into(),
            }),
        }
    }

    fn bind(&self) -> Result<SocketAddr, ConfigError> {
        let text = self.text("bind_address", self.flags.bind_address.as_ref());
        let text = text.unwrap_or_else(|| "0.0.0.0".into());
        let address: IpAddr = text.parse().map_err(|_| ConfigError::Value {
            key: "bind_address",
            problem: "expected an IP address".into(),
            value: text,
        })?;
        let number = self.flags.server_port.or_else(|| self.server.int("bind_port")).unwrap_or(8081);
        Ok(SocketAddr::new(address, port("bind_port", number)?))
    }

    /// Links that sign in by themselves go to loopback alone, where no TLS is needed.
    fn console_address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let Some(text) = self.text("console_address", None) else { return Ok(None) };
        let own = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let address = text.parse().ok().filter(|address: &SocketAddr| own.contains(&address.ip()));
        address.map(Some).ok_or_else(|| ConfigError::Value {
            key: "console_address",
            value: text,
            problem: "expected 127.0.0.1 or [::1] and a port, such as 127.0.0.1:8090".into(),
        })
    }

    fn trust_domain(&self) -> Result<TrustDomain, ConfigError> {
        let text = self
            .text("trust_domain", self.flags.trust_domain.as_ref())
            .ok_or(ConfigError::Required("trust_domain"))?;
        TrustDomain::from_name_or_id(&text).map_err(|e| ConfigError::Value {
            key: "trust_domain",
            value: text,
            problem: e.to_string(),
        })
    }

    fn admin_ids(&self) -> Result<Vec<SpiffeId>, ConfigError> {
        let texts = self.server.texts("admin_ids").unwrap_or_default();
        texts
            .into_iter()
            .map(|text| {
                SpiffeId::parse(&text).map_err(|e| ConfigError::Value {
                    key: "admin_ids",
                    problem: e.to_string(),
                    value: text,
                })
            })
            .collect()
    }

    fn key_type(&self, key: &'static str) -> Result<Option<KeyType>, ConfigError> {
        let Some(text) = self.text(key, None) else { return Ok(None) };
        Ok(Some(match text.to_ascii_lowercase().as_str() {
            "ec-p256" => KeyType::EcP256,
            "ec-p384" => KeyType::EcP384,
            "rsa-2048" => KeyType::Rsa2048,
            "rsa-4096" => KeyType::Rsa4096,
            _ => {
                return Err(ConfigError::Plugin(format!(
                    "error parsing {key}: key type \"{text}\" is unknown; must be one of [rsa-2048, rsa-4096, ec-p256, ec-p384]"
                )));
            }
        }))
    }

    fn log(&self) -> Result<logs::Options, ConfigError> {
        let value = |key, value: &str, problem: &str| ConfigError::Value {
            key,
            value: value.to_owned(),
            problem: problem.to_owned(),
        };
        let level = self.text("log_level", self.flags.log_level.as_ref()).unwrap_or_else(|| "INFO".into());
        let format = self.text("log_format", self.flags.log_format.as_ref()).unwrap_or_default();
        Ok(logs::Options {
            level: logs::Level::parse(&level)
                .ok_or_else(|| value("log_level", &level, "expected error, warn, info, debug or trace"))?,
            format: logs::Format::parse(&format)
                .ok_or_else(|| value("log_format", &format, "expected text or json"))?,
            file: self.path("log_file", self.flags.log_file.as_ref()),
            source_location: self
                .flags
                .log_source_location
                .or_else(|| self.server.bool("log_source_location"))
                .unwrap_or(false),
        })
    }

    fn batch_size(&self) -> Result<usize, ConfigError> {
        let number = self.server.int("prune_attested_nodes_batch_size").unwrap_or(1000);
        usize::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| ConfigError::Value {
            key: "prune_attested_nodes_batch_size",
            value: number.to_string(),
            problem: "expected a number above zero".into(),
        })
    }
}

/// A length of time; an empty text or zero means the default, as in SPIRE.
fn duration(section: &Section<'_>, key: &str) -> Result<Option<Duration>, ConfigError> {
    if section.text(key).is_some_and(|text| text.is_empty()) {
        return Ok(None);
    }
    section.duration(key).map_err(ConfigError::Keys).map(|d| d.filter(|d| !d.is_zero()))
}

/// Keys without effect must make sense all the same: who mistypes one wants something else than it does.
fn check_idle(server: &Section<'_>, experimental: Option<&Section<'_>>) -> Result<(), ConfigError> {
    duration(server, "max_attested_node_info_staleness")?;
    let Some(experimental) = experimental else { return Ok(()) };
    for key in [
        "cache_reload_interval",
        "full_cache_reload_interval",
        "prune_events_older_than",
        "event_timeout",
        "sql_transaction_timeout",
    ] {
        duration(experimental, key)?;
    }
    Ok(())
}

fn port(key: &'static str, number: i64) -> Result<u16, ConfigError> {
    u16::try_from(number).map_err(|_| ConfigError::Value {
        key,
        value: number.to_string(),
        problem: "expected a port from 0 to 65535".into(),
    })
}

fn ca_subject(block: Option<Section<'_>>) -> (CaSubject, Option<String>) {
    let subject = block.as_ref().map(|block| CaSubject {
        country: block.texts("country").unwrap_or_default(),
        organization: block.texts("organization").unwrap_or_default(),
        common_name: block.text("common_name").unwrap_or_default(),
    });
    let default = CaSubject {
        country: vec!["US".into()],
        organization: vec!["SPIFFE".into()],
        common_name: String::new(),
    };
    match subject {
        Some(s) if s.country.is_empty() && s.organization.is_empty() && s.common_name.is_empty() => {
            (default, Some("ca_subject configurable is empty; the default will be used".into()))
        }
        Some(subject) => (subject, None),
        None => (default, None),
    }
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
    Ok(TelemetryConfig {
        prefix: block.and_then(|b| b.text("MetricPrefix")).unwrap_or_else(|| "spire_server".into()),
        host_label: block.and_then(|b| b.bool("EnableHostnameLabel")).unwrap_or(true),
        trust_domain_label: block.and_then(|b| b.bool("EnableTrustDomainLabel")).unwrap_or(false),
        prometheus,
    })
}

#[cfg(test)]
mod tests;
