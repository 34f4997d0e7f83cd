//! `bundle show|set|list|count|delete`: the bundle of the trust domain and those of others.

use avouch_credential::bundle_doc;
use avouch_credential::x509::pem;
use avouch_proto::bundle_v1::bundle_client::BundleClient;
use avouch_proto::bundle_v1::{self, batch_delete_federated_bundle_request::Mode};
use avouch_proto::{convert, types};
use tonic::transport::Channel;

use super::{no_flags, verb};
use crate::verbs::channel::REPLY_MAX;
use crate::verbs::flags::FlagSet;
use crate::verbs::{Call, Verb, VerbError, json, read_input, text};

const STARS: &str = "****************************************";

pub fn verbs() -> Vec<Verb> {
    vec![
        verb("bundle show", "Shows the bundle of the trust domain", format_flags, |c| Box::pin(show(c))),
        verb("bundle count", "Counts bundles", no_flags, |c| Box::pin(count(c))),
        verb("bundle list", "Lists bundles of other trust domains", list_flags, |c| Box::pin(list(c))),
        verb("bundle set", "Stores the bundle of another trust domain", set_flags, |c| Box::pin(set(c))),
        verb("bundle delete", "Deletes the bundle of another trust domain", delete_flags, |c| {
            Box::pin(delete(c))
        }),
    ]
}

fn format_flags(set: FlagSet) -> FlagSet {
    set.text("format", "pem", "Form of the bundle: pem or spiffe")
}

fn list_flags(set: FlagSet) -> FlagSet {
    format_flags(set).text("id", "", "Only the bundle of this trust domain")
}

fn set_flags(set: FlagSet) -> FlagSet {
    format_flags(set).text("id", "", "Trust domain of the bundle").text(
        "path",
        "",
        "File with the bundle; standard input if not given",
    )
}

fn delete_flags(set: FlagSet) -> FlagSet {
    set.text("id", "", "Trust domain of the bundle").text(
        "mode",
        "restrict",
        "If entries federate with it: restrict (refuse), delete (them too) or dissociate (keep them without it)",
    )
}

/// How a bundle is written.
#[derive(Clone, Copy)]
enum Format {
    Pem,
    Spiffe,
}

fn format_of(call: &Call<'_>) -> Result<Format, VerbError> {
    match call.flags.text("format").to_lowercase().as_str() {
        "pem" => Ok(Format::Pem),
        "spiffe" => Ok(Format::Spiffe),
        other => Err(VerbError::Text(format!("invalid format: \"{other}\", expected pem or spiffe"))),
    }
}

fn given_id<'a>(call: &'a Call<'_>) -> Result<&'a str, VerbError> {
    match call.flags.text("id") {
        "" => Err(VerbError::text("id flag is required")),
        id => Ok(id),
    }
}

async fn client(call: &Call<'_>) -> Result<BundleClient<Channel>, VerbError> {
    Ok(BundleClient::new(call.channel().await?).max_decoding_message_size(REPLY_MAX))
}

fn document(bundle: &types::Bundle, format: Format) -> Result<String, VerbError> {
    let bundle = convert::bundle_from_wire(bundle).map_err(VerbError::text)?;
    Ok(match format {
        Format::Pem => pem::certificates_to_pem(bundle.x509_authorities.iter().map(|a| &a.der)),
        Format::Spiffe => format!("{}\n", bundle_doc::spiffe_document(&bundle)),
    })
}

async fn show(call: &mut Call<'_>) -> Result<(), VerbError> {
    let format = format_of(call)?;
    let request = bundle_v1::GetBundleRequest { output_mask: None };
    let bundle = client(call).await?.get_bundle(request).await?.into_inner();
    let pretty = document(&bundle, format)?;
    call.print(|| json::bundle(&bundle), || pretty);
    Ok(())
}

async fn count(call: &mut Call<'_>) -> Result<(), VerbError> {
    let reply = client(call).await?.count_bundles(bundle_v1::CountBundlesRequest {}).await?;
    let n = reply.into_inner().count;
    let many = usize::try_from(n).unwrap_or(0);
    call.print(|| json::count(n), || format!("{}\n", text::count(many, "bundle", "bundles")));
    Ok(())
}

async fn list(call: &mut Call<'_>) -> Result<(), VerbError> {
    let format = format_of(call)?;
    let mut client = client(call).await?;
    let id = call.flags.text("id").to_owned();
    if !id.is_empty() {
        let request = bundle_v1::GetFederatedBundleRequest { trust_domain: id, output_mask: None };
        let bundle = client.get_federated_bundle(request).await?.into_inner();
        let pretty = document(&bundle, format)?;
        call.print(|| json::bundle(&bundle), || pretty);
        return Ok(());
    }
    let reply =
        client.list_federated_bundles(bundle_v1::ListFederatedBundlesRequest::default()).await?.into_inner();
    let pretty = list_text(&reply.bundles, format)?;
    call.print(|| json::bundles(&reply), || pretty);
    Ok(())
}

