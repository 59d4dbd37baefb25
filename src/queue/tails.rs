//! The ends of the queues that somebody reads at the moment, in memory.
//!
//! A waiting reader costs no database work: the writer's commits arrive here, are appended to the tails that exist,
//! and wake them. Everything here can be dropped at any time; a reader that finds its position before the start of a
//! tail reads the stored queue instead.
//!
//! What fades (typing, presence) has no stored queue. It shares the wake-up and has numbers of its own, which begin anew
//! with each start of the process ([`Tails::boot`]).

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc::UnboundedSender};

use super::{
    Delivered, Entry, Kind, flags,
    unread::{Unread, UnreadCounts},
};
use crate::store::Subscriber;

/// Entries kept a tail: more than a client misses between two polls of a busy room.
const LENGTH: usize = 128;

pub struct Tails {
    head: AtomicI64,
    fading: AtomicU64,
    boot: u64,
    read: Mutex<HashMap<i64, Arc<Tail>>>,
    moves: OnceLock<UnboundedSender<i64>>,
    outward: OnceLock<UnboundedSender<i64>>,
}

/// The end of one recipient's queue.
pub struct Tail {
    inner: Mutex<Inner>,
    wake: Notify,
}

struct Inner {
    /// Every entry above this position is in `entries`.
    floor: i64,
    /// Each with the thread of its event.
    entries: VecDeque<(Entry, Option<Arc<str>>)>,
    /// The last number at which something that fades changed for this recipient, or may have before the tail began.
    fading: u64,
    unread: UnreadCounts,
}

impl Tails {
    /// `boot` tells this run of the process from others.
    pub fn new(boot: u64) -> Self {
        Self {
            head: AtomicI64::new(0),
            fading: AtomicU64::new(0),
            boot,
            read: Mutex::new(HashMap::new()),
            moves: OnceLock::new(),
            outward: OnceLock::new(),
        }
    }

    /// To be called once, before anybody reads.
    pub fn start_at(&self, head: i64) {
        self.head.store(head, Ordering::Release);
    }

    pub fn head(&self) -> i64 {
        self.head.load(Ordering::Acquire)
    }

    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// The number of the last change of anything that fades.
    pub fn fading(&self) -> u64 {
        self.fading.load(Ordering::Acquire)
    }

    pub fn of(&self, recipient: i64) -> Arc<Tail> {
        let mut tails = self.read.lock();
        // Both are read under the lock that `committed` and `fade` take: nothing falls between.
        let (floor, fading) = (self.head(), self.fading());
        Arc::clone(tails.entry(recipient).or_insert_with(|| Arc::new(Tail::new(floor, fading))))
    }

    /// Announces a change of something that fades; `change` is called with its number before anybody wakes.
    pub fn fade(&self, recipients: impl IntoIterator<Item = i64>, change: impl FnOnce(u64)) {
        let woken: Vec<Arc<Tail>> = {
            let tails = self.read.lock();
            let number = self.fading.load(Ordering::Acquire) + 1;
            change(number);
            let woken = recipients.into_iter().filter_map(|recipient| tails.get(&recipient).cloned());
            let woken = woken.inspect(|tail| tail.inner.lock().fading = number).collect();
            self.fading.store(number, Ordering::Release);
            woken
        };
        for tail in woken {
            tail.wake.notify_waiters();
        }
    }

    /// Wakes a recipient's readers without anything to read, so that they look at their session again.
    pub fn nudge(&self, recipient: i64) {
        let tail = self.read.lock().get(&recipient).cloned();
        if let Some(tail) = tail {
            tail.wake.notify_waiters();
        }
    }

    /// Wakes everybody: the server is about to stop.
    pub fn nudge_all(&self) {
        let tails: Vec<_> = self.read.lock().values().cloned().collect();
        for tail in tails {
            tail.wake.notify_waiters();
        }
    }

    /// Sends every recipient whose own membership of a room changes from now on there, after the commit. For one who
    /// listens: the first.
    pub fn send_moves(&self, sender: UnboundedSender<i64>) {
        let _ = self.moves.set(sender);
    }

