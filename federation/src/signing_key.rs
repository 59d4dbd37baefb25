//! The server's own signing key.
//!
//! Owns its text form in a file, and signing with it. It never reads or writes files itself, and never makes up a secret.
//!
//! Specification: [Signing JSON](https://spec.matrix.org/v1.19/appendices/#signing-json).

use std::fmt;

use ruma::{
    CanonicalJsonObject, OwnedServerSigningKeyId, ServerName,
    serde::{Base64, base64::Standard},
    signatures::{Ed25519KeyPair, JsonError, KeyPair, sign_json},
};

/// What stands before the 32 bytes of seed in the PKCS#8 document of an ed25519 key (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// An ed25519 key pair with its version, such as `a_QzKd`.
pub struct SigningKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
    id: OwnedServerSigningKeyId,
}

/// Why a text isn't a signing key. Never shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// The text isn't one line of three words, or the first isn't `ed25519`.
    #[error("a signing key is one line: `ed25519 <version> <seed in base64>`")]
    Form,
    /// The version may hold letters, digits and underscores, at most 64.
    #[error("the version of a signing key is 1 to 64 letters, digits and underscores")]
    Version,
    /// The seed isn't 32 bytes in unpadded base64.
    #[error("the seed of a signing key is 32 bytes in base64")]
    Seed,
}

impl SigningKey {
    /// A key from its version and its secret: 32 random bytes, any of which will do.
    pub fn new(version: &str, seed: [u8; 32]) -> Result<Self, SigningKeyError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if version.is_empty() || version.len() > 64 || !version.bytes().all(allowed) {
            return Err(SigningKeyError::Version);
        }
        let id = OwnedServerSigningKeyId::try_from(format!("ed25519:{version}"))
            .map_err(|_| SigningKeyError::Version)?;
        let document = [PKCS8_PREFIX.as_slice(), &seed].concat();
        let pair =
            Ed25519KeyPair::from_der(&document, version.to_owned()).map_err(|_| SigningKeyError::Seed)?;
        Ok(Self { seed, pair, id })
    }

    /// Read the text form, which other homeservers use too: `ed25519 <version> <seed in base64>`.
    pub fn from_text(text: &str) -> Result<Self, SigningKeyError> {
        let mut words = text.split_ascii_whitespace();
        let (Some("ed25519"), Some(version), Some(seed), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(SigningKeyError::Form);
        };
        let seed = Base64::<Standard>::parse(seed).map_err(|_| SigningKeyError::Seed)?;
        Self::new(version, seed.as_bytes().try_into().map_err(|_| SigningKeyError::Seed)?)
    }

    /// The text form, a line. It is a secret.
    pub fn to_text(&self) -> String {
        format!("ed25519 {} {}\n", self.version(), Base64::<Standard, _>::new(self.seed).encode())
    }

    /// The key's id, `ed25519:<version>`.
    pub fn id(&self) -> &OwnedServerSigningKeyId {
        &self.id
    }

    /// The key's version.
    pub fn version(&self) -> &str {
        self.pair.version()
    }

    /// The public half.
    pub fn public_key(&self) -> [u8; 32] {
        self.pair.public_key()
    }

    /// The public half in unpadded base64, as servers publish it.
    pub fn public_key_text(&self) -> String {
        Base64::<Standard, _>::new(self.public_key()).encode()
    }

    /// Sign bytes; the signature is in unpadded base64.
    pub fn sign(&self, message: &[u8]) -> String {
        self.pair.sign(message).base64()
    }

    /// Sign an object that isn't an event, adding to its `signatures`.
    pub fn sign_json(&self, server: &ServerName, object: &mut CanonicalJsonObject) -> Result<(), JsonError> {
        sign_json(server.as_str(), &self.pair, object)
    }
}

impl fmt::Debug for SigningKey {
    /// Without the seed.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_key_survives_its_text_form() {
        let key = SigningKey::new("a_QzKd", [7; 32]).unwrap();
        let again = SigningKey::from_text(&key.to_text()).unwrap();
        assert_eq!(again.id(), key.id());
        assert_eq!(again.public_key(), key.public_key());
        assert_eq!(again.sign(b"x"), key.sign(b"x"));
    }

    /// SG-06: padding or none.
    #[test]
    fn padded_seeds_are_read() {
        let key = SigningKey::from_text("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1=").unwrap();
        assert_eq!(key.public_key_text(), "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI");
        assert_eq!(key.id().as_str(), "ed25519:1");
    }

    #[test]
    fn other_texts_are_refused() {
        let parse = |text| SigningKey::from_text(text).unwrap_err();
        assert_eq!(parse(""), SigningKeyError::Form);
        assert_eq!(parse("ed25519 1"), SigningKeyError::Form);
        assert_eq!(parse("rsa 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"), SigningKeyError::Form);
        assert_eq!(parse("ed25519 1 YJDB"), SigningKeyError::Seed);
        assert_eq!(parse("ed25519 1 !!!!"), SigningKeyError::Seed);
        assert_eq!(
            parse("ed25519 a:b YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"),
            SigningKeyError::Version
        );
    }

    #[test]
    fn debug_output_hides_the_seed() {
        let key = SigningKey::from_text("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").unwrap();
        assert_eq!(format!("{key:?}"), r#"SigningKey { id: "ed25519:1", .. }"#);
    }
}
