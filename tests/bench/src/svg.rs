//! Just enough SVG to draw a plot: lines, text and markers that differ in shape, since colour alone tells nobody everything.

use std::fmt::Write;

pub(crate) const INK: &str = "#1f2328";
pub(crate) const FAINT: &str = "#59636e";
pub(crate) const GRID: &str = "#d1d9e0";
/// Dark blue and orange: far apart for every kind of sight, and in print.
pub(crate) const COLOURS: [&str; 4] = ["#0a3069", "#bc4c00", "#1a7f37", "#6639ba"];

pub(crate) struct Drawing {
    width: f64,
    height: f64,
    elements: String,
}

#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Drawing {
    pub(crate) fn new(width: f64, height: f64) -> Self {
        Self { width, height, elements: String::new() }
    }

    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        let _ = writeln!(
            self.elements,
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{colour}" stroke-width="{width}"/>"#,
            from.0, from.1, to.0, to.1
        );
    }

    /// `dashes` as SVG has them; empty for a whole line.
    pub(crate) fn path(&mut self, points: &[(f64, f64)], colour: &str, dashes: &str) {
        let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            self.elements,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="1.5" stroke-dasharray="{dashes}"/>"#,
            points.join(" ")
        );
    }

    pub(crate) fn band(&mut self, from: (f64, f64), size: (f64, f64), colour: &str) {
        let _ = writeln!(
            self.elements,
            r#"<rect x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}" fill="{colour}"/>"#,
            from.0, from.1, size.0, size.1
        );
    }

    pub(crate) fn text(&mut self, at: (f64, f64), anchor: Anchor, size: f64, colour: &str, text: &str) {
        self.styled(at, anchor, size, colour, "normal", text);
    }

    pub(crate) fn bold(&mut self, at: (f64, f64), anchor: Anchor, size: f64, colour: &str, text: &str) {
        self.styled(at, anchor, size, colour, "600", text);
    }

    fn styled(&mut self, at: (f64, f64), anchor: Anchor, size: f64, colour: &str, weight: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.elements,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{colour}">{}</text>"#,
            at.0,
            at.1,
            escaped(text)
        );
    }

    /// The marker of the `series`th series: disc, diamond, square, triangle; the second and the fourth are hollow, so that what
    /// lies below them is seen.
    pub(crate) fn marker(&mut self, (x, y): (f64, f64), series: usize) {
        let colour = COLOURS[series % COLOURS.len()];
        let fill = if series.is_multiple_of(2) { colour } else { "none" };
        let style = format!(r#"fill="{fill}" stroke="{colour}" stroke-width="1.8""#);
        let _ = match series % 4 {
            0 => writeln!(self.elements, r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" {style}/>"#),
            1 => writeln!(self.elements, r#"<path d="M{x:.1} {:.1}l6 6l-6 6l-6 -6z" {style}/>"#, y - 6.0),
            2 => writeln!(
                self.elements,
                r#"<rect x="{:.1}" y="{:.1}" width="8" height="8" {style}/>"#,
                x - 4.0,
                y - 4.0
            ),
            _ => writeln!(self.elements, r#"<path d="M{x:.1} {:.1}l5 9l-10 0z" {style}/>"#, y - 5.0),
        };
    }

    /// The whole file. `title` is read aloud in place of the drawing.
    pub(crate) fn finish(self, title: &str) -> String {
        let Self { width, height, elements } = self;
        let title = escaped(title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\" font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, \
             sans-serif\">\n<title>{title}</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
             {elements}</svg>\n"
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
