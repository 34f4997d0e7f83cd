//! `api fetch x509` and `api watch`: X509-SVIDs as a workload gets them.
//!
//! Never shows an SVID as good that does not verify against the bundle that came with it.

use std::path::{Path, PathBuf};

use avouch_credential::x509::facts::{CertFacts, split_chain};
use avouch_credential::x509::pem;
use avouch_credential::x509::verify::{TrustRoots, verify_svid};
use avouch_domain::{SpiffeId, Tick, X509Authority};
use avouch_proto::workload::{X509svidRequest, X509svidResponse};
use zeroize::Zeroizing;

use super::{client, in_time, timeout_flag};
use crate::clock;
use crate::verbs::channel::workload_request;
use crate::verbs::flags::FlagSet;
use crate::verbs::{Call, VerbError, json, text, write_file};

pub fn flags(set: FlagSet) -> FlagSet {
    timeout_flag(set).bool("silent", false, "Print nothing").text(
        "write",
        "",
        "Directory for the SVIDs, keys and bundles, as PEM files",
    )
}

/// One identity of an update, taken apart and verified.
struct Identity {
    id: SpiffeId,
    hint: String,
    chain: Vec<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
    bundle: Vec<Vec<u8>>,
}

/// Everything one update holds.
struct Update {
    identities: Vec<Identity>,
    /// By trust domain ID, ascending.
    federated: Vec<(String, Vec<Vec<u8>>)>,
}

fn read_update(reply: X509svidResponse) -> Result<Update, VerbError> {
    let now = clock::now().wall;
    let broken = |what: &str, e: &dyn std::fmt::Display| VerbError::Text(format!("{what}: {e}"));
    let mut identities = Vec::new();
    for svid in reply.svids {
        let id: SpiffeId = svid.spiffe_id.parse().map_err(|e| broken("malformed SPIFFE ID", &e))?;
        let chain = split_chain(&svid.x509_svid).map_err(|e| broken("malformed X509-SVID", &e))?;
        let bundle = split_chain(&svid.bundle).map_err(|e| broken("malformed bundle", &e))?;
        let roots: Vec<_> =
            bundle.iter().map(|der| X509Authority { der: der.as_slice().into(), tainted: false }).collect();
        let verified = verify_svid(&chain, &TrustRoots::new(&roots), id.trust_domain(), now)
            .map_err(|e| broken("X509-SVID does not verify", &e))?;
        if verified != id {
            return Err(VerbError::Text(format!("X509-SVID of {verified} came as that of {id}")));
        }
        identities.push(Identity {
            id,
            hint: svid.hint,
            chain,
            key: Zeroizing::new(svid.x509_svid_key),
            bundle,
        });
    }
    let mut federated = Vec::new();
    for (domain, der) in reply.federated_bundles {
        // An empty bundle is allowed and has no certificate.
        let list = if der.is_empty() {
            Vec::new()
        } else {
            split_chain(&der).map_err(|e| broken("malformed federated bundle", &e))?
        };
        federated.push((domain, list));
    }
    Ok(Update { identities, federated })
}

pub async fn fetch(call: &mut Call<'_>) -> Result<(), VerbError> {
    let begun = clock::now().mono;
    let reply = in_time(call, async {
        let stream = client(call).await?.fetch_x509svid(workload_request(X509svidRequest {})).await?;
        Ok(stream.into_inner().message().await?)
    })
    .await?
    .ok_or_else(|| VerbError::text("the agent ended the stream without an answer"))?;
    if call.json {
        call.print_json(&json::x509_update(&reply));
        return Ok(());
    }
    let update = read_update(reply)?;
    if !call.flags.bool("silent") {
        call.out.say(&update_text(&update, since(begun))?);
    }
    let folder = call.flags.text("write").to_owned();
    if !folder.is_empty() {
        let said = write_update(Path::new(&folder), &update)?;
        call.out.say(&said);
    }
    Ok(())
}

pub async fn watch(call: &mut Call<'_>) -> Result<(), VerbError> {
    let mut begun = clock::now().mono;
    let mut stream =
        client(call).await?.fetch_x509svid(workload_request(X509svidRequest {})).await?.into_inner();
    loop {
        let next = tokio::select! {
            next = stream.message() => next?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Some(reply) = next else {
            return Err(VerbError::text("the agent ended the stream"));
        };
        let text = update_text(&read_update(reply)?, since(begun))?;
        call.out.say(&text);
        begun = clock::now().mono;
    }
}

/// Nanoseconds since `begun`, which the clock counts in milliseconds.
fn since(begun: Tick) -> u64 {
    u64::try_from(clock::now().mono.since(begun).as_nanos()).unwrap_or(u64::MAX)
}

fn update_text(update: &Update, elapsed_ns: u64) -> Result<String, VerbError> {
    let received = text::count(update.identities.len(), "svid", "svids");
    let mut out = format!("Received {received} after {}\n\n", text::go_duration(elapsed_ns));
    for identity in &update.identities {
        out.push_str(&format!("SPIFFE ID:\t\t{}\n", identity.id));
        if !identity.hint.is_empty() {
            out.push_str(&format!("Hint:\t\t\t{}\n", identity.hint));
        }
        for (at, der) in identity.chain.iter().enumerate() {
            let what = if at == 0 { "SVID".to_owned() } else { format!("Intermediate #{at}") };
            out.push_str(&validity(&what, der)?);
        }
        for (at, der) in identity.bundle.iter().enumerate() {
            out.push_str(&validity(&format!("CA #{}", at + 1), der)?);
        }
        for (domain, list) in &update.federated {
            for (at, der) in list.iter().enumerate() {
                out.push_str(&validity(&format!("[{domain}] CA #{}", at + 1), der)?);
            }
        }
        out.push('\n');
    }
    Ok(out)
}

fn validity(what: &str, der: &[u8]) -> Result<String, VerbError> {
    let facts = CertFacts::parse(der).map_err(VerbError::text)?;
    let (from, until) = (text::go_time(facts.not_before.secs()), text::go_time(facts.not_after.secs()));
    Ok(format!("{what} Valid After:\t{from}\n{what} Valid Until:\t{until}\n"))
}

/// Writes the files of all identities; gives what to say about it.
fn write_update(folder: &Path, update: &Update) -> Result<String, VerbError> {
    let mut said = String::new();
    let mut write = |what: &str, path: PathBuf, content: &str, mode: u32| {
        said.push_str(&format!("Writing {what} to file {}.\n", path.display()));
        write_file(&path, content.as_bytes(), mode)
    };
    for (at, identity) in update.identities.iter().enumerate() {
        let svid = pem::certificates_to_pem(&identity.chain);
        write(&format!("SVID #{at}"), folder.join(format!("svid.{at}.pem")), &svid, 0o644)?;
        let key = pem::encode_private_key(&identity.key);
        write(&format!("key #{at}"), folder.join(format!("svid.{at}.key")), &key, 0o600)?;
        let bundle = pem::certificates_to_pem(&identity.bundle);
        write(&format!("bundle #{at}"), folder.join(format!("bundle.{at}.pem")), &bundle, 0o644)?;
        for (n, (domain, list)) in update.federated.iter().enumerate() {
            let what = format!("federated bundle #{n} for trust domain {domain}");
            let path = folder.join(format!("federated_bundle.{at}.{n}.pem"));
            write(&what, path, &pem::certificates_to_pem(list), 0o644)?;
        }
    }
    Ok(said)
}

#[cfg(test)]
#[path = "x509_tests.rs"]
mod tests;
