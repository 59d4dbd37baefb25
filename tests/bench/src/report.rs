//! What a run found: a list of measures, the checker's verdict and what went wrong, as JSON (described in
//! `docs/benchmarks.md`).
//!
//! A comparison is made from the JSON of several runs, so that each server can be measured alone and at its own scale.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::checker::Verdict;

#[derive(Serialize, Deserialize)]
pub(crate) struct Report {
    /// Of this form of JSON. A field that is added keeps it, one whose meaning changes raises it.
    #[serde(default)]
    format: u32,
    /// The server's name as the table shows it.
    pub(crate) name: String,
    /// What was measured, as whoever ran it put it.
    #[serde(default)]
    pub(crate) version: String,
    /// When the run began, in seconds since 1970.
    #[serde(default)]
    pub(crate) taken_at: u64,
    pub(crate) machine: Machine,
    /// What each scenario did.
    #[serde(default)]
    pub(crate) sizes: Vec<Size>,
    pub(crate) measures: Vec<Measure>,
    pub(crate) verdict: Verdict,
    /// Scenarios that could not be finished, with the reason.
    pub(crate) failures: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpus: usize,
    pub(crate) processor: String,
    pub(crate) kernel: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) scenario: String,
    pub(crate) text: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Measure {
    pub(crate) scenario: String,
    pub(crate) label: String,
    pub(crate) unit: String,
    pub(crate) value: f64,
    pub(crate) better: Better,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Higher,
    Lower,
    /// Neither: says how the run was made.
    Context,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            processor: model.map_or_else(String::new, |(_, model)| model.to_owned()),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

impl Report {
    pub(crate) fn new(name: String, version: String) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            format: 1,
            name,
            version,
            taken_at: now.as_secs(),
            sizes: Vec::new(),
            machine: Machine::this(),
            measures: Vec::new(),
            verdict: Verdict::default(),
            failures: Vec::new(),
        }
    }

    /// Adds a measure; one that could not be taken (`None`) leaves no row.
    pub(crate) fn add(
        &mut self,
        scenario: &str,
        label: impl Into<String>,
        unit: &str,
        better: Better,
        value: impl Into<Option<f64>>,
    ) {
        if let Some(value) = value.into() {
            self.measures.push(Measure {
                scenario: scenario.to_owned(),
                label: label.into(),
                unit: unit.to_owned(),
                value,
                better,
            });
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let json = std::fs::read(path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&json).with_context(|| path.display().to_string())
    }

    pub(crate) fn find(&self, scenario: &str, label: &str) -> Option<&Measure> {
        self.measures.iter().find(|measure| measure.scenario == scenario && measure.label == label)
    }

    /// The day on which the run began, in UTC.
    pub(crate) fn day(&self) -> String {
        day(self.taken_at)
    }

    pub(crate) fn is_good(&self) -> bool {
        self.failures.is_empty() && self.verdict.is_clean()
    }
}

impl Measure {
    /// How many times better this is than `other`, the same measure elsewhere. What compares a server with itself is not
    /// compared again.
    pub(crate) fn times_better(&self, other: &Self) -> Option<f64> {
        if self.unit == "×" {
            return None;
        }
        let ratio = match self.better {
            Better::Higher => self.value / other.value,
            Better::Lower => other.value / self.value,
            Better::Context => return None,
        };
        (ratio.is_finite() && ratio > 0.0).then_some(ratio)
    }
}

/// `2026-11-26` of seconds since 1970 (Howard Hinnant's `civil_from_days`).
fn day(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    format!("{:04}-{month:02}-{date:02}", year + era * 400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_with_a_lost_delivery_or_a_failed_scenario_is_not_good() {
        let mut run = Report::new("a".to_owned(), String::new());
        assert!(run.is_good());
        run.verdict.lost = 1;
        assert!(!run.is_good());
        let mut run = Report::new("a".to_owned(), String::new());
        run.failures.push("send: broke".to_owned());
        assert!(!run.is_good());
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!([0, 951_782_400, 1_795_651_200].map(day), ["1970-01-01", "2000-02-29", "2026-11-26"]);
    }

    #[test]
    fn a_report_of_before_there_were_sizes_can_be_read() {
        let old = r#"{"name":"a","machine":{"cpus":2,"processor":"","kernel":""},"measures":[],
            "verdict":{"due":1,"lost":0,"duplicated":0,"reordered":0,"unknown":0,"forked_transactions":0},"failures":[]}"#;
        let report: Report = serde_json::from_str(old).unwrap();
        assert!(report.is_good() && report.sizes.is_empty());
    }
}
