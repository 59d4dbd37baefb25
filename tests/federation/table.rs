//! What came of the plays, as the table in `docs/federation.md`.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use crate::{
    scenarios::SCENARIOS,
    world::{Played, Side},
};

const FILE: &str = "docs/federation.md";
const BEGIN: &str = "<!-- The table is made by tests/federation. -->\n";
const END: &str = "<!-- End of the table. -->\n";

pub(crate) struct Outcome {
    pub(crate) scenario: &'static str,
    pub(crate) side: Side,
    pub(crate) version: &'static str,
    pub(crate) result: Played,
}

impl Outcome {
    pub(crate) fn failure(&self) -> Option<String> {
        let cause = self.result.as_ref().err()?;
        Some(format!("{}, kept by {:?}, version {}: {cause}", self.scenario, self.side, self.version))
    }
}

/// Holds the table against what came out, or writes it.
pub(crate) fn check(outcomes: &[Outcome]) {
    let mut cells: BTreeMap<(&str, Side), Vec<String>> = BTreeMap::new();
    for outcome in outcomes {
        let mark = if outcome.result.is_ok() { "" } else { " (fails)" };
        let cell = cells.entry((outcome.scenario, outcome.side)).or_default();
        cell.push(format!("{}{mark}", outcome.version));
    }
    let mut table = String::from("| | rooms that Hearth keeps | rooms that Synapse keeps |\n|---|---|---|\n");
    let names = SCENARIOS.iter().map(|scenario| scenario.name).chain(crate::away::NAMES);
    for name in names {
        let cell = |side| cells.get(&(name, side)).map(|versions| versions.join(", ")).unwrap_or_default();
        writeln!(table, "| {name} | {} | {} |", cell(Side::Hearth), cell(Side::Synapse)).unwrap();
    }
    let text = fs::read_to_string(FILE).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the table's beginning is marked");
    let (kept, after) = rest.split_once(END).expect("the table's end is marked");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(FILE, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(kept, table, "{FILE} says something else; UPDATE=1 writes it anew");
    }
}
