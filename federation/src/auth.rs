//! Whether an event is allowed: the authorisation rules of each room version.
//!
//! A thin layer over ruma's rules, so that the rest of the server names neither them nor their strings. Pure: events and
//! state come through closures.
//!
//! Specification: [Authorization rules](https://spec.matrix.org/v1.19/server-server-api/#authorization-rules).

use ruma::{
    EventId, RoomVersionId, UserId,
    events::{StateEventType, TimelineEventType},
    state_res::{
        Event, auth_types_for_event, check_state_dependent_auth_rules, check_state_independent_auth_rules,
    },
};
use serde_json::value::RawValue;

use crate::version::{UnsupportedVersion, rules};

/// The verdict against an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// A rule forbids it; the text says which, for people.
    #[error("{0}")]
    Rule(String),
    /// We don't know the room's version, so not its rules.
    #[error(transparent)]
    Version(#[from] UnsupportedVersion),
}

/// Which state an event's `auth_events` are to be taken from: AR-01. What the room hasn't got is left out.
pub fn auth_types(
    version: &RoomVersionId,
    kind: &TimelineEventType,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
) -> Result<Vec<(StateEventType, String)>, Rejected> {
    auth_types_for_event(kind, sender, state_key, content, &rules(version)?.authorization)
        .map_err(Rejected::Rule)
}

/// Check an event by all rules, against one state.
///
/// An event from elsewhere is checked so against the state of its `auth_events`; then by [`authorize_by_state`] against
/// the state before it (rejected if that fails) and the current state (soft-failed).
///
/// `fetch_event` finds the events named in `auth_events`, and in version 12 the create event, each with the
/// verdict that was stored for it.
pub fn authorize<E: Event>(
    version: &RoomVersionId,
    event: impl Event,
    fetch_event: impl Fn(&EventId) -> Option<E>,
    fetch_state: impl Fn(&StateEventType, &str) -> Option<E>,
) -> Result<(), Rejected> {
    let rules = rules(version)?.authorization;
    check_state_independent_auth_rules(&rules, &event, fetch_event).map_err(Rejected::Rule)?;
    check_state_dependent_auth_rules(&rules, &event, fetch_state).map_err(Rejected::Rule)
}

/// Check an event that passed [`authorize`] by the rules that depend on state, against another state.
pub fn authorize_by_state<E: Event>(
    version: &RoomVersionId,
    event: impl Event,
    fetch_state: impl Fn(&StateEventType, &str) -> Option<E>,
) -> Result<(), Rejected> {
    check_state_dependent_auth_rules(&rules(version)?.authorization, event, fetch_state)
        .map_err(Rejected::Rule)
}

/// Check an event that this server has just built, whose `auth_events` it selected by [`auth_types`] from `fetch_state`,
/// the room's current state.
///
/// Needs no events by id, for the rules that would look at them hold by construction: the state of a room has one event a
/// key (no duplicates), of this room, never a rejected one; the selection named the keys (nothing unexpected); and
/// every room's state has its create event (present, and in version 12 not rejected). A create event has no
/// `auth_events`; its own rules are all checked here.
pub fn authorize_built<E: Event>(
    version: &RoomVersionId,
    event: impl Event,
    fetch_state: impl Fn(&StateEventType, &str) -> Option<E>,
) -> Result<(), Rejected> {
    let rules = rules(version)?.authorization;
    if *event.event_type() == TimelineEventType::RoomCreate {
        return check_state_independent_auth_rules(&rules, event, |_| None::<E>).map_err(Rejected::Rule);
    }
    check_state_dependent_auth_rules(&rules, event, fetch_state).map_err(Rejected::Rule)
}
