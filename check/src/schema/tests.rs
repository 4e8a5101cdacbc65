//! The validator beside Python's `jsonschema`, an independent reading of the same definitions, on objects that are spoilt
//! at random.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use super::{Fault, Validator};
use crate::{KubernetesVersion, Rule, kubernetes::Api};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRng, TestRunner},
};
use serde_json::{Value, json};
use std::{
    io::Write as _,
    process::{Command, Stdio},
};

/// Objects with many kinds of field.
fn objects() -> Vec<Value> {
    let pod = json!({
        "metadata": {"labels": {"app": "x"}, "annotations": {"a": "b"}},
        "spec": {
            "containers": [{
                "name": "x", "image": "y:1", "command": ["a"], "args": ["b", "c"], "tty": true,
                "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}],
                "env": [{"name": "A", "value": "b"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": 1}},
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 3},
                "securityContext": {"capabilities": {"drop": ["ALL"]}, "runAsUser": 1000},
                "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}],
            }],
            "volumes": [{"name": "v", "configMap": {"name": "c", "defaultMode": 420, "items": [{"key": "k", "path": "p"}]}},
                        {"name": "w", "emptyDir": {"sizeLimit": "1Mi"}}],
            "tolerations": [{"key": "k", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}]}}},
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 5,
        },
    });
    let selector = json!({"matchLabels": {"app": "x"}});
    let named = |api_version: &str, kind: &str| json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}});
    let with = |api_version: &str, kind: &str, spec: Value| {
        let mut object = named(api_version, kind);
        object["spec"] = spec;
        object
    };
    let mut role = named("rbac.authorization.k8s.io/v1", "Role");
    role["rules"] = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    let mut binding = named("rbac.authorization.k8s.io/v1", "RoleBinding");
    binding["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "x"});
    binding["subjects"] = json!([{"kind": "ServiceAccount", "name": "x", "namespace": "y"}]);
    let mut map = named("v1", "ConfigMap");
    map["data"] = json!({"a": "b"});
    map["immutable"] = json!(true);
    let claims = json!([{"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}}]);
    vec![
        with(
            "apps/v1",
            "Deployment",
            json!({"replicas": 2, "selector": selector, "template": pod,
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}),
        ),
        with(
            "apps/v1",
            "StatefulSet",
            json!({"serviceName": "x", "selector": selector, "template": pod, "volumeClaimTemplates": claims}),
        ),
        with(
            "apps/v1",
            "DaemonSet",
            json!({"selector": selector, "template": pod}),
        ),
        with(
            "batch/v1",
            "CronJob",
            json!({"schedule": "* * * * *", "jobTemplate": {"spec": {"backoffLimit": 1, "template": pod}}}),
        ),
        with(
            "v1",
            "Service",
            json!({"selector": {"app": "x"}, "ports": [{"port": 80, "targetPort": "http", "name": "http"}]}),
        ),
        with(
            "networking.k8s.io/v1",
            "Ingress",
            json!({"rules": [{"host": "h", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "x", "port": {"number": 80}}}}]}}]}),
        ),
        with(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"podSelector": selector, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": selector}], "ports": [{"port": 80}]}]}),
        ),
        with(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"maxReplicas": 3, "scaleTargetRef":
            {"kind": "Deployment", "name": "x", "apiVersion": "apps/v1"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 5}}}]}),
        ),
        with(
            "policy/v1",
            "PodDisruptionBudget",
            json!({"minAvailable": "50%", "selector": selector}),
        ),
        role,
        binding,
        map,
    ]
}

/// Ways to every value in an object.
fn pointers(value: &Value, here: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let next = format!("{here}/{}", key.replace('~', "~0").replace('/', "~1"));
                found.push(next.clone());
                pointers(inner, &next, found);
            }
        }
        Value::Array(items) => {
            for (at, inner) in items.iter().enumerate() {
                let next = format!("{here}/{at}");
                found.push(next.clone());
                pointers(inner, &next, found);
            }
        }
        _ => {}
    }
}

