//! The nouns that every other crate shares.
//!
//! Takes: text and bytes at the border (names, digests, quantities, manifests).
//! Gives: types that can only be made by parsing, and plain data for each arrow of the data flow:
//! [`Tree`] and [`Revision`] from `source`, [`Desired`] from `render`, [`Plan`] from `plan`,
//! [`Observed`] from `runtime`, [`Status`] and [`Event`] towards the hub.
//! Never: does I/O, reads a clock, is async.

pub mod cri;
mod desired;
mod digest;
mod event;
mod ids;
mod image;
mod intent;
mod kustomization;
mod object;
mod observed;
mod plan;
mod pod;
mod quantity;
mod revision;
mod rollout;
mod status;
mod tree;

pub use desired::{Desired, GenerationId, Origin};
pub use digest::{BadDigest, Digest};
pub use event::{Event, Severity};
pub use ids::{BadName, ClassName, DeviceName};
pub use image::{BadImageRef, ImageRef, Platform};
pub use intent::{Intent, IntentKind, Signed};
pub use kustomization::{InventoryEntry, Kustomization, KustomizationStatus};
pub use object::{BadObject, Object, ObjectKey};
pub use observed::{
    ContainerGroup, ContainerObserved, ContainerState, Observed, PodGroup, PodObserved, PodPhase,
};
pub use plan::{Action, Because, Plan, Step, Why, WhyReport};
pub use pod::{
    ContainerRun, EnvVar, FileEntry, HostPathType, Mount, PodId, PodRun, PortRun, Probe, ProbeKind, Protocol,
    PullPolicy, PullSecret, Resources, RestartPolicy, Security, ServicePort, ServiceRun, TargetPort, Volume,
    VolumeSource, files_digest, services_digest,
};
pub use quantity::{BadQuantity, parse_bytes, parse_cpu_milli};
pub use revision::{Moved, Revision};
pub use rollout::{
    Admission, BadStage, Member, MemberState, Rollout, RolloutPolicy, RolloutState, Stage, Unreachable,
};
pub use status::{
    Condition, Facts, GenerationStatus, Heartbeat, Phase, PodStatus, SourceStatus, Status, WorkloadProgress,
    WorkloadState, WorkloadStatus,
};
pub use tree::{Tree, TreeEntry};
