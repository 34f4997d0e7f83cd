//! Gates as they are handed to those who serve them: the supervisor of a run, or a workload of its own.
//!
//! Never hands a run what another workload serves, nor anybody a secret that is not theirs to add.

use std::collections::BTreeMap;
use std::path::Path;

use avouch_domain::Environment;
use avouch_proto::gate_v1::ServeResponse;
use avouch_proto::run_v1 as wire;
use avouch_rules::{Behind, GateTool, HttpDoor, HttpGate, Rules};

use crate::hooks::Served;
use crate::runs::Secret;

/// Where the secrets of the gates of a run lie that guard something in this environment.
pub(super) fn secret_files(rules: &Rules, environment: Environment) -> Vec<String> {
    let files = rules.gates().values().filter_map(|gate| match &gate.behind {
        Behind::Api(api) if variable(api).is_some() => {
            let guards = !routes(rules, Some(environment), &gate.name, api).is_empty();
            api.secret.as_ref().filter(|_| guards).map(|secret| secret.file.clone())
        }
        _ => None,
    });
    files.collect()
}

/// Files on this node with secrets of gates that no run has.
pub(super) async fn others_secrets(rules: &Rules) -> Vec<String> {
    let files = rules.gates().values().filter_map(|gate| match &gate.behind {
        Behind::Api(api) if variable(api).is_none() => api.secret.as_ref().map(|secret| secret.file.clone()),
        _ => None,
    });
    let files: Vec<_> = files.collect();
    if files.is_empty() {
        return files;
    }
    // A file system that hangs holds up no other call.
    let here =
        tokio::task::spawn_blocking(move || files.into_iter().filter(|f| Path::new(f).exists()).collect());
    here.await.unwrap_or_default()
}

/// The gates of a run that guard something in this environment.
pub(super) fn of_run(
    rules: &Rules,
    environment: Environment,
    secrets: &BTreeMap<String, Secret>,
) -> Vec<wire::Gate> {
    let gates = rules.gates().values().filter_map(|gate| {
        let name = gate.name.clone();
        match &gate.behind {
            Behind::Tools(server) => {
                let tool =
                    |(tool, pinned): (&String, &GateTool)| tool_of(rules, environment, &name, tool, pinned);
                let tools: Vec<_> = server.tools.iter().filter_map(tool).collect();
                let (command, guards) = (server.command.clone(), server.guards.iter().cloned().collect());
                (!tools.is_empty()).then_some(wire::Gate { name, command, guards, tools, api: None })
            }
            Behind::Api(api) => {
                let variable = variable(api)?;
                let routes = routes(rules, Some(environment), &name, api);
                // The command must not open what the gate keeps from it.
                let guards = api.secret.iter().map(|secret| secret.file.clone()).collect();
                let secret = api.secret.as_ref().and_then(|place| secrets.get(&place.file));
                let wanted = !routes.is_empty();
                let api = wire::Api { env_var: variable.to_owned(), ..api_of(api, routes, secret) };
                wanted.then(|| wire::Gate { name, guards, api: Some(api), ..wire::Gate::default() })
            }
            // It asks for itself, wherever it runs.
            Behind::Hook { .. } => None,
        }
    });
    gates.collect()
}

/// What a gate that is a workload of its own is served with.
pub(super) fn of_workload(served: &Served) -> Option<ServeResponse> {
    let Served { held, gate, caller, secret } = served;
    let Behind::Api(api) = &held.rules.gates().get(gate)?.behind else { return None };
    let routes = routes(&held.rules, None, gate, api);
    let api = api_of(api, routes, secret.as_ref());
    let gate = wire::Gate { name: gate.clone(), api: Some(api), ..wire::Gate::default() };
    Some(ServeResponse { gate: Some(gate), spiffe_id: caller.to_string() })
}

/// The variable of a gate that each run has for itself.
fn variable(api: &HttpGate) -> Option<&str> {
    match &api.door {
        HttpDoor::Run { env_var } => Some(env_var),
        HttpDoor::Shared { .. } => None,
    }
}

fn api_of(api: &HttpGate, routes: Vec<wire::Route>, secret: Option<&Secret>) -> wire::Api {
    wire::Api {
        upstream: api.upstream.clone(),
        env_var: String::new(),
        ca: api.ca.clone().unwrap_or_default(),
        secret: api.secret.as_ref().map(|place| {
            let (value, missing) = match secret {
                Some(Ok(secret)) => (secret.to_string(), String::new()),
                Some(Err(why)) => (String::new(), why.clone()),
                None => (String::new(), "the node agent could not read it".to_owned()),
            };
            wire::Secret { header: place.header.clone(), prefix: place.prefix.clone(), value, missing }
        }),
        routes,
    }
}

/// `environment`: of the resources; `None`: of all.
fn routes(rules: &Rules, environment: Option<Environment>, gate: &str, api: &HttpGate) -> Vec<wire::Route> {
    let routes = api.routes.iter().filter_map(|route| {
        let id = format!("{gate}/{}", route.resource);
        let fits = |of: Environment| environment.is_none_or(|environment| of == environment);
        let resource = rules.catalogue().get(&id).filter(|r| fits(r.environment))?;
        let taken = |name: &str| route.query.contains(name) || route.path.names().any(|n| n == name);
        let params = resource.params.iter().filter(|(name, _)| taken(name));
        Some(wire::Route {
            method: route.method.name().to_owned(),
            path: route.path.to_string(),
            action: route.action.clone(),
            params: params.map(|(name, kind)| (name.clone(), kind.name().to_owned())).collect(),
            query: route.query.iter().cloned().collect(),
            other_query: route.other_query,
            rows_at: route.rows_at.clone(),
            resource: id,
        })
    });
    routes.collect()
}

fn tool_of(
    rules: &Rules,
    environment: Environment,
    gate: &str,
    name: &str,
    tool: &GateTool,
) -> Option<wire::Tool> {
    let resource =
        rules.catalogue().get(&format!("{gate}/{name}")).filter(|r| r.environment == environment)?;
    let params = resource.params.iter().map(|(param, kind)| {
        let pointer = tool.pointers.get(param).cloned().unwrap_or_else(|| format!("/{param}"));
        (param.clone(), wire::Param { pointer, kind: kind.name().to_owned() })
    });
    Some(wire::Tool { name: name.to_owned(), digest: tool.digest.to_vec(), params: params.collect() })
}
