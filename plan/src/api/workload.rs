//! Pod, Deployment, DaemonSet and Job.

use super::{Ignored, IntOrString, Meta, PodSpec};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Pod {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    pub metadata: Meta,
    pub spec: PodSpec,
    #[serde(default, rename = "status")]
    _status: Ignored,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Deployment {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: Ignored,
    pub spec: DeploymentSpec,
    #[serde(default, rename = "status")]
    _status: Ignored,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DaemonSet {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: Ignored,
    pub spec: DaemonSetSpec,
    #[serde(default, rename = "status")]
    _status: Ignored,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Job {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: Ignored,
    pub spec: JobSpec,
    #[serde(default, rename = "status")]
    _status: Ignored,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DeploymentSpec {
    #[serde(default)]
    pub replicas: Option<u32>,
    pub selector: Selector,
    pub template: PodTemplate,
    #[serde(default)]
    pub strategy: Option<Strategy>,
    #[serde(default)]
    pub paused: Option<bool>,
    #[serde(default, rename = "minReadySeconds")]
    _min_ready_seconds: Ignored,
    #[serde(default, rename = "revisionHistoryLimit")]
    _revision_history_limit: Ignored,
    #[serde(default, rename = "progressDeadlineSeconds")]
    _progress_deadline_seconds: Ignored,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DaemonSetSpec {
    pub selector: Selector,
    pub template: PodTemplate,
    #[serde(default)]
    pub update_strategy: Option<Strategy>,
    #[serde(default, rename = "minReadySeconds")]
    _min_ready_seconds: Ignored,
    #[serde(default, rename = "revisionHistoryLimit")]
    _revision_history_limit: Ignored,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct JobSpec {
    #[serde(default)]
    pub completions: Option<u32>,
    #[serde(default)]
    pub parallelism: Option<u32>,
    #[serde(default)]
    pub backoff_limit: Option<u32>,
    #[serde(default)]
    pub active_deadline_seconds: Option<u64>,
    #[serde(default)]
    pub suspend: Option<bool>,
    pub template: PodTemplate,
    #[serde(default, rename = "selector")]
    _selector: Ignored,
    #[serde(default, rename = "manualSelector")]
    _manual_selector: Ignored,
    /// The generation says whether a Job is there; a finished one costs a line of state.
    #[serde(default, rename = "ttlSecondsAfterFinished")]
    _ttl_seconds_after_finished: Ignored,
    #[serde(default, rename = "completionMode")]
    pub completion_mode: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Selector {
    #[serde(default)]
    pub match_labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub match_expressions: Option<Vec<serde_json::Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PodTemplate {
    #[serde(default)]
    pub metadata: Meta,
    pub spec: PodSpec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Strategy {
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    pub rolling_update: Option<RollingUpdate>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RollingUpdate {
    #[serde(default)]
    pub max_surge: Option<IntOrString>,
    #[serde(default)]
    pub max_unavailable: Option<IntOrString>,
}
