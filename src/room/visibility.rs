//! What of a room somebody may see ("History visibility" and "Leaving rooms" of the Client-Server API).
//!
//! Two answers: a [`Sight`], the events of the log that may be shown, and a [`View`], the state that may be read. Both
//! follow from the user's memberships and the room's history visibility, each at the time of the event. Nothing here
//! knows content; events that failed their checks are somebody else's to hide.

use std::sync::Arc;

use ruma::{
    OwnedUserId, ServerName, UserId,
    events::{
        StateEventType,
        room::{history_visibility::HistoryVisibility, member::MembershipState},
    },
};

use super::{Error, Event, NOT_A_MEMBER, Room, Rooms, Snapshot, snapshot::visibility_of};
use crate::store::event::OUTLIER;

/// The first place that a log can have: before it are outliers, which are no part of it.
const FIRST: i64 = OUTLIER + 1;

/// Users of a server by whom it is decided what that may see.
const MOST_USERS: usize = 100;

/// The parts of a room's log that a user may see, as ranges of `seq`.
///
/// One that [`Rooms`] gives begins after what is older than the room keeps its history, and is of its moment: it ends with
/// the last event, because the user may be gone by the next, and leaves out places where history is missing, because what
/// is put there says whether the user was in the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// First and last `seq` of each, ascending and apart.
    ranges: Vec<(i64, i64)>,
}

impl Sight {
    /// All events, whenever they came.
    pub fn everything() -> Self {
        Self::since(FIRST)
    }

    /// Event `seq` and all after it.
    pub fn since(seq: i64) -> Self {
        Self { ranges: vec![(seq, i64::MAX)] }
    }

    /// From every change of the room's history visibility and of the user's membership, oldest first, each with the
    /// `seq` at which it took effect. Where it was `silent`, the event there isn't the one that says it.
    pub fn new(
        visibilities: &[(i64, HistoryVisibility)],
        memberships: &[(i64, MembershipState)],
        silent: &[i64],
    ) -> Self {
        let last_join = memberships.iter().rev().find(|(_, membership)| *membership == MembershipState::Join);
        let last_join = last_join.map_or(i64::MIN, |(seq, _)| *seq);
        let mut changes: Vec<i64> = visibilities.iter().map(|(seq, _)| *seq).collect();
        changes.extend(memberships.iter().map(|(seq, _)| *seq));
        changes.sort_unstable();
        changes.dedup();

        // What holds between two changes, and at an event that says a change what holds before or after it (HV-03). One at
        // which state resolution changes something comes from where it was so before.
        let allowed = |at: i64| {
            let visibility = latest(visibilities, at).unwrap_or(&HistoryVisibility::Shared);
            let membership = latest(memberships, at).unwrap_or(&MembershipState::Leave);
            may_see(visibility, membership, last_join > at)
        };
        let mut sight = Self { ranges: Vec::new() };
        let mut from = FIRST;
        let mut before = allowed(FIRST);
        for change in changes {
            if before {
                sight.add(from, change - 1);
            }
            let after = allowed(change);
            if after || (before && !silent.contains(&change)) {
                sight.add(change, change);
            }
            (from, before) = (change + 1, after);
        }
        if before {
            sight.add(from, i64::MAX);
        }
        sight
    }

    /// The same without what comes after event `last`.
    fn up_to(mut self, last: i64) -> Self {
        self.ranges.retain(|(first, _)| *first <= last);
        if let Some(range) = self.ranges.last_mut() {
            range.1 = range.1.min(last);
        }
        self
    }

    /// The same without event `seq` and what is before it.
    pub(super) fn after(mut self, seq: i64) -> Self {
        self.ranges.retain(|(_, last)| *last > seq);
        if let Some(range) = self.ranges.first_mut() {
            range.0 = range.0.max(seq.saturating_add(1));
        }
        self
    }

