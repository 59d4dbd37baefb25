//! Rooms with a policy server, which is the other server.

use hearth_federation::Pdu;
use ruma::{RoomVersionId, events::TimelineEventType, server_name};

use super::*;
use crate::room::{Error as RoomError, NewEvent, Txn};

fn key() -> SigningKey {
    SigningKey::from_text("ed25519 policy_server Ne7mPN8d7i+FyTo039WJGc5gfIsZgH9tXOTi99LIEzU").unwrap()
}

/// What a policy server answers for an event.
pub(super) fn signature(event: &Value, key: &SigningKey) -> Value {
    let id = owned_event_id!("$any");
    let pdu = Pdu::from_stored(id, event.to_string(), &RoomVersionId::V12).unwrap();
    let signed = pdu.cosigned(&RoomVersionId::V12, server_name!("elsewhere"), key).unwrap();
    let signed = wire(&signed);
    let signature = &signed["signatures"]["elsewhere"]["ed25519:policy_server"];
    // It gives what isn't its own, too: that must not be taken.
    json!({ "elsewhere": { "ed25519:policy_server": signature, "ed25519:1": "bm90IG91cnM" } })
}

impl Meeting {
    async fn with_policy(via: &str) -> Self {
        let meeting = Self::new().await;
        let key = ruma::serde::Base64::<ruma::serde::base64::UrlSafe, _>::new(key().public_key()).encode();
        let content = json!({ "via": via, "public_keys": { "ed25519": key } });
        meeting.story.set("m.room.policy", content).await;
        meeting
    }

    fn policy(&self, answer: Option<Value>) {
        *self.there.policy.lock() = Some(answer.map_or_else(|| Ok(key()), Err));
    }

    fn asked_to_sign(&self) -> usize {
        self.there.asked.lock().iter().filter(|(uri, _)| uri == "/_matrix/policy/v1/sign").count()
    }

    async fn is_shown(&self, event_id: &OwnedEventId) -> bool {
        let (rooms, room) = (&self.story.world.rooms, &self.story.room);
        rooms.visible_event(room, &crate::room::Sight::everything(), event_id).await.is_ok()
    }

    async fn send(&self, body: &str, txn_id: &str) -> Result<OwnedEventId, RoomError> {
        let event = NewEvent {
            sender: self.story.alice.clone(),
            kind: TimelineEventType::RoomMessage,
            state_key: None,
            content: to_raw_value(&text(body)).unwrap(),
            redacts: None,
        };
        let txn = Txn { device: 1, path: 1, txn_id: txn_id.to_owned() };
        let rooms = &self.story.world.rooms;
        Ok(rooms.append_one(&self.story.room, event, Some(txn)).await?.event_id)
    }
}

fn spam() -> Value {
    json!({ "errcode": "ORG.EXAMPLE.SPAM", "error": "the message appears to be spam" })
}

/// PS-01: a server with nobody in the room has no say in it.
#[tokio::test]
async fn ps_01_a_policy_server_has_somebody_in_the_room() {
    let mut meeting = Meeting::with_policy("another").await;
    meeting.policy(Some(spam()));
    let event = meeting.say("hello");
    meeting.take("1", &[wire(&event)]).await;
    assert!(meeting.is_shown(&event.event_id).await);
    meeting.send("hello", "1").await.unwrap();
    assert_eq!(meeting.asked_to_sign(), 0);
}

