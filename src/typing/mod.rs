//! Who is typing in which room. Kept in memory only, told through the part of the queues that fades.
//!
//! Only rooms where somebody types, or did a moment ago, are here. One task serves all timeouts; it ends when nobody
//! types any more.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};
use tokio::{
    sync::{Notify, mpsc::UnboundedSender},
    time::Instant,
};

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

    /// Who types, for somebody who is in the room.
    fn heard_by(&self, reader: &UserId) -> Option<Vec<OwnedUserId>> {
        let room = self.room.snapshot();
        // Who has left the room since doesn't type in it.
        let users =
            || self.users.iter().map(|(user_id, _)| user_id).filter(|user_id| room.is_joined(user_id));
        room.is_joined(reader).then(|| users().cloned().collect())
    }
}

#[derive(Default)]
struct Rooms {
    entries: HashMap<i64, Entry>,
    /// The rooms by the number of their last change: a reader looks only at what is new.
    changes: BTreeMap<u64, i64>,
    /// Until when a task waits for the next timeout.
    wakes: Option<Instant>,
}

/// Somebody in a room who typed until their time was over.
pub type TimedOut = (Arc<Room>, OwnedUserId);

pub struct Typing {
    queues: Queues,
    /// Until then readers may show somebody who typed before this server started.
    settled: Instant,
    rooms: Mutex<Rooms>,
    /// The next timeout may be earlier than the task knows.
    sooner: Arc<Notify>,
    outward: OnceLock<UnboundedSender<TimedOut>>,
}

impl Typing {
    pub fn new(queues: Queues) -> Arc<Self> {
        Arc::new(Self {
            queues,
            settled: Instant::now() + LONGEST,
            rooms: Mutex::default(),
            sooner: Arc::default(),
            outward: OnceLock::new(),
        })
    }

    /// Sends from now on there whose typing ends by itself, so that other servers hear of it as of any other end. For one who
    /// listens: the first.
    pub fn send_outward(&self, sender: UnboundedSender<TimedOut>) {
        let _ = self.outward.set(sender);
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
        self.watch(until);
    }

    /// A member types no more.
    pub fn stop(self: &Arc<Self>, room: &Arc<Room>, user_id: &UserId) {
        let now = Instant::now();
        let is_news = match self.rooms.lock().entries.get(&room.number) {
            Some(entry) => entry.users.iter().any(|(user, _)| user == user_id),
            // Nobody has been told yet who types here since the start.
            None => now < self.settled,
        };
        if is_news {
            self.change(room, |users| users.retain(|(user, _)| user != user_id));
            self.watch(now + REMEMBERED);
        }
    }

    /// All who type in a room, if anybody does and the reader may hear of it.
    pub fn in_room(&self, reader: &UserId, number: i64) -> Option<Vec<OwnedUserId>> {
        let users = self.rooms.lock().entries.get(&number)?.heard_by(reader)?;
        (!users.is_empty()).then_some(users)
    }

    /// The reader's rooms where somebody began or stopped typing after that number, each with all who type (SY-22).
    pub fn heard_by(&self, reader: &UserId, fading_after: u64) -> Vec<(i64, Vec<OwnedUserId>)> {
        let rooms = self.rooms.lock();
        let changed = rooms.changes.range(fading_after.saturating_add(1)..).map(|(_, number)| *number);
        changed.filter_map(|number| Some((number, rooms.entries.get(&number)?.heard_by(reader)?))).collect()
    }

    /// Changes who types in a room and tells its members here.
    fn change(&self, room: &Arc<Room>, change: impl FnOnce(&mut Vec<(OwnedUserId, Instant)>)) {
        let snapshot = room.snapshot();
        let recipients = snapshot.local.iter().map(|member| member.recipient);
        // The queues' lock is taken before ours, here and everywhere.
        self.queues.tails().fade(recipients, |number| {
            let mut rooms = self.rooms.lock();
            let forget = Instant::now() + REMEMBERED;
            let new = || Entry { room: Arc::clone(room), users: Vec::new(), changed: number, forget };
            let entry = rooms.entries.entry(room.number).or_insert_with(new);
            change(&mut entry.users);
            entry.forget = forget;
            let before = std::mem::replace(&mut entry.changed, number);
            rooms.changes.remove(&before);
            rooms.changes.insert(number, room.number);
        });
    }

    /// Sees to it that a task is awake at `due`.
    fn watch(self: &Arc<Self>, due: Instant) {
        let mut rooms = self.rooms.lock();
        match rooms.wakes {
            Some(wakes) if wakes <= due => {}
            Some(_) => self.sooner.notify_one(),
            None => {
                rooms.wakes = Some(due);
                let sooner = Arc::clone(&self.sooner);
                tokio::spawn(Self::time_out(Arc::downgrade(self), sooner));
            }
        }
    }

    /// Ends what nobody renewed, for as long as there is anything to end. It keeps nothing alive while it waits.
    async fn time_out(typing: Weak<Self>, sooner: Arc<Notify>) {
        while let Some(due) = typing.upgrade().and_then(|typing| typing.next_end()) {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => {}
                () = sooner.notified() => {}
            }
        }
    }

    /// Ends what is over; when to come back, if there is a reason to.
    fn next_end(&self) -> Option<Instant> {
        self.end(Instant::now());
        let mut rooms = self.rooms.lock();
        rooms.wakes = rooms.entries.values().map(Entry::due).min();
        rooms.wakes
    }

    /// Ends what was to end by now.
    fn end(&self, now: Instant) {
        let over: Vec<Arc<Room>> = {
            let Rooms { entries, changes, .. } = &mut *self.rooms.lock();
            let forgotten = |entry: &Entry| entry.users.is_empty() && entry.forget <= now;
            entries.retain(|_, entry| !forgotten(entry));
            changes.retain(|_, number| entries.contains_key(number));
            let over = entries.values().filter(|entry| !entry.users.is_empty() && entry.due() <= now);
            over.map(|entry| Arc::clone(&entry.room)).collect()
        };
        for room in over {
            let mut ended = Vec::new();
            self.change(&room, |users| {
                ended.extend(users.extract_if(.., |(_, until)| *until <= now).map(|(user_id, _)| user_id));
            });
            if let Some(outward) = self.outward.get() {
                for user_id in ended {
                    // Nobody listens any more: the server ends.
                    let _ = outward.send((Arc::clone(&room), user_id));
                }
            }
        }
    }
}
