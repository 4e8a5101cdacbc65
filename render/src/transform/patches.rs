//! Strategic-merge and JSON patches.

use crate::{
    error::{Problem, RenderError, Result},
    json6902::{self, Operation},
    kube::Schemas,
    kustomization::{Patch, Selector},
    loader::Loader,
    reader,
    repository::is_http,
    resource::{Resource, Resources},
    selector::Matcher,
    smp,
    yaml::Node,
};

/// What a patch text turned out to be.
enum Parsed {
    Merge(Vec<Resource>),
    Json(Vec<Operation>),
}

/// An entry of `patches`.
pub(crate) fn apply(
    resources: &mut Resources,
    patch: &Patch,
    loader: &Loader<'_>,
    schemas: &Schemas,
) -> Result<()> {
    let inline = patch.patch.trim();
    let wrong = |message: &str| RenderError::configuration(message).field("patches");
    let (text, file) = match (inline.is_empty(), patch.path.is_empty()) {
        (true, true) => return Err(wrong("an entry needs 'patch' or 'path'")),
        (false, false) => return Err(wrong("an entry may not have both 'patch' and 'path'")),
        (false, true) => (inline.to_owned(), None),
        (true, false) => {
            let text = loader
                .read_text(&patch.path)
                .map_err(|error| error.field("patches"))?;
            (text, Some(loader.display(&patch.path)))
        }
    };
    let place = |error: RenderError| match &file {
        Some(file) => error.in_file(file.as_str()),
        None => error.field("patches"),
    };
    let option = |name: &str| patch.options.get(name).copied().unwrap_or_default();
    match parse(&text).map_err(place)? {
        Parsed::Merge(patches) if patches.len() > 1 && patch.target.is_some() => Err(place(
            RenderError::new(
                Problem::Patch,
                "several patches in one entry cannot have a target",
            )
            .remedy("give each an entry of its own, or leave the target out"),
        )),
        Parsed::Merge(patches) => {
            for mut merge in patches {
                merge.allow_name_change = option("allowNameChange");
                merge.allow_kind_change = option("allowKindChange");
                match &patch.target {
                    Some(target) => merge_selected(resources, &merge, target, schemas),
                    None => merge_by_id(resources, &merge, schemas),
                }
                .map_err(place)?;
            }
            Ok(())
        }
        Parsed::Json(operations) => {
            let Some(target) = &patch.target else {
                return Err(place(
                    RenderError::new(Problem::Patch, "a JSON patch needs a target")
                        .remedy("name the kind and name of what it patches under 'target'"),
                ));
            };
            patch_json(resources, &operations, target).map_err(place)
        }
    }
}

fn parse(text: &str) -> Result<Parsed> {
    let merge = reader::objects(text, None);
    let json = json6902::parse(text);
    match (merge, json) {
        (Ok(patches), Err(_)) => Ok(Parsed::Merge(patches)),
        (Err(_), Ok(patches)) => Ok(Parsed::Json(patches)),
        (Ok(patches), Ok(_)) if patches.is_empty() => Ok(Parsed::Merge(patches)),
        (Ok(_), Ok(_)) => Err(RenderError::new(
            Problem::Patch,
            "the patch could be a strategic merge as well as a JSON patch",
        )),
        (Err(merge), Err(json)) => {
            let list = text.trim_start().starts_with(['-', '[']);
            Err(if list { json } else { merge })
        }
    }
}

/// An entry of `patchesJson6902`.
pub(crate) fn apply_json(resources: &mut Resources, patch: &Patch, loader: &Loader<'_>) -> Result<()> {
    let wrong = |message: &str| RenderError::configuration(message).field("patchesJson6902");
    let Some(target) = &patch.target else {
        return Err(wrong("a JSON patch needs a target"));
    };
    if target.name.is_empty() {
        return Err(wrong("the target needs a name"));
    }
    let text = match (patch.patch.is_empty(), patch.path.is_empty()) {
        (true, true) => return Err(wrong("an entry needs 'patch' or 'path'")),
        (false, false) => return Err(wrong("an entry may not have both 'patch' and 'path'")),
        (false, true) => patch.patch.clone(),
        (true, false) => loader.read_text(&patch.path)?,
    };
    let operations = json6902::parse(&text)?;
    patch_json(resources, &operations, target)
}

