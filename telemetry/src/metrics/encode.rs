//! A batch as bytes. `decode` tells the layout from the other side.
//!
//! ```text
//! record    = version codec varint(length of the body) body          codec: 0 as it is, 1 zstd
//! body      = symbols pairs metadata columns series values rest
//! symbols   = n, length of each, then all their bytes
//! pairs     = n, (name, value) of each: a label as two symbols
//! metadata  = n, (family, kind, unit, help) of each
//! columns   = n, (n, first time, differences) of each: times that series share
//! series    = n, header of each: labels shared with the one before, own pairs, metadata, what it has
//! ```
//! A reference to a symbol or pair is 0 for "the next one that was not used yet", else its index + 1.

use super::MOST_LABEL_BYTES;
use super::batch::{Batch, Exemplar, Metadata, Series};
use super::column::{put_column, put_list};
use super::histogram::{Buckets, HistogramSample};
use super::{MOST_BYTES, MOST_SAMPLES};
use kit::varint::{put, put_text, put_zigzag};
use std::collections::HashMap;
use std::sync::Arc;
use thiserror::Error;

/// The layout that is written.
pub(super) const VERSION: u8 = 1;
pub(super) const CODEC_NONE: u8 = 0;
pub(super) const CODEC_ZSTD: u8 = 1;
/// Shorter bodies are not worth a compressor.
const LEAST_TO_COMPRESS: usize = 128;
const ZSTD_LEVEL: i32 = 1;
/// Numbers that every histogram has, itself included.
const HISTOGRAM_NUMBERS: usize = 5;

/// What a series has.
pub(super) const HAS_SAMPLES: u8 = 1;
pub(super) const HAS_HISTOGRAMS: u8 = 2;
pub(super) const HAS_EXEMPLARS: u8 = 4;
pub(super) const HAS_CREATED: u8 = 8;

/// A batch is more than one record may hold; a part of it can be one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "a batch of {series} series, {samples} samples and {bytes} bytes is too large for one record: split it"
)]
pub struct TooLarge {
    /// Series in it.
    pub series: usize,
    /// Samples, numbers of histograms, and exemplars in it.
    pub samples: usize,
    /// Bytes before compression, or of labels.
    pub bytes: usize,
}

impl Batch {
    /// The batch as a record: the same bytes for the same batch.
    ///
    /// # Errors
    /// If it is too large for the bounds that [`Batch::decode`] keeps.
    pub fn encode(&self) -> Result<Vec<u8>, TooLarge> {
        let samples: usize = self.series.iter().map(weight).sum();
        let too_large = |bytes| TooLarge {
            series: self.series.len(),
            samples,
            bytes,
        };
        let label_bytes: usize = self.series.iter().map(|s| s.labels.packed().len()).sum();
        if samples > MOST_SAMPLES || label_bytes > MOST_LABEL_BYTES {
            return Err(too_large(label_bytes));
        }
        let body = body(&self.series);
        if body.len() > MOST_BYTES {
            return Err(too_large(body.len()));
        }
        Ok(seal(&body))
    }
}

/// What counts against [`MOST_SAMPLES`]: numbers of buckets, as equal ones take no bytes.
fn weight(series: &Series) -> usize {
    let of = |sample: &HistogramSample| {
        let held = &sample.histogram;
        HISTOGRAM_NUMBERS + held.positive.counts.len() + held.negative.counts.len() + held.bounds.len()
    };
    let histograms: usize = series.histograms.iter().map(of).sum();
    series.samples.len() + series.exemplars.len() + histograms
}

/// Version, codec and length before the body.
fn seal(body: &[u8]) -> Vec<u8> {
    let packed = (body.len() >= LEAST_TO_COMPRESS)
        .then(|| zstd::bulk::compress(body, ZSTD_LEVEL).ok())
        .flatten()
        .filter(|packed| packed.len() < body.len());
    let (codec, stored) = match &packed {
        Some(packed) => (CODEC_ZSTD, packed.as_slice()),
        None => (CODEC_NONE, body),
    };
    let mut out = Vec::with_capacity(stored.len() + 8);
    out.extend_from_slice(&[VERSION, codec]);
    put(&mut out, body.len() as u64);
    out.extend_from_slice(stored);
    out
}

