//! `namespace`: puts objects into one namespace.

use crate::{
    config::FieldSpec,
    error::Result,
    fieldspec::{self, Create},
    kube,
    resource::Resources,
    yaml::Node,
};

/// Which subjects of role bindings are moved too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Subjects {
    /// Those with the name "default".
    #[default]
    DefaultOnly,
    /// All service accounts.
    AllServiceAccounts,
    None,
}

pub(crate) struct Options<'a> {
    pub namespace: &'a str,
    pub specs: &'a [FieldSpec],
    /// Keep a namespace that is set.
    pub unset_only: bool,
    pub subjects: Subjects,
}

pub(crate) fn set(resources: &mut Resources, options: &Options<'_>) -> Result<()> {
    if options.namespace.is_empty() {
        return Ok(());
    }
    for resource in &mut resources.0 {
        resource.store_previous_id();
        set_one(&mut resource.node, options).map_err(|error| resource.blame(error))?;
    }
    resources.check_unique()
}

fn set_one(node: &mut Node, options: &Options<'_>) -> Result<()> {
    let api_version = node.get("apiVersion").map_or("", Node::value).to_owned();
    let kind = node.get("kind").map_or("", Node::value).to_owned();
    let mut write = |field: &mut Node| {
        if options.unset_only && !field.value().is_empty() {
            return Ok(());
        }
        fieldspec::set_text(field, options.namespace)
    };
    if !kube::is_cluster_scoped(&api_version, &kind) {
        let everywhere = FieldSpec::everywhere("metadata/namespace", true);
        fieldspec::apply(node, &everywhere, Create::Scalar, &mut write)?;
    }
    let is_binding = kind == "RoleBinding" || kind == "ClusterRoleBinding";
    if is_binding {
        set_subjects(node, options.subjects, &mut write)?;
    }
    for spec in options.specs {
        let done = spec.path == "metadata/namespace"
            || (spec.path == "metadata/name" && api_version != "v1")
            || (is_binding && spec.path == "subjects/namespace");
        if !done {
            fieldspec::apply(node, spec, Create::Scalar, &mut write)?;
        }
    }
    Ok(())
}

fn set_subjects(
    node: &mut Node,
    subjects: Subjects,
    write: &mut dyn FnMut(&mut Node) -> Result<()>,
) -> Result<()> {
    let Some(items) = node.get_mut("subjects").and_then(Node::as_seq_mut) else {
        return Ok(());
    };
    for subject in items {
        let moved = match subjects {
            Subjects::None => false,
            Subjects::DefaultOnly => subject.get("name").map_or("", Node::value) == "default",
            Subjects::AllServiceAccounts => subject.get("kind").map_or("", Node::value) == "ServiceAccount",
        };
        if let (true, Some(map)) = (moved, subject.as_map_mut()) {
            write(map.entry("namespace", || Node::bare("")))?;
        }
    }
    Ok(())
}
