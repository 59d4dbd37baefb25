//! One room's part of a sync answer.

use std::{collections::BTreeSet, sync::Arc};

use ruma::{
    UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde_json::{json, value::RawValue};

use super::{
    body::{
        Events, InvitedRoom, JoinedRoom, KnockedRoom, LeftRoom, RoomsBody, StateBody, SummaryBody, Timeline,
        UnreadBody,
    },
    changes::RoomChanges,
    syncs::{Error, Syncs, Wanted},
};
use crate::{
    account::{IgnoredUsers, InvitePermissions, InviteVerdict, Session},
    queue::{Token, Unread},
    room::{Event, Reader, Room, STRIPPED, Sight, Snapshot, View, last_after_hole},
    store::receipt::ReceiptRow,
};

/// What is asked of one room.
pub(super) struct RoomSync<'a> {
    pub(super) syncs: &'a Syncs,
    pub(super) session: &'a Session,
    pub(super) wanted: &'a Wanted,
    pub(super) room: Arc<Room>,
    pub(super) changes: RoomChanges,
    /// The device has nothing of this room yet, or asked for all of its state.
    pub(super) whole: bool,
    /// The device is up to date about this room but for `changes`.
    pub(super) since: bool,
    /// The positions that the answer begins after and ends at.
    pub(super) span: (i64, i64),
    /// Everybody's typing, if it changed.
    pub(super) typing: Option<Vec<ruma::OwnedUserId>>,
    /// Unread events, if they were counted already.
    pub(super) counts: Option<Unread>,
    pub(super) ignored: &'a IgnoredUsers,
    pub(super) invites: &'a InvitePermissions,
}

/// The events of a timeline and what is around them.
pub(super) struct Slice {
    pub(super) events: Vec<Arc<Event>>,
    /// The last event before the timeline.
    before: i64,
    /// The last event of the timeline.
    pub(super) end: i64,
    pub(super) limited: bool,
    /// What the user may see of the room, if that had to be found out.
    sight: Option<Sight>,
}

