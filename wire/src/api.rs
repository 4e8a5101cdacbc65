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
//! | `GET forwarders` | [`ForwarderRow`] list |
//! | `POST query` ([`QueryAsk`]) | [`QueryAnswer`]; reads only |
//! | `GET query/tables` | [`QueryTable`] list: what a query may name |
//! | `GET tokens`, `POST tokens` ([`NewToken`]) | [`TokenRow`] list, [`MadeToken`] |
//! | `DELETE tokens/{id}` | spends what is left of it |
//! | `GET authority`, `POST authority` ([`NewStep`]) | [`AuthorityState`] |
//! | `POST devices/{name}/intents` ([`NewIntent`]) | [`MadeIntent`] |
//! | `GET devices/{name}/logs?namespace=&pod=&...` ([`crate::frame::LogAsk`]) | the output as it comes; why it broke off in the trailer `leeward-error` |
//! | `GET rollouts?limit=`, `GET rollouts/{id}` | [`model::Rollout`] list, newest first; one of them |
//! | `POST rollouts` ([`NewRollout`]), `POST rollouts/{id}` ([`RolloutAct`]) | [`model::Rollout`] |
//! | `GET rollout-policy`, `PUT` ([`model::RolloutPolicy`]), `DELETE` | [`PolicyState`] |
//! | `POST login-links` | [`LoginLink`]: opens the dashboard for the token's owner |

use jiff::Timestamp;
use model::{
    ClassName, DeviceName, Event, Facts, GenerationStatus, IntentKind, Phase, Revision, RolloutPolicy,
    Status, WorkloadStatus,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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

/// The state of a device's link to the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// It has a session and answers.
    Connected,
    /// It has a session and says nothing: what it said last tells nothing of the present.
    Silent,
    /// It has no session.
    Disconnected,
    /// It has never had one.
    Never,
}

/// A device in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceSummary {
    /// Name.
    pub name: DeviceName,
    /// Hardware class.
    pub class: ClassName,
    /// Where it stands.
    pub site: String,
    /// Set at enrolment.
    pub labels: BTreeMap<String, String>,
    /// See [`Link`].
    pub link: Link,
    /// `Ready`, `Progressing`, ...; `Unknown` where it was silent for too long, `Revoked` where it is shut out.
    pub health: String,
    /// CamelCase word for why.
    pub reason: String,
    /// The same for people.
    pub message: String,
    /// When the device was last heard, by the hub's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// Seconds since its newest status came, by the hub's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_age_seconds: Option<u64>,
    /// What it said it was doing, however long ago.
    #[serde(default, flatten)]
    pub phase: Option<Phase>,
    /// Generations that it holds.
    #[serde(default)]
    pub generation: GenerationStatus,
    /// Version of its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Records that wait in its spool, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u64>,
    /// Whether anything is missing of what it sent, where it has accounted for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Facts of the machine.
    #[serde(default)]
    pub facts: Facts,
    /// Workloads as wanted.
    pub workloads_ready: u32,
    /// Workloads in all.
    pub workloads: u32,
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
    /// When it was shut out, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<(Timestamp, String)>,
    /// Its newest status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Certificates that were issued to it, newest first.
    pub certificates: Vec<CertificateRow>,
}

/// A device's account of its records, held against what the hub has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// When the device accounted, by the hub's clock.
    pub at: Timestamp,
    /// Records that the hub acknowledged once and does not have.
    pub missing: u64,
    /// Streams whose account does not balance at the device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unbalanced: Vec<String>,
    /// Payload bytes that waited at the device.
    pub waiting_bytes: u64,
    /// About how long it needed for them then, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    /// Stream by stream.
    pub streams: Vec<ProofRow>,
}

/// One stream of a [`Proof`]; `acked`, `gone`, `held` and `givenUp` are of the numbers that the hub had acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProofRow {
    /// Its name.
    pub stream: String,
    /// Records that the device ever appended.
    pub appended: u64,
    /// Delivered, as the device counts.
    pub acked: u64,
    /// Given up or lost at the device.
    pub gone: u64,
    /// Still at the device.
    pub waiting: u64,
    /// At the hub.
    pub held: u64,
    /// Known to the hub as given up.
    pub given_up: u64,
    /// Acknowledged once and not at the hub.
    pub missing: u64,
    /// Whether the device accounts for every record.
    pub balanced: bool,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRow {
    /// Hexadecimal.
    pub serial: String,
    /// `identity` or `operational`.
    pub kind: String,
    /// Issued at.
    pub issued_at: Timestamp,
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
    /// The device is believed now; otherwise this is what it said last.
    pub fresh: bool,
    /// Seconds since the device said so.
    pub age_seconds: u64,
    /// What the device said.
    #[serde(flatten)]
    pub workload: WorkloadStatus,
}

/// A generation that a device has told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerationRow {
    /// Where.
    pub device: DeviceName,
    /// Short id.
    pub id: String,
    /// What it was rendered from, where told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// First told, by the device's clock.
    pub first_seen: Timestamp,
    /// Last told, by the device's clock.
    pub last_seen: Timestamp,
    /// `current`, `lastGood`, `onTrial`, `failed`, `superseded`.
    pub outcome: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
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
    /// 1 for the first, without gaps.
    pub sequence: u64,
    /// When, by the hub's clock.
    pub time: Timestamp,
    /// Person, device, `hub`, or an address.
    pub who: String,
    /// `device.enrol`, `token.create`, `intent.pause`, ...
    pub action: String,
    /// What it was done to.
    pub target: String,
    /// `ok`, or why it was refused.
    pub outcome: String,
    /// Anything more.
    pub detail: String,
    /// Hash of this row and of all before it.
    pub hash: String,
}

