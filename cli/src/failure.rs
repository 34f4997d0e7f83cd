//! How verbs of `avouch` fail: a code and a sentence.

use tonic::{Code, Status};

use crate::exit::{DENIED, FAILED, UNREACHABLE, USAGE};
use crate::out::Out;
use crate::verbs::VerbError;

/// Why a verb ended with another code than 0. `text` goes to standard error; empty: all was said.
#[derive(Debug)]
pub(crate) struct Failure {
    pub code: u8,
    pub text: String,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl std::fmt::Display) -> Self {
        Self { code, text: text.to_string() }
    }

    pub(crate) fn usage(text: impl std::fmt::Display) -> Self {
        Self::new(USAGE, text)
    }

    /// The exit code of what was done; says why if it was not.
    pub(crate) fn code_of(done: Result<(), Self>, out: &mut Out) -> u8 {
        let Err(failure) = done else { return 0 };
        if !failure.text.is_empty() {
            out.complain(&format!("Error: {}\n", failure.text));
        }
        failure.code
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let code = match status.code() {
            Code::PermissionDenied => DENIED,
            Code::Unavailable => UNREACHABLE,
            Code::InvalidArgument => USAGE,
            _ => FAILED,
        };
        let text = match status.code() {
            Code::Unimplemented => "it does not know this call: it is no Avouch, or an older one".into(),
            _ => status.message().to_owned(),
        };
        Self { code, text }
    }
}

impl From<VerbError> for Failure {
    fn from(error: VerbError) -> Self {
        match error {
            VerbError::Rpc(status) => status.into(),
            other => Self::new(FAILED, other),
        }
    }
}
