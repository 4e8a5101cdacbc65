//! One target's series over time: what a scrape's text adds to them, and when they end.

#[cfg(test)]
mod tests;

use super::labels::{BadLabels, Labels, NAME};
use super::relabel::{LabelMap, relabel};
use super::scraper::EachSample;
use super::target::{Limits, Target};
use super::text::{Entry, Format, Line, ParseError, Parser, labels as labels_of};
use super::{Batch, Exemplar, Metadata, Sample, Series, stale};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Suffixes that a metric's samples have beside its own name.
const SUFFIXES: [&str; 8] = [
    "_total", "_bucket", "_count", "_sum", "_created", "_info", "_gcount", "_gsum",
];

/// Metrics whose metadata is remembered; a target that has more makes up new ones.
const MOST_FAMILIES: usize = 20_000;

/// Why a scrape counts as failed. Nothing of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScrapeError {
    /// The text is not of its format.
    #[error(transparent)]
    Text(#[from] ParseError),
    /// A series has labels that cannot be.
    #[error("series {series}: {source}")]
    Labels {
        /// As the target wrote it.
        series: String,
        /// What is wrong.
        source: BadLabels,
    },
    /// A bound of the job.
    #[error("{what} is {found}, more than the job's limit of {most}")]
    Limit {
        /// Which.
        what: String,
        /// What there is.
        found: usize,
        /// The bound.
        most: usize,
    },
    /// The target gave no text.
    #[error("{0}")]
    Fetch(String),
}

/// What a scrape did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples in the text.
    pub scraped: usize,
    /// Of these, those that relabelling left.
    pub kept: usize,
    /// Series that were not there before.
    pub added: usize,
}

/// A series between scrapes.
#[derive(Debug)]
struct Held {
    text: Arc<str>,
    series: Series,
    /// The last scrape that had it.
    seen: u64,
    /// What this was, and how much was gathered, before the present scrape: a failed one is taken back.
    before: (u64, usize, usize),
    /// Of its samples, those that a tap has had.
    tapped: usize,
    /// It has its own times: its end is not marked.
    own_times: bool,
    /// Its end is marked; forgotten once that is handed out.
    ended: bool,
}

#[derive(Debug, Clone, Copy)]
enum Known {
    /// Left out by relabelling; the last scrape that had it.
    Dropped(u64),
    At(usize),
}

/// A target's series, and what was gathered of them since the last [`Ingest::drain`].
#[derive(Debug)]
pub struct Ingest {
    target: Arc<Target>,
    known: HashMap<Arc<str>, Known>,
    held: Vec<Option<Held>>,
    free: Vec<usize>,
    families: HashMap<Box<str>, Arc<Metadata>>,
    reports: Vec<Series>,
    /// Of each report's samples, those that a tap has had.
    reports_tapped: usize,
    scrape: u64,
    pending: usize,
}

impl Ingest {
    /// Knows nothing yet.
    pub fn new(target: Arc<Target>) -> Self {
        let report = |name: &str| {
            let own = target.labels.iter().filter(|(label, _)| *label != NAME);
            // The target's labels are labels; a name is added that they do not have.
            let labels = Labels::new(own.chain([(NAME, name)])).unwrap_or_else(|_| target.labels.clone());
            Series::new(labels)
        };
        let reports = [
            "up",
            "scrape_duration_seconds",
            "scrape_samples_scraped",
            "scrape_samples_post_metric_relabeling",
            "scrape_series_added",
        ];
        Self {
            reports: reports.map(report).to_vec(),
            target,
            known: HashMap::new(),
            held: Vec::new(),
            free: Vec::new(),
            families: HashMap::new(),
            reports_tapped: 0,
            scrape: 0,
            pending: 0,
        }
    }

    /// The target.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Samples gathered since the last [`Ingest::drain`].
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Takes what a scrape gave, or that it failed, at a time in milliseconds since 1970.
    ///
    /// # Errors
    /// Where the text cannot be taken: then the target counts as down, and its series end.
    pub fn take(
        &mut self,
        answer: Result<(&[u8], Format), ScrapeError>,
        time: i64,
        took: Duration,
    ) -> Result<Counts, ScrapeError> {
        self.scrape += 1;
        let taken = answer.and_then(|(body, format)| {
            let taken = self.lines(body, format, time);
            if taken.is_err() {
                self.undo();
            }
            taken
        });
        self.mark_ends(time, taken.is_err());
        let counts = taken.as_ref().copied().unwrap_or_default();
        let up = if taken.is_ok() { 1.0 } else { 0.0 };
        // Counts of lines in memory: exact.
        let values = [
            up,
            took.as_secs_f64(),
            counts.scraped as f64,
            counts.kept as f64,
            counts.added as f64,
        ];
        for (report, value) in self.reports.iter_mut().zip(values) {
            report.samples.push(Sample { time, value });
        }
        self.pending += self.reports.len();
        taken
    }

