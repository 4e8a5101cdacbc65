//! ConfigMaps and Secrets of a generation, by namespace and name.

use super::{namespace_of, typed};
use crate::api;
use crate::refusal::{Complaints, Refusal};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use model::Object;
use std::collections::BTreeMap;

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
}

impl Configs {
    pub(crate) fn gather(objects: &[Object], refusals: &mut Vec<Refusal>) -> Self {
        let mut configs = Self::default();
        for object in objects.iter().filter(|o| o.group().is_empty()) {
            let key = object.key();
            let mut complaints = Complaints::about(&key, refusals);
            let (kind, data) = match object.kind() {
                "ConfigMap" => (Kind::ConfigMap, config_map(object, &mut complaints)),
                "Secret" => (Kind::Secret, secret(object, &mut complaints)),
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

fn secret(object: &Object, complaints: &mut Complaints<'_>) -> Data {
    let Some(secret) = typed::<api::Secret>(object, complaints) else {
        return Data::new();
    };
    let mut data = decode(secret.data, "data", complaints);
    data.extend(
        secret
            .string_data
            .unwrap_or_default()
            .into_iter()
            .map(|(k, v)| (k, Bytes::from(v))),
    );
    data
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
