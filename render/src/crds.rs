//! `crds`: OpenAPI definitions of custom resources that say where names, labels and annotations are.

use crate::{
    config::{Config, FieldSpec, NameReference},
    error::{Problem, RenderError, Result},
    loader::Loader,
    yaml::{self, Node},
};
use std::borrow::Cow;

const LABEL_SELECTOR: &str = "x-kubernetes-label-selector";
const ANNOTATION: &str = "x-kubernetes-annotation";
const IDENTITY: &str = "x-kubernetes-identity";
const REFERENCE_VERSION: &str = "x-kubernetes-object-ref-api-version";
const REFERENCE_KIND: &str = "x-kubernetes-object-ref-kind";
const REFERENCE_NAME: &str = "x-kubernetes-object-ref-name-key";

/// What the files teach.
pub(crate) fn load(loader: &Loader<'_>, paths: &[String]) -> Result<Config> {
    let mut config = Config::default();
    for path in paths {
        let place = |error: RenderError| error.in_file(loader.display(path)).field("crds");
        let text = loader.read_text(path).map_err(place)?;
        let documents = yaml::parse_documents(&text).map_err(|error| {
            place(RenderError::new(Problem::Unreadable, error.message).at_line(error.line))
        })?;
        for document in &documents {
            learn(&document.root, &mut config).map_err(place)?;
        }
    }
    Ok(config)
}

fn learn(definitions: &Node, config: &mut Config) -> Result<()> {
    let Some(map) = definitions.as_map() else {
        return Ok(());
    };
    for (name, definition) in &map.0 {
        let Some(schema) = definition.get("Schema").or_else(|| definition.get("schema")) else {
            continue;
        };
        let properties = |field: &str| schema.at(["properties", field]).is_some();
        if !(properties("kind") && properties("apiVersion") && properties("metadata")) {
            continue;
        }
        // The kind is the last part of the definition's name.
        let kind = name.rsplit('.').next().unwrap_or(name);
        let mut learned = Config::default();
        walk(definitions, schema, kind, &mut Vec::new(), &mut learned)?;
        config.merge(&learned)?;
    }
    Ok(())
}

fn walk(
    definitions: &Node,
    schema: &Node,
    kind: &str,
    path: &mut Vec<String>,
    config: &mut Config,
) -> Result<()> {
    const MAX_DEPTH: usize = 64;
    if path.len() > MAX_DEPTH {
        return Ok(());
    }
    let Some(properties) = schema.get("properties").and_then(Node::as_map) else {
        return Ok(());
    };
    for (name, property) in &properties.0 {
        path.push(name.clone());
        note(property, kind, path, config)?;
        let reference = property
            .get("$ref")
            .map(Node::value)
            .filter(|reference| !reference.is_empty());
        let target = reference.and_then(|reference| definitions.get(reference));
        if let Some(target) = target.and_then(|target| target.get("Schema").or_else(|| target.get("schema")))
        {
            walk(definitions, target, kind, path, config)?;
        }
        path.pop();
    }
    Ok(())
}

fn note(property: &Node, kind: &str, path: &[String], config: &mut Config) -> Result<()> {
    let spec = |path: String, create: bool| FieldSpec {
        group: Cow::Borrowed(""),
        version: Cow::Borrowed(""),
        kind: Cow::Owned(kind.to_owned()),
        path: Cow::Owned(path),
        create,
    };
    let here = path.join("/");
    let mut learned = Config::default();
    if property.get(ANNOTATION).is_some() {
        learned.common_annotations.push(spec(here.clone(), false));
    }
    if property.get(LABEL_SELECTOR).is_some() {
        learned.common_labels.push(spec(here.clone(), false));
    }
    if property.get(IDENTITY).is_some() {
        learned.name_prefix.push(spec(here.clone(), false));
        learned.name_suffix.push(spec(here.clone(), false));
    }
    if let (Some(version), Some(target)) = (property.get(REFERENCE_VERSION), property.get(REFERENCE_KIND)) {
        let key = property.get(REFERENCE_NAME).map_or("name", Node::value);
        learned.name_reference.push(NameReference {
            group: Cow::Borrowed(""),
            version: Cow::Owned(version.value().to_owned()),
            kind: Cow::Owned(target.value().to_owned()),
            referrers: vec![spec(format!("{here}/{key}"), false)],
        });
    }
    config.merge(&learned)
}