/// Takes a field away, renames it, or writes something else into it.
fn spoil(object: &mut Value, at: usize, how: usize) {
    let mut all = Vec::new();
    pointers(object, "", &mut all);
    // Both readings take the object's kind as given.
    all.retain(|pointer| pointer != "/apiVersion" && pointer != "/kind");
    let pointer = &all[at % all.len()];
    let others = [
        json!(7),
        json!("7"),
        json!(true),
        json!([]),
        json!({}),
        json!(["a"]),
        json!({"a": 1}),
        Value::Null,
        json!(1.5),
    ];
    if let Some(other) = others.get(how) {
        *object.pointer_mut(pointer).expect("it was just found") = other.clone();
        return;
    }
    let (parent, key) = pointer.rsplit_once('/').expect("pointers have slashes");
    let Some(Value::Object(map)) = object.pointer_mut(parent) else {
        return;
    };
    let old = map.remove(&key.replace("~1", "/"));
    if how > others.len() {
        map.insert(format!("{key}x"), old.unwrap_or_default());
    }
}

fn spoilt() -> impl Strategy<Value = Value> {
    let all = objects();
    (
        0..all.len(),
        prop::collection::vec((0..10_000usize, 0..12usize), 0..3),
    )
        .prop_map(move |(which, changes)| {
            let mut object = all[which].clone();
            for (at, how) in changes {
                spoil(&mut object, at, how);
            }
            object
        })
}

fn faults(version: KubernetesVersion, object: &Value) -> Vec<Fault> {
    let api = Api::of(version);
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let definition = api
        .kind(text("apiVersion"), text("kind"))
        .expect("a kind of every version");
    Validator::new(api).built_in(definition.name, object)
}

/// What a JSON schema without enums and bounds sees.
fn refused(version: KubernetesVersion, object: &Value) -> bool {
    faults(version, object).iter().any(|fault| {
        let asked_for = fault.rule == Rule::MissingField && fault.message.contains("\"image\"");
        matches!(
            fault.rule,
            Rule::UnknownField | Rule::WrongType | Rule::MissingField
        ) && !asked_for
    })
}

const ORACLE: &str = r#"
import json, sys, re, os, kubernetes_validate, jsonschema
from referencing import Registry, Resource
version = sys.argv[1]
base = os.path.join(os.path.dirname(kubernetes_validate.__file__), "kubernetes-json-schema", f"v{version}.0-local-strict")
definitions = Resource.from_contents(json.load(open(os.path.join(base, "_definitions.json"))))
known = {}
def validator(data):
    api = re.sub(r'^([^./]*)(?:\.[^/]*)?/', r'\1-', data["apiVersion"])
    name = f'{data["kind"].lower()}-{api}.json'
    if name not in known:
        schema = Resource.from_contents(json.load(open(os.path.join(base, name))))
        registry = definitions @ (schema @ Registry())
        known[name] = jsonschema.validators.Draft202012Validator(schema.contents, registry=registry)
    return known[name]
for line in sys.stdin:
    data = json.loads(line)
    print(int(not validator(data).is_valid(data)))
"#;

#[test]
fn the_same_is_refused_as_by_jsonschema() {
    const CASES: usize = 400;
    let Some(python) = std::env::var_os("LEEWARD_JSONSCHEMA") else {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "no Python with kubernetes-validate: set LEEWARD_JSONSCHEMA"
        );
        eprintln!("SKIPPED: no Python with PyPI kubernetes-validate; set LEEWARD_JSONSCHEMA");
        return;
    };
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(Default::default()));
    for version in ["1.25", "1.37"] {
        let cases: Vec<Value> = (0..CASES)
            .map(|_| {
                spoilt()
                    .new_tree(&mut runner)
                    .expect("a strategy without filters")
                    .current()
            })
            .collect();
        let mut child = Command::new(&python)
            .args(["-c", ORACLE, version])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let lines: String = cases.iter().map(|case| format!("{case}\n")).collect();
        child
            .stdin
            .take()
            .expect("piped")
            .write_all(lines.as_bytes())
            .expect("Python reads");
        let answers =
            String::from_utf8(child.wait_with_output().expect("Python ends").stdout).expect("digits");
        let answers: Vec<&str> = answers.lines().collect();
        assert_eq!(answers.len(), CASES, "Python gave up");
        let version = version.parse().expect("a known version");
        for (case, answer) in cases.iter().zip(answers) {
            // Where a number or a text may stand, those schemas refuse null, which the API server takes for absent.
            if case.to_string().contains(":null") {
                continue;
            }
            let ours = refused(version, case);
            assert_eq!(ours, answer == "1", "{case}\n{:?}", faults(version, case));
        }
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(object in spoilt(), minor in 25..38u16) {
        let version = format!("1.{minor}").parse().expect("a known version");
        for fault in faults(version, &object) {
            prop_assert!(!fault.message.is_empty());
        }
    }
}
