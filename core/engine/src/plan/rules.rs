//! Plans that publish rules, say yes to them, and take them back.
//!
//! Never lets one security person change what is in force while there is another to ask, never gives a number twice, and
//! never goes back to a lower one: older rules come back under a new number. What a folder says is checked before.

use std::sync::Arc;

use avouch_domain::{
    AuditEvent, PersonId, Plan, PublishedRules, Row, RulesDigest, RulesFolder, RulesStanding, Timestamp,
};

use super::Draft;
use crate::registry::Registry;

/// Most proposals that wait for a yes at one time.
pub const WAITING_MAX: usize = 20;

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    #[error("{0} may not publish rules, expected a security person")]
    NotSecurity(PersonId),
    #[error("no rules have the number {0}: `avouch rules list` shows all")]
    Unknown(u64),
    #[error("rules {number} have the very same files and are in force: there is nothing to publish")]
    Same { number: u64 },
    #[error(
        "{WAITING_MAX} proposals wait for a yes, expected fewer: `avouch rules approve` or `avouch rules withdraw` some"
    )]
    TooManyWait,
    #[error("rules {number} are {}, expected proposed ones", .standing.name())]
    NotWaiting { number: u64, standing: RulesStanding },
    #[error("{0} published them, so the yes is another security person's")]
    OwnQuestion(PersonId),
    #[error(
        "rules {in_force} are in force, and a number never falls: publish the folder of rules {number} again"
    )]
    Behind { number: u64, in_force: u64 },
    #[error(
        "rules {number} were published before rules {in_force} came into force, and hold nothing of what these brought: \
         `avouch rules withdraw {number}`, then make the change again upon `avouch rules show {in_force} --out FOLDER`"
    )]
    Overtaken { number: u64, in_force: u64 },
    #[error("rules {0} are not in force and wait for no yes: there is nothing to withdraw")]
    Past(u64),
    #[error("no rules were in force before {0}: publish the folder that is to be in force")]
    NothingBefore(u64),
    #[error("the folder of rules {0} is not kept any more: publish it again")]
    NotKept(u64),
}

type Outcome = Result<PublishedRules, RulesError>;

/// Whether a person may publish, approve and withdraw rules.
///
/// # Errors
/// [`RulesError::NotSecurity`].
pub fn may_publish(registry: &Registry, actor: &PersonId) -> Result<(), RulesError> {
    match registry.person(actor) {
        Some(person) if person.is_active() && person.security => Ok(()),
        _ => Err(RulesError::NotSecurity(actor.clone())),
    }
}

/// Publishes a folder under the next number. While the actor is the only security person there is nobody to ask, and it
/// is in force at once; else another one has to say yes.
pub fn publish(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    folder: &RulesFolder,
    note: &Arc<str>,
) -> (Plan, Outcome) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let published = published(registry, at, actor, folder.digest, note);
    let published = published.map(|rules| put(&mut draft, AuditEvent::RulesPublished, rules));
    let mut plan = draft.finish();
    if published.is_ok() {
        plan.folders.push(folder.clone());
    }
    (plan, published)
}

fn published(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    digest: RulesDigest,
    note: &Arc<str>,
) -> Outcome {
    may_publish(registry, actor)?;
    let in_force = registry.rules_in_force();
    if let Some(same) = in_force.filter(|rules| rules.digest == digest) {
        return Err(RulesError::Same { number: same.number });
    }
    let open = |rules: &&PublishedRules| rules.standing == RulesStanding::Proposed;
    if waiting(registry).filter(open).count() >= WAITING_MAX {
        return Err(RulesError::TooManyWait);
    }
    let others = registry.people().filter(|p| p.security && p.is_active() && p.id != *actor).count();
    let number = registry.all_rules().next_back().map_or(0, |last| last.number);
    let proposed = PublishedRules {
        number: number.saturating_add(1),
        digest,
        note: note.clone(),
        standing: RulesStanding::Proposed,
        published_by: actor.clone(),
        published_at: at,
        yes_by: None,
        valid_from: None,
    };
    Ok(if others == 0 { agreed(proposed, at, actor) } else { proposed })
}

