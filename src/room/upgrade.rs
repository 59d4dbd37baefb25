//! Upgrades: a new room of another version in the place of an old one ("Room upgrades").
//!
//! The new room, with all that it takes over, and the tombstone of the old one become durable together. What members
//! have set for themselves follows when they join.

use std::{collections::BTreeSet, sync::Arc};

use hearth_federation::json::MAX_SAFE_INTEGER;
use ruma::{
    OwnedRoomId, OwnedUserId, RoomVersionId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
    room_version_rules::AuthorizationRules,
    serde::JsonObject,
};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::to_raw_value};

use super::{
    Error, NewEvent, Room, Rooms, Snapshot,
    create::{CREATORS_ALONE, FirstEvents, create_content},
    writer,
};
use crate::store::{alias as alias_table, room as room_table};

/// State with an empty key that the new room takes over as it is, in this order. Power levels come last, so that they
/// don't stand in the way of the rest.
const KEPT: [StateEventType; 8] = [
    StateEventType::RoomServerAcl,
    StateEventType::RoomEncryption,
    StateEventType::RoomName,
    StateEventType::RoomAvatar,
    StateEventType::RoomTopic,
    StateEventType::RoomGuestAccess,
    StateEventType::RoomHistoryVisibility,
    StateEventType::RoomCanonicalAlias,
];

/// Lets a room be upgraded by one at a time.
struct Upgrading<'a> {
    rooms: &'a Rooms,
    room: i64,
}

impl Drop for Upgrading<'_> {
    fn drop(&mut self) {
        self.rooms.upgrading.lock().remove(&self.room);
    }
}

impl Rooms {
    /// Replaces a room by one of another version. Returns the new room's id.
    pub async fn upgrade(
        &self,
        room: &Arc<Room>,
        user_id: &UserId,
        version: RoomVersionId,
        additional_creators: &[OwnedUserId],
    ) -> Result<OwnedRoomId, Error> {
        let rules = hearth_federation::rules(&version)?.authorization;
        if !room.lets_set(user_id, &StateEventType::RoomTombstone) {
            return Err(Error::forbidden("you lack the power to upgrade this room"));
        }
        if !self.upgrading.lock().insert(room.number) {
            return Err(Error::BadState("this room is being upgraded at the moment".to_owned()));
        }
        let _upgrading = Upgrading { rooms: self, room: room.number };

        let old = room.snapshot();
        let creators = if rules.additional_room_creators { additional_creators } else { &[] };
        let first = self.taken_over(&old, user_id, &version, &rules, creators).await?;
        let mut work = self.first_work(&version, &first).await?;
        let (number, new_id) = (work.snapshot().number, work.snapshot().room_id.clone());
        let batch = work.batch();
        batch.push(alias_table::move_all(room.number, number));
        if self.is_published(room).await? {
            batch.push(room_table::publish(number, true));
            batch.push(room_table::publish(room.number, false));
        }
        let tombstone = json!({ "body": "This room has been replaced", "replacement_room": new_id });
        let tombstone = state(user_id, &StateEventType::RoomTombstone, &tombstone)?;
        writer::append(&self.core, room, vec![tombstone], None, Some(work.into_batch(None))).await?;

        self.close(room, user_id).await;
        let new = self.by_id(&new_id).await?;
        self.carry_settings(&new, user_id).await;
        Ok(new_id)
    }

    /// The first events of the new room.
    async fn taken_over(
        &self,
        old: &Snapshot,
        user_id: &UserId,
        version: &RoomVersionId,
        rules: &AuthorizationRules,
        additional_creators: &[OwnedUserId],
    ) -> Result<Vec<NewEvent>, Error> {
        let core = &self.core;
        let mut events = FirstEvents::new(user_id);

        let mut predecessor = json!({ "room_id": old.room_id });
        if let Some(last) = old.extremities.first() {
            predecessor["event_id"] = json!(last.event_id);
        }
        let mut wanted = JsonObject::new();
        wanted.insert("predecessor".to_owned(), predecessor);
        let create: JsonObject = old.state.content(&StateEventType::RoomCreate).unwrap_or_default();
        for key in ["type", "m.federate"] {
            if let Some(value) = create.get(key) {
                wanted.insert(key.to_owned(), value.clone());
            }
        }
        if !additional_creators.is_empty() {
            wanted.insert("additional_creators".to_owned(), json!(additional_creators));
        }
        let content = create_content(core, user_id, version, &wanted)?;
        events.state(&StateEventType::RoomCreate, "", &content)?;
        let join = core.member_content(user_id, "join").await?;
        events.state(&StateEventType::RoomMember, user_id.as_str(), &join)?;

        for kind in KEPT {
            if let Some(content) = kept(old, &kind, "") {
                events.state(&kind, "", &content)?;
            }
        }
        if let Some(content) = kept(old, &StateEventType::RoomJoinRules, "") {
            events.state(&StateEventType::RoomJoinRules, "", &join_rules(content, rules))?;
        }
        for (room_id, _) in old.state.of_type(&StateEventType::SpaceChild) {
            if let Some(content) = kept(old, &StateEventType::SpaceChild, room_id) {
                events.state(&StateEventType::SpaceChild, room_id, &content)?;
            }
        }
        // Who was to stay out stays out.
        for (banned, event) in old.state.of_type(&StateEventType::RoomMember) {
            if event.pdu.membership() == Some(MembershipState::Ban) {
                events.state(&StateEventType::RoomMember, banned, &json!({ "membership": "ban" }))?;
            }
        }
        let creators: BTreeSet<&UserId> =
            additional_creators.iter().map(|creator| &**creator).chain([user_id]).collect();
        events.state(&StateEventType::RoomPowerLevels, "", &power_levels(old, rules, &creators))?;
        Ok(events.events)
    }

