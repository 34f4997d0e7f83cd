//! Gates in front of a web API, as `gates.toml` has them: where it is, the secret that the gate adds, and what can be asked.
//!
//! A request that no route stands for does not exist for a gate. Never reads a secret: it knows where one lies.

use std::collections::BTreeSet;

use serde::Deserialize;
use toml::Spanned;

use crate::catalogue::{Catalogue, Resource};
use crate::gates::{Mistake, caller_mistake, is_pointer, is_tool_name};
use crate::limits::{
    COMMAND_WORD_MAX, GATE_CA_MAX, HEADER_NAME_MAX, QUERY_NAME_MAX, ROUTE_QUERY_MAX, ROUTES_MAX,
};
use crate::route::{HttpMethod, Template};
use crate::tables;
use crate::upstream::{self, Upstream};
use crate::words::ParamKind;

/// The action of a route that reads, unless it names another.
pub const HTTP_READ: &str = "http.read";
/// The action of a route that writes, unless it names another.
pub const HTTP_WRITE: &str = "http.write";
/// The header that a secret goes into, unless the gate names another.
const AUTHORIZATION: &str = "authorization";
/// What stands before a secret in [`AUTHORIZATION`], unless the gate names something else.
const BEARER: &str = "Bearer ";
/// Headers that carry the message itself.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A web API and its routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGate {
    /// As [`Upstream::parse`] reads it.
    pub upstream: String,
    pub door: HttpDoor,
    /// Certificates in PEM that alone vouch for the upstream; the system's if there are none.
    pub ca: Option<String>,
    pub secret: Option<SecretPlace>,
    pub routes: Vec<HttpRoute>,
}

/// Who serves an HTTP gate, and who comes to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpDoor {
    /// Each run has one of its own: the variable that tells its command where.
    Run { env_var: String },
    /// A workload of its own serves it for all who show an X509-SVID: the path of that workload's SPIFFE ID, in whatever
    /// trust domain the rules are published.
    Shared { caller: String },
}

/// Where a secret lies, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretPlace {
    /// An absolute path on the node.
    pub file: String,
    /// The header, in lower case.
    pub header: String,
    /// What stands before it.
    pub prefix: String,
}

/// Requests that are treated alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRoute {
    pub method: HttpMethod,
    pub path: Template,
    /// What stands behind the gate's name in the ID of its resource.
    pub resource: String,
    pub action: String,
    /// Query parameters that rules look at.
    pub query: BTreeSet<String>,
    /// Others go through unseen; else they are refused.
    pub other_query: bool,
    /// Where in an answer the rows are, as a JSON pointer; empty: the answer itself.
    pub rows_at: String,
}

