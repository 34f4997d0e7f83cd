//! Puts a gate into a folder: an MCP gate's tools or an HTTP gate's routes into `gates.toml`, what they are into
//! `resources.toml`; a hook's workload into `gates.toml`.
//!
//! Only appends: what stands in a folder already stays as it is, byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::catalogue::Catalogue;
use crate::folder::{Finding, Folder, GATES, PRESETS, RESOURCES};
use crate::gates::{self, TOOL_CALL, digest_text, is_tool_name};
use crate::http_gate::{HTTP_READ, HTTP_WRITE, HttpDoor, SecretPlace};
use crate::limits::RESOURCE_ID_MAX;
use crate::presets;
use crate::route::{HttpMethod, Template};
use crate::words::{Environment, Kind, is_name};

/// A gate to be added.
#[derive(Clone, Debug)]
pub struct NewGate<'a> {
    pub name: &'a str,
    /// The tool server's program and arguments.
    pub command: &'a [String],
    /// Folders that only the tool server may touch.
    pub guards: &'a BTreeSet<String>,
    /// Digest of each tool by name.
    pub tools: &'a BTreeMap<String, [u8; 32]>,
    pub environment: Environment,
    /// Domain of the resources that are not listed yet.
    pub domain: &'a str,
    /// Sensitivity of the resources that are not listed yet.
    pub sensitivity: i64,
}

/// Adds a gate and its tools, each a resource of type `Tool` with the action `tool.call`. A resource that is listed
/// already stays as it is. No rule allows what is new: a preset or a permit has to name the gate.
///
/// # Errors
/// Everything that would be wrong with the folder; rules that lack examples are left to [`crate::check`].
pub fn add_mcp_gate(folder: &Folder, gate: &NewGate<'_>) -> Result<Folder, Vec<Finding>> {
    let resources = folder.get(RESOURCES).unwrap_or_default();
    let catalogue = if resources.is_empty() { Catalogue::default() } else { Catalogue::read(resources)? };
    let before = gates::read(folder.get(GATES).unwrap_or_default(), &catalogue)?;
    let wrong = mistakes(gate, before.contains_key(gate.name));
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let new = gate.tools.keys().filter(|tool| catalogue.get(&format!("{}/{tool}", gate.name)).is_none());
    let new: Vec<_> = new.map(|tool| resource(gate, tool)).collect();
    let mut added = folder.clone();
    if !new.is_empty() {
        added = added.with(RESOURCES, joined(resources, &new.join("\n")))?;
    }
    added = added.with(GATES, joined(folder.get(GATES).unwrap_or_default(), &table(gate)))?;
    let catalogue = Catalogue::read(added.get(RESOURCES).unwrap_or_default())?;
    gates::read(added.get(GATES).unwrap_or_default(), &catalogue)?;
    Ok(added)
}

/// Adds a hook, which guards what `resources.toml` lists already below its name. `caller`: the path of the SPIFFE ID of the
/// workload that is the hook.
///
/// # Errors
/// Everything that would be wrong with the folder; rules that lack examples are left to [`crate::check`].
pub fn add_hook_gate(folder: &Folder, name: &str, caller: &str) -> Result<Folder, Vec<Finding>> {
    let catalogue = Catalogue::read(folder.get(RESOURCES).unwrap_or_default())?;
    let before = folder.get(GATES).unwrap_or_default();
    if gates::read(before, &catalogue)?.contains_key(name) {
        return Err(vec![taken(name)]);
    }
    let table = format!("[[gate]]\nname = {}\nkind = \"hook\"\ncaller = {}\n", quoted(name), quoted(caller));
    let added = folder.clone().with(GATES, joined(before, &table))?;
    gates::read(added.get(GATES).unwrap_or_default(), &catalogue)?;
    Ok(added)
}

/// An HTTP gate to be added.
#[derive(Clone, Debug)]
pub struct NewHttpGate<'a> {
    pub name: &'a str,
    pub upstream: &'a str,
    pub door: HttpDoor,
    /// Certificates in PEM that alone vouch for the upstream.
    pub ca: Option<&'a str>,
    pub secret: Option<&'a SecretPlace>,
    pub routes: &'a [NewRoute],
    pub environment: Environment,
    /// Domain of the resources that are not listed yet.
    pub domain: &'a str,
    /// Sensitivity of the resources that are not listed yet.
    pub sensitivity: i64,
}

