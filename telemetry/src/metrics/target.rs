//! What is scraped and how.

use super::labels::Labels;
use super::relabel::Rule;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How all targets of one job are scraped.
#[derive(Debug, Clone)]
pub struct Job {
    /// The value of the label `job`, where relabelling does not set another.
    pub name: String,
    /// Time between two scrapes.
    pub interval: Duration,
    /// How long a scrape may take; at most the interval.
    pub timeout: Duration,
    /// Labels of the target's text win over the target's own.
    pub honor_labels: bool,
    /// Times in the target's text are kept.
    pub honor_timestamps: bool,
    /// Rules for each series.
    pub metric_relabel: Vec<Rule>,
    /// Bounds; a scrape that exceeds one fails as a whole.
    pub limits: Limits,
    /// How to ask.
    pub access: Access,
}

impl Job {
    /// With Prometheus' defaults and the given rhythm.
    pub fn new(name: &str, interval: Duration) -> Self {
        Self {
            name: name.to_owned(),
            interval,
            timeout: interval.min(Duration::from_secs(10)),
            honor_labels: false,
            honor_timestamps: true,
            metric_relabel: Vec::new(),
            limits: Limits::default(),
            access: Access::default(),
        }
    }
}

/// Bounds of one scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the body, uncompressed.
    pub body_bytes: usize,
    /// Samples after relabelling.
    pub samples: usize,
    /// Labels of a series, the target's own included.
    pub labels: usize,
    /// Bytes of a label's name.
    pub name_bytes: usize,
    /// Bytes of a label's value.
    pub value_bytes: usize,
}

/// Bounds that a pod which runs wild meets; what a job says replaces them.
impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 16 << 20,
            samples: 50_000,
            labels: 64,
            name_bytes: 512,
            value_bytes: 4096,
        }
    }
}

/// What a request carries.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The value of `Authorization`.
    pub authorization: Option<String>,
    /// A server's certificate is not checked.
    pub insecure_skip_verify: bool,
    /// Certificate authorities in PEM, instead of the system's.
    pub ca: Option<Vec<u8>>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("insecure_skip_verify", &self.insecure_skip_verify)
            .finish_non_exhaustive()
    }
}

/// One thing that is scraped.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where.
    pub source: Source,
    /// What each of its series is given: `job`, `instance`, and what discovery adds.
    pub labels: Labels,
    /// How.
    pub job: Arc<Job>,
}

impl Target {
    /// Two with the same key are the same target, and one replaces the other without a gap.
    pub fn key(&self) -> (String, Labels) {
        (self.source.to_string(), self.labels.clone())
    }
}

/// Where a target's text is from.
#[derive(Clone)]
pub enum Source {
    /// A URL with scheme, host, port, path and query.
    Url(String),
    /// This process: a name for people, and what gives the text. It may block: it is called on a thread of its own.
    Own(&'static str, Arc<dyn Fn() -> String + Send + Sync>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Url(url) => f.write_str(url),
            Source::Own(name, _) => write!(f, "own:{name}"),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
