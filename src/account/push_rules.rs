//! Push rules ("Push Rules"): the account data `m.push_rules` of a user.
//!
//! Most users never change the rules that the specification predefines: nothing is stored for them. What the rules of
//! somebody say is kept in memory, ready to be applied, since each message to each of their rooms asks for it.

use std::sync::Arc;

use ruma::{
    OwnedUserId, UserId,
    push::{Action, AnyPushRuleRef, NewPushRule, PushCondition, RuleKind, Ruleset},
};
use serde_json::{Value, json};

use super::{Accounts, Error};
use crate::{
    push::{self, RuleSet},
    store::{self, account_data::GLOBAL},
};

/// The type of the account data.
pub(super) const TYPE: &str = "m.push_rules";

/// Every message to a user is held against their rules, so these are bounded.
const MAX_RULES: usize = 500;
const MAX_RULE_ID: usize = 255;
const MAX_CONDITIONS: usize = 20;
const MAX_ACTIONS: usize = 20;
const MAX_PATTERN: usize = 512;
/// Of all patterns of a user that have wildcards, in bytes. Each byte costs a step for each character of a message.
const MAX_GLOBS: usize = 4_096;

/// The kinds of rules, in the order in which they are tried.
const KINDS: [&str; 6] = ["override", "content", "postcontent", "room", "sender", "underride"];

/// A change of the rules.
#[derive(Clone, Debug)]
pub enum RuleChange {
    /// A new rule, or a new form of one that exists. It goes right behind `after` and right before `before`, or is the
    /// most important of its kind.
    Put {
        rule: NewPushRule,
        after: Option<String>,
        before: Option<String>,
    },
    Enable {
        kind: RuleKind,
        rule_id: String,
        enabled: bool,
    },
    Actions {
        kind: RuleKind,
        rule_id: String,
        actions: Vec<Action>,
    },
    Delete {
        kind: RuleKind,
        rule_id: String,
    },
}

/// The content of `m.push_rules`.
#[derive(serde::Deserialize)]
struct Content {
    global: Ruleset,
}

/// The same, as clients get it: every kind is there, if only as an empty list, for they rely on it.
fn content(rules: &Ruleset) -> Result<Value, Error> {
    let mut global = serde_json::to_value(rules).map_err(|cause| Error::Invalid(cause.to_string()))?;
    for kind in KINDS {
        if global.get(kind).is_none() {
            global[kind] = json!([]);
        }
    }
    Ok(json!({ "global": global }))
}

impl Accounts {
    /// What a user's rules say. Users whose rules agree have the same set.
    pub async fn rule_set(&self, recipient: i64) -> Result<Arc<RuleSet>, store::Error> {
        self.push_rules.get(recipient, self.stored_rule_set(recipient)).await
    }

    async fn stored_rule_set(&self, recipient: i64) -> Result<Arc<RuleSet>, store::Error> {
        let Some((rules, user_id)) = self.stored_push_rules(recipient).await? else {
            return Ok(Arc::clone(&push::DEFAULT));
        };
        Ok(self.rule_sets.shared(RuleSet::new(&rules, &user_id)))
    }

    /// A user's rules, if they ever changed them, and who it is.
    async fn stored_push_rules(
        &self,
        recipient: i64,
    ) -> Result<Option<(Ruleset, OwnedUserId)>, store::Error> {
        let Some(content) = self.store.account_data(recipient, GLOBAL, TYPE).await? else { return Ok(None) };
        let content: Content = match serde_json::from_str(&content) {
            Ok(content) => content,
            Err(cause) => {
                tracing::error!(recipient, %cause, "stored push rules can't be read; the predefined ones hold");
                return Ok(None);
            }
        };
        let mut rules = content.global;
        let account = self.store.account(recipient).await?;
        let Some(user_id) = account.and_then(|account| UserId::parse(account.user_id).ok()) else {
            return Ok(None);
        };
        // There may be other predefined ones since they were stored.
        push::update(&mut rules, &user_id);
        Ok(Some((rules, user_id)))
    }

