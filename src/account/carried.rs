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
        self.carry_direct(recipient, old_id, new_id).await?;
        for rule in carried_rules(&self.push_rules(recipient, user_id).await?, old_id, new_id) {
            let change = RuleChange::Put { rule, after: None, before: None };
            self.change_push_rules(recipient, user_id, change).await?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, push::Action, user_id};

    use super::*;
    use crate::room::tests::World;

    /// alice, who has set something for a room that another replaces.
    struct Carrying {
        world: World,
        recipient: i64,
    }

    fn alice() -> &'static UserId {
        user_id!("@alice:localhost")
    }

    /// A rule about a room.
    fn about(room: &str, rule_id: &str, actions: Vec<Action>) -> NewPushRule {
        let data = EventMatchConditionData::new("room_id".to_owned(), room.to_owned());
        let conditions = vec![PushCondition::EventMatch(data)];
        NewPushRule::Override(NewConditionalPushRule::new(rule_id.to_owned(), conditions, actions))
    }

    impl Carrying {
        async fn new() -> Self {
            let world = World::new(&[alice().as_str()]).await;
            let recipient = world.accounts.recipient(alice()).await.unwrap().unwrap();
            Self { world, recipient }
        }

        async fn change(&self, change: RuleChange) {
            self.world.accounts.change_push_rules(self.recipient, alice(), change).await.unwrap();
        }

        async fn put(&self, rule: NewPushRule) {
            self.change(RuleChange::Put { rule, after: None, before: None }).await;
        }

        async fn carry(&self) -> Result<(), Error> {
            let (old, new) = (owned_room_id!("!old:localhost"), owned_room_id!("!new:localhost"));
            self.world.accounts.carry_room_settings(self.recipient, alice(), (1, &old), (2, &new)).await
        }

        /// The user's own rules of the most important kind: their ids, whether they notify and are on.
        async fn own(&self) -> Vec<(String, bool, bool)> {
            let rules = self.world.accounts.push_rules(self.recipient, alice()).await.unwrap();
            let own = rules.override_.into_iter().filter(|rule| !rule.default);
            own.map(|rule| (rule.rule_id, !rule.actions.is_empty(), rule.enabled)).collect()
        }
    }

    fn rule(rule_id: &str, notifies: bool, enabled: bool) -> (String, bool, bool) {
        (rule_id.to_owned(), notifies, enabled)
    }

    #[tokio::test]
    async fn up_03_rules_in_force_follow_in_their_order() {
        let carrying = Carrying::new().await;
        for (rule_id, actions) in [("mute", vec![]), ("off", vec![]), ("loud", vec![Action::Notify])] {
            carrying.put(about("!old:localhost", rule_id, actions)).await;
        }
        let (kind, rule_id) = (RuleKind::Override, "off".to_owned());
        carrying.change(RuleChange::Enable { kind, rule_id, enabled: false }).await;
        carrying.carry().await.unwrap();
        let carried = [rule("loud !new:localhost", true, true), rule("mute !new:localhost", false, true)];
        assert_eq!(carrying.own().await[..2], carried);
    }

    /// Whoever comes in again has what they have set meanwhile.
    #[tokio::test]
    async fn up_03_rules_that_followed_before_stay_as_they_are_by_now() {
        let carrying = Carrying::new().await;
        carrying.put(about("!old:localhost", "rule", vec![])).await;
        carrying.carry().await.unwrap();
        carrying.put(about("!new:localhost", "rule !new:localhost", vec![Action::Notify])).await;
        carrying.carry().await.unwrap();
        let own = carrying.own().await;
        assert_eq!(own, [rule("rule !new:localhost", true, true), rule("rule", false, true)]);
    }

    #[tokio::test]
    async fn up_03_a_rule_that_has_no_room_for_a_longer_name_keeps_no_chat_from_following() {
        let carrying = Carrying::new().await;
        let content = json!({ "@bob:localhost": ["!old:localhost"] });
        let accounts = &carrying.world.accounts;
        let direct = content.as_object().unwrap();
        accounts.set_data(carrying.recipient, GLOBAL, DIRECT, direct).await.unwrap();
        carrying.put(about("!old:localhost", &"x".repeat(250), vec![])).await;
        carrying.carry().await.unwrap_err();
        let chats = accounts.data(carrying.recipient, alice(), GLOBAL, DIRECT).await.unwrap();
        assert_eq!(chats, json!({ "@bob:localhost": ["!old:localhost", "!new:localhost"] }));
    }
}
