//! Everybody who is here at the moment, in memory, and what others have been told of them.
//!
//! Changes are told in rounds. What changes between two rounds is told once, with what it has become; a round begins at
//! once when it has been quiet, and the more readers one wakes, the longer the next waits. So a storm of comings and
//! goings costs a bounded number of wake-ups, and its latest state always arrives.
//!
//! Locks are taken in this order: the queues' tails, the audience, the map of users, one user, the agenda.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use ruma::OwnedUserId;

use super::{
    agenda::{Agenda, Mark},
    audience::Audience,
    devices::{Activity, Devices, State, Times},
    elsewhere::is_elsewhere,
};
use crate::{account::MemberProfile, queue::Tails};

/// How long it is remembered who was here, so that readers who poll hear that they have gone.
const REMEMBERED: i64 = 10 * 60 * 1000;
/// Readers that rounds wake in a second, in the long run.
const WAKES_PER_SECOND: i64 = 500;
/// The shortest and longest time from one round to the next, in milliseconds.
const SOONEST: i64 = 50;
const LATEST: i64 = 10_000;
/// Changes of one user that are told one right after the other; then one in a third of the grace time.
const AT_ONCE: i64 = 3;

/// What others are told of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) state: State,
    pub(super) status: Option<Arc<str>>,
    pub(super) profile: Arc<MemberProfile>,
}

/// What is known of somebody before they come.
#[derive(Default)]
pub(super) struct Past {
    pub(super) saved: Option<Saved>,
    pub(super) profile: MemberProfile,
    /// They are still what is stored, if their devices come back until then: the server has just started.
    pub(super) still_until: Option<i64>,
}

#[expect(clippy::struct_field_names, reason = "the specification's name")]
pub(super) struct User {
    pub(super) recipient: i64,
    pub(super) user_id: OwnedUserId,
    last_active: AtomicI64,
    acted: AtomicI64,
    /// Others see them idle: activity is news.
    idle: AtomicBool,
    mark: Mark,
    inner: Mutex<Inner>,
}

struct Inner {
    devices: Devices,
    status: Option<Arc<str>>,
    profile: Arc<MemberProfile>,
    told: Told,
    /// The number of the change that was told last.
    changed: u64,
    /// When the next change may be told, if more than [`AT_ONCE`] have been.
    paced: i64,
    /// The next tick at whose end to look at them.
    look: Option<i64>,
    /// Since when no device of theirs is there.
    empty_since: i64,
    saved: Option<Saved>,
    /// They were forgotten, and this is nobody any more.
    gone: bool,
}

/// A user's last state, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) state: State,
    pub(super) status: Option<Arc<str>>,
    pub(super) last_active: i64,
}

/// What there is to tell of somebody.
pub(super) struct Seen {
    pub(super) recipient: i64,
    pub(super) user_id: OwnedUserId,
    pub(super) told: Told,
    pub(super) last_active: i64,
}

pub(super) struct Board {
    tails: Arc<Tails>,
    times: Times,
    users: RwLock<HashMap<i64, Arc<User>>>,
    audience: Mutex<Audience>,
    pub(super) agenda: Agenda,
    /// Before that no round begins.
    next_round: AtomicI64,
}

/// Whom a change concerns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    ForAll,
    /// A user comes with one device, which knows.
    ForOthers,
}

/// What a round did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// Users of whom something was told.
    pub(super) told: usize,
    /// Readers who hear of it.
    pub(super) readers: usize,
    /// Those users of them whose accounts are here, with their rooms, and who came into which room: for other servers to hear
    /// of.
    pub(super) outward: Vec<(i64, Vec<i64>)>,
}

impl Board {
    pub(super) fn new(tails: Arc<Tails>, times: Times) -> Self {
        Self {
            tails,
            times,
            users: RwLock::default(),
            audience: Mutex::default(),
            agenda: Agenda::new((times.grace / 10).clamp(10, 1000)),
            next_round: AtomicI64::new(i64::MIN),
        }
    }

    pub(super) fn user(&self, recipient: i64) -> Option<Arc<User>> {
        self.users.read().get(&recipient).cloned()
    }

