//! Identities: the governed record of one non-human. Its name is a SPIFFE ID; entries that give out this ID are where
//! it may run.
//!
//! Never without an owner and an end. Never asks a clock: whether the end has come is judged with the time given.

use std::num::NonZeroU16;

use crate::code::Code;
use crate::code_digest::CodeDigest;
use crate::person::PersonId;
use crate::spiffe_id::SpiffeId;
use crate::time::Timestamp;

/// What an identity is. Rules and lifetimes depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Service,
    Machine,
    Pipeline,
    AiAgent,
    /// A person's helper: acts on one person's behalf.
    Helper,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Service, Self::Machine, Self::Pipeline, Self::AiAgent, Self::Helper];

    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Machine => "machine",
            Self::Pipeline => "pipeline",
            Self::AiAgent => "ai_agent",
            Self::Helper => "helper",
        }
    }

    /// Reads what [`Self::name`] gives.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Decides by itself what to do: gets short lifetimes, and stops when nobody answers for it.
    #[must_use]
    pub fn acts_by_itself(self) -> bool {
        matches!(self, Self::AiAgent | Self::Helper)
    }
}

/// Where an identity acts. Never changes: what is proved in `test` is made anew for `prod`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Environment {
    Test,
    Staging,
    Prod,
}

impl Environment {
    pub const ALL: [Self; 3] = [Self::Test, Self::Staging, Self::Prod];

    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Staging => "staging",
            Self::Prod => "prod",
        }
    }

    /// Reads what [`Self::name`] gives.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|environment| environment.name() == name)
    }
}

crate::named!(Kind, Environment);

/// Why an identity is paused or stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A person said so.
    Person,
    /// Its end has come.
    EndReached,
    /// The owner it was given by adoption did not confirm in time.
    NotConfirmed,
    /// Its owner left, and nobody took over.
    OwnerLeft,
    /// Somebody began to run it with other code than it has.
    OtherCode,
}

impl Cause {
    pub const ALL: [Self; 5] =
        [Self::Person, Self::EndReached, Self::NotConfirmed, Self::OwnerLeft, Self::OtherCode];

    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::EndReached => "end_reached",
            Self::NotConfirmed => "not_confirmed",
            Self::OwnerLeft => "owner_left",
            Self::OtherCode => "other_code",
        }
    }

    /// Reads what [`Self::name`] gives.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.name() == name)
    }
}

/// Where an identity stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Waits for a yes of somebody other than its owner and who registered it.
    Proposed,
    Active,
    /// Comes back.
    Paused(Cause),
    /// Final.
    Stopped(Cause),
}

impl Standing {
    /// All stable names.
    pub const NAMES: [&str; 4] = ["proposed", "active", "paused", "stopped"];

    /// The stable name, without the cause.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Active => "active",
            Self::Paused(_) => "paused",
            Self::Stopped(_) => "stopped",
        }
    }

    #[must_use]
    pub fn cause(self) -> Option<Cause> {
        match self {
            Self::Paused(cause) | Self::Stopped(cause) => Some(cause),
            Self::Proposed | Self::Active => None,
        }
    }

    /// Reads what [`Self::name`] and [`Self::cause`] give.
    #[must_use]
    pub fn from_parts(name: &str, cause: Option<Cause>) -> Option<Self> {
        match (name, cause) {
            ("proposed", None) => Some(Self::Proposed),
            ("active", None) => Some(Self::Active),
            ("paused", Some(cause)) => Some(Self::Paused(cause)),
            ("stopped", Some(cause)) => Some(Self::Stopped(cause)),
            _ => None,
        }
    }
}

/// How the last stop of an identity went, or the last drill of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopTried {
    /// When it began.
    pub at: Timestamp,
    /// Nodes that may have served it.
    pub nodes: u32,
    /// Those of them that confirmed in time; at most `nodes`.
    pub confirmed: u32,
    /// Milliseconds until the last of them did.
    pub took_ms: u32,
}

