//! What a device says of itself; the record of the `status` stream.

use crate::{ClassName, DeviceName, KustomizationStatus, ObjectKey, PodPhase, Revision, WhyReport};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the device is doing; waiting is a state with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "phase")]
pub enum Phase {
    /// No generation yet.
    WaitingForSource,
    /// A candidate is being brought to health.
    Progressing,
    /// The current generation is healthy.
    Ready,
    /// A candidate failed and the last good generation runs.
    RolledBack,
    /// The current generation is not healthy and there is none to go back to.
    Degraded,
    /// Held by intent.
    Paused,
}

/// A Kubernetes condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`, `SourceReady`, `Healthy`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// CamelCase word for machines.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// When `status` last changed.
    pub last_transition_time: Timestamp,
}

/// What the device knows of its source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// Address, without secrets.
    pub url: String,
    /// Last revision fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// When a fetch last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_at: Option<Timestamp>,
    /// Why the last fetch, render or check failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether `revision` waits until a roll-out admits it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
}

/// The generations that the device holds, by short id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerationStatus {
    /// What runs now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Revision of `current`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// The newest one that was healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<String>,
    /// The one on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// The last one that failed, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<(String, String)>,
    /// Full commit id of `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_commit: Option<String>,
}

/// kstatus' words for a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkloadState {
    /// As wanted.
    Current,
    /// On the way.
    InProgress,
    /// Cannot get there.
    Failed,
    /// Being removed.
    Terminating,
}

/// One pod in a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Pod name.
    pub name: String,
    /// Phase.
    pub phase: PodPhase,
    /// All containers ready.
    pub ready: bool,
    /// Sum over its containers.
    pub restarts: u32,
    /// Address, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Container names, for logs.
    pub containers: Vec<String>,
    /// What is wrong, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// One workload in a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Which.
    pub key: ObjectKey,
    /// See [`WorkloadState`].
    pub state: WorkloadState,
    /// Pods wanted.
    pub desired: u32,
    /// Pods ready (or, for a Job, succeeded).
    pub ready: u32,
    /// CamelCase word for machines, where there is more to say than the state: `Pulling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it is in this state, in one line.
    pub message: String,
    /// Images wanted, in order of containers.
    pub images: Vec<String>,
    /// Its pods.
    pub pods: Vec<PodStatus>,
}

/// Facts of the machine; absent where the board does not tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Board name as it calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub board: Option<String>,
    /// Kernel release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// `amd64`, `arm64`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub architecture: String,
    /// Cores that workloads may use.
    #[serde(default)]
    pub cpus: f64,
    /// Busy share of all cores over the last interval, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// Bytes.
    #[serde(default)]
    pub memory_total: u64,
    /// Bytes in use, caches apart.
    #[serde(default)]
    pub memory_used: u64,
    /// Bytes of the state folder's file system.
    #[serde(default)]
    pub disk_total: u64,
    /// Bytes in use there.
    #[serde(default)]
    pub disk_used: u64,
    /// Hottest zone, degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<f64>,
    /// All zones by name, degrees Celsius.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub temperatures: BTreeMap<String, f64>,
    /// Seconds since boot.
    #[serde(default)]
    pub uptime_seconds: u64,
    /// Busy share of the GPU, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_percent: Option<f64>,
    /// Watts by rail.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub power_watts: BTreeMap<String, f64>,
    /// Whether the supply's voltage is too low.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_voltage: Option<bool>,
}

/// What a device says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Who.
    pub device: DeviceName,
    /// Its hardware class.
    pub class: ClassName,
    /// When, by the device's clock.
    pub time: Timestamp,
    /// Random id of this boot.
    pub boot_id: String,
    /// Version of the agent.
    pub agent: String,
    /// See [`Phase`].
    #[serde(flatten)]
    pub phase: Phase,
    /// `Ready` first.
    pub conditions: Vec<Condition>,
    /// See [`SourceStatus`].
    pub source: SourceStatus,
    /// See [`GenerationStatus`].
    pub generation: GenerationStatus,
    /// What the renderer and the planner want people to know of the generation: fields that are deprecated, objects
    /// that are accepted and not acted on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// In the order of the generation.
    pub workloads: Vec<WorkloadStatus>,
    /// The `Kustomization` objects of the generation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kustomizations: Vec<KustomizationStatus>,
    /// See [`Facts`].
    pub facts: Facts,
    /// The planner's account.
    #[serde(default)]
    pub why: WhyReport,
}

/// The record of the `heartbeat` stream: what moves while nothing changes. Small, for it is sent for ever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// When, by the device's clock.
    pub time: Timestamp,
    /// When the source was last reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_at: Option<Timestamp>,
    /// See [`Facts`].
    pub facts: Facts,
    /// How far the pulls are that a status has told of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub progress: Vec<WorkloadProgress>,
}

/// A newer message for a workload whose status says that it is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadProgress {
    /// Which.
    pub key: ObjectKey,
    /// See [`WorkloadStatus::reason`]; a status with another one has overtaken this.
    pub reason: String,
    /// In place of [`WorkloadStatus::message`].
    pub message: String,
}
