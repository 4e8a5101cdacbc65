//! The pod's events: JSON lines with an index, written by one process, read by any.

use jiff::Timestamp;
use model::{Event, Severity};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// A journal longer than this loses its oldest entries, read or not.
const MOST_BYTES: u64 = 256 << 10;
/// So many are kept then.
const KEPT: u64 = 400;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) position: u64,
    pub(crate) event: Event,
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    last: u64,
    /// Length of the whole lines; what lies behind is a write that failed half-way.
    length: u64,
    /// Events that a full disk has cost.
    lost: u64,
}

impl Journal {
    /// Opens or makes the journal and goes on after its last whole line.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let (entries, length) = whole_lines(&text);
        let last = entries.last().map_or(0, |entry| entry.position);
        file.set_len(length)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            last,
            length,
            lost: 0,
        })
    }

    /// Writes an event; a full disk costs the event, which is counted and told once there is room again.
    pub(crate) fn tell(&mut self, event: Event) {
        if self.lost > 0 {
            let told = Event {
                time: event.time,
                severity: Severity::Warning,
                reason: "EventsLost".to_owned(),
                about: event.about.clone(),
                message: format!("{} events could not be written to disk", self.lost),
                generation: None,
            };
            if self.write(told).is_err() {
                self.lost += 1;
                return;
            }
            self.lost = 0;
        }
        if self.write(event).is_err() {
            self.lost += 1;
        }
    }

    fn write(&mut self, event: Event) -> io::Result<()> {
        let durable = event.severity > Severity::Normal;
        let entry = Entry {
            position: self.last + 1,
            event,
        };
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        self.file.seek(SeekFrom::Start(self.length))?;
        if let Err(err) = self.file.write_all(&line) {
            // A half line would run into the next.
            self.file.set_len(self.length)?;
            return Err(err);
        }
        self.length += line.len() as u64;
        self.last = entry.position;
        if durable {
            self.file.sync_data()?;
        }
        if self.length > MOST_BYTES {
            // A container that crashes for months must not fill the disk while nobody reads.
            self.forget(self.last.saturating_sub(KEPT))?;
        }
        Ok(())
    }

    /// Drops all lines up to and with `position`, keeping the count.
    pub(crate) fn forget(&mut self, position: u64) -> io::Result<()> {
        let path = &self.path;
        let kept: Vec<u8> = read(path)?
            .iter()
            // The last line stays: it carries the count.
            .filter(|entry| entry.position > position || entry.position == self.last)
            .flat_map(|entry| {
                let mut line = serde_json::to_vec(entry).unwrap_or_default();
                line.push(b'\n');
                line
            })
            .collect();
        kit::disk::replace(path, &kept)?;
        self.file = OpenOptions::new().read(true).write(true).open(path)?;
        self.length = kept.len() as u64;
        Ok(())
    }

    /// Bytes on disk.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }
}

/// The whole lines of a journal; one that is absent is empty.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Entry>> {
    Ok(whole_lines(&kit::disk::read_if_there(path)?.unwrap_or_default()).0)
}

/// An event about a pod.
pub(crate) fn about(pod: &str, time: Timestamp, severity: Severity, reason: &str, message: String) -> Event {
    Event {
        time,
        severity,
        reason: reason.to_owned(),
        about: format!("Pod/{pod}"),
        message,
        generation: None,
    }
}

fn whole_lines(text: &[u8]) -> (Vec<Entry>, u64) {
    let mut entries = Vec::new();
    let mut length = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let Some(entry) = line
            .strip_suffix(b"\n")
            .and_then(|line| serde_json::from_slice(line).ok())
        else {
            break;
        };
        entries.push(entry);
        length += line.len() as u64;
    }
    (entries, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: &str) -> Event {
        about(
            "default/a",
            Timestamp::UNIX_EPOCH,
            Severity::Normal,
            "Started",
            message.to_owned(),
        )
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let mut journal = Journal::open(&path).unwrap();
        journal.tell(event("one"));
        let first = journal.len();
        journal.tell(event("two"));
        let whole = std::fs::read(&path).unwrap();
        for cut in first..journal.len() {
            std::fs::write(&path, &whole[..usize::try_from(cut).unwrap()]).unwrap();
            let mut again = Journal::open(&path).unwrap();
            again.tell(event("three"));
            let read: Vec<_> = read(&path)
                .unwrap()
                .into_iter()
                .map(|e| (e.position, e.event.message))
                .collect();
            assert_eq!(
                read,
                [(1, "one".to_owned()), (2, "three".to_owned())],
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_journal_that_nobody_reads_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let mut journal = Journal::open(&path).unwrap();
        for _ in 0..3000 {
            journal.tell(event("again"));
        }
        assert!(std::fs::metadata(&path).unwrap().len() <= MOST_BYTES);
        let entries = read(&path).unwrap();
        assert_eq!(entries.last().unwrap().position, 3000);
        assert!(
            entries
                .windows(2)
                .all(|pair| pair[0].position + 1 == pair[1].position)
        );
    }

    #[test]
    fn forgetting_keeps_the_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let mut journal = Journal::open(&path).unwrap();
        for message in ["one", "two", "three"] {
            journal.tell(event(message));
        }
        journal.forget(3).unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
        let mut journal = Journal::open(&path).unwrap();
        journal.tell(event("four"));
        assert_eq!(read(&path).unwrap().last().unwrap().position, 4);
    }
}
