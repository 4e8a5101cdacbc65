//! References that lead nowhere.

use model::Object;
use render::check::dangling;
use serde_json::json;

fn objects(pod_spec: serde_json::Value) -> Vec<Object> {
    [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "there"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "there", "namespace": "other"}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": pod_spec}),
    ]
    .into_iter()
    .map(|value| Object::new(value).expect("an object"))
    .collect()
}

#[test]
fn what_nothing_defines_is_named_with_its_field() {
    let found = dangling(&objects(json!({
        "serviceAccountName": "robot",
        "containers": [{"envFrom": [
            {"configMapRef": {"name": "there"}},
            {"configMapRef": {"name": "gone"}},
            {"configMapRef": {"name": "may-be", "optional": true}},
            {"secretRef": {"name": "there"}}
        ]}],
        "volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]
    })));
    let mut named: Vec<(&str, String)> = found
        .iter()
        .map(|d| (d.field.as_str(), d.target.to_string()))
        .collect();
    named.sort();
    assert_eq!(
        named,
        [
            (
                "spec.containers.envFrom.configMapRef.name",
                "ConfigMap/default/gone".to_owned()
            ),
            (
                "spec.containers.envFrom.secretRef.name",
                "Secret/default/there".to_owned()
            ),
            (
                "spec.serviceAccountName",
                "ServiceAccount/default/robot".to_owned()
            ),
            (
                "spec.volumes.persistentVolumeClaim.claimName",
                "PersistentVolumeClaim/default/data".to_owned()
            ),
        ]
    );
    assert!(found[0].to_string().starts_with("Pod/p: spec."), "{}", found[0]);
}

#[test]
fn subjects_of_other_kinds_and_default_accounts_are_no_references() {
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "rb"},
        "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "alice"}, {"kind": "ServiceAccount", "name": "default"},
            {"kind": "ServiceAccount", "name": "robot", "namespace": "far"}]});
    let found = dangling(&[Object::new(binding).unwrap()]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].target.to_string(), "ServiceAccount/far/robot");
}