/// An enrolment token to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewToken {
    /// Only devices of this class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassName>,
    /// Site of the devices that join with it; `default` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Labels of the devices that join with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// A device may take over a name that is enrolled: a board was replaced.
    #[serde(default)]
    pub replaces: bool,
    /// How many devices may join with it; one where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// Valid for so many seconds; an hour where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// The hub's authorities: whom devices and people trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityState {
    /// All that are trusted.
    pub authorities: Vec<AuthorityRow>,
    /// When the last step of a roll-over was made.
    pub changed_at: Timestamp,
    /// Devices, not shut out, that hold no certificate of the issuing authority yet: they would be, once the old one is
    /// retired.
    pub behind: Vec<DeviceName>,
}

/// An authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityRow {
    /// `issuing`; `next`: trusted, and to issue soon; `old`: trusted, and issues no more.
    pub role: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
    /// Valid to.
    pub not_after: Timestamp,
    /// PEM.
    pub certificate: String,
}

/// A step of the authority's roll-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewStep {
    /// Which.
    pub step: RollOver,
    /// Also where that shuts devices out.
    #[serde(default)]
    pub force: bool,
}

/// See [`NewStep`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RollOver {
    /// Make the next authority; everybody learns to trust it.
    Prepare,
    /// It issues from now on.
    Activate,
    /// The old one is trusted no more.
    Retire,
}

/// A token, told once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MadeToken {
    /// Its number, in lists.
    pub id: u64,
    /// The secret itself: give it to one device.
    pub token: String,
    /// Not valid after.
    pub expires_at: Timestamp,
}

/// A token in a list; its secret is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRow {
    /// Its number.
    pub id: u64,
    /// See [`NewToken::class`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassName>,
    /// See [`NewToken::site`].
    pub site: String,
    /// See [`NewToken::labels`].
    pub labels: BTreeMap<String, String>,
    /// See [`NewToken::replaces`].
    pub replaces: bool,
    /// Devices that may still join.
    pub uses_left: u32,
    /// Made by.
    pub created_by: String,
    /// Made at.
    pub created_at: Timestamp,
    /// Not valid after.
    pub expires_at: Timestamp,
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

/// A link to the dashboard that opens one session, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginLink {
    /// Path at the hub's address, with a secret in it.
    pub path: String,
    /// Until when it opens.
    pub expires_at: Timestamp,
}

/// A question in SQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueryAsk {
    /// One statement that reads.
    pub sql: String,
    /// Rows at most; a thousand where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryAnswer {
    /// In order.
    pub columns: Vec<QueryColumn>,
    /// A value for each column; times in RFC 3339, maps as objects.
    pub rows: Vec<Vec<serde_json::Value>>,
    /// There would have been more rows.
    pub truncated: bool,
}

/// A column of a table or of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// What it says, where it is of a table.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
}

/// A table that a query may name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryTable {
    /// Its name.
    pub name: String,
    /// What a row of it is.
    pub about: String,
    /// In order.
    pub columns: Vec<QueryColumn>,
}

/// A forwarder of telemetry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForwarderRow {
    /// Its name.
    pub name: String,
    /// `remoteWrite`, `loki`, `opensearch`, `otlp`, `alertmanager`.
    pub kind: String,
    /// Its receiver.
    pub url: String,
    /// What it sends.
    pub streams: Vec<String>,
    /// `UpToDate`, `Sending`, or `Waiting`: its receiver takes nothing now.
    pub state: String,
    /// Why it waits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// Records that wait.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Seconds since the oldest of them came.
    pub lag_seconds: u64,
    /// Records that its receiver has.
    pub sent: u64,
    /// Records that were too old or too many before they were sent.
    pub dropped: u64,
    /// Records, or entries of them, that its receiver would not take.
    pub set_aside: u64,
    /// When something was last taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sent_at: Option<Timestamp>,
    /// The newest records that its receiver would not take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub newest_set_aside: Vec<ForwarderAside>,
}

/// A record that a receiver would not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForwarderAside {
    /// Whose.
    pub device: String,
    /// Of which stream.
    pub stream: String,
    /// Its number there.
    pub sequence: u64,
    /// When it was set aside.
    pub at: Timestamp,
    /// What the receiver said.
    pub why: String,
}

/// How revisions are rolled out; everything is absent where devices follow their source freely.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyState {
    /// See [`RolloutPolicy`].
    pub policy: Option<RolloutPolicy>,
    /// Who set it.
    pub set_by: Option<String>,
    /// When.
    pub set_at: Option<Timestamp>,
}

/// What is to be rolled out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewRollout {
    /// First digits of a commit, seven at least.
    pub revision: String,
}

/// What to do with a roll-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RolloutAct {
    /// Admit nobody until resumed.
    Pause,
    /// Go on, over what has failed or is away so far.
    Resume,
    /// End it; who was admitted stays so.
    Abort,
}