    /// Somebody is here from now on, in these rooms, if they weren't already. Whoever reads for them is shown all.
    pub(super) fn enter(
        &self,
        recipient: i64,
        user_id: OwnedUserId,
        past: Past,
        rooms: Vec<i64>,
        now: i64,
    ) -> Arc<User> {
        if let Some(user) = self.user(recipient) {
            return user;
        }
        let profile = Arc::new(past.profile);
        let saved = past.saved;
        let (status, last_active) = match &saved {
            Some(saved) => (saved.status.clone(), saved.last_active),
            None => (None, now),
        };
        let (state, devices) = match (past.still_until, &saved) {
            (Some(until), Some(saved)) => (saved.state, Devices::before_the_start(saved.state, now, until)),
            _ => (State::Offline, Devices::default()),
        };
        let told = Told { state, status: status.clone(), profile: Arc::clone(&profile) };
        let user = Arc::new(User {
            recipient,
            user_id,
            last_active: AtomicI64::new(last_active),
            acted: AtomicI64::new(last_active),
            idle: AtomicBool::new(state == State::Unavailable),
            mark: Mark::default(),
            inner: Mutex::new(Inner {
                devices,
                status,
                profile,
                told,
                changed: 0,
                paced: i64::MIN,
                look: None,
                empty_since: now,
                saved,
                gone: false,
            }),
        });
        let mut entered = Arc::clone(&user);
        self.tails.fade([recipient], |number| {
            let mut audience = self.audience.lock();
            let mut users = self.users.write();
            if let Some(other) = users.get(&recipient) {
                entered = Arc::clone(other);
                return;
            }
            audience.enter(recipient, rooms, number);
            users.insert(recipient, user);
        });
        self.agenda.mark(recipient, &entered.mark);
        entered
    }

    /// Somebody does something. This is on the way of every message.
    pub(super) fn active(&self, recipient: i64, now: i64) {
        if let Some(user) = self.users.read().get(&recipient) {
            user.last_active.store(now, Ordering::SeqCst);
            user.acted.store(now, Ordering::SeqCst);
            if user.idle.load(Ordering::SeqCst) {
                self.agenda.mark(recipient, &user.mark);
            }
        }
    }

    /// A request or socket of a device begins. `false`: this user is gone, and has to be looked up anew.
    pub(super) fn hold(&self, user: &User, device: i64, wanted: State, now: i64) -> bool {
        self.with(user, now, |inner| inner.devices.hold(device, wanted, now))
    }

    /// A user says of themselves what they are.
    pub(super) fn say(
        &self,
        user: &User,
        device: i64,
        state: State,
        status: Option<Arc<str>>,
        now: i64,
    ) -> bool {
        user.last_active.store(now, Ordering::SeqCst);
        self.with(user, now, |inner| {
            inner.devices.say(device, state, now, self.times);
            inner.status = status;
            false
        })
    }

    /// What another server says of its user.
    pub(super) fn set_elsewhere(
        &self,
        user: &User,
        state: State,
        status: Option<Arc<str>>,
        last_active: i64,
        now: i64,
        until: i64,
    ) -> bool {
        user.last_active.store(last_active, Ordering::SeqCst);
        self.with(user, now, |inner| {
            inner.devices.set_elsewhere(state, now, until);
            inner.status = status;
            false
        })
    }

    pub(super) fn set_profile(&self, user: &User, profile: MemberProfile, now: i64) -> bool {
        self.with(user, now, |inner| {
            inner.profile = Arc::new(profile);
            false
        })
    }

    /// Does something with a user, which may be activity, and sees to it that it is told.
    fn with(&self, user: &User, now: i64, change: impl FnOnce(&mut Inner) -> bool) -> bool {
        let mut inner = user.inner.lock();
        if inner.gone {
            return false;
        }
        if change(&mut inner) {
            user.last_active.store(now, Ordering::SeqCst);
        }
        if user.now(&inner, now, self.times) != inner.told {
            self.agenda.mark(user.recipient, &user.mark);
        }
        self.plan(user, &mut inner, now);
        true
    }

    /// A request or socket of a device has ended.
    pub(super) fn release(&self, user: &User, device: i64, now: i64) {
        let mut inner = user.inner.lock();
        inner.devices.release(device, now, self.times);
        self.plan(user, &mut inner, now);
    }

    /// Looks at a user again when something will have changed by itself.
    fn plan(&self, user: &User, inner: &mut Inner, now: i64) {
        let next = inner.devices.next_change(now, user.activity(), self.times);
        if let Some(next) = next {
            inner.look = Some(self.agenda.look_at(user.recipient, next, inner.look));
        }
    }

