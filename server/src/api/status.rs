//! Errors become gRPC answers here and only here: one function per error type, code beside text.
//!
//! Texts that clients of SPIRE know are kept; inner reasons follow a colon, except for `NotFound`, whose inner
//! reason is dropped as SPIRE does.

use avouch_domain::AuthorityKind;
use avouch_proto::convert::ConvertError;
use tonic::{Code, Status};

use crate::api::rate::RateError;
use crate::service::{
    AcceptError, ActionError, ActivateError, AnswerError, AskError, AskingError, AttestError, BadToken,
    BundleError, EmergencyError, EndError, EntryWriteError, GiveError, GivingError, IdentityError,
    JoinTokenError, JwtError, LeaveError, MintX509Error, NameError, NodeError, OrderError, PeopleError,
    RenewError, RevokeError, RulesError, ShipError, ShowError, TaintError, WideningError, WriteError,
    X509ItemError,
};

/// The result of one item of a batch, before it becomes a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
}

impl Refusal {
    /// "gist: inner", or the gist alone for `NotFound`.
    #[must_use]
    pub fn new(code: Code, gist: &str, inner: impl std::fmt::Display) -> Self {
        let message = if code == Code::NotFound { gist.to_owned() } else { format!("{gist}: {inner}") };
        Self { code, message }
    }

    /// A text of its own.
    #[must_use]
    pub fn plain(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.message)
    }
}

/// An argument that can't be read or is not allowed.
#[must_use]
pub fn invalid(gist: &str, error: &ConvertError) -> Refusal {
    Refusal::new(Code::InvalidArgument, gist, error)
}

/// An argument refused with a text of its own.
#[must_use]
pub fn bad(message: &str) -> Status {
    Status::invalid_argument(message)
}

/// The machinery below could not write.
#[must_use]
pub fn write_refused(gist: &str, error: &WriteError) -> Refusal {
    let code = match error {
        WriteError::Busy => Code::ResourceExhausted,
        WriteError::Stopped => Code::Unavailable,
        WriteError::Store(_) | WriteError::Lost(_) => Code::Internal,
    };
    Refusal::new(code, gist, error)
}

/// As [`write_refused`], for a whole call.
#[must_use]
pub fn write_failed(gist: &str, error: &WriteError) -> Status {
    write_refused(gist, error).into()
}

/// A rate limit said no.
#[must_use]
pub fn limited(work: &str, error: &RateError) -> Status {
    Status::resource_exhausted(format!("rejecting request due to {work} rate limiting: {error}"))
}

/// A page token nobody gave out.
#[must_use]
pub fn bad_token(gist: &str, error: &BadToken) -> Status {
    Refusal::new(Code::InvalidArgument, gist, error).into()
}

/// A node that is not there, or an agent version that is too long.
#[must_use]
pub fn node_failed(error: &NodeError) -> Status {
    match error {
        NodeError::NotFound => Status::not_found("agent not found"),
        NodeError::VersionTooLong => Status::invalid_argument(error.to_string()),
    }
}

/// Records of a node were not kept.
#[must_use]
pub fn ship_failed(error: &ShipError) -> Status {
    let code = match error {
        ShipError::Size { .. }
        | ShipError::Lines(_)
        | ShipError::NoHead
        | ShipError::Head(_)
        | ShipError::Certificate => Code::InvalidArgument,
        ShipError::Gap { .. } => Code::FailedPrecondition,
        ShipError::Conflict { .. } => Code::Aborted,
        ShipError::TooMany => Code::ResourceExhausted,
        ShipError::Write(error) => return write_failed("failed to keep the records", error),
    };
    Refusal::plain(code, error.to_string()).into()
}

/// A join token could not be made.
#[must_use]
pub fn join_token_failed(error: &JoinTokenError) -> Status {
    match error {
        JoinTokenError::Ttl => Status::invalid_argument("ttl is required, you must provide one"),
        JoinTokenError::AgentId(_) => Status::invalid_argument(format!("invalid agent ID: {error}")),
        _ => Status::internal(format!("failed to create token: {error}")),
    }
}

/// An attestation failed. The error's text is the whole message.
#[must_use]
pub fn attest_failed(error: &AttestError) -> Status {
    use avouch_attestors::node::Reason;
    let code = match error {
        AttestError::UnknownType(_) => Code::FailedPrecondition,
        AttestError::TokenUnknown | AttestError::TokenExpired | AttestError::Csr(_) => Code::InvalidArgument,
        AttestError::Banned => Code::PermissionDenied,
        AttestError::Verifier(error) => match error.reason {
            Reason::Malformed => Code::InvalidArgument,
            Reason::Refused => Code::PermissionDenied,
            Reason::Internal => Code::Internal,
        },
        AttestError::Write(error) => return write_failed("failed to attest", error),
        _ => Code::Internal,
    };
    Status::new(code, error.to_string())
}

