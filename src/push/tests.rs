//! Each kind of condition, the predefined rules, and what users have in common.

use std::{sync::Arc, time::Instant};

use ruma::{
    UserId,
    events::room::power_levels::{RoomPowerLevels, RoomPowerLevelsSource},
    push::{
        Action, EventMatchConditionData, NewConditionalPushRule, NewPatternedPushRule, NewPushRule,
        NewSimplePushRule, PushCondition, PushConditionPowerLevelsCtx, RuleKind, Ruleset,
    },
    room_id,
    room_version_rules::AuthorizationRules,
    user_id,
};
use serde_json::{Value, json};

use super::*;

fn sender() -> &'static UserId {
    user_id!("@sender:example.org")
}

fn me() -> &'static UserId {
    user_id!("@me:example.org")
}

fn nobody_may() -> PushConditionPowerLevelsCtx {
    unreachable!("no rule asks for power levels")
}

/// One rule, which notifies under these conditions.
fn set(conditions: &Value) -> RuleSet {
    let rule = json!({ "rule_id": "r", "default": false, "enabled": true, "actions": ["notify"], "conditions": conditions });
    let rules: Ruleset = serde_json::from_value(json!({ "underride": [rule] })).unwrap();
    RuleSet::new(&rules, me())
}

fn notifies(set: &RuleSet, content: &Value, named: Named<'_>) -> bool {
    let content = content.to_string();
    let facts =
        Facts::new("m.room.message", sender(), room_id!("!Room:example.org"), None, &content, 3, &nobody_may);
    set.apply(&facts, named).notify
}

#[test]
fn pu_03_conditions() {
    let content = json!({
        "body": "Hello World", "msgtype": "m.text", "number": 5, "yes": true, "nothing": null, "float": 1.5,
        "a.b": { "c\\d": "deep" }, "list": ["x", 1, null, { "no": "scalar" }], "empty": "",
        "format": "HELLO.world",
    });
    let is = |key: &str, value: Value| json!({ "kind": "event_property_is", "key": key, "value": value });
    let has =
        |key: &str, value: Value| json!({ "kind": "event_property_contains", "key": key, "value": value });
    let like = |key: &str, pattern: &str| json!({ "kind": "event_match", "key": key, "pattern": pattern });
    let count = |is: &str| json!({ "kind": "room_member_count", "is": is });
    for (condition, holds) in [
        (like("type", "m.room.message"), true),
        (like("type", "M.ROOM.*"), true),
        (like("type", "m.room"), false),
        (like("content.body", "world"), true),
        (like("content.body", "orld"), false),
        (like("content.format", "hello.world"), true),
        (like("content.format", "world"), false),
        (like("content.number", "5"), false),
        (like("content.absent", "*"), false),
        (like("content.empty", ""), true),
        (like("state_key", "*"), false),
        (like("room_id", "!Room:example.org"), true),
        (like("sender", "@sender:*"), true),
        (like(r"content.a\.b.c\\d", "deep"), true),
        (like("content.a.b.c", "deep"), false),
        (is("content.body", json!("Hello World")), true),
        (is("content.body", json!("hello world")), false),
        (is("content.number", json!(5)), true),
        (is("content.number", json!("5")), false),
        (is("content.yes", json!(true)), true),
        (is("content.nothing", Value::Null), true),
        (is("content.absent", Value::Null), false),
        (has("content.list", json!("x")), true),
        (has("content.list", json!(1)), true),
        (has("content.list", Value::Null), true),
        (has("content.list", json!("y")), false),
        (has("content.body", json!("Hello World")), false),
        (count("3"), true),
        (count("==3"), true),
        (count("2"), false),
        (count("<3"), false),
        (count("<4"), true),
        (count("<=3"), true),
        (count(">3"), false),
        (count(">2"), true),
        (count(">=3"), true),
        (count(">=4"), false),
        (json!({ "kind": "org.example.unknown", "key": "content.body" }), false),
        (json!({ "kind": "contains_display_name" }), false),
    ] {
        assert_eq!(notifies(&set(&json!([condition])), &content, Named::default()), holds, "{condition}");
    }
    let both = json!([is("content.number", json!(5)), count("2")]);
    assert!(!notifies(&set(&both), &content, Named::default()), "all have to hold");
    assert!(notifies(&set(&json!([])), &content, Named::default()), "nothing has to hold");
}