    /// The rooms of somebody who is here have changed.
    pub(super) fn set_rooms(&self, recipient: i64, rooms: Vec<i64>) {
        let entered = self.audience.lock().set_rooms(recipient, rooms);
        if !entered.is_empty() {
            self.agenda.arrived(recipient, entered);
        }
    }

    /// How long to wait from now on for the next round; `None`: until something happens.
    pub(super) fn until_round(&self, now: i64) -> Option<i64> {
        let (waiting, next) = self.agenda.next();
        let at = if waiting { Some(now) } else { next };
        at.map(|at| (at.max(self.next_round.load(Ordering::Relaxed)) - now).max(0))
    }

    /// Tells what has changed. To be called by one task, when it is time.
    pub(super) fn round(&self, now: i64) -> Round {
        let due = self.agenda.take(now);
        let mut changed = Vec::new();
        for recipient in due.users {
            let Some(user) = self.user(recipient) else { continue };
            user.mark.clear();
            if let Some(news) = self.settle(&user, now) {
                changed.push((user, news));
            }
        }
        // Each reader with those of whom they hear.
        let mut telling: HashMap<i64, Vec<i64>> = HashMap::new();
        let mut newcomers = Vec::new();
        {
            let audience = self.audience.lock();
            let mut tell = |reader: i64, subject: i64| {
                // Their server is who reads for them.
                if !is_elsewhere(reader) {
                    telling.entry(reader).or_default().push(subject);
                }
            };
            for (user, news) in &changed {
                let mut peers = audience.peers(user.recipient);
                peers.retain(|peer| *peer != user.recipient || *news == News::ForAll);
                for peer in peers {
                    tell(peer, user.recipient);
                }
            }
            for &(newcomer, room) in &due.arrivals {
                let there =
                    |user: i64| self.user(user).is_some_and(|user| user.told().state != State::Offline);
                let is_there = there(newcomer);
                if is_there && !is_elsewhere(newcomer) {
                    newcomers.push((newcomer, vec![room]));
                }
                for &other in audience.in_room(room).iter().filter(|other| **other != newcomer) {
                    if is_there {
                        tell(other, newcomer);
                    }
                    if there(other) {
                        tell(newcomer, other);
                    }
                }
            }
        }
        let outward = {
            let audience = self.audience.lock();
            let here = changed.iter().filter(|(user, _)| !is_elsewhere(user.recipient));
            let changed = here.map(|(user, _)| (user.recipient, audience.rooms_of(user.recipient).to_vec()));
            changed.chain(newcomers).collect()
        };
        let round = Round { told: changed.len(), readers: telling.len(), outward };
        if !telling.is_empty() {
            let readers: Vec<i64> = telling.keys().copied().collect();
            self.tails.fade(readers, |number| {
                let mut audience = self.audience.lock();
                for (reader, subjects) in telling {
                    for subject in subjects {
                        audience.tell(reader, number, subject);
                    }
                }
                for (user, _) in &changed {
                    user.inner.lock().changed = number;
                }
            });
            let pause = (round.readers as i64 * 1000 / WAKES_PER_SECOND).clamp(SOONEST, LATEST);
            self.next_round.store(now + pause, Ordering::Relaxed);
        }
        round
    }

    /// Looks at one user: whether there is something to tell, when to look again, and whether to forget them.
    fn settle(&self, user: &Arc<User>, now: i64) -> Option<News> {
        let mut inner = user.inner.lock();
        if inner.look.is_some_and(|look| look <= self.agenda.tick_of(now)) {
            inner.look = None;
        }
        // Before the last activity is read: whoever is active from here on marks the user.
        user.idle.store(true, Ordering::SeqCst);
        let told = user.now(&inner, now, self.times);
        let interval = self.times.grace / 3;
        let news = (told != inner.told).then(|| {
            // Its first answer says so already.
            let alone = inner.told.state == State::Offline && inner.devices.is_one();
            if alone { News::ForOthers } else { News::ForAll }
        });
        if news.is_some() {
            if inner.paced > now + (AT_ONCE - 1) * interval {
                let at = inner.paced - (AT_ONCE - 1) * interval;
                inner.look = Some(self.agenda.look_at(user.recipient, at, inner.look));
                return None;
            }
            inner.paced = inner.paced.max(now) + interval;
            inner.told = told;
        }
        user.idle.store(inner.told.state == State::Unavailable, Ordering::SeqCst);
        if !inner.devices.is_empty() {
            inner.empty_since = now;
        }
        if inner.devices.prune(now) {
            self.plan(user, &mut inner, now);
        } else if now - inner.empty_since >= REMEMBERED && news.is_none() {
            drop(inner);
            self.forget(user);
        } else {
            let at = inner.empty_since + REMEMBERED;
            inner.look = Some(self.agenda.look_at(user.recipient, at, inner.look));
        }
        news
    }

