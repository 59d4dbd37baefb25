//! Creating rooms: all first events in one go, in the order that the specification gives (`createRoom`).

use std::sync::{Arc, atomic::Ordering};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId,
    RoomVersionId, UInt, UserId,
    events::{StateEventType, TimelineEventType},
    serde::JsonObject,
};
use serde_json::{Value, json, value::to_raw_value};

use super::{Core, Error, NewEvent, Rooms, directory::named_aliases, snapshot::Snapshot, work::Work};
use crate::store::{self, alias as alias_table, room as room_table};

/// RV-33: the level of what only creators of version 12 may do: more than anybody else usually has.
pub(super) const CREATORS_ALONE: i64 = 150;

/// Sets of defaults for a new room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "these are the specification's names")]
pub enum Preset {
    PrivateChat,
    TrustedPrivateChat,
    PublicChat,
}

/// What a room is to be like.
#[derive(Clone, Debug)]
pub struct NewRoom {
    pub creator: OwnedUserId,
    pub version: RoomVersionId,
    pub preset: Preset,
    /// In the public directory.
    pub published: bool,
    pub alias: Option<OwnedRoomAliasId>,
    pub name: Option<String>,
    pub topic: Option<String>,
    pub creation_content: JsonObject,
    pub power_levels: JsonObject,
    /// Type, state key and content.
    pub initial_state: Vec<(StateEventType, String, Value)>,
    pub invites: Vec<OwnedUserId>,
    pub is_direct: bool,
}

impl Rooms {
    /// Creates a room. It exists with all its first events, or not at all.
    pub async fn create(&self, new: NewRoom) -> Result<OwnedRoomId, Error> {
        self.create_with(new, |_| Vec::new()).await
    }

    /// [`Self::create`], along with what else has to be written of the room of that number.
    pub(super) async fn create_with(
        &self,
        new: NewRoom,
        also: impl FnOnce(i64) -> Vec<store::Statement>,
    ) -> Result<OwnedRoomId, Error> {
        let core = &self.core;
        check_names(&new)?;
        let mut work = self.first_work(&new.version, &first_events(core, &new).await?).await?;
        let (number, room_id) = (work.snapshot().number, work.snapshot().room_id.clone());
        let batch = work.batch();
        if new.published {
            batch.push(room_table::publish(number, true));
        }
        if let Some(alias) = &new.alias {
            let now = core.environment.clock.now_ms();
            batch.push(alias_table::insert(alias.as_str(), number, new.creator.as_str(), now));
        }
        batch.extend(also(number));
        work.commit(None).await.map_err(|cause| match (cause, new.alias) {
            (store::Error::Conflict, Some(alias)) => Error::AliasInUse(alias),
            (cause, _) => cause.into(),
        })?;
        Ok(room_id)
    }

    /// A room with its first events, not durable yet.
    pub(super) async fn first_work(
        &self,
        version: &RoomVersionId,
        events: &[NewEvent],
    ) -> Result<Work<'_>, Error> {
        let core = &self.core;
        let number = self.next_number();
        // Version 12 takes the id from the first event; until then the room goes by another.
        let random = core.environment.entropy.token(18);
        let room_id = RoomId::parse(format!("!{random}:{}", core.server_name))
            .map_err(|cause| Error::Internal(cause.to_string()))?;
        let snapshot = Snapshot::empty(number, room_id, version.clone())?;
        let mut work = Work::start(core, snapshot).await?.at(self.new_moment());
        work.append_all(events, None).await.map_err(|cause| match cause {
            Error::Forbidden(why) => Error::InvalidRoomState(why),
            other => other,
        })?;
        let (room_id, open) = (work.snapshot().room_id.clone(), work.snapshot().is_open());
        work.batch().push(room_table::insert_room(number, room_id.as_str(), version.as_str(), open));
        Ok(work)
    }

    /// The time, but never the same twice. A room of version 12 is named by its first event: two alike that somebody
    /// creates at one moment would be one room.
    fn new_moment(&self) -> MilliSecondsSinceUnixEpoch {
        let now = self.core.environment.clock.now_ms();
        let later = |last: i64| Some(now.max(last + 1));
        let last = self.last_created.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        let moment = last.map_or(now, |last| now.max(last + 1));
        MilliSecondsSinceUnixEpoch(UInt::try_from(moment).unwrap_or_default())
    }
}

