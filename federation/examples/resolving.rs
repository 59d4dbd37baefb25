//! How long resolution takes: `cargo run --release -p hearth-federation --example resolving`.
//!
//! A room of a hundred members forks, and fifty state events are sent on either branch: new names of members, topics, a few
//! kicks and bans, and changes of power levels. Prints the time of one resolution of the two states, all events in memory.

use std::{collections::HashMap, error::Error, hint::black_box, sync::Arc, time::Instant};

use hearth_federation::{
    Draft, Limits, Pdu, Position, SigningKey, StateMap, authorize_built, conflicted, resolve,
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomVersionId, UInt, UserId,
    events::StateEventType, owned_room_id, server_name,
};
use serde_json::{Value, json, value::to_raw_value};

const MEMBERS: u32 = 100;
const EVENTS_ON_A_BRANCH: u32 = 50;
const ROUNDS: u32 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    for version in [RoomVersionId::V1, RoomVersionId::V11, RoomVersionId::V12] {
        let mut room = Room::new(version.clone())?;
        for nth in 1..MEMBERS {
            room.send(&user(nth), "m.room.member", &user(nth), &json!({ "membership": "join" }))?;
        }
        let mut states = Vec::new();
        let fork = room.state.clone();
        for branch in 0..2 {
            room.state.clone_from(&fork);
            for nth in 0..EVENTS_ON_A_BRANCH {
                let number = 2 * nth + branch;
                let member = user(1 + number % (MEMBERS - 1));
                match nth % 10 {
                    7 => room.send(&user(0), "m.room.power_levels", "", &room.levels(number))?,
                    8 => room.send(&user(0), "m.room.member", &member, &json!({ "membership": "leave" }))?,
                    9 => room.send(&user(0), "m.room.topic", "", &json!({ "topic": number }))?,
                    _ => {
                        let content = json!({ "membership": "join", "displayname": number.to_string() });
                        room.send(&member, "m.room.member", &member, &content)?;
                    }
                }
            }
            states.push(room.state.clone());
        }
        let find = |id: &ruma::EventId| room.events.get(id).cloned();
        let start = Instant::now();
        for _ in 0..ROUNDS {
            black_box(resolve(&version, &states, find)?);
        }
        let each = start.elapsed().as_secs_f64() * 1e3 / f64::from(ROUNDS);
        let count = conflicted(&version, &states)?.len();
        println!("version {version}: {each:.2} ms ({count} conflicted of {} in a state)", states[0].len());
    }
    Ok(())
}

fn user(nth: u32) -> String {
    format!("@user{nth}:example.org")
}

struct Room {
    version: RoomVersionId,
    id: OwnedRoomId,
    key: SigningKey,
    events: HashMap<OwnedEventId, Arc<Pdu>>,
    state: StateMap,
    clock: u32,
}

impl Room {
    fn new(version: RoomVersionId) -> Result<Self, Box<dyn Error>> {
        let mut room = Self {
            id: owned_room_id!("!room:example.org"),
            version,
            key: SigningKey::new("timing", [7; 32])?,
            events: HashMap::new(),
            state: StateMap::new(),
            clock: 0,
        };
        let creator = user(0);
        let content = json!({ "room_version": room.version.as_str(), "creator": creator });
        room.send(&creator, "m.room.create", "", &content)?;
        room.send(&creator, "m.room.member", &creator, &json!({ "membership": "join" }))?;
        room.send(&creator, "m.room.power_levels", "", &room.levels(0))?;
        room.send(&creator, "m.room.join_rules", "", &json!({ "join_rule": "public" }))?;
        Ok(room)
    }

    /// Power levels with something of their own.
    fn levels(&self, number: u32) -> Value {
        let users = if self.version == RoomVersionId::V12 { json!({}) } else { json!({ user(0): 100 }) };
        json!({ "users": users, "events": { "m.room.name": number % 50 } })
    }

    fn send(
        &mut self,
        sender: &str,
        kind: &str,
        state_key: &str,
        content: &Value,
    ) -> Result<(), Box<dyn Error>> {
        let is_create = kind == "m.room.create";
        let draft = Draft {
            room_id: (!is_create || self.version != RoomVersionId::V12).then(|| self.id.clone()),
            sender: UserId::parse(sender)?,
            kind: kind.into(),
            state_key: Some(state_key.to_owned()),
            content: to_raw_value(content)?,
            redacts: None,
        };
        let auth_events: Vec<_> =
            draft.auth_types(&self.version)?.iter().filter_map(|key| self.state.get(key).cloned()).collect();
        self.clock += 1;
        let timestamp = MilliSecondsSinceUnixEpoch(UInt::from(self.clock));
        // The creator's joining follows the create event; for the rest it makes no difference.
        let prev_events: Vec<_> =
            if self.state.len() == 1 { self.state.values().cloned().collect() } else { Vec::new() };
        let mut position = Position::new(prev_events, auth_events, i64::from(self.clock), timestamp);
        if self.version == RoomVersionId::V1 {
            let named = position.prev_events.iter().chain(&position.auth_events);
            position.reference_hashes = named.map(|id| (id.clone(), "h".repeat(43))).collect();
        }
        let server = server_name!("example.org");
        let pdu = draft.build(&self.version, position, server, &self.key, Limits::FEDERATED)?;
        authorize_built(&self.version, &pdu, |kind: &StateEventType, state_key: &str| {
            self.events.get(self.state.get(&(kind.clone(), state_key.to_owned()))?)
        })?;
        if is_create {
            self.id.clone_from(&pdu.room_id);
        }
        self.state.insert((kind.into(), state_key.to_owned()), pdu.event_id.clone());
        self.events.insert(pdu.event_id.clone(), Arc::new(pdu));
        Ok(())
    }
}
