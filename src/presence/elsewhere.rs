//! The presence of users of other servers: what these say, in memory, for those here who share a room with them.
//!
//! They are on the board like those who are here, with numbers of their own below all recipients. Their server says when
//! they become idle or go; one that falls silent has nobody left after a while. Nothing of it is stored.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
};

use lru::LruCache;
use ruma::{OwnedServerName, OwnedUserId, UserId};

use super::{Error, Past, Presence, PresenceEvent, State, event_of};
use crate::store;

/// How long somebody is what their server said last. Servers say it again every 25 minutes or so.
const LASTS: i64 = 30 * 60 * 1000;
/// Rooms of a user are looked up again no sooner than this, in milliseconds.
const ROOMS_LAST: i64 = 30_000;
/// How long, in milliseconds, and of how many it is remembered what was said of them while nobody here shared a room with
/// them. A server that lets us into a room tells us of its users before we know that we are in.
const STRANGERS_LAST: i64 = 60_000;
const MOST_STRANGERS: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();
/// Users of other servers who are remembered.
const MOST: usize = 20_000;
/// Numbers of users of other servers; every recipient, be it a server, is above.
const NUMBERS: i64 = i64::MIN / 2;

/// Whether somebody on the board is of another server.
pub(super) fn is_elsewhere(number: i64) -> bool {
    number < NUMBERS
}

/// What a server says of one of its users.
#[derive(Clone, Debug)]
pub struct Hearsay {
    pub user_id: OwnedUserId,
    pub state: State,
    pub status: Option<String>,
    /// Milliseconds.
    pub last_active_ago: Option<i64>,
}

/// The numbers of those who are known.
pub(super) struct Elsewhere {
    users: HashMap<OwnedUserId, Known>,
    last: i64,
    /// What was said when of those who share no room with anybody here.
    strangers: LruCache<OwnedUserId, (Hearsay, i64)>,
}

impl Default for Elsewhere {
    fn default() -> Self {
        Self { users: HashMap::new(), last: 0, strangers: LruCache::new(MOST_STRANGERS) }
    }
}

#[derive(Clone, Copy)]
struct Known {
    number: i64,
    /// When their rooms were looked up.
    rooms_at: i64,
}

impl Presence {
    /// Another server says what one of its users is.
    pub async fn hear(&self, hearsay: Hearsay) -> Result<(), store::Error> {
        self.hear_of(hearsay, true).await
    }

    /// What was said a moment ago of users of servers with which people here share a room since.
    pub(super) fn remembered_of(&self, servers: &HashSet<OwnedServerName>) -> Vec<Hearsay> {
        let now = self.now();
        let Elsewhere { users, strangers, .. } = &mut *self.elsewhere.lock();
        for (user_id, known) in users.iter_mut() {
            if servers.contains(user_id.server_name()) {
                known.rooms_at = i64::MIN / 2;
            }
        }
        let theirs: Vec<OwnedUserId> = strangers
            .iter()
            .map(|(user_id, _)| user_id)
            .filter(|user_id| servers.contains(user_id.server_name()))
            .cloned()
            .collect();
        let said = theirs.iter().filter_map(|user_id| strangers.pop(user_id));
        said.filter(|(_, at)| now - at < STRANGERS_LAST).map(|(hearsay, _)| hearsay).collect()
    }

    /// The same; `remember`: also what is of nobody's interest yet.
    pub(super) async fn hear_of(&self, hearsay: Hearsay, remember: bool) -> Result<(), store::Error> {
        if !self.settings.enabled {
            return Ok(());
        }
        let now = self.now();
        let known = self.elsewhere.lock().users.get(&hearsay.user_id).copied();
        let known = known.filter(|known| self.board.user(known.number).is_some());
        if known.is_none() && hearsay.state == State::Offline && hearsay.status.is_none() {
            self.elsewhere.lock().strangers.pop(&hearsay.user_id);
            return Ok(());
        }
        let fresh = known.is_some_and(|known| now - known.rooms_at < ROOMS_LAST);
        let rooms = if fresh { None } else { Some(self.store.joined_rooms(hearsay.user_id.as_str()).await?) };
        let known = match known {
            Some(known) => known,
            // Whom nobody here can see is nobody.
            None if rooms.as_ref().is_none_or(Vec::is_empty) => {
                if remember {
                    self.elsewhere.lock().strangers.put(hearsay.user_id.clone(), (hearsay, now));
                }
                return Ok(());
            }
            None => match self.number_of(&hearsay.user_id, now) {
                Some(known) => known,
                None => return Ok(()),
            },
        };
        let status = hearsay.status.map(|status| status.replace('\0', "")).unwrap_or_default();
        let status: String = status.chars().take(super::LONGEST_STATUS).collect();
        let status = (!status.is_empty()).then(|| std::sync::Arc::from(status));
        let last_active = now - hearsay.last_active_ago.unwrap_or(0).clamp(0, i64::MAX / 4);
        let past = Past::default();
        let in_rooms = rooms.clone().unwrap_or_default();
        let user = self.board.enter(known.number, hearsay.user_id.clone(), past, in_rooms, now);
        if let Some(rooms) = rooms {
            self.board.set_rooms(known.number, rooms);
            if let Some(known) = self.elsewhere.lock().users.get_mut(&hearsay.user_id) {
                known.rooms_at = now;
            }
        }
        // If it was forgotten at this very moment, the next word of its server brings it back.
        self.board.set_elsewhere(&user, hearsay.state, status, last_active, now, now + LASTS);
        Ok(())
    }

    /// What is known of a user of another server, for somebody who shares a room with them.
    pub(super) fn ask_elsewhere(&self, user_id: &UserId) -> Result<PresenceEvent, Error> {
        let known = self.elsewhere.lock().users.get(user_id).copied();
        let now = self.now();
        let seen = known.and_then(|known| self.board.now(known.number, now));
        seen.map(|seen| event_of(seen, now)).ok_or(Error::NotFound("presence state"))
    }

    fn number_of(&self, user_id: &UserId, now: i64) -> Option<Known> {
        let mut elsewhere = self.elsewhere.lock();
        let Elsewhere { users, last, .. } = &mut *elsewhere;
        if let Some(known) = users.get(user_id) {
            return Some(*known);
        }
        if users.len() >= MOST {
            users.retain(|_, known| self.board.user(known.number).is_some());
        }
        if users.len() >= MOST {
            return None;
        }
        *last += 1;
        let known = Known { number: NUMBERS - *last, rooms_at: now };
        users.insert(user_id.to_owned(), known);
        Some(known)
    }
}
