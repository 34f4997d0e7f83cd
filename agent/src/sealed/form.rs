//! The form of the sealed state: its wire words and what they mean.
//!
//! Never leaves a copy of a key or token in memory that is not wiped, and never builds the whole state as one message.

use std::sync::Arc;

use avouch_domain::{EntryId, JwtSvid, SpiffeId, Tick, Timestamp, X509Svid};
use avouch_engine::cache::{KeptJwt, KeptX509, Snapshot};
use avouch_proto::convert::{
    ConvertError, bundle_from_wire, bundle_to_wire, delivered_entry, entry_to_wire, jwt_svid_to_wire,
    position_from_wire, position_to_wire, spiffe_id, spiffe_id_to_wire,
};
use avouch_proto::sealed_v1 as wire;
use prost::Message as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::{Kept, Owner, Unusable};
use crate::clock::Moment;

/// Of the form; the seal holds for it.
pub(super) const VERSION: u32 = 1;

pub(super) fn wrap(sealed: Vec<u8>, owner: &Owner) -> Vec<u8> {
    let envelope = wire::Envelope {
        version: VERSION,
        trust_domain: owner.trust_domain.to_string(),
        agent_id: owner.agent.to_string(),
        serial: owner.serial.clone(),
        sealed,
    };
    envelope.encode_to_vec()
}

/// The sealed bytes, if they say to be `owner`'s.
pub(super) fn unwrap(bytes: &[u8], owner: &Owner) -> Result<Vec<u8>, Unusable> {
    let envelope = wire::Envelope::decode(bytes).map_err(|e| Unusable::Malformed(e.to_string()))?;
    let foreign = |what: &str, came: &str, expected: &str| {
        Err(Unusable::Foreign(format!("it is of {what} {came:?}, expected {expected:?}")))
    };
    let (domain, agent) = (owner.trust_domain.to_string(), owner.agent.to_string());
    if envelope.version != VERSION {
        foreign("version", &envelope.version.to_string(), &VERSION.to_string())
    } else if envelope.trust_domain != domain {
        foreign("trust domain", &envelope.trust_domain, &domain)
    } else if envelope.agent_id != agent {
        foreign("agent", &envelope.agent_id, &agent)
    } else if envelope.serial != owner.serial {
        foreign("the agent SVID with serial number", &envelope.serial, &owner.serial)
    } else {
        Ok(envelope.sealed)
    }
}

/// Bytes that are wiped, also when they move to grow.
struct Buffer {
    bytes: Zeroizing<Vec<u8>>,
    most: usize,
}

impl Buffer {
    /// A part of the message: parts put one after the other are the whole. `None`: too big.
    fn put(&mut self, part: &wire::State) -> Option<()> {
        let needed = self.bytes.len().checked_add(part.encoded_len())?;
        if needed > self.most {
            return None;
        }
        if needed > self.bytes.capacity() {
            let mut bigger = Zeroizing::new(Vec::with_capacity(needed.saturating_mul(2)));
            bigger.extend_from_slice(&self.bytes);
            self.bytes = bigger;
        }
        part.encode(&mut *self.bytes).ok()
    }
}

/// The plain bytes of a state. `None`: more than `most`.
pub(super) fn encode(kept: &Kept, most: usize) -> Option<Zeroizing<Vec<u8>>> {
    let mut buffer = Buffer { bytes: Zeroizing::new(Vec::with_capacity(64 * 1024)), most };
    buffer.put(&wire::State {
        latest_ms: kept.latest.wall.0,
        latest_since_boot_ms: kept.latest.mono.0,
        boot_id: kept.latest.boot.clone(),
        position: kept.position.as_ref().map(position_to_wire),
        distrusted_authorities: kept.cache.distrusted.iter().map(ToString::to_string).collect(),
        ..Default::default()
    })?;
    for bundle in &kept.cache.bundles {
        buffer.put(&wire::State { bundles: vec![bundle_to_wire(bundle, None)], ..Default::default() })?;
    }
    for entry in &kept.cache.entries {
        buffer.put(&wire::State { entries: vec![entry_to_wire(entry, None)], ..Default::default() })?;
    }
    for svid in &kept.cache.x509 {
        let mut part = wire::State { x509_svids: vec![x509_to_wire(svid)], ..Default::default() };
        let put = buffer.put(&part);
        wipe(&mut part);
        put?;
    }
    for svid in &kept.cache.jwt {
        let mut part = wire::State { jwt_svids: vec![jwt_to_wire(svid)], ..Default::default() };
        let put = buffer.put(&part);
        wipe(&mut part);
        put?;
    }
    Some(buffer.bytes)
}

