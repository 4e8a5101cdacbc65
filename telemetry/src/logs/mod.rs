//! Logs of files: followed through rotation, made into entries, redacted, bounded, and given as OTLP records that
//! carry their place in the file.

mod assemble;
mod follow;
mod guard;
mod otlp;
mod read;
mod trim;

pub use assemble::{Assembler, Entry, Format, Together};
pub use follow::{Chunk, Follower, is_taken};
pub use guard::{BadRedaction, Limit, Redaction, redact};
pub use otlp::{FILE, UPTO};
pub use read::{Level, Reading, read};
pub use trim::{Trimmed, trim};

use jiff::Timestamp;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes read of one source at a time.
const MOST_READ: usize = 256 << 10;
/// A record is closed at this size.
const RECORD_BYTES: usize = 64 << 10;

/// A log and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is written now.
    pub path: PathBuf,
    /// Of the resource, by OpenTelemetry's semantic conventions: `k8s.pod.name` and the like.
    pub attributes: Vec<(String, String)>,
}

/// How a log is read.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How its lines are written.
    pub format: Format,
    /// What makes one entry.
    pub together: Together,
    /// What must not leave the device.
    pub redactions: Vec<Redaction>,
    /// Entries a second, over a burst of ten seconds' worth.
    pub per_second: u32,
    /// How long an entry may wait for others to share its record.
    pub wait: Duration,
}

/// What goes into the spool: the record and the place that rides with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The file; a source's name for the spool.
    pub file: String,
    /// Everything of the file before this offset is in this record or an earlier one.
    pub upto: u64,
    /// An OTLP `ExportLogsServiceRequest`.
    pub record: Vec<u8>,
}

/// One log on its way into records. Not to be polled from two places; reading blocks for as long as the disk does.
#[derive(Debug)]
pub struct Collector {
    source: Source,
    rules: Rules,
    follower: Follower,
    assembler: Assembler,
    limit: Limit,
    open: Option<Open>,
}

/// The record that is being filled.
#[derive(Debug)]
struct Open {
    file: String,
    upto: u64,
    since: Duration,
    bytes: usize,
    records: Vec<LogRecord>,
}

impl Collector {
    /// Reads `source` by `rules`.
    pub fn new(source: Source, rules: Rules) -> Self {
        Self {
            follower: Follower::new(source.path.clone()),
            assembler: Assembler::new(rules.format, rules.together.clone()),
            limit: Limit::new(rules.per_second),
            open: None,
            source,
            rules,
        }
    }

    /// Reads what is new and gives the records that are complete: full, waited for long enough, or the last ones.
    ///
    /// `now` is the wall's time, `since_boot` one that only rises; `over` says that no more will be written. Each
    /// batch must be taken before the next call, in order, or reading must begin anew from the places taken.
    ///
    /// # Errors
    /// Where the file cannot be read. Nothing is lost by it: the next call goes on.
    pub fn poll(
        &mut self,
        now: Timestamp,
        since_boot: Duration,
        over: bool,
        position: impl Fn(&str) -> Option<u64>,
    ) -> io::Result<Vec<Batch>> {
        let chunks = self.follower.read(MOST_READ, position)?;
        let quiet = chunks.is_empty();
        let mut entries = Vec::new();
        for chunk in &chunks {
            self.assembler.take(chunk, |entry| entries.push(entry));
        }
        self.assembler.settle(over && quiet, |entry| entries.push(entry));
        let mut batches = Vec::new();
        for entry in entries {
            self.add(&entry, now, since_boot, &mut batches);
        }
        let due = |open: &Open| since_boot.saturating_sub(open.since) >= self.rules.wait;
        if self.open.as_ref().is_some_and(due) || (over && quiet) {
            batches.extend(self.close(now));
        }
        Ok(batches)
    }

    /// Whether the log has been read to its end, as far as it was written.
    pub fn is_over(&self) -> bool {
        !self.follower.holds() && self.open.is_none()
    }

    /// See [`Follower::files`].
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.follower.files()
    }

    fn add(&mut self, entry: &Entry, now: Timestamp, since_boot: Duration, batches: &mut Vec<Batch>) {
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.file != entry.file || open.bytes >= RECORD_BYTES)
        {
            batches.extend(self.close(now));
        }
        let open = self.open.get_or_insert_with(|| Open {
            file: entry.file.clone(),
            upto: 0,
            since: since_boot,
            bytes: 0,
            records: Vec::new(),
        });
        // An entry that is turned away is taken too: it must not come again.
        open.upto = entry.upto;
        if !self.limit.admits(since_boot) {
            return;
        }
        let text = String::from_utf8_lossy(&entry.text);
        let reading = read(&redact(&text, &self.rules.redactions));
        let record = otlp::record(entry, reading, nanos(now));
        open.bytes += record.encoded_len();
        open.records.push(record);
    }

    fn close(&mut self, now: Timestamp) -> Option<Batch> {
        let mut open = self.open.take()?;
        let dropped = self.limit.dropped();
        if dropped > 0 {
            open.records.push(self.told(dropped, open.upto, &open.file, now));
        }
        let record = otlp::encode(&self.source, &open.file, open.records);
        Some(Batch {
            file: open.file,
            upto: open.upto,
            record,
        })
    }

    /// What was turned away is an entry itself.
    fn told(&self, dropped: u64, upto: u64, file: &str, now: Timestamp) -> LogRecord {
        let message = format!(
            "{dropped} entries dropped: over {} a second",
            self.rules.per_second
        );
        let mut reading = Reading {
            level: Some(Level::Warn),
            message,
            ..Reading::default()
        };
        reading
            .fields
            .insert("leeward.dropped".to_owned(), dropped.into());
        let entry = Entry {
            time: Some(now),
            stream: None,
            text: Vec::new(),
            file: file.to_owned(),
            upto,
        };
        otlp::record(&entry, reading, nanos(now))
    }
}

fn nanos(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}