/// PS-04, PS-05, PS-06: an event without its signature is shown to the policy server once, and is kept with both.
#[tokio::test]
async fn ps_04_received_events_are_signed_by_the_policy_server_or_soft_fail() {
    let mut meeting = Meeting::with_policy("elsewhere").await;
    meeting.policy(None);
    let event = meeting.say("welcome");
    let answer = meeting.take("1", &[wire(&event)]).await;
    assert_eq!(answer["pdus"][event.event_id.as_str()], json!({}));
    assert!(meeting.is_shown(&event.event_id).await);
    assert_eq!(meeting.asked_to_sign(), 1);
    let kept = meeting.story.world.rooms.event(&meeting.story.room, &event.event_id).await.unwrap();
    let (kept, sent) = (wire(&kept.pdu), wire(&event));
    let of = |event: &Value| event["signatures"]["elsewhere"].as_object().unwrap().clone();
    let mut signatures = of(&kept);
    assert!(signatures.remove("ed25519:policy_server").is_some());
    assert_eq!(signatures, of(&sent), "the origin's own stay as they were");

    meeting.policy(Some(spam()));
    let unwanted = meeting.say("buy");
    let answer = meeting.take("2", &[wire(&unwanted)]).await;
    assert_eq!(answer["pdus"][unwanted.event_id.as_str()], json!({}), "it was judged");
    assert!(meeting.has(&unwanted.event_id).await && !meeting.is_shown(&unwanted.event_id).await);
    assert_eq!(meeting.asked_to_sign(), 2);

    // One that has been signed is not asked about, whatever would be said of it now.
    let mut signed = meeting.say("signed before");
    signed = signed.cosigned(&RoomVersionId::V12, server_name!("elsewhere"), &key()).unwrap();
    meeting.take("3", &[wire(&signed)]).await;
    assert!(meeting.is_shown(&signed.event_id).await);
    assert_eq!(meeting.asked_to_sign(), 2);

    // PS-07: what the rules don't allow is rejected whoever recommends it.
    meeting.policy(None);
    let stranger = owned_user_id!("@stranger:elsewhere");
    let rejected = meeting.story.event(&stranger, "m.room.message", None, text("who?"), &[]);
    meeting.take("4", &[wire(&rejected)]).await;
    let kept = meeting.story.world.rooms.event(&meeting.story.room, &rejected.event_id).await.unwrap();
    assert!(kept.pdu.rejected);
}

/// A signature by another key recommends nothing.
#[tokio::test]
async fn ps_05_only_the_key_of_the_rooms_state_counts() {
    let mut meeting = Meeting::with_policy("elsewhere").await;
    let other = SigningKey::from_text(&SEED.replacen(" 1 ", " policy_server ", 1)).unwrap();
    *meeting.there.policy.lock() = Some(Ok(other));
    let event = meeting.say("by another key");
    meeting.take("1", &[wire(&event)]).await;
    assert!(!meeting.is_shown(&event.event_id).await);
    assert!(matches!(meeting.send("mine", "1").await, Err(RoomError::Policy(_))));
}

/// PS-02, PS-03: what is made here is signed before anybody gets it; a refusal is told in the policy server's words.
#[tokio::test]
async fn ps_02_the_policy_server_is_asked_before_an_event_is_sent() {
    let meeting = Meeting::with_policy("elsewhere").await;
    meeting.policy(None);
    let sent = meeting.send("hello", "1").await.unwrap();
    assert_eq!(meeting.send("hello", "1").await.unwrap(), sent, "I3");
    let kept = meeting.story.world.rooms.event(&meeting.story.room, &sent).await.unwrap();
    let signatures = &wire(&kept.pdu)["signatures"];
    assert!(
        signatures["elsewhere"]["ed25519:policy_server"].is_string() && signatures["localhost"].is_object()
    );
    assert!(kept.sent_by.as_ref().is_some_and(|by| by.txn_id == "1"));
    assert_eq!(meeting.story.ends(), [sent]);

    meeting.policy(Some(spam()));
    let last = meeting.story.room.snapshot().last_seq;
    match meeting.send("buy", "2").await {
        Err(RoomError::Policy(refusal)) => {
            assert_eq!(refusal.errcode, "ORG.EXAMPLE.SPAM");
            assert_eq!(refusal.error, "the message appears to be spam");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(meeting.story.room.snapshot().last_seq, last);
    // The room can always do without it.
    let asked = meeting.asked_to_sign();
    meeting.story.set("m.room.policy", json!({})).await;
    assert_eq!(meeting.asked_to_sign(), asked);
    meeting.send("buy", "3").await.unwrap();
}
