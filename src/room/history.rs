//! Reading a room's log in pages, and the surroundings of one event.
//!
//! A place in the log is between two events and is called by the `seq` of the one before it. Pages hold only what the
//! reader may see and asked for; what they may not see is stepped over without being read, and what they didn't ask for
//! is read up to a limit, after which the page ends where the next one goes on.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};

use super::{Error, Event, EventFilter, LazyMembers, NO_EVENT, Room, Rooms, Sight, View};
use crate::{
    queue::Token,
    store::event::{OUTLIER, StoredEvent},
};

/// The most events that one request may look at for each that it may return.
const SCAN: usize = 10;

/// The fewest events that are read at a time when a filter may throw most of them away.
const STRIDE: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From newer events to older ones.
    Backwards,
    Forwards,
}

/// What a page should hold.
#[derive(Clone, Copy, Debug)]
pub struct Paging<'a> {
    pub direction: Direction,
    /// The place to begin at; without one, the end that the direction leads away from.
    pub from: Option<i64>,
    /// The place to stop at.
    pub to: Option<i64>,
    pub limit: usize,
    pub filter: &'a EventFilter,
}

#[derive(Debug)]
pub struct Page {
    /// In the direction asked for.
    pub events: Vec<Arc<Event>>,
    /// The place that it begins at.
    pub start: i64,
    /// Where to go on; `None` if there is nothing more to see (HV-07).
    pub end: Option<i64>,
}

/// An event and what is around it (HV-10).
#[derive(Debug)]
pub struct Around {
    pub event: Arc<Event>,
    /// The nearest first.
    pub before: Vec<Arc<Event>>,
    pub after: Vec<Arc<Event>>,
    /// The places before the first and after the last of them.
    pub start: i64,
    pub end: i64,
    /// After the last of them.
    pub state: Vec<Arc<Event>>,
}

/// The events that a request has found so far, and how many more it may look at.
struct Found<'a> {
    events: Vec<Arc<Event>>,
    limit: usize,
    budget: usize,
    filter: &'a EventFilter,
}

impl<'a> Found<'a> {
    fn new(limit: usize, filter: &'a EventFilter) -> Self {
        Self { events: Vec::new(), limit, budget: SCAN * limit.max(STRIDE), filter }
    }

    fn is_done(&self) -> bool {
        self.events.len() >= self.limit || self.budget == 0
    }

    /// How many events to read next.
    fn wanted(&self) -> usize {
        let missing = self.limit - self.events.len();
        let wanted = if self.filter.matches_everything() { missing } else { missing.max(STRIDE) };
        wanted.min(self.budget)
    }

    fn look_at(&mut self, event: Arc<Event>, matching: &HashSet<i64>) {
        self.budget = self.budget.saturating_sub(1);
        if matching.contains(&event.seq) {
            self.events.push(event);
        }
    }
}

impl Rooms {
    /// The place in a room's log that a token stands for, whichever kind it is.
    pub async fn place(&self, room: &Room, token: &str) -> Result<i64, Error> {
        match token.parse() {
            Ok(Token::Room { seq }) => Ok(seq),
            Ok(Token::Queue { position, .. }) => self.place_at(room, position).await,
            Err(cause) => Err(Error::InvalidParam(format!("{token}: {cause}"))),
        }
    }

    /// The last event of a room that the queue position `position` covers, 0 if the room is younger. What is missing after
    /// that event isn't covered, whatever becomes of it.
    pub async fn place_at(&self, room: &Room, position: i64) -> Result<i64, Error> {
        let snapshot = room.snapshot();
        if position >= snapshot.position {
            return Ok(snapshot.last_seq);
        }
        let place = self.core.store.seq_at(room.number, position).await?;
        let hole = snapshot.holes.iter().find(|(floor, seq)| (*floor + 1..*seq).contains(&place));
        Ok(hole.map_or(place, |(floor, _)| (*floor).max(0)))
    }

