//! Which events a client asks for, and which fields of them ("Filtering" of the Client-Server API).

use ruma::{
    OwnedRoomId, OwnedUserId, RoomId,
    api::client::filter::{LazyLoadOptions, RoomEventFilter, UrlFilter},
};
use serde::{Deserialize, Serialize};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use super::Event;
use crate::account::IgnoredUsers;

/// Whether the members that a client needs to show events come with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LazyMembers {
    /// They are sent as any other state.
    #[default]
    Off,
    /// Those who sent the events, unless the client has them already.
    Needed,
    /// … even if it has.
    Redundant,
}

/// A `RoomEventFilter`, ready to be applied.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    pub limit: Option<usize>,
    pub lazy_members: LazyMembers,
    rooms: Option<Vec<OwnedRoomId>>,
    not_rooms: Vec<OwnedRoomId>,
    types: Option<Vec<String>>,
    not_types: Vec<String>,
    senders: Option<Vec<OwnedUserId>>,
    not_senders: Vec<OwnedUserId>,
    contains_url: Option<bool>,
    relations: RelationFilter,
    ignored: IgnoredUsers,
}

/// What a `RoomEventFilter` asks of relations. Proposals, which ruma's filters don't have: how the event itself relates to
/// another (MSC3874), and what relates to it (MSC3440).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct RelationFilter {
    #[serde(rename = "org.matrix.msc3874.rel_types", skip_serializing_if = "Option::is_none")]
    rel_types: Option<Vec<String>>,
    #[serde(rename = "org.matrix.msc3874.not_rel_types", default, skip_serializing_if = "Vec::is_empty")]
    not_rel_types: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    related_by_rel_types: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    related_by_senders: Option<Vec<String>>,
}

impl RelationFilter {
    fn matches(&self, event: &Event) -> bool {
        if self.rel_types.is_none() && self.not_rel_types.is_empty() {
            return true;
        }
        let relation = event.relation();
        let is = |kind: &String| relation.as_ref().is_some_and(|relation| relation.rel_type == *kind);
        !self.not_rel_types.iter().any(is) && self.rel_types.as_ref().is_none_or(|kinds| kinds.iter().any(is))
    }
}

impl EventFilter {
    pub fn new(filter: &RoomEventFilter) -> Self {
        Self {
            limit: filter.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            lazy_members: match filter.lazy_load_options {
                LazyLoadOptions::Disabled => LazyMembers::Off,
                LazyLoadOptions::Enabled { include_redundant_members: false } => LazyMembers::Needed,
                LazyLoadOptions::Enabled { include_redundant_members: true } => LazyMembers::Redundant,
            },
            rooms: filter.rooms.clone(),
            not_rooms: filter.not_rooms.clone(),
            types: filter.types.clone(),
            not_types: filter.not_types.clone(),
            senders: filter.senders.clone(),
            not_senders: filter.not_senders.clone(),
            contains_url: filter.url_filter.as_ref().map(|filter| *filter == UrlFilter::EventsWithUrl),
            relations: RelationFilter::default(),
            ignored: IgnoredUsers::default(),
        }
    }

    /// Asks for this too.
    #[must_use]
    pub fn with(self, relations: RelationFilter) -> Self {
        Self { relations, ..self }
    }

    /// Leaves out what these users said too (IG-01). State is part of the room, whoever set it.
    #[must_use]
    pub fn without(self, ignored: IgnoredUsers) -> Self {
        Self { ignored, ..self }
    }

    /// Whether events of a room can match.
    pub fn room(&self, room_id: &RoomId) -> bool {
        listed(self.rooms.as_deref(), &self.not_rooms, room_id)
    }

    /// Whether an event matches, but for what relates to it ([`super::Rooms::related_as_asked`]).
    pub fn matches(&self, event: &Event) -> bool {
        let pdu = &event.pdu;
        if !self.room(&pdu.room_id) || !listed(self.senders.as_deref(), &self.not_senders, &pdu.sender) {
            return false;
        }
        if !pdu.is_state() && self.ignored.contains(&pdu.sender) {
            return false;
        }
        if (self.types.is_some() || !self.not_types.is_empty())
            && !type_matches(self.types.as_deref(), &self.not_types, &pdu.kind.to_string())
        {
            return false;
        }
        if !self.relations.matches(event) {
            return false;
        }
        // FI-04
        self.contains_url.is_none_or(|wanted| wanted == has_url(&pdu.content))
    }

