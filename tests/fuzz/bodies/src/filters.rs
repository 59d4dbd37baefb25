//! Filters of sync: a filter, a line end, an event.

use hearth::testing::reading::{Event, SyncFilter};
use hearth_federation::{Pdu, Received, References};
use ruma::{EventId, RoomId, RoomVersionId, UserId, event_id};
use serde_json::{Map, Value, json};

use crate::{
    glob::{characters, matches},
    words::parts,
};

pub(crate) fn run(data: &[u8]) {
    let Some([filter, event]) = parts(data) else { return };
    let (Ok(filter), Ok(event)) =
        (serde_json::from_str::<Value>(filter), serde_json::from_str::<Value>(event))
    else {
        return;
    };
    // Once through a map: of equal keys one stays.
    let Ok(read) = SyncFilter::parse(&filter.to_string()) else { return };
    assert!(filter.is_object());
    let Some((event, pdu)) = event_of(&event) else { return };
    for (name, ours) in [("timeline", read.timeline(&event)), ("state", read.state(&event))] {
        let theirs = lets_through(&filter["room"][name], &pdu);
        assert_eq!(ours, theirs, "{name} of {filter} and {pdu}");
    }
    let kind = pdu["type"].as_str().expect("it was read");
    let room = pdu["room_id"].as_str().expect("it was read");
    let room_id = <&RoomId>::try_from(room).expect("it was read");
    assert_eq!(read.account_data(kind), of_type(&filter["account_data"], kind), "{filter} and {kind}");
    assert_eq!(read.room(room_id), of_room(&filter["room"], room), "{filter} and {room}");
    let (account_data, ephemeral) = (&filter["room"]["account_data"], &filter["room"]["ephemeral"]);
    let wanted = of_type(account_data, kind) && of_room(account_data, room);
    assert_eq!(read.room_account_data(room_id, kind), wanted, "{filter}, {room} and {kind}");
    let sender = pdu["sender"].as_str().expect("it was read");
    let user_id = <&UserId>::try_from(sender).expect("it was read");
    let ours = read.ephemeral(room_id, kind) && read.ephemeral_of(user_id);
    let wanted = of_type(ephemeral, kind) && of_room(ephemeral, room) && of_sender(ephemeral, sender);
    assert_eq!(ours, wanted, "{filter}, {room}, {kind} and {sender}");
    assert!(read.timeline_limit() <= 1000);
    fields(&filter, &read, &pdu);
}

/// An event with these fields, whatever else it needs.
fn event_of(given: &Value) -> Option<(Event, Value)> {
    let mut pdu = json!({
        "auth_events": [], "content": {}, "depth": 1, "origin_server_ts": 1, "prev_events": [], "hashes": {}, "signatures": {},
        "room_id": "!room:localhost", "sender": "@a:localhost", "type": "m.room.message",
    });
    for (key, value) in given.as_object()? {
        pdu[key] = value.clone();
    }
    let text = pdu.to_string();
    // Only what can be an event.
    Received::parse(&text, &RoomVersionId::V11, References::Unlimited).ok()?;
    let id: &EventId = event_id!("$0:localhost");
    let read = Pdu::from_stored(id.to_owned(), text, &RoomVersionId::V11).ok()?;
    Some((Event::new(1, read, None), pdu))
}

fn listed(filter: &Value, wanted: &str, unwanted: &str, fits: impl Fn(&str) -> bool) -> bool {
    let fit =
        |list: &Value| list.as_array().is_some_and(|list| list.iter().filter_map(Value::as_str).any(&fits));
    !fit(&filter[unwanted]) && (filter[wanted].is_null() || fit(&filter[wanted]))
}

fn of_type(filter: &Value, kind: &str) -> bool {
    let kind = characters(kind);
    listed(filter, "types", "not_types", |pattern| matches(&characters(pattern), &kind, false))
}

fn of_room(filter: &Value, room: &str) -> bool {
    listed(filter, "rooms", "not_rooms", |other| other == room)
}

fn of_sender(filter: &Value, sender: &str) -> bool {
    listed(filter, "senders", "not_senders", |other| other == sender)
}

fn lets_through(filter: &Value, event: &Value) -> bool {
    let relation = event["content"]["m.relates_to"].as_object();
    let relation = relation.filter(|relation| relation.get("event_id").is_some_and(Value::is_string));
    let relation = relation.and_then(|relation| relation.get("rel_type")).and_then(Value::as_str);
    let names = ["org.matrix.msc3874.rel_types", "org.matrix.msc3874.not_rel_types"];
    let asks = !filter[names[0]].is_null() || !filter[names[1]].is_null();
    let related = || listed(filter, names[0], names[1], |wanted| Some(wanted) == relation);
    of_sender(filter, event["sender"].as_str().expect("it was read"))
        && of_room(filter, event["room_id"].as_str().expect("it was read"))
        && of_type(filter, event["type"].as_str().expect("it was read"))
        && (!asks || related())
        && filter["contains_url"].as_bool().is_none_or(|wanted| wanted == event["content"]["url"].is_string())
}

/// Only the fields that are asked for, each chosen from the whole event.
fn fields(filter: &Value, read: &SyncFilter, event: &Value) {
    let raw = serde_json::value::to_raw_value(event).expect("it is JSON");
    let ours: Value = serde_json::from_str(read.fields().of(raw).get()).expect("what is written is JSON");
    let Some(paths) = filter["event_fields"].as_array().filter(|paths| !paths.is_empty()) else {
        assert_eq!(&ours, event);
        return;
    };
    let paths: Vec<Vec<String>> = paths.iter().filter_map(Value::as_str).map(keys_of).collect();
    let theirs = chosen(event, &mut Vec::new(), &paths).unwrap_or_else(|| json!({}));
    assert_eq!(ours, theirs, "{filter} of {event}");
}

/// What of a value is at one of the paths or below it; `None` if nothing is.
fn chosen(value: &Value, at: &mut Vec<String>, paths: &[Vec<String>]) -> Option<Value> {
    if paths.contains(at) {
        return Some(value.clone());
    }
    let mut kept = Map::new();
    for (key, below) in value.as_object()? {
        at.push(key.clone());
        if let Some(below) = chosen(below, at, paths) {
            kept.insert(key.clone(), below);
        }
        at.pop();
    }
    // A field that was asked for by a path that leads on shows itself, empty, where it is an object.
    let leads_on = paths.iter().any(|path| path.len() > at.len() && path.starts_with(at) && !at.is_empty());
    (!kept.is_empty() || leads_on).then_some(Value::Object(kept))
}

fn keys_of(path: &str) -> Vec<String> {
    // Neither of these is in what is split.
    let path = path.replace("\\\\", "\u{1}").replace("\\.", "\u{2}");
    path.split('.').map(|key| key.replace('\u{1}', "\\").replace('\u{2}', ".")).collect()
}
