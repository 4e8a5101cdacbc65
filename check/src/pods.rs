//! The pods that workloads make, and where in the objects they are.

use crate::path::Path;
use model::Object;
use serde_json::{Map, Value};

/// The way to the pod template, by kind.
const TEMPLATES: &[(&str, &str, &[&str])] = &[
    ("", "Pod", &[]),
    ("", "ReplicationController", &["spec", "template"]),
    ("apps", "Deployment", &["spec", "template"]),
    ("apps", "DaemonSet", &["spec", "template"]),
    ("apps", "StatefulSet", &["spec", "template"]),
    ("apps", "ReplicaSet", &["spec", "template"]),
    ("batch", "Job", &["spec", "template"]),
    ("batch", "CronJob", &["spec", "jobTemplate", "spec", "template"]),
];

/// A pod template in an object.
#[derive(Debug, Clone)]
pub(crate) struct Template<'a> {
    /// The way to it.
    pub path: Path,
    value: &'a Value,
}

/// A container in a template.
#[derive(Debug, Clone)]
pub(crate) struct Container<'a> {
    pub path: Path,
    pub value: &'a Value,
}

impl<'a> Template<'a> {
    /// The template of a workload.
    pub fn of(object: &'a Object) -> Option<Self> {
        let group = object.group();
        let (_, _, keys) = TEMPLATES
            .iter()
            .find(|(g, k, _)| *g == group && *k == object.kind())?;
        let path = Path::default().keys(keys);
        let value = path.of(object.value())?;
        Some(Self { path, value })
    }

    pub fn spec(&self) -> &'a Value {
        &self.value["spec"]
    }

    pub fn spec_path(&self) -> Path {
        self.path.key("spec")
    }

    pub fn labels(&self) -> Option<&'a Map<String, Value>> {
        self.value["metadata"]["labels"].as_object()
    }

    /// All containers, those that run first in front.
    pub fn containers(&self) -> Vec<Container<'a>> {
        let spec = self.spec();
        let mut all = Vec::new();
        for field in ["initContainers", "containers", "ephemeralContainers"] {
            let path = self.spec_path().key(field);
            for (at, value) in spec[field].as_array().into_iter().flatten().enumerate() {
                all.push(Container {
                    path: path.index(at),
                    value,
                });
            }
        }
        all
    }
}

impl Container<'_> {
    pub fn name(&self) -> &str {
        self.value["name"].as_str().unwrap_or_default()
    }

    /// Whether it listens at a port of this name or number.
    pub fn has_port(&self, wanted: &Value) -> bool {
        let ports = self.value["ports"].as_array().into_iter().flatten();
        ports
            .into_iter()
            .any(|port| port["name"] == *wanted || port["containerPort"] == *wanted)
    }
}

/// Whether labels are what `matchLabels` (or a plain selector) asks for.
pub(crate) fn matches(selector: &Map<String, Value>, labels: Option<&Map<String, Value>>) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}
