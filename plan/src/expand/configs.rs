//! ConfigMaps and Secrets of a generation, by namespace and name.

use super::{namespace_of, typed};
use crate::api;
use crate::refusal::{Complaints, Refusal};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use model::{Object, PullSecret};
use std::collections::BTreeMap;

/// The type of a Secret for `imagePullSecrets`, and where it holds its text.
const DOCKER_CONFIG: &str = "kubernetes.io/dockerconfigjson";
const DOCKER_CONFIG_KEY: &str = ".dockerconfigjson";

/// Which of the two a reference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// The data of one ConfigMap or Secret.
pub(crate) type Data = BTreeMap<String, Bytes>;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Configs {
    by_name: BTreeMap<(Kind, String, String), Data>,
    /// `type` of each Secret that has one.
    types: BTreeMap<(String, String), String>,
}

impl Configs {
    pub(crate) fn gather(objects: &[Object], refusals: &mut Vec<Refusal>) -> Self {
        let mut configs = Self::default();
        for object in objects.iter().filter(|o| o.group().is_empty()) {
            let key = object.key();
            let mut complaints = Complaints::about(&key, refusals);
            let (kind, data) = match object.kind() {
                "ConfigMap" => (Kind::ConfigMap, config_map(object, &mut complaints)),
                "Secret" => {
                    let (data, kind) = secret(object, &mut complaints);
                    let name = (namespace_of(object), key.name.clone());
                    configs.types.extend(kind.map(|kind| (name, kind)));
                    (Kind::Secret, data)
                }
                _ => continue,
            };
            configs
                .by_name
                .insert((kind, namespace_of(object), key.name.clone()), data);
        }
        configs
    }

    pub(crate) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Data> {
        self.by_name.get(&(kind, namespace.to_owned(), name.to_owned()))
    }

    /// What a Secret holds for pulling images, or why it holds nothing.
    pub(crate) fn pull_secret(&self, namespace: &str, name: &str) -> Result<PullSecret, String> {
        let Some(data) = self.get(Kind::Secret, namespace, name) else {
            return Err(format!("there is no Secret {name} in namespace {namespace}"));
        };
        let kind = self.types.get(&(namespace.to_owned(), name.to_owned()));
        if kind.map(String::as_str) != Some(DOCKER_CONFIG) {
            let kind = kind.map_or("no type", String::as_str);
            return Err(format!("Secret {name} has {kind}, not type {DOCKER_CONFIG}"));
        }
        let text = data
            .get(DOCKER_CONFIG_KEY)
            .and_then(|text| std::str::from_utf8(text).ok());
        let Some(text) = text else {
            return Err(format!("Secret {name} has no text at {DOCKER_CONFIG_KEY}"));
        };
        let parsed = serde_json::from_str::<serde_json::Value>(text);
        if !parsed.is_ok_and(|config| config.get("auths").is_some_and(serde_json::Value::is_object)) {
            return Err(format!(
                "{DOCKER_CONFIG_KEY} of Secret {name} is not the JSON of a Docker configuration with `auths`"
            ));
        }
        Ok(PullSecret(text.to_owned()))
    }
}

fn config_map(object: &Object, complaints: &mut Complaints<'_>) -> Data {
    let Some(map) = typed::<api::ConfigMap>(object, complaints) else {
        return Data::new();
    };
    let mut data = decode(map.binary_data, "binaryData", complaints);
    data.extend(
        map.data
            .unwrap_or_default()
            .into_iter()
            .map(|(k, v)| (k, Bytes::from(v))),
    );
    data
}

fn secret(object: &Object, complaints: &mut Complaints<'_>) -> (Data, Option<String>) {
    let Some(secret) = typed::<api::Secret>(object, complaints) else {
        return (Data::new(), None);
    };
    let mut data = decode(secret.data, "data", complaints);
    data.extend(
        secret
            .string_data
            .unwrap_or_default()
            .into_iter()
            .map(|(k, v)| (k, Bytes::from(v))),
    );
    (data, secret.kind)
}

fn decode(encoded: Option<BTreeMap<String, String>>, field: &str, complaints: &mut Complaints<'_>) -> Data {
    let mut data = Data::new();
    for (key, text) in encoded.unwrap_or_default() {
        // YAML block scalars leave line ends in the text, which Kubernetes' decoder skips too.
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        match STANDARD.decode(text) {
            Ok(bytes) => {
                data.insert(key, bytes.into());
            }
            Err(err) => complaints.add(
                format!("{field}.{key}"),
                format!("is not base64: {err}"),
                "encode the value, or put it under stringData",
            ),
        }
    }
    data
}
