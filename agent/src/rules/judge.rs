//! What to do about rules that a server announces, and whether what it then gives is what it announced.
//!
//! Never goes back: within one life of the server's store a number only rises, and an older life is refused. Never looks at
//! rules before their signature and digest are right.

use avouch_credential::rules::SignedRules;
use avouch_credential::statement::StatementError;
use avouch_domain::limits::RULES_FOLDER_MAX;
use avouch_domain::{Epoch, RulesDigest, TrustDomain};
use avouch_rules::{Finding, Folder};

use crate::upstream::{Announced, AnnouncedRules};

/// The rules held, as far as others are judged by them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub epoch: Epoch,
    pub number: u64,
    pub digest: RulesDigest,
    pub key: Vec<u8>,
}

impl From<&SignedRules> for Standing {
    fn from(signed: &SignedRules) -> Self {
        Self { epoch: signed.epoch, number: signed.number, digest: signed.digest, key: signed.key.clone() }
    }
}

/// What follows from an announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What is held is what is in force.
    Keep,
    Fetch,
    /// In a newer life of the store no rules are published.
    Forget,
    Refuse(Refusal),
}

/// Why an announcement is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the server shows an older life of its store: rules {held} stay")]
    OlderLife { held: u64 },
    #[error(
        "the server shows rules {announced} after rules {held}, and a number never falls: rules {held} stay"
    )]
    Lower { held: u64, announced: u64 },
    #[error("the server shows other rules under the number {0} than before: those held stay")]
    OtherContent(u64),
}

/// What an announcement means for who holds `held`.
pub(super) fn judge(held: Option<&Standing>, announced: &Announced) -> Verdict {
    let Some(held) = held else {
        return if announced.rules.is_some() { Verdict::Fetch } else { Verdict::Keep };
    };
    if announced.epoch < held.epoch {
        return Verdict::Refuse(Refusal::OlderLife { held: held.number });
    }
    let same_life = announced.epoch == held.epoch;
    match &announced.rules {
        Some(_) if !same_life => Verdict::Fetch,
        None if !same_life => Verdict::Forget,
        Some(rules) if rules.number > held.number => Verdict::Fetch,
        Some(rules) if rules.number == held.number && rules.digest == held.digest => Verdict::Keep,
        Some(rules) if rules.number == held.number => Verdict::Refuse(Refusal::OtherContent(held.number)),
        lower => {
            let announced = lower.as_ref().map_or(0, |rules| rules.number);
            Verdict::Refuse(Refusal::Lower { held: held.number, announced })
        }
    }
}

/// Why rules are not taken up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("their statement does not hold for trust domain {domain}: {problem}")]
    Statement { domain: TrustDomain, problem: StatementError },
    #[error("they are signed with another key than the one that the server announced")]
    OtherKey,
    #[error("they are of another life of the server's store than announced")]
    OtherLife,
    #[error("rules {announced} were announced and {given} came")]
    Lower { announced: u64, given: u64 },
    #[error("rules {0} came with another digest than announced")]
    OtherDigest(u64),
    #[error("their files have the digest {given}, signed is {signed}")]
    Files { given: RulesDigest, signed: RulesDigest },
    #[error("they have {0} bytes, expected at most {RULES_FOLDER_MAX}")]
    TooLarge(usize),
    #[error("the check finds: {0}")]
    Found(String),
    #[error("the check ended early")]
    Ended,
}

impl Unusable {
    pub fn found(findings: &[Finding]) -> Self {
        let first = findings.first().map(ToString::to_string).unwrap_or_default();
        let more = findings.len().saturating_sub(1);
        Self::Found(if more > 0 { format!("{first} (and {more} more)") } else { first })
    }
}

/// Whether what came is what was announced, or newer.
///
/// # Errors
/// [`Unusable`].
pub(super) fn fits(
    announced: &Announced,
    rules: &AnnouncedRules,
    given: &SignedRules,
) -> Result<(), Unusable> {
    if given.key != rules.key {
        return Err(Unusable::OtherKey);
    }
    if given.epoch != announced.epoch {
        return Err(Unusable::OtherLife);
    }
    if given.number < rules.number {
        return Err(Unusable::Lower { announced: rules.number, given: given.number });
    }
    if given.number == rules.number && given.digest != rules.digest {
        return Err(Unusable::OtherDigest(given.number));
    }
    Ok(())
}

