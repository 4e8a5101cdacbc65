//! Who keeps what: pins survive restarts and power cuts.

use super::error::At as _;
use super::{Store, StoreError, read_dir};
use model::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How far a pin reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Keep {
    /// The blob alone.
    Alone,
    /// The blob and, where it is an OCI manifest or index, all that it names.
    Whole,
}

#[derive(Debug, Serialize, Deserialize)]
struct PinFile {
    owner: String,
    pins: BTreeMap<Digest, Keep>,
}

impl Store {
    /// Keeps a blob, present already or not, until its owner lets go of it.
    pub fn pin(&self, owner: &str, digest: &Digest, keep: Keep) -> Result<(), StoreError> {
        self.pin_all(owner, [(*digest, keep)])
    }

    /// [`Store::pin`] for several at once, in one write.
    pub fn pin_all(
        &self,
        owner: &str,
        new: impl IntoIterator<Item = (Digest, Keep)>,
    ) -> Result<(), StoreError> {
        self.change_pins(owner, |pins| pins.extend(new))
    }

    /// Lets go of one blob; one that was not pinned is no error.
    pub fn unpin(&self, owner: &str, digest: &Digest) -> Result<(), StoreError> {
        self.change_pins(owner, |pins| {
            pins.remove(digest);
        })
    }

    /// Makes `pins` all that the owner keeps; an empty list lets go of everything.
    pub fn set_pins(
        &self,
        owner: &str,
        pins: impl IntoIterator<Item = (Digest, Keep)>,
    ) -> Result<(), StoreError> {
        let new: BTreeMap<_, _> = pins.into_iter().collect();
        self.change_pins(owner, |pins| *pins = new)
    }

    /// What an owner keeps.
    pub fn pins(&self, owner: &str) -> Vec<(Digest, Keep)> {
        let state = self.state();
        let pins = state.pins.get(owner).into_iter().flatten();
        pins.map(|(digest, keep)| (*digest, *keep)).collect()
    }

    /// All owners that keep something.
    pub fn owners(&self) -> Vec<String> {
        self.state().pins.keys().cloned().collect()
    }

    fn change_pins(
        &self,
        owner: &str,
        change: impl FnOnce(&mut BTreeMap<Digest, Keep>),
    ) -> Result<(), StoreError> {
        // An owner's name may hold anything; its digest is a safe file name.
        let path = self
            .0
            .dir
            .join("pins")
            .join(format!("{}.json", Digest::of(owner.as_bytes()).hex()));
        let mut state = self.state();
        let old = state.pins.get(owner).cloned().unwrap_or_default();
        let mut pins = old.clone();
        change(&mut pins);
        let damaged = state.damaged_pins.contains(&path);
        if pins == old && !damaged {
            return Ok(());
        }
        if pins.is_empty() {
            kit::disk::remove_if_there(&path).at("remove", &path)?;
            state.pins.remove(owner);
        } else {
            let file = PinFile {
                owner: owner.to_owned(),
                pins,
            };
            let json = serde_json::to_vec(&file)
                .map_err(std::io::Error::from)
                .at("encode", &path)?;
            kit::disk::replace(&path, &json).at("write", &path)?;
            state.pins.insert(file.owner, file.pins);
        }
        state.damaged_pins.remove(&path);
        Ok(())
    }

    /// Whether it is known what everyone keeps. It is not while a pin file is damaged; until its owner says anew what
    /// it keeps, nothing is collected.
    pub fn knows_its_pins(&self) -> bool {
        self.state().damaged_pins.is_empty()
    }
}

/// Pins by owner, and the files that do not parse.
type Loaded = (BTreeMap<String, BTreeMap<Digest, Keep>>, BTreeSet<PathBuf>);

/// All pin files.
pub(super) fn load(dir: &Path) -> Result<Loaded, StoreError> {
    let mut pins = BTreeMap::new();
    let mut damaged = BTreeSet::new();
    for entry in read_dir(dir)? {
        if !entry.name.ends_with(".json") {
            kit::disk::remove_if_there(&entry.path).at("remove", &entry.path)?;
            continue;
        }
        let bytes = std::fs::read(&entry.path).at("read", &entry.path)?;
        match serde_json::from_slice::<PinFile>(&bytes) {
            Ok(file) => {
                pins.insert(file.owner, file.pins);
            }
            Err(err) => {
                tracing::error!(path = %entry.path.display(), error = %err, "pins are damaged; nothing is collected");
                damaged.insert(entry.path);
            }
        }
    }
    Ok((pins, damaged))
}
