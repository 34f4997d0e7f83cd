//! `localauthority x509|jwt …` and `upstreamauthority …`: the authorities a server signs with.

use avouch_proto::localauthority_v1 as wire;
use avouch_proto::localauthority_v1::local_authority_client::LocalAuthorityClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::{no_flags, verb};
use crate::verbs::flags::FlagSet;
use crate::verbs::{Call, Verb, VerbError, json, text};

/// Which authorities a verb is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    X509,
    Jwt,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::X509 => "X.509",
            Self::Jwt => "JWT",
        }
    }
}

/// What is done to one authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Prepare,
    Activate,
    Taint,
    Revoke,
}

impl Deed {
    /// The word for what is done, for what is done with, and the name of the authority in the answer.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Prepare => ("prepare", "Prepared", "prepared_authority"),
            Self::Activate => ("activate", "Activated", "activated_authority"),
            Self::Taint => ("taint", "Tainted", "tainted_authority"),
            Self::Revoke => ("revoke", "Revoked", "revoked_authority"),
        }
    }
}

pub fn verbs() -> Vec<Verb> {
    vec![
        verb("localauthority x509 show", "Shows the X.509 authorities of the server", no_flags, |c| {
            Box::pin(show(c, Kind::X509))
        }),
        verb(
            "localauthority x509 prepare",
            "Makes the next X.509 authority and publishes it",
            no_flags,
            |c| Box::pin(change(c, Kind::X509, Deed::Prepare)),
        ),
        verb("localauthority x509 activate", "Lets the prepared X.509 authority sign", id_flags, |c| {
            Box::pin(change(c, Kind::X509, Deed::Activate))
        }),
        verb("localauthority x509 taint", "Replaces every SVID of the old X.509 authority", id_flags, |c| {
            Box::pin(change(c, Kind::X509, Deed::Taint))
        }),
        verb(
            "localauthority x509 revoke",
            "Takes the tainted X.509 authority out of the bundle",
            id_flags,
            |c| Box::pin(change(c, Kind::X509, Deed::Revoke)),
        ),
        verb("localauthority jwt show", "Shows the JWT authorities of the server", no_flags, |c| {
            Box::pin(show(c, Kind::Jwt))
        }),
        verb("localauthority jwt prepare", "Makes the next JWT authority and publishes it", no_flags, |c| {
            Box::pin(change(c, Kind::Jwt, Deed::Prepare))
        }),
        verb("localauthority jwt activate", "Lets the prepared JWT authority sign", id_flags, |c| {
            Box::pin(change(c, Kind::Jwt, Deed::Activate))
        }),
        verb(
            "localauthority jwt taint",
            "Hands out no token of the old JWT authority any more",
            id_flags,
            |c| Box::pin(change(c, Kind::Jwt, Deed::Taint)),
        ),
        verb("localauthority jwt revoke", "Takes a tainted JWT authority out of the bundle", id_flags, |c| {
            Box::pin(change(c, Kind::Jwt, Deed::Revoke))
        }),
        verb("upstreamauthority taint", "Taints an authority above the server's", upstream_flags, |c| {
            Box::pin(change_upstream(c, Deed::Taint))
        }),
        verb(
            "upstreamauthority revoke",
            "Takes a tainted authority above out of the bundle",
            upstream_flags,
            |c| Box::pin(change_upstream(c, Deed::Revoke)),
        ),
    ]
}

fn id_flags(set: FlagSet) -> FlagSet {
    set.text("authorityID", "", "ID of the authority, as `show` prints it")
}

fn upstream_flags(set: FlagSet) -> FlagSet {
    set.text("subjectKeyID", "", "Subject key ID of the certificate of the authority above, in hex")
}

async fn client(call: &Call<'_>) -> Result<LocalAuthorityClient<Channel>, VerbError> {
    Ok(LocalAuthorityClient::new(call.channel().await?))
}

/// Active, prepared and old one, if there are such.
type States = [Option<wire::AuthorityState>; 3];