/// A route to be added.
#[derive(Clone, Debug)]
pub struct NewRoute {
    pub method: HttpMethod,
    pub path: Template,
    /// What stands behind the gate's name in the ID of its resource.
    pub resource: String,
    /// Query parameters that rules look at.
    pub query: BTreeSet<String>,
    /// Others go through.
    pub other_query: bool,
}

impl NewRoute {
    /// What it takes to go through.
    #[must_use]
    pub fn action(&self) -> &'static str {
        if self.method.reads() { HTTP_READ } else { HTTP_WRITE }
    }
}

/// Adds a gate and its routes, each with a resource of type `Api`, whose parameters are the variables of the paths. A resource
/// that is listed already stays as it is. No rule allows what is new: see [`let_preset`].
///
/// # Errors
/// Everything that would be wrong with the folder; rules that lack examples are left to [`crate::check`].
pub fn add_http_gate(folder: &Folder, gate: &NewHttpGate<'_>) -> Result<Folder, Vec<Finding>> {
    let resources = folder.get(RESOURCES).unwrap_or_default();
    let catalogue = if resources.is_empty() { Catalogue::default() } else { Catalogue::read(resources)? };
    let before = folder.get(GATES).unwrap_or_default();
    if gates::read(before, &catalogue)?.contains_key(gate.name) {
        return Err(vec![taken(gate.name)]);
    }
    let names: BTreeSet<_> = gate.routes.iter().map(|route| route.resource.as_str()).collect();
    let new = names.into_iter().filter(|name| catalogue.get(&format!("{}/{name}", gate.name)).is_none());
    let new: Vec<_> = new.map(|name| api_resource(gate, name)).collect();
    let mut added = folder.clone();
    if !new.is_empty() {
        added = added.with(RESOURCES, joined(resources, &new.join("\n")))?;
    }
    added = added.with(GATES, joined(before, &api_table(gate)))?;
    let catalogue = Catalogue::read(added.get(RESOURCES).unwrap_or_default())?;
    gates::read(added.get(GATES).unwrap_or_default(), &catalogue)?;
    Ok(added)
}

fn api_resource(gate: &NewHttpGate<'_>, name: &str) -> String {
    let routes = || gate.routes.iter().filter(|route| route.resource == name);
    let actions: BTreeSet<_> = routes().map(|route| quoted(route.action())).collect();
    let named = |route: &NewRoute| {
        let names = route.path.names().map(str::to_owned).chain(route.query.iter().cloned());
        names.collect::<Vec<_>>()
    };
    let params: BTreeSet<_> = routes().flat_map(named).collect();
    let mut text = format!(
        "[[resource]]\nid = {}\ntype = \"Api\"\nenvironment = \"{}\"\ndomain = {}\nsensitivity = {}\nactions = [{}]\n",
        quoted(&format!("{}/{name}", gate.name)),
        gate.environment,
        quoted(gate.domain),
        gate.sensitivity,
        actions.into_iter().collect::<Vec<_>>().join(", "),
    );
    if !params.is_empty() {
        let params: Vec<_> = params.iter().map(|name| format!("{name} = \"string\"")).collect();
        let _ = writeln!(text, "params = {{ {} }}", params.join(", "));
    }
    text
}

fn api_table(gate: &NewHttpGate<'_>) -> String {
    let mut text = format!("[[gate]]\nname = {}\nkind = \"http\"\n", quoted(gate.name));
    let secret = gate.secret;
    let door = match &gate.door {
        HttpDoor::Run { env_var } => ("env_var", Some(env_var.as_str())),
        HttpDoor::Shared { caller } => ("caller", Some(caller.as_str())),
    };
    for (key, value) in [
        ("upstream", Some(gate.upstream)),
        door,
        ("ca", gate.ca),
        ("secret_file", secret.map(|secret| secret.file.as_str())),
        ("secret_header", secret.map(|secret| secret.header.as_str())),
        ("secret_prefix", secret.map(|secret| secret.prefix.as_str())),
    ] {
        if let Some(value) = value {
            let _ = writeln!(text, "{key} = {}", quoted(value));
        }
    }
    for NewRoute { method, path, resource, query, other_query } in gate.routes {
        let (path, resource) = (quoted(&path.to_string()), quoted(resource));
        let _ = write!(
            text,
            "\n[[gate.route]]\nmethod = \"{}\"\npath = {path}\nresource = {resource}\n",
            method.name()
        );
        if !query.is_empty() {
            let _ = writeln!(
                text,
                "query = [{}]",
                query.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
            );
        }
        if *other_query {
            text.push_str("other_query = true\n");
        }
    }
    text
}

