//! The authorisation rules on small rooms of every kind, held against the specification's sentences ([`crate::auth_rules`]).
//!
//! The input is a list of choices: the room's version, its state, and an event that somebody sends there.

use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use hearth_federation::{Pdu, auth_types, authorize_built, authorize_by_state};
use ruma::{OwnedEventId, RoomVersionId, events::StateEventType};
use serde_json::{Map, Value, json};

use crate::auth_rules::{Room, State};

const USERS: [&str; 5] = ["@alice:a", "@bob:b", "@carol:a", "@dave:d:1", "@eve:[::1]"];
const ROOM: &str = "!room:a";

pub(crate) fn run(data: &[u8]) {
    // Whoever runs out of bytes chooses nothing more.
    let _ = judge(&mut Unstructured::new(data));
}

fn judge(choices: &mut Unstructured<'_>) -> Result<()> {
    let number: u32 = choices.int_in_range(1..=12)?;
    let version = RoomVersionId::try_from(number.to_string()).expect("there is such a version");
    let mut state = State::new();
    for event in state_of(number, choices)? {
        let key = |name: &str| event[name].as_str().expect("it is state").to_owned();
        state.insert((key("type"), key("state_key")), event);
    }
    let pdus: BTreeMap<_, _> =
        state.iter().filter_map(|(key, event)| Some((key.clone(), pdu(event, &version)?))).collect();
    if pdus.len() != state.len() {
        return Ok(());
    }
    for _ in 0..3 {
        let event = event(number, choices)?;
        let Some(sent) = pdu(&event, &version) else { continue };
        let fetch = |kind: &StateEventType, key: &str| pdus.get(&(kind.to_string(), key.to_owned()));
        let ours = authorize_by_state(&version, &sent, fetch);
        let theirs = Room { version: number, state: &state }.allows(&event);
        if let Some(theirs) = theirs {
            assert_eq!(ours.is_ok(), theirs, "version {number}: {event} in {state:#?} is {ours:?}");
        }
        if event["type"] != "m.room.create" {
            assert_eq!(authorize_built(&version, &sent, fetch), ours);
        }
        selection(number, &version, &sent, &event);
    }
    Ok(())
}

/// Which state an event's `auth_events` are.
fn selection(number: u32, version: &RoomVersionId, sent: &Pdu, event: &Value) {
    let ours = auth_types(version, &sent.kind, &sent.sender, sent.state_key.as_deref(), &sent.content);
    let Ok(ours) = ours else {
        assert!(event["type"] == "m.room.member", "only members have anything to be wrong");
        return;
    };
    let content = &event["content"];
    let sender = event["sender"].as_str().expect("it was read");
    let mut theirs: Vec<(String, String)> = Vec::new();
    if event["type"] != "m.room.create" {
        theirs.push(("m.room.power_levels".to_owned(), String::new()));
        theirs.push(("m.room.member".to_owned(), sender.to_owned()));
        if number < 12 {
            theirs.push(("m.room.create".to_owned(), String::new()));
        }
    }
    if event["type"] == "m.room.member" {
        let membership = content["membership"].as_str().expect("it was read");
        theirs
            .push(("m.room.member".to_owned(), event["state_key"].as_str().expect("it was read").to_owned()));
        if ["join", "invite", "knock"].contains(&membership) {
            theirs.push(("m.room.join_rules".to_owned(), String::new()));
        }
        if membership == "join"
            && number >= 8
            && let Some(voucher) = content["join_authorised_via_users_server"].as_str()
        {
            theirs.push(("m.room.member".to_owned(), voucher.to_owned()));
        }
        if membership == "invite"
            && let Some(token) = content["third_party_invite"]["signed"]["token"].as_str()
        {
            theirs.push(("m.room.third_party_invite".to_owned(), token.to_owned()));
        }
    }
    let mut ours: Vec<_> = ours.into_iter().map(|(kind, key)| (kind.to_string(), key)).collect();
    ours.sort();
    theirs.sort();
    theirs.dedup();
    assert_eq!(ours, theirs, "{event}");
}

