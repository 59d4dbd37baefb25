//! How many connections are being made at a time, and to whom.
//!
//! Each costs a socket, and one that nobody answers costs it for as long as anybody is patient. So there are two lanes. What
//! answers at once, as nearly everybody does, is only ever kept waiting by others of that kind: whoever takes longer goes on
//! in the other lane, and begins there the next time. If that is full and somebody waits, the slow one is given up.
//!
//! To one host there are few at a time, in whatever lane.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lru::LruCache;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time,
};

use super::{connect::ConnectError, settings::ClientSettings};

/// Names of which it is known that they were slow.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// The connections that are being made.
pub(super) struct Dials {
    quick: Semaphore,
    slow: Semaphore,
    slow_after: Duration,
    most_of_one: usize,
    turns: Mutex<HashMap<String, Arc<Semaphore>>>,
    doubted: Mutex<LruCache<String, ()>>,
}

impl Dials {
    pub(super) fn new(settings: &ClientSettings) -> Self {
        Self {
            quick: Semaphore::new(settings.max_dials.max(1)),
            slow: Semaphore::new(settings.max_slow_dials.max(1)),
            slow_after: settings.slow_after,
            most_of_one: settings.max_dials_per_host.max(1),
            turns: Mutex::default(),
            doubted: Mutex::new(LruCache::new(REMEMBERED)),
        }
    }

    /// Make a connection to somebody at a host when it is its turn. `dial` has to end in a time of its own, by `TimedOut` if nobody
    /// answers.
    pub(super) async fn run<T>(
        &self,
        name: &str,
        host: &str,
        dial: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        let turns = Turns::of(self, host);
        let _turn = turns.semaphore.acquire().await;
        let outcome = self.in_lane(name, dial).await;
        if matches!(outcome, Err(ConnectError::TimedOut)) {
            lock(&self.doubted).put(name.to_owned(), ());
        } else {
            self.trust(name);
        }
        outcome
    }

    /// Somebody has shown that they are there.
    pub(super) fn trust(&self, name: &str) {
        lock(&self.doubted).pop(name);
    }

    async fn in_lane<T>(
        &self,
        name: &str,
        dial: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        let mut dial = pin!(dial);
        let doubted = lock(&self.doubted).contains(name);
        if doubted {
            let _place = self.slow.acquire().await;
            return dial.await;
        }
        let place = self.quick.acquire().await;
        loop {
            if let Ok(outcome) = time::timeout(self.slow_after, dial.as_mut()).await {
                return outcome;
            }
            match self.slow.try_acquire() {
                Ok(slow) => return go_on(place.ok(), slow, dial).await,
                Err(_) if self.quick.available_permits() == 0 => return Err(ConnectError::TimedOut),
                // There is room for it where it is.
                Err(_) => {}
            }
        }
    }
}

/// Leaves the one lane for the other.
async fn go_on<T>(
    quick: Option<SemaphorePermit<'_>>,
    _slow: SemaphorePermit<'_>,
    dial: impl Future<Output = T>,
) -> T {
    drop(quick);
    dial.await
}

/// The turns of a host, which are forgotten with the last who wants one.
struct Turns<'d> {
    dials: &'d Dials,
    host: &'d str,
    semaphore: Arc<Semaphore>,
}

impl<'d> Turns<'d> {
    fn of(dials: &'d Dials, host: &'d str) -> Self {
        let mut turns = lock(&dials.turns);
        let semaphore = turns.entry(host.to_owned());
        let semaphore = semaphore.or_insert_with(|| Arc::new(Semaphore::new(dials.most_of_one)));
        let semaphore = Arc::clone(semaphore);
        Self { dials, host, semaphore }
    }
}

impl Drop for Turns<'_> {
    fn drop(&mut self) {
        let mut turns = lock(&self.dials.turns);
        // This one, and that of the map.
        if Arc::strong_count(&self.semaphore) <= 2 {
            turns.remove(self.host);
        }
    }
}

