//! Pause, stop, and the drill of a stop: what the nodes said, and what is still open outside of them.

use avouch_proto::governance_v1 as wire;
use serde_json::{Value, json};

use super::Session;
use super::identities::{named, shown};
use crate::exit::{FAILED, FINDING};
use crate::failure::Failure;
use crate::verbs::text::rfc3339;

pub(super) async fn pause(session: &mut Session<'_>, name: String) -> Result<(), Failure> {
    let stop = session.client.pause_identity(named(name)).await?.into_inner();
    told(session, &stop, "is paused; `avouch resume` brings it back")
}

pub(super) async fn stop(session: &mut Session<'_>, name: String, drill: bool) -> Result<(), Failure> {
    if !drill {
        let stop = session.client.stop_identity(named(name)).await?.into_inner();
        return told(session, &stop, "is stopped for good");
    }
    let stop = session.client.drill_stop(named(name)).await?.into_inner();
    told(session, &stop, "would be stopped; it goes on, this was a drill")?;
    if stop.nodes.iter().all(|node| node.confirmed) { Ok(()) } else { Err(Failure::new(FINDING, "")) }
}

/// A JSON object, and in it what nodes said of what was stopped and until when it is accepted outside.
pub(super) fn with_bounds(mut object: Value, nodes: &[wire::StopNode], accepted_until: i64) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("nodes".to_owned(), nodes.iter().map(node).collect());
        let until = (accepted_until != 0).then(|| rfc3339(accepted_until));
        fields.insert("accepted_until".to_owned(), until.into());
    }
    object
}

fn told(session: &mut Session<'_>, stop: &wire::StopResponse, what: &str) -> Result<(), Failure> {
    let identity = stop.identity.as_ref();
    let identity = identity.ok_or_else(|| Failure::new(FAILED, "the server shows no identity"))?;
    session.print(
        || with_bounds(shown(identity), &stop.nodes, stop.accepted_until),
        || format!("{} {what}\n{}", identity.spiffe_id, bounds(&stop.nodes, stop.accepted_until)),
    );
    Ok(())
}

fn node(node: &wire::StopNode) -> Value {
    let (took, until) = match node.confirmed {
        true => (json!(node.took_ms), Value::Null),
        false if node.decides_until == 0 => (Value::Null, Value::Null),
        false => (Value::Null, json!(rfc3339(node.decides_until))),
    };
    json!({"node": node.node, "confirmed": node.confirmed, "took_ms": took, "decides_until": until})
}

/// How far it holds: what is confirmed, who is silent, and what others may still accept.
pub(super) fn bounds(nodes: &[wire::StopNode], accepted_until: i64) -> String {
    let confirmed: Vec<_> = nodes.iter().filter(|node| node.confirmed).collect();
    let last = confirmed.iter().map(|node| node.took_ms).max();
    let after = last.map(|last| format!(", the last after {last} ms")).unwrap_or_default();
    let mut text = match nodes.len() {
        0 => "  confirmed  no node may run it\n".to_owned(),
        all => format!("  confirmed  {} of {all} nodes{after}\n", confirmed.len()),
    };
    for node in nodes.iter().filter(|node| !node.confirmed) {
        let until = match node.decides_until {
            0 => "it hears of the server again".to_owned(),
            until => format!("{} at most", rfc3339(until)),
        };
        text.push_str(&format!("  silent     {}: decides by what it knows until {until}\n", node.node));
    }
    if accepted_until != 0 {
        let until = rfc3339(accepted_until);
        text.push_str(&format!(
            "  outside    who verifies by himself accepts its SVIDs until {until} at most\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_tells_who_confirmed_who_is_silent_and_what_others_accept() {
        let node = |name: &str, confirmed, took_ms| wire::StopNode {
            node: name.to_owned(),
            confirmed,
            took_ms,
            decides_until: 600,
        };
        let nodes = [node("a", true, 3), node("b", true, 7), node("c", false, 0)];
        assert_eq!(
            bounds(&nodes, 3_600),
            "  confirmed  2 of 3 nodes, the last after 7 ms\n  silent     c: decides by what it knows until \
             1970-01-01T00:10:00Z at most\n  outside    who verifies by himself accepts its SVIDs until \
             1970-01-01T01:00:00Z at most\n"
        );
        let service = wire::StopNode { node: "d".into(), ..Default::default() };
        assert!(
            bounds(&[service], 0)
                .ends_with("d: decides by what it knows until it hears of the server again\n")
        );
        assert_eq!(bounds(&[], 0), "  confirmed  no node may run it\n");
    }
}
