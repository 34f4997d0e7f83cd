//! Signed rules: "in this life of the store of this trust domain, the rules numbered N are these", under a server's key.
//!
//! Never signs a folder itself: its digest stands for it. Another domain's or another epoch's statement says nothing here.

use avouch_domain::{Epoch, RulesDigest, Timestamp, TrustDomain};

use crate::signer::{SignError, Signer};
use crate::statement::{self, StatementError};

/// What is signed, and the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRules {
    pub epoch: Epoch,
    pub number: u64,
    pub digest: RulesDigest,
    /// When they came into force.
    pub valid_from: Timestamp,
    /// PKIX, DER.
    pub key: Vec<u8>,
    /// ASN.1 form.
    pub signature: Vec<u8>,
}

/// The bytes that are signed: lines of text, so that nothing can be read in two ways.
fn statement(
    domain: &TrustDomain,
    epoch: Epoch,
    number: u64,
    digest: &RulesDigest,
    valid_from: Timestamp,
) -> String {
    let Epoch { started, random } = epoch;
    format!("avouch rules v1\n{domain}\n{started} {random:016x}\n{number}\n{digest}\n{}\n", valid_from.0)
}

impl SignedRules {
    /// # Errors
    /// [`SignError`] if the key can't be used.
    pub fn sign(
        domain: &TrustDomain,
        epoch: Epoch,
        number: u64,
        digest: RulesDigest,
        valid_from: Timestamp,
        signer: &dyn Signer,
    ) -> Result<Self, SignError> {
        let signed = statement(domain, epoch, number, &digest, valid_from);
        let signature = signer.sign(signed.as_bytes())?;
        let key = signer.public_key().pkix().to_vec();
        Ok(Self { epoch, number, digest, valid_from, key, signature })
    }

    /// Checks the signature under the key that comes along; whether that key is the server's is the reader's to know.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn check(&self, domain: &TrustDomain) -> Result<(), StatementError> {
        let signed = statement(domain, self.epoch, self.number, &self.digest, self.valid_from);
        statement::check(&self.key, &signed, &self.signature)
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::KeyType;
    use avouch_domain::fixtures::domain;

    use super::*;
    use crate::key::PrivateKey;
    use crate::ledger::SignedHead;

    const EPOCH: Epoch = Epoch { started: 1_700_000_000_000, random: 0xab };

    fn signed(key: &PrivateKey) -> SignedRules {
        SignedRules::sign(&domain(), EPOCH, 7, RulesDigest([1; 32]), Timestamp(9), key).unwrap()
    }

    #[test]
    fn the_form_of_a_statement_never_changes() {
        let text = statement(&domain(), EPOCH, 7, &RulesDigest([1; 32]), Timestamp(9));
        let digest = "01".repeat(32);
        let expected = "avouch rules v1\nexample.org\n1700000000000 00000000000000ab\n7\nsha256:";
        assert_eq!(text, format!("{expected}{digest}\n9\n"));
    }

    #[test]
    fn a_statement_holds_for_its_own_domain_alone() {
        let signed = signed(&PrivateKey::generate(KeyType::EcP256).unwrap());
        assert_eq!(signed.check(&domain()), Ok(()));
        assert_eq!(signed.check(&TrustDomain::new("other.org").unwrap()), Err(StatementError::Signature));
    }

    #[test]
    fn whatever_is_changed_in_a_statement_is_found() {
        let signed = signed(&PrivateKey::generate(KeyType::EcP256).unwrap());
        let other = PrivateKey::generate(KeyType::EcP256).unwrap();
        let epoch = Epoch { random: 0xac, ..EPOCH };
        let changed = [
            SignedRules { epoch, ..signed.clone() },
            SignedRules { number: 8, ..signed.clone() },
            SignedRules { digest: RulesDigest([2; 32]), ..signed.clone() },
            SignedRules { valid_from: Timestamp(10), ..signed.clone() },
            SignedRules { key: other.public_key().pkix().to_vec(), ..signed.clone() },
        ];
        for changed in changed {
            assert_eq!(changed.check(&domain()), Err(StatementError::Signature), "{changed:?}");
        }
        let empty = SignedRules { key: Vec::new(), ..signed };
        assert!(matches!(empty.check(&domain()), Err(StatementError::Key(_))));
    }

    #[test]
    fn the_signature_of_a_head_is_none_of_rules() {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let head = SignedHead::sign(&domain(), 7, [1; 32], Timestamp(9), &key).unwrap();
        let crossed = SignedRules { signature: head.signature, ..signed(&key) };
        assert_eq!(crossed.check(&domain()), Err(StatementError::Signature));
    }
}
