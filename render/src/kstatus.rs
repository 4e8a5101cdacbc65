//! Is an object healthy? The rules of kstatus, which Flux waits by.
//!
//! Takes an object with its `status`, as a cluster or the device's own engine reports it; gives a state and a
//! message. Reads no clock: what depends on time is left to who watches.

use serde_json::Value;
use std::fmt;

/// How far an object is on its way to what its `spec` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// As it should be.
    Current,
    /// On the way.
    InProgress,
    /// Something went wrong; it may still recover.
    Failed,
    /// Being deleted.
    Terminating,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Current => "Current",
            Self::InProgress => "InProgress",
            Self::Failed => "Failed",
            Self::Terminating => "Terminating",
        })
    }
}

type Status = (State, String);

/// The state of an object and why.
pub fn kstatus(object: &Value) -> Status {
    if object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|time| !time.is_null())
    {
        return (State::Terminating, "the object is being deleted".to_owned());
    }
    if let Some(status) = generation(object) {
        return status;
    }
    if let Some(status) = standard_conditions(object) {
        return status;
    }
    let api_version = text(object, "/apiVersion");
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match (group, text(object, "/kind")) {
        ("apps" | "extensions", "Deployment") => deployment(object),
        ("apps", "StatefulSet") => stateful_set(object),
        ("apps" | "extensions", "ReplicaSet") => replica_set(object),
        ("apps" | "extensions", "DaemonSet") => daemon_set(object),
        ("", "PersistentVolumeClaim") => claim(object),
        ("", "Pod") => pod(object),
        ("", "Service") => service(object),
        ("policy", "PodDisruptionBudget") => current("the budget is observed"),
        ("batch", "CronJob") => current("the schedule is set"),
        ("batch", "Job") => job(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(object),
        _ => ready_condition(object),
    }
}

fn current(message: impl Into<String>) -> Status {
    (State::Current, message.into())
}

fn progress(message: impl Into<String>) -> Status {
    (State::InProgress, message.into())
}

fn failed(message: impl Into<String>) -> Status {
    (State::Failed, message.into())
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

fn count(object: &Value, field: &str) -> i64 {
    number(object, &format!("/status/{field}")).unwrap_or_default()
}

/// A condition's status, reason and message.
fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions
        .iter()
        .find(|condition| text(condition, "/type") == kind)?;
    Some((
        text(found, "/status"),
        text(found, "/reason"),
        text(found, "/message"),
    ))
}

/// A controller that has not seen the newest `spec` yet.
fn generation(object: &Value) -> Option<Status> {
    let wanted = number(object, "/metadata/generation")?;
    let observed = number(object, "/status/observedGeneration")?;
    (wanted != observed).then(|| {
        progress(format!(
            "generation {wanted} is not observed yet, only {observed}"
        ))
    })
}

/// `Reconciling` and `Stalled`, which kstatus defines itself.
fn standard_conditions(object: &Value) -> Option<Status> {
    if let Some(("True", _, message)) = condition(object, "Reconciling") {
        return Some(progress(message));
    }
    match condition(object, "Stalled") {
        Some(("True", _, message)) => Some(failed(message)),
        _ => None,
    }
}

fn ready_condition(object: &Value) -> Status {
    match condition(object, "Ready") {
        Some(("True", ..)) => current("the object is ready"),
        Some(("False" | "Unknown", _, message)) => progress(message),
        _ => current("the object is there"),
    }
}

