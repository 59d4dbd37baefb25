//! What needs no server: push rules, tokens, types against a filter.

use std::hint::black_box;

use hearth::testing::reading::{Facts, Named, RuleSet, Token, type_matches};
use ruma::{
    push::{PushConditionPowerLevelsCtx, Ruleset},
    room_id, user_id,
};
use serde_json::json;

use crate::count;

pub(crate) fn count_all() {
    count_push_rules();
    count_tokens();
    count_filters();
}

/// An event held against the rules of a hundred members, every tenth of whom has rules of their own.
fn count_push_rules() {
    let sets: Vec<RuleSet> = (0..100)
        .map(|nth| {
            let me = user_id!("@me:example.org");
            let mut rules = Ruleset::server_default(me);
            if nth % 10 == 0 {
                let own = json!({ "content": [
                    { "rule_id": "word", "default": false, "enabled": true, "pattern": format!("w*d{nth}"), "actions": ["notify"] },
                    { "rule_id": "name", "default": false, "enabled": true, "pattern": "harbour", "actions": ["notify"] },
                ] });
                let own: Ruleset = serde_json::from_value(own).expect("these are rules");
                rules.content = own.content;
            }
            RuleSet::new(&rules, me)
        })
        .collect();
    let content =
        json!({ "msgtype": "m.text", "body": "Shall we meet at the bridge? ".repeat(4) }).to_string();
    let nobody_may =
        || -> PushConditionPowerLevelsCtx { unreachable!("nothing in it asks for power levels") };
    count(
        "push rules: a message, 100 members",
        || (),
        |()| {
            let (sender, room_id) = (user_id!("@sender:example.org"), room_id!("!room:example.org"));
            let facts = Facts::new("m.room.message", sender, room_id, None, &content, 100, &nobody_may);
            sets.iter().filter(|set| set.apply(&facts, Named::default()).notify).count()
        },
    );
}

fn count_tokens() {
    let token =
        Token::Queue { epoch: 7_777_777_777, position: 123_456, mail: 123_450, boot: 99_999_999, fading: 55 };
    count(
        "tokens: written and read, 100",
        || (),
        |()| {
            for _ in 0..100 {
                let text = black_box(token).to_string();
                black_box(text.parse::<Token>().expect("it was just written"));
            }
        },
    );
}

fn count_filters() {
    let types = ["m.room.message", "m.room.enc*", "org.example.*.thing"].map(str::to_owned);
    let not_types = ["m.room.member", "*.secret"].map(str::to_owned);
    count(
        "filters: types, 100",
        || (),
        |()| {
            (0..100)
                .filter(|_| type_matches(Some(&types), &not_types, black_box("org.example.a.thing")))
                .count()
        },
    );
}
