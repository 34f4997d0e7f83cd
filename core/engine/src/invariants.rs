//! The promises of Avouch as functions: the simulator and the tests ask them after every step.
//!
//! Never repairs anything and never panics: each function names what is wrong, or says nothing.

use std::collections::{BTreeMap, BTreeSet};

use avouch_domain::{
    AuditEvent, AuditRow, Authority, AuthorityId, AuthorityKind, Bundle, Change, Entry, JwtSvid, LogPosition,
    Plan, Row, RowKey, SlotState, SpiffeId, Timestamp,
};

use crate::cache::WorkloadUpdate;
use crate::entitle::{authorized_entries, is_authorized};
use crate::registry::Registry;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("INV-{number}: {what}")]
pub struct Broken {
    pub number: u8,
    pub what: String,
}

fn broken(number: u8, what: impl Into<String>) -> Broken {
    Broken { number, what: what.into() }
}

/// INV-1 (server's side) An agent is handed only entries that it may serve.
///
/// # Errors
/// Names the first entry that it may not.
pub fn inv1_entitled_only(registry: &Registry, agent: &SpiffeId, wall: Timestamp) -> Result<(), Broken> {
    match authorized_entries(registry, agent, wall)
        .iter()
        .find(|e| is_authorized(registry, agent, &e.id, wall).is_none())
    {
        Some(entry) => Err(broken(1, format!("{agent} is handed entry {} that it may not serve", entry.id))),
        None => Ok(()),
    }
}

/// INV-1 (agent's side) A subscriber is handed only what its selectors are entitled to, under the name entitled to.
///
/// # Errors
/// Names the first identity that is not.
pub fn inv1_delivered_is_entitled(update: &WorkloadUpdate, entitled: &[&Entry]) -> Result<(), Broken> {
    let wrong = update.identities.iter().find(|identity| {
        !entitled.iter().any(|e| e.id == identity.entry_id && e.spiffe_id == identity.svid.id)
    });
    match wrong {
        Some(identity) => Err(broken(1, format!("{} is delivered without an entry", identity.svid.id))),
        None => Ok(()),
    }
}

/// INV-2 No expired SVID is delivered. Asked at the moment of delivery.
///
/// # Errors
/// Names the first that has expired.
pub fn inv2_nothing_expired(update: &WorkloadUpdate, wall: Timestamp) -> Result<(), Broken> {
    match update.identities.iter().find(|identity| identity.svid.not_after <= wall) {
        Some(identity) => {
            Err(broken(2, format!("{} ended at {}", identity.svid.id, identity.svid.not_after)))
        }
        None => Ok(()),
    }
}

/// INV-2, for a token.
///
/// # Errors
/// Names the token's subject.
pub fn inv2_token_is_alive(token: &JwtSvid, wall: Timestamp) -> Result<(), Broken> {
    if token.expires_at > wall {
        Ok(())
    } else {
        Err(broken(2, format!("a token of {} ended at {}", token.id, token.expires_at)))
    }
}

/// INV-3 A workload that stays connected never holds an expired SVID. Asked of what it holds, at any time.
///
/// # Errors
/// Names the first that has expired.
pub fn inv3_holds_nothing_expired(held: &WorkloadUpdate, wall: Timestamp) -> Result<(), Broken> {
    match held.identities.iter().find(|identity| identity.svid.not_after < wall) {
        Some(identity) => {
            Err(broken(3, format!("{} ended at {}", identity.svid.id, identity.svid.not_after)))
        }
        None => Ok(()),
    }
}

/// INV-4 Nothing is signed by an authority that is not yet published.
///
/// # Errors
/// Names the authority that signs and is in no bundle.
pub fn inv4_signer_is_published(active: &Authority, own: &Bundle) -> Result<(), Broken> {
    let known = match active.kind {
        AuthorityKind::X509 => own.x509_authorities.iter().any(|r| r.der == active.public),
        AuthorityKind::Jwt => own.jwt_authorities.iter().any(|k| k.key_id == active.id),
    };
    if known && active.published_at.is_some() {
        Ok(())
    } else {
        Err(broken(4, format!("authority {} signs and is not published", active.id)))
    }
}