fn list_text(bundles: &[types::Bundle], format: Format) -> Result<String, VerbError> {
    let mut blocks = Vec::new();
    for bundle in bundles {
        let document = document(bundle, format)?;
        blocks.push(format!("{STARS}\n* {}\n{STARS}\n{document}", bundle.trust_domain));
    }
    Ok(blocks.join("\n"))
}

async fn set(call: &mut Call<'_>) -> Result<(), VerbError> {
    let (id, format) = (given_id(call)?.to_owned(), format_of(call)?);
    let bytes = read_input(call.flags.text("path"))?;
    let bundle = parse(&id, &bytes, format)?;
    let request = bundle_v1::BatchSetFederatedBundleRequest { bundle: vec![bundle], output_mask: None };
    let reply = client(call).await?.batch_set_federated_bundle(request).await?.into_inner();
    if call.json {
        call.print_json(&json::set_bundles(&reply));
        return Ok(());
    }
    let status = reply.results.first().and_then(|r| r.status.as_ref());
    convert::status_of_item(status)
        .map_err(|s| VerbError::Text(format!("failed to set federated bundle: {}", s.message())))?;
    call.out.say("bundle set.\n");
    Ok(())
}

fn parse(id: &str, bytes: &[u8], format: Format) -> Result<types::Bundle, VerbError> {
    let domain = convert::trust_domain(id).map_err(VerbError::text)?;
    match format {
        Format::Spiffe => {
            let bundle = bundle_doc::parse(&domain, bytes)
                .map_err(|e| VerbError::Text(format!("unable to parse to spiffe bundle: {e}")))?;
            Ok(convert::bundle_to_wire(&bundle, None))
        }
        Format::Pem => {
            let list = pem::certificates(bytes)
                .map_err(|e| VerbError::Text(format!("unable to parse bundle data: {e}")))?;
            let one = |asn1| types::X509Certificate { asn1, tainted: false };
            Ok(types::Bundle {
                trust_domain: domain.to_string(),
                x509_authorities: list.into_iter().map(one).collect(),
                ..Default::default()
            })
        }
    }
}

async fn delete(call: &mut Call<'_>) -> Result<(), VerbError> {
    let mode = match call.flags.text("mode") {
        "restrict" => Mode::Restrict,
        "delete" => Mode::Delete,
        "dissociate" => Mode::Dissociate,
        other => {
            return Err(VerbError::Text(format!(
                "unsupported mode \"{other}\", expected restrict, delete or dissociate"
            )));
        }
    };
    let request = bundle_v1::BatchDeleteFederatedBundleRequest {
        trust_domains: vec![given_id(call)?.to_owned()],
        mode: mode.into(),
    };
    let reply = client(call).await?.batch_delete_federated_bundle(request).await?.into_inner();
    if call.json {
        call.print_json(&json::deleted_bundles(&reply));
        return Ok(());
    }
    if let Some(result) = reply.results.first() {
        convert::status_of_item(result.status.as_ref()).map_err(|s| {
            VerbError::Text(format!(
                "failed to delete federated bundle \"{}\": {}",
                result.trust_domain,
                s.message()
            ))
        })?;
    }
    call.out.say("bundle deleted.\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(domain: &str) -> types::Bundle {
        let asn1 = vec![0x30, 0x01, 0x41];
        types::Bundle {
            trust_domain: domain.into(),
            x509_authorities: vec![types::X509Certificate { asn1, tainted: false }],
            ..Default::default()
        }
    }

    #[test]
    fn each_bundle_of_a_list_stands_below_its_name() {
        let text = list_text(&[bundle("a.org"), bundle("b.org")], Format::Pem).unwrap();
        let pem = "-----BEGIN CERTIFICATE-----\nMAFB\n-----END CERTIFICATE-----\n";
        assert_eq!(text, format!("{STARS}\n* a.org\n{STARS}\n{pem}\n{STARS}\n* b.org\n{STARS}\n{pem}"));
    }

    #[test]
    fn a_pem_file_becomes_a_bundle_of_the_bare_name() {
        let pem = document(&bundle("a.org"), Format::Pem).unwrap();
        assert_eq!(parse("spiffe://a.org", pem.as_bytes(), Format::Pem).unwrap(), bundle("a.org"));
        assert!(parse("a.org", b"{", Format::Spiffe).is_err());
    }
}
