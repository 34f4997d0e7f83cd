//! The schema that every rule is checked against: constants of ours and the words of the catalogue, nothing else.

use std::fmt::Write as _;

use crate::catalogue::Catalogue;
use crate::words::{Environment, Kind, type_name};

/// What all kinds of identity and all resources have, and what is known of a call.
const COMMON: &str = "entity Gate;
entity Preset;
type Task = { purpose: String, tools: Set<String>, calls_left: Long };
type Grant = { uses_left: Long, seconds_left: Long };
type Yes = { owner: Bool, person: Bool, age: Long };
";
const IDENTITY: &str = "in [Preset] { environment: Environment, active: Bool, owner_active: Bool, \
domains: Set<String>, max_sensitivity: Long, purpose: String, ends: Long };";
const RESOURCE: &str =
    "in [Gate] { name: String, environment: Environment, domain: String, sensitivity: Long };";
const CONTEXT: &str = "now: Long, irreversible: Bool, worn_by_ai_agent: Bool, yes: Yes, task?: Task, grant?: Grant, proof_age?: Long";

/// The text of the schema for this catalogue.
pub(crate) fn text(catalogue: &Catalogue) -> String {
    let environments: Vec<_> = Environment::ALL.iter().map(|e| format!("\"{e}\"")).collect();
    let kinds: Vec<_> = Kind::ALL.iter().map(|k| type_name(*k)).collect();
    let kinds = kinds.join(", ");
    let types: Vec<_> = catalogue.types().into_iter().collect();
    let mut schema = format!("entity Environment enum [{}];\n{COMMON}", environments.join(", "));
    let _ = writeln!(schema, "entity {kinds} {IDENTITY}");
    let _ = writeln!(schema, "entity {} {RESOURCE}", types.join(", "));
    for (action, types) in catalogue.actions() {
        let params = catalogue.params(action);
        let params: Vec<_> =
            params.iter().map(|(name, kind)| format!("{name}?: {}", kind.schema_name())).collect();
        let types: Vec<_> = types.into_iter().collect();
        let _ = writeln!(
            schema,
            "action \"{action}\" appliesTo {{ principal: [{kinds}], resource: [{}], context: {{ {CONTEXT}, params: {{ {} }} }} }};",
            types.join(", "),
            params.join(", ")
        );
    }
    schema
}
