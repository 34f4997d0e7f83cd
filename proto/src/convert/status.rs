//! Outcomes: the status of one item of a batch, and why a caller was refused, which agents act on.
//!
//! Never puts the reason of a refusal into the text only: real agents read the detail and ignore the text.

use prost::Message as _;
use tonic::{Code, Status};

use crate::types;
use crate::types::permission_denied_details::Reason;

/// Why an agent was refused; [`Reason::Unknown`] never leaves a server.
pub type DeniedReason = Reason;

const TYPE_URL: &str = "type.googleapis.com/spire.api.types.PermissionDeniedDetails";

/// `google.rpc.Status`, as it stands in the trailer `grpc-status-details-bin`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// The status of an item that went well.
#[must_use]
pub fn item_ok() -> types::Status {
    types::Status { code: Code::Ok.into(), message: "OK".to_owned() }
}

/// The status of an item that failed.
#[must_use]
pub fn item_failure(code: Code, message: impl Into<String>) -> types::Status {
    types::Status { code: code.into(), message: message.into() }
}

/// What an item's status says: `Ok`, or its code and message. A missing status is `Ok`, as SPIRE's own replies
/// have it in one method.
///
/// # Errors
/// The item failed.
pub fn status_of_item(status: Option<&types::Status>) -> Result<(), Status> {
    match status {
        None => Ok(()),
        Some(status) if status.code == i32::from(Code::Ok) => Ok(()),
        Some(status) => Err(Status::new(Code::from(status.code), status.message.clone())),
    }
}

/// A refusal with its reason in the trailer `grpc-status-details-bin`.
#[must_use]
pub fn permission_denied(reason: DeniedReason, message: impl Into<String>) -> Status {
    let message = message.into();
    let detail = types::PermissionDeniedDetails { reason: reason.into() };
    let status = RpcStatus {
        code: Code::PermissionDenied.into(),
        message: message.clone(),
        details: vec![prost_types::Any { type_url: TYPE_URL.to_owned(), value: detail.encode_to_vec() }],
    };
    Status::with_details(Code::PermissionDenied, message, status.encode_to_vec().into())
}

/// The reason of a refusal; `None` without a readable detail.
#[must_use]
pub fn denied_reason(status: &Status) -> Option<DeniedReason> {
    if status.code() != Code::PermissionDenied {
        return None;
    }
    let status = RpcStatus::decode(status.details()).ok()?;
    let any = status.details.iter().find(|any| any.type_url == TYPE_URL)?;
    let detail = types::PermissionDeniedDetails::decode(any.value.as_slice()).ok()?;
    Reason::try_from(detail.reason).ok().filter(|reason| *reason != Reason::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_survives_the_trailer() {
        for reason in [Reason::AgentExpired, Reason::AgentBanned, Reason::AgentMustReattest] {
            assert_eq!(denied_reason(&permission_denied(reason, "no")), Some(reason));
        }
        assert_eq!(denied_reason(&Status::permission_denied("no")), None);
    }

    #[test]
    fn the_trailer_has_the_bytes_spire_sends() {
        let status = permission_denied(Reason::AgentNotActive, "m");
        let expected =
            [b"\x08\x07\x12\x01m\x1a\x41\x0a\x3b".as_slice(), TYPE_URL.as_bytes(), b"\x12\x02\x08\x03"]
                .concat();
        assert_eq!(status.details(), expected);
    }

    #[test]
    fn an_item_without_a_status_went_well() {
        assert!(status_of_item(None).is_ok() && status_of_item(Some(&item_ok())).is_ok());
        let failed = status_of_item(Some(&item_failure(Code::NotFound, "entry not found"))).unwrap_err();
        assert_eq!((failed.code(), failed.message()), (Code::NotFound, "entry not found"));
    }
}