fn deployment(object: &Value) -> Status {
    if let Some((status, reason, _)) = condition(object, "Progressing") {
        if reason == "ProgressDeadlineExceeded" {
            return failed("the deployment passed its deadline for progress");
        }
        if !(status == "True" && reason == "NewReplicaSetAvailable")
            && number(object, "/spec/progressDeadlineSeconds").is_some()
        {
            return progress("the new pods are not available yet");
        }
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let (replicas, updated) = (count(object, "replicas"), count(object, "updatedReplicas"));
    let (available, ready) = (count(object, "availableReplicas"), count(object, "readyReplicas"));
    if wanted > replicas {
        return progress(format!("replicas: {replicas} of {wanted}"));
    }
    if wanted > updated {
        return progress(format!("updated: {updated} of {wanted}"));
    }
    if replicas > wanted {
        return progress(format!("{} old pods are still to go", replicas - wanted));
    }
    if updated > available {
        return progress(format!("available: {available} of {updated}"));
    }
    if wanted > ready {
        return progress(format!("ready: {ready} of {wanted}"));
    }
    match condition(object, "Available") {
        Some(("True", ..)) => current(format!("the deployment is available: {replicas} replicas")),
        Some(_) => progress("the deployment is not available"),
        None if number(object, "/status/observedGeneration").is_none() && wanted > 0 => {
            progress("the deployment has no status yet")
        }
        None => current(format!("replicas: {replicas}")),
    }
}

fn stateful_set(object: &Value) -> Status {
    if text(object, "/spec/updateStrategy/type") == "OnDelete" {
        return current("pods are updated when they are deleted");
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let (replicas, ready) = (count(object, "replicas"), count(object, "readyReplicas"));
    let (updated, now) = (count(object, "updatedReplicas"), count(object, "currentReplicas"));
    if wanted > replicas {
        return progress(format!("replicas: {replicas} of {wanted}"));
    }
    if wanted > ready {
        return progress(format!("ready: {ready} of {wanted}"));
    }
    if replicas > wanted {
        return progress(format!("{} pods are still to go", replicas - wanted));
    }
    if let Some(partition) = number(object, "/spec/updateStrategy/rollingUpdate/partition").filter(|p| *p > 0)
    {
        if updated < wanted - partition {
            return progress(format!("updated: {updated} of {}", wanted - partition));
        }
        return current(format!("the partition is rolled out: {updated} updated"));
    }
    if wanted > now {
        return progress(format!("current: {now} of {wanted}"));
    }
    if text(object, "/status/currentRevision") != text(object, "/status/updateRevision") {
        return progress("the update revision is not the current one yet");
    }
    current(format!("all replicas are there: {replicas}"))
}

fn replica_set(object: &Value) -> Status {
    if let Some(("True", _, message)) = condition(object, "ReplicaFailure") {
        return progress(message);
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let (replicas, labelled) = (count(object, "replicas"), count(object, "fullyLabeledReplicas"));
    let (available, ready) = (count(object, "availableReplicas"), count(object, "readyReplicas"));
    for (name, have) in [("labelled", labelled), ("available", available), ("ready", ready)] {
        if wanted > have {
            return progress(format!("{name}: {have} of {wanted}"));
        }
    }
    if replicas > wanted {
        return progress(format!("{} pods are still to go", replicas - wanted));
    }
    current(format!("replicas: {replicas}"))
}

fn daemon_set(object: &Value) -> Status {
    let Some(wanted) = number(object, "/status/desiredNumberScheduled") else {
        return progress("the number of devices is not known yet");
    };
    for (name, field) in [
        ("scheduled", "currentNumberScheduled"),
        ("updated", "updatedNumberScheduled"),
        ("available", "numberAvailable"),
        ("ready", "numberReady"),
    ] {
        let have = count(object, field);
        if wanted > have {
            return progress(format!("{name}: {have} of {wanted}"));
        }
    }
    current(format!("all pods are there: {wanted}"))
}

fn claim(object: &Value) -> Status {
    match text(object, "/status/phase") {
        "Bound" => current("the claim is bound"),
        phase => progress(format!("the claim is not bound: {phase}")),
    }
}

fn pod(object: &Value) -> Status {
    let containers = |list: &str| {
        let statuses = object
            .pointer(&format!("/status/{list}"))
            .and_then(Value::as_array);
        statuses
            .into_iter()
            .flatten()
            .find(|status| text(status, "/state/waiting/reason") == "CrashLoopBackOff")
    };
    match text(object, "/status/phase") {
        "Succeeded" => current("the pod has completed"),
        "Failed" => failed("the pod has failed"),
        "Running" => match condition(object, "Ready") {
            Some(("True", ..)) => current("the pod is ready"),
            _ => match containers("containerStatuses") {
                Some(status) => failed(format!(
                    "container {} crashes again and again",
                    text(status, "/name")
                )),
                None => progress("the pod is running but not ready"),
            },
        },
        "Pending" => match condition(object, "PodScheduled") {
            // How long it may take is for the watcher to say: kstatus allows 15 s.
            Some(("False", "Unschedulable", message)) => {
                progress(format!("the pod cannot be placed: {message}"))
            }
            _ => progress("the pod is starting"),
        },
        "" => progress("the pod has no phase yet"),
        phase => progress(format!("the pod is in the phase {phase}")),
    }
}

fn service(object: &Value) -> Status {
    let balanced = text(object, "/spec/type") == "LoadBalancer";
    let addresses = object
        .pointer("/status/loadBalancer/ingress")
        .and_then(Value::as_array);
    let has_address =
        !text(object, "/spec/clusterIP").is_empty() || addresses.is_some_and(|all| !all.is_empty());
    if balanced && !has_address {
        return progress("the load balancer has no address yet");
    }
    current("the service is ready")
}

/// Flux waits until a job is done; plain kstatus takes a started one for current.
fn job(object: &Value) -> Status {
    for (kind, state) in [("Failed", State::Failed), ("Complete", State::Current)] {
        if let Some(("True", _, message)) = condition(object, kind) {
            let message = if message.is_empty() { kind } else { message };
            return (state, format!("the job has ended: {message}"));
        }
    }
    if object.pointer("/status/startTime").is_none() {
        return progress("the job has not started");
    }
    progress(format!(
        "the job runs: {} active, {} succeeded, {} failed",
        count(object, "active"),
        count(object, "succeeded"),
        count(object, "failed")
    ))
}

fn definition(object: &Value) -> Status {
    if let Some(("False", _, message)) = condition(object, "NamesAccepted") {
        return failed(message);
    }
    match condition(object, "Established") {
        Some(("True", ..)) => current("the kind is established"),
        Some(("False", reason, message)) if reason != "Installing" => failed(message),
        _ => progress("the kind is being installed"),
    }
}