fn body(series: &[Series]) -> Vec<u8> {
    let mut tables = Tables::default();
    let mut headers = Vec::with_capacity(series.len() * 8);
    let mut before = Before::default();
    let mut times = Vec::new();
    let mut columns = Vec::with_capacity(series.len());
    for one in series {
        times.clear();
        times.extend(one.samples.iter().map(|sample| sample.time));
        let column = if times.is_empty() {
            None
        } else {
            Some(tables.column(&times))
        };
        header(&mut headers, one, column, &mut tables, &mut before);
        columns.push(column);
    }
    let mut out = tables.write();
    put(&mut out, series.len() as u64);
    out.extend_from_slice(&headers);
    let mut values = Vec::new();
    let mut scaled = Vec::new();
    for one in series.iter().filter(|one| !one.samples.is_empty()) {
        values.clear();
        values.extend(one.samples.iter().map(|sample| sample.value));
        put_column(&mut out, &values, &mut scaled);
    }
    for one in series {
        rest(&mut out, one);
    }
    out
}

/// What a header says as a difference to the one before.
#[derive(Default)]
struct Before {
    pairs: Vec<u32>,
    metadata: u64,
    column: u64,
}

fn header<'a>(
    out: &mut Vec<u8>,
    series: &'a Series,
    column: Option<u64>,
    tables: &mut Tables<'a>,
    before: &mut Before,
) {
    let mut own = Vec::with_capacity(8);
    let first_new = tables.pairs.len();
    for pair in series.labels.iter() {
        own.push(tables.pair(pair));
    }
    let shared = own.iter().zip(&before.pairs).take_while(|(a, b)| a == b).count();
    put(out, shared as u64);
    put(out, (own.len() - shared) as u64);
    let mut next = first_new;
    for pair in &own[shared..] {
        put_reference(out, *pair, &mut next);
    }
    before.pairs = own;
    let metadata = series
        .metadata
        .as_ref()
        .map_or(0, |held| tables.metadata(held) + 1);
    put_zigzag(out, difference(metadata, before.metadata));
    before.metadata = metadata;
    let flag = |has: bool, flag: u8| if has { flag } else { 0 };
    out.push(
        flag(column.is_some(), HAS_SAMPLES)
            | flag(!series.histograms.is_empty(), HAS_HISTOGRAMS)
            | flag(!series.exemplars.is_empty(), HAS_EXEMPLARS)
            | flag(series.created.is_some(), HAS_CREATED),
    );
    if let Some(column) = column {
        put_zigzag(out, difference(column, before.column));
        before.column = column;
    }
}

/// Both are counts of things in memory.
fn difference(a: u64, b: u64) -> i64 {
    a.cast_signed().wrapping_sub(b.cast_signed())
}

/// 0 for the next unused one, which is then used; else index + 1.
fn put_reference(out: &mut Vec<u8>, index: u32, next: &mut usize) {
    if index as usize == *next {
        *next += 1;
        out.push(0);
    } else {
        put(out, u64::from(index) + 1);
    }
}

/// Creation time, histograms and exemplars: of few series.
fn rest(out: &mut Vec<u8>, series: &Series) {
    if let Some(created) = series.created {
        put_zigzag(out, created);
    }
    if !series.histograms.is_empty() {
        put(out, series.histograms.len() as u64);
        for histogram in &series.histograms {
            put_histogram(out, histogram);
        }
    }
    if !series.exemplars.is_empty() {
        put(out, series.exemplars.len() as u64);
        for exemplar in &series.exemplars {
            put_exemplar(out, exemplar);
        }
    }
}

fn put_histogram(out: &mut Vec<u8>, sample: &HistogramSample) {
    let held = &sample.histogram;
    put_zigzag(out, sample.time);
    put_zigzag(out, i64::from(held.schema));
    out.push((held.reset as u8) << 1 | u8::from(held.integral));
    put_list(out, &[held.count, held.zero_count]);
    put_list(out, &[held.sum]);
    put_list(out, &[held.zero_threshold]);
    put_buckets(out, &held.positive);
    put_buckets(out, &held.negative);
    put_list(out, &held.bounds);
}

