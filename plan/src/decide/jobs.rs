//! Pods that run to completion.

use super::{Draft, named};
use crate::Workload;
use jiff::{SignedDuration, Timestamp};
use model::{Because, ContainerState, PodObserved, PodPhase};

/// What a Job wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goal {
    pub completions: u32,
    pub parallelism: u32,
    pub backoff_limit: u32,
}

/// First wait after a failed pod; doubles up to six minutes, as Kubernetes does.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(10);
const LONGEST_WAIT: SignedDuration = SignedDuration::from_secs(360);

/// Starts pods until enough have succeeded or too many have failed. Finished pods of the current template stay:
/// they are the Job's memory. A changed template is a new Job, and what the old one left is removed.
pub(super) fn job(
    workload: &Workload,
    goal: Goal,
    pods: &[&PodObserved],
    now: Timestamp,
    out: &mut Draft,
) -> String {
    let template = workload.template.template;
    let (current, old): (Vec<_>, Vec<_>) = pods.iter().copied().partition(|p| p.template == template);
    for pod in &old {
        out.stop(
            pod,
            workload.template.grace_seconds,
            &workload.key,
            Because::Replaced,
        );
    }
    let in_phase = |phase: PodPhase| current.iter().filter(move |p| p.phase == phase);
    let succeeded = in_phase(PodPhase::Succeeded).count();
    let failed = in_phase(PodPhase::Failed).count();
    let active: Vec<_> = current
        .iter()
        .filter(|p| super::alive(p) && !p.terminating)
        .collect();
    let wanted = goal.completions as usize;
    if succeeded >= wanted {
        for pod in &active {
            out.stop(
                pod,
                workload.template.grace_seconds,
                &workload.key,
                Because::Surplus,
            );
        }
        return format!("complete, {succeeded} of {wanted} succeeded");
    }
    if failed > goal.backoff_limit as usize {
        return format!(
            "failed: {failed} pods failed, backoffLimit is {}",
            goal.backoff_limit
        );
    }
    if !old.is_empty() {
        return "waiting for the pods of the old template to go".to_owned();
    }
    if let Some(until) = next_try(&current, failed).filter(|until| *until > now) {
        return format!("{failed} failed; next try at {until:.0}");
    }
    let missing = (wanted - succeeded)
        .min(goal.parallelism as usize)
        .saturating_sub(active.len());
    let because = if failed > 0 {
        Because::Retried
    } else {
        Because::Missing
    };
    for index in (current.len()..).take(missing) {
        out.start(named(workload, &index.to_string()), because.clone());
    }
    format!(
        "{succeeded} of {wanted} succeeded, {} active, {failed} failed",
        active.len() + missing
    )
}

fn next_try(pods: &[&PodObserved], failed: usize) -> Option<Timestamp> {
    let last = pods
        .iter()
        .filter(|p| p.phase == PodPhase::Failed)
        .flat_map(|p| &p.containers)
        .filter_map(|c| match &c.state {
            ContainerState::Exited { at, .. } => Some(*at),
            _ => None,
        });
    let wait = FIRST_WAIT
        .checked_mul(1 << failed.saturating_sub(1).min(10))?
        .min(LONGEST_WAIT);
    last.max()?.checked_add(wait).ok()
}
