//! Reading a stream back: block by block, beside the I/O thread.

use crate::block::{Header, Item, PAGE, Parsed, Place};
use crate::core::Core;
use crate::disk::DiskFile;
use crate::error::ReadError;
use crate::ledger::Gap;
use crate::record::{BootId, Class, Record, Stamp};
use crate::stream::Stream;
use crate::walk::{Bounds, walk};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Blocks remembered per stream.
const HINTS: usize = 4;
/// Refused reads of one block after which it counts as damaged.
const REFUSALS: u32 = 3;

/// Where a record was found.
enum Found {
    Disk(Spot),
    Memory(Vec<Item>),
}

/// Where to look for a record on disk.
struct Spot {
    want: u64,
    segment: u64,
    last: u64,
    end: u64,
    from: u64,
    path: PathBuf,
}

impl Stream {
    /// Records after `after`, in order, as many as fit in `max_bytes` but at least one if there is one.
    ///
    /// They are numbered without a gap, so that the first number and their count say all; where numbers were left out
    /// or records lost, the next call goes on after them.
    ///
    /// # Errors
    /// If the file system refuses to read. Damaged records are no error: they are skipped and counted as lost.
    pub fn read(&self, after: u64, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        self.take(after, Taken::upto(max_bytes))
    }

    /// The records of the one block that holds the first record after `after`: the same ones at each call, before and
    /// after a crash, for receivers that need a retry to be the same bytes.
    ///
    /// # Errors
    /// As [`Stream::read`].
    pub fn batch(&self, after: u64) -> Result<Vec<Record>, ReadError> {
        self.take(after, Taken::one_block())
    }

    fn take(&self, after: u64, mut taken: Taken) -> Result<Vec<Record>, ReadError> {
        let mut want = after + 1;
        loop {
            match self.locate(want) {
                Some(Found::Memory(items)) => {
                    taken.add(items, self.id, &mut want, self.core.options.boot);
                    break;
                }
                Some(Found::Disk(spot)) if taken.records.is_empty() || spot.want == want => {
                    want = spot.want;
                    if !self.read_segment(&spot, &mut want, &mut taken)? {
                        break;
                    }
                }
                _ => break,
            }
        }
        Ok(taken.records)
    }

    /// The first number at or after `want` that should be readable, and where.
    fn locate(&self, want: u64) -> Option<Found> {
        let inner = self.core.lock();
        let ledger = inner.ledgers.get(&self.id)?;
        let mut want = want.max(ledger.gone + 1);
        while let Some((_, end, _)) = ledger.gaps.at(want) {
            want = end + 1;
        }
        if want > ledger.last {
            return None;
        }
        let live = inner.streams.get(&self.id)?;
        let log = &inner.logs[self.class.index()];
        let on_disk = log.segments.iter().find_map(|(id, segment)| {
            let span = segment.spans.get(&self.id)?;
            (span.last >= want).then_some((*id, segment, *span))
        });
        let Some((id, segment, span)) = on_disk else {
            let held = live.memory.held.iter().filter(|held| held.item.seq >= want);
            return Some(Found::Memory(held.map(|held| held.item.clone()).collect()));
        };
        let from = live
            .hints
            .iter()
            .filter(|(held, _, first)| *held == id && *first <= want)
            .max_by_key(|(_, _, first)| *first)
            .map_or(0, |(_, offset, _)| *offset);
        Some(Found::Disk(Spot {
            want: want.max(span.first),
            segment: id,
            last: span.last,
            end: segment.end,
            from,
            path: self.core.segment_path(self.class, segment.slot),
        }))
    }

    /// Reads on in one segment; false once nothing more is to be taken.
    fn read_segment(&self, spot: &Spot, want: &mut u64, taken: &mut Taken) -> Result<bool, ReadError> {
        let file = self
            .core
            .options
            .disk
            .open_read(&spot.path)
            .map_err(|source| ReadError::Io {
                path: spot.path.clone(),
                source,
            })?;
        let mut damaged = false;
        let more = self.scan(spot, file.as_ref(), want, taken, &mut damaged)?;
        if !self.still_there(spot) {
            // Settled and overwritten meanwhile: look again where the record is now, if anywhere.
            return Ok(more);
        }
        if damaged || (more && *want <= spot.last) {
            // Counted before anything behind the damage is handed out, let alone acknowledged.
            survey(&self.core, self.class, spot.segment, file.as_ref());
            if more {
                *want = (*want).max(spot.last + 1);
            }
        }
        Ok(more)
    }

    fn scan(
        &self,
        spot: &Spot,
        file: &dyn DiskFile,
        want: &mut u64,
        taken: &mut Taken,
        damaged: &mut bool,
    ) -> Result<bool, ReadError> {
        let mut offset = spot.from;
        let mut bytes = Vec::new();
        while offset < spot.end && *want <= spot.last {
            let place = Place {
                class: self.class,
                epoch: self.core.epoch,
                segment: spot.segment,
                offset,
            };
            bytes.resize(PAGE, 0);
            self.fill(spot, file, &mut bytes, 0, offset)?;
            let Parsed::Header(header) = Header::parse(&bytes, place) else {
                *damaged = true;
                offset += PAGE as u64;
                continue;
            };
            let size = header.size();
            if header.holds(self.id, *want) {
                if size > PAGE {
                    bytes.resize(size, 0);
                    self.fill(spot, file, &mut bytes, PAGE, offset)?;
                }
                match header.items(&bytes) {
                    Some(items) => {
                        self.remember(spot.segment, offset, &header);
                        if !taken.add(items, self.id, want, header.boot) {
                            return Ok(false);
                        }
                    }
                    None => *damaged = true,
                }
            }
            offset += size as u64;
        }
        Ok(true)
    }

