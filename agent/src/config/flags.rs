//! Command-line flags of `run` and `validate`: one or two dashes, `-x value` or `-x=value`, as Go programs read them.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::ConfigError;

/// What the command line says. `None` = the file or the default decides.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Flags {
    pub config: Option<String>,
    pub expand_env: bool,
    pub server_address: Option<String>,
    pub server_port: Option<String>,
    pub trust_domain: Option<String>,
    pub data_dir: Option<String>,
    pub socket_path: Option<String>,
    pub trust_bundle: Option<String>,
    pub trust_bundle_url: Option<String>,
    pub trust_bundle_format: Option<String>,
    pub insecure_bootstrap: bool,
    pub rebootstrap_mode: Option<String>,
    pub join_token: Option<Zeroizing<String>>,
    pub join_token_file: Option<String>,
    pub allow_unauthenticated_verifiers: bool,
    pub log_file: Option<String>,
    pub log_format: Option<String>,
    pub log_level: Option<String>,
    pub log_source_location: bool,
}

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flags").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Flags {
    /// Reads the arguments after the verb.
    ///
    /// # Errors
    /// [`ConfigError::Flag`] in Go's words.
    pub fn parse(args: &[String]) -> Result<Self, ConfigError> {
        let mut flags = Self::default();
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let body = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'));
            let Some(body) = body.filter(|b| !b.is_empty()) else {
                return Err(ConfigError::Flag(format!("unexpected argument: {arg}")));
            };
            let (name, inline) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (body, None),
            };
            if let Some(switch) = flags.switch(name) {
                *switch = truth(name, inline)?;
                continue;
            }
            let next = || rest.next().map(String::as_str);
            let needs = || ConfigError::Flag(format!("flag needs an argument: -{name}"));
            if name == "joinToken" {
                flags.join_token = Some(Zeroizing::new(inline.or_else(next).ok_or_else(needs)?.to_owned()));
                continue;
            }
            let slot = flags.slot(name)?;
            *slot = Some(inline.or_else(next).ok_or_else(needs)?.to_owned());
        }
        Ok(flags)
    }

    fn switch(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "expandEnv" => &mut self.expand_env,
            "insecureBootstrap" => &mut self.insecure_bootstrap,
            "allowUnauthenticatedVerifiers" => &mut self.allow_unauthenticated_verifiers,
            "logSourceLocation" => &mut self.log_source_location,
            _ => return None,
        })
    }

    fn slot(&mut self, name: &str) -> Result<&mut Option<String>, ConfigError> {
        Ok(match name {
            "config" => &mut self.config,
            "serverAddress" => &mut self.server_address,
            "serverPort" => &mut self.server_port,
            "trustDomain" => &mut self.trust_domain,
            "dataDir" => &mut self.data_dir,
            "socketPath" => &mut self.socket_path,
            "trustBundle" => &mut self.trust_bundle,
            "trustBundleUrl" => &mut self.trust_bundle_url,
            "trustBundleFormat" => &mut self.trust_bundle_format,
            "rebootstrapMode" => &mut self.rebootstrap_mode,
            "joinTokenFile" => &mut self.join_token_file,
            "logFile" => &mut self.log_file,
            "logFormat" => &mut self.log_format,
            "logLevel" => &mut self.log_level,
            "disableWorkloadAPI" | "disableSDSAPI" | "rebootstrapDelay" | "namedPipeName" => {
                return Err(ConfigError::NotYet(format!("-{name}")));
            }
            _ => return Err(ConfigError::Flag(format!("flag provided but not defined: -{name}"))),
        })
    }

    /// The configuration file: as given, or SPIRE's default below the working directory.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        PathBuf::from(self.config.as_deref().unwrap_or("conf/agent/agent.conf"))
    }
}

fn truth(name: &str, inline: Option<&str>) -> Result<bool, ConfigError> {
    match inline {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => {
            Err(ConfigError::Flag(format!("invalid boolean value \"{other}\" for -{name}: parse error")))
        }
    }
}
