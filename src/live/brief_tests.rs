//! The short way to an answer and the long one say the same, or the short one leaves it to the other.

use std::{net::Ipv4Addr, sync::Arc};

use ruma::{OwnedUserId, api::client::filter::FilterDefinition, events::TimelineEventType, owned_user_id};
use serde_json::{Value, json, value::to_raw_value};

use super::{
    StateForm, SyncFilter, Syncs,
    syncs::{Place, Wanted, encode},
};
use crate::{
    account::{DeviceRequest, NewAccount, Origin, Session},
    keys::{Keys, to_device::tests::to_device_of},
    presence::{self, Presence},
    queue::{Tail, Tails},
    room::{NewEvent, Preset, Room, Txn, tests::World},
    shutdown::Shutdown,
    store::account_data::GLOBAL,
    typing::Typing,
};

/// What reads for the clients of a world.
pub(crate) fn syncs_of(world: &World) -> Arc<Syncs> {
    let times = presence::Times { idle: 1_000_000, grace: 1_000_000 };
    let settings = presence::Settings { enabled: false, times };
    let accounts = &world.accounts;
    let presence =
        Presence::new(settings, world.store.clone(), Arc::clone(accounts), &world.queues, &world.environment);
    let lists = world.sessions.device_lists().clone();
    let keys = Keys::new(world.store.clone(), accounts.server_name().to_owned(), lists);
    Arc::new(Syncs::new(
        world.store.clone(),
        Arc::clone(&world.rooms),
        Arc::clone(accounts),
        world.sessions.clone(),
        world.queues.clone(),
        Typing::new(world.queues.clone()),
        presence,
        to_device_of(world, None),
        Arc::new(keys),
        1,
        Shutdown::default(),
    ))
}

/// A new account, logged in.
pub(crate) async fn log_in(world: &World, name: &str) -> Session {
    let new = NewAccount {
        user_id: format!("@{name}:localhost").try_into().unwrap(),
        password: None,
        admin: false,
        token: None,
        device: Some(DeviceRequest::default()),
    };
    let login = world.accounts.register(new).await.unwrap().login.unwrap();
    let origin = Origin { ip: Ipv4Addr::LOCALHOST.into(), user_agent: None };
    world.sessions.authenticate(&login.tokens.access, &origin).await.unwrap()
}

/// Bob, who reads, in a room of Alice's.
struct Story {
    world: World,
    syncs: Arc<Syncs>,
    alice: OwnedUserId,
    bob: Session,
    room: Arc<Room>,
    tail: Arc<Tail>,
    at: Place,
}

impl Story {
    async fn new() -> Self {
        let alice = owned_user_id!("@alice:localhost");
        let world = World::new(&[alice.as_str()]).await;
        let bob = log_in(&world, "bob").await;
        let room = world.room_of(&alice, Preset::PublicChat).await;
        world.rooms.join(&room, &bob.user_id, None).await.unwrap();
        let (syncs, tail) = (syncs_of(&world), world.queues.tail(bob.recipient));
        let at = syncs.now();
        let mut story = Self { world, syncs, alice, bob, room, tail, at };
        story.say("the first").await;
        // Till now nobody has asked how much is unread.
        assert_eq!(story.briefly(&wanted(json!({}))).await, None);
        story.skip(&wanted(json!({}))).await;
        story
    }

    async fn send(
        &self,
        sender: &OwnedUserId,
        kind: &str,
        content: Value,
        state_key: Option<&str>,
    ) -> String {
        let event = NewEvent {
            sender: sender.clone(),
            kind: TimelineEventType::from(kind),
            state_key: state_key.map(str::to_owned),
            content: to_raw_value(&content).unwrap(),
            redacts: None,
        };
        let txn_id = format!("\"{}\"", self.syncs.now().position);
        let txn = (*sender == self.bob.user_id).then_some(Txn { device: self.bob.device, path: 1, txn_id });
        self.world.rooms.append_one(&self.room, event, txn).await.unwrap().event_id.to_string()
    }

    async fn say(&self, text: &str) -> String {
        let content = json!({ "msgtype": "m.text", "body": text });
        self.send(&self.alice, "m.room.message", content, None).await
    }

    async fn redact(&self, event_id: &str) {
        let redaction = NewEvent {
            sender: self.alice.clone(),
            kind: TimelineEventType::RoomRedaction,
            state_key: None,
            content: to_raw_value(&json!({})).unwrap(),
            redacts: Some(event_id.try_into().unwrap()),
        };
        self.world.rooms.append_one(&self.room, redaction, None).await.unwrap();
    }