    /// Whether it depends on what relates to an event.
    pub fn asks_for_children(&self) -> bool {
        self.relations.related_by_rel_types.is_some() || self.relations.related_by_senders.is_some()
    }

    /// The types of relations and the senders one of which a child has to have.
    pub(super) fn children(&self) -> (Option<&[String]>, Option<&[String]>) {
        (self.relations.related_by_rel_types.as_deref(), self.relations.related_by_senders.as_deref())
    }

    /// Whose events are left out.
    pub(super) fn ignored(&self) -> &IgnoredUsers {
        &self.ignored
    }

    /// Whether no event can match, whatever its room.
    pub fn matches_nothing(&self) -> bool {
        let nothing = |list: &Option<Vec<String>>| list.as_ref().is_some_and(Vec::is_empty);
        let relations = &self.relations;
        self.senders.as_ref().is_some_and(Vec::is_empty)
            || [&self.types, &relations.rel_types].into_iter().any(nothing)
            || [&relations.related_by_rel_types, &relations.related_by_senders].into_iter().any(nothing)
    }

    /// Whether nothing of a room can match.
    pub fn shows_nothing_of(&self, room_id: &RoomId) -> bool {
        self.matches_nothing() || !self.room(room_id)
    }

    /// Whether every event matches.
    pub fn matches_everything(&self) -> bool {
        self.rooms.is_none()
            && self.not_rooms.is_empty()
            && self.types.is_none()
            && self.not_types.is_empty()
            && self.senders.is_none()
            && self.not_senders.is_empty()
            && self.contains_url.is_none()
            && self.relations == RelationFilter::default()
            && self.ignored.is_empty()
    }
}

/// Whether these lists let one through (FI-02): what a filter excludes stays out even if it is asked for.
pub fn listed<T: PartialEq<U>, U: ?Sized>(wanted: Option<&[T]>, unwanted: &[T], one: &U) -> bool {
    let is = |other: &T| other == one;
    !unwanted.iter().any(is) && wanted.is_none_or(|wanted| wanted.iter().any(is))
}

/// Whether these lists of types let a type through (FI-02).
pub fn type_matches(types: Option<&[String]>, not_types: &[String], kind: &str) -> bool {
    let fits = |pattern: &String| matches_pattern(pattern, kind);
    !not_types.iter().any(fits) && types.is_none_or(|types| types.iter().any(fits))
}

fn has_url(content: &RawValue) -> bool {
    content.get().contains("\"url\"")
        && serde_json::from_str::<Value>(content.get()).is_ok_and(|content| content["url"].is_string())
}

/// Whether `text` is like `pattern`, in which each `*` stands for any characters. Takes time in proportion to their
/// lengths multiplied, at most.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(mut part) = parts.next() else { return rest.is_empty() };
    for next in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        part = next;
    }
    rest.ends_with(part)
}

/// The fields of events that a client wants (FI-05); no list is all of them.
#[derive(Clone, Debug, Default)]
pub struct Fields(Option<Vec<Vec<String>>>);

impl Fields {
    /// From dot-separated paths, in which `\.` is a dot and `\\` a backslash.
    pub fn new(paths: Option<&[String]>) -> Self {
        // A filter with an empty list asks for nothing special.
        let paths = paths.filter(|paths| !paths.is_empty());
        Self(paths.map(|paths| paths.iter().map(|path| split(path)).collect()))
    }

    /// Whether every field is wanted.
    pub fn are_all(&self) -> bool {
        self.0.is_none()
    }

    /// The event with nothing but these fields.
    pub fn of(&self, event: Box<RawValue>) -> Box<RawValue> {
        let Some(paths) = &self.0 else { return event };
        let Ok(whole) = serde_json::from_str::<Value>(event.get()) else { return event };
        let mut part = Value::Object(Map::new());
        for path in paths {
            copy(path, &whole, &mut part);
        }
        // More than was asked for is allowed.
        to_raw_value(&part).unwrap_or(event)
    }
}

fn split(path: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = path.chars().peekable();
    while let Some(character) = characters.next() {
        let last = parts.len() - 1;
        match character {
            '.' => parts.push(String::new()),
            '\\' => {
                let escaped = characters.next_if(|next| matches!(next, '.' | '\\'));
                parts[last].push(escaped.unwrap_or('\\'));
            }
            character => parts[last].push(character),
        }
    }
    parts
}

