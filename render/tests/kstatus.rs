//! Health by kstatus's rules.

use render::kstatus::{State, kstatus};
use serde_json::{Value, json};

fn state(object: &Value) -> State {
    kstatus(object).0
}

fn object(kind: &str, spec: Value, status: Value) -> Value {
    let api_version = match kind {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" => "apps/v1",
        "Job" => "batch/v1",
        "CustomResourceDefinition" => "apiextensions.k8s.io/v1",
        "Widget" => "example.com/v1",
        _ => "v1",
    };
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "generation": 2}, "spec": spec, "status": status})
}

fn conditions(all: &[(&str, &str, &str)]) -> Value {
    all.iter()
        .map(|(kind, status, reason)| json!({"type": kind, "status": status, "reason": reason, "message": "why"}))
        .collect()
}

#[test]
fn deletion_and_generation_come_first() {
    let mut gone = object(
        "Widget",
        json!({}),
        json!({"conditions": conditions(&[("Ready", "True", "")])}),
    );
    assert_eq!(state(&gone), State::Current);
    gone["status"]["observedGeneration"] = json!(1);
    assert_eq!(state(&gone), State::InProgress);
    gone["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(state(&gone), State::Terminating);
}

#[test]
fn standard_conditions_decide_for_any_kind() {
    for (conditions_, wanted) in [
        (conditions(&[("Reconciling", "True", "")]), State::InProgress),
        (conditions(&[("Stalled", "True", "")]), State::Failed),
        (conditions(&[("Ready", "False", "")]), State::InProgress),
        (conditions(&[("Ready", "Unknown", "")]), State::InProgress),
        (json!([]), State::Current),
    ] {
        let object = object("Widget", json!({}), json!({"conditions": conditions_}));
        assert_eq!(state(&object), wanted, "{object}");
    }
}

#[test]
fn a_deployment_is_current_when_all_replicas_are_new_and_available() {
    let full = json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2,
        "conditions": conditions(&[("Available", "True", ""), ("Progressing", "True", "NewReplicaSetAvailable")])});
    let spec = json!({"replicas": 2, "progressDeadlineSeconds": 45});
    assert_eq!(
        state(&object("Deployment", spec.clone(), full.clone())),
        State::Current
    );
    for (field, value) in [
        ("replicas", 1),
        ("updatedReplicas", 1),
        ("availableReplicas", 1),
        ("readyReplicas", 1),
        ("replicas", 3),
    ] {
        let mut status = full.clone();
        status[field] = json!(value);
        assert_eq!(
            state(&object("Deployment", spec.clone(), status)),
            State::InProgress,
            "{field}"
        );
    }
    let mut late = full;
    late["conditions"] = conditions(&[("Progressing", "False", "ProgressDeadlineExceeded")]);
    assert_eq!(state(&object("Deployment", spec, late)), State::Failed);
    assert_eq!(
        state(&object("Deployment", json!({}), json!({}))),
        State::InProgress
    );
}

#[test]
fn stateful_sets_follow_revisions_partitions_and_strategy() {
    let status = json!({"observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "updatedReplicas": 3, "currentReplicas": 3,
        "currentRevision": "a", "updateRevision": "a"});
    assert_eq!(
        state(&object("StatefulSet", json!({"replicas": 3}), status.clone())),
        State::Current
    );
    let mut rolling = status.clone();
    rolling["updateRevision"] = json!("b");
    assert_eq!(
        state(&object("StatefulSet", json!({"replicas": 3}), rolling.clone())),
        State::InProgress
    );
    let on_delete = json!({"replicas": 3, "updateStrategy": {"type": "OnDelete"}});
    assert_eq!(state(&object("StatefulSet", on_delete, rolling)), State::Current);
    let mut part = status;
    part["updatedReplicas"] = json!(1);
    let partition = |from| json!({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": from}}});
    assert_eq!(
        state(&object("StatefulSet", partition(2), part.clone())),
        State::Current
    );
    assert_eq!(
        state(&object("StatefulSet", partition(1), part)),
        State::InProgress
    );
}

#[test]
fn the_other_kinds() {
    let crash = json!({"phase": "Running", "conditions": conditions(&[("Ready", "False", "")]),
        "containerStatuses": [{"name": "a", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]});
    let daemons = json!({"observedGeneration": 2, "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
        "updatedNumberScheduled": 2, "numberAvailable": 2, "numberReady": 2});
    let replicas =
        json!({"replicas": 1, "fullyLabeledReplicas": 1, "availableReplicas": 1, "readyReplicas": 1});
    let balancer = json!({"type": "LoadBalancer"});
    for (kind, spec, status, wanted) in [
        ("Pod", json!({}), json!({}), State::InProgress),
        ("Pod", json!({}), json!({"phase": "Succeeded"}), State::Current),
        ("Pod", json!({}), json!({"phase": "Failed"}), State::Failed),
        (
            "Pod",
            json!({}),
            json!({"phase": "Running", "conditions": conditions(&[("Ready", "True", "")])}),
            State::Current,
        ),
        ("Pod", json!({}), json!({"phase": "Running"}), State::InProgress),
        ("Pod", json!({}), crash, State::Failed),
        ("DaemonSet", json!({}), daemons, State::Current),
        ("DaemonSet", json!({}), json!({}), State::InProgress),
        ("ReplicaSet", json!({}), replicas, State::Current),
        (
            "PersistentVolumeClaim",
            json!({}),
            json!({"phase": "Bound"}),
            State::Current,
        ),
        (
            "PersistentVolumeClaim",
            json!({}),
            json!({"phase": "Pending"}),
            State::InProgress,
        ),
        ("Job", json!({}), json!({}), State::InProgress),
        (
            "Job",
            json!({}),
            json!({"startTime": "x", "active": 1}),
            State::InProgress,
        ),
        (
            "Job",
            json!({}),
            json!({"conditions": conditions(&[("Complete", "True", "")])}),
            State::Current,
        ),
        (
            "Job",
            json!({}),
            json!({"conditions": conditions(&[("Failed", "True", "")])}),
            State::Failed,
        ),
        ("Service", json!({}), json!({}), State::Current),
        ("Service", balancer, json!({}), State::InProgress),
        (
            "CustomResourceDefinition",
            json!({}),
            json!({}),
            State::InProgress,
        ),
        (
            "CustomResourceDefinition",
            json!({}),
            json!({"conditions": conditions(&[("Established", "True", "")])}),
            State::Current,
        ),
        (
            "CustomResourceDefinition",
            json!({}),
            json!({"conditions": conditions(&[("NamesAccepted", "False", "Conflict")])}),
            State::Failed,
        ),
        ("ConfigMap", json!({}), json!({}), State::Current),
    ] {
        let object = object(kind, spec, status);
        assert_eq!(state(&object), wanted, "{object}");
    }
}
