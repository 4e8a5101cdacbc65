//! Logs of files, of systemd's journal and of syslog senders: followed through rotation, made into entries, redacted,
//! bounded, and given as OTLP records that carry their place in their source.

mod assemble;
mod follow;
mod guard;
pub mod journal;
mod otlp;
mod pack;
mod read;
pub mod syslog;
mod trim;

pub use assemble::{Assembler, Entry, Format, Said, Together};
pub use follow::{Chunk, Follower, is_compressed, is_taken};
pub use guard::{BadRedaction, Redaction, redact};
pub use otlp::{FILE, UPTO};
pub use pack::{Attributes, Packer};
pub use read::{Level, Reading, read};
pub use trim::{Trimmed, trim};

use jiff::Timestamp;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes read of one source at a time.
const MOST_READ: usize = 256 << 10;

/// A log and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is written now.
    pub path: PathBuf,
    /// `k8s.pod.name` and the like.
    pub attributes: Attributes,
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
    /// Entries a second of each source, over a burst of ten seconds' worth.
    pub per_second: u32,
    /// How long an entry may wait for others to share its record.
    pub wait: Duration,
}

/// What goes into the spool: the record and the place that rides with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The file, or the journal's numbering; a source's name for the spool. Empty where a source cannot be read again.
    pub file: String,
    /// Everything of the file before this offset is in this record or an earlier one.
    pub upto: u64,
    /// An OTLP `ExportLogsServiceRequest`.
    pub record: Vec<u8>,
}

/// One log on its way into records. Not to be polled from two places; reading blocks for as long as the disk does.
#[derive(Debug)]
pub struct Collector {
    follower: Follower,
    assembler: Assembler,
    packer: Packer,
}

impl Collector {
    /// Reads `source` by `rules`.
    pub fn new(source: Source, rules: Rules) -> Self {
        Self {
            packer: Packer::new(source.attributes, &rules),
            follower: Follower::new(source.path),
            assembler: Assembler::new(rules.format, rules.together),
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
            // What was there before anybody read it is no flood.
            let free = self.follower.was_there(&entry.file, entry.upto);
            self.packer.add(entry, free, now, since_boot, &mut batches);
        }
        batches.extend(self.packer.due(now, since_boot));
        if over && quiet {
            batches.extend(self.packer.close(now));
        }
        Ok(batches)
    }

    /// Whether the log has been read to its end, as far as it was written.
    pub fn is_over(&self) -> bool {
        !self.follower.holds() && self.packer.is_empty()
    }

    /// Where the log is.
    pub fn path(&self) -> &Path {
        self.follower.path()
    }

    /// See [`Follower::files`].
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.follower.files()
    }
}

fn nanos(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}
