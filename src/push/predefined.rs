//! The rules that everybody has ("Predefined Rules"), those of polls (MSC3930), which are accepted but not yet in the
//! specification, and those of subscriptions to threads (MSC4306) and of encrypted events (MSC4028), which are proposals.

use ruma::{
    UserId,
    push::{
        Action, ConditionalPushRule, ConditionalPushRuleInit, EventPropertyIsConditionData, PushCondition,
        RoomMemberCountConditionData, RoomMemberCountIs, Ruleset, SoundTweakValue, Tweak,
    },
    uint,
};

/// The prefix of the ids of the rules, and that of the types of the events. Clients use the older ones.
const NAMES: [(&str, &str); 2] =
    [(".m.rule", "m.poll"), (".org.matrix.msc3930.rule", "org.matrix.msc3381.poll")];

/// All predefined rules of a user.
pub fn predefined(user_id: &UserId) -> Ruleset {
    let mut rules = Ruleset::server_default(user_id);
    let one_to_one = || {
        PushCondition::RoomMemberCount(RoomMemberCountConditionData::new(RoomMemberCountIs::from(uint!(2))))
    };
    let sound = || vec![Action::Notify, Action::SetTweak(Tweak::Sound(SoundTweakValue::Default))];
    let mut encrypted = made(
        ".org.matrix.msc4028.encrypted_event".to_owned(),
        vec![property_is("type", "m.room.encrypted")],
        vec![Action::Notify],
    );
    // To be turned on by clients that know it: to the others, it would make everything in an encrypted room count.
    encrypted.enabled = false;
    rules.override_.insert_before(1, encrypted);
    for (rule, event) in NAMES {
        let is = |kind: &str| property_is("type", &format!("{event}.{kind}"));
        rules.override_.insert(made(format!("{rule}.poll_response"), vec![is("response")], vec![]));
        for kind in ["start", "end"] {
            let id = format!("{rule}.poll_{kind}");
            rules.underride.insert(made(format!("{id}_one_to_one"), vec![one_to_one(), is(kind)], sound()));
            rules.underride.insert(made(id, vec![is(kind)], vec![Action::Notify]));
        }
    }
    rules
}

/// Brings rules that were stored up to date: there may be other predefined ones since.
pub fn update(rules: &mut Ruleset, user_id: &UserId) {
    let predefined = predefined(user_id);
    // Of this kind there are none but the predefined ones.
    let stored = std::mem::replace(&mut rules.postcontent, predefined.postcontent.clone());
    rules.update_with_server_default(predefined);
    for old in stored {
        if let Some(mut rule) = rules.postcontent.get(old.rule_id.as_str()).cloned() {
            (rule.enabled, rule.actions) = (old.enabled, old.actions);
            rules.postcontent.replace(rule);
        }
    }
}

fn property_is(key: &str, value: &str) -> PushCondition {
    PushCondition::EventPropertyIs(EventPropertyIsConditionData::new(key.to_owned(), value.into()))
}

fn made(rule_id: String, conditions: Vec<PushCondition>, actions: Vec<Action>) -> ConditionalPushRule {
    ConditionalPushRuleInit { rule_id, conditions, actions, default: true, enabled: true }.into()
}
