//! `x509 mint` and `jwt mint`: SVIDs outside of any entry.
//!
//! The private key is made here and leaves only to where the caller wants it.

use std::path::Path;

use avouch_credential::key::PrivateKey;
use avouch_credential::x509::csr::{self, CsrTemplate};
use avouch_credential::x509::{name::Name, pem};
use avouch_domain::{KeyType, SpiffeId};
use avouch_proto::bundle_v1::{GetBundleRequest, bundle_client::BundleClient};
use avouch_proto::svid_v1::{self, svid_client::SvidClient};
use avouch_proto::{convert, types};
use serde_json::json;
use zeroize::Zeroizing;

use super::verb;
use crate::clock;
use crate::verbs::channel::REPLY_MAX;
use crate::verbs::flags::FlagSet;
use crate::verbs::{Call, Verb, VerbError, id_flag, json, text, write_file};

/// A lifetime is called capped when it ends more seconds early than certificates and clocks round off.
const ROUNDING: i64 = 2;

pub fn verbs() -> Vec<Verb> {
    vec![
        verb("x509 mint", "Mints an X509-SVID", x509_flags, |c| Box::pin(x509(c))),
        verb("jwt mint", "Mints a JWT-SVID", jwt_flags, |c| Box::pin(jwt(c))),
    ]
}

fn x509_flags(set: FlagSet) -> FlagSet {
    set.text("spiffeID", "", "SPIFFE ID of the X509-SVID")
        .duration("ttl", "0s", "How long it lives; the server's default if not given")
        .texts("dns", "DNS name to put in; may be repeated")
        .text("write", "", "Directory for svid.pem, key.pem and bundle.pem, instead of standard output")
}

fn jwt_flags(set: FlagSet) -> FlagSet {
    set.text("spiffeID", "", "SPIFFE ID of the JWT-SVID")
        .comma_texts("audience", "Audience to put in; may be repeated")
        .duration("ttl", "0s", "How long it lives; the server's default if not given")
        .text("write", "", "File for the token, instead of standard output")
}

fn ttl_seconds(call: &Call<'_>) -> Result<i32, VerbError> {
    // Parts of a second count as a whole one.
    let ns = call.flags.duration_ns("ttl");
    i32::try_from(ns / 1_000_000_000 + i64::from(ns % 1_000_000_000 > 0))
        .map_err(|_| VerbError::text("ttl is out of range"))
}

fn warn_if_capped(call: &mut Call<'_>, what: &str, ttl: i32, expires_at: i64) {
    let wanted = clock::now().wall.secs() + i64::from(ttl);
    if ttl > 0 && expires_at < wanted - ROUNDING {
        let end = text::rfc3339(expires_at);
        call.out
            .complain(&format!("{what} lifetime was capped shorter than specified ttl; expires \"{end}\"\n"));
    }
}

/// What `x509 mint` hands out, as DER.
struct Minted {
    /// Leaf first.
    svid: Vec<Vec<u8>>,
    /// PKCS#8.
    key: Zeroizing<Vec<u8>>,
    roots: Vec<Vec<u8>>,
}

/// A refusal to mint, in SPIRE's words.
fn unable_to_mint(status: tonic::Status) -> VerbError {
    VerbError::Text(format!("unable to mint SVID: {}", VerbError::from(status)))
}

async fn x509(call: &mut Call<'_>) -> Result<(), VerbError> {
    let id = call.flags.text("spiffeID");
    if id.is_empty() {
        return Err(VerbError::text("spiffeID must be specified"));
    }
    let id: SpiffeId = id.parse().map_err(VerbError::text)?;
    let ttl = ttl_seconds(call)?;
    let key = PrivateKey::generate(KeyType::EcP256).map_err(VerbError::text)?;
    let template =
        CsrTemplate { subject: &Name::svid_default(), id: Some(&id), dns_names: call.flags.texts("dns") };
    let csr = csr::build(&template, &key).map_err(VerbError::text)?;
    let channel = call.channel().await?;
    let request = svid_v1::MintX509svidRequest { csr, ttl };
    let reply =
        SvidClient::new(channel.clone()).mint_x509svid(request).await.map_err(unable_to_mint)?.into_inner();
    let svid = reply.svid.ok_or_else(|| VerbError::text("server response missing SVID"))?;
    warn_if_capped(call, "X509-SVID", ttl, svid.expires_at);
    let mut bundles = BundleClient::new(channel).max_decoding_message_size(REPLY_MAX);
    let mask = types::BundleMask { x509_authorities: true, ..Default::default() };
    let bundle = bundles.get_bundle(GetBundleRequest { output_mask: Some(mask) }).await?.into_inner();
    let bundle = convert::bundle_from_wire(&bundle).map_err(VerbError::text)?;
    let minted = Minted {
        svid: svid.cert_chain,
        key: key.pkcs8(),
        roots: bundle.x509_authorities.iter().map(|a| a.der.to_vec()).collect(),
    };
    let folder = call.flags.text("write").to_owned();
    if folder.is_empty() {
        call.print(|| minted_json(&minted), || minted_text(&minted));
        return Ok(());
    }
    // Never the key on standard output when a file for it was named, whatever the output format.
    let said = write_minted(Path::new(&folder), &minted)?;
    call.out.say(&said);
    Ok(())
}

