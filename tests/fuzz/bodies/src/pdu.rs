//! Events of other servers: bytes that become an event, with the hashes, ids, signatures and redactions that ruma's own
//! implementation gives it.
//!
//! The first byte chooses the room's version, the rest is the event. What is an object is signed on the way, so that more
//! than signatures is tried.

use hearth_federation::{
    Pdu, Received, References, SigningKey, Verified, VerifyError, json::parse, rules, supported_versions,
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, RoomVersionId, ServerName, UserId,
    canonical_json::redact, room_version_rules::RoomVersionRules, signatures,
};

/// The seed of the specification's test vectors.
const SEED: &str = "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";

pub(crate) fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let versions: Vec<RoomVersionId> = supported_versions().collect();
    let version = &versions[usize::from(*first) % versions.len()];
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let rules = rules(version).expect("it is supported");

    if let Ok(received) = Received::parse(text, version, References::Limited) {
        assert!(Received::parse(text, version, References::Unlimited).is_ok(), "fewer rules refuse no more");
        for signer in received.signers() {
            received.key_ids(signer).for_each(|id| assert!(!id.contains('\n') || text.contains("\\n")));
        }
        let nobody = received.clone().verify(|_, _| None);
        // In no version is an event of nobody's signature anybody's, but for invitations by a third party.
        assert!(nobody.is_err() || received.signers().next().is_none());
    }
    let Ok(CanonicalJsonValue::Object(object)) = canonical(text) else { return };
    signed(object, version, &rules);
}

fn canonical(text: &str) -> Result<CanonicalJsonValue, ()> {
    parse(text).map_err(|_| ())?;
    let value: serde_json::Value = serde_json::from_str(text).map_err(|_| ())?;
    value.try_into().map_err(|_| ())
}

fn text_of(object: &CanonicalJsonObject) -> String {
    CanonicalJsonValue::Object(object.clone()).to_string()
}

fn sender_of(object: &CanonicalJsonObject) -> Option<OwnedServerName> {
    let Some(CanonicalJsonValue::String(sender)) = object.get("sender") else { return None };
    <&UserId>::try_from(sender.as_str()).ok().map(|sender| sender.server_name().to_owned())
}

fn signed(mut object: CanonicalJsonObject, version: &RoomVersionId, rules: &RoomVersionRules) {
    let Some(server) = sender_of(&object) else { return };
    let key = SigningKey::from_text(SEED).expect("it is a key");
    object.remove("unsigned");
    object.remove("signatures");
    let Ok(hash) = signatures::content_hash(&object) else { return };
    let hashes = [("sha256".to_owned(), CanonicalJsonValue::String(hash.encode()))];
    object.insert("hashes".to_owned(), CanonicalJsonValue::Object(hashes.into_iter().collect()));
    // Where ruma doesn't redact, it isn't an event for ruma; nor must it be one for us.
    let Ok(mut redacted) = redact(object.clone(), &rules.redaction, None) else {
        let text = text_of(&object);
        let ours = Received::parse(&text, version, References::Unlimited);
        assert!(ours.is_err(), "ruma can't redact what we take: {ours:?}");
        return;
    };
    key.sign_json(&server, &mut redacted).expect("it is an object");
    object.insert("signatures".to_owned(), redacted["signatures"].clone());
    let text = text_of(&object);

    let Ok(received) = Received::parse(&text, version, References::Unlimited) else { return };
    if let Ok(id) = signatures::reference_hash(&object, rules)
        && !matches!(version.as_str(), "1" | "2")
    {
        assert_eq!(received.event_id().as_str(), format!("${id}"), "{version}");
    }
    let needed: Vec<OwnedServerName> = received.signers().map(ToOwned::to_owned).collect();
    // Of who vouches for somebody ruma asks in every event, where it counts in joins alone.
    let vouched = object["content"]
        .as_object()
        .is_some_and(|content| content.contains_key("join_authorised_via_users_server"));
    let theirs = signatures::required_server_signatures_to_verify_event(&object, &rules.signatures);
    if let (Ok(theirs), false) = (theirs, vouched) {
        assert_eq!(needed, theirs.into_iter().collect::<Vec<_>>(), "{version}: whose signatures");
    }
    let key_of =
        |name: &ServerName, id: &str| (*name == server && id == "ed25519:1").then(|| key.public_key());
    let event_id = received.event_id().to_owned();
    let pdu = match received.verify(key_of) {
        Ok(Verified::Intact(pdu)) => pdu,
        Ok(Verified::Redacted(_)) => panic!("{version}: the content hash of {text} is ruma's"),
        // Somebody else would have to sign too, or a field is none for which nobody asks before.
        Err(VerifyError::Unsigned(_)) if needed.iter().any(|other| *other != server) => return,
        Err(VerifyError::Pdu(_)) => return,
        Err(cause) => panic!("{version}: {text} is right by ruma, and {cause}"),
    };
    assert_eq!(pdu.json.get(), text, "what is signed is what is kept");
    assert_eq!(pdu.event_id, event_id);
    stored(&pdu, version);
    let theirs = redact(object.clone(), &rules.redaction, None).expect("it was redacted before");
    let ours = pdu.redacted(version).expect("it is an event");
    assert_eq!(ours.json.get(), text_of(&theirs), "{version}: the redacted event");
    assert_eq!(ours.redacted(version).expect("it is one still").json.get(), ours.json.get());
    stored(&ours, version);
    tampered(object, version, rules, &server, &key);
}

/// An event that was read, read from the database.
fn stored(pdu: &Pdu, version: &RoomVersionId) {
    let again = Pdu::from_stored(pdu.event_id.clone(), pdu.json.get().to_owned(), version)
        .expect("what was verified can be read");
    assert_eq!(
        (again.room_id, again.sender, again.kind, again.state_key, again.depth, again.redacts),
        (
            pdu.room_id.clone(),
            pdu.sender.clone(),
            pdu.kind.clone(),
            pdu.state_key.clone(),
            pdu.depth,
            pdu.redacts.clone()
        )
    );
    assert_eq!(again.content.get(), pdu.content.get());
}

/// What was changed on the way is what a redaction leaves of it (SG-07), if that is signed still.
fn tampered(
    mut object: CanonicalJsonObject,
    version: &RoomVersionId,
    rules: &RoomVersionRules,
    server: &ServerName,
    key: &SigningKey,
) {
    let before = redact(object.clone(), &rules.redaction, None).expect("it was redacted before");
    let Some(CanonicalJsonValue::Object(content)) = object.get_mut("content") else { return };
    content.insert("tampered".to_owned(), CanonicalJsonValue::Bool(true));
    let after = redact(object.clone(), &rules.redaction, None).expect("it was redacted before");
    let text = text_of(&object);
    let Ok(received) = Received::parse(&text, version, References::Unlimited) else { return };
    let verified =
        received.verify(|name, id| (name == server && id == "ed25519:1").then(|| key.public_key()));
    if before == after {
        let Ok(Verified::Redacted(pdu)) = verified else { panic!("{version}: changed, and {verified:?}") };
        assert_eq!(pdu.json.get(), text_of(&after));
    } else {
        assert!(matches!(verified, Err(VerifyError::BadSignature { .. })), "{version}: {verified:?}");
    }
}
