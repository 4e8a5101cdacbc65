//! `buildMetadata`: where objects come from and what changed them, told in annotations.

use crate::{
    repository::Repository,
    resource::{Resource, Resources},
    yaml::Node,
};
use std::fmt::Write;

/// A file or folder: relative to the root of the build, or in a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub path: String,
    /// Its address; empty where it is not remote.
    pub repository: String,
    pub reference: String,
}

impl Place {
    /// What a kustomization at this place names by a path or an address.
    pub fn join(&self, path: &str) -> Self {
        match Repository::parse(path) {
            Some(repository) => Self {
                path: join("", &repository.path),
                repository: repository.url,
                reference: repository.reference.unwrap_or_default(),
            },
            None => Self {
                path: join(&self.path, path),
                ..self.clone()
            },
        }
    }
}

/// Where an object, or a change of it, comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The file it was read from; empty where it was made.
    pub path: String,
    /// The repository of that file or configuration.
    pub repository: String,
    pub reference: String,
    /// The file with the configuration that made it.
    pub configured_in: String,
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

impl Origin {
    /// An object read from a file.
    pub fn file(place: Place) -> Self {
        Self {
            path: place.path,
            repository: place.repository,
            reference: place.reference,
            ..Self::default()
        }
    }

    /// Something that a field of a kustomization configures.
    pub fn built_in(place: Place, kind: &str) -> Self {
        Self {
            configured_in: place.path,
            repository: place.repository,
            reference: place.reference,
            api_version: "builtin".to_owned(),
            kind: kind.to_owned(),
            ..Self::default()
        }
    }

    fn write(&self, out: &mut String, first: &str, indent: &str) {
        let mut lead = first;
        let mut line = |out: &mut String, deeper: &str, key: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = match value {
                "" => writeln!(out, "{lead}{deeper}{key}:"),
                value => writeln!(out, "{lead}{deeper}{key}: {value}"),
            };
            lead = indent;
        };
        for (key, value) in [
            ("path", &self.path),
            ("repo", &self.repository),
            ("ref", &self.reference),
            ("configuredIn", &self.configured_in),
        ] {
            if !value.is_empty() {
                line(out, "", key, value);
            }
        }
        if self.kind.is_empty() {
            return;
        }
        line(out, "", "configuredBy", "");
        for (key, value) in [
            ("apiVersion", &self.api_version),
            ("kind", &self.kind),
            ("name", &self.name),
            ("namespace", &self.namespace),
        ] {
            if !value.is_empty() {
                line(out, "  ", key, value);
            }
        }
    }
}

/// Joins a path to a folder's, both relative to the root of the build.
fn join(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Notes a change of all objects; it is the origin of those that have none.
pub(crate) fn note(resources: &mut Resources, origin: &Origin) {
    for resource in &mut resources.0 {
        match resource.origin {
            Some(_) => resource.transformations.push(origin.clone()),
            None => resource.origin = Some(origin.clone()),
        }
    }
}

/// Writes what `buildMetadata` asks for.
pub(crate) fn annotate(resources: &mut Resources, wanted: &[String]) {
    for option in wanted {
        match option.as_str() {
            "originAnnotations" => {
                for resource in &mut resources.0 {
                    let Some(origin) = resource.origin.take() else {
                        continue;
                    };
                    let mut text = String::new();
                    origin.write(&mut text, "", "");
                    set(resource, "annotations", "config.kubernetes.io/origin", text);
                }
            }
            "transformerAnnotations" => {
                for resource in &mut resources.0 {
                    let mut text = String::new();
                    for transformation in std::mem::take(&mut resource.transformations) {
                        transformation.write(&mut text, "- ", "  ");
                    }
                    if !text.is_empty() {
                        set(
                            resource,
                            "annotations",
                            "alpha.config.kubernetes.io/transformations",
                            text,
                        );
                    }
                }
            }
            "managedByLabel" => {
                for resource in &mut resources.0 {
                    let version = "kustomize-v5.8.1".to_owned();
                    set(resource, "labels", "app.kubernetes.io/managed-by", version);
                }
            }
            // kustomize takes any word.
            _ => {}
        }
    }
}

fn set(resource: &mut Resource, field: &str, key: &str, text: String) {
    let Some(metadata) = resource.metadata_mut() else {
        return;
    };
    let entry = metadata.entry(field, Node::empty_map);
    if entry.is_null() {
        *entry = Node::empty_map();
    }
    if let Some(map) = entry.as_map_mut() {
        map.set(key, Node::text(text));
    }
}
