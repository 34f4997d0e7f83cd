//! Gates, read from `gates.toml`: those in front of a tool server, with its command and each tool as it was when it was
//! added; those in front of a web API, with its routes; and hooks, with the workload that asks.
//!
//! A tool or a route that is not listed here does not exist for a gate. Never starts anything, and never looks whether a
//! command is there.

use std::collections::{BTreeMap, BTreeSet};

use avouch_domain::{SpiffeId, TrustDomain};
use serde::Deserialize;
use toml::Spanned;

use crate::catalogue::Catalogue;
use crate::folder::{Finding, Folder, GATES};
use crate::http_gate::{self, HttpDoor, HttpGate, WrittenHttp};
use crate::limits::{
    COMMAND_WORD_MAX, COMMAND_WORDS_MAX, GATES_MAX, GUARDS_MAX, POINTER_MAX, TOOL_NAME_MAX, TOOLS_MAX,
};
use crate::tables;
use crate::words::{NAME_FORM, is_name};

/// The action that a tool's resource must have.
pub const TOOL_CALL: &str = "tool.call";
/// How the workload is written that is a gate of its own.
const CALLER_FORM: &str = "write the path of the SPIFFE ID that the gate has, as in caller = \"/test/git\"";
/// What a digest begins with.
const DIGEST: &str = "sha256:";

/// What a gate speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Mcp,
    Http,
    Hook,
}

/// A gate and what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    pub name: String,
    pub behind: Behind,
}

/// What stands behind a gate, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behind {
    /// A tool server: the Model Context Protocol over standard input and output.
    Tools(ToolGate),
    /// A web API: HTTP.
    Api(HttpGate),
    /// Whatever a workload of its own guards that asks the node agent: `avouch gate check`. The path of the SPIFFE ID that
    /// it has, in whatever trust domain the rules are published.
    Hook { caller: String },
}

/// A gate that is a workload of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The workload.
    pub caller: SpiffeId,
    /// It speaks TLS with whoever comes: a certificate that it hands over has been proved to it.
    pub handshakes: bool,
}

impl Behind {
    /// The path of the workload that is the gate, if it is one of its own; and whether it speaks TLS.
    fn own(&self) -> Option<(&str, bool)> {
        match self {
            Self::Hook { caller } => Some((caller, false)),
            Self::Api(HttpGate { door: HttpDoor::Shared { caller }, .. }) => Some((caller, true)),
            Self::Tools(_) | Self::Api(_) => None,
        }
    }
}

/// A tool server and its tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolGate {
    /// The tool server's program and arguments; no shell reads them.
    pub command: Vec<String>,
    /// Folders and files that only the tool server may touch; absolute paths.
    pub guards: BTreeSet<String>,
    /// By name, as they were when they were added.
    pub tools: BTreeMap<String, GateTool>,
}

impl Gate {
    /// The workload that is this gate, if it is one of its own.
    #[must_use]
    pub fn hook(&self, trust_domain: &TrustDomain) -> Option<Hook> {
        let (path, handshakes) = self.behind.own()?;
        Some(Hook { caller: SpiffeId::new(trust_domain, path).ok()?, handshakes })
    }
}

/// A tool as it was when it was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateTool {
    /// SHA-256 over the canonical form of its name, description and input schema.
    pub digest: [u8; 32],
    /// Where in the arguments a parameter of its resource stands, as a JSON pointer (RFC 6901). A parameter that is not
    /// listed is the argument of its own name.
    pub pointers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    gate: Vec<Spanned<Written>>,
}

/// A gate as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    kind: Kind,
    caller: Option<String>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    guards: BTreeSet<String>,
    #[serde(default)]
    tool: Vec<Spanned<WrittenTool>>,
    upstream: Option<String>,
    env_var: Option<String>,
    ca: Option<String>,
    secret_file: Option<String>,
    secret_header: Option<String>,
    secret_prefix: Option<String>,
    #[serde(default)]
    route: Vec<Spanned<http_gate::WrittenRoute>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTool {
    name: String,
    digest: String,
    #[serde(default)]
    pointers: BTreeMap<String, String>,
}

/// All gates by name.
pub(crate) type Gates = BTreeMap<String, Gate>;

/// What is wrong, and what to do.
pub(crate) type Mistake = (&'static str, String, &'static str);

