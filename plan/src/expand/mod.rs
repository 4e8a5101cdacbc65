//! Objects of a generation -> pods and Services, or the reasons why not.
//!
//! All refusals of a generation are gathered, so that one look tells the whole of what is to be mended.

mod configs;
mod container;
mod pod;
mod service;
mod volumes;
mod workload;

use crate::api;
use crate::refusal::{Complaints, Refusal};
use crate::{Wanted, Workload};
use configs::Configs;
use model::{Desired, Object, ObjectKey, VolumeSource};
use std::collections::{BTreeMap, BTreeSet};

/// What this device can give to workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Thousandths of a core that requests may add up to.
    pub cpu_milli: u64,
    /// Bytes that requests may add up to.
    pub memory: u64,
    /// Whether the engine installs a seccomp profile where `RuntimeDefault` is asked for.
    pub seccomp: bool,
}

/// Kinds that a single device accepts and does nothing with, and why.
const NOTED: &[(&str, &str, &str)] = &[
    ("", "Namespace", ""),
    ("", "ServiceAccount", ""),
    ("", "PersistentVolume", "a claim is a folder of the device"),
    ("", "PersistentVolumeClaim", ""),
    ("", "ResourceQuota", "the device's class bounds its workloads"),
    ("", "LimitRange", "the device's class bounds its workloads"),
    ("rbac.authorization.k8s.io", "", "no API server on the device"),
    (
        "policy",
        "PodDisruptionBudget",
        "roll-outs on one device follow maxUnavailable",
    ),
    (
        "autoscaling",
        "HorizontalPodAutoscaler",
        "scaling is not done by this engine yet",
    ),
    (
        "networking.k8s.io",
        "Ingress",
        "use a Service with a nodePort; ingress is not served by this engine yet",
    ),
    (
        "networking.k8s.io",
        "NetworkPolicy",
        "NOT ENFORCED by this engine yet",
    ),
    // What they ask for is done, or told by whoever does it.
    ("monitoring.coreos.com", "PodMonitor", ""),
    ("monitoring.coreos.com", "ServiceMonitor", ""),
    ("monitoring.coreos.com", "PrometheusRule", ""),
    ("scheduling.k8s.io", "", "one device, no scheduler"),
    ("storage.k8s.io", "", "claims are folders of the device"),
    ("apiextensions.k8s.io", "", "no API server on the device"),
    ("admissionregistration.k8s.io", "", "no API server on the device"),
];

/// Workload kinds that are refused rather than ignored: leaving them out would run less than Git says.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "apps",
        "StatefulSet",
        "use a Deployment with a PersistentVolumeClaim, or run this object on K3s",
    ),
    ("apps", "ReplicaSet", "use a Deployment"),
    ("batch", "CronJob", "use a Job, or run this object on K3s"),
    ("", "ReplicationController", "use a Deployment"),
];

/// Resolves a generation into what this device runs.
///
/// # Errors
/// Every reason for which it cannot run as written; nothing is run in part.
pub fn expand(desired: &Desired, limits: &Limits) -> Result<Wanted, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let configs = Configs::gather(&desired.objects, &mut refusals);
    let mut wanted = Wanted {
        generation: desired.id(),
        workloads: Vec::new(),
        services: Vec::new(),
        notes: Vec::new(),
    };
    let mut seen = BTreeSet::new();
    for object in &desired.objects {
        let key = object.key();
        if !seen.insert(key.clone()) {
            Complaints::about(&key, &mut refusals).add(
                "",
                "the object is defined twice",
                "remove one, or give it another name",
            );
            continue;
        }
        let mut complaints = Complaints::about(&key, &mut refusals);
        match (key.group.as_str(), key.kind.as_str()) {
            ("", "ConfigMap" | "Secret") => {}
            ("", "Pod") | ("apps", "Deployment" | "DaemonSet") | ("batch", "Job") => {
                let reader = pod::Reader {
                    configs: &configs,
                    limits,
                };
                wanted
                    .workloads
                    .extend(workload::read(object, &reader, &mut complaints));
            }
            ("", "Service") => wanted.services.extend(service::read(object, &mut complaints)),
            (group, kind) => unusual(group, kind, object, &mut wanted.notes, &mut complaints),
        }
    }
    wanted
        .services
        .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    wanted.notes.extend(unbounded(&wanted.workloads));
    one_port_one_owner(&wanted.workloads, &mut refusals);
    fits(&wanted.workloads, limits, &mut refusals);
    if refusals.is_empty() {
        return Ok(wanted);
    }
    place(desired, &mut refusals);
    Err(refusals)
}

/// Says of each refusal where its object was read.
fn place(desired: &Desired, refusals: &mut [Refusal]) {
    for refusal in refusals {
        let at = desired.objects.iter().position(|object| {
            let key = object.key();
            // A workload's key has its namespace filled in.
            let same = (&key.group, &key.kind, &key.name);
            same == (&refusal.object.group, &refusal.object.kind, &refusal.object.name)
                && [key.namespace, namespace_of(object)].contains(&refusal.object.namespace)
        });
        refusal.origin = at.and_then(|at| desired.origins.get(at)?.clone());
    }
}