    /// Sends every server that something waits for from now on there, after the commit. For one who listens: the first.
    pub fn send_outward(&self, sender: UnboundedSender<i64>) {
        let _ = self.outward.set(sender);
    }

    /// Forgets the tails that nobody holds.
    pub fn sweep(&self) {
        self.read.lock().retain(|_, tail| Arc::strong_count(tail) > 1);
    }
}

impl Subscriber for Tails {
    fn committed(&self, base: i64, head: i64, delivered: &[Delivered]) {
        let mut woken: Vec<Arc<Tail>> = Vec::new();
        {
            let tails = self.read.lock();
            if base > self.head() {
                // What another process, such as the command line, delivered is in the database alone.
                woken.extend(tails.values().inspect(|tail| tail.begin_after(base)).cloned());
            }
            for delivered in delivered {
                if let Some(tail) = tails.get(&delivered.recipient) {
                    tail.push(delivered.entry, delivered.thread.clone());
                    woken.push(Arc::clone(tail));
                }
            }
            self.head.store(head, Ordering::Release);
        }
        for tail in woken {
            tail.wake.notify_waiters();
        }
        if let Some(outward) = self.outward.get() {
            let mut servers: Vec<i64> = delivered
                .iter()
                .map(|delivered| delivered.recipient)
                .filter(|recipient| *recipient < 0)
                .collect();
            servers.sort_unstable();
            servers.dedup();
            for recipient in servers {
                let _ = outward.send(recipient);
            }
        }
        if let Some(moves) = self.moves.get() {
            let own = delivered.iter().filter(|delivered| {
                delivered.entry.kind == Kind::Event && delivered.entry.flags & flags::OWN_MEMBERSHIP != 0
            });
            for delivered in own {
                // Nobody listens any more: the server ends.
                let _ = moves.send(delivered.recipient);
            }
        }
    }
}

impl Tail {
    fn new(floor: i64, fading: u64) -> Self {
        let inner = Inner { floor, entries: VecDeque::new(), fading, unread: UnreadCounts::default() };
        Self { inner: Mutex::new(inner), wake: Notify::new() }
    }

    /// Nothing is known of what lies up to this position.
    fn begin_after(&self, floor: i64) {
        let mut inner = self.inner.lock();
        inner.floor = floor;
        inner.entries.clear();
        inner.unread = UnreadCounts::default();
    }

    fn push(&self, entry: Entry, thread: Option<Arc<str>>) {
        let mut inner = self.inner.lock();
        if inner.entries.len() == LENGTH
            && let Some((oldest, _)) = inner.entries.pop_front()
        {
            inner.floor = oldest.position;
        }
        inner.unread.follow(&entry, thread.as_ref());
        inner.entries.push_back((entry, thread));
    }

    /// The entries with `after < position ≤ to`, or `None` if some of them are no longer here.
    pub fn read(&self, after: i64, to: i64) -> Option<Vec<Entry>> {
        let inner = self.inner.lock();
        if after < inner.floor {
            return None;
        }
        let start = inner.entries.partition_point(|(entry, _)| entry.position <= after);
        let entries = inner.entries.range(start..).map(|(entry, _)| *entry);
        Some(entries.take_while(|entry| entry.position <= to).collect())
    }

    /// The entries with `after < position ≤ to` if they are messages of one room and nothing else, and it is known here what
    /// of the room is unread: the room, their `seq` and that.
    pub fn messages(&self, after: i64, to: i64) -> Option<(i64, Vec<i64>, Unread)> {
        let inner = self.inner.lock();
        if after < inner.floor {
            return None;
        }
        let start = inner.entries.partition_point(|(entry, _)| entry.position <= after);
        let entries = inner.entries.range(start..).map(|(entry, _)| entry);
        let room = entries.clone().next()?.room;
        let mut seqs = Vec::with_capacity(entries.len());
        for entry in entries.take_while(|entry| entry.position <= to) {
            if !entry.is_message() || entry.room != room {
                return None;
            }
            seqs.push(entry.item);
        }
        let unread = inner.unread.get(room)?.clone();
        (!seqs.is_empty()).then_some((room, seqs, unread))
    }

