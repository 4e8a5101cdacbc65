//! Local images: pulled once, unpacked once, served without a network.
//!
//! ```text
//! images[.second].json    which reference is which manifest, and its layers; twice
//! layers/<id>/            one unpacked layer, ready as a lowerdir; the id is short: mount options are limited
//! layers/<id>.json        what it is
//! tmp/                    emptied at each start
//! ```
//! A layer's folder is whole as soon as it has its name. Compressed layers stay in the blob store only as long as
//! there is room: an unpacked layer does not need them.

mod collect;
mod error;
mod index;
mod layers;
mod pull;

pub use collect::ImagesCollected;
pub use error::ImageError;

use crate::oci::{self, ConfigFile, ImageConfig};
use crate::registries::{DockerConfig, Persist, Progress, Registries, blocking};
use crate::unpack::UnpackOptions;
use crate::{Keep, Store};
use index::Index;
use layers::LayerId;
use model::{Digest, ImageRef, Platform, PullPolicy};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

/// An image that is here, ready to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalImage {
    /// Digest of the manifest for this platform.
    pub manifest: Digest,
    /// How it wants to be run.
    pub config: ImageConfig,
    /// Unpacked layers, bottom first: overlayfs takes them the other way round. All lie side by side in one folder
    /// and have short names, so that a mount from inside that folder fits many of them.
    pub layers: Vec<PathBuf>,
}

/// The images of one machine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Images(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    store: Store,
    registries: Registries,
    options: UnpackOptions,
    index: Mutex<Index>,
    /// When an image was last asked for, since the start.
    used: Mutex<BTreeMap<Digest, Instant>>,
    started: Instant,
    /// Registries that could not be reached lately, and when that was found.
    away: Mutex<BTreeMap<String, Instant>>,
    /// Layers that pulls are making, one entry for each pull.
    pulling: Mutex<Vec<LayerId>>,
    /// One at a time unpacks a layer.
    turns: Mutex<BTreeMap<LayerId, Weak<tokio::sync::Mutex<()>>>>,
}

impl Images {
    /// Opens or creates the images in `dir`, whose blobs are in `store`, and cleans up what a power cut left.
    ///
    /// Blocks.
    pub fn open(
        dir: &Path,
        store: Store,
        registries: Registries,
        options: UnpackOptions,
    ) -> Result<Self, ImageError> {
        layers::prepare(dir)?;
        let index = Index::load(dir)?;
        Ok(Self(Arc::new(Inner {
            dir: dir.to_owned(),
            store,
            registries,
            options,
            index: Mutex::new(index),
            used: Mutex::default(),
            started: Instant::now(),
            away: Mutex::default(),
            pulling: Mutex::default(),
            turns: Mutex::default(),
        })))
    }

    /// Makes sure that the image is here, and says where. What is present serves without a network: at
    /// [`PullPolicy::Always`] too, when the registry cannot be reached within seconds, or refuses us.
    pub async fn ensure(
        &self,
        image: &ImageRef,
        platform: &Platform,
        policy: PullPolicy,
        progress: Progress,
    ) -> Result<LocalImage, ImageError> {
        self.ensure_as(image, platform, policy, &DockerConfig::default(), progress)
            .await
    }

    /// [`Images::ensure`] with the credentials of a pod's `imagePullSecrets`.
    pub async fn ensure_as(
        &self,
        image: &ImageRef,
        platform: &Platform,
        policy: PullPolicy,
        secrets: &DockerConfig,
        progress: Progress,
    ) -> Result<LocalImage, ImageError> {
        let held = self.local(image, platform).await?;
        match (policy, held) {
            (PullPolicy::Never, None) => Err(ImageError::NotPresent {
                image: image.to_string(),
            }),
            (PullPolicy::Never | PullPolicy::IfNotPresent, Some(held)) => Ok(held),
            // A digest names the same content for ever.
            (PullPolicy::Always, Some(held)) if image.digest.is_some() => Ok(held),
            (PullPolicy::Always, Some(held)) => self.refresh(image, platform, secrets, progress, held).await,
            (PullPolicy::IfNotPresent | PullPolicy::Always, None) => {
                self.pull(image, platform, secrets, progress, Persist::AsConfigured)
                    .await
            }
        }
    }

