//! Bytes as a batch. They may come from anybody: every count is bounded before something is made for it.

use super::batch::{Batch, Exemplar, Kind, Metadata, Sample, Series};
use super::column::{column, list};
use super::encode::{
    CODEC_NONE, CODEC_ZSTD, HAS_CREATED, HAS_EXEMPLARS, HAS_HISTOGRAMS, HAS_SAMPLES, VERSION,
};
use super::histogram::{Buckets, Histogram, HistogramSample, Reset, Span};
use super::labels::Labels;
use super::{MOST_BYTES, MOST_LABEL_BYTES, MOST_SAMPLES};
use kit::varint::{Reader, put_text};
use std::sync::Arc;
use thiserror::Error;

/// Why bytes are no record of metrics.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Written by a later version of this program.
    #[error("the record has layout {found}, and this program knows up to {VERSION}: update it")]
    Newer {
        /// Its layout.
        found: u8,
    },
    /// It claims more than a record may hold.
    #[error("the record claims {what}, more than the {most} that are taken")]
    TooLarge {
        /// What of.
        what: String,
        /// The bound.
        most: usize,
    },
    /// The bytes end too early, or say what cannot be.
    #[error("the record's {part} are damaged")]
    Damaged {
        /// Which part.
        part: &'static str,
    },
}

fn damaged(part: &'static str) -> DecodeError {
    DecodeError::Damaged { part }
}

impl Batch {
    /// A record as the batch that it was.
    ///
    /// # Errors
    /// If it is of a later version, damaged, or larger than a record may be.
    pub fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(record);
        let head = damaged("first bytes");
        match reader.byte() {
            Some(VERSION) => {}
            Some(found) if found > VERSION => return Err(DecodeError::Newer { found }),
            _ => return Err(head),
        }
        let (Some(codec), Some(len)) = (reader.byte(), reader.u64()) else {
            return Err(head);
        };
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= MOST_BYTES)
            .ok_or_else(|| DecodeError::TooLarge {
                what: format!("{len} bytes"),
                most: MOST_BYTES,
            })?;
        let stored = reader.take(reader.left()).unwrap_or_default();
        let unpacked;
        let body = match codec {
            CODEC_NONE => stored,
            CODEC_ZSTD => {
                unpacked = zstd::bulk::decompress(stored, len).map_err(|_| damaged("compressed bytes"))?;
                &unpacked
            }
            _ => return Err(head),
        };
        if body.len() != len {
            return Err(damaged("first bytes"));
        }
        Body::read(body)
    }
}

/// What a series' header says, until its values are read.
struct Header {
    column: Option<usize>,
    has: u8,
}

struct Body<'a> {
    reader: Reader<'a>,
    symbols: Vec<&'a str>,
    /// Each packed as in [`Labels`], with its name.
    pairs: Vec<(&'a str, Vec<u8>)>,
    metadata: Vec<Arc<Metadata>>,
    columns: Vec<Vec<i64>>,
    samples: usize,
    label_bytes: usize,
}

impl<'a> Body<'a> {
    fn read(body: &'a [u8]) -> Result<Batch, DecodeError> {
        let mut held = Self {
            reader: Reader::new(body),
            symbols: Vec::new(),
            pairs: Vec::new(),
            metadata: Vec::new(),
            columns: Vec::new(),
            samples: 0,
            label_bytes: 0,
        };
        held.symbols().ok_or(damaged("symbols"))?;
        held.pairs().ok_or(damaged("labels"))?;
        held.metadata().ok_or(damaged("metadata"))?;
        held.columns().ok_or(damaged("times"))?;
        let (headers, mut series) = held.series()?;
        for (header, one) in headers.iter().zip(&mut series) {
            held.samples(header, one)?;
        }
        for (header, one) in headers.iter().zip(&mut series) {
            held.rest(header, one)?;
        }
        if held.reader.left() > 0 {
            return Err(damaged("last bytes"));
        }
        Ok(Batch { series })
    }

    /// A count of things that each take at least `least` of the bytes that are left.
    fn count(&mut self, least: usize) -> Option<usize> {
        let count = usize::try_from(self.reader.u64()?).ok()?;
        (count <= self.reader.left() / least).then_some(count)
    }