/// A gate as it is written.
pub(crate) struct WrittenHttp {
    pub caller: Option<String>,
    pub upstream: Option<String>,
    pub env_var: Option<String>,
    pub ca: Option<String>,
    pub secret_file: Option<String>,
    pub secret_header: Option<String>,
    pub secret_prefix: Option<String>,
    pub route: Vec<Spanned<WrittenRoute>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenRoute {
    method: String,
    path: String,
    resource: String,
    action: Option<String>,
    #[serde(default)]
    query: BTreeSet<String>,
    #[serde(default)]
    other_query: bool,
    #[serde(default)]
    rows_at: String,
}

/// What is wrong with a gate as a whole, and with its routes, each with its line.
#[derive(Default)]
pub(crate) struct Wrong {
    pub gate: Vec<Mistake>,
    pub routes: Vec<(u32, Vec<Mistake>)>,
}

/// Reads a gate. `taken`: variables that other gates have. Nothing is read where something is wrong.
pub(crate) fn read(
    name: &str,
    written: WrittenHttp,
    catalogue: &Catalogue,
    text: &str,
    taken: &BTreeSet<&str>,
) -> (Option<HttpGate>, Wrong) {
    let mut wrong = Wrong { gate: mistakes(name, &written, taken), routes: Vec::new() };
    let mut routes: Vec<HttpRoute> = Vec::new();
    for spanned in written.route {
        let line = tables::line_at(text, spanned.span().start);
        match read_route(name, spanned.into_inner(), catalogue) {
            Ok(route) => {
                let twice = routes.iter().find(|r| r.method == route.method && r.path.overlaps(&route.path));
                wrong.routes.extend(twice.map(|other| (line, vec![doubled(&route, other)])));
                routes.push(route);
            }
            Err(mistakes) => wrong.routes.push((line, mistakes)),
        }
    }
    let header = written.secret_header.unwrap_or_else(|| AUTHORIZATION.to_owned());
    let bearer = if header == AUTHORIZATION { BEARER } else { "" };
    let prefix = written.secret_prefix.unwrap_or_else(|| bearer.to_owned());
    let secret = written.secret_file.map(|file| SecretPlace { file, header, prefix });
    let door = match (written.env_var, written.caller) {
        (Some(env_var), None) => Some(HttpDoor::Run { env_var }),
        (None, Some(caller)) => Some(HttpDoor::Shared { caller }),
        _ => None,
    };
    let gate = match (written.upstream, door) {
        (Some(upstream), Some(door)) if wrong.gate.is_empty() && wrong.routes.is_empty() => {
            Some(HttpGate { upstream, door, ca: written.ca, secret, routes })
        }
        _ => None,
    };
    (gate, wrong)
}

fn doubled(route: &HttpRoute, other: &HttpRoute) -> Mistake {
    let text = format!(
        "{} {} stands for requests that {} stands for as well",
        route.method.name(),
        route.path,
        other.path
    );
    ("overlap", text, "keep one of them: a rule can look at the value of its variable")
}

fn mistakes(name: &str, gate: &WrittenHttp, taken: &BTreeSet<&str>) -> Vec<Mistake> {
    let mut found = Vec::new();
    let shown = name.escape_default();
    match gate.upstream.as_deref().map(Upstream::parse) {
        None => found.push(("upstream", format!("gate \"{shown}\" has no upstream"), upstream::FORM)),
        Some(Err(text)) => found.push(("upstream", text, upstream::FORM)),
        Some(Ok(_)) => {}
    }
    let next = "write env_var = \"API_URL\": capital letters, digits and _, and no name that programs act on by themselves";
    match gate.env_var.as_deref() {
        Some(_) if gate.caller.is_some() => {
            let text = format!("gate \"{shown}\" has an env_var and a caller");
            let next =
                "leave env_var for a gate of each run, or caller for a workload that serves it for many";
            found.push(("env_var", text, next));
        }
        None => match &gate.caller {
            Some(path) => found.extend(caller_mistake(path)),
            None => found.push(("env_var", format!("gate \"{shown}\" has no env_var and no caller"), next)),
        },
        Some(name) if !is_variable(name) => {
            found.push(("env_var", format!("variable \"{}\" can't be used", name.escape_default()), next));
        }
        Some(name) if taken.contains(name) => {
            found.push(("env_var", format!("variable \"{name}\" is another gate's already"), "take another"));
        }
        Some(_) => {}
    }
    if gate
        .ca
        .as_ref()
        .is_some_and(|ca| ca.len() > GATE_CA_MAX || !ca.contains("-----BEGIN CERTIFICATE-----"))
    {
        let text = format!("ca is no list of certificates in PEM of at most {GATE_CA_MAX} bytes");
        found.push(("ca", text, "name the file with `avouch gate add http --ca-file FILE`, or take it out"));
    }
    found.extend(secret_mistakes(gate));
    if gate.route.is_empty() {
        let text = format!("gate \"{shown}\" has no routes, so nothing could be asked");
        found.push(("empty", text, "add a [[gate.route]] with method, path and resource, or take it out"));
    }
    if gate.route.len() > ROUTES_MAX {
        let text = format!("{} routes, at most {ROUTES_MAX}", gate.route.len());
        found.push(("size", text, "put paths that are treated alike into one route with a variable"));
    }
    found
}

fn secret_mistakes(gate: &WrittenHttp) -> Vec<Mistake> {
    let mut found = Vec::new();
    let file = |path: &String| {
        path.starts_with('/')
            && path.len() <= COMMAND_WORD_MAX
            && !path.ends_with('/')
            && !path.contains('\0')
            && !path.split('/').any(|part| part == ".." || part == ".")
    };
    if let Some(path) = gate.secret_file.as_ref().filter(|path| !file(path)) {
        let text = format!("secret_file \"{}\" is no absolute path of a file", path.escape_default());
        found.push(("secret_file", text, "begin it with / and leave . and .. out"));
    }
    if gate.secret_file.is_none() && (gate.secret_header.is_some() || gate.secret_prefix.is_some()) {
        let text = "there is a header for a secret, and no secret_file".to_owned();
        found.push(("secret_file", text, "name the file, or take secret_header and secret_prefix out"));
    }
    if let Some(header) = gate.secret_header.as_ref().filter(|header| !is_secret_header(header)) {
        let text = format!("secret_header \"{}\" can't be used", header.escape_default());
        let next = "write it in lower case, as x-api-key, and take none that carries the message itself";
        found.push(("secret_header", text, next));
    }
    let visible = |text: &String| {
        text.len() <= HEADER_NAME_MAX
            && text.bytes().all(|c| (b' '..=b'~').contains(&c))
            && !text.starts_with(' ')
    };
    if gate.secret_prefix.as_ref().is_some_and(|prefix| !visible(prefix)) {
        let text = format!("secret_prefix is no visible text of at most {HEADER_NAME_MAX} bytes");
        found.push(("secret_prefix", text, "write what stands before the secret, as \"Bearer \""));
    }
    found
}

/// True for a header that a secret may go into.
pub(crate) fn is_secret_header(name: &str) -> bool {
    let inside = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_';
    !name.is_empty() && name.len() <= HEADER_NAME_MAX && name.bytes().all(inside) && !FRAMING.contains(&name)
}

/// True for a variable that may tell where a gate is: none that a shell, a loader, an interpreter or this product acts on.
pub(crate) fn is_variable(name: &str) -> bool {
    let bytes = name.as_bytes();
    let inside = |c: &u8| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == b'_';
    let begins = bytes.first().is_some_and(|c| c.is_ascii_uppercase() || *c == b'_');
    let taken = [
        "ALL_PROXY",
        "BASH_ENV",
        "CDPATH",
        "ENV",
        "EDITOR",
        "FTP_PROXY",
        "HOME",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "IFS",
        "LANG",
        "LOGNAME",
        "MAIL",
        "NODE_OPTIONS",
        "NO_PROXY",
        "OLDPWD",
        "PAGER",
        "PATH",
        "PS1",
        "PS4",
        "PWD",
        "SHELL",
        "TERM",
        "TMPDIR",
        "USER",
        "VISUAL",
    ];
    let families = [
        "AVOUCH_", "BASH_", "DYLD_", "GCONV_", "GIT_", "GLIBC_", "JAVA_", "LC_", "LD_", "MALLOC_", "NODE_",
        "PERL", "PYTHON", "RUBY", "SPIFFE_", "SPIRE_", "SSH_", "SSL_", "XDG_",
    ];
    begins
        && name.len() <= HEADER_NAME_MAX
        && bytes.iter().all(inside)
        // What a gate says beside its URL ends so.
        && !name.ends_with("_SOCKET")
        && !taken.contains(&name)
        && !families.iter().any(|family| name.starts_with(family))
}

fn read_route(gate: &str, route: WrittenRoute, catalogue: &Catalogue) -> Result<HttpRoute, Vec<Mistake>> {
    let mut found = Vec::new();
    let method = HttpMethod::from_name(&route.method);
    if method.is_none() {
        let text = format!("\"{}\" is no method of a route", route.method.escape_default());
        found.push(("method", text, "take GET, which stands for HEAD as well, POST, PUT, PATCH or DELETE"));
    }
    let next = "write it as /tickets/{id}: plain parts, variables that are whole parts, at last {name..} for the rest";
    let path = Template::parse(&route.path).map_err(|text| found.push(("path", text, next))).ok();
    if !is_tool_name(&route.resource) {
        let text = format!("\"{}\" is no name of a resource", route.resource.escape_default());
        found.push(("resource", text, "take 1 to 128 bytes without blanks and quotes, as tickets"));
    }
    let reads = method.is_none_or(HttpMethod::reads);
    let action = route.action.unwrap_or_else(|| (if reads { HTTP_READ } else { HTTP_WRITE }).to_owned());
    let id = format!("{gate}/{}", route.resource);
    match catalogue.get(&id).filter(|resource| resource.actions.contains(&action)) {
        None => {
            let (id, action) = (id.escape_default(), action.escape_default());
            let text = format!("resources.toml has no \"{id}\" with the action {action}");
            found.push(("unguarded", text, "add the resource or the action, or take the route out"));
        }
        Some(resource) => {
            let names: Vec<_> = path.iter().flat_map(Template::names).collect();
            found.extend(param_mistakes(resource, &names, &route.query));
        }
    }
    if !route.rows_at.is_empty() && !is_pointer(&route.rows_at) {
        let text = format!("rows_at \"{}\" is no JSON pointer", route.rows_at.escape_default());
        found.push((
            "rows_at",
            text,
            "write it as /data/items, or leave it out if the answer itself is the rows",
        ));
    }
    let WrittenRoute { resource, query, other_query, rows_at, .. } = route;
    match (method, path) {
        (Some(method), Some(path)) if found.is_empty() => {
            Ok(HttpRoute { method, path, resource, action, query, other_query, rows_at })
        }
        _ => Err(found),
    }
}

/// What does not fit between the parameters of a resource and where a route takes them from.
fn param_mistakes(resource: &Resource, names: &[&str], query: &BTreeSet<String>) -> Vec<Mistake> {
    let mut found = Vec::new();
    for name in names {
        if resource.params.get(*name) == Some(&ParamKind::Set) {
            let text = format!("variable \"{name}\" is one text, and the parameter of its name is a set");
            found.push(("params", text, "make it a string in resources.toml, or rename the variable"));
        }
    }
    for name in query {
        let shown = name.escape_default();
        let plain = !name.is_empty() && name.len() <= QUERY_NAME_MAX;
        if !plain || !resource.params.contains_key(name) {
            let text = format!("\"{shown}\" is no parameter of \"{}\"", resource.id);
            found.push(("query", text, "add it to params of the resource, or take it out of query"));
        }
        if names.contains(&name.as_str()) {
            let text = format!("\"{shown}\" is a variable of the path and a query parameter");
            found.push(("query", text, "rename the variable"));
        }
    }
    if query.len() > ROUTE_QUERY_MAX {
        let text = format!("{} query parameters, at most {ROUTE_QUERY_MAX}", query.len());
        found.push(("query", text, "name those that a rule looks at"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Finding;
    use crate::gates::{Behind, Gates};

    const RESOURCES: &str = "[[resource]]\nid = \"api/tickets\"\ntype = \"Api\"\nenvironment = \"test\"\ndomain = \"code\"\nsensitivity = 1\nactions = [\"http.read\", \"http.write\"]\nparams = { id = \"long\", state = \"string\", tags = \"set\" }\n";
    const GOOD: &str = "[[gate]]\nname = \"api\"\nkind = \"http\"\nupstream = \"https://api.example.org/v1\"\nenv_var = \"API_URL\"\nsecret_file = \"/srv/token\"\n\n[[gate.route]]\nmethod = \"GET\"\npath = \"/tickets/{id}\"\nresource = \"tickets\"\nquery = [\"state\", \"tags\"]\nrows_at = \"/items\"\n\n[[gate.route]]\nmethod = \"POST\"\npath = \"/tickets\"\nresource = \"tickets\"\n";

    fn read(text: &str) -> Result<Gates, Vec<Finding>> {
        crate::gates::read(text, &Catalogue::read(RESOURCES).unwrap())
    }

    fn found(text: &str) -> Vec<String> {
        read(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_gate_has_its_upstream_its_secrets_place_and_its_routes() {
        let gates = read(GOOD).unwrap();
        let Behind::Api(gate) = &gates["api"].behind else { panic!("{gates:?}") };
        assert_eq!(gate.upstream, "https://api.example.org/v1");
        assert_eq!(gate.door, HttpDoor::Run { env_var: "API_URL".to_owned() });
        let secret = gate.secret.as_ref().unwrap();
        assert_eq!((secret.header.as_str(), secret.prefix.as_str()), ("authorization", "Bearer "));
        let [read, write] = &gate.routes[..] else { panic!("{gate:?}") };
        assert_eq!((read.action.as_str(), write.action.as_str()), (HTTP_READ, HTTP_WRITE));
        assert_eq!((read.rows_at.as_str(), read.other_query), ("/items", false));
    }

    #[test]
    fn a_secret_in_another_header_stands_there_alone() {
        let other = GOOD.replace("secret_file", "secret_header = \"x-api-key\"\nsecret_file");
        let gates = super::tests::read(&other).unwrap();
        let Behind::Api(gate) = &gates["api"].behind else { panic!("{gates:?}") };
        assert_eq!(gate.secret.as_ref().unwrap().prefix, "");
    }

    #[test]
    fn each_mistake_in_an_http_gate_has_its_line_and_what_to_do() {
        for (from, to, told) in [
            (
                "https://",
                "http://",
                "gates.toml:1: upstream \"http://api.example.org/v1\" would be asked in plain",
            ),
            (
                "upstream = \"https://api.example.org/v1\"\n",
                "",
                "gate \"api\" has no upstream; write https://",
            ),
            ("API_URL", "LD_PRELOAD", "variable \"LD_PRELOAD\" can't be used"),
            ("API_URL", "PATH", "variable \"PATH\" can't be used"),
            ("API_URL", "AVOUCH_X", "variable \"AVOUCH_X\" can't be used"),
            ("API_URL", "api_url", "variable \"api_url\" can't be used"),
            ("API_URL", "API_SOCKET", "variable \"API_SOCKET\" can't be used"),
            ("env_var = \"API_URL\"\n", "", "gate \"api\" has no env_var and no caller"),
            ("/srv/token", "token", "secret_file \"token\" is no absolute path"),
            (
                "secret_file = \"/srv/token\"",
                "secret_header = \"x-key\"",
                "a header for a secret, and no secret_file",
            ),
            ("secret_file", "secret_header = \"Host\"\nsecret_file", "secret_header \"Host\" can't be used"),
            ("secret_file", "secret_header = \"host\"\nsecret_file", "secret_header \"host\" can't be used"),
            ("secret_file", "secret_prefix = \"a\\nb\"\nsecret_file", "secret_prefix is no visible text"),
            ("secret_file", "ca = \"x\"\nsecret_file", "ca is no list of certificates"),
            ("\"GET\"", "\"HEAD\"", "gates.toml:8: \"HEAD\" is no method of a route; take GET, which"),
            ("/tickets/{id}", "tickets", "gates.toml:8: path \"tickets\" does not begin with /"),
            ("\"tickets\"", "\"bills\"", "resources.toml has no \"api/bills\" with the action http.read"),
            ("\"POST\"", "\"POST\"\naction = \"burn\"", "has no \"api/tickets\" with the action burn"),
            ("\"state\"", "\"status\"", "\"status\" is no parameter of \"api/tickets\"; add it to params"),
            ("\"state\"", "\"id\"", "\"id\" is a variable of the path and a query parameter"),
            ("{id}", "{tags}", "variable \"tags\" is one text, and the parameter of its name is a set"),
            ("\"/items\"", "\"items\"", "rows_at \"items\" is no JSON pointer"),
            (
                "secret_file",
                "command = [\"x\"]\nsecret_file",
                "gate \"api\" is an HTTP gate, and has no command",
            ),
            ("secret_file", "caller = \"/x\"\nsecret_file", "gate \"api\" has an env_var and a caller"),
            ("env_var = \"API_URL\"", "caller = \"x\"", "\"x\" is no path of a workload"),
            ("secret_file", "secretfile", "unknown field `secretfile`"),
        ] {
            let found = found(&GOOD.replace(from, to));
            assert!(found.iter().any(|f| f.contains(told)), "{told}: {found:?}");
        }
        let bare = found(GOOD.split("[[gate.route]]").next().unwrap());
        assert!(bare[0].contains("gate \"api\" has no routes"), "{bare:?}");
    }

    #[test]
    fn a_gate_that_a_workload_serves_names_it_and_no_variable() {
        let gates = read(&GOOD.replace("env_var = \"API_URL\"", "caller = \"/test/api\"")).unwrap();
        let Behind::Api(gate) = &gates["api"].behind else { panic!("{gates:?}") };
        assert_eq!(gate.door, HttpDoor::Shared { caller: "/test/api".to_owned() });
        let domain = avouch_domain::TrustDomain::new("example.org").unwrap();
        let hook = gates["api"].hook(&domain).unwrap();
        assert_eq!((hook.caller.as_str(), hook.handshakes), ("spiffe://example.org/test/api", true));
        assert_eq!(read(GOOD).unwrap()["api"].hook(&domain), None, "that of a run is no workload of its own");
    }

    #[test]
    fn two_routes_for_one_request_and_two_gates_with_one_variable_are_found() {
        let twice = found(&GOOD.replace("\"POST\"", "\"GET\"").replace("\"/tickets\"", "\"/tickets/new\""));
        let told =
            "gates.toml:15: GET /tickets/new stands for requests that /tickets/{id} stands for as well";
        assert!(twice[0].starts_with(told), "{twice:?}");
        let other = GOOD.replace("\"api\"", "\"web\"");
        let both = found(&format!("{GOOD}{other}"));
        assert!(
            both.iter().any(|f| f.contains("variable \"API_URL\" is another gate's already")),
            "{both:?}"
        );
    }
}
