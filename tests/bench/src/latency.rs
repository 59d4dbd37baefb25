//! Every latency of a phase, kept whole: percentiles are exact, and a phase has too few samples to need a sketch.

use std::time::Duration;

/// Microseconds each.
#[derive(Default)]
pub(crate) struct Latencies {
    micros: Vec<u32>,
}

impl Latencies {
    pub(crate) fn record(&mut self, latency: Duration) {
        self.micros.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn count(&self) -> usize {
        self.micros.len()
    }

    /// The `percent`th percentile by nearest rank, in milliseconds; `None` without samples.
    pub(crate) fn percentile(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).map(|micros| f64::from(*micros) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(50), None);
        for milliseconds in (1..=200).rev() {
            latencies.record(Duration::from_millis(milliseconds));
        }
        let percentiles = [1, 50, 99, 100].map(|percent| latencies.percentile(percent).unwrap().to_string());
        assert_eq!(percentiles, ["2", "100", "198", "200"]);
    }
}
