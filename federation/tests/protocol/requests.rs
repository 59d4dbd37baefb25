//! Signed requests: `X-Matrix` headers as we write them, as others write them, and as nobody should.

use hearth_federation::{Authorization, AuthorizationError, SignedRequest};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, ServerName, server_name};
use serde_json::json;

use crate::common::key;

fn us() -> &'static ServerName {
    server_name!("[2001:db8::1]:8448")
}

const BODY: &str = r#"{ "b": 1, "a": "\u00e9" }"#;

fn put() -> SignedRequest<'static> {
    SignedRequest {
        method: "PUT",
        uri: "/_matrix/federation/v1/send/1?a=%20b",
        origin: server_name!("origin.example:8448"),
        destination: us(),
        content: Some(BODY),
    }
}

/// The signature over the same request, by code that isn't ours.
fn signature_of(object: serde_json::Value) -> String {
    let mut object: CanonicalJsonObject = serde_json::from_value(object).unwrap();
    key().sign_json(server_name!("origin.example:8448"), &mut object).unwrap();
    let CanonicalJsonValue::Object(signatures) = &object["signatures"] else { panic!() };
    let CanonicalJsonValue::Object(of_origin) = &signatures["origin.example:8448"] else { panic!() };
    let CanonicalJsonValue::String(signature) = &of_origin["ed25519:1"] else { panic!() };
    signature.clone()
}

fn verify(authorization: &Authorization, content: Option<&str>) -> Result<(), AuthorizationError> {
    let SignedRequest { method, uri, .. } = put();
    authorization.verify(us(), method, uri, content, &key().public_key())
}

fn parse(header: &str) -> Result<Authorization, AuthorizationError> {
    Authorization::parse(header)
}

#[test]
fn fa_01_the_method_the_target_both_servers_and_the_content_are_signed() {
    let header = put().sign(&key()).unwrap();
    let signature = signature_of(json!({
        "method": "PUT",
        "uri": "/_matrix/federation/v1/send/1?a=%20b",
        "origin": "origin.example:8448",
        "destination": "[2001:db8::1]:8448",
        "content": { "a": "é", "b": 1 },
    }));
    assert_eq!(parse(&header).unwrap().signature, signature);
    verify(&parse(&header).unwrap(), Some(BODY)).unwrap();
}

