//! Gates and answers as a node agent says them, read.
//!
//! What is not understood is not there, or a denial. Secrets are moved, never copied.

use std::collections::BTreeMap;
use std::sync::Arc;

use avouch_proto::run_v1 as wire;
use avouch_rules::{HttpMethod, Limits, ParamKind, Template, Upstream};
use zeroize::Zeroizing;

use super::http::{Api, Held, Route, Secret};
use super::{Decided, Definition, Due, GateDefinition, Place, Tool, Verdict};

/// The reason when nobody answers.
pub(crate) const AWAY: &str = "node_agent_away";
/// The node agent's reason when it takes a yes and nobody could be asked.
const NOT_ASKED: &str = "not_asked";

/// `None` for a gate in the words of a newer node agent: what is not understood is not there.
pub(crate) fn definition(gate: &mut wire::Gate) -> Option<Definition> {
    if let Some(api) = &mut gate.api {
        return Some(Definition::Api(Arc::new(api_of(gate.name.clone(), api)?)));
    }
    let tools = gate.tools.iter().map(|tool| {
        let params = tool.params.iter().map(|(name, param)| {
            let kind = ParamKind::from_name(&param.kind)?;
            Some((name.clone(), Place { pointer: param.pointer.clone(), kind }))
        });
        let digest = tool.digest.as_slice().try_into().ok()?;
        Some((tool.name.clone(), Tool { digest, params: params.collect::<Option<_>>()? }))
    });
    Some(Definition::Tools(GateDefinition {
        name: gate.name.clone(),
        command: gate.command.clone(),
        tools: tools.collect::<Option<BTreeMap<_, _>>>()?,
    }))
}

fn api_of(name: String, api: &mut wire::Api) -> Option<Api> {
    let secret = match &mut api.secret {
        None => Secret::None,
        Some(secret) if secret.value.is_empty() => Secret::Missing(secret.missing.clone()),
        Some(secret) => Secret::Held(Held {
            header: secret.header.clone(),
            prefix: secret.prefix.clone(),
            // Moved, not copied: it is wiped when the gate ends.
            value: Zeroizing::new(std::mem::take(&mut secret.value)),
        }),
    };
    let routes = api.routes.iter().map(|route| {
        let params = route.params.iter();
        let params = params.map(|(name, kind)| Some((name.clone(), ParamKind::from_name(kind)?)));
        Some(Route {
            method: HttpMethod::from_name(&route.method)?,
            path: Template::parse(&route.path).ok()?,
            resource: route.resource.clone(),
            action: route.action.clone(),
            params: params.collect::<Option<_>>()?,
            query: route.query.iter().cloned().collect(),
            other_query: route.other_query,
            rows_at: route.rows_at.clone(),
        })
    });
    Some(Api {
        name,
        upstream: Upstream::parse(&api.upstream).ok()?,
        env_var: api.env_var.clone(),
        ca: (!api.ca.is_empty()).then(|| api.ca.clone()),
        secret,
        routes: routes.collect::<Option<_>>()?,
    })
}

/// The verdict, and whether the node agent wants to hear what comes of it.
pub(crate) fn decided(answer: wire::Answer) -> Decided {
    let due = Due { record: answer.record, agreed: !answer.request.is_empty() };
    let due = answer.receipt.then_some(due);
    Decided { verdict: verdict(answer), due }
}

/// Whatever is not understood is a denial.
fn verdict(answer: wire::Answer) -> Verdict {
    match answer.outcome.as_str() {
        "allow" if !answer.request.is_empty() => Verdict::Agreed,
        "allow" => Verdict::Allow,
        "constrain" => match Limits::parse(&answer.limits) {
            Ok(limits) => Verdict::Limit(limits),
            Err(text) => Verdict::Deny { reason: "limits".to_owned(), text },
        },
        "step_up" => Verdict::Ask { text: answer.text },
        _ if [AWAY, NOT_ASKED].contains(&answer.reason.as_str()) => {
            Verdict::Unavailable { text: answer.text }
        }
        _ => Verdict::Deny { reason: answer.reason, text: answer.text },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(outcome: &str, reason: &str, limits: &str) -> Verdict {
        let (outcome, reason, limits) = (outcome.to_owned(), reason.to_owned(), limits.to_owned());
        verdict(wire::Answer { outcome, reason, limits, text: "why".to_owned(), ..wire::Answer::default() })
    }

    #[test]
    fn only_what_is_understood_is_allowed() {
        assert_eq!(said("allow", "allowed", ""), Verdict::Allow);
        let agreed =
            wire::Answer { outcome: "allow".to_owned(), request: "req_1".to_owned(), ..Default::default() };
        assert_eq!(verdict(agreed), Verdict::Agreed);
        let limits = Limits { max_rows: Some(5), ..Limits::default() };
        assert_eq!(said("constrain", "limited", "max_rows=5"), Verdict::Limit(limits));
        assert_eq!(said("step_up", "asked", ""), Verdict::Ask { text: "why".to_owned() });
        assert_eq!(said("deny", AWAY, ""), Verdict::Unavailable { text: "why".to_owned() });
        assert_eq!(said("deny", NOT_ASKED, ""), Verdict::Unavailable { text: "why".to_owned() });
        let wanted = |request: &str, receipt| {
            decided(wire::Answer { record: 4, request: request.to_owned(), receipt, ..Default::default() })
                .due
        };
        assert_eq!(wanted("req_1", true), Some(Due { record: 4, agreed: true }));
        assert_eq!(wanted("", true), Some(Due { record: 4, agreed: false }));
        assert_eq!(wanted("req_1", false), None, "an earlier node agent wants none");
        for (outcome, limits) in [("constrain", "max_moons=5"), ("permit", ""), ("", "")] {
            assert!(matches!(said(outcome, "x", limits), Verdict::Deny { .. }), "{outcome}");
        }
    }
}