#[test]
fn pu_03_names_of_users_are_theirs() {
    let rules = set(&json!([{ "kind": "contains_display_name" }]));
    assert!(rules.asks_for_names());
    let named = |display_name| Named { display_name, ..Named::default() };
    let content = json!({ "body": "is alice* around?" });
    assert!(notifies(&rules, &content, named(Some("Alice*"))));
    for name in [Some("Alic*"), Some("lice"), Some(""), None] {
        assert!(!notifies(&rules, &content, named(name)), "{name:?}");
    }
}

#[test]
fn pu_03_the_power_to_notify_is_asked_for_only_if_it_matters() {
    let content = |room: bool| json!({ "body": "x", "m.mentions": { "room": room } }).to_string();
    let powers = |level: i64| {
        move || {
            let mut powers = RoomPowerLevels::new(RoomPowerLevelsSource::None, &AuthorizationRules::V11, []);
            powers.users.insert(sender().to_owned(), level.try_into().unwrap());
            PushConditionPowerLevelsCtx::from(powers)
        }
    };
    let outcome = |content: &str, powers: &dyn Fn() -> PushConditionPowerLevelsCtx| {
        let facts =
            Facts::new("m.room.message", sender(), room_id!("!r:example.org"), None, content, 3, powers);
        DEFAULT.apply(&facts, Named::default())
    };
    assert_eq!(outcome(&content(false), &nobody_may), Outcome { notify: true, ..Outcome::default() });
    assert_eq!(outcome(&content(true), &powers(49)), Outcome { notify: true, ..Outcome::default() });
    assert_eq!(outcome(&content(true), &powers(50)), Outcome { notify: true, highlight: true, sound: None });
}

/// PU-02, PU-04: each predefined rule, by an event that only it decides.
#[test]
fn pu_04_what_the_predefined_rules_say() {
    let silent = Outcome::default();
    let quiet = Outcome { notify: true, ..Outcome::default() };
    let loud = Outcome { highlight: true, ..quiet };
    let audible = Outcome { sound: Some(Sound::Default), ..quiet };
    let ringing = Outcome { sound: Some(Sound::Ring), ..quiet };
    let named_me = Outcome { highlight: true, ..audible };
    let mentioned = Named { mentioned: true, ..Named::default() };
    let about_me = Named { by_state_key: true, ..Named::default() };
    let all = Named::default();
    for (kind, state_key, content, members, named, expected) in [
        ("m.room.message", None, json!({ "body": "x" }), 3, all, quiet),
        ("m.room.message", None, json!({ "body": "x" }), 2, all, audible),
        ("m.room.message", None, json!({ "msgtype": "m.notice" }), 3, mentioned, silent),
        ("m.room.message", None, json!({ "body": "x" }), 3, mentioned, named_me),
        ("m.room.encrypted", None, json!({}), 3, all, quiet),
        ("m.room.member", Some("@me:example.org"), json!({ "membership": "invite" }), 3, about_me, audible),
        ("m.room.member", Some("@me:example.org"), json!({ "membership": "leave" }), 3, about_me, silent),
        ("m.room.member", Some("@x:example.org"), json!({ "membership": "invite" }), 3, all, silent),
        ("m.room.tombstone", Some(""), json!({}), 3, all, loud),
        ("m.room.tombstone", Some("x"), json!({}), 3, all, silent),
        ("m.reaction", None, json!({}), 3, all, silent),
        ("m.reaction", None, json!({}), 3, mentioned, named_me),
        ("m.room.server_acl", Some(""), json!({}), 3, all, silent),
        ("m.room.message", None, json!({ "m.relates_to": { "rel_type": "m.replace" } }), 3, all, silent),
        ("m.call.invite", None, json!({}), 3, all, ringing),
        ("m.room.topic", Some(""), json!({}), 3, all, silent),
        ("m.poll.start", None, json!({}), 3, all, quiet),
        ("m.poll.end", None, json!({}), 2, all, audible),
        ("m.poll.response", None, json!({}), 3, all, silent),
        ("org.matrix.msc3381.poll.start", None, json!({}), 3, all, quiet),
    ] {
        let text = content.to_string();
        let room_id = room_id!("!r:example.org");
        let facts = Facts::new(kind, sender(), room_id, state_key, &text, members, &nobody_may);
        assert_eq!(DEFAULT.apply(&facts, named), expected, "{kind} {content}");
    }
}

