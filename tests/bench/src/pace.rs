//! When somebody who sends at a rate sends next. A sender that is late because of the server counts its wait, so that a stall
//! is as many bad samples as it would have hurt people.

use std::time::{Duration, Instant};

pub(crate) struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    /// The `index`th of `count` senders, who share an interval evenly, for people do not send in step.
    pub(crate) fn new(begin: Instant, interval: Duration, index: usize, count: usize) -> Self {
        Self { next: begin + interval * index as u32 / count.max(1) as u32, interval }
    }

    /// Waits until a message is due, and returns when that was.
    pub(crate) async fn due(&mut self) -> Instant {
        let now = Instant::now();
        let due = if now < self.next {
            // The timer's own lateness is not the server's.
            tokio::time::sleep_until(self.next.into()).await;
            Instant::now()
        } else {
            self.next
        };
        self.next += self.interval;
        due
    }

    /// Forgets what is overdue, after a time in which nothing could be sent.
    pub(crate) fn catch_up(&mut self) {
        let now = Instant::now();
        while self.next < now {
            self.next += self.interval;
        }
    }
}
