//! A commit's files, read from the object store.

use crate::ignore::{self, Include, Patterns};
use crate::repository::Store;
use crate::{Limits, SourceError};
use gix::ObjectId;
use gix::objs::tree::EntryKind;
use model::{Tree, TreeEntry};

/// Entries of all folders together; a tree that names one folder many times grows without bound otherwise.
const MOST_ENTRIES: u64 = 200_000;
const DEEPEST: usize = 100;

struct Reader<'a> {
    store: &'a Store,
    commit: ObjectId,
    include: Include,
    patterns: Patterns,
    limits: &'a Limits,
    entries: u64,
    bytes: u64,
    tree: Tree,
    warnings: Vec<String>,
}

/// The files of `commit` that `include` names and `.sourceignore` does not leave out, and what people should know.
///
/// Links are kept as links. A submodule is left out with a warning: its files are in another repository.
pub(crate) fn read(
    store: &Store,
    commit: ObjectId,
    include: &[String],
    ignore: Option<&str>,
    limits: &Limits,
) -> Result<(Tree, Vec<String>), SourceError> {
    let mut reader = Reader {
        store,
        commit,
        include: Include::new(include),
        patterns: Patterns::new(ignore),
        limits,
        entries: 0,
        bytes: 0,
        tree: Tree::default(),
        warnings: Vec::new(),
    };
    let found = store
        .repo
        .find_object(commit)
        .map_err(|err| reader.damaged(&err))?;
    let root = found
        .try_to_commit_ref()
        .map_err(|err| reader.damaged(&err))?
        .tree();
    reader.folder(root, "", 0)?;
    Ok((reader.tree, reader.warnings))
}

impl Reader<'_> {
    fn folder(&mut self, id: ObjectId, path: &str, depth: usize) -> Result<(), SourceError> {
        // A handle of its own, so that what is read from it does not borrow this reader.
        let repo = self.store.repo.clone();
        let tree = repo.find_tree(id).map_err(|err| self.damaged(&err))?;
        let folder = tree.decode().map_err(|err| self.damaged(&err))?;
        self.entries += folder.entries.len() as u64;
        if depth > DEEPEST || self.entries > MOST_ENTRIES {
            let what = format!("the number or depth of folders of commit {}", self.commit);
            return Err(SourceError::TooLarge {
                what,
                limit: MOST_ENTRIES,
            });
        }
        if let Some(entry) = folder.entries.iter().find(|entry| entry.filename == ignore::FILE)
            && entry.mode.is_blob()
        {
            let text = self.blob(entry.oid.to_owned(), &join(path, ignore::FILE))?;
            self.patterns.add(path, &text);
        }
        for entry in &folder.entries {
            let name = self.name(path, entry.filename)?;
            let path = join(path, name);
            match entry.mode.kind() {
                EntryKind::Tree if self.include.folder(&path) => {
                    self.folder(entry.oid.to_owned(), &path, depth + 1)?;
                }
                EntryKind::Tree => {}
                _ if !self.include.file(&path) || self.patterns.excludes(&path) => {}
                EntryKind::Commit => self.warnings.push(format!(
                    "{path} is a submodule, which is not supported: its files are left out; put them into this repository"
                )),
                EntryKind::Link => {
                    let target = self.blob(entry.oid.to_owned(), &path)?;
                    let target = String::from_utf8(target).map_err(|_| self.bad(&path, "the target of this link is no UTF-8"))?;
                    self.tree.insert(&path, TreeEntry::Link(target));
                }
                kind @ (EntryKind::Blob | EntryKind::BlobExecutable) => {
                    let data = self.blob(entry.oid.to_owned(), &path)?.into();
                    let executable = kind == EntryKind::BlobExecutable;
                    self.tree.insert(&path, TreeEntry::File { data, executable });
                }
            }
        }
        Ok(())
    }

    fn blob(&mut self, id: ObjectId, path: &str) -> Result<Vec<u8>, SourceError> {
        // The size is asked for before anything is unpacked.
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
        self.bytes += size;
        if self.bytes > self.limits.tree {
            let what = format!("what is read of commit {}", self.commit);
            return Err(SourceError::TooLarge {
                what,
                limit: self.limits.tree,
            });
        }
        let object = self
            .store
            .repo
            .find_object(id)
            .map_err(|err| self.damaged(&err))?;
        Ok(object.detach().data)
    }

    /// Git's own clients make no such names; a hostile server may.
    fn name<'n>(&self, folder: &str, name: &'n [u8]) -> Result<&'n str, SourceError> {
        let shown = || join(folder, &String::from_utf8_lossy(name));
        match std::str::from_utf8(name) {
            Err(_) => Err(self.bad(&shown(), "names have to be UTF-8")),
            Ok("" | "." | "..") => Err(self.bad(&shown(), "no file may be called so")),
            Ok(text) if text.contains(['/', '\0']) => Err(self.bad(&shown(), "a name holds no '/'")),
            Ok(text) => Ok(text),
        }
    }

    fn bad(&self, path: &str, why: &'static str) -> SourceError {
        SourceError::BadPath {
            commit: self.commit.to_string(),
            path: path.to_owned(),
            why,
        }
    }

    fn damaged(&self, err: &dyn std::error::Error) -> SourceError {
        SourceError::Damaged {
            commit: self.commit.to_string(),
            why: err.to_string(),
        }
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}