/// AL-03: a room that isn't there yet may call itself only by the alias that it is made with.
fn check_names(new: &NewRoom) -> Result<(), Error> {
    for (kind, state_key, content) in &new.initial_state {
        if *kind != StateEventType::RoomCanonicalAlias || !state_key.is_empty() {
            continue;
        }
        for named in content.as_object().map(named_aliases).transpose()?.unwrap_or_default() {
            let alias = <&RoomAliasId>::try_from(named)
                .map_err(|_| Error::InvalidParam(format!("{named} is not a room alias")))?;
            if new.alias.as_deref() != Some(alias) {
                return Err(Error::BadAlias(format!("{alias} does not lead to this room")));
            }
        }
    }
    Ok(())
}

async fn first_events(core: &Arc<Core>, new: &NewRoom) -> Result<Vec<NewEvent>, Error> {
    let rules = hearth_federation::rules(&new.version)?;
    let creators_are_privileged = rules.authorization.explicitly_privilege_room_creators;
    let mut events = FirstEvents::new(&new.creator);

    let mut create = create_content(core, &new.creator, &new.version, &new.creation_content)?;
    if rules.authorization.additional_room_creators && new.preset == Preset::TrustedPrivateChat {
        add_creators(&mut create, &new.invites);
    }
    events.state(&StateEventType::RoomCreate, "", &create)?;
    let join = core.member_content(&new.creator, "join").await?;
    events.state(&StateEventType::RoomMember, new.creator.as_str(), &join)?;

    let given = |kind: StateEventType| {
        let mut state = new.initial_state.iter();
        state.find(move |(given, key, _)| *given == kind && key.is_empty()).map(|(_, _, content)| content)
    };
    let levels = match given(StateEventType::RoomPowerLevels) {
        Some(levels) => levels.clone(),
        None => power_levels(new, creators_are_privileged),
    };
    events.state(&StateEventType::RoomPowerLevels, "", &levels)?;
    if let Some(alias) = &new.alias {
        events.state(&StateEventType::RoomCanonicalAlias, "", &json!({ "alias": alias }))?;
    }

    let public = new.preset == Preset::PublicChat;
    let presets = [
        (StateEventType::RoomJoinRules, json!({ "join_rule": if public { "public" } else { "invite" } })),
        (StateEventType::RoomHistoryVisibility, json!({ "history_visibility": "shared" })),
        (
            StateEventType::RoomGuestAccess,
            json!({ "guest_access": if public { "forbidden" } else { "can_join" } }),
        ),
    ];
    for (kind, content) in presets {
        if given(kind.clone()).is_none() {
            events.state(&kind, "", &content)?;
        }
    }
    for (kind, state_key, content) in &new.initial_state {
        // RC-04: name and topic of the request beat these.
        let beaten = (*kind == StateEventType::RoomName && new.name.is_some())
            || (*kind == StateEventType::RoomTopic && new.topic.is_some())
            || *kind == StateEventType::RoomPowerLevels;
        if !(beaten && state_key.is_empty()) {
            events.state(kind, state_key, content)?;
        }
    }
    if let Some(name) = &new.name {
        events.state(&StateEventType::RoomName, "", &json!({ "name": name }))?;
    }
    if let Some(topic) = &new.topic {
        // RC-06
        let text = json!([{ "body": topic, "mimetype": "text/plain" }]);
        events.state(
            &StateEventType::RoomTopic,
            "",
            &json!({ "topic": topic, "m.topic": { "m.text": text } }),
        )?;
    }
    // MB-12: the room is made without those who don't want to be in it, if somebody is left.
    let mut blocked = None;
    let mut invited = false;
    // Those of other servers are asked once the room is there.
    let (local, remote): (Vec<_>, Vec<_>) =
        new.invites.iter().partition(|invitee| invitee.server_name() == core.server_name);
    invited |= !remote.is_empty();
    for invitee in local {
        match core.check_invitable(&new.creator, invitee).await {
            Err(cause @ Error::InviteBlocked(_)) => {
                blocked.get_or_insert(cause);
                continue;
            }
            checked => checked?,
        }
        invited = true;
        let mut content = core.member_content(invitee, "invite").await?;
        if new.is_direct {
            content["is_direct"] = json!(true);
        }
        events.state(&StateEventType::RoomMember, invitee.as_str(), &content)?;
    }
    match blocked {
        Some(cause) if !invited => Err(cause),
        _ => Ok(events.events),
    }
}

