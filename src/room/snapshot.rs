//! A room at one moment: its state, who is in it, and where its log ends.
//!
//! A snapshot never changes. The room's writer makes the next one from a copy, which shares everything that stayed the
//! same, and puts it in the old one's place after the commit.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use hearth_federation::Limits;
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomVersionId, ServerName, UserId,
    events::{
        StateEventType,
        room::{
            guest_access::GuestAccess,
            history_visibility::HistoryVisibility,
            join_rules::JoinRule,
            member::MembershipState,
            power_levels::{RoomPowerLevels, RoomPowerLevelsSource},
        },
    },
    room_version_rules::RoomVersionRules,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Error, Event};
use crate::store::event::OUTLIER;

/// State that somebody who is invited to a room, or knocks, gets to see of it.
pub const STRIPPED: [StateEventType; 8] = [
    StateEventType::RoomCreate,
    StateEventType::RoomJoinRules,
    StateEventType::RoomName,
    StateEventType::RoomAvatar,
    StateEventType::RoomTopic,
    StateEventType::RoomCanonicalAlias,
    StateEventType::RoomEncryption,
    StateEventType::RoomHistoryVisibility,
];

/// A joined user with an account here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalMember {
    pub recipient: i64,
    pub user_id: OwnedUserId,
}

/// An event that no accepted event follows yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extremity {
    pub seq: i64,
    pub depth: i64,
    pub event_id: OwnedEventId,
}

/// The current state of a room, by type and key.
#[derive(Clone, Debug, Default)]
pub struct State(Arc<HashMap<StateEventType, Arc<Keyed>>>);

/// The state events of one type, by key.
type Keyed = BTreeMap<String, Arc<Event>>;

impl State {
    pub fn get(&self, kind: &StateEventType, state_key: &str) -> Option<&Arc<Event>> {
        self.0.get(kind)?.get(state_key)
    }

    /// All events of a type, by state key.
    pub fn of_type(&self, kind: &StateEventType) -> impl Iterator<Item = (&str, &Arc<Event>)> {
        self.0
            .get(kind)
            .into_iter()
            .flat_map(|events| events.iter().map(|(key, event)| (key.as_str(), event)))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.0.values().flat_map(|events| events.values())
    }

    pub(super) fn insert(&mut self, event: Arc<Event>) {
        if let Some((kind, state_key)) = event.pdu.state() {
            let kind = StateEventType::from(kind.to_string());
            let state_key = state_key.to_owned();
            Arc::make_mut(Arc::make_mut(&mut self.0).entry(kind).or_default()).insert(state_key, event);
        }
    }

    /// The content of a state event with an empty key.
    pub fn content<T: for<'de> Deserialize<'de>>(&self, kind: &StateEventType) -> Option<T> {
        self.get(kind, "")?.pdu.content_as().ok()
    }

    pub fn membership(&self, user_id: &UserId) -> MembershipState {
        let member = self.get(&StateEventType::RoomMember, user_id.as_str());
        member.map_or(MembershipState::Leave, |member| member.membership())
    }
}

impl FromIterator<Arc<Event>> for State {
    fn from_iter<I: IntoIterator<Item = Arc<Event>>>(events: I) -> Self {
        let mut state = Self::default();
        events.into_iter().for_each(|event| state.insert(event));
        state
    }
}

#[derive(Clone, Debug)]
pub struct Snapshot {
    pub number: i64,
    pub room_id: OwnedRoomId,
    pub version: RoomVersionId,
    pub rules: Arc<RoomVersionRules>,
    pub last_seq: i64,
    /// The position at which event `last_seq` was committed: readers at this position or above have all of it.
    pub position: i64,
    /// When event `last_seq` was put into the log.
    pub arrived: i64,
    pub depth: i64,
    /// The events that no accepted event follows yet.
    pub extremities: Arc<[Extremity]>,
    pub state: State,
    /// Joined users with an account here, by number.
    pub local: Arc<Vec<LocalMember>>,
    /// Other servers with somebody in the room, each with its number as a recipient.
    pub remote: Arc<Vec<(i64, OwnedServerName)>>,
    pub joined: usize,
    pub invited: usize,
    /// The last event that relates to another: those from here on have no children.
    pub last_relation: i64,
    /// Where the state changed last otherwise than by the event of that `seq`; 0 if it never did.
    pub last_silent: i64,
    /// Where history is missing in the log, from the lowest place up: the last event before and the first one after each.
    pub holes: Arc<[(i64, i64)]>,
    /// Events that belong to the state and couldn't be had or verified, each since when (milliseconds).
    pub lacking: Arc<BTreeMap<OwnedEventId, i64>>,
    /// The `seq` of the last outlier.
    pub outliers: i64,
    /// Stripped events about a room that this server isn't in.
    pub hearsay: Option<Arc<[Box<RawValue>]>>,
    /// Some events came before the one that they relate to, which may have come since or may not.
    pub early_relations: bool,
    /// Some redactions came before the event that they redact, and wait for it or did.
    pub early_redactions: bool,
}