    /// Keeps people from going on in the old room, as far as the user may. The upgrade stands without it.
    async fn close(&self, room: &Arc<Room>, user_id: &UserId) {
        let old = room.snapshot();
        let mut wanted = Vec::new();
        let mut levels = levels_of(&old);
        let users_default = levels.get("users_default").and_then(Value::as_i64).unwrap_or(0);
        for key in ["events_default", "invite"] {
            let present = levels.get(key).and_then(Value::as_i64).unwrap_or(0);
            levels.insert(key.to_owned(), json!(present.max(users_default.saturating_add(1)).max(50)));
        }
        wanted.push((StateEventType::RoomPowerLevels, Value::Object(levels)));
        if old.state.get(&StateEventType::RoomCanonicalAlias, "").is_some() {
            wanted.push((StateEventType::RoomCanonicalAlias, json!({})));
        }
        for (kind, content) in wanted {
            let result = match state(user_id, &kind, &content) {
                Ok(event) => self.append_one(room, event, None).await.map(drop),
                Err(cause) => Err(cause),
            };
            if let Err(cause) = result {
                tracing::info!(room_id = %room.room_id, %kind, %cause, "an upgraded room keeps its old state");
            }
        }
    }

    /// UP-03: what a member of the room's predecessor had set for themselves there holds in this room too. That a room
    /// claims another as its predecessor isn't enough.
    pub(super) async fn carry_settings(&self, room: &Room, user_id: &UserId) {
        if let Err(cause) = self.try_to_carry_settings(room, user_id).await {
            tracing::warn!(room_id = %room.room_id, %user_id, %cause, "settings didn't follow to a new room");
        }
    }

    async fn try_to_carry_settings(&self, room: &Room, user_id: &UserId) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Create {
            predecessor: Predecessor,
        }
        #[derive(Deserialize)]
        struct Predecessor {
            room_id: OwnedRoomId,
        }
        #[derive(Deserialize)]
        struct Tombstone {
            replacement_room: OwnedRoomId,
        }
        let new = room.snapshot();
        let Some(create) = new.state.content::<Create>(&StateEventType::RoomCreate) else { return Ok(()) };
        let old = match self.by_id(&create.predecessor.room_id).await {
            Ok(old) => old,
            Err(Error::NotFound(_)) => return Ok(()),
            Err(cause) => return Err(cause),
        };
        let snapshot = old.snapshot();
        let tombstone = snapshot.state.content::<Tombstone>(&StateEventType::RoomTombstone);
        if tombstone.is_none_or(|tombstone| tombstone.replacement_room != room.room_id)
            || snapshot.member(user_id).is_none()
        {
            return Ok(());
        }
        let Some(recipient) = self.core.accounts.recipient(user_id).await? else { return Ok(()) };
        let (old, new) = ((old.number, &*old.room_id), (room.number, &*room.room_id));
        let carried = self.core.accounts.carry_room_settings(recipient, user_id, old, new).await;
        carried.map_err(|cause| Error::Internal(cause.to_string()))
    }
}

fn state(sender: &UserId, kind: &StateEventType, content: &Value) -> Result<NewEvent, Error> {
    Ok(NewEvent {
        sender: sender.to_owned(),
        kind: TimelineEventType::from(kind.to_string()),
        state_key: Some(String::new()),
        content: to_raw_value(content).map_err(|cause| Error::Internal(cause.to_string()))?,
        redacts: None,
    })
}

/// What a state event of the old room says, unless it was redacted.
fn kept(old: &Snapshot, kind: &StateEventType, state_key: &str) -> Option<Value> {
    let event = old.state.get(kind, state_key).filter(|event| event.redacted_by.is_none())?;
    let mut content = event.pdu.content_as().ok()?;
    make_canonical(&mut content);
    Some(content)
}

/// RV-11: events of others in rooms of old versions may have numbers that new events can't have. They become the nearest
/// integers to zero that can be.
fn make_canonical(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let integer = number.as_i64().or_else(|| number.as_f64().map(|number| number as i64));
            *value = json!(integer.map(|integer| integer.clamp(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)));
        }
        Value::Array(values) => values.iter_mut().for_each(make_canonical),
        Value::Object(values) => values.values_mut().for_each(make_canonical),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The join rules, as far as the new version has them; the next stricter ones else.
