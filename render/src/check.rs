//! References to objects that nothing defines.

use crate::{config::FieldSpec, kube::field_specs::NAME_REFERENCES, resource::split_api_version};
use model::{Object, ObjectKey};
use serde_json::Value;
use std::{collections::HashSet, fmt};

/// Kinds whose absence keeps a pod, route or binding from working.
const CHECKED: [&str; 5] = [
    "ConfigMap",
    "Secret",
    "Service",
    "ServiceAccount",
    "PersistentVolumeClaim",
];

/// A field that names an object which is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dangling {
    /// The object with the field.
    pub object: ObjectKey,
    /// The field, dotted, without indices.
    pub field: String,
    /// What it names.
    pub target: ObjectKey,
}

impl fmt::Display for Dangling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: there is no {} (add it, mark the reference optional, or correct the name)",
            self.object, self.field, self.target
        )
    }
}

/// References to ConfigMaps, Secrets, Services, ServiceAccounts and PersistentVolumeClaims that no object of
/// these defines. Optional references and what Kubernetes makes itself do not count.
pub fn dangling(objects: &[Object]) -> Vec<Dangling> {
    let defined: HashSet<(&str, &str, &str)> = objects
        .iter()
        .map(|object| (object.kind(), namespace_of(object), object.name()))
        .collect();
    let mut missing = Vec::new();
    for object in objects {
        let (group, version) = split_api_version(object.api_version());
        for (_, _, kind, referrers) in NAME_REFERENCES
            .iter()
            .filter(|(_, _, kind, _)| CHECKED.contains(kind))
        {
            for spec in referrers.iter().filter(|spec| counts(spec)) {
                if !spec.selects(group, version, object.kind()) {
                    continue;
                }
                let parts: Vec<&str> = spec.path.split('/').collect();
                let mut names = Vec::new();
                collect(object.value(), &parts, kind, &mut names);
                for (name, namespace) in names {
                    let namespace = namespace.unwrap_or(namespace_of(object));
                    if made_by_kubernetes(kind, name) || defined.contains(&(*kind, namespace, name)) {
                        continue;
                    }
                    missing.push(Dangling {
                        object: object.key(),
                        field: spec.path.replace('/', "."),
                        target: ObjectKey {
                            group: String::new(),
                            kind: (*kind).to_owned(),
                            namespace: namespace.to_owned(),
                            name: name.to_owned(),
                        },
                    });
                }
            }
        }
    }
    missing
}

/// Rights may name what is made later; annotations with a slash in their name are not walked.
fn counts(spec: &FieldSpec) -> bool {
    !spec.path.ends_with("resourceNames") && !spec.path.contains('\\')
}

fn namespace_of(object: &Object) -> &str {
    match object.namespace() {
        "" => "default",
        namespace => namespace,
    }
}

fn made_by_kubernetes(kind: &str, name: &str) -> bool {
    matches!(
        (kind, name),
        ("ServiceAccount", "default") | ("ConfigMap", "kube-root-ca.crt")
    )
}

/// The names at a path, with their namespace where it stands beside.
fn collect<'a>(value: &'a Value, path: &[&str], kind: &str, names: &mut Vec<(&'a str, Option<&'a str>)>) {
    match (value, path) {
        (Value::Array(items), _) => items.iter().for_each(|item| collect(item, path, kind, names)),
        (Value::String(name), []) if !name.is_empty() => names.push((name, None)),
        (Value::Object(map), []) => {
            let field = |key: &str| map.get(key).and_then(Value::as_str);
            let other_kind = field("kind").is_some_and(|named| named != kind);
            if let (Some(name), false) = (field("name"), other_kind) {
                names.push((name, field("namespace")));
            }
        }
        (Value::Object(map), [part, rest @ ..]) => {
            let optional = rest.is_empty() && map.get("optional") == Some(&Value::Bool(true));
            if let (Some(next), false) = (map.get(*part), optional) {
                collect(next, rest, kind, names);
            }
        }
        _ => {}
    }
}
