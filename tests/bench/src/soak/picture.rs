//! A soak as a table and as a picture: each figure over the time, with what went wrong marked below it.

use std::fmt::Write;

use super::samples::Soak;
use crate::svg::{Anchor, COLOURS, Drawing, FAINT, GRID, INK};
use crate::table::number;

/// Title and unit of a panel, and its lines: figure and name.
const PANELS: [(&str, &[(&str, &str)]); 6] = [
    ("Messages a second", &[("messages a second", "sent")]),
    ("Delivery on one server, ms (logarithmic)", &[("delivery p50", "p50"), ("delivery p99", "p99")]),
    (
        "Delivery with rooms of both servers, ms (logarithmic)",
        &[("delivery to the peer p50", "p50"), ("delivery to the peer p99", "p99")],
    ),
    ("Memory, MiB", &[("memory", "server"), ("peer's memory", "peer (killed now and then)")]),
    ("File descriptors", &[("file descriptors", "server"), ("peer's file descriptors", "peer")]),
    (
        "Queue rows, thousands",
        &[("queue rows", "queue"), ("unread rows", "unread"), ("delivery rows", "delivery")],
    ),
];

const WIDTH: f64 = 860.0;
const PANEL: f64 = 120.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 840.0;
const DASHES: [&str; 3] = ["", "5 3", "1.5 2.5"];
const SHADE: &str = "#eaeef2";

pub(crate) fn table(soak: &Soak) -> String {
    let mut out = String::new();
    let (minutes, percent) = (soak.seconds / 60.0, 100.0 * soak.rate / soak.capacity);
    let _ = writeln!(
        out,
        "{:.0} minutes at {} messages a second, {percent:.0} % of the {} that reach everybody when all talk as fast as they can: {} \
         messages, {} requests that failed and were tried again.\n",
        minutes,
        number(soak.rate),
        number(soak.capacity),
        soak.messages,
        soak.failed_requests
    );
    let _ = writeln!(out, "| figure | 1st quarter | 2nd | 3rd | 4th | may be | |");
    let _ = writeln!(out, "| --- | ---: | ---: | ---: | ---: | ---: | --- |");
    for (figure, quarters) in soak.by_quarter() {
        let check = soak.checks.iter().find(|check| check.figure == figure);
        let mut cells = vec![figure.to_owned()];
        cells.extend(quarters.iter().map(|value| value.map_or_else(|| "–".to_owned(), number)));
        cells.push(check.map_or_else(String::new, |check| number(check.limit)));
        cells.push(check.map_or("", |check| if check.good { "good" } else { "**too much**" }).to_owned());
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    let verdict = &soak.verdict;
    let _ = writeln!(
        out,
        "\n{} deliveries due: {} lost, {} doubled, {} out of order, {} unknown.",
        verdict.due, verdict.lost, verdict.duplicated, verdict.reordered, verdict.unknown
    );
    for failure in &soak.failures {
        let _ = writeln!(out, "\n**Failed**: {failure}");
    }
    let _ = writeln!(out, "\n{}", if soak.is_good() { "Good." } else { "**Not good.**" });
    out
}

pub(crate) fn drawing(soak: &Soak) -> String {
    let panels: Vec<_> = PANELS
        .iter()
        .filter(|(_, lines)| {
            lines.iter().any(|(figure, _)| soak.samples.iter().any(|sample| sample.get(figure).is_some()))
        })
        .collect();
    let height = 60.0 + PANEL * panels.len() as f64 + 30.0;
    let mut drawing = Drawing::new(WIDTH, height);
    let title = format!("A soak of {:.0} minutes", soak.seconds / 60.0);
    drawing.bold((16.0, 28.0), Anchor::Start, 17.0, INK, &title);
    drawing.band((16.0, 38.0), (14.0, 10.0), SHADE);
    drawing.text(
        (36.0, 47.0),
        Anchor::Start,
        12.0,
        FAINT,
        "something went wrong on purpose, or shortly before",
    );
    let across = |at: f64| LEFT + (RIGHT - LEFT) * at / soak.seconds.max(1.0);
    let bottom = 60.0 + PANEL * panels.len() as f64;
    let mut before = 0.0;
    for sample in &soak.samples {
        if !sample.calm {
            drawing.band((across(before), 60.0), (across(sample.at) - across(before), bottom - 60.0), SHADE);
        }
        before = sample.at;
    }
    for (index, (title, lines)) in panels.iter().enumerate() {
        panel(&mut drawing, soak, 60.0 + PANEL * index as f64, title, lines);
    }
    let minutes = soak.seconds / 60.0;
    for mark in 0..=6 {
        let at = soak.seconds * f64::from(mark) / 6.0;
        let text = format!("{} min", number(minutes * f64::from(mark) / 6.0));
        let anchor = if mark == 6 { Anchor::End } else { Anchor::Middle };
        drawing.text((across(at), bottom + 18.0), anchor, 11.0, FAINT, &text);
    }
    drawing.finish(&format!(
        "{title}: memory, latency and rows over the time; the table says the same in numbers."
    ))
}

fn panel(drawing: &mut Drawing, soak: &Soak, top: f64, title: &str, lines: &[(&str, &str)]) {
    let logarithmic = title.contains("logarithmic");
    let scale = if title.contains("thousands") { 1000.0 } else { 1.0 };
    let value_of = |value: f64| {
        let value = value / scale;
        if logarithmic { value.max(0.1).log10() } else { value }
    };
    let values = || {
        let samples = soak.samples.iter();
        samples.flat_map(|sample| lines.iter().filter_map(|(figure, _)| sample.get(figure))).map(value_of)
    };
    let lowest = if logarithmic { values().fold(f64::MAX, f64::min).floor() } else { 0.0 };
    let highest = values().fold(lowest, f64::max);
    let highest = if logarithmic { highest.ceil() } else { highest * 1.1 };
    let span = (highest - lowest).max(f64::MIN_POSITIVE);
    let (upper, lower) = (top + 24.0, top + PANEL - 8.0);
    let down = |value: f64| lower - (lower - upper) * (value - lowest) / span;
    let across = |at: f64| LEFT + (RIGHT - LEFT) * at / soak.seconds.max(1.0);

    let step = if logarithmic { 1.0 } else { round_step(span / 2.5) };
    let ticks = (0..).map(|count| lowest + step * f64::from(count)).take_while(|tick| *tick <= highest);
    for tick in ticks {
        drawing.line((LEFT, down(tick)), (RIGHT, down(tick)), GRID, 0.8);
        let text = number(if logarithmic { 10f64.powf(tick) } else { tick });
        drawing.text((LEFT - 6.0, down(tick) + 4.0), Anchor::End, 11.0, FAINT, &text);
    }
    drawing.bold((LEFT, top + 14.0), Anchor::Start, 13.0, INK, title);
    let mut legend = RIGHT;
    for (place, (figure, name)) in lines.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let points: Vec<_> = soak
            .samples
            .iter()
            .filter_map(|sample| Some((across(sample.at), down(value_of(sample.get(figure)?)))))
            .collect();
        drawing.path(&points, colour, DASHES[place % DASHES.len()]);
        legend -= 8.0 + 6.5 * name.len() as f64;
        drawing.text((legend, top + 14.0), Anchor::Start, 12.0, INK, name);
        drawing.path(
            &[(legend - 30.0, top + 10.0), (legend - 6.0, top + 10.0)],
            colour,
            DASHES[place % DASHES.len()],
        );
        legend -= 40.0;
    }
}