    fn symbols(&mut self) -> Option<()> {
        let count = self.count(1)?;
        let mut lengths = Vec::with_capacity(count);
        for _ in 0..count {
            lengths.push(usize::try_from(self.reader.u64()?).ok()?);
        }
        for len in lengths {
            self.symbols
                .push(std::str::from_utf8(self.reader.take(len)?).ok()?);
        }
        Some(())
    }

    fn pairs(&mut self) -> Option<()> {
        let count = self.count(2)?;
        let mut next = 0;
        for _ in 0..count {
            let name = self.symbols[reference(&mut self.reader, &mut next, self.symbols.len())?];
            let value = self.symbols[reference(&mut self.reader, &mut next, self.symbols.len())?];
            if name.is_empty() || value.is_empty() {
                return None;
            }
            let mut packed = Vec::with_capacity(name.len() + value.len() + 4);
            put_text(&mut packed, name);
            put_text(&mut packed, value);
            self.label_bytes += packed.len();
            if self.label_bytes > MOST_LABEL_BYTES {
                return None;
            }
            self.pairs.push((name, packed));
        }
        self.label_bytes = 0;
        Some(())
    }

    fn metadata(&mut self) -> Option<()> {
        for _ in 0..self.count(4)? {
            self.metadata.push(Arc::new(Metadata {
                family: self.reader.text()?.to_owned(),
                kind: Kind::from_number(self.reader.byte()?)?,
                unit: self.reader.text()?.to_owned(),
                help: self.reader.text()?.to_owned(),
            }));
        }
        Some(())
    }

    fn columns(&mut self) -> Option<()> {
        for _ in 0..self.count(2)? {
            let len = self.count(1).filter(|len| *len > 0)?;
            let mut times = Vec::with_capacity(len);
            let mut time = 0_i64;
            for _ in 0..len {
                time = time.wrapping_add(self.reader.zigzag()?);
                times.push(time);
            }
            self.columns.push(times);
        }
        Some(())
    }

    fn series(&mut self) -> Result<(Vec<Header>, Vec<Series>), DecodeError> {
        const PART: DecodeError = DecodeError::Damaged { part: "series" };
        let count = self.count(4).ok_or(PART)?;
        let (mut headers, mut series) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut pairs: Vec<usize> = Vec::new();
        let (mut next_pair, mut metadata, mut column) = (0, 0_i64, 0_i64);
        let mut packed = Vec::new();
        for _ in 0..count {
            self.own_pairs(&mut pairs, &mut next_pair).ok_or(PART)?;
            packed.clear();
            for pair in &pairs {
                packed.extend_from_slice(&self.pairs[*pair].1);
            }
            self.label_bytes += packed.len();
            if self.label_bytes > MOST_LABEL_BYTES {
                return Err(DecodeError::TooLarge {
                    what: format!("{} bytes of labels", self.label_bytes),
                    most: MOST_LABEL_BYTES,
                });
            }
            let mut one = Series::new(Labels::from_packed(&packed));
            let moved = self.reader.zigzag().and_then(|by| metadata.checked_add(by));
            metadata = moved.ok_or(PART)?;
            one.metadata = match usize::try_from(metadata).map_err(|_| PART)? {
                0 => None,
                index => Some(self.metadata.get(index - 1).ok_or(PART)?.clone()),
            };
            let has = self.reader.byte().ok_or(PART)?;
            let mut header = Header { column: None, has };
            if has & HAS_SAMPLES != 0 {
                let moved = self.reader.zigzag().and_then(|by| column.checked_add(by));
                column = moved.ok_or(PART)?;
                let index = usize::try_from(column).ok();
                header.column = Some(index.filter(|index| *index < self.columns.len()).ok_or(PART)?);
            }
            headers.push(header);
            series.push(one);
        }
        Ok((headers, series))
    }

    /// Goes from the pairs of the series before to those of this one.
    fn own_pairs(&mut self, pairs: &mut Vec<usize>, next: &mut usize) -> Option<()> {
        let shared = usize::try_from(self.reader.u64()?).ok()?;
        if shared > pairs.len() {
            return None;
        }
        pairs.truncate(shared);
        for _ in 0..self.count(1)? {
            let pair = reference(&mut self.reader, next, self.pairs.len())?;
            let in_order = pairs
                .last()
                .is_none_or(|last| self.pairs[*last].0 < self.pairs[pair].0);
            if !in_order {
                return None;
            }
            pairs.push(pair);
        }
        Some(())
    }

