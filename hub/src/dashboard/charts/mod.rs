//! Charts of the recent past: drawn here as SVG, without scripts, with their numbers as a table behind them.

mod draw;

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};
use model::DeviceName;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::pin::Pin;

/// How far back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Window {
    /// In steps of thirty seconds.
    #[default]
    #[serde(rename = "1h")]
    Hour,
    /// In steps of ten minutes.
    #[serde(rename = "24h")]
    Day,
    /// In steps of an hour.
    #[serde(rename = "7d")]
    Week,
}

impl Window {
    const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    fn word(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Hour => "the last hour",
            Self::Day => "the last 24 hours",
            Self::Week => "the last 7 days",
        }
    }

    /// All of it.
    pub fn length(self) -> SignedDuration {
        match self {
            Self::Hour => SignedDuration::from_hours(1),
            Self::Day => SignedDuration::from_hours(24),
            Self::Week => SignedDuration::from_hours(7 * 24),
        }
    }

    /// One point for each.
    pub fn step(self) -> SignedDuration {
        match self {
            Self::Hour => SignedDuration::from_secs(30),
            Self::Day => SignedDuration::from_mins(10),
            Self::Week => SignedDuration::from_hours(1),
        }
    }
}

/// What the numbers of a chart are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Of a hundred.
    Percent,
    /// Of memory.
    Bytes,
    /// Of a link.
    BytesPerSecond,
    /// Degrees.
    Celsius,
    /// Cores kept busy.
    Cores,
    /// Things.
    Count,
}

/// A line: its points, oldest first. Where steps are missing, nothing was measured, and the line is broken.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// What it is of.
    pub name: String,
    /// Start of a step, in seconds since 1970, and value.
    pub points: Vec<(i64, f64)>,
}

/// A chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// What it shows.
    pub title: &'static str,
    /// Its numbers.
    pub unit: Unit,
    /// The largest first; a few.
    pub lines: Vec<Line>,
}

/// Charts, or in words for people why there are none.
pub type Charts = Result<Vec<Chart>, String>;

/// Knows the recent past; the hub's history does.
pub trait ChartSource: Send + Sync + 'static {
    /// Of a device, or of the whole fleet.
    fn charts(
        &self,
        device: Option<&DeviceName>,
        window: Window,
        now: Timestamp,
    ) -> Pin<Box<dyn Future<Output = Charts> + Send + '_>>;
}

/// Which window a page is asked for.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct ChartQuery {
    #[serde(default)]
    pub window: Window,
}

/// The section of a page, `path` being the page's own.
pub(super) fn section(charts: &Charts, window: Window, now: Timestamp, path: &str) -> Markup {
    html! {
        section #charts aria-labelledby="charts-title" {
            div .charthead {
                h2 #charts-title { "Recent past" }
                nav .windows aria-label="How far back" {
                    @for one in Window::ALL {
                        a href=(format!("{path}?window={}#charts", one.word())) aria-current=[(one == window).then_some("true")]
                            aria-label=(one.words()) { (one.word()) }
                    }
                }
            }
            @match charts {
                Err(why) => p .empty { (why) },
                Ok(charts) if charts.is_empty() => p .empty { "Nothing was measured in " (window.words()) "." },
                Ok(charts) => div .charts { @for chart in charts { (draw::chart(chart, window, now)) } },
            }
        }
    }
}