/// Lets AI agents of a preset do this at a resource behind a gate, and at all others there, when it serves their purpose: a
/// permit in a file of its own, with its examples. The folder as it was if there is no such preset, or it speaks of the
/// action already, for whatever gates.
///
/// # Errors
/// The folder can't be read, or is full.
pub fn let_preset(
    folder: &Folder,
    preset: &str,
    action: &str,
    (gate, resource): (&str, &str),
) -> Result<Folder, Vec<Finding>> {
    let catalogue = Catalogue::read(folder.get(RESOURCES).unwrap_or_default())?;
    let presets = presets::read(folder.get(PRESETS).unwrap_or_default(), &catalogue)?;
    let Some((_, found)) = presets.get(preset).filter(|(_, found)| found.kind == Kind::AiAgent) else {
        return Ok(folder.clone());
    };
    if found.actions.contains(action) {
        return Ok(folder.clone());
    }
    let id = format!("{gate}.{action}");
    let rule = format!(
        "// What AI agents of the preset {preset} may do behind the gate {gate}: what serves their purpose.\n@id(\"{id}\")\n\
         permit (principal is AiAgent in Preset::\"{preset}\", action == Action::\"{action}\", resource in Gate::\"{gate}\")\n\
         when {{ context has task && context.task.purpose == principal.purpose }};\n"
    );
    let example = |expect: &str, more: &str| {
        format!(
            "[[example]]\nrule = \"{id}\"\nexpect = \"{expect}\"\nrequest = {{ kind = \"ai_agent\", preset = \"{preset}\", \
             action = \"{action}\", resource = {}{more} }}\n",
            quoted(&format!("{gate}/{resource}"))
        )
    };
    let examples = format!("{}\n{}", example("allow", ""), example("deny", ", task = \"something-else\""));
    folder.with(&format!("gate-{gate}.cedar"), rule)?.with(&format!("gate-{gate}.examples.toml"), examples)
}

fn taken(name: &str) -> Finding {
    let text = format!("gate \"{name}\" is there already");
    let next = "take another name; or change the one that is there: `avouch rules show --out rules`, edit rules/gates.toml, \
                `avouch rules publish rules`";
    Finding::new(GATES, None, "doubled", text, next)
}

/// What is known to be wrong before anything is written.
fn mistakes(gate: &NewGate<'_>, is_there: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    if is_there {
        found.push(taken(gate.name));
    }
    for tool in gate.tools.keys() {
        if !is_tool_name(tool) || gate.name.len() + 1 + tool.len() > RESOURCE_ID_MAX {
            let text = format!("\"{}\" can't be the name of a tool behind a gate", tool.escape_default());
            found.push(Finding::new(GATES, None, "tool", text, "leave it out, or rename it in the server"));
        }
    }
    if !is_name(gate.domain) {
        let text = format!("domain \"{}\" can't be used", gate.domain.escape_default());
        found.push(Finding::new(RESOURCES, None, "resource", text, "take a lower-case word, as code"));
    }
    found
}

fn resource(gate: &NewGate<'_>, tool: &str) -> String {
    format!(
        "[[resource]]\nid = {}\ntype = \"Tool\"\nenvironment = \"{}\"\ndomain = {}\nsensitivity = {}\nactions = [\"{TOOL_CALL}\"]\n",
        quoted(&format!("{}/{tool}", gate.name)),
        gate.environment,
        quoted(gate.domain),
        gate.sensitivity,
    )
}

