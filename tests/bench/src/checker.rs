//! The judge: compares what a reader received with what the server acknowledged.
//!
//! An acknowledged event that never comes is lost, one that comes again is duplicated, one that comes after a later one is
//! reordered, and one that nobody was given as an acknowledgement is unknown. Any of them makes the run fail: a fast server that loses
//! a message is not fast. It never looks at timings.

use std::collections::HashMap;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

#[derive(Default, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// Pairs of a reader and an acknowledged event that were due.
    pub(crate) due: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) unknown: u64,
    /// Repeated transaction ids that gave another event than the first time.
    pub(crate) forked_transactions: u64,
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        *self == Self { due: self.due, ..Self::default() }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.due += other.due;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.unknown += other.unknown;
        self.forked_transactions += other.forked_transactions;
    }
}

/// `acknowledged` are the event ids of one sender in one room in the order of their acknowledgements (each was sent after
/// the one before it was acknowledged); `received` is what one reader saw of them, in its order.
pub(crate) fn compare<Id: Hash + Eq>(
    acknowledged: impl IntoIterator<Item = Id>,
    received: impl IntoIterator<Item = Id>,
) -> Verdict {
    let mut times_seen: HashMap<Id, (usize, u32)> =
        acknowledged.into_iter().enumerate().map(|(place, id)| (id, (place, 0))).collect();
    let mut verdict = Verdict { due: times_seen.len() as u64, ..Verdict::default() };
    let mut furthest = None;
    for id in received {
        let Some((place, times)) = times_seen.get_mut(&id) else {
            verdict.unknown += 1;
            continue;
        };
        *times += 1;
        if *times > 1 {
            verdict.duplicated += 1;
        } else if furthest.is_some_and(|furthest| *place < furthest) {
            verdict.reordered += 1;
        } else {
            furthest = Some(*place);
        }
    }
    verdict.lost = times_seen.values().filter(|(_, times)| *times == 0).count() as u64;
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(received: &[&str]) -> Verdict {
        compare(["a", "b", "c", "d"], received.iter().copied())
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        let fine = Verdict { due: 4, ..Verdict::default() };
        assert_eq!(judge(&["a", "b", "c", "d"]), fine);
        assert_eq!(judge(&["a", "c", "d"]), Verdict { lost: 1, ..fine.clone() });
        assert_eq!(judge(&["a", "b", "b", "c", "d"]), Verdict { duplicated: 1, ..fine.clone() });
        assert_eq!(judge(&["a", "c", "b", "d"]), Verdict { reordered: 1, ..fine.clone() });
        assert_eq!(judge(&["a", "b", "x", "c", "d"]), Verdict { unknown: 1, ..fine.clone() });
        assert_eq!(judge(&[]), Verdict { lost: 4, ..fine });
    }

    #[test]
    fn only_a_verdict_without_faults_is_clean() {
        assert!(judge(&["a", "b", "c", "d"]).is_clean());
        assert!(!judge(&["a", "b", "c"]).is_clean());
        let mut sum = judge(&["a", "b", "c", "d"]);
        sum.add(&judge(&["a", "b", "c", "d", "d"]));
        assert_eq!((sum.due, sum.is_clean()), (8, false));
    }
}
