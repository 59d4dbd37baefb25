//! A user's rooms in the order of their last events, and what lists are filtered by.
//!
//! It is made by one question for all rooms when it is first wanted, and from then on follows the user's queue: an event
//! moves one room, and only what changes the state makes anybody look at that room. All connections of a user share it;
//! it can be dropped at any time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lru::LruCache;
use parking_lot::Mutex;
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::{StateEventType, room::member::MembershipState},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, value::RawValue};

use super::request::{Filters, List};
use crate::{
    account::{IgnoredUsers, InvitePermissions, InviteVerdict, Session},
    live::syncs::{Error, Syncs},
    queue::{Kind, Span, flags},
    room::{View, said},
    store::account_data::GLOBAL,
};

/// Users whose order is kept.
const USERS: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

const DIRECT: &str = "m.direct";
const TAGS: &str = "m.tag";
const CREATE: StateEventType = StateEventType::RoomCreate;
const ENCRYPTION: StateEventType = StateEventType::RoomEncryption;

/// What the user has to do with a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Joined,
    Invited {
        by: OwnedUserId,
    },
    Knocking,
    /// Left by themselves, or never were in it.
    Left,
    /// Were sent away.
    Removed,
}

/// What lists are filtered by beside that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    encrypted: bool,
    kind: Option<String>,
}

impl Facts {
    /// From what is under these two types in the state.
    fn of(encryption: Option<IgnoredAny>, create: Option<CreateContent>) -> Self {
        Self { encrypted: encryption.is_some(), kind: create.and_then(|content| content.kind) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) room_id: OwnedRoomId,
    pub(super) part: Part,
    /// The position of the last event that the user was told of.
    pub(super) last: i64,
    facts: Facts,
}

/// What is the same for all lists of a request.
pub(super) struct Reading<'a> {
    pub(super) ignored: &'a IgnoredUsers,
    pub(super) invites: &'a InvitePermissions,
    /// Whether the client has a room already.
    pub(super) has: &'a (dyn Fn(i64) -> bool + Sync),
    /// Whether the user is in a room for all that the client knows.
    pub(super) is_in: &'a (dyn Fn(i64) -> bool + Sync),
    /// The rooms of each space that a filter names.
    pub(super) spaces: BTreeMap<OwnedRoomId, HashSet<OwnedRoomId>>,
}

pub(super) struct Order {
    /// `None` until the rooms are read.
    position: Option<i64>,
    /// Changes with everything that may change what a list holds, but for the order.
    version: u64,
    rooms: HashMap<i64, Listed>,
    by_activity: BTreeSet<(Reverse<i64>, i64)>,
    numbers: HashMap<OwnedRoomId, i64>,
    direct: Option<Arc<HashSet<OwnedRoomId>>>,
    tags: Option<HashMap<i64, HashSet<String>>>,
    /// How many rooms were looked at.
    #[cfg(test)]
    looked: AtomicU64,
}

/// The orders of all users.
pub(super) struct Orders {
    kept: Mutex<LruCache<i64, Arc<tokio::sync::Mutex<Order>>>>,
    /// How many there ever were: no two have the same version.
    made: AtomicU64,
}

impl Orders {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::new(LruCache::new(USERS)), made: AtomicU64::new(0) }
    }

    pub(super) fn of(&self, recipient: i64) -> Arc<tokio::sync::Mutex<Order>> {
        let new = || {
            let version = self.made.fetch_add(1, Ordering::Relaxed) << 32;
            Arc::new(tokio::sync::Mutex::new(Order::new(version)))
        };
        Arc::clone(self.kept.lock().get_or_insert(recipient, new))
    }

    /// To be read anew: something changed that no queue says.
    pub(super) fn forget(&self, recipient: i64) {
        self.kept.lock().pop(&recipient);
    }
}

