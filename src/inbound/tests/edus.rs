//! What isn't an event.

use ruma::{server_name, user_id};

use super::*;
use crate::{presence::State, queue::Kind, store::receipt::ReceiptRow};

impl Meeting {
    async fn hear(&self, txn_id: &str, edus: &Value) {
        let body = json!({ "pdus": [], "edus": edus }).to_string();
        assert_eq!(self.take_text(txn_id, &body).await, json!({ "pdus": {} }));
    }

    fn room_id(&self) -> &str {
        self.story.room.room_id.as_str()
    }

    fn typing(&self) -> Vec<String> {
        let typing = self.inbound.typing.in_room(&self.story.alice, self.story.room.number);
        typing.unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    async fn receipts(&self) -> Vec<ReceiptRow> {
        self.story.world.store.receipts_of_room(self.story.room.number).await.unwrap()
    }
}

fn typing(room_id: &str, user_id: &str, typing: bool) -> Value {
    json!({ "edu_type": "m.typing", "content": { "room_id": room_id, "user_id": user_id, "typing": typing } })
}

/// ED-02, ED-05: who types is in the room and of the server that says so.
#[tokio::test]
async fn ed_02_typing_is_of_members_of_the_server_that_tells_it() {
    let meeting = Meeting::new().await;
    let room = meeting.room_id().to_owned();
    let edus = json!([
        7,
        { "edu_type": "m.typing" },
        { "edu_type": "m.typing", "content": [] },
        { "edu_type": "org.example.unknown", "content": {} },
        typing(&room, "@alice:localhost", true),
        typing(&room, "@guest:elsewhere", true),
        typing(&room, "@rita:another", true),
        typing("!unknown:elsewhere", "@rita:elsewhere", true),
        typing(&room, "@rita:elsewhere", true),
    ]);
    meeting.hear("1", &edus).await;
    assert_eq!(meeting.typing(), ["@rita:elsewhere"]);
    meeting.hear("2", &json!([typing(&room, "@rita:elsewhere", false)])).await;
    assert!(meeting.typing().is_empty());
    // TX-03: the same transaction again is nothing new.
    meeting.hear("1", &edus).await;
    assert!(meeting.typing().is_empty());
}

/// AC-02: rooms that don't let the server in hear nothing of it.
#[tokio::test]
async fn ac_02_typing_and_receipts_of_a_denied_server_are_dropped() {
    let mut meeting = Meeting::new().await;
    let event = meeting.say("read this");
    meeting.take("1", &[wire(&event)]).await;
    meeting.story.set("m.room.server_acl", json!({ "allow": ["localhost"] })).await;
    let room = meeting.room_id().to_owned();
    let edus = json!([
        typing(&room, "@rita:elsewhere", true),
        receipt(&room, "m.read", "@rita:elsewhere", &json!([event.event_id]), &json!({ "ts": 5 })),
    ]);
    meeting.hear("2", &edus).await;
    assert!(meeting.typing().is_empty());
    assert!(meeting.receipts().await.is_empty());
}

fn receipt(room_id: &str, kind: &str, user_id: &str, event_ids: &Value, data: &Value) -> Value {
    json!({
        "edu_type": "m.receipt",
        "content": { room_id: { kind: { user_id: { "event_ids": event_ids, "data": data } } } },
    })
}

/// ED-04, ED-05, CVE-2023-42453: public receipts of members of the server that tells them, and no others; never back.
#[tokio::test]
async fn ed_04_receipts_are_of_members_of_the_server_that_tells_them() {
    let mut meeting = Meeting::new().await;
    let (one, two) = (meeting.say("one"), meeting.say("two"));
    let room = meeting.room_id().to_owned();
    let (rita, ts) = ("@rita:elsewhere", json!({ "ts": 5 }));
    let both = json!([one.event_id, two.event_id, "$unknown"]);
    let body = json!({
        "pdus": [wire(&one), wire(&two)],
        "edus": [
            receipt(&room, "m.read", "@alice:localhost", &both, &ts),
            receipt(&room, "m.read", "@guest:elsewhere", &both, &ts),
            receipt(&room, "m.read.private", rita, &both, &ts),
            receipt("!unknown:elsewhere", "m.read", rita, &both, &ts),
            { "edu_type": "m.receipt", "content": { &room: { "m.read": { rita: 7, "nobody": {}, "@b:elsewhere": {} } } } },
            { "edu_type": "m.receipt", "content": { &room: [], "x": {} } },
            receipt(&room, "m.read", rita, &both, &ts),
        ],
    });
    let alice = meeting.story.world.accounts.recipient(&meeting.story.alice).await.unwrap().unwrap();
    let queued = async || meeting.story.world.store.queue(alice, 0, i64::MAX).await.unwrap();
    let before = queued().await.len();
    meeting.take_text("1", &body.to_string()).await;
    let new = &queued().await[before..];
    assert_eq!(new.iter().filter(|entry| entry.kind == Kind::Receipt).count(), 1, "{new:?}");
    let expected = |event: &Pdu, ts: i64| ReceiptRow {
        user_id: rita.to_owned(),
        kind: "m.read".to_owned(),
        thread: String::new(),
        event_id: event.event_id.to_string(),
        ts,
    };
    assert_eq!(meeting.receipts().await, [expected(&two, 5)]);
    meeting
        .hear("2", &json!([receipt(&room, "m.read", rita, &json!([one.event_id]), &json!({ "ts": 9 }))]))
        .await;
    assert_eq!(meeting.receipts().await, [expected(&two, 5)]);
    let threaded = json!({ "ts": u32::MAX, "thread_id": "main" });
    meeting.hear("3", &json!([receipt(&room, "m.read", rita, &json!([two.event_id]), &threaded)])).await;
    let receipts = meeting.receipts().await;
    assert_eq!((receipts.len(), receipts[1].thread.as_str()), (2, "main"));
}

/// ED-05, PR-04: the presence of those who share a room, as their own server tells it.
#[tokio::test]
async fn ed_05_presence_is_of_users_of_the_server_that_tells_it() {
    let meeting = Meeting::new().await;
    let push = |user_id: &str, presence: &str| {
        json!({
            "user_id": user_id, "presence": presence, "last_active_ago": 60_000, "status_msg": "here",
            "currently_active": false,
        })
    };
    let presence = &meeting.inbound.presence;
    let of = async |user_id| {
        presence.ask(&meeting.story.alice, user_id).await.map(|event| (event.state, event.status)).ok()
    };
    let told = json!([{ "edu_type": "m.presence", "content": { "push": [
        { "user_id": "@rita:elsewhere" },
        push("@bob:localhost", "online"),
        push("@stranger:elsewhere", "online"),
        push("@rita:elsewhere", "unavailable"),
        push("@rita:another", "online"),
    ] } }]);
    meeting.hear("1", &told).await;
    let rita = user_id!("@rita:elsewhere");
    assert_eq!(of(rita).await, Some((State::Unavailable, Some(Arc::from("here")))));
    assert_eq!(of(user_id!("@stranger:elsewhere")).await, None);
    assert_eq!(of(user_id!("@rita:another")).await, None);
    let gone =
        json!([{ "edu_type": "m.presence", "content": { "push": [push("@rita:elsewhere", "offline")] } }]);
    let by_another = json!({ "edus": gone }).to_string();
    meeting.take_from(server_name!("another"), "2", &by_another).await;
    assert_eq!(of(rita).await.unwrap().0, State::Unavailable);
    meeting.hear("2", &gone).await;
    assert_eq!(of(rita).await.unwrap().0, State::Offline);
    // Nothing of others is ever written down.
    presence.flush().await;
    assert!(meeting.story.world.store.present_users().await.unwrap().is_empty());
}

/// TD-04, I7: what is for a device wakes it while its server is still waiting for what is missing of an event beside it.
#[tokio::test]
async fn i7_a_message_to_a_device_waits_for_no_event_of_its_transaction() {
    let mut meeting = Meeting::new().await;
    let store = meeting.story.world.store.clone();
    let missing = meeting.say("missing");
    let late =
        meeting.story.by_rita("m.room.message", None, text("late"), std::slice::from_ref(&missing.event_id));
    meeting.there.has(&[&missing]);
    let slow = Arc::new(Semaphore::new(0));
    *meeting.there.slow.lock() = Some(Arc::clone(&slow));
    let device = store::device::add_device("@bob:localhost", "B1", None, 0);
    store.commit(Vec::from(device)).await.unwrap();
    let mailbox = store.addresses(json!(["@bob:localhost"]).to_string()).await.unwrap()[0].device;
    let content = json!({
        "sender": "@rita:elsewhere", "type": "m.test", "message_id": "1",
        "messages": { "@bob:localhost": { "*": {} } },
    });
    let edu = json!({ "edu_type": "m.direct_to_device", "content": content });
    let body = json!({ "pdus": [wire(&late)], "edus": [edu] }).to_string();
    let heard = async {
        // By then the transaction isn't answered half done.
        let deadline = std::time::Instant::now() + PATIENCE / 2;
        while !store.has_messages(mailbox, i64::MAX).await.unwrap() {
            assert!(std::time::Instant::now() < deadline, "it waits for the event");
            tokio::task::yield_now().await;
        }
    };
    let meeting = &meeting;
    let mut taking = Box::pin(meeting.take_text("1", &body));
    tokio::select! {
        () = heard => {}
        answer = &mut taking => panic!("nobody had what is missing: {answer}"),
    }
    slow.add_permits(10);
    taking.await;
}