/// A renewal failed.
#[must_use]
pub fn renew_failed(error: &RenewError) -> Status {
    match error {
        RenewError::NotAttested => Status::not_found("agent not found"),
        RenewError::MustReattest => avouch_proto::convert::permission_denied(
            avouch_proto::convert::DeniedReason::AgentMustReattest,
            "agent must reattest instead of renew",
        ),
        RenewError::MissingCsr => Status::invalid_argument("missing CSR"),
        RenewError::Csr(why) => Status::invalid_argument(format!("failed to parse CSR: {why}")),
        RenewError::Write(error) => write_failed("failed to update agent", error),
        RenewError::Sign(_) => Status::internal(error.to_string()),
    }
}

/// An entry could not be written. `gist` says what failed: create or update.
#[must_use]
pub fn entry_refused(gist: &str, error: &EntryWriteError) -> Refusal {
    match error {
        EntryWriteError::Similar(_) => Refusal::plain(Code::AlreadyExists, "similar entry already exists"),
        EntryWriteError::IdTaken | EntryWriteError::Repeated => {
            Refusal::new(Code::AlreadyExists, gist, error)
        }
        EntryWriteError::NotFound => Refusal::plain(Code::NotFound, gist),
        EntryWriteError::OfARun(_) | EntryWriteError::NotApart(..) => {
            Refusal::new(Code::InvalidArgument, gist, error)
        }
        EntryWriteError::NoBundle(_) => Refusal::new(Code::Internal, gist, error),
        EntryWriteError::Invalid(inner) => Refusal::new(
            Code::InvalidArgument,
            gist,
            format_args!("datastore-validation: invalid registration entry: {inner}"),
        ),
    }
}

/// A bundle could not be written. `gist` says what failed.
#[must_use]
pub fn bundle_refused(gist: &str, error: &BundleError) -> Refusal {
    match error {
        BundleError::OwnDomain => Refusal::new(Code::InvalidArgument, gist, error),
        BundleError::Exists => Refusal::plain(Code::AlreadyExists, "bundle already exists"),
        BundleError::NotFound => Refusal::plain(Code::NotFound, "bundle not found"),
        BundleError::InUse(_) => {
            Refusal::new(Code::FailedPrecondition, gist, format_args!("datastore-sql: {error}"))
        }
    }
}

/// One X509-SVID of a batch could not be made.
#[must_use]
pub fn x509_item_refused(error: &X509ItemError) -> Refusal {
    let code = match error {
        X509ItemError::NotAuthorized => {
            return Refusal::plain(Code::NotFound, "entry not found or not authorized");
        }
        X509ItemError::Sign(_) => Code::Internal,
        _ => Code::InvalidArgument,
    };
    Refusal::plain(code, error.to_string())
}

/// An X509-SVID could not be minted.
#[must_use]
pub fn mint_x509_failed(error: &MintX509Error) -> Status {
    let code = match error {
        MintX509Error::Sign(_) => Code::Internal,
        MintX509Error::NotInForce(_) => Code::FailedPrecondition,
        _ => Code::InvalidArgument,
    };
    Status::new(code, error.to_string())
}

