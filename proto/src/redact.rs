//! `Debug` of the messages that hold a secret: enough to tell them apart, never the secret itself.

use std::fmt;

use crate::{agent_v1, gate_v1, requests_v1, run_v1, sealed_v1, task_v1, types, workload};

/// Writes `Debug` for messages as the named fields only.
macro_rules! show_only {
    ($($message:ty { $($field:ident),* };)*) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))$(.field(stringify!($field), &self.$field))*.finish_non_exhaustive()
            }
        }
    )*};
}

show_only! {
    workload::X509svid { spiffe_id, hint };
    workload::Jwtsvid { spiffe_id, hint };
    workload::Witsvid { spiffe_id, hint };
    workload::ValidateJwtsvidRequest { audience };
    types::Jwtsvid { id, expires_at };
    types::Witsvid { id, expires_at };
    types::JoinToken { expires_at };
    types::AttestationData { r#type };
    agent_v1::CreateJoinTokenRequest { ttl, agent_id };
    sealed_v1::X509Svid { entry_id, id };
    run_v1::TaskTokenResponse { expires_at };
    run_v1::Secret { header, prefix, missing };
    gate_v1::CheckRequest { action, resource, what_if };
    requests_v1::AskRequest { spiffe_id, task, action, resource, needs_owner, needs_person };
    task_v1::SignTokenResponse { token_id, expires_at };
    task_v1::ShowTokenRequest { resource };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_or_token_is_never_printed() {
        let svid = workload::X509svid { x509_svid_key: vec![77, 77], ..Default::default() };
        let all = workload::X509svidResponse { svids: vec![svid], ..Default::default() };
        assert!(!format!("{all:?}").contains("77"));
        let token = types::JoinToken { value: "hush".into(), expires_at: 1 };
        assert!(!format!("{token:?}").contains("hush"));
        let secret = run_v1::Secret { value: "hush".into(), ..Default::default() };
        let api = run_v1::Api { secret: Some(secret), ..Default::default() };
        let gate = run_v1::Gate { api: Some(api), ..Default::default() };
        assert!(!format!("{:?}", run_v1::Begun { gates: vec![gate], ..Default::default() }).contains("hush"));
        let check = gate_v1::CheckRequest { token: "hush".into(), ..Default::default() };
        assert!(!format!("{check:?}").contains("hush"));
    }
}
