//! What a client has been sent and has not acknowledged: the bound on what a slow reader may have waiting.

use std::collections::VecDeque;

use crate::live::syncs::Place;

/// Syncs that may wait for their acknowledgement, and bytes of them.
const MOST_SYNCS: usize = 256;
const MOST_BYTES: usize = 256 * 1024;

#[derive(Debug, Default)]
pub(super) struct Window {
    sent: VecDeque<(Place, usize)>,
    bytes: usize,
}

impl Window {
    /// Whether another sync may be sent. One always may, however large it is, if nothing else waits.
    pub(super) fn is_open(&self) -> bool {
        self.sent.len() < MOST_SYNCS && self.bytes < MOST_BYTES
    }

    pub(super) fn sent(&mut self, to: Place, bytes: usize) {
        self.bytes += bytes;
        self.sent.push_back((to, bytes));
    }

    /// The client has everything up to here.
    pub(super) fn acknowledged(&mut self, up_to: Place) {
        while let Some((place, bytes)) = self.sent.front() {
            if !place.is_within(up_to) {
                return;
            }
            self.bytes -= bytes;
            self.sent.pop_front();
        }
        // An idle socket keeps no room for what it once had.
        self.sent = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(position: i64) -> Place {
        Place { position, mail: position, fading: 0 }
    }

    #[test]
    fn many_small_syncs_fill_it_and_an_acknowledgement_opens_it() {
        let mut window = Window::default();
        for position in 0..256 {
            assert!(window.is_open());
            window.sent(place(position), 1);
        }
        assert!(!window.is_open());
        window.acknowledged(place(0));
        assert!(window.is_open());
    }

    #[test]
    fn one_large_sync_fills_it() {
        let mut window = Window::default();
        window.sent(place(1), 10 * MOST_BYTES);
        assert!(!window.is_open());
        window.acknowledged(place(0));
        assert!(!window.is_open());
        window.acknowledged(place(1));
        assert!(window.is_open());
    }

    #[test]
    fn what_fades_is_acknowledged_by_its_own_number() {
        let mut window = Window::default();
        window.sent(Place { fading: 2, ..place(5) }, MOST_BYTES);
        window.acknowledged(Place { fading: 1, ..place(5) });
        assert!(!window.is_open());
        window.acknowledged(Place { fading: 2, ..place(5) });
        assert!(window.is_open());
    }
}
