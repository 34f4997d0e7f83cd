//! Published rules, by number.

use avouch_domain::{PublishedRules, RulesStanding};

use super::Registry;

impl Registry {
    #[must_use]
    pub fn rules(&self, number: u64) -> Option<&PublishedRules> {
        self.rules.get(&number)
    }

    /// All published rules, ascending by number.
    pub fn all_rules(&self) -> impl DoubleEndedIterator<Item = &PublishedRules> {
        self.rules.values()
    }

    /// The approved rules with the highest number.
    #[must_use]
    pub fn rules_in_force(&self) -> Option<&PublishedRules> {
        self.all_rules().rev().find(|rules| rules.standing == RulesStanding::Approved)
    }
}
