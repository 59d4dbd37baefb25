//! Requests of sliding sync: the first byte chooses the form, the rest is the body.
//!
//! What comes of it keeps within its bounds, and asks for just the state that a reading of the proposal's text gives.

use hearth::testing::reading::{Form, SlidingConfig, sliding_request};
use serde_json::Value;

const ME: &str = "@me:a.example";

/// The types and keys of state that are asked for by turns.
const STATE: [(&str, &str); 6] = [
    ("m.room.name", ""),
    ("m.room.create", ""),
    ("m.room.member", ME),
    ("m.room.member", "@other:b.example"),
    ("m.space.child", "!space:a.example"),
    ("a", "b"),
];

pub(crate) fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let form = if first % 2 == 0 { Form::Merged } else { Form::Early };
    let Ok(request) = sliding_request(form, rest, ME) else { return };
    // What is skipped unread may not be text.
    let Ok(body) = serde_json::from_slice::<Value>(rest) else { return };
    let wishes = &request.wishes;
    assert!(wishes.lists.len() <= 100 && wishes.subscriptions.len() <= 100);
    assert!(request.conn_id.len() <= 255 && request.txn_id.as_ref().is_none_or(|id| id.len() <= 255));
    assert!(request.pos.as_ref().is_none_or(|pos| !pos.is_empty()));
    assert!(request.mail.as_ref().is_none_or(|mail| (1..=1000).contains(&mail.limit)));
    for (name, list) in &wishes.lists {
        assert!(name.len() <= 255 && list.ranges.len() <= 100);
        assert!(list.ranges.iter().all(|(first, last)| first <= last));
        config(form, &list.config, &body["lists"][name]);
        let given = &body["lists"][name];
        let ranges = match form {
            Form::Merged if given["range"].is_array() => vec![&given["range"]],
            Form::Early if given["ranges"].is_array() => {
                given["ranges"].as_array().into_iter().flatten().collect()
            }
            _ => continue,
        };
        for index in [0, 1, 5, 100, u64::MAX] {
            let theirs = ranges.iter().any(|range| {
                let end = |at: usize| range[at].as_u64().expect("it was read");
                end(0) <= index && index <= end(1)
            });
            let ours = list.ranges.iter().any(|(first, last)| (*first..=*last).contains(&index));
            assert_eq!(ours, theirs);
        }
    }
    for (room, subscription) in &wishes.subscriptions {
        config(form, subscription, &body["room_subscriptions"][room.as_str()]);
    }
}

fn config(form: Form, ours: &SlidingConfig, given: &Value) {
    assert_eq!(ours.timeline_limit as u64, given["timeline_limit"].as_u64().expect("it was read").min(200));
    for (kind, state_key) in STATE {
        let wanted = match form {
            Form::Merged => merged(&given["required_state"], kind, state_key),
            Form::Early => early(&given["required_state"], kind, state_key),
        };
        assert_eq!(ours.wants(kind, state_key), wanted, "{kind} {state_key:?} of {given}");
    }
}

fn merged(required: &Value, kind: &str, state_key: &str) -> bool {
    let fits = |element: &Value| {
        let is = |name: &str, value: &str| element[name].is_null() || element[name] == value;
        is("type", kind) && is("state_key", state_key)
    };
    let on = |list: &str, fits: &dyn Fn(&Value) -> bool| {
        required[list].as_array().is_some_and(|list| list.iter().any(fits))
    };
    let lazy = kind == "m.room.member" && required["lazy_members"] == true;
    // Of the members only those who are named.
    on("include", &|element| fits(element) && !(lazy && element["state_key"].is_null()))
        && !on("exclude", &fits)
}

fn early(required: &Value, kind: &str, state_key: &str) -> bool {
    let pairs: Vec<[&str; 2]> = required
        .as_array()
        .into_iter()
        .flatten()
        .map(|pair| [0, 1].map(|at| pair[at].as_str().expect("it was read")))
        .collect();
    let lazy = kind == "m.room.member" && pairs.contains(&["m.room.member", "$LAZY"]);
    pairs.into_iter().any(|[wanted, key]| {
        let fits_key = match key {
            "$ME" => state_key == ME,
            "$LAZY" => false,
            "*" => !lazy,
            key => key == state_key,
        };
        (wanted == "*" || wanted == kind) && fits_key
    })
}
