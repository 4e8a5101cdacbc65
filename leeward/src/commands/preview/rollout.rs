//! How a device would get from one generation to the next: the planner's own steps, taken on paper.

use crate::compare;
use jiff::Timestamp;
use model::{
    Action, Because, ContainerObserved, ContainerState, Desired, Object, ObjectKey, Observed, PodObserved,
    PodPhase, PodRun, Probe,
};
use plan::{Run, Wanted, Workload, plan};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What happens to one workload.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Effect {
    /// Which object.
    pub workload: String,
    pub what: What,
    /// Why, in the planner's words and by the fields that changed.
    pub because: String,
    /// Pods that end, and pods that start.
    pub stopped: usize,
    pub started: usize,
    /// Seconds in which no pod of it is ready; absent where one always is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downtime: Option<Downtime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// Not there before.
    New,
    /// Its pods are replaced.
    Restarted,
    /// It has more or fewer pods.
    Scaled,
    /// Files are replaced in its running pods.
    Refreshed,
    /// No longer there.
    Removed,
}

impl What {
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Restarted => "restarted",
            Self::Scaled => "scaled",
            Self::Refreshed => "files refreshed",
            Self::Removed => "removed",
        }
    }
}

/// Seconds; see `docs/guides/preview.md` for the formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Downtime {
    pub least: u64,
    pub most: u64,
}

/// A generation with its objects.
#[derive(Debug)]
pub struct Generation {
    pub desired: Desired,
    pub wanted: Wanted,
}

/// More rounds than any roll-out has pods.
const MOST_ROUNDS: usize = 10_000;

#[derive(Debug, Default)]
struct Seen {
    reasons: BTreeSet<&'static str>,
    stopped: usize,
    started: usize,
    refreshed: bool,
}

/// What the planner would do, workload by workload, where all goes well.
pub fn effects(old: &Generation, new: &Generation) -> Vec<Effect> {
    let now = Timestamp::now();
    let mut have = settled(&old.wanted, now);
    let mut seen: BTreeMap<ObjectKey, Seen> = BTreeMap::new();
    let mut least: BTreeMap<ObjectKey, usize> = ready_pods(&have);
    for _ in 0..MOST_ROUNDS {
        let (steps, _) = plan(&new.wanted, &have, now);
        // Services are published over and over while pods come and go; that is no step of a workload.
        let steps: Vec<_> = steps
            .steps
            .into_iter()
            .filter(|step| !matches!(step.action, Action::Publish { .. }))
            .collect();
        if steps.is_empty() {
            break;
        }
        for step in steps {
            let seen = seen.entry(step.about.clone()).or_default();
            match step.action {
                Action::StopPod { pod, .. } => {
                    have.pods.retain(|held| held.id != pod);
                    seen.stopped += 1;
                    seen.reasons.insert(reason(&step.because));
                }
                Action::StartPod { pod } => {
                    have.pods.push(observed(&pod, false, now));
                    seen.started += 1;
                    seen.reasons.insert(reason(&step.because));
                }
                Action::RefreshFiles { pod, volumes } => {
                    if let Some(held) = have.pods.iter_mut().find(|held| held.id == pod) {
                        held.files = model::files_digest(&volumes);
                    }
                    seen.refreshed = true;
                }
                Action::Pull { .. } | Action::Publish { .. } => {}
            }
        }
        let ready = ready_pods(&have);
        for (workload, least) in &mut least {
            *least = (*least).min(ready.get(workload).copied().unwrap_or(0));
        }
        have.pods.iter_mut().for_each(|pod| finish(pod, &new.wanted));
    }
    seen.iter()
        .map(|(key, seen)| effect(key, seen, least.get(key) == Some(&0), old, new))
        .collect()
}

fn effect(key: &ObjectKey, seen: &Seen, gone: bool, old: &Generation, new: &Generation) -> Effect {
    let find = |generation: &Generation| -> Option<Workload> {
        generation
            .wanted
            .workloads
            .iter()
            .find(|w| w.key == *key)
            .cloned()
    };
    let (before, after) = (find(old), find(new));
    let what = match (&before, &after) {
        (None, _) => What::New,
        (_, None) => What::Removed,
        (Some(before), Some(after)) if before.template.template != after.template.template => What::Restarted,
        _ if seen.stopped + seen.started > 0 => What::Scaled,
        _ => What::Refreshed,
    };
    let downtime = match (&before, &after) {
        (Some(before), Some(after)) if gone && what == What::Restarted && serves(&after.run) => {
            Some(Downtime {
                least: start_seconds(&after.template),
                most: u64::from(before.template.grace_seconds) + start_seconds(&after.template),
            })
        }
        _ => None,
    };
    Effect {
        workload: key.to_string(),
        what,
        because: because(key, what, seen, old, new),
        stopped: seen.stopped,
        started: seen.started,
        downtime,
    }
}