    /// The same without the places between these, ascending and apart.
    fn without(self, holes: &[(i64, i64)]) -> Self {
        let mut left = Self { ranges: Vec::with_capacity(self.ranges.len() + holes.len()) };
        for (mut first, last) in self.ranges {
            let before = holes.partition_point(|(_, end)| *end <= first);
            for (floor, end) in holes[before..].iter().take_while(|(floor, _)| *floor < last) {
                left.add(first, *floor);
                first = first.max(*end);
            }
            left.add(first, last);
        }
        left
    }

    /// What either shows.
    fn or(self, other: Self) -> Self {
        let mut ranges = [self.ranges, other.ranges].concat();
        ranges.sort_unstable();
        let mut both = Self { ranges: Vec::with_capacity(ranges.len()) };
        for (first, last) in ranges {
            match both.ranges.last_mut() {
                Some(range) if first <= range.1.saturating_add(1) => range.1 = range.1.max(last),
                _ => both.ranges.push((first, last)),
            }
        }
        both
    }

    fn add(&mut self, first: i64, last: i64) {
        match self.ranges.last_mut() {
            _ if first > last => {}
            Some(range) if range.1 == first - 1 => range.1 = last,
            _ => self.ranges.push((first, last)),
        }
    }

    pub fn may_see(&self, seq: i64) -> bool {
        self.range_up_to(seq).is_some_and(|(_, last)| seq <= last)
    }

    /// First and last `seq` of each part of the log that may be seen, ascending and apart.
    pub fn ranges(&self) -> &[(i64, i64)] {
        &self.ranges
    }

    /// Whether there is nothing at all.
    pub fn is_nothing(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The last range that begins at `seq` or before: where to go on when going back.
    pub fn range_up_to(&self, seq: i64) -> Option<(i64, i64)> {
        let at = self.ranges.partition_point(|(first, _)| *first <= seq);
        Some(self.ranges[at.checked_sub(1)?])
    }

    /// The first range that ends at `seq` or after: where to go on when going forwards.
    pub fn range_from(&self, seq: i64) -> Option<(i64, i64)> {
        let at = self.ranges.partition_point(|(_, last)| *last < seq);
        self.ranges.get(at).copied()
    }

    /// `seq` itself if it may be seen, else the next event that may be, else the last one before.
    pub fn nearest(&self, seq: i64) -> Option<i64> {
        let next = self.range_from(seq).map(|(first, _)| first.max(seq));
        next.or_else(|| self.range_up_to(seq).map(|(_, last)| last))
    }
}

/// What was set last, at `seq` or before.
fn latest<T>(changes: &[(i64, T)], seq: i64) -> Option<&T> {
    let at = changes.partition_point(|(change, _)| *change <= seq);
    Some(&changes[at.checked_sub(1)?].1)
}

/// HV-01, for the visibility and the membership at an event.
fn may_see(visibility: &HistoryVisibility, membership: &MembershipState, joins_later: bool) -> bool {
    match visibility {
        HistoryVisibility::WorldReadable => true,
        _ if *membership == MembershipState::Join => true,
        HistoryVisibility::Invited => *membership == MembershipState::Invite,
        HistoryVisibility::Joined => false,
        // HV-02: whatever is none of the others is `shared`.
        _ => joins_later,
    }
}

/// Whether members see all that there is.
fn is_open(visibility: &HistoryVisibility) -> bool {
    matches!(visibility, HistoryVisibility::Shared | HistoryVisibility::WorldReadable)
}

/// Users of a server who are or were in a room: those who have been in for the longest time first.
fn users_of(server: &ServerName, room: &Snapshot) -> Vec<OwnedUserId> {
    let mut users: Vec<(bool, i64, OwnedUserId)> = Vec::new();
    for (user_id, event) in room.state.of_type(&StateEventType::RoomMember) {
        let Ok(user_id) = UserId::parse(user_id) else { continue };
        if user_id.server_name() == server {
            users.push((event.membership() != MembershipState::Join, event.seq, user_id));
        }
    }
    users.sort_unstable();
    users.into_iter().take(MOST_USERS).map(|(_, _, user_id)| user_id).collect()
}

/// The state of a room that a user may read: that after event `at`, or the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub at: i64,
}