impl RoomSync<'_> {
    pub(super) async fn add_to(mut self, rooms: &mut RoomsBody) -> Result<(), Error> {
        let snapshot = self.room.snapshot();
        let user_id = &self.session.user_id;
        let room_id = self.room.room_id.clone();
        let mut end = self.end(&snapshot).await?;
        let Some(mut membership) = self.membership(&snapshot, end).await? else { return Ok(()) };
        // SY-19, MB-11: of invites that the user doesn't want nothing is said, but of what was before them.
        if membership == MembershipState::Invite && self.is_unwanted(snapshot.member(user_id)) {
            let Some(before) = self.before_invites(&snapshot, end).await? else { return Ok(()) };
            (end, membership) = before;
            self.changes.end_at(end);
            if !self.since || self.changes.own_memberships.is_empty() {
                return Ok(());
            }
        }
        let changed = !self.changes.own_memberships.is_empty();
        match membership {
            MembershipState::Join => {
                if let Some(joined) = self.joined(&snapshot, end).await? {
                    rooms.join.insert(room_id, joined);
                }
            }
            MembershipState::Invite if self.whole || changed => {
                let invite_state = stripped(&snapshot, user_id)?.into();
                rooms.invite.insert(room_id, InvitedRoom { invite_state });
            }
            MembershipState::Knock if self.whole || changed => {
                let knock_state = stripped(&snapshot, user_id)?.into();
                rooms.knock.insert(room_id, KnockedRoom { knock_state });
            }
            MembershipState::Leave | MembershipState::Ban
                if self.whole || changed || !self.changes.account_data.is_empty() =>
            {
                let left = self.left(&snapshot, end).await?;
                rooms.leave.insert(room_id, left);
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a timeline has an event that the user may see.
    fn shows(&self, event: &Arc<Event>) -> bool {
        // SY-19: state is part of the room, whoever set it.
        let ignored = !event.pdu.is_state() && self.is_ignored(Some(event));
        event.is_visible() && !ignored && self.wanted.filter.timeline(event)
    }

    /// Those that the filter lets through for what relates to them.
    async fn related_as_asked(&self, events: Vec<Arc<Event>>) -> Result<Vec<Arc<Event>>, Error> {
        let Some(filter) = self.wanted.filter.asks_for_children().filter(|_| !events.is_empty()) else {
            return Ok(events);
        };
        let rooms = &self.syncs.rooms;
        let sight = rooms.sight(&self.room, &self.session.user_id).await?;
        Ok(rooms.related_as_asked(&self.room, &sight, filter, self.ignored, events).await?)
    }

    fn is_ignored(&self, event: Option<&Arc<Event>>) -> bool {
        event.is_some_and(|event| self.ignored.contains(&event.pdu.sender))
    }

    pub(super) fn is_unwanted(&self, invite: Option<&Arc<Event>>) -> bool {
        let refused =
            |invite: &Arc<Event>| self.invites.verdict(&invite.pdu.sender) != InviteVerdict::Allowed;
        self.is_ignored(invite) || invite.is_some_and(refused)
    }

    /// The last event up to `end` before the invites that the user has now, and their membership after it.
    pub(super) async fn before_invites(
        &self,
        snapshot: &Snapshot,
        mut end: i64,
    ) -> Result<Option<(i64, MembershipState)>, Error> {
        let user_id = &self.session.user_id;
        let mut member = snapshot.member(user_id).cloned();
        while let Some(event) = member {
            if event.membership() != MembershipState::Invite {
                return Ok(Some((end, event.membership())));
            }
            end = end.min(event.seq - 1);
            member = self.syncs.rooms.members_at(&self.room, [&**user_id], end).await?.pop();
        }
        Ok(None)
    }

    /// The last event that belongs into this answer. The room may be further by now: what came since is for the next.
    pub(super) async fn end(&self, snapshot: &Snapshot) -> Result<i64, Error> {
        match self.changes.seqs.last() {
            Some(end) => Ok(*end),
            None if snapshot.position <= self.span.1 => Ok(snapshot.last_seq),
            None => Ok(self.syncs.rooms.place_at(&self.room, self.span.1).await?),
        }
    }

    /// The user's membership after event `end`; `None` if they had none by then.
    pub(super) async fn membership(
        &self,
        snapshot: &Snapshot,
        end: i64,
    ) -> Result<Option<MembershipState>, Error> {
        let user_id = &self.session.user_id;
        match snapshot.member(user_id) {
            None if snapshot.last_silent == 0 => return Ok(None),
            Some(current) if current.seq.max(snapshot.last_silent) <= end => {
                return Ok(Some(snapshot.membership(user_id)));
            }
            _ => {}
        }
        let member = self.syncs.rooms.members_at(&self.room, [&**user_id], end).await?.pop();
        // Who had a membership that resolution took away is out.
        let gone = || (!self.changes.own_memberships.is_empty()).then_some(MembershipState::Leave);
        Ok(member.map(|member| member.membership()).or_else(gone))
    }

    /// The user's memberships since the device was up to date, beginning with the one at that time.
    pub(super) async fn path(&self) -> Result<Vec<MembershipState>, Error> {
        if self.changes.seqs.is_empty() {
            return Ok(Vec::new());
        }
        let rooms = &self.syncs.rooms;
        // Where this server enters a room, the state before that may have a membership that others knew of and nobody here:
        // what counts is the last event that the device may have.
        let place = rooms.place_at(&self.room, self.span.0).await?;
        let last = rooms.log_backwards(&self.room, place, 1).await?.pop();
        let mut path = vec![match last {
            Some(last) => rooms.membership_at(&self.room, &self.session.user_id, last.seq).await?,
            None => MembershipState::Leave,
        }];
        for at in &self.changes.own_memberships {
            path.push(rooms.membership_at(&self.room, &self.session.user_id, *at).await?);
        }
        Ok(path)
    }

    async fn joined(&self, snapshot: &Snapshot, end: i64) -> Result<Option<JoinedRoom>, Error> {
        let user_id = &self.session.user_id;
        let first = self.changes.seqs.first().copied();
        // Whether the room is new to the device, or the user was out of it meanwhile: then it gets it whole (SY-17).
        let path = if self.since && !self.changes.own_memberships.is_empty() {
            self.path().await?
        } else {
            Vec::new()
        };
        let arrived = !self.since || path.iter().any(|membership| *membership != MembershipState::Join);
        // What a device has that was in the room all the time until its token isn't shown to it again.
        let known = first.filter(|_| path.first() == Some(&MembershipState::Join)).map(|first| first - 1);
        if arrived {
            self.syncs.lazy.forget(self.session.device, self.room.number);
        }
        let slice = if arrived { self.visible_until(end, known).await? } else { self.announced(end).await? };
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
            && joined.state.is_empty();
        Ok((!empty || arrived || self.whole).then_some(joined))
    }

    /// SY-09: what the user may see of a room that they are out of, up to their leaving.
    async fn left(&self, snapshot: &Snapshot, end: i64) -> Result<LeftRoom, Error> {
        use MembershipState::Join;
        let user_id = &self.session.user_id;
        let account_data = self.account_data(!self.since).await?.into();
        if !self.whole && self.changes.own_memberships.is_empty() {
            let before = Slice::nothing(end);
            let timeline = self.timeline(&before, None).await?;
            return Ok(LeftRoom { timeline, state: self.no_state(), account_data });
        }
        let path = if self.since { self.path().await? } else { Vec::new() };
        let stayed = path.iter().take_while(|membership| **membership == Join).count();
        let (was_in, came_in) = (stayed > 0, path.iter().skip(stayed).any(|membership| *membership == Join));
        let known = self.changes.seqs.first().map(|first| first - 1);
        let sight = self.syncs.rooms.sight(&self.room, user_id).await?;
        let (slice, state) = if !path.is_empty() && !came_in {
            // The device knew the room until they left it, or they never were in it: then there is no state for them.
            let mut slice = self.announced(end).await?;
            // Their membership may have changed at somebody else's event, which is for those who are in the room.
            let own = |event: &Event| {
                let member = event.pdu.membership().and(event.pdu.state_key.as_deref());
                member == Some(user_id.as_str())
            };
            slice.events.retain(|event| sight.may_see(event.seq) || own(event));
            if let Some(leaving) = stayed.checked_sub(1).and_then(|at| self.changes.own_memberships.get(at)) {
                // Later changes of their membership, such as a ban, say nothing of the room's state by then.
                slice.end = slice.end.min(*leaving);
                slice.before = slice.before.min(slice.end);
            }
            let since = known;
            let state = if was_in {
                self.state(snapshot, &slice, false, since, Some(&sight)).await?
            } else {
                self.no_state()
            };
            (slice, state)
        } else {
            let slice = self.visible_until(end, known.filter(|_| was_in)).await?;
            let view = self.syncs.rooms.view(&self.room, user_id).await;
            let state = if view.is_ok_and(|view| view != View::NOW) {
                self.state(snapshot, &slice, true, None, Some(&sight)).await?
            } else {
                self.no_state()
            };
            (slice, state)
        };
        Ok(LeftRoom { timeline: self.timeline(&slice, Some(&sight)).await?, state, account_data })
    }

    /// The end of the room's log up to event `end`, as far back as the user may see it without a break, and not back to
    /// event `known`.
    pub(super) async fn visible_until(&self, end: i64, known: Option<i64>) -> Result<Slice, Error> {
        let limit = self.wanted.filter.timeline_limit();
        let sight = self.syncs.rooms.sight(&self.room, &self.session.user_id).await?;
        let nothing = Slice::nothing(end);
        let Some((visible, newest)) = sight.range_up_to(end) else { return Ok(nothing) };
        let end = end.min(newest);
        let oldest = visible.max(known.unwrap_or(0) + 1);
        let mut events: Vec<Arc<Event>> = Vec::new();
        let mut from = end;
        // Rooms whose last events are all filtered out are given up on after a while; paging goes on from there.
        for _ in 0..8 {
            if events.len() > limit || from < oldest {
                break;
            }
            let page = self.syncs.rooms.log_backwards(&self.room, from, limit as i64 + 1).await?;
            let Some(last) = page.last() else { break };
            from = last.seq - 1;
            let shown = page.into_iter().filter(|event| event.seq >= oldest && self.shows(event));
            events.extend(self.related_as_asked(shown.collect()).await?);
        }
        // Before a break there may be more.
        let earlier = sight.range_up_to(oldest - 1).map_or(0, |(_, last)| last.min(oldest - 1));
        let limited = events.len() > limit || from >= oldest || earlier > known.unwrap_or(0);
        let found = events.len();
        events.truncate(limit);
        let limited = self.cut_at_hole(&mut events, oldest, end) || limited;
        events.reverse();
        let before = match events.first() {
            Some(event) if limited => event.seq - 1,
            // A timeline of nothing begins where it ends.
            None if found > 0 || limited => end,
            _ => oldest - 1,
        };
        Ok(Slice { events, before, end, limited, sight: Some(sight) })
    }

    /// Takes the events before a hole in the log out of a timeline that goes from `first` to `end`, newest first. Whether
    /// there is one: then whoever wants to know more pages back into it.
    fn cut_at_hole(&self, events: &mut Vec<Arc<Event>>, first: i64, end: i64) -> bool {
        let hole = self.room.snapshot().last_hole(first, end).max(last_after_hole(first, end));
        events.retain(|event| hole.is_none_or(|hole| event.seq >= hole));
        hole.is_some()
    }

    /// The events that the queue announced.
    pub(super) async fn announced(&self, end: i64) -> Result<Slice, Error> {
        let limit = self.wanted.filter.timeline_limit();
        // What has become too old since it was announced isn't there; the state that it set is before the timeline.
        let horizon = self.syncs.rooms.horizon(&self.room).await?;
        let seqs: Vec<i64> = self.changes.seqs.iter().copied().filter(|seq| *seq > horizon).collect();
        let mut events: Vec<Arc<Event>> = Vec::new();
        let mut limited = false;
        // Newest first, so that a device that was away long doesn't make us read all that it missed.
        for chunk in seqs.rchunks(limit.clamp(16, 128)) {
            let page = self.syncs.rooms.events(&self.room, chunk).await?;
            let shown = page.into_iter().rev().filter(|event| self.shows(event));
            events.extend(self.related_as_asked(shown.collect()).await?);
            if events.len() > limit {
                limited = true;
                break;
            }
        }
        events.truncate(limit);
        limited |= self.cut_at_hole(&mut events, seqs.first().copied().unwrap_or(end), end);
        events.reverse();
        let before = match events.first() {
            Some(event) if limited => event.seq - 1,
            // A timeline of nothing begins where it ends.
            None if limited => end,
            _ => seqs.first().map_or(end, |first| first - 1),
        };
        Ok(Slice { events, before, end, limited, sight: None })
    }

    /// What the user may see, where that isn't everything that the queue announced.
    pub(super) async fn sight(&self, slice: &Slice) -> Result<Option<Sight>, Error> {
        if slice.sight.is_some() {
            return Ok(slice.sight.clone());
        }
        let stateful = slice.events.iter().any(|event| event.pdu.is_state());
        if !stateful && self.since {
            return Ok(None);
        }
        Ok(Some(self.syncs.rooms.sight(&self.room, &self.session.user_id).await?))
    }

    pub(super) async fn timeline(&self, slice: &Slice, sight: Option<&Sight>) -> Result<Timeline, Error> {
        let prev_batch = Some(Token::Room { seq: slice.before }.to_string());
        let events = self.client_events(&slice.events, sight, self.wanted.filter.fields()).await?;
        Ok(Timeline { events, limited: slice.limited, prev_batch })
    }

    pub(super) async fn client_events(
        &self,
        events: &[Arc<Event>],
        sight: Option<&Sight>,
        fields: &super::filter::Fields,
    ) -> Result<Vec<Box<RawValue>>, Error> {
        if self.wanted.filter.federation_format() {
            return Ok(events.iter().map(|event| event.pdu.json.clone()).collect());
        }
        let reader = Reader::of(self.session);
        let events = self.syncs.rooms.client_events(&self.room, reader, events, sight).await?;
        Ok(events.into_iter().map(|event| fields.of(event)).collect())
    }

    fn no_state(&self) -> StateBody {
        self.wanted.state.body(Events::default())
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
        let at = if self.wanted.state.is_after() { slice.end } else { slice.before };
        let all = arrived || self.whole;
        let mut events: Vec<Arc<Event>> = if all {
            let unchanged = at >= snapshot.last_seq
                || (slice.end >= snapshot.last_seq
                    && !slice.has_holes()
                    && snapshot.last_silent <= slice.before
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
        // State resolution may have changed what no event of the timeline says.
        let silent = snapshot.last_silent > slice.before;
        if at < slice.end && (slice.has_holes() || silent) && (all || self.changes.state) {
            self.fill_holes(slice, &mut events).await?;
        }
        if self.wanted.filter.lazy_members() {
            events = self.lazily(slice, events, all, since, at).await?;
        }
        events.retain(|event| self.wanted.filter.state(event));
        events.sort_unstable_by_key(|event| event.seq);
        let events = self.client_events(&events, sight, self.wanted.filter.fields()).await?;
        Ok(self.wanted.state.body(events.into()))
    }

    /// Puts state that the filter keeps out of the timeline among the state before it: else the device would never hear of
    /// it.
    async fn fill_holes(&self, slice: &Slice, events: &mut Vec<Arc<Event>>) -> Result<(), Error> {
        let mut hidden = self.syncs.rooms.state_between(&self.room, slice.before, slice.end).await?;
        hidden.retain(|event| !slice.events.iter().any(|shown| shown.seq == event.seq));
        let of = |one: &Event, other: &Event| {
            one.pdu.kind == other.pdu.kind && one.pdu.state_key == other.pdu.state_key
        };
        events.retain(|event| !hidden.iter().any(|hidden| of(hidden, event)));
        events.append(&mut hidden);
        Ok(())
    }

    /// LL-01, LL-02, SY-13: of the members only the senders of the timeline, those that changed in a gap, the user and
    /// the heroes, unless the device has them. `since` is the last event that it had before, `at` where in the log the
    /// state is taken.
    async fn lazily(
        &self,
        slice: &Slice,
        events: Vec<Arc<Event>>,
        all: bool,
        since: Option<i64>,
        at: i64,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let user_id = &self.session.user_id;
        let mut wanted: BTreeSet<&UserId> = slice.events.iter().map(|event| &*event.pdu.sender).collect();
        // The summary that names them goes out then.
        let heroes = if all || self.changes.state {
            crate::room::summary(&self.room.snapshot(), user_id).heroes
        } else {
            Vec::new()
        };
        wanted.extend(heroes.iter().map(|hero| &**hero));
        if all {
            wanted.insert(user_id);
        }
        let redundant = self.wanted.filter.redundant_members();
        let is_member = |event: &Event| event.pdu.kind == TimelineEventType::RoomMember;
        let (device, room) = (self.session.device, self.room.number);
        let is_news = |member: &UserId| self.syncs.lazy.is_news(device, room, member, self.span);

        let mut kept: Vec<Arc<Event>> = Vec::new();
        let mut said: BTreeSet<String> = BTreeSet::new();
        for event in events {
            let Some(member) = event.pdu.state_key.clone().filter(|_| is_member(&event)) else {
                kept.push(event);
                continue;
            };
            // In a gap every change counts, for the device may have the member from before; else only those who are
            // wanted.
            let changed = self.since && since.is_some_and(|since| event.seq > since);
            if !all || changed || wanted.iter().any(|wanted| wanted.as_str() == member) {
                if let Ok(member) = <&UserId>::try_from(member.as_str()) {
                    is_news(member);
                }
                said.insert(member);
                kept.push(event);
            }
        }
        // A member event in the timeline itself says enough of its sender, if they did nothing before it.
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for event in &slice.events {
            let sender = event.pdu.sender.as_str();
            if seen.insert(sender) && is_member(event) && event.pdu.state_key.as_deref() == Some(sender) {
                said.insert(sender.to_owned());
            }
        }
        let missing = wanted.into_iter().filter(|member| {
            let news = is_news(member);
            !said.contains(member.as_str()) && (news || redundant)
        });
        let missing: Vec<&UserId> = missing.collect();
        kept.extend(self.syncs.rooms.members_at(&self.room, missing, at).await?);
        Ok(kept)
    }

    async fn unread(
        &self,
        arrived: bool,
    ) -> Result<(Option<UnreadBody>, Option<std::collections::BTreeMap<String, UnreadBody>>), Error> {
        if !(arrived || self.whole || self.changes.unread) {
            return Ok((None, None));
        }
        let unread = match &self.counts {
            Some(unread) => unread.clone(),
            None => self.syncs.unread(self.session.recipient, self.room.number).await?,
        };
        // SY-15
        if !self.wanted.filter.threads() {
            return Ok((Some(unread.total().into()), None));
        }
        let threads = unread.threads.iter();
        let threads = threads.map(|(root, counts)| (root.to_string(), (*counts).into()));
        Ok((Some(unread.main.into()), Some(threads.collect())))
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
        let (room_id, filter) = (&self.room.room_id, &self.wanted.filter);
        // IG-01
        let is_heard = |user_id: &UserId| filter.ephemeral_of(user_id) && !self.ignored.contains(user_id);
        let mut events = Vec::new();
        if let Some(receipts) = receipt_event(&receipts, &self.session.user_id, is_heard)
            && filter.ephemeral(room_id, "m.receipt")
        {
            events.push(raw(&receipts)?);
        }
        // Who enters a room hears who types in it, however long they have been at it.
        let typing = match &self.typing {
            None if arrived && self.since => {
                self.syncs.typing.in_room(&self.session.user_id, self.room.number)
            }
            typing => typing.clone(),
        };
        if let Some(mut typing) = typing
            && filter.ephemeral(room_id, "m.typing")
        {
            typing.retain(|user_id| is_heard(user_id));
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
        let room_id = &self.room.room_id;
        super::answer::account_data_events(rows, |kind| self.wanted.filter.room_account_data(room_id, kind))
    }
}

impl Slice {
    /// A timeline without events, after event `end`.
    pub(super) fn nothing(end: i64) -> Self {
        Self { events: Vec::new(), before: end, end, limited: false, sight: None }
    }

    /// Whether events between the start and the end of the timeline are missing in it.
    fn has_holes(&self) -> bool {
        self.end - self.before != self.events.len() as i64
    }
}

fn raw(value: &serde_json::Value) -> Result<Box<RawValue>, Error> {
    Ok(serde_json::value::to_raw_value(value)?)
}

/// SY-10, RC-21: receipts in the form of `m.receipt`, of those who are heard; private ones only for their owner.
pub(super) fn receipt_event(
    receipts: &[ReceiptRow],
    reader: &UserId,
    is_heard: impl Fn(&UserId) -> bool,
) -> Option<serde_json::Value> {
    let mut content = serde_json::Map::new();
    for receipt in receipts {
        let is_private = receipt.kind == "m.read.private" && receipt.user_id != reader.as_str();
        if is_private || !<&UserId>::try_from(receipt.user_id.as_str()).is_ok_and(&is_heard) {
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
pub(super) fn stripped(snapshot: &Snapshot, user_id: &UserId) -> Result<Vec<Box<RawValue>>, Error> {
    let own = snapshot.member(user_id);
    if let Some(hearsay) = &snapshot.hearsay {
        let mut events = hearsay.to_vec();
        if let Some(own) = own {
            events.push(own.stripped()?);
        }
        return Ok(events);
    }
    let facts = STRIPPED.iter().filter_map(|kind| snapshot.state.get(kind, ""));
    let inviter =
        own.filter(|own| own.pdu.sender != *user_id).and_then(|own| snapshot.member(&own.pdu.sender));
    let events = facts.chain(inviter).chain(own);
    events.map(|event| Ok(event.stripped()?)).collect()
}
