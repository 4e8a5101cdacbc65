//! Wanted against observed: the next steps.
//!
//! Every step is safe to take now; what has to wait for another step's effect is left for the next plan, which is
//! made as soon as the engine sees something move. So there is no half-way state to remember.

mod jobs;
mod replicas;

use crate::{Run, Wanted, Workload};
use jiff::Timestamp;
use model::{
    Action, Because, ObjectKey, Observed, Plan, PodId, PodObserved, PodRun, ServiceRun, Step, VolumeSource,
    Why, WhyReport,
};
use std::collections::BTreeMap;

/// Steps that bring `have` towards `wanted`, removals first, and the account of why.
pub fn plan(wanted: &Wanted, have: &Observed, now: Timestamp) -> (Plan, WhyReport) {
    let mut out = Draft::default();
    let mut by_owner: BTreeMap<&ObjectKey, Vec<&PodObserved>> = BTreeMap::new();
    for pod in &have.pods {
        by_owner.entry(&pod.owner).or_default().push(pod);
    }
    for workload in &wanted.workloads {
        let pods = by_owner.remove(&workload.key).unwrap_or_default();
        let before = out.len();
        let verdict = match workload.run {
            Run::Once => replicas::once(workload, &pods, &mut out),
            Run::Replicas { count, rolling } => replicas::replicas(workload, count, rolling, &pods, &mut out),
            Run::ToCompletion {
                completions,
                parallelism,
                backoff_limit,
            } => {
                let goal = jobs::Goal {
                    completions,
                    parallelism,
                    backoff_limit,
                };
                jobs::job(workload, goal, &pods, now, &mut out)
            }
        };
        refresh_files(workload, &pods, &mut out);
        let verb = if out.len() == before { "keep" } else { "change" };
        out.why.push(Why {
            about: workload.key.clone(),
            verdict: verb.to_owned(),
            because: verdict,
        });
    }
    for (owner, pods) in by_owner {
        for pod in pods {
            out.stop(pod, 30, owner, Because::Pruned);
        }
        out.why.push(Why {
            about: owner.clone(),
            verdict: "remove".to_owned(),
            because: "the generation no longer names it".to_owned(),
        });
    }
    publish(wanted, have, &mut out);
    out.finish()
}

/// Steps by phase; joined in order at the end.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    removals: Vec<Step>,
    changes: Vec<Step>,
    additions: Vec<Step>,
    why: Vec<Why>,
}

impl Draft {
    fn len(&self) -> usize {
        self.removals.len() + self.changes.len() + self.additions.len()
    }

    fn stop(&mut self, pod: &PodObserved, grace_seconds: u32, about: &ObjectKey, because: Because) {
        if !pod.terminating {
            let action = Action::StopPod {
                pod: pod.id.clone(),
                grace_seconds,
            };
            self.removals.push(Step {
                action,
                about: about.clone(),
                because,
            });
        }
    }

    fn start(&mut self, pod: PodRun, because: Because) {
        let about = pod.owner.clone();
        self.additions.push(Step {
            action: Action::StartPod { pod: Box::new(pod) },
            about,
            because,
        });
    }

    fn finish(self) -> (Plan, WhyReport) {
        let mut steps = self.removals;
        steps.extend(self.changes);
        steps.extend(self.additions);
        (Plan { steps }, WhyReport { lines: self.why })
    }
}

/// A pod of the template under its final name.
fn named(workload: &Workload, suffix: &str) -> PodRun {
    let mut pod = workload.template.clone();
    if !suffix.is_empty() {
        pod.id.name = format!("{}-{suffix}", pod.id.name);
    }
    pod
}

/// `Files` volumes whose content differs from what the pod holds are replaced in place.
fn refresh_files(workload: &Workload, pods: &[&PodObserved], out: &mut Draft) {
    let wanted = model::files_digest(&workload.template.volumes);
    for pod in pods
        .iter()
        .filter(|p| p.template == workload.template.template && !p.terminating)
    {
        if pod.files != wanted && alive(pod) {
            let volumes = workload
                .template
                .volumes
                .iter()
                .filter(|v| matches!(v.source, VolumeSource::Files { .. }))
                .cloned()
                .collect();
            out.changes.push(Step {
                action: Action::RefreshFiles {
                    pod: pod.id.clone(),
                    volumes,
                },
                about: workload.key.clone(),
                because: Because::Changed,
            });
        }
    }
}

fn alive(pod: &PodObserved) -> bool {
    matches!(pod.phase, model::PodPhase::Pending | model::PodPhase::Running)
}

/// All Services with their ready pods; published whole whenever that changes.
fn publish(wanted: &Wanted, have: &Observed, out: &mut Draft) {
    let services: Vec<ServiceRun> = wanted
        .services
        .iter()
        .map(|service| {
            let mut endpoints: Vec<PodId> = have
                .pods
                .iter()
                .filter(|pod| pod.id.namespace == service.namespace && !service.selector.is_empty())
                .filter(|pod| {
                    service
                        .selector
                        .iter()
                        .all(|(name, value)| pod.labels.get(name) == Some(value))
                })
                .filter(|pod| pod.ready() || service.publish_not_ready && alive(pod) && !pod.terminating)
                .map(|pod| pod.id.clone())
                .collect();
            endpoints.sort();
            ServiceRun {
                namespace: service.namespace.clone(),
                name: service.name.clone(),
                headless: service.headless,
                client_affinity: service.client_affinity,
                ports: service.ports.clone(),
                endpoints,
            }
        })
        .collect();
    if have.services != Some(model::services_digest(&services)) {
        let about = ObjectKey {
            group: String::new(),
            kind: "Service".to_owned(),
            namespace: String::new(),
            name: "all".to_owned(),
        };
        out.changes.push(Step {
            action: Action::Publish { services },
            about,
            because: Because::Changed,
        });
    }
}
