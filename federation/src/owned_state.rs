//! State that belongs to one user, in the unstable room versions of MSC3757 ("Restricting who can overwrite a state
//! event"): a state key that is a user's id, or that and an underscore and more, is for that user and for whoever has more
//! power.
//!
//! Replaces one rule of the others (AR-18) and leaves them be: a user's own state key still needs the power that the
//! event's type asks for.

use ruma::{
    UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::AuthorizationRules,
    state_res::{
        Event,
        events::{RoomCreateEvent, RoomPowerLevelsEvent},
    },
};

use crate::auth::{Rejected, power_level};

/// Whether the rule on state keys that begin with `@` is one that this event has to pass: membership and third-party
/// invitations have rules of their own.
pub(crate) fn concerns(event: impl Event) -> bool {
    let own_rules = matches!(
        event.event_type(),
        TimelineEventType::RoomCreate
            | TimelineEventType::RoomMember
            | TimelineEventType::RoomThirdPartyInvite
    );
    !own_rules && event.state_key().is_some_and(|state_key| state_key.starts_with('@'))
}

/// Whether an event's state key is its sender's, or that of somebody with less power.
pub(crate) fn check<E: Event>(
    event: impl Event,
    rules: &AuthorizationRules,
    fetch_state: impl Fn(&StateEventType, &str) -> Option<E>,
) -> Result<(), Rejected> {
    let state_key = event.state_key().unwrap_or_default();
    let sender = event.sender();
    if state_key == sender {
        return Ok(());
    }
    let owner = owner(state_key).ok_or(Rejected::StateKey)?;
    if owner == sender {
        return Ok(());
    }
    let create = fetch_state(&StateEventType::RoomCreate, "")
        .ok_or_else(|| Rejected::Rule("no `m.room.create` event in the state".to_owned()))?;
    let creators = RoomCreateEvent::new(create).creators(rules).map_err(Rejected::Rule)?;
    let power_levels = fetch_state(&StateEventType::RoomPowerLevels, "").map(RoomPowerLevelsEvent::new);
    let level = |user: &UserId| {
        power_level(user, creators.contains(user), power_levels.as_ref(), rules).map_err(Rejected::Rule)
    };
    if level(sender)? > level(owner)? {
        return Ok(());
    }
    Err(Rejected::Rule("sender has no more power than the user whose `state_key` it is".to_owned()))
}

/// The user to whom a state key belongs: all before the first underscore behind the server's name, which has none.
fn owner(state_key: &str) -> Option<&UserId> {
    let server = state_key.find(':')? + 1;
    let end = state_key[server..].find('_').map_or(state_key.len(), |length| server + length);
    <&UserId>::try_from(&state_key[..end]).ok()
}

/// The state key of an event that has passed [`check`], as the other rules may see it.
pub(crate) fn nobodys(state_key: &str) -> &str {
    state_key.trim_start_matches('@')
}
