//! Spaces: the rooms below a room, depth first ("Spaces" of the Client-Server API).
//!
//! A walk that isn't finished is kept in memory for its next page, under a token that only its user can use. It can be
//! dropped at any time: then the token is refused and the client begins again.

use std::{cmp::Ordering, collections::HashSet, sync::Arc};

use hearth_federation::Task;
use lru::LruCache;
use parking_lot::Mutex;
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId,
    events::{
        StateEventType,
        room::{
            join_rules::{AllowRule, JoinRule},
            member::MembershipState,
        },
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Error, Event, Preview, Rooms, Snapshot, preview::NO_PREVIEW};

/// Room ids in all walks that are kept, at most: some 40 MB.
const KEPT: usize = 400_000;

/// Rooms that one walk goes to, at most: also bounds what is kept of it.
const MOST: usize = 10_000;

/// Rooms that are looked at for one page, at most: of a space that shows none of its rooms no page takes long.
const LOOKED_AT: usize = 500;

/// Rooms of a space that another server is told of, and rooms of a rule that are looked at for it.
const MOST_FOR_SERVERS: usize = 50;

/// Milliseconds after which a page ends with what it has: servers that say nothing keep nobody waiting for the rest.
const PAGE_TIME: i64 = 15_000;

/// Servers that are asked for one room.
const MOST_VIA: usize = 3;

/// Children of a room that another server shows which are looked at.
const MOST_CHILDREN: usize = 1000;

/// The longest `order` that counts, in characters (SP-02).
const LONGEST_ORDER: usize = 50;

/// What is asked. It has to stay the same from page to page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    pub user_id: OwnedUserId,
    pub root: OwnedRoomId,
    pub suggested_only: bool,
    pub max_depth: Option<u64>,
}

/// A room of a hierarchy with what it says of its children.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SpaceRoom {
    #[serde(flatten)]
    pub preview: Preview,
    #[serde(default)]
    pub children_state: Vec<Value>,
}

/// Who knows rooms that this server isn't in.
pub trait Elsewhere: Send + Sync {
    /// A room as one of these servers shows it.
    fn room<'a>(
        &'a self,
        room_id: &'a RoomId,
        via: &'a [OwnedServerName],
        suggested_only: bool,
    ) -> Task<'a, Option<SpaceRoom>>;
}

pub struct HierarchyPage {
    pub rooms: Vec<SpaceRoom>,
    pub next_batch: Option<String>,
}

/// A room to go to.
#[derive(Clone, Debug)]
struct Stop {
    room_id: OwnedRoomId,
    depth: u64,
    /// Servers that may know it.
    via: Vec<OwnedServerName>,
}

#[derive(Clone, Debug)]
struct Walk {
    asked: Hierarchy,
    /// Rooms to go to, the next one last, with their depth.
    waiting: Vec<Stop>,
    /// Where it has been. SP-03: no room is gone to twice, so that loops end.
    seen: HashSet<OwnedRoomId>,
}

impl Walk {
    /// The next room to go to, unless there is none or it has been to enough.
    fn next(&mut self) -> Option<Stop> {
        while let Some(stop) = self.waiting.pop() {
            if self.seen.len() < MOST && self.seen.insert(stop.room_id.clone()) {
                return Some(stop);
            }
        }
        None
    }

    /// The children of a room that is `depth` deep, in their order.
    fn go_below<'c>(
        &mut self,
        depth: u64,
        children: impl DoubleEndedIterator<Item = (&'c str, &'c [String])>,
    ) {
        if self.asked.max_depth.is_some_and(|most| depth >= most) {
            return;
        }
        // The first child is gone to first, so it goes on top.
        for (child, via) in children.rev() {
            let Ok(room_id) = RoomId::parse(child) else { continue };
            if self.waiting.len() < MOST {
                let via = via.iter().take(MOST_VIA).filter_map(|via| via.as_str().try_into().ok()).collect();
                self.waiting.push(Stop { room_id, depth: depth + 1, via });
            }
        }
    }

    /// The room ids that it holds, and what it is beside them counted as some more.
    fn size(&self) -> usize {
        self.waiting.len() + self.seen.len() + 8
    }

    fn goes_on(&self) -> bool {
        self.seen.len() < MOST && self.waiting.iter().any(|stop| !self.seen.contains(&stop.room_id))
    }
}