/// INV-5 An authority leaves the bundle only after its last SVID (which ends with it at the latest), unless it
/// was tainted and revoked. `end_of` reads an X.509 authority's end.
///
/// # Errors
/// Names the authority that left too early.
pub fn inv5_authority_outlives_its_svids(
    before: &Bundle,
    after: &Bundle,
    end_of: impl Fn(&[u8]) -> Option<Timestamp>,
    wall: Timestamp,
) -> Result<(), Broken> {
    let ended = |end: Option<Timestamp>| end.is_some_and(|end| end <= wall);
    for root in before.x509_authorities.iter().filter(|root| !root.tainted) {
        let stays = after.x509_authorities.iter().any(|r| r.der == root.der);
        if !stays && !ended(end_of(&root.der)) {
            return Err(broken(5, "an X.509 authority left the bundle before its end"));
        }
    }
    for key in before.jwt_authorities.iter().filter(|key| !key.tainted) {
        let stays = after.jwt_authorities.iter().any(|k| k.key_id == key.key_id);
        if !stays && !ended(key.expires_at) {
            return Err(broken(5, format!("JWT authority {} left the bundle before its end", key.key_id)));
        }
    }
    Ok(())
}

/// INV-6 The (epoch, revision) that a reader sees only grows.
///
/// # Errors
/// Names both positions.
pub fn inv6_position_only_grows(before: LogPosition, after: LogPosition) -> Result<(), Broken> {
    if (after.epoch, after.revision) >= (before.epoch, before.revision) {
        Ok(())
    } else {
        Err(broken(6, format!("position went back from {before:?} to {after:?}")))
    }
}

/// INV-8 Every row that a plan changes has an audit row whose words fit it, and every audit row tells of a change.
///
/// # Errors
/// Names the row that is changed without a word, or the word that tells of nothing.
pub fn inv8_every_change_is_audited(plan: &Plan) -> Result<(), Broken> {
    let rows: BTreeSet<_> = plan.puts.iter().map(avouch_domain::Row::key).collect();
    let rows: BTreeSet<_> = rows.into_iter().chain(plan.deletes.iter().cloned()).collect();
    let told: BTreeSet<_> = plan.changes.iter().map(|c| c.key.clone()).collect();
    if rows != told {
        return Err(broken(8, "the changes of a plan are not its rows"));
    }
    let names: BTreeMap<_, _> = plan.puts.iter().filter_map(authority_name).collect();
    let name = |key: &RowKey| names.get(key).map(|id| &***id);
    let words = |key: &RowKey| plan.audit.iter().filter(|row| speaks_of(row, key, name(key))).count();
    if let Some(key) = rows.iter().find(|key| words(key) == 0) {
        return Err(broken(8, format!("{key:?} changes without an audit row")));
    }
    match plan.audit.iter().find(|row| !rows.iter().any(|key| speaks_of(row, key, name(key)))) {
        Some(row) => Err(broken(8, format!("{:?} of {} changes nothing", row.event, row.subject))),
        None => Ok(()),
    }
}

/// INV-8 for a plan of one item: each row that changes has one audit row, not two. (A batch may change a row twice.)
///
/// # Errors
/// As [`inv8_every_change_is_audited`], and names the row with too many.
pub fn inv8_every_change_is_audited_once(plan: &Plan) -> Result<(), Broken> {
    inv8_every_change_is_audited(plan)?;
    let names: BTreeMap<_, _> = plan.puts.iter().filter_map(authority_name).collect();
    // The rows of tokens, and of slots that are emptied, do not say which of several they mean.
    let named = |change: &&Change| match change.key {
        RowKey::JoinToken(_) => false,
        RowKey::Authority(..) => !change.deleted,
        _ => true,
    };
    let one_by_one = plan.changes.iter().filter(named);
    for key in one_by_one.map(|change| &change.key) {
        let name = names.get(key).map(|id| &***id);
        let words = plan.audit.iter().filter(|row| speaks_of(row, key, name)).count();
        if words != 1 {
            return Err(broken(8, format!("{key:?} changes once, and {words} audit rows say so")));
        }
    }
    Ok(())
}

fn authority_name(row: &Row) -> Option<(RowKey, &AuthorityId)> {
    match row {
        Row::Authority(authority) => Some((row.key(), &authority.id)),
        _ => None,
    }
}

