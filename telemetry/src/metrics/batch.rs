//! The nouns: series with samples, exemplars and what is known of their metric.

use super::histogram::HistogramSample;
use super::labels::Labels;
use std::fmt;
use std::sync::Arc;

/// Bits of the value that says that a series has ended (Prometheus' staleness marker).
pub const STALE: u64 = 0x7ff0_0000_0000_0002;

/// The value with which a series ends; not a number, and distinct from a NaN that an exporter gave.
pub fn stale() -> f64 {
    f64::from_bits(STALE)
}

/// Whether a value is [`stale`].
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE
}

/// One record of the `metrics` stream: what one or more scrapes gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Each series once, in any order.
    pub series: Vec<Series>,
}

impl Batch {
    /// How many samples and histograms there are.
    pub fn samples(&self) -> usize {
        let of = |series: &Series| series.samples.len() + series.histograms.len();
        self.series.iter().map(of).sum()
    }
}

/// One series with its values, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What makes it this series, the metric's name included.
    pub labels: Labels,
    /// What its target says of the metric.
    pub metadata: Option<Arc<Metadata>>,
    /// Milliseconds since 1970 when its counting began, where the target tells.
    pub created: Option<i64>,
    /// Values of a counter, gauge, or part of a classic histogram or summary.
    pub samples: Vec<Sample>,
    /// Values of a native histogram.
    pub histograms: Vec<HistogramSample>,
    /// Examples of what was counted.
    pub exemplars: Vec<Exemplar>,
}

impl Series {
    /// Without values yet.
    pub fn new(labels: Labels) -> Self {
        Self {
            labels,
            metadata: None,
            created: None,
            samples: Vec::new(),
            histograms: Vec::new(),
            exemplars: Vec::new(),
        }
    }
}

/// A value at a time.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Milliseconds since 1970.
    pub time: i64,
    /// Any bits: infinities, NaNs and [`stale`] are values.
    pub value: f64,
}

/// The same bits: a NaN equals itself, 0 is not -0.
impl PartialEq for Sample {
    fn eq(&self, other: &Self) -> bool {
        (self.time, self.value.to_bits()) == (other.time, other.value.to_bits())
    }
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_stale(self.value) {
            write!(f, "stale @{}", self.time)
        } else {
            write!(f, "{} @{}", self.value, self.time)
        }
    }
}

/// An example of what a counter or bucket counted, such as a trace's id.
#[derive(Debug, Clone)]
pub struct Exemplar {
    /// What it says; no metric's name.
    pub labels: Labels,
    /// The value that was observed.
    pub value: f64,
    /// Milliseconds since 1970, where the target tells.
    pub time: Option<i64>,
}

impl PartialEq for Exemplar {
    fn eq(&self, other: &Self) -> bool {
        let bits = self.value.to_bits() == other.value.to_bits();
        bits && (&self.labels, self.time) == (&other.labels, other.time)
    }
}

/// What a target says of a metric.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// The metric's name without suffixes such as `_total` or `_bucket`.
    pub family: String,
    /// What kind it is.
    pub kind: Kind,
    /// Such as `bytes`; empty where not told.
    pub unit: String,
    /// For people; empty where not told.
    pub help: String,
}

/// Kinds of metrics, numbered as in Remote Write 2.0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Not told.
    #[default]
    Unknown = 0,
    /// Rises, or starts over.
    Counter = 1,
    /// Goes up and down.
    Gauge = 2,
    /// Counts by bucket.
    Histogram = 3,
    /// Counts by bucket, of what is now.
    GaugeHistogram = 4,
    /// Quantiles.
    Summary = 5,
    /// Labels only; its value is 1.
    Info = 6,
    /// Which of several states is.
    StateSet = 7,
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::Unknown,
        Kind::Counter,
        Kind::Gauge,
        Kind::Histogram,
        Kind::GaugeHistogram,
        Kind::Summary,
        Kind::Info,
        Kind::StateSet,
    ];

    /// As OpenMetrics writes it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Unknown => "unknown",
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::GaugeHistogram => "gaugehistogram",
            Kind::Summary => "summary",
            Kind::Info => "info",
            Kind::StateSet => "stateset",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}
