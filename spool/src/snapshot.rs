//! The spool's own figures, for whoever exposes them: streams, sinks, and what the disk takes.

use crate::core::{Core, Inner};
use crate::error::ReadError;
use crate::ledger::{Account, Ledger};
use crate::record::{Class, Durability, Stamp};
use crate::spool::Spool;
use crate::stream::Stream;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Upper bounds of the sync histogram, in seconds: from a good NVMe to a card that stalls.
pub const SYNC_BOUNDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];

/// All figures at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Epoch of the numbering.
    pub epoch: u64,
    /// In the order of their names.
    pub streams: Vec<StreamFigures>,
    /// One per class, critical first.
    pub logs: Vec<LogFigures>,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamFigures {
    /// Its name.
    pub name: String,
    /// Its class.
    pub class: Class,
    /// What it promises.
    pub durability: Durability,
    /// The last number given to a record that can be read.
    pub last: u64,
    /// Records appended.
    pub appended: u64,
    /// Payload bytes on disk, settled ones of living segments included.
    pub bytes: u64,
    /// Payload bytes that are only in memory.
    pub memory_bytes: u64,
    /// By sink; a stream that nobody takes has none.
    pub sinks: BTreeMap<String, SinkFigures>,
}

/// One stream as one sink has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkFigures {
    /// All up to here is settled.
    pub upto: u64,
    /// Numbers up to `upto` that never were records.
    pub unused: u64,
    /// Where every record is.
    pub account: Account,
    /// Records up to `upto` by what became of them.
    pub settled: Account,
    /// Payload bytes that wait for it; a share by count where a segment is partly settled.
    pub waiting_bytes: u64,
    /// Seconds since the oldest record that waits was appended, by the boot clock where it is of this boot.
    pub oldest_seconds: Option<f64>,
}

/// One class's log and its disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogFigures {
    /// The class.
    pub class: Class,
    /// Most bytes on disk.
    pub budget: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Living segments.
    pub segments: u64,
    /// Records that wait for the disk.
    pub queued: u64,
    /// Why producers are turned away, where they are.
    pub refusing: Option<String>,
    /// What writing has cost in this life of the process.
    pub writes: Writes,
}

/// Writes and syncs of one log since the spool was opened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Writes {
    /// Commits: each one write and one sync.
    pub syncs: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes handed to the disk, padding included.
    pub bytes: u64,
    /// Seconds that commits waited for the disk, summed.
    pub seconds: f64,
    /// Commits by how long the disk took: one count per bound of [`SYNC_BOUNDS`], and one for longer.
    pub histogram: [u64; SYNC_BOUNDS.len() + 1],
    /// Writes or syncs that failed.
    pub failures: u64,
}

impl Writes {
    pub(crate) fn commit(&mut self, records: usize, bytes: usize, took: Duration) {
        let seconds = took.as_secs_f64();
        self.syncs += 1;
        self.records += records as u64;
        self.bytes += bytes as u64;
        self.seconds += seconds;
        let index = SYNC_BOUNDS.partition_point(|bound| *bound < seconds);
        self.histogram[index] += 1;
    }
}

impl Spool {
    /// The present figures. Reads at most one block per stream and sink, for the age of what waits.
    pub fn snapshot(&self) -> Snapshot {
        self.core.snapshot()
    }
}

impl Core {
    pub(crate) fn snapshot(self: &Arc<Self>) -> Snapshot {
        let mut streams: Vec<(u32, StreamFigures)> = {
            let inner = self.lock();
            inner.ledgers.keys().map(|id| (*id, inner.figures(*id))).collect()
        };
        streams.sort_by(|a, b| a.1.name.cmp(&b.1.name));
        for (id, figures) in &mut streams {
            let stream = Stream::new(
                self.clone(),
                *id,
                figures.class,
                figures.durability,
                &figures.name,
            );
            for (sink, held) in &mut figures.sinks {
                if held.account.resident > 0 {
                    // Where the disk refuses to read, which the sender tells, the age is unknown.
                    let oldest = stream.oldest(sink).ok().flatten();
                    held.oldest_seconds = oldest.map(|stamp| self.age(&stamp).as_secs_f64());
                }
            }
        }
        let inner = self.lock();
        let logs = Class::ALL.map(|class| {
            let (log, queue) = (&inner.logs[class.index()], &inner.queues[class.index()]);
            LogFigures {
                class,
                budget: log.budget,
                bytes: log.bytes(),
                segments: log.segments.len() as u64,
                queued: queue.items.len() as u64,
                refusing: queue.refusing.as_ref().map(|(error, _)| error.to_string()),
                writes: inner.writes[class.index()].clone(),
            }
        });
        Snapshot {
            epoch: self.epoch,
            streams: streams.into_iter().map(|(_, figures)| figures).collect(),
            logs: logs.into(),
        }
    }

