//! Stretches of a node's records on their way to the server.
//!
//! Never reads a line: whether lines are a chain is the ledger's to say. Bounded by the limit of a message.

use avouch_domain::{ChainId, NodeHead, Shipment, Stand, Timestamp};

use super::ConvertError;
use crate::records_v1 as wire;

#[must_use]
pub fn shipment_to_wire(shipment: Shipment) -> wire::ShipRequest {
    wire::ShipRequest {
        chain: shipment.chain.to_string(),
        first: shipment.first,
        lines: shipment.lines,
        head: shipment.head.map(|head| wire::NodeHead {
            seq: head.stand.seq,
            hash: head.stand.hash.to_vec(),
            at_ms: head.at.0,
            certificate: head.certificate,
            signature: head.signature,
        }),
        gap: shipment.gap,
    }
}

/// # Errors
/// [`ConvertError::Unreadable`]: no chain, numbers that do not fit, or lines without a head over the last of them.
pub fn shipment_from_wire(wire: wire::ShipRequest) -> Result<Shipment, ConvertError> {
    let chain = ChainId::from_text(&wire.chain)
        .ok_or_else(|| ConvertError::unreadable("chain: expected 16 hexadecimal digits in lower case"))?;
    let head = wire.head.map(head).transpose()?;
    if !wire.lines.is_empty() {
        let last = wire.first.checked_add(wire.lines.len() as u64 - 1);
        // SQL knows no greater number.
        let last = last.filter(|last| wire.first > 0 && i64::try_from(*last).is_ok());
        let last = last.ok_or_else(|| ConvertError::unreadable("first: expected a number from 1 on"))?;
        let signed = head.as_ref().map_or(0, |head| head.stand.seq);
        if signed != last {
            return Err(ConvertError::Unreadable(format!(
                "the last line is record {last}, its head is of record {signed}"
            )));
        }
    }
    Ok(Shipment { chain, first: wire.first, lines: wire.lines, head, gap: wire.gap })
}

fn hash(bytes: &[u8]) -> Result<[u8; 32], ConvertError> {
    bytes
        .try_into()
        .map_err(|_| ConvertError::Unreadable(format!("a hash has {} bytes, expected 32", bytes.len())))
}

fn head(wire: wire::NodeHead) -> Result<NodeHead, ConvertError> {
    Ok(NodeHead {
        stand: Stand { seq: wire.seq, hash: hash(&wire.hash)? },
        at: Timestamp(wire.at_ms),
        certificate: wire.certificate,
        signature: wire.signature,
    })
}

#[must_use]
pub fn stand_to_wire(stand: &Stand) -> wire::ShipResponse {
    wire::ShipResponse { seq: stand.seq, hash: stand.hash.to_vec() }
}

/// # Errors
/// [`ConvertError::Unreadable`]: a hash of another length.
pub fn stand_from_wire(wire: &wire::ShipResponse) -> Result<Stand, ConvertError> {
    Ok(Stand { seq: wire.seq, hash: hash(&wire.hash)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipment() -> Shipment {
        let stand = Stand { seq: 8, hash: [3; 32] };
        let head = NodeHead { stand, at: Timestamp(5), certificate: vec![1], signature: vec![2] };
        let lines = vec!["a".into(), "b".into()];
        Shipment { chain: ChainId::new([9; 8]), first: 7, lines, head: Some(head), gap: false }
    }

    #[test]
    fn a_shipment_and_a_stand_survive_the_wire() {
        assert_eq!(shipment_from_wire(shipment_to_wire(shipment())), Ok(shipment()));
        let question = Shipment { first: 0, lines: vec![], head: None, ..shipment() };
        assert_eq!(shipment_from_wire(shipment_to_wire(question.clone())), Ok(question));
        let stand = Stand { seq: 1, hash: [7; 32] };
        assert_eq!(stand_from_wire(&stand_to_wire(&stand)), Ok(stand));
    }

    #[test]
    fn lines_without_a_head_over_the_last_of_them_are_no_shipment() {
        let wire = || shipment_to_wire(shipment());
        let cases = [
            wire::ShipRequest { head: None, ..wire() },
            wire::ShipRequest { first: 8, ..wire() },
            wire::ShipRequest { first: 0, ..wire() },
            wire::ShipRequest { first: u64::MAX, ..wire() },
            wire::ShipRequest { chain: "x".into(), ..wire() },
        ];
        for case in cases {
            assert!(shipment_from_wire(case.clone()).is_err(), "{case:?}");
        }
    }
}
