//! Names of rooms: aliases, and the public directory of this server.
//!
//! The directory's order is that of the rooms' numbers, so it is stable while rooms come and go (PD-20). A page loads the
//! rooms it looks at and looks at a bounded number of them.

use std::sync::Arc;

use ruma::{
    OwnedRoomAliasId, OwnedRoomId, RoomAliasId, UserId,
    events::{StateEventType, TimelineEventType, room::history_visibility::HistoryVisibility},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json, value::to_raw_value};

use super::{Error, NewEvent, Room, Rooms, Snapshot};
use crate::store::{self, alias as alias_table, room as room_table};

/// Rooms that a page looks at, at most, to find those that match a filter.
const SCAN: usize = 500;
/// Rooms that are asked for at a time.
const STRIDE: i64 = 50;

/// What is asked of the directory.
#[derive(Clone, Debug)]
pub struct Search {
    /// The most rooms of a page.
    pub limit: usize,
    /// Where the page begins; a `next_batch` or `prev_batch` of another page.
    pub since: Option<String>,
    /// A part of the name, topic or canonical alias, in any case.
    pub term: Option<String>,
    /// The types wanted, `None` among them for rooms without one; empty: all.
    pub room_types: Vec<Option<String>>,
}

/// A room as the directory shows it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PublicRoom {
    pub room_id: OwnedRoomId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canonical_alias: Option<OwnedRoomAliasId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    #[serde(rename = "num_joined_members")]
    pub joined_members: usize,
    pub world_readable: bool,
    pub guest_can_join: bool,
    #[serde(default = "public")]
    pub join_rule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_type: Option<String>,
}

/// What a room of a directory is that doesn't say.
fn public() -> String {
    "public".to_owned()
}

/// A part of the directory.
#[derive(Debug, Default, Deserialize)]
pub struct PublicRooms {
    #[serde(rename = "chunk", deserialize_with = "readable")]
    pub rooms: Vec<PublicRoom>,
    pub next_batch: Option<String>,
    pub prev_batch: Option<String>,
    /// All rooms of the directory, whether they match or not.
    #[serde(rename = "total_room_count_estimate", default)]
    pub total: i64,
}

/// Rooms of another server's directory, without those that can't be read (I7).
fn readable<'de, D: serde::Deserializer<'de>>(chunk: D) -> Result<Vec<PublicRoom>, D::Error> {
    let rooms: Vec<Value> = Vec::deserialize(chunk)?;
    Ok(rooms.into_iter().filter_map(|room| PublicRoom::deserialize(room).ok()).collect())
}

/// Which way a page goes from which room, that room left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    After(i64),
    Before(i64),
}

impl Place {
    fn parse(text: &str) -> Result<Self, Error> {
        let refused = || Error::InvalidParam("`since` is not a token of this directory".to_owned());
        let number = |text: &str| text.parse().map_err(|_| refused());
        if let Some(text) = text.strip_prefix('n') {
            return number(text).map(Self::After);
        }
        text.strip_prefix('p').ok_or_else(refused).and_then(number).map(Self::Before)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::After(number) => write!(out, "n{number}"),
            Self::Before(number) => write!(out, "p{number}"),
        }
    }
}

impl PublicRoom {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        #[derive(Default, Deserialize)]
        struct Content {
            name: Option<String>,
            topic: Option<String>,
            url: Option<String>,
        }
        let content = |kind| snapshot.state.content::<Content>(&kind).unwrap_or_default();
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self {
            room_id: snapshot.room_id.clone(),
            name: filled(content(StateEventType::RoomName).name),
            topic: filled(content(StateEventType::RoomTopic).topic),
            canonical_alias: canonical_alias(snapshot),
            avatar_url: filled(content(StateEventType::RoomAvatar).url),
            joined_members: snapshot.joined,
            world_readable: snapshot.history_visibility() == HistoryVisibility::WorldReadable,
            guest_can_join: snapshot.guests_may_join(),
            join_rule: snapshot.join_rule().as_str().to_owned(),
            room_type: snapshot.room_type(),
        }
    }

    fn matches(&self, search: Option<&str>, room_types: &[Option<String>]) -> bool {
        let found = |text: &Option<String>, search: &str| {
            text.as_ref().is_some_and(|text| text.to_lowercase().contains(search))
        };
        let alias = self.canonical_alias.as_ref().map(ToString::to_string);
        let search = search.is_none_or(|search| {
            found(&self.name, search) || found(&self.topic, search) || found(&alias, search)
        });
        search && (room_types.is_empty() || room_types.contains(&self.room_type))
    }
}

fn canonical_alias(snapshot: &Snapshot) -> Option<OwnedRoomAliasId> {
    #[derive(Deserialize)]
    struct Content {
        alias: Option<OwnedRoomAliasId>,
    }
    snapshot.state.content::<Content>(&StateEventType::RoomCanonicalAlias)?.alias
}