/// One identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub spiffe_id: SpiffeId,
    pub kind: Kind,
    pub environment: Environment,
    pub purpose: Code,
    /// The preset of the rules that says what it may do; `None`: no rule is for it but those that name no preset.
    pub preset: Option<Code>,
    /// The person who answers for it.
    pub owner: PersonId,
    /// Whose it becomes when the owner leaves, to be confirmed.
    pub successor: Option<PersonId>,
    /// Nothing of it lives longer. Exclusive.
    pub end: Timestamp,
    pub standing: Standing,
    /// Rises each time it is paused or stopped; never falls. What was given out under a lower number is void.
    pub stop_number: u64,
    /// Who registered it.
    pub added_by: PersonId,
    pub added_at: Timestamp,
    /// Who said yes. Its owner only in `test`.
    pub yes_by: Option<PersonId>,
    /// Given its owner by adoption, who is to confirm before this moment.
    pub confirm_by: Option<Timestamp>,
    /// `None`: never.
    pub stop_tried: Option<StopTried>,
    /// The code that its runs have. `None`: any.
    pub code: Option<CodeDigest>,
    /// Most runs of it at a time on one node. `None`: as many as a node has.
    pub runs_max: Option<NonZeroU16>,
}

impl Identity {
    /// True if what it is entitled to may be handed out at this time.
    #[must_use]
    pub fn is_in_force(&self, wall: Timestamp) -> bool {
        self.pauses_at().is_some_and(|(at, _)| wall < at)
    }

    /// When it pauses by itself: at its end, or, if it acts by itself, when nobody has confirmed to own it.
    #[must_use]
    pub fn pauses_at(&self) -> Option<(Timestamp, Cause)> {
        if self.standing != Standing::Active {
            return None;
        }
        let end = (self.end, Cause::EndReached);
        match self.confirm_by.filter(|_| self.kind.acts_by_itself()) {
            Some(confirm) if confirm < self.end => Some((confirm, Cause::NotConfirmed)),
            _ => Some(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::identity;

    #[test]
    fn every_name_is_read_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
        for environment in Environment::ALL {
            assert_eq!(Environment::from_name(environment.name()), Some(environment));
        }
        assert_eq!("prd".parse::<Environment>(), Err("expected one of test, staging, prod".to_owned()));
        for cause in Cause::ALL {
            for standing in [Standing::Paused(cause), Standing::Stopped(cause), Standing::Active] {
                assert_eq!(Standing::from_parts(standing.name(), standing.cause()), Some(standing));
            }
        }
        assert_eq!(Standing::from_parts("paused", None), None, "nothing is paused without a cause");
        assert_eq!(Standing::from_parts("active", Some(Cause::Person)), None);
    }

    #[test]
    fn nothing_is_in_force_at_its_end_or_while_it_is_paused() {
        let active = identity("/test/coder", Kind::AiAgent);
        let end = active.end;
        assert!(active.is_in_force(Timestamp(end.0 - 1)) && !active.is_in_force(end));
        for standing in
            [Standing::Proposed, Standing::Paused(Cause::Person), Standing::Stopped(Cause::Person)]
        {
            assert!(!Identity { standing, ..active.clone() }.is_in_force(Timestamp(0)));
        }
    }

    #[test]
    fn what_acts_by_itself_pauses_when_nobody_confirms_and_a_service_does_not() {
        let confirm = Timestamp(5);
        let adopted = |kind| Identity { confirm_by: Some(confirm), ..identity("/test/x", kind) };
        assert_eq!(adopted(Kind::AiAgent).pauses_at(), Some((confirm, Cause::NotConfirmed)));
        let service = adopted(Kind::Service);
        assert_eq!(service.pauses_at(), Some((service.end, Cause::EndReached)));
        let paused = Identity { standing: Standing::Paused(Cause::Person), ..adopted(Kind::AiAgent) };
        assert_eq!(paused.pauses_at(), None, "what is paused does not pause again");
    }
}
