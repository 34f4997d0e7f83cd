//! What `entry create` and `entry update` ask for: flags, or a file with SPIRE's JSON form of entries.
//!
//! Never sends what it can see to be wrong: the checks SPIRE's command line makes come before the call.

use avouch_domain::Selector;
use avouch_proto::{convert, types};
use serde::Deserialize;

use crate::verbs::flags::{FlagSet, Flags};
use crate::verbs::{VerbError, id_flag, read_input};

/// The flags both verbs share.
pub fn flags(set: FlagSet) -> FlagSet {
    set.text("entryID", "", "ID of the entry")
        .text("parentID", "", "SPIFFE ID of the parent")
        .text("spiffeID", "", "SPIFFE ID that the entry gives")
        .int("x509SVIDTTL", 0, "Seconds an X509-SVID lives; the server's default if 0")
        .int("jwtSVIDTTL", 0, "Seconds a JWT-SVID lives; the server's default if 0")
        .text("data", "", "File with entries as JSON; - for standard input")
        .texts("selector", "A selector as type:value; may be repeated")
        .texts("federatesWith", "A trust domain to federate with; may be repeated")
        .bool("admin", false, "May call the server's API")
        .bool("storeSVID", false, "SVIDs are put into a store")
        .bool("downstream", false, "A server below this one")
        .int("entryExpiry", 0, "When the entry ends, in Unix seconds; never if 0")
        .texts("dns", "A DNS name; may be repeated, the first becomes the common name")
        .text("hint", "", "Tells the workload what the SVID is for")
        .bool("disableX509SVIDPrefetch", false, "The agent fetches the X509-SVID only when it is asked for")
        .bool("jwtSVIDIncludeJTI", false, "JWT-SVIDs have the claim jti")
}

/// Was one of the flags given that become additional attributes?
pub fn names_attributes(flags: &Flags) -> bool {
    flags.is_set("disableX509SVIDPrefetch") || flags.is_set("jwtSVIDIncludeJTI")
}

/// Selectors as flags give them.
///
/// # Errors
/// One has no colon or an empty half.
pub fn selectors(texts: &[String]) -> Result<Vec<types::Selector>, VerbError> {
    let list: Vec<Selector> =
        texts.iter().map(|s| s.parse().map_err(VerbError::text)).collect::<Result<_, _>>()?;
    Ok(convert::selectors_to_wire(&list))
}

/// The entry that the flags describe.
///
/// # Errors
/// SPIRE's words for the first thing that is missing or wrong.
pub fn from_flags(flags: &Flags, node: bool, update: bool) -> Result<types::Entry, VerbError> {
    let (parent, id) = (flags.text("parentID"), flags.text("spiffeID"));
    let say = |text: &str| Err(VerbError::text(text));
    if update && flags.text("entryID").is_empty() {
        return say("entry ID is required");
    }
    if flags.texts("selector").is_empty() {
        return say("at least one selector is required");
    }
    if node && !flags.texts("federatesWith").is_empty() {
        return say("node entries can not federate");
    }
    if parent.is_empty() && !node {
        return if update {
            say("a parent ID is required")
        } else {
            say("a parent ID is required if the node flag is not set")
        };
    }
    if id.is_empty() {
        return say("a SPIFFE ID is required");
    }
    let spiffe_id = id_flag(id)?;
    let parent_id = if node {
        types::Spiffeid { trust_domain: spiffe_id.trust_domain.clone(), path: "/spire/server".to_owned() }
    } else {
        id_flag(parent)?
    };
    let attributes = types::entry::AdditionalAttributes {
        disable_x509_svid_prefetch: flags.bool("disableX509SVIDPrefetch"),
        jwt_svid_include_jti: flags.bool("jwtSVIDIncludeJTI"),
    };
    Ok(types::Entry {
        id: flags.text("entryID").to_owned(),
        spiffe_id: Some(spiffe_id),
        parent_id: Some(parent_id),
        selectors: selectors(flags.texts("selector"))?,
        x509_svid_ttl: ttl(flags.int("x509SVIDTTL"), "X509-SVID")?,
        jwt_svid_ttl: ttl(flags.int("jwtSVIDTTL"), "JWT-SVID")?,
        federates_with: flags.texts("federatesWith").to_vec(),
        admin: flags.bool("admin"),
        downstream: flags.bool("downstream"),
        expires_at: flags.int("entryExpiry"),
        dns_names: flags.texts("dns").to_vec(),
        store_svid: flags.bool("storeSVID"),
        hint: flags.text("hint").to_owned(),
        additional_attributes: names_attributes(flags).then_some(attributes),
        ..Default::default()
    })
}