async fn show(call: &mut Call<'_>, kind: Kind) -> Result<(), VerbError> {
    let mut client = client(call).await?;
    let states = match kind {
        Kind::X509 => {
            let reply = client.get_x509_authority_state(wire::GetX509AuthorityStateRequest {}).await;
            let reply = reply.map_err(|e| could_not("get X.509 authorities", e))?.into_inner();
            [reply.active, reply.prepared, reply.old]
        }
        Kind::Jwt => {
            let request = wire::GetJwtAuthorityStateRequest {};
            let reply = client.get_jwt_authority_state(request).await?.into_inner();
            [reply.active, reply.prepared, reply.old]
        }
    };
    call.print(|| json::authorities(&states), || states_text(kind, &states));
    Ok(())
}

fn states_text(kind: Kind, states: &States) -> String {
    let name = kind.name();
    let block = |(title, word, state): (&str, &str, &Option<wire::AuthorityState>)| match state {
        Some(state) => format!("{title} {name} authority:\n{}", state_text(kind, state)),
        None => format!("{title} {name} authority:\n  No {word} {name} authority found\n"),
    };
    let [active, prepared, old] = states;
    [("Active", "active", active), ("Prepared", "prepared", prepared), ("Old", "old", old)]
        .map(block)
        .join("\n")
}

fn state_text(kind: Kind, state: &wire::AuthorityState) -> String {
    let above = match (kind, state.upstream_authority_subject_key_id.as_str()) {
        (Kind::Jwt, _) => String::new(),
        (Kind::X509, "") => "  Upstream authority ID: No upstream authority\n".to_owned(),
        (Kind::X509, id) => format!("  Upstream authority Subject Key ID: {id}\n"),
    };
    let ends = text::go_time(state.expires_at);
    format!("  Authority ID: {}\n  Expires at: {ends}\n{above}", state.authority_id)
}

fn could_not(what: &str, status: Status) -> VerbError {
    VerbError::Text(format!("could not {what}: {}", VerbError::from(status)))
}

async fn change(call: &mut Call<'_>, kind: Kind, deed: Deed) -> Result<(), VerbError> {
    let id = call.flags.text("authorityID").to_owned();
    if id.is_empty() && deed != Deed::Prepare {
        return Err(VerbError::text("an authority ID is required"));
    }
    let (word, done, field) = deed.words();
    let name = kind.name();
    let asked = ask(client(call).await?, kind, deed, id).await;
    let state = asked.map_err(|e| could_not(&format!("{word} {name} authority"), e))?;
    let missing =
        format!("internal error: expected to have {} {name} authority information", done.to_lowercase());
    let state = state.ok_or(VerbError::Text(missing))?;
    let pretty = || format!("{done} {name} authority:\n{}", state_text(kind, &state));
    call.print(|| json::changed_authority(field, &state), pretty);
    Ok(())
}

type Asked = Result<Option<wire::AuthorityState>, Status>;

async fn ask(
    mut client: LocalAuthorityClient<Channel>,
    kind: Kind,
    deed: Deed,
    authority_id: String,
) -> Asked {
    match (kind, deed) {
        (Kind::X509, Deed::Prepare) => {
            let reply = client.prepare_x509_authority(wire::PrepareX509AuthorityRequest {}).await;
            reply.map(|r| r.into_inner().prepared_authority)
        }
        (Kind::X509, Deed::Activate) => {
            let request = wire::ActivateX509AuthorityRequest { authority_id };
            client.activate_x509_authority(request).await.map(|r| r.into_inner().activated_authority)
        }
        (Kind::X509, Deed::Taint) => {
            let request = wire::TaintX509AuthorityRequest { authority_id };
            client.taint_x509_authority(request).await.map(|r| r.into_inner().tainted_authority)
        }
        (Kind::X509, Deed::Revoke) => {
            let request = wire::RevokeX509AuthorityRequest { authority_id };
            client.revoke_x509_authority(request).await.map(|r| r.into_inner().revoked_authority)
        }
        (Kind::Jwt, Deed::Prepare) => {
            let reply = client.prepare_jwt_authority(wire::PrepareJwtAuthorityRequest {}).await;
            reply.map(|r| r.into_inner().prepared_authority)
        }
        (Kind::Jwt, Deed::Activate) => {
            let request = wire::ActivateJwtAuthorityRequest { authority_id };
            client.activate_jwt_authority(request).await.map(|r| r.into_inner().activated_authority)
        }
        (Kind::Jwt, Deed::Taint) => {
            let request = wire::TaintJwtAuthorityRequest { authority_id };
            client.taint_jwt_authority(request).await.map(|r| r.into_inner().tainted_authority)
        }
        (Kind::Jwt, Deed::Revoke) => {
            let request = wire::RevokeJwtAuthorityRequest { authority_id };
            client.revoke_jwt_authority(request).await.map(|r| r.into_inner().revoked_authority)
        }
    }
}

