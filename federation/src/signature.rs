//! Whether a signature is right: the one place that asks the cryptography.

use ruma::{
    SigningKeyAlgorithm,
    serde::{Base64, base64::Standard},
    signatures::verify_canonical_json_bytes,
};

/// Bytes of a signature.
const SIGNATURE_BYTES: usize = 64;

/// Whether `signature` has the form of one, in base64 with padding or without.
pub(crate) fn may_be_signature(signature: &str) -> bool {
    // Four characters say three bytes.
    signature.len() <= SIGNATURE_BYTES * 2
        && Base64::<Standard>::parse(signature).is_ok_and(|bytes| bytes.as_bytes().len() == SIGNATURE_BYTES)
}

/// Whether `signature`, in base64 with padding or without, is by `public_key` over `text`.
pub fn is_signature(signature: &str, public_key: &[u8; 32], text: &str) -> bool {
    Base64::<Standard>::parse(signature).is_ok_and(|signature| {
        verify_canonical_json_bytes(
            &SigningKeyAlgorithm::Ed25519,
            public_key,
            signature.as_bytes(),
            text.as_bytes(),
        )
        .is_ok()
    })
}
