//! Something that happened, told once.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How much an event matters; `Critical` is delivered before the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// Ordinary progress.
    Normal,
    /// Something that a person should look at.
    Warning,
    /// Something that a person must know.
    Critical,
}

/// A record of the `events` stream; fields follow Kubernetes' `Event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When, by the device's clock.
    pub time: Timestamp,
    /// See [`Severity`].
    pub severity: Severity,
    /// CamelCase word for machines: `Pulled`, `Started`, `BackOff`, `RolledBack`.
    pub reason: String,
    /// What it is about: an object key, `device`, `source`.
    pub about: String,
    /// One sentence for people.
    pub message: String,
    /// Generation in force, short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
}
