//! What an engine sees on the machine.

use crate::{Digest, ObjectKey, PodId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};

/// State of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum ContainerState {
    /// Not started yet, or between two starts.
    Waiting {
        /// `ContainerCreating`, `CrashLoopBackOff`, `PodInitializing`, ...
        reason: String,
    },
    /// Its process runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// Its process has ended and is not restarted.
    Exited {
        /// Exit code; 128 + signal where killed.
        code: i32,
        /// `Completed`, `Error`, `OOMKilled`.
        reason: String,
        /// When.
        at: Timestamp,
    },
}

/// One container as seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerObserved {
    /// Name in the pod.
    pub name: String,
    /// See [`ContainerState`].
    #[serde(flatten)]
    pub state: ContainerState,
    /// Its startup and readiness probes agree (or it has none and runs).
    pub ready: bool,
    /// Its startup probe has succeeded (or it has none and runs).
    pub started: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// The last exit before the present start: code and reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<(i32, String)>,
    /// Digest of the manifest that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
}

/// `status.phase` of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodPhase {
    /// Being made.
    Pending,
    /// At least one container runs or will be restarted.
    Running,
    /// All containers ended with 0.
    Succeeded,
    /// All ended, one of them not with 0.
    Failed,
}

/// One pod as seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodObserved {
    /// Its name.
    pub id: PodId,
    /// The workload it was made for.
    pub owner: ObjectKey,
    /// Template it was made from.
    pub template: Digest,
    /// Labels it was made with.
    pub labels: BTreeMap<String, String>,
    /// Hash of the volume files it holds now.
    pub files: Digest,
    /// See [`PodPhase`].
    pub phase: PodPhase,
    /// Address on the pod network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Init containers, then containers.
    pub containers: Vec<ContainerObserved>,
    /// Being stopped.
    #[serde(default)]
    pub terminating: bool,
    /// Why it is not what was asked for: the engine's last refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl PodObserved {
    /// Whether every container is ready.
    pub fn ready(&self) -> bool {
        self.phase == PodPhase::Running && !self.terminating && self.containers.iter().all(|c| c.ready)
    }
}

/// Where the kernel counts what a pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodGroup {
    /// Its name.
    pub id: PodId,
    /// Tells it from an earlier pod of that name.
    pub uid: String,
    /// Its control group, an absolute path below each hierarchy's mount.
    pub path: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// A process in its network namespace; none where it uses the device's own.
    pub network: Option<i32>,
    /// Containers that run.
    pub containers: Vec<ContainerGroup>,
}

/// Where the kernel counts what a container uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerGroup {
    /// Name in the pod.
    pub name: String,
    /// What it was asked to run; empty where that is not known any more.
    pub image: String,
    /// Its control group, an absolute path below each hierarchy's mount.
    pub path: String,
    /// When its process was started.
    pub since: Timestamp,
}

/// Everything that an engine sees, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Pods, by name.
    pub pods: Vec<PodObserved>,
    /// Hash of the Services last published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Digest>,
}