    /// All rules of a user, the predefined ones included.
    pub async fn push_rules(&self, recipient: i64, user_id: &UserId) -> Result<Ruleset, Error> {
        let stored = self.stored_push_rules(recipient).await?;
        Ok(stored.map_or_else(|| push::predefined(user_id), |(rules, _)| rules))
    }

    /// The content of the account data `m.push_rules`, which exists for everybody.
    pub async fn push_rules_content(&self, recipient: i64, user_id: &UserId) -> Result<Value, Error> {
        content(&self.push_rules(recipient, user_id).await?)
    }

    /// Changes a user's rules.
    pub async fn change_push_rules(
        &self,
        recipient: i64,
        user_id: &UserId,
        change: RuleChange,
    ) -> Result<(), Error> {
        let _turn = self.turns.of(recipient).await;
        let mut rules = self.push_rules(recipient, user_id).await?;
        apply(&mut rules, change)?;
        self.write(recipient, GLOBAL, TYPE, content(&rules)?.to_string()).await
    }
}

fn apply(rules: &mut Ruleset, change: RuleChange) -> Result<(), Error> {
    let unknown = Error::NotFound("push rule");
    match change {
        RuleChange::Put { rule, after, before } => {
            let globs = glob_bytes(rules);
            put(rules, rule, after.as_deref(), before.as_deref())?;
            let now = glob_bytes(rules);
            if now > MAX_GLOBS && now > globs {
                return Err(Error::Invalid(format!(
                    "all patterns with wildcards together are limited to {MAX_GLOBS} bytes"
                )));
            }
            Ok(())
        }
        RuleChange::Enable { kind, rule_id, enabled } => {
            rules.set_enabled(kind, rule_id, enabled).map_err(|_| unknown)
        }
        RuleChange::Actions { kind, rule_id, actions } => {
            rules.set_actions(kind, rule_id, checked_actions(actions)?).map_err(|_| unknown)
        }
        RuleChange::Delete { kind, rule_id } => match rules.get(kind.clone(), &rule_id) {
            None => Err(unknown),
            Some(rule) if rule.is_server_default() => {
                Err(Error::Invalid("predefined push rules can be disabled, but not deleted".to_owned()))
            }
            Some(_) => rules.remove(kind, rule_id).map_err(|_| unknown),
        },
    }
}

/// The length of all patterns with wildcards.
fn glob_bytes(rules: &Ruleset) -> usize {
    let glob = |pattern: &str| if pattern.contains(['*', '?']) { pattern.len() } else { 0 };
    let of_conditions =
        |conditions: &[PushCondition]| conditions.iter().filter_map(pattern_of).map(glob).sum::<usize>();
    let of_rule = |rule: AnyPushRuleRef<'_>| match rule {
        AnyPushRuleRef::Content(rule) => glob(&rule.pattern),
        AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule) => of_conditions(&rule.conditions),
        _ => 0,
    };
    rules.iter().map(of_rule).sum()
}

fn pattern_of(condition: &PushCondition) -> Option<&str> {
    match condition {
        PushCondition::EventMatch(condition) => Some(&condition.pattern),
        _ => None,
    }
}