/// MSC4306: after what names the user, and before what is said of the room.
#[test]
fn msc4306_threads_notify_those_who_subscribed_and_nobody_else() {
    let mut rules = predefined(me());
    let room = room_id!("!Room:example.org");
    let muted = NewSimplePushRule::new(room.to_owned(), vec![]);
    rules.insert(NewPushRule::Room(muted), None, None).unwrap();
    let muting = RuleSet::new(&rules, me());
    let named = |subscribed, mentioned| Named { mentioned, subscribed, ..Named::default() };
    let content = json!({ "body": "x" });
    for (subscribed, mentioned, by_default, if_muted) in [
        (None, false, true, false),
        (Some(false), false, false, false),
        (Some(false), true, true, true),
        (Some(true), false, true, true),
    ] {
        let named = named(subscribed, mentioned);
        assert_eq!(notifies(&DEFAULT, &content, named), by_default, "{named:?}");
        assert_eq!(notifies(&muting, &content, named), if_muted, "{named:?}");
    }
}

/// MSC4028: off until a client turns it on, which it then stays; muted rooms stay muted.
#[test]
fn msc4028_encrypted_events_notify_if_a_client_wants_that() {
    let id = ".org.matrix.msc4028.encrypted_event";
    let room = room_id!("!Room:example.org");
    let mentions_only = NewPushRule::Room(NewSimplePushRule::new(room.to_owned(), vec![]));
    let of = |rules: &Ruleset| {
        let set = RuleSet::new(rules, me());
        let facts = Facts::new("m.room.encrypted", sender(), room, None, "{}", 3, &nobody_may);
        set.apply(&facts, Named::default()).notify
    };
    let mut rules = predefined(me());
    rules.insert(mentions_only, None, None).unwrap();
    assert!(!of(&rules));
    rules.set_enabled(RuleKind::Override, id, true).unwrap();
    assert!(of(&rules));
    update(&mut rules, me());
    assert!(of(&rules));
    let in_room = PushCondition::EventMatch(EventMatchConditionData::new("room_id".into(), room.to_string()));
    let mute = NewConditionalPushRule::new(room.to_string(), vec![in_room], vec![]);
    rules.insert(NewPushRule::Override(mute), None, None).unwrap();
    assert!(!of(&rules), "what users set comes first");
    update(&mut rules, me());
    assert!(!of(&rules));
}

/// Rules that were stored before there were others learn of those, and keep what the user set.
#[test]
fn stored_rules_are_brought_up_to_date() {
    let mut rules = predefined(me());
    rules.postcontent.clear();
    rules.override_.shift_remove(".org.matrix.msc4028.encrypted_event");
    update(&mut rules, me());
    let ids = |rules: &Ruleset| rules.iter().map(|rule| rule.rule_id().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(&rules), ids(&predefined(me())));
    let unsubscribed = ".io.element.msc4306.rule.unsubscribed_thread";
    rules.set_enabled(RuleKind::PostContent, unsubscribed, false).unwrap();
    update(&mut rules, me());
    assert!(!rules.get(RuleKind::PostContent, unsubscribed).unwrap().enabled());
    assert_eq!(ids(&rules), ids(&predefined(me())));
}