/// The fields of the object that ask for it; where the object is the same, what it reads has changed.
fn because(key: &ObjectKey, what: What, seen: &Seen, old: &Generation, new: &Generation) -> String {
    let find = |generation: &Generation| -> Option<Object> {
        generation
            .desired
            .objects
            .iter()
            .find(|object| object.key() == *key)
            .cloned()
    };
    let words = || seen.reasons.iter().copied().collect::<Vec<_>>().join(", ");
    match (what, find(old), find(new)) {
        (What::Restarted | What::Scaled, Some(old), Some(new)) if old != new => {
            let fields = compare::fields(&old, &new);
            let (templates, others): (Vec<_>, Vec<_>) = fields
                .iter()
                .map(|field| field.path.trim_start_matches("spec.template.spec."))
                .partition(|path| !path.starts_with("metadata"));
            let shown = if templates.is_empty() { others } else { templates };
            let more = shown.len().saturating_sub(3);
            let mut text = shown.into_iter().take(3).collect::<Vec<_>>().join(", ");
            if more > 0 {
                text.push_str(&format!(" and {more} more"));
            }
            text
        }
        (What::Restarted, _, _) => "a ConfigMap or Secret in its environment changed".to_owned(),
        (What::Refreshed, _, _) => "a ConfigMap or Secret that it mounts changed".to_owned(),
        _ => words(),
    }
}

fn reason(because: &Because) -> &'static str {
    match because {
        Because::Missing => "not there yet",
        Because::Pruned => "no longer in the repository",
        Because::Replaced => "made from another template",
        Because::Surplus => "more pods than replicas",
        Because::Changed => "content changed",
        Because::Retried => "tried again",
        Because::Ended => "ended",
    }
}

/// Whether somebody waits for an answer.
fn serves(run: &Run) -> bool {
    match run {
        Run::Once => true,
        Run::Replicas { count, .. } => *count > 0,
        Run::ToCompletion { .. } => false,
    }
}

/// From the start of a pod to its being ready, where each probe succeeds at its first try.
fn start_seconds(pod: &PodRun) -> u64 {
    let first = |probe: &Option<Probe>| {
        probe.as_ref().map_or(0, |probe| {
            let again = u64::from(probe.success_threshold.saturating_sub(1));
            u64::from(probe.initial_delay_seconds) + again * u64::from(probe.period_seconds)
        })
    };
    let containers = pod.containers.iter();
    containers
        .map(|c| first(&c.startup) + first(&c.readiness))
        .max()
        .unwrap_or(0)
}

/// All of a generation's pods, running and ready.
fn settled(wanted: &Wanted, now: Timestamp) -> Observed {
    let mut pods = Vec::new();
    for workload in &wanted.workloads {
        let count = match workload.run {
            Run::Once => 1,
            Run::Replicas { count, .. } => count,
            Run::ToCompletion { completions, .. } => completions,
        };
        for at in 0..count {
            let mut pod = workload.template.clone();
            if workload.run != Run::Once {
                pod.id.name = format!("{}-{at}", pod.id.name);
            }
            let mut pod = observed(&pod, true, now);
            finish(&mut pod, wanted);
            pods.push(pod);
        }
    }
    Observed { pods, services: None }
}

fn observed(pod: &PodRun, ready: bool, now: Timestamp) -> PodObserved {
    let container = |name: &String| ContainerObserved {
        name: name.clone(),
        state: ContainerState::Running { since: now },
        ready,
        started: ready,
        restarts: 0,
        last_exit: None,
        image: None,
    };
    PodObserved {
        id: pod.id.clone(),
        owner: pod.owner.clone(),
        template: pod.template,
        labels: pod.labels.clone(),
        files: model::files_digest(&pod.volumes),
        phase: PodPhase::Running,
        ip: None,
        created_at: now,
        containers: pod.containers.iter().map(|c| container(&c.name)).collect(),
        terminating: false,
        trouble: None,
    }
}

/// What was started becomes ready, or, of a Job, succeeds.
fn finish(pod: &mut PodObserved, wanted: &Wanted) {
    let owner = wanted.workloads.iter().find(|workload| workload.key == pod.owner);
    if owner.is_some_and(|workload| matches!(workload.run, Run::ToCompletion { .. })) {
        pod.phase = PodPhase::Succeeded;
    }
    for container in &mut pod.containers {
        (container.ready, container.started) = (true, true);
    }
}

fn ready_pods(have: &Observed) -> BTreeMap<ObjectKey, usize> {
    let mut ready = BTreeMap::new();
    for pod in have.pods.iter().filter(|pod| pod.ready()) {
        *ready.entry(pod.owner.clone()).or_insert(0) += 1;
    }
    ready
}
