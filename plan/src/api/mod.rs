//! The Kubernetes API as far as a device runs it, parsed strictly.
//!
//! Three kinds of field, so that nothing is dropped in silence: those that are typed here and honoured, those that
//! Kubernetes knows and that mean nothing on one device (`Ignored`), and all others, which are refused by name.

mod config;
mod pod;
mod workload;

pub(crate) use config::{ConfigMap, Secret, Service, ServicePortSpec};
pub(crate) use pod::*;
pub(crate) use workload::{DaemonSet, Deployment, Job, Pod, PodTemplate, Selector, Strategy};

use serde::{Deserialize, de::DeserializeOwned, de::IgnoredAny};
use serde_json::Value;
use std::collections::BTreeMap;

/// A field that Kubernetes knows and that changes nothing on a single device.
pub(crate) type Ignored = Option<IgnoredAny>;

/// `metadata` of any object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A whole number or a percentage.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum IntOrString {
    Int(i64),
    Text(String),
}

/// A quantity: `500m`, or a bare number.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Quantity {
    Text(String),
    Number(serde_json::Number),
}

impl Quantity {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }
}

/// Parses an object, naming the field at fault. A field that is `null` counts as absent, as in Kubernetes.
pub(crate) fn parse<T: DeserializeOwned>(value: &Value) -> Result<T, (String, String)> {
    serde_path_to_error::deserialize(without_nulls(value)).map_err(|err| {
        let path = err.path().to_string();
        (
            if path == "." { String::new() } else { path },
            err.into_inner().to_string(),
        )
    })
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k.clone(), without_nulls(v)))
            .collect(),
        Value::Array(list) => list.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}
