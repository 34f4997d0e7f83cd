//! Positions in the change log on the watch stream.
//!
//! Never trusts a head that is not 32 bytes: such a position counts as none, and a snapshot follows.

use avouch_domain::{Epoch, Head, LogPosition, Revision};

use super::ConvertError;
use crate::watch_v1;

#[must_use]
pub fn position_to_wire(position: &LogPosition) -> watch_v1::Position {
    watch_v1::Position {
        epoch_started: position.epoch.started,
        epoch_random: position.epoch.random,
        revision: position.revision.0,
        head: position.head.0.to_vec(),
    }
}

/// # Errors
/// A head of another length.
pub fn position_from_wire(wire: &watch_v1::Position) -> Result<LogPosition, ConvertError> {
    let head = <[u8; 32]>::try_from(wire.head.as_slice()).map_err(|_| {
        ConvertError::Unreadable(format!("position has a head of {} bytes, expected 32", wire.head.len()))
    })?;
    Ok(LogPosition {
        epoch: Epoch { started: wire.epoch_started, random: wire.epoch_random },
        revision: Revision(wire.revision),
        head: Head(head),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_the_wire() {
        let position = LogPosition {
            epoch: Epoch { started: -1, random: u64::MAX },
            revision: Revision(7),
            head: Head([9; 32]),
        };
        assert_eq!(position_from_wire(&position_to_wire(&position)), Ok(position));
    }

    #[test]
    fn a_head_of_another_length_is_no_position() {
        assert!(position_from_wire(&watch_v1::Position::default()).is_err());
    }
}
