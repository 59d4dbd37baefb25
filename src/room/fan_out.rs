//! From an accepted event to the queues: who gets a pointer, and what their push rules say of it.
//!
//! The rules are evaluated here, once an event, in the transaction of the event: readers only look at flags. Members
//! whose rules are the default ones share one evaluation, unless the event names them.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use futures_util::FutureExt;
use ruma::{
    OwnedUserId, UInt, UserId,
    events::AnySyncTimelineEvent,
    push::{Action, AnyPushRuleRef, FlattenedJson, PushConditionRoomCtx, Ruleset},
    serde::Raw,
};
use serde::Deserialize;

use super::{
    Event,
    snapshot::{LocalMember, Snapshot},
};
use crate::{
    account::{Accounts, IgnoredUsers},
    queue::{Kind, flags},
    store::{self, Batch, Delivery, Item},
};

/// What members want to hear of, as far as it isn't what everybody does.
#[derive(Default)]
pub(super) struct Wishes {
    /// The rules of those who have changed theirs, by recipient.
    pub(super) rules: HashMap<i64, Arc<Ruleset>>,
    /// Whom those ignore who ignore somebody.
    pub(super) ignored: HashMap<i64, IgnoredUsers>,
    /// Who doesn't want the invite that is being fanned out.
    pub(super) uninviting: Option<i64>,
}

impl Wishes {
    /// Finds out what somebody wants, unless it is known.
    pub(super) async fn learn(&mut self, accounts: &Accounts, recipient: i64) -> Result<(), store::Error> {
        if let Some(custom) = accounts.custom_push_rules(recipient).await? {
            self.rules.insert(recipient, custom);
        }
        let ignored = accounts.ignored_users(recipient).await?;
        if !ignored.is_empty() {
            self.ignored.insert(recipient, ignored);
        }
        Ok(())
    }
}

/// A user that nobody is: with its rules, an event is judged for everybody whom it doesn't name.
static NOBODY: LazyLock<OwnedUserId> =
    LazyLock::new(|| UserId::parse("@:invalid").unwrap_or_else(|_| ruma::owned_user_id!("@nobody:invalid")));
static DEFAULT_RULES: LazyLock<Ruleset> = LazyLock::new(|| Ruleset::server_default(&NOBODY));

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outcome {
    notify: bool,
    highlight: bool,
}

/// What of the content matters here.
#[derive(Default, Deserialize)]
struct Content {
    #[serde(rename = "m.mentions", default)]
    mentions: Mentions,
}

#[derive(Default, Deserialize)]
struct Mentions {
    #[serde(default)]
    user_ids: Vec<String>,
    #[serde(default)]
    room: bool,
}

/// What an event does to the state.
#[derive(Clone, Copy)]
pub(super) struct Touched<'a> {
    /// Those with an account here whose membership it changes.
    pub(super) members: &'a [LocalMember],
    /// Whether it changes anything.
    pub(super) state: bool,
}

/// Puts a pointer to `event` into the queue of everybody here whom it reaches: those who were joined before it, those
/// who are joined after it, and those whose membership it changes. `thread` is the root of the thread that it is part of.
#[expect(clippy::too_many_arguments, reason = "the two sides of an event, and what was found out about it")]
pub(super) fn fan_out(
    batch: &mut Batch,
    step: u32,
    before: &Snapshot,
    after: &Snapshot,
    event: &Event,
    touched: Touched<'_>,
    thread: String,
    wishes: &Wishes,
) {
    let pdu = &event.pdu;
    let content = if pdu.content.get().contains("\"m.mentions\"") {
        pdu.content_as::<Content>().unwrap_or_default()
    } else {
        Content::default()
    };
    let judge = Judge::new(before, event, &content.mentions, wishes);
    let newcomers = touched.members.iter().filter(|member| !before.local.contains(member));

    let recipients = before.local.iter().chain(newcomers).map(|member| {
        let outcome = judge.outcome(member);
        let own_membership = touched.members.iter().any(|other| other.recipient == member.recipient);
        let flags = [
            (touched.state, flags::STATE),
            (own_membership, flags::OWN_MEMBERSHIP),
            (pdu.redacts.is_some(), flags::REDACTION),
            (outcome.notify, flags::NOTIFY),
            (outcome.highlight, flags::HIGHLIGHT),
        ];
        let flags = flags.into_iter().filter(|(is, _)| *is).fold(0, |all, (_, flag)| all | flag);
        (member.recipient, flags)
    });
    batch.deliver(Delivery {
        step,
        kind: Kind::Event,
        room: after.number,
        item: Item::Value(event.seq),
        thread,
        recipients: recipients.collect(),
    });
}

/// Applies push rules to one event.
struct Judge<'a> {
    event: &'a Event,
    json: FlattenedJson,
    context: PushConditionRoomCtx,
    named: &'a [String],
    wishes: &'a Wishes,
    /// What the default rules say to somebody whom the event doesn't name.
    common: Outcome,
}

impl<'a> Judge<'a> {
    fn new(before: &Snapshot, event: &'a Event, mentions: &'a Mentions, wishes: &'a Wishes) -> Self {
        let raw: Raw<AnySyncTimelineEvent> = Raw::from_json(event.pdu.json.clone());
        let members = UInt::try_from(before.joined as u64).unwrap_or(UInt::MAX);
        let mut context =
            PushConditionRoomCtx::new(before.room_id.clone(), members, NOBODY.clone(), String::new());
        // Only mentions of the whole room and rules of somebody's own ask for power levels.
        if mentions.room || !wishes.rules.is_empty() {
            context = context.with_power_levels(before.power_levels().into());
        }
        let mut judge = Self {
            event,
            json: FlattenedJson::from_raw(&raw),
            context,
            named: &mentions.user_ids,
            wishes,
            common: Outcome::default(),
        };
        judge.common = judge.apply(&DEFAULT_RULES, &judge.context);
        judge
    }

    fn outcome(&self, member: &LocalMember) -> Outcome {
        let user = member.user_id.as_str();
        // PU-02: nobody is notified of what they did themselves.
        if self.event.pdu.sender == member.user_id {
            return Outcome::default();
        }
        let ignored = self.wishes.ignored.get(&member.recipient);
        if self.wishes.uninviting == Some(member.recipient)
            || ignored.is_some_and(|ignored| ignored.contains(&self.event.pdu.sender))
        {
            return Outcome::default();
        }
        let custom = self.wishes.rules.get(&member.recipient);
        let named =
            self.event.pdu.state_key.as_deref() == Some(user) || self.named.iter().any(|named| named == user);
        if custom.is_none() && !named {
            return self.common;
        }
        let mut context = self.context.clone();
        context.user_id = member.user_id.clone();
        match custom {
            Some(rules) => self.apply(rules, &context),
            None => self.apply(&Ruleset::server_default(&member.user_id), &context),
        }
    }

    fn apply(&self, rules: &Ruleset, context: &PushConditionRoomCtx) -> Outcome {
        // No condition we support waits for anything.
        let applies =
            |rule: &AnyPushRuleRef<'_>| rule.applies(&self.json, context).now_or_never() == Some(true);
        let actions = rules.iter().find(applies).map(AnyPushRuleRef::actions).unwrap_or_default();
        Outcome {
            notify: actions.iter().any(Action::should_notify),
            highlight: actions.iter().any(Action::is_highlight),
        }
    }
}