    /// The target is no more: everything ends.
    pub fn end(&mut self, time: i64) {
        self.scrape += 1;
        self.mark_ends(time, true);
        for report in &mut self.reports {
            report.samples.push(Sample { time, value: stale() });
        }
        self.pending += self.reports.len();
    }

    /// Calls `of` for each sample that was gathered since the last call, in order of time within a series.
    pub fn tap(&mut self, of: EachSample<'_>) {
        for held in self.held.iter_mut().flatten() {
            let samples = &held.series.samples;
            for sample in samples.iter().skip(held.tapped) {
                of(&held.series.labels, *sample);
            }
            held.tapped = samples.len();
        }
        let already = self.reports_tapped;
        for report in &self.reports {
            for sample in report.samples.iter().skip(already) {
                of(&report.labels, *sample);
            }
            self.reports_tapped = report.samples.len();
        }
    }

    /// Moves all that was gathered into a batch.
    pub fn drain(&mut self, batch: &mut Batch) {
        for (index, slot) in self.held.iter_mut().enumerate() {
            let Some(held) = slot else { continue };
            hand_out(&mut held.series, batch);
            held.tapped = 0;
            if held.ended {
                self.known.remove(&held.text);
                *slot = None;
                self.free.push(index);
            }
        }
        for report in &mut self.reports {
            hand_out(report, batch);
        }
        self.reports_tapped = 0;
        self.pending = 0;
        let last = self.scrape;
        self.known.retain(|_, known| match known {
            Known::At(_) => true,
            Known::Dropped(seen) => *seen == last,
        });
        if self.families.len() > MOST_FAMILIES {
            self.families.clear();
        }
    }

    fn lines(&mut self, body: &[u8], format: Format, time: i64) -> Result<Counts, ScrapeError> {
        let mut parser = Parser::new(body, format)?;
        let mut counts = Counts::default();
        while let Some(entry) = parser.next()? {
            match entry {
                Entry::Sample(line) => self.line(&line, time, &mut counts)?,
                Entry::Type(family, kind) => self.told(&family, |held| held.kind = kind),
                Entry::Help(family, help) => self.told(&family, |held| {
                    if held.help != help {
                        held.help = help.into_owned();
                    }
                }),
                Entry::Unit(family, unit) => self.told(&family, |held| {
                    if held.unit != unit {
                        held.unit = unit.to_owned();
                    }
                }),
            }
        }
        Ok(counts)
    }

    fn line(&mut self, line: &Line<'_>, time: i64, counts: &mut Counts) -> Result<(), ScrapeError> {
        counts.scraped += 1;
        let index = match self.known.get_mut(line.series) {
            Some(Known::At(index)) => *index,
            Some(Known::Dropped(seen)) => {
                *seen = self.scrape;
                return Ok(());
            }
            None => match self.meet(line.series)? {
                Some(index) => {
                    counts.added += 1;
                    index
                }
                None => return Ok(()),
            },
        };
        let scrape = self.scrape;
        let Some(held) = self.held[index].as_mut() else {
            return Ok(());
        };
        let own_time = line.time.filter(|_| self.target.job.honor_timestamps);
        let again = held.seen == scrape;
        if again && own_time.is_none_or(|own| held.series.samples.last().is_some_and(|last| own <= last.time))
        {
            // Said twice: the first counts.
            return Ok(());
        }
        counts.kept += 1;
        let most = self.target.job.limits.samples;
        if counts.kept > most {
            return Err(limit("the number of samples", counts.kept, most));
        }
        if !again {
            held.before = (held.seen, held.series.samples.len(), held.series.exemplars.len());
        }
        held.seen = scrape;
        held.ended = false;
        held.own_times = own_time.is_some();
        let sample = Sample {
            time: own_time.unwrap_or(time),
            value: line.value,
        };
        // With own times the same sample is offered again and again.
        let repeated = own_time.is_some() && held.series.samples.last() == Some(&sample);
        if !repeated {
            held.series.samples.push(sample);
            self.pending += 1;
        }
        if let Some(text) = line.exemplar {
            let found = labels_of(text.labels);
            let labels = Labels::new(found.iter().map(|(n, v)| (&**n, &**v))).map_err(|source| {
                ScrapeError::Labels {
                    series: line.series.to_owned(),
                    source,
                }
            })?;
            let exemplar = Exemplar {
                labels,
                value: text.value,
                time: text.time,
            };
            // It stays until another one comes.
            if held.series.exemplars.last() != Some(&exemplar) {
                held.series.exemplars.push(exemplar);
            }
        }
        Ok(())
    }

