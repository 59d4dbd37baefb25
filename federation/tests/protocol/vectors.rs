//! The specification's own test vectors.

use crate::common::{key, server};
use hearth_federation::{Verified, json};
use ruma::{CanonicalJsonObject, RoomVersionId};
use serde_json::{Value, from_str, from_value};

fn signing() -> Value {
    from_str(include_str!("vectors/signing.json")).unwrap()
}

/// CJ-05
#[test]
fn canonical_json_vectors() {
    let vectors: Value = from_str(include_str!("vectors/canonical-json.json")).unwrap();
    let vectors = vectors["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 10);
    for vector in vectors {
        let canonical = json::canonical(vector["input_text"].as_str().unwrap()).unwrap();
        assert_eq!(canonical, vector["canonical"].as_str().unwrap());
    }
}

/// SG-10
#[test]
fn key_vector() {
    assert_eq!(key().public_key_text(), signing()["verify_key"].as_str().unwrap());
    assert_eq!(key().id().as_str(), signing()["key_id"].as_str().unwrap());
}

/// SG-04, SG-10
#[test]
fn json_signing_vectors() {
    let vectors = signing();
    for vector in vectors["json_signing"].as_array().unwrap() {
        let mut object: CanonicalJsonObject = from_value(vector["input"].clone()).unwrap();
        key().sign_json(server(), &mut object).unwrap();
        assert_eq!(serde_json::to_value(object).unwrap(), vector["signed"]);
    }
}

/// SG-01, SG-02, SG-10: the vector's hash and signature are right for us as well.
#[test]
fn event_signing_vectors_verify() {
    let vectors = signing();
    let mut signed = vectors["event_signing"][1]["signed"].clone();
    // The vector lacks what the event format asks for since; none of it may be there when it is hashed.
    assert!(crate::common::verify(&signed.to_string(), &RoomVersionId::V1).is_err());

    // The other one has it all but an id, so versions 3 to 5 take it.
    signed = vectors["event_signing"][0]["signed"].clone();
    for version in [RoomVersionId::V3, RoomVersionId::V4, RoomVersionId::V5, RoomVersionId::V10] {
        let text = signed.to_string();
        let verified = crate::common::verify(&text, &version).unwrap();
        assert!(matches!(verified, Verified::Intact(_)), "{version}");
    }
    // Without `origin` the signature is another one.
    assert!(crate::common::verify(&signed.to_string(), &RoomVersionId::V11).is_err());
}
