//! One room's part of a sync answer.

use std::{collections::BTreeSet, sync::Arc};

use ruma::{
    UserId,
    events::{StateEventType, room::member::MembershipState},
};
use serde_json::{json, value::RawValue};

use super::{
    body::{
        Events, InvitedRoom, JoinedRoom, KnockedRoom, LeftRoom, RoomsBody, StateBody, SummaryBody, Timeline,
        UnreadBody,
    },
    changes::RoomChanges,
    long_poll::{Error, Request, Syncs},
};
use crate::{
    account::Session,
    queue::{Counts, Token},
    room::{Event, Reader, Room, Sight, Snapshot},
    store::receipt::ReceiptRow,
};

/// State that somebody who is invited to a room, or knocks, gets to see of it.
const STRIPPED: [StateEventType; 8] = [
    StateEventType::RoomCreate,
    StateEventType::RoomJoinRules,
    StateEventType::RoomName,
    StateEventType::RoomAvatar,
    StateEventType::RoomTopic,
    StateEventType::RoomCanonicalAlias,
    StateEventType::RoomEncryption,
    StateEventType::RoomHistoryVisibility,
];

/// What is asked of one room.
pub(super) struct RoomSync<'a> {
    pub(super) syncs: &'a Syncs,
    pub(super) session: &'a Session,
    pub(super) request: &'a Request,
    pub(super) room: Arc<Room>,
    pub(super) changes: RoomChanges,
    /// The device has nothing of this room yet, or asked for all of its state.
    pub(super) whole: bool,
    /// The device is up to date about this room but for `changes`.
    pub(super) since: bool,
    /// Everybody's typing, if it changed.
    pub(super) typing: Option<Vec<ruma::OwnedUserId>>,
    /// Unread counts, if they were counted already.
    pub(super) counts: Option<Counts>,
}

/// The events of a timeline and what is around them.
struct Slice {
    events: Vec<Arc<Event>>,
    /// The last event before the timeline.
    before: i64,
    /// The last event of the timeline.
    end: i64,
    limited: bool,
}

