//! The life of an event, without a server: built, received, redacted, judged, and its room's state resolved.

use std::{collections::HashMap, sync::Arc};

use hearth_federation::{
    Draft, Limits, Pdu, Position, Received, References, SigningKey, StateMap, authorize_built, resolve,
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomVersionId, UInt, UserId,
    events::StateEventType, owned_room_id, server_name,
};
use serde_json::{Value, json, value::to_raw_value};

use crate::count;

const VERSION: RoomVersionId = RoomVersionId::V12;
const MEMBERS: u32 = 100;

pub(crate) fn count_all() {
    let mut room = Room::new();
    let text = json!({ "msgtype": "m.text", "body": "Shall we meet at the bridge? ".repeat(4) });
    let build = || room.draft(&user(1), "m.room.message", None, &text);
    let message = room.build(build());
    let received = || message.json.get().to_owned();
    let public_key = room.key.public_key();

    count("event: build, hash, sign", build, |draft| room.build(draft));
    count("event: parse, hash, verify", received, |text| {
        let received = Received::parse(&text, &VERSION, References::Limited).expect("it was built well");
        received.verify(|_, _| Some(public_key)).expect("it was signed by that key")
    });
    count("event: read from the store", received, |text| {
        Pdu::from_stored(message.event_id.clone(), text, &VERSION).expect("it was built well")
    });
    count("event: redact", || (), |()| message.redacted(&VERSION).expect("it was built well"));
    count("event: judge a message", || (), |()| room.allows(&message));

    let states = room.fork();
    let find = |id: &EventId| room.events.get(id).cloned();
    count(
        "state: resolve a fork",
        || (),
        |()| resolve(&VERSION, &states, find).expect("all events are there"),
    );
}

fn user(nth: u32) -> String {
    format!("@user{nth}:example.org")
}

struct Room {
    id: OwnedRoomId,
    key: SigningKey,
    events: HashMap<OwnedEventId, Arc<Pdu>>,
    state: StateMap,
    clock: u32,
}

impl Room {
    /// One with a hundred members, all of one server.
    fn new() -> Self {
        let mut room = Self {
            id: owned_room_id!("!room:example.org"),
            key: SigningKey::new("count", [7; 32]).expect("that is a key"),
            events: HashMap::new(),
            state: StateMap::new(),
            clock: 0,
        };
        let creator = user(0);
        let create = room.put(&creator, "m.room.create", "", &json!({ "room_version": "12" }));
        room.id.clone_from(&create.room_id);
        room.put(&creator, "m.room.member", &creator, &json!({ "membership": "join" }));
        room.put(&creator, "m.room.power_levels", "", &json!({ "events": { "m.room.name": 50 } }));
        room.put(&creator, "m.room.join_rules", "", &json!({ "join_rule": "public" }));
        for nth in 1..MEMBERS {
            room.put(&user(nth), "m.room.member", &user(nth), &json!({ "membership": "join" }));
        }
        room
    }

    /// Ten state events on either of two branches: new names, a kick, a topic, power levels.
    fn fork(&mut self) -> Vec<StateMap> {
        let before = self.state.clone();
        let branches = [0, 1].map(|branch| {
            self.state.clone_from(&before);
            for nth in 0..10 {
                let (number, creator) = (2 * nth + branch, user(0));
                let member = user(1 + number);
                match nth {
                    7 => {
                        let levels = json!({ "events": { "m.room.name": 51 + branch } });
                        self.put(&creator, "m.room.power_levels", "", &levels)
                    }
                    8 => self.put(&creator, "m.room.member", &member, &json!({ "membership": "leave" })),
                    9 => self.put(&creator, "m.room.topic", "", &json!({ "topic": number.to_string() })),
                    _ => {
                        let content = json!({ "membership": "join", "displayname": number.to_string() });
                        self.put(&member, "m.room.member", &member, &content)
                    }
                };
            }
            self.state.clone()
        });
        branches.into()
    }

    fn draft(&self, sender: &str, kind: &str, state_key: Option<&str>, content: &Value) -> (Draft, Position) {
        let draft = Draft {
            room_id: (kind != "m.room.create").then(|| self.id.clone()),
            sender: UserId::parse(sender).expect("that is a user"),
            kind: kind.into(),
            state_key: state_key.map(str::to_owned),
            content: to_raw_value(content).expect("a value is JSON"),
            redacts: None,
        };
        let keys = draft.auth_types(&VERSION).expect("the version is supported");
        let auth_events: Vec<_> = keys.iter().filter_map(|key| self.state.get(key).cloned()).collect();
        let timestamp = MilliSecondsSinceUnixEpoch(UInt::from(self.clock));
        // The creator's joining follows the create event; for the rest it makes no difference here.
        let prev_events =
            if self.state.len() == 1 { self.state.values().cloned().collect() } else { Vec::new() };
        let position = Position::new(prev_events, auth_events, i64::from(self.clock), timestamp);
        (draft, position)
    }

    fn build(&self, (draft, position): (Draft, Position)) -> Pdu {
        let server = server_name!("example.org");
        draft.build(&VERSION, position, server, &self.key, Limits::FEDERATED).expect("it can be built")
    }

    fn allows(&self, pdu: &Pdu) {
        let state = |kind: &StateEventType, state_key: &str| {
            self.events.get(self.state.get(&(kind.clone(), state_key.to_owned()))?)
        };
        authorize_built(&VERSION, pdu, state).expect("the room allows it");
    }

    /// Adds a state event to the room.
    fn put(&mut self, sender: &str, kind: &str, state_key: &str, content: &Value) -> Arc<Pdu> {
        self.clock += 1;
        let pdu = self.build(self.draft(sender, kind, Some(state_key), content));
        self.allows(&pdu);
        let pdu = Arc::new(pdu);
        self.state.insert((kind.into(), state_key.to_owned()), pdu.event_id.clone());
        self.events.insert(pdu.event_id.clone(), Arc::clone(&pdu));
        pdu
    }
}
