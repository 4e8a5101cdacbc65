//! What the hub knows itself, as rows of the tables that a query names.

use crate::store::{Device, DeviceFilter, HeldEvent, HeldStatus, Link, Store, StoreError};
use history::{DeviceFact, EventFact, StatusFact, WorkloadFact};
use model::{DeviceName, WorkloadStatus};

/// Events that a query sees, newest.
const EVENTS: usize = 100_000;

pub(super) async fn load(store: &Store, named: &[String]) -> Result<history::Facts, StoreError> {
    let wants = |table: &str| named.iter().any(|name| name == table);
    let mut facts = history::Facts::default();
    if ["devices", "workloads", "status"].into_iter().any(wants) {
        for device in store.fleet(DeviceFilter::default()).await?.devices {
            if let Some(held) = &device.status {
                let workloads = held.status.workloads.iter();
                facts
                    .workloads
                    .extend(workloads.map(|w| workload(&device.name, held, w)));
                facts.status.push(status(&device.name, held));
            }
            facts.devices.push(row(device));
        }
    }
    if wants("events") {
        let events = store.fleet_events(EVENTS).await?;
        facts.events = events.into_iter().map(event).collect();
    }
    Ok(facts)
}

fn row(device: Device) -> DeviceFact {
    DeviceFact {
        name: device.name.to_string(),
        class: device.class.to_string(),
        site: device.site,
        labels: device.labels,
        enrolled_at: device.enrolled_at,
        health: device.health.word(),
        message: device.message,
        connected: matches!(device.link, Link::Up { .. }),
        last_seen: device.last_seen,
        agent: device.agent,
        backlog: device.backlog,
    }
}

fn workload(device: &DeviceName, held: &HeldStatus, workload: &WorkloadStatus) -> WorkloadFact {
    WorkloadFact {
        device: device.to_string(),
        namespace: workload.key.namespace.clone(),
        kind: workload.key.kind.clone(),
        name: workload.key.name.clone(),
        state: format!("{:?}", workload.state),
        ready: workload.ready,
        desired: workload.desired,
        restarts: workload.pods.iter().map(|pod| pod.restarts).sum(),
        images: workload.images.join(","),
        message: workload.message.clone(),
        told_at: held.received_at,
    }
}

fn status(device: &DeviceName, held: &HeldStatus) -> StatusFact {
    let status = &held.status;
    let generation = &status.generation;
    StatusFact {
        device: device.to_string(),
        told_at: held.received_at,
        phase: phase(status),
        generation: generation.current.clone(),
        last_good: generation.last_good.clone(),
        candidate: generation.candidate.clone(),
        revision: generation
            .revision
            .as_ref()
            .map(|revision| revision.commit.clone()),
        source_error: status.source.error.clone(),
        cpu_percent: status.facts.cpu_percent,
        temperature_celsius: status.facts.temperature_celsius,
        memory_used: status.facts.memory_used,
        memory_total: status.facts.memory_total,
        disk_used: status.facts.disk_used,
        disk_total: status.facts.disk_total,
    }
}

fn event(held: HeldEvent) -> EventFact {
    EventFact {
        device: held.device.to_string(),
        time: held.event.time,
        received_at: held.received_at,
        severity: format!("{:?}", held.event.severity),
        reason: held.event.reason,
        about: held.event.about,
        message: held.event.message,
        generation: held.event.generation,
    }
}

/// The word that a status itself uses.
fn phase(status: &model::Status) -> String {
    use model::Phase::{Degraded, Paused, Progressing, Ready, RolledBack, WaitingForSource};
    match status.phase {
        WaitingForSource => "waitingForSource",
        Progressing => "progressing",
        Ready => "ready",
        RolledBack => "rolledBack",
        Degraded => "degraded",
        Paused => "paused",
    }
    .to_owned()
}
