//! Samples of time series: what they are, and the record that holds several scrapes of many of them.

mod batch;
mod column;
mod decode;
pub mod discover;
mod encode;
mod histogram;
mod ingest;
mod labels;
pub mod relabel;
pub mod remote;
mod scraper;
mod target;
#[cfg(test)]
mod tests;
pub mod text;

pub use batch::{Batch, Exemplar, Kind, Metadata, STALE, Sample, Series, is_stale, stale};
pub use decode::DecodeError;
pub use encode::TooLarge;
pub use histogram::{Buckets, Histogram, HistogramSample, Reset, Span};
pub use ingest::{Counts, Ingest, ScrapeError};
pub use labels::{BadLabels, Labels, NAME};
pub use scraper::{EachSample, Scraper, Tap, Window};
pub use target::{Access, Job, Limits, Source, Target};

/// Most bytes of a record before compression; a receiver refuses what claims more.
pub const MOST_BYTES: usize = 16 << 20;
/// Most samples (histograms and exemplars counted) of a record.
pub const MOST_SAMPLES: usize = 1 << 20;
/// Most bytes that the labels of all series of a record have together.
pub const MOST_LABEL_BYTES: usize = 64 << 20;
