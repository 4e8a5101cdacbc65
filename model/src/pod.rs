//! A pod, fully resolved: what an engine runs without asking anybody.
//!
//! `plan` makes these from workloads, ConfigMaps and Secrets; an engine adds nothing and looks nothing up.

use crate::{Digest, ImageRef, ObjectKey};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// Namespace and name of a pod; unique on a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodId {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name, `<workload>-<template hash>-<index>`.
    pub name: String,
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `spec.restartPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Restart whatever the exit code.
    Always,
    /// Restart on a non-zero exit code.
    OnFailure,
    /// Never restart.
    Never,
}

/// `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Ask the registry at each start of the pod; what is present serves when it cannot be reached.
    Always,
    /// Pull only what is absent.
    IfNotPresent,
    /// Never pull.
    Never,
}

/// Everything needed to run one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRun {
    /// Its name on this device.
    pub id: PodId,
    /// The workload it belongs to.
    pub owner: ObjectKey,
    /// Hash of the pod template; a pod with another hash is replaced, never changed.
    pub template: Digest,
    /// Labels, for Services' selectors.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Use the device's own network namespace.
    pub host_network: bool,
    /// One process namespace for all containers.
    pub share_process_namespace: bool,
    /// See [`RestartPolicy`].
    pub restart: RestartPolicy,
    /// Seconds between SIGTERM and SIGKILL.
    pub grace_seconds: u32,
    /// Seconds after which a Job's pod is killed.
    pub active_deadline_seconds: Option<u64>,
    /// Run one after another before the containers.
    pub init_containers: Vec<ContainerRun>,
    /// Run side by side; at least one.
    pub containers: Vec<ContainerRun>,
    /// Volumes by name.
    pub volumes: Vec<Volume>,
    /// `/etc/hosts` additions: address and names.
    pub host_aliases: Vec<(String, Vec<String>)>,
    /// `spec.hostname`, the pod's name where absent.
    pub hostname: Option<String>,
    /// Credentials for its images, in the order of `imagePullSecrets`; no part of the template's hash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pull_secrets: Vec<PullSecret>,
}

/// The text of a Secret's `.dockerconfigjson`, checked by the planner. Never shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PullSecret(pub String);

impl fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PullSecret(..)")
    }
}

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRun {
    /// Unique within the pod.
    pub name: String,
    /// What to run.
    pub image: ImageRef,
    /// See [`PullPolicy`].
    pub pull: PullPolicy,
    /// Replaces the image's entrypoint where not empty.
    pub command: Vec<String>,
    /// Replaces the image's command where not empty.
    pub args: Vec<String>,
    /// In the order of definition; later ones win.
    pub env: Vec<EnvVar>,
    /// Replaces the image's working folder.
    pub working_dir: Option<String>,
    /// Declared ports.
    pub ports: Vec<PortRun>,
    /// Requests and limits.
    pub resources: Resources,
    /// Where volumes appear.
    pub mounts: Vec<Mount>,
    /// Failure restarts the container.
    pub liveness: Option<Probe>,
    /// Failure takes the pod out of its Services.
    pub readiness: Option<Probe>,
    /// The other two wait until this has succeeded once.
    pub startup: Option<Probe>,
    /// User, capabilities and friends.
    pub security: Security,
}

/// One environment variable, already resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EnvVar {
    /// A fixed text (with `$(VAR)` already expanded).
    Value {
        /// Name.
        name: String,
        /// Value.
        value: String,
    },
    /// A fact known only when the pod runs: `status.podIP`, `status.hostIP`.
    Field {
        /// Name.
        name: String,
        /// Downward API path.
        field: String,
    },
}

/// Transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One declared port of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortRun {
    /// Name, for Services' `targetPort`.
    pub name: Option<String>,
    /// Port inside the pod.
    pub container_port: u16,
    /// Port on the device.
    pub host_port: Option<u16>,
    /// Address on the device that the host port listens at; all where absent.
    pub host_ip: Option<String>,
    /// See [`Protocol`].
    pub protocol: Protocol,
}

/// Requests and limits as numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_request_milli: Option<u64>,
    /// Thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
    /// Bytes.
    pub memory_request: Option<u64>,
    /// Bytes.
    pub memory_limit: Option<u64>,
}

/// Where a volume appears in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Name of the volume.
    pub volume: String,
    /// Absolute path in the container.
    pub path: String,
    /// File or folder of the volume to mount instead of its root.
    pub sub_path: Option<String>,
    /// Mount read-only.
    pub read_only: bool,
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProbeKind {
    /// Success is exit code 0.
    Exec {
        /// Program and arguments; no shell.
        command: Vec<String>,
    },
    /// Success is a status from 200 to 399.
    HttpGet {
        /// Path with query.
        path: String,
        /// Port in the pod.
        port: u16,
        /// `Host` and friends.
        headers: Vec<(String, String)>,
        /// `https`, certificate not verified, as kubelet does.
        https: bool,
    },
    /// Success is an accepted connection.
    TcpSocket {
        /// Port in the pod.
        port: u16,
    },
}

