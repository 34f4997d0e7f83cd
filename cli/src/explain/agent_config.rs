//! What the agent's own configuration file says, found by way of its process: the one fact no API tells.
//!
//! Reads the file as it is now. What can't be found or read is unknown, never guessed.

use std::path::{Path, PathBuf};

use crate::config::hcl::{self, Node, Object, Value};

/// Where the agent looks without `-config`, below its working directory.
const DEFAULT: &str = "conf/agent/agent.conf";

/// Does the unix attestor of the agent with this process ID look at binaries?
pub fn looks_at_binaries(agent_pid: i32) -> Option<bool> {
    let words = std::fs::read(format!("/proc/{agent_pid}/cmdline")).ok()?;
    let words: Vec<_> = words.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
    let text = std::fs::read_to_string(place(agent_pid, &config_of(&words))).ok()?;
    read(&text)
}

/// The value of `-config` on a command line.
fn config_of(words: &[String]) -> String {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else { continue };
        if let Some(value) = flag.strip_prefix("config=") {
            return value.to_owned();
        }
        if flag == "config" {
            return words.next().cloned().unwrap_or_default();
        }
    }
    DEFAULT.to_owned()
}

/// A path as the agent sees it, which may have another root.
fn place(pid: i32, path: &str) -> PathBuf {
    match Path::new(path).strip_prefix("/") {
        Ok(below) => PathBuf::from(format!("/proc/{pid}/root")).join(below),
        Err(_) => PathBuf::from(format!("/proc/{pid}/cwd")).join(path),
    }
}

fn read(text: &str) -> Option<bool> {
    let document = hcl::parse(text).ok()?;
    let attestors = find(&document.root, &["plugins", "WorkloadAttestor", "unix"])?;
    let setting = objects(attestors)
        .into_iter()
        .find_map(|unix| find(unix, &["plugin_data", "discover_workload_path"]));
    match setting.map(|node| &node.value) {
        Some(Value::Bool(on)) => Some(*on),
        None => Some(false),
        Some(_) => None,
    }
}

/// The first value at the end of a chain of names, through lists of objects too, as the JSON form has them.
fn find<'a>(object: &'a Object, names: &[&str]) -> Option<&'a Node> {
    let (first, rest) = names.split_first()?;
    let mut fits = object.items.iter().filter(|item| item.key.text.eq_ignore_ascii_case(first));
    if rest.is_empty() {
        return fits.next().map(|item| &item.value);
    }
    fits.find_map(|item| objects(&item.value).into_iter().find_map(|inner| find(inner, rest)))
}

fn objects(node: &Node) -> Vec<&Object> {
    match &node.value {
        Value::Object(object) => vec![object],
        Value::List(list) => list.iter().flat_map(objects).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_is_found_in_both_forms_of_the_file() {
        let hcl = |data: &str| {
            read(&format!("plugins {{\n WorkloadAttestor \"unix\" {{\n plugin_data {{ {data} }}\n }}\n}}\n"))
        };
        assert_eq!(hcl("discover_workload_path = true"), Some(true));
        assert_eq!(hcl("discover_workload_path = false"), Some(false));
        assert_eq!(hcl(""), Some(false));
        let json = r#"{"plugins": {"WorkloadAttestor": [{"unix": {"plugin_data": {"discover_workload_path": true}}}]}}"#;
        assert_eq!(read(json), Some(true));
        assert_eq!(read("plugins {}"), None);
        assert_eq!(read("{{{"), None);
    }

    #[test]
    fn the_file_is_the_one_of_the_command_line() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for line in ["agent run -config /a", "agent run --config /a", "agent run -config=/a -x"] {
            assert_eq!(config_of(&words(line)), "/a", "{line}");
        }
        assert_eq!(config_of(&words("agent run")), DEFAULT);
        assert_eq!(place(7, "/etc/a.conf"), Path::new("/proc/7/root/etc/a.conf"));
        assert_eq!(place(7, "a.conf"), Path::new("/proc/7/cwd/a.conf"));
    }
}
