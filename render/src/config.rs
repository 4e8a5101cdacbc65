//! The transformer configuration: where names, labels, images and the like are found in objects.

use crate::{
    error::{RenderError, Result},
    kube::field_specs as defaults,
};
use serde::Deserialize;
use std::{borrow::Cow, rc::Rc};

/// A field of the objects of a group, version and kind; what is empty matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FieldSpec {
    #[serde(default)]
    pub group: Cow<'static, str>,
    #[serde(default)]
    pub version: Cow<'static, str>,
    #[serde(default)]
    pub kind: Cow<'static, str>,
    #[serde(default)]
    pub path: Cow<'static, str>,
    /// Whether the field is made where it is absent.
    #[serde(default)]
    pub create: bool,
}

impl FieldSpec {
    pub const fn fixed(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        path: &'static str,
        create: bool,
    ) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            kind: Cow::Borrowed(kind),
            path: Cow::Borrowed(path),
            create,
        }
    }

    /// A path in every kind.
    pub const fn everywhere(path: &'static str, create: bool) -> Self {
        Self::fixed("", "", "", path, create)
    }

    /// Whether an object of this group, version and kind has the field.
    pub fn selects(&self, group: &str, version: &str, kind: &str) -> bool {
        selects(&self.group, group) && selects(&self.version, version) && selects(&self.kind, kind)
    }
}

/// Whether a selector's part accepts a value: an empty one accepts all.
pub(crate) fn selects(selector: &str, value: &str) -> bool {
    selector.is_empty() || selector == value
}

/// Adds a field. One that is at least as general is kept; a more special one takes the place of a general
/// one, also for the kinds that it does not select: that is kustomize's way.
pub(crate) fn merge_spec(specs: &mut Vec<FieldSpec>, new: &FieldSpec) -> Result<()> {
    let covers = |a: &FieldSpec, b: &FieldSpec| a.selects(&b.group, &b.version, &b.kind);
    let related = specs
        .iter_mut()
        .find(|old| old.path == new.path && (covers(new, old) || covers(old, new)));
    match related {
        Some(old) if old.create != new.create => Err(RenderError::configuration(format!(
            "two field specifications for {} differ in 'create'",
            new.path
        ))),
        Some(old) => {
            if !covers(new, old) {
                old.clone_from(new);
            }
            Ok(())
        }
        None => {
            specs.push(new.clone());
            Ok(())
        }
    }
}

pub(crate) fn merge_specs(specs: &mut Vec<FieldSpec>, new: &[FieldSpec]) -> Result<()> {
    new.iter().try_for_each(|spec| merge_spec(specs, spec))
}

/// Fields that hold the name of an object of one group, version and kind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NameReference {
    #[serde(default)]
    pub group: Cow<'static, str>,
    #[serde(default)]
    pub version: Cow<'static, str>,
    #[serde(default)]
    pub kind: Cow<'static, str>,
    #[serde(default, rename = "fieldSpecs")]
    pub referrers: Vec<FieldSpec>,
}

/// The whole configuration, as the files named in `configurations` have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Config {
    pub name_prefix: Vec<FieldSpec>,
    pub name_suffix: Vec<FieldSpec>,
    pub namespace: Vec<FieldSpec>,
    pub common_labels: Vec<FieldSpec>,
    pub labels: Vec<FieldSpec>,
    pub template_labels: Vec<FieldSpec>,
    pub common_annotations: Vec<FieldSpec>,
    pub name_reference: Vec<NameReference>,
    pub var_reference: Vec<FieldSpec>,
    pub images: Vec<FieldSpec>,
    pub replicas: Vec<FieldSpec>,
}

impl Config {
    /// kustomize's own.
    pub fn built_in() -> Self {
        Self {
            name_prefix: defaults::NAMES.to_vec(),
            name_suffix: defaults::NAMES.to_vec(),
            namespace: defaults::NAMESPACES.to_vec(),
            common_labels: defaults::SELECTORS_AND_LABELS.to_vec(),
            labels: Vec::new(),
            template_labels: defaults::TEMPLATE_LABELS.to_vec(),
            common_annotations: defaults::ANNOTATIONS.to_vec(),
            name_reference: defaults::NAME_REFERENCES
                .iter()
                .map(|(group, version, kind, referrers)| NameReference {
                    group: Cow::Borrowed(group),
                    version: Cow::Borrowed(version),
                    kind: Cow::Borrowed(kind),
                    referrers: referrers.to_vec(),
                })
                .collect(),
            var_reference: defaults::VARS.to_vec(),
            images: defaults::IMAGES.to_vec(),
            replicas: defaults::REPLICAS.to_vec(),
        }
    }

    /// Adds what `other` has.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        merge_specs(&mut self.name_prefix, &other.name_prefix)?;
        merge_specs(&mut self.name_suffix, &other.name_suffix)?;
        merge_specs(&mut self.namespace, &other.namespace)?;
        merge_specs(&mut self.common_labels, &other.common_labels)?;
        merge_specs(&mut self.labels, &other.labels)?;
        merge_specs(&mut self.template_labels, &other.template_labels)?;
        merge_specs(&mut self.common_annotations, &other.common_annotations)?;
        for new in &other.name_reference {
            self.add_reference(new)?;
        }
        merge_specs(&mut self.var_reference, &other.var_reference)?;
        merge_specs(&mut self.images, &other.images)?;
        merge_specs(&mut self.replicas, &other.replicas)
    }

    fn add_reference(&mut self, new: &NameReference) -> Result<()> {
        let known = self
            .name_reference
            .iter_mut()
            .find(|old| old.group == new.group && old.version == new.version && old.kind == new.kind);
        match known {
            Some(old) => merge_specs(&mut old.referrers, &new.referrers),
            None => {
                self.name_reference.push(new.clone());
                Ok(())
            }
        }
    }
}

/// Merges two shared configurations; the same one twice costs nothing.
pub(crate) fn merge_shared(into: &mut Rc<Config>, other: &Rc<Config>) -> Result<()> {
    if Rc::ptr_eq(into, other) {
        return Ok(());
    }
    let mut merged = Config::clone(into);
    merged.merge(other)?;
    *into = Rc::new(merged);
    Ok(())
}