fn ttl(seconds: i64, kind: &str) -> Result<i32, VerbError> {
    match i32::try_from(seconds) {
        Ok(ttl) if ttl >= 0 => Ok(ttl),
        _ => Err(VerbError::Text(format!("a positive {kind} TTL is required"))),
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    entries: Vec<FileEntry>,
}

/// One entry of the file, with the member names of SPIRE's older registration API.
#[derive(Default, Deserialize)]
#[serde(default)]
struct FileEntry {
    selectors: Vec<FileSelector>,
    parent_id: String,
    spiffe_id: String,
    x509_svid_ttl: i32,
    jwt_svid_ttl: i32,
    federates_with: Vec<String>,
    entry_id: String,
    admin: bool,
    downstream: bool,
    #[serde(rename = "entryExpiry")]
    entry_expiry: i64,
    dns_names: Vec<String>,
    store_svid: bool,
    hint: String,
    additional_attributes: Option<FileAttributes>,
}

#[derive(Deserialize)]
struct FileSelector {
    r#type: String,
    value: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FileAttributes {
    disable_x509_svid_prefetch: bool,
    jwt_svid_include_jti: bool,
}

/// The entries of a file, or of standard input for `-`.
///
/// # Errors
/// The file can't be read, is no JSON, or an ID in it is malformed.
pub fn from_file(path: &str) -> Result<Vec<types::Entry>, VerbError> {
    from_json(&read_input(path)?)
}

fn from_json(bytes: &[u8]) -> Result<Vec<types::Entry>, VerbError> {
    let file: File = serde_json::from_slice(bytes)
        .map_err(|e| VerbError::Text(format!("unable to parse entries: {e}")))?;
    file.entries.into_iter().map(from_file_entry).collect()
}

fn from_file_entry(e: FileEntry) -> Result<types::Entry, VerbError> {
    Ok(types::Entry {
        id: e.entry_id,
        spiffe_id: Some(id_flag(&e.spiffe_id)?),
        parent_id: Some(id_flag(&e.parent_id)?),
        selectors: e
            .selectors
            .into_iter()
            .map(|s| types::Selector { r#type: s.r#type, value: s.value })
            .collect(),
        x509_svid_ttl: e.x509_svid_ttl,
        jwt_svid_ttl: e.jwt_svid_ttl,
        federates_with: e.federates_with,
        admin: e.admin,
        downstream: e.downstream,
        expires_at: e.entry_expiry,
        dns_names: e.dns_names,
        store_svid: e.store_svid,
        hint: e.hint,
        additional_attributes: e.additional_attributes.map(|a| types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: a.disable_x509_svid_prefetch,
            jwt_svid_include_jti: a.jwt_svid_include_jti,
        }),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str], node: bool, update: bool) -> Result<types::Entry, VerbError> {
        let args: Vec<_> = args.iter().map(|a| (*a).to_owned()).collect();
        from_flags(&flags(FlagSet::new("entry create")).parse(&args).unwrap(), node, update)
    }

    #[test]
    fn the_first_thing_missing_is_named() {
        let mut args = Vec::new();
        let mut said = Vec::new();
        for more in
            [["-selector", "unix:uid:0"], ["-parentID", "spiffe://td/p"], ["-spiffeID", "spiffe://td/a"]]
        {
            said.push(read(&args, false, false).unwrap_err().to_string());
            args.extend(more);
        }
        assert_eq!(
            said,
            [
                "at least one selector is required",
                "a parent ID is required if the node flag is not set",
                "a SPIFFE ID is required",
            ]
        );
        assert!(read(&args, false, false).is_ok());
        assert_eq!(read(&args, false, true).unwrap_err().to_string(), "entry ID is required");
        args.extend(["-x509SVIDTTL", "-1"]);
        assert_eq!(
            read(&args, false, false).unwrap_err().to_string(),
            "a positive X509-SVID TTL is required"
        );
    }

    #[test]
    fn a_node_entry_hangs_below_the_server_and_can_not_federate() {
        let args = ["-selector", "a:1", "-spiffeID", "spiffe://td/a"];
        let parent = read(&args, true, false).unwrap().parent_id.unwrap();
        assert_eq!((parent.trust_domain.as_str(), parent.path.as_str()), ("td", "/spire/server"));
        let federated = [args.as_slice(), &["-federatesWith", "x.org"]].concat();
        assert_eq!(read(&federated, true, false).unwrap_err().to_string(), "node entries can not federate");
    }

    #[test]
    fn a_selector_is_split_at_its_first_colon() {
        let list = selectors(&["unix:path:/a:b".to_owned()]).unwrap();
        assert_eq!((list[0].r#type.as_str(), list[0].value.as_str()), ("unix", "path:/a:b"));
        assert_eq!(
            selectors(&["x".to_owned()]).unwrap_err().to_string(),
            "selector \"x\" must be formatted as type:value"
        );
    }

    #[test]
    fn a_file_has_the_members_of_the_older_api() {
        let entries = from_json(
            br#"{"entries":[{"selectors":[{"type":"unix","value":"uid:1"}],"parent_id":"spiffe://td/p",
                "spiffe_id":"spiffe://td/a","x509_svid_ttl":60,"entryExpiry":9,"dns_names":["a"],"store_svid":true,
                "additional_attributes":{"jwt_svid_include_jti":true}}]}"#,
        )
        .unwrap();
        let e = &entries[0];
        assert_eq!((e.x509_svid_ttl, e.expires_at, e.store_svid), (60, 9, true));
        assert!(e.additional_attributes.unwrap().jwt_svid_include_jti);
        assert!(from_json(b"[{}]").is_err());
    }
}
