//! The rules that this agent decides by.

/// Rules and their number.
#[derive(Debug)]
pub struct Held {
    pub number: u64,
    pub rules: avouch_rules::Rules,
}