/// Every alias that an `m.room.canonical_alias` names, as it is written there.
pub(super) fn named_aliases(content: &Map<String, Value>) -> Result<Vec<&str>, Error> {
    let refused = |what: &str| Error::InvalidParam(format!("`{what}` is not what it should be"));
    let mut named = Vec::new();
    match content.get("alias") {
        // An empty alias is how some clients take it away.
        None | Some(Value::Null) => {}
        Some(Value::String(alias)) if alias.is_empty() => {}
        Some(Value::String(alias)) => named.push(alias.as_str()),
        Some(_) => return Err(refused("alias")),
    }
    match content.get("alt_aliases") {
        None | Some(Value::Null) => {}
        Some(Value::Array(aliases)) => {
            for alias in aliases {
                named.push(alias.as_str().ok_or_else(|| refused("alt_aliases"))?);
            }
        }
        Some(_) => return Err(refused("alt_aliases")),
    }
    Ok(named)
}

impl Rooms {
    /// The room that an alias points at. Aliases of other servers are unknown here.
    pub async fn by_alias(&self, alias: &RoomAliasId) -> Result<Arc<Room>, Error> {
        match self.core.store.alias(alias.as_str()).await? {
            Some((number, _)) => self.by_number(number).await,
            None => Err(Error::NotFound("there is no such alias")),
        }
    }

