//! JSON from strangers: what is taken is what `serde_json` takes, and what is written is canonical, by ruma's and by our
//! own reckoning.

use hearth_federation::json::{self, JsonError};
use ruma::CanonicalJsonValue;
use serde_json::Value;

pub(crate) fn run(data: &[u8]) {
    let ours = json::parse_bytes(data);
    let theirs = serde_json::from_slice::<Value>(data);
    assert_eq!(ours.is_ok(), theirs.is_ok(), "{ours:?} but {theirs:?}");
    let (Ok(ours), Ok(theirs)) = (ours, theirs) else { return };
    let text = std::str::from_utf8(data).expect("it was parsed");

    let canonical = json::canonical(text).expect("it was parsed");
    assert_eq!(json::canonical(&canonical).as_ref(), Ok(&canonical), "the canonical form is its own");
    let again: Value = serde_json::from_str(&canonical).expect("what is written is JSON");
    assert!(alike(&again, &theirs), "{theirs} became {canonical}");

    let strict = json::strictly_canonical(text);
    assert_eq!(strict.is_ok(), ours.check_integers().is_ok());
    match CanonicalJsonValue::try_from(theirs) {
        Ok(theirs) => assert_eq!(strict, Ok(theirs.to_string())),
        Err(cause) => {
            assert!(matches!(strict, Err(JsonError::NotAnInteger(_))), "{strict:?}, but ruma says {cause}");
        }
    }
    if strict.is_ok() {
        assert_eq!(json::parse(&canonical).as_ref(), Ok(&ours), "nothing is lost");
    }
}

/// Whether two values are the same but for how their numbers are written.
fn alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        // `serde_json` rounds what it reads to one of the two nearest doubles.
        (Value::Number(one), Value::Number(other)) => one
            .as_f64()
            .zip(other.as_f64())
            .is_some_and(|(one, other)| (one - other).abs() <= 2.0 * f64::EPSILON * one.abs()),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| alike(value, other)))
        }
        _ => one == other,
    }
}