#[test]
fn fa_01_a_request_that_was_changed_is_not_what_was_signed() {
    let authorization = parse(&put().sign(&key()).unwrap()).unwrap();
    let SignedRequest { method, uri, .. } = put();
    let public = key().public_key();
    let wrong = Err(AuthorizationError::Signature);
    assert_eq!(authorization.verify(us(), "POST", uri, Some(BODY), &public), wrong);
    assert_eq!(
        authorization.verify(us(), method, "/_matrix/federation/v1/send/1", Some(BODY), &public),
        wrong
    );
    assert_eq!(authorization.verify(us(), method, uri, Some(r#"{"a":"é","b":2}"#), &public), wrong);
    assert_eq!(authorization.verify(us(), method, uri, None, &public), wrong);
    assert_eq!(authorization.verify(us(), method, uri, Some(BODY), &[9; 32]), wrong);
    let other = Authorization { origin: server_name!("other.example").to_owned(), ..authorization };
    assert_eq!(other.verify(us(), method, uri, Some(BODY), &public), wrong);
}

#[test]
fn fa_01_a_body_that_is_not_json_was_not_signed() {
    let authorization = parse(&put().sign(&key()).unwrap()).unwrap();
    assert!(matches!(verify(&authorization, Some("{")), Err(AuthorizationError::Content(_))));
    assert!(SignedRequest { content: Some("{"), ..put() }.sign(&key()).is_err());
}

#[test]
fn fa_02_headers_are_read_as_rfc_9110_says() {
    let expected = parse(
        r#"X-Matrix origin="origin.example:8448",destination="[2001:db8::1]:8448",key="ed25519:1",sig="a+/9""#,
    )
    .unwrap();
    assert_eq!(expected.origin, "origin.example:8448");
    assert_eq!(expected.destination.as_deref(), Some(us()));
    assert_eq!((&*expected.key_id, &*expected.signature), ("ed25519:1", "a+/9"));
    for (what, header) in [
        (
            "any order, any case",
            r#"x-mATRIX SIG="a+/9",Key="ed25519:1",destination="[2001:db8::1]:8448",Origin="origin.example:8448""#,
        ),
        (
            "spaces and tabs",
            "X-Matrix    origin=\"origin.example:8448\" \t,\t destination = \"[2001:db8::1]:8448\",key=\"ed25519:1\" ,sig=\"a+/9\"  ",
        ),
        (
            "tokens, with colons",
            r#"X-Matrix origin=origin.example:8448,destination="[2001:db8::1]:8448",key=ed25519:1,sig="a+/9""#,
        ),
        (
            "escapes",
            r#"X-Matrix origin="o\rigin.ex\ample:8448",destination="[2001:db8::1]:8448",key="ed25519\:1",sig="a+\/9""#,
        ),
        (
            "unknown parameters and empty elements",
            r#"X-Matrix , ,origin="origin.example:8448",new="a,\"b=\\",destination="[2001:db8::1]:8448",x=1,,key="ed25519:1",sig="a+/9","#,
        ),
        (
            "the other name of the signature",
            r#"X-Matrix origin="origin.example:8448",destination="[2001:db8::1]:8448",key="ed25519:1",signature="a+/9""#,
        ),
    ] {
        assert_eq!(parse(header).as_ref(), Ok(&expected), "{what}");
    }
}

#[test]
fn fa_02_other_headers_are_refused() {
    let refused = |header: &str| parse(header).unwrap_err();
    assert_eq!(refused(""), AuthorizationError::Scheme);
    assert_eq!(refused("Bearer abc"), AuthorizationError::Scheme);
    assert_eq!(refused("X-Matrix"), AuthorizationError::Scheme);
    assert_eq!(refused("X-Matrix "), AuthorizationError::Parameter("origin"));
    assert_eq!(refused("X-Matrix key=ed25519:1,sig=a"), AuthorizationError::Parameter("origin"));
    assert_eq!(refused("X-Matrix origin=a,sig=a"), AuthorizationError::Parameter("key"));
    assert_eq!(refused("X-Matrix origin=a,key=rsa:1,sig=a"), AuthorizationError::Parameter("key"));
    assert_eq!(refused("X-Matrix origin=a,key=ed25519:1"), AuthorizationError::Parameter("sig"));
    assert_eq!(refused("X-Matrix origin=a/b,key=ed25519:1,sig=a"), AuthorizationError::Parameter("origin"));
    assert_eq!(
        refused("X-Matrix origin=a,destination=\"\",key=ed25519:1,sig=a"),
        AuthorizationError::Parameter("destination")
    );
    for header in [
        "X-Matrix origin",
        "X-Matrix origin=",
        "X-Matrix origin=,key=ed25519:1",
        "X-Matrix =a",
        "X-Matrix or\"igin=a",
        "X-Matrix origin=\"a",
        "X-Matrix origin=\"a\\",
        "X-Matrix origin=\"a\"b",
        "X-Matrix origin=a b",
        "X-Matrix origin=a,origin=b,key=ed25519:1,sig=a",
        "X-Matrix origin=é,key=ed25519:1,sig=a",
    ] {
        assert!(matches!(refused(header), AuthorizationError::Syntax(_)), "{header}");
    }
    let long = format!("X-Matrix origin=a,key=ed25519:1,sig={}", "a".repeat(5000));
    assert!(matches!(refused(&long), AuthorizationError::Syntax(_)));
}

#[test]
fn fa_03_a_request_for_another_server_is_not_ours() {
    let header = SignedRequest { destination: server_name!("other.example"), ..put() }.sign(&key()).unwrap();
    let authorization = parse(&header).unwrap();
    let other = AuthorizationError::Destination(server_name!("other.example").to_owned());
    assert_eq!(verify(&authorization, Some(BODY)), Err(other));
}

#[test]
fn fa_03_a_header_without_destination_is_of_whom_the_signature_names() {
    let ours = put().sign(&key()).unwrap().replace(r#"destination="[2001:db8::1]:8448","#, "");
    let ours = parse(&ours).unwrap();
    assert_eq!(ours.destination, None);
    verify(&ours, Some(BODY)).unwrap();

    let theirs = SignedRequest { destination: server_name!("other.example"), ..put() }.sign(&key()).unwrap();
    let theirs = parse(&theirs.replace(r#"destination="other.example","#, "")).unwrap();
    assert_eq!(verify(&theirs, Some(BODY)), Err(AuthorizationError::Signature));
}

#[test]
fn fa_04_the_header_is_written_for_old_servers() {
    let header = put().sign(&key()).unwrap();
    let signature = parse(&header).unwrap().signature;
    assert_eq!(
        header,
        format!(
            r#"X-Matrix origin="origin.example:8448",destination="[2001:db8::1]:8448",key="ed25519:1",sig="{signature}""#
        )
    );
}

#[test]
fn fa_05_without_a_body_there_is_no_content() {
    let header = SignedRequest { content: None, ..put() }.sign(&key()).unwrap();
    let signature = signature_of(json!({
        "method": "PUT",
        "uri": "/_matrix/federation/v1/send/1?a=%20b",
        "origin": "origin.example:8448",
        "destination": "[2001:db8::1]:8448",
    }));
    assert_eq!(parse(&header).unwrap().signature, signature);
    verify(&parse(&header).unwrap(), None).unwrap();
    assert_eq!(verify(&parse(&header).unwrap(), Some("{}")), Err(AuthorizationError::Signature));
}

/// Whatever stands in a header, it is read or refused; and what is read has the form of what it should be.
#[test]
fn i8_no_header_makes_the_parser_panic() {
    let good = put().sign(&key()).unwrap();
    let alphabet: Vec<char> = "\"\\,= \t:[]aX-é\u{1}\u{1f525}".chars().collect();
    let mut rng = StdRng::seed_from_u64(11);
    let mut read = 0;
    for _ in 0..20_000 {
        let mut text: Vec<char> = good.chars().collect();
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..text.len());
            match rng.random_range(0..4) {
                0 => drop(text.remove(at)),
                1 => text[at] = alphabet[rng.random_range(0..alphabet.len())],
                2 => text.truncate(at.max(8)),
                _ => text.insert(at, alphabet[rng.random_range(0..alphabet.len())]),
            }
        }
        let text: String = text.into_iter().collect();
        if let Ok(authorization) = parse(&text) {
            read += 1;
            assert!(authorization.key_id.starts_with("ed25519:"), "{text}");
            let _ = verify(&authorization, Some(BODY));
        }
    }
    assert!(read > 2_000, "only {read} headers were read");
}

/// I7: what nobody can read in a body doesn't make its signature wrong.
#[test]
fn a_canonical_body_is_verified_without_being_read() {
    let deep = format!("{}1{}", r#"{"a":["#.repeat(5_000), "]}".repeat(5_000));
    let (method, uri) = ("PUT", "/_matrix/federation/v1/send/1");
    let text = format!(
        r#"{{"content":{deep},"destination":"{}","method":"{method}","origin":"{}","uri":"{uri}"}}"#,
        us(),
        server_name!("origin.example:8448"),
    );
    let signature = key().sign(text.as_bytes());
    let header = format!(
        r#"X-Matrix origin="{}",destination="{}",key="{}",sig="{signature}""#,
        server_name!("origin.example:8448"),
        us(),
        key().id()
    );
    let authorization = parse(&header).unwrap();
    let public = key().public_key();
    authorization.verify(us(), method, uri, Some(&deep), &public).unwrap();
    let longer = deep.replacen('{', "{ ", 1);
    assert!(authorization.verify(us(), method, uri, Some(&longer), &public).is_err());
}