fn join_rules(content: Value, rules: &AuthorizationRules) -> Value {
    let mut rule = content["join_rule"].as_str().unwrap_or("invite");
    if rule == "knock_restricted" && !rules.knock_restricted_join_rule {
        rule = if rules.restricted_join_rule { "restricted" } else { "knock" };
    }
    if (rule == "restricted" && !rules.restricted_join_rule) || (rule == "knock" && !rules.knocking) {
        rule = "invite";
    }
    if content["join_rule"] == rule {
        return content;
    }
    match (rule, content.get("allow")) {
        ("restricted", Some(allow)) => json!({ "join_rule": rule, "allow": allow }),
        _ => json!({ "join_rule": rule }),
    }
}

/// The power levels of a room as integers, whatever its version lets them be.
fn levels_of(old: &Snapshot) -> Map<String, Value> {
    let mut levels: Map<String, Value> =
        old.state.content(&StateEventType::RoomPowerLevels).unwrap_or_else(|| {
            // Without an event a creator has 100, but where creators have power without limit.
            let users: Map<String, Value> =
                old.creators().into_iter().map(|creator| (creator.to_string(), json!(100))).collect();
            Map::from_iter([("users".to_owned(), Value::Object(users))])
        });
    for value in levels.values_mut() {
        match value {
            Value::Object(levels) => levels.values_mut().for_each(make_integer),
            value => make_integer(value),
        }
    }
    for levels in levels.values_mut().filter_map(Value::as_object_mut) {
        levels.retain(|_, level| level.is_i64());
    }
    levels.retain(|_, level| level.is_i64() || level.is_object());
    levels
}

/// RV-19, RV-20: texts and fractions that old versions read as levels.
fn make_integer(level: &mut Value) {
    let integer = match &*level {
        Value::String(text) => text.trim().parse::<i64>().ok(),
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|level| level as i64)),
        _ => None,
    };
    *level = json!(integer);
    make_canonical(level);
}

/// The power levels of the new room, whose creators these are.
fn power_levels(old: &Snapshot, rules: &AuthorizationRules, creators: &BTreeSet<&UserId>) -> Value {
    let mut levels = levels_of(old);
    let of = |levels: &Map<String, Value>, key: &str| {
        levels.get(key).and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let (mut users, mut events) = (of(&levels, "users"), of(&levels, "events"));
    if rules.explicitly_privilege_room_creators {
        // UP-04: they have power without limit, and may not be named here (RV-32).
        users.retain(|user, _| !creators.iter().any(|creator| creator.as_str() == user));
        let state_default = levels.get("state_default").and_then(Value::as_i64).unwrap_or(50);
        let least = CREATORS_ALONE.max(state_default.saturating_add(1));
        let tombstone = events.get("m.room.tombstone").and_then(Value::as_i64).unwrap_or(least);
        events.insert("m.room.tombstone".to_owned(), json!(tombstone.max(least)));
    } else if old.rules.authorization.explicitly_privilege_room_creators {
        // Nobody has more than those who had power without limit.
        let all = levels.values().chain(users.values()).chain(events.values());
        let most = all.filter_map(Value::as_i64).max().unwrap_or(0).max(100);
        for creator in old.creators() {
            users.insert(creator.to_string(), json!(most));
        }
    }
    levels.insert("users".to_owned(), Value::Object(users));
    levels.insert("events".to_owned(), Value::Object(events));
    Value::Object(levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rv_11_numbers_of_old_versions_become_integers_that_new_events_can_have() {
        let old = r#"{
            "a": [1.9, -1.9, 1e300, 9007199254740992, -9223372036854775808, 18446744073709551615, 7],
            "b": { "c": { "d": 0.5 }, "e": "0.5", "f": null, "g": true }
        }"#;
        let mut content = serde_json::from_str(old).unwrap();
        make_canonical(&mut content);
        let most = MAX_SAFE_INTEGER;
        let expected = json!({
            "a": [1, -1, most, most, -most, most, 7],
            "b": { "c": { "d": 0 }, "e": "0.5", "f": null, "g": true },
        });
        assert_eq!(content, expected);
    }

    #[test]
    fn rv_19_rv_20_levels_of_old_versions_become_integers() {
        for (written, level) in [
            (json!(" +050 "), json!(50)),
            (json!("-3"), json!(-3)),
            (json!(50.9), json!(50)),
            (json!(9_223_372_036_854_775_807_i64), json!(MAX_SAFE_INTEGER)),
            (json!("many"), Value::Null),
            (json!([50]), Value::Null),
        ] {
            let mut found = written.clone();
            make_integer(&mut found);
            assert_eq!(found, level, "{written}");
        }
    }
}
