//! Why a request was decided as it was: a stable code, one sentence, and what to do next.

/// One reason. Of several, the one is told that has to be mended first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A rule allows it.
    Allowed,
    /// A rule allows it within limits.
    Limited,
    /// No rule allows it now, and two people opened an emergency for it.
    Emergency,
    /// A yes or a grant is missing, and would be enough.
    Asked,
    UnknownResource,
    UnknownAction,
    UnknownPreset,
    Params,
    PolicyError,
    Standing,
    Ended,
    Owner,
    Worn,
    Environment,
    Domain,
    Sensitivity,
    Task,
    /// The task names what it was opened for, and this is not among it.
    Tools,
    /// A rule of the folder forbids it.
    Forbidden,
    /// No rule allows it.
    NoRule,
    /// There is nobody who asks.
    NoCaller,
}

impl Reason {
    pub const ALL: [Self; 21] = [
        Self::Allowed,
        Self::Limited,
        Self::Emergency,
        Self::Asked,
        Self::UnknownResource,
        Self::UnknownAction,
        Self::UnknownPreset,
        Self::Params,
        Self::PolicyError,
        Self::Standing,
        Self::Ended,
        Self::Owner,
        Self::Worn,
        Self::Environment,
        Self::Domain,
        Self::Sensitivity,
        Self::Task,
        Self::Tools,
        Self::Forbidden,
        Self::NoRule,
        Self::NoCaller,
    ];

    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Limited => "limited",
            Self::Emergency => "emergency",
            Self::Asked => "asked",
            Self::UnknownResource => "unknown_resource",
            Self::UnknownAction => "unknown_action",
            Self::UnknownPreset => "unknown_preset",
            Self::Params => "params",
            Self::PolicyError => "policy_error",
            Self::Standing => "standing",
            Self::Ended => "ended",
            Self::Owner => "owner",
            Self::Worn => "worn",
            Self::Environment => "environment",
            Self::Domain => "domain",
            Self::Sensitivity => "sensitivity",
            Self::Task => "task",
            Self::Tools => "tools",
            Self::Forbidden => "forbidden",
            Self::NoRule => "no_rule",
            Self::NoCaller => "no_caller",
        }
    }

    /// One sentence for whoever was refused or allowed.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Allowed => "a rule allows it",
            Self::Limited => "a rule allows it within limits",
            Self::Emergency => "two people opened an emergency for it",
            Self::Asked => "it is allowed once what is missing is given",
            Self::UnknownResource => "the rules know no such resource",
            Self::UnknownAction => "the resource has no such action",
            Self::UnknownPreset => "the rules know no such preset",
            Self::Params => "a parameter is not one that the resource declares",
            Self::PolicyError => "a rule could not be evaluated, and what can't be judged is denied",
            Self::Standing => "the identity is not active: proposed, paused or stopped",
            Self::Ended => "the identity's end is reached",
            Self::Owner => "the identity's owner is no longer active",
            Self::Worn => "an AI agent wears an identity that is not its own",
            Self::Environment => "the identity and the resource are of different environments",
            Self::Domain => "the resource lies in a domain that the identity does not have",
            Self::Sensitivity => "the resource is more sensitive than the identity may see",
            Self::Task => "an AI agent needs an open task with calls left",
            Self::Tools => "the task was opened for other resources",
            Self::Forbidden => "a rule forbids it, and no yes would change that",
            Self::NoRule => "no rule allows it",
            Self::NoCaller => "nobody was named who asks",
        }
    }

    /// What to do next. `FOLDER` stands for the folder of the rules.
    #[must_use]
    pub fn next(self) -> &'static str {
        match self {
            Self::Allowed => "nothing",
            Self::Limited => "nothing; the gate holds the answer to the limits",
            Self::Emergency => {
                "nothing; it ends by itself, and anybody ends it before: `avouch emergency list`"
            }
            Self::Asked => "ask for what is missing",
            Self::UnknownResource => "list it in resources.toml, then `avouch rules check FOLDER`",
            Self::UnknownAction => "take one of the resource's actions in resources.toml",
            Self::UnknownPreset => "take one of presets.toml, or none",
            Self::Params => "compare it with the resource's params in resources.toml",
            Self::PolicyError => "mend the rule that is named, then `avouch rules check FOLDER`",
            Self::Standing => "ask its owner; a stopped identity is made anew",
            Self::Ended => "have its owner give it a later end",
            Self::Owner => "give it an active owner",
            Self::Worn => "run it under an identity of kind ai_agent",
            Self::Environment => "use an identity of the resource's environment",
            Self::Domain => "use an identity made for this domain",
            Self::Sensitivity => "use an identity made for this sensitivity",
            Self::Task => "open a task first",
            Self::Tools => "open a task that names it: `avouch run IDENTITY --tools RESOURCE -- CMD`",
            Self::Forbidden => "read the rule that is named; change it, then `avouch rules check FOLDER`",
            Self::NoRule => {
                "use a preset that has this action, or write a permit, then `avouch rules check FOLDER`"
            }
            Self::NoCaller => "name an identity",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_code_of_its_own_a_sentence_and_a_next_step() {
        let codes: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(!reason.sentence().is_empty() && !reason.next().is_empty());
            assert!(!reason.sentence().contains('.') && !reason.next().ends_with('.'), "{reason:?}");
        }
    }
}