    fn span(&self) -> (Place, Place) {
        (self.at, self.syncs.now())
    }

    /// What the short way says, if it says anything.
    async fn briefly(&self, wanted: &Wanted) -> Option<Value> {
        let (from, to) = self.span();
        let (mut out, next) = (b"as it was".to_vec(), self.syncs.token(to));
        let said =
            self.syncs.brief(&self.bob, wanted, &self.tail, (from, to), &next, &mut out).await.unwrap();
        let out = out.strip_prefix(b"as it was").unwrap();
        assert_eq!(out.is_empty(), !said);
        said.then(|| ageless(out))
    }

    /// What the long way says, after which all of it is known.
    async fn skip(&mut self, wanted: &Wanted) -> Value {
        let (from, to) = self.span();
        let body = self.syncs.changes(&self.bob, wanted, from, to).await.unwrap();
        self.at = to;
        ageless(&encode(&body).unwrap())
    }

    /// Both say the same.
    async fn agree(&mut self, wanted: &Wanted) -> Value {
        let short = self.briefly(wanted).await.expect("it is short");
        let long = self.skip(wanted).await;
        assert_eq!(short, long);
        short["rooms"]["join"][self.room.room_id.as_str()].clone()
    }

    async fn is_left_to_the_long_way(&mut self, wanted: &Wanted) -> Value {
        assert_eq!(self.briefly(wanted).await, None);
        let long = self.skip(wanted).await;
        long["rooms"]["join"][self.room.room_id.as_str()].clone()
    }
}

/// An answer without the ages of its events, which change while one looks.
fn ageless(body: &[u8]) -> Value {
    let mut body: Value = serde_json::from_slice(body).unwrap();
    for room in body["rooms"]["join"].as_object_mut().into_iter().flat_map(|rooms| rooms.values_mut()) {
        for event in room["timeline"]["events"].as_array_mut().unwrap() {
            if let Some(unsigned) = event.get_mut("unsigned") {
                assert!(unsigned.as_object_mut().unwrap().remove("age").unwrap().as_u64().unwrap() < 60_000);
            }
        }
    }
    body
}

pub(crate) fn wanted(filter: Value) -> Wanted {
    let definition: FilterDefinition = serde_json::from_value(filter).unwrap();
    Wanted { filter: Arc::new(SyncFilter::new(definition)), full_state: false, state: StateForm::Before }
}

