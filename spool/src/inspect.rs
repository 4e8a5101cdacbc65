//! Looking into a spool without taking part: also while an agent runs on it.
//!
//! What is seen is the spool as its files were at [`Inspection::open`]. A segment that the agent has overwritten since
//! shows as damaged; opening again shows the new state.

use crate::core::Core;
use crate::error::{OpenError, ReadError};
use crate::ledger::Account;
use crate::options::Options;
use crate::place::Placed;
use crate::record::{Class, Durability, Record, Stamp};
use crate::recover::{self, Access, LostRange, Recovered};
use crate::snapshot::Snapshot;
use crate::stream::Stream;
use crate::walk::{Bounds, walk};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A spool seen from outside.
#[derive(Debug)]
pub struct Inspection {
    core: Arc<Core>,
    recovered: Recovered,
}

/// All of a spool at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing {
    /// The spool's epoch.
    pub epoch: u64,
    /// Its streams, by name.
    pub streams: Vec<StreamInfo>,
    /// Its logs.
    pub logs: Vec<LogInfo>,
    /// How far each source has been taken in.
    pub sources: BTreeMap<String, u64>,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamInfo {
    /// Its name.
    pub name: String,
    /// Its class.
    pub class: Class,
    /// What it promises.
    pub durability: Durability,
    /// The last number.
    pub last: u64,
    /// Payload bytes on disk, before compression where that is known.
    pub bytes: u64,
    /// By sink: the last number it has settled, and the account.
    pub sinks: BTreeMap<String, (u64, Account)>,
}

/// One class's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogInfo {
    /// The class.
    pub class: Class,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its living segments, oldest first.
    pub segments: Vec<SegmentInfo>,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentInfo {
    /// Its number.
    pub id: u64,
    /// The file that holds it.
    pub file: String,
    /// Bytes of blocks.
    pub bytes: u64,
    /// First and last number by stream.
    pub streams: BTreeMap<String, (u64, u64)>,
}

/// One block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockInfo {
    /// Where it begins in its segment.
    pub offset: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Whether it can be read.
    pub whole: bool,
    /// Stream, first number and count of its records, as far as its header can be read.
    pub records: Vec<(String, u64, u32)>,
}

/// The whole spool read and counted again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Blocks read.
    pub blocks: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Blocks that cannot be read: class, segment, offset.
    pub damaged: Vec<(Class, u64, u64)>,
    /// Records lost with them, beyond those counted before.
    pub lost: Vec<LostRange>,
    /// Streams and sinks whose account does not balance: a defect of the spool itself.
    pub unbalanced: Vec<(String, String)>,
}

impl Verdict {
    /// Whether every byte is as it was written and every record accounted for.
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.lost.is_empty() && self.unbalanced.is_empty()
    }
}