impl Order {
    fn new(version: u64) -> Self {
        Self {
            position: None,
            version,
            rooms: HashMap::new(),
            by_activity: BTreeSet::new(),
            numbers: HashMap::new(),
            direct: None,
            tags: None,
            #[cfg(test)]
            looked: AtomicU64::new(0),
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn get(&self, room: i64) -> Option<&Listed> {
        self.rooms.get(&room)
    }

    pub(super) fn number(&self, room_id: &RoomId) -> Option<i64> {
        self.numbers.get(room_id).copied()
    }

    pub(super) fn is_direct(&self, room_id: &RoomId) -> bool {
        self.direct.as_ref().is_some_and(|direct| direct.contains(room_id))
    }

    /// Brings it up to position `to`, with what these lists need.
    pub(super) async fn advance<'a>(
        &mut self,
        syncs: &Syncs,
        session: &Session,
        lists: impl Iterator<Item = &'a List> + Clone + Send,
        to: i64,
    ) -> Result<(), Error> {
        match self.position {
            Some(position) => match syncs.queues.read(session.recipient, position, to).await? {
                Span::Entries(entries) => {
                    let mut touched = BTreeSet::new();
                    for entry in entries {
                        match entry.kind {
                            Kind::Event => {
                                self.move_to(entry.room, entry.position);
                                if entry.flags & (flags::STATE | flags::OWN_MEMBERSHIP) != 0
                                    || !self.rooms.contains_key(&entry.room)
                                {
                                    touched.insert((entry.room, entry.position));
                                }
                            }
                            Kind::AccountData if entry.room == GLOBAL => {
                                self.direct = None;
                                self.version += 1;
                            }
                            Kind::AccountData if self.tags.is_some() => {
                                self.tags = None;
                                self.version += 1;
                            }
                            _ => {}
                        }
                    }
                    for (room, position) in touched {
                        self.look_at(syncs, session, room, position).await?;
                    }
                }
                Span::Trimmed => self.read(syncs, session).await?,
            },
            None => self.read(syncs, session).await?,
        }
        self.position = Some(to);
        let filters = lists.map(|list| &list.filters);
        if self.direct.is_none() {
            self.direct = Some(Arc::new(direct_rooms(syncs, session).await?));
        }
        if self.tags.is_none() && filters.clone().any(|list| list.tags.is_some() || list.not_tags.is_some()) {
            self.tags = Some(tags(syncs, session).await?);
        }
        Ok(())
    }

    fn insert(&mut self, room: i64, listed: Listed) {
        #[cfg(test)]
        self.looked.fetch_add(1, Ordering::Relaxed);
        self.by_activity.insert((Reverse(listed.last), room));
        self.numbers.insert(listed.room_id.clone(), room);
        if let Some(before) = self.rooms.insert(room, listed)
            && before.last != self.rooms[&room].last
        {
            self.by_activity.remove(&(Reverse(before.last), room));
        }
    }

    fn move_to(&mut self, room: i64, position: i64) {
        if let Some(listed) = self.rooms.get_mut(&room) {
            self.by_activity.remove(&(Reverse(listed.last), room));
            listed.last = position;
            self.by_activity.insert((Reverse(position), room));
        }
    }

    fn remove(&mut self, room: i64) {
        if let Some(listed) = self.rooms.remove(&room) {
            self.by_activity.remove(&(Reverse(listed.last), room));
            self.numbers.remove(&listed.room_id);
            self.version += 1;
        }
    }

    /// All rooms of the user, from the database.
    async fn read(&mut self, syncs: &Syncs, session: &Session) -> Result<(), Error> {
        *self = Self::new(self.version + 1);
        let rows = syncs.store.listed_rooms(session.user_id.as_str()).await?;
        let mut away = Vec::new();
        for row in rows {
            // What can't be read is one room less, not an end to all.
            let Ok(room_id) = OwnedRoomId::try_from(row.room_id) else { continue };
            let sender =
                row.member.and_then(|pdu| serde_json::from_str::<Member>(&pdu).ok()).map(|pdu| pdu.sender);
            let part = match (row.membership.as_str(), sender) {
                ("join", _) => Part::Joined,
                ("invite", Some(by)) => Part::Invited { by },
                ("knock", _) => Part::Knocking,
                ("leave" | "ban", Some(sender)) if sender != session.user_id => {
                    away.push(row.room);
                    Part::Left
                }
                _ => Part::Left,
            };
            let facts = if let Some(hearsay) = row.hearsay {
                let hearsay: Vec<Box<RawValue>> = serde_json::from_str(&hearsay).unwrap_or_default();
                Facts::of(said(&hearsay, &ENCRYPTION), said(&hearsay, &CREATE))
            } else {
                let create = row.create.and_then(|pdu| serde_json::from_str::<Create>(&pdu).ok());
                Facts::of(row.encrypted.then_some(IgnoredAny), create.map(|pdu| pdu.content))
            };
            self.insert(row.room, Listed { room_id, part, last: row.position, facts });
        }
        if !away.is_empty() {
            for (room, pdu) in syncs.store.member_events(session.user_id.as_str(), &away).await? {
                let joined = serde_json::from_str::<Member>(&pdu)
                    .is_ok_and(|member| member.content.membership == Some(MembershipState::Join));
                if let Some(listed) = self.rooms.get_mut(&room).filter(|_| joined) {
                    listed.part = Part::Removed;
                }
            }
        }
        Ok(())
    }

    /// Looks at a room whose state changed.
    async fn look_at(&mut self, syncs: &Syncs, session: &Session, room: i64, at: i64) -> Result<(), Error> {
        #[cfg(test)]
        self.looked.fetch_add(1, Ordering::Relaxed);
        let found = syncs.rooms.by_number(room).await?;
        let snapshot = found.snapshot();
        let Some(member) = snapshot.member(&session.user_id) else {
            self.remove(room);
            return Ok(());
        };
        let part = match member.membership() {
            MembershipState::Join => Part::Joined,
            MembershipState::Invite => Part::Invited { by: member.pdu.sender.clone() },
            MembershipState::Knock => Part::Knocking,
            _ if member.pdu.sender == session.user_id => Part::Left,
            _ => match syncs.rooms.view(&found, &session.user_id).await {
                Ok(view) if view != View::NOW => Part::Removed,
                _ => Part::Left,
            },
        };
        let facts = Facts::of(snapshot.outline(&ENCRYPTION), snapshot.outline(&CREATE));
        let last = self.rooms.get(&room).map_or(at, |listed| listed.last);
        let new = Listed { room_id: found.room_id.clone(), part, last, facts };
        let changed =
            self.rooms.get(&room).is_none_or(|before| before.part != new.part || before.facts != new.facts);
        if changed {
            self.version += 1;
            self.insert(room, new);
        }
        Ok(())
    }

    /// Whether a list has a room.
    pub(super) fn holds(&self, filters: &Filters, room: i64, reading: &Reading<'_>) -> bool {
        #[cfg(test)]
        self.looked.fetch_add(1, Ordering::Relaxed);
        let Some(listed) = self.rooms.get(&room) else { return false };
        // SY-19, MB-11: an invite that the user doesn't want is as if it weren't there.
        let unwanted = |by: &OwnedUserId| {
            reading.ignored.contains(by) || reading.invites.verdict(by) != InviteVerdict::Allowed
        };
        let (there, invited) = match &listed.part {
            Part::Joined | Part::Knocking | Part::Removed => (true, false),
            Part::Invited { by } if !unwanted(by) => (true, true),
            Part::Left => ((reading.has)(room), false),
            // But for whoever has yet to hear that they left before.
            Part::Invited { .. } => ((reading.is_in)(room), false),
        };
        there
            && filters.is_invite.is_none_or(|wanted| wanted == invited)
            && filters.is_dm.is_none_or(|wanted| wanted == self.is_direct(&listed.room_id))
            && facts_fit(filters, listed)
            && self.tags_fit(filters, room)
            && filters.spaces.as_ref().is_none_or(|spaces| {
                spaces
                    .iter()
                    .filter_map(|space| reading.spaces.get(space))
                    .any(|rooms| rooms.contains(&listed.room_id))
            })
    }

    fn tags_fit(&self, filters: &Filters, room: i64) -> bool {
        if filters.tags.is_none() && filters.not_tags.is_none() {
            return true;
        }
        let tags = self.tags.as_ref().and_then(|tags| tags.get(&room));
        let has_one_of =
            |wanted: &Vec<String>| tags.is_some_and(|tags| wanted.iter().any(|tag| tags.contains(tag)));
        filters.tags.as_ref().is_none_or(has_one_of) && !filters.not_tags.as_ref().is_some_and(has_one_of)
    }

    /// The rooms in the windows of a list, and how many it has. With `count`, which is that already, it looks no further
    /// than the last window.
    pub(super) fn window(&self, list: &List, reading: &Reading<'_>, count: Option<u64>) -> (Vec<i64>, u64) {
        let last = list.last();
        let (mut shown, mut index) = (Vec::new(), 0);
        for (_, room) in &self.by_activity {
            if let Some(count) = count
                && (last.is_none_or(|last| index > last) || index >= count)
            {
                return (shown, count);
            }
            if self.holds(&list.filters, *room, reading) {
                if list.shows(index) {
                    shown.push(*room);
                }
                index += 1;
            }
        }
        (shown, index)
    }
}

fn facts_fit(filters: &Filters, listed: &Listed) -> bool {
    let facts = &listed.facts;
    let is_one_of = |kinds: &Vec<Option<String>>| kinds.contains(&facts.kind);
    filters.is_encrypted.is_none_or(|wanted| wanted == facts.encrypted)
        && filters.room_types.as_ref().is_none_or(is_one_of)
        && !filters.not_room_types.as_ref().is_some_and(is_one_of)
}

#[derive(Deserialize)]
struct Member {
    sender: OwnedUserId,
    #[serde(default)]
    content: MemberContent,
}

#[derive(Default, Deserialize)]
struct MemberContent {
    membership: Option<MembershipState>,
}

#[derive(Deserialize)]
struct Create {
    content: CreateContent,
}

#[derive(Deserialize)]
struct CreateContent {
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// The rooms that the user calls direct. Clients write what they like: what can't be read is none.
async fn direct_rooms(syncs: &Syncs, session: &Session) -> Result<HashSet<OwnedRoomId>, Error> {
    let content = syncs.store.account_data(session.recipient, GLOBAL, DIRECT).await?;
    let content = content.and_then(|content| serde_json::from_str::<Map<String, Value>>(&content).ok());
    let lists = content.unwrap_or_default();
    let rooms = lists.values().filter_map(Value::as_array).flatten().filter_map(Value::as_str);
    Ok(rooms.filter_map(|room| OwnedRoomId::try_from(room).ok()).collect())
}

async fn tags(syncs: &Syncs, session: &Session) -> Result<HashMap<i64, HashSet<String>>, Error> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(default)]
        tags: Map<String, Value>,
    }
    let rows = syncs.store.account_data_by_room(session.recipient, TAGS).await?;
    let tags = rows.into_iter().filter_map(|(room, content)| {
        let content: Content = serde_json::from_str(&content).ok()?;
        Some((room, content.tags.into_iter().map(|(tag, _)| tag).collect()))
    });
    Ok(tags.collect())
}

