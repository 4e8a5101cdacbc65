//! A generation as pods and Services.

use model::{GenerationId, ImageRef, ObjectKey, PodRun, PullPolicy, PullSecret, ServicePort};
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

/// An image that a generation needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedImage {
    /// Which.
    pub image: ImageRef,
    /// The strictest policy that asks for it.
    pub policy: PullPolicy,
    /// Credentials of all pods that want it, each once.
    pub secrets: Vec<PullSecret>,
    /// The workloads that want it.
    pub workloads: Vec<ObjectKey>,
}

impl Wanted {
    /// Every image, once, sorted.
    pub fn images(&self) -> Vec<WantedImage> {
        let mut images: BTreeMap<ImageRef, WantedImage> = BTreeMap::new();
        for Workload { key, template, .. } in &self.workloads {
            for container in template.init_containers.iter().chain(&template.containers) {
                let wanted = images
                    .entry(container.image.clone())
                    .or_insert_with(|| WantedImage {
                        image: container.image.clone(),
                        policy: container.pull,
                        secrets: Vec::new(),
                        workloads: Vec::new(),
                    });
                if container.pull == PullPolicy::Always {
                    wanted.policy = PullPolicy::Always;
                }
                if !wanted.workloads.contains(key) {
                    wanted.workloads.push(key.clone());
                }
                for secret in &template.pull_secrets {
                    if !wanted.secrets.contains(secret) {
                        wanted.secrets.push(secret.clone());
                    }
                }
            }
        }
        images.into_values().collect()
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
