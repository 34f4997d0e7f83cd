//! What there is and what it lacks, in numbers: the first thing that a security team looks at.
//!
//! Never a name: who lacks what is listed elsewhere.

use std::collections::HashSet;
use std::time::Duration;

use avouch_domain::limits::{DRILL_COUNTS, UNUSED_AFTER};
use avouch_domain::{Identity, Standing, Timestamp};

use crate::entitle::agents_of_name;
use crate::found;
use crate::registry::Registry;

/// An end that is nearer than this wants somebody's attention.
pub const ENDING_SOON: Duration = Duration::from_secs(7 * 86_400);

/// Counts over a registry at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// Identities that wait for a yes.
    pub proposed: usize,
    /// Identities in force. One whose end is reached counts as paused, also before that is written.
    pub active: usize,
    pub paused: usize,
    pub stopped: usize,
    /// Names that entries give out and no identity has.
    pub found: usize,
    /// Active ones whose owner is to confirm.
    pub not_confirmed: usize,
    /// Active ones whose end is near.
    pub ending: usize,
    /// Active ones whose stop was not tried lately, or not confirmed by every node then.
    pub stop_untried: usize,
    /// Active ones that nobody used for [`UNUSED_AFTER`], as far as is known.
    pub unused: usize,
    /// Requests that wait for a person.
    pub waiting: usize,
    /// Active people.
    pub people: usize,
    /// Those of them who are security people.
    pub security_people: usize,
    /// Attested nodes in good standing.
    pub nodes: usize,
}

/// What is known of the use of identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Since when nodes tell: what was used before that is not known.
    pub known_since: Timestamp,
    /// SPIFFE IDs of those that were used within [`UNUSED_AFTER`].
    pub lately: HashSet<String>,
    /// Nodes that tell.
    pub tellers: HashSet<String>,
}

impl Used {
    /// True if an identity in force was used by nobody for [`UNUSED_AFTER`], and every node that may serve it tells.
    #[must_use]
    pub fn lacks(&self, registry: &Registry, identity: &Identity, wall: Timestamp) -> bool {
        let name = &identity.spiffe_id;
        identity.is_in_force(wall)
            && wall.since(identity.added_at.max(self.known_since)) >= UNUSED_AFTER
            && !self.lately.contains(name.as_str())
            && agents_of_name(registry, name).iter().all(|node| self.tellers.contains(node.as_str()))
    }
}

/// Counts.
#[must_use]
pub fn overview(registry: &Registry, used: &Used, wall: Timestamp) -> Overview {
    let mut counts = Overview {
        found: found::count(registry),
        waiting: registry.requests().filter(|request| request.waits(wall)).count(),
        nodes: registry.nodes().filter(|node| node.is_alive(wall)).count(),
        ..Overview::default()
    };
    for person in registry.people().filter(|person| person.is_active()) {
        counts.people += 1;
        counts.security_people += usize::from(person.security);
    }
    for identity in registry.identities() {
        count(&mut counts, identity, wall);
        counts.unused += usize::from(used.lacks(registry, identity, wall));
    }
    counts
}

fn count(counts: &mut Overview, identity: &Identity, wall: Timestamp) {
    match identity.standing {
        Standing::Proposed => counts.proposed += 1,
        Standing::Active if identity.is_in_force(wall) => {
            counts.active += 1;
            counts.not_confirmed += usize::from(identity.confirm_by.is_some());
            counts.ending += usize::from(identity.end.since(wall) < ENDING_SOON);
            counts.stop_untried += usize::from(!stop_was_tried(identity, wall));
        }
        Standing::Active | Standing::Paused(_) => counts.paused += 1,
        Standing::Stopped(_) => counts.stopped += 1,
    }
}

