//! What the server knows of an identity, and the rules in force: for `avouch rules try`.
//!
//! Only looks.

use std::str::FromStr;

use avouch_proto::governance_v1 as wire;
use avouch_rules::{Environment, Folder, Kind, Standing};

use super::gates::in_force;
use super::{Failure, Place, open};
use crate::clock;
use crate::exit::FAILED;
use crate::out::Out;

/// An identity, and the rules that decide about it.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its SPIFFE ID.
    pub name: String,
    pub kind: Kind,
    pub environment: Environment,
    pub standing: Standing,
    pub preset: Option<String>,
    pub purpose: String,
    /// Its end is reached.
    pub ended: bool,
    pub rules: Folder,
}

/// Asks the server. What went wrong is said, and is the exit code.
///
/// # Errors
/// The exit code.
pub async fn known(name: String, place: &Place, out: &mut Out) -> Result<Known, u8> {
    match asked(name, place, out).await {
        Ok(known) => Ok(known),
        Err(failure) => Err(Failure::code_of(Err(failure), out)),
    }
}

async fn asked(name: String, place: &Place, out: &mut Out) -> Result<Known, Failure> {
    let session = &mut open(place, out).await?;
    let found = session.client.get_identity(wire::IdentityRequest { name }).await?.into_inner();
    let identity = found.identity.unwrap_or_default();
    let rules = in_force(session).await?.ok_or_else(|| {
        Failure::new(
            FAILED,
            "no rules are published, so everything is denied: `avouch gate add`, or `avouch rules publish`",
        )
    })?;
    Ok(Known {
        kind: word(&identity.kind)?,
        environment: word(&identity.environment)?,
        standing: word(&identity.standing)?,
        preset: Some(identity.preset).filter(|preset| !preset.is_empty()),
        purpose: identity.purpose,
        ended: identity.ends_at <= clock::now().wall.secs(),
        name: identity.spiffe_id,
        rules,
    })
}

/// A word of a newer server is none that could be judged.
fn word<T: FromStr<Err = String>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|e| Failure::new(FAILED, format!("the server says \"{text}\", {e}")))
}