impl Snapshot {
    /// A room before its first event.
    pub(super) fn empty(number: i64, room_id: OwnedRoomId, version: RoomVersionId) -> Result<Self, Error> {
        let rules = hearth_federation::rules(&version)?;
        Ok(Self {
            number,
            room_id,
            version,
            rules: Arc::new(rules),
            last_seq: 0,
            position: 0,
            arrived: 0,
            depth: 0,
            extremities: Arc::from([]),
            state: State::default(),
            local: Arc::default(),
            remote: Arc::default(),
            joined: 0,
            invited: 0,
            last_relation: 0,
            last_silent: 0,
            holes: Arc::from([]),
            lacking: Arc::default(),
            outliers: OUTLIER,
            hearsay: None,
            early_relations: false,
            early_redactions: false,
        })
    }

    /// Takes over a whole state.
    pub(super) fn enter(&mut self, state: State) {
        let members = state.of_type(&StateEventType::RoomMember);
        let memberships = members.filter_map(|(_, event)| event.pdu.membership());
        (self.joined, self.invited) = memberships.fold((0, 0), |(joined, invited), membership| {
            let (join, invite) = (membership == MembershipState::Join, membership == MembershipState::Invite);
            (joined + usize::from(join), invited + usize::from(invite))
        });
        self.state = state;
    }

    /// Whether this server keeps the room: somebody here is in it, or nobody is. Otherwise only others know how it is.
    pub fn is_resident(&self) -> bool {
        !self.local.is_empty() || (self.joined == 0 && self.create().is_some())
    }

    pub fn create(&self) -> Option<&Arc<Event>> {
        self.state.get(&StateEventType::RoomCreate, "")
    }

    /// Whether events of this room may go to other servers.
    pub fn federates(&self) -> bool {
        #[derive(Deserialize)]
        struct Content {
            #[serde(rename = "m.federate", default = "yes")]
            federate: bool,
        }
        fn yes() -> bool {
            true
        }
        self.state.content::<Content>(&StateEventType::RoomCreate).is_none_or(|content| content.federate)
    }

    /// `m.room.create`'s `type`, such as `m.space`.
    pub fn room_type(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Content {
            #[serde(rename = "type")]
            kind: Option<String>,
        }
        self.state.content::<Content>(&StateEventType::RoomCreate)?.kind
    }

    /// The content of a state event with an empty key as people outside are told it: of a room that this server isn't
    /// in, by those who are.
    pub fn outline<T: for<'de> Deserialize<'de>>(&self, kind: &StateEventType) -> Option<T> {
        match &self.hearsay {
            Some(hearsay) => said(hearsay, kind),
            None => self.state.content(kind),
        }
    }

    /// Without a rule, or with one that can't be read, only invited users may join.
    pub fn join_rule(&self) -> JoinRule {
        self.state.content(&StateEventType::RoomJoinRules).unwrap_or(JoinRule::Invite)
    }

    /// Whether strangers may know of it and who is in it: anybody can join it, or read it.
    pub fn is_open(&self) -> bool {
        self.join_rule() == JoinRule::Public || self.history_visibility() == HistoryVisibility::WorldReadable
    }

