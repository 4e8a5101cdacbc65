//! Staged roll-outs: which devices may move to a revision, and when the next ones may.

use crate::{DeviceName, Revision};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Which revisions a device may move to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "admission")]
pub enum Admission {
    /// Whatever its source names.
    #[default]
    Any,
    /// This one alone; nothing that is new where there is none.
    Only {
        /// Full commit id, or digest of an artifact.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<String>,
    },
}

impl Admission {
    /// Whether a device may move to this commit.
    pub fn admits(&self, commit: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only { revision } => revision.as_deref() == Some(commit),
        }
    }
}

/// How many devices have moved when a stage is through; counted with those of earlier stages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Stage {
    /// This many: `3`.
    Count(u32),
    /// This share of all, rounded up: `25%`.
    Percent(u8),
    /// All with this label; `class` and `site` count as labels: `canary=yes`.
    Label {
        /// Its key.
        key: String,
        /// Its value.
        value: String,
    },
}

/// A text that names no [`Stage`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no stage: write a number of devices (3), a share (25%) or a label (canary=yes)")]
pub struct BadStage(pub String);

impl FromStr for Stage {
    type Err = BadStage;

    fn from_str(text: &str) -> Result<Self, BadStage> {
        let bad = || BadStage(text.to_owned());
        if let Some((key, value)) = text.split_once('=') {
            return match key.is_empty() || value.is_empty() {
                true => Err(bad()),
                false => Ok(Self::Label {
                    key: key.to_owned(),
                    value: value.to_owned(),
                }),
            };
        }
        if let Some(share) = text.strip_suffix('%') {
            let share = share.parse().ok().filter(|share| (1..=100).contains(share));
            return share.map(Self::Percent).ok_or_else(bad);
        }
        let count = text.parse().ok().filter(|count| *count > 0);
        count.map(Self::Count).ok_or_else(bad)
    }
}

impl TryFrom<String> for Stage {
    type Error = BadStage;

    fn try_from(text: String) -> Result<Self, BadStage> {
        text.parse()
    }
}

impl From<Stage> for String {
    fn from(stage: Stage) -> Self {
        stage.to_string()
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(share) => write!(f, "{share}%"),
            Self::Label { key, value } => write!(f, "{key}={value}"),
        }
    }
}

/// What becomes of a roll-out when a device of a stage cannot be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Unreachable {
    /// The device leaves the stage, another takes its place, and it follows when it is back.
    #[default]
    Continue,
    /// The roll-out halts until a person says otherwise.
    Halt,
}

/// How revisions are rolled out over the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutPolicy {
    /// First to last; after the last one everybody may move.
    pub stages: Vec<Stage>,
    /// Seconds that each device of a stage must have been healthy before the next stage.
    #[serde(default = "healthy_for")]
    pub healthy_for_seconds: u64,
    /// Seconds that a reachable device has to become healthy in; it has failed after.
    #[serde(default = "deadline")]
    pub deadline_seconds: u64,
    /// Devices that may fail before the roll-out halts.
    #[serde(default)]
    pub max_failures: u32,
    /// See [`Unreachable`].
    #[serde(default)]
    pub unreachable: Unreachable,
}

fn healthy_for() -> u64 {
    60
}

fn deadline() -> u64 {
    900
}

/// How a roll-out stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum RolloutState {
    /// Stage after stage.
    Running,
    /// A person holds it.
    Paused,
    /// It holds itself, until a person resumes or aborts it.
    Halted {
        /// One sentence.
        why: String,
    },
    /// Everybody may move, and who can be reached did.
    Done,
    /// A person ended it: who has not been admitted stays where it is.
    Aborted,
    /// A newer revision took its place.
    Superseded,
}

impl RolloutState {
    /// Whether nothing more comes of it.
    pub fn has_ended(&self) -> bool {
        matches!(self, Self::Done | Self::Aborted | Self::Superseded)
    }

    /// One word for people and tables.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::Halted { .. } => "Halted",
            Self::Done => "Done",
            Self::Aborted => "Aborted",
            Self::Superseded => "Superseded",
        }
    }
}

/// How an admitted device gets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberState {
    /// On its way.
    Moving,
    /// Runs the revision, and is healthy.
    Healthy,
    /// Refused the revision, went back, or took too long.
    Failed,
    /// Cannot be reached: nothing is known, and nothing is waited for.
    Unknown,
}

/// A device that was admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// In which stage, from 0.
    pub stage: u32,
    /// See [`MemberState`].
    pub state: MemberState,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// When it was admitted, or could be reached again: its time runs from here.
    pub from: Timestamp,
    /// A person has seen that it failed or is away, and gone on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overlooked: bool,
    /// Why it is in this state, where there is something to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// One revision on its way over the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Rises with each roll-out of a hub.
    pub id: u64,
    /// What is rolled out.
    pub revision: Revision,
    /// As it was when it began.
    pub policy: RolloutPolicy,
    /// See [`RolloutState`].
    #[serde(flatten)]
    pub state: RolloutState,
    /// The stage under way, from 0.
    pub stage: u32,
    /// Who began it; `hub` where a device told of a new revision.
    pub by: String,
    /// When.
    pub created_at: Timestamp,
    /// When its state was last changed.
    pub changed_at: Timestamp,
    /// Devices that were admitted.
    pub members: BTreeMap<DeviceName, Member>,
}

impl Rollout {
    /// How many members are in this state.
    pub fn count(&self, state: MemberState) -> usize {
        let members = self.members.values();
        members.filter(|member| member.state == state).count()
    }
}

impl RolloutPolicy {
    /// Its stages as people write them: `canary=yes,3,25%`.
    pub fn stages_text(&self) -> String {
        let stages: Vec<String> = self.stages.iter().map(ToString::to_string).collect();
        stages.join(",")
    }
}
