//! A generation as pods and Services.

use model::{GenerationId, ImageRef, ObjectKey, PodRun, PullPolicy, ServicePort};
use std::collections::BTreeMap;

/// Everything that a generation wants of this device.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Which generation.
    pub generation: GenerationId,
    /// In the order of the generation's objects.
    pub workloads: Vec<Workload>,
    /// Sorted by namespace and name.
    pub services: Vec<WantedService>,
    /// Objects that this device accepts and does nothing with, and why.
    pub notes: Vec<String>,
}

impl Wanted {
    /// Every image, once, with the strictest policy that asks for it.
    pub fn images(&self) -> Vec<(ImageRef, PullPolicy)> {
        let mut images: BTreeMap<ImageRef, PullPolicy> = BTreeMap::new();
        for workload in &self.workloads {
            for container in workload
                .template
                .init_containers
                .iter()
                .chain(&workload.template.containers)
            {
                let policy = images.entry(container.image.clone()).or_insert(container.pull);
                if container.pull == PullPolicy::Always {
                    *policy = PullPolicy::Always;
                }
            }
        }
        images.into_iter().collect()
    }
}

/// One workload: how many pods of which template.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Which object.
    pub key: ObjectKey,
    /// How its pods are run.
    pub run: Run,
    /// A pod without its final name: `id.name` is the workload's name and the template's hash.
    pub template: PodRun,
}

/// How a workload's pods are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// A bare Pod: once, under its own name.
    Once,
    /// Deployment and DaemonSet: this many, for ever.
    Replicas {
        /// Pods wanted.
        count: u32,
        /// See [`Rolling`].
        rolling: Rolling,
    },
    /// Job: until this many have succeeded.
    ToCompletion {
        /// Successes wanted.
        completions: u32,
        /// Pods at a time.
        parallelism: u32,
        /// Failures allowed.
        backoff_limit: u32,
    },
}

/// How pods of an old template give way to the new ones, as numbers of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rolling {
    /// Pods above the wanted number.
    pub surge: u32,
    /// Pods below the wanted number.
    pub unavailable: u32,
}

/// A Service whose endpoints are still to be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedService {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Service name.
    pub name: String,
    /// No virtual address.
    pub headless: bool,
    /// A client stays with the pod that it first reached.
    pub client_affinity: bool,
    /// Whether pods that are not ready are endpoints too.
    pub publish_not_ready: bool,
    /// Labels that a pod must have; a Service without selector has no endpoints.
    pub selector: BTreeMap<String, String>,
    /// Ports.
    pub ports: Vec<ServicePort>,
}
