//! Results as a part of a document: what lies between its markers is replaced, so that figures in the documentation are never
//! typed by hand.

use std::fmt::Write;

use anyhow::{Context, Result};

use crate::report::Report;
use crate::table::{Rows, markdown};

const BEGIN: &str = "<!-- results: begin (written by tests/bench/run.sh --write-docs) -->";
const END: &str = "<!-- results: end -->";

/// What was measured and when, the plot (a file beside the document), and the table.
pub(crate) fn results(reports: &[Report], plot: Option<&str>) -> String {
    let mut out = String::new();
    if let (Some(plot), Some(first)) = (plot, reports.first()) {
        let _ = writeln!(
            out,
            "![How many times better {} is, a row a measure; the table has all]({plot})\n",
            first.name
        );
    }
    for report in reports {
        let version = if report.version.is_empty() { "of unknown version" } else { &report.version };
        let (day, due) = (report.day(), report.verdict.due);
        let faults = if report.verdict.is_clean() {
            format!("nothing was lost, doubled or out of order among {due} deliveries")
        } else {
            format!("of {due} deliveries not all were right: the checker's rows at the end say more")
        };
        let _ = writeln!(out, "- **{}** {version}, {day}: {faults}.", report.name);
    }
    let _ = write!(out, "\n{}", markdown(reports, Rows::Compared));
    out
}

/// `document` with `part` between its markers.
pub(crate) fn put_in(document: &str, part: &str) -> Result<String> {
    let (before, rest) = document.split_once(BEGIN).with_context(|| format!("there is no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("there is no {END}"))?;
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", part.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_show_the_plot_and_say_what_was_wrong() {
        let mut report = Report::new("a".to_owned(), "1.2".to_owned());
        report.taken_at = 0;
        report.verdict.due = 7;
        let good = results(&[report], Some("a.svg"));
        assert!(
            good.starts_with("![How many times better a is, a row a measure; the table has all](a.svg)\n"),
            "{good}"
        );
        assert!(good.contains(
            "- **a** 1.2, 1970-01-01: nothing was lost, doubled or out of order among 7 deliveries."
        ));
        let mut bad = Report::new("a".to_owned(), String::new());
        bad.verdict.lost = 1;
        assert!(results(&[bad], None).contains("not all were right"));
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let document = format!("# Title\n\n{BEGIN}\n\nold\n\n{END}\n\nMore.\n");
        let once = put_in(&document, "new\n").unwrap();
        assert_eq!(once, format!("# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nMore.\n"));
        assert_eq!(put_in(&once, "new").unwrap(), once);
        assert!(put_in("# Title\n", "new").is_err());
    }
}