    /// The image, where all of it is here.
    pub async fn local(
        &self,
        image: &ImageRef,
        platform: &Platform,
    ) -> Result<Option<LocalImage>, ImageError> {
        let Some(manifest) = self.index().find(image, platform) else {
            return Ok(None);
        };
        let images = self.clone();
        blocking(move || images.load(&manifest)).await
    }

    /// Keeps an image, and its layers, from being collected until `owner` lets go. An owner may keep several.
    ///
    /// Blocks for a moment.
    pub fn pin(&self, owner: &str, image: &LocalImage) -> Result<(), ImageError> {
        let config = self.index().config_of(&image.manifest);
        let both = config
            .into_iter()
            .chain([image.manifest])
            .map(|digest| (digest, Keep::Alone));
        Ok(self.0.store.pin_all(&pin_owner(owner), both)?)
    }

    /// Makes the images with these manifests all that `owner` keeps.
    ///
    /// Blocks for a moment.
    pub fn pin_only(&self, owner: &str, manifests: &[Digest]) -> Result<(), ImageError> {
        let mut pins = Vec::new();
        for manifest in manifests {
            let config = self.index().config_of(manifest);
            pins.extend(
                config
                    .into_iter()
                    .chain([*manifest])
                    .map(|digest| (digest, Keep::Alone)),
            );
        }
        Ok(self.0.store.set_pins(&pin_owner(owner), pins)?)
    }

    /// Lets go of all that `owner` kept.
    pub fn unpin(&self, owner: &str) -> Result<(), ImageError> {
        Ok(self.0.store.set_pins(&pin_owner(owner), [])?)
    }

    /// Everything that [`Images::pin`] was called for and not [`Images::unpin`]: for an engine that comes back after
    /// a power cut.
    pub fn owners(&self) -> Vec<String> {
        let owners = self.0.store.owners();
        owners
            .iter()
            .filter_map(|owner| owner.strip_prefix(PIN_PREFIX))
            .map(str::to_owned)
            .collect()
    }

    /// The folder that all layers lie in: a mount from here can name them by their last part alone.
    pub fn layers_dir(&self) -> PathBuf {
        self.0.dir.join("layers")
    }

    fn index(&self) -> std::sync::MutexGuard<'_, Index> {
        self.0.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads an image's documents back; `None` where anything of it is missing or damaged.
    fn load(&self, manifest: &Digest) -> Result<Option<LocalImage>, ImageError> {
        let store = &self.0.store;
        let Some(bytes) = store.read(manifest, oci::MAX_MANIFEST_BYTES)? else {
            return Ok(None);
        };
        let Ok(document) = serde_json::from_slice::<oci::Manifest>(&bytes) else {
            return Ok(None);
        };
        let Some(bytes) = store.read(&document.config.digest, oci::MAX_MANIFEST_BYTES)? else {
            return Ok(None);
        };
        let Ok(config) = serde_json::from_slice::<ConfigFile>(&bytes) else {
            return Ok(None);
        };
        let ids = layers::chain(&config.rootfs.diff_ids);
        if !ids.iter().all(|id| self.has_layer(id)) {
            return Ok(None);
        }
        let mut used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(*manifest, Instant::now());
        drop(used);
        Ok(Some(LocalImage {
            manifest: *manifest,
            config: config.config,
            layers: ids.iter().map(|id| self.layer_path(id)).collect(),
        }))
    }
}

const PIN_PREFIX: &str = "image:";

fn pin_owner(owner: &str) -> String {
    format!("{PIN_PREFIX}{owner}")
}
