//! One chart: axes, lines broken where nothing was measured, a legend, and the numbers as a table.

use super::{Chart, Line, Unit, Window};
use crate::dashboard::parts;
use jiff::Timestamp;
use maud::{Markup, PreEscaped, html};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Of the drawing; the page scales it.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 150.0;
/// Room for the numbers at the left and the times below.
const LEFT: f64 = 52.0;
const BELOW: f64 = 20.0;
const ABOVE: f64 = 8.0;
/// Rows of the table behind a chart.
const ROWS: usize = 48;

pub(super) fn chart(chart: &Chart, window: Window, now: Timestamp) -> Markup {
    let frame = Frame::of(chart, window, now);
    let id = slug(chart.title);
    let says = says(chart, window);
    html! {
        figure .chart {
            figcaption { (chart.title) " " span .muted { (now_of(chart)) } }
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-labelledby=(format!("{id}-title {id}-desc")) {
                title id=(format!("{id}-title")) { (chart.title) " over " (window.words()) }
                desc id=(format!("{id}-desc")) { (says) }
                @for value in frame.marks() {
                    line .rule x1=(LEFT) x2=(WIDTH) y1=(place(frame.y(value))) y2=(place(frame.y(value))) {}
                    text .axis x=(LEFT - 6.0) y=(place(frame.y(value) + 4.0)) text-anchor="end" { (number(value, chart.unit)) }
                }
                @for (at, word) in frame.times(window) {
                    text .axis x=(place(at)) y=(HEIGHT - 4.0) text-anchor="middle" { (word) }
                }
                @for (index, line) in chart.lines.iter().enumerate() {
                    path class=(format!("line line-{index}")) d=(frame.path(line, window)) {}
                }
            }
            @if chart.lines.len() > 1 {
                ul .legend {
                    @for (index, line) in chart.lines.iter().enumerate() {
                        li { span class=(format!("swatch line-{index}")) aria-hidden="true" {} (line.name) }
                    }
                }
            }
            details { summary { "Numbers" } (parts::scrolling(&format!("{}: numbers", chart.title), &table(chart))) }
        }
    }
}

/// Where values and times are drawn.
struct Frame {
    from: f64,
    to: f64,
    top: f64,
}

impl Frame {
    fn of(chart: &Chart, window: Window, now: Timestamp) -> Self {
        let to = now.as_second() as f64;
        let values = chart
            .lines
            .iter()
            .flat_map(|line| &line.points)
            .map(|(_, value)| *value);
        let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        let top = match chart.unit {
            Unit::Percent => 100.0,
            unit => round_up(most, unit),
        };
        Self {
            from: to - window.length().as_secs_f64(),
            to,
            top,
        }
    }

    fn x(&self, second: f64) -> f64 {
        LEFT + (second - self.from) / (self.to - self.from) * (WIDTH - LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value / self.top).clamp(0.0, 1.0);
        ABOVE + (1.0 - share) * (HEIGHT - ABOVE - BELOW)
    }

    fn marks(&self) -> [f64; 3] {
        [0.0, self.top / 2.0, self.top]
    }

    /// Three times, in UTC as everything here.
    fn times(&self, window: Window) -> Vec<(f64, String)> {
        let form = if window == Window::Week { "%d %b" } else { "%H:%M" };
        [0.12, 0.5, 0.88]
            .into_iter()
            .filter_map(|share| {
                let second = self.from + share * (self.to - self.from);
                let at = Timestamp::from_second(second as i64).ok()?;
                let word = at.strftime(form).to_string();
                Some((self.x(second), word))
            })
            .collect()
    }

    /// A step that was not measured begins a new piece; one that stands alone is drawn as a dot.
    fn path(&self, line: &Line, window: Window) -> String {
        let step = window.step().as_secs();
        let mut path = String::new();
        let mut before: Option<i64> = None;
        for &(second, value) in line.points.iter().filter(|(_, value)| value.is_finite()) {
            let joined = before.is_some_and(|before| second - before <= step);
            let pen = if joined { 'L' } else { 'M' };
            let (x, y) = (self.x(second as f64), self.y(value));
            // Writing into a String does not fail.
            let _ = write!(path, "{pen}{x:.1} {y:.1}");
            if !joined {
                let _ = write!(path, "h0.1");
            }
            before = Some(second);
        }
        path
    }
}