/// Reads `gates.toml` and compares it with the catalogue.
pub(crate) fn read(text: &str, catalogue: &Catalogue) -> Result<Gates, Vec<Finding>> {
    let file: File = tables::read(GATES, text).map_err(|f| vec![f])?;
    let (mut gates, mut findings) = (Gates::new(), Vec::new());
    if file.gate.len() > GATES_MAX {
        let text = format!("{} gates, at most {GATES_MAX}", file.gate.len());
        findings.push(Finding::new(GATES, None, "size", text, "put tools of one server behind one gate"));
    }
    for spanned in file.gate {
        let line = tables::line_at(text, spanned.span().start);
        let written = spanned.into_inner();
        let name = written.name.clone();
        let mut mistakes = strays(&written);
        if !is_name(&name) {
            let text = format!("\"{}\" is not {NAME_FORM}", name.escape_default());
            mistakes.push(("gate", text, "rename it"));
        }
        if gates.contains_key(&name) {
            let text = format!("gate \"{}\" stands twice", name.escape_default());
            mistakes.push(("doubled", text, "take one of them out"));
        }
        let mut find = |line, mistakes: Vec<Mistake>| {
            findings
                .extend(mistakes.into_iter().map(|(code, t, next)| Finding::new(GATES, line, code, t, next)));
        };
        let behind = match written.kind {
            Kind::Mcp => {
                mistakes.extend(mcp_mistakes(&written));
                let Written { command, guards, tool, .. } = written;
                let mut tools = BTreeMap::new();
                let inner = read_tools(&name, tool, catalogue, text, &mut tools);
                find(line, mistakes);
                inner.into_iter().for_each(|(line, mistakes)| find(line, mistakes));
                Behind::Tools(ToolGate { command, guards, tools })
            }
            Kind::Hook => {
                mistakes.extend(hook_mistakes(&written, catalogue));
                find(line, mistakes);
                Behind::Hook { caller: written.caller.unwrap_or_default() }
            }
            Kind::Http => {
                let (written, taken) = (http_of(written), variables(&gates));
                let (read, inner) = http_gate::read(&name, written, catalogue, text, &taken);
                mistakes.extend(inner.gate);
                find(line, mistakes);
                inner.routes.into_iter().for_each(|(line, mistakes)| find(line, mistakes));
                match read {
                    Some(api) => Behind::Api(api),
                    None => continue,
                }
            }
        };
        gates.insert(name.clone(), Gate { name, behind });
    }
    if findings.is_empty() { Ok(gates) } else { Err(findings) }
}

/// What an HTTP gate has of all that can be written.
fn http_of(written: Written) -> WrittenHttp {
    let Written { caller, upstream, env_var, ca, secret_file, secret_header, secret_prefix, route, .. } =
        written;
    WrittenHttp { caller, upstream, env_var, ca, secret_file, secret_header, secret_prefix, route }
}

/// Variables that gates of runs have.
fn variables(gates: &Gates) -> BTreeSet<&str> {
    let variables = gates.values().filter_map(|gate| match &gate.behind {
        Behind::Api(HttpGate { door: HttpDoor::Run { env_var }, .. }) => Some(env_var.as_str()),
        _ => None,
    });
    variables.collect()
}

/// Reads the tools of a gate; what is wrong with each, with its line.
fn read_tools(
    gate: &str,
    written: Vec<Spanned<WrittenTool>>,
    catalogue: &Catalogue,
    text: &str,
    tools: &mut BTreeMap<String, GateTool>,
) -> Vec<(u32, Vec<Mistake>)> {
    let mut found = Vec::new();
    for spanned in written {
        let line = tables::line_at(text, spanned.span().start);
        let tool = spanned.into_inner();
        let name = tool.name.clone();
        let doubled = tools.contains_key(&name).then(|| {
            let text = format!("tool \"{}\" stands twice", name.escape_default());
            ("doubled", text, "take one of them out")
        });
        let read = read_tool(gate, tool, catalogue);
        let (tool, mut mistakes) = read.map_or_else(|m| (None, m), |tool| (Some(tool), Vec::new()));
        mistakes.extend(doubled);
        found.push((line, mistakes));
        tools.extend(tool.map(|tool| (name, tool)));
    }
    found
}

