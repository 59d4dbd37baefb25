//! When to look at whom again: one list of times for everybody, and those who changed just now.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Default)]
struct Inner {
    /// Users by the tick, a span of `tick` milliseconds, at whose end to look at them.
    ticks: BTreeMap<i64, Vec<i64>>,
    marked: Vec<i64>,
    /// Who entered which room.
    arrivals: Vec<(i64, i64)>,
}

pub(super) struct Agenda {
    tick: i64,
    inner: Mutex<Inner>,
    /// There is something to do earlier than was known.
    sooner: Notify,
}

/// Where one user stands in the agenda. Belongs into the user, so that nobody is there many times.
#[derive(Default)]
pub(super) struct Mark(AtomicBool);

impl Mark {
    /// To be called before the user is looked at: what happens from here on marks them again.
    pub(super) fn clear(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// What is to be done now.
#[derive(Default)]
pub(super) struct Due {
    pub(super) users: Vec<i64>,
    pub(super) arrivals: Vec<(i64, i64)>,
}

impl Agenda {
    pub(super) fn new(tick: i64) -> Self {
        Self { tick: tick.max(1), inner: Mutex::default(), sooner: Notify::new() }
    }

    /// Something of a user may have changed.
    pub(super) fn mark(&self, user: i64, mark: &Mark) {
        if !mark.0.swap(true, Ordering::SeqCst) {
            self.inner.lock().marked.push(user);
            self.sooner.notify_one();
        }
    }

    pub(super) fn arrived(&self, user: i64, rooms: impl IntoIterator<Item = i64>) {
        self.inner.lock().arrivals.extend(rooms.into_iter().map(|room| (user, room)));
        self.sooner.notify_one();
    }

    /// Look at a user then or a little later. `known` is the time of a look that they have before them already, and what
    /// is returned is to be kept as such: no earlier look is needed than the earliest of them.
    pub(super) fn look_at(&self, user: i64, at: i64, known: Option<i64>) -> i64 {
        let tick = at.div_euclid(self.tick) + 1;
        if let Some(known) = known
            && known <= tick
        {
            return known;
        }
        let mut inner = self.inner.lock();
        if inner.ticks.first_key_value().is_none_or(|(first, _)| tick < *first) {
            self.sooner.notify_one();
        }
        inner.ticks.entry(tick).or_default().push(user);
        tick
    }

    /// The tick that has ended last.
    pub(super) fn tick_of(&self, now: i64) -> i64 {
        now.div_euclid(self.tick)
    }

    /// Whether something waits, and when the next time comes.
    pub(super) fn next(&self) -> (bool, Option<i64>) {
        let inner = self.inner.lock();
        let waiting = !inner.marked.is_empty() || !inner.arrivals.is_empty();
        (waiting, inner.ticks.first_key_value().map(|(tick, _)| tick * self.tick))
    }

    pub(super) fn take(&self, now: i64) -> Due {
        let inner = &mut *self.inner.lock();
        let later = inner.ticks.split_off(&(self.tick_of(now) + 1));
        let ticks = std::mem::replace(&mut inner.ticks, later);
        let mut users = std::mem::take(&mut inner.marked);
        users.extend(ticks.into_values().flatten());
        users.sort_unstable();
        users.dedup();
        Due { users, arrivals: std::mem::take(&mut inner.arrivals) }
    }

    pub(super) async fn sooner(&self) {
        self.sooner.notified().await;
    }

    #[cfg(test)]
    pub(super) fn looks(&self) -> usize {
        self.inner.lock().ticks.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_due_once_their_time_has_come() {
        let agenda = Agenda::new(10);
        let first = agenda.look_at(7, 95, None);
        assert_eq!(agenda.look_at(7, 300, Some(first)), first, "one look is enough");
        let second = agenda.look_at(7, 20, Some(first));
        assert_eq!(agenda.next(), (false, Some(30)));
        assert!(agenda.take(29).users.is_empty());
        assert_eq!(agenda.take(30).users, [7]);
        assert!(second < first);
        assert_eq!(agenda.take(100).users, [7]);
        assert_eq!(agenda.next(), (false, None));
    }

    #[test]
    fn whoever_is_marked_is_there_once() {
        let agenda = Agenda::new(10);
        let mark = Mark::default();
        agenda.mark(7, &mark);
        agenda.mark(7, &mark);
        assert_eq!(agenda.next(), (true, None));
        assert_eq!(agenda.take(0).users, [7]);
        mark.clear();
        agenda.mark(7, &mark);
        assert_eq!(agenda.take(0).users, [7]);
    }
}
