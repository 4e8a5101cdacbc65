//! Why an image is not to be had.

use crate::registries::RegistryError;
use crate::store::StoreError;
use crate::unpack::UnpackError;
use model::Platform;
use std::io;
use std::path::PathBuf;

/// Why an image is not here.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not pulled, and pulling is not allowed.
    #[error("image {image} is not present, and its imagePullPolicy is Never; pull it first or allow pulling")]
    NotPresent {
        /// The image.
        image: String,
    },
    /// The registry.
    #[error("cannot pull {image}")]
    Registry {
        /// The image.
        image: String,
        /// What it said.
        #[source]
        source: Box<RegistryError>,
    },
    /// An image without index that is for another machine.
    #[error(
        "{image} is for {offered} only, and this machine is {wanted}; build it for this platform, or choose another"
    )]
    WrongPlatform {
        /// The image.
        image: String,
        /// This machine.
        wanted: Box<Platform>,
        /// What the image is for.
        offered: Box<Platform>,
    },
    /// A layer.
    #[error("cannot unpack layer {layer} of {image}")]
    Layer {
        /// The image.
        image: String,
        /// Which, counted from 1 at the bottom.
        layer: usize,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// Documents that no image may have.
    #[error("{image} is not an image that can be run: {why}")]
    NotAnImage {
        /// The image.
        image: String,
        /// In words.
        why: String,
    },
    /// The blob store.
    #[error(transparent)]
    Store(#[from] StoreError),
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

impl ImageError {
    /// Whether the same call may succeed later by itself: the registry was away, or the disk was full.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Registry { source, .. } => source.is_transient() || self.is_full(),
            _ => self.is_full(),
        }
    }

    /// Whether more room would help.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Registry { source, .. } => matches!(&**source, RegistryError::Store(err) if err.is_full()),
            Self::Store(err) => err.is_full(),
            Self::Layer { source, .. } => source.is_full(),
            _ => false,
        }
    }
}

pub(super) fn io_error(
    what: &'static str,
    path: &std::path::Path,
    source: impl Into<io::Error>,
) -> ImageError {
    ImageError::Io {
        what,
        path: path.to_owned(),
        source: source.into(),
    }
}
