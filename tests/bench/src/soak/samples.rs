//! What is looked at every few seconds of a soak, and the judgement at its end: whether the last quarter is like the second.

use serde::{Deserialize, Serialize};

use crate::checker::Verdict;
use crate::report::Machine;

/// One look. Figures that could not be had (a server that is down, no probe) are absent.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Seconds since the load began.
    pub(crate) at: f64,
    /// What went wrong within it.
    pub(crate) faults: Vec<String>,
    /// Whether nothing did, nor shortly before.
    pub(crate) calm: bool,
    /// By name, as [`JUDGED`] and the plot know them.
    pub(crate) figures: Vec<(String, f64)>,
}

impl Sample {
    pub(crate) fn add(&mut self, name: impl Into<String>, value: impl Into<Option<f64>>) {
        if let Some(value) = value.into() {
            self.figures.push((name.into(), value));
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(figure, _)| figure == name).map(|(_, value)| *value)
    }
}

/// All that is known of a soak, as JSON.
#[derive(Serialize, Deserialize)]
pub(crate) struct Soak {
    pub(crate) format: u32,
    pub(crate) version: String,
    pub(crate) taken_at: u64,
    pub(crate) machine: Machine,
    /// How long the load went on, in seconds.
    pub(crate) seconds: f64,
    /// Messages a second that reach everybody when all talk as fast as they can.
    pub(crate) capacity: f64,
    /// Messages a second that were sent.
    pub(crate) rate: f64,
    pub(crate) messages: usize,
    /// Requests that failed, and were tried again.
    pub(crate) failed_requests: u64,
    pub(crate) samples: Vec<Sample>,
    pub(crate) verdict: Verdict,
    pub(crate) checks: Vec<Check>,
    /// What could not be done.
    pub(crate) failures: Vec<String>,
}

/// One figure that must not have grown.
#[derive(Serialize, Deserialize, Debug, PartialEq)]
pub(crate) struct Check {
    pub(crate) figure: String,
    pub(crate) second_quarter: f64,
    pub(crate) last_quarter: f64,
    /// What the last quarter may come to.
    pub(crate) limit: f64,
    pub(crate) good: bool,
}

/// How the samples of a quarter come to one number.
#[derive(Clone, Copy)]
enum Of {
    Mean,
    /// The middle of those in which nothing went wrong, nor shortly before: what is left of latency is the server's own.
    CalmMedian,
    Most,
}

/// Figure, how a quarter is summed up, the factor and the amount by which the last may exceed the second.
const JUDGED: [(&str, Of, f64, f64); 10] = [
    ("memory", Of::Mean, 1.05, 0.0),
    ("file descriptors", Of::Most, 1.1, 10.0),
    ("write-ahead log", Of::Most, 1.25, 4.0),
    ("queue rows", Of::Mean, 1.1, 1000.0),
    ("unread rows", Of::Mean, 1.1, 1000.0),
    ("delivery rows", Of::Mean, 1.1, 1000.0),
    ("delivery p50", Of::CalmMedian, 1.25, 0.5),
    ("delivery p99", Of::CalmMedian, 2.0, 5.0),
    ("delivery to the peer p50", Of::CalmMedian, 1.25, 1.0),
    ("delivery to the peer p99", Of::CalmMedian, 2.0, 10.0),
];

/// Queues are trimmed every five minutes, so that their rows have the form of a saw: a quarter that is shorter than a tooth says
/// more of when it began than of what grew.
const BETWEEN_TRIMS: f64 = 300.0;

impl Soak {
    /// The samples of the `number`th quarter, from 0.
    pub(crate) fn quarter(&self, number: usize) -> impl Iterator<Item = &Sample> {
        let quarter = self.seconds / 4.0;
        let (from, to) = (quarter * number as f64, quarter * (number + 1) as f64);
        self.samples.iter().filter(move |sample| sample.at > from && sample.at <= to)
    }

    /// One number for a figure in a quarter, if the figure is one of those that are judged.
    fn summed_up(&self, figure: &str, of: Of, quarter: usize) -> Option<f64> {
        let samples = self.quarter(quarter).filter(|sample| sample.calm || !matches!(of, Of::CalmMedian));
        let mut values: Vec<f64> = samples.filter_map(|sample| sample.get(figure)).collect();
        if values.is_empty() {
            return None;
        }
        values.sort_unstable_by(f64::total_cmp);
        Some(match of {
            Of::Mean => values.iter().sum::<f64>() / values.len() as f64,
            Of::CalmMedian => values[values.len() / 2],
            Of::Most => values[values.len() - 1],
        })
    }

