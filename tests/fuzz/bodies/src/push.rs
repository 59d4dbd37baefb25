//! Push rules on an event: a pattern, a line end, a path into the event, a line end, the event's content.
//!
//! The pattern is tried as a glob over a field, as words of the body, as a value that a field is or contains, and as a
//! number of members.

use hearth::testing::reading::{Facts, Named, RuleSet};
use ruma::{RoomId, UserId, push::Ruleset, room_id, user_id};
use serde_json::{Value, json};

use crate::{
    glob::{folded, matches},
    words::parts,
};

/// So much may be compared without the budget's end: what costs more is for the tests of that.
const MOST_PATTERN: usize = 64;
const MOST_CONTENT: usize = 2_000;
const MEMBERS: usize = 3;

pub(crate) fn run(data: &[u8]) {
    let Some([pattern, path, content]) = parts(data) else { return };
    if pattern.len() > MOST_PATTERN || content.len() > MOST_CONTENT {
        return;
    }
    let (sender, room) = (user_id!("@Bob:b.example"), room_id!("!Room:b.example"));
    let value: Value = serde_json::from_str(content).unwrap_or_default();
    let event = Event { sender, room, content: &value };
    let scalar = match pattern {
        "true" => json!(true),
        "false" => json!(false),
        "null" => Value::Null,
        pattern => pattern.parse::<i32>().map_or_else(|_| json!(pattern), |number| json!(number)),
    };
    let found = event.at(path);
    let found = found.as_ref();
    for (condition, expected) in [
        (
            json!({ "kind": "event_match", "key": path, "pattern": pattern }),
            found.and_then(Value::as_str).is_some_and(|text| {
                if path == "content.body" {
                    words(pattern, text)
                } else {
                    matches(&folded(pattern), &folded(text), true)
                }
            }),
        ),
        (
            json!({ "kind": "event_property_is", "key": path, "value": scalar }),
            found.is_some_and(|found| is(found, &scalar)),
        ),
        (
            json!({ "kind": "event_property_contains", "key": path, "value": scalar }),
            found.and_then(Value::as_array).is_some_and(|list| list.iter().any(|found| is(found, &scalar))),
        ),
    ] {
        assert_eq!(
            applies("override", &json!([condition]), None, content),
            Some(expected),
            "{condition} of {content}"
        );
    }
    let body = value.get("body").and_then(Value::as_str);
    let expected = body.is_some_and(|body| words(pattern, body));
    assert_eq!(
        applies("content", &Value::Null, Some(pattern), content),
        Some(expected),
        "{pattern:?} in {content}"
    );
    let count = json!([{ "kind": "room_member_count", "is": pattern }]);
    if let Some(found) = applies("override", &count, None, content) {
        assert_eq!(Some(found), counted(pattern), "{pattern:?} members");
    }
}

struct Event<'a> {
    sender: &'a UserId,
    room: &'a RoomId,
    content: &'a Value,
}

impl Event<'_> {
    /// The field at a path, from a copy of the whole event.
    fn at(&self, path: &str) -> Option<Value> {
        let event = json!({
            "type": "m.Type", "sender": self.sender, "room_id": self.room, "state_key": "Key", "content": self.content,
        });
        let mut keys = vec![String::new()];
        let mut rest = path;
        while let Some(next) = rest.chars().next() {
            let escaped = ["\\.", "\\\\"].into_iter().find(|escape| rest.starts_with(escape));
            let last = keys.last_mut().expect("there is one");
            match (escaped, next) {
                (Some(escape), _) => {
                    last.push_str(&escape[1..]);
                    rest = &rest[2..];
                    continue;
                }
                (None, '.') => keys.push(String::new()),
                (None, next) => last.push(next),
            }
            rest = &rest[next.len_utf8()..];
        }
        let mut found = &event;
        for key in &keys {
            found = found.as_object()?.get(key)?;
        }
        Some(found.clone())
    }
}

fn is(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Number(found), Value::Number(wanted)) => found.is_i64() && found.as_i64() == wanted.as_i64(),
        (found, wanted) => found == wanted,
    }
}

/// Whether a rule with these conditions, or of this pattern, says that the event notifies. `None`: there can't be such a rule.
fn applies(kind: &str, conditions: &Value, pattern: Option<&str>, content: &str) -> Option<bool> {
    let mut rule = json!({ "rule_id": "mine", "default": false, "enabled": true, "actions": ["notify"] });
    match pattern {
        Some(pattern) => rule["pattern"] = json!(pattern),
        None => rule["conditions"] = conditions.clone(),
    }
    let rules: Ruleset = serde_json::from_value(json!({ kind: [rule] })).ok()?;
    let me = user_id!("@me:a.example");
    let set = RuleSet::new(&rules, me);
    let powers = || unreachable!("no condition asks for them");
    let facts = Facts::new(
        "m.Type",
        user_id!("@Bob:b.example"),
        room_id!("!Room:b.example"),
        Some("Key"),
        content,
        MEMBERS,
        &powers,
    );
    Some(set.apply(&facts, Named::default()).notify)
}

/// Whether a part of the text between two boundaries of words is like the glob.
fn words(glob: &str, text: &str) -> bool {
    let (glob, text) = (folded(glob), folded(text));
    let is_word = |at: usize| text[at].is_ascii_alphanumeric() || text[at] == '_';
    let boundaries: Vec<usize> = (0..=text.len())
        .filter(|at| *at == 0 || *at == text.len() || !is_word(at - 1) || !is_word(*at))
        .collect();
    !glob.is_empty()
        && boundaries.iter().any(|start| {
            boundaries.iter().any(|end| start <= end && matches(&glob, &text[*start..*end], true))
        })
}

/// Whether so many members are as many as wanted.
type Compare = fn(usize, usize) -> bool;

fn counted(is: &str) -> Option<bool> {
    let compare: [(&str, Compare); 5] = [
        ("==", |members, wanted| members == wanted),
        ("<=", |members, wanted| members <= wanted),
        (">=", |members, wanted| members >= wanted),
        ("<", |members, wanted| members < wanted),
        (">", |members, wanted| members > wanted),
    ];
    let found = compare.into_iter().find_map(|(sign, holds)| Some((is.strip_prefix(sign)?, holds)));
    let (number, holds) = found.unwrap_or((is, |members, wanted| members == wanted));
    Some(holds(MEMBERS, number.parse().ok()?))
}
