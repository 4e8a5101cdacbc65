//! Giving up what nobody uses.

use super::error::io_error;
use super::{ImageError, Images, PIN_PREFIX};
use model::Digest;
use std::collections::BTreeSet;
use std::fs;
use std::sync::PoisonError;
use std::time::Duration;

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImagesCollected {
    /// Images forgotten.
    pub images: usize,
    /// Unpacked layers removed.
    pub layers: usize,
}

impl Images {
    /// Removes the images that nobody pins and nobody asked for within `grace`, and layers that no image has.
    /// Their blobs go when the store needs room.
    ///
    /// Blocks. A layer in use by a mount must be pinned.
    pub fn collect(&self, grace: Duration) -> Result<ImagesCollected, ImageError> {
        if !self.0.store.knows_its_pins() {
            return Ok(ImagesCollected::default());
        }
        let pinned = self.pinned();
        // Nobody pulls a layer in while we look which are wanted.
        let mut index = self.index();
        let gone: Vec<_> = {
            let used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
            let old = |manifest: &Digest| {
                let last = used.get(manifest).copied().unwrap_or(self.0.started);
                last.elapsed() >= grace
            };
            let unpinned = index
                .images()
                .keys()
                .filter(|manifest| !pinned.contains(manifest));
            unpinned.filter(|manifest| old(manifest)).copied().collect()
        };
        index.forget(&gone)?;
        let pulling = self
            .0
            .pulling
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let wanted: BTreeSet<_> = index
            .images()
            .values()
            .flat_map(|image| &image.layers)
            .chain(&pulling)
            .map(|id| id.as_str().to_owned())
            .collect();
        let mut collected = ImagesCollected {
            images: gone.len(),
            layers: 0,
        };
        let dir = self.layers_dir();
        for entry in fs::read_dir(&dir).map_err(|err| io_error("read folder", &dir, err))? {
            let entry = entry.map_err(|err| io_error("read folder", &dir, err))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if wanted.contains(&name) {
                continue;
            }
            let (from, to) = (entry.path(), self.0.dir.join("tmp").join(format!("gone-{name}")));
            // Out of its name first: half a layer must never be taken for a whole one.
            kit::disk::rename(&from, &to).map_err(|err| io_error("move away", &from, err))?;
            fs::remove_dir_all(&to).map_err(|err| io_error("remove", &to, err))?;
            collected.layers += 1;
        }
        Ok(collected)
    }

    fn pinned(&self) -> BTreeSet<Digest> {
        let store = &self.0.store;
        let owners = store.owners();
        let ours = owners.iter().filter(|owner| owner.starts_with(PIN_PREFIX));
        ours.flat_map(|owner| store.pins(owner))
            .map(|(digest, _)| digest)
            .collect()
    }
}
