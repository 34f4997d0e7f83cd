//! The way to a server or an agent: which socket, and a gRPC channel over it.
//!
//! Never speaks TCP but to a Workload API that the standard's variable names: all else is for whoever may open the
//! socket.

use std::path::Path;

use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tower::service_fn;

use super::VerbError;
use super::flags::{FlagSet, Flags};
use super::place::{Place, VARIABLE};

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
    /// The standard's variable counts too, after SPIRE's (WE-09).
    pub standard: bool,
    pub help: &'static str,
}

/// The server's private socket.
pub const SERVER: Door = Door {
    default: "/tmp/spire-server/private/api.sock",
    variable: Some("SPIRE_SERVER_PRIVATE_SOCKET"),
    template: Some("SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE"),
    standard: false,
    help: "Path of the server's API socket",
};

/// The agent's Workload API socket.
pub const AGENT: Door = Door {
    default: "/tmp/spire-agent/public/api.sock",
    variable: Some("SPIRE_AGENT_PUBLIC_SOCKET"),
    template: Some("SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE"),
    standard: true,
    help: "Path of the agent's Workload API socket",
};

/// The agent's administration socket.
pub const AGENT_ADMIN: Door = Door {
    default: "/tmp/spire-agent/private/admin.sock",
    variable: None,
    template: None,
    standard: false,
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

    /// Where to dial: a path other than the default, else the template, else the variable, else the standard's
    /// variable, else the default.
    ///
    /// # Errors
    /// `-instance` without a template that has a place for it, or a standard's variable of another form.
    pub fn place(&self, flags: &Flags, env: impl Fn(&str) -> Option<String>) -> Result<Place, VerbError> {
        let given = flags.text("socketPath");
        if given != self.default {
            return Ok(Place::Unix(given.into()));
        }
        let instance = flags.text("instance");
        if let (false, Some(name)) = (instance.is_empty(), self.template) {
            let template = env(name).filter(|t| t.contains("%i"));
            let template = template.ok_or_else(|| {
                VerbError::Text(format!("-instance needs a socket path with %i in it in {name}"))
            })?;
            return Ok(Place::Unix(template.replace("%i", instance).into()));
        }
        if let Some(path) = self.variable.and_then(&env).filter(|v| !v.is_empty()) {
            return Ok(Place::Unix(path.into()));
        }
        match env(VARIABLE).filter(|v| self.standard && !v.is_empty()) {
            Some(value) => Place::parse(&value),
            None => Ok(Place::Unix(self.default.into())),
        }
    }
}

impl Door {
    /// Where a path of a command line leads: the default gives way to the standard's variable, which a run sets.
    ///
    /// # Errors
    /// A standard's variable of another form.
    pub fn found(&self, given: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Place, VerbError> {
        let standard = env(VARIABLE).filter(|value| self.standard && !value.is_empty());
        match standard.filter(|_| given == Path::new(self.default)) {
            Some(value) => Place::parse(&value),
            None => Ok(Place::Unix(given.to_owned())),
        }
    }
}

/// Opens a channel over a Unix socket.
///
/// # Errors
/// As [`dial`].
pub async fn connect(path: &Path) -> Result<Channel, VerbError> {
    dial(&Place::Unix(path.to_owned())).await
}

/// Opens a channel.
///
/// # Errors
/// `Unavailable` with the words of gRPC for Go, if nobody answers.
pub async fn dial(place: &Place) -> Result<Channel, VerbError> {
    let endpoint = Endpoint::from_static("http://localhost");
    // The first look is ours, since the channel hides why it failed.
    let channel = match place.clone() {
        Place::Unix(path) => {
            UnixStream::connect(&path).await.map_err(|e| unreachable_at(place, &e))?;
            let connector = service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            });
            endpoint.connect_with_connector(connector).await
        }
        Place::Tcp(address) => {
            TcpStream::connect(address).await.map_err(|e| unreachable_at(place, &e))?;
            let connector =
                service_fn(move |_| async move { TcpStream::connect(address).await.map(TokioIo::new) });
            endpoint.connect_with_connector(connector).await
        }
    };
    channel.map_err(|e| VerbError::Rpc(Status::new(Code::Unavailable, format!("connection error: {e}"))))
}

/// A request with the header that every Workload API call must carry (WE-14).
pub fn workload_request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

fn unreachable_at(place: &Place, error: &std::io::Error) -> VerbError {
    let text = error.to_string();
    let reason = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    let message = format!(
        "connection error: desc = \"transport: Error while dialing: dial {place}: connect: {reason}\""
    );
    VerbError::Rpc(Status::new(Code::Unavailable, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &str) -> Place {
        Place::Unix(path.into())
    }

    fn path(args: &[&str], env: &[(&str, &str)]) -> Result<Place, VerbError> {
        let args: Vec<_> = args.iter().map(|a| (*a).to_owned()).collect();
        let flags = SERVER.flags(FlagSet::new("x")).parse(&args).unwrap();
        SERVER.place(&flags, |name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn a_given_path_beats_template_variable_and_default() {
        let env =
            [("SPIRE_SERVER_PRIVATE_SOCKET", "/v"), ("SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE", "/run/%i/s")];
        let socket = |args: &[&str]| path(args, &env).unwrap();
        assert_eq!(socket(&["-socketPath", "/p", "-instance", "a"]), unix("/p"));
        assert_eq!(socket(&["-instance", "a"]), unix("/run/a/s"));
        assert_eq!(socket(&[]), unix("/v"));
        assert_eq!(path(&[], &[]).unwrap(), unix(SERVER.default));
    }

    #[test]
    fn an_instance_needs_a_template_with_a_place_for_it() {
        assert!(path(&["-instance", "a"], &[]).is_err());
        assert!(path(&["-instance", "a"], &[("SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE", "/s")]).is_err());
    }

    #[test]
    fn the_default_gives_way_to_the_standards_variable() {
        let found = |given: &str, value: &str| {
            AGENT.found(Path::new(given), |name| (name == VARIABLE).then(|| value.to_owned())).unwrap()
        };
        assert_eq!(found(AGENT.default, "unix:///run/a"), unix("/run/a"));
        assert_eq!(found(AGENT.default, ""), unix(AGENT.default));
        assert_eq!(found("/given", "unix:///run/a"), unix("/given"));
    }

    #[tokio::test]
    async fn nobody_there_is_unavailable_with_the_path() {
        let error = dial(&unix("/nonexistent/api.sock")).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial unix /nonexistent/api.sock: connect: no such file or directory\""
        );
    }
}