/// True if an audit row tells of a change to this row. `name`: the authority that a slot holds afterwards. The rows of
/// a taint and of a revocation tell of the bundle they change, too.
fn speaks_of(row: &AuditRow, key: &RowKey, name: Option<&str>) -> bool {
    use AuditEvent as E;
    match row.event {
        E::EntryCreated | E::EntryUpdated | E::EntryDeleted => {
            matches!(key, RowKey::Entry(id) if row.subject == id.as_str())
        }
        E::NodeAttested
        | E::NodeRenewed
        | E::NodePromoted
        | E::NodeUpdated
        | E::NodeBanned
        | E::NodeDeleted => {
            matches!(key, RowKey::Node(id) if row.subject == id.as_str())
        }
        // Of what is no row: they come alone.
        E::NodeChainBegan | E::NodeGap | E::NodeConflict | E::ServerLeaving => false,
        E::PersonProposed | E::PersonAdded | E::PersonSignIn | E::PersonLeft => {
            matches!(key, RowKey::Person(id) if row.subject == id.as_str())
        }
        E::IdentityProposed
        | E::IdentityRegistered
        | E::IdentityAdopted
        | E::IdentityChanged
        | E::IdentityConfirmed
        | E::IdentityPassed
        | E::IdentityPaused
        | E::IdentityResumed
        | E::IdentityStopped
        | E::StopDrilled
        | E::StopTried => {
            matches!(key, RowKey::Identity(name) if row.subject == name.as_str())
        }
        E::IdentityPlaced => {
            let entry = row.detail.iter().find(|(name, _)| *name == "entry").map(|(_, id)| id.as_str());
            matches!(key, RowKey::Entry(id) if entry == Some(id.as_str()))
        }
        E::RulesPublished | E::RulesApproved | E::RulesWithdrawn => {
            matches!(key, RowKey::Rules(number) if row.subject == number.to_string())
        }
        E::RequestAsked | E::RequestYes | E::RequestNo | E::RequestSpent | E::RequestForgotten => {
            matches!(key, RowKey::Request(id) if row.subject == id.as_str())
        }
        E::GrantGiven | E::GrantUsed | E::GrantEnded | E::GrantForgotten => {
            matches!(key, RowKey::Grant(id) if row.subject == id.as_str())
        }
        E::FindingAccepted | E::FindingUnaccepted => {
            matches!(key, RowKey::Accepted(name, _) if row.subject == name.as_str())
        }
        E::EmergencyAsked | E::EmergencyAgreed | E::EmergencyEnded | E::EmergencyForgotten => {
            matches!(key, RowKey::Emergency(id) if row.subject == id.as_str())
        }
        E::JoinTokenCreated | E::JoinTokenSpent | E::JoinTokenExpired => matches!(key, RowKey::JoinToken(_)),
        E::BundleChanged | E::BundleDeleted => {
            matches!(key, RowKey::Bundle(domain) if row.subject == domain.as_str())
        }
        E::AuthorityTainted
        | E::AuthorityRevoked
        | E::AuthorityPrepared
        | E::AuthorityActivated
        | E::AuthorityRetired => {
            let of_bundle = matches!(row.event, E::AuthorityTainted | E::AuthorityRevoked);
            match key {
                RowKey::Bundle(_) => of_bundle,
                // A slot that is emptied no longer says whom it held.
                RowKey::Authority(..) => name.is_none_or(|name| row.subject == name),
                _ => false,
            }
        }
    }
}

/// INV-9 A queue stays within its limit.
///
/// # Errors
/// Names the queue and both numbers.
pub fn inv9_queue_is_bounded(name: &str, length: usize, limit: usize) -> Result<(), Broken> {
    if length <= limit {
        Ok(())
    } else {
        Err(broken(9, format!("queue {name} holds {length}, expected at most {limit}")))
    }
}

/// INV-10 With faults stopped, an agent holds what the server entitles it to: ids with revision numbers.
///
/// # Errors
/// Names the agent and the first difference.
pub fn inv10_converged(
    registry: &Registry,
    agent: &SpiffeId,
    wall: Timestamp,
    held: &BTreeSet<(String, i64)>,
) -> Result<(), Broken> {
    let wanted: BTreeSet<_> = authorized_entries(registry, agent, wall)
        .iter()
        .map(|e| (e.id.to_string(), e.revision_number))
        .collect();
    match wanted.symmetric_difference(held).next() {
        None => Ok(()),
        Some((id, revision)) => {
            Err(broken(10, format!("{agent} has not converged: entry {id} at revision number {revision}")))
        }
    }
}

/// At most one authority per kind and holder signs.
///
/// # Errors
/// Names the kind and holder with two.
pub fn one_signer_per_holder(registry: &Registry) -> Result<(), Broken> {
    let mut seen = BTreeSet::new();
    for authority in registry.authorities().filter(|a| a.state == SlotState::Active) {
        if !seen.insert((authority.kind, authority.holder.clone())) {
            return Err(broken(
                4,
                format!("two {:?} authorities of {:?} sign", authority.kind, authority.holder),
            ));
        }
    }
    Ok(())
}

/// INV-11 Who has acknowledged a stop serves nothing of it: no entry, no SVID. `serves`: names of everything it holds.
///
/// # Errors
/// Names the agent and the identity.
pub fn inv11_acknowledged_stop<'a>(
    agent: &SpiffeId,
    stopped: &SpiffeId,
    mut serves: impl Iterator<Item = &'a SpiffeId>,
) -> Result<(), Broken> {
    if serves.any(|name| name == stopped) {
        return Err(broken(11, format!("{agent} has acknowledged that {stopped} is stopped, and serves it")));
    }
    Ok(())
}
