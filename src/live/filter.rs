//! A client's filter, as the parts of a sync answer ask it.

use ruma::{
    RoomId, UInt,
    api::client::filter::{EventFormat, FilterDefinition, LazyLoadOptions},
};

use crate::room::{Event, EventFilter};

pub(super) use crate::room::Fields;

/// Events of a timeline when the filter names no number, and the most it may name (FI-07).
const TIMELINE: usize = 10;
const MOST: usize = 1000;

pub struct SyncFilter {
    definition: FilterDefinition,
    timeline: EventFilter,
    state: EventFilter,
    fields: Fields,
}

impl SyncFilter {
    pub fn new(definition: FilterDefinition) -> Self {
        Self {
            timeline: EventFilter::new(&definition.room.timeline),
            state: EventFilter::new(&definition.room.state),
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
        serde_json::to_string(&self.definition).unwrap_or_default()
    }

    pub(super) fn timeline_limit(&self) -> usize {
        let asked = self.definition.room.timeline.limit;
        asked.map_or(TIMELINE, |limit| usize::try_from(u64::from(limit)).unwrap_or(MOST).min(MOST))
    }

    /// FI-03: whether a room is in the answer at all.
    pub(super) fn room(&self, room_id: &RoomId) -> bool {
        let filter = &self.definition.room;
        let listed = filter.rooms.as_ref().is_none_or(|rooms| rooms.iter().any(|room| room == room_id));
        listed && !filter.not_rooms.iter().any(|room| room == room_id)
    }

    pub(super) fn timeline(&self, event: &Event) -> bool {
        self.timeline.matches(event)
    }

    pub(super) fn state(&self, event: &Event) -> bool {
        self.state.matches(event)
    }

    pub(super) fn ephemeral(&self, kind: &str) -> bool {
        let filter = &self.definition.room.ephemeral;
        crate::room::type_matches(filter.types.as_deref(), &filter.not_types, kind)
    }

    pub(super) fn room_account_data(&self, kind: &str) -> bool {
        let filter = &self.definition.room.account_data;
        crate::room::type_matches(filter.types.as_deref(), &filter.not_types, kind)
    }

    pub(super) fn account_data(&self, kind: &str) -> bool {
        let filter = &self.definition.account_data;
        crate::room::type_matches(filter.types.as_deref(), &filter.not_types, kind)
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

    pub(super) fn fields(&self) -> &Fields {
        &self.fields
    }
}