impl View {
    pub const NOW: Self = Self { at: i64::MAX };
}

impl Rooms {
    /// The events of the whole log that a user may see.
    pub async fn sight(&self, room: &Room, user_id: &UserId) -> Result<Sight, Error> {
        self.sight_from(room, user_id, i64::MIN).await
    }

    /// As [`Self::sight`], but what it says of events before `oldest` may be less than the truth. It asks the database
    /// nothing if the user has been in the room since then.
    pub async fn sight_from(&self, room: &Room, user_id: &UserId, oldest: i64) -> Result<Sight, Error> {
        // Of before the memberships are read: what is put into a hole after that isn't judged by them.
        let snapshot = room.snapshot();
        let sight = self.sight_of_all(room, &snapshot, user_id, oldest).await?;
        self.without_expired(room, sight.without(&snapshot.holes)).await
    }

    /// As [`Self::sight_from`], with what is older than the room keeps its history, and with holes.
    async fn sight_of_all(
        &self,
        room: &Room,
        snapshot: &Snapshot,
        user_id: &UserId,
        oldest: i64,
    ) -> Result<Sight, Error> {
        let joined = snapshot.is_joined(user_id);
        let member = snapshot.member(user_id);
        if let Some(member) = member
            && joined
            && snapshot.last_silent <= oldest
            && member.seq <= oldest
        {
            return Ok(Sight::since(member.seq).up_to(snapshot.last_seq));
        }
        let (visibilities, mut silent) = self.visibilities(room).await?;
        if joined && visibilities.iter().all(|(_, visibility)| is_open(visibility)) {
            return Ok(Sight::everything().up_to(snapshot.last_seq));
        }
        let mut memberships = Vec::new();
        if member.is_some() && !self.has_forgotten(room, user_id).await? {
            let (changes, without_event) = self.memberships(room, user_id).await?;
            memberships = changes;
            silent.extend(without_event);
        }
        Ok(Sight::new(&visibilities, &memberships, &silent).up_to(snapshot.last_seq))
    }

    /// As [`Self::sight`], for whoever reads the log. Those who may see nothing aren't in the room.
    pub async fn reading(&self, room: &Room, user_id: &UserId) -> Result<Sight, Error> {
        let snapshot = room.snapshot();
        let sight = self.sight_of_all(room, &snapshot, user_id, i64::MIN).await?;
        if sight.is_nothing() {
            return Err(Error::forbidden(NOT_A_MEMBER));
        }
        self.without_expired(room, sight.without(&snapshot.holes)).await
    }

    /// BF-04: the events that some user of a server may see, as it has somebody in the room.
    pub(super) async fn sight_of_server(&self, room: &Room, server: &ServerName) -> Result<Sight, Error> {
        let snapshot = room.snapshot();
        let (visibilities, silent) = self.visibilities(room).await?;
        let mut sight = Sight { ranges: Vec::new() };
        if visibilities.iter().all(|(_, visibility)| is_open(visibility)) {
            sight = Sight::everything();
        } else {
            for user_id in users_of(server, &snapshot) {
                let (memberships, without_event) = self.memberships(room, &user_id).await?;
                let silent = [&*silent, &without_event].concat();
                sight = sight.or(Sight::new(&visibilities, &memberships, &silent));
            }
        }
        self.without_expired(room, sight.without(&snapshot.holes)).await
    }