    /// The event that `sight` shows closest to a time, at it or beyond it in a direction.
    pub async fn nearest_in_time(
        &self,
        room: &Room,
        sight: &Sight,
        time: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<Arc<Event>, Error> {
        let (forwards, ranges) =
            (direction == Direction::Forwards, serde_json::json!(sight.ranges()).to_string());
        let seq = self.core.store.nearest_in_time(room.number, time.get().into(), forwards, ranges).await?;
        let event = match seq {
            Some(seq) => self.events(room, &[seq]).await?.pop(),
            None => None,
        };
        event.ok_or(Error::NotFound(NO_EVENT))
    }

    /// A page of what `sight` shows of a room's log.
    pub async fn page(&self, room: &Room, sight: &Sight, paging: Paging<'_>) -> Result<Page, Error> {
        let last = room.snapshot().last_seq;
        let floor = self.core.store.first_seq(room.number).await? - 1;
        let (first, end) = match paging.direction {
            Direction::Backwards => (last, floor),
            Direction::Forwards => (floor, last),
        };
        let place = |asked: Option<i64>, usual| asked.map_or(usual, |place| place.clamp(floor, last));
        let (start, to) = (place(paging.from, first), place(paging.to, end));
        if paging.filter.shows_nothing_of(&room.room_id) {
            return Ok(Page { events: Vec::new(), start, end: None });
        }
        let found = Found::new(paging.limit.max(1), paging.filter);
        match paging.direction {
            Direction::Backwards => self.page_back(room, sight, found, start, to).await,
            Direction::Forwards => self.page_on(room, sight, found, start, to).await,
        }
    }

    /// From the place `start` down to the place `to`.
    async fn page_back(
        &self,
        room: &Room,
        sight: &Sight,
        mut found: Found<'_>,
        start: i64,
        to: i64,
    ) -> Result<Page, Error> {
        // The newest event that is still to be looked at, and the event before the range that it is in.
        let next = |at: i64| {
            let (first, last) = sight.range_up_to(at)?;
            let top = at.min(last);
            (top > to).then_some((top, to.max(first.saturating_sub(1))))
        };
        let mut at = start;
        while !found.is_done()
            && let Some((top, bottom)) = next(at)
        {
            let wanted = found.wanted();
            let rows = self.core.store.events_backwards(room.number, top, bottom, wanted as i64).await?;
            at = if rows.len() < wanted { bottom } else { top };
            let (events, matching) = self.looked_at(room, sight, found.filter, rows).await?;
            for event in events {
                let seq = event.seq;
                found.look_at(event, &matching);
                if found.is_done() {
                    at = seq - 1;
                    break;
                }
                at = at.min(seq - 1).max(bottom);
            }
        }
        Ok(Page { events: found.events, start, end: next(at).map(|_| at) })
    }

    /// Events of the log, and the `seq` of those that a filter lets through.
    async fn looked_at(
        &self,
        room: &Room,
        sight: &Sight,
        filter: &EventFilter,
        rows: Vec<StoredEvent>,
    ) -> Result<(Vec<Arc<Event>>, HashSet<i64>), Error> {
        let events = rows.into_iter().map(|row| Event::from_stored(row, &room.version).map(Arc::new));
        let events: Vec<Arc<Event>> = events.collect::<Result<_, _>>()?;
        let matching = events.iter().filter(|event| event.is_visible() && filter.matches(event)).cloned();
        let matching =
            self.related_as_asked(room, sight, filter, filter.ignored(), matching.collect()).await?;
        Ok((events, matching.iter().map(|event| event.seq).collect()))
    }

    /// From the place `start` up to the place `to`.
    async fn page_on(
        &self,
        room: &Room,
        sight: &Sight,
        mut found: Found<'_>,
        start: i64,
        to: i64,
    ) -> Result<Page, Error> {
        // The place before the next event that is to be looked at, and the last event of the range that it is in.
        let next = |at: i64| {
            let (first, last) = sight.range_from(at + 1)?;
            let bottom = at.max(first.saturating_sub(1));
            (bottom < to).then_some((bottom, to.min(last)))
        };
        let mut at = start;
        while !found.is_done()
            && let Some((bottom, top)) = next(at)
        {
            let wanted = found.wanted();
            let rows = self.core.store.events_forwards(room.number, bottom, top, wanted as i64).await?;
            let complete = rows.len() < wanted;
            let (events, matching) = self.looked_at(room, sight, found.filter, rows).await?;
            for event in events {
                at = event.seq;
                found.look_at(event, &matching);
                if found.is_done() {
                    break;
                }
            }
            if complete && !found.is_done() {
                at = top;
            }
        }
        Ok(Page { events: found.events, start, end: next(at).map(|_| at) })
    }

    /// At most `limit` events up to `from`, newest first, whoever may see them.
    pub async fn log_backwards(&self, room: &Room, from: i64, limit: i64) -> Result<Vec<Arc<Event>>, Error> {
        let rows = self.core.store.events_backwards(room.number, from, OUTLIER, limit).await?;
        rows.into_iter().map(|row| Ok(Arc::new(Event::from_stored(row, &room.version)?))).collect()
    }

    /// What changed in the state after event `after`, up to and with event `to`: the last event of each key.
    pub async fn state_between(&self, room: &Room, after: i64, to: i64) -> Result<Vec<Arc<Event>>, Error> {
        let rows = self.core.store.state_between(room.number, after, to).await?;
        let seqs: Vec<i64> = rows.into_iter().map(|(_, _, event)| event).collect();
        self.events(room, &seqs).await
    }

    /// As [`Self::state_between`], by type and key, with those that have nothing under them any more.
    pub async fn changed_state(
        &self,
        room: &Room,
        after: i64,
        to: i64,
    ) -> Result<Vec<(String, String, Option<Arc<Event>>)>, Error> {
        let rows = self.core.store.state_between(room.number, after, to).await?;
        let seqs: Vec<i64> = rows.iter().map(|(_, _, event)| *event).collect();
        let events = self.events(room, &seqs).await?;
        let events: HashMap<i64, Arc<Event>> = events.into_iter().map(|event| (event.seq, event)).collect();
        let changed =
            rows.into_iter().map(|(kind, state_key, event)| (kind, state_key, events.get(&event).cloned()));
        Ok(changed.collect())
    }

    /// The state event under one key.
    pub async fn state_entry(
        &self,
        room: &Room,
        kind: &StateEventType,
        state_key: &str,
        view: View,
    ) -> Result<Option<Arc<Event>>, Error> {
        let current = room.snapshot();
        if view.at >= current.last_seq {
            return Ok(current.state.get(kind, state_key).cloned());
        }
        let question = std::iter::once((kind, state_key, view.at));
        Ok(self.core.states_at(room, question).await?.pop().flatten())
    }

    /// Somebody's membership after event `at`.
    pub async fn membership_at(
        &self,
        room: &Room,
        user_id: &UserId,
        at: i64,
    ) -> Result<MembershipState, Error> {
        let member = self.members_at(room, [user_id], at).await?.pop();
        Ok(member.map_or(MembershipState::Leave, |member| member.membership()))
    }

    /// An event of this room that `sight` shows. One that it doesn't show isn't there (HV-06).
    pub async fn visible_event(
        &self,
        room: &Room,
        sight: &Sight,
        event_id: &EventId,
    ) -> Result<Arc<Event>, Error> {
        let event = self.event(room, event_id).await?;
        if event.is_visible() && sight.may_see(event.seq) {
            return Ok(event);
        }
        Err(Error::NotFound(NO_EVENT))
    }

    /// An event with at most `limit` others around it.
    pub async fn around(
        &self,
        room: &Room,
        sight: &Sight,
        event_id: &EventId,
        limit: usize,
        filter: &EventFilter,
    ) -> Result<Around, Error> {
        let event = self.visible_event(room, sight, event_id).await?;
        let half = |direction, from, limit| Paging { direction, from: Some(from), to: None, limit, filter };
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let (mut start, mut end) = (event.seq - 1, event.seq);
        if limit / 2 > 0 {
            let page = self.page(room, sight, half(Direction::Backwards, start, limit / 2)).await?;
            start = page.events.last().map_or(start, |event| event.seq - 1);
            before = page.events;
        }
        if limit > 0 {
            let page = self.page(room, sight, half(Direction::Forwards, end, limit - limit / 2)).await?;
            end = page.events.last().map_or(end, |event| event.seq);
            after = page.events;
        }
        let last = after.last().unwrap_or(&event);
        let mut state: Vec<Arc<Event>> = self.state_at(room, last.seq).await?.iter().cloned().collect();
        if filter.lazy_members != LazyMembers::Off {
            let shown = before.iter().chain(&after).chain([&event]);
            let senders: BTreeSet<&str> = shown.map(|event| event.pdu.sender.as_str()).collect();
            state.retain(|event| match event.pdu.state() {
                Some((kind, state_key)) => {
                    *kind != TimelineEventType::RoomMember || senders.contains(state_key)
                }
                None => false,
            });
        }
        state.retain(|event| filter.matches(event));
        state.sort_unstable_by_key(|event| event.seq);
        Ok(Around { event, before, after, start, end, state })
    }

    /// The member events of those who sent `events`, as they were after the newest of these (LL-01, LL-04).
    pub async fn senders(&self, room: &Room, events: &[Arc<Event>]) -> Result<Vec<Arc<Event>>, Error> {
        let Some(at) = events.iter().map(|event| event.seq).max() else { return Ok(Vec::new()) };
        let senders: BTreeSet<&UserId> = events.iter().map(|event| &*event.pdu.sender).collect();
        self.members_at(room, senders, at).await
    }

    /// The member events of these users after event `at`. Those who have none are left out.
    pub async fn members_at(
        &self,
        room: &Room,
        users: impl IntoIterator<Item = &UserId>,
        at: i64,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let current = room.snapshot();
        let (mut found, mut older) = (Vec::new(), Vec::new());
        for user_id in users {
            match current.member(user_id) {
                // What resolution has changed took effect at another seq than that of the event.
                _ if current.last_silent > at => older.push(user_id),
                Some(member) if member.seq <= at => found.push(Arc::clone(member)),
                Some(_) => older.push(user_id),
                None => {}
            }
        }
        let questions = older.iter().map(|user_id| (&StateEventType::RoomMember, user_id.as_str(), at));
        found.extend(self.core.states_at(room, questions).await?.into_iter().flatten());
        Ok(found)
    }
}
