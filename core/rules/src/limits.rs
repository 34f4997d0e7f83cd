//! Named limits of a rules folder and of what is asked of it. Each number says why.

/// Largest file of a rules folder in bytes: what a person can still read, and what a node is sent at once.
pub const FILE_MAX: usize = 64 * 1024;
/// Most files in a rules folder.
pub const FILES_MAX: usize = 128;
/// Most rules in a folder, those of presets counted: a check stays below a second.
pub const RULES_MAX: usize = 2_000;
/// Most resources in a catalogue.
pub const RESOURCES_MAX: usize = 1_000;
/// Most different actions in a catalogue; each is one place where every rule is checked.
pub const ACTIONS_MAX: usize = 64;
/// Most different types of resource in a catalogue.
pub const TYPES_MAX: usize = 32;
/// Most presets.
pub const PRESETS_MAX: usize = 128;
/// Most examples: two for each rule, and as many again.
pub const EXAMPLES_MAX: usize = 4 * RULES_MAX;
/// Most rules in all slices together; a rule that speaks of everything stands in every slice.
pub const SLICED_MAX: usize = 400_000;
/// Most gates of one folder that start what they guard.
pub const GATES_MAX: usize = 64;
/// Most tools behind one gate; their resources are counted as well.
pub const TOOLS_MAX: usize = 256;
/// Longest name of a tool in bytes: what the Model Context Protocol advises.
pub const TOOL_NAME_MAX: usize = 128;
/// Most words of a tool server's command.
pub const COMMAND_WORDS_MAX: usize = 64;
/// Longest of them in bytes, and longest path of a guarded folder; the kernel's longest path.
pub const COMMAND_WORD_MAX: usize = 4_096;
/// Most folders that one gate guards.
pub const GUARDS_MAX: usize = 32;
/// Most routes of one HTTP gate.
pub const ROUTES_MAX: usize = 256;
/// Longest path of a route in bytes.
pub const ROUTE_PATH_MAX: usize = 1_024;
/// Most parts of a path between slashes, of a route and of a request.
pub const ROUTE_PARTS_MAX: usize = 64;
/// Most query parameters that a route names.
pub const ROUTE_QUERY_MAX: usize = 32;
/// Longest name of a query parameter in bytes.
pub const QUERY_NAME_MAX: usize = 128;
/// Longest URL of an upstream in bytes.
pub const UPSTREAM_MAX: usize = 1_024;
/// Biggest list of authorities that an HTTP gate trusts, in bytes of PEM: a handful of certificates.
pub const GATE_CA_MAX: usize = 16 * 1024;
/// Longest name of a variable or a header, and longest text before a secret, in bytes.
pub const HEADER_NAME_MAX: usize = 64;
/// Longest JSON pointer to an argument in bytes.
pub const POINTER_MAX: usize = 256;
/// Longest name of a rule, a preset, an action, a type, a domain or a parameter, in bytes.
pub const NAME_MAX: usize = 64;
/// Longest ID of a resource in bytes.
pub const RESOURCE_ID_MAX: usize = 256;
/// Most parameters of a resource.
pub const PARAMS_MAX: usize = 16;
/// Longest text of a parameter in bytes; a path fits.
pub const PARAM_TEXT_MAX: usize = 4_096;
/// Most texts in a parameter that is a set.
pub const PARAM_SET_MAX: usize = 256;
/// Most links of a chain: an AI agent, what called it, and a person is three.
pub const CHAIN_MAX: usize = 8;
/// Most fields that one limit names.
pub const LIMIT_FIELDS_MAX: usize = 256;
/// Deepest brackets in a rule. Cedar reads, checks and drops what is nested by calling itself; this leaves most of the
/// smallest stack of a thread (2 MiB) free.
pub const NESTING_MAX: usize = 32;
/// Most operators in a rule, counted by their signs: a chain of them nests as brackets do.
pub const OPERATORS_MAX: usize = 256;
/// Most findings that one check lists; the first ones are mended first.
pub const FINDINGS_MAX: usize = 200;
