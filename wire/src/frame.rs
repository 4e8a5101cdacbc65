//! The frames of a session. Headers are JSON; payloads ride behind them as they are, never escaped or recoded.

use crate::Versions;
use bytes::Bytes;
use jiff::Timestamp;
use model::{ClassName, DeviceName, Signed, Status};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// From the device to the hub.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "camelCase")]
pub enum ToHub {
    /// The first frame of a session.
    Hello(Box<Hello>),
    /// Records of one stream.
    Records(Records),
    /// A part of an answer to [`ToDevice::Ask`].
    Chunk(Chunk),
    /// The end of an answer.
    Done(Done),
    /// An intent was verified and its number is on disk; it need not be sent again.
    Accepted {
        /// Number of the intent.
        intent: u64,
    },
    /// Where every record is that the device ever had for the hub.
    Accounts(Accounts),
    /// The answer to [`ToDevice::Ping`]; may be left out while other frames go.
    Pong {
        /// As in the ping.
        nonce: u64,
    },
}

/// From the hub to the device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "camelCase")]
pub enum ToDevice {
    /// The answer to [`ToHub::Hello`].
    Welcome(Box<Welcome>),
    /// Everything up to `upto` is stored; it may be forgotten.
    Ack(Ack),
    /// A question; the device answers with chunks and a `Done` of the same id.
    Ask(Ask),
    /// The answer may go on by so many bytes.
    More {
        /// Which question.
        id: u64,
        /// Added to what was granted before.
        bytes: u32,
    },
    /// The one who asked has gone.
    Cancel {
        /// Which question.
        id: u64,
    },
    /// A signed [`model::Intent`].
    Intent {
        /// To be verified before it is read.
        signed: Signed,
    },
    /// Are you there?
    Ping {
        /// To be sent back.
        nonce: u64,
    },
    /// The hub ends the session.
    Bye {
        /// Why, in one sentence.
        reason: String,
        /// Come back after about this many seconds.
        #[serde(default, rename = "retryAfter", skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
}

/// Who calls, and where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Protocol versions that the device speaks.
    pub versions: Versions,
    /// As in its certificate; another name is refused.
    pub device: DeviceName,
    /// Its hardware class.
    pub class: ClassName,
    /// Version of the agent.
    pub agent: String,
    /// Random id of this boot.
    pub boot_id: String,
    /// Fresh random text; comes back signed with the hub's time.
    pub nonce: String,
    /// The trust bundle that the device holds; the hub sends a newer one.
    #[serde(default)]
    pub bundle_serial: u64,
    /// The last intent that the device accepted.
    #[serde(default)]
    pub last_intent: u64,
    /// The newest status, shown at once while older ones are still on their way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Where `status` stands in the `status` stream, so that older records do not hide it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_at: Option<Cursor>,
}

/// What the hub holds of the device, and how they keep each other awake.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The protocol version of this session.
    pub version: u32,
    /// Last stored record of each stream.
    pub cursors: BTreeMap<String, Cursor>,
    /// The hub pings this often, in milliseconds; three intervals of silence mean that the peer is gone.
    pub heartbeat_ms: u64,
    /// The hub's time with the nonce of the hello: see `identity`'s time keeper.
    pub time: Signed,
    /// A newer trust bundle than the device holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Signed>,
}

/// A place in a stream: its epoch, and the last sequence number that counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// New at each loss of the device's spool.
    pub epoch: u64,
    /// Last sequence number; 0 for none.
    pub upto: u64,
}

/// Consecutive records of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Records {
    /// Name of the stream: `status`, `events`, ...
    pub stream: String,
    /// See [`Cursor::epoch`].
    pub epoch: u64,
    /// Sequence number of the first record; the others follow without gaps.
    pub first: u64,
    /// First and last numbers of what was dropped or lost and will never come. A batch that starts behind the hub's cursor
    /// says the same of what is between.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<(u64, u64)>,
    /// First and last numbers that never were records, so that nothing is missing where they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unused: Vec<(u64, u64)>,
    /// These come before others with lower numbers, which are still to come: what lies between is not lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ahead: bool,
    sizes: Vec<u32>,
    #[serde(skip)]
    records: Vec<Bytes>,
}

impl Records {
    /// Makes a batch of opaque payloads.
    pub fn new(stream: &str, epoch: u64, first: u64, records: Vec<Bytes>) -> Self {
        let sizes = records
            .iter()
            .map(|r| u32::try_from(r.len()).unwrap_or(u32::MAX))
            .collect();
        Self {
            stream: stream.to_owned(),
            epoch,
            first,
            lost: Vec::new(),
            unused: Vec::new(),
            ahead: false,
            sizes,
            records,
        }
    }

    /// The first and the second half; none for fewer than two records.
    pub(crate) fn halves(&self) -> Option<(Self, Self)> {
        let middle = self.records.len() / 2;
        if middle == 0 {
            return None;
        }
        let (first, second) = self.records.split_at(middle);
        let mut before = Self::new(&self.stream, self.epoch, self.first, first.to_vec());
        before.lost.clone_from(&self.lost);
        before.unused.clone_from(&self.unused);
        before.ahead = self.ahead;
        let mut after = Self::new(
            &self.stream,
            self.epoch,
            self.first + middle as u64,
            second.to_vec(),
        );
        after.ahead = self.ahead;
        Some((before, after))
    }

