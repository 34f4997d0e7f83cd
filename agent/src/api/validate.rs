//! ValidateJWTSVID: rules of the token are `avouch-credential`'s; here is what a caller may ask and learn.
//!
//! Never a claim of a foreign trust domain that the operator did not allow.

use avouch_credential::jwt::verify::{JwtKeys, verify};
use avouch_domain::{Timestamp, TrustDomain};
use avouch_proto::workload as wire;
use prost::Message;
use prost::bytes::Bytes;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use super::status::Refusal;

/// Both fields are mandatory (WA-16).
///
/// # Errors
/// [`Refusal`] for the empty one.
pub fn check(request: &wire::ValidateJwtsvidRequest) -> Result<(), Refusal> {
    if request.audience.is_empty() {
        return Err(Refusal::AudienceMissing);
    }
    if request.svid.is_empty() {
        return Err(Refusal::SvidMissing);
    }
    Ok(())
}

/// Verifies the token and says whose it is.
///
/// # Errors
/// [`Refusal::Token`] with the rule it breaks.
pub fn answer(
    request: &wire::ValidateJwtsvidRequest,
    keys: &JwtKeys,
    own: &TrustDomain,
    allowed_foreign_claims: &[String],
    now: Timestamp,
) -> Result<Bytes, Refusal> {
    let audience = [request.audience.clone()];
    let token = verify(&request.svid, keys, &audience, now).map_err(Refusal::Token)?;
    let foreign = token.id.trust_domain() != own;
    let mut claims = token.claims;
    if foreign {
        claims.retain(|name, _| {
            matches!(name.as_str(), "sub" | "aud" | "exp") || allowed_foreign_claims.iter().any(|a| a == name)
        });
    }
    claims.insert("aud".into(), token.audience.into());
    let fields = claims.into_iter().map(|(name, claim)| (name, value(claim))).collect();
    let response =
        wire::ValidateJwtsvidResponse { spiffe_id: token.id.to_string(), claims: Some(Struct { fields }) };
    Ok(response.encode_to_vec().into())
}

fn value(json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(truth) => Kind::BoolValue(truth),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Array(list) => {
            Kind::ListValue(ListValue { values: list.into_iter().map(value).collect() })
        }
        serde_json::Value::Object(object) => Kind::StructValue(Struct {
            fields: object.into_iter().map(|(name, member)| (name, value(member))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}