    /// Counts samples, as a few bytes can stand for many.
    fn take(&mut self, count: usize) -> Result<(), DecodeError> {
        self.samples = self.samples.saturating_add(count);
        if self.samples > MOST_SAMPLES {
            return Err(DecodeError::TooLarge {
                what: format!("{} samples", self.samples),
                most: MOST_SAMPLES,
            });
        }
        Ok(())
    }

    fn samples(&mut self, header: &Header, series: &mut Series) -> Result<(), DecodeError> {
        let Some(index) = header.column else {
            return Ok(());
        };
        self.take(self.columns[index].len())?;
        let times = &self.columns[index];
        series.samples.reserve_exact(times.len());
        let mut times = times.iter();
        let count = times.len();
        column(&mut self.reader, count, |value| {
            if let Some(time) = times.next() {
                series.samples.push(Sample { time: *time, value });
            }
        })
        .ok_or(damaged("values"))
    }

    fn rest(&mut self, header: &Header, series: &mut Series) -> Result<(), DecodeError> {
        if header.has & HAS_CREATED != 0 {
            series.created = Some(self.reader.zigzag().ok_or(damaged("creation times"))?);
        }
        if header.has & HAS_HISTOGRAMS != 0 {
            let count = self.count(12).ok_or(damaged("histograms"))?;
            self.take(count)?;
            for _ in 0..count {
                let histogram = self.histogram().ok_or(damaged("histograms"))?;
                series.histograms.push(histogram);
            }
        }
        if header.has & HAS_EXEMPLARS != 0 {
            let count = self.count(10).ok_or(damaged("exemplars"))?;
            self.take(count)?;
            for _ in 0..count {
                let exemplar = self.exemplar().ok_or(damaged("exemplars"))?;
                series.exemplars.push(exemplar);
            }
        }
        Ok(())
    }

    fn histogram(&mut self) -> Option<HistogramSample> {
        let time = self.reader.zigzag()?;
        let schema = i32::try_from(self.reader.zigzag()?).ok()?;
        let flags = self.reader.byte()?;
        let counts = self.list()?;
        let (sum, threshold) = (self.list()?, self.list()?);
        let ([count, zero_count], [sum], [zero_threshold]) =
            (counts.as_slice(), sum.as_slice(), threshold.as_slice())
        else {
            return None;
        };
        let histogram = Histogram {
            schema,
            integral: flags & 1 != 0,
            reset: Reset::from_number(flags >> 1)?,
            count: *count,
            sum: *sum,
            zero_threshold: *zero_threshold,
            zero_count: *zero_count,
            positive: self.buckets()?,
            negative: self.buckets()?,
            bounds: self.list()?,
        };
        Some(HistogramSample { time, histogram })
    }

    fn buckets(&mut self) -> Option<Buckets> {
        let count = self.count(2)?;
        let mut spans = Vec::with_capacity(count);
        for _ in 0..count {
            spans.push(Span {
                offset: i32::try_from(self.reader.zigzag()?).ok()?,
                length: self.reader.u32()?,
            });
        }
        let counts = self.list()?;
        Some(Buckets { spans, counts })
    }

    /// Buckets count as samples do: equal ones take no bytes.
    fn list(&mut self) -> Option<Vec<f64>> {
        let values = list(&mut self.reader, MOST_SAMPLES.saturating_sub(self.samples))?;
        self.samples += values.len();
        Some(values)
    }

    fn exemplar(&mut self) -> Option<Exemplar> {
        let count = self.count(2)?;
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            pairs.push((self.reader.text()?, self.reader.text()?));
        }
        let labels = Labels::new(pairs).ok()?;
        let value = f64::from_le_bytes(self.reader.take(8)?.try_into().ok()?);
        let time = match self.reader.byte()? {
            0 => None,
            1 => Some(self.reader.zigzag()?),
            _ => return None,
        };
        Some(Exemplar { labels, value, time })
    }
}

/// What `put_reference` wrote.
fn reference(reader: &mut Reader<'_>, next: &mut usize, known: usize) -> Option<usize> {
    let index = match reader.u64()? {
        0 => {
            *next += 1;
            *next - 1
        }
        index => usize::try_from(index).ok()? - 1,
    };
    (index < known).then_some(index)
}
