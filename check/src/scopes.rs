//! What is rendered: each cluster, and each kustomization that nobody includes.

use crate::marked::{self, Marked, Shape};
use model::Tree;
use std::collections::BTreeSet;

/// Names that a kustomization may have.
pub(crate) const FILES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// The folders right below one called `clusters`, and those that devices render.
pub(crate) fn clusters<'a>(tree: &Tree, of_devices: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut found: BTreeSet<String> = of_devices
        .filter(|folder| tree.is_dir(folder))
        .map(|folder| folder.trim_matches('/').to_owned())
        .collect();
    for (path, _) in tree.iter() {
        let parts: Vec<&str> = path.split('/').collect();
        if parts.iter().any(|part| part.starts_with('.')) || !is_yaml(path) {
            continue;
        }
        let folders = &parts[..parts.len() - 1];
        if let Some(at) = folders.iter().position(|part| *part == "clusters")
            && at + 1 < folders.len()
        {
            found.insert(folders[..=at + 1].join("/"));
        }
    }
    found.into_iter().collect()
}

pub(crate) fn is_yaml(path: &str) -> bool {
    path.ends_with(".yaml") || path.ends_with(".yml")
}

/// The folders with a kustomization that no other one includes and that is not among `rendered`.
pub(crate) fn roots(tree: &Tree, rendered: &BTreeSet<String>) -> Vec<String> {
    let mut found: BTreeSet<String> = BTreeSet::new();
    let mut included: BTreeSet<String> = BTreeSet::new();
    for (path, _) in tree.iter() {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if !FILES.contains(&name) || path.split('/').any(|part| part.starts_with('.')) {
            continue;
        }
        let Some(text) = tree
            .read(path)
            .and_then(|data| std::str::from_utf8(data).ok().map(str::to_owned))
        else {
            continue;
        };
        let documents = marked::documents(&text);
        let Some(root) = documents.first() else { continue };
        let field = |key: &str| {
            root.get(key)
                .and_then(|(_, value)| value.text())
                .unwrap_or_default()
        };
        if field("apiVersion").contains("toolkit.fluxcd.io") {
            continue;
        }
        for list in [
            "resources",
            "bases",
            "components",
            "generators",
            "transformers",
            "validators",
        ] {
            included.extend(entries(root, list).map(|entry| join(folder, entry)));
        }
        if field("kind") != "Component" {
            found.insert(folder.to_owned());
        }
    }
    found
        .into_iter()
        .filter(|folder| !included.contains(folder) && !rendered.contains(folder))
        .collect()
}

fn entries<'a>(root: &'a Marked, list: &str) -> impl Iterator<Item = &'a str> {
    let items = match root.get(list).map(|(_, value)| &value.value) {
        Some(Shape::Seq(items)) => items.as_slice(),
        _ => &[],
    };
    items.iter().filter_map(|item| item.text())
}

fn join(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The objects of CRD files that no kustomization includes.
pub(crate) fn loose_crds(tree: &Tree, read: &BTreeSet<String>) -> Vec<model::Object> {
    const MARK: &[u8] = b"kind: CustomResourceDefinition";
    let mut loose = Tree::default();
    let mut list = "resources:\n".to_owned();
    let mut objects = Vec::new();
    for (path, _) in tree
        .iter()
        .filter(|(path, _)| is_yaml(path) && !read.contains(*path))
    {
        let Some(data) = tree.read(path) else { continue };
        if !data.windows(MARK.len()).any(|window| window == MARK) {
            continue;
        }
        list.clear();
        list.push_str("resources: [crds.yaml]\n");
        loose.write("kustomization.yaml", list.clone());
        loose.write("crds.yaml", data.clone());
        let found = render::inspect_folder(&loose, "", &render::NoRemotes);
        objects.extend(found.objects.into_iter().map(|traced| traced.object));
    }
    objects
}