    /// Points a new alias at a room that the user is in (AL-02).
    pub async fn add_alias(&self, room: &Room, alias: &RoomAliasId, user_id: &UserId) -> Result<(), Error> {
        self.check_local_alias(alias)?;
        let now = self.core.environment.clock.now_ms();
        let insert = alias_table::insert(alias.as_str(), room.number, user_id.as_str(), now);
        match self.core.store.commit(insert).await {
            Ok(_) => Ok(()),
            Err(store::Error::Conflict) => Err(Error::AliasInUse(alias.to_owned())),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Only this server's names are its to give.
    pub fn check_local_alias(&self, alias: &RoomAliasId) -> Result<(), Error> {
        if alias.server_name() == self.core.server_name && !alias.as_str().contains('\0') {
            return Ok(());
        }
        Err(Error::InvalidParam(format!("{alias} is not an alias of {}", self.core.server_name)))
    }

    /// Takes an alias away: its creator may, whoever may name the room, and `privileged` users.
    pub async fn remove_alias(
        &self,
        alias: &RoomAliasId,
        user_id: &UserId,
        privileged: bool,
    ) -> Result<(), Error> {
        let gone = Error::NotFound("there is no such alias");
        let Some((number, creator)) = self.core.store.alias(alias.as_str()).await? else { return Err(gone) };
        let room = self.by_number(number).await?;
        let may_name = room.lets_set(user_id, &StateEventType::RoomCanonicalAlias);
        if !privileged && !may_name && creator != user_id.as_str() {
            return Err(Error::forbidden("only its creator, or who may name the room, can remove an alias"));
        }
        match self.core.store.commit(alias_table::delete(alias.as_str())).await {
            Ok(_) => {}
            Err(store::Error::Conflict) => return Err(gone),
            Err(cause) => return Err(cause.into()),
        }
        // AL-04: the room's state shouldn't go on naming it. Somebody else may be changing it: then it's theirs to do.
        if may_name && let Err(cause) = self.forget_alias(&room, alias, user_id).await {
            tracing::info!(%alias, %cause, "a removed alias is still named by its room");
        }
        Ok(())
    }

    async fn forget_alias(
        &self,
        room: &Arc<Room>,
        alias: &RoomAliasId,
        user_id: &UserId,
    ) -> Result<(), Error> {
        let snapshot = room.snapshot();
        let kind = StateEventType::RoomCanonicalAlias;
        let Some(mut content) = snapshot.state.content::<Map<String, Value>>(&kind) else { return Ok(()) };
        if !named_aliases(&content)?.contains(&alias.as_str()) {
            return Ok(());
        }
        if content.get("alias").and_then(Value::as_str) == Some(alias.as_str()) {
            content.remove("alias");
        }
        if let Some(Value::Array(aliases)) = content.get_mut("alt_aliases") {
            aliases.retain(|named| named != &json!(alias));
        }
        let event = NewEvent {
            sender: user_id.to_owned(),
            kind: TimelineEventType::RoomCanonicalAlias,
            state_key: Some(String::new()),
            content: to_raw_value(&content).map_err(|cause| Error::Internal(cause.to_string()))?,
            redacts: None,
        };
        self.append_one(room, event, None).await?;
        Ok(())
    }

    /// The aliases of this server that point at a room, oldest first.
    pub async fn aliases(&self, room: &Room) -> Result<Vec<OwnedRoomAliasId>, Error> {
        let aliases = self.core.store.aliases(room.number).await?.into_iter();
        Ok(aliases.filter_map(|alias| alias.try_into().ok()).collect())
    }

    /// AL-03: a room may call itself only what leads to it. Names that it has already stay.
    pub(super) async fn check_canonical_alias(
        &self,
        room: &Room,
        content: &Map<String, Value>,
    ) -> Result<(), Error> {
        let kind = StateEventType::RoomCanonicalAlias;
        let current = room.snapshot().state.content::<Map<String, Value>>(&kind).unwrap_or_default();
        let known = named_aliases(&current).unwrap_or_default();
        for named in named_aliases(content)? {
            if known.contains(&named) {
                continue;
            }
            let alias = <&RoomAliasId>::try_from(named)
                .map_err(|_| Error::InvalidParam(format!("{named} is not a room alias")))?;
            let target = self.core.store.alias(alias.as_str()).await?;
            if target.is_none_or(|(number, _)| number != room.number) {
                return Err(Error::BadAlias(format!("{alias} does not lead to this room")));
            }
        }
        Ok(())
    }

    pub async fn is_published(&self, room: &Room) -> Result<bool, Error> {
        Ok(self.core.store.is_published(room.number).await?)
    }

    /// Puts a room into the directory or takes it out; who may name the room may.
    pub async fn publish(&self, room: &Room, user_id: &UserId, published: bool) -> Result<(), Error> {
        if !room.lets_set(user_id, &StateEventType::RoomCanonicalAlias) {
            return Err(Error::forbidden("you lack the power to publish this room"));
        }
        self.core.store.commit(room_table::publish(room.number, published)).await?;
        Ok(())
    }

    /// A page of the directory.
    pub async fn public_rooms(&self, query: &Search) -> Result<PublicRooms, Error> {
        let place = query.since.as_deref().map(Place::parse).transpose()?;
        let search = query.term.as_ref().map(|search| search.to_lowercase());
        let start = place.unwrap_or(Place::After(0));
        let total = self.core.store.published_count().await?;
        let mut rooms: Vec<PublicRoom> = Vec::new();
        // The last room that was looked at, and whether there may be more behind it.
        let (mut at, mut scanned, mut more) = (start, 0, false);
        'scan: loop {
            let numbers = match at {
                Place::After(number) => self.core.store.published_after(number, STRIDE).await?,
                Place::Before(number) => self.core.store.published_before(number, STRIDE).await?,
            };
            let last = numbers.len() < STRIDE as usize;
            for number in numbers {
                if rooms.len() == query.limit || scanned == SCAN {
                    more = true;
                    break 'scan;
                }
                scanned += 1;
                at = match at {
                    Place::After(_) => Place::After(number),
                    Place::Before(_) => Place::Before(number),
                };
                let room = match self.by_number(number).await {
                    Ok(room) => PublicRoom::of(&room.snapshot()),
                    // One that can't be read is no reason to show none.
                    Err(cause) => {
                        tracing::warn!(number, %cause, "a room of the directory can't be loaded");
                        continue;
                    }
                };
                if room.matches(search.as_deref(), &query.room_types) {
                    rooms.push(room);
                }
            }
            if last {
                break;
            }
        }
        Ok(page(rooms, start, at, place.is_some(), more, total))
    }
}

/// Puts a scan from `start` to `end` in the order of the directory, with the tokens to go on both ways.
fn page(
    mut rooms: Vec<PublicRoom>,
    start: Place,
    end: Place,
    later: bool,
    more: bool,
    total: i64,
) -> PublicRooms {
    let (next, prev) = match (start, end) {
        (Place::After(start), Place::After(end)) => {
            (more.then_some(Place::After(end)), later.then_some(Place::Before(start.saturating_add(1))))
        }
        (Place::Before(start), Place::Before(end) | Place::After(end))
        | (Place::After(start), Place::Before(end)) => {
            rooms.reverse();
            (Some(Place::After(start.saturating_sub(1))), more.then_some(Place::Before(end)))
        }
    };
    let text = |place: Place| place.to_string();
    PublicRooms { rooms, next_batch: next.map(text), prev_batch: prev.map(text), total }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went_out() {
        for place in [Place::After(0), Place::After(17), Place::Before(3)] {
            assert_eq!(Place::parse(&place.to_string()).unwrap(), place);
        }
        for text in ["", "n", "p", "x1", "17", "n1.5", "n99999999999999999999"] {
            assert!(matches!(Place::parse(text), Err(Error::InvalidParam(_))), "{text}");
        }
    }

    #[test]
    fn canonical_aliases_are_texts() {
        let named = |content: Value| {
            let Value::Object(content) = content else { panic!() };
            named_aliases(&content).map(|named| named.into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        assert!(named(json!({})).unwrap().is_empty());
        assert!(named(json!({ "alias": null, "alt_aliases": null })).unwrap().is_empty());
        assert_eq!(named(json!({ "alias": "#a:b", "alt_aliases": ["#c:d"] })).unwrap(), ["#a:b", "#c:d"]);
        for bad in [json!({ "alias": 1 }), json!({ "alt_aliases": "#a:b" }), json!({ "alt_aliases": [1] })] {
            assert!(matches!(named(bad), Err(Error::InvalidParam(_))));
        }
    }
}
