//! What can go wrong in the store.

use model::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refused.
    #[error("cannot {what} {path}", path = path.display())]
    Io {
        /// The action, as a verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("the blob store {} is in use by another process; stop it or choose another folder", dir.display())]
    InUse {
        /// The store's folder.
        dir: PathBuf,
    },
    /// No room, even after everything that nobody needs was removed.
    #[error(
        "no room for {need} bytes: {allowed} bytes may still be written ({limit}); \
         remove workloads or files, or raise the limit"
    )]
    Full {
        /// Bytes asked for.
        need: u64,
        /// Bytes that could be given.
        allowed: u64,
        /// Which limit was met.
        limit: &'static str,
    },
    /// The bytes are not those of the digest.
    #[error("content is {found}, not {wanted}: it was changed or damaged on its way")]
    Corrupt {
        /// What was asked for.
        wanted: Digest,
        /// What the bytes hash to.
        found: Digest,
    },
    /// More or fewer bytes than were declared.
    #[error("{digest} has {found} bytes where {declared} were declared")]
    WrongSize {
        /// The blob.
        digest: Digest,
        /// Bytes declared.
        declared: u64,
        /// Bytes seen; at least so many where it was too long.
        found: u64,
    },
    /// The blob is not there.
    #[error("blob {digest} is not in the store")]
    Absent {
        /// The blob.
        digest: Digest,
    },
    /// Someone else is writing this partial download.
    #[error("{digest} is being downloaded already")]
    Busy {
        /// The blob.
        digest: Digest,
    },
}

impl StoreError {
    /// Whether the error is a full disk or quota: a caller may free something and try again.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Io { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                )
            }
            _ => false,
        }
    }
}

/// Puts the action and the path to an I/O error.
pub(crate) trait At<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|err| StoreError::Io {
            what,
            path: path.to_owned(),
            source: err.into(),
        })
    }
}