/// What was published after the rules in force.
fn waiting(registry: &Registry) -> impl Iterator<Item = &PublishedRules> {
    registry.all_rules().rev().take_while(|rules| rules.standing != RulesStanding::Approved)
}

fn agreed(rules: PublishedRules, at: Timestamp, by: &PersonId) -> PublishedRules {
    let (yes_by, valid_from) = (Some(by.clone()), Some(at));
    PublishedRules { standing: RulesStanding::Approved, yes_by, valid_from, ..rules }
}

/// Says yes to rules that another security person published; they are in force from now on.
pub fn approve(registry: &Registry, at: Timestamp, actor: &PersonId, number: u64) -> (Plan, Outcome) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let approved = approved(registry, at, actor, number);
    let approved = approved.map(|rules| put(&mut draft, AuditEvent::RulesApproved, rules));
    (draft.finish(), approved)
}

fn approved(registry: &Registry, at: Timestamp, actor: &PersonId, number: u64) -> Outcome {
    may_publish(registry, actor)?;
    let rules = registry.rules(number).ok_or(RulesError::Unknown(number))?;
    if rules.standing != RulesStanding::Proposed {
        return Err(RulesError::NotWaiting { number, standing: rules.standing });
    }
    if let Some(in_force) = registry.rules_in_force().filter(|in_force| in_force.number > number) {
        return Err(RulesError::Behind { number, in_force: in_force.number });
    }
    // What was made from other rules would take back, without a word, what came since.
    let since =
        |in_force: &&PublishedRules| in_force.valid_from.is_some_and(|from| from > rules.published_at);
    if let Some(in_force) = registry.rules_in_force().filter(since) {
        return Err(RulesError::Overtaken { number, in_force: in_force.number });
    }
    if rules.published_by == *actor {
        return Err(RulesError::OwnQuestion(actor.clone()));
    }
    Ok(agreed(rules.clone(), at, actor))
}

/// Takes a proposal back; of rules in force, publishes what was in force before under a new number, as [`publish`] does.
pub fn withdraw(registry: &Registry, at: Timestamp, actor: &PersonId, number: u64) -> (Plan, Outcome) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let withdrawn = withdrawn(registry, at, actor, number);
    let withdrawn = withdrawn.map(|(event, rules)| put(&mut draft, event, rules));
    (draft.finish(), withdrawn)
}

fn withdrawn(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    number: u64,
) -> Result<(AuditEvent, PublishedRules), RulesError> {
    may_publish(registry, actor)?;
    let rules = registry.rules(number).ok_or(RulesError::Unknown(number))?;
    if rules.standing == RulesStanding::Proposed {
        let back = PublishedRules { standing: RulesStanding::Withdrawn, ..rules.clone() };
        return Ok((AuditEvent::RulesWithdrawn, back));
    }
    if registry.rules_in_force() != Some(rules) {
        return Err(RulesError::Past(number));
    }
    let before = before(registry, number).ok_or(RulesError::NothingBefore(number))?;
    let note = format!("as rules {}", before.number).into();
    Ok((AuditEvent::RulesPublished, published(registry, at, actor, before.digest, &note)?))
}

/// The rules that were in force before these, with other files.
#[must_use]
pub fn before(registry: &Registry, number: u64) -> Option<&PublishedRules> {
    let withdrawn = registry.rules(number)?;
    let approved = registry.all_rules().rev().filter(|rules| rules.standing == RulesStanding::Approved);
    approved.skip_while(|rules| rules.number >= number).find(|rules| rules.digest != withdrawn.digest)
}

fn put(draft: &mut Draft<'_>, event: AuditEvent, rules: PublishedRules) -> PublishedRules {
    let mut detail =
        vec![("digest", rules.digest.to_string()), ("standing", rules.standing.name().to_owned())];
    if let Some(yes) = &rules.yes_by {
        let by = if *yes == rules.published_by { "self".to_owned() } else { yes.to_string() };
        detail.push(("yes_by", by));
    }
    draft.note_with(event, rules.number, detail);
    draft.put(Row::Rules(rules.clone()));
    rules
}