    /// Reads a block's bytes from `from` on. A disk that refuses again and again counts as damage: the bytes are
    /// left as they are, and do not validate.
    fn fill(
        &self,
        spot: &Spot,
        file: &dyn DiskFile,
        bytes: &mut [u8],
        from: usize,
        block: u64,
    ) -> Result<(), ReadError> {
        let Err(source) = file.read_at(&mut bytes[from..], block + from as u64) else {
            return Ok(());
        };
        bytes.fill(0);
        let mut inner = self.core.lock();
        let Some(live) = inner.streams.get_mut(&self.id) else {
            return Ok(());
        };
        if live.refused.0 != (spot.segment, block) {
            live.refused = ((spot.segment, block), 0);
        }
        live.refused.1 += 1;
        if live.refused.1 >= REFUSALS {
            return Ok(());
        }
        Err(ReadError::Io {
            path: spot.path.clone(),
            source,
        })
    }

    fn still_there(&self, spot: &Spot) -> bool {
        let inner = self.core.lock();
        inner.logs[self.class.index()]
            .segments
            .contains_key(&spot.segment)
    }

    fn remember(&self, segment: u64, offset: u64, header: &Header) {
        let Some(first) = header
            .runs()
            .find(|(stream, ..)| *stream == self.id)
            .map(|(_, first, _)| first)
        else {
            return;
        };
        let mut inner = self.core.lock();
        if let Some(live) = inner.streams.get_mut(&self.id) {
            live.hints
                .retain(|(held, at, _)| (*held, *at) != (segment, offset));
            live.hints.push_back((segment, offset, first));
            if live.hints.len() > HINTS {
                live.hints.pop_front();
            }
        }
    }
}

/// What a read has gathered.
struct Taken {
    records: Vec<Record>,
    bytes: usize,
    most: usize,
    one_block: bool,
}

impl Taken {
    fn upto(most: usize) -> Self {
        Self {
            records: Vec::new(),
            bytes: 0,
            most,
            one_block: false,
        }
    }

    fn one_block() -> Self {
        Self {
            one_block: true,
            ..Self::upto(usize::MAX)
        }
    }

    /// Adds a block's records of the stream; false once nothing more is to be taken.
    fn add(&mut self, items: Vec<Item>, stream: u32, want: &mut u64, boot: BootId) -> bool {
        for item in items {
            if item.stream != stream || item.seq < *want {
                continue;
            }
            let full = self.bytes.saturating_add(item.payload.len()) > self.most;
            if !self.records.is_empty() && (full || item.seq != *want) {
                return false;
            }
            *want = item.seq + 1;
            self.bytes += item.payload.len();
            self.records.push(record(item, boot));
        }
        !self.one_block
    }
}

/// Goes through a damaged segment and counts what of each stream is gone from it.
pub(crate) fn survey(core: &Core, class: Class, id: u64, file: &dyn DiskFile) {
    let held = core.lock().logs[class.index()].segments.get(&id).cloned();
    let Some(segment) = held else { return };
    let bounds = Bounds {
        confirmed: segment.end,
        cut: segment.end,
        closed: true,
    };
    let walked = walk(file, (class, core.epoch, id), segment.size, bounds, true);
    let mut there: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
    for header in &walked.blocks {
        for (stream, first, count) in header.runs() {
            there
                .entry(stream)
                .or_default()
                .push((first, first + u64::from(count)));
        }
    }
    let mut guard = core.lock();
    let inner = &mut *guard;
    if !inner.logs[class.index()].segments.contains_key(&id) {
        return;
    }
    let mut news = false;
    for (stream, span) in &segment.spans {
        let mut at = span.first;
        let runs = there.remove(stream).unwrap_or_default();
        for (first, next) in runs.into_iter().chain([(span.last + 1, span.last + 1)]) {
            if first > at && inner.give_up(*stream, at, first - 1, Gap::Lost) > 0 {
                news = true;
                tracing::error!(
                    stream,
                    first = at,
                    last = first - 1,
                    segment = id,
                    "spool: the disk lost these records"
                );
            }
            at = at.max(next);
        }
    }
    if news {
        drop(guard);
        core.work.notify_all();
    }
}

pub(crate) fn record(item: Item, boot: BootId) -> Record {
    Record {
        seq: item.seq,
        appended_at: Stamp {
            wall: Timestamp::from_microsecond(item.wall).unwrap_or_default(),
            boot,
            since_boot: Duration::from_micros(item.boot),
        },
        payload: item.payload.into(),
    }
}