fn copy(path: &[String], from: &Value, to: &mut Value) {
    let [first, rest @ ..] = path else { return };
    let (Some(value), Some(to)) = (from.get(first), to.as_object_mut()) else { return };
    if rest.is_empty() {
        to.insert(first.clone(), value.clone());
    } else if value.is_object() {
        let below = to.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()));
        copy(rest, value, below);
    }
}

#[cfg(test)]
mod tests {
    use hearth_federation::Pdu;
    use ruma::{RoomVersionId, event_id};
    use serde_json::json;

    use super::*;

    fn event(kind: &str, sender: &str, content: &Value) -> Event {
        let pdu = json!({
            "auth_events": [], "content": content, "depth": 1, "origin_server_ts": 1, "prev_events": [],
            "room_id": "!room:localhost", "sender": sender, "type": kind,
        });
        let id = event_id!("$0:localhost").to_owned();
        Event::new(1, Pdu::from_stored(id, pdu.to_string(), &RoomVersionId::V11).unwrap(), None)
    }

    fn filter(json: Value) -> EventFilter {
        EventFilter::new(&serde_json::from_value::<RoomEventFilter>(json).unwrap())
    }

    /// FI-02
    #[test]
    fn exclusions_win_and_stars_stand_for_anything() {
        let message = event("m.room.message", "@a:localhost", &json!({}));
        for (matches, given) in [
            (true, json!({})),
            (true, json!({ "types": ["m.room.message"] })),
            (true, json!({ "types": ["m.room.*"] })),
            (true, json!({ "types": ["*.message"] })),
            (true, json!({ "types": ["m.*oom*sage", "x"] })),
            (false, json!({ "types": [] })),
            (false, json!({ "types": ["m.room"] })),
            (false, json!({ "types": ["m.room.member", "*.message.*"] })),
            (false, json!({ "types": ["m.room.message"], "not_types": ["m.*"] })),
            (true, json!({ "not_types": ["m.room.member"] })),
            (true, json!({ "senders": ["@a:localhost"] })),
            (false, json!({ "senders": [] })),
            (false, json!({ "senders": ["@b:localhost"] })),
            (false, json!({ "senders": ["@a:localhost"], "not_senders": ["@a:localhost"] })),
            (true, json!({ "rooms": ["!room:localhost"], "not_rooms": ["!other:localhost"] })),
            (false, json!({ "rooms": ["!other:localhost"] })),
            (false, json!({ "rooms": ["!room:localhost"], "not_rooms": ["!room:localhost"] })),
        ] {
            assert_eq!(filter(given.clone()).matches(&message), matches, "{given}");
        }
    }

    #[test]
    fn overlapping_ends_of_a_pattern_need_text_for_both() {
        assert!(!matches_pattern("ab*ba", "aba"));
        assert!(matches_pattern("ab*ba", "abba"));
        assert!(matches_pattern("*", ""));
        assert!(matches_pattern("a**b", "ab"));
    }

    /// FI-04
    #[test]
    fn urls_are_wanted_unwanted_or_neither() {
        let image = event("m.room.message", "@a:localhost", &json!({ "url": "mxc://x/y" }));
        let text = event("m.room.message", "@a:localhost", &json!({ "body": "\"url\"", "url": 3 }));
        for (given, with, without) in [
            (json!({}), true, true),
            (json!({ "contains_url": true }), true, false),
            (json!({ "contains_url": false }), false, true),
        ] {
            let filter = filter(given);
            assert_eq!((filter.matches(&image), filter.matches(&text)), (with, without));
        }
    }

    /// FI-05
    #[test]
    fn only_the_fields_asked_for_are_kept() {
        let whole = json!({
            "content": { "body": "x", "m.relates_to": { "rel_type": "m.thread", "event_id": "$1" }, "a\\b": 1 },
            "sender": "@a:localhost", "type": "m.room.message",
        });
        let paths: Vec<String> = [
            "type",
            "content.body",
            r"content.m\.relates_to.rel_type",
            r"content.a\\b",
            "sender.x",
            "absent",
        ]
        .map(str::to_owned)
        .to_vec();
        let part = Fields::new(Some(&paths)).of(to_raw_value(&whole).unwrap());
        let part: Value = serde_json::from_str(part.get()).unwrap();
        assert_eq!(
            part,
            json!({
                "content": { "body": "x", "m.relates_to": { "rel_type": "m.thread" }, "a\\b": 1 },
                "type": "m.room.message",
            })
        );
        let all = Fields::new(None).of(to_raw_value(&whole).unwrap());
        assert_eq!(serde_json::from_str::<Value>(all.get()).unwrap(), whole);
    }
}