/// An entry of `patchesStrategicMerge`: a path or the patch itself.
pub(crate) fn apply_merge(
    resources: &mut Resources,
    entry: &str,
    loader: &Loader<'_>,
    schemas: &Schemas,
) -> Result<()> {
    let patches = if loader.has_file(entry) || (is_http(entry) && !entry.contains('\n')) {
        let file = loader.display(entry);
        reader::objects(&loader.read_text(entry)?, Some(&file.as_str().into()))
    } else if entry.contains('\n') || entry.contains(": ") {
        reader::objects(entry, None).map_err(|error| error.field("patchesStrategicMerge"))
    } else {
        Err(
            RenderError::new(Problem::NotFound, format!("there is no file {entry:?}"))
                .field("patchesStrategicMerge"),
        )
    }?;
    if patches.is_empty() {
        return Err(RenderError::new(Problem::Patch, "the patch is empty").field("patchesStrategicMerge"));
    }
    patches
        .iter()
        .try_for_each(|patch| merge_by_id(resources, patch, schemas))
}

/// Patches the one object that the patch names.
fn merge_by_id(resources: &mut Resources, patch: &Resource, schemas: &Schemas) -> Result<()> {
    let id = patch.id();
    let mut matches = resources.0.iter_mut().filter(|resource| {
        !resource.is_deleted()
            && resource
                .previous_ids()
                .chain([resource.id()])
                .any(|known| known == id)
    });
    match (matches.next(), matches.next()) {
        (Some(resource), None) => merge_one(resource, patch, schemas),
        (None, _) => Err(
            RenderError::new(Problem::Patch, "no object is named by this patch")
                .on(id)
                .remedy("check apiVersion, kind, name and namespace, or give a target"),
        ),
        (Some(_), Some(_)) => {
            Err(RenderError::new(Problem::Patch, "more than one object is named by this patch").on(id))
        }
    }
}

fn merge_selected(
    resources: &mut Resources,
    patch: &Resource,
    target: &Selector,
    schemas: &Schemas,
) -> Result<()> {
    let selected = Matcher::new(target)?.select(resources);
    let mut patch = patch.clone();
    for field in ["labels", "annotations"] {
        texts_only(&mut patch, field);
    }
    for at in selected {
        let resource = &mut resources.0[at];
        let mut fitted = patch.clone();
        if let Some(map) = fitted.node.as_map_mut() {
            map.set("apiVersion", Node::bare(resource.api_version()));
        }
        merge_one(resource, &fitted, schemas)?;
    }
    resources.0.retain(|resource| !resource.is_deleted());
    resources.check_unique()
}

/// In a patch for selected objects kustomize takes labels and annotations for texts, null too.
fn texts_only(patch: &mut Resource, field: &str) {
    let Some(metadata) = patch.node.get_mut("metadata").and_then(Node::as_map_mut) else {
        return;
    };
    match metadata.get_mut(field) {
        Some(Node::Map(map)) if !map.is_empty() => {
            for (_, value) in &mut map.0 {
                *value = Node::text(value.raw());
            }
        }
        _ => {
            metadata.remove(field);
        }
    }
}

fn merge_one(resource: &mut Resource, patch: &Resource, schemas: &Schemas) -> Result<()> {
    resource.patched = true;
    let name = resource.name().to_owned();
    let namespace = resource.namespace().to_owned();
    let kind = resource.kind().to_owned();
    if patch.allow_name_change || patch.allow_kind_change {
        resource.store_previous_id();
    }
    let merged = smp::merge(resource.node.clone(), patch.node.clone(), schemas)
        .map_err(|error| resource.blame(error))?;
    let Some(merged) = merged else {
        resource.node = Node::empty_map();
        return Ok(());
    };
    resource.node = merged;
    resource.settle();
    if resource.is_deleted() {
        return Ok(());
    }
    if !patch.allow_kind_change {
        resource.set_kind(&kind);
    }
    if !patch.allow_name_change {
        resource.set_name(&name);
    }
    resource.set_namespace(&namespace);
    Ok(())
}

fn patch_json(resources: &mut Resources, operations: &[Operation], target: &Selector) -> Result<()> {
    for at in Matcher::new(target)?.select(resources) {
        let resource = &mut resources.0[at];
        resource.patched = true;
        resource.store_previous_id();
        // kustomize keeps notes in annotations while it builds, so that a patch may add to them.
        if let Some(metadata) = resource.metadata_mut() {
            let annotations = metadata.entry("annotations", Node::empty_map);
            if annotations.is_null() {
                *annotations = Node::empty_map();
            }
        }
        resource.node = json6902::apply(&resource.node, operations).map_err(|error| resource.blame(error))?;
    }
    Ok(())
}