/// The largest of 1, 2, 5, 10, 20, … that is no larger.
fn round_step(step: f64) -> f64 {
    let decade = 10f64.powf(step.max(f64::MIN_POSITIVE).log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|digit| digit * decade).find(|round| *round <= step).unwrap_or(decade)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::samples::tests::soak;

    #[test]
    fn the_table_has_the_quarters_and_the_judgement() {
        let mut good = soak(|_| 50.0, |_| 7.0);
        good.judge();
        let text = table(&good);
        assert!(text.contains("| memory | 50.0 | 50.0 | 50.0 | 50.0 | 52.5 | good |"), "{text}");
        assert!(text.ends_with("Good.\n"));
        let mut bad = soak(|at| at, |_| 7.0);
        bad.verdict.lost = 3;
        bad.judge();
        let text = table(&bad);
        assert!(
            text.contains("**too much**") && text.contains("3 lost") && text.ends_with("**Not good.**\n")
        );
    }

    #[test]
    fn steps_are_round() {
        let steps = [0.07, 1.0, 24.2, 60.5, 4999.0].map(|step| number(round_step(step)));
        assert_eq!(steps, ["0.050", "1.00", "20.0", "50.0", "2000"]);
    }

    #[test]
    fn only_figures_that_were_had_have_a_panel() {
        let drawn = drawing(&soak(|_| 50.0, |_| 7.0));
        assert!(drawn.contains("Memory, MiB") && drawn.contains("Delivery on one server"));
        assert!(!drawn.contains("Queue rows"));
    }
}