/// A probe with its timing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// What it does.
    pub kind: ProbeKind,
    /// Seconds after the container's start before the first try.
    pub initial_delay_seconds: u32,
    /// Seconds between tries; at least 1.
    pub period_seconds: u32,
    /// Seconds before a try counts as failed; at least 1.
    pub timeout_seconds: u32,
    /// Failures in a row that count.
    pub failure_threshold: u32,
    /// Successes in a row that count.
    pub success_threshold: u32,
}

/// The parts of `securityContext` that an engine enforces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Security {
    /// User id; the image's where absent.
    pub run_as_user: Option<u32>,
    /// Group id; the image's where absent.
    pub run_as_group: Option<u32>,
    /// Refuse to start as user 0.
    pub run_as_non_root: bool,
    /// Group of the pod's own volumes, and a supplementary group.
    pub fs_group: Option<u32>,
    /// All capabilities and devices.
    pub privileged: bool,
    /// Root file system read-only.
    pub read_only_root: bool,
    /// Clear `no_new_privs` only where true.
    pub allow_privilege_escalation: bool,
    /// `NET_ADMIN`, ...; `ALL` for all.
    pub cap_add: Vec<String>,
    /// `NET_RAW`, ...; `ALL` for all.
    pub cap_drop: Vec<String>,
    /// Whether the runtime's default seccomp profile is asked for.
    pub seccomp_default: bool,
}

/// A file of a ConfigMap or Secret volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Content.
    pub data: Bytes,
    /// Permission bits, 0o644 by default.
    pub mode: u32,
}

/// `hostPath.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostPathType {
    /// No check.
    Any,
    /// Made where absent.
    DirectoryOrCreate,
    /// Must be a folder.
    Directory,
    /// Made where absent.
    FileOrCreate,
    /// Must be a file.
    File,
    /// Must be a socket.
    Socket,
    /// Must be a character device.
    CharDevice,
    /// Must be a block device.
    BlockDevice,
}

/// Where a volume's files come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VolumeSource {
    /// A folder that lives as long as the pod.
    EmptyDir {
        /// In memory (tmpfs).
        memory: bool,
        /// Bytes.
        size_limit: Option<u64>,
    },
    /// A path of the device.
    HostPath {
        /// Absolute path.
        path: String,
        /// Check before mounting.
        kind: HostPathType,
    },
    /// A persistent folder of the device that outlives the pod (`PersistentVolumeClaim`).
    Claim {
        /// Namespace and name of the claim, one path component each.
        claim: PodId,
    },
    /// Files of ConfigMaps and Secrets by path; kept in memory only where `secret`.
    Files {
        /// Content by relative path.
        files: BTreeMap<String, FileEntry>,
        /// Whether they may be written to flash.
        secret: bool,
    },
}

/// A named volume of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Unique within the pod.
    pub name: String,
    /// See [`VolumeSource`].
    pub source: VolumeSource,
}

/// What [`crate::PodObserved::files`] says of these volumes: a hash over the `Files` volumes among them, so
/// that planner and engine agree on when a pod's files are stale.
pub fn files_digest(volumes: &[Volume]) -> Digest {
    let files: Vec<&Volume> = volumes
        .iter()
        .filter(|volume| matches!(volume.source, VolumeSource::Files { .. }))
        .collect();
    // Serialising plain data with text keys to memory cannot fail.
    Digest::of(&serde_json::to_vec(&files).unwrap_or_default())
}

/// What [`crate::Observed::services`] says once these Services are published.
pub fn services_digest(services: &[ServiceRun]) -> Digest {
    // As above.
    Digest::of(&serde_json::to_vec(services).unwrap_or_default())
}

/// Port of a pod that a Service leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name of a container's port.
    Name(String),
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Name, for DNS SRV records.
    pub name: Option<String>,
    /// Port at the Service's address.
    pub port: u16,
    /// Where it leads.
    pub target: TargetPort,
    /// Port on the device (`NodePort`, `LoadBalancer`).
    pub node_port: Option<u16>,
    /// See [`Protocol`].
    pub protocol: Protocol,
}

/// A Service as the engine publishes it on the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRun {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Service name.
    pub name: String,
    /// No virtual address: DNS answers with the pods' own.
    pub headless: bool,
    /// A client stays with the pod that it first reached (`sessionAffinity: ClientIP`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub client_affinity: bool,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Ready pods behind it, sorted.
    pub endpoints: Vec<PodId>,
}