fn table(gate: &NewGate<'_>) -> String {
    let list =
        |texts: &mut dyn Iterator<Item = &String>| texts.map(|t| quoted(t)).collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "[[gate]]\nname = {}\nkind = \"mcp\"\ncommand = [{}]\n",
        quoted(gate.name),
        list(&mut gate.command.iter())
    );
    if !gate.guards.is_empty() {
        let _ = writeln!(text, "guards = [{}]", list(&mut gate.guards.iter()));
    }
    for (tool, digest) in gate.tools {
        let _ =
            write!(text, "\n[[gate.tool]]\nname = {}\ndigest = \"{}\"\n", quoted(tool), digest_text(digest));
    }
    text
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// `more` below `text`, with an empty line between them.
fn joined(text: &str, more: &str) -> String {
    let gap = match text {
        "" => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    format!("{text}{gap}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::STARTER;
    use crate::gates::Behind;

    fn starter() -> Folder {
        Folder::new(STARTER.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned()))).unwrap()
    }

    fn add(folder: &Folder, name: &str, tools: &[&str]) -> Result<Folder, Vec<Finding>> {
        let command = ["server".to_owned(), "a \"b\" \\ \t".to_owned()];
        let tools = tools.iter().map(|tool| ((*tool).to_owned(), [7; 32])).collect();
        let guards = ["/srv/pay".to_owned()].into();
        add_mcp_gate(
            folder,
            &NewGate {
                name,
                command: &command,
                guards: &guards,
                tools: &tools,
                environment: Environment::Test,
                domain: "code",
                sensitivity: 1,
            },
        )
    }

    #[test]
    fn a_gate_is_added_and_all_else_stays_byte_for_byte() {
        let added = add(&starter(), "notes", &["read", "write"]).unwrap();
        for (name, text) in STARTER {
            let now = added.get(name).unwrap();
            assert!(if name == RESOURCES { now.starts_with(text) } else { now == text }, "{name}");
        }
        let rules = crate::check(&added).unwrap_or_else(|f| panic!("{f:#?}"));
        let Behind::Tools(gate) = &rules.gates()["notes"].behind else { panic!("{:?}", rules.gates()) };
        assert_eq!(gate.command[1], "a \"b\" \\ \t");
        assert_eq!(gate.tools["write"].digest, [7; 32]);
        let resource = rules.catalogue().get("notes/read").unwrap();
        assert_eq!((resource.kind.as_str(), resource.environment), ("Tool", Environment::Test));
        // A second one goes below the first.
        let both = add(&added, "more", &["read"]).unwrap();
        assert!(both.get(GATES).unwrap().starts_with(added.get(GATES).unwrap()));
        assert_eq!(crate::check(&both).unwrap().gates().len(), 2);
    }

    #[test]
    fn a_resource_that_is_listed_already_stays_as_it_is() {
        let added = add(&starter(), "files", &["delete_file"]).unwrap();
        assert_eq!(added.get(RESOURCES), starter().get(RESOURCES));
        assert!(crate::check(&added).is_ok());
    }

    #[test]
    fn nothing_is_added_twice_or_under_a_name_that_no_gate_can_have() {
        let added = add(&starter(), "notes", &["read"]).unwrap();
        for (folder, name, tools, told) in [
            (&added, "notes", vec!["read"], "gate \"notes\" is there already"),
            (&starter(), "Notes", vec!["read"], "is not a name"),
            (&starter(), "notes", vec![], "gate \"notes\" has no tools"),
            (&starter(), "notes", vec!["a\nb"], "can't be the name of a tool"),
        ] {
            let found = add(folder, name, &tools).unwrap_err();
            assert!(found.iter().any(|f| f.to_string().contains(told)), "{told}: {found:?}");
        }
    }

    #[test]
    fn a_hook_is_added_below_what_is_there_and_guards_what_is_listed() {
        let added = add_hook_gate(&starter(), "git", "/test/git").unwrap();
        let rules = crate::check(&added).unwrap_or_else(|f| panic!("{f:#?}"));
        assert_eq!(rules.gates()["git"].behind, Behind::Hook { caller: "/test/git".to_owned() });
        assert_eq!(added.get(RESOURCES), starter().get(RESOURCES));
        for (folder, name, caller, told) in [
            (&added, "git", "/test/git", "gate \"git\" is there already"),
            (&added, "tickets", "/test/git", "has nothing that begins with \"tickets/\""),
            (&added, "vault", "vault", "\"vault\" is no path of a workload"),
        ] {
            let found = add_hook_gate(folder, name, caller).unwrap_err();
            assert!(found.iter().any(|f| f.to_string().contains(told)), "{told}: {found:?}");
        }
    }

    fn api(routes: &[NewRoute]) -> NewHttpGate<'_> {
        NewHttpGate {
            name: "api",
            upstream: "https://api.example.org",
            door: HttpDoor::Run { env_var: "API_URL".to_owned() },
            ca: None,
            secret: None,
            routes,
            environment: Environment::Test,
            domain: "code",
            sensitivity: 1,
        }
    }

    fn route(method: HttpMethod, path: &str, resource: &str) -> NewRoute {
        NewRoute {
            method,
            path: Template::parse(path).unwrap(),
            resource: resource.to_owned(),
            query: if method == HttpMethod::Get { ["state".to_owned()].into() } else { BTreeSet::new() },
            other_query: true,
        }
    }

    #[test]
    fn an_http_gate_is_added_with_its_routes_and_their_resources() {
        let routes = [
            route(HttpMethod::Get, "/tickets/{id}", "tickets"),
            route(HttpMethod::Post, "/tickets", "tickets"),
        ];
        let secret = SecretPlace {
            file: "/srv/to\"ken".to_owned(),
            header: "x-key".to_owned(),
            prefix: String::new(),
        };
        let gate = NewHttpGate { secret: Some(&secret), ..api(&routes) };
        let added = add_http_gate(&starter(), &gate).unwrap();
        let rules = crate::check(&added).unwrap_or_else(|f| panic!("{f:#?}"));
        let Behind::Api(read) = &rules.gates()["api"].behind else { panic!("{:?}", rules.gates()) };
        assert_eq!((read.secret.as_ref(), read.routes.len()), (Some(&secret), 2));
        let resource = rules.catalogue().get("api/tickets").unwrap();
        assert_eq!(resource.actions, ["http.read".to_owned(), "http.write".to_owned()].into());
        assert!(["id", "state"].iter().all(|name| resource.params.contains_key(*name)));
        assert!(read.routes[0].query.contains("state") && read.routes[1].query.is_empty());
        let shared = NewHttpGate {
            name: "shared",
            door: HttpDoor::Shared { caller: "/test/api".into() },
            ..gate.clone()
        };
        let both = add_http_gate(&added, &shared).unwrap();
        let hooks = crate::hooks(&both, &avouch_domain::TrustDomain::new("example.org").unwrap());
        assert_eq!(hooks.keys().collect::<Vec<_>>(), ["shared"]);
        let again = add_http_gate(&added, &gate).unwrap_err();
        assert!(again[0].text.contains("gate \"api\" is there already"), "{again:?}");
    }

    #[test]
    fn a_preset_is_let_do_what_it_may_not_yet_and_nothing_twice() {
        let routes = [route(HttpMethod::Get, "/{path..}", "read")];
        let added = add_http_gate(&starter(), &api(&routes)).unwrap();
        let more = let_preset(&added, "coding-agent", HTTP_READ, ("api", "read")).unwrap();
        let rules = crate::check(&more).unwrap_or_else(|f| panic!("{f:#?}"));
        let before = crate::check(&added).unwrap();
        assert_eq!((rules.len(), rules.examples()), (before.len() + 1, before.examples() + 2));
        for preset in ["nobody", "coding-agent"] {
            let action = if preset == "nobody" { HTTP_READ } else { TOOL_CALL };
            let same = let_preset(&added, preset, action, ("files", "read_file")).unwrap();
            assert_eq!(same, added, "{preset}");
        }
    }

    #[test]
    fn a_folder_that_is_not_in_order_is_told_before_anything_is_added() {
        let broken = starter().with(GATES, "[[gate]]\n".to_owned()).unwrap();
        assert_eq!(add(&broken, "notes", &["read"]).unwrap_err()[0].file, GATES);
    }
}
