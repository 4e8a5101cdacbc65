//! Where files come from: the renderer asks, and whoever calls it answers from memory, a disk, or what was fetched.

use crate::error::{Problem, RenderError, Result};
use crate::flux::{FluxSource, Sourced};
use crate::repository::Repository;
use bytes::Bytes;
use model::{Tree, TreeEntry};
use std::fmt::Debug;
use std::rc::Rc;

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, with its target as written.
    Link(String),
}

/// Files by their path from a root: `/`-separated, no leading slash, no `.` or `..`; the root is the empty path.
pub trait Files: Debug {
    /// What lies at `path`; a link is not followed.
    ///
    /// # Errors
    /// Where it cannot be told, as on a disk that fails ([`RenderError::cannot_read`]).
    fn look(&self, path: &str) -> Result<Option<Entry>>;

    /// The bytes of a path that is a [`Entry::File`].
    ///
    /// # Errors
    /// As [`Files::look`], and where there is no file.
    fn read(&self, path: &str) -> Result<Bytes>;

    /// Whether the root is that of a file system, so that a path that begins with a slash means one of these files.
    fn is_file_system(&self) -> bool {
        false
    }
}

impl Files for Tree {
    fn look(&self, path: &str) -> Result<Option<Entry>> {
        Ok(match self.get(path) {
            Some(TreeEntry::File { .. }) => Some(Entry::File),
            Some(TreeEntry::Link(target)) => Some(Entry::Link(target.clone())),
            None if self.is_dir(path) => Some(Entry::Folder),
            None => None,
        })
    }

    fn read(&self, path: &str) -> Result<Bytes> {
        Tree::read(self, path)
            .cloned()
            .ok_or_else(|| RenderError::new(Problem::NotFound, format!("there is no file {path:?}")))
    }
}

impl<T: Files + ?Sized> Files for &T {
    fn look(&self, path: &str) -> Result<Option<Entry>> {
        (**self).look(path)
    }

    fn read(&self, path: &str) -> Result<Bytes> {
        (**self).read(path)
    }

    fn is_file_system(&self) -> bool {
        (**self).is_file_system()
    }
}

/// What kustomizations name by an address instead of a path.
///
/// Whoever answers decides what an address means now, and remembers it, so that the same question has one answer
/// within a build and, where it is pinned, for ever.
pub trait Remotes: Debug {
    /// The body that an `http://` or `https://` address gives.
    ///
    /// # Errors
    /// [`RenderError::unreachable`] where it cannot be had.
    fn file(&self, url: &str) -> Result<Bytes>;

    /// The files of a repository at the reference it names, or at its default branch.
    ///
    /// # Errors
    /// [`RenderError::unreachable`] where it cannot be had.
    fn repository(&self, repository: &Repository) -> Result<Rc<dyn Files>>;

    /// The files of a source that a `Kustomization` names.
    ///
    /// # Errors
    /// [`RenderError::unreachable`] where it cannot be had, and [`RenderError::unsupported`] where it asks for what
    /// whoever answers does not do.
    fn source(&self, source: &FluxSource) -> Result<Sourced>;
}

/// Refuses every address: nothing but the given files is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRemotes;

impl NoRemotes {
    fn refuse<T>(address: &str) -> Result<T> {
        Err(RenderError::new(
            Problem::Unsupported,
            format!("{address} is remote, and rendering reads nothing but the repository here"),
        )
        .remedy("copy what it points at into the repository"))
    }
}

impl Remotes for NoRemotes {
    fn file(&self, url: &str) -> Result<Bytes> {
        Self::refuse(url)
    }

    fn repository(&self, repository: &Repository) -> Result<Rc<dyn Files>> {
        Self::refuse(&repository.raw)
    }

    fn source(&self, source: &FluxSource) -> Result<Sourced> {
        // Nothing tells its address from that of the repository here; the only one is most likely that.
        Ok(match source.alone {
            true => Sourced::Own,
            false => Sourced::NotAsked,
        })
    }
}