    /// GU-02: without a word on it they may not.
    pub fn guests_may_join(&self) -> bool {
        #[derive(Deserialize)]
        struct Content {
            guest_access: GuestAccess,
        }
        let content = self.state.content::<Content>(&StateEventType::RoomGuestAccess);
        content.is_some_and(|content| content.guest_access == GuestAccess::CanJoin)
    }

    pub fn history_visibility(&self) -> HistoryVisibility {
        visibility_of(self.state.get(&StateEventType::RoomHistoryVisibility, ""))
    }

    /// The power levels in force, with the defaults of a room that has none.
    pub fn power_levels(&self) -> RoomPowerLevels {
        let creators = self.creators();
        let event = self.state.get(&StateEventType::RoomPowerLevels, "");
        let content = event.and_then(|event| event.pdu.content_as().ok());
        let source = content.map_or(RoomPowerLevelsSource::None, RoomPowerLevelsSource::Original);
        RoomPowerLevels::new(source, &self.rules.authorization, creators)
    }

    /// Whose power is without limit (version 12), or 100 in a room without power levels.
    pub fn creators(&self) -> Vec<OwnedUserId> {
        #[derive(Deserialize)]
        struct Content {
            #[serde(default)]
            additional_creators: Vec<OwnedUserId>,
        }
        let Some(create) = self.create() else { return Vec::new() };
        let mut creators = vec![create.pdu.sender.clone()];
        if self.rules.authorization.additional_room_creators
            && let Ok(content) = create.pdu.content_as::<Content>()
        {
            creators.extend(content.additional_creators);
        }
        creators
    }

    pub fn member(&self, user_id: &UserId) -> Option<&Arc<Event>> {
        self.state.get(&StateEventType::RoomMember, user_id.as_str())
    }

    pub fn membership(&self, user_id: &UserId) -> MembershipState {
        self.state.membership(user_id)
    }

    pub fn is_joined(&self, user_id: &UserId) -> bool {
        self.membership(user_id) == MembershipState::Join
    }

    /// How large an event of this room may be.
    pub fn limits(&self, max_text_chars: usize) -> Limits {
        if self.federates() {
            Limits::FEDERATED
        } else {
            // A character takes eight bytes at most as JSON, and formatted text comes twice: the longest legal text,
            // plain, always fits.
            Limits::local(Limits::FEDERATED.max_pdu_bytes + 8 * max_text_chars)
        }
    }

    /// The state after one more event, whose target (of a member event) is `target` if it has an account here.
    pub(super) fn follow(&mut self, event: &Arc<Event>, target: Option<LocalMember>) {
        // In version 12 the first event gives the room its id.
        self.room_id.clone_from(&event.pdu.room_id);
        self.last_seq = event.seq;
        self.add_end(event);
        let Some((_, state_key)) = event.pdu.state() else { return };
        if let Some(membership) = event.pdu.membership() {
            let before = self.state.get(&StateEventType::RoomMember, state_key);
            let before = before.and_then(|event| event.pdu.membership());
            self.count(before.as_ref(), &membership, target);
        }
        self.state.insert(Arc::clone(event));
    }

    /// An event is an end of the history, and those that it follows are none any more.
    pub(super) fn add_end(&mut self, event: &Event) {
        let left = self.extremities.iter().filter(|end| !event.pdu.prev_events.contains(&end.event_id));
        let (seq, depth, event_id) = (event.seq, event.pdu.depth, event.pdu.event_id.clone());
        self.extremities = left.cloned().chain([Extremity { seq, depth, event_id }]).collect();
        self.depth = self.extremities.iter().map(|end| end.depth).max().unwrap_or(0);
    }

    fn count(
        &mut self,
        before: Option<&MembershipState>,
        after: &MembershipState,
        target: Option<LocalMember>,
    ) {
        let was = |membership| before == Some(&membership);
        self.joined += usize::from(*after == MembershipState::Join);
        self.joined -= usize::from(was(MembershipState::Join));
        self.invited += usize::from(*after == MembershipState::Invite);
        self.invited -= usize::from(was(MembershipState::Invite));
        if let Some(target) = target {
            self.set_local(&target, *after == MembershipState::Join);
        }
    }

