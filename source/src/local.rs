//! A person's own clone: any commit of it, read without touching its work tree.

use crate::error::disk;
use crate::repository::Store;
use crate::{Limits, SourceError, files};
use gix::ObjectId;
use model::{Revision, Tree};
use std::path::{Path, PathBuf};

/// A repository on this machine.
pub struct LocalRepository {
    store: Store,
    path: PathBuf,
}

impl std::fmt::Debug for LocalRepository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalRepository")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl LocalRepository {
    /// The repository that `dir` lies in.
    pub fn discover(dir: &Path) -> Result<Self, SourceError> {
        let dir = dir.canonicalize().map_err(disk("read", dir))?;
        let repo = gix::discover(&dir).map_err(|err| SourceError::NotFound {
            url: dir.display().to_string(),
            why: format!("no Git repository: {}", crate::transport::chain(&err)),
        })?;
        Ok(Self {
            path: repo.workdir().unwrap_or_else(|| repo.git_dir()).to_owned(),
            store: Store { repo },
        })
    }

    /// Its work tree, or the folder of a bare repository.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The addresses of the repositories that it was cloned from.
    pub fn remotes(&self) -> Vec<String> {
        let repo = &self.store.repo;
        let names = repo.remote_names();
        let found = names.iter().filter_map(|name| repo.find_remote(&**name).ok());
        let url = |remote: gix::Remote<'_>| {
            remote
                .url(gix::remote::Direction::Fetch)
                .map(|url| url.to_bstring().to_string())
        };
        found.filter_map(url).collect()
    }

    /// The commit that a word names: a branch, a tag, `HEAD`, a commit id or its first digits, with `~2` or `^`
    /// behind for its ancestors.
    pub fn revision(&self, text: &str) -> Result<Revision, SourceError> {
        let end = text.find(['~', '^']).unwrap_or(text.len());
        let (base, steps) = text.split_at(end);
        let mut id = self.commit(base).ok_or_else(|| self.unknown(text))?;
        for (back, parent) in ancestors(steps).ok_or_else(|| self.unknown(text))? {
            for _ in 0..back {
                let parents = self.store.parents(id).unwrap_or_default();
                id = *parents.get(parent).ok_or_else(|| self.unknown(text))?;
            }
        }
        let reference = if steps.is_empty() && !id.to_string().starts_with(base) {
            base
        } else {
            ""
        };
        self.store.revision(id, reference)
    }

    /// The files of a commit, less what `.sourceignore` leaves out.
    pub fn tree(&self, revision: &Revision) -> Result<Tree, SourceError> {
        let id =
            ObjectId::from_hex(revision.commit.as_bytes()).map_err(|_| self.unknown(&revision.commit))?;
        files::read(&self.store, id, &[], None, &Limits::default()).map(|(tree, _)| tree)
    }

    fn commit(&self, base: &str) -> Option<ObjectId> {
        let repo = &self.store.repo;
        if base == "HEAD" || base == "@" || base.is_empty() {
            return repo.head_id().ok().map(|id| id.detach());
        }
        if let Ok(reference) = repo.find_reference(base) {
            return reference.into_fully_peeled_id().ok().map(|id| id.detach());
        }
        let prefix = gix::hash::Prefix::from_hex(base).ok()?;
        repo.objects.lookup_prefix(prefix, None).ok()??.ok()
    }

    fn unknown(&self, text: &str) -> SourceError {
        let there = self.store.repo.references();
        let branches = there.as_ref().ok().and_then(|all| all.local_branches().ok());
        let names = branches.into_iter().flatten().filter_map(Result::ok);
        SourceError::UnknownReference {
            url: self.path.display().to_string(),
            kind: "revision",
            reference: text.to_owned(),
            there: names
                .take(10)
                .map(|branch| branch.name().shorten().to_string())
                .collect(),
        }
    }
}

/// `~2^` as steps: how many times, and to which parent.
fn ancestors(steps: &str) -> Option<Vec<(usize, usize)>> {
    let mut found = Vec::new();
    let mut rest = steps;
    while let Some(mark) = rest.chars().next() {
        let digits = rest[1..]
            .find(|c: char| !c.is_ascii_digit())
            .map_or(rest.len(), |at| at + 1);
        let number = match &rest[1..digits] {
            "" => 1,
            text => text.parse().ok()?,
        };
        found.push(match (mark, number) {
            ('~', back) => (back, 0),
            ('^', 0) => (0, 0),
            ('^', parent) => (1, parent - 1),
            _ => return None,
        });
        rest = &rest[digits..];
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::ancestors;

    #[test]
    fn ancestors_are_counted_as_git_does() {
        assert_eq!(ancestors("~2^"), Some(vec![(2, 0), (1, 0)]));
        assert_eq!(ancestors("^2~"), Some(vec![(1, 1), (1, 0)]));
        assert_eq!(ancestors("^0"), Some(vec![(0, 0)]));
        assert_eq!(ancestors("~x"), None);
        assert_eq!(ancestors(""), Some(vec![]));
    }
}
