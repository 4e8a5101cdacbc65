//! Why an image cannot be built.

use super::BadElf;
use crate::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// Why an image cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A path that is none in an image.
    #[error("path {path:?} in the image must name something below its root, without '..'")]
    BadPath {
        /// As given.
        path: String,
    },
    /// Two things at one place.
    #[error("/{path} is put into the image twice; remove one of them")]
    Twice {
        /// In the image.
        path: String,
    },
    /// A program for another machine.
    #[error("{path} is a program for {found}, but the image is for {wanted}; build it for that target")]
    WrongArchitecture {
        /// In the image.
        path: String,
        /// What it is for.
        found: String,
        /// What the image is for.
        wanted: String,
    },
    /// A program that could not start.
    #[error(
        "{path} is linked dynamically and needs {loader}, which is not in the image; link it statically \
         (with Rust: a -musl target), or put its loader and libraries into the image"
    )]
    Dynamic {
        /// In the image.
        path: String,
        /// The dynamic loader.
        loader: String,
    },
    /// The entrypoint is not there.
    #[error("the image starts {path}, which it does not hold; add the file or correct the entrypoint")]
    NoProgram {
        /// In the image.
        path: String,
    },
    /// The entrypoint cannot be started.
    #[error("the image starts {path}, which has no execute permission; give it mode 755")]
    NotExecutable {
        /// In the image.
        path: String,
    },
    /// Two images for one platform in an index.
    #[error("two images for {platform} in one index; give one for each platform")]
    SamePlatform {
        /// Which.
        platform: String,
    },
    /// A program whose header makes no sense.
    #[error("{path} begins like a program but is broken")]
    Elf {
        /// In the image.
        path: String,
        /// How.
        #[source]
        source: BadElf,
    },
    /// A folder that is no OCI image layout, or lacks the image.
    #[error("{} is not an OCI image layout with {what}", path.display())]
    Layout {
        /// The folder.
        path: PathBuf,
        /// What was looked for.
        what: String,
    },
    /// The blob store.
    #[error(transparent)]
    Store(#[from] crate::StoreError),
    /// A file that cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The action, as a verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

pub(super) trait At<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, BuildError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, BuildError> {
        self.map_err(|source| BuildError::Io {
            what,
            path: path.to_owned(),
            source,
        })
    }
}

impl BuildError {
    pub(super) fn absent(digest: model::Digest) -> Self {
        Self::Store(StoreError::Absent { digest })
    }
}