/// The rooms that a space of the user's names, without those of spaces in it.
pub(super) async fn rooms_of_space(
    syncs: &Syncs,
    user_id: &UserId,
    space: i64,
) -> Result<HashSet<OwnedRoomId>, Error> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(default)]
        via: Vec<Value>,
    }
    let snapshot = syncs.rooms.by_number(space).await?.snapshot();
    if !snapshot.is_joined(user_id) {
        return Ok(HashSet::new());
    }
    let children = snapshot.state.of_type(&StateEventType::SpaceChild);
    let named = children
        .filter(|(_, event)| event.pdu.content_as::<Content>().is_ok_and(|content| !content.via.is_empty()));
    Ok(named.filter_map(|(room_id, _)| OwnedRoomId::try_from(room_id).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        live::{
            brief_tests::{log_in, syncs_of},
            sliding::{Config, Request, Sliding, Wishes},
        },
        room::tests::World,
    };

    /// How many rooms are looked at for a message to somebody in so many rooms whose list shows those up to each of these.
    async fn looked_at(rooms: usize, shown: [u64; 2]) -> Vec<u64> {
        let world = World::new(&[]).await;
        let session = log_in(&world, "alice").await;
        let oldest = world.room(&session.user_id).await;
        for _ in 1..rooms {
            world.room(&session.user_id).await;
        }
        let sliding = Sliding::new(syncs_of(&world));
        let ask = async |last: u64, pos: Option<&str>| {
            let config = Config { timeline_limit: 1, state: Vec::new() };
            let request =
                Request { conn_id: last.to_string(), ..Request::new(Wishes::rooms(config, last), pos) };
            let answer = sliding.sync(session.clone(), request).await.unwrap();
            serde_json::from_slice::<Value>(&answer).unwrap()
        };
        let begun = [ask(shown[0], None).await, ask(shown[1], None).await];
        world.say(&oldest, &session.user_id, "hello").await;
        let order = sliding.orders.of(session.recipient);
        let mut looked = Vec::new();
        for (last, begun) in shown.into_iter().zip(begun) {
            order.lock().await.looked.store(0, Ordering::Relaxed);
            let answer = ask(last, begun["pos"].as_str()).await;
            let told: Vec<&String> = answer["rooms"].as_object().unwrap().keys().collect();
            assert_eq!(told, [oldest.room_id.as_str()]);
            looked.push(order.lock().await.looked.load(Ordering::Relaxed));
        }
        looked
    }

    #[tokio::test]
    async fn a_message_costs_the_same_however_many_rooms_there_are() {
        for rooms in [20, 200] {
            // Its own; and where not all are shown, the five that are now.
            assert_eq!(looked_at(rooms, [u64::MAX, 4]).await, [1, 5], "of {rooms} rooms");
        }
    }
}
