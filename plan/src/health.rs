//! The state of each workload in kstatus' words, and the verdict on a generation.

use crate::{Run, Wanted, Workload};
use model::{ContainerState, Observed, PodObserved, PodPhase, PodStatus, WorkloadState, WorkloadStatus};

/// Restarts after which a container that was never ready counts as failed, not as on its way.
const HOPELESS_RESTARTS: u32 = 3;

/// What a generation's workloads amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All are as wanted.
    Healthy,
    /// Some are still on their way: which, and why.
    Progressing(String),
    /// One cannot get there: which, and why.
    Failed(String),
}

/// Judges a generation by its workloads.
pub fn verdict(workloads: &[WorkloadStatus]) -> Verdict {
    let told = |w: &WorkloadStatus| format!("{}: {}", w.key, w.message);
    if let Some(failed) = workloads.iter().find(|w| w.state == WorkloadState::Failed) {
        return Verdict::Failed(told(failed));
    }
    match workloads.iter().find(|w| w.state != WorkloadState::Current) {
        Some(moving) => Verdict::Progressing(told(moving)),
        None => Verdict::Healthy,
    }
}

/// The state of every wanted workload, and of what is being removed.
pub fn workloads(wanted: &Wanted, have: &Observed) -> Vec<WorkloadStatus> {
    let mut list: Vec<WorkloadStatus> = wanted
        .workloads
        .iter()
        .map(|workload| {
            let pods: Vec<&PodObserved> = have.pods.iter().filter(|p| p.owner == workload.key).collect();
            status_of(workload, &pods)
        })
        .collect();
    let mut unowned: Vec<&PodObserved> = have
        .pods
        .iter()
        .filter(|p| !wanted.workloads.iter().any(|w| w.key == p.owner))
        .collect();
    unowned.sort_by(|a, b| a.owner.cmp(&b.owner));
    for group in unowned.chunk_by(|a, b| a.owner == b.owner) {
        list.push(WorkloadStatus {
            key: group[0].owner.clone(),
            state: WorkloadState::Terminating,
            desired: 0,
            ready: 0,
            reason: None,
            message: "being removed".to_owned(),
            images: Vec::new(),
            pods: group.iter().map(|p| pod_status(p)).collect(),
        });
    }
    list
}

fn status_of(workload: &Workload, pods: &[&PodObserved]) -> WorkloadStatus {
    let current: Vec<&&PodObserved> = pods
        .iter()
        .filter(|p| p.template == workload.template.template)
        .collect();
    let old = pods.len() - current.len();
    let succeeded = current.iter().filter(|p| p.phase == PodPhase::Succeeded).count();
    let (desired, ready, state, message) = match workload.run {
        Run::ToCompletion {
            completions,
            backoff_limit,
            ..
        } => {
            let failed = current.iter().filter(|p| p.phase == PodPhase::Failed).count();
            let (state, message) = if succeeded >= completions as usize {
                (
                    WorkloadState::Current,
                    format!("completed, {succeeded} succeeded"),
                )
            } else if failed > backoff_limit as usize {
                (
                    WorkloadState::Failed,
                    format!("BackoffLimitExceeded: {failed} pods failed"),
                )
            } else {
                (
                    WorkloadState::InProgress,
                    format!("{succeeded} of {completions} succeeded, {failed} failed"),
                )
            };
            // A running Job is no reason to hold a generation back: it counts as healthy once its pods run.
            let runs = state == WorkloadState::InProgress && failed == 0 && current.iter().any(|p| p.ready());
            let state = if runs { WorkloadState::Current } else { state };
            (completions, succeeded, state, message)
        }
        Run::Once | Run::Replicas { .. } => {
            let desired = if let Run::Replicas { count, .. } = workload.run {
                count
            } else {
                1
            };
            let ready = current.iter().filter(|p| p.ready()).count();
            let done = workload.run == Run::Once && succeeded == 1;
            let trouble = current.iter().find_map(|p| hopeless(p));
            let (state, message) = if done {
                (WorkloadState::Current, "succeeded".to_owned())
            } else if ready >= desired as usize && old == 0 && current.len() == desired as usize {
                (WorkloadState::Current, format!("{ready} of {desired} ready"))
            } else if let Some(trouble) = trouble {
                (WorkloadState::Failed, trouble)
            } else if workload.run == Run::Once && current.iter().any(|p| p.phase == PodPhase::Failed) {
                (WorkloadState::Failed, "the pod failed".to_owned())
            } else {
                (WorkloadState::InProgress, progress(ready, desired, old, &current))
            };
            (desired, ready, state, message)
        }
    };
    let containers = workload
        .template
        .init_containers
        .iter()
        .chain(&workload.template.containers);
    WorkloadStatus {
        key: workload.key.clone(),
        state,
        desired,
        ready: u32::try_from(ready).unwrap_or(u32::MAX),
        reason: None,
        message,
        images: containers.map(|c| c.image.to_string()).collect(),
        pods: pods.iter().map(|p| pod_status(p)).collect(),
    }
}

fn progress(ready: usize, desired: u32, old: usize, pods: &[&&PodObserved]) -> String {
    let mut message = format!("{ready} of {desired} ready");
    if old > 0 {
        message.push_str(&format!(", {old} of the old template left"));
    }
    if let Some(trouble) = pods.iter().find_map(|p| trouble(p)) {
        message.push_str("; ");
        message.push_str(&trouble);
    }
    message
}

/// A container that keeps ending without ever having been ready.
fn hopeless(pod: &PodObserved) -> Option<String> {
    pod.containers
        .iter()
        .find(|c| !c.ready && c.restarts >= HOPELESS_RESTARTS)
        .map(|c| {
            let last = c
                .last_exit
                .as_ref()
                .map(|(code, reason)| format!(", last exit {code} ({reason})"));
            format!(
                "CrashLoopBackOff: container {} restarted {} times{}",
                c.name,
                c.restarts,
                last.unwrap_or_default()
            )
        })
}

fn trouble(pod: &PodObserved) -> Option<String> {
    if let Some(trouble) = &pod.trouble {
        return Some(trouble.clone());
    }
    pod.containers.iter().find_map(|c| match &c.state {
        ContainerState::Waiting { reason }
            if reason != "ContainerCreating" && reason != "PodInitializing" =>
        {
            let last = c
                .last_exit
                .as_ref()
                .map(|(code, why)| format!(" after exit {code} ({why})"));
            Some(format!(
                "container {}: {reason}{}",
                c.name,
                last.unwrap_or_default()
            ))
        }
        ContainerState::Exited { code, reason, .. } if *code != 0 => {
            Some(format!("container {}: {reason}, exit code {code}", c.name))
        }
        ContainerState::Running { .. } if !c.ready => Some(format!("container {} is not ready", c.name)),
        _ => None,
    })
}

fn pod_status(pod: &PodObserved) -> PodStatus {
    PodStatus {
        name: pod.id.name.clone(),
        phase: pod.phase,
        ready: pod.ready(),
        restarts: pod.containers.iter().map(|c| c.restarts).sum(),
        ip: pod.ip.map(|ip| ip.to_string()),
        containers: pod.containers.iter().map(|c| c.name.clone()).collect(),
        trouble: trouble(pod),
    }
}
