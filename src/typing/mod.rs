//! Who is typing in which room. Kept in memory only, told through the part of the queues that fades.
//!
//! Only rooms where somebody types, or did a moment ago, are here. One task serves all timeouts; it ends when nobody
//! types any more.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};
use tokio::{sync::Notify, time::Instant};

use crate::{queue::Queues, room::Room};

/// The longest that somebody types without saying so again, and how long if they don't say.
const LONGEST: Duration = Duration::from_mins(2);
const USUAL: Duration = Duration::from_secs(30);

/// How long it is remembered that nobody types any more, so that readers who poll hear of it.
const REMEMBERED: Duration = Duration::from_mins(2);

struct Entry {
    room: Arc<Room>,
    /// Until when each types, in the order in which they began.
    users: Vec<(OwnedUserId, Instant)>,
    /// The number of the last change of `users`.
    changed: u64,
    /// When to forget the room, once nobody types.
    forget: Instant,
}

impl Entry {
    /// When something is to be done next.
    fn due(&self) -> Instant {
        self.users.iter().map(|(_, until)| *until).min().unwrap_or(self.forget)
    }

    fn user_ids(&self) -> Vec<OwnedUserId> {
        // Who has left the room since doesn't type in it.
        let room = self.room.snapshot();
        self.users
            .iter()
            .map(|(user_id, _)| user_id)
            .filter(|user_id| room.is_joined(user_id))
            .cloned()
            .collect()
    }
}

#[derive(Default)]
struct Rooms {
    entries: HashMap<i64, Entry>,
    /// A task waits for the next timeout.
    timed: bool,
}

pub struct Typing {
    queues: Queues,
    rooms: Mutex<Rooms>,
    /// The next timeout may be earlier than the task knows.
    sooner: Arc<Notify>,
}

impl Typing {
    pub fn new(queues: Queues) -> Arc<Self> {
        Arc::new(Self { queues, rooms: Mutex::default(), sooner: Arc::default() })
    }

    /// A member types in a room for some time (`None`: the usual one), from now on and instead of what they said before.
    pub fn start(self: &Arc<Self>, room: &Arc<Room>, user_id: &UserId, timeout: Option<Duration>) {
        let until = Instant::now() + timeout.unwrap_or(USUAL).min(LONGEST);
        let known = {
            let mut rooms = self.rooms.lock();
            let users = rooms.entries.get_mut(&room.number).map(|entry| &mut entry.users);
            let user = users.and_then(|users| users.iter_mut().find(|(user, _)| user == user_id));
            user.map(|(_, known_until)| *known_until = until).is_some()
        };
        // Who goes on typing changes nothing for others.
        if !known {
            self.change(room, |users| {
                if users.iter().all(|(user, _)| user != user_id) {
                    users.push((user_id.to_owned(), until));
                }
            });
        }
        self.watch();
    }

    /// A member types no more.
    pub fn stop(&self, room: &Arc<Room>, user_id: &UserId) {
        let known = {
            let rooms = self.rooms.lock();
            let entry = rooms.entries.get(&room.number);
            entry.is_some_and(|entry| entry.users.iter().any(|(user, _)| user == user_id))
        };
        if known {
            self.change(room, |users| users.retain(|(user, _)| user != user_id));
        }
    }

    /// The rooms where somebody began or stopped typing after that number, each with all who type (SY-22). The caller
    /// looks who may know.
    pub fn since(&self, fading_after: u64) -> Vec<(i64, Vec<OwnedUserId>)> {
        let rooms = self.rooms.lock();
        let changed = rooms.entries.iter().filter(|(_, entry)| entry.changed > fading_after);
        changed.map(|(number, entry)| (*number, entry.user_ids())).collect()
    }

    /// Changes who types in a room and tells its members here.
    fn change(&self, room: &Arc<Room>, change: impl FnOnce(&mut Vec<(OwnedUserId, Instant)>)) {
        let snapshot = room.snapshot();
        let recipients = snapshot.local.iter().map(|member| member.recipient);
        // The queues' lock is taken before ours, here and everywhere.
        self.queues.tails().fade(recipients, |number| {
            let mut rooms = self.rooms.lock();
            let entry = rooms.entries.entry(room.number).or_insert_with(|| Entry {
                room: Arc::clone(room),
                users: Vec::new(),
                changed: number,
                forget: Instant::now(),
            });
            change(&mut entry.users);
            entry.changed = number;
            entry.forget = Instant::now() + REMEMBERED;
        });
    }

    /// Sees to it that a task looks at the next timeout.
    fn watch(self: &Arc<Self>) {
        let timed = std::mem::replace(&mut self.rooms.lock().timed, true);
        if timed {
            self.sooner.notify_one();
        } else {
            let sooner = Arc::clone(&self.sooner);
            tokio::spawn(Self::time_out(Arc::downgrade(self), sooner));
        }
    }

    /// Ends what nobody renewed, for as long as there is anything to end. It keeps nothing alive while it waits.
    async fn time_out(typing: Weak<Self>, sooner: Arc<Notify>) {
        while let Some(due) = typing.upgrade().and_then(|typing| typing.next_end()) {
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = sooner.notified() => {}
            }
        }
    }

    /// Ends what is over; when to come back, if there is a reason to.
    fn next_end(&self) -> Option<Instant> {
        self.end(Instant::now());
        let mut rooms = self.rooms.lock();
        let due = rooms.entries.values().map(Entry::due).min();
        rooms.timed = due.is_some();
        due
    }

    /// Ends what was to end by now.
    fn end(&self, now: Instant) {
        let over: Vec<Arc<Room>> = {
            let mut rooms = self.rooms.lock();
            rooms.entries.retain(|_, entry| !entry.users.is_empty() || entry.forget > now);
            let over = rooms.entries.values().filter(|entry| !entry.users.is_empty() && entry.due() <= now);
            over.map(|entry| Arc::clone(&entry.room)).collect()
        };
        for room in over {
            self.change(&room, |users| users.retain(|(_, until)| *until > now));
        }
    }
}