fn place(at: f64) -> PreEscaped<String> {
    PreEscaped(format!("{at:.1}"))
}

/// To a number that is quickly read: 1, 2 or 5 times a power of ten, or of two for bytes.
fn round_up(most: f64, unit: Unit) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    if matches!(unit, Unit::Bytes | Unit::BytesPerSecond) {
        return most.log2().ceil().exp2();
    }
    let power = 10_f64.powf(most.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|bound| *bound >= most)
        .unwrap_or(most)
}

fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Percent => format!("{value:.0} %"),
        Unit::Bytes => parts::bytes(value as u64),
        Unit::BytesPerSecond => format!("{}/s", parts::bytes(value as u64)),
        Unit::Celsius => format!("{value:.0} °C"),
        Unit::Cores if value < 10.0 => format!("{value:.2}"),
        Unit::Cores | Unit::Count => format!("{value:.0}"),
    }
}

/// The newest value of the first line.
fn now_of(chart: &Chart) -> String {
    let newest = chart.lines.first().and_then(|line| line.points.last());
    newest.map_or_else(String::new, |(_, value)| number(*value, chart.unit))
}

/// What who does not see it is told.
fn says(chart: &Chart, window: Window) -> String {
    let of = |line: &Line| {
        let values = || {
            line.points
                .iter()
                .map(|(_, value)| *value)
                .filter(|value| value.is_finite())
        };
        let count = values().count().max(1);
        let mean = values().sum::<f64>() / count as f64;
        let most = values().fold(f64::NEG_INFINITY, f64::max);
        let steps = window.length().as_secs() / window.step().as_secs();
        let measured = 100 * values().count() as i64 / steps.max(1);
        format!(
            "{}: on average {}, at most {}; measured in {measured} % of the time.",
            line.name,
            number(mean, chart.unit),
            number(most, chart.unit)
        )
    };
    chart.lines.iter().map(of).collect::<Vec<_>>().join(" ")
}

fn table(chart: &Chart) -> Markup {
    let times: BTreeSet<i64> = chart
        .lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|(second, _)| *second)
        .collect();
    let value = |line: &Line, second: i64| {
        line.points
            .iter()
            .find(|(at, _)| *at == second)
            .map(|(_, value)| *value)
    };
    html! {
        table {
            caption .hidden { (chart.title) }
            thead { tr { th scope="col" { "Time" } @for line in &chart.lines { th scope="col" .number { (line.name) } } } }
            tbody {
                @for second in times.iter().rev().take(ROWS) {
                    tr {
                        th scope="row" { @if let Ok(at) = Timestamp::from_second(*second) { (parts::when(at)) } }
                        @for line in &chart.lines {
                            td .number { @match value(line, *second) { Some(value) => (number(value, chart.unit)), None => "–" } }
                        }
                    }
                }
            }
        }
    }
}

fn slug(title: &str) -> String {
    let letter = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    format!("chart-{}", title.chars().map(letter).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_broken_where_nothing_was_measured() {
        let now = Timestamp::from_second(100_000).unwrap();
        let start = 100_000 - 3_600;
        let points = [0, 30, 60, 600, 630].map(|at| (start + at, 50.0)).to_vec();
        let line = Line {
            name: "cpu".into(),
            points,
        };
        let one = Chart {
            title: "CPU",
            unit: Unit::Percent,
            lines: vec![line],
        };
        let frame = Frame::of(&one, Window::Hour, now);
        let path = frame.path(&one.lines[0], Window::Hour);
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert_eq!(path.matches('L').count(), 3, "{path}");
        assert!(path.starts_with("M52.0 69.0"), "{path}");
        let drawn = chart(&one, Window::Hour, now).into_string();
        assert!(
            drawn.contains("cpu: on average 50 %, at most 50 %; measured in 4 % of the time."),
            "{drawn}"
        );
    }

    #[test]
    fn axes_end_at_numbers_that_are_quickly_read() {
        let ends = [0.0, 0.3, 7.0, 43.0, 51.0].map(|most| round_up(most, Unit::Celsius));
        assert!(
            ends.iter()
                .zip([1.0, 0.5, 10.0, 50.0, 100.0])
                .all(|(a, b)| (a - b).abs() < 1e-9),
            "{ends:?}"
        );
        assert!((round_up(700.0 * 1024.0, Unit::Bytes) - 1024.0 * 1024.0).abs() < 1e-9);
    }
}