fn minted_json(minted: &Minted) -> serde_json::Value {
    let list = |ders: &[Vec<u8>]| ders.iter().map(|der| json::bytes(der)).collect::<Vec<_>>();
    json!({
        "x509_svid": list(&minted.svid),
        "private_key": json::bytes(&minted.key),
        "root_cas": list(&minted.roots),
    })
}

fn minted_text(minted: &Minted) -> String {
    let (svid, roots) = (pem::certificates_to_pem(&minted.svid), pem::certificates_to_pem(&minted.roots));
    let key = pem::encode_private_key(&minted.key);
    format!("X509-SVID:\n{svid}\nPrivate key:\n{}\nRoot CAs:\n{roots}\n", *key)
}

fn write_minted(folder: &Path, minted: &Minted) -> Result<String, VerbError> {
    let mut said = String::new();
    let (svid, roots) = (pem::certificates_to_pem(&minted.svid), pem::certificates_to_pem(&minted.roots));
    let key = pem::encode_private_key(&minted.key);
    for (what, name, content, mode) in [
        ("X509-SVID", "svid.pem", svid.as_str(), 0o644),
        ("Private key", "key.pem", key.as_str(), 0o600),
        ("Root CAs", "bundle.pem", roots.as_str(), 0o644),
    ] {
        let path = folder.join(name);
        write_file(&path, content.as_bytes(), mode)?;
        said.push_str(&format!("{what} written to {}\n", path.display()));
    }
    Ok(said)
}

async fn jwt(call: &mut Call<'_>) -> Result<(), VerbError> {
    let (id, audience) = (call.flags.text("spiffeID"), call.flags.texts("audience").to_vec());
    if id.is_empty() {
        return Err(VerbError::text("spiffeID must be specified"));
    }
    if audience.is_empty() {
        return Err(VerbError::text("at least one audience must be specified"));
    }
    let ttl = ttl_seconds(call)?;
    let request = svid_v1::MintJwtsvidRequest { id: Some(id_flag(id)?), audience, ttl };
    let reply = SvidClient::new(call.channel().await?)
        .mint_jwtsvid(request)
        .await
        .map_err(unable_to_mint)?
        .into_inner();
    let svid = reply.svid.as_ref().ok_or_else(|| VerbError::text("server response missing SVID"))?;
    warn_if_capped(call, "JWT-SVID", ttl, svid.expires_at);
    let file = call.flags.text("write").to_owned();
    if file.is_empty() {
        call.print(|| json::minted_jwt(&reply), || format!("{}\n", svid.token));
        return Ok(());
    }
    write_file(Path::new(&file), svid.token.as_bytes(), 0o600)?;
    call.print(|| json::minted_jwt(&reply), || format!("JWT-SVID written to {file}\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minted() -> Minted {
        Minted { svid: vec![vec![1]], key: Zeroizing::new(vec![2]), roots: vec![vec![3], vec![4]] }
    }

    #[test]
    fn the_three_parts_stand_below_their_names() {
        let text = minted_text(&minted());
        assert!(text.starts_with("X509-SVID:\n-----BEGIN CERTIFICATE-----\nAQ==\n-----END"), "{text}");
        assert!(text.contains("-----\n\nPrivate key:\n-----BEGIN PRIVATE KEY-----\nAg==\n"), "{text}");
        assert!(text.contains("-----\n\nRoot CAs:\n-----BEGIN CERTIFICATE-----\nAw==\n"), "{text}");
    }

    #[test]
    fn in_json_certificates_are_lists_of_base64_der() {
        let expected = json!({"x509_svid": ["AQ=="], "private_key": "Ag==", "root_cas": ["Aw==", "BA=="]});
        assert_eq!(minted_json(&minted()), expected);
    }

    #[test]
    fn only_the_owner_may_read_the_key_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = std::env::temp_dir().join(format!("avouch-mint-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let said = write_minted(&folder, &minted()).unwrap();
        let mode = |name: &str| std::fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        let modes = [mode("svid.pem"), mode("key.pem"), mode("bundle.pem")];
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(modes, [0o644, 0o600, 0o644]);
        let d = folder.display();
        assert_eq!(
            said,
            format!(
                "X509-SVID written to {d}/svid.pem\nPrivate key written to {d}/key.pem\nRoot CAs written to {d}/bundle.pem\n"
            )
        );
    }
}
