//! How SPIRE's metrics spell methods, statuses and label values.
//!
//! Never: a series.

/// A gRPC method as series spell it: `workload_api_fetch_x509svid`. `service` is the short name of the logs
/// (`WorkloadAPI`, `agent.v1.Agent`, `Health`).
#[must_use]
pub fn snake_rpc(service: &str, method: &str) -> String {
    service.split('.').chain([method]).map(snake).collect::<Vec<_>>().join("_")
}

fn snake(part: &str) -> String {
    if part == "SubscribeToX509SVIDs" {
        return "subscribe_to_x509_svids".into();
    }
    let chars: Vec<char> = part.chars().collect();
    let mut out = String::new();
    for (at, c) in chars.iter().enumerate() {
        let lower = |i: Option<usize>| i.and_then(|i| chars.get(i)).is_some_and(char::is_ascii_lowercase);
        let inner = at > 0 && at + 1 < chars.len();
        if c.is_ascii_uppercase() && inner && (lower(at.checked_sub(1)) || lower(Some(at + 1))) {
            out.push('_');
        }
        out.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    }
    out
}

/// Label values keep letters, digits and underscores; each run of other characters becomes one underscore.
pub(super) fn clean(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            out.push(c);
        } else if !out.ends_with('_') {
            out.push('_');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_names_follow_the_rule_of_the_original() {
        for (service, method, name) in [
            ("WorkloadAPI", "FetchX509SVID", "workload_api_fetch_x509svid"),
            ("WorkloadAPI", "FetchX509Bundles", "workload_api_fetch_x509_bundles"),
            ("WorkloadAPI", "FetchJWTSVID", "workload_api_fetch_jwtsvid"),
            ("svid.v1.SVID", "BatchNewX509SVID", "svid_v1_svid_batch_new_x509svid"),
            ("svid.v1.SVID", "NewDownstreamX509CA", "svid_v1_svid_new_downstream_x509ca"),
            ("agent.v1.Agent", "AttestAgent", "agent_v1_agent_attest_agent"),
            ("DelegatedIdentity", "SubscribeToX509SVIDs", "delegated_identity_subscribe_to_x509_svids"),
            ("Health", "Check", "health_check"),
        ] {
            assert_eq!(snake_rpc(service, method), name);
        }
    }

    #[test]
    fn label_values_are_cleaned() {
        assert_eq!(clean("example.org"), "example_org");
        assert_eq!(clean("1.16.0-dev  x\""), "1_16_0_dev_x_");
    }
}
