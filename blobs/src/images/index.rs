//! Which reference is which manifest: so that tags resolve without a network.

use super::ImageError;
use super::error::io_error;
use super::layers::LayerId;
use model::{Digest, ImageRef, Platform};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    held: File,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    version: u32,
    references: Vec<Reference>,
    /// By manifest.
    images: BTreeMap<Digest, Image>,
}

/// What a reference meant when it was last pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    image: ImageRef,
    platform: Platform,
    /// What the reference itself names: an index, or the manifest.
    top: Digest,
    manifest: Digest,
}

/// What an image consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Image {
    pub config: Digest,
    /// Bottom first.
    pub layers: Vec<LayerId>,
}

impl Index {
    pub fn load(dir: &Path) -> Result<Self, ImageError> {
        let path = dir.join("images.json");
        let held = match read(&path)? {
            Some(held) => held,
            // Damaged, or never written: everything in it could be had again, but not without a network.
            None => read(&second(&path))?.unwrap_or_default(),
        };
        Ok(Self { path, held })
    }

    /// The manifest that a reference stands for.
    pub fn find(&self, image: &ImageRef, platform: &Platform) -> Option<Digest> {
        let fits = |held: &&Reference| {
            held.platform == *platform
                && match &image.digest {
                    Some(digest) => held.top == *digest || held.manifest == *digest,
                    None => held.image == *image,
                }
        };
        self.held.references.iter().find(fits).map(|held| held.manifest)
    }

    pub fn config_of(&self, manifest: &Digest) -> Option<Digest> {
        self.held.images.get(manifest).map(|image| image.config)
    }

    pub fn images(&self) -> &BTreeMap<Digest, Image> {
        &self.held.images
    }

    /// Remembers what was pulled, durably.
    pub fn record(
        &mut self,
        image: &ImageRef,
        platform: &Platform,
        top: Digest,
        manifest: Digest,
        parts: Image,
    ) -> Result<(), ImageError> {
        let mut new = self.held.clone();
        new.version = 1;
        new.references
            .retain(|held| held.image != *image || held.platform != *platform);
        new.references.push(Reference {
            image: image.clone(),
            platform: platform.clone(),
            top,
            manifest,
        });
        new.images.insert(manifest, parts);
        self.save(new)
    }

    /// Forgets images and the references to them, durably.
    pub fn forget(&mut self, gone: &[Digest]) -> Result<(), ImageError> {
        let mut new = self.held.clone();
        new.references.retain(|held| !gone.contains(&held.manifest));
        new.images.retain(|manifest, _| !gone.contains(manifest));
        self.save(new)
    }

    fn save(&mut self, new: File) -> Result<(), ImageError> {
        if new == self.held {
            return Ok(());
        }
        for path in [self.path.clone(), second(&self.path)] {
            let write = || kit::disk::replace(&path, &serde_json::to_vec_pretty(&new)?);
            write().map_err(|err| io_error("write", &path, err))?;
        }
        self.held = new;
        Ok(())
    }
}

/// Where the list lies a second time, for when the first is damaged.
fn second(path: &Path) -> PathBuf {
    path.with_extension("second.json")
}

/// The list; `None` where it is absent or damaged.
fn read(path: &Path) -> Result<Option<File>, ImageError> {
    let bytes = kit::disk::read_if_there(path).map_err(|err| io_error("read", path, err))?;
    let parsed = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
    Ok(parsed.unwrap_or_else(|err| {
        tracing::error!(path = %path.display(), error = %err, "list of images is damaged");
        None
    }))
}