impl Inspection {
    /// Reads what there is in `dir`; writes nothing and takes no lock.
    ///
    /// # Errors
    /// If there is no spool, or the file system refuses to read.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_with(dir, Options::default())
    }

    /// [`Inspection::open`] with other seams.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(dir: &Path, options: Options) -> Result<Self, OpenError> {
        let opened = recover::open(dir, &options, Access::Read)?;
        Ok(Self {
            core: Arc::new(Core::new(dir.to_owned(), options, opened.epoch, opened.inner)),
            recovered: opened.recovered,
        })
    }

    /// Identifies the spool's numbering.
    pub fn epoch(&self) -> u64 {
        self.core.epoch
    }

    /// When a record was appended, as far as can be known.
    pub fn place(&self, stamp: &Stamp) -> Placed {
        self.core.lock().boots.place(stamp)
    }

    /// The last number of a stream; 0 where there is none of that name.
    pub fn last(&self, stream: &str) -> u64 {
        self.stream(stream).map_or(0, |stream| stream.last())
    }

    /// What a start would find.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// The figures that the spool itself would give, without what is only in memory.
    pub fn snapshot(&self) -> Snapshot {
        self.core.snapshot()
    }

    /// Streams, segments and accounts.
    pub fn listing(&self) -> Listing {
        let inner = self.core.lock();
        let name = |id: &u32| {
            inner
                .ledgers
                .get(id)
                .map(|ledger| ledger.name.clone())
                .unwrap_or_default()
        };
        let logs = inner.logs.iter().map(|log| LogInfo {
            class: log.class,
            bytes: log.bytes(),
            segments: log
                .segments
                .iter()
                .map(|(id, segment)| SegmentInfo {
                    id: *id,
                    file: format!("{}/{}", log.class, crate::core::slot_name(segment.slot)),
                    bytes: segment.end,
                    streams: segment
                        .spans
                        .iter()
                        .map(|(stream, span)| (name(stream), (span.first, span.last)))
                        .collect(),
                })
                .collect(),
        });
        let mut streams: Vec<StreamInfo> = inner
            .ledgers
            .iter()
            .map(|(id, ledger)| StreamInfo {
                name: ledger.name.clone(),
                class: ledger.class,
                durability: ledger.durability,
                last: ledger.last,
                bytes: inner.logs[ledger.class.index()]
                    .segments
                    .values()
                    .filter_map(|segment| segment.spans.get(id))
                    .map(|span| span.bytes)
                    .sum(),
                sinks: ledger
                    .sinks
                    .iter()
                    .map(|(sink, cursor)| {
                        let account = ledger.account(sink, inner.stored_above(*id, cursor.upto));
                        (sink.clone(), (cursor.upto, account))
                    })
                    .collect(),
            })
            .collect();
        streams.sort_by(|a, b| a.name.cmp(&b.name));
        Listing {
            epoch: self.core.epoch,
            streams,
            logs: logs.collect(),
            sources: inner
                .sources
                .iter()
                .map(|(source, (value, _))| (source.clone(), *value))
                .collect(),
        }
    }

    /// The blocks of a segment; `None` if there is no such segment.
    ///
    /// # Errors
    /// If its file cannot be opened.
    pub fn blocks(&self, class: Class, segment: u64) -> Result<Option<Vec<BlockInfo>>, ReadError> {
        let Some(held) = self.core.lock().logs[class.index()]
            .segments
            .get(&segment)
            .cloned()
        else {
            return Ok(None);
        };
        let path = self.core.segment_path(class, held.slot);
        let file = self
            .core
            .options
            .disk
            .open_read(&path)
            .map_err(|source| ReadError::Io { path, source })?;
        let bounds = Bounds {
            confirmed: held.end,
            cut: held.end,
            closed: true,
        };
        let walked = walk(
            file.as_ref(),
            (class, self.core.epoch, segment),
            held.size,
            bounds,
            true,
        );
        let inner = self.core.lock();
        let runs = |header: &crate::block::Header| {
            header
                .runs()
                .map(|(stream, first, count)| {
                    let name = inner.ledgers.get(&stream).map(|ledger| ledger.name.clone());
                    (name.unwrap_or_default(), first, count)
                })
                .collect()
        };
        let mut blocks: Vec<BlockInfo> = walked
            .blocks
            .iter()
            .map(|header| BlockInfo {
                offset: header.place.offset,
                bytes: header.size() as u64,
                whole: true,
                records: runs(header),
            })
            .chain(walked.rot.iter().map(|bad| BlockInfo {
                offset: bad.offset,
                bytes: bad.len,
                whole: false,
                records: bad.header.as_ref().map(&runs).unwrap_or_default(),
            }))
            .collect();
        blocks.sort_by_key(|block| block.offset);
        Ok(Some(blocks))
    }

    /// A stream to read from; `None` if there is none of that name. Only reading it makes sense.
    fn stream(&self, name: &str) -> Option<Stream> {
        let inner = self.core.lock();
        let id = *inner.by_name.get(name)?;
        let ledger = inner.ledgers.get(&id)?;
        let (class, durability) = (ledger.class, ledger.durability);
        drop(inner);
        Some(Stream::new(self.core.clone(), id, class, durability, name))
    }

    /// Records of a stream after a number, as [`Stream::read`] gives them; `None` if there is no such stream.
    ///
    /// # Errors
    /// As [`Stream::read`].
    pub fn records(
        &self,
        stream: &str,
        after: u64,
        max_bytes: usize,
    ) -> Result<Option<Vec<Record>>, ReadError> {
        self.stream(stream)
            .map(|stream| stream.read(after, max_bytes))
            .transpose()
    }

    /// The last `count` records of a stream that are still there.
    ///
    /// # Errors
    /// As [`Stream::read`].
    pub fn tail(&self, stream: &str, count: u64) -> Result<Option<Vec<Record>>, ReadError> {
        let Some(stream) = self.stream(stream) else {
            return Ok(None);
        };
        let mut kept = std::collections::VecDeque::new();
        let mut after = stream.last().saturating_sub(count);
        loop {
            let records = stream.read(after, 1 << 20)?;
            let Some(last) = records.last() else {
                return Ok(Some(kept.into()));
            };
            after = last.seq;
            kept.extend(records);
        }
    }

    /// Hands every record of a stream after `after` to `each`; returns the last number, or `None` if there is no such
    /// stream.
    ///
    /// # Errors
    /// As [`Stream::read`], or what `each` answers.
    pub fn export<E: From<ReadError>>(
        &self,
        stream: &str,
        after: u64,
        mut each: impl FnMut(&Record) -> Result<(), E>,
    ) -> Result<Option<u64>, E> {
        let Some(stream) = self.stream(stream) else {
            return Ok(None);
        };
        let mut at = after;
        loop {
            let records = stream.read(at, 1 << 20)?;
            let Some(last) = records.last() else {
                return Ok(Some(at));
            };
            at = last.seq;
            for record in &records {
                each(record)?;
            }
        }
    }

    /// Reads every living byte and counts again.
    ///
    /// # Errors
    /// If a segment's file cannot be opened.
    pub fn verify(&self) -> Result<Verdict, ReadError> {
        let mut verdict = Verdict {
            lost: self.recovered.lost.clone(),
            ..Verdict::default()
        };
        for log in self.listing().logs {
            for segment in &log.segments {
                for block in self.blocks(log.class, segment.id)?.unwrap_or_default() {
                    verdict.bytes += block.bytes;
                    if block.whole {
                        verdict.blocks += 1;
                    } else {
                        verdict.damaged.push((log.class, segment.id, block.offset));
                    }
                }
            }
        }
        for stream in self.listing().streams {
            let before: u64 = self.lost(&stream.name);
            // Reading finds what is missing and counts it, in this view only.
            self.export(&stream.name, 0, |_| Ok::<(), ReadError>(()))?;
            let lost = self.lost(&stream.name).saturating_sub(before);
            if lost > 0 {
                verdict.lost.extend(self.gaps(&stream.name));
            }
        }
        for stream in self.listing().streams {
            for (sink, (_, account)) in stream.sinks {
                if !account.balanced() {
                    verdict.unbalanced.push((stream.name.clone(), sink));
                }
            }
        }
        Ok(verdict)
    }

    fn lost(&self, name: &str) -> u64 {
        self.gaps(name)
            .iter()
            .map(|range| range.last - range.first + 1)
            .sum()
    }

    /// What the view counts as lost of a stream's records that are not settled.
    fn gaps(&self, name: &str) -> Vec<LostRange> {
        let inner = self.core.lock();
        let ledger = inner.by_name.get(name).and_then(|id| inner.ledgers.get(id));
        let Some(ledger) = ledger else { return Vec::new() };
        ledger
            .gaps
            .within(1, ledger.last)
            .filter(|(.., gap)| *gap == crate::ledger::Gap::Lost)
            .map(|(first, last, _)| LostRange {
                stream: name.to_owned(),
                first,
                last,
            })
            .collect()
    }
}
