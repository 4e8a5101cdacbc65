//! Unpacked layers by chain id (image-spec, `config.md`, "Layer ChainID").

use super::error::io_error;
use super::{ImageError, Images};
use crate::registries::blocking;
use crate::unpack::{UnpackError, unpack};
use model::{Digest, ImageRef};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, Weak};

/// Up to so many files are synced one by one; beyond that, one sync of the whole file system, which also waits for
/// everyone else's writes, is the quicker way.
const FEW_ENTRIES: u64 = 64;

/// The first 16 digits of a chain id: short for mount options, and enough that two never meet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct LayerId(String);

impl LayerId {
    fn of(chain: &Digest) -> Self {
        let mut text = chain.hex();
        text.truncate(16);
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The layers' ids, bottom first.
pub(super) fn chain(diff_ids: &[Digest]) -> Vec<LayerId> {
    let mut below: Option<Digest> = None;
    let ids = diff_ids.iter().map(|diff| {
        let chain = match below {
            None => *diff,
            Some(below) => Digest::of(format!("{below} {diff}").as_bytes()),
        };
        below = Some(chain);
        LayerId::of(&chain)
    });
    ids.collect()
}

/// Makes the folders and removes what a power cut left half done.
pub(super) fn prepare(dir: &Path) -> Result<(), ImageError> {
    let layers = dir.join("layers");
    kit::disk::create_dir_all(&layers).map_err(|err| io_error("make folder", &layers, err))?;
    let tmp = dir.join("tmp");
    if tmp.exists() {
        fs::remove_dir_all(&tmp).map_err(|err| io_error("remove", &tmp, err))?;
    }
    kit::disk::create_dir_all(&tmp).map_err(|err| io_error("make folder", &tmp, err))
}

/// One layer to be made.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub number: usize,
    pub blob: Digest,
    pub blob_size: u64,
    pub diff_id: Digest,
    pub id: LayerId,
    /// Ids of the layers below, bottom first.
    pub below: Vec<LayerId>,
}

impl Images {
    pub(super) fn layer_path(&self, id: &LayerId) -> PathBuf {
        self.0.dir.join("layers").join(id.as_str())
    }

    pub(super) fn has_layer(&self, id: &LayerId) -> bool {
        self.layer_path(id).is_dir()
    }

    /// Unpacks a layer whose blob is in the store, unless it is there already.
    pub(super) async fn unpack_layer(&self, image: &ImageRef, task: Task) -> Result<(), ImageError> {
        let turn = self.layer_turn(&task.id).lock_owned().await;
        let images = self.clone();
        let image = image.to_string();
        blocking(move || {
            // Held until the end, even where nobody waits for it any more.
            let _turn = turn;
            images.unpack_now(&image, &task)
        })
        .await
    }

    fn unpack_now(&self, image: &str, task: &Task) -> Result<(), ImageError> {
        if self.has_layer(&task.id) {
            return Ok(());
        }
        let bad = |source| ImageError::Layer {
            image: image.to_owned(),
            layer: task.number,
            source,
        };
        let Some(blob) = self.0.store.open_blob(&task.blob)? else {
            let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(bad(UnpackError::Damaged(gone)));
        };
        let temporary = self.0.dir.join("tmp").join(task.id.as_str());
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(|err| io_error("remove", &temporary, err))?;
        }
        let below: Vec<_> = task.below.iter().rev().map(|id| self.layer_path(id)).collect();
        let diff_id = Some(&task.diff_id);
        let unpacked =
            unpack(blob, task.blob_size, diff_id, &temporary, &below, &self.0.options).map_err(bad)?;
        // All of it is on disk before it gets its name.
        if unpacked.entries <= FEW_ENTRIES {
            sync_each(&temporary)
        } else {
            fs::File::open(&temporary).and_then(|folder| Ok(rustix::fs::syncfs(&folder)?))
        }
        .map_err(|err| io_error("sync", &temporary, err))?;
        let path = self.layer_path(&task.id);
        kit::disk::rename(&temporary, &path).map_err(|err| io_error("rename into", &path, err))
    }

    fn layer_turn(&self, id: &LayerId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        turns.get(id).and_then(Weak::upgrade).unwrap_or_else(|| {
            let lock = Arc::new(tokio::sync::Mutex::new(()));
            turns.insert(id.clone(), Arc::downgrade(&lock));
            lock
        })
    }
}

/// Syncs every file and folder below `dir`, and `dir` itself. Links and special files lie in their folders.
fn sync_each(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_each(&entry.path())?;
        } else if kind.is_file() {
            fs::File::open(entry.path())?.sync_all()?;
        }
    }
    kit::disk::sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_spec() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let ids = chain(&[a, b, a]);
        assert_eq!(ids[0].as_str(), &a.hex()[..16]);
        let ab = Digest::of(format!("{a} {b}").as_bytes());
        assert_eq!(ids[1].as_str(), &ab.hex()[..16]);
        assert_ne!(ids[0], ids[2], "the same layer on others is another");
    }
}
