//! Pod, Deployment, DaemonSet and Job -> a template and how many of it.

use super::{host_ports, namespace_of, pod::Reader, typed};
use crate::api::{self, IntOrString};
use crate::refusal::Complaints;
use crate::{Rolling, Run, Workload};
use model::{Digest, Object, PodRun, RestartPolicy, VolumeSource};
use std::collections::BTreeMap;

/// Reads one workload; complaints say why there is none.
pub(super) fn read(
    object: &Object,
    reader: &Reader<'_>,
    complaints: &mut Complaints<'_>,
) -> Option<Workload> {
    match object.kind() {
        "Pod" => bare_pod(object, reader, complaints),
        "Deployment" => deployment(object, reader, complaints),
        "DaemonSet" => daemon_set(object, reader, complaints),
        _ => job(object, reader, complaints),
    }
}

fn bare_pod(object: &Object, reader: &Reader<'_>, complaints: &mut Complaints<'_>) -> Option<Workload> {
    let pod: api::Pod = typed(object, complaints)?;
    let template = reader.pod(object, "spec", pod.metadata, pod.spec, complaints)?;
    Some(finish(object, Run::Once, template))
}

fn deployment(object: &Object, reader: &Reader<'_>, complaints: &mut Complaints<'_>) -> Option<Workload> {
    let spec = typed::<api::Deployment>(object, complaints)?.spec;
    if spec.paused == Some(true) {
        complaints.add(
            "spec.paused",
            "a paused Deployment has no meaning on a device that runs what Git says",
            "remove the field; `leeward pause DEVICE` holds a device",
        );
    }
    let count = spec.replicas.unwrap_or(1);
    let template = always(
        template_of(object, spec.selector, spec.template, reader, complaints)?,
        complaints,
    )?;
    let mut rolling = rolling(count, spec.strategy, (25, 25), complaints);
    if host_ports(&template).next().is_some() {
        // The old pod must let go of its port before the new one can have it; Kubernetes would wait for ever.
        rolling = Rolling {
            surge: 0,
            unavailable: rolling.unavailable.max(1),
        };
    }
    Some(finish(object, Run::Replicas { count, rolling }, template))
}

fn daemon_set(object: &Object, reader: &Reader<'_>, complaints: &mut Complaints<'_>) -> Option<Workload> {
    let spec = typed::<api::DaemonSet>(object, complaints)?.spec;
    let template = always(
        template_of(object, spec.selector, spec.template, reader, complaints)?,
        complaints,
    )?;
    let mut rolling = match spec.update_strategy {
        None => Rolling {
            surge: 0,
            unavailable: 1,
        },
        strategy => rolling(1, strategy, (0, 100), complaints),
    };
    if host_ports(&template).next().is_some() {
        rolling = Rolling {
            surge: 0,
            unavailable: 1,
        };
    }
    Some(finish(object, Run::Replicas { count: 1, rolling }, template))
}

fn job(object: &Object, reader: &Reader<'_>, complaints: &mut Complaints<'_>) -> Option<Workload> {
    let spec = typed::<api::Job>(object, complaints)?.spec;
    if spec
        .completion_mode
        .as_deref()
        .is_some_and(|mode| mode != "NonIndexed")
    {
        complaints.add(
            "spec.completionMode",
            "indexed Jobs are not run by the embedded engine",
            "use NonIndexed",
        );
    }
    let labels = spec.template.metadata.clone();
    let mut template = reader.pod(
        object,
        "spec.template.spec",
        labels,
        spec.template.spec,
        complaints,
    )?;
    if template.restart == RestartPolicy::Always {
        complaints.add(
            "spec.template.spec.restartPolicy",
            "a Job's pods end, so that Always is not allowed",
            "use OnFailure or Never",
        );
        return None;
    }
    template.active_deadline_seconds = template.active_deadline_seconds.or(spec.active_deadline_seconds);
    let parallelism = if spec.suspend == Some(true) {
        0
    } else {
        spec.parallelism.unwrap_or(1)
    };
    let run = Run::ToCompletion {
        completions: spec.completions.unwrap_or_else(|| parallelism.max(1)),
        parallelism,
        backoff_limit: spec.backoff_limit.unwrap_or(6),
    };
    Some(finish(object, run, template))
}

