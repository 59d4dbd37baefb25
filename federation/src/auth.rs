//! Whether an event is allowed: the authorisation rules of each room version.
//!
//! A thin layer over ruma's rules, so that the rest of the server names neither them nor their strings. Pure: events and
//! state come through closures.
//!
//! Specification: [Authorization rules](https://spec.matrix.org/v1.19/server-server-api/#authorization-rules).

use std::borrow::Borrow as _;

use ruma::{
    EventId, Int, OwnedEventId, RoomVersionId, UserId,
    events::{
        StateEventType, TimelineEventType,
        room::{member::MembershipState, power_levels::UserPowerLevel},
    },
    room_version_rules::AuthorizationRules,
    state_res::{
        Event, auth_types_for_event, check_state_dependent_auth_rules, check_state_independent_auth_rules,
        events::{RoomCreateEvent, RoomMemberEvent, RoomPowerLevelsEvent},
    },
};
use serde_json::value::RawValue;

use crate::{
    owned_state, power_levels,
    shown::Shown,
    version::{UnsupportedVersion, has_owned_state, rules},
};

/// The verdict against an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// A rule forbids it; the text says which, for people.
    #[error("{0}")]
    Rule(String),
    /// Where state is owned (MSC3757): a state key that claims to be somebody's and is nobody's. The client gets
    /// `M_BAD_JSON`.
    #[error("`state_key` begins with `@`, but neither is a user id nor begins with one and an underscore")]
    StateKey,
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

/// Check an event from elsewhere by its `auth_events`: PD-01, step 4. Whatever is wrong with them, with what they are or
/// with what they allow, rejects it.
///
/// Then it is checked by [`authorize_by_state`] against the state before it (rejected if that fails: step 5) and against the
/// current state (soft-failed: step 6).
///
/// `fetch_event` finds the events named in `auth_events`, and in version 12 the create event, each with the
/// verdict that was stored for it. One that isn't found rejects the event: fetch it before.
pub fn authorize_received<E: Event + Clone>(
    version: &RoomVersionId,
    event: impl Event,
    fetch_event: impl Fn(&EventId) -> Option<E>,
) -> Result<(), Rejected> {
    let judge = Judge::of(version)?;
    judge.by_auth_events(&event, &fetch_event)?;
    // That has passed: they are state, of one key each, and no more of them than the rules ask for.
    let mut cited: Vec<E> = event.auth_events().filter_map(|id| fetch_event(id.borrow())).collect();
    cited.extend(judge.create_id_of(&event).and_then(|id| fetch_event(&id)));
    judge.by_state(&event, |kind, state_key| {
        let has_key = |event: &&E| {
            event.state_key() == Some(state_key) && event.event_type().to_string() == kind.to_string()
        };
        cited.iter().find(has_key).cloned()
    })
}

/// Check an event by all rules, against a state that its `auth_events` may be taken from: [`authorize_received`] is this
/// where they are all the state there is.
///
/// `fetch_event` finds the events named in `auth_events`, and in version 12 the create event, each with the
/// verdict that was stored for it.
pub fn authorize<E: Event>(
    version: &RoomVersionId,
    event: impl Event,
    fetch_event: impl Fn(&EventId) -> Option<E>,
    fetch_state: impl Fn(&StateEventType, &str) -> Option<E>,
) -> Result<(), Rejected> {
    let judge = Judge::of(version)?;
    judge.by_auth_events(&event, fetch_event)?;
    judge.by_state(event, fetch_state)
}

/// Check an event that passed [`authorize`] by the rules that depend on state, against another state.
pub fn authorize_by_state<E: Event>(
    version: &RoomVersionId,
    event: impl Event,
    fetch_state: impl Fn(&StateEventType, &str) -> Option<E>,
) -> Result<(), Rejected> {
    Judge::of(version)?.by_state(event, fetch_state)
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
    let judge = Judge::of(version)?;
    if *event.event_type() == TimelineEventType::RoomCreate {
        return judge.by_auth_events(event, |_| None::<E>);
    }
    judge.by_state(event, fetch_state)
}

/// The rules of one room version, as we apply them: ruma's, and what it hasn't got.
pub(crate) struct Judge {
    version: RoomVersionId,
    rules: AuthorizationRules,
    owned_state: bool,
}

impl Judge {
    pub(crate) fn of(version: &RoomVersionId) -> Result<Self, UnsupportedVersion> {
        Ok(Self {
            version: version.clone(),
            rules: rules(version)?.authorization,
            owned_state: has_owned_state(version),
        })
    }

    pub(crate) fn rules(&self) -> &AuthorizationRules {
        &self.rules
    }

