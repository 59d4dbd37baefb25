//! What a user has set for a room, carried over to the room that replaces it (UP-03): tags, push rules, and that it is a
//! direct chat.

use ruma::{
    RoomId, UserId,
    push::{
        EventMatchConditionData, NewConditionalPushRule, NewPushRule, NewSimplePushRule, PushCondition,
        RuleKind, Ruleset,
    },
};
use serde_json::{Map, Value, json};

use super::{Accounts, Error, push_rules::RuleChange};
use crate::store::account_data::GLOBAL;

const DIRECT: &str = "m.direct";

impl Accounts {
    /// Each room by its number and its id. What the user has set for the new room already stays.
    pub async fn carry_room_settings(
        &self,
        recipient: i64,
        user_id: &UserId,
        (old, old_id): (i64, &RoomId),
        (new, new_id): (i64, &RoomId),
    ) -> Result<(), Error> {
        if self.tags(recipient, new).await?.is_empty() {
            for (tag, info) in self.tags(recipient, old).await? {
                let info = info.as_object().cloned().unwrap_or_default();
                self.set_tag(recipient, new, &tag, info).await?;
            }
        }
        for rule in carried_rules(&self.push_rules(recipient, user_id).await?, old_id, new_id) {
            let change = RuleChange::Put { rule, after: None, before: None };
            self.change_push_rules(recipient, user_id, change).await?;
        }
        self.carry_direct(recipient, old_id, new_id).await
    }

    async fn carry_direct(&self, recipient: i64, old: &RoomId, new: &RoomId) -> Result<(), Error> {
        let _turn = self.turns.of(recipient).await;
        let Some(content) = self.store.account_data(recipient, GLOBAL, DIRECT).await? else { return Ok(()) };
        let Ok(mut chats) = serde_json::from_str::<Map<String, Value>>(&content) else { return Ok(()) };
        for rooms in chats.values_mut().filter_map(Value::as_array_mut) {
            if rooms.contains(&json!(old)) && !rooms.contains(&json!(new)) {
                rooms.push(json!(new));
            }
        }
        self.write(recipient, GLOBAL, DIRECT, Value::Object(chats).to_string()).await
    }
}

/// The rules in force that are about one room, as rules about another, as far as it has none of that name. Each goes before
/// those that were put before it.
fn carried_rules(rules: &Ruleset, old: &RoomId, new: &RoomId) -> Vec<NewPushRule> {
    let mut carried = Vec::new();
    for rule in &rules.room {
        if rule.enabled && rule.rule_id == old && rules.get(RuleKind::Room, new).is_none() {
            carried.push(NewPushRule::Room(NewSimplePushRule::new(new.to_owned(), rule.actions.clone())));
        }
    }
    let names_old = |condition: &PushCondition| matches!(condition, PushCondition::EventMatch(data) if data.key == "room_id" && data.pattern == old.as_str());
    for (kind, of_kind) in [(RuleKind::Override, &rules.override_), (RuleKind::Underride, &rules.underride)] {
        for rule in of_kind.iter().rev() {
            if rule.default || !rule.enabled || !rule.conditions.iter().any(names_old) {
                continue;
            }
            let conditions = rule.conditions.iter().map(|condition| {
                if names_old(condition) {
                    let data = EventMatchConditionData::new("room_id".to_owned(), new.to_string());
                    return PushCondition::EventMatch(data);
                }
                condition.clone()
            });
            // A rule that is named for the old room is named for the new one.
            let rule_id = if rule.rule_id == old.as_str() {
                new.to_string()
            } else {
                format!("{} {new}", rule.rule_id)
            };
            if rules.get(kind.clone(), &rule_id).is_some() {
                continue;
            }
            let rule = NewConditionalPushRule::new(rule_id, conditions.collect(), rule.actions.clone());
            carried.push(match kind {
                RuleKind::Override => NewPushRule::Override(rule),
                _ => NewPushRule::Underride(rule),
            });
        }
    }
    carried
}