fn wipe(state: &mut wire::State) {
    for svid in &mut state.x509_svids {
        svid.key.zeroize();
    }
    for svid in state.jwt_svids.iter_mut().filter_map(|s| s.svid.as_mut()) {
        svid.token.zeroize();
    }
}

/// What the plain bytes of a state say.
pub(super) fn decode(agent: &SpiffeId, plain: &[u8]) -> Result<Kept, String> {
    let mut state = wire::State::decode(plain).map_err(|e| e.to_string())?;
    let kept = read(agent, &mut state).map_err(|e| e.to_string());
    // Of a state that can't be read whole, nothing stays.
    wipe(&mut state);
    kept
}

fn read(agent: &SpiffeId, state: &mut wire::State) -> Result<Kept, ConvertError> {
    let bundle = |wire| bundle_from_wire(wire).map(Arc::new);
    Ok(Kept {
        latest: Moment {
            wall: Timestamp(state.latest_ms),
            mono: Tick(state.latest_since_boot_ms),
            boot: std::mem::take(&mut state.boot_id),
        },
        position: state.position.as_ref().map(position_from_wire).transpose()?,
        cache: Snapshot {
            bundles: state.bundles.iter().map(bundle).collect::<Result<_, _>>()?,
            entries: state.entries.iter().map(|e| delivered_entry(agent, e)).collect::<Result<_, _>>()?,
            x509: state.x509_svids.iter_mut().map(x509_from_wire).collect::<Result<_, _>>()?,
            jwt: state.jwt_svids.iter_mut().map(jwt_from_wire).collect::<Result<_, _>>()?,
            distrusted: state.distrusted_authorities.iter().map(|id| id.as_str().into()).collect(),
        },
    })
}

fn x509_to_wire(kept: &KeptX509) -> wire::X509Svid {
    let svid = &kept.svid;
    wire::X509Svid {
        entry_id: kept.entry.to_string(),
        id: Some(spiffe_id_to_wire(&svid.id)),
        chain: svid.chain.iter().map(|der| der.to_vec()).collect(),
        key: svid.key.to_vec(),
        not_before_ms: svid.not_before.0,
        not_after_ms: svid.not_after.0,
        renew_at_ms: kept.renew_at.0,
        authorities: kept.authorities.iter().map(ToString::to_string).collect(),
    }
}

/// Takes the key out of the message: there is one copy of it.
fn x509_from_wire(wire: &mut wire::X509Svid) -> Result<KeptX509, ConvertError> {
    let svid = X509Svid {
        id: spiffe_id(wire.id.as_ref())?,
        chain: wire.chain.iter().map(|der| der.as_slice().into()).collect(),
        key: Arc::new(Zeroizing::new(std::mem::take(&mut wire.key))),
        not_before: Timestamp(wire.not_before_ms),
        not_after: Timestamp(wire.not_after_ms),
    };
    Ok(KeptX509 {
        entry: entry_id(&wire.entry_id)?,
        svid: Arc::new(svid),
        authorities: wire.authorities.iter().map(|id| id.as_str().into()).collect(),
        renew_at: Timestamp(wire.renew_at_ms),
    })
}

fn jwt_to_wire(kept: &KeptJwt) -> wire::JwtSvid {
    wire::JwtSvid {
        entry_id: kept.entry.to_string(),
        audience: kept.audience.clone(),
        svid: Some(jwt_svid_to_wire(&kept.svid)),
        key_id: kept.key_id.to_string(),
        renew_at_ms: kept.renew_at.0,
    }
}

/// Takes the token out of the message: there is one copy of it.
fn jwt_from_wire(wire: &mut wire::JwtSvid) -> Result<KeptJwt, ConvertError> {
    let svid = wire.svid.as_mut();
    let svid = svid.ok_or_else(|| ConvertError::Unreadable("a JWT-SVID without its token".to_owned()))?;
    Ok(KeptJwt {
        entry: entry_id(&wire.entry_id)?,
        audience: std::mem::take(&mut wire.audience),
        svid: JwtSvid {
            id: spiffe_id(svid.id.as_ref())?,
            token: Arc::new(Zeroizing::new(std::mem::take(&mut svid.token))),
            issued_at: Timestamp::from_secs(svid.issued_at),
            expires_at: Timestamp::from_secs(svid.expires_at),
        },
        key_id: wire.key_id.as_str().into(),
        renew_at: Timestamp(wire.renew_at_ms),
    })
}

fn entry_id(text: &str) -> Result<EntryId, ConvertError> {
    EntryId::new(text).map_err(|e| ConvertError::Unreadable(e.to_string()))
}