#[tokio::test]
async fn messages_are_told_alike_by_both_ways() {
    let mut story = Story::new().await;
    let plain = wanted(json!({}));
    story.say("with \"quotes\", a \\ and\na line").await;
    let room = story.agree(&plain).await;
    assert_eq!(room["unread_notifications"]["notification_count"], 2);
    for text in ["one", "two", "three"] {
        story.say(text).await;
    }
    let mention =
        json!({ "msgtype": "m.text", "body": "bob", "m.mentions": { "user_ids": ["@bob:localhost"] } });
    story.send(&story.alice, "m.room.message", mention, None).await;
    let room = story.agree(&Wanted { state: StateForm::After, ..wanted(json!({})) }).await;
    assert_eq!(room["timeline"]["events"].as_array().unwrap().len(), 4);
    assert_eq!(room["unread_notifications"]["highlight_count"], 1);

    // Their own device is told of its transactions.
    story.send(&story.bob.user_id.clone(), "m.room.message", json!({ "body": "own" }), None).await;
    let room = story.agree(&plain).await;
    assert!(room["timeline"]["events"][0]["unsigned"]["transaction_id"].is_string());
    assert_eq!(room["unread_notifications"]["notification_count"], 0, "they have read what came before it");

    let root = story.say("root").await;
    story.agree(&wanted(json!({ "room": { "timeline": { "limit": 1 } } }))).await;
    story.say("a thread is counted apart").await;
    let threads = wanted(json!({ "room": { "timeline": { "unread_thread_notifications": true } } }));
    story.agree(&threads).await;
    let reply = json!({ "body": "reply", "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
    story.send(&story.alice, "m.room.message", reply, None).await;
    let room = story.agree(&plain).await;
    assert_eq!(room["unread_notifications"]["notification_count"], 3);
    story.say("by now there is one").await;
    let room = story.is_left_to_the_long_way(&threads).await;
    assert_eq!(room["unread_thread_notifications"][&root]["notification_count"], 1);
}

#[tokio::test]
async fn members_are_told_before_what_they_say_is_told_briefly() {
    let mut story = Story::new().await;
    let lazy = wanted(json!({ "room": { "state": { "lazy_load_members": true } } }));
    story.say("who is this?").await;
    let room = story.is_left_to_the_long_way(&lazy).await;
    assert_eq!(room["state"]["events"][0]["state_key"], story.alice.as_str());
    story.say("known").await;
    story.agree(&lazy).await;
}

#[tokio::test]
async fn what_is_more_than_messages_is_left_to_the_long_way() {
    let mut story = Story::new().await;
    let plain = wanted(json!({}));
    let room = story.room.room_id.to_string();

    story.send(&story.alice, "m.room.topic", json!({ "topic": "state" }), Some("")).await;
    story.is_left_to_the_long_way(&plain).await;
    let secret = story.say("secret").await;
    story.redact(&secret).await;
    let told = story.is_left_to_the_long_way(&plain).await;
    assert!(!told.to_string().contains("secret"), "I9");

    // What was redacted since it came, by somebody of whom the reader has yet to hear.
    let secret = story.say("secret").await;
    let came = story.syncs.now();
    story.redact(&secret).await;
    story.syncs.unread(story.bob.recipient, story.room.number).await.unwrap();
    let (mut out, next) = (Vec::new(), story.syncs.token(came));
    let span = (story.at, came);
    let said = story.syncs.brief(&story.bob, &plain, &story.tail, span, &next, &mut out).await.unwrap();
    assert!(!said && out.is_empty(), "I9");
    story.skip(&plain).await;

    // Others say something of it.
    let parent = story.say("parent").await;
    let edit = json!({
        "body": "* edited", "m.new_content": { "body": "edited" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": parent },
    });
    story.send(&story.alice, "m.room.message", edit, None).await;
    let told = story.is_left_to_the_long_way(&plain).await;
    assert!(told["timeline"]["events"][0]["unsigned"]["m.relations"]["m.replace"].is_object());

    for (filter, shown) in [
        (json!({ "room": { "timeline": { "limit": 0 } } }), 0),
        (json!({ "room": { "timeline": { "not_senders": [story.alice] } } }), 0),
        (json!({ "room": { "timeline": { "types": ["m.room.encrypted"] } } }), 0),
        (json!({ "room": { "not_rooms": [room] } }), 0),
        (json!({ "room": { "timeline": { "not_rooms": [room] } } }), 0),
        (json!({ "room": { "timeline": { "rooms": ["!other:localhost"] } } }), 0),
        (json!({ "event_fields": ["content.body"] }), 1),
        (json!({ "event_format": "federation" }), 1),
    ] {
        story.say("filtered").await;
        let told = story.is_left_to_the_long_way(&wanted(filter.clone())).await;
        let events = told["timeline"]["events"].as_array().map_or(0, Vec::len);
        assert_eq!(events, shown, "{filter}");
    }
    story.say("all state").await;
    assert_eq!(story.briefly(&Wanted { full_state: true, ..wanted(json!({})) }).await, None);
    story.skip(&plain).await;

    let other = story.world.room_of(&story.alice, Preset::PublicChat).await;
    story.world.rooms.join(&other, &story.bob.user_id, None).await.unwrap();
    story.skip(&plain).await;
    story.say("here").await;
    story.world.say(&other, &story.alice, "and there").await;
    story.is_left_to_the_long_way(&plain).await;

    let accounts = &story.world.accounts;
    let ignoring = json!({ "ignored_users": { "@alice:localhost": {} } });
    let ignoring = ignoring.as_object().unwrap();
    accounts.set_data(story.bob.recipient, GLOBAL, "m.ignored_user_list", ignoring).await.unwrap();
    story.skip(&plain).await;
    story.say("unheard").await;
    let told = story.is_left_to_the_long_way(&plain).await;
    assert!(!told.to_string().contains("unheard"));
}

/// A tail that begins after the span has nothing to say of it.
#[tokio::test]
async fn what_is_no_longer_in_memory_is_left_to_the_long_way() {
    let mut story = Story::new().await;
    story.say("before").await;
    let tails = Tails::new(1);
    tails.start_at(story.syncs.now().position);
    story.tail = tails.of(story.bob.recipient);
    story.is_left_to_the_long_way(&wanted(json!({}))).await;
}
