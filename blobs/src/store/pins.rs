//! Who keeps what: pins survive restarts and power cuts.

use super::error::At as _;
use super::{Store, StoreError, read_dir};
use model::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

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
        let mut state = self.state();
        let old = state.pins.get(owner).cloned().unwrap_or_default();
        let mut pins = old.clone();
        change(&mut pins);
        if pins == old {
            return Ok(());
        }
        // An owner's name may hold anything; its digest is a safe file name.
        let path = self
            .0
            .dir
            .join("pins")
            .join(format!("{}.json", Digest::of(owner.as_bytes()).hex()));
        if pins.is_empty() {
            kit::disk::remove_if_there(&path).at("remove", &path)?;
            state.pins.remove(owner);
            return Ok(());
        }
        let file = PinFile {
            owner: owner.to_owned(),
            pins,
        };
        let json = serde_json::to_vec(&file)
            .map_err(std::io::Error::from)
            .at("encode", &path)?;
        kit::disk::replace(&path, &json).at("write", &path)?;
        state.pins.insert(file.owner, file.pins);
        Ok(())
    }
}

/// All pin files. One that does not parse stops the start: guessing would collect what someone needs.
pub(super) fn load(dir: &Path) -> Result<BTreeMap<String, BTreeMap<Digest, Keep>>, StoreError> {
    let mut pins = BTreeMap::new();
    for entry in read_dir(dir)? {
        if !entry.name.ends_with(".json") {
            kit::disk::remove_if_there(&entry.path).at("remove", &entry.path)?;
            continue;
        }
        let bytes = std::fs::read(&entry.path).at("read", &entry.path)?;
        let file: PinFile = serde_json::from_slice(&bytes)
            .map_err(std::io::Error::from)
            .at("understand", &entry.path)?;
        pins.insert(file.owner, file.pins);
    }
    Ok(pins)
}
