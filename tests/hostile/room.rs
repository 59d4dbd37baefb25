//! A room that a server of the tests keeps: built event by event, and told to whoever asks.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use hearth_federation::{Draft, Limits, Pdu, Position, SigningKey, json::canonical};
use parking_lot::Mutex;
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomVersionId, ServerName,
    events::TimelineEventType,
};
use serde_json::{Value, json, value::to_raw_value};
use sha2::{Digest as _, Sha256};

use crate::peer::{Asked, Peer, now, wire};

pub(crate) struct Room {
    pub(crate) version: RoomVersionId,
    pub(crate) id: OwnedRoomId,
    pub(crate) creator: OwnedUserId,
    /// By type and state key.
    pub(crate) state: BTreeMap<(String, String), Pdu>,
    pub(crate) events: HashMap<OwnedEventId, Pdu>,
    /// What comes next follows these.
    pub(crate) ends: Vec<OwnedEventId>,
    pub(crate) depth: i64,
    /// The servers whose users' events are built here.
    signers: HashMap<OwnedServerName, SigningKey>,
}

/// A room that others may be asking for while the test builds on.
pub(crate) type Shared = Arc<Mutex<Room>>;

impl Room {
    /// A public room of `@creator`, in which everybody may do everything but what the creator alone may.
    pub(crate) fn new(peer: &Peer, version: &str, name: &str) -> Shared {
        let creator = peer.user("creator");
        let mut room = Self {
            version: RoomVersionId::try_from(version).unwrap(),
            id: OwnedRoomId::try_from(format!("!{name}:{}", peer.name)).unwrap(),
            creator: creator.clone(),
            state: BTreeMap::new(),
            events: HashMap::new(),
            ends: Vec::new(),
            depth: 0,
            signers: HashMap::new(),
        };
        room.signs(&peer.name, &peer.key);
        let create = json!({ "room_version": version, "creator": creator });
        room.put(&creator, "m.room.create", "", create);
        room.put(&creator, "m.room.member", creator.as_str(), json!({ "membership": "join" }));
        // From version 12 on a creator may do everything, and may not be named.
        let users = if version == "12" { json!({}) } else { json!({ creator.as_str(): 100 }) };
        let levels = json!({ "users": users, "users_default": 0, "state_default": 50 });
        room.put(&creator, "m.room.power_levels", "", levels);
        room.put(&creator, "m.room.join_rules", "", json!({ "join_rule": "public" }));
        Arc::new(Mutex::new(room))
    }

    /// An event that follows all others, by one of this server's users. It is in no room yet.
    pub(crate) fn draft(&self, sender: &OwnedUserId, kind: &str, key: Option<&str>, content: Value) -> Pdu {
        self.draft_after(&self.ends, sender, kind, key, content)
    }

    // What is made by `json!` is given away at most calls.
    #[allow(clippy::needless_pass_by_value)]
    pub(crate) fn draft_after(
        &self,
        previous: &[OwnedEventId],
        sender: &OwnedUserId,
        kind: &str,
        key: Option<&str>,
        content: Value,
    ) -> Pdu {
        let is_create = kind == "m.room.create";
        let draft = Draft {
            room_id: (self.version != RoomVersionId::V12 || !is_create).then(|| self.id.clone()),
            sender: sender.clone(),
            kind: TimelineEventType::from(kind),
            state_key: key.map(str::to_owned),
            content: to_raw_value(&content).unwrap(),
            redacts: None,
        };
        let auth = if is_create { Vec::new() } else { draft.auth_types(&self.version).unwrap() };
        let auth_events = auth
            .iter()
            .filter_map(|(kind, key)| self.state.get(&(kind.to_string(), key.clone())))
            .map(|pdu| pdu.event_id.clone())
            .collect();
        let mut position = Position::new(previous.to_vec(), auth_events, self.depth + 1, now());
        // What versions 1 and 2 name beside ids may be left out.
        let named = position.prev_events.iter().chain(&position.auth_events);
        position.reference_hashes = named.map(|id| (id.clone(), String::new())).collect();
        // What is said to be of a server whose key isn't here is a lie of the server that keeps the room.
        let server = Some(sender.server_name()).filter(|server| self.signers.contains_key(*server));
        let server = server.unwrap_or_else(|| self.creator.server_name());
        draft.build(&self.version, position, server, &self.signers[server], Limits::FEDERATED).unwrap()
    }

