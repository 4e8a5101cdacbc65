//! Reading on behalf of a kustomization, under kustomize's or Flux's loading rule.

use crate::error::{Problem, RenderError, Result};
use crate::files::{Entry, Files, Remotes};
use crate::repository::{Repository, is_http};
use bytes::Bytes;
use std::rc::Rc;

/// Which files a kustomization may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadRestrictor {
    /// Only files in or below the kustomization's own folder, as kustomize does.
    #[default]
    RootOnly,
    /// Any file of the tree, as Flux does.
    None,
}

/// Files within a chain of remote repositories; a longer one is no honest base.
const DEEPEST: usize = 16;

/// The files that a folder lies in.
#[derive(Debug, Clone)]
enum Ground<'a> {
    Given(&'a dyn Files),
    Fetched(Rc<dyn Files>),
}

impl Ground<'_> {
    fn files(&self) -> &dyn Files {
        match self {
            Self::Given(files) => *files,
            Self::Fetched(files) => &**files,
        }
    }
}

/// Reads on behalf of the kustomization in one folder.
#[derive(Debug, Clone)]
pub(crate) struct Loader<'a> {
    ground: Ground<'a>,
    remotes: &'a dyn Remotes,
    restrictor: LoadRestrictor,
    /// The folder, from the root of its files.
    root: String,
    /// The folders of the same files that led here, outermost first.
    referrers: Vec<String>,
    /// The addresses of the repositories that led here, outermost first.
    repositories: Rc<[String]>,
}

impl<'a> Loader<'a> {
    pub fn new(
        files: &'a dyn Files,
        remotes: &'a dyn Remotes,
        restrictor: LoadRestrictor,
        path: &str,
    ) -> Result<Self> {
        let given = Self {
            ground: Ground::Given(files),
            remotes,
            restrictor,
            root: String::new(),
            referrers: Vec::new(),
            repositories: Rc::new([]),
        };
        if let Some(repository) = Repository::parse(path) {
            return given.enter_repository(&repository);
        }
        let root = resolve(files, "", path)?;
        if files.look(&root)? != Some(Entry::Folder) {
            return Err(missing(path, "folder"));
        }
        Ok(Self { root, ..given })
    }

    pub fn root(&self) -> &str {
        &self.root
    }

    /// A path from the root of the files, for messages; an address as it is.
    pub fn display(&self, path: &str) -> String {
        if is_http(path) {
            return path.to_owned();
        }
        let full = resolve(self.ground.files(), &self.root, path).unwrap_or_else(|_| path.to_owned());
        match self.repositories.last() {
            Some(repository) => format!("{full} in {repository}"),
            None if self.ground.files().is_file_system() => format!("/{full}"),
            None => full,
        }
    }

