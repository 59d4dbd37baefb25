//! Sets of rules, and applying them.

use std::{
    cell::{OnceCell, RefCell},
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    rc::Rc,
    sync::{Arc, LazyLock, Weak},
};

use parking_lot::Mutex;
use ruma::{
    OwnedUserId, RoomId, UInt, UserId,
    power_levels::NotificationPowerLevelsKey,
    push::{
        Action, AnyPushRuleRef, PushCondition, PushConditionPowerLevelsCtx, RoomMemberCountIs, Ruleset,
        ScalarJsonValue,
    },
};
use serde_json::Value;

use super::{
    pattern::{Budget, Pattern, lower},
    predefined::predefined,
};

/// What the patterns of one set may cost for one event, in comparisons of characters: some milliseconds. Patterns that
/// come after that don't match.
const BUDGET: u64 = 2_000_000;

const MENTIONS: &str = r"content.m\.mentions.user_ids";

/// The predefined rules, which most have.
pub static DEFAULT: LazyLock<Arc<RuleSet>> = LazyLock::new(|| {
    let nobody: OwnedUserId =
        UserId::parse("@:invalid").unwrap_or_else(|_| ruma::owned_user_id!("@nobody:invalid"));
    Arc::new(RuleSet::new(&predefined(&nobody), &nobody))
});

/// What rules say of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outcome {
    pub notify: bool,
    pub highlight: bool,
    pub sound: Option<Sound>,
}

/// The sounds that clients tell apart. Any other name counts as the default: no client knows one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sound {
    Default,
    /// Of calls.
    Ring,
}

impl Sound {
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Ring => "ring",
        }
    }
}

/// What an event is to a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Named<'a> {
    /// It is state about them.
    pub by_state_key: bool,
    /// It is among those whom it mentions.
    pub mentioned: bool,
    /// Whether they are subscribed to the thread that it is part of; `None` outside of threads, and for those who never
    /// subscribed to any.
    pub subscribed: Option<bool>,
    /// The user's name in the room, for sets that ask for it ([`RuleSet::asks_for_names`]).
    pub display_name: Option<&'a str>,
}

