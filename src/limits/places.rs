//! How many requests of one caller are at work at a time. A rate says nothing of those that take long.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::LimitKey;

/// What takes a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activity {
    /// A request of another server, of which it isn't known yet whose it is.
    Unproven,
    /// A request of another server.
    Federation,
    /// A question to this server as a notary: it may have to ask others.
    Notary,
}

impl Activity {
    fn places(self) -> u32 {
        match self {
            Self::Unproven | Self::Federation => 64,
            Self::Notary => 4,
        }
    }
}

/// The requests at work, by caller. There is nothing of those who have none.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: Mutex<HashMap<(Activity, LimitKey), u32>>,
}

/// A request at work, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    of: (Activity, LimitKey),
}

impl Places {
    /// `None` if all are taken.
    pub(super) fn take(self: &Arc<Self>, activity: Activity, key: LimitKey) -> Option<Place> {
        let of = (activity, key.shared());
        let mut taken = self.taken.lock();
        let count = taken.entry(of).or_insert(0);
        if *count >= activity.places() {
            return None;
        }
        *count += 1;
        Some(Place { places: Arc::clone(self), of })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        if let Some(count) = taken.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

/// The place of a caller whose name is found out on the way, and the memory of what it says until then.
#[derive(Clone, Debug, Default)]
pub struct Held {
    unproven: Arc<Mutex<Unproven>>,
    proven: OnceLock<Arc<Place>>,
}

/// Nobody knows whose it is: both are given back when it is dropped.
type Unproven = (Option<Place>, Option<OwnedSemaphorePermit>);

impl Held {
    pub fn unproven(place: Option<Place>, memory: Option<OwnedSemaphorePermit>) -> Self {
        Self { unproven: Arc::new(Mutex::new((place, memory))), proven: OnceLock::new() }
    }

    /// From here on it counts for whoever it is.
    pub fn prove(&self, place: Option<Place>) {
        if let Some(place) = place {
            // There is none yet: a request is proven once.
            let _ = self.proven.set(Arc::new(place));
        }
        *self.unproven.lock() = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_so_many_places_and_gets_them_back() {
        let places = Arc::new(Places::default());
        let take = |name| places.take(Activity::Notary, LimitKey::named(name));
        let mut held: Vec<_> = (0..4).map(|_| take("a").unwrap()).collect();
        assert!(take("a").is_none());
        assert!(take("b").is_some());
        assert!(places.take(Activity::Federation, LimitKey::named("a")).is_some());
        held.pop();
        held.push(take("a").unwrap());
        assert!(take("a").is_none());
        drop(held);
        assert!(places.taken.lock().is_empty(), "nothing is kept of whom nobody hears");
    }

    #[test]
    fn who_is_proven_no_longer_counts_for_the_address() {
        let places = Arc::new(Places::default());
        let key = LimitKey::Address(std::net::Ipv4Addr::LOCALHOST.into());
        let held = Held::unproven(places.take(Activity::Unproven, key), None);
        assert_eq!(places.taken.lock()[&(Activity::Unproven, key)], 1);
        held.prove(places.take(Activity::Federation, LimitKey::named("a.example")));
        let copy = held.clone();
        drop(held);
        let taken: Vec<_> = places.taken.lock().keys().copied().collect();
        assert_eq!(taken, [(Activity::Federation, LimitKey::named("a.example"))]);
        drop(copy);
        assert!(places.taken.lock().is_empty());
    }
}