/// Lately, and with every node's word.
fn stop_was_tried(identity: &Identity, wall: Timestamp) -> bool {
    identity
        .stop_tried
        .as_ref()
        .is_some_and(|tried| wall.since(tried.at) < DRILL_COUNTS && tried.confirmed >= tried.nodes)
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::{entry, identity, node, person};
    use avouch_domain::{Cause, Kind, PersonState, Row, StopTried};

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000_000);

    fn of(rows: Vec<Row>) -> Overview {
        let mut registry = Registry::new();
        rows.into_iter().for_each(|row| registry.put(row));
        overview(&registry, &Used::default(), NOW)
    }

    fn lives(path: &str) -> Identity {
        let end = Timestamp::from_secs(NOW.secs() + 30 * 86_400);
        Identity { standing: Standing::Active, end, confirm_by: None, ..identity(path, Kind::Service) }
    }

    #[test]
    fn identities_are_counted_by_where_they_stand() {
        let stands = |path: &str, standing| Row::Identity(Identity { standing, ..lives(path) });
        let over = Identity { end: NOW, ..lives("/over") };
        let counts = of(vec![
            Row::Identity(lives("/a")),
            stands("/b", Standing::Proposed),
            stands("/c", Standing::Paused(Cause::Person)),
            stands("/d", Standing::Stopped(Cause::Person)),
            Row::Identity(over),
        ]);
        let standings = (counts.active, counts.proposed, counts.paused, counts.stopped);
        assert_eq!(standings, (1, 1, 2, 1), "one whose end is reached is in force no more");
    }

    #[test]
    fn a_stop_counts_as_tried_for_a_while_and_only_if_every_node_confirmed() {
        let tried = |path: &str, ago, confirmed| {
            let at = Timestamp(NOW.0 - i64::try_from(Duration::as_millis(&ago)).unwrap());
            let tried = StopTried { at, nodes: 2, confirmed, took_ms: 1 };
            Row::Identity(Identity { stop_tried: Some(tried), ..lives(path) })
        };
        let day = Duration::from_secs(86_400);
        let counts = of(vec![
            Row::Identity(lives("/never")),
            tried("/old", DRILL_COUNTS, 2),
            tried("/silent", day, 1),
            tried("/good", day, 2),
        ]);
        assert_eq!((counts.active, counts.stop_untried), (4, 3));
    }

    #[test]
    fn what_wants_attention_is_counted_of_what_is_in_force() {
        let soon = Timestamp::from_secs(NOW.secs() + 86_400);
        let near = Identity { end: soon, confirm_by: Some(soon), ..lives("/near") };
        let stopped = Identity { standing: Standing::Stopped(Cause::Person), ..near.clone() };
        let counts = of(vec![
            Row::Identity(near),
            Row::Identity(Identity { spiffe_id: avouch_domain::fixtures::id("/gone"), ..stopped }),
            Row::Entry(entry("e1", "/found", "/p", &["u:1"])),
        ]);
        assert_eq!((counts.ending, counts.not_confirmed, counts.found), (1, 1, 1));
    }

    #[test]
    fn unused_is_what_is_in_force_and_was_not_used_although_that_would_be_known() {
        let ago = |days: i64| Timestamp::from_secs(NOW.secs() - days * 86_400);
        let old = Identity { added_at: ago(40), ..lives("/old") };
        let used = Used { known_since: ago(35), ..Used::default() };
        let mut registry = Registry::new();
        assert!(used.lacks(&registry, &old, NOW), "nobody may use it");
        assert!(!used.lacks(&registry, &Identity { added_at: ago(29), ..old.clone() }, NOW), "it is new");
        let fresh = Used { known_since: ago(29), ..Used::default() };
        assert!(!fresh.lacks(&registry, &old, NOW), "nobody told before that");
        let paused = Identity { standing: Standing::Paused(Cause::Person), ..old.clone() };
        assert!(!used.lacks(&registry, &paused, NOW), "nobody may use it now");
        let lately = Used { lately: [old.spiffe_id.to_string()].into(), ..used.clone() };
        assert!(!lately.lacks(&registry, &old, NOW));
        let here = node("/node", &["a:b"], NOW.secs() + 1);
        let tellers = [here.id.to_string()].into();
        registry.put(Row::Node(here));
        registry.put(Row::Entry(entry("e1", "/old", "/node", &["u:1"])));
        assert!(!used.lacks(&registry, &old, NOW), "a node that does not tell may use it");
        assert!(Used { tellers, ..used }.lacks(&registry, &old, NOW));
    }

    #[test]
    fn people_who_left_and_nodes_that_ended_are_not_counted() {
        let left = avouch_domain::Person { state: PersonState::Left, ..person("per_left", 3, true) };
        let counts = of(vec![
            Row::Person(person("per_a", 1, true)),
            Row::Person(person("per_b", 2, false)),
            Row::Person(left),
            Row::Node(node("/alive", &["a:b"], NOW.secs() + 1)),
            Row::Node(node("/over", &["a:c"], NOW.secs())),
        ]);
        assert_eq!((counts.people, counts.security_people, counts.nodes), (2, 1, 1));
    }
}