/// Nothing that holds one of these locks can panic, and what they hold is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::future::{join_all, pending};
    use tokio::sync::oneshot;

    use super::*;

    fn dials(quick: usize, slow: usize, per_host: usize) -> Arc<Dials> {
        Arc::new(Dials::new(&ClientSettings {
            max_dials: quick,
            max_slow_dials: slow,
            max_dials_per_host: per_host,
            slow_after: Duration::from_millis(20),
            ..ClientSettings::default()
        }))
    }

    /// Hosts that don't answer are dialled, for ever; the receivers hear that they are.
    fn black_holes(dials: &Arc<Dials>, names: std::ops::Range<u32>) -> Vec<oneshot::Receiver<()>> {
        let dial = |name: u32| {
            let (dials, (dialled, hear)) = (Arc::clone(dials), oneshot::channel());
            tokio::spawn(async move {
                let never = async {
                    dialled.send(()).unwrap();
                    pending::<Result<(), _>>().await
                };
                dials.run(&name.to_string(), "hole.example", never).await
            });
            hear
        };
        names.map(dial).collect()
    }

    async fn answers(dials: &Dials, host: &str) {
        dials.run(host, host, async { Ok(()) }).await.unwrap();
    }

    #[tokio::test]
    async fn who_does_not_answer_keeps_nobody_waiting() {
        let dials = dials(2, 3, 80);
        let mut holes = black_holes(&dials, 0..50);
        let all = async {
            // All of the quick lane is taken, and many wait for it.
            for hole in holes.drain(..2) {
                hole.await.unwrap();
            }
            for _ in 0..20 {
                answers(&dials, "good.example").await;
            }
            assert!(join_all(holes).await.into_iter().all(|dialled| dialled.is_ok()), "each had its turn");
        };
        time::timeout(Duration::from_mins(1), all).await.expect("nobody waits for ever");
        assert_eq!(dials.slow.available_permits(), 0, "as many as there may be go on");
    }

    #[tokio::test]
    async fn who_was_slow_begins_beside_the_others_of_that_kind() {
        let dials = dials(1, 1, 8);
        let gone = async { Err::<(), _>(ConnectError::TimedOut) };
        dials.run("0", "hole.example", gone).await.unwrap_err();
        for dialled in black_holes(&dials, 0..1) {
            dialled.await.unwrap();
        }
        assert_eq!((dials.quick.available_permits(), dials.slow.available_permits()), (1, 0));
        answers(&dials, "good.example").await;
    }

    #[tokio::test]
    async fn who_answers_again_is_quick_again() {
        let dials = dials(1, 1, 8);
        dials.run("a", "a", async { Err::<(), _>(ConnectError::TimedOut) }).await.unwrap_err();
        answers(&dials, "a").await;
        // Nothing is left in the slow lane.
        let _all = dials.slow.acquire().await.unwrap();
        let quick = time::timeout(Duration::from_mins(1), answers(&dials, "a"));
        quick.await.expect("it isn't among the slow ones");
    }

    #[tokio::test]
    async fn who_has_shown_that_it_is_there_is_quick_again() {
        let dials = dials(1, 1, 8);
        dials.run("a", "a", async { Err::<(), _>(ConnectError::TimedOut) }).await.unwrap_err();
        let _all = dials.slow.acquire().await.unwrap();
        dials.trust("a");
        let quick = time::timeout(Duration::from_mins(1), answers(&dials, "a"));
        quick.await.expect("it isn't among the slow ones");
    }

    #[tokio::test]
    async fn one_host_has_its_share() {
        let dials = dials(8, 8, 2);
        let (mut running, mut most) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let (dials, (begin, begun), (end, ended)) =
                (Arc::clone(&dials), oneshot::channel(), oneshot::channel::<()>());
            running.push(tokio::spawn(async move {
                let dial = async {
                    begin.send(()).unwrap();
                    ended.await.unwrap();
                    Ok(())
                };
                dials.run("name", "a", dial).await.unwrap();
            }));
            most.push((begun, end));
        }
        let mut waiting = most.into_iter();
        let (first, second, third) =
            (waiting.next().unwrap(), waiting.next().unwrap(), waiting.next().unwrap());
        first.0.await.unwrap();
        second.0.await.unwrap();
        let mut begun = third.0;
        answers(&dials, "b").await;
        assert!(begun.try_recv().is_err(), "two are at work");
        first.1.send(()).unwrap();
        begun.await.unwrap();
        second.1.send(()).unwrap();
        third.1.send(()).unwrap();
        for (begun, end) in waiting {
            begun.await.unwrap();
            end.send(()).unwrap();
        }
        join_all(running).await.into_iter().for_each(|ended| ended.unwrap());
        assert!(lock(&dials.turns).is_empty(), "nothing is kept of whom nobody wants");
    }
}