    /// Whether somebody with an account here is in.
    pub(super) fn set_local(&mut self, target: &LocalMember, joined: bool) {
        let at = self.local.binary_search_by_key(&target.recipient, |member| member.recipient);
        match (at, joined) {
            (Err(at), true) => Arc::make_mut(&mut self.local).insert(at, target.clone()),
            (Ok(at), false) => drop(Arc::make_mut(&mut self.local).remove(at)),
            _ => {}
        }
    }

    /// The servers, but for `us`, that have somebody in.
    pub(super) fn servers_of_members(&self, us: &ServerName) -> BTreeSet<OwnedServerName> {
        let members = self.state.of_type(&StateEventType::RoomMember);
        let joined = members.filter(|(_, member)| member.membership() == MembershipState::Join);
        let servers = joined.filter_map(|(user, _)| Some(<&UserId>::try_from(user).ok()?.server_name()));
        servers.filter(|server| *server != us).map(ToOwned::to_owned).collect()
    }

    /// Whether a server has somebody in.
    pub fn has_member_of(&self, server: &ServerName) -> bool {
        self.state.of_type(&StateEventType::RoomMember).any(|(user, member)| {
            <&UserId>::try_from(user).is_ok_and(|user| user.server_name() == server)
                && member.membership() == MembershipState::Join
        })
    }

    pub(super) fn set_remote(&mut self, number: i64, server: &ServerName, present: bool) {
        let at = self.remote.iter().position(|(known, _)| *known == number);
        match (at, present) {
            (None, true) => Arc::make_mut(&mut self.remote).push((number, server.to_owned())),
            (Some(at), false) => drop(Arc::make_mut(&mut self.remote).remove(at)),
            _ => {}
        }
    }

    /// Of the places from `first` to `end` the last one before which history is missing.
    pub fn last_hole(&self, first: i64, end: i64) -> Option<i64> {
        let below = self.holes.partition_point(|(_, seq)| *seq <= end);
        let (_, seq) = self.holes[below.checked_sub(1)?];
        (seq >= first).then_some(seq)
    }

    /// History is missing between these two.
    pub(super) fn add_hole(&mut self, floor: i64, seq: i64) {
        let mut holes = self.holes.to_vec();
        holes.push((floor, seq));
        holes.sort_unstable();
        self.holes = holes.into();
    }

    /// Nothing is missing before event `seq` any more.
    pub(super) fn end_hole(&mut self, seq: i64) {
        self.holes = self.holes.iter().copied().filter(|(_, end)| *end != seq).collect();
    }

    /// Puts the redacted form of a state event in the place of the event.
    pub(super) fn replace(&mut self, redacted: &Arc<Event>) {
        if let Some((kind, state_key)) = redacted.pdu.state() {
            let kind = StateEventType::from(kind.to_string());
            if self.state.get(&kind, state_key).is_some_and(|event| event.seq == redacted.seq) {
                self.state.insert(Arc::clone(redacted));
            }
        }
    }
}

/// The content of the last event of a type with an empty state key among stripped ones.
pub fn said<T: for<'de> Deserialize<'de>>(hearsay: &[Box<RawValue>], kind: &StateEventType) -> Option<T> {
    #[derive(Deserialize)]
    struct Stripped<'a> {
        #[serde(rename = "type")]
        kind: StateEventType,
        state_key: String,
        #[serde(borrow)]
        content: &'a RawValue,
    }
    let mut events =
        hearsay.iter().rev().filter_map(|event| serde_json::from_str::<Stripped<'_>>(event.get()).ok());
    let event = events.find(|event| event.kind == *kind && event.state_key.is_empty())?;
    serde_json::from_str(event.content.get()).ok()
}

/// What an `m.room.history_visibility` event says; without one, or with an unknown value, `shared` (HV-02).
pub fn visibility_of(event: Option<&Arc<Event>>) -> HistoryVisibility {
    #[derive(Deserialize)]
    struct Content {
        history_visibility: HistoryVisibility,
    }
    let content = event.and_then(|event| event.pdu.content_as::<Content>().ok());
    match content.map(|content| content.history_visibility) {
        Some(
            known @ (HistoryVisibility::Invited
            | HistoryVisibility::Joined
            | HistoryVisibility::WorldReadable),
        ) => known,
        _ => HistoryVisibility::Shared,
    }
}