    /// How long ago that was: exact within this boot, else as far as the wall clocks can be placed.
    fn age(&self, stamp: &Stamp) -> Duration {
        let clock = &self.options.clock;
        if stamp.boot == self.options.boot {
            return clock.since_boot().saturating_sub(stamp.since_boot);
        }
        let placed = self.lock().boots.place(stamp);
        Duration::try_from(clock.now().duration_since(placed.at)).unwrap_or_default()
    }
}

impl Stream {
    /// When the oldest record was appended that waits for a sink.
    ///
    /// # Errors
    /// As [`Stream::read`].
    pub fn oldest(&self, sink: &str) -> Result<Option<Stamp>, ReadError> {
        let after = self.acked(sink);
        let first = self.read(after, 0)?.into_iter().next();
        Ok(first.map(|record| record.appended_at))
    }

    /// Records and payload bytes that wait for a sink; bytes are a share by count where a segment is partly settled.
    pub fn waiting(&self, sink: &str) -> (u64, u64) {
        let inner = self.core.lock();
        let Some(ledger) = inner.ledgers.get(&self.id) else {
            return (0, 0);
        };
        let upto = ledger.sink(sink).upto;
        drop(inner);
        self.waiting_after(upto)
    }

    /// Records and payload bytes after a number; bytes are a share by count where it lies within a segment.
    pub fn waiting_after(&self, after: u64) -> (u64, u64) {
        let inner = self.core.lock();
        (
            inner.stored_above(self.id, after),
            inner.bytes_above(self.id, after),
        )
    }

    /// The figures of one sink, without the age of what waits; `None` for a sink that is not attached.
    pub fn sink_figures(&self, sink: &str) -> Option<SinkFigures> {
        let inner = self.core.lock();
        let ledger = inner.ledgers.get(&self.id)?;
        ledger
            .sinks
            .contains_key(sink)
            .then(|| inner.sink_figures(self.id, ledger, sink))
    }
}

impl Inner {
    fn figures(&self, id: u32) -> StreamFigures {
        let ledger = &self.ledgers[&id];
        let segments = self.logs[ledger.class.index()].segments.values();
        let held = self.streams.get(&id).map(|live| &live.memory);
        let sinks = ledger.sinks.keys();
        let sinks = sinks.map(|name| (name.clone(), self.sink_figures(id, ledger, name)));
        StreamFigures {
            name: ledger.name.clone(),
            class: ledger.class,
            durability: ledger.durability,
            last: ledger.last,
            appended: ledger.account("", 0).appended,
            bytes: segments
                .filter_map(|segment| segment.spans.get(&id))
                .map(|span| span.bytes)
                .sum(),
            memory_bytes: held.map_or(0, |memory| {
                memory
                    .held
                    .iter()
                    .map(|held| held.item.payload.len() as u64)
                    .sum()
            }),
            sinks: sinks.collect(),
        }
    }

    fn sink_figures(&self, id: u32, ledger: &Ledger, sink: &str) -> SinkFigures {
        let upto = ledger.sink(sink).upto;
        SinkFigures {
            upto,
            unused: ledger.unused_upto(upto),
            account: ledger.account(sink, self.stored_above(id, upto)),
            settled: ledger.settled(sink),
            waiting_bytes: self.bytes_above(id, upto),
            oldest_seconds: None,
        }
    }

    /// Payload bytes of a stream above `after`, on disk and in memory.
    pub(crate) fn bytes_above(&self, stream: u32, after: u64) -> u64 {
        let Some(ledger) = self.ledgers.get(&stream) else {
            return 0;
        };
        let in_memory: u64 = self.streams.get(&stream).map_or(0, |live| {
            let held = live.memory.held.iter().filter(|held| held.item.seq > after);
            held.map(|held| held.item.payload.len() as u64).sum()
        });
        let segments = self.logs[ledger.class.index()].segments.values();
        let spans = segments.filter_map(|segment| segment.spans.get(&stream));
        let on_disk = spans.filter(|span| span.last > after).map(|span| {
            let all = u128::from(span.last - span.first + 1);
            let above = u128::from(span.last - span.first.max(after + 1) + 1);
            u64::try_from(u128::from(span.bytes) * above / all).unwrap_or(u64::MAX)
        });
        in_memory + on_disk.sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_counted_under_the_first_bound_that_holds_it() {
        let mut writes = Writes::default();
        writes.commit(3, 4096, Duration::from_micros(500));
        writes.commit(1, 4096, Duration::from_micros(501));
        writes.commit(1, 8192, Duration::from_secs(60));
        assert_eq!((writes.syncs, writes.records, writes.bytes), (3, 5, 16_384));
        assert_eq!(&writes.histogram[..2], [1, 1]);
        assert_eq!(writes.histogram.last(), Some(&1));
    }
}
