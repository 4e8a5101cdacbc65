//! Reading files of the tree, under kustomize's or Flux's loading rule.

use crate::error::{Problem, RenderError, Result};
use model::{Tree, TreeEntry};
use std::borrow::Cow;

/// Which files a kustomization may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadRestrictor {
    /// Only files in or below the kustomization's own folder, as kustomize does.
    #[default]
    RootOnly,
    /// Any file of the tree, as Flux does.
    None,
}

/// Reads on behalf of the kustomization in one folder.
#[derive(Debug, Clone)]
pub(crate) struct Loader<'a> {
    tree: &'a Tree,
    restrictor: LoadRestrictor,
    /// The folder, from the tree's root.
    root: String,
    /// The folders that led here, outermost first.
    referrers: Vec<String>,
}

impl<'a> Loader<'a> {
    pub fn new(tree: &'a Tree, restrictor: LoadRestrictor, path: &str) -> Result<Self> {
        let root = resolve(tree, "", path)?;
        if !tree.is_dir(&root) {
            return Err(missing(path, "folder"));
        }
        Ok(Self {
            tree,
            restrictor,
            root,
            referrers: Vec::new(),
        })
    }

    pub fn root(&self) -> &str {
        &self.root
    }

    /// A file's path from the tree's root, for messages.
    pub fn display(&self, path: &str) -> String {
        resolve(self.tree, &self.root, path).unwrap_or_else(|_| path.to_owned())
    }

    /// The loader of another folder.
    pub fn enter(&self, path: &str) -> Result<Self> {
        if path.is_empty() {
            return Err(RenderError::configuration("the path of a folder is empty"));
        }
        refuse_remote(path)?;
        let root = resolve(self.tree, &self.root, path)?;
        if self.tree.get(&root).is_some() && !self.tree.is_dir(&root) {
            return Err(RenderError::new(
                Problem::NotFound,
                format!("{path} is a file, not a folder"),
            ));
        }
        if !self.tree.is_dir(&root) {
            return Err(missing(path, "file or folder"));
        }
        let contains =
            |inner: &str| root.is_empty() || inner == root || inner.starts_with(&format!("{root}/"));
        if self
            .referrers
            .iter()
            .chain([&self.root])
            .any(|visited| contains(visited))
        {
            return Err(RenderError::new(
                Problem::Configuration,
                format!("{path} contains or is the folder that refers to it: a cycle"),
            )
            .remedy("move what both need into a folder of its own"));
        }
        let mut referrers = self.referrers.clone();
        referrers.push(self.root.clone());
        Ok(Self {
            tree: self.tree,
            restrictor: self.restrictor,
            root,
            referrers,
        })
    }

    /// A file's bytes.
    pub fn read(&self, path: &str) -> Result<&'a [u8]> {
        refuse_remote(path)?;
        let full = resolve(self.tree, &self.root, path)?;
        let Some(data) = self.tree.read(&full) else {
            return Err(missing(path, "file"));
        };
        let inside = self.root.is_empty() || full.starts_with(&format!("{}/", self.root));
        if self.restrictor == LoadRestrictor::RootOnly && !inside {
            return Err(RenderError::new(
                Problem::NotFound,
                format!("{full} is not in or below {}", self.root),
            )
            .remedy("move the file, or make its folder a base"));
        }
        Ok(data)
    }

    /// A file's text.
    pub fn read_text(&self, path: &str) -> Result<Cow<'a, str>> {
        let bytes = self.read(path)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(error) => Err(RenderError::new(
                Problem::Unreadable,
                format!("{} is not UTF-8 text: {error}", self.display(path)),
            )),
        }
    }

    /// Whether there is a file of this name in the folder.
    pub fn has_file(&self, path: &str) -> bool {
        resolve(self.tree, &self.root, path).is_ok_and(|full| self.tree.read(&full).is_some())
    }
}

fn missing(path: &str, what: &str) -> RenderError {
    RenderError::new(Problem::NotFound, format!("there is no {what} {path:?}"))
}

/// Whether the path names something outside the tree: a URL or a Git repository.
pub(crate) fn is_remote(path: &str) -> bool {
    path.contains("://")
        || path.starts_with("git@")
        || path.starts_with("git::")
        || path.starts_with("github.com")
        || path.contains("?ref=")
        || path.contains(".git/")
        || path.ends_with(".git")
}

fn refuse_remote(path: &str) -> Result<()> {
    if is_remote(path) {
        return Err(RenderError::new(
            Problem::Unsupported,
            format!("{path} is remote, and rendering reads nothing but the repository"),
        )
        .remedy("copy what it points at into the repository"));
    }
    Ok(())
}

/// A path from the tree's root, with `.`, `..` and symbolic links resolved.
pub(crate) fn resolve(tree: &Tree, base: &str, path: &str) -> Result<String> {
    const MAX_LINKS: usize = 40;
    if path.starts_with('/') {
        return Err(RenderError::new(
            Problem::NotFound,
            format!("{path} is an absolute path; paths are relative to their file"),
        ));
    }
    let mut done: Vec<String> = base
        .split('/')
        .filter(|p| !p.is_empty())
        .map(str::to_owned)
        .collect();
    let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        match part.as_str() {
            "" | "." => {}
            ".." => {
                if done.pop().is_none() {
                    return Err(RenderError::new(
                        Problem::NotFound,
                        format!("{path} leads out of the repository"),
                    ));
                }
            }
            _ => {
                done.push(part);
                if let Some(TreeEntry::Link(target)) = tree.get(&done.join("/")) {
                    links += 1;
                    if links > MAX_LINKS || target.starts_with('/') {
                        return Err(RenderError::new(
                            Problem::NotFound,
                            format!(
                                "the symbolic link {} leads nowhere in the repository",
                                done.join("/")
                            ),
                        ));
                    }
                    done.pop();
                    todo.extend(target.split('/').rev().map(str::to_owned));
                }
            }
        }
    }
    Ok(done.join("/"))
}
