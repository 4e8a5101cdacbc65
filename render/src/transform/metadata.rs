//! Names, labels, annotations and replica counts.

use crate::{
    config::FieldSpec,
    error::{RenderError, Result},
    fieldspec::{self, Create},
    kustomization::{Pairs, Replica},
    resource::{Id, Resources},
    yaml::{Node, Style},
};

/// Which end of a name is extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Prefix,
    Suffix,
}

/// Extends the names of all objects.
pub(crate) fn extend_names(
    resources: &mut Resources,
    end: End,
    text: &str,
    specs: &[FieldSpec],
) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    for resource in &mut resources.0 {
        if keeps_name(&resource.original_id()) {
            continue;
        }
        for spec in specs {
            let id = resource.original_id();
            if !spec.selects(id.group, id.version, id.kind) {
                continue;
            }
            if spec.path == "metadata/name" {
                match end {
                    End::Prefix => resource.prefixes.push(text.to_owned()),
                    End::Suffix => resource.suffixes.push(text.to_owned()),
                }
                resource.store_previous_id();
            }
            fieldspec::apply(&mut resource.node, spec, Create::Scalar, &mut |field| {
                let name = match end {
                    End::Prefix => format!("{text}{}", field.value()),
                    End::Suffix => format!("{}{text}", field.value()),
                };
                fieldspec::set_bare(field, &name)
            })
            .map_err(|error| resource.blame(error))?;
        }
    }
    Ok(())
}

/// Kinds whose names mean something to others.
fn keeps_name(id: &Id<'_>) -> bool {
    matches!(id.kind, "CustomResourceDefinition" | "Namespace")
        || (id.kind == "APIService" && id.group == "apiregistration.k8s.io")
}

/// Sets entries of mappings: labels and annotations.
pub(crate) fn set_pairs(resources: &mut Resources, pairs: &Pairs, specs: &[FieldSpec]) -> Result<()> {
    if pairs.is_empty() {
        return Ok(());
    }
    for resource in &mut resources.0 {
        let shared: Vec<(&String, Node)> = pairs
            .iter()
            .map(|(key, value)| (key, resource.share(value)))
            .collect();
        for spec in specs {
            fieldspec::apply(&mut resource.node, spec, Create::Map, &mut |field| match field {
                Node::Map(map) => {
                    for (key, value) in &shared {
                        match map.get_mut(key) {
                            Some(Node::Scalar(old)) => {
                                let style = if old.style.is_quoted() {
                                    old.style
                                } else {
                                    Style::Text
                                };
                                old.write(value.raw(), style);
                            }
                            _ => map.set(key, value.clone()),
                        }
                    }
                    Ok(())
                }
                other => Err(RenderError::configuration(format!(
                    "expected a mapping, found {}",
                    other.kind()
                ))),
            })
            .map_err(|error| resource.blame(error))?;
        }
        resource.settle();
    }
    Ok(())
}

/// Sets the number of replicas of the objects of one name.
pub(crate) fn set_replicas(resources: &mut Resources, replica: &Replica, specs: &[FieldSpec]) -> Result<()> {
    let mut found = false;
    for spec in specs {
        for resource in &mut resources.0 {
            let named = |id: Id<'_>| id.name == replica.name && spec.selects(id.group, id.version, id.kind);
            if !(named(resource.original_id()) || named(resource.id())) {
                continue;
            }
            found = true;
            fieldspec::apply(&mut resource.node, spec, Create::Scalar, &mut |field| {
                fieldspec::set_bare(field, &replica.count.to_string())
            })
            .map_err(|error| resource.blame(error))?;
        }
    }
    if found {
        return Ok(());
    }
    Err(
        RenderError::configuration(format!("no object with replicas has the name {:?}", replica.name))
            .field("replicas"),
    )
}