    /// The same event of a room of version 1 or 2 under another id.
    pub(crate) fn under_id(&self, pdu: &Pdu, id: &OwnedEventId) -> Pdu {
        let mut event = wire(pdu);
        let server = pdu.sender.server_name();
        let key = &self.signers[server];
        for field in ["hashes", "signatures"] {
            event.as_object_mut().unwrap().remove(field);
        }
        event["event_id"] = json!(id);
        let hash = STANDARD_NO_PAD.encode(Sha256::digest(canonical(&event.to_string()).unwrap()));
        event["hashes"] = json!({ "sha256": hash });
        let of = |event: &Value| {
            Pdu::from_stored(id.clone(), canonical(&event.to_string()).unwrap(), &self.version).unwrap()
        };
        let signed = of(&event).redacted(&self.version).unwrap();
        let signature = key.sign(canonical(signed.json.get()).unwrap().as_bytes());
        event["signatures"] = json!({ server.as_str(): { key.id().as_str(): signature } });
        of(&event)
    }

    /// Events of a server's users can be built with its key.
    pub(crate) fn signs(&mut self, server: &ServerName, key: &SigningKey) {
        self.signers.insert(server.to_owned(), SigningKey::from_text(&key.to_text()).unwrap());
    }

    /// The event is in the room.
    pub(crate) fn add(&mut self, pdu: Pdu) -> OwnedEventId {
        let id = pdu.event_id.clone();
        if self.version == RoomVersionId::V12 && pdu.kind == TimelineEventType::RoomCreate {
            self.id = pdu.room_id.clone();
        }
        if let Some(key) = &pdu.state_key {
            self.state.insert((pdu.kind.to_string(), key.clone()), pdu.clone());
        }
        self.depth = self.depth.max(pdu.depth);
        self.ends = vec![id.clone()];
        self.events.insert(id.clone(), pdu);
        id
    }

    pub(crate) fn put(&mut self, sender: &OwnedUserId, kind: &str, key: &str, content: Value) -> Pdu {
        let pdu = self.draft(sender, kind, Some(key), content);
        self.add(pdu.clone());
        pdu
    }

    pub(crate) fn say(&mut self, text: &str) -> Pdu {
        self.said_by(&self.creator.clone(), text)
    }

    pub(crate) fn said_by(&mut self, sender: &OwnedUserId, text: &str) -> Pdu {
        let pdu = self.draft(sender, "m.room.message", None, message(text));
        self.add(pdu.clone());
        pdu
    }

    pub(crate) fn state_events(&self) -> Vec<Value> {
        self.state.values().map(wire).collect()
    }

    /// All that allowed the state, and what allowed that.
    fn auth_chain(&self) -> Vec<&Pdu> {
        let mut wanted: Vec<&OwnedEventId> = self.state.values().flat_map(|pdu| &pdu.auth_events).collect();
        let mut chain: BTreeMap<&OwnedEventId, &Pdu> = BTreeMap::new();
        while let Some(id) = wanted.pop() {
            if let Some(pdu) = self.events.get(id)
                && chain.insert(id, pdu).is_none()
            {
                wanted.extend(&pdu.auth_events);
            }
        }
        chain.into_values().collect()
    }

    fn auth_chain_events(&self) -> Vec<Value> {
        self.auth_chain().into_iter().map(wire).collect()
    }

    /// What `make_join` proposes.
    pub(crate) fn proposal(&self, user: &str) -> Value {
        let wanted = ["m.room.create", "m.room.join_rules", "m.room.power_levels"];
        let auth =
            wanted.iter().filter(|kind| self.version != RoomVersionId::V12 || **kind != "m.room.create");
        let auth: Vec<&OwnedEventId> =
            auth.map(|kind| &self.state[&((*kind).to_owned(), String::new())].event_id).collect();
        let named = |id: &OwnedEventId| match self.version {
            RoomVersionId::V1 | RoomVersionId::V2 => json!([id, {}]),
            _ => json!(id),
        };
        let auth: Vec<Value> = auth.into_iter().map(named).collect();
        let previous: Vec<Value> = self.ends.iter().map(named).collect();
        json!({
            "room_version": self.version,
            "event": {
                "type": "m.room.member", "room_id": self.id, "sender": user, "state_key": user,
                "content": { "membership": "join" }, "depth": self.depth + 1, "origin_server_ts": now(),
                "prev_events": previous, "auth_events": auth,
            },
        })
    }
}

