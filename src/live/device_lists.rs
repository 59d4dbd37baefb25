//! Whose devices a client has to look at anew, and whose no longer: who shares a room with its user at the end of a span of
//! the queue and didn't at its start, and the other way round; and who changed, also while nothing was shared with them for a
//! moment in between.
//!
//! Only rooms in which the span changes who is in, or whether they are encrypted, are looked at, at both ends of the span.
//! Of the others it is enough to know whom of those in question they are shared with now. What came after the end of the
//! span must not play a part in that: rooms that changed since are looked at at both ends too.
//!
//! Specification: [Tracking the device list for a
//! user](https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user) (OK-05).

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use ruma::{
    OwnedUserId, UserId,
    events::{StateEventType, room::member::MembershipState},
};
use serde::Serialize;
use serde_json::json;

use super::{
    changes::{Changes, RoomChanges},
    syncs::{Error, Syncs},
};
use crate::{
    account::Session,
    queue::{Span, Token, TokenError},
    room::{Room, State, View},
};

/// How often it is looked for rooms that changed meanwhile. Nothing stands still longer than that.
const LOOKS: usize = 4;

/// Whose devices are to be asked for again, and whose needn't be known any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceListsBody {
    pub changed: BTreeSet<OwnedUserId>,
    pub left: BTreeSet<OwnedUserId>,
}

impl DeviceListsBody {
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }
}

/// What somebody shares with the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Shared {
    #[default]
    Nothing,
    Room,
    Encrypted,
}

impl Shared {
    fn of(encrypted: bool) -> Self {
        if encrypted { Self::Encrypted } else { Self::Room }
    }
}

/// Something at the start and at the end of a span.
type Ends<T> = [T; 2];

/// A room that isn't at the end of a span what it was at the start.
struct Moved {
    room: Arc<Room>,
    at: Ends<i64>,
    /// Whether the user is in.
    own: Ends<bool>,
    encrypted: Ends<bool>,
}

/// Users who may be closer now, or less close.
type Candidates = BTreeSet<OwnedUserId>;

impl Syncs {
    /// What a span of the user's queue, with these changes, says of devices.
    pub(super) async fn device_lists(
        &self,
        session: &Session,
        changes: &Changes,
        (from, to): (i64, i64),
    ) -> Result<DeviceListsBody, Error> {
        let mut changed = BTreeSet::new();
        if !changes.device_lists.is_empty() {
            let users = self.store.users_of_changes(&changes.device_lists).await?;
            changed.extend(users.into_iter().filter_map(|user| UserId::parse(user).ok()));
        }
        let mut moved: BTreeMap<i64, Moved> = BTreeMap::new();
        let mut candidates = Candidates::new();
        for (number, changes) in &changes.rooms {
            if !may_move(changes) {
                continue;
            }
            let room = self.rooms.by_number(*number).await?;
            let at = self.ends(&room, changes, (from, to)).await?;
            let moves = self.store.moves_between(*number, at[0], at[1]).await?;
            if !moves.is_empty() {
                let one = self.moved(session, room, at).await?;
                let stayed = self.stayed(session, &one, changes).await?;
                self.add_candidates(&one, stayed, moves, &mut candidates).await?;
                moved.insert(*number, one);
            }
        }
        if !moved.is_empty() {
            // They may have changed while they were here for a moment.
            candidates.extend(changed.iter().cloned());
        }
        candidates.remove(&session.user_id);
        // Whoever comes into a room is told of all who are in it, of themselves too.
        if moved.values().any(|moved| moved.own == [false, true]) {
            changed.insert(session.user_id.clone());
        }
        // Of what they changed while they shared nothing with the user the queue says nothing.
        if !candidates.is_empty() {
            let users = json!(candidates).to_string();
            let users = self.store.changed_of(users, (from, to)).await?;
            changed.extend(users.into_iter().filter_map(|user| UserId::parse(user).ok()));
        }
        // In rooms that didn't change everybody is as they were.
        let here = self.shared_in(&moved, &candidates).await?;
        candidates.retain(|user_id| match here.get(user_id) {
            Some([before, after]) if before == after => {
                *before == Shared::Nothing && changed.contains(user_id)
            }
            _ => true,
        });
        if candidates.is_empty() {
            return Ok(DeviceListsBody { changed, left: BTreeSet::new() });
        }
        let mut shared = BTreeMap::new();
        for _ in 0..LOOKS {
            shared = self.shared(session, &candidates, &moved).await?;
            if !self.add_later(session, &mut moved, (from, to)).await? {
                break;
            }
        }
        Ok(verdict(changed, shared))
    }

