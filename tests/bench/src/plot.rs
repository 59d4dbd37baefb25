//! The plot of a comparison: how many times better the first server is than each of the others, a row a measure, on a
//! logarithmic scale, because what is compared lies between "the same" and "a hundred times".

use crate::report::Report;
use crate::svg::{Anchor, Drawing, FAINT, GRID, INK};
use crate::table::number;

/// What is drawn: scenario, the end of a measure's label, and what the row is called. The table has everything.
const ROWS: [(&str, &[(&str, &str)]); 11] = [
    (
        "Sending, nobody reading",
        &[
            ("send/top rate", "messages a second"),
            ("send/acknowledgement p50 at half the top rate", "acknowledged at half of that, p50"),
            ("send/acknowledgement p99 at half the top rate", "acknowledged at half of that, p99"),
            ("send/server CPU at half the top rate", "CPU a message"),
            ("send/disk", "disk a message"),
        ],
    ),
    (
        "Chat in rooms of 2",
        &[
            ("chat2/ rooms: messages", "messages a second"),
            ("chat2/ rooms: delivery p50", "delivery, p50"),
            ("chat2/ rooms: delivery p99", "delivery, p99"),
        ],
    ),
    (
        "Chat in rooms of 10",
        &[
            ("chat10/ rooms: messages", "messages a second"),
            ("chat10/ rooms: delivery p50", "delivery, p50"),
            ("chat10/ rooms: delivery p99", "delivery, p99"),
            ("chat10/ rooms: server CPU", "CPU a message"),
            ("chat10/memory after", "memory"),
        ],
    ),
    (
        "Chat in rooms of 100",
        &[
            ("chat100/ rooms: messages", "messages a second"),
            ("chat100/ rooms: delivery p50", "delivery, p50"),
            ("chat100/ rooms: delivery p99", "delivery, p99"),
        ],
    ),
    (
        "Everybody talks in one room",
        &[
            ("hot-room/messages", "messages a second"),
            ("hot-room/other rooms beside it: delivery p50", "delivery in other rooms, p50"),
            ("hot-room/other rooms beside it: delivery p99", "delivery in other rooms, p99"),
        ],
    ),
    (
        "Everybody joins at once",
        &[("join-storm/joins", "joins a second"), ("join-storm/join p99", "join, p99")],
    ),
    (
        "A member of 200 rooms",
        &[
            ("sync-rooms/initial sync (median of 3), 200 rooms", "first sync"),
            ("sync-rooms/empty sync p50, 200 rooms", "sync without news, p50"),
            ("sync-rooms/one-message sync p50, 200 rooms", "sync with one message, p50"),
        ],
    ),
    (
        "Rooms with a past",
        &[
            ("old-room/state at any point p50", "state at any point, p50"),
            ("long-room/page of 100 back, any depth, p50", "page of 100 messages, p50"),
        ],
    ),
    ("Clients that wait", &[("idle/memory a long-poll", "memory a long-poll")]),
    (
        "Two servers that federate",
        &[
            ("pair/ flooded: messages", "messages a second"),
            ("pair/one room: delivery p50", "delivery, one at a time, p50"),
            ("pair/ flooded: server CPU", "CPU a message, both servers"),
        ],
    ),
    (
        "Start",
        &[("start/first answer (median)", "until the first answer"), ("start/memory then", "memory then")],
    ),
];

const WIDTH: f64 = 860.0;
const ROW: f64 = 20.0;
const LEFT: f64 = 264.0;
const TOP: f64 = 96.0;
/// Of the numbers of one series.
const COLUMN: f64 = 58.0;

struct Row {
    label: &'static str,
    /// Of each of the other reports.
    ratios: Vec<Option<f64>>,
}

