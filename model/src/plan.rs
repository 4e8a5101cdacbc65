//! Steps to take, each with its reason.

use crate::{ImageRef, ObjectKey, PodId, PodRun, PullPolicy, PullSecret, ServiceRun, Volume};
use serde::{Deserialize, Serialize};

/// One thing to do; doing it makes no further choices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "do")]
pub enum Action {
    /// Bring an image to the device, unpacked and pinned, before anything that needs it is touched: a device
    /// whose link breaks in the middle goes on with what it runs.
    Pull {
        /// Which.
        image: ImageRef,
        /// When to ask the registry.
        policy: PullPolicy,
        /// Credentials of the pods that want it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        secrets: Vec<PullSecret>,
    },
    /// Stop and remove a pod.
    StopPod {
        /// Which.
        pod: PodId,
        /// Seconds between SIGTERM and SIGKILL.
        grace_seconds: u32,
    },
    /// Make the pod and start it; pulls what a `Pull` has not brought yet.
    StartPod {
        /// What to run.
        pod: Box<PodRun>,
    },
    /// Replace the files of ConfigMap and Secret volumes in a running pod.
    RefreshFiles {
        /// Which.
        pod: PodId,
        /// Its `Files` volumes.
        volumes: Vec<Volume>,
    },
    /// Publish the whole table of Services.
    Publish {
        /// All of them, sorted.
        services: Vec<ServiceRun>,
    },
}

/// An action with what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What to do.
    #[serde(flatten)]
    pub action: Action,
    /// Workload or object that asks for it.
    pub about: ObjectKey,
    /// Why.
    pub because: Because,
}

/// Why a step is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Because {
    /// Wanted and not there.
    Missing,
    /// There and not wanted by the generation any more (pruned by inventory).
    Pruned,
    /// Made from another template.
    Replaced,
    /// More pods than replicas.
    Surplus,
    /// Its content changed.
    Changed,
    /// A Job's pod failed and has tries left.
    Retried,
    /// It ended although it must run on.
    Ended,
}

/// Steps in order: removals before additions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// In order of execution.
    pub steps: Vec<Step>,
}

/// What the planner thought about one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Which object.
    pub about: ObjectKey,
    /// What was decided: `keep`, `start 2`, `wait`, `stop 1`, `refused`.
    pub verdict: String,
    /// Because of what.
    pub because: String,
}

/// The planner's account of a plan, object by object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyReport {
    /// In the order of the generation's objects.
    pub lines: Vec<Why>,
}
