//! Series as the body of a request.

use super::proto::Message;
use crate::metrics::{Buckets, Exemplar, HistogramSample, Labels, Metadata, Series};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `prometheus.WriteRequest`: every receiver takes it.
    V1,
    /// `io.prometheus.write.v2.Request`: texts once, metadata with each series, answers with counts.
    V2,
}

impl Version {
    /// Value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Version::V1 => "application/x-protobuf",
            Version::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        }
    }

    /// Value of `X-Prometheus-Remote-Write-Version`.
    pub fn header(self) -> &'static str {
        match self {
            Version::V1 => "0.1.0",
            Version::V2 => "2.0.0",
        }
    }
}

/// A request's body, snappy-compressed. `extra` are labels that every series gets where it has none of that name;
/// `metadata` says whether form 1.0 tells of the metrics too (2.0 always does).
pub fn request(version: Version, series: &[Series], extra: &[(String, String)], metadata: bool) -> Vec<u8> {
    let plain = match version {
        Version::V1 => v1(series, extra, metadata),
        Version::V2 => v2(series, extra),
    };
    // Its only error is a length beyond 4 GiB, far above what a record holds.
    snap::raw::Encoder::new().compress_vec(&plain).unwrap_or_default()
}

/// All labels by name, as receivers want them.
fn labels<'a>(own: &'a Labels, extra: &'a [(String, String)], out: &mut Vec<(&'a str, &'a str)>) {
    out.clear();
    out.extend(own.iter());
    for (name, value) in extra {
        if own.get(name).is_none() {
            out.push((name, value));
        }
    }
    if !extra.is_empty() {
        out.sort_unstable();
    }
}

fn v1(series: &[Series], extra: &[(String, String)], metadata: bool) -> Vec<u8> {
    let mut out = Message::default();
    let (mut one, mut part, mut deep) = Default::default();
    let mut pairs = Vec::new();
    for held in series {
        labels(&held.labels, extra, &mut pairs);
        out.message(1, &mut one, |one| {
            v1_labels(one, &mut part, &pairs);
            for sample in &held.samples {
                one.message(2, &mut part, |part| {
                    part.double(1, sample.value);
                    part.int(2, sample.time);
                });
            }
            for exemplar in &held.exemplars {
                let pairs: Vec<_> = exemplar.labels.iter().collect();
                one.message(3, &mut part, |part| {
                    v1_labels(part, &mut deep, &pairs);
                    part.double(2, exemplar.value);
                    part.int(3, time_of(exemplar, held));
                });
            }
            for sample in &held.histograms {
                one.message(4, &mut part, |part| histogram(part, &mut deep, sample));
            }
        });
    }
    if metadata {
        let told: BTreeMap<&str, &Arc<Metadata>> = series
            .iter()
            .filter_map(|one| one.metadata.as_ref())
            .map(|metadata| (metadata.family.as_str(), metadata))
            .collect();
        for held in told.values() {
            out.message(3, &mut part, |part| {
                part.number(1, held.kind as u64);
                part.text(2, &held.family);
                part.text(4, &held.help);
                part.text(5, &held.unit);
            });
        }
    }
    out.0
}

fn v1_labels(out: &mut Message, scratch: &mut Message, pairs: &[(&str, &str)]) {
    for (name, value) in pairs {
        out.message(1, scratch, |label| {
            label.text(1, name);
            label.text(2, value);
        });
    }
}

/// An exemplar without a time is as old as the newest sample.
fn time_of(exemplar: &Exemplar, series: &Series) -> i64 {
    let newest = series.samples.last().map_or(0, |sample| sample.time);
    exemplar.time.unwrap_or(newest)
}

/// Texts of a request, each once; the first is empty.
struct Symbols<'a> {
    list: Vec<&'a str>,
    index: HashMap<&'a str, u64>,
}

