//! Records that a receiver refuses for good: kept apart where people can look at them, so that they block nothing.

use crate::error::{AppendError, ReadError};
use crate::notice::Notice;
use crate::record::{Class, Durability};
use crate::spool::{Spool, check_name};
use crate::stream::Stream;
use serde::{Deserialize, Serialize};

/// A record set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Aside {
    /// The stream it was in.
    pub stream: String,
    /// Its number there.
    pub seq: u64,
    /// Who refused it.
    pub sink: String,
    /// What it answered.
    pub reason: String,
    /// What had been appended.
    #[serde(skip)]
    pub payload: Vec<u8>,
}

impl Aside {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let mut aside: Self = serde_json::from_slice(&bytes[..end]).ok()?;
        aside.payload = bytes[end + 1..].to_vec();
        Some(aside)
    }
}

/// The stream that copies of a class go to; it drops its oldest when the class is full.
pub(crate) fn stream_name(class: Class) -> String {
    format!("spool.aside.{class}")
}

impl Stream {
    /// Gives a record up for one sink that refuses it for good, with the sink's reason: a copy is kept apart, and the
    /// record counts as set aside. Blocks until the copy is on disk.
    ///
    /// The record is set aside even where the disk has no room for the copy: a poison record never blocks a stream.
    ///
    /// # Errors
    /// If the sink's name cannot be stored, or the record cannot be read now.
    pub fn set_aside(&self, sink: &str, seq: u64, reason: &str) -> Result<(), SetAsideError> {
        check_name(sink)?;
        let Some(record) = self
            .read(seq.saturating_sub(1), 0)?
            .pop()
            .filter(|record| record.seq == seq)
        else {
            return Ok(());
        };
        let aside = Aside {
            stream: self.name().to_owned(),
            seq,
            sink: sink.to_owned(),
            reason: reason.to_owned(),
            payload: record.payload,
        };
        let kept = self
            .beside(&stream_name(self.class()))
            .append(&aside.encode(), None)
            .and_then(|pending| pending.wait());
        if let Err(err) = &kept {
            tracing::error!(stream = aside.stream, seq, error = %err, "spool: no copy of a record set aside");
        }
        self.mark_aside(
            sink,
            seq,
            Notice::SetAside {
                stream: aside.stream,
                seq,
                sink: aside.sink,
                reason: aside.reason,
                kept: kept.is_ok(),
            },
        );
        Ok(())
    }
}

impl Spool {
    /// Records set aside, oldest first, up to about `max_bytes`, beginning after the number `after` of their own
    /// stream; each with its number there.
    ///
    /// # Errors
    /// If the file system refuses to read.
    pub fn aside(&self, class: Class, after: u64, max_bytes: usize) -> Result<Vec<(u64, Aside)>, ReadError> {
        let Ok(stream) = self.stream(&stream_name(class), Durability::Strict, class) else {
            return Ok(Vec::new());
        };
        let records = stream.read(after, max_bytes)?;
        Ok(records
            .iter()
            .filter_map(|record| Some((record.seq, Aside::decode(&record.payload)?)))
            .collect())
    }
}

/// A record could not be set aside.
#[derive(Debug, thiserror::Error)]
pub enum SetAsideError {
    /// The sink's name.
    #[error(transparent)]
    Name(#[from] AppendError),
    /// The record.
    #[error(transparent)]
    Read(#[from] ReadError),
}