    /// Whether something came after these, or may have.
    pub fn has_news(&self, after: i64, fading_after: u64) -> bool {
        let inner = self.inner.lock();
        inner.fading > fading_after
            || after < inner.floor
            || inner.entries.back().is_some_and(|(entry, _)| entry.position > after)
    }

    /// The unread events of a room, if they are known here.
    pub fn unread(&self, room: i64) -> Option<Unread> {
        self.inner.lock().unread.get(room).cloned()
    }

    /// Keeps counts that were read from the database when it stood at `position`.
    pub fn remember_unread(&self, room: i64, unread: Unread, position: i64) {
        let mut inner = self.inner.lock();
        // Entries that came since have to be counted; if some are no longer here, these counts can't be kept.
        if position < inner.floor {
            return;
        }
        let inner = &mut *inner;
        inner.unread.insert(room, unread, position);
        let start = inner.entries.partition_point(|(entry, _)| entry.position <= position);
        inner.entries.range(start..).for_each(|(entry, thread)| inner.unread.follow(entry, thread.as_ref()));
    }

    /// Resolves at the next wake-up after this call, even if it is polled only later.
    pub fn woken(&self) -> tokio::sync::futures::Notified<'_> {
        self.wake.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(recipient: i64, position: i64) -> Delivered {
        let entry = Entry { position, kind: Kind::Event, room: 1, item: position, flags: 0 };
        Delivered { recipient, entry, thread: None }
    }

    fn positions(entries: &[Entry]) -> Vec<i64> {
        entries.iter().map(|entry| entry.position).collect()
    }

    #[test]
    fn a_tail_serves_what_came_after_it_began() {
        let tails = Tails::new(1);
        tails.start_at(10);
        let tail = tails.of(7);
        tails.committed(10, 12, &[delivery(7, 11), delivery(8, 12)]);
        assert_eq!(positions(&tail.read(10, 12).unwrap()), [11]);
        assert_eq!(tail.read(9, 12), None, "position 10 may have been an entry of theirs");
    }

    #[test]
    fn a_full_tail_forgets_the_oldest_and_says_so() {
        let tails = Tails::new(1);
        let tail = tails.of(7);
        for position in 1..=200 {
            tails.committed(position - 1, position, &[delivery(7, position)]);
        }
        assert_eq!(tail.read(0, 200), None);
        assert_eq!(tail.read(72, 200).unwrap().len(), LENGTH);
    }

    /// I5: the command line delivers beside the server.
    #[test]
    fn what_another_process_delivered_is_read_from_the_database() {
        let tails = Tails::new(1);
        tails.start_at(10);
        let tail = tails.of(7);
        tails.committed(10, 11, &[delivery(7, 11)]);
        tails.committed(13, 14, &[delivery(8, 14)]);
        assert!(tail.has_news(11, 0), "12 or 13 may be an entry of theirs");
        assert_eq!(tail.read(11, 14), None);
        tails.committed(14, 15, &[delivery(7, 15)]);
        assert_eq!(positions(&tail.read(14, 15).unwrap()), [15], "from there on all is here again");
    }

    #[test]
    fn what_faded_before_a_tail_began_may_be_news() {
        let tails = Tails::new(1);
        drop(tails.of(7));
        tails.sweep();
        tails.fade([7], |_| {});
        let tail = tails.of(7);
        assert!(tail.has_news(0, 0));
        assert!(!tail.has_news(0, 1));
    }

    #[test]
    fn nobody_hears_of_others_entries() {
        let tails = Tails::new(1);
        let tail = tails.of(7);
        tails.committed(0, 1, &[delivery(8, 1)]);
        assert!(!tail.has_news(0, 0));
    }

    #[tokio::test]
    async fn a_wake_up_between_looking_and_waiting_is_not_lost() {
        let tails = Tails::new(1);
        let tail = tails.of(7);
        let woken = tail.woken();
        tails.committed(0, 1, &[delivery(7, 1)]);
        woken.await;
    }
}
