//! Samples of time series: what they are, and the record that holds several scrapes of many of them.

mod batch;
mod column;
mod decode;
mod encode;
mod histogram;
mod labels;
#[cfg(test)]
mod tests;

pub use batch::{Batch, Exemplar, Kind, Metadata, STALE, Sample, Series, is_stale, stale};
pub use decode::DecodeError;
pub use encode::TooLarge;
pub use histogram::{Buckets, Histogram, HistogramSample, Reset, Span};
pub use labels::{BadLabels, Labels, NAME};

/// Most bytes of a record before compression; a receiver refuses what claims more.
pub const MOST_BYTES: usize = 16 << 20;
/// Most samples (histograms and exemplars counted) of a record.
pub const MOST_SAMPLES: usize = 1 << 20;
/// Most bytes that the labels of all series of a record have together.
pub const MOST_LABEL_BYTES: usize = 64 << 20;
