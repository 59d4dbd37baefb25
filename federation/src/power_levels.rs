//! Changes of power levels, where ruma's rules compare more than the specification's and than other servers do.
//!
//! "For each entry being added" the rules speak of the new value, for each that is removed of the old one. ruma takes what
//! isn't there for the usual value, so that somebody with a power of 40 could not take out `ban: 10`, for the usual 50 is
//! more than theirs. And it holds the power levels of any state key against the room's own, those of the empty one, though they change
//! nothing about these; Synapse finds none before them, and allows them.
//!
//! What is looked at here ruma is shown as if it weren't changed; everything else is left to it.

use std::collections::BTreeMap;

use ruma::{
    events::{StateEventType, room::power_levels::UserPowerLevel},
    room_version_rules::AuthorizationRules,
    state_res::{
        Event,
        events::{RoomCreateEvent, RoomPowerLevelsEvent, RoomPowerLevelsIntField},
    },
};
use serde_json::value::{RawValue, to_raw_value};

use crate::auth::{Rejected, power_level};

const FIELDS: [RoomPowerLevelsIntField; 7] = [
    RoomPowerLevelsIntField::UsersDefault,
    RoomPowerLevelsIntField::EventsDefault,
    RoomPowerLevelsIntField::StateDefault,
    RoomPowerLevelsIntField::Ban,
    RoomPowerLevelsIntField::Redact,
    RoomPowerLevelsIntField::Kick,
    RoomPowerLevelsIntField::Invite,
];

type Content = BTreeMap<String, Box<RawValue>>;

/// Checks what ruma would check otherwise of an `m.room.power_levels` event (AR-19), and gives the content that ruma is to be
/// shown. `None`: its own.
pub(crate) fn check<E: Event>(
    event: impl Event,
    rules: &AuthorizationRules,
    fetch_state: impl Fn(&StateEventType, &str) -> Option<E>,
) -> Result<Option<Box<RawValue>>, Rejected> {
    let Some(current) = fetch_state(&StateEventType::RoomPowerLevels, "") else { return Ok(None) };
    let create = fetch_state(&StateEventType::RoomCreate, "").map(RoomCreateEvent::new);
    let Some(create) = create else { return Ok(None) };
    let creators = create.creators(rules).map_err(Rejected::Rule)?;
    if event.state_key().is_some_and(|state_key| !state_key.is_empty()) {
        let new = RoomPowerLevelsEvent::new(&event);
        check_form(&new, rules)?;
        let users = new.users(rules).map_err(Rejected::Rule)?;
        let names_creators =
            || users.is_some_and(|users| creators.iter().any(|user| users.contains_key(user)));
        if rules.explicitly_privilege_room_creators && names_creators() {
            return Err(Rejected::Rule("creator user IDs are not allowed in the `users` field".to_owned()));
        }
        return Ok(Some(current.content().to_owned()));
    }
    let (Ok(mut after), Ok(before)) = (
        serde_json::from_str::<Content>(event.content().get()),
        serde_json::from_str::<Content>(current.content().get()),
    ) else {
        // ruma says what is wrong.
        return Ok(None);
    };
    let (new, old) = (RoomPowerLevelsEvent::new(&event), RoomPowerLevelsEvent::new(current));
    let sender = event.sender();
    let own = || power_level(sender, creators.contains(sender), Some(&old), rules);
    let mut differs = false;
    for field in FIELDS {
        let name = field.as_str();
        let level = match (before.get(name), after.get(name)) {
            (Some(_), None) => old.get_as_int(field, rules),
            (None, Some(_)) => new.get_as_int(field, rules),
            _ => continue,
        };
        let level = level.map_err(Rejected::Rule)?.map(UserPowerLevel::from);
        if level > Some(own().map_err(Rejected::Rule)?) {
            let text = format!("sender does not have enough power to change the power level of `{field}`");
            return Err(Rejected::Rule(text));
        }
        match before.get(name) {
            Some(value) => after.insert(name.to_owned(), value.clone()),
            None => after.remove(name),
        };
        differs = true;
    }
    if !differs {
        return Ok(None);
    }
    to_raw_value(&after).map(Some).map_err(|cause| Rejected::Rule(cause.to_string()))
}

/// AR-20, but for who the users are.
fn check_form(levels: &RoomPowerLevelsEvent<impl Event>, rules: &AuthorizationRules) -> Result<(), Rejected> {
    for field in FIELDS {
        levels.get_as_int(field, rules).map_err(Rejected::Rule)?;
    }
    levels.events(rules).map_err(Rejected::Rule)?;
    levels.notifications(rules).map_err(Rejected::Rule)?;
    Ok(())
}
