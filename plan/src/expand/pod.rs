//! `PodSpec` -> `PodRun`, with every reference resolved.

use super::configs::Configs;
use super::{Limits, container, namespace_of, volumes};
use crate::api;
use crate::refusal::Complaints;
use model::{Digest, Object, PodId, PodRun, RestartPolicy};
use std::collections::BTreeSet;

/// What a pod is read against.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub configs: &'a Configs,
    pub limits: &'a Limits,
}

/// Where in a pod we are, for references and for the names of fields.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub reader: &'a Reader<'a>,
    pub namespace: &'a str,
    pub pod_name: &'a str,
    pub labels: &'a std::collections::BTreeMap<String, String>,
    pub annotations: &'a std::collections::BTreeMap<String, String>,
    /// `spec.template.spec`, and deeper as reading goes on.
    pub at: String,
}

impl Reader<'_> {
    /// Reads a pod. `at` is the path of its spec in `object`.
    pub(super) fn pod(
        &self,
        object: &Object,
        at: &str,
        meta: api::Meta,
        spec: api::PodSpec,
        complaints: &mut Complaints<'_>,
    ) -> Option<PodRun> {
        let namespace = namespace_of(object);
        let labels = meta.labels.unwrap_or_default();
        let annotations = meta.annotations.unwrap_or_default();
        for (field, asked) in [("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)] {
            if asked == Some(true) {
                complaints.add(
                    format!("{at}.{field}"),
                    "is not given by the embedded engine",
                    "use hostNetwork or hostPath where they suffice",
                );
            }
        }
        let restart = match spec.restart_policy.as_deref() {
            None | Some("Always") => RestartPolicy::Always,
            Some("OnFailure") => RestartPolicy::OnFailure,
            Some("Never") => RestartPolicy::Never,
            Some(other) => {
                complaints.add(
                    format!("{at}.restartPolicy"),
                    format!("{other} is no restart policy"),
                    "use Always, OnFailure or Never",
                );
                return None;
            }
        };
        let place = Place {
            reader: self,
            namespace: &namespace,
            pod_name: object.name(),
            labels: &labels,
            annotations: &annotations,
            at: at.to_owned(),
        };
        if spec.containers.is_empty() {
            complaints.add(
                format!("{at}.containers"),
                "is empty",
                "name at least one container",
            );
        }
        let pod_security = spec.security_context.unwrap_or_default();
        let init_containers =
            place.containers(spec.init_containers, "initContainers", &pod_security, complaints);
        let containers = place.containers(spec.containers, "containers", &pod_security, complaints);
        let volumes = volumes::read(&place, spec.volumes, complaints);
        let known: BTreeSet<&str> = volumes.iter().map(|v| v.name.as_str()).collect();
        let mut names = BTreeSet::new();
        for container in init_containers.iter().chain(&containers) {
            if !names.insert(container.name.as_str()) {
                complaints.add(
                    format!("{at}.containers"),
                    format!("two containers are named {}", container.name),
                    "give each its own name",
                );
            }
            for mount in container
                .mounts
                .iter()
                .filter(|m| !known.contains(m.volume.as_str()))
            {
                complaints.add(
                    format!("{at}.containers[{}].volumeMounts", container.name),
                    format!("there is no volume named {}", mount.volume),
                    "add it under volumes, or correct the name",
                );
            }
        }
        let mut pull_secrets = Vec::new();
        for (number, reference) in spec.image_pull_secrets.iter().enumerate() {
            match self.configs.pull_secret(&namespace, &reference.name) {
                Ok(secret) => pull_secrets.push(secret),
                Err(problem) => complaints.add(
                    format!("{at}.imagePullSecrets[{number}].name"),
                    problem,
                    "make it with `kubectl create secret docker-registry NAME --dry-run=client -o yaml ...`, or leave \
                     the reference out",
                ),
            }
        }
        Some(PodRun {
            id: PodId {
                namespace: namespace.clone(),
                name: object.name().to_owned(),
            },
            owner: object.key(),
            template: Digest::of(b""),
            host_network: spec.host_network.unwrap_or(false),
            share_process_namespace: spec.share_process_namespace.unwrap_or(false),
            restart,
            grace_seconds: spec.termination_grace_period_seconds.unwrap_or(30),
            active_deadline_seconds: spec.active_deadline_seconds,
            init_containers,
            containers,
            volumes,
            host_aliases: spec
                .host_aliases
                .into_iter()
                .map(|alias| (alias.ip, alias.hostnames))
                .collect(),
            hostname: spec.hostname,
            pull_secrets,
            labels,
            annotations,
        })
    }
}

impl Place<'_> {
    fn containers(
        &self,
        list: Vec<api::Container>,
        field: &str,
        pod: &api::PodSecurityContext,
        complaints: &mut Complaints<'_>,
    ) -> Vec<model::ContainerRun> {
        let mut read = Vec::with_capacity(list.len());
        for container in list {
            let at = format!("{}.{field}[{}]", self.at, container.name);
            read.extend(container::read(self, &at, container, pod, complaints));
        }
        read
    }
}
