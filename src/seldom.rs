//! What may happen a thousand times a second and is to be in the log anyhow.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often such a thing is said.
const EVERY: Duration = Duration::from_secs(10);

/// One thing that is said seldom: the first time at once, then with how often it happened since.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Option<Said>>);

#[derive(Clone, Copy, Debug)]
struct Said {
    at: Instant,
    since: u64,
}

impl Seldom {
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// It happens now. If it is to be said: how often it happened since it was said last.
    pub fn happens(&self) -> Option<u64> {
        self.happens_at(Instant::now())
    }

    fn happens_at(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock();
        match &mut *said {
            Some(said) if now.duration_since(said.at) < EVERY => {
                said.since += 1;
                None
            }
            _ => said.replace(Said { at: now, since: 0 }).map(|said| said.since).or(Some(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_all_the_time_is_said_at_once_and_then_now_and_then() {
        let (seldom, start) = (Seldom::new(), Instant::now());
        let at = |seconds| seldom.happens_at(start + Duration::from_secs(seconds));
        assert_eq!([0, 1, 9, 10, 11, 30].map(at), [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