/// What is written and belongs to gates of another kind.
fn strays(gate: &Written) -> Vec<Mistake> {
    let shown = gate.name.escape_default();
    let tools = [
        ("command", !gate.command.is_empty()),
        ("guards", !gate.guards.is_empty()),
        ("tool", !gate.tool.is_empty()),
    ];
    let api = [
        ("upstream", gate.upstream.is_some()),
        ("env_var", gate.env_var.is_some()),
        ("ca", gate.ca.is_some()),
        ("secret_file", gate.secret_file.is_some()),
        ("secret_header", gate.secret_header.is_some()),
        ("secret_prefix", gate.secret_prefix.is_some()),
        ("route", !gate.route.is_empty()),
    ];
    let caller = [("caller", gate.caller.is_some())];
    let (wrong, what, next): (Vec<_>, _, _) = match gate.kind {
        Kind::Mcp => (
            caller.into_iter().chain(api).collect(),
            "is no hook and no HTTP gate, and has no",
            "take it out: who calls its tools is the run itself",
        ),
        Kind::Http => (
            tools.into_iter().collect(),
            "is an HTTP gate, and has no",
            "take it out: what an HTTP gate has are upstream, env_var or caller, ca, secret_file and routes",
        ),
        Kind::Hook => (
            tools.into_iter().chain(api).collect(),
            "starts nothing and has no",
            "take it out: what a hook guards is in resources.toml",
        ),
    };
    let noun = if gate.kind == Kind::Hook { "hook" } else { "gate" };
    let there = wrong.into_iter().filter(|(_, there)| *there);
    there.map(|(code, _)| (code, format!("{noun} \"{shown}\" {what} {code}"), next)).collect()
}

/// The gates of a folder that are workloads of their own, by the gate's name; nothing of what can't be read.
#[must_use]
pub fn hooks(folder: &Folder, trust_domain: &TrustDomain) -> BTreeMap<String, Hook> {
    let file = tables::read::<File>(GATES, folder.get(GATES).unwrap_or_default());
    let gates = file.map(|file| file.gate).unwrap_or_default().into_iter().map(Spanned::into_inner);
    let hooks = gates.filter(|gate| gate.kind != Kind::Mcp).filter_map(|gate| {
        let caller = SpiffeId::new(trust_domain, &gate.caller?).ok()?;
        Some((gate.name, Hook { caller, handshakes: gate.kind == Kind::Http }))
    });
    hooks.collect()
}

fn hook_mistakes(gate: &Written, catalogue: &Catalogue) -> Vec<Mistake> {
    let mut found = Vec::new();
    let shown = gate.name.escape_default();
    match &gate.caller {
        None => found.push(("caller", format!("hook \"{shown}\" has no caller"), CALLER_FORM)),
        Some(path) => found.extend(caller_mistake(path)),
    }
    if !catalogue.iter().any(|resource| resource.gate() == Some(gate.name.as_str())) {
        let text = format!("resources.toml has nothing that begins with \"{shown}/\"");
        found.push(("unguarded", text, "add what it guards, or take the gate out"));
    }
    found
}

/// What is wrong with the path of a workload that is a gate.
pub(crate) fn caller_mistake(path: &str) -> Option<Mistake> {
    let text = || format!("\"{}\" is no path of a workload", path.escape_default());
    (!is_workload_path(path)).then(|| ("caller", text(), CALLER_FORM))
}

/// True for a path that a workload may have in any trust domain.
fn is_workload_path(path: &str) -> bool {
    let any = TrustDomain::new("example.org").ok().and_then(|domain| SpiffeId::new(&domain, path).ok());
    any.is_some_and(|id| !path.is_empty() && !id.is_reserved())
}