pub(crate) fn message(text: &str) -> Value {
    json!({ "msgtype": "m.text", "body": text })
}

/// The last part of a path.
pub(crate) fn last(asked: &Asked) -> &str {
    asked.path.rsplit('/').next().unwrap()
}

impl Peer {
    /// Answers about a room as a server that keeps it does. Joins that are sent become part of it.
    pub(crate) fn keeps(&self, room: &Shared) {
        let name = self.name.clone();
        let (id, answer) = {
            let (id, room) = (room.lock().id.clone(), Arc::clone(room));
            let answer = move |with: fn(&mut Room, &Asked) -> Value| {
                let room = Arc::clone(&room);
                move |asked: &Asked| (200, with(&mut room.lock(), asked))
            };
            (id, answer)
        };
        let at = |version: &str, endpoint: &str| format!("/_matrix/federation/{version}/{endpoint}/{id}");
        self.on(&at("v1", "make_join"), answer(|room, asked| room.proposal(last(asked))));
        let joined = answer(|room, asked| {
            let (state, chain) = (room.state_events(), room.auth_chain_events());
            let id = OwnedEventId::try_from(last(asked)).unwrap();
            let event = Pdu::from_stored(id, asked.body.to_string(), &room.version).unwrap();
            room.add(event);
            json!({ "state": state, "auth_chain": chain, "event": asked.body, "members_omitted": false })
        });
        self.on(&at("v2", "send_join"), move |asked| {
            let (status, mut body) = joined(asked);
            body["origin"] = json!(name);
            (status, body)
        });
        let state = |room: &mut Room, _: &Asked| json!({ "pdus": room.state_events(), "auth_chain": room.auth_chain_events() });
        self.on(&at("v1", "state"), answer(state));
        let ids = |room: &mut Room, _: &Asked| {
            let ids: Vec<_> = room.state.values().map(|pdu| pdu.event_id.clone()).collect();
            let chain: Vec<_> = room.auth_chain().into_iter().map(|pdu| pdu.event_id.clone()).collect();
            json!({ "pdu_ids": ids, "auth_chain_ids": chain })
        };
        self.on(&at("v1", "state_ids"), answer(ids));
        let missing = |room: &mut Room, asked: &Asked| {
            let earliest: Vec<OwnedEventId> =
                serde_json::from_value(asked.body["earliest_events"].clone()).unwrap();
            let mut queue: Vec<OwnedEventId> =
                serde_json::from_value(asked.body["latest_events"].clone()).unwrap();
            let (mut next, mut found) = (0, Vec::new());
            while let Some(id) = queue.get(next).cloned() {
                next += 1;
                for before in room.events.get(&id).map(|pdu| pdu.prev_events.clone()).unwrap_or_default() {
                    if !earliest.contains(&before) && !queue.contains(&before) && found.len() < 10 {
                        found.extend(room.events.get(&before).map(wire));
                        queue.push(before);
                    }
                }
            }
            json!({ "events": found })
        };
        self.on(&at("v1", "get_missing_events"), answer(missing));
        let backfill = |room: &mut Room, asked: &Asked| {
            let ends = asked.query.split('&').filter_map(|pair| pair.strip_prefix("v="));
            let mut queue: Vec<OwnedEventId> = ends.map(|id| id.try_into().unwrap()).collect();
            let mut next = 0;
            while let Some(id) = queue.get(next).cloned() {
                next += 1;
                let before = room.events.get(&id).map(|pdu| pdu.prev_events.clone());
                queue.extend(
                    before.into_iter().flatten().filter(|id| !queue.contains(id)).collect::<Vec<_>>(),
                );
            }
            json!({ "pdus": queue.iter().filter_map(|id| room.events.get(id)).map(wire).collect::<Vec<_>>() })
        };
        self.on(&at("v1", "backfill"), answer(backfill));
        let one = Arc::clone(room);
        self.on("/_matrix/federation/v1/event/", move |asked| {
            let found = OwnedEventId::try_from(last(asked)).ok();
            match found.and_then(|id| one.lock().events.get(&id).map(wire)) {
                Some(event) => (200, json!({ "pdus": [event] })),
                None => (404, json!({ "errcode": "M_NOT_FOUND", "error": "no such event" })),
            }
        });
    }
}