fn put_buckets(out: &mut Vec<u8>, buckets: &Buckets) {
    put(out, buckets.spans.len() as u64);
    for span in &buckets.spans {
        put_zigzag(out, i64::from(span.offset));
        put(out, u64::from(span.length));
    }
    put_list(out, &buckets.counts);
}

fn put_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    put(out, exemplar.labels.iter().count() as u64);
    out.extend_from_slice(exemplar.labels.packed());
    out.extend_from_slice(&exemplar.value.to_le_bytes());
    match exemplar.time {
        None => out.push(0),
        Some(time) => {
            out.push(1);
            put_zigzag(out, time);
        }
    }
}

/// What series share, in the order of first use.
#[derive(Default)]
struct Tables<'a> {
    symbols: Vec<&'a str>,
    symbol_index: HashMap<&'a str, u32>,
    pairs: Vec<(u32, u32)>,
    pair_index: HashMap<(&'a str, &'a str), u32>,
    metadata: Vec<&'a Metadata>,
    metadata_index: HashMap<&'a Metadata, u64>,
    last_metadata: Option<(*const Metadata, u64)>,
    columns: Vec<Vec<i64>>,
    column_index: HashMap<Vec<i64>, u64>,
    last_column: usize,
}

impl<'a> Tables<'a> {
    fn symbol(&mut self, text: &'a str) -> u32 {
        // Bounded by the bytes of a record, far below 2^32.
        let next = self.symbols.len() as u32;
        let index = *self.symbol_index.entry(text).or_insert(next);
        if index == next {
            self.symbols.push(text);
        }
        index
    }

    fn pair(&mut self, pair: (&'a str, &'a str)) -> u32 {
        if let Some(index) = self.pair_index.get(&pair) {
            return *index;
        }
        let index = self.pairs.len() as u32;
        let symbols = (self.symbol(pair.0), self.symbol(pair.1));
        self.pairs.push(symbols);
        self.pair_index.insert(pair, index);
        index
    }

    fn metadata(&mut self, metadata: &'a Arc<Metadata>) -> u64 {
        // Series of one metric follow one another and share it in memory.
        let at = Arc::as_ptr(metadata);
        if let Some((_, index)) = self.last_metadata.filter(|(last, _)| *last == at) {
            return index;
        }
        let next = self.metadata.len() as u64;
        let index = *self.metadata_index.entry(metadata).or_insert(next);
        if index == next {
            self.metadata.push(metadata);
        }
        self.last_metadata = Some((at, index));
        index
    }

    fn column(&mut self, times: &[i64]) -> u64 {
        if self
            .columns
            .get(self.last_column)
            .is_some_and(|last| last == times)
        {
            return self.last_column as u64;
        }
        let next = self.columns.len() as u64;
        let index = *self.column_index.entry(times.to_vec()).or_insert(next);
        if index == next {
            self.columns.push(times.to_vec());
        }
        self.last_column = index as usize;
        index
    }

    fn write(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        put(&mut rest, self.pairs.len() as u64);
        let mut next = 0;
        for (name, value) in std::mem::take(&mut self.pairs) {
            put_reference(&mut rest, name, &mut next);
            put_reference(&mut rest, value, &mut next);
        }
        put(&mut rest, self.metadata.len() as u64);
        for held in &self.metadata {
            put_text(&mut rest, &held.family);
            rest.push(held.kind as u8);
            put_text(&mut rest, &held.unit);
            put_text(&mut rest, &held.help);
        }
        put(&mut rest, self.columns.len() as u64);
        for times in &self.columns {
            put(&mut rest, times.len() as u64);
            let mut before = 0;
            for time in times {
                put_zigzag(&mut rest, time.wrapping_sub(before));
                before = *time;
            }
        }
        let mut out = Vec::new();
        put(&mut out, self.symbols.len() as u64);
        for symbol in &self.symbols {
            put(&mut out, symbol.len() as u64);
        }
        for symbol in &self.symbols {
            out.extend_from_slice(symbol.as_bytes());
        }
        out.extend_from_slice(&rest);
        out
    }
}