    pub(crate) fn auth_types(&self, event: impl Event) -> Result<Vec<(StateEventType, String)>, Rejected> {
        auth_types_for_event(
            event.event_type(),
            event.sender(),
            event.state_key(),
            event.content(),
            &self.rules,
        )
        .map_err(Rejected::Rule)
    }

    /// The rules about the event itself and its `auth_events`, which no state changes.
    pub(crate) fn by_auth_events<E: Event>(
        &self,
        event: impl Event,
        fetch_event: impl Fn(&EventId) -> Option<E>,
    ) -> Result<(), Rejected> {
        if *event.event_type() == TimelineEventType::RoomCreate {
            // AR-03. Whoever asks has chosen the rules by this very field, or has been lied to.
            let version = RoomCreateEvent::new(&event).room_version().map_err(Rejected::Rule)?;
            if version != self.version {
                return Err(Rejected::Rule(format!(
                    "`m.room.create` event is of room version `{version}`, not `{}`",
                    self.version
                )));
            }
        }
        check_state_independent_auth_rules(&self.rules, event, fetch_event).map_err(Rejected::Rule)
    }

    /// The rules that depend on state.
    pub(crate) fn by_state<E: Event>(
        &self,
        event: impl Event,
        fetch_state: impl Fn(&StateEventType, &str) -> Option<E>,
    ) -> Result<(), Rejected> {
        if is_join_of_member_without_join_rules(&event, &fetch_state)? {
            return Ok(());
        }
        let mut shown = Shown::as_it_is(&event);
        if self.owned_state && owned_state::concerns(&event) {
            owned_state::check(&event, &self.rules, &fetch_state)?;
            shown.state_key = shown.state_key.map(owned_state::nobodys);
        }
        let compared;
        if *event.event_type() == TimelineEventType::RoomPowerLevels {
            compared = power_levels::check(&event, &self.rules, &fetch_state)?;
            shown.content = compared.as_deref().unwrap_or(shown.content);
        }
        check_state_dependent_auth_rules(&self.rules, shown, fetch_state).map_err(Rejected::Rule)
    }

    /// The id of the create event of an event's room, in versions whose room ids say it.
    pub(crate) fn create_id_of(&self, event: impl Event) -> Option<OwnedEventId> {
        if !self.rules.room_create_event_id_as_room_id {
            return None;
        }
        let hash = event.room_id()?.as_str().strip_prefix('!')?;
        OwnedEventId::try_from(format!("${hash}")).ok()
    }
}

/// A room may have lost its join rules when its state was resolved. Then whoever is joined or invited may still join,
/// as under the rule `invite`: the specification doesn't say, but it is what Synapse does, and ruma would
/// not even let members change their names.
fn is_join_of_member_without_join_rules<E: Event>(
    event: impl Event,
    fetch_state: impl Fn(&StateEventType, &str) -> Option<E>,
) -> Result<bool, Rejected> {
    if *event.event_type() != TimelineEventType::RoomMember
        || event.state_key() != Some(event.sender().as_str())
        || RoomMemberEvent::new(&event).membership() != Ok(MembershipState::Join)
        || fetch_state(&StateEventType::RoomJoinRules, "").is_some()
    {
        return Ok(false);
    }
    let current = fetch_state(&StateEventType::RoomMember, event.sender().as_str());
    let current = current.and_then(|current| RoomMemberEvent::new(current).membership().ok());
    let Some(create) = fetch_state(&StateEventType::RoomCreate, "").map(RoomCreateEvent::new) else {
        return Ok(false);
    };
    let may_federate = create.federate().map_err(Rejected::Rule)?
        || create.sender().server_name() == event.sender().server_name();
    Ok(may_federate && matches!(current, Some(MembershipState::Join | MembershipState::Invite)))
}

/// What a creator may do while a room has no power levels: RV-36.
const CREATOR_WITHOUT_POWER_LEVELS: i32 = 100;

/// A user's power in a room. An error: the power levels can't be read.
pub(crate) fn power_level<E: Event>(
    user: &UserId,
    is_creator: bool,
    power_levels: Option<&RoomPowerLevelsEvent<E>>,
    rules: &AuthorizationRules,
) -> Result<UserPowerLevel, String> {
    if is_creator && rules.explicitly_privilege_room_creators {
        return Ok(UserPowerLevel::Infinite);
    }
    match power_levels {
        Some(power_levels) => power_levels.user_power_level(user, rules).map(UserPowerLevel::from),
        None if is_creator => Ok(Int::from(CREATOR_WITHOUT_POWER_LEVELS).into()),
        None => Ok(Int::from(0).into()),
    }
}
