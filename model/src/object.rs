//! A Kubernetes object as parsed JSON, and the key that names it.

use crate::InventoryEntry;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{fmt, str::FromStr};

/// Group, kind, namespace and name: what makes two manifests the same object.
///
/// The version is no part of it: `apps/v1` and `apps/v1beta1` of one name are one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// API group; empty for the core group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// `Deployment`, `ConfigMap`, ...
    pub kind: String,
    /// Empty for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl ObjectKey {
    /// Flux's inventory id: `namespace_name_group_kind`.
    pub fn inventory_id(&self) -> String {
        format!(
            "{}_{}_{}_{}",
            self.namespace,
            self.name.replace(':', "__"),
            self.group,
            self.kind
        )
    }
}

impl Object {
    /// What Flux notes of the object in an inventory.
    pub fn inventory_entry(&self) -> InventoryEntry {
        let version = self.api_version().rsplit('/').next().unwrap_or_default();
        InventoryEntry {
            id: self.key().inventory_id(),
            v: version.to_owned(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        write!(f, "/")?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}", self.name)
    }
}

/// One manifest. Field order is as written; nothing is defaulted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Object(Value);

/// Why a document is no Kubernetes object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadObject {
    /// The document is not a mapping.
    #[error("the document is {0}, not a mapping with apiVersion, kind and metadata")]
    NotAMapping(&'static str),
    /// A field that every object has is absent or not text.
    #[error("{0} is missing or not a text")]
    Missing(&'static str),
}

impl Object {
    /// Checks that `value` has `apiVersion`, `kind` and `metadata.name` (or `generateName`).
    pub fn new(value: Value) -> Result<Self, BadObject> {
        let map = value
            .as_object()
            .ok_or_else(|| BadObject::NotAMapping(kind_of(&value)))?;
        let text = |v: Option<&Value>| v.and_then(Value::as_str).is_some_and(|s| !s.is_empty());
        if !text(map.get("apiVersion")) {
            return Err(BadObject::Missing("apiVersion"));
        }
        if !text(map.get("kind")) {
            return Err(BadObject::Missing("kind"));
        }
        let metadata = map.get("metadata");
        if !text(metadata.and_then(|m| m.get("name"))) && !text(metadata.and_then(|m| m.get("generateName")))
        {
            return Err(BadObject::Missing("metadata.name"));
        }
        Ok(Self(value))
    }

    /// The manifest as JSON.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The manifest as JSON, given away.
    pub fn into_value(self) -> Value {
        self.0
    }

    fn text(&self, pointer: &str) -> &str {
        self.0
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// `apiVersion`.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// `kind`.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`, empty where absent.
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// API group of `apiVersion`; empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version().split_once('/').map_or("", |(group, _)| group)
    }

    /// What names this object.
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            group: self.group().to_owned(),
            kind: self.kind().to_owned(),
            namespace: self.namespace().to_owned(),
            name: self.name().to_owned(),
        }
    }

    /// A label's value.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.0.get("metadata")?.get("labels")?.get(name)?.as_str()
    }

    /// An annotation's value.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.0.get("metadata")?.get("annotations")?.get(name)?.as_str()
    }

    /// `spec`, an empty mapping where absent.
    pub fn spec(&self) -> Value {
        self.0
            .get("spec")
            .cloned()
            .unwrap_or_else(|| Value::Object(Map::new()))
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

impl FromStr for ObjectKey {
    type Err = BadObject;
    /// Reads what `Display` writes: `Kind[.group]/[namespace/]name`.
    fn from_str(text: &str) -> Result<Self, BadObject> {
        let mut parts = text.split('/');
        let (Some(kind), Some(second)) = (parts.next(), parts.next()) else {
            return Err(BadObject::Missing("kind/name"));
        };
        let (kind, group) = kind.split_once('.').unwrap_or((kind, ""));
        let (namespace, name) = match parts.next() {
            Some(name) => (second, name),
            None => ("", second),
        };
        Ok(Self {
            group: group.into(),
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
        })
    }
}