impl<'a> Symbols<'a> {
    fn of(&mut self, text: &'a str) -> u64 {
        let next = self.list.len() as u64;
        let index = *self.index.entry(text).or_insert(next);
        if index == next {
            self.list.push(text);
        }
        index
    }

    fn pairs(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<u64> {
        pairs
            .flat_map(|(name, value)| [self.of(name), self.of(value)])
            .collect()
    }
}

fn v2(series: &[Series], extra: &[(String, String)]) -> Vec<u8> {
    let mut symbols = Symbols {
        list: vec![""],
        index: HashMap::from([("", 0)]),
    };
    let mut body = Message::default();
    let (mut one, mut part, mut deep) = Default::default();
    let mut pairs = Vec::new();
    for held in series {
        labels(&held.labels, extra, &mut pairs);
        let references = symbols.pairs(pairs.iter().copied());
        body.message(5, &mut one, |one| {
            one.packed_numbers(1, references.into_iter());
            for sample in &held.samples {
                one.message(2, &mut part, |part| {
                    part.double(1, sample.value);
                    part.int(2, sample.time);
                    part.int(3, held.created.unwrap_or(0));
                });
            }
            for sample in &held.histograms {
                one.message(3, &mut part, |part| {
                    histogram(part, &mut deep, sample);
                    part.int(17, held.created.unwrap_or(0));
                });
            }
            for exemplar in &held.exemplars {
                let references = symbols.pairs(exemplar.labels.iter());
                one.message(4, &mut part, |part| {
                    part.packed_numbers(1, references.into_iter());
                    part.double(2, exemplar.value);
                    part.int(3, time_of(exemplar, held));
                });
            }
            if let Some(metadata) = &held.metadata {
                let (help, unit) = (symbols.of(&metadata.help), symbols.of(&metadata.unit));
                one.message(5, &mut part, |part| {
                    part.number(1, metadata.kind as u64);
                    part.number(3, help);
                    part.number(4, unit);
                });
            }
        });
    }
    let mut out = Message::default();
    for symbol in &symbols.list {
        out.bytes(4, symbol.as_bytes());
    }
    out.0.extend_from_slice(&body.0);
    out.0
}

/// The same in both forms. Whole counts are sent as differences.
fn histogram(out: &mut Message, scratch: &mut Message, sample: &HistogramSample) {
    let held = &sample.histogram;
    if held.integral {
        // They are whole and not negative, as the flag says.
        out.some_number(1, held.count as u64);
    } else {
        out.some_double(2, held.count);
    }
    out.double(3, held.sum);
    out.zigzag(4, i64::from(held.schema));
    out.double(5, held.zero_threshold);
    if held.integral {
        out.some_number(6, held.zero_count as u64);
    } else {
        out.some_double(7, held.zero_count);
    }
    buckets(out, scratch, &held.negative, held.integral, [8, 9, 10]);
    buckets(out, scratch, &held.positive, held.integral, [11, 12, 13]);
    out.number(14, held.reset as u64);
    out.int(15, sample.time);
    out.packed_doubles(16, &held.bounds);
}

fn buckets(out: &mut Message, scratch: &mut Message, held: &Buckets, integral: bool, fields: [u64; 3]) {
    for span in &held.spans {
        out.message(fields[0], scratch, |part| {
            part.zigzag(1, i64::from(span.offset));
            part.number(2, u64::from(span.length));
        });
    }
    if !integral {
        out.packed_doubles(fields[2], &held.counts);
        return;
    }
    let mut before = 0_i64;
    let deltas = held.counts.iter().map(|count| {
        let count = *count as i64;
        let delta = count - std::mem::replace(&mut before, count);
        ((delta << 1) ^ (delta >> 63)).cast_unsigned()
    });
    out.packed_numbers(fields[1], deltas);
}

/// Names of the metrics that series tell of.
pub(super) fn families(series: &[Series]) -> BTreeSet<&str> {
    let told = series.iter().filter_map(|one| one.metadata.as_ref());
    told.map(|metadata| metadata.family.as_str()).collect()
}
