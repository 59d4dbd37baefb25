//! Keys as clients send them: what they have to look like, what of them is signed, and whether by whom they say.
//!
//! Specification: [Signing JSON](https://spec.matrix.org/v1.19/appendices/#signing-json).

use hearth_federation::{is_signature, json::strictly_canonical};
use ruma::{
    UserId,
    serde::{Base64, base64::Standard},
};
use serde_json::{Map, Value};

use super::Error;

pub(super) type Object = Map<String, Value>;

/// What stands before a key's name in the world of signatures.
pub(super) const ED25519: &str = "ed25519:";

/// The largest object that is signed and stored, in bytes. Those of real clients have some hundreds.
const MAX_OBJECT: usize = 16 * 1024;

/// The text of an object that its signatures are of.
pub(super) fn signed_text(object: &Object) -> Result<String, Error> {
    let mut object = object.clone();
    object.remove("signatures");
    object.remove("unsigned");
    canonical(&Value::Object(object))
}

/// The one text of a value. Numbers that have none are refused.
pub(super) fn canonical(value: &Value) -> Result<String, Error> {
    let text = strictly_canonical(&value.to_string()).map_err(|cause| Error::Invalid(cause.to_string()))?;
    if text.len() > MAX_OBJECT {
        return Err(Error::TooMany { what: "the bytes of a key", limit: MAX_OBJECT });
    }
    Ok(text)
}

/// The 32 bytes of a key in base64.
pub(super) fn public_key(text: &str) -> Option<[u8; 32]> {
    Base64::<Standard>::parse(text).ok()?.as_bytes().try_into().ok()
}

/// The signatures of an object by keys of a user: the key's full name and the signature.
pub(super) fn signatures_by<'a>(
    object: &'a Object,
    signer: &UserId,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let by = object.get("signatures").and_then(|all| all.get(signer.as_str())).and_then(Value::as_object);
    by.into_iter().flatten().filter_map(|(key, signature)| Some((key.as_str(), signature.as_str()?)))
}

/// A key that signs.
#[derive(Clone, Debug)]
pub(super) struct Verifier {
    /// `ed25519:…`
    pub(super) name: String,
    pub(super) public: [u8; 32],
}

impl Verifier {
    /// A user's key, which is called by itself.
    pub(super) fn of_user(public_key_text: &str) -> Option<Self> {
        Some(Self { name: format!("{ED25519}{public_key_text}"), public: public_key(public_key_text)? })
    }

    /// The signing key among the keys of a device.
    pub(super) fn of_device(device_keys: &Object, device_id: &str) -> Option<Self> {
        let name = format!("{ED25519}{device_id}");
        let public = public_key(device_keys.get("keys")?.get(&name)?.as_str()?)?;
        Some(Self { name, public })
    }

    pub(super) fn verifies(&self, signature: &str, text: &str) -> bool {
        is_signature(signature, &self.public, text)
    }

    /// Whether `signer`, whose key this is, has signed an object whose signed text this is. An error says why not.
    pub(super) fn check(&self, object: &Object, signer: &UserId, text: &str) -> Result<(), Error> {
        let found = signatures_by(object, signer).find(|(key, _)| *key == self.name);
        let Some((_, signature)) = found else {
            return Err(Error::Signature(format!("the signature by {:.100} is missing", self.name)));
        };
        if self.verifies(signature, text) {
            Ok(())
        } else {
            Err(Error::Signature(format!("the signature by {:.100} is wrong", self.name)))
        }
    }
}

/// Keeps of an object's signatures those by one user that `keep` says are right, given the name of the key and the
/// signature. What else the object says outside of what is signed goes.
pub(super) fn keep_signatures(
    object: &mut Object,
    signer: &UserId,
    mut keep: impl FnMut(&str, &str) -> Result<bool, Error>,
) -> Result<(), Error> {
    let mut kept = Object::new();
    for (key, signature) in signatures_by(object, signer) {
        if keep(key, signature)? {
            kept.insert(key.to_owned(), signature.into());
        }
    }
    object.remove("unsigned");
    object.remove("signatures");
    if !kept.is_empty() {
        let all = Object::from_iter([(signer.to_string(), kept.into())]);
        object.insert("signatures".to_owned(), all.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Object {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn what_is_signed_is_canonical_and_without_signatures() {
        let text = signed_text(&object(&json!({
            "b": 2, "a": "é", "signatures": { "@a:x": {} }, "unsigned": { "x": 1 }
        })));
        assert_eq!(text.unwrap(), r#"{"a":"é","b":2}"#);
        assert!(matches!(signed_text(&object(&json!({ "a": 1.5 }))), Err(Error::Invalid(_))));
        let large = signed_text(&object(&json!({ "a": "x".repeat(MAX_OBJECT) })));
        assert!(matches!(large, Err(Error::TooMany { .. })));
    }

    #[test]
    fn keys_are_32_bytes() {
        assert!(public_key("XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI").is_some());
        for wrong in ["", "!", "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kc"] {
            assert_eq!(public_key(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_signatures_that_are_right_are_kept() {
        let mut key = object(&json!({
            "x": 1, "unsigned": {},
            "signatures": { "@a:x": { "ed25519:A": "1", "ed25519:B": "2", "ed25519:C": 3 }, "@b:x": { "ed25519:A": "1" } },
        }));
        keep_signatures(&mut key, <&UserId>::try_from("@a:x").unwrap(), |key, _| Ok(key == "ed25519:A"))
            .unwrap();
        assert_eq!(Value::from(key), json!({ "x": 1, "signatures": { "@a:x": { "ed25519:A": "1" } } }));
    }
}
