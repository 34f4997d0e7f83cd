//! The `plugins` block: which store, which key manager, which node attestors.
//!
//! Never loads a plugin; names and settings are checked against what is built in.

use std::path::PathBuf;

use avouch::config::decode::Section;
use avouch::config::table::Table;
use avouch_attestors::node::x509pop::{VerifierConfig, VerifierKeys};

use crate::config::ConfigError;
use crate::config::table::{DATASTORE_SQL, KEYS_DISK, NOTHING, PLUGINS_NOT_YET, X509POP};

/// Where entries, nodes and bundles are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatastoreConfig {
    /// `:memory:` = lost at exit.
    pub file: PathBuf,
}

/// Where signing keys are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyManagerConfig {
    Memory,
    Disk { keys_path: PathBuf },
}

/// How agents may prove their node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeAttestorConfig {
    JoinToken,
    X509pop(VerifierConfig),
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
    let known = PLUGINS_NOT_YET.iter().any(|(k, names)| *k == kind && names.contains(&name));
    if known {
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

pub(super) fn datastore(plugins: &Section<'_>) -> Result<DatastoreConfig, ConfigError> {
    let (name, section) = exactly_one(plugins, "DataStore")?;
    if name != "sql" {
        return Err(not_built("DataStore", &name));
    }
    // A database in a cloud has its settings where the others have a word.
    let block = section.any("plugin_data").and_then(|data| data.labelled("database_type").pop());
    if let Some((kind @ ("aws_postgres" | "aws_mysql"), _)) =
        block.as_ref().map(|(kind, s)| (kind.as_str(), s))
    {
        return Err(ConfigError::NotYet(format!("DataStore.sql.plugin_data.database_type \"{kind}\"")));
    }
    let data = data(&section, &DATASTORE_SQL)?;
    let text = |key| data.as_ref().and_then(|d| d.text(key)).unwrap_or_default();
    match text("database_type").as_str() {
        "sqlite3" => {}
        "" => return Err(ConfigError::Required("DataStore.sql.plugin_data.database_type")),
        other @ ("postgres" | "mysql") => {
            return Err(ConfigError::NotYet(format!(
                "DataStore.sql.plugin_data.database_type = \"{other}\""
            )));
        }
        other => {
            return Err(ConfigError::Plugin(format!(
                "datastore-sql: unsupported database_type: {other}; expected sqlite3"
            )));
        }
    }
    let connection = text("connection_string");
    if connection.is_empty() {
        return Err(ConfigError::Required("DataStore.sql.plugin_data.connection_string"));
    }
    Ok(DatastoreConfig { file: sqlite_file(&connection) })
}

/// The file of an SQLite connection string: with or without `file:`, options after `?` left out.
fn sqlite_file(connection: &str) -> PathBuf {
    let (path, options) = connection.split_once('?').unwrap_or((connection, ""));
    if options.split('&').any(|o| o == "mode=memory") || path == ":memory:" {
        return PathBuf::from(":memory:");
    }
    let path = path.strip_prefix("file:").unwrap_or(path);
    // file:///abs is an URL with an empty host.
    PathBuf::from(path.strip_prefix("//").filter(|p| p.starts_with('/')).unwrap_or(path))
}

pub(super) fn key_manager(plugins: &Section<'_>) -> Result<KeyManagerConfig, ConfigError> {
    let (name, section) = exactly_one(plugins, "KeyManager")?;
    match name.as_str() {
        "memory" => {
            data(&section, &NOTHING)?;
            Ok(KeyManagerConfig::Memory)
        }
        "disk" => {
            let path = data(&section, &KEYS_DISK)?.and_then(|d| d.text("keys_path"));
            let keys_path = path.filter(|p| !p.is_empty());
            let keys_path =
                keys_path.ok_or(ConfigError::Required("KeyManager.disk.plugin_data.keys_path"))?;
            Ok(KeyManagerConfig::Disk { keys_path: keys_path.into() })
        }
        other => Err(not_built("KeyManager", other)),
    }
}

pub(super) fn node_attestors(plugins: &Section<'_>) -> Result<Vec<NodeAttestorConfig>, ConfigError> {
    let read = |(name, section): (String, Section<'_>)| match name.as_str() {
        "join_token" => {
            data(&section, &NOTHING)?;
            Ok(NodeAttestorConfig::JoinToken)
        }
        "x509pop" => x509pop(&section).map(NodeAttestorConfig::X509pop),
        other => Err(not_built("NodeAttestor", other)),
    };
    enabled(plugins, "NodeAttestor")?.into_iter().map(read).collect()
}

fn x509pop(section: &Section<'_>) -> Result<VerifierConfig, ConfigError> {
    let bad = |problem: String| ConfigError::Plugin(format!("nodeattestor(x509pop): {problem}"));
    let Some(data) = data(section, &X509POP)? else { return VerifierKeys::default().check().map_err(bad) };
    let text = |key| data.text(key).filter(|t| !t.is_empty());
    let number = |key| match data.int(key) {
        None => Ok(None),
        Some(n) => usize::try_from(n).map(Some).map_err(|_| bad(format!("{key} is {n}, expected 0 or more"))),
    };
    let keys = VerifierKeys {
        mode: text("mode"),
        ca_bundle_path: text("ca_bundle_path").map(PathBuf::from),
        ca_bundle_paths: data
            .texts("ca_bundle_paths")
            .unwrap_or_default()
            .into_iter()
            .map(PathBuf::from)
            .collect(),
        spiffe_prefix: text("spiffe_prefix"),
        agent_path_template: text("agent_path_template"),
        max_intermediates: number("max_intermediates")?,
        max_rsa_key_size: number("max_rsa_key_size")?,
        verify_client_ip: data.bool("verify_client_ip"),
    };
    keys.check().map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_connection_string_is_found_in_all_its_forms() {
        for (text, file) in [
            ("/var/lib/x.sqlite3", "/var/lib/x.sqlite3"),
            ("file:/var/lib/x.sqlite3?_journal=WAL", "/var/lib/x.sqlite3"),
            ("file:///var/lib/x.sqlite3", "/var/lib/x.sqlite3"),
            ("memdb?mode=memory&cache=shared", ":memory:"),
            (":memory:", ":memory:"),
        ] {
            assert_eq!(sqlite_file(text), PathBuf::from(file), "{text}");
        }
    }
}