/// Whether files are what is signed for this trust domain. The folder then still has to pass the check.
///
/// # Errors
/// [`Unusable`].
pub(super) fn verified(
    domain: &TrustDomain,
    signed: &SignedRules,
    files: &[(String, String)],
) -> Result<Folder, Unusable> {
    let holds = signed.check(domain);
    holds.map_err(|problem| Unusable::Statement { domain: domain.clone(), problem })?;
    let bytes = files.iter().map(|(name, text)| name.len() + text.len()).sum();
    if bytes > RULES_FOLDER_MAX {
        return Err(Unusable::TooLarge(bytes));
    }
    let folder = Folder::new(files.iter().cloned()).map_err(|findings| Unusable::found(&findings))?;
    let given = folder.rules_digest();
    if given != signed.digest {
        return Err(Unusable::Files { given, signed: signed.digest });
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use avouch_credential::key::PrivateKey;
    use avouch_domain::fixtures::domain;
    use avouch_domain::{KeyType, Timestamp};

    use super::*;

    const LIFE: Epoch = Epoch { started: 5, random: 5 };

    fn standing(number: u64) -> Standing {
        Standing { epoch: LIFE, number, digest: RulesDigest([1; 32]), key: vec![1] }
    }

    fn announced(epoch: Epoch, number: u64) -> Announced {
        let rules = AnnouncedRules { number, digest: RulesDigest([1; 32]), key: vec![1] };
        Announced { epoch, rules: (number > 0).then_some(rules), fleet: None }
    }

    #[test]
    fn who_holds_nothing_takes_whatever_is_in_force() {
        assert_eq!(judge(None, &announced(LIFE, 1)), Verdict::Fetch);
        assert_eq!(judge(None, &announced(LIFE, 0)), Verdict::Keep);
    }

    #[test]
    fn a_higher_number_is_fetched_and_the_same_one_kept() {
        assert_eq!(judge(Some(&standing(3)), &announced(LIFE, 4)), Verdict::Fetch);
        assert_eq!(judge(Some(&standing(3)), &announced(LIFE, 3)), Verdict::Keep);
        // A server whose keys do not outlive it signs with another one.
        let other_key = Standing { key: vec![2], ..standing(3) };
        assert_eq!(judge(Some(&other_key), &announced(LIFE, 3)), Verdict::Keep);
    }

    #[test]
    fn within_one_life_of_the_store_nothing_goes_back() {
        for lower in [0, 2] {
            let refused = Verdict::Refuse(Refusal::Lower { held: 3, announced: lower });
            assert_eq!(judge(Some(&standing(3)), &announced(LIFE, lower)), refused);
        }
        let other = Standing { digest: RulesDigest([2; 32]), ..standing(3) };
        let refused = Verdict::Refuse(Refusal::OtherContent(3));
        assert_eq!(judge(Some(&other), &announced(LIFE, 3)), refused);
    }

    #[test]
    fn a_restored_store_may_count_anew_and_an_older_one_is_refused() {
        let newer = Epoch { started: 6, random: 1 };
        for number in [1, 3, 9] {
            assert_eq!(judge(Some(&standing(3)), &announced(newer, number)), Verdict::Fetch);
        }
        assert_eq!(judge(Some(&standing(3)), &announced(newer, 0)), Verdict::Forget);
        let older = Epoch { started: 4, random: 9 };
        for number in [0, 9] {
            let refused = Verdict::Refuse(Refusal::OlderLife { held: 3 });
            assert_eq!(judge(Some(&standing(3)), &announced(older, number)), refused);
        }
    }

    fn files() -> Vec<(String, String)> {
        vec![("a.cedar".to_owned(), "x".to_owned())]
    }

    fn signed(key: &PrivateKey, files: &[(String, String)]) -> SignedRules {
        let digest = Folder::new(files.iter().cloned()).unwrap().rules_digest();
        SignedRules::sign(&domain(), LIFE, 7, digest, Timestamp(9), key).unwrap()
    }

    fn key() -> PrivateKey {
        PrivateKey::generate(KeyType::EcP256).unwrap()
    }

    #[test]
    fn files_that_were_signed_are_taken_and_others_are_not() {
        let signed = signed(&key(), &files());
        assert!(verified(&domain(), &signed, &files()).is_ok());
        let changed = vec![("a.cedar".to_owned(), "y".to_owned())];
        assert!(matches!(verified(&domain(), &signed, &changed), Err(Unusable::Files { .. })));
        let renamed = vec![("b.cedar".to_owned(), "x".to_owned())];
        assert!(matches!(verified(&domain(), &signed, &renamed), Err(Unusable::Files { .. })));
    }

    #[test]
    fn a_statement_that_was_changed_or_made_for_another_domain_is_refused() {
        let signed = signed(&key(), &files());
        let later = SignedRules { number: 8, ..signed.clone() };
        assert!(matches!(verified(&domain(), &later, &files()), Err(Unusable::Statement { .. })));
        let other = TrustDomain::new("other.org").unwrap();
        assert!(matches!(verified(&other, &signed, &files()), Err(Unusable::Statement { .. })));
    }

    #[test]
    fn more_than_a_folder_may_hold_is_refused() {
        let text = "/".repeat(60 * 1024);
        let many: Vec<_> = (0..20).map(|n| (format!("{n:02}.cedar"), text.clone())).collect();
        let signed = signed(&key(), &many);
        assert!(matches!(verified(&domain(), &signed, &many), Err(Unusable::TooLarge(_))));
        let large = vec![("a.cedar".to_owned(), "/".repeat(65 * 1024))];
        let small =
            SignedRules::sign(&domain(), LIFE, 7, RulesDigest([0; 32]), Timestamp(9), &key()).unwrap();
        assert!(matches!(verified(&domain(), &small, &large), Err(Unusable::Found(_))));
    }

    #[test]
    fn what_comes_must_be_what_was_announced_or_newer() {
        let signed = signed(&key(), &files());
        let rules = AnnouncedRules { number: signed.number, digest: signed.digest, key: signed.key.clone() };
        let announced = Announced { epoch: LIFE, rules: Some(rules.clone()), fleet: None };
        let told = |rules: AnnouncedRules| fits(&announced, &rules, &signed);
        assert_eq!(told(rules.clone()), Ok(()));
        assert_eq!(told(AnnouncedRules { number: 6, digest: RulesDigest([9; 32]), ..rules.clone() }), Ok(()));
        assert_eq!(told(AnnouncedRules { key: vec![1], ..rules.clone() }), Err(Unusable::OtherKey));
        let lower = Unusable::Lower { announced: 8, given: 7 };
        assert_eq!(told(AnnouncedRules { number: 8, ..rules.clone() }), Err(lower));
        let other = AnnouncedRules { digest: RulesDigest([9; 32]), ..rules.clone() };
        assert_eq!(told(other), Err(Unusable::OtherDigest(7)));
        let elsewhere = Announced { epoch: Epoch::default(), ..announced.clone() };
        assert_eq!(fits(&elsewhere, &rules, &signed), Err(Unusable::OtherLife));
    }
}
