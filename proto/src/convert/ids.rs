//! SPIFFE IDs: the two halves of the wire and the whole of the domain; member, workload and agent rules.
//!
//! Never repairs an ID: what go-spiffe refuses is refused, with its words.

use avouch_domain::{SpiffeId, TrustDomain};

use super::ConvertError;
use crate::types;

/// A trust domain named by a bare name or by one of its IDs, as every text field of the API allows.
///
/// # Errors
/// [`ConvertError::Unreadable`] with go-spiffe's words.
pub fn trust_domain(text: &str) -> Result<TrustDomain, ConvertError> {
    TrustDomain::from_name_or_id(text).map_err(ConvertError::unreadable)
}

/// An ID of any trust domain.
///
/// # Errors
/// Missing, empty or malformed.
pub fn spiffe_id(wire: Option<&types::Spiffeid>) -> Result<SpiffeId, ConvertError> {
    let missing = || ConvertError::Unreadable("request must specify SPIFFE ID".to_owned());
    let wire = wire.ok_or_else(missing)?;
    let domain = trust_domain(&wire.trust_domain)?;
    SpiffeId::new(&domain, &wire.path).map_err(ConvertError::unreadable)
}

/// An ID in `domain`, with a path.
///
/// # Errors
/// As [`spiffe_id`], or not a member.
pub fn member_id(domain: &TrustDomain, wire: Option<&types::Spiffeid>) -> Result<SpiffeId, ConvertError> {
    checked(domain, wire, "a member of", |_| None)
}

/// An ID a workload may have: a member outside the reserved namespace.
///
/// # Errors
/// As [`member_id`], or reserved.
pub fn workload_id(domain: &TrustDomain, wire: Option<&types::Spiffeid>) -> Result<SpiffeId, ConvertError> {
    checked(domain, wire, "a workload in", |id| {
        id.is_reserved().then_some("path is in the reserved namespace")
    })
}

/// An ID an agent may have: a member below `/spire/agent/`.
///
/// # Errors
/// As [`member_id`], or another namespace.
pub fn agent_id(domain: &TrustDomain, wire: Option<&types::Spiffeid>) -> Result<SpiffeId, ConvertError> {
    checked(domain, wire, "an agent in", |id| {
        (!id.is_agent()).then_some("path is not in the agent namespace")
    })
}

fn checked(
    domain: &TrustDomain,
    wire: Option<&types::Spiffeid>,
    what: &str,
    path_rule: impl Fn(&SpiffeId) -> Option<&'static str>,
) -> Result<SpiffeId, ConvertError> {
    let id = spiffe_id(wire)?;
    if id.trust_domain() != domain {
        return Err(ConvertError::not_allowed(format_args!(
            "\"{id}\" is not a member of trust domain \"{domain}\""
        )));
    }
    let broken = if id.path().is_empty() { Some("path is empty") } else { path_rule(&id) };
    match broken {
        None => Ok(id),
        Some(rule) => Err(ConvertError::not_allowed(format_args!(
            "\"{id}\" is not {what} trust domain \"{domain}\"; {rule}"
        ))),
    }
}

/// The two halves of an ID; the path keeps its leading slash.
#[must_use]
pub fn spiffe_id_to_wire(id: &SpiffeId) -> types::Spiffeid {
    types::Spiffeid { trust_domain: id.trust_domain().to_string(), path: id.path().to_owned() }
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::{domain, id};
    use proptest::prelude::*;

    use super::*;

    fn wire(domain: &str, path: &str) -> Option<types::Spiffeid> {
        Some(types::Spiffeid { trust_domain: domain.into(), path: path.into() })
    }

    fn text<T: std::fmt::Debug>(result: Result<T, ConvertError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_missing_id_is_said_to_be_missing() {
        assert_eq!(text(spiffe_id(None)), "request must specify SPIFFE ID");
    }

    #[test]
    fn a_member_has_the_servers_trust_domain_and_a_path() {
        assert_eq!(member_id(&domain(), wire("spiffe://example.org", "/a").as_ref()), Ok(id("/a")));
        assert_eq!(
            text(member_id(&domain(), wire("other.org", "/a").as_ref())),
            "\"spiffe://other.org/a\" is not a member of trust domain \"example.org\""
        );
        assert_eq!(
            text(member_id(&domain(), wire("example.org", "").as_ref())),
            "\"spiffe://example.org\" is not a member of trust domain \"example.org\"; path is empty"
        );
    }

    #[test]
    fn a_workload_is_outside_the_reserved_namespace() {
        assert_eq!(
            text(workload_id(&domain(), wire("example.org", "/spire/x").as_ref())),
            "\"spiffe://example.org/spire/x\" is not a workload in trust domain \"example.org\"; path is in the reserved namespace"
        );
    }

    #[test]
    fn an_agent_is_inside_the_agent_namespace() {
        assert!(agent_id(&domain(), wire("example.org", "/spire/agent/join_token/t").as_ref()).is_ok());
        assert_eq!(
            text(agent_id(&domain(), wire("example.org", "/a").as_ref())),
            "\"spiffe://example.org/a\" is not an agent in trust domain \"example.org\"; path is not in the agent namespace"
        );
    }

    #[test]
    fn a_path_is_never_repaired() {
        assert_eq!(text(spiffe_id(wire("example.org", "/a/").as_ref())), "path cannot have a trailing slash");
        assert_eq!(text(spiffe_id(wire("", "/a").as_ref())), "trust domain is missing");
    }

    proptest! {
        #[test]
        fn every_id_survives_the_wire(path in "(/[a-zA-Z0-9_-]{1,9}){0,4}") {
            let id = id(&path);
            prop_assert_eq!(spiffe_id(Some(&spiffe_id_to_wire(&id))), Ok(id));
        }
    }
}
