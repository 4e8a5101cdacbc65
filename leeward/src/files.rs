//! Folders on disk as a [`Tree`] for the renderer.

use anyhow::{Context as _, Result, ensure};
use model::{Tree, TreeEntry};
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

/// A tree larger than this is no repository of manifests.
const MOST_BYTES: u64 = 512 << 20;
const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Everything below `dir`, without `.git`.
pub fn whole(dir: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    let mut bytes = 0;
    walk(dir, "", &mut tree, &mut bytes)?;
    Ok(tree)
}

fn walk(dir: &Path, prefix: &str, tree: &mut Tree, bytes: &mut u64) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        let path = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}/{name}")
        };
        if kind.is_dir() {
            if name != ".git" {
                walk(&entry.path(), &path, tree, bytes)?;
            }
        } else if kind.is_symlink() {
            let target = std::fs::read_link(entry.path())?;
            tree.insert(&path, TreeEntry::Link(target.to_string_lossy().into_owned()));
        } else if kind.is_file() {
            let meta = entry.metadata()?;
            *bytes += meta.len();
            ensure!(
                *bytes <= MOST_BYTES,
                "{} holds more than {} MiB",
                dir.display(),
                MOST_BYTES >> 20
            );
            let executable = meta.permissions().mode() & 0o111 != 0;
            tree.insert(
                &path,
                TreeEntry::File {
                    data: std::fs::read(entry.path())?.into(),
                    executable,
                },
            );
        }
    }
    Ok(())
}

/// What a kustomization reaches, and nothing else, so that a small overlay of a large repository costs what it is.
///
/// Paths in the tree start at the file system's root, because bases may lie anywhere above. Reached is each text in a
/// kustomization, or in a configuration that it names, which is the path of something that exists.
pub fn reached_from(dir: &Path) -> Result<(Tree, String)> {
    let dir = dir
        .canonicalize()
        .with_context(|| format!("cannot read {}", dir.display()))?;
    let mut reach = Reach::default();
    if dir.is_dir() {
        reach.folder(&dir)?;
    } else {
        reach.file(&dir)?;
    }
    Ok((reach.tree, in_tree(&dir)))
}

#[derive(Default)]
struct Reach {
    tree: Tree,
    seen: BTreeSet<PathBuf>,
}

impl Reach {
    fn folder(&mut self, dir: &Path) -> Result<()> {
        if !self.seen.insert(dir.to_owned()) {
            return Ok(());
        }
        for name in KUSTOMIZATIONS {
            let path = dir.join(name);
            if path.is_file() {
                self.configuration(&path, dir)?;
            }
        }
        Ok(())
    }

    /// Reads a file that may name others, relative to `base`.
    fn configuration(&mut self, path: &Path, base: &Path) -> Result<()> {
        let data = self.file(path)?;
        let Ok(text) = std::str::from_utf8(&data) else {
            return Ok(());
        };
        // What does not parse is told by the renderer, with its place.
        let Ok(documents) = serde_saphyr::from_multiple::<Value>(text) else {
            return Ok(());
        };
        for document in &documents {
            let mut names = Vec::new();
            texts(document, &mut names);
            for name in names {
                self.follow(name, base)?;
            }
        }
        Ok(())
    }

    fn follow(&mut self, name: &str, base: &Path) -> Result<()> {
        // `key=path` in generators.
        for candidate in [Some(name), name.split_once('=').map(|(_, path)| path)]
            .into_iter()
            .flatten()
        {
            if candidate.is_empty() || candidate.len() > 4096 || candidate.contains('\n') {
                continue;
            }
            let path = normal(&base.join(candidate));
            if path.is_dir() {
                self.folder(&path)?;
            } else if path.is_file() && !self.seen.contains(&path) {
                let small = path.metadata().is_ok_and(|meta| meta.len() < 64 * 1024);
                let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
                if small && yaml {
                    self.configuration(&path, base)?;
                } else {
                    self.file(&path)?;
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<Vec<u8>> {
        self.seen.insert(path.to_owned());
        let data = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        self.tree.write(&in_tree(path), data.clone());
        Ok(data)
    }
}

fn texts<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => into.push(text),
        Value::Array(list) => list.iter().for_each(|item| texts(item, into)),
        Value::Object(map) => map.values().for_each(|item| texts(item, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

fn in_tree(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}
