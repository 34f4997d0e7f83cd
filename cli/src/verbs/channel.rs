//! The way to a server or an agent: which socket, and a gRPC channel over it.
//!
//! Never speaks TCP: the command line is for whoever may open the socket.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::service_fn;

use super::VerbError;
use super::flags::{FlagSet, Flags};

/// Largest reply in bytes that a verb reads: a full list of entries in one message fits, a flood does not.
pub const REPLY_MAX: usize = 256 << 20;

/// Where one kind of socket is found.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    pub default: &'static str,
    /// Environment variable that replaces the default.
    pub variable: Option<&'static str>,
    /// Environment variable with `%i` in the place of `-instance`.
    pub template: Option<&'static str>,
    pub help: &'static str,
}

/// The server's private socket.
pub const SERVER: Door = Door {
    default: "/tmp/spire-server/private/api.sock",
    variable: Some("SPIRE_SERVER_PRIVATE_SOCKET"),
    template: Some("SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE"),
    help: "Path of the server's API socket",
};

/// The agent's Workload API socket.
pub const AGENT: Door = Door {
    default: "/tmp/spire-agent/public/api.sock",
    variable: Some("SPIRE_AGENT_PUBLIC_SOCKET"),
    template: Some("SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE"),
    help: "Path of the agent's Workload API socket",
};

/// The agent's administration socket.
pub const AGENT_ADMIN: Door = Door {
    default: "/tmp/spire-agent/private/admin.sock",
    variable: None,
    template: None,
    help: "Path of the agent's administration socket",
};

impl Door {
    /// Adds `-socketPath` and, where there is a template, `-instance`.
    #[must_use]
    pub fn flags(&self, set: FlagSet) -> FlagSet {
        let set = set.text("socketPath", self.default, self.help);
        match self.template {
            Some(_) => set.text("instance", "", "Name that takes the place of %i in the socket template"),
            None => set,
        }
    }

    /// The socket to use: a path other than the default, else the template, else the variable, else the default.
    ///
    /// # Errors
    /// `-instance` without a template that has a place for it.
    pub fn path(&self, flags: &Flags, env: impl Fn(&str) -> Option<String>) -> Result<PathBuf, VerbError> {
        let given = flags.text("socketPath");
        if given != self.default {
            return Ok(given.into());
        }
        let instance = flags.text("instance");
        if let (false, Some(name)) = (instance.is_empty(), self.template) {
            let template = env(name).filter(|t| t.contains("%i"));
            let template = template.ok_or_else(|| {
                VerbError::Text(format!("-instance needs a socket path with %i in it in {name}"))
            })?;
            return Ok(template.replace("%i", instance).into());
        }
        let variable = self.variable.and_then(env).filter(|v| !v.is_empty());
        Ok(variable.unwrap_or_else(|| self.default.to_owned()).into())
    }
}

/// Opens a channel over the socket.
///
/// # Errors
/// `Unavailable` with the words of gRPC for Go, if nobody answers.
pub async fn connect(path: &Path) -> Result<Channel, VerbError> {
    let owned = path.to_owned();
    let dial = service_fn(move |_| {
        let path = owned.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The first look is ours, since the channel hides why it failed.
    if let Err(e) = UnixStream::connect(path).await {
        return Err(unreachable_at(path, &e));
    }
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint
        .connect_with_connector(dial)
        .await
        .map_err(|e| VerbError::Rpc(Status::new(Code::Unavailable, format!("connection error: {e}"))))
}

fn unreachable_at(path: &Path, error: &std::io::Error) -> VerbError {
    let text = error.to_string();
    let reason = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    let message = format!(
        "connection error: desc = \"transport: Error while dialing: dial unix {}: connect: {reason}\"",
        path.display()
    );
    VerbError::Rpc(Status::new(Code::Unavailable, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(args: &[&str], env: &[(&str, &str)]) -> Result<PathBuf, VerbError> {
        let args: Vec<_> = args.iter().map(|a| (*a).to_owned()).collect();
        let flags = SERVER.flags(FlagSet::new("x")).parse(&args).unwrap();
        SERVER.path(&flags, |name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn a_given_path_beats_template_variable_and_default() {
        let env =
            [("SPIRE_SERVER_PRIVATE_SOCKET", "/v"), ("SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE", "/run/%i/s")];
        let socket = |args: &[&str]| path(args, &env).unwrap();
        assert_eq!(socket(&["-socketPath", "/p", "-instance", "a"]), Path::new("/p"));
        assert_eq!(socket(&["-instance", "a"]), Path::new("/run/a/s"));
        assert_eq!(socket(&[]), Path::new("/v"));
        assert_eq!(path(&[], &[]).unwrap(), Path::new(SERVER.default));
    }

    #[test]
    fn an_instance_needs_a_template_with_a_place_for_it() {
        assert!(path(&["-instance", "a"], &[]).is_err());
        assert!(path(&["-instance", "a"], &[("SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE", "/s")]).is_err());
    }

    #[tokio::test]
    async fn nobody_there_is_unavailable_with_the_path() {
        let error = connect(Path::new("/nonexistent/api.sock")).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial unix /nonexistent/api.sock: connect: no such file or directory\""
        );
    }
}
