//! Words of the wire as people read them.
//!
//! Never hides a word that is not known here: it is shown as it came.

use std::borrow::Cow;

use avouch_credential::shown::plain;
use avouch_proto::governance_v1 as wire;
use avouch_rules::Reason;

const CAUSES: [(&str, &str); 5] = [
    ("person", "by a person"),
    ("end_reached", "its end is reached"),
    ("not_confirmed", "its owner did not confirm"),
    ("owner_left", "its owner left"),
    ("other_code", "it was to run with other code"),
];

/// Why a node decided as it did, beside the reasons of the rules.
const REASONS: [(&str, &str); 8] = [
    ("no_rules", "no rules are published, so everything is denied"),
    ("unrecorded", "it can't be recorded, so it is denied"),
    ("server_silent", "the node has not heard the server for longer than the rules allow"),
    ("worn_out", "this run was refused too often, and is over"),
    ("not_in_force", "the identity may not run there any more"),
    ("resource_type", "the resource is of another type"),
    ("limits", "it is allowed within limits only, and the caller does not keep them"),
    ("unknown_here", "the node does not know it"),
];

fn word<'a>(words: &[(&str, &'static str)], wire: &'a str) -> Cow<'a, str> {
    let known = words.iter().find(|(name, _)| *name == wire);
    known.map_or_else(|| plain(&wire.replace('_', " ")).into(), |(_, word)| (*word).into())
}

/// The kind of an identity.
pub(super) fn kind(wire: &str) -> Cow<'_, str> {
    word(&[("ai_agent", "AI agent")], wire)
}

/// Why it is paused or stopped.
pub(super) fn cause(wire: &str) -> Cow<'_, str> {
    word(&CAUSES, wire)
}

/// Why a request was decided as it was.
pub(super) fn reason(wire: &str) -> Cow<'_, str> {
    match Reason::ALL.iter().find(|reason| reason.code() == wire) {
        Some(reason) => reason.sentence().into(),
        None => word(&REASONS, wire),
    }
}

/// The outcome of a decision.
pub(super) fn outcome(wire: &str) -> Cow<'_, str> {
    word(&[("allow", "allowed"), ("constrain", "limited"), ("step_up", "asked"), ("deny", "denied")], wire)
}

/// The class of the style sheet for a standing or an outcome; none for words of a newer server.
pub(super) fn class(wire: &str) -> &'static str {
    match wire {
        "active" | "allow" | "yes" | "open" | "in_force" => "good",
        "proposed" | "paused" | "constrain" | "step_up" | "waiting" => "wait",
        "stopped" | "deny" | "no" => "bad",
        _ => "off",
    }
}

/// Whose yes a request takes.
pub(super) fn whose(request: &wire::Request) -> &'static str {
    match (request.needs_owner, request.needs_person) {
        (true, true) => "the owner's yes and that of another person",
        (true, false) => "the owner's yes",
        _ => "the yes of a person other than the owner",
    }
}

/// A number with its noun: `no request`, `1 request`, `2 requests`.
pub(super) fn count(number: u32, one: &str, more: &str) -> String {
    match number {
        0 => format!("no {one}"),
        1 => format!("1 {one}"),
        _ => format!("{number} {more}"),
    }
}

/// The path of a SPIFFE ID of this trust domain; any other ID as it is.
pub(super) fn path<'a>(spiffe_id: &'a str, trust_domain: &str) -> &'a str {
    let name = spiffe_id.strip_prefix("spiffe://").and_then(|name| name.strip_prefix(trust_domain));
    name.filter(|path| path.starts_with('/')).unwrap_or(spiffe_id)
}

/// Text of others as one argument of a command in a POSIX shell.
pub(super) fn argument(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "/:.,_-@%+=".contains(c);
    let text = plain(text);
    if !text.is_empty() && text.chars().all(safe) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_newer_server_is_shown_as_it_came() {
        assert_eq!(kind("ai_agent"), "AI agent");
        assert_eq!(kind("new_kind\u{202e}"), "new kind\\u{202e}");
        assert_eq!(class("new"), "off");
    }

    #[test]
    fn only_names_of_this_trust_domain_are_shortened() {
        assert_eq!(path("spiffe://example.org/test/coder", "example.org"), "/test/coder");
        for other in ["spiffe://example.org.evil/x", "spiffe://other.org/x", "ins_1", "spiffe://example.org"]
        {
            assert_eq!(path(other, "example.org"), other);
        }
    }

    #[test]
    fn a_command_to_copy_is_one_command() {
        assert_eq!(argument("spiffe://example.org/test/coder"), "spiffe://example.org/test/coder");
        assert_eq!(argument("a; rm -rf 'x'"), "'a; rm -rf '\\''x'\\'''");
        assert_eq!(argument(""), "''");
    }
}
