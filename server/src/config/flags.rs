//! Command-line flags of `run`, `validate`, `backup` and `restore`: SPIRE's names.

use std::path::PathBuf;

use avouch::verbs::flags::{FlagError, FlagSet};

/// What the command line says. `None` = the file or the default decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub config: PathBuf,
    pub expand_env: bool,
    pub bind_address: Option<String>,
    pub server_port: Option<i64>,
    pub socket_path: Option<String>,
    pub trust_domain: Option<String>,
    pub data_dir: Option<String>,
    pub log_file: Option<String>,
    pub log_format: Option<String>,
    pub log_level: Option<String>,
    pub log_source_location: Option<bool>,
    /// What stands behind the flags.
    pub rest: Vec<String>,
}

fn known(verb: &'static str) -> FlagSet {
    FlagSet::new(verb)
        .text("config", "conf/server/server.conf", "Path to the configuration file")
        .bool("expandEnv", false, "Expand environment variables in the configuration file")
        .text("bindAddress", "", "IP address of the API")
        .int("serverPort", 0, "TCP port of the API")
        .text("socketPath", "", "Path of the admin API's socket")
        .text("trustDomain", "", "Name of the trust domain")
        .text("dataDir", "", "Directory for what the server keeps")
        .text("logFile", "", "File to write logs to")
        .text("logFormat", "", "'text' or 'json'")
        .text("logLevel", "", "'error', 'warn', 'info', 'debug' or 'trace'")
        .bool("logSourceLocation", false, "Add file and line to log lines")
}

impl Flags {
    /// Reads the arguments after `verb`, which stands in the help.
    ///
    /// # Errors
    /// Help was asked for, or an argument is wrong.
    pub fn parse(verb: &'static str, args: &[String]) -> Result<Self, FlagError> {
        let given = known(verb).parse(args)?;
        let text = |name| given.is_set(name).then(|| given.text(name).to_owned());
        Ok(Self {
            config: given.text("config").into(),
            expand_env: given.bool("expandEnv"),
            bind_address: text("bindAddress"),
            server_port: given.is_set("serverPort").then(|| given.int("serverPort")),
            socket_path: text("socketPath"),
            trust_domain: text("trustDomain"),
            data_dir: text("dataDir"),
            log_file: text("logFile"),
            log_format: text("logFormat"),
            log_level: text("logLevel"),
            log_source_location: given.is_set("logSourceLocation").then(|| given.bool("logSourceLocation")),
            rest: given.rest().to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Flags, String> {
        let args: Vec<_> = args.iter().map(|a| (*a).to_owned()).collect();
        Flags::parse("run", &args).map_err(|e| e.to_string())
    }

    #[test]
    fn one_dash_and_two_are_the_same() {
        for args in [&["-config", "f"][..], &["--config", "f"], &["-config=f"], &["--config=f"]] {
            assert_eq!(parse(args).unwrap().config, PathBuf::from("f"));
        }
    }

    #[test]
    fn what_is_not_given_stays_open() {
        let flags = parse(&["-expandEnv", "FILE"]).unwrap();
        assert_eq!(flags.config, PathBuf::from("conf/server/server.conf"));
        assert!(flags.expand_env && flags.server_port.is_none() && flags.log_source_location.is_none());
        assert_eq!(flags.rest, ["FILE"]);
    }

    #[test]
    fn mistakes_are_named_as_go_names_them() {
        assert_eq!(parse(&["-nope"]), Err("flag provided but not defined: -nope".into()));
        assert_eq!(parse(&["-dataDir"]), Err("flag needs an argument: -dataDir".into()));
    }
}
