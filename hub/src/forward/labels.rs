//! Where a record is from: labels that are added on the way out, not stored with each sample.

use crate::store::{Store, StoreError};
use model::DeviceName;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// `device`, `class`, `site`, and what the forwarder adds; sorted by name.
pub(super) type Place = Arc<BTreeMap<String, String>>;

/// Places by device, for one batch.
pub(super) struct Places<'a> {
    store: &'a Store,
    added: &'a BTreeMap<String, String>,
    known: HashMap<DeviceName, Place>,
}

impl<'a> Places<'a> {
    pub fn new(store: &'a Store, added: &'a BTreeMap<String, String>) -> Self {
        Self {
            store,
            added,
            known: HashMap::new(),
        }
    }

    pub async fn of(&mut self, device: &DeviceName) -> Result<Place, StoreError> {
        if let Some(place) = self.known.get(device) {
            return Ok(place.clone());
        }
        let mut labels = self.added.clone();
        labels.insert("device".into(), device.to_string());
        // A device that was removed since is still the one that said it.
        if let Some(row) = self.store.device(device).await? {
            labels.insert("class".into(), row.class.to_string());
            labels.insert("site".into(), row.site);
        }
        labels.retain(|_, value| !value.is_empty());
        let place = Arc::new(labels);
        self.known.insert(device.clone(), place.clone());
        Ok(place)
    }
}
