//! Why a layer is refused.

use model::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// Why a layer could not be unpacked. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// An entry that would reach out of the layer, or that no image may hold.
    #[error("layer entry {entry:?} is refused: {why}")]
    Hostile {
        /// Its name in the archive.
        entry: String,
        /// In words.
        why: String,
    },
    /// More bytes than such a layer may have.
    #[error("layer unpacks to more than {limit} bytes, the most for its compressed size; refused as a bomb")]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    /// More entries than a layer may have.
    #[error("layer has more than {limit} entries; refused as a bomb")]
    TooManyEntries {
        /// The most.
        limit: u64,
    },
    /// The disk would be too full.
    #[error("no room to unpack: less than {keep_free} bytes would stay free on the disk of {}", path.display())]
    Full {
        /// Bytes that must stay free.
        keep_free: u64,
        /// Where.
        path: PathBuf,
    },
    /// The archive does not parse, or its compression is broken.
    #[error("layer is not a valid archive")]
    Archive(#[source] io::Error),
    /// The blob on disk is damaged; it was set aside.
    #[error("layer blob is damaged on disk")]
    Damaged(#[source] io::Error),
    /// The content is not what the image configuration says.
    #[error("layer content is {found}, but the image configuration names {wanted}")]
    WrongDiffId {
        /// In the configuration.
        wanted: Digest,
        /// What came out.
        found: Digest,
    },
    /// The disk refused.
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

impl UnpackError {
    /// Whether more room would help.
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

pub(super) trait At<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, UnpackError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, UnpackError> {
        self.map_err(|err| UnpackError::Io {
            what,
            path: path.to_owned(),
            source: err.into(),
        })
    }
}