fn pdu(event: &Value, version: &RoomVersionId) -> Option<Pdu> {
    let id = OwnedEventId::try_from(event["event_id"].as_str()?).ok()?;
    Pdu::from_stored(id, event.to_string(), version).ok()
}

fn user(choices: &mut Unstructured<'_>) -> Result<&'static str> {
    choices.choose(&USERS).copied()
}

fn base(id: &str, kind: &str, sender: &str, state_key: Option<&str>, content: &Value) -> Value {
    let mut event = json!({
        "event_id": format!("${id}:a"), "type": kind, "sender": sender, "content": content, "room_id": ROOM,
        "depth": 1, "origin_server_ts": 1, "prev_events": [], "auth_events": [],
    });
    if let Some(state_key) = state_key {
        event["state_key"] = json!(state_key);
    }
    event
}

fn state_of(version: u32, choices: &mut Unstructured<'_>) -> Result<Vec<Value>> {
    let mut state = Vec::new();
    if !choices.ratio(1, 16)? {
        let mut content = json!({ "room_version": version.to_string() });
        if version < 11 || choices.ratio(1, 4)? {
            content["creator"] = json!(user(choices)?);
        }
        match choices.int_in_range(0..=7)? {
            0 => content["m.federate"] = json!(false),
            1 => content["m.federate"] = json!(true),
            2 => content["m.federate"] = json!("false"),
            _ => {}
        }
        match choices.int_in_range(0..=5)? {
            0 => content["additional_creators"] = json!([user(choices)?]),
            1 => content["additional_creators"] = json!([user(choices)?, "nobody"]),
            2 => content["additional_creators"] = json!("@bob:b"),
            _ => {}
        }
        state.push(base("create", "m.room.create", USERS[0], Some(""), &content));
    }
    if !choices.ratio(1, 6)? {
        let mut levels = power_levels(choices)?;
        // From version 12 on no room lets those into its levels who have made it.
        if version >= 12
            && let Some(users) = levels["users"].as_object_mut()
        {
            let create = state.first().map_or(&Value::Null, |create: &Value| &create["content"]);
            let made_it = |user: &str| {
                let others = create["additional_creators"].as_array();
                user == USERS[0] || others.is_some_and(|others| others.iter().any(|other| other == user))
            };
            users.retain(|user, _| !made_it(user));
        }
        state.push(base("power", "m.room.power_levels", USERS[0], Some(""), &levels));
    }
    if !choices.ratio(1, 8)? {
        let rules = ["public", "invite", "knock", "restricted", "knock_restricted", "private", "own"];
        let rule = if choices.ratio(1, 20)? { json!(5) } else { json!(choices.choose(&rules)?) };
        state.push(base("rule", "m.room.join_rules", USERS[0], Some(""), &json!({ "join_rule": rule })));
    }
    for (nth, user) in USERS.iter().enumerate() {
        if let Some(membership) = membership(choices)? {
            let content = json!({ "membership": membership });
            state.push(base(&format!("member{nth}"), "m.room.member", user, Some(user), &content));
        }
    }
    Ok(state)
}

fn membership(choices: &mut Unstructured<'_>) -> Result<Option<&'static str>> {
    Ok(match choices.int_in_range(0..=11)? {
        0..=4 => Some("join"),
        5 => Some("invite"),
        6 => Some("ban"),
        7 => Some("leave"),
        8 => Some("knock"),
        9 => Some("own"),
        _ => None,
    })
}

fn level(choices: &mut Unstructured<'_>) -> Result<Value> {
    const ODD: [&str; 12] =
        ["50", "+50", "-50", " 50 ", "0050", "++50", "+-50", "5_0", "50.0", "", "1e2", "9007199254740993"];
    Ok(match choices.int_in_range(0..=15)? {
        0..=9 => json!(choices.choose(&[0, 1, 49, 50, 51, 99, 100, -1])?),
        10 | 11 => json!(choices.choose(&ODD)?),
        12 => json!(choices.choose(&[50.5, -0.9, 1e2, 49.999])?),
        13 => json!(choices.choose(&[(1_i64 << 53) - 1, 1 - (1 << 53), 1 << 53])?),
        14 => Value::Null,
        _ => json!([50]),
    })
}

fn levels(keys: &[&str], choices: &mut Unstructured<'_>) -> Result<Value> {
    let mut levels = Map::new();
    for key in keys {
        if choices.ratio(1, 2)? {
            levels.insert((*key).to_owned(), level(choices)?);
        }
    }
    Ok(Value::Object(levels))
}

fn power_levels(choices: &mut Unstructured<'_>) -> Result<Value> {
    const NUMBERS: [&str; 7] =
        ["ban", "events_default", "invite", "kick", "redact", "state_default", "users_default"];
    let mut content = levels(&NUMBERS, choices)?;
    let keys = [USERS[0], USERS[1], USERS[2], USERS[3], "nobody"];
    let users = if choices.ratio(1, 8)? { &keys[..] } else { &keys[..4] };
    content["users"] = levels(users, choices)?;
    if choices.ratio(1, 3)? {
        content["events"] =
            levels(&["m.room.power_levels", "m.room.topic", "m.room.message", "own"], choices)?;
    }
    if choices.ratio(1, 4)? {
        content["notifications"] = levels(&["room", "own"], choices)?;
    }
    match choices.int_in_range(0..=40)? {
        0 => content["users"] = json!([]),
        1 => content["events"] = json!("x"),
        2 => content["notifications"] = Value::Null,
        3 => {
            content.as_object_mut().expect("it is one").remove("users");
        }
        _ => {}
    }
    Ok(content)
}

fn event(version: u32, choices: &mut Unstructured<'_>) -> Result<Value> {
    let sender = user(choices)?;
    let mut event = match choices.int_in_range(0..=13)? {
        0..=6 => {
            let target = if choices.ratio(1, 2)? { sender } else { user(choices)? };
            let mut content = json!({ "membership": membership(choices)?.unwrap_or("leave") });
            if choices.ratio(1, 4)? {
                let voucher = if choices.ratio(1, 8)? { json!(7) } else { json!(user(choices)?) };
                content["join_authorised_via_users_server"] = voucher;
            }
            match choices.int_in_range(0..=19)? {
                0 => content["membership"] = Value::Null,
                1 => {
                    content["third_party_invite"] = json!({ "signed": { "mxid": target, "token": "token" } });
                }
                _ => {}
            }
            let state_key = match choices.int_in_range(0..=19)? {
                0 => None,
                1 => Some("nobody"),
                _ => Some(target),
            };
            base("event", "m.room.member", sender, state_key, &content)
        }
        7..=9 => {
            let state_key = if choices.ratio(1, 16)? { USERS[0] } else { "" };
            base("event", "m.room.power_levels", sender, Some(state_key), &power_levels(choices)?)
        }
        10 => base("event", "m.room.third_party_invite", sender, Some("token"), &json!({})),
        11 => {
            let redacts = *choices.choose(&["$x:a", "$x:b", "$x"])?;
            let mut event = base("event", "m.room.redaction", sender, None, &json!({ "redacts": redacts }));
            event["redacts"] = json!(redacts);
            event
        }
        12 => {
            let state_key = *choices.choose(&["a", "b", "d:1", ""])?;
            base("event", "m.room.aliases", sender, Some(state_key), &json!({}))
        }
        _ => {
            let kind = *choices.choose(&["m.room.topic", "m.room.message", "own"])?;
            let keys = [None, Some(""), Some(sender), Some(USERS[1]), Some("@"), Some("x")];
            base("event", kind, sender, *choices.choose(&keys)?, &json!({}))
        }
    };
    if choices.ratio(1, 6)? {
        let id = if version < 3 { json!(["$create:a", {}]) } else { json!("$create:a") };
        event["prev_events"] = if choices.ratio(1, 4)? { json!([id, id]) } else { json!([id]) };
    }
    Ok(event)
}
