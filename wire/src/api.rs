//! The people's API under `/v1/`: JSON, a bearer token, times in RFC 3339.
//!
//! | method and path | answer |
//! |---|---|
//! | `GET devices` | [`DeviceSummary`] list |
//! | `GET devices/{name}` | [`DeviceDetail`] |
//! | `DELETE devices/{name}` | revokes its certificates |
//! | `GET workloads?device=` | [`WorkloadRow`] list |
//! | `GET generations?device=` | [`GenerationRow`] list |
//! | `GET events?device=&limit=` | [`EventRow`] list, newest first |
//! | `GET audit?limit=` | [`AuditRow`] list, newest first |
//! | `GET tokens`, `POST tokens` ([`NewToken`]) | [`TokenRow`] list, [`MadeToken`] |
//! | `POST devices/{name}/intents` ([`NewIntent`]) | [`MadeIntent`] |
//! | `GET devices/{name}/logs?namespace=&pod=&...` ([`crate::frame::LogAsk`]) | the output as it comes; why it broke off in the trailer `leeward-error` |

use jiff::Timestamp;
use model::{
    ClassName, DeviceName, Event, Facts, GenerationStatus, IntentKind, Phase, SourceStatus, Status,
    WorkloadStatus,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Trailer of a log stream that broke off: why.
pub const ERROR_TRAILER: &str = "leeward-error";

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// CamelCase word for machines.
    pub reason: String,
    /// One sentence for people, with the remedy where there is one.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.reason, self.message)
        }
    }
}

/// Whether what the hub knows of a device is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// It has a session and answers.
    Connected,
    /// No session.
    Disconnected,
    /// Silent for so long that its last status says nothing of the present.
    Unknown,
    /// Removed; its certificates are refused.
    Revoked,
}

/// A device in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceSummary {
    /// Name.
    pub name: DeviceName,
    /// Hardware class.
    pub class: ClassName,
    /// See [`Link`].
    pub link: Link,
    /// When the device was last heard, by the hub's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// Age of the status, in seconds, by the hub's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_age_seconds: Option<u64>,
    /// What it said it was doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Of the `Ready` condition: `True`, `False`, `Unknown`.
    pub ready: String,
    /// Why.
    pub reason: String,
    /// The same for people.
    pub message: String,
    /// Generations that it holds.
    #[serde(default)]
    pub generation: GenerationStatus,
    /// Version of its agent.
    #[serde(default)]
    pub agent: String,
    /// Facts of the machine.
    #[serde(default)]
    pub facts: Facts,
    /// Workloads ready, and in all.
    pub workloads: (u32, u32),
}

/// Everything of one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceDetail {
    /// As in the list.
    #[serde(flatten)]
    pub summary: DeviceSummary,
    /// When it was enrolled.
    pub enrolled_at: Timestamp,
    /// Its newest status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Certificates that were issued to it and have not expired.
    pub certificates: Vec<CertificateRow>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRow {
    /// Hexadecimal.
    pub serial: String,
    /// `identity` or `operational`.
    pub kind: String,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid to.
    pub not_after: Timestamp,
    /// Refused since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

/// A workload on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadRow {
    /// Where.
    pub device: DeviceName,
    /// Whether what follows is news.
    pub link: Link,
    /// What the device said.
    #[serde(flatten)]
    pub workload: WorkloadStatus,
}

/// Generations of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerationRow {
    /// Where.
    pub device: DeviceName,
    /// Whether what follows is news.
    pub link: Link,
    /// What it runs, tries and fell back from.
    #[serde(flatten)]
    pub generation: GenerationStatus,
    /// What it knows of its source.
    pub source: SourceStatus,
}

/// An event as the hub stored it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRow {
    /// Of which device.
    pub device: DeviceName,
    /// When the hub stored it, by the hub's clock.
    pub received_at: Timestamp,
    /// What the device said.
    #[serde(flatten)]
    pub event: Event,
}

/// An entry of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRow {
    /// When, by the hub's clock.
    pub time: Timestamp,
    /// Who: `person:admin`, `device:pi-5`, `hub`, an address.
    pub who: String,
    /// What was asked: `enrol`, `token.create`, `intent.create`, ...
    pub what: String,
    /// About what: a device, a token's id.
    pub about: String,
    /// `done` or `refused`.
    pub outcome: String,
    /// Details, in one line.
    pub detail: String,
}

/// An enrolment token to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewToken {
    /// Only a device of this name may use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceName>,
    /// Valid for so many seconds; an hour where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// A token, told once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MadeToken {
    /// Names it in lists.
    pub id: String,
    /// The secret itself: give it to one device.
    pub token: String,
    /// Not valid after.
    pub expires_at: Timestamp,
}

/// A token in a list; its secret is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRow {
    /// Names it.
    pub id: String,
    /// Bound to this device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceName>,
    /// Made by.
    pub created_by: String,
    /// Made at.
    pub created_at: Timestamp,
    /// Not valid after.
    pub expires_at: Timestamp,
    /// Spent by this device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<DeviceName>,
    /// Spent at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<Timestamp>,
}

/// An intent to be signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewIntent {
    /// What the device is to do.
    #[serde(flatten)]
    pub kind: IntentKind,
    /// Valid for so many seconds; ten minutes where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// What became of an intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MadeIntent {
    /// Its number at the device.
    pub id: u64,
    /// Sent at once; otherwise it waits for the device until it expires.
    pub sent: bool,
    /// Not followed after.
    pub not_after: Timestamp,
}