    /// All that may have changed after a place of which the queue knows nothing any more.
    pub(super) async fn all_device_lists(
        &self,
        session: &Session,
        (from, to): (i64, i64),
    ) -> Result<DeviceListsBody, Error> {
        let mut shared: BTreeMap<OwnedUserId, Ends<Shared>> = BTreeMap::new();
        for membership in self.store.memberships(session.user_id.as_str()).await? {
            let room = self.rooms.by_number_once(membership.room).await?;
            let at = [self.rooms.place_at(&room, from).await?, self.rooms.place_at(&room, to).await?];
            let moved = self.moved(session, room, at).await?;
            for end in (0..2).filter(|end| moved.own[*end]) {
                for user_id in joined(&self.rooms.state_at(&moved.room, moved.at[end]).await?) {
                    let shared = &mut shared.entry(user_id).or_default()[end];
                    *shared = (*shared).max(Shared::of(moved.encrypted[end]));
                }
            }
        }
        let mut changed: BTreeSet<OwnedUserId> = shared
            .iter()
            .filter(|(_, shared)| shared[1] != Shared::Nothing)
            .map(|(user, _)| user.clone())
            .collect();
        shared.remove(&session.user_id);
        changed.insert(session.user_id.clone());
        Ok(verdict(changed, shared))
    }

    /// The same between two tokens.
    pub async fn key_changes(
        &self,
        session: &Session,
        from: &str,
        to: &str,
    ) -> Result<DeviceListsBody, Error> {
        let (from, to) = (from.parse::<Token>()?, to.parse::<Token>()?);
        let Some(to) = self.place(Some(to)).map(|place| place.position) else {
            return Err(TokenError.into());
        };
        let Some(from) = self.place(Some(from)).map(|place| place.position) else {
            return self.all_device_lists(session, (0, to)).await;
        };
        if from >= to {
            return Ok(DeviceListsBody::default());
        }
        match self.queues.read(session.recipient, from, to).await? {
            Span::Entries(entries) => self.device_lists(session, &Changes::of(&entries), (from, to)).await,
            Span::Trimmed => self.all_device_lists(session, (from, to)).await,
        }
    }

    /// The last events of a room that the two ends of a span cover.
    async fn ends(
        &self,
        room: &Room,
        changes: &RoomChanges,
        (from, to): (i64, i64),
    ) -> Result<Ends<i64>, Error> {
        // Who was in all the time was told of all that happened.
        if changes.own_memberships.is_empty()
            && let (Some(first), Some(last)) = (changes.seqs.first(), changes.seqs.last())
        {
            return Ok([first - 1, *last]);
        }
        Ok([self.rooms.place_at(room, from).await?, self.rooms.place_at(room, to).await?])
    }

    async fn moved(&self, session: &Session, room: Arc<Room>, at: Ends<i64>) -> Result<Moved, Error> {
        let (mut own, mut encrypted) = ([false; 2], [false; 2]);
        for end in 0..2 {
            let membership = self.rooms.membership_at(&room, &session.user_id, at[end]).await?;
            own[end] = membership == MembershipState::Join;
            let view = View { at: at[end] };
            encrypted[end] =
                self.rooms.state_entry(&room, &StateEventType::RoomEncryption, "", view).await?.is_some();
        }
        Ok(Moved { room, at, own, encrypted })
    }

    /// Whether the user was in a room all the time.
    async fn stayed(&self, session: &Session, moved: &Moved, changes: &RoomChanges) -> Result<bool, Error> {
        for at in &changes.own_memberships {
            let membership = self.rooms.membership_at(&moved.room, &session.user_id, *at).await?;
            if membership != MembershipState::Join {
                return Ok(false);
            }
        }
        Ok(moved.own == [true; 2])
    }

    async fn add_candidates(
        &self,
        moved: &Moved,
        stayed: bool,
        moves: Vec<(String, String)>,
        candidates: &mut Candidates,
    ) -> Result<(), Error> {
        if stayed && moved.encrypted[0] == moved.encrypted[1] {
            candidates.extend(moves.into_iter().filter_map(|(_, user)| UserId::parse(user).ok()));
            return Ok(());
        }
        for end in (0..2).filter(|end| moved.own[*end]) {
            candidates.extend(joined(&self.rooms.state_at(&moved.room, moved.at[end]).await?));
        }
        Ok(())
    }