/// `None` where there is nothing to compare.
pub(crate) fn of(reports: &[Report]) -> Option<String> {
    let (first, others) = reports.split_first()?;
    let groups: Vec<(&str, Vec<Row>)> = ROWS
        .iter()
        .map(|(title, rows)| {
            (*title, rows.iter().filter_map(|row| find(first, others, row)).collect::<Vec<_>>())
        })
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
    let ratios =
        || groups.iter().flat_map(|(_, rows)| rows).flat_map(|row| row.ratios.iter().flatten().copied());
    ratios().next()?;
    // Whole decades, with 1 among them.
    let lowest = ratios().fold(1.0, f64::min).log10().floor();
    let highest = ratios().fold(10.0, f64::max).log10().ceil();
    let right = WIDTH - 24.0 - COLUMN * others.len() as f64;
    let place = |ratio: f64| LEFT + (right - LEFT) * (ratio.log10() - lowest) / (highest - lowest);

    let lines: usize = groups.iter().map(|(_, rows)| rows.len() + 1).sum();
    let bottom = TOP + ROW * lines as f64 + 6.0;
    let mut drawing = Drawing::new(WIDTH, bottom + 40.0);
    let title = format!("How many times better {} is", first.name);
    drawing.bold((16.0, 28.0), Anchor::Start, 17.0, INK, &title);
    let mut x = 16.0;
    for (series, other) in others.iter().enumerate() {
        drawing.marker((x + 6.0, 50.0), series);
        let text = format!("than {}", other.name);
        drawing.text((x + 18.0, 54.0), Anchor::Start, 13.0, INK, &text);
        x += 40.0 + 7.2 * text.len() as f64;
    }
    for decade in lowest as i32..=highest as i32 {
        let ratio = 10f64.powi(decade);
        let x = place(ratio);
        let (colour, width) = if decade == 0 { (INK, 1.5) } else { (GRID, 1.0) };
        drawing.line((x, TOP - 6.0), (x, bottom), colour, width);
        for y in [TOP - 12.0, bottom + 16.0] {
            drawing.text((x, y), Anchor::Middle, 12.0, FAINT, &format!("{ratio}×"));
        }
    }
    drawing.text((place(1.0), bottom + 32.0), Anchor::Middle, 11.0, FAINT, "the same");
    let column = |series: usize| WIDTH - 14.0 - COLUMN * (others.len() - 1 - series) as f64;
    for series in 0..others.len() {
        drawing.marker((column(series) - 16.0, TOP - 16.0), series);
    }
    let mut y = TOP;
    for (title, rows) in &groups {
        y += ROW;
        drawing.bold((16.0, y), Anchor::Start, 13.0, INK, title);
        for row in rows {
            y += ROW;
            drawing.text((28.0, y), Anchor::Start, 13.0, INK, row.label);
            drawing.line((LEFT, y - 4.0), (right, y - 4.0), GRID, 0.5);
            for (series, ratio) in row.ratios.iter().enumerate() {
                if let Some(ratio) = ratio {
                    drawing.marker((place(*ratio), y - 4.0), series);
                }
                let text = ratio.map_or_else(|| "–".to_owned(), |ratio| number(ratio) + "×");
                drawing.text((column(series), y), Anchor::End, 12.0, FAINT, &text);
            }
        }
    }
    let others: Vec<_> = others.iter().map(|other| other.name.as_str()).collect();
    Some(
        drawing
            .finish(&format!("{title} than {}; the figures are those of the table.", others.join(" and "))),
    )
}

fn find(first: &Report, others: &[Report], (what, label): &(&str, &'static str)) -> Option<Row> {
    let (scenario, end) = what.split_once('/')?;
    let ours =
        first.measures.iter().find(|measure| measure.scenario == scenario && measure.label.ends_with(end))?;
    let ratio = |other: &Report| ours.times_better(other.find(scenario, &ours.label)?);
    let ratios: Vec<_> = others.iter().map(ratio).collect();
    ratios.iter().any(Option::is_some).then_some(Row { label, ratios })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Better;

    fn report(name: &str, rate: f64, start: f64) -> Report {
        let mut report = Report::new(name.to_owned(), String::new());
        report.add("chat10", "one room: messages", "/s", Better::Higher, 7.0);
        report.add("chat10", "8 rooms: messages", "/s", Better::Higher, rate);
        report.add("start", "first answer (median)", "ms", Better::Lower, start);
        report
    }

    #[test]
    fn each_ratio_is_a_marker_and_a_number() {
        let drawn = of(&[report("a", 300.0, 10.0), report("b", 3.0, 5.0), report("c", 30.0, 20.0)]).unwrap();
        assert!(
            [">100×<", ">10.0×<", ">0.50×<", ">2.00×<"].iter().all(|ratio| drawn.contains(ratio)),
            "{drawn}"
        );
        // Two rows, the legend, and the head of the numbers.
        assert_eq!(drawn.matches("<circle").count(), 4);
        assert_eq!(drawn.matches("l6 6l-6 6").count(), 4);
        // From a tenth, since something is worse, to a hundred.
        assert!([0.1, 1.0, 10.0, 100.0].iter().all(|ratio| drawn.contains(&format!(">{ratio}×<"))));
    }

    #[test]
    fn one_server_alone_has_no_plot() {
        assert!(of(&[report("a", 1.0, 1.0)]).is_none());
        assert!(of(&[]).is_none());
    }
}
