//! What is appended and what is read back.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Where a class of records stands when disk or uplink is short; each class has its own log and its own budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Audit, alerts, application records.
    Critical,
    /// Status, events.
    Normal,
    /// Logs, metrics, traces.
    Bulk,
}

impl Class {
    /// All classes, first served first.
    pub const ALL: [Class; 3] = [Class::Critical, Class::Normal, Class::Bulk];

    /// The class's name, which is also its folder's.
    pub fn name(self) -> &'static str {
        match self {
            Class::Critical => "critical",
            Class::Normal => "normal",
            Class::Bulk => "bulk",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a stream promises; shown to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// On disk before the producer is answered: nothing answered is ever lost.
    Strict,
    /// The source keeps the data (a log file, the journal) and can be read again from a position: held in memory,
    /// the position advanced when the receiver has acknowledged.
    Replayable,
    /// In memory first, on disk when not acknowledged in time: a crash loses at most that time.
    Sampled,
}

/// Identifies one boot of the machine, so that boot times of different boots are never compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootId(pub [u8; 16]);

impl BootId {
    /// This boot, as the kernel names it; all zeros where it does not.
    pub fn current() -> Self {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self::parse(&text).unwrap_or_default()
    }

    fn parse(text: &str) -> Option<Self> {
        let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
        u128::from_str_radix(&digits, 16)
            .ok()
            .map(|number| Self(number.to_be_bytes()))
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootId({self})")
    }
}

impl Serialize for BootId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BootId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a boot id is 32 hexadecimal digits"))
    }
}

/// When a record was appended, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stamp {
    /// Wall time as the machine believed it then; may be wrong before the clock was set.
    pub wall: Timestamp,
    /// The boot it belongs to.
    pub boot: BootId,
    /// Time since that boot; rises within a boot whatever the wall clock does.
    pub since_boot: Duration,
}

/// One record of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number in the stream: rising, never used twice in an epoch; numbers may be left out.
    pub seq: u64,
    /// What was appended, untouched.
    pub payload: Vec<u8>,
    /// When.
    pub appended_at: Stamp,
}
