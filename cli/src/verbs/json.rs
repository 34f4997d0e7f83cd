//! JSON forms of replies, as SPIRE's command line prints them: proto names, enums by name, 64-bit integers as texts,
//! bytes in base64, empty values shown, absent messages left out.
//!
//! Never pretty: one line, keys sorted.

use avouch_proto::{
    agent_debug_v1, bundle_v1, debug_v1, entry_v1, localauthority_v1, svid_v1, types, workload,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// One line with sorted keys and a line end.
pub fn one_line(value: &Value) -> String {
    format!("{}\n", sorted(value))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by_key(|(key, _)| *key);
            Value::Object(keys.into_iter().map(|(k, v)| (k.clone(), sorted(v))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

fn long(n: impl std::fmt::Display) -> Value {
    Value::String(n.to_string())
}

/// Bytes as JSON has them: standard base64.
pub fn bytes(bytes: &[u8]) -> Value {
    Value::String(STANDARD.encode(bytes))
}

fn list<T>(items: &[T], one: impl Fn(&T) -> Value) -> Value {
    Value::Array(items.iter().map(one).collect())
}

/// Adds `key` if the message is there.
fn put<T>(object: &mut Value, key: &str, message: Option<&T>, form: impl Fn(&T) -> Value) {
    if let (Some(map), Some(message)) = (object.as_object_mut(), message) {
        map.insert(key.to_owned(), form(message));
    }
}

fn id(id: &types::Spiffeid) -> Value {
    json!({"trust_domain": id.trust_domain, "path": id.path})
}

fn selector(s: &types::Selector) -> Value {
    json!({"type": s.r#type, "value": s.value})
}

fn status(s: &types::Status) -> Value {
    json!({"code": s.code, "message": s.message})
}

pub fn entry(e: &types::Entry) -> Value {
    let mut value = json!({
        "id": e.id,
        "selectors": list(&e.selectors, selector),
        "x509_svid_ttl": e.x509_svid_ttl,
        "federates_with": e.federates_with,
        "admin": e.admin,
        "downstream": e.downstream,
        "expires_at": long(e.expires_at),
        "dns_names": e.dns_names,
        "revision_number": long(e.revision_number),
        "store_svid": e.store_svid,
        "jwt_svid_ttl": e.jwt_svid_ttl,
        "hint": e.hint,
        "created_at": long(e.created_at),
    });
    put(&mut value, "spiffe_id", e.spiffe_id.as_ref(), id);
    put(&mut value, "parent_id", e.parent_id.as_ref(), id);
    put(&mut value, "additional_attributes", e.additional_attributes.as_ref(), |a| {
        json!({
            "disable_x509_svid_prefetch": a.disable_x509_svid_prefetch,
            "jwt_svid_include_jti": a.jwt_svid_include_jti,
        })
    });
    value
}

pub fn entries(list_: &[types::Entry]) -> Value {
    json!({"entries": list(list_, entry), "next_page_token": ""})
}

/// One item of a batch: its status and what it carries.
pub fn item<T>(
    result_status: Option<&types::Status>,
    key: &str,
    message: Option<&T>,
    form: impl Fn(&T) -> Value,
) -> Value {
    let mut value = Value::Object(Map::new());
    put(&mut value, "status", result_status, status);
    put(&mut value, key, message, form);
    value
}

pub fn deleted_entries(reply: &entry_v1::BatchDeleteEntryResponse) -> Value {
    let one = |r: &entry_v1::batch_delete_entry_response::Result| {
        item(r.status.as_ref(), "id", Some(&r.id), |id| Value::String(id.clone()))
    };
    json!({"results": list(&reply.results, one)})
}

pub fn count(n: i32) -> Value {
    json!({"count": n})
}

pub fn agent(a: &types::Agent) -> Value {
    let mut value = json!({
        "attestation_type": a.attestation_type,
        "x509svid_serial_number": a.x509svid_serial_number,
        "x509svid_expires_at": long(a.x509svid_expires_at),
        "selectors": list(&a.selectors, selector),
        "banned": a.banned,
        "can_reattest": a.can_reattest,
        "agent_version": a.agent_version,
    });
    put(&mut value, "id", a.id.as_ref(), id);
    value
}

pub fn agents(list_: &[types::Agent]) -> Value {
    json!({"agents": list(list_, agent), "next_page_token": ""})
}

pub fn join_token(t: &types::JoinToken) -> Value {
    json!({"value": t.value, "expires_at": long(t.expires_at)})
}

pub fn bundle(b: &types::Bundle) -> Value {
    json!({
        "trust_domain": b.trust_domain,
        "x509_authorities": list(&b.x509_authorities, |a| json!({"asn1": bytes(&a.asn1), "tainted": a.tainted})),
        "jwt_authorities": list(&b.jwt_authorities, |k| json!({
            "public_key": bytes(&k.public_key),
            "key_id": k.key_id,
            "expires_at": long(k.expires_at),
            "tainted": k.tainted,
        })),
        "refresh_hint": long(b.refresh_hint),
        "sequence_number": long(b.sequence_number),
        "wit_authorities": list(&b.wit_authorities, |k| json!({
            "public_key": bytes(&k.public_key),
            "key_id": k.key_id,
            "expires_at": long(k.expires_at),
            "tainted": k.tainted,
        })),
    })
}

pub fn bundles(reply: &bundle_v1::ListFederatedBundlesResponse) -> Value {
    json!({"bundles": list(&reply.bundles, bundle), "next_page_token": reply.next_page_token})
}

pub fn set_bundles(reply: &bundle_v1::BatchSetFederatedBundleResponse) -> Value {
    let one = |r: &bundle_v1::batch_set_federated_bundle_response::Result| {
        item(r.status.as_ref(), "bundle", r.bundle.as_ref(), bundle)
    };
    json!({"results": list(&reply.results, one)})
}

pub fn deleted_bundles(reply: &bundle_v1::BatchDeleteFederatedBundleResponse) -> Value {
    let one = |r: &bundle_v1::batch_delete_federated_bundle_response::Result| {
        item(r.status.as_ref(), "trust_domain", Some(&r.trust_domain), |d| Value::String(d.clone()))
    };
    json!({"results": list(&reply.results, one)})
}

fn authority(a: &localauthority_v1::AuthorityState) -> Value {
    json!({
        "authority_id": a.authority_id,
        "expires_at": long(a.expires_at),
        "upstream_authority_subject_key_id": a.upstream_authority_subject_key_id,
    })
}

/// Active, prepared and old authority.
pub fn authorities(states: &[Option<localauthority_v1::AuthorityState>; 3]) -> Value {
    let mut value = Value::Object(Map::new());
    for (key, state) in ["active", "prepared", "old"].into_iter().zip(states) {
        put(&mut value, key, state.as_ref(), authority);
    }
    value
}

/// The authority that something was done to, under the name it has in the reply.
pub fn changed_authority(key: &str, state: &localauthority_v1::AuthorityState) -> Value {
    json!({ key: authority(state) })
}

pub fn upstream_authority(subject_key_id: &str) -> Value {
    json!({"upstream_authority_subject_key_id": subject_key_id})
}

pub fn minted_jwt(reply: &svid_v1::MintJwtsvidResponse) -> Value {
    let mut value = Value::Object(Map::new());
    put(&mut value, "svid", reply.svid.as_ref(), |s| {
        let mut svid = json!({
            "token": s.token,
            "expires_at": long(s.expires_at),
            "issued_at": long(s.issued_at),
            "hint": s.hint,
        });
        put(&mut svid, "id", s.id.as_ref(), id);
        svid
    });
    value
}

/// Name of a log level as the enum has it; the number if it has none.
fn level(number: i32) -> Value {
    match types::LogLevel::try_from(number) {
        Ok(level) => Value::String(level.as_str_name().to_owned()),
        Err(_) => Value::from(number),
    }
}

pub fn logger(l: &types::Logger) -> Value {
    json!({"current_level": level(l.current_level), "launch_level": level(l.launch_level)})
}

fn chain_link(link_id: Option<&types::Spiffeid>, expires_at: i64, subject: &str) -> Value {
    let mut value = json!({"expires_at": long(expires_at), "subject": subject});
    put(&mut value, "id", link_id, id);
    value
}

pub fn server_info(i: &debug_v1::GetInfoResponse) -> Value {
    json!({
        "svid_chain": list(&i.svid_chain, |c| chain_link(c.id.as_ref(), c.expires_at, &c.subject)),
        "uptime": i.uptime,
        "agents_count": i.agents_count,
        "federated_bundles_count": i.federated_bundles_count,
        "entries_count": i.entries_count,
    })
}

pub fn agent_info(i: &agent_debug_v1::GetInfoResponse) -> Value {
    json!({
        "svid_chain": list(&i.svid_chain, |c| chain_link(c.id.as_ref(), c.expires_at, &c.subject)),
        "uptime": i.uptime,
        "svids_count": i.svids_count,
        "last_sync_success": long(i.last_sync_success),
        "cached_x509_svids_count": i.cached_x509_svids_count,
        "cached_jwt_svids_count": i.cached_jwt_svids_count,
        "cached_svidstore_x509_svids_count": i.cached_svidstore_x509_svids_count,
    })
}

pub fn x509_update(reply: &workload::X509svidResponse) -> Value {
    json!({
        "svids": list(&reply.svids, |s| json!({
            "spiffe_id": s.spiffe_id,
            "x509_svid": bytes(&s.x509_svid),
            "x509_svid_key": bytes(&s.x509_svid_key),
            "bundle": bytes(&s.bundle),
            "hint": s.hint,
        })),
        "crl": list(&reply.crl, |c| bytes(c)),
        "federated_bundles": by_domain(&reply.federated_bundles),
    })
}

pub fn jwt_update(svids: &workload::JwtsvidResponse, bundles: &workload::JwtBundlesResponse) -> Value {
    json!([
        {"svids": list(&svids.svids, |s| json!({"spiffe_id": s.spiffe_id, "svid": s.svid, "hint": s.hint}))},
        {"bundles": by_domain(&bundles.bundles)},
    ])
}

fn by_domain(map: &std::collections::BTreeMap<String, Vec<u8>>) -> Value {
    Value::Object(map.iter().map(|(domain, der)| (domain.clone(), bytes(der))).collect())
}

pub fn validated(reply: &workload::ValidateJwtsvidResponse, claims: &Value) -> Value {
    json!({"spiffe_id": reply.spiffe_id, "claims": claims})
}

/// A value of `google.protobuf.Struct`. Whole numbers have no fraction.
pub fn of_proto(value: &prost_types::Value) -> Value {
    use prost_types::value::Kind;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(b)) => Value::Bool(*b),
        Some(Kind::StringValue(s)) => Value::String(s.clone()),
        Some(Kind::ListValue(l)) => Value::Array(l.values.iter().map(of_proto).collect()),
        Some(Kind::StructValue(s)) => of_struct(s),
        Some(Kind::NumberValue(n)) => number(*n),
    }
}

fn number(n: f64) -> Value {
    // Every whole number a double holds exactly is below 2^53.
    let whole = n.fract() == 0.0 && n.abs() < 9_007_199_254_740_992.0;
    if whole { serde_json::from_str(&format!("{n:.0}")).unwrap_or(Value::Null) } else { Value::from(n) }
}

pub fn of_struct(s: &prost_types::Struct) -> Value {
    Value::Object(s.fields.iter().map(|(key, value)| (key.clone(), of_proto(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_as_spire_prints_it() {
        let token = types::JoinToken { value: "t".into(), expires_at: 1_795_343_810 };
        assert_eq!(one_line(&join_token(&token)), "{\"expires_at\":\"1795343810\",\"value\":\"t\"}\n");
    }

    #[test]
    fn levels_are_names() {
        let l = types::Logger { current_level: 5, launch_level: 4 };
        assert_eq!(one_line(&logger(&l)), "{\"current_level\":\"INFO\",\"launch_level\":\"WARN\"}\n");
    }

    #[test]
    fn empty_values_are_shown_and_absent_messages_are_not() {
        let text = one_line(&entries(&[types::Entry { id: "e".into(), ..Default::default() }]));
        assert_eq!(
            text,
            "{\"entries\":[{\"admin\":false,\"created_at\":\"0\",\"dns_names\":[],\"downstream\":false,\"expires_at\":\"0\",\"federates_with\":[],\"hint\":\"\",\"id\":\"e\",\"jwt_svid_ttl\":0,\"revision_number\":\"0\",\"selectors\":[],\"store_svid\":false,\"x509_svid_ttl\":0}],\"next_page_token\":\"\"}\n"
        );
    }

    #[test]
    fn an_x509_update_shows_empty_maps_and_base64() {
        let svid = workload::X509svid { x509_svid: vec![1, 2, 3], ..Default::default() };
        let reply = workload::X509svidResponse { svids: vec![svid], ..Default::default() };
        assert_eq!(
            one_line(&x509_update(&reply)),
            "{\"crl\":[],\"federated_bundles\":{},\"svids\":[{\"bundle\":\"\",\"hint\":\"\",\"spiffe_id\":\"\",\"x509_svid\":\"AQID\",\"x509_svid_key\":\"\"}]}\n"
        );
    }

    #[test]
    fn whole_numbers_of_claims_have_no_fraction() {
        assert_eq!(number(1_795_347_449.0).to_string(), "1795347449");
        assert_eq!(number(1.5).to_string(), "1.5");
    }
}
