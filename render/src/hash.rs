//! The suffix that ties a generated object's name to its content.

use crate::{
    error::{RenderError, Result},
    resource::{Resource, Resources},
    yaml::{self, Node},
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Adds the suffix to the names of generated objects.
pub(crate) fn rename(resources: &mut Resources) -> Result<()> {
    for resource in &mut resources.0 {
        if resource.needs_hash {
            let suffix = suffix(resource).map_err(|error| resource.blame(error))?;
            resource.store_previous_id();
            let name = format!("{}-{suffix}", resource.name());
            resource.set_name(&name);
        }
    }
    Ok(())
}

/// Ten characters of the content's hash, in an alphabet that spells no words.
fn suffix(resource: &Resource) -> Result<String> {
    let content = match resource.kind() {
        "ConfigMap" => content(resource, "ConfigMap", &["data"], "binaryData")?,
        "Secret" => content(resource, "Secret", &["type", "data"], "stringData")?,
        _ => json(&resource.node)?,
    };
    let digest = hex::encode(Sha256::digest(go_json(&content).as_bytes()));
    Ok(digest
        .chars()
        .take(10)
        .map(|c| match c {
            '0' => 'g',
            '1' => 'h',
            '3' => 'k',
            'a' => 'm',
            'e' => 't',
            other => other,
        })
        .collect())
}

fn json(node: &Node) -> Result<Value> {
    yaml::to_json(node)
        .map_err(|number| RenderError::configuration(format!("{number} is no number that JSON has")))
}

fn content(resource: &Resource, kind: &str, fields: &[&str], optional: &str) -> Result<Value> {
    let empty = || Value::String(String::new());
    let mut map = Map::new();
    map.insert("kind".to_owned(), kind.into());
    // kustomize looks for a field of the name "metadata/name", which no object has.
    map.insert("name".to_owned(), empty());
    for field in fields {
        let value = match resource.node.get(field) {
            None => empty(),
            Some(Node::Scalar(scalar)) => Value::String(scalar.text.clone()),
            Some(node) => json(node)?,
        };
        map.insert((*field).to_owned(), value);
    }
    if let Some(node @ Node::Map(_)) = resource.node.get(optional) {
        map.insert(optional.to_owned(), json(node)?);
    }
    Ok(Value::Object(map))
}

/// JSON as Go writes it: sorted keys, and the characters that matter to HTML escaped.
fn go_json(value: &Value) -> String {
    let plain = value.to_string();
    let mut out = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            other => out.push(other),
        }
    }
    out
}
