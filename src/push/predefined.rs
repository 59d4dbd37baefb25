//! The rules that everybody has ("Predefined Rules"), and those of polls (MSC3930), which are accepted but not yet in the
//! specification.

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
    for (rule, event) in NAMES {
        let is = |kind: &str| {
            let data = EventPropertyIsConditionData::new("type".to_owned(), format!("{event}.{kind}").into());
            PushCondition::EventPropertyIs(data)
        };
        rules.override_.insert(made(format!("{rule}.poll_response"), vec![is("response")], vec![]));
        for kind in ["start", "end"] {
            let id = format!("{rule}.poll_{kind}");
            rules.underride.insert(made(format!("{id}_one_to_one"), vec![one_to_one(), is(kind)], sound()));
            rules.underride.insert(made(id, vec![is(kind)], vec![Action::Notify]));
        }
    }
    rules
}

fn made(rule_id: String, conditions: Vec<PushCondition>, actions: Vec<Action>) -> ConditionalPushRule {
    ConditionalPushRuleInit { rule_id, conditions, actions, default: true, enabled: true }.into()
}