    /// The same numbers without their content, as lost.
    pub(crate) fn told_lost(&self) -> Self {
        let mut told = Self::new(&self.stream, self.epoch, self.first, Vec::new());
        told.lost.clone_from(&self.lost);
        told.unused.clone_from(&self.unused);
        told.ahead = self.ahead;
        told.lost.push((self.first, self.last()));
        told
    }

    /// The payloads.
    pub fn records(&self) -> &[Bytes] {
        &self.records
    }

    /// Sequence number of the last record; `first - 1` for an empty batch.
    pub fn last(&self) -> u64 {
        (self.first + self.records.len() as u64).saturating_sub(1)
    }
}

/// See [`ToHub::Chunk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Which question.
    pub id: u64,
    /// Opaque bytes.
    #[serde(skip)]
    pub data: Bytes,
}

/// See [`ToHub::Done`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Which question.
    pub id: u64,
    /// Why the answer is not whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// See [`ToDevice::Ack`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// Which stream.
    pub stream: String,
    /// In which epoch.
    pub epoch: u64,
    /// Last record that is stored.
    pub upto: u64,
    /// The last of the records that this answers, where they were sent [`Records::ahead`] of their order; else 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ahead: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// See [`ToHub::Accounts`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accounts {
    /// Epoch of all of them.
    pub epoch: u64,
    /// One per stream.
    pub streams: Vec<StreamAccount>,
    /// Payload bytes that wait, of all streams.
    pub waiting_bytes: u64,
    /// About how many seconds until they are delivered, where they are moving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

/// What became of a stream's records as the device counts: of those up to `upto`, which the hub has acknowledged, and of
/// all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamAccount {
    /// Name of the stream.
    pub stream: String,
    /// All numbers up to here are settled.
    pub upto: u64,
    /// Up to there: delivered.
    pub acked: u64,
    /// Up to there: given up, or lost by the disk.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gone: u64,
    /// Up to there: numbers that never were records.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unused: u64,
    /// Records ever appended: `acked + gone + lapsed + waiting`.
    pub appended: u64,
    /// After `upto`: given up or lost already.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lapsed: u64,
    /// After `upto`: still at the device.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waiting: u64,
}

/// See [`ToDevice::Ask`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Unique in this session.
    pub id: u64,
    /// Bytes of answer that may go before the first [`ToDevice::More`].
    pub window: u32,
    /// What is asked.
    #[serde(flatten)]
    pub what: Question,
}

/// What a hub asks on behalf of people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "camelCase")]
pub enum Question {
    /// Output of a container.
    Logs(LogAsk),
}

/// Which output, and how much of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogAsk {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod, or of the workload that owns it.
    pub pod: String,
    /// The only container, or the first, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Go on with what is written later.
    #[serde(default)]
    pub follow: bool,
    /// Of the run before the present one.
    #[serde(default)]
    pub previous: bool,
    /// Put the time in front of each line.
    #[serde(default)]
    pub timestamps: bool,
    /// Only so many of the last lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u64>,
    /// Only lines written after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only lines written before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Only lines in which this regular expression is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grep: Option<String>,
    /// Each line as a JSON object.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub json: bool,
}

/// A header that may own bytes behind it.
pub trait Framed: Serialize + serde::de::DeserializeOwned {
    /// The bytes that ride behind the header, in order.
    fn body(&self) -> &[Bytes] {
        &[]
    }

    /// Takes back what [`Framed::body`] gave.
    ///
    /// # Errors
    /// Where the header and the length of the body disagree.
    fn attach(&mut self, body: Bytes) -> Result<(), BodyMismatch> {
        if body.is_empty() {
            Ok(())
        } else {
            Err(BodyMismatch {
                announced: 0,
                found: body.len(),
            })
        }
    }
}

/// A header announces another body than it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the header announces {announced} bytes, {found} follow it")]
pub struct BodyMismatch {
    announced: u64,
    found: usize,
}

impl Framed for ToDevice {}

impl Framed for ToHub {
    fn body(&self) -> &[Bytes] {
        match self {
            Self::Records(batch) => &batch.records,
            Self::Chunk(chunk) => std::slice::from_ref(&chunk.data),
            Self::Hello(_)
            | Self::Done(_)
            | Self::Accepted { .. }
            | Self::Accounts(_)
            | Self::Pong { .. } => &[],
        }
    }

    fn attach(&mut self, mut body: Bytes) -> Result<(), BodyMismatch> {
        match self {
            Self::Chunk(chunk) => chunk.data = body,
            Self::Records(batch) => {
                let announced = batch.sizes.iter().map(|s| u64::from(*s)).sum::<u64>();
                if announced != body.len() as u64 {
                    return Err(BodyMismatch {
                        announced,
                        found: body.len(),
                    });
                }
                batch.records = batch
                    .sizes
                    .iter()
                    .map(|size| body.split_to(*size as usize))
                    .collect();
            }
            Self::Hello(_)
            | Self::Done(_)
            | Self::Accepted { .. }
            | Self::Accounts(_)
            | Self::Pong { .. }
                if !body.is_empty() =>
            {
                return Err(BodyMismatch {
                    announced: 0,
                    found: body.len(),
                });
            }
            Self::Hello(_)
            | Self::Done(_)
            | Self::Accepted { .. }
            | Self::Accounts(_)
            | Self::Pong { .. } => {}
        }
        Ok(())
    }
}