fn mcp_mistakes(gate: &Written) -> Vec<Mistake> {
    let mut found = Vec::new();
    let word = |word: &String| word.len() <= COMMAND_WORD_MAX && !word.contains('\0');
    let program = gate.command.first().is_some_and(|program| !program.is_empty());
    if !program || gate.command.len() > COMMAND_WORDS_MAX || !gate.command.iter().all(word) {
        let next = "write the program and each argument as a text of its own: [\"npx\", \"-y\", \"server\"]";
        let text =
            format!("command needs 1 to {COMMAND_WORDS_MAX} texts of at most {COMMAND_WORD_MAX} bytes");
        found.push(("command", text, next));
    }
    let folder = |path: &String| {
        path.starts_with('/')
            && path.len() <= COMMAND_WORD_MAX
            && !path.contains('\0')
            && !path.split('/').any(|part| part == ".." || part == ".")
    };
    for path in gate.guards.iter().filter(|path| !folder(path)) {
        let text = format!("guarded folder \"{}\" is no absolute path", path.escape_default());
        found.push(("guards", text, "begin it with / and leave . and .. out"));
    }
    if gate.guards.len() > GUARDS_MAX {
        let text = format!("{} guarded folders, at most {GUARDS_MAX}", gate.guards.len());
        found.push(("guards", text, "name the folder above them"));
    }
    if gate.tool.is_empty() {
        let text =
            format!("gate \"{}\" has no tools, so nothing could be called", gate.name.escape_default());
        found.push(("empty", text, "add its tools with `avouch gate add mcp`, or take it out"));
    }
    if gate.tool.len() > TOOLS_MAX {
        let text = format!("{} tools, at most {TOOLS_MAX}", gate.tool.len());
        found.push(("size", text, "list those that somebody needs"));
    }
    found
}

fn read_tool(gate: &str, tool: WrittenTool, catalogue: &Catalogue) -> Result<GateTool, Vec<Mistake>> {
    let mut found = Vec::new();
    let shown = tool.name.escape_default().to_string();
    if !is_tool_name(&tool.name) {
        let text = format!("\"{shown}\" is no name of a tool");
        found.push(("tool", text, "take it as the server spells it, 1 to 128 bytes without quotes"));
    }
    let digest = read_digest(&tool.digest);
    if digest.is_none() {
        let text = format!("the digest of \"{shown}\" is not sha256: and 64 lower-case hexadecimal digits");
        found.push(("digest", text, "let `avouch gate add mcp` look at the server again"));
    }
    let id = format!("{gate}/{}", tool.name);
    match catalogue.get(&id).filter(|resource| resource.actions.contains(TOOL_CALL)) {
        None => {
            let text =
                format!("resources.toml has no \"{}\" with the action {TOOL_CALL}", id.escape_default());
            found.push(("unguarded", text, "add the resource, or take the tool out"));
        }
        Some(resource) => {
            for (param, pointer) in &tool.pointers {
                if !resource.params.contains_key(param) {
                    let text = format!("\"{shown}\" has no parameter \"{}\"", param.escape_default());
                    found.push((
                        "pointer",
                        text,
                        "add it to params of the resource, or take the pointer out",
                    ));
                }
                if !is_pointer(pointer) {
                    let text = format!("\"{}\" is no JSON pointer", pointer.escape_default());
                    found.push(("pointer", text, "write it as /outer/inner, with ~1 for / and ~0 for ~"));
                }
            }
        }
    }
    match digest {
        Some(digest) if found.is_empty() => Ok(GateTool { digest, pointers: tool.pointers }),
        _ => Err(found),
    }
}

/// True for what can be a tool's name behind a gate: visible, short enough, and without what texts and IDs end with.
pub(crate) fn is_tool_name(name: &str) -> bool {
    let inside = |c: char| !c.is_control() && !c.is_whitespace() && c != '"' && c != '\\';
    !name.is_empty() && name.len() <= TOOL_NAME_MAX && name.chars().all(inside)
}

/// A digest as it is written.
pub(crate) fn digest_text(digest: &[u8; 32]) -> String {
    format!("{DIGEST}{}", hex::encode(digest))
}

fn read_digest(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(DIGEST)?;
    let digest: [u8; 32] = hex::decode(digits).ok()?.try_into().ok()?;
    (hex::encode(digest) == digits).then_some(digest)
}

