//! `api fetch jwt` and `api validate jwt`.

use avouch_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse,
};
use serde_json::Value;
use tonic::Code;

use super::{client, in_time, timeout_flag};
use crate::verbs::channel::workload_request;
use crate::verbs::flags::FlagSet;
use crate::verbs::{Call, VerbError, json};

pub fn fetch_flags(set: FlagSet) -> FlagSet {
    timeout_flag(set)
        .comma_texts("audience", "Audiences of the token, joined by commas")
        .text("spiffeID", "", "Only the JWT-SVID of this SPIFFE ID")
        .text("format", "", "Older name of -output")
}

pub fn validate_flags(set: FlagSet) -> FlagSet {
    timeout_flag(set).text("audience", "", "Audience that the token must be for").text(
        "svid",
        "",
        "The token",
    )
}

pub async fn fetch(call: &mut Call<'_>) -> Result<(), VerbError> {
    let audience = call.flags.texts("audience").to_vec();
    if audience.is_empty() {
        return Err(VerbError::text("audience must be specified"));
    }
    if call.flags.text("format") == "json" && !call.flags.is_set("output") {
        call.json = true;
    }
    let spiffe_id = call.flags.text("spiffeID").to_owned();
    let (bundles, svids) = in_time(call, async {
        let mut client = client(call).await?;
        let stream = client.fetch_jwt_bundles(workload_request(JwtBundlesRequest {})).await?;
        let bundles = stream.into_inner().message().await?;
        let bundles =
            bundles.ok_or_else(|| VerbError::text("the agent ended the stream without an answer"))?;
        let svids = client.fetch_jwtsvid(workload_request(JwtsvidRequest { audience, spiffe_id })).await?;
        Ok((bundles, svids.into_inner()))
    })
    .await?;
    call.print(|| json::jwt_update(&svids, &bundles), || fetched_text(&svids, &bundles));
    Ok(())
}

fn fetched_text(svids: &JwtsvidResponse, bundles: &JwtBundlesResponse) -> String {
    let mut out = String::new();
    for svid in &svids.svids {
        out.push_str(&format!("token({}):\n\t{}\n", svid.spiffe_id, svid.svid));
        if !svid.hint.is_empty() {
            out.push_str(&format!("hint({}):\n\t{}\n", svid.spiffe_id, svid.hint));
        }
    }
    for (domain, jwks) in &bundles.bundles {
        out.push_str(&format!("bundle({domain}):\n\t{}\n", String::from_utf8_lossy(jwks)));
    }
    out
}

pub async fn validate(call: &mut Call<'_>) -> Result<(), VerbError> {
    let (audience, svid) = (call.flags.text("audience").to_owned(), call.flags.text("svid").to_owned());
    if audience.is_empty() {
        return Err(VerbError::text("audience must be specified"));
    }
    if svid.is_empty() {
        return Err(VerbError::text("svid must be specified"));
    }
    let asked = in_time(call, async {
        let mut client = client(call).await?;
        let reply =
            client.validate_jwtsvid(workload_request(ValidateJwtsvidRequest { audience, svid })).await?;
        Ok(reply.into_inner())
    });
    let reply = match asked.await {
        Err(VerbError::Rpc(status)) if status.code() == Code::InvalidArgument => {
            return Err(VerbError::Text(format!("SVID is not valid: {}", status.message())));
        }
        other => other?,
    };
    let claims = reply.claims.as_ref().map_or(Value::Null, json::of_struct);
    call.print(|| json::validated(&reply, &claims), || valid_text(&reply, &claims));
    Ok(())
}

fn valid_text(reply: &ValidateJwtsvidResponse, claims: &Value) -> String {
    format!("SVID is valid.\nSPIFFE ID : {}\nClaims    : {}", reply.spiffe_id, json::one_line(claims))
}

#[cfg(test)]
mod tests {
    use avouch_proto::workload::Jwtsvid;
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_hints_and_bundles_stand_below_their_names() {
        let svid = Jwtsvid { spiffe_id: "spiffe://td/a".into(), svid: "a.b.c".into(), hint: "h".into() };
        let bundles = [("spiffe://td".to_owned(), b"{}".to_vec())].into();
        assert_eq!(
            fetched_text(&JwtsvidResponse { svids: vec![svid] }, &JwtBundlesResponse { bundles }),
            "token(spiffe://td/a):\n\ta.b.c\nhint(spiffe://td/a):\n\th\nbundle(spiffe://td):\n\t{}\n"
        );
    }

    #[test]
    fn a_valid_token_shows_its_id_and_claims() {
        let reply = ValidateJwtsvidResponse { spiffe_id: "spiffe://td/a".into(), claims: None };
        assert_eq!(
            valid_text(&reply, &json!({"exp": 1, "aud": ["aud1"]})),
            "SVID is valid.\nSPIFFE ID : spiffe://td/a\nClaims    : {\"aud\":[\"aud1\"],\"exp\":1}\n"
        );
    }
}