/// State that one user sends to a new room.
pub(super) struct FirstEvents<'a> {
    sender: &'a UserId,
    pub(super) events: Vec<NewEvent>,
}

impl<'a> FirstEvents<'a> {
    pub(super) fn new(sender: &'a UserId) -> Self {
        Self { sender, events: Vec::new() }
    }

    pub(super) fn state(
        &mut self,
        kind: &StateEventType,
        state_key: &str,
        content: &Value,
    ) -> Result<(), Error> {
        let content = to_raw_value(content).map_err(|cause| Error::BadJson(cause.to_string()))?;
        self.events.push(NewEvent {
            sender: self.sender.to_owned(),
            kind: TimelineEventType::from(kind.to_string()),
            state_key: Some(state_key.to_owned()),
            content,
            redacts: None,
        });
        Ok(())
    }
}

/// The content of the create event, with what a client wants in it.
pub(super) fn create_content(
    core: &Core,
    creator: &UserId,
    version: &RoomVersionId,
    wanted: &JsonObject,
) -> Result<Value, Error> {
    let rules = hearth_federation::rules(version)?.authorization;
    let mut content = Value::Object(wanted.clone().into_iter().collect());
    // RC-05: these are the server's to say.
    content["room_version"] = json!(version);
    if rules.use_room_create_sender {
        if let Some(content) = content.as_object_mut() {
            content.remove("creator");
        }
    } else {
        content["creator"] = json!(creator);
    }
    if !core.policy.federate {
        content["m.federate"] = json!(false);
    }
    Ok(content)
}

/// RC-03: in version 12 trusted invitees are creators too.
fn add_creators(content: &mut Value, invites: &[OwnedUserId]) {
    let mut creators = match content.get("additional_creators") {
        None => Vec::new(),
        Some(Value::Array(creators)) => creators.clone(),
        // RV-30: the room's rules refuse it, and the client gets to know.
        Some(_) => return,
    };
    for invitee in invites {
        if !creators.contains(&json!(invitee)) {
            creators.push(json!(invitee));
        }
    }
    if !creators.is_empty() {
        content["additional_creators"] = Value::Array(creators);
    }
}

fn power_levels(new: &NewRoom, creators_are_privileged: bool) -> Value {
    let mut users = serde_json::Map::new();
    if !creators_are_privileged {
        users.insert(new.creator.to_string(), json!(100));
        if new.preset == Preset::TrustedPrivateChat {
            users.extend(new.invites.iter().map(|invitee| (invitee.to_string(), json!(100))));
        }
    }
    let mut content = json!({
        "ban": 50,
        "events": {
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.encryption": 100,
            "m.room.history_visibility": 100,
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.server_acl": 100,
            "m.room.tombstone": 100,
        },
        "events_default": 0,
        "invite": if new.preset == Preset::PublicChat { 50 } else { 0 },
        "kick": 50,
        "notifications": { "room": 50 },
        "redact": 50,
        "state_default": 50,
        "users": users,
        "users_default": 0,
    });
    for (key, value) in &new.power_levels {
        content[key] = json!(value);
    }
    let named = new.power_levels.get("events").is_some_and(|events| events.get("m.room.tombstone").is_some());
    if creators_are_privileged && !named {
        // RV-33: only a creator may upgrade a room of version 12, whatever else the client changes.
        let state_default = content["state_default"].as_i64().unwrap_or(50);
        let level = CREATORS_ALONE.max(state_default.saturating_add(1));
        if let Some(events) = content["events"].as_object_mut() {
            events.insert("m.room.tombstone".to_owned(), json!(level));
        }
    }
    content
}
