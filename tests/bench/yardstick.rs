//! What nothing can beat: raw P-256 of the same provider in the same run.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};

const MESSAGE: &[u8] = &[7; 400];

/// One signature, in microseconds.
pub fn sign() -> f64 {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
    let random = SystemRandom::new();
    super::measure(|| {
        std::hint::black_box(key.sign(&random, MESSAGE).expect("a signature"));
    })
}

/// One verification and one signature: what a CSR and a certificate cost at least, in microseconds.
pub fn verify_and_sign() -> f64 {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
    let random = SystemRandom::new();
    let signature = key.sign(&random, MESSAGE).expect("a signature");
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key().as_ref());
    super::measure(|| {
        public.verify(MESSAGE, signature.as_ref()).expect("a true signature");
        std::hint::black_box(key.sign(&random, MESSAGE).expect("a signature"));
    })
}
