//! What both daemons do to every gRPC call and connection, as gRPC servers do and the library does not.
//!
//! Never knows what a call means.

use std::error::Error;
use std::io;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tonic::{Code, Status};

/// How long the caller waits, by its `grpc-timeout` header: at most eight digits and a unit.
#[must_use]
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    headers.get("grpc-timeout").and_then(timeout_of)
}

fn timeout_of(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

/// A request that is too large ends as it does at every other gRPC server: rewords the library's status in headers or
/// trailers, if it is the one about size.
pub fn reword_too_large(headers: &mut HeaderMap) {
    let code = headers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()));
    if code != Some(Code::OutOfRange) {
        return;
    }
    let Some(text) = Status::from_header_map(headers).and_then(|status| text_of(status.message())) else {
        return;
    };
    let mut fresh = HeaderMap::new();
    if Status::resource_exhausted(text).add_header(&mut fresh).is_ok() {
        for (name, value) in &fresh {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// The text of gRPC for the library's text about a request that is too large.
fn text_of(text: &str) -> Option<String> {
    let sizes = text.strip_prefix("Error, decoded message length too large: found ")?;
    let (found, limit) = sizes.strip_suffix(" bytes")?.split_once(" bytes, the limit is: ")?;
    Some(format!("grpc: received message larger than max ({found} vs. {limit})"))
}

/// The name of a code as gRPC for Go prints it, and SPIRE's labels and logs with it.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// Whether a connection ended because the peer merely went away: most clients hang up without the words of the
/// protocol, and the last words of this side then find nobody.
#[must_use]
pub fn peer_left(error: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    let kinds = [BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof];
    let first = causes(Some(error)).find_map(|cause| cause.downcast_ref::<io::Error>());
    first.is_some_and(|io| kinds.contains(&io.kind()))
}

/// An error and all that lies below it, the nearest first.
pub fn causes<'a>(
    error: Option<&'a (dyn Error + 'static)>,
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error, |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_librarys_text_about_size_is_reworded() {
        let reworded = |status: Status| {
            let mut headers = HeaderMap::new();
            status.add_header(&mut headers).unwrap();
            reword_too_large(&mut headers);
            let status = Status::from_header_map(&headers).unwrap();
            (status.code(), status.message().to_owned())
        };
        let library = "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes";
        assert_eq!(
            reworded(Status::out_of_range(library)),
            (Code::ResourceExhausted, "grpc: received message larger than max (5 vs. 4)".into())
        );
        let other = (Code::OutOfRange, "beyond the end".to_owned());
        assert_eq!(reworded(Status::out_of_range("beyond the end")), other);
    }

    #[test]
    fn a_timeout_header_has_up_to_eight_digits_and_a_unit() {
        let read = |text: &str| timeout_of(&HeaderValue::from_str(text).unwrap());
        assert_eq!(read("300m"), Some(Duration::from_millis(300)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "m", "123456789S", "-1S", "1x", "1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