    /// Holds the last quarter against the second.
    pub(crate) fn judge(&mut self) {
        let shorter_than_a_tooth = self.seconds / 4.0 < BETWEEN_TRIMS;
        self.checks = JUDGED
            .iter()
            .filter(|(figure, ..)| !(shorter_than_a_tooth && *figure == "queue rows"))
            .filter_map(|(figure, of, factor, more)| {
                let second_quarter = self.summed_up(figure, *of, 1)?;
                let last_quarter = self.summed_up(figure, *of, 3)?;
                let limit = second_quarter * factor + more;
                let good = last_quarter <= limit;
                Some(Check { figure: (*figure).to_owned(), second_quarter, last_quarter, limit, good })
            })
            .collect();
    }

    /// Nothing was lost, and nothing grew.
    pub(crate) fn is_good(&self) -> bool {
        self.failures.is_empty()
            && self.verdict.is_clean()
            && self.verdict.due > 0
            && self.checks.iter().all(|check| check.good)
    }

    /// Each judged figure in each quarter.
    pub(crate) fn by_quarter(&self) -> Vec<(&'static str, [Option<f64>; 4])> {
        let row = |(figure, of, ..): &(&'static str, Of, f64, f64)| {
            (*figure, [0, 1, 2, 3].map(|quarter| self.summed_up(figure, *of, quarter)))
        };
        JUDGED.iter().map(row).filter(|(_, values)| values.iter().any(Option::is_some)).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A soak of 400 seconds with a look every ten, in most of which something goes wrong.
    pub(crate) fn soak(memory: impl Fn(f64) -> f64, p99: impl Fn(f64) -> f64) -> Soak {
        let samples = (1..=40).map(|look| {
            let at = f64::from(look) * 10.0;
            let fault = look % 6 < 4;
            let mut sample = Sample { at, calm: !fault, ..Sample::default() };
            if fault {
                sample.faults.push("peer killed".to_owned());
            }
            sample.add("memory", memory(at));
            sample.add("delivery p99", if fault { 5000.0 } else { p99(at) });
            sample.add("missing", None);
            sample
        });
        Soak {
            format: 1,
            version: String::new(),
            taken_at: 0,
            machine: Machine::this(),
            seconds: 400.0,
            capacity: 200.0,
            rate: 100.0,
            messages: 40_000,
            failed_requests: 0,
            samples: samples.collect(),
            verdict: Verdict { due: 10, ..Verdict::default() },
            checks: Vec::new(),
            failures: Vec::new(),
        }
    }

    fn judged(mut soak: Soak) -> (bool, Vec<String>) {
        soak.judge();
        let bad = soak.checks.iter().filter(|check| !check.good).map(|check| check.figure.clone()).collect();
        (soak.is_good(), bad)
    }

    #[test]
    fn what_is_flat_is_good_even_if_it_rose_in_the_beginning() {
        let warm = |at: f64| if at < 100.0 { at } else { 100.0 };
        assert_eq!(judged(soak(warm, |_| 7.0)), (true, vec![]));
    }

    #[test]
    fn memory_that_grows_by_more_than_five_percent_is_bad() {
        assert_eq!(judged(soak(|at| 100.0 + at / 50.0, |_| 7.0)), (true, vec![]));
        assert_eq!(judged(soak(|at| 100.0 + at / 20.0, |_| 7.0)), (false, vec!["memory".to_owned()]));
    }

    #[test]
    fn rows_of_queues_are_judged_where_a_quarter_sees_a_whole_tooth() {
        let with_rows = |seconds: f64| {
            let mut soak = soak(|_| 1.0, |_| 7.0);
            for sample in &mut soak.samples {
                sample.at *= seconds / soak.seconds;
                let rows = sample.at * 1e5;
                sample.add("queue rows", rows);
            }
            soak.seconds = seconds;
            soak
        };
        assert_eq!(judged(with_rows(1100.0)), (true, vec![]));
        assert_eq!(judged(with_rows(1300.0)), (false, vec!["queue rows".to_owned()]));
    }

    #[test]
    fn latency_is_that_of_the_calm() {
        let slower = |at: f64| if at > 300.0 { 40.0 } else { 7.0 };
        assert_eq!(judged(soak(|_| 1.0, slower)), (false, vec!["delivery p99".to_owned()]));
    }

    #[test]
    fn something_lost_or_nothing_seen_is_bad_however_flat() {
        let mut lost = soak(|_| 1.0, |_| 1.0);
        lost.verdict.lost = 1;
        assert!(!judged(lost).0);
        let mut idle = soak(|_| 1.0, |_| 1.0);
        idle.verdict.due = 0;
        assert!(!judged(idle).0);
        let mut broken = soak(|_| 1.0, |_| 1.0);
        broken.failures.push("the peer did not start".to_owned());
        assert!(!judged(broken).0);
    }
}