impl RoomSync<'_> {
    pub(super) async fn add_to(self, rooms: &mut RoomsBody) -> Result<(), Error> {
        let snapshot = self.room.snapshot();
        let user_id = &self.session.user_id;
        let room_id = self.room.room_id.clone();
        match self.membership(&snapshot).await? {
            MembershipState::Join => {
                if let Some(joined) = self.joined(&snapshot).await? {
                    rooms.join.insert(room_id, joined);
                }
            }
            MembershipState::Invite if self.whole || self.changes.own_membership => {
                let invite_state = stripped(&snapshot, user_id)?.into();
                rooms.invite.insert(room_id, InvitedRoom { invite_state });
            }
            MembershipState::Knock if self.whole || self.changes.own_membership => {
                let knock_state = stripped(&snapshot, user_id)?.into();
                rooms.knock.insert(room_id, KnockedRoom { knock_state });
            }
            MembershipState::Leave | MembershipState::Ban
                if self.whole || self.changes.own_membership || !self.changes.account_data.is_empty() =>
            {
                let left = self.left().await?;
                rooms.leave.insert(room_id, left);
            }
            _ => {}
        }
        Ok(())
    }

    /// The user's membership at the end of the span. The room may be further by now.
    async fn membership(&self, snapshot: &Snapshot) -> Result<MembershipState, Error> {
        let user_id = &self.session.user_id;
        let Some(current) = snapshot.member(user_id) else { return Ok(MembershipState::Leave) };
        match self.changes.seqs.last() {
            Some(end) if current.seq > *end => {
                Ok(self.syncs.rooms.membership_at(&self.room, user_id, *end).await?)
            }
            _ => Ok(snapshot.membership(user_id)),
        }
    }

    async fn joined(&self, snapshot: &Snapshot) -> Result<Option<JoinedRoom>, Error> {
        let user_id = &self.session.user_id;
        let first = self.changes.seqs.first().copied();
        // Whether the room is new to the device: then it gets it whole (SY-17).
        let arrived = match first {
            Some(first) if self.since && self.changes.own_membership => {
                self.syncs.rooms.membership_at(&self.room, user_id, first - 1).await? != MembershipState::Join
            }
            _ => !self.since,
        };
        if arrived {
            self.syncs.lazy.forget(self.session.device, self.room.number);
        }
        let slice = if arrived { self.latest(snapshot).await? } else { self.span(snapshot).await? };
        let sight = self.sight(&slice).await?;
        let state =
            self.state(snapshot, &slice, arrived, first.map(|first| first - 1), sight.as_ref()).await?;
        let summary = (arrived || self.whole || self.changes.state).then(|| {
            let summary = crate::room::summary(snapshot, user_id);
            SummaryBody { heroes: summary.heroes, joined: summary.joined, invited: summary.invited }
        });
        let (unread, threads) = self.unread(arrived).await?;
        let joined = JoinedRoom {
            timeline: self.timeline(&slice, sight.as_ref()).await?,
            state,
            ephemeral: self.ephemeral(arrived).await?.into(),
            account_data: self.account_data(arrived).await?.into(),
            summary,
            unread_notifications: unread,
            unread_thread_notifications: threads,
        };
        let empty = joined.timeline.events.is_empty()
            && !joined.timeline.limited
            && joined.ephemeral.is_empty()
            && joined.account_data.is_empty()
            && joined.unread_notifications.is_none()
            && joined.state.state.as_ref().is_none_or(Events::is_empty)
            && joined.state.state_after.as_ref().is_none_or(Events::is_empty);
        Ok((!empty || arrived || self.whole).then_some(joined))
    }

    async fn left(&self) -> Result<LeftRoom, Error> {
        let user_id = &self.session.user_id;
        let snapshot = self.room.snapshot();
        let end = match self.changes.seqs.last() {
            Some(end) => *end,
            None => snapshot.member(user_id).map_or(0, |member| member.seq),
        };
        let first = self.changes.seqs.first().copied();
        let was_joined = match first {
            Some(first) if self.since => {
                self.syncs.rooms.membership_at(&self.room, user_id, first - 1).await? == MembershipState::Join
            }
            _ => false,
        };
        let slice = if was_joined { self.span(&snapshot).await? } else { self.visible_until(end).await? };
        let sight = self.syncs.rooms.sight(&self.room, user_id).await?;
        let since = first.filter(|_| was_joined).map(|first| first - 1);
        let state = match since {
            Some(_) => self.state(&snapshot, &slice, false, since, Some(&sight)).await?,
            // Somebody who was never in gets no state with their leaving.
            None if !self.ever_joined(end).await? => self.no_state(),
            None => self.state(&snapshot, &slice, true, None, Some(&sight)).await?,
        };
        Ok(LeftRoom {
            timeline: self.timeline(&slice, Some(&sight)).await?,
            state,
            account_data: self.account_data(!self.since).await?.into(),
        })
    }

    async fn ever_joined(&self, end: i64) -> Result<bool, Error> {
        let left = self.syncs.rooms.membership_at(&self.room, &self.session.user_id, end - 1).await?;
        Ok(left == MembershipState::Join)
    }

    /// The end of the room's log, as far as the user may see it.
    async fn latest(&self, snapshot: &Snapshot) -> Result<Slice, Error> {
        let end = self.changes.seqs.last().copied().unwrap_or(snapshot.last_seq);
        self.visible_until(end).await
    }

    async fn visible_until(&self, end: i64) -> Result<Slice, Error> {
        let limit = self.request.filter.timeline_limit();
        let sight = self.syncs.rooms.sight(&self.room, &self.session.user_id).await?;
        let mut events: Vec<Arc<Event>> = Vec::new();
        let mut from = end;
        // Rooms whose last events are all hidden or filtered out are given up on after a while; paging goes on from there.
        for _ in 0..8 {
            if events.len() > limit || from <= 0 {
                break;
            }
            let page = self.syncs.rooms.log_backwards(&self.room, from, limit as i64 + 1).await?;
            let Some(last) = page.last() else { break };
            from = last.seq - 1;
            let shown = page.into_iter().filter(|event| {
                event.is_visible() && sight.may_see(event.seq) && self.request.filter.timeline(event)
            });
            events.extend(shown);
        }
        let limited = events.len() > limit || from > 0;
        events.truncate(limit);
        events.reverse();
        // A timeline of nothing begins where it ends.
        let before = events.first().map_or(end, |event| event.seq - 1);
        Ok(Slice { events, before, end, limited })
    }

    /// The events that the queue announced.
    async fn span(&self, snapshot: &Snapshot) -> Result<Slice, Error> {
        let limit = self.request.filter.timeline_limit();
        let seqs = &self.changes.seqs;
        let end = seqs.last().copied().unwrap_or(snapshot.last_seq);
        let mut events: Vec<Arc<Event>> = Vec::new();
        let mut limited = false;
        // Newest first, so that a device that was away long doesn't make us read all that it missed.
        for chunk in seqs.rchunks(limit.clamp(16, 128)) {
            let page = self.syncs.rooms.events(&self.room, chunk).await?;
            let shown = page
                .into_iter()
                .rev()
                .filter(|event| event.is_visible() && self.request.filter.timeline(event));
            events.extend(shown);
            if events.len() > limit {
                limited = true;
                break;
            }
        }
        events.truncate(limit);
        events.reverse();
        let before = match events.first() {
            Some(event) if limited => event.seq - 1,
            _ => seqs.first().map_or(end, |first| first - 1),
        };
        Ok(Slice { events, before, end, limited })
    }

    /// What the user may see, where that isn't everything that the queue announced.
    async fn sight(&self, slice: &Slice) -> Result<Option<Sight>, Error> {
        let stateful = slice.events.iter().any(|event| event.pdu.is_state());
        if !stateful && self.since {
            return Ok(None);
        }
        Ok(Some(self.syncs.rooms.sight(&self.room, &self.session.user_id).await?))
    }

    async fn timeline(&self, slice: &Slice, sight: Option<&Sight>) -> Result<Timeline, Error> {
        let prev_batch = Some(Token::Room { seq: slice.before }.to_string());
        let events = self.client_events(&slice.events, sight, self.request.filter.fields()).await?;
        Ok(Timeline { events, limited: slice.limited, prev_batch })
    }

    async fn client_events(
        &self,
        events: &[Arc<Event>],
        sight: Option<&Sight>,
        fields: &super::filter::Fields,
    ) -> Result<Vec<Box<RawValue>>, Error> {
        if self.request.filter.federation_format() {
            return Ok(events.iter().map(|event| event.pdu.json.clone()).collect());
        }
        let reader = Reader { user_id: &self.session.user_id, device: self.session.device };
        let events = self.syncs.rooms.client_events(&self.room, reader, events, sight).await?;
        Ok(events.into_iter().map(|event| fields.of(event)).collect())
    }

    fn no_state(&self) -> StateBody {
        if self.request.use_state_after {
            StateBody { state: None, state_after: Some(Events::default()) }
        } else {
            StateBody { state: Some(Events::default()), state_after: None }
        }
    }

    /// All state, or what changed since event `since`: up to the start of the timeline, or to its end (SY-05).
    async fn state(
        &self,
        snapshot: &Snapshot,
        slice: &Slice,
        arrived: bool,
        since: Option<i64>,
        sight: Option<&Sight>,
    ) -> Result<StateBody, Error> {
        let rooms = &self.syncs.rooms;
        let at = if self.request.use_state_after { slice.end } else { slice.before };
        let all = arrived || self.whole;
        let mut events: Vec<Arc<Event>> = if all {
            let unchanged = at >= snapshot.last_seq
                || (slice.end >= snapshot.last_seq
                    && !slice.limited_by_filter(self.request)
                    && slice.events.iter().all(|event| !event.pdu.is_state()));
            if unchanged {
                snapshot.state.iter().cloned().collect()
            } else {
                rooms.state_at(&self.room, at).await?.iter().cloned().collect()
            }
        } else {
            match since {
                // Nothing but state in the gap, or with `state_after` in the timeline, can have changed it.
                Some(since) if at > since && self.changes.state => {
                    rooms.state_between(&self.room, since, at).await?
                }
                _ => Vec::new(),
            }
        };
        if self.request.filter.lazy_members() {
            events = self.lazily(snapshot, slice, events, all);
        }
        events.retain(|event| self.request.filter.state(event));
        events.sort_unstable_by_key(|event| event.seq);
        let events = self.client_events(&events, sight, self.request.filter.fields()).await?;
        Ok(if self.request.use_state_after {
            StateBody { state: None, state_after: Some(events.into()) }
        } else {
            StateBody { state: Some(events.into()), state_after: None }
        })
    }

    /// LL-01, LL-02, SY-13: of the members only the senders of the timeline, those that changed in a gap, the user and
    /// the heroes, unless the device has them.
    fn lazily(
        &self,
        snapshot: &Snapshot,
        slice: &Slice,
        events: Vec<Arc<Event>>,
        all: bool,
    ) -> Vec<Arc<Event>> {
        let user_id = &self.session.user_id;
        let mut wanted: BTreeSet<&UserId> = slice.events.iter().map(|event| &*event.pdu.sender).collect();
        let heroes = if all { crate::room::summary(snapshot, user_id).heroes } else { Vec::new() };
        wanted.extend(heroes.iter().map(|hero| &**hero));
        if all {
            wanted.insert(user_id);
        }
        let (device, room) = (self.session.device, self.room.number);
        let redundant = self.request.filter.redundant_members();
        let is_member = |event: &Event| event.pdu.kind == ruma::events::TimelineEventType::RoomMember;

        let mut kept: Vec<Arc<Event>> = Vec::new();
        let mut have: BTreeSet<String> = BTreeSet::new();
        for event in events {
            let Some(member) = event.pdu.state_key.as_deref().filter(|_| is_member(&event)) else {
                kept.push(event);
                continue;
            };
            let member = <&UserId>::try_from(member).ok();
            // In a gap every change counts; in a whole state only those who are wanted.
            if !all || member.is_some_and(|member| wanted.contains(member)) {
                have.extend(event.pdu.state_key.clone());
                if let Some(member) = member {
                    self.syncs.lazy.is_news(device, room, member);
                }
                kept.push(event);
            }
        }
        // Those in the timeline itself need no copy, but the device has them from now on.
        let in_timeline: BTreeSet<&str> = slice
            .events
            .iter()
            .filter(|event| is_member(event))
            .filter_map(|event| event.pdu.state_key.as_deref())
            .collect();
        for member in wanted {
            let news = self.syncs.lazy.is_news(device, room, member);
            let said = have.contains(member.as_str()) || in_timeline.contains(member.as_str());
            if !said && (news || redundant) {
                kept.extend(snapshot.member(member).cloned());
            }
        }
        kept
    }

    async fn unread(
        &self,
        arrived: bool,
    ) -> Result<(Option<UnreadBody>, Option<std::collections::BTreeMap<String, UnreadBody>>), Error> {
        if !(arrived || self.whole || self.changes.unread) {
            return Ok((None, None));
        }
        let (recipient, room) = (self.session.recipient, self.room.number);
        if self.request.filter.threads() {
            let (main, threads) = self.syncs.unread_by_thread(recipient, room).await?;
            return Ok((Some(main), Some(threads)));
        }
        let counts = match self.counts {
            Some(counts) => counts,
            None => self.syncs.unread(recipient, room).await?,
        };
        let unread =
            UnreadBody { highlight_count: counts.highlights, notification_count: counts.notifications };
        Ok((Some(unread), None))
    }

    async fn ephemeral(&self, arrived: bool) -> Result<Vec<Box<RawValue>>, Error> {
        let store = &self.syncs.store;
        let receipts = if arrived || self.whole {
            store.receipts_of_room(self.room.number).await?
        } else if self.changes.receipts.is_empty() {
            Vec::new()
        } else {
            store.receipts_changed(self.room.number, &self.changes.receipts).await?
        };
        let mut events = Vec::new();
        if let Some(receipts) = receipt_event(&receipts, &self.session.user_id)
            && self.request.filter.ephemeral("m.receipt")
        {
            events.push(raw(&receipts)?);
        }
        if let Some(typing) = &self.typing
            && self.request.filter.ephemeral("m.typing")
        {
            events.push(raw(&json!({ "type": "m.typing", "content": { "user_ids": typing } }))?);
        }
        Ok(events)
    }

    async fn account_data(&self, arrived: bool) -> Result<Vec<Box<RawValue>>, Error> {
        let (recipient, room) = (self.session.recipient, self.room.number);
        if !(arrived || self.whole) && self.changes.account_data.is_empty() {
            return Ok(Vec::new());
        }
        let rows = if arrived || self.whole {
            self.syncs.store.account_data_of(recipient, room).await?
        } else {
            self.syncs.store.account_data_changed(recipient, &self.changes.account_data).await?
        };
        super::long_poll::account_data_events(rows, |kind| self.request.filter.room_account_data(kind))
    }
}