fn put(
    rules: &mut Ruleset,
    mut rule: NewPushRule,
    after: Option<&str>,
    before: Option<&str>,
) -> Result<(), Error> {
    let refused = |what: &str, limit: usize| Err(Error::Invalid(format!("{what} is limited to {limit}")));
    let conditions: &[PushCondition] = match &mut rule {
        NewPushRule::Override(rule) | NewPushRule::Underride(rule) => {
            rule.actions = checked_actions(std::mem::take(&mut rule.actions))?;
            &rule.conditions
        }
        NewPushRule::Content(rule) => {
            rule.actions = checked_actions(std::mem::take(&mut rule.actions))?;
            if rule.pattern.len() > MAX_PATTERN {
                return refused("the length of a pattern", MAX_PATTERN);
            }
            &[]
        }
        NewPushRule::Room(rule) => {
            rule.actions = checked_actions(std::mem::take(&mut rule.actions))?;
            &[]
        }
        NewPushRule::Sender(rule) => {
            rule.actions = checked_actions(std::mem::take(&mut rule.actions))?;
            &[]
        }
        _ => return Err(Error::Invalid("this kind of push rule is not known".to_owned())),
    };
    if conditions.len() > MAX_CONDITIONS {
        return refused("the number of conditions", MAX_CONDITIONS);
    }
    if conditions.iter().filter_map(pattern_of).any(|pattern| pattern.len() > MAX_PATTERN) {
        return refused("the length of a pattern", MAX_PATTERN);
    }
    // Bounds every key and value that the conditions hold, known or not.
    let size = serde_json::to_string(conditions).map_or(usize::MAX, |text| text.len());
    if size > MAX_CONDITIONS * MAX_PATTERN {
        return refused("the size of the conditions", MAX_CONDITIONS * MAX_PATTERN);
    }
    if rule.rule_id().len() > MAX_RULE_ID {
        return refused("the length of a rule id", MAX_RULE_ID);
    }
    let (kind, rule_id) = (rule.kind(), rule.rule_id().to_owned());
    let old = rules.get(kind.clone(), &rule_id).map(|rule| (rule.is_server_default(), rule.enabled()));
    if [after, before].contains(&Some(rule_id.as_str())) {
        return Err(Error::Invalid("a push rule can't stand next to itself".to_owned()));
    }
    let moves = after.is_some() || before.is_some();
    if let Some((false, enabled)) = old
        && moves
    {
        // Anew, at its new place.
        let removed = rules.remove(kind.clone(), &rule_id);
        removed.map_err(|cause| Error::Invalid(cause.to_string()))?;
        insert(rules, rule, after, before)?;
        return rules.set_enabled(kind, rule_id, enabled).map_err(|_| Error::NotFound("push rule"));
    }
    if old.is_none() && rules.iter().count() >= MAX_RULES {
        return refused("the number of push rules", MAX_RULES);
    }
    insert(rules, rule, after, before)
}

fn insert(
    rules: &mut Ruleset,
    rule: NewPushRule,
    after: Option<&str>,
    before: Option<&str>,
) -> Result<(), Error> {
    rules.insert(rule, after, before).map_err(|cause| Error::Invalid(cause.to_string()))
}

/// Without what means nothing any more ("Actions").
fn checked_actions(actions: Vec<Action>) -> Result<Vec<Action>, Error> {
    if actions.len() > MAX_ACTIONS {
        return Err(Error::Invalid(format!("the number of actions is limited to {MAX_ACTIONS}")));
    }
    let text = |action: &Action| serde_json::to_value(action).ok();
    let size: usize = actions.iter().filter_map(text).map(|value| value.to_string().len()).sum();
    if size > MAX_ACTIONS * MAX_PATTERN {
        return Err(Error::Invalid("the actions are too large".to_owned()));
    }
    let obsolete = [json!("dont_notify"), json!("coalesce")];
    Ok(actions
        .into_iter()
        .filter(|action| text(action).is_none_or(|value| !obsolete.contains(&value)))
        .collect())
}

#[cfg(test)]
mod tests {
    use ruma::{
        push::{NewConditionalPushRule, NewPatternedPushRule},
        user_id,
    };

    use super::*;

    fn defaults() -> Ruleset {
        push::predefined(user_id!("@alice:example.org"))
    }

    fn rule(id: &str) -> NewPushRule {
        NewPushRule::Override(NewConditionalPushRule::new(id.to_owned(), vec![], vec![Action::Notify]))
    }

    fn put_at(rules: &mut Ruleset, id: &str, after: Option<&str>, before: Option<&str>) -> Result<(), Error> {
        let (after, before) = (after.map(str::to_owned), before.map(str::to_owned));
        apply(rules, RuleChange::Put { rule: rule(id), after, before })
    }

    fn ids(rules: &Ruleset) -> Vec<&str> {
        rules.override_.iter().map(|rule| rule.rule_id.as_str()).take_while(|id| *id != SECOND).collect()
    }

    const MASTER: &str = ".m.rule.master";
    const SECOND: &str = ".org.matrix.msc4028.encrypted_event";

