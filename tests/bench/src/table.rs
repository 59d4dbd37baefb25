//! Reports side by side as one markdown table.

use std::fmt::Write;

use crate::checker::Verdict;
use crate::report::{Better, Machine, Measure, Report};

/// Which measures a table has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// All.
    Every,
    /// Those that say something of the server.
    Compared,
}

/// A column a report, and how many times better the first is than each of the others.
pub(crate) fn markdown(reports: &[Report], rows: Rows) -> String {
    let mut out = String::new();
    let Some((first, others)) = reports.split_first() else { return out };
    let mut line = |cells: Vec<String>| {
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    };
    let mut head: Vec<String> = ["scenario", "measure", "unit"].map(str::to_owned).to_vec();
    head.extend(reports.iter().map(|report| report.name.clone()));
    head.extend(others.iter().map(|other| format!("{} is better than {} by", first.name, other.name)));
    let rule = (0..head.len()).map(|column| if column < 3 { "---" } else { "---:" }.to_owned()).collect();
    line(head);
    line(rule);
    let mut scenario_before = "";
    for (scenario, label) in all_rows(reports) {
        let cells: Vec<_> = reports.iter().map(|report| report.find(scenario, label)).collect();
        let Some(any) = cells.iter().flatten().next() else { continue };
        if scenario != std::mem::replace(&mut scenario_before, scenario) {
            line(sizes(reports, scenario));
        }
        if rows == Rows::Compared && any.better == Better::Context {
            continue;
        }
        let mut row = vec![scenario.to_owned(), label.to_owned(), any.unit.clone()];
        row.extend(
            cells.iter().map(|cell| cell.map_or_else(|| "–".to_owned(), |measure| number(measure.value))),
        );
        row.extend(cells[1..].iter().map(|other| ratio(cells[0], *other).unwrap_or_default()));
        line(row);
    }
    for (label, count) in verdict_rows() {
        let mut row = vec!["checker".to_owned(), label.to_owned(), String::new()];
        row.extend(reports.iter().map(|report| count(&report.verdict).to_string()));
        row.extend(others.iter().map(|_| String::new()));
        line(row);
    }
    for report in reports {
        for failure in &report.failures {
            let _ = writeln!(out, "\n**{} failed**: {failure}", report.name);
        }
    }
    let Machine { cpus, processor, kernel } = &first.machine;
    let _ = writeln!(out, "\n{cpus} CPUs shared by the server and the load ({processor}), Linux {kernel}.");
    out
}

/// The row that says what a scenario did.
fn sizes(reports: &[Report], scenario: &str) -> Vec<String> {
    let mut row = vec![scenario.to_owned(), "*what was done*".to_owned(), String::new()];
    row.extend(reports.iter().map(|report| {
        let size = report.sizes.iter().find(|size| size.scenario == scenario);
        size.map_or_else(String::new, |size| size.text.clone())
    }));
    row.extend(reports[1..].iter().map(|_| String::new()));
    row
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
fn all_rows(reports: &[Report]) -> Vec<(&str, &str)> {
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

/// How many times better `first` is than `other`.
fn ratio(first: Option<&Measure>, other: Option<&Measure>) -> Option<String> {
    Some(format!("{}×", number(first?.times_better(other?)?)))
}

/// Three significant digits, no more than two of them after the point.
pub(crate) fn number(value: f64) -> String {
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
        let mut report = Report::new(name.to_owned(), String::new());
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
        let third = report("c", &[("rate", Better::Higher, 6000.0)]);
        let reports = [ours, theirs, third];
        let table = markdown(&reports, Rows::Every);
        let lines: Vec<_> = table.lines().skip(3).take(4).collect();
        assert_eq!(
            lines,
            [
                "| send | rate | u | 3000 | 40.0 | 6000 | 75.0× | 0.50× |",
                "| send | cpu | u | 0.25 | 20.0 | – | 80.0× |  |",
                "| send | only a | u | 1.00 | – | – |  |  |",
                "| send | only b | u | – | 64.0 | – |  |  |",
            ]
        );
        assert!(!markdown(&reports, Rows::Compared).contains("only b"));
    }

    #[test]
    fn a_measure_that_was_not_taken_has_no_row() {
        let mut only = report("a", &[]);
        only.add("send", "cpu", "ms", Better::Lower, None);
        assert!(!markdown(&[only], Rows::Every).contains("cpu"));
    }

    #[test]
    fn a_scenario_that_was_smaller_elsewhere_says_so() {
        let mut reports = [("a", "9 rooms"), ("b", "3 rooms")].map(|(name, size)| {
            let mut report = report(name, &[("rate", Better::Higher, 1.0)]);
            report.sizes.push(crate::report::Size { scenario: "send".to_owned(), text: size.to_owned() });
            report
        });
        reports[1].failures.push("send: broke".to_owned());
        let table = markdown(&reports, Rows::Compared);
        assert!(table.contains("| send | *what was done* |  | 9 rooms | 3 rooms |  |"), "{table}");
        assert!(table.contains("**b failed**: send: broke"));
    }
}