impl Slice {
    /// Whether the filter may have taken state events out of the timeline.
    fn limited_by_filter(&self, request: &Request) -> bool {
        let whole = self.end - self.before == self.events.len() as i64;
        !whole && request.filter.hides_timeline_events()
    }
}

fn raw(value: &serde_json::Value) -> Result<Box<RawValue>, Error> {
    Ok(serde_json::value::to_raw_value(value)?)
}

/// SY-10, RC-21: receipts in the form of `m.receipt`; private ones only for their owner.
fn receipt_event(receipts: &[ReceiptRow], reader: &UserId) -> Option<serde_json::Value> {
    let mut content = serde_json::Map::new();
    for receipt in receipts {
        if receipt.kind == "m.read.private" && receipt.user_id != reader.as_str() {
            continue;
        }
        let mut data = json!({ "ts": receipt.ts });
        if !receipt.thread.is_empty() {
            data["thread_id"] = json!(receipt.thread);
        }
        let event = content.entry(receipt.event_id.clone()).or_insert_with(|| json!({}));
        let known = &mut event[&receipt.kind][&receipt.user_id];
        // RC-25: an event has room for one of a user's receipts of a type. The unthreaded one says more.
        if known.is_null() || receipt.thread.is_empty() {
            *known = data;
        }
    }
    (!content.is_empty()).then(|| json!({ "type": "m.receipt", "content": content }))
}

/// SY-10: what somebody outside sees: a few facts, their own member event, and that of whoever invited them.
fn stripped(snapshot: &Snapshot, user_id: &UserId) -> Result<Vec<Box<RawValue>>, Error> {
    let facts = STRIPPED.iter().filter_map(|kind| snapshot.state.get(kind, ""));
    let own = snapshot.member(user_id);
    let inviter =
        own.filter(|own| own.pdu.sender != *user_id).and_then(|own| snapshot.member(&own.pdu.sender));
    let events = facts.chain(inviter).chain(own);
    events.map(|event| Ok(event.stripped()?)).collect()
}
