//! An event as ruma's rules are shown it where ours are others: with another state key, another content.

use ruma::{MilliSecondsSinceUnixEpoch, RoomId, UserId, events::TimelineEventType, state_res::Event};
use serde_json::value::RawValue;

pub(crate) struct Shown<'a, E> {
    pub(crate) event: &'a E,
    pub(crate) state_key: Option<&'a str>,
    pub(crate) content: &'a RawValue,
}

impl<'a, E: Event> Shown<'a, E> {
    /// The event as it is.
    pub(crate) fn as_it_is(event: &'a E) -> Self {
        Self { event, state_key: event.state_key(), content: event.content() }
    }
}

impl<E: Event> Event for Shown<'_, E> {
    type Id = E::Id;

    fn event_id(&self) -> &E::Id {
        self.event.event_id()
    }

    fn room_id(&self) -> Option<&RoomId> {
        self.event.room_id()
    }

    fn sender(&self) -> &UserId {
        self.event.sender()
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.event.origin_server_ts()
    }

    fn event_type(&self) -> &TimelineEventType {
        self.event.event_type()
    }

    fn content(&self) -> &RawValue {
        self.content
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &E::Id> + '_> {
        self.event.prev_events()
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &E::Id> + '_> {
        self.event.auth_events()
    }

    fn redacts(&self) -> Option<&E::Id> {
        self.event.redacts()
    }

    fn rejected(&self) -> bool {
        self.event.rejected()
    }
}