    /// The loader of another folder, or of one in a repository.
    pub fn enter(&self, path: &str) -> Result<Self> {
        if path.is_empty() {
            return Err(RenderError::configuration("the path of a folder is empty"));
        }
        if let Some(repository) = Repository::parse(path) {
            return self.enter_repository(&repository);
        }
        if path.starts_with('/') {
            return Err(absolute(path));
        }
        let files = self.ground.files();
        let root = resolve(files, &self.root, path)?;
        match files.look(&root)? {
            Some(Entry::Folder) => {}
            Some(_) => {
                return Err(RenderError::new(
                    Problem::NotFound,
                    format!("{path} is a file, not a folder"),
                ));
            }
            None => return Err(missing(path, "file or folder")),
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
            root,
            referrers,
            ..self.clone()
        })
    }

    /// The loader of a folder in a repository. Nothing there reads what lies outside of it.
    fn enter_repository(&self, repository: &Repository) -> Result<Self> {
        let raw = &repository.raw;
        if self
            .repositories
            .iter()
            .any(|visited| visited.starts_with(raw.as_str()))
        {
            return Err(RenderError::new(
                Problem::Configuration,
                format!("{raw} is the repository that refers to it: a cycle"),
            )
            .remedy("refer to it by a path, or move what both need into a repository of its own"));
        }
        if self.repositories.len() >= DEEPEST {
            return Err(RenderError::new(
                Problem::TooLarge,
                format!("{raw} is reached over {DEEPEST} other repositories"),
            )
            .remedy("name it directly"));
        }
        let files = self.remotes.repository(repository)?;
        let root = resolve(&*files, "", &repository.path)?;
        if files.look(&root)? != Some(Entry::Folder) {
            let what = format!("there is no folder {:?} in {}", repository.path, repository.url);
            return Err(RenderError::new(Problem::NotFound, what));
        }
        Ok(Self {
            ground: Ground::Fetched(files),
            remotes: self.remotes,
            restrictor: LoadRestrictor::RootOnly,
            root,
            referrers: Vec::new(),
            repositories: self.repositories.iter().chain([raw]).cloned().collect(),
        })
    }

    /// A file's bytes; the path may be an `http://` or `https://` address.
    pub fn read(&self, path: &str) -> Result<Bytes> {
        if is_http(path) {
            return self.remotes.file(path);
        }
        let files = self.ground.files();
        if path.starts_with('/') && self.restrictor == LoadRestrictor::RootOnly {
            return Err(absolute(path));
        }
        let full = resolve(files, &self.root, path)?;
        if files.look(&full)? != Some(Entry::File) {
            return Err(missing(path, "file"));
        }
        let inside = self.root.is_empty() || full.starts_with(&format!("{}/", self.root));
        if self.restrictor == LoadRestrictor::RootOnly && !inside {
            return Err(RenderError::new(
                Problem::NotFound,
                format!("{} is not in or below {}", self.display(path), self.display(".")),
            )
            .remedy(
                "move the file, make its folder a base, or build with --load-restrictor LoadRestrictionsNone",
            ));
        }
        files.read(&full)
    }

    /// A file's text.
    pub fn read_text(&self, path: &str) -> Result<String> {
        String::from_utf8(self.read(path)?.into()).map_err(|error| {
            RenderError::new(
                Problem::Unreadable,
                format!("{} is not UTF-8 text: {}", self.display(path), error.utf8_error()),
            )
        })
    }

    /// Whether there is a file of this name in the folder.
    pub fn has_file(&self, path: &str) -> bool {
        let files = self.ground.files();
        resolve(files, &self.root, path)
            .and_then(|full| files.look(&full))
            .is_ok_and(|entry| entry == Some(Entry::File))
    }
}

fn missing(path: &str, what: &str) -> RenderError {
    RenderError::new(Problem::NotFound, format!("there is no {what} {path:?}"))
}

fn absolute(path: &str) -> RenderError {
    RenderError::new(
        Problem::NotFound,
        format!("{path} is an absolute path; paths are relative to their file"),
    )
}

/// A path from the root of the files, with `.`, `..` and symbolic links resolved.
pub(crate) fn resolve(files: &dyn Files, base: &str, path: &str) -> Result<String> {
    const MAX_LINKS: usize = 40;
    let rooted = path.starts_with('/');
    if rooted && !files.is_file_system() {
        return Err(absolute(path));
    }
    let mut done: Vec<String> = base
        .split('/')
        .filter(|p| !p.is_empty() && !rooted)
        .map(str::to_owned)
        .collect();
    let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        match part.as_str() {
            "" | "." => {}
            ".." => {
                if done.pop().is_none() && !files.is_file_system() {
                    return Err(RenderError::new(
                        Problem::NotFound,
                        format!("{path} leads out of the repository"),
                    ));
                }
            }
            _ => {
                done.push(part);
                if let Some(Entry::Link(target)) = files.look(&done.join("/"))? {
                    links += 1;
                    let rooted = target.starts_with('/');
                    if links > MAX_LINKS || (rooted && !files.is_file_system()) {
                        return Err(RenderError::new(
                            Problem::NotFound,
                            format!("the symbolic link {} leads nowhere here", done.join("/")),
                        ));
                    }
                    if rooted {
                        done.clear();
                    } else {
                        done.pop();
                    }
                    todo.extend(target.split('/').rev().map(str::to_owned));
                }
            }
        }
    }
    Ok(done.join("/"))
}