fn unusual(
    group: &str,
    kind: &str,
    object: &Object,
    notes: &mut Vec<String>,
    complaints: &mut Complaints<'_>,
) {
    let meets = |g: &str, k: &str| g == group && (k.is_empty() || k == kind);
    if let Some((_, _, remedy)) = REFUSED.iter().find(|(g, k, _)| meets(g, k)) {
        complaints.add(
            "kind",
            format!("{kind} is not run by the embedded engine"),
            *remedy,
        );
    } else if let Some((_, _, why)) = NOTED.iter().find(|(g, k, _)| meets(g, k)) {
        if !why.is_empty() {
            notes.push(format!("{}: {why}", object.key()));
        }
    } else if group.is_empty() || group == "apps" || group == "batch" || !group.contains('.') {
        complaints.add(
            "kind",
            format!("{} has no kind {kind}", object.api_version()),
            "check apiVersion and kind",
        );
    } else {
        notes.push(format!(
            "{}: no controller for {group} on this device",
            object.key()
        ));
    }
}

/// Folders on the disk that say how much they may hold: nothing here holds them to it, and that is said.
fn unbounded(workloads: &[Workload]) -> impl Iterator<Item = String> {
    let of_workload = |workload: &Workload| {
        let unbounded = workload.template.volumes.iter().filter(|volume| {
            matches!(
                volume.source,
                VolumeSource::EmptyDir {
                    memory: false,
                    size_limit: Some(_)
                }
            )
        });
        let notes: Vec<String> = unbounded
            .map(|volume| {
                format!(
                    "{}: volume {}: emptyDir.sizeLimit is NOT ENFORCED on disk; medium Memory is held to it",
                    workload.key, volume.name
                )
            })
            .collect();
        notes
    };
    workloads.iter().flat_map(of_workload)
}

/// A host port belongs to one pod on the device; replicas that share one can never all run.
fn one_port_one_owner(workloads: &[Workload], refusals: &mut Vec<Refusal>) {
    let mut owners: BTreeMap<(u16, model::Protocol), &ObjectKey> = BTreeMap::new();
    for workload in workloads {
        let count = match workload.run {
            crate::Run::Replicas { count, .. } => count,
            _ => 1,
        };
        for port in host_ports(&workload.template) {
            let mut complaints = Complaints::about(&workload.key, refusals);
            if count > 1 {
                complaints.add(
                    "spec.replicas",
                    format!(
                        "{count} replicas ask for the one host port {} of this device",
                        port.0
                    ),
                    "use one replica, or a Service with a nodePort in place of hostPort",
                );
            }
            if let Some(other) = owners.insert(port, &workload.key)
                && other != &workload.key
            {
                complaints.add(
                    "spec.template.spec.containers.ports.hostPort",
                    format!("host port {} is asked for by {other} too", port.0),
                    "give one of them another port",
                );
            }
        }
    }
}

pub(crate) fn host_ports(pod: &model::PodRun) -> impl Iterator<Item = (u16, model::Protocol)> + '_ {
    let host_network = pod.host_network;
    pod.containers.iter().flat_map(|c| &c.ports).filter_map(move |p| {
        p.host_port
            .or(host_network.then_some(p.container_port))
            .map(|port| (port, p.protocol))
    })
}

/// Requests are promises: what does not fit is refused before anything is touched.
fn fits(workloads: &[Workload], limits: &Limits, refusals: &mut Vec<Refusal>) {
    let mut cpu = 0u64;
    let mut memory = 0u64;
    for workload in workloads {
        let pods = match workload.run {
            crate::Run::Once => 1,
            crate::Run::Replicas { count, .. } => count,
            crate::Run::ToCompletion { parallelism, .. } => parallelism,
        };
        let of = |get: fn(&model::Resources) -> Option<u64>| -> u64 {
            workload
                .template
                .containers
                .iter()
                .filter_map(|c| get(&c.resources))
                .sum()
        };
        cpu = cpu.saturating_add(of(|r| r.cpu_request_milli).saturating_mul(pods.into()));
        memory = memory.saturating_add(of(|r| r.memory_request).saturating_mul(pods.into()));
        let mut complaints = Complaints::about(&workload.key, refusals);
        let remedy = "lower the requests or the replicas, or choose a larger device class";
        if cpu > limits.cpu_milli {
            complaints.add(
                "resources.requests.cpu",
                format!(
                    "the generation asks for {cpu}m of the {}m that this device gives to workloads",
                    limits.cpu_milli
                ),
                remedy,
            );
            return;
        }
        if memory > limits.memory {
            complaints.add(
                "resources.requests.memory",
                format!(
                    "the generation asks for {} Mi of the {} Mi that this device gives to workloads",
                    memory >> 20,
                    limits.memory >> 20
                ),
                remedy,
            );
            return;
        }
    }
}

/// Reads an object into its API type, or says which field is at fault.
pub(crate) fn typed<T: serde::de::DeserializeOwned>(
    object: &Object,
    complaints: &mut Complaints<'_>,
) -> Option<T> {
    api::parse(object.value())
        .map_err(|(field, problem)| {
            complaints.add(
                field,
                problem,
                "correct the field, or run this object on K3s if it needs it",
            );
        })
        .ok()
}

/// The namespace that an object lives in; Kubernetes' default where none is written.
pub(crate) fn namespace_of(object: &Object) -> String {
    match object.namespace() {
        "" => "default".to_owned(),
        namespace => namespace.to_owned(),
    }
}
