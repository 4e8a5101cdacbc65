//! Native histograms: exponential buckets whose bounds follow from a schema.

use std::fmt;

/// A native histogram at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSample {
    /// Milliseconds since 1970.
    pub time: i64,
    /// What was counted.
    pub histogram: Histogram,
}

/// Counts by bucket, as Prometheus' TSDB holds them.
#[derive(Clone, Default)]
pub struct Histogram {
    /// -4 to 8: each power of two is divided into 2^schema buckets; -53: the bounds are [`Histogram::bounds`].
    pub schema: i32,
    /// Whether counts are whole numbers.
    pub integral: bool,
    /// Why counts may be lower than those before.
    pub reset: Reset,
    /// All observations.
    pub count: f64,
    /// Their sum; [`super::stale`] where the series has ended.
    pub sum: f64,
    /// Up to here, on both sides, an observation counts as zero.
    pub zero_threshold: f64,
    /// Observations that count as zero.
    pub zero_count: f64,
    /// Buckets above zero.
    pub positive: Buckets,
    /// Buckets below zero.
    pub negative: Buckets,
    /// Upper bounds of the buckets above zero, with schema -53.
    pub bounds: Vec<f64>,
}

impl Histogram {
    /// Every number, for comparing bits.
    fn numbers(&self) -> impl Iterator<Item = u64> {
        let few = [self.count, self.sum, self.zero_threshold, self.zero_count];
        let lists = [&self.positive.counts, &self.negative.counts, &self.bounds];
        few.into_iter()
            .chain(lists.into_iter().flatten().copied())
            .map(f64::to_bits)
    }
}

impl PartialEq for Histogram {
    fn eq(&self, other: &Self) -> bool {
        (self.schema, self.integral, self.reset) == (other.schema, other.integral, other.reset)
            && self.positive.spans == other.positive.spans
            && self.negative.spans == other.negative.spans
            && self.bounds.len() == other.bounds.len()
            && self.numbers().eq(other.numbers())
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{{schema {}, {:?}, count {}",
            self.schema, self.reset, self.count
        )?;
        write!(f, ", sum {}, zero {}", self.sum, self.zero_count)?;
        write!(f, " within {}", self.zero_threshold)?;
        write!(f, ", above {:?}, below {:?}", self.positive, self.negative)?;
        write!(f, ", bounds {:?}}}", self.bounds)
    }
}

/// Whether counting began anew (numbered as in Prometheus' protocols).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Reset {
    /// To be found out by comparing counts.
    #[default]
    Unknown = 0,
    /// It did.
    Yes = 1,
    /// It did not.
    No = 2,
    /// A gauge histogram: the question makes no sense.
    Gauge = 3,
}

impl Reset {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Reset::Unknown, Reset::Yes, Reset::No, Reset::Gauge]
            .get(usize::from(number))
            .copied()
    }
}

/// Runs of buckets and their counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buckets {
    /// Which buckets there are.
    pub spans: Vec<Span>,
    /// One count per bucket, each for itself.
    pub counts: Vec<f64>,
}

/// A run of buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Buckets left out since the last run; for the first, its first bucket's index.
    pub offset: i32,
    /// How many buckets.
    pub length: u32,
}
