//! What was looked at, and how it is told: line by line as it is found, or whole as JSON.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::cli::{Failure, output::say};

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Good,
    /// Worth knowing, and nothing is wrong.
    Note,
    Bad,
}

#[derive(Debug, Serialize)]
struct Finding {
    part: &'static str,
    verdict: Verdict,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Serialize)]
struct Whole<'r> {
    server: &'r str,
    ok: bool,
    findings: &'r [Finding],
}

/// All that is found about a server.
pub(super) struct Report {
    server: String,
    json: bool,
    part: &'static str,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(server: &str, json: bool) -> Self {
        let report = Self { server: server.to_owned(), json, part: "", findings: Vec::new() };
        report.tell(&format!("{server}\n"));
        report
    }

    /// What follows is about this.
    pub(super) fn part(&mut self, name: &'static str) {
        self.part = name;
        self.tell(&format!("\n{name}\n"));
    }

    pub(super) fn good(&mut self, text: impl AsRef<str>) {
        self.add(Verdict::Good, text.as_ref(), None);
    }

    pub(super) fn note(&mut self, text: impl AsRef<str>) {
        self.add(Verdict::Note, text.as_ref(), None);
    }

    /// `remedy`: what to do, and where; empty if nobody can know.
    pub(super) fn bad(&mut self, text: impl AsRef<str>, remedy: &str) {
        self.add(Verdict::Bad, text.as_ref(), Some(remedy).filter(|remedy| !remedy.is_empty()));
    }

    fn add(&mut self, verdict: Verdict, text: &str, remedy: Option<&str>) {
        // Other servers have their words in it.
        let text: String = text.chars().filter(|character| !character.is_control()).collect();
        let mark = match verdict {
            Verdict::Good => '✓',
            Verdict::Note => '·',
            Verdict::Bad => '✗',
        };
        let mut line = format!("  {mark} {text}\n");
        if let Some(remedy) = remedy {
            line = format!("{line}      → {remedy}\n");
        }
        self.tell(&line);
        self.findings.push(Finding { part: self.part, verdict, text, remedy: remedy.map(str::to_owned) });
    }

    /// The end. Whether nothing is wrong.
    pub(super) fn close(self) -> Result<bool, Failure> {
        let bad = self.findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
        if self.json {
            let whole = Whole { server: &self.server, ok: bad == 0, findings: &self.findings };
            say!("{}", serde_json::to_string_pretty(&whole)?)?;
        } else {
            match bad {
                0 => say!("\nNothing is wrong.")?,
                1 => say!("\nOne thing is wrong.")?,
                more => say!("\n{more} things are wrong.")?,
            }
        }
        Ok(bad == 0)
    }

    /// Verdicts, each with its text and remedy.
    #[cfg(test)]
    pub(super) fn told(&self) -> Vec<(Verdict, String)> {
        let told = self.findings.iter();
        told.map(|finding| {
            let remedy = finding.remedy.as_deref().unwrap_or_default();
            (finding.verdict, format!("{} {remedy}", finding.text))
        })
        .collect()
    }

    fn tell(&self, text: &str) {
        if !self.json {
            // If that fails, so does the end.
            let _ = io::stdout().write_all(text.as_bytes());
        }
    }
}
