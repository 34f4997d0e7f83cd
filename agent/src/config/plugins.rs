//! The `plugins` block: how the node is proved, where the agent's key is, what is learnt about processes.
//!
//! Never loads a plugin; names and settings are checked against what is built in.

use std::path::PathBuf;

use avouch::config::decode::Section;
use avouch::config::table::Table;
use avouch_attestors::workload::unix;

use super::ConfigError;
use super::table::{KEYS_DISK, NOTHING, PLUGINS_NOT_YET, UNIX, X509POP};

/// How this node proves itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeAttestorConfig {
    JoinToken,
    X509pop { private_key_path: PathBuf, certificate_path: PathBuf, intermediates_path: Option<PathBuf> },
}

/// Where the agent's own key is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyManagerConfig {
    /// Lost at exit, unless there is a folder on tmpfs for it ([`crate::sealed::place`]); else the node must be able to
    /// attest again.
    Memory,
    Disk {
        directory: PathBuf,
    },
}

/// The enabled plugins of one type, in file order. A name given twice is refused.
fn enabled<'a>(plugins: &Section<'a>, kind: &str) -> Result<Vec<(String, Section<'a>)>, ConfigError> {
    let mut list: Vec<(String, Section<'a>)> = Vec::new();
    for (name, section) in plugins.labelled(kind) {
        if list.iter().any(|(known, _)| *known == name) {
            return Err(ConfigError::Plugin(format!(
                "plugin \"{name}\" of type \"{kind}\" is configured twice"
            )));
        }
        list.push((name, section));
    }
    list.retain(|(_, section)| section.bool("enabled").unwrap_or(true));
    Ok(list)
}

fn exactly_one<'a>(plugins: &Section<'a>, kind: &str) -> Result<(String, Section<'a>), ConfigError> {
    let mut list = enabled(plugins, kind)?;
    match (list.pop(), list.len()) {
        (Some(one), 0) => Ok(one),
        (one, rest) => Err(ConfigError::Plugin(format!(
            "{kind}: constraint not satisfied: expected exactly 1 but got {}",
            rest + usize::from(one.is_some())
        ))),
    }
}

fn not_built(kind: &str, name: &str) -> ConfigError {
    if PLUGINS_NOT_YET.iter().any(|(k, names)| *k == kind && names.contains(&name)) {
        ConfigError::NotYet(format!("plugins.{kind} \"{name}\""))
    } else {
        ConfigError::Plugin(format!(
            "failed to load plugin \"{name}\": no built-in plugin \"{name}\" for type \"{kind}\""
        ))
    }
}

fn data<'a>(section: &Section<'a>, table: &'static Table) -> Result<Option<Section<'a>>, ConfigError> {
    section.any("plugin_data").map(|data| data.retype(table)).transpose().map_err(ConfigError::Keys)
}

pub(super) fn node_attestor(plugins: &Section<'_>) -> Result<NodeAttestorConfig, ConfigError> {
    let (name, section) = exactly_one(plugins, "NodeAttestor")?;
    match name.as_str() {
        "join_token" => {
            data(&section, &NOTHING)?;
            Ok(NodeAttestorConfig::JoinToken)
        }
        "x509pop" => {
            let data = data(&section, &X509POP)?;
            let path = |key| {
                let text = data.as_ref().and_then(|d| d.text(key)).filter(|t| !t.is_empty());
                text.map(PathBuf::from)
            };
            let required = |key, name| path(key).ok_or(ConfigError::Required(name));
            Ok(NodeAttestorConfig::X509pop {
                private_key_path: required(
                    "private_key_path",
                    "NodeAttestor.x509pop.plugin_data.private_key_path",
                )?,
                certificate_path: required(
                    "certificate_path",
                    "NodeAttestor.x509pop.plugin_data.certificate_path",
                )?,
                intermediates_path: path("intermediates_path"),
            })
        }
        other => Err(not_built("NodeAttestor", other)),
    }
}

pub(super) fn key_manager(plugins: &Section<'_>) -> Result<KeyManagerConfig, ConfigError> {
    let (name, section) = exactly_one(plugins, "KeyManager")?;
    match name.as_str() {
        "memory" => {
            data(&section, &NOTHING)?;
            Ok(KeyManagerConfig::Memory)
        }
        "disk" => {
            let directory = data(&section, &KEYS_DISK)?.and_then(|d| d.text("directory"));
            let directory = directory.filter(|d| !d.is_empty());
            let directory =
                directory.ok_or(ConfigError::Required("KeyManager.disk.plugin_data.directory"))?;
            Ok(KeyManagerConfig::Disk { directory: directory.into() })
        }
        other => Err(not_built("KeyManager", other)),
    }
}

/// The settings of `unix`, the one workload attestor there is.
pub(super) fn workload_attestor(plugins: &Section<'_>) -> Result<unix::Config, ConfigError> {
    let mut config = None;
    for (name, section) in enabled(plugins, "WorkloadAttestor")? {
        if name != "unix" {
            return Err(not_built("WorkloadAttestor", &name));
        }
        let data = data(&section, &UNIX)?;
        config = Some(unix::Config {
            discover_workload_path: data
                .as_ref()
                .and_then(|d| d.bool("discover_workload_path"))
                .unwrap_or(false),
            workload_size_limit: data.as_ref().and_then(|d| d.int("workload_size_limit")).unwrap_or(0),
        });
    }
    config.ok_or_else(|| {
        ConfigError::Plugin(
            "WorkloadAttestor: constraint not satisfied: expected at least 1 but got 0".into(),
        )
    })
}