    /// What these users share with the user at the ends of a span.
    async fn shared(
        &self,
        session: &Session,
        candidates: &Candidates,
        moved: &BTreeMap<i64, Moved>,
    ) -> Result<BTreeMap<OwnedUserId, Ends<Shared>>, Error> {
        let mut all = self.shared_in(moved, candidates).await?;
        let (users, rooms) = (json!(candidates), json!(moved.keys().collect::<Vec<_>>()));
        let elsewhere = self
            .store
            .sharing_elsewhere(session.user_id.as_str(), users.to_string(), rooms.to_string())
            .await?;
        for (user_id, encrypted) in elsewhere {
            let user_id = <&UserId>::try_from(user_id.as_str()).ok();
            if let Some(shared) = user_id.and_then(|user_id| all.get_mut(user_id)) {
                *shared = shared.map(|shared| shared.max(Shared::of(encrypted)));
            }
        }
        Ok(all)
    }

    /// The same of these rooms alone.
    async fn shared_in(
        &self,
        moved: &BTreeMap<i64, Moved>,
        candidates: &Candidates,
    ) -> Result<BTreeMap<OwnedUserId, Ends<Shared>>, Error> {
        let mut all: BTreeMap<OwnedUserId, Ends<Shared>> =
            candidates.iter().map(|user_id| (user_id.clone(), Ends::default())).collect();
        for moved in moved.values() {
            for end in (0..2).filter(|end| moved.own[*end]) {
                let users = candidates.iter().map(|user_id| &**user_id);
                for member in self.rooms.members_at(&moved.room, users, moved.at[end]).await? {
                    let user_id =
                        member.pdu.state_key.as_deref().and_then(|key| <&UserId>::try_from(key).ok());
                    if member.membership() == MembershipState::Join
                        && let Some(shared) = user_id.and_then(|user_id| all.get_mut(user_id))
                    {
                        shared[end] = shared[end].max(Shared::of(moved.encrypted[end]));
                    }
                }
            }
        }
        Ok(all)
    }

    /// Adds the rooms that changed after a span, which the database has as they are by now. Whether there are any.
    async fn add_later(
        &self,
        session: &Session,
        moved: &mut BTreeMap<i64, Moved>,
        (from, to): (i64, i64),
    ) -> Result<bool, Error> {
        // What can be read may not have reached the queues yet: after this it has.
        self.store.published().await?;
        let Span::Entries(later) = self.queues.read(session.recipient, to, self.queues.head()).await? else {
            return Ok(false);
        };
        let known: HashSet<i64> = moved.keys().copied().collect();
        for (number, changes) in Changes::of(&later).rooms {
            if known.contains(&number) || !may_move(&changes) {
                continue;
            }
            let room = self.rooms.by_number(number).await?;
            let at = [self.rooms.place_at(&room, from).await?, self.rooms.place_at(&room, to).await?];
            moved.insert(number, self.moved(session, room, at).await?);
        }
        Ok(moved.len() > known.len())
    }
}

/// Whether somebody may have come or gone.
fn may_move(changes: &RoomChanges) -> bool {
    changes.state || !changes.own_memberships.is_empty()
}

fn joined(state: &State) -> impl Iterator<Item = OwnedUserId> {
    let members = state.of_type(&StateEventType::RoomMember);
    let joined = members.filter(|(_, member)| member.membership() == MembershipState::Join);
    joined.filter_map(|(user_id, _)| UserId::parse(user_id).ok())
}

/// Who is closer at the end of a span is new; who is less close is gone, and nobody is both.
fn verdict(changed: BTreeSet<OwnedUserId>, shared: BTreeMap<OwnedUserId, Ends<Shared>>) -> DeviceListsBody {
    let mut body = DeviceListsBody { changed, left: BTreeSet::new() };
    for (user_id, [before, after]) in shared {
        if after < before {
            body.changed.remove(&user_id);
            body.left.insert(user_id);
        } else if after > before {
            body.changed.insert(user_id);
        } else if after == Shared::Nothing {
            // They were here for a moment.
            body.changed.remove(&user_id);
        }
    }
    body
}