pub(crate) fn is_pointer(text: &str) -> bool {
    // Every ~ must be followed by 0 or 1 (RFC 6901, section 3).
    let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    text.len() > 1 && text.len() <= POINTER_MAX && text.starts_with('/') && escapes
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOURCES: &str = "[[resource]]\nid = \"files/read\"\ntype = \"Tool\"\nenvironment = \"test\"\ndomain = \"code\"\nsensitivity = 1\nactions = [\"tool.call\"]\nparams = { path = \"string\" }\n[[resource]]\nid = \"files/look\"\ntype = \"Tool\"\nenvironment = \"test\"\ndomain = \"code\"\nsensitivity = 1\nactions = [\"look\"]\n";
    const GOOD: &str = "[[gate]]\nname = \"files\"\nkind = \"mcp\"\ncommand = [\"server\", \"pay\"]\nguards = [\"/srv/pay\"]\n\n[[gate.tool]]\nname = \"read\"\ndigest = \"sha256:1111111111111111111111111111111111111111111111111111111111111111\"\npointers = { path = \"/file/path\" }\n";

    fn read(text: &str) -> Result<Gates, Vec<Finding>> {
        super::read(text, &Catalogue::read(RESOURCES).unwrap())
    }

    #[test]
    fn a_gate_has_its_command_its_folders_and_its_tools() {
        let gates = read(GOOD).unwrap();
        let gate = &gates["files"];
        let Behind::Tools(gate) = &gate.behind else { panic!("{gate:?}") };
        assert_eq!(gate.command.len(), 2);
        assert!(gate.guards.contains("/srv/pay"));
        assert_eq!(gate.tools["read"].digest, [0x11; 32]);
        assert_eq!(gate.tools["read"].pointers["path"], "/file/path");
        assert!(read("").unwrap().is_empty());
    }

    #[test]
    fn each_mistake_in_a_gate_has_its_line_and_what_to_do() {
        for (from, to, told) in [
            ("\"files\"", "\"Files\"", "gates.toml:1: \"Files\" is not a name of at most 64"),
            (
                "\"mcp\"",
                "\"mpc\"",
                "gates.toml:3: unknown variant `mpc`, expected one of `mcp`, `http`, `hook`",
            ),
            ("[\"server\", \"pay\"]", "[]", "gates.toml:1: command needs 1 to 64 texts"),
            ("\"server\"", "\"\"", "command needs 1 to 64 texts"),
            ("\"pay\"", "\"p\\u0000y\"", "command needs 1 to 64 texts"),
            ("/srv/pay", "pay", "guarded folder \"pay\" is no absolute path"),
            ("/srv/pay", "/srv/../pay", "guarded folder \"/srv/../pay\" is no absolute path"),
            ("\"read\"", "\"re ad\"", "gates.toml:7: \"re ad\" is no name of a tool"),
            ("sha256:11", "sha256:1", "gates.toml:7: the digest of \"read\" is not sha256:"),
            ("sha256:11", "sha256:AA", "the digest of \"read\" is not sha256:"),
            ("sha256:11", "sha512:11", "the digest of \"read\" is not sha256:"),
            (
                "\"read\"",
                "\"write\"",
                "gates.toml:7: resources.toml has no \"files/write\" with the action tool.call",
            ),
            ("\"read\"", "\"look\"", "resources.toml has no \"files/look\" with the action tool.call"),
            ("{ path", "{ lines", "\"read\" has no parameter \"lines\"; add it to params"),
            ("/file/path", "file", "\"file\" is no JSON pointer"),
            ("/file/path", "/file~2", "\"/file~2\" is no JSON pointer"),
            ("guards", "gards", "gates.toml:5: unknown field `gards`"),
        ] {
            let found: Vec<_> =
                read(&GOOD.replace(from, to)).unwrap_err().iter().map(ToString::to_string).collect();
            assert!(found.iter().any(|f| f.contains(told)), "{told}: {found:?}");
        }
    }

    const HOOK: &str = "[[gate]]\nname = \"files\"\nkind = \"hook\"\ncaller = \"/test/git\"\n";

    #[test]
    fn a_hook_has_the_path_of_its_workload_and_nothing_to_start() {
        let domain = TrustDomain::new("example.org").unwrap();
        let gates = read(HOOK).unwrap();
        let gate = &gates["files"];
        let hook = gate.hook(&domain).unwrap();
        assert_eq!((hook.caller.as_str(), hook.handshakes), ("spiffe://example.org/test/git", false));
        assert_eq!(gate.behind, Behind::Hook { caller: "/test/git".to_owned() });
        assert_eq!(read(GOOD).unwrap()["files"].hook(&domain), None, "a tool server is no hook");
    }

    #[test]
    fn each_mistake_in_a_hook_has_its_line_and_what_to_do() {
        for (from, to, told) in [
            ("caller = \"/test/git\"\n", "", "gates.toml:1: hook \"files\" has no caller; write the path"),
            ("/test/git", "spiffe://example.org/git", "is no path of a workload"),
            ("/test/git", "test/git", "\"test/git\" is no path of a workload"),
            ("/test/git", "", "\"\" is no path of a workload"),
            ("/test/git", "/spire/agent/x", "\"/spire/agent/x\" is no path of a workload"),
            ("\"files\"", "\"git\"", "resources.toml has nothing that begins with \"git/\""),
            ("\"files\"", "\"Files\"", "\"Files\" is not a name of at most 64"),
            ("caller", "command = [\"x\"]\ncaller", "hook \"files\" starts nothing and has no command"),
            ("caller", "guards = [\"/srv\"]\ncaller", "hook \"files\" starts nothing and has no guards"),
        ] {
            let found: Vec<_> =
                read(&HOOK.replace(from, to)).unwrap_err().iter().map(ToString::to_string).collect();
            assert!(found.iter().any(|f| f.contains(told)), "{told}: {found:?}");
        }
        let tool = GOOD.split("\n\n").nth(1).unwrap();
        let found = read(&format!("{HOOK}{tool}")).unwrap_err();
        assert!(found[0].text.contains("has no tool"), "{found:?}");
        let found = read(&GOOD.replace("command", "caller = \"/test/git\"\ncommand")).unwrap_err();
        assert!(found[0].text.contains("is no hook and no HTTP gate, and has no caller"), "{found:?}");
    }

    #[test]
    fn the_hooks_of_a_folder_are_found_without_its_rules() {
        let domain = TrustDomain::new("example.org").unwrap();
        let other = GOOD.replace("\"files\"", "\"other\"");
        let folder = Folder::new([(GATES.to_owned(), format!("{HOOK}{other}"))]).unwrap();
        let hooks = hooks(&folder, &domain);
        assert_eq!(hooks.len(), 1);
        assert_eq!(hooks["files"].caller.as_str(), "spiffe://example.org/test/git");
        let broken = Folder::new([(GATES.to_owned(), "[[gate]]\n".to_owned())]).unwrap();
        assert!(super::hooks(&broken, &domain).is_empty());
    }

    #[test]
    fn a_gate_without_tools_and_what_stands_twice_is_found() {
        let bare = GOOD.split("[[gate.tool]]").next().unwrap();
        assert!(read(bare).unwrap_err()[0].to_string().contains("gates.toml:1: gate \"files\" has no tools"));
        let twice = read(&format!("{GOOD}{GOOD}")).unwrap_err();
        assert!(twice[0].to_string().starts_with("gates.toml:11: gate \"files\" stands twice"), "{twice:?}");
        let tool = GOOD.split("[[gate.tool]]").nth(1).unwrap();
        let twice = read(&format!("{GOOD}[[gate.tool]]{tool}")).unwrap_err();
        assert!(twice[0].to_string().starts_with("gates.toml:11: tool \"read\" stands twice"), "{twice:?}");
    }

    #[test]
    fn more_gates_tools_and_folders_than_there_may_be_are_found() {
        let tools: String =
            (0..=TOOLS_MAX).map(|n| format!("[[gate.tool]]\nname = \"t{n}\"\ndigest = \"\"\n")).collect();
        let many = GOOD.split("[[gate.tool]]").next().unwrap().to_owned() + &tools;
        assert!(read(&many).unwrap_err().iter().any(|f| f.code == "size"));
        let guards: Vec<_> = (0..=GUARDS_MAX).map(|n| format!("\"/srv/{n}\"")).collect();
        let many = GOOD.replace("\"/srv/pay\"", &guards.join(", "));
        assert!(read(&many).unwrap_err().iter().any(|f| f.code == "guards"));
        let many: String = (0..=GATES_MAX).map(|n| GOOD.replace("\"files\"", &format!("\"g{n}\""))).collect();
        assert!(read(&many).unwrap_err().iter().any(|f| f.text.contains("65 gates, at most 64")));
    }

    #[test]
    fn a_digest_is_written_as_it_is_read() {
        assert_eq!(read_digest(&digest_text(&[0xab; 32])), Some([0xab; 32]));
    }
}