/// The walks that wait for their next page, by token; the least recently used go first.
pub(super) struct Walks(Mutex<Kept>);

struct Kept {
    walks: LruCache<String, Arc<Walk>>,
    /// The room ids in all of them.
    rooms: usize,
}

impl Walks {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Kept { walks: LruCache::unbounded(), rooms: 0 }))
    }

    fn get(&self, token: &str) -> Option<Arc<Walk>> {
        self.0.lock().walks.get(token).cloned()
    }

    fn put(&self, token: String, walk: Walk) {
        let mut kept = self.0.lock();
        kept.rooms += walk.size();
        kept.walks.put(token, Arc::new(walk));
        while kept.rooms > KEPT {
            let Some((_, oldest)) = kept.walks.pop_lru() else { break };
            kept.rooms -= oldest.size();
        }
    }
}

/// An `m.space.child` event that counts.
struct Child<'a> {
    event: &'a Event,
    room_id: &'a str,
    order: Option<String>,
    suggested: bool,
    via: Vec<String>,
}

impl Rooms {
    /// SP-01: a page of at most `limit` rooms at and below a room, from the token of the page before on.
    pub async fn hierarchy(
        &self,
        asked: Hierarchy,
        from: Option<&str>,
        limit: usize,
        elsewhere: &dyn Elsewhere,
    ) -> Result<HierarchyPage, Error> {
        let clock = &self.core.environment.clock;
        let started = clock.now_ms();
        let (mut walk, mut rooms) = match from {
            Some(token) => (self.walk(token, &asked)?, Vec::new()),
            None => self.set_out(asked, elsewhere).await?,
        };
        for _ in 0..LOOKED_AT {
            if rooms.len() == limit || clock.now_ms().saturating_sub(started) >= PAGE_TIME {
                break;
            }
            let Some(stop) = walk.next() else { break };
            if let Some(room) = self.visit(&mut walk, &stop, elsewhere).await? {
                rooms.push(room);
            }
        }
        let next_batch = walk.goes_on().then(|| {
            let token = self.core.environment.entropy.token(24);
            self.walks.put(token.clone(), walk);
            token
        });
        Ok(HierarchyPage { rooms, next_batch })
    }

    /// A walk that has been to its root alone, which may be a room that others know.
    async fn set_out(
        &self,
        asked: Hierarchy,
        elsewhere: &dyn Elsewhere,
    ) -> Result<(Walk, Vec<SpaceRoom>), Error> {
        let root = Stop { room_id: asked.root.clone(), depth: 0, via: Vec::new() };
        let mut walk = Walk { seen: HashSet::from([root.room_id.clone()]), waiting: Vec::new(), asked };
        let room = self.visit(&mut walk, &root, elsewhere).await?;
        Ok((walk, vec![room.ok_or_else(|| Error::forbidden(NO_PREVIEW))?]))
    }

    /// The walk of a token stays, for an answer may get lost.
    fn walk(&self, token: &str, asked: &Hierarchy) -> Result<Walk, Error> {
        let walk = self.walks.get(token).filter(|walk| walk.asked == *asked);
        walk.map(|walk| Walk::clone(&walk)).ok_or_else(|| {
            Error::InvalidParam("`from` is not a token of this request, or is no longer valid".to_owned())
        })
    }

    /// A space and its rooms for another server, and those that it may not know of.
    pub async fn hierarchy_for(
        &self,
        room_id: &RoomId,
        server: &ServerName,
        suggested_only: bool,
    ) -> Result<(SpaceRoom, Vec<SpaceRoom>, Vec<OwnedRoomId>), Error> {
        let room = self.by_id(room_id).await.map_err(|cause| match cause {
            Error::NotFound(_) => Error::NotFound(NO_PREVIEW),
            cause => cause,
        })?;
        let snapshot = room.snapshot();
        if !self.server_may_preview(&snapshot, server).await? {
            return Err(Error::NotFound(NO_PREVIEW));
        }
        let mut of_space = children(&snapshot);
        of_space.retain(|child| child.suggested || !suggested_only);
        let children_state = of_space.iter().map(|child| stripped(child.event)).collect();
        let space = SpaceRoom { preview: Preview::of(&snapshot), children_state };
        let (mut rooms, mut inaccessible) = (Vec::new(), Vec::new());
        for child in of_space.iter().take(MOST_FOR_SERVERS) {
            let Ok(child) = RoomId::parse(child.room_id) else { continue };
            let room = match self.number(&child).await {
                Ok(number) => self.by_number_once(number).await?,
                // What isn't here others may know.
                Err(Error::NotFound(_)) => continue,
                Err(cause) => return Err(cause),
            };
            let snapshot = room.snapshot();
            if !snapshot.is_resident() {
                continue;
            }
            if self.server_may_preview(&snapshot, server).await? {
                let children_state = children(&snapshot).iter().map(|child| stripped(child.event)).collect();
                rooms.push(SpaceRoom { preview: Preview::of(&snapshot), children_state });
            } else {
                inaccessible.push(child);
            }
        }
        Ok((space, rooms, inaccessible))
    }

