//! What the spool tells about itself, as records of its own stream.

use crate::ledger::{DropReason, Gap};
use crate::record::Class;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The stream of notices; critical and strict. Whoever sends a device's streams sends this one too.
pub const NOTICES: &str = "spool.notices";

/// Most notices waiting for a disk that takes none; the accounts hold the counts of what is not told.
const MOST: usize = 1000;
/// How long notices that the log refused are not tried again.
const REST: Duration = Duration::from_secs(5);

/// One notice, stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "what")]
pub enum Notice {
    /// Records were given up by policy.
    #[serde(rename_all = "camelCase")]
    Dropped {
        /// The stream.
        stream: String,
        /// The first number.
        first: u64,
        /// The last.
        last: u64,
        /// How many records.
        count: u64,
        /// Why.
        reason: DropReason,
    },
    /// The disk lost records that it had confirmed.
    #[serde(rename_all = "camelCase")]
    Lost {
        /// The stream.
        stream: String,
        /// The first number.
        first: u64,
        /// The last.
        last: u64,
        /// How many records.
        count: u64,
    },
    /// An unfinished commit was cut away after a crash; nothing in it had been confirmed.
    #[serde(rename_all = "camelCase")]
    Torn {
        /// The log.
        class: Class,
        /// The segment.
        segment: u64,
        /// Where, in bytes.
        offset: u64,
    },
    /// A write or sync failed, and the log went on in a fresh segment.
    #[serde(rename_all = "camelCase")]
    Poisoned {
        /// The log.
        class: Class,
        /// What the system answered.
        reason: String,
    },
    /// A receiver refused a record for good, and it was kept apart.
    #[serde(rename_all = "camelCase")]
    SetAside {
        /// The stream.
        stream: String,
        /// The record's number.
        seq: u64,
        /// Who refused it.
        sink: String,
        /// What it answered.
        reason: String,
        /// Whether there was room for the copy.
        kept: bool,
    },
    /// A producer left something out before it became a record: a sampler, say.
    #[serde(rename_all = "camelCase")]
    LeftOut {
        /// The stream that it would have gone to.
        stream: String,
        /// How much of it.
        count: u64,
        /// What was counted: spans, say.
        unit: String,
        /// Why.
        reason: String,
    },
}

impl Notice {
    pub(crate) fn of_gap(stream: &str, first: u64, last: u64, count: u64, gap: Gap) -> Option<Self> {
        let stream = stream.to_owned();
        match gap {
            Gap::Unused => None,
            Gap::Lost => Some(Notice::Lost {
                stream,
                first,
                last,
                count,
            }),
            Gap::Dropped(reason) => Some(Notice::Dropped {
                stream,
                first,
                last,
                count,
                reason,
            }),
        }
    }
}

/// Notices not stored yet.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    waiting: VecDeque<Notice>,
    refused_at: Option<Instant>,
}

impl Notices {
    pub(crate) fn add(&mut self, notice: Notice) {
        // A long drop, segment by segment, is one notice while it waits.
        if let (
            Some(Notice::Dropped {
                stream,
                last,
                count,
                reason,
                ..
            }),
            Notice::Dropped {
                stream: also,
                first: next,
                last: end,
                count: more,
                reason: why,
            },
        ) = (self.waiting.back_mut(), &notice)
            && (&*stream, *reason, *last + 1) == (also, *why, *next)
        {
            *last = *end;
            *count += more;
        } else if self.waiting.len() < MOST {
            self.waiting.push_back(notice);
        }
    }

    /// Takes back what the log refused.
    pub(crate) fn put_back(&mut self, payload: &[u8]) {
        self.refused_at = Some(Instant::now());
        if let Ok(notice) = serde_json::from_slice(payload) {
            self.add(notice);
        }
    }

    /// All that are to be stored now, or when that is.
    pub(crate) fn take(
        &mut self,
        hurry_since: Option<Instant>,
        now: Instant,
    ) -> Result<VecDeque<Notice>, Instant> {
        if let Some(refused) = self.refused_at
            && !self.waiting.is_empty()
            && now < refused + REST
            && hurry_since.is_none_or(|since| since < refused)
        {
            return Err(refused + REST);
        }
        self.refused_at = None;
        Ok(std::mem::take(&mut self.waiting))
    }
}