fn template_of(
    object: &Object,
    selector: api::Selector,
    template: api::PodTemplate,
    reader: &Reader<'_>,
    complaints: &mut Complaints<'_>,
) -> Option<PodRun> {
    if selector.match_expressions.is_some_and(|list| !list.is_empty()) {
        complaints.add(
            "spec.selector.matchExpressions",
            "is not read by the embedded engine",
            "use matchLabels",
        );
    }
    let wanted = selector.match_labels.unwrap_or_default();
    let labels = template.metadata.labels.clone().unwrap_or_default();
    if let Some((name, value)) = wanted
        .iter()
        .find(|(name, value)| labels.get(*name) != Some(value))
    {
        complaints.add(
            "spec.selector.matchLabels",
            format!("asks for {name}={value}, which the template's labels do not have"),
            "make the template's labels match the selector",
        );
    }
    reader.pod(
        object,
        "spec.template.spec",
        template.metadata,
        template.spec,
        complaints,
    )
}

fn always(template: PodRun, complaints: &mut Complaints<'_>) -> Option<PodRun> {
    if template.restart == RestartPolicy::Always {
        return Some(template);
    }
    complaints.add(
        "spec.template.spec.restartPolicy",
        "must be Always for a workload that runs for ever",
        "remove the field, or use a Job",
    );
    None
}

/// `strategy` in numbers of pods; percentages round up for surge and down for unavailable, as in Kubernetes.
fn rolling(
    count: u32,
    strategy: Option<api::Strategy>,
    (surge, unavailable): (u32, u32),
    complaints: &mut Complaints<'_>,
) -> Rolling {
    let percent = |share: u32, up: bool| {
        let hundredths = count * share;
        if up {
            hundredths.div_ceil(100)
        } else {
            hundredths / 100
        }
    };
    let mut rolling = Rolling {
        surge: percent(surge, true),
        unavailable: percent(unavailable, false),
    };
    if let Some(strategy) = strategy {
        match strategy.kind.as_deref() {
            Some("Recreate") => {
                return Rolling {
                    surge: 0,
                    unavailable: count,
                };
            }
            None | Some("RollingUpdate") => {}
            Some(other) => complaints.add(
                "spec.strategy.type",
                format!("{other} is not a strategy of the embedded engine"),
                "use RollingUpdate or Recreate",
            ),
        }
        let mut read = |value: Option<IntOrString>, field: &str, up: bool, into: &mut u32| match value {
            None => {}
            Some(IntOrString::Int(n)) if n >= 0 => *into = u32::try_from(n).unwrap_or(u32::MAX),
            Some(IntOrString::Text(text))
                if text.strip_suffix('%').is_some_and(|t| t.parse::<u32>().is_ok()) =>
            {
                let share: u32 = text.trim_end_matches('%').parse().unwrap_or(0);
                *into = percent(share, up);
            }
            Some(_) => complaints.add(
                format!("spec.strategy.rollingUpdate.{field}"),
                "is neither a number nor a percentage",
                "write 1 or 25%",
            ),
        };
        if let Some(given) = strategy.rolling_update {
            read(given.max_surge, "maxSurge", true, &mut rolling.surge);
            read(
                given.max_unavailable,
                "maxUnavailable",
                false,
                &mut rolling.unavailable,
            );
        }
    }
    if rolling.surge == 0 && rolling.unavailable == 0 {
        rolling.unavailable = 1;
    }
    rolling
}

/// Hashes the template and names the pods after it.
fn finish(object: &Object, run: Run, mut template: PodRun) -> Workload {
    template.template = template_digest(&template);
    if run != Run::Once {
        template.id.name = format!("{}-{}", object.name(), &template.template.hex()[..8]);
    }
    let mut key = object.key();
    key.namespace = namespace_of(object);
    template.owner = key.clone();
    Workload { key, run, template }
}

/// Files of ConfigMap and Secret volumes are left out: they change in place, without a new pod. So are credentials for
/// images: what runs has its image.
fn template_digest(template: &PodRun) -> Digest {
    let mut hashed = template.clone();
    hashed.pull_secrets = Vec::new();
    for volume in &mut hashed.volumes {
        if let VolumeSource::Files { files, .. } = &mut volume.source {
            *files = BTreeMap::new();
        }
    }
    // Serialising plain data to memory cannot fail.
    Digest::of(&serde_json::to_vec(&hashed).unwrap_or_default())
}