    fn forget(&self, user: &User) {
        let mut audience = self.audience.lock();
        let mut users = self.users.write();
        let mut inner = user.inner.lock();
        // A device may have come since.
        if inner.devices.is_empty() {
            inner.gone = true;
            audience.leave(user.recipient, inner.changed);
            users.remove(&user.recipient);
        }
    }

    /// Those of whom a reader has not heard yet who knows everything up to `after`; `None`: that isn't known any more,
    /// and the reader is to be shown everybody.
    pub(super) fn news(&self, reader: i64, after: u64, to: u64) -> Option<Vec<Seen>> {
        let subjects = self.audience.lock().news(reader, after, to)?;
        Some(subjects.into_iter().filter_map(|subject| Some(self.user(subject)?.seen())).collect())
    }

    /// Everybody of whom a reader hears, also those who are gone since a moment, and the reader.
    pub(super) fn everybody(&self, reader: i64, now: i64) -> Vec<Seen> {
        let mut peers = self.audience.lock().peers(reader);
        peers.retain(|peer| *peer != reader);
        let others = peers.into_iter().filter_map(|peer| Some(self.user(peer)?.seen()));
        others.chain(self.now(reader, now)).collect()
    }

    /// What somebody is at this very moment, whether it has been told or not.
    pub(super) fn now(&self, recipient: i64, now: i64) -> Option<Seen> {
        let user = self.user(recipient)?;
        let told = user.now(&user.inner.lock(), now, self.times);
        Some(Seen { told, ..user.seen() })
    }

    /// What differs from what is stored; `all`: also by the time of the last activity alone.
    pub(super) fn unsaved(&self, all: bool, now: i64) -> Vec<(Arc<User>, Saved)> {
        let users: Vec<Arc<User>> = self.users.read().values().cloned().collect();
        let users = users.into_iter().filter(|user| !is_elsewhere(user.recipient));
        let unsaved = users.filter_map(|user| {
            let inner = user.inner.lock();
            let Told { state, status, .. } = user.now(&inner, now, self.times);
            let now = Saved { state, status, last_active: user.last_active.load(Ordering::SeqCst) };
            let is_saved = match &inner.saved {
                Some(saved) => {
                    (saved.state, &saved.status) == (now.state, &now.status)
                        && (!all || saved.last_active == now.last_active)
                }
                // Of those who have always hidden there is nothing to store.
                None => inner.changed == 0 && now.status.is_none(),
            };
            drop(inner);
            (!is_saved).then_some((user, now))
        });
        unsaved.collect()
    }

    #[cfg(test)]
    pub(super) fn users(&self) -> usize {
        self.users.read().len()
    }
}

impl User {
    /// What they are, by all that they said and did.
    fn now(&self, inner: &Inner, now: i64, times: Times) -> Told {
        let state = inner.devices.state(now, self.activity(), times);
        Told { state, status: inner.status.clone(), profile: Arc::clone(&inner.profile) }
    }

    fn activity(&self) -> Activity {
        let (last, acted) = (&self.last_active, &self.acted);
        Activity { last: last.load(Ordering::SeqCst), acted: acted.load(Ordering::SeqCst) }
    }

    pub(super) fn status(&self) -> Option<Arc<str>> {
        self.inner.lock().status.clone()
    }

    fn told(&self) -> Told {
        self.inner.lock().told.clone()
    }

    fn seen(&self) -> Seen {
        Seen {
            recipient: self.recipient,
            user_id: self.user_id.clone(),
            told: self.told(),
            last_active: self.last_active.load(Ordering::SeqCst),
        }
    }

    pub(super) fn set_saved(&self, saved: Saved) {
        self.inner.lock().saved = Some(saved);
    }
}