async fn change_upstream(call: &mut Call<'_>, deed: Deed) -> Result<(), VerbError> {
    let subject_key_id = call.flags.text("subjectKeyID").to_owned();
    if subject_key_id.is_empty() {
        return Err(VerbError::text("the Subject Key ID of the X.509 upstream authority is required"));
    }
    let mut client = client(call).await?;
    let (word, done, _) = deed.words();
    let reply = if deed == Deed::Revoke {
        let request = wire::RevokeX509UpstreamAuthorityRequest { subject_key_id };
        let reply = client.revoke_x509_upstream_authority(request).await;
        reply.map(Response::into_inner).map(|r| r.upstream_authority_subject_key_id)
    } else {
        let request = wire::TaintX509UpstreamAuthorityRequest { subject_key_id };
        let reply = client.taint_x509_upstream_authority(request).await;
        reply.map(Response::into_inner).map(|r| r.upstream_authority_subject_key_id)
    };
    let id = reply.map_err(|e| could_not(&format!("{word} X.509 upstream authority"), e))?;
    let pretty = || format!("{done} X.509 upstream authority:\n  Subject Key ID: {id}\n");
    call.print(|| json::upstream_authority(&id), pretty);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(id: &str, above: &str) -> wire::AuthorityState {
        wire::AuthorityState {
            authority_id: id.into(),
            expires_at: 1_795_346_661,
            upstream_authority_subject_key_id: above.into(),
        }
    }

    #[test]
    fn three_blocks_show_what_is_there_and_what_is_not() {
        let states = [Some(state("ab12", "")), None, Some(state("cd34", "ef56"))];
        assert_eq!(
            states_text(Kind::X509, &states),
            "Active X.509 authority:
  Authority ID: ab12
  Expires at: 2026-11-22 11:24:21 +0000 UTC
  Upstream authority ID: No upstream authority

Prepared X.509 authority:
  No prepared X.509 authority found

Old X.509 authority:
  Authority ID: cd34
  Expires at: 2026-11-22 11:24:21 +0000 UTC
  Upstream authority Subject Key ID: ef56
"
        );
    }

    #[test]
    fn a_jwt_authority_has_nothing_above_it() {
        let text = state_text(Kind::Jwt, &state("kid", ""));
        assert_eq!(text, "  Authority ID: kid\n  Expires at: 2026-11-22 11:24:21 +0000 UTC\n");
    }

    #[test]
    fn in_json_what_is_not_there_is_left_out() {
        let state = "{\"authority_id\":\"a\",\"expires_at\":\"1795346661\",\"upstream_authority_subject_key_id\":\"\"}";
        let states = json::one_line(&json::authorities(&[Some(super::tests::state("a", "")), None, None]));
        assert_eq!(states, format!("{{\"active\":{state}}}\n"));
        let tainted = json::changed_authority("tainted_authority", &super::tests::state("a", ""));
        assert_eq!(json::one_line(&tainted), format!("{{\"tainted_authority\":{state}}}\n"));
    }
}