    /// A series' text for the first time.
    fn meet(&mut self, text: &str) -> Result<Option<usize>, ScrapeError> {
        let key: Arc<str> = text.into();
        let Some(labels) = self.final_labels(text)? else {
            self.known.insert(key, Known::Dropped(self.scrape));
            return Ok(None);
        };
        let mut series = Series::new(labels);
        series.metadata = self.metadata_of(series.labels.name());
        let held = Held {
            text: Arc::clone(&key),
            series,
            seen: 0,
            before: (0, 0, 0),
            tapped: 0,
            own_times: false,
            ended: false,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.held[index] = Some(held);
                index
            }
            None => {
                self.held.push(Some(held));
                self.held.len() - 1
            }
        };
        self.known.insert(key, Known::At(index));
        Ok(Some(index))
    }

    /// The target's labels and the text's together, relabelled; `None` where that leaves the series out.
    fn final_labels(&self, text: &str) -> Result<Option<Labels>, ScrapeError> {
        let job = &self.target.job;
        let bad = |source| ScrapeError::Labels {
            series: text.to_owned(),
            source,
        };
        let said = labels_of(text);
        Labels::new(said.iter().map(|(n, v)| (&**n, &**v))).map_err(bad)?;
        let mut labels: LabelMap = said
            .into_iter()
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        for (name, value) in self.target.labels.iter() {
            let says = labels.get(name).is_some_and(|said| !said.is_empty());
            if says && job.honor_labels {
                continue;
            }
            if says && let Some(said) = labels.remove(name) {
                let mut moved = format!("exported_{name}");
                while labels.contains_key(&moved) {
                    moved.insert_str(0, "exported_");
                }
                labels.insert(moved, said);
            }
            labels.insert(name.to_owned(), value.to_owned());
        }
        if !relabel(&job.metric_relabel, &mut labels) || !labels.contains_key(NAME) {
            return Ok(None);
        }
        check_limits(&labels, &job.limits)?;
        let labels = Labels::new(labels.iter().map(|(n, v)| (n.as_str(), v.as_str()))).map_err(bad)?;
        Ok(Some(labels))
    }

    fn metadata_of(&self, name: &str) -> Option<Arc<Metadata>> {
        let stems = SUFFIXES.iter().filter_map(|suffix| name.strip_suffix(suffix));
        let mut names = std::iter::once(name).chain(stems);
        names.find_map(|name| self.families.get(name).cloned())
    }

    /// Takes note of what a target says of a metric. It says the same at each scrape.
    fn told(&mut self, family: &str, change: impl FnOnce(&mut Metadata)) {
        let Some(held) = self.families.get_mut(family) else {
            let mut metadata = Metadata {
                family: family.to_owned(),
                ..Metadata::default()
            };
            change(&mut metadata);
            self.families.insert(family.into(), Arc::new(metadata));
            return;
        };
        let before = Arc::clone(held);
        let mut now = Metadata::clone(held);
        change(&mut now);
        if now == *before {
            return;
        }
        let now = Arc::new(now);
        *held = Arc::clone(&now);
        let of_it = |series: &&mut Series| series.metadata.as_ref() == Some(&before);
        let all = self.held.iter_mut().flatten().map(|held| &mut held.series);
        for series in all.filter(of_it) {
            series.metadata = Some(Arc::clone(&now));
        }
    }

    /// Takes back what a scrape that failed in its middle has given.
    fn undo(&mut self) {
        for held in self.held.iter_mut().flatten() {
            if held.seen == self.scrape {
                let (seen, samples, exemplars) = held.before;
                self.pending -= held.series.samples.len() - samples;
                held.series.samples.truncate(samples);
                held.series.exemplars.truncate(exemplars);
                held.seen = seen;
            }
        }
    }

    /// Ends series that the last scrape did not have.
    fn mark_ends(&mut self, time: i64, all: bool) {
        for held in self.held.iter_mut().flatten() {
            if held.ended || (held.seen == self.scrape && !all) {
                continue;
            }
            held.ended = true;
            if !held.own_times && held.seen != 0 {
                held.series.samples.push(Sample { time, value: stale() });
                self.pending += 1;
            }
        }
    }
}

fn limit(what: &str, found: usize, most: usize) -> ScrapeError {
    ScrapeError::Limit {
        what: what.to_owned(),
        found,
        most,
    }
}

fn check_limits(labels: &LabelMap, limits: &Limits) -> Result<(), ScrapeError> {
    if labels.len() > limits.labels {
        return Err(limit("the number of labels", labels.len(), limits.labels));
    }
    for (name, value) in labels {
        if name.len() > limits.name_bytes {
            return Err(limit(
                "the length of a label's name",
                name.len(),
                limits.name_bytes,
            ));
        }
        if value.len() > limits.value_bytes {
            let what = format!("the length of label {name}'s value");
            return Err(limit(&what, value.len(), limits.value_bytes));
        }
    }
    Ok(())
}

fn hand_out(series: &mut Series, batch: &mut Batch) {
    if series.samples.is_empty() && series.exemplars.is_empty() {
        return;
    }
    let room = series.samples.len();
    batch.series.push(Series {
        labels: series.labels.clone(),
        metadata: series.metadata.clone(),
        created: series.created,
        samples: std::mem::replace(&mut series.samples, Vec::with_capacity(room)),
        histograms: Vec::new(),
        exemplars: std::mem::take(&mut series.exemplars),
    });
}