    /// Whether a server may know that a room is there: everybody may, or somebody of it is in or invited, or is in a room
    /// whose members may come in.
    async fn server_may_preview(&self, snapshot: &Snapshot, server: &ServerName) -> Result<bool, Error> {
        if !snapshot.is_resident() || !snapshot.federates() || !snapshot.lets_in(server) {
            return Ok(false);
        }
        let is_in_or_invited = snapshot.state.of_type(&StateEventType::RoomMember).any(|(user, member)| {
            <&UserId>::try_from(user).is_ok_and(|user| user.server_name() == server)
                && matches!(member.membership(), MembershipState::Join | MembershipState::Invite)
        });
        if is_in_or_invited || self.may_preview(snapshot, None).await? {
            return Ok(true);
        }
        let JoinRule::Restricted(rule) = snapshot.join_rule() else { return Ok(false) };
        for allowed in rule.allow.iter().take(MOST_FOR_SERVERS) {
            if let AllowRule::RoomMembership(allowed) = allowed
                && let Ok(room) = self.by_id(&allowed.room_id).await
            {
                let snapshot = room.snapshot();
                if snapshot.is_resident() && snapshot.has_member_of(server) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// One room, if the user may see it and this server knows it.
    async fn visit(
        &self,
        walk: &mut Walk,
        stop: &Stop,
        elsewhere: &dyn Elsewhere,
    ) -> Result<Option<SpaceRoom>, Error> {
        let room = match self.number(&stop.room_id).await {
            Ok(number) => Some(self.by_number_once(number).await?),
            Err(Error::NotFound(_)) => None,
            Err(cause) => return Err(cause),
        };
        let Some(room) = room.filter(|room| room.snapshot().is_resident()) else {
            return self.visit_elsewhere(walk, stop, elsewhere).await;
        };
        let snapshot = room.snapshot();
        if !self.may_preview(&snapshot, Some(&walk.asked.user_id)).await? {
            return Ok(None);
        }
        let mut children = children(&snapshot);
        children.retain(|child| child.suggested || !walk.asked.suggested_only);
        walk.go_below(stop.depth, children.iter().map(|child| (child.room_id, child.via.as_slice())));
        let children_state = children.iter().map(|child| stripped(child.event)).collect();
        Ok(Some(SpaceRoom { preview: Preview::of(&snapshot), children_state }))
    }
}

impl Rooms {
    /// A room that this server isn't in, as another shows it, if the user may see it by what that says.
    async fn visit_elsewhere(
        &self,
        walk: &mut Walk,
        stop: &Stop,
        elsewhere: &dyn Elsewhere,
    ) -> Result<Option<SpaceRoom>, Error> {
        let user_id = &walk.asked.user_id;
        let room =
            self.shown_elsewhere(&stop.room_id, &stop.via, user_id, walk.asked.suggested_only, elsewhere);
        let Some(mut room) = room.await? else { return Ok(None) };
        room.children_state.truncate(MOST_CHILDREN);
        // What isn't a child of a space is nothing that a client should have to read.
        let mut children = Vec::new();
        room.children_state.retain(|event| {
            let child = told_child(event);
            children.extend(child.clone());
            child.is_some()
        });
        walk.go_below(stop.depth, children.iter().map(|(room_id, via)| (room_id.as_str(), via.as_slice())));
        Ok(Some(room))
    }
}

impl Rooms {
    /// What others show of a room that this server isn't in, if the user may see it by what that says.
    async fn shown_elsewhere(
        &self,
        room_id: &RoomId,
        via: &[OwnedServerName],
        user_id: &UserId,
        suggested_only: bool,
        elsewhere: &dyn Elsewhere,
    ) -> Result<Option<SpaceRoom>, Error> {
        let invite = match self.by_id(room_id).await {
            Ok(known) => known.snapshot().member(user_id).cloned(),
            Err(Error::NotFound(_)) => None,
            Err(cause) => return Err(cause),
        };
        let invite = invite.filter(|event| event.pdu.membership() == Some(MembershipState::Invite));
        let mut via = via.to_vec();
        via.extend(invite.as_ref().map(|invite| invite.pdu.sender.server_name().to_owned()));
        let room = elsewhere.room(room_id, &via, suggested_only).await;
        let Some(room) = room.filter(|room| room.preview.room.room_id == room_id) else { return Ok(None) };
        let preview = &room.preview;
        let open = invite.is_some()
            || preview.room.world_readable
            || matches!(preview.room.join_rule.as_str(), "public" | "knock" | "knock_restricted");
        if !open {
            let allowed: Vec<&str> =
                preview.allowed_room_ids.iter().take(MOST_FOR_SERVERS).map(|id| id.as_str()).collect();
            if allowed.is_empty() || !self.core.store.is_in_one_of(user_id.as_str(), &allowed).await? {
                return Ok(None);
            }
        }
        Ok(Some(room))
    }

    /// RS-01: as [`Self::preview`], of a room that this server isn't in if need be: then by what one of these servers says.
    pub async fn preview_anywhere(
        &self,
        room_id: &RoomId,
        via: &[OwnedServerName],
        user_id: &UserId,
        elsewhere: &dyn Elsewhere,
    ) -> Result<(Preview, MembershipState), Error> {
        let room = self.by_id(room_id).await;
        let membership = match &room {
            Ok(known) if known.snapshot().is_resident() => return self.preview(room, Some(user_id)).await,
            // An invite, or what came of one.
            Ok(known) => known.snapshot().membership(user_id),
            Err(Error::NotFound(_)) => MembershipState::Leave,
            Err(_) => return self.preview(room, Some(user_id)).await,
        };
        let via = &via[..via.len().min(MOST_VIA)];
        match self.shown_elsewhere(room_id, via, user_id, false, elsewhere).await? {
            Some(shown) => Ok((shown.preview, membership)),
            None => Err(Error::NotFound(NO_PREVIEW)),
        }
    }
}

/// The room that a stripped event of another server makes a child, and servers that know it.
fn told_child(event: &Value) -> Option<(OwnedRoomId, Vec<String>)> {
    #[derive(Deserialize)]
    struct Child {
        #[serde(rename = "type")]
        kind: StateEventType,
        state_key: OwnedRoomId,
        content: Content,
    }
    #[derive(Deserialize)]
    struct Content {
        via: Vec<String>,
    }
    let child = Child::deserialize(event).ok()?;
    UserId::parse(event["sender"].as_str()?).ok()?;
    event["origin_server_ts"].as_u64()?;
    let is_child = child.kind == StateEventType::SpaceChild && !child.content.via.is_empty();
    is_child.then_some((child.state_key, child.content.via))
}

/// The children of a space, in their order (SP-02); other rooms have none.
fn children(snapshot: &Snapshot) -> Vec<Child<'_>> {
    #[derive(Deserialize)]
    struct Content {
        via: Vec<String>,
        order: Option<Value>,
        suggested: Option<Value>,
    }
    if snapshot.room_type().as_deref() != Some("m.space") {
        return Vec::new();
    }
    let all = snapshot.state.of_type(&StateEventType::SpaceChild);
    let mut children: Vec<Child<'_>> = all
        .filter_map(|(room_id, event)| {
            let content: Content = event.pdu.content_as().ok()?;
            let order = content.order.as_ref().and_then(|order| order.as_str());
            (!content.via.is_empty()).then(|| Child {
                event,
                room_id,
                order: order.filter(|order| is_order(order)).map(str::to_owned),
                suggested: content.suggested == Some(Value::Bool(true)),
                via: content.via,
            })
        })
        .collect();
    children.sort_by(|one, other| {
        let by_order = match (&one.order, &other.order) {
            (Some(one), Some(other)) => one.cmp(other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        let times = one.event.pdu.origin_server_ts.cmp(&other.event.pdu.origin_server_ts);
        by_order.then(times).then_with(|| one.room_id.cmp(other.room_id))
    });
    children
}

fn is_order(text: &str) -> bool {
    text.len() <= LONGEST_ORDER && text.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
}

/// SP-06: a stripped event with its time.
fn stripped(event: &Event) -> Value {
    json!({
        "content": event.pdu.content,
        "origin_server_ts": event.pdu.origin_server_ts,
        "sender": event.pdu.sender,
        "state_key": event.pdu.state_key,
        "type": event.pdu.kind,
    })
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, owned_user_id};

    use super::*;
    use crate::room::{
        NewRoom, Preset,
        retention_tests::{Hands, clock},
        tests::{World, user},
    };

    /// Servers that take ten seconds to say nothing.
    struct Slow {
        clock: Arc<Hands>,
        asked: Mutex<Vec<OwnedRoomId>>,
    }

    impl Elsewhere for Slow {
        fn room<'a>(
            &'a self,
            room_id: &'a RoomId,
            _: &'a [OwnedServerName],
            _: bool,
        ) -> Task<'a, Option<SpaceRoom>> {
            self.clock.pass(10_000);
            self.asked.lock().push(room_id.to_owned());
            Box::pin(async { None })
        }
    }

    /// I7: a page doesn't wait for many servers that say nothing; the next one goes on after them.
    #[tokio::test]
    async fn i7_servers_that_say_nothing_hold_up_no_page() {
        let (hands, environment) = clock(1_700_000_000_000);
        let alice = user("alice");
        let world = World::keeping(&[alice.as_str()], environment, None).await;
        let children = (0..5).map(|number| {
            let key = format!("!{number}:elsewhere");
            (StateEventType::SpaceChild, key, json!({ "via": ["elsewhere"] }))
        });
        let new = NewRoom {
            creation_content: serde_json::from_value(json!({ "type": "m.space" })).unwrap(),
            initial_state: children.collect(),
            ..World::new_room(&alice, Preset::PrivateChat)
        };
        let root = world.rooms.create(new).await.unwrap();
        let slow = Slow { clock: hands, asked: Mutex::default() };
        let asked = Hierarchy { user_id: alice, root, suggested_only: false, max_depth: None };
        let first = world.rooms.hierarchy(asked.clone(), None, 50, &slow).await.unwrap();
        assert_eq!((first.rooms.len(), slow.asked.lock().len()), (1, 2));
        let mut next = first.next_batch;
        while let Some(from) = next {
            next = world.rooms.hierarchy(asked.clone(), Some(&from), 50, &slow).await.unwrap().next_batch;
        }
        let all: HashSet<OwnedRoomId> = slow.asked.lock().iter().cloned().collect();
        assert_eq!((all.len(), slow.asked.lock().len()), (5, 5));
    }

    fn walk(rooms: usize) -> Walk {
        let root = owned_room_id!("!root:localhost");
        let asked = Hierarchy {
            user_id: owned_user_id!("@alice:localhost"),
            root: root.clone(),
            suggested_only: false,
            max_depth: None,
        };
        let stop = Stop { room_id: root, depth: 1, via: Vec::new() };
        Walk { asked, waiting: vec![stop; rooms], seen: HashSet::new() }
    }

    #[test]
    fn what_is_kept_of_walks_is_bounded_and_the_oldest_goes_first() {
        let walks = Walks::new();
        for number in 0..100 {
            walks.put(number.to_string(), walk(MOST));
            assert!(walks.get("0").is_some(), "it was used after each of the others: {number}");
        }
        let kept = walks.0.lock();
        assert!(kept.rooms <= KEPT);
        assert_eq!(kept.rooms, kept.walks.iter().map(|(_, walk)| walk.size()).sum::<usize>());
        assert!(kept.walks.contains("0") && kept.walks.contains("99") && !kept.walks.contains("1"));
    }

    #[test]
    fn small_walks_are_not_without_number_either() {
        let walks = Walks::new();
        for number in 0..KEPT {
            walks.put(number.to_string(), walk(0));
        }
        assert_eq!(walks.0.lock().walks.len(), KEPT / 8);
    }
}
