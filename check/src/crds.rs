//! CustomResourceDefinitions: the schemas that a repository brings along.

use model::Object;
use serde_json::Value;
use std::collections::HashMap;

/// Schemas of custom kinds.
#[derive(Debug, Default)]
pub(crate) struct Crds {
    /// By group and kind: each version with its schema, and whether it is served.
    kinds: HashMap<(String, String), Vec<Version>>,
    plurals: HashMap<(String, String), String>,
}

#[derive(Debug)]
pub(crate) struct Version {
    pub name: String,
    pub served: bool,
    pub deprecated: bool,
    /// Nothing where the CRD has none.
    pub schema: Value,
}

impl Crds {
    /// Takes in the CRDs among some objects.
    pub fn add<'a>(&mut self, objects: impl Iterator<Item = &'a Object>) {
        for object in objects {
            if object.kind() != "CustomResourceDefinition" || object.group() != "apiextensions.k8s.io" {
                continue;
            }
            let spec = &object.value()["spec"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let key = (text(&spec["group"]), text(&spec["names"]["kind"]));
            self.plurals
                .entry(key.clone())
                .or_insert_with(|| text(&spec["names"]["plural"]));
            let versions = spec["versions"].as_array().into_iter().flatten();
            let versions = versions.map(|version| Version {
                name: text(&version["name"]),
                served: version["served"] != Value::Bool(false),
                deprecated: version["deprecated"] == Value::Bool(true),
                schema: version["schema"]["openAPIV3Schema"].clone(),
            });
            self.kinds.entry(key).or_insert_with(|| versions.collect());
        }
    }

    /// A kind's name in paths, where a CRD defines it.
    pub fn plural(&self, group: &str, kind: &str) -> Option<&str> {
        let key = (group.to_owned(), kind.to_owned());
        self.plurals.get(&key).map(String::as_str)
    }

    /// The versions of a kind, where a CRD defines it.
    pub fn versions(&self, group: &str, kind: &str) -> Option<&[Version]> {
        let key = (group.to_owned(), kind.to_owned());
        self.kinds.get(&key).map(Vec::as_slice)
    }
}
