//! From an accepted event to the queues: who gets a pointer, and what their push rules say of it.
//!
//! The rules are evaluated here, once an event, in the transaction of the event: readers only look at flags. Members
//! whose rules agree share one evaluation.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{OwnedServerName, UserId};
use serde::Deserialize;

use super::{
    Event,
    snapshot::{LocalMember, Snapshot},
};
use crate::{
    account::{Accounts, IgnoredUsers},
    push::{self, Facts, Named, Outcome, RuleSet, Sound},
    queue::{Kind, flags},
    store::{self, Batch, Delivery, Item},
};

/// Which other servers are told of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Outward {
    /// It came from one that tells all others.
    #[default]
    Nobody,
    /// It was made here.
    Everybody,
    /// This one handed it to us alone.
    EverybodyBut(OwnedServerName),
}

/// What members want to hear of, as far as it isn't what everybody does.
#[derive(Default)]
pub(super) struct Wishes {
    /// The rules of those who don't have the predefined ones, by recipient.
    pub(super) rules: HashMap<i64, Arc<RuleSet>>,
    /// Whom those ignore who ignore somebody.
    pub(super) ignored: HashMap<i64, IgnoredUsers>,
    /// Of the members who ever subscribed to a thread, whether they are subscribed to the one that the event that is being
    /// fanned out is part of (MSC4306).
    pub(super) subscriptions: HashMap<i64, bool>,
    /// Which other servers are told of the event that is being fanned out.
    pub(super) outward: Outward,
    /// Their numbers.
    pub(super) servers: Vec<i64>,
    /// Members with an account here whose membership the state changed that came with the event.
    pub(super) entered: Vec<LocalMember>,
    /// Who doesn't want the invite that is being fanned out.
    pub(super) uninviting: Option<i64>,
    /// The event that is being fanned out is redacted already: there is nothing to be notified of.
    pub(super) redacted: bool,
}

impl Wishes {
    /// Finds out what somebody wants, unless it is known.
    pub(super) async fn learn(&mut self, accounts: &Accounts, recipient: i64) -> Result<(), store::Error> {
        let rules = accounts.rule_set(recipient).await?;
        if !Arc::ptr_eq(&rules, &push::DEFAULT) {
            self.rules.insert(recipient, rules);
        }
        let ignored = accounts.ignored_users(recipient).await?;
        if !ignored.is_empty() {
            self.ignored.insert(recipient, ignored);
        }
        Ok(())
    }

    /// Finds out which of these members, who are all of the room's, want to hear of a thread; empty: of none.
    pub(super) async fn learn_thread(
        &mut self,
        accounts: &Accounts,
        members: &[LocalMember],
        room: i64,
        thread: &str,
    ) -> Result<(), store::Error> {
        self.subscriptions.clear();
        if !thread.is_empty() {
            let members = members.iter().map(|member| member.recipient).collect();
            self.subscriptions = accounts.thread_subscriptions_of(members, room, thread).await?;
        }
        Ok(())
    }
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
    let powers = || before.power_levels().into();
    let facts = Facts::new(
        &pdu.kind.to_string(),
        &pdu.sender,
        &before.room_id,
        pdu.state_key.as_deref(),
        pdu.content.get(),
        before.joined,
        &powers,
    );
    let mut judge = Judge::new(before, event, &facts, wishes);
    // It says nothing of who isn't there (delayed events are of no device, a new name is state), and a redaction is in no thread.
    let by_device = event.sent_by.as_ref().is_some_and(|by| by.device > 0);
    let reads = by_device && !pdu.is_state() && pdu.redacts.is_none();
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
            (outcome.sound.is_some(), flags::SOUND),
            (outcome.sound == Some(Sound::Ring), flags::RING),
            (reads && pdu.sender == member.user_id, flags::READ),
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
        recipients: recipients.chain(wishes.servers.iter().map(|server| (*server, 0))).collect(),
    });
}

/// Finds out what the rules of each member say of one event, once for all whose rules agree and whom it names alike.
struct Judge<'a> {
    before: &'a Snapshot,
    event: &'a Event,
    facts: &'a Facts<'a>,
    mentioned: HashSet<&'a str>,
    wishes: &'a Wishes,
    /// By the set of rules, and what the event is to the member.
    known: HashMap<(*const RuleSet, Named<'a>), Outcome>,
}

impl<'a> Judge<'a> {
    fn new(before: &'a Snapshot, event: &'a Event, facts: &'a Facts<'a>, wishes: &'a Wishes) -> Self {
        Self { before, event, facts, mentioned: facts.mentioned(), wishes, known: HashMap::new() }
    }

    fn outcome(&mut self, member: &LocalMember) -> Outcome {
        let sender = &self.event.pdu.sender;
        // PU-02: nobody is notified of what they did themselves.
        let unwanted = self.wishes.redacted || self.wishes.uninviting == Some(member.recipient);
        if *sender == member.user_id || unwanted {
            return Outcome::default();
        }
        if self.wishes.ignored.get(&member.recipient).is_some_and(|ignored| ignored.contains(sender)) {
            return Outcome::default();
        }
        let rules = self.wishes.rules.get(&member.recipient).unwrap_or(&push::DEFAULT);
        let named = Named {
            by_state_key: self.event.pdu.state_key.as_deref() == Some(member.user_id.as_str()),
            mentioned: self.mentioned.contains(member.user_id.as_str()),
            subscribed: self.wishes.subscriptions.get(&member.recipient).copied(),
            display_name: None,
        };
        if rules.asks_for_names() {
            let display_name = display_name(self.before, &member.user_id);
            return rules.apply(self.facts, Named { display_name: display_name.as_deref(), ..named });
        }
        let key = (Arc::as_ptr(rules), named);
        *self.known.entry(key).or_insert_with(|| rules.apply(self.facts, named))
    }
}

fn display_name(room: &Snapshot, user_id: &UserId) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        displayname: Option<String>,
    }
    room.member(user_id)?.pdu.content_as::<Content>().ok()?.displayname
}
