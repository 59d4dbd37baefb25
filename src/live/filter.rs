//! A client's filter, as the parts of a sync answer ask it.

use std::sync::{Arc, LazyLock};

use ruma::{
    RoomId, UInt, UserId,
    api::client::filter::{EventFormat, FilterDefinition, LazyLoadOptions, RoomEventFilter},
};

use serde::{Deserialize, Serialize};

use crate::room::{Event, EventFilter, RelationFilter, listed, type_matches};

pub(super) use crate::room::Fields;

/// Events of a timeline when the filter names no number, and the most it may name (FI-07).
const TIMELINE: usize = 10;
const MOST: usize = 1000;

pub struct SyncFilter {
    definition: FilterDefinition,
    key: String,
    timeline: EventFilter,
    state: EventFilter,
    fields: Fields,
}

/// What a filter says of relations.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Relations {
    room: RoomRelations,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct RoomRelations {
    timeline: RelationFilter,
    state: RelationFilter,
}

impl SyncFilter {
    /// From the JSON of a `Filter`.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        Self::of(serde_json::from_str(json)?, json)
    }

    /// The same, where most of it has been read already.
    pub fn of(definition: FilterDefinition, json: &str) -> Result<Self, serde_json::Error> {
        Ok(Self::with(definition, serde_json::from_str(json)?))
    }

    /// That of all who ask for everything: one for all of them.
    pub fn everything() -> Arc<Self> {
        static EVERYTHING: LazyLock<Arc<SyncFilter>> =
            LazyLock::new(|| Arc::new(SyncFilter::new(FilterDefinition::default())));
        Arc::clone(&EVERYTHING)
    }

    pub fn new(definition: FilterDefinition) -> Self {
        Self::with(definition, Relations::default())
    }

    fn with(definition: FilterDefinition, relations: Relations) -> Self {
        let key = serde_json::to_string(&(&definition, &relations)).unwrap_or_default();
        let RoomRelations { timeline, state } = relations.room;
        Self {
            key,
            timeline: EventFilter::new(&definition.room.timeline).with(timeline),
            state: EventFilter::new(&definition.room.state).with(state),
            fields: Fields::new(definition.event_fields.as_deref()),
            definition,
        }
    }

    /// A filter that keeps nothing out, for timelines of that length.
    pub(super) fn of_timeline(limit: usize) -> Self {
        let mut definition = FilterDefinition::default();
        definition.room.timeline.limit = Some(UInt::try_from(limit as u64).unwrap_or(UInt::MAX));
        Self::new(definition)
    }

    /// What tells two filters apart.
    pub(super) fn key(&self) -> String {
        self.key.clone()
    }

    pub fn timeline_limit(&self) -> usize {
        let asked = self.definition.room.timeline.limit;
        asked.map_or(TIMELINE, |limit| usize::try_from(u64::from(limit)).unwrap_or(MOST).min(MOST))
    }

    /// FI-03: whether a room is in the answer at all.
    pub fn room(&self, room_id: &RoomId) -> bool {
        let filter = &self.definition.room;
        listed(filter.rooms.as_deref(), &filter.not_rooms, room_id)
    }

    /// Whether an event belongs into a timeline, but for what relates to it.
    pub fn timeline(&self, event: &Event) -> bool {
        self.timeline.matches(event)
    }

    /// The filter of timelines, if it asks for what relates to an event.
    pub(super) fn asks_for_children(&self) -> Option<&EventFilter> {
        Some(&self.timeline).filter(|filter| filter.asks_for_children())
    }

    pub fn state(&self, event: &Event) -> bool {
        self.state.matches(event)
    }

    /// Whether ephemeral events of a type are wanted of a room, and then what one user says by them.
    pub fn ephemeral(&self, room_id: &RoomId, kind: &str) -> bool {
        let filter = &self.definition.room.ephemeral;
        of_room(filter, room_id, kind) && filter.senders.as_ref().is_none_or(|senders| !senders.is_empty())
    }

    pub fn ephemeral_of(&self, user_id: &UserId) -> bool {
        let filter = &self.definition.room.ephemeral;
        listed(filter.senders.as_deref(), &filter.not_senders, user_id)
    }

    pub fn room_account_data(&self, room_id: &RoomId, kind: &str) -> bool {
        of_room(&self.definition.room.account_data, room_id, kind)
    }

    pub fn account_data(&self, kind: &str) -> bool {
        let filter = &self.definition.account_data;
        type_matches(filter.types.as_deref(), &filter.not_types, kind)
    }

    /// Whether presence is wanted at all, and then that of one user.
    pub(super) fn presence(&self) -> bool {
        let filter = &self.definition.presence;
        type_matches(filter.types.as_deref(), &filter.not_types, "m.presence")
    }

    pub fn presence_of(&self, user_id: &UserId) -> bool {
        let filter = &self.definition.presence;
        listed(filter.senders.as_deref(), &filter.not_senders, user_id)
    }

    pub(super) fn presence_limit(&self) -> usize {
        let limit = self.definition.presence.limit;
        limit.map_or(usize::MAX, |limit| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX))
    }

    pub(super) fn include_leave(&self) -> bool {
        self.definition.room.include_leave
    }

    pub(super) fn lazy_members(&self) -> bool {
        !matches!(self.definition.room.state.lazy_load_options, LazyLoadOptions::Disabled)
    }

    pub(super) fn redundant_members(&self) -> bool {
        matches!(
            self.definition.room.state.lazy_load_options,
            LazyLoadOptions::Enabled { include_redundant_members: true }
        )
    }

    /// SY-15: whether threads are counted apart.
    pub(super) fn threads(&self) -> bool {
        self.definition.room.timeline.unread_thread_notifications
    }

    pub(super) fn federation_format(&self) -> bool {
        self.definition.event_format == EventFormat::Federation
    }

    /// Whether events are shown as they are, if at all.
    pub(super) fn shows_messages(&self) -> bool {
        self.fields.are_all()
            && !self.federation_format()
            && !self.redundant_members()
            && self.asks_for_children().is_none()
    }

    pub fn fields(&self) -> &Fields {
        &self.fields
    }
}

/// Whether what has no sender is wanted of a room.
fn of_room(filter: &RoomEventFilter, room_id: &RoomId, kind: &str) -> bool {
    listed(filter.rooms.as_deref(), &filter.not_rooms, room_id)
        && type_matches(filter.types.as_deref(), &filter.not_types, kind)
}
