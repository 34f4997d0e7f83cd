//! The digest of a rules folder: one for the same files, wherever and however they were written.

use avouch_domain::RulesDigest;
use aws_lc_rs::digest::{Context, SHA256, digest};

/// First line of the listing that is hashed; a new form of it gets a new number.
const LISTING: &str = "avouch-rules-1\n";

/// SHA-256 over the listing of all files, which come ascending by name: name, length in bytes and SHA-256 of each.
pub(crate) fn of<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> RulesDigest {
    let mut listing = Context::new(&SHA256);
    listing.update(LISTING.as_bytes());
    for (name, text) in files {
        let content = hex::encode(digest(&SHA256, text.as_bytes()));
        listing.update(format!("{name} {} {content}\n", text.len()).as_bytes());
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(listing.finish().as_ref());
    RulesDigest(bytes)
}

#[cfg(test)]
mod tests {
    use crate::Folder;
    use crate::starter::STARTER;

    fn digest(files: &[(&str, &str)]) -> String {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Folder::new(files).unwrap().rules_digest().to_string()
    }

    #[test]
    fn the_form_of_the_listing_never_changes() {
        // sha256sum over "avouch-rules-1\na.cedar 1 <sha256 of x>\nb.cedar 0 <sha256 of nothing>\n".
        let expected = "sha256:0fbc2c1d300478152da0d9c5c332824c50f5a2802371f157b0eceb3087ea3cbd";
        assert_eq!(digest(&[("b.cedar", ""), ("a.cedar", "x")]), expected);
    }

    #[test]
    fn what_moves_from_one_file_to_its_neighbour_changes_the_digest() {
        let texts = [("a.cedar", "xy"), ("b.cedar", "z")];
        assert_ne!(digest(&texts), digest(&[("a.cedar", "x"), ("b.cedar", "yz")]));
        assert_ne!(digest(&[]), digest(&[("a.cedar", "")]));
        assert_eq!(digest(&STARTER), digest(&STARTER));
    }
}
