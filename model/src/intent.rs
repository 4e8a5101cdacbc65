//! What a hub may ask of a device beside Git: signed, expiring, numbered.

use crate::{Admission, DeviceName, ObjectKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum IntentKind {
    /// Fetch the source now instead of at the next interval.
    SyncNow,
    /// Take no new generation until resumed; what runs goes on.
    Pause,
    /// Take new generations again.
    Resume,
    /// Replace the pods of one workload.
    Restart {
        /// Which.
        workload: ObjectKey,
    },
    /// Which revisions to move to from now on, until told otherwise.
    Admit(Admission),
}

/// One statement of the hub to one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// Rises with each intent of the hub to this device; one that does not is a replay.
    pub id: u64,
    /// To whom.
    pub device: DeviceName,
    /// See [`IntentKind`].
    #[serde(flatten)]
    pub kind: IntentKind,
    /// Who asked, for the trail.
    pub by: String,
    /// Not to be followed before.
    pub not_before: Timestamp,
    /// Not to be followed after.
    pub not_after: Timestamp,
}

/// A text with an Ed25519 signature over it (RFC 8032). What it says may be believed only after `identity` verified it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signed {
    /// The exact text that was signed: JSON.
    pub text: String,
    /// The signer's public key, 64 hexadecimal digits.
    pub key: String,
    /// 128 hexadecimal digits.
    pub signature: String,
}
