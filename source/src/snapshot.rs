//! A commit's files, each read from the object store when it is asked for.

use crate::repository::Store;
use crate::{Limits, SourceError};
use bytes::Bytes;
use gix::ObjectId;
use gix::objs::tree::EntryKind;
use std::collections::BTreeMap;
use std::rc::Rc;

/// What lies at a path of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lies {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, with its target as written.
    Link(String),
}

/// The files of one commit, those of its submodules among them. Nothing is left out; nothing is read before it is
/// asked for.
pub struct Snapshot {
    commit: ObjectId,
    root: ObjectId,
    store: Store,
    limits: Limits,
    /// By their folders.
    submodules: BTreeMap<String, Rc<Snapshot>>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("commit", &self.commit)
            .finish_non_exhaustive()
    }
}

/// A submodule as the commit names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Submodule {
    pub path: String,
    pub url: String,
    pub commit: String,
}

impl Snapshot {
    pub(crate) fn open(store: Store, commit: &str, limits: &Limits) -> Result<Self, SourceError> {
        let damaged = |why: String| SourceError::Damaged {
            commit: commit.to_owned(),
            why,
        };
        let id = ObjectId::from_hex(commit.as_bytes()).map_err(|err| damaged(err.to_string()))?;
        let object = store
            .repo
            .find_object(id)
            .map_err(|err| damaged(err.to_string()))?;
        let root = object
            .try_to_commit_ref()
            .map_err(|err| damaged(err.to_string()))?
            .tree();
        drop(object);
        Ok(Self {
            commit: id,
            root,
            store,
            limits: limits.clone(),
            submodules: BTreeMap::new(),
        })
    }

    /// Full id of the commit.
    pub fn commit(&self) -> String {
        self.commit.to_string()
    }

    /// What lies at a path: `/`-separated, from the root, which is the empty path. Links are not followed.
    pub fn look(&self, path: &str) -> Result<Option<Lies>, SourceError> {
        if let Some((module, rest)) = self.submodule(path) {
            return module.look(rest);
        }
        let Some((id, kind)) = self.find(path)? else {
            return Ok(None);
        };
        Ok(match kind {
            EntryKind::Tree => Some(Lies::Folder),
            EntryKind::Blob | EntryKind::BlobExecutable => Some(Lies::File),
            EntryKind::Link => {
                let target = String::from_utf8(self.blob(id, path)?).map_err(|_| SourceError::BadPath {
                    commit: self.commit(),
                    path: path.to_owned(),
                    why: "the target of this link is no UTF-8",
                })?;
                Some(Lies::Link(target))
            }
            // An empty folder, as in a clone without submodules.
            EntryKind::Commit => Some(Lies::Folder),
        })
    }

    /// A file's bytes; `None` where there is no file.
    pub fn read(&self, path: &str) -> Result<Option<Bytes>, SourceError> {
        if let Some((module, rest)) = self.submodule(path) {
            return module.read(rest);
        }
        match self.find(path)? {
            Some((id, EntryKind::Blob | EntryKind::BlobExecutable)) => Ok(Some(self.blob(id, path)?.into())),
            _ => Ok(None),
        }
    }

    pub(crate) fn add(&mut self, path: &str, module: Rc<Self>) {
        self.submodules.insert(path.to_owned(), module);
    }

    fn submodule<'p>(&self, path: &'p str) -> Option<(&Self, &'p str)> {
        self.submodules.iter().find_map(|(folder, module)| {
            let rest = path.strip_prefix(folder.as_str())?;
            match rest.strip_prefix('/') {
                Some(rest) => Some((&**module, rest)),
                None => rest.is_empty().then_some((&**module, "")),
            }
        })
    }

    fn find(&self, path: &str) -> Result<Option<(ObjectId, EntryKind)>, SourceError> {
        let mut at = (self.root, EntryKind::Tree);
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if at.1 != EntryKind::Tree {
                return Ok(None);
            }
            let tree = self
                .store
                .repo
                .find_tree(at.0)
                .map_err(|err| self.damaged(&err))?;
            let folder = tree.decode().map_err(|err| self.damaged(&err))?;
            let entry = folder
                .entries
                .iter()
                .find(|entry| entry.filename == part.as_bytes());
            let Some(entry) = entry else { return Ok(None) };
            at = (entry.oid.to_owned(), entry.mode.kind());
        }
        Ok(Some(at))
    }

    fn blob(&self, id: ObjectId, path: &str) -> Result<Vec<u8>, SourceError> {
        let size = self
            .store
            .repo
            .find_header(id)
            .map_err(|err| self.damaged(&err))?
            .size();
        if size > self.limits.file {
            return Err(SourceError::TooLarge {
                what: format!("the file {path}"),
                limit: self.limits.file,
            });
        }
        let object = self
            .store
            .repo
            .find_object(id)
            .map_err(|err| self.damaged(&err))?;
        Ok(object.detach().data)
    }

    /// The submodules that `.gitmodules` and the tree agree on.
    pub(crate) fn submodules(&self) -> Result<Vec<Submodule>, SourceError> {
        let Some(text) = self.read(".gitmodules")? else {
            return Ok(vec![]);
        };
        let mut found = Vec::new();
        for (path, url) in modules(&String::from_utf8_lossy(&text)) {
            if let Some((id, EntryKind::Commit)) = self.find(&path)? {
                found.push(Submodule {
                    path,
                    url,
                    commit: id.to_string(),
                });
            }
        }
        Ok(found)
    }

    fn damaged(&self, err: &dyn std::error::Error) -> SourceError {
        SourceError::Damaged {
            commit: self.commit(),
            why: err.to_string(),
        }
    }
}

/// `path` and `url` of each section of a `.gitmodules`.
fn modules(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            found.push(<(String, String)>::default());
            continue;
        }
        let (Some((key, value)), Some(last)) = (line.split_once('='), found.last_mut()) else {
            continue;
        };
        let value = value.trim().trim_matches('"').to_owned();
        match key.trim() {
            "path" => last.0 = value,
            "url" => last.1 = value,
            _ => {}
        }
    }
    found.retain(|(path, url)| !path.is_empty() && !url.is_empty());
    found
}

/// A submodule's address, which may be relative to that of the repository that names it.
pub(crate) fn absolute(base: &str, url: &str) -> String {
    if !(url.starts_with("./") || url.starts_with("../")) {
        return url.to_owned();
    }
    let mut base = base.trim_end_matches('/').to_owned();
    let mut rest = url;
    loop {
        if let Some(after) = rest.strip_prefix("./") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("../") {
            rest = after;
            let end = base.rfind(['/', ':']).unwrap_or(0);
            base.truncate(end);
        } else {
            return format!("{base}/{rest}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submodules_may_be_named_relative_to_their_repository() {
        for (base, url, expected) in [
            ("https://h.io/a/b.git", "../c.git", "https://h.io/a/c.git"),
            ("https://h.io/a/b/", "./c", "https://h.io/a/b/c"),
            ("git@h.io:a/b", "../../x/c", "git@h.io/x/c"),
            ("https://h.io/a/b", "https://x.io/c", "https://x.io/c"),
        ] {
            assert_eq!(absolute(base, url), expected);
        }
    }

    #[test]
    fn sections_without_path_or_address_are_none() {
        let text = "[submodule \"a\"]\n\tpath = lib/a\n\turl = ../a.git\n[submodule \"b\"]\n\tpath = b\n";
        assert_eq!(modules(text), [("lib/a".to_owned(), "../a.git".to_owned())]);
    }
}