/// A JWT-SVID could not be made.
#[must_use]
pub fn jwt_failed(error: &JwtError) -> Status {
    let code = match error {
        JwtError::Disabled => Code::Unimplemented,
        JwtError::NotAuthorized => {
            return Status::not_found("entry not found or not authorized");
        }
        JwtError::NoAudience | JwtError::EmptyAudience => Code::InvalidArgument,
        JwtError::NotInForce(_) => Code::FailedPrecondition,
        JwtError::Sign(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}

/// A node was not told whose it is that it was presented.
#[must_use]
pub fn show_failed(error: &ShowError) -> Status {
    let code = match error {
        ShowError::NoHook(_) => Code::PermissionDenied,
        ShowError::Presented(_) => Code::InvalidArgument,
    };
    Status::new(code, error.to_string())
}

/// A person was not added or agreed to.
#[must_use]
pub fn people_failed(error: &PeopleError) -> Status {
    let code = match error {
        PeopleError::NotTheFirst | PeopleError::NotWaiting(_) => Code::FailedPrecondition,
        PeopleError::UidTaken { .. } | PeopleError::SignInTaken(_) => Code::AlreadyExists,
        PeopleError::NotSecurity(_) | PeopleError::NotActive(_) | PeopleError::OwnQuestion(_) => {
            Code::PermissionDenied
        }
        PeopleError::Unknown(_) => Code::NotFound,
    };
    Status::new(code, error.to_string())
}

/// Nobody left.
#[must_use]
pub fn leave_failed(error: &LeaveError) -> Status {
    let code = match error {
        LeaveError::Unknown(_) => Code::NotFound,
        LeaveError::NotYours { .. } => Code::PermissionDenied,
        LeaveError::Gone(_) | LeaveError::LastSecurity(_) => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
}

/// Rules were not published, agreed to or withdrawn.
#[must_use]
pub fn rules_failed(error: &RulesError) -> Status {
    let code = match error {
        RulesError::NotSecurity(_) | RulesError::OwnQuestion(_) => Code::PermissionDenied,
        RulesError::Unknown(_) | RulesError::NotKept(_) => Code::NotFound,
        RulesError::Same { .. } => Code::AlreadyExists,
        RulesError::TooManyWait => Code::ResourceExhausted,
        RulesError::NotWaiting { .. }
        | RulesError::Behind { .. }
        | RulesError::Overtaken { .. }
        | RulesError::Past(_)
        | RulesError::NothingBefore(_) => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
}

/// Nobody is asked.
#[must_use]
pub fn asking_failed(error: &AskingError) -> Status {
    let code = match error {
        AskingError::NotServed(_) | AskingError::Show(_) => Code::PermissionDenied,
        AskingError::Text(_) | AskingError::Ask(AskError::NothingNeeded) => Code::InvalidArgument,
        AskingError::Ask(AskError::NotInForce(_)) => Code::FailedPrecondition,
        AskingError::Ask(AskError::IdTaken(_)) => Code::Aborted,
        AskingError::Ask(
            AskError::TooManyWait(_)
            | AskError::TooManyInAll
            | AskError::TooOften(_)
            | AskError::Resting { .. },
        ) => Code::ResourceExhausted,
    };
    Status::new(code, error.to_string())
}

/// A request was not answered.
#[must_use]
pub fn answer_failed(error: &AnswerError) -> Status {
    let code = match error {
        AnswerError::Unknown(_) => Code::NotFound,
        AnswerError::Consent(_) => Code::PermissionDenied,
        AnswerError::NotWaiting { .. } | AnswerError::NotInForce(_) => Code::FailedPrecondition,
        AnswerError::OtherText { .. } => Code::Aborted,
    };
    Status::new(code, error.to_string())
}

/// Nothing was given.
#[must_use]
pub fn giving_failed(error: &GivingError) -> Status {
    use GiveError as E;
    let code = match error {
        GivingError::Action(error) => action_code(error),
        GivingError::Give(E::NotInForce(_)) => Code::FailedPrecondition,
        GivingError::Give(E::Uses { .. } | E::Lasts { .. } | E::Names) => Code::InvalidArgument,
        GivingError::Give(E::Consent(_)) => Code::PermissionDenied,
        GivingError::Give(E::TooMany(_) | E::TooManyInAll) => Code::ResourceExhausted,
        GivingError::Give(E::IdTaken(_)) => Code::Aborted,
    };
    Status::new(code, error.to_string())
}

/// The rules in force do not know what is meant.
fn action_code(error: &ActionError) -> Code {
    match error {
        ActionError::NoRules => Code::FailedPrecondition,
        ActionError::Resource(_) => Code::NotFound,
        ActionError::Action { .. } => Code::InvalidArgument,
    }
}

/// Nothing came of an emergency.
#[must_use]
pub fn emergency_failed(error: &EmergencyError) -> Status {
    use EmergencyError as E;
    let code = match error {
        E::NotInForce(_) | E::NotWaiting { .. } | E::Ended(_) => Code::FailedPrecondition,
        E::Consent(_) | E::SamePerson { .. } => Code::PermissionDenied,
        E::Lasts { .. } | E::Names => Code::InvalidArgument,
        E::TooMany(_) | E::TooManyInAll => Code::ResourceExhausted,
        E::IdTaken(_) => Code::Aborted,
        E::Unknown(_) => Code::NotFound,
    };
    Status::new(code, error.to_string())
}

/// An emergency was not asked for.
#[must_use]
pub fn widening_failed(error: &WideningError) -> Status {
    match error {
        WideningError::Action(inner) => Status::new(action_code(inner), error.to_string()),
        WideningError::Why(_) => bad(&error.to_string()),
        WideningError::Emergency(inner) => emergency_failed(inner),
    }
}

/// A grant was not ended.
#[must_use]
pub fn ending_failed(error: &EndError) -> Status {
    let code = match error {
        EndError::Unknown(_) | EndError::NoCase(_) => Code::NotFound,
        EndError::Consent(_) => Code::PermissionDenied,
        EndError::Over { .. } => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
}

/// A finding was not accepted, or does not count again.
#[must_use]
pub fn accepting_failed(error: &AcceptError) -> Status {
    use AcceptError as E;
    let code = match error {
        E::Consent(_) | E::NotSecurity { .. } | E::Own { .. } => Code::PermissionDenied,
        E::NotFound(_) | E::NoIdentity(_) | E::NotAccepted { .. } => Code::NotFound,
        E::Until => Code::InvalidArgument,
        E::TooMany => Code::ResourceExhausted,
    };
    Status::new(code, error.to_string())
}

/// A text means no identity, or can't be the name of one.
#[must_use]
pub fn name_failed(error: &NameError) -> Status {
    let code = match error {
        NameError::Unknown(_) => Code::NotFound,
        NameError::Several { .. } => Code::FailedPrecondition,
        NameError::Form { .. } | NameError::NotOurs(_) => Code::InvalidArgument,
    };
    Status::new(code, error.to_string())
}

/// What came of writing an identity.
///
/// # Errors
/// The status of what kept it from being written.
pub fn identity_written<T>(done: Result<Result<T, IdentityError>, WriteError>) -> Result<T, Status> {
    let done = done.map_err(|e| write_failed("failed to write the identity", &e))?;
    done.map_err(|e| identity_failed(&e))
}

/// Nothing was done to an identity.
#[must_use]
pub fn identity_failed(error: &IdentityError) -> Status {
    use IdentityError as E;
    let code = match error {
        E::Exists(_) => Code::AlreadyExists,
        E::Unknown(_) | E::UnknownNode(_) => Code::NotFound,
        E::NoPerson(_) | E::OwnSuccessor | E::EndPassed | E::EndTooFar => Code::InvalidArgument,
        E::NotYours { .. } | E::NotSecurity(_) | E::SecondPerson(_) | E::NotConfirmed(_) => {
            Code::PermissionDenied
        }
        E::Runs(_)
        | E::NothingRuns(_)
        | E::Final(_)
        | E::Standing { .. }
        | E::AtItsEnd
        | E::OwnerLeft(_)
        | E::NothingToConfirm
        | E::Place(_) => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
}

/// An authority was not prepared, activated, tainted or revoked as wanted. `verb` says which of them failed.
#[must_use]
pub fn order_failed(kind: AuthorityKind, verb: &str, error: &OrderError) -> Status {
    let (authority, certificate) = match kind {
        AuthorityKind::X509 => ("X.509 authority", "root CA"),
        AuthorityKind::Jwt => ("JWT authority", "key"),
    };
    let gist = format!("failed to {verb} {authority}");
    let refused = |code, inner: &str| Status::new(code, format!("{gist}: {inner}"));
    let gone = || match (kind, verb) {
        (AuthorityKind::Jwt, _) => refused(Code::Internal, "no JWT Key found with provided key ID"),
        (_, "taint") => refused(Code::Internal, "no ca found with provided subject key ID"),
        _ => refused(Code::Internal, "no root CA found with provided subject key ID"),
    };
    let invalid = |inner: &dyn std::fmt::Display| Status::invalid_argument(inner.to_string());
    match error {
        OrderError::JwtDisabled => Status::unimplemented(error.to_string()),
        OrderError::NothingSigns => Status::unavailable(error.to_string()),
        OrderError::Activate(error @ ActivateError::NotPrepared(_)) => {
            Status::internal(format!("only Prepared authorities can be activated: {error}"))
        }
        OrderError::Activate(error) => invalid(error),
        OrderError::Taint(error @ TaintError::NotOld(_)) => {
            invalid(&format_args!("only Old local authorities can be tainted: {error}"))
        }
        OrderError::Taint(TaintError::Already) => {
            refused(Code::Internal, &format!("{certificate} is already tainted"))
        }
        OrderError::Taint(TaintError::Gone) | OrderError::Revoke(RevokeError::Gone) => gone(),
        OrderError::Taint(error) => invalid(error),
        OrderError::Revoke(RevokeError::Untainted) => {
            refused(Code::Internal, &format!("it is not possible to revoke an untainted {certificate}"))
        }
        OrderError::Revoke(error) => invalid(&format_args!("invalid authority ID: {error}")),
        OrderError::Write(error) => write_failed(&gist, error),
        OrderError::Step(inner) => refused(Code::Internal, inner),
    }
}