#[test]
fn users_whose_rules_agree_share_a_set() {
    let sets = RuleSets::default();
    let of = |user: &UserId, change: fn(&mut Ruleset)| {
        let mut rules = predefined(user);
        change(&mut rules);
        sets.shared(RuleSet::new(&rules, user))
    };
    assert!(Arc::ptr_eq(&of(me(), |_| ()), &DEFAULT));
    let loud = |rules: &mut Ruleset| {
        rules.set_enabled(RuleKind::Override, ".m.rule.suppress_notices", false).unwrap();
    };
    let mine = of(me(), loud);
    assert!(!Arc::ptr_eq(&mine, &DEFAULT));
    assert!(Arc::ptr_eq(&mine, &of(sender(), loud)), "though each has rules about themselves");
    drop(mine);
    for number in 0..1_000 {
        let rules = json!({ "sender": [{
            "rule_id": format!("@u{number}:x"), "default": false, "enabled": true, "actions": [] }] });
        sets.shared(RuleSet::new(&serde_json::from_value(rules).unwrap(), me()));
    }
    assert!(sets.count() < 20, "those that nobody has any more are forgotten");
}

#[test]
fn hostile_rules_cost_a_bounded_time_and_harm_nobody_else() {
    let rule = |id: &str, pattern: String, actions: Value| json!({ "rule_id": id, "default": false, "enabled": true, "actions": actions, "pattern": pattern });
    let loud = json!(["notify", { "set_tweak": "highlight" }]);
    let costly = rule("costly", format!("0*{}b", "a?".repeat(200)), json!([]));
    let simple = rule("simple", "0".to_owned(), loud.clone());
    let content = json!({ "body": "0 ".to_owned() + &"a".repeat(60_000) });
    for (given, notified) in [(json!([costly, simple]), false), (json!([simple, costly]), true)] {
        let rules: Ruleset = serde_json::from_value(json!({ "content": given })).unwrap();
        let set = RuleSet::new(&rules, me());
        // What comes behind a pattern that takes too long isn't tried any more.
        assert_eq!(notifies(&set, &content, Named::default()), notified);
    }
}

/// A hundred different sets judge one event each by its own rules. The time that takes is printed (`--nocapture`), for a
/// release build.
#[test]
fn a_hundred_different_sets_judge_for_themselves() {
    let of = |number: usize| {
        let mut rules = predefined(me());
        for rule in 0..10 {
            let pattern = format!("keyword{number}x{rule}");
            let highlight =
                Action::SetTweak(ruma::push::Tweak::Highlight(ruma::push::HighlightTweakValue::Yes));
            let new = NewPatternedPushRule::new(pattern.clone(), pattern, vec![Action::Notify, highlight]);
            rules.insert(NewPushRule::Content(new), None, None).unwrap();
        }
        RuleSet::new(&rules, me())
    };
    let body = "The quick brown fox jumps over the lazy dog, keyword7x3, and nobody is surprised. ".repeat(3);
    let content = json!({ "msgtype": "m.text", "body": body, "m.mentions": {} }).to_string();
    let different: Vec<RuleSet> = (0..100).map(of).collect();
    let facts = || {
        Facts::new("m.room.message", sender(), room_id!("!r:example.org"), None, &content, 100, &nobody_may)
    };
    let (start, rounds) = (Instant::now(), 100);
    for _ in 0..rounds {
        let facts = facts();
        for (number, set) in different.iter().enumerate() {
            let outcome = set.apply(&facts, Named::default());
            assert_eq!((outcome.notify, outcome.highlight), (true, number == 7), "{number}");
        }
    }
    eprintln!("a hundred different sets: {:?} an event", start.elapsed() / rounds);
    let start = Instant::now();
    for _ in 0..rounds {
        assert!(DEFAULT.apply(&facts(), Named::default()).notify);
    }
    eprintln!("one set: {:?} an event", start.elapsed() / rounds);
}
