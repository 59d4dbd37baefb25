//! The parser and the canonical writer, against the specification and against `serde_json`.

use hearth_federation::json::{self, JsonError, MAX_DEPTH, canonical, strictly_canonical};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// CJ-01
#[test]
fn keys_sort_by_code_point() {
    // In UTF-16 the second would come before the first.
    assert_eq!(
        canonical("{\"\u{10000}\":1,\"\u{ffff}\":2,\"b\":3,\"\":4}").unwrap(),
        "{\"\":4,\"b\":3,\"\u{ffff}\":2,\"\u{10000}\":1}"
    );
}

/// CJ-02, CJ-04
#[test]
fn strict_numbers_are_integers_in_range() {
    for number in ["0", "-1", "10", "9007199254740991", "-9007199254740991"] {
        assert_eq!(strictly_canonical(number).unwrap(), number);
    }
    for number in [
        "-0",
        "0.0",
        "1.5",
        "1e3",
        "1E0",
        "9007199254740992",
        "-9007199254740992",
        "18446744073709551616",
        "100000000000000000000000000000",
    ] {
        let nested = format!(r#"{{"a":[{{"b":{number}}}]}}"#);
        assert_eq!(strictly_canonical(&nested), Err(JsonError::NotAnInteger(number.to_owned())));
        assert!(canonical(&nested).is_ok());
    }
}

/// RV-11: versions 1 to 5 bear other numbers, and hash what their author's server hashed.
#[test]
fn lenient_numbers_keep_their_text() {
    for number in ["1.0", "1.5", "-0.0", "1e-05", "1e+16", "1.5e300", "123456789012345678901234567890"] {
        assert_eq!(canonical(number).unwrap(), number);
    }
    for (number, written) in [("-0", "0"), ("1e10", "10000000000"), ("15e-1", "15e-1"), ("-2.5E1", "-25")] {
        assert_eq!(canonical(number).unwrap(), written);
    }
}

#[test]
fn numbers_past_a_double_are_refused() {
    for number in ["1e400".to_owned(), "-1e999999999".to_owned(), "9".repeat(400)] {
        assert!(matches!(canonical(&number), Err(JsonError::Syntax { what: "number out of range", .. })));
    }
    for number in ["NaN", "Infinity", "-", "01", "1.", ".5", "1e", "+1", "0x1"] {
        assert!(canonical(number).is_err(), "{number}");
    }
}

/// CJ-03
#[test]
fn strings_have_the_shortest_escapes() {
    let all_controls = (0..0x20).map(|code| format!("\\u{code:04x}")).collect::<Vec<_>>().concat();
    assert_eq!(
        canonical(&format!("\"{all_controls}\\/\\\"\\\\\\u007f\\u00e9\\ud83d\\udd25\"")).unwrap(),
        concat!(
            r#""\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000b\f\r\u000e\u000f"#,
            r"\u0010\u0011\u0012\u0013\u0014\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f",
            "/\\\"\\\\\u{7f}é🔥\""
        )
    );
}

#[test]
fn halves_of_characters_are_refused() {
    for text in [r#""\ud83d""#, r#""\udd25""#, r#""\ud83dx""#, r#""\ud83d\n""#, r#""\ud83d\ud83d""#] {
        assert!(matches!(canonical(text), Err(JsonError::Syntax { what: "lone surrogate", .. })), "{text}");
    }
    assert_eq!(json::parse_bytes(b"\"\xff\""), Err(JsonError::NotUtf8));
    assert_eq!(json::parse_bytes(b"\"\xc0\xaf\""), Err(JsonError::NotUtf8));
}

/// The last one wins, at any depth, wherever it stands; keys are equal after unescaping.
#[test]
fn duplicate_keys_have_one_outcome() {
    assert_eq!(canonical(r#"{"a":1,"a":2}"#).unwrap(), r#"{"a":2}"#);
    assert_eq!(
        canonical(r#"{"b":1,"a":1,"b":2,"a":{"c":1,"c":2},"b":3}"#).unwrap(),
        r#"{"a":{"c":2},"b":3}"#
    );
    assert_eq!(canonical(r#"{"a":1,"\u0061":2}"#).unwrap(), r#"{"a":2}"#);
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(canonical(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(canonical(&nested(MAX_DEPTH + 1)), Err(JsonError::TooDeep));
    assert_eq!(canonical(&"[".repeat(100_000)), Err(JsonError::TooDeep));
    assert_eq!(canonical(&"{\"a\":".repeat(100_000)), Err(JsonError::TooDeep));
    // Depth, not count.
    assert!(canonical(&format!("[{}[]]", "[],".repeat(10_000))).is_ok());
}

/// What we take, whoever reads the stored text can read.
#[test]
fn serde_reads_as_deep_as_we_do() {
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(serde_json::from_str::<serde_json::Value>(&nested(MAX_DEPTH)).is_ok());
    assert!(serde_json::from_str::<serde_json::Value>(&nested(MAX_DEPTH + 1)).is_err());
}

#[test]
fn objects_where_objects_are_wanted() {
    assert_eq!(json::parse_object("[]"), Err(JsonError::NotAnObject));
    assert!(json::parse_object(" { } ").is_ok());
    assert!(json::parse_object("{} {}").is_err());
}

/// Broken and valid texts alike: we take what `serde_json` takes, and mean the same by it.
#[test]
fn agrees_with_serde_on_mangled_text() {
    let samples = [
        r#"{"a":[1,-2,{"b":null,"c":[true,false]}],"d\u00e9\n":"x\ud83d\udd25y","e":{},"f":[],"g":-1.5e+3}"#,
        r#" [ "\"\\\/\b\f\n\r\t" , 0 , 0.25 , 1E2 , 123456789 ] "#,
        r#"{"type":"m.room.message","content":{"body":"hi","n":[[[[]]]]},"depth":12}"#,
    ];
    let alphabet: Vec<char> = "{}[]\",:\\ue0123-+.Etfn \n\u{1}é".chars().collect();
    let mut rng = StdRng::seed_from_u64(7);
    let mut taken = 0;
    for round in 0..30_000 {
        let mut text: Vec<char> = samples[round % samples.len()].chars().collect();
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..text.len());
            match rng.random_range(0..3) {
                0 => drop(text.remove(at)),
                1 => text[at] = alphabet[rng.random_range(0..alphabet.len())],
                _ => text.insert(at, alphabet[rng.random_range(0..alphabet.len())]),
            }
        }
        let text: String = text.into_iter().collect();
        match (canonical(&text), serde_json::from_str::<serde_json::Value>(&text)) {
            (Ok(ours), Ok(theirs)) => {
                taken += 1;
                let again: serde_json::Value = serde_json::from_str(&ours).unwrap();
                // Numbers may be written otherwise, though they have the same value.
                assert_eq!(floats(again), floats(theirs), "{text}");
                assert_eq!(canonical(&ours).unwrap(), ours, "{text}");
            }
            (Err(_), Err(_)) => {}
            (ours, theirs) => panic!("{text}: {ours:?} but {theirs:?}"),
        }
    }
    assert!(taken > 5_000, "only {taken} texts were valid");
}

fn floats(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Number(number) => Value::from(number.as_f64().unwrap() + 0.0),
        Value::Array(items) => Value::Array(items.into_iter().map(floats).collect()),
        Value::Object(object) => object.into_iter().map(|(key, value)| (key, floats(value))).collect(),
        other => other,
    }
}
