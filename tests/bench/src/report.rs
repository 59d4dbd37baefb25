//! What a run found: a list of measures, the checker's verdict and what went wrong, as JSON and as a markdown table.
//!
//! A comparison is made from the JSON of several runs, so that each server can be measured alone and at its own scale.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::checker::Verdict;

#[derive(Serialize, Deserialize)]
pub(crate) struct Report {
    /// The server's name as the table shows it.
    pub(crate) name: String,
    pub(crate) machine: Machine,
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
pub(crate) struct Measure {
    pub(crate) scenario: String,
    pub(crate) label: String,
    pub(crate) unit: String,
    pub(crate) value: f64,
    pub(crate) better: Better,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
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
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
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

    pub(crate) fn is_good(&self) -> bool {
        self.failures.is_empty() && self.verdict.is_clean()
    }
}

/// One table with a column a report, and the ratio of the last to the first where there are two or more.
pub(crate) fn markdown(reports: &[Report]) -> String {
    let mut out = String::new();
    let mut line = |cells: Vec<String>| {
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    };
    let compared = reports.len() > 1;
    let names = reports.iter().map(|report| report.name.clone());
    let mut head: Vec<_> =
        ["scenario", "measure", "unit"].map(str::to_owned).into_iter().chain(names).collect();
    if compared {
        head.push(format!("{} is better by", reports[0].name));
    }
    let rule = head
        .iter()
        .enumerate()
        .map(|(column, _)| if column < 3 { "---" } else { "---:" }.to_owned())
        .collect();
    line(head);
    line(rule);
    for (scenario, label) in rows(reports) {
        let cells: Vec<_> = reports.iter().map(|report| find(report, scenario, label)).collect();
        let Some(any) = cells.iter().flatten().next() else { continue };
        let mut row = vec![scenario.to_owned(), label.to_owned(), any.unit.clone()];
        row.extend(
            cells.iter().map(|cell| cell.map_or_else(|| "–".to_owned(), |measure| number(measure.value))),
        );
        if compared {
            row.push(ratio(cells[0], cells[cells.len() - 1]).unwrap_or_default());
        }
        line(row);
    }
    for (label, count) in verdict_rows() {
        let mut row = vec!["checker".to_owned(), label.to_owned(), String::new()];
        row.extend(reports.iter().map(|report| count(&report.verdict).to_string()));
        if compared {
            row.push(String::new());
        }
        line(row);
    }
    for report in reports {
        for failure in &report.failures {
            let _ = writeln!(out, "\n**{} failed**: {failure}", report.name);
        }
    }
    if let Some(report) = reports.first() {
        let Machine { cpus, processor, kernel } = &report.machine;
        let _ =
            writeln!(out, "\n{cpus} CPUs shared by the server and the load ({processor}), Linux {kernel}.");
    }
    out
}

type Count = fn(&Verdict) -> u64;

fn verdict_rows() -> [(&'static str, Count); 6] {
    [
        ("deliveries due", |verdict| verdict.due),
        ("lost", |verdict| verdict.lost),
        ("duplicated", |verdict| verdict.duplicated),
        ("reordered", |verdict| verdict.reordered),
        ("unknown", |verdict| verdict.unknown),
        ("transaction ids answered with another event", |verdict| verdict.forked_transactions),
    ]
}

/// Scenario and label of each row: the first report's in its order, with those that only others have set in after their scenario.
fn rows(reports: &[Report]) -> Vec<(&str, &str)> {
    let mut rows: Vec<(&str, &str)> = Vec::new();
    for measure in reports.iter().flat_map(|report| &report.measures) {
        let row = (&*measure.scenario, &*measure.label);
        if !rows.contains(&row) {
            let after = rows.iter().rposition(|(scenario, _)| *scenario == row.0);
            rows.insert(after.map_or(rows.len(), |place| place + 1), row);
        }
    }
    rows
}

fn find<'a>(report: &'a Report, scenario: &str, label: &str) -> Option<&'a Measure> {
    report.measures.iter().find(|measure| measure.scenario == scenario && measure.label == label)
}

/// How many times better `first` is than `last`.
fn ratio(first: Option<&Measure>, last: Option<&Measure>) -> Option<String> {
    let (first, last) = (first?, last?);
    let ratio = match first.better {
        Better::Higher => first.value / last.value,
        Better::Lower => last.value / first.value,
        Better::Context => return None,
    };
    ratio.is_finite().then(|| format!("{}×", number(ratio)))
}

/// Three significant digits, no more than two of them after the point.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str, measures: &[(&str, Better, f64)]) -> Report {
        let mut report = Report::new(name.to_owned());
        for (label, better, value) in measures {
            report.add("send", *label, "u", *better, *value);
        }
        report
    }

    #[test]
    fn a_comparison_lines_measures_up_and_says_who_is_better() {
        let ours = report(
            "a",
            &[("rate", Better::Higher, 3000.0), ("cpu", Better::Lower, 0.25), ("only a", Better::Lower, 1.0)],
        );
        let theirs = report(
            "b",
            &[
                ("only b", Better::Context, 64.0),
                ("cpu", Better::Lower, 20.0),
                ("rate", Better::Higher, 40.0),
            ],
        );
        let table = markdown(&[ours, theirs]);
        let lines: Vec<_> = table.lines().skip(2).take(4).collect();
        assert_eq!(
            lines,
            [
                "| send | rate | u | 3000 | 40.0 | 75.0× |",
                "| send | cpu | u | 0.25 | 20.0 | 80.0× |",
                "| send | only a | u | 1.00 | – |  |",
                "| send | only b | u | – | 64.0 |  |",
            ]
        );
    }

    #[test]
    fn a_measure_that_was_not_taken_has_no_row() {
        let mut only = report("a", &[]);
        only.add("send", "cpu", "ms", Better::Lower, None);
        assert!(!markdown(&[only]).contains("cpu"));
    }

    #[test]
    fn a_run_with_a_lost_delivery_or_a_failed_scenario_is_not_good() {
        let mut run = report("a", &[]);
        assert!(run.is_good());
        run.verdict.lost = 1;
        assert!(!run.is_good());
        let mut run = report("a", &[]);
        run.failures.push("send: broke".to_owned());
        assert!(!run.is_good());
        assert!(markdown(&[run]).contains("**a failed**: send: broke"));
    }
}
