//! Building a folder as Flux does: with a `Kustomization`'s own settings, and without a kustomization file.

use super::{
    decrypt::Decrypting,
    substitute::substitute,
    types::{FluxImage, FluxPatch, KustomizationSpec},
};
use crate::{
    LoadRestrictor, Remotes,
    error::{Problem, RenderError, Result},
    files::Files,
    kustomization::{Image, Kustomization, Patch, Selector},
    loader::{self, Loader},
    origin::Place,
    target::{Builder, FILE_NAMES, Target},
    trace::Made,
    yaml::{self, Node},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use model::{Object, Tree};
use sops::Keys;
use std::collections::BTreeMap;

pub(super) struct Built {
    pub made: Vec<Made>,
    pub warnings: Vec<String>,
}

/// A folder's path from the tree's root: `./apps/` is `apps`.
pub(super) fn clean(tree: &Tree, path: &str) -> Result<String> {
    let relative = path.trim_start_matches('/');
    let clean = loader::resolve(tree, "", relative)?;
    if tree.is_dir(&clean) {
        return Ok(clean);
    }
    Err(RenderError::new(
        Problem::NotFound,
        format!("there is no folder {path:?} in the repository"),
    ))
}

/// Builds a folder; what is encrypted in it is decrypted with the keys, or left as it is where there are none.
pub(super) fn build(
    tree: &Tree,
    remotes: &dyn Remotes,
    path: &str,
    spec: Option<&KustomizationSpec>,
    keys: Option<&Keys>,
) -> Result<Built> {
    let mut builder = Builder::new();
    let decrypting;
    let files: &dyn Files = match keys {
        None => tree,
        Some(keys) => {
            decrypting = Decrypting { files: tree, keys };
            &decrypting
        }
    };
    let loader = Loader::new(files, remotes, LoadRestrictor::None, path)?;
    let mut target = if FILE_NAMES.iter().any(|name| loader.has_file(name)) {
        builder.load(loader)?
    } else {
        generated(tree, path, loader)
    };
    if let Some(spec) = spec {
        apply_spec(&mut target, spec);
    }
    let resources = builder.build(&target)?;
    Ok(Built {
        made: resources.0.into_iter().map(Made::from).collect(),
        warnings: builder.warnings,
    })
}

/// A kustomization of all manifests below a folder; a sub-folder that has its own counts as one.
fn generated<'a>(tree: &'a Tree, path: &str, loader: Loader<'a>) -> Target<'a> {
    let prefix = if path.is_empty() {
        String::new()
    } else {
        format!("{path}/")
    };
    let mut resources: Vec<String> = Vec::new();
    for (file, _) in tree.below(path) {
        let relative = &file[prefix.len()..];
        let unit = relative
            .match_indices('/')
            .map(|(at, _)| &relative[..at])
            .find(|folder| {
                FILE_NAMES
                    .iter()
                    .any(|name| tree.read(&format!("{prefix}{folder}/{name}")).is_some())
            });
        let resource = match unit {
            Some(folder) => folder,
            None if file.ends_with(".yaml") || file.ends_with(".yml") => relative,
            None => continue,
        };
        if resources.last().is_none_or(|last| last != resource) {
            resources.push(resource.to_owned());
        }
    }
    Target {
        loader,
        file: format!("{prefix}kustomization.yaml").into(),
        name: FILE_NAMES[0],
        kustomization: Kustomization {
            kind: "Kustomization".to_owned(),
            resources,
            ..Kustomization::default()
        },
        place: Place::default(),
    }
}

/// Merges what the Flux object says into the folder's kustomization.
fn apply_spec(target: &mut Target<'_>, spec: &KustomizationSpec) {
    let kustomization = &mut target.kustomization;
    for (own, theirs) in [
        (&mut kustomization.namespace, &spec.target_namespace),
        (&mut kustomization.name_prefix, &spec.name_prefix),
        (&mut kustomization.name_suffix, &spec.name_suffix),
    ] {
        if !theirs.is_empty() {
            own.clone_from(theirs);
        }
    }
    let present = |path: &&String| !spec.ignore_missing_components || target.loader.enter(path).is_ok();
    kustomization
        .components
        .extend(spec.components.iter().filter(present).cloned());
    kustomization.patches.extend(spec.patches.iter().map(patch));
    for image in &spec.images {
        set_image(&mut kustomization.images, image);
    }
    if !spec.build_metadata.is_empty() {
        kustomization.build_metadata.clone_from(&spec.build_metadata);
    }
}

fn patch(patch: &FluxPatch) -> Patch {
    Patch {
        patch: patch.patch.clone(),
        target: patch.target.as_ref().map(|target| Selector {
            group: target.group.clone(),
            version: target.version.clone(),
            kind: target.kind.clone(),
            name: target.name.clone(),
            namespace: target.namespace.clone(),
            annotation_selector: target.annotation_selector.clone(),
            label_selector: target.label_selector.clone(),
        }),
        ..Patch::default()
    }
}

/// A known image is changed field by field, tag and digest as one; a new one is added.
fn set_image(images: &mut Vec<Image>, new: &FluxImage) {
    let image = match images.iter().position(|image| image.name == new.name) {
        Some(at) => &mut images[at],
        None => {
            images.push(Image {
                name: new.name.clone(),
                ..Image::default()
            });
            let last = images.len() - 1;
            &mut images[last]
        }
    };
    if !new.new_name.is_empty() {
        image.new_name.clone_from(&new.new_name);
    }
    if !new.new_tag.is_empty() || !new.digest.is_empty() {
        image.new_tag.clone_from(&new.new_tag);
        image.digest.clone_from(&new.digest);
    }
}

/// Replaces the variables in an object's text, as Flux does: the result is read anew.
pub(super) fn substitute_in(node: &Node, variables: &BTreeMap<String, String>) -> Result<Node> {
    let name = || {
        let field = |path: [&str; 2]| node.at(path).map_or("", Node::value).to_owned();
        format!(
            "{}/{}",
            node.get("kind").map_or("", Node::value),
            field(["metadata", "name"])
        )
    };
    let mut text = String::new();
    yaml::emit_document(node, &mut text).map_err(crate::bad_number)?;
    if !text.contains('$') {
        return Ok(node.clone());
    }
    let text = substitute(&text, variables).map_err(|error| error.on(name()))?;
    let unreadable = |message: String| {
        RenderError::new(
            Problem::Unreadable,
            format!("after its variables were replaced the object is no YAML: {message}"),
        )
        .on(name())
    };
    let documents = yaml::parse_documents(&text).map_err(|error| unreadable(error.message))?;
    let [document] = documents.as_slice() else {
        return Err(unreadable(format!("it became {} documents", documents.len())));
    };
    let value = yaml::to_json_yaml11(&document.root).map_err(crate::bad_number)?;
    Ok(yaml::from_json(&value))
}

/// The data of a ConfigMap or Secret, without line breaks.
pub(super) fn data(object: &Object) -> Result<BTreeMap<String, String>> {
    let mut data = raw_data(object)?;
    data.values_mut().for_each(|text| *text = text.replace('\n', ""));
    Ok(data)
}

/// The data of a ConfigMap or Secret.
pub(super) fn raw_data(object: &Object) -> Result<BTreeMap<String, String>> {
    let mut data = BTreeMap::new();
    let encoded = object.kind() == "Secret";
    for (field, encoded) in [("data", encoded), ("stringData", false)] {
        let entries = object.value().get(field).and_then(serde_json::Value::as_object);
        for (key, value) in entries.into_iter().flatten() {
            let text = value.as_str().unwrap_or_default();
            let text = if encoded {
                decode(text).ok_or_else(|| {
                    RenderError::new(Problem::Unreadable, "the value is no base64 of a text")
                        .on(object.key())
                        .field(format!("data.{key}"))
                })?
            } else {
                text.to_owned()
            };
            data.insert(key.clone(), text);
        }
    }
    Ok(data)
}

fn decode(text: &str) -> Option<String> {
    let compact: String = text.split_whitespace().collect();
    String::from_utf8(STANDARD.decode(compact).ok()?).ok()
}