    /// TX-05: the events from `oldest` on at which a server had somebody in the room, those included by which it came and
    /// went: what it is sent.
    pub async fn stays_of_server(
        &self,
        room: &Room,
        server: &ServerName,
        oldest: i64,
    ) -> Result<Sight, Error> {
        let snapshot = room.snapshot();
        let users = users_of(server, &snapshot);
        let since = |user_id: &OwnedUserId| Some(snapshot.member(user_id)?.seq);
        let mut joined = users.iter().filter(|user_id| snapshot.is_joined(user_id));
        if joined.any(|user_id| since(user_id).is_some_and(|seq| seq <= oldest)) {
            return Ok(Sight::since(oldest));
        }
        let always = [(FIRST, HistoryVisibility::Joined)];
        let mut stays = Sight { ranges: Vec::new() };
        for user_id in users {
            let (memberships, _) = self.memberships(room, &user_id).await?;
            stays = stays.or(Sight::new(&always, &memberships, &[]));
            if stays.range_up_to(oldest).is_some_and(|(_, last)| last == i64::MAX) {
                break;
            }
        }
        Ok(stays)
    }

    /// Which state a user may read: members the current one, former members that of when they left (HV-11), everybody
    /// the current one of a room that the world may read.
    pub async fn view(&self, room: &Room, user_id: &UserId) -> Result<View, Error> {
        let snapshot = room.snapshot();
        if snapshot.is_joined(user_id) {
            return Ok(View::NOW);
        }
        if snapshot.member(user_id).is_some() && !self.has_forgotten(room, user_id).await? {
            let (memberships, _) = self.memberships(room, user_id).await?;
            let was_in = memberships.iter().rposition(|(_, membership)| *membership == MembershipState::Join);
            if let Some((left, _)) = was_in.and_then(|joined| memberships.get(joined + 1)) {
                return Ok(View { at: *left });
            }
        }
        if snapshot.history_visibility() == HistoryVisibility::WorldReadable {
            return Ok(View::NOW);
        }
        Err(Error::forbidden(NOT_A_MEMBER))
    }

    /// The state at a place in the log, as near to it as the user could ever look (LL-05). `view` is what they may read
    /// now.
    pub async fn view_at(
        &self,
        room: &Room,
        user_id: &UserId,
        view: View,
        place: i64,
    ) -> Result<View, Error> {
        if place >= view.at {
            return Ok(view);
        }
        // State is kept however old it is.
        let sight = self.sight_of_all(room, &room.snapshot(), user_id, place).await?;
        Ok(View { at: sight.nearest(place).unwrap_or(place).min(view.at) })
    }

    /// Whether the user has left the room and forgotten it: then they are like somebody who never was in it.
    async fn has_forgotten(&self, room: &Room, user_id: &UserId) -> Result<bool, Error> {
        // Only who isn't in a room can have forgotten it.
        let away =
            matches!(room.snapshot().membership(user_id), MembershipState::Leave | MembershipState::Ban);
        Ok(away && self.core.store.is_forgotten(user_id.as_str(), room.number).await?)
    }

    /// Each change, and where it was silent.
    async fn visibilities(&self, room: &Room) -> Result<(Vec<(i64, HistoryVisibility)>, Vec<i64>), Error> {
        let changes = self.core.changes(room, &StateEventType::RoomHistoryVisibility, "").await?;
        let silent = without_event(&changes);
        Ok((changes.into_iter().map(|(seq, event)| (seq, visibility_of(event.as_ref()))).collect(), silent))
    }

    /// Each change, and where it was silent.
    async fn memberships(
        &self,
        room: &Room,
        user_id: &UserId,
    ) -> Result<(Vec<(i64, MembershipState)>, Vec<i64>), Error> {
        let changes = self.core.changes(room, &StateEventType::RoomMember, user_id.as_str()).await?;
        let silent = without_event(&changes);
        let membership =
            |event: Option<Arc<Event>>| event.map_or(MembershipState::Leave, |event| event.membership());
        Ok((changes.into_iter().map(|(seq, event)| (seq, membership(event))).collect(), silent))
    }
}

