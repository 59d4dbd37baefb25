//! Results as a part of a document: what lies between its markers is replaced, so that figures in the documentation are never
//! typed by hand.

use std::fmt::Write;

use anyhow::{Context, Result};

use crate::report::Report;
use crate::table::{Rows, markdown};

const BEGIN: &str = "<!-- results: begin (written by tests/bench/run.sh --write-docs) -->";
const END: &str = "<!-- results: end -->";

/// What was measured and when, and the table.
pub(crate) fn results(reports: &[Report]) -> String {
    let mut out = String::new();
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
    fn only_what_is_between_the_markers_changes() {
        let document = format!("# Title\n\n{BEGIN}\n\nold\n\n{END}\n\nMore.\n");
        let once = put_in(&document, "new\n").unwrap();
        assert_eq!(once, format!("# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nMore.\n"));
        assert_eq!(put_in(&once, "new").unwrap(), once);
        assert!(put_in("# Title\n", "new").is_err());
    }
}