/// Rules that are on, in the order in which they are tried.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct RuleSet {
    rules: Vec<Rule>,
    asks_for_names: bool,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Rule {
    conditions: Vec<Condition>,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Condition {
    Matches {
        field: Field,
        pattern: Pattern,
    },
    /// `content.body`, word by word.
    HasWords(Pattern),
    Is {
        field: Field,
        value: Scalar,
    },
    Contains {
        field: Field,
        value: Scalar,
    },
    Members {
        from: Option<u64>,
        to: Option<u64>,
    },
    /// The sender has the power to notify in this way.
    SenderMay(String),
    InRoom(String),
    SentBy(String),
    NamesMeByStateKey,
    MentionsMe,
    HasMyName,
    /// It is part of a thread that the user is subscribed to, or of one that they aren't (MSC4306).
    InThread {
        subscribed: bool,
    },
    /// Of a kind that isn't known.
    Never,
}

/// A place in an event: the keys on the way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Field(Vec<String>);

impl Field {
    /// From a path with dots between the keys; `\.` is a dot and `\\` a backslash of a key ("Dot-separated property paths").
    fn new(path: &str) -> Self {
        let mut keys = vec![String::new()];
        let mut characters = path.chars().peekable();
        while let Some(character) = characters.next() {
            let last = keys.len() - 1;
            match character {
                '.' => keys.push(String::new()),
                '\\' => {
                    let escaped = characters.next_if(|next| matches!(next, '.' | '\\'));
                    keys[last].push(escaped.unwrap_or('\\'));
                }
                character => keys[last].push(character),
            }
        }
        Self(keys)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Scalar {
    Null,
    Bool(bool),
    Integer(i64),
    Text(String),
}

impl From<&ScalarJsonValue> for Scalar {
    fn from(value: &ScalarJsonValue) -> Self {
        match value {
            ScalarJsonValue::Null => Self::Null,
            ScalarJsonValue::Bool(value) => Self::Bool(*value),
            ScalarJsonValue::Integer(value) => Self::Integer((*value).into()),
            ScalarJsonValue::String(value) => Self::Text(value.clone()),
        }
    }
}

impl Scalar {
    fn is(&self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::Bool(own) => value.as_bool() == Some(*own),
            Self::Integer(own) => value.as_i64() == Some(*own),
            Self::Text(own) => value.as_str() == Some(own),
        }
    }
}

impl RuleSet {
    /// What these rules of `user_id` say.
    pub fn new(rules: &Ruleset, user_id: &UserId) -> Self {
        let rules: Vec<Rule> = rules.iter().filter_map(|rule| Rule::new(rule, user_id)).collect();
        let mut conditions = rules.iter().flat_map(|rule| &rule.conditions);
        let asks_for_names = conditions.any(|condition| *condition == Condition::HasMyName);
        Self { rules, asks_for_names }
    }

    /// Whether it says different things to users of different names.
    pub fn asks_for_names(&self) -> bool {
        self.asks_for_names
    }

    /// What it says of an event to somebody who didn't send it.
    pub fn apply(&self, facts: &Facts<'_>, named: Named<'_>) -> Outcome {
        let budget = Budget::new(BUDGET);
        let applies =
            |rule: &&Rule| rule.conditions.iter().all(|condition| facts.fulfil(condition, named, &budget));
        // PU-02: the first that matches decides.
        let deciding = self.rules.iter().find(applies);
        deciding.map_or(Outcome::default(), |rule| rule.outcome)
    }
}

impl Rule {
    fn new(rule: AnyPushRuleRef<'_>, user_id: &UserId) -> Option<Self> {
        if !rule.enabled() {
            return None;
        }
        let conditions = match rule {
            AnyPushRuleRef::Override(rule)
            | AnyPushRuleRef::PostContent(rule)
            | AnyPushRuleRef::Underride(rule) => {
                rule.conditions.iter().map(|given| condition(given, rule.default, user_id)).collect()
            }
            AnyPushRuleRef::Content(rule) => vec![Condition::HasWords(Pattern::new(&rule.pattern))],
            AnyPushRuleRef::Room(rule) => vec![Condition::InRoom(rule.rule_id.to_string())],
            AnyPushRuleRef::Sender(rule) => vec![Condition::SentBy(rule.rule_id.to_string())],
            _ => vec![Condition::Never],
        };
        let actions = rule.actions();
        let sound = actions.iter().find_map(Action::sound);
        let outcome = Outcome {
            notify: actions.iter().any(Action::should_notify),
            highlight: actions.iter().any(Action::is_highlight),
            sound: sound.map(|sound| if sound.as_str() == "ring" { Sound::Ring } else { Sound::Default }),
        };
        Some(Self { conditions, outcome })
    }
}

/// `of_all`: of a rule that everybody has.
fn condition(given: &PushCondition, of_all: bool, user_id: &UserId) -> Condition {
    match given {
        PushCondition::EventMatch(data) => match data.key.as_str() {
            "state_key" if of_all && data.pattern == user_id.as_str() => Condition::NamesMeByStateKey,
            "content.body" => Condition::HasWords(Pattern::new(&data.pattern)),
            key => Condition::Matches { field: Field::new(key), pattern: Pattern::new(&data.pattern) },
        },
        PushCondition::EventPropertyIs(data) => {
            Condition::Is { field: Field::new(&data.key), value: (&data.value).into() }
        }
        PushCondition::EventPropertyContains(data) => {
            if data.key == MENTIONS && data.value.as_str() == Some(user_id.as_str()) {
                return Condition::MentionsMe;
            }
            Condition::Contains { field: Field::new(&data.key), value: (&data.value).into() }
        }
        PushCondition::RoomMemberCount(data) => members(&data.is),
        PushCondition::SenderNotificationPermission(data) => Condition::SenderMay(data.key.to_string()),
        #[expect(deprecated, reason = "rules of users may have it still")]
        PushCondition::ContainsDisplayName => Condition::HasMyName,
        PushCondition::ThreadSubscription(data) => Condition::InThread { subscribed: data.subscribed },
        _ => Condition::Never,
    }
}

fn members(is: &RoomMemberCountIs) -> Condition {
    use std::ops::{Bound, RangeBounds as _};
    let from = match is.start_bound() {
        Bound::Included(from) => Some(u64::from(*from)),
        Bound::Excluded(from) => Some(u64::from(*from).saturating_add(1)),
        Bound::Unbounded => None,
    };
    let to = match is.end_bound() {
        Bound::Included(to) => Some(u64::from(*to)),
        // Fewer than none is impossible.
        Bound::Excluded(to) if *to == UInt::MIN => return Condition::Never,
        Bound::Excluded(to) => Some(u64::from(*to) - 1),
        Bound::Unbounded => None,
    };
    Condition::Members { from, to }
}

/// What the rules ask of one event.
pub struct Facts<'a> {
    kind: Value,
    sender: Value,
    room_id: Value,
    state_key: Option<Value>,
    content: Value,
    members: u64,
    powers: &'a dyn Fn() -> PushConditionPowerLevelsCtx,
    known_powers: OnceCell<PushConditionPowerLevelsCtx>,
    /// Texts in lower case, by where they are: many patterns are held against one text.
    lower: RefCell<HashMap<usize, Rc<str>>>,
}

impl<'a> Facts<'a> {
    /// `content` is JSON; `members` is how many are joined; `powers` is called if a rule asks for it.
    pub fn new(
        kind: &str,
        sender: &UserId,
        room_id: &RoomId,
        state_key: Option<&str>,
        content: &str,
        members: usize,
        powers: &'a dyn Fn() -> PushConditionPowerLevelsCtx,
    ) -> Self {
        Self {
            kind: kind.into(),
            sender: sender.as_str().into(),
            room_id: room_id.as_str().into(),
            state_key: state_key.map(Value::from),
            content: serde_json::from_str(content).unwrap_or_default(),
            members: members as u64,
            powers,
            known_powers: OnceCell::new(),
            lower: RefCell::default(),
        }
    }

    /// Whom the event mentions.
    pub fn mentioned(&self) -> HashSet<&str> {
        let list = self.content.get("m.mentions").and_then(|mentions| mentions.get("user_ids"));
        list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    fn get(&self, Field(keys): &Field) -> Option<&Value> {
        let (first, rest) = keys.split_first()?;
        if first == "content" {
            return rest.iter().try_fold(&self.content, |value, key| value.as_object()?.get(key));
        }
        if !rest.is_empty() {
            return None;
        }
        match first.as_str() {
            "type" => Some(&self.kind),
            "sender" => Some(&self.sender),
            "room_id" => Some(&self.room_id),
            "state_key" => self.state_key.as_ref(),
            _ => None,
        }
    }

    fn lower(&self, text: &str) -> Rc<str> {
        let mut known = self.lower.borrow_mut();
        Rc::clone(known.entry(text.as_ptr() as usize).or_insert_with(|| lower(text).into()))
    }

    fn body(&self) -> Option<Rc<str>> {
        self.content.get("body").and_then(Value::as_str).map(|body| self.lower(body))
    }

    fn fulfil(&self, condition: &Condition, named: Named<'_>, budget: &Budget) -> bool {
        match condition {
            Condition::Matches { field, pattern } => {
                let Some(text) = self.get(field).and_then(Value::as_str) else { return false };
                match pattern.exact() {
                    Some(exact) if text.is_ascii() => text.eq_ignore_ascii_case(exact),
                    _ => pattern.matches(&self.lower(text), budget),
                }
            }
            Condition::HasWords(pattern) => {
                self.body().is_some_and(|body| pattern.matches_words(&body, budget))
            }
            Condition::Is { field, value } => self.get(field).is_some_and(|found| value.is(found)),
            Condition::Contains { field, value } => {
                let list = self.get(field).and_then(Value::as_array);
                list.is_some_and(|list| list.iter().any(|found| value.is(found)))
            }
            Condition::Members { from, to } => {
                from.is_none_or(|from| self.members >= from) && to.is_none_or(|to| self.members <= to)
            }
            Condition::SenderMay(way) => {
                let powers = self.known_powers.get_or_init(self.powers);
                let sender = self.sender.as_str().and_then(|sender| <&UserId>::try_from(sender).ok());
                let way = NotificationPowerLevelsKey::from(way.as_str());
                sender.is_some_and(|sender| powers.has_sender_notification_permission(sender, &way))
            }
            Condition::InRoom(room_id) => self.room_id.as_str() == Some(room_id),
            Condition::SentBy(user_id) => self.sender.as_str() == Some(user_id),
            Condition::NamesMeByStateKey => named.by_state_key,
            Condition::MentionsMe => named.mentioned,
            Condition::InThread { subscribed } => named.subscribed == Some(*subscribed),
            Condition::HasMyName => {
                let name = named.display_name.filter(|name| !name.is_empty());
                let words = name.map(Pattern::literal);
                words.is_some_and(|words| self.body().is_some_and(|body| words.matches_words(&body, budget)))
            }
            Condition::Never => false,
        }
    }
}

/// Keeps sets that agree together.
#[derive(Default)]
pub struct RuleSets {
    known: Mutex<HashMap<u64, Vec<Weak<RuleSet>>>>,
    hasher: RandomState,
}

impl RuleSets {
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.known.lock().len()
    }

    /// The set that is in use already, if one agrees with this one.
    pub fn shared(&self, set: RuleSet) -> Arc<RuleSet> {
        if set == **DEFAULT {
            return Arc::clone(&DEFAULT);
        }
        let mut known = self.known.lock();
        let hash = self.hasher.hash_one(&set);
        if let Some(same) = known
            .get(&hash)
            .and_then(|sets| sets.iter().filter_map(Weak::upgrade).find(|other| **other == set))
        {
            return same;
        }
        // Whoever has sets made pays for those that are gone.
        if known.len().is_power_of_two() {
            known.retain(|_, sets| {
                sets.retain(|set| set.strong_count() > 0);
                !sets.is_empty()
            });
        }
        let set = Arc::new(set);
        known.entry(hash).or_default().push(Arc::downgrade(&set));
        set
    }
}