    #[test]
    fn pu_07_a_new_rule_is_the_most_important_but_for_the_master() {
        let mut rules = defaults();
        put_at(&mut rules, "a", None, None).unwrap();
        put_at(&mut rules, "b", None, None).unwrap();
        assert_eq!(ids(&rules), [MASTER, "b", "a"]);
    }

    #[test]
    fn pu_07_rules_go_where_they_are_told() {
        let mut rules = defaults();
        for id in ["c", "b", "a"] {
            put_at(&mut rules, id, None, None).unwrap();
        }
        put_at(&mut rules, "d", Some("c"), None).unwrap();
        assert_eq!(ids(&rules), [MASTER, "a", "b", "c", "d"], "after the last one");
        put_at(&mut rules, "e", None, Some("b")).unwrap();
        assert_eq!(ids(&rules), [MASTER, "a", "e", "b", "c", "d"]);
        put_at(&mut rules, "a", Some("d"), None).unwrap();
        assert_eq!(ids(&rules), [MASTER, "e", "b", "c", "d", "a"], "one that exists moves");
        for (after, before) in
            [(Some("a"), None), (None, Some("a")), (Some("none"), None), (Some(SECOND), None)]
        {
            let mut copy = rules.clone();
            assert!(matches!(put_at(&mut copy, "a", after, before), Err(Error::Invalid(_))), "{after:?}");
        }
        assert!(put_at(&mut rules.clone(), "f", Some("d"), Some("e")).is_err());
    }

    #[test]
    fn pu_07_a_rule_that_moves_stays_disabled() {
        let mut rules = defaults();
        put_at(&mut rules, "a", None, None).unwrap();
        put_at(&mut rules, "b", None, None).unwrap();
        let disable =
            RuleChange::Enable { kind: RuleKind::Override, rule_id: "a".to_owned(), enabled: false };
        apply(&mut rules, disable).unwrap();
        put_at(&mut rules, "a", None, Some("b")).unwrap();
        assert_eq!(ids(&rules), [MASTER, "a", "b"]);
        assert!(!rules.get(RuleKind::Override, "a").unwrap().enabled());
    }

    #[test]
    fn pu_08_reserved_names_are_refused_and_predefined_rules_stay() {
        let mut rules = defaults();
        for id in [".mine", "a/b", "a\\b", MASTER] {
            assert!(matches!(put_at(&mut rules, id, None, None), Err(Error::Invalid(_))), "{id}");
        }
        let kind = RuleKind::Override;
        let delete = |rule_id: &str| RuleChange::Delete { kind: kind.clone(), rule_id: rule_id.to_owned() };
        assert!(matches!(apply(&mut rules, delete(MASTER)), Err(Error::Invalid(_))));
        assert!(matches!(apply(&mut rules, delete("none")), Err(Error::NotFound(_))));
        let enable = RuleChange::Enable { kind: kind.clone(), rule_id: MASTER.to_owned(), enabled: true };
        apply(&mut rules, enable).unwrap();
        assert!(rules.get(kind, MASTER).unwrap().enabled());
    }

    #[test]
    fn pu_06_obsolete_actions_are_dropped() {
        let actions: Vec<Action> = serde_json::from_value(
            json!(["notify", "dont_notify", "coalesce", { "set_tweak": "highlight" }]),
        )
        .unwrap();
        assert_eq!(checked_actions(actions).unwrap().len(), 2);
    }

    #[test]
    fn rules_are_bounded() {
        let mut rules = defaults();
        let results: Vec<_> =
            (0..=MAX_RULES).map(|number| put_at(&mut rules, &format!("r{number}"), None, None)).collect();
        assert!(results.first().is_some_and(Result::is_ok));
        assert!(results.last().is_some_and(Result::is_err));
        let pattern = "*?".repeat(MAX_PATTERN);
        let long = NewPushRule::Content(NewPatternedPushRule::new("p".to_owned(), pattern, vec![]));
        let put = RuleChange::Put { rule: long, after: None, before: None };
        assert!(matches!(apply(&mut rules, put), Err(Error::Invalid(_))));
        assert!(put_at(&mut defaults(), &"a".repeat(256), None, None).is_err());
    }
}