/// Where something changed otherwise than by the event there.
fn without_event(changes: &[(i64, Option<Arc<Event>>)]) -> Vec<i64> {
    let silent =
        |(seq, event): &&(i64, Option<Arc<Event>>)| event.as_ref().is_none_or(|event| event.seq != *seq);
    changes.iter().filter(silent).map(|(seq, _)| *seq).collect()
}

#[cfg(test)]
mod tests {
    use HistoryVisibility::{Invited, Joined, Shared, WorldReadable};
    use MembershipState::{Ban, Invite, Join, Knock, Leave};

    use super::*;

    /// Before the invite, while invited, while in, after leaving, after coming back.
    const MESSAGES: [i64; 5] = [5, 7, 9, 11, 13];

    fn seen(sight: &Sight) -> String {
        MESSAGES.iter().map(|seq| if sight.may_see(*seq) { 'x' } else { '-' }).collect()
    }

    /// HV-01, HV-04, HV-12: each visibility, on each way through a room.
    #[test]
    fn every_way_through_a_room_sees_what_each_visibility_allows() {
        // World readable, shared, invited, joined.
        type Row = (&'static str, Vec<(i64, MembershipState)>, [&'static str; 4]);
        let paths: [Row; 10] = [
            ("never there", vec![], ["xxxxx", "-----", "-----", "-----"]),
            ("invited", vec![(6, Invite)], ["xxxxx", "-----", "-xxxx", "-----"]),
            ("rejects the invite", vec![(6, Invite), (10, Leave)], ["xxxxx", "-----", "-xx--", "-----"]),
            ("joins uninvited", vec![(8, Join)], ["xxxxx", "xxxxx", "--xxx", "--xxx"]),
            ("joins invited", vec![(6, Invite), (8, Join)], ["xxxxx", "xxxxx", "-xxxx", "--xxx"]),
            (
                "leaves or is kicked",
                vec![(6, Invite), (8, Join), (10, Leave)],
                ["xxxxx", "xxx--", "-xx--", "--x--"],
            ),
            ("is banned", vec![(6, Invite), (8, Join), (10, Ban)], ["xxxxx", "xxx--", "-xx--", "--x--"]),
            (
                "leaves, is banned, unbanned",
                vec![(8, Join), (10, Leave), (12, Ban), (14, Leave)],
                ["xxxxx", "xxx--", "--x--", "--x--"],
            ),
            (
                "comes back",
                vec![(6, Invite), (8, Join), (10, Leave), (12, Join)],
                ["xxxxx", "xxxxx", "-xx-x", "--x-x"],
            ),
            ("knocks", vec![(6, Knock)], ["xxxxx", "-----", "-----", "-----"]),
        ];
        for (name, path, expected) in paths {
            for (visibility, expected) in [WorldReadable, Shared, Invited, Joined].iter().zip(expected) {
                let sight = Sight::new(&[(4, visibility.clone())], &path, &[]);
                assert_eq!(seen(&sight), expected, "{name}, {visibility}");
                assert_eq!(
                    sight.is_nothing(),
                    *visibility != WorldReadable
                        && path.iter().all(|(_, membership)| {
                            *membership != Join && !(*visibility == Invited && *membership == Invite)
                        }),
                    "{name}, {visibility}"
                );
            }
        }
    }

    /// HV-02
    #[test]
    fn a_room_that_says_nothing_is_shared() {
        assert_eq!(Sight::new(&[], &[(8, Join)], &[]), Sight::everything());
        assert!(Sight::new(&[], &[], &[]).is_nothing());
        let unknown = HistoryVisibility::from("org.example.moonlight");
        assert_eq!(seen(&Sight::new(&[(4, unknown)], &[(8, Join), (10, Leave)], &[])), "xxx--");
    }

    /// HV-03
    #[test]
    fn a_change_of_visibility_is_seen_if_it_is_allowed_before_or_after() {
        let opened = Sight::new(&[(4, Joined), (6, WorldReadable)], &[], &[]);
        assert!(opened.may_see(6), "allowed after it");
        assert!(!opened.may_see(5));
        let closed = Sight::new(&[(4, WorldReadable), (6, Joined)], &[], &[]);
        assert!(closed.may_see(6), "allowed before it");
        assert!(!closed.may_see(7));
        let neither = Sight::new(&[(2, Joined), (6, Invited), (7, Joined)], &[(9, Join)], &[]);
        assert!(!neither.may_see(6));
        assert!(neither.may_see(1), "shared until the room said otherwise");
    }

    /// HV-03
    #[test]
    fn the_own_membership_is_seen_if_it_is_allowed_before_or_after() {
        let sight = Sight::new(&[(4, Joined)], &[(6, Invite), (8, Join), (10, Leave), (12, Ban)], &[]);
        assert!(!sight.may_see(6));
        assert!(sight.may_see(8) && sight.may_see(10));
        assert!(!sight.may_see(11) && !sight.may_see(12));
    }

    /// HV-03, SR-11: a message at which somebody turns out to have left comes from where they had; one at which they turn out
    /// to be in comes from where they were.
    #[test]
    fn i10_what_resolution_changes_holds_for_the_event_at_which_it_does() {
        let path = [(6, Join), (8, Leave), (10, Join)];
        let seen = |silent: &[i64]| {
            let sight = Sight::new(&[(4, Joined)], &path, silent);
            [7, 8, 9, 10].map(|seq| sight.may_see(seq))
        };
        assert_eq!(seen(&[]), [true, true, false, true]);
        assert_eq!(seen(&[8, 10]), [true, false, false, true]);
    }

    #[test]
    fn ranges_lead_over_what_is_hidden() {
        let path = [(8, Join), (10, Leave), (12, Join)];
        let sight = Sight::new(&[(4, Joined)], &path, &[]);
        // Before event 4 the room was shared.
        assert_eq!(sight.ranges, [(FIRST, 4), (8, 10), (12, i64::MAX)]);
        assert_eq!(sight.range_up_to(11), Some((8, 10)));
        assert_eq!(sight.range_up_to(12), Some((12, i64::MAX)));
        assert_eq!(sight.range_from(5), Some((8, 10)));
        assert_eq!(sight.range_from(10), Some((8, 10)));
        assert_eq!(sight.nearest(11), Some(12));
        assert_eq!(Sight::new(&[(4, Joined)], &path[..2], &[]).nearest(11), Some(10));
        assert_eq!(Sight::new(&[], &[], &[]).nearest(3), None);
    }

    #[test]
    fn a_sight_says_nothing_of_what_is_put_into_holes() {
        let without = |holes: &[(i64, i64)]| Sight { ranges: vec![(3, 9), (12, 20)] }.without(holes).ranges;
        assert_eq!(without(&[]), [(3, 9), (12, 20)]);
        assert_eq!(without(&[(0, 3), (9, 12), (20, 30)]), [(3, 9), (12, 20)]);
        assert_eq!(without(&[(FIRST - 1, 5), (7, 15)]), [(5, 7), (15, 20)]);
        assert_eq!(without(&[(4, 6), (6, 8), (18, 40)]), [(3, 4), (6, 6), (8, 9), (12, 18)]);
        assert_eq!(without(&[(1, 20)]), [(20, 20)]);
    }

    #[test]
    fn a_sight_ends_with_its_moment() {
        let sight = Sight::new(&[(4, Joined)], &[(8, Join), (10, Leave), (12, Join)], &[]);
        assert_eq!(sight.clone().up_to(13).ranges, [(FIRST, 4), (8, 10), (12, 13)]);
        assert_eq!(sight.clone().up_to(11).ranges, [(FIRST, 4), (8, 10)]);
        assert!(!Sight::everything().up_to(13).may_see(14));
    }
}
