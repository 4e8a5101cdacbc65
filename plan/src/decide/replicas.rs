//! Pods that run for ever: Deployment, DaemonSet, bare Pod.

use super::{Draft, alive, named};
use crate::{Rolling, Workload};
use model::{Because, PodObserved};

/// Moves a set of pods towards `count` pods of the current template within `rolling`'s bounds.
///
/// Old pods that are not ready serve nobody, so they go first and cost no availability.
pub(super) fn replicas(
    workload: &Workload,
    count: u32,
    rolling: Rolling,
    pods: &[&PodObserved],
    out: &mut Draft,
) -> String {
    let template = workload.template.template;
    let grace = workload.template.grace_seconds;
    let live = pods.iter().copied().filter(|p| !p.terminating);
    // A pod that was to run for ever and has ended (its shim died, the device was reset) is made anew.
    let (ended, live): (Vec<_>, Vec<_>) = live.partition(|p| !alive(p));
    for pod in &ended {
        out.stop(pod, 0, &workload.key, Because::Ended);
    }
    let (mut new, old): (Vec<_>, Vec<_>) = live.into_iter().partition(|p| p.template == template);
    new.sort_by(|a, b| a.id.cmp(&b.id));

    let wanted = count as usize;
    while new.len() > wanted {
        // The highest index goes first, so that names stay stable.
        if let Some(pod) = new.pop() {
            out.stop(pod, grace, &workload.key, Because::Surplus);
        }
    }

    let available = new.iter().chain(&old).filter(|p| p.ready()).count();
    let least = wanted.saturating_sub(rolling.unavailable as usize);
    let mut spare = available.saturating_sub(least);
    let mut removed = 0;
    for pod in &old {
        let free = !pod.ready();
        if free || spare > 0 {
            if !free {
                spare -= 1;
            }
            removed += 1;
            out.stop(pod, grace, &workload.key, Because::Replaced);
        }
    }

    let leaving = pods.iter().filter(|p| p.terminating).count();
    let remaining_old = old.len() - removed;
    let mut room = (wanted + rolling.surge as usize).saturating_sub(new.len() + remaining_old);
    if rolling.surge == 0 {
        // Without surge the old pod must be gone, its ports and volumes with it, before the new one starts.
        room = room.saturating_sub(removed + leaving + ended.len());
    }
    let missing = wanted.saturating_sub(new.len()).min(room);
    let because = if old.is_empty() && ended.is_empty() {
        Because::Missing
    } else {
        Because::Replaced
    };
    for name in free_names(workload, wanted + rolling.surge as usize, pods).take(missing) {
        out.start(named(workload, &name), because.clone());
    }

    let ready = new.iter().filter(|p| p.ready()).count();
    if new.len() == wanted && old.is_empty() && ready == wanted {
        return format!("{ready} of {wanted} ready");
    }
    let mut parts = vec![format!("{ready} of {wanted} ready on the current template")];
    if !old.is_empty() {
        parts.push(format!(
            "{} of the old one left (surge {}, unavailable {})",
            old.len(),
            rolling.surge,
            rolling.unavailable
        ));
    }
    if missing > 0 {
        parts.push(format!("starting {missing}"));
    }
    if leaving > 0 {
        parts.push(format!("{leaving} stopping"));
    }
    parts.join(", ")
}

/// Indexes that no pod of this template holds, lowest first.
fn free_names<'a>(
    workload: &'a Workload,
    most: usize,
    pods: &'a [&PodObserved],
) -> impl Iterator<Item = String> + 'a {
    (0..most + pods.len())
        .map(|i| i.to_string())
        .filter(move |index| {
            let name = format!("{}-{index}", workload.template.id.name);
            !pods.iter().any(|p| p.id.name == name)
        })
}

/// A bare Pod: it keeps its name, so the old one must be gone before the new one starts.
pub(super) fn once(workload: &Workload, pods: &[&PodObserved], out: &mut Draft) -> String {
    let current = pods
        .iter()
        .find(|p| p.template == workload.template.template && !p.terminating);
    let others: Vec<_> = pods
        .iter()
        .filter(|p| p.template != workload.template.template || p.terminating)
        .collect();
    for pod in &others {
        out.stop(
            pod,
            workload.template.grace_seconds,
            &workload.key,
            Because::Replaced,
        );
    }
    match current {
        Some(pod) => format!("{:?}", pod.phase),
        None if others.is_empty() => {
            out.start(named(workload, ""), Because::Missing);
            "starting".to_owned()
        }
        None => "waiting for the old pod to stop".to_owned(),
    }
}
