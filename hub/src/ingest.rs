//! Records of a session into the store; what may be acknowledged out of it.

use crate::store::{Batch, Store, StoreError};
use model::DeviceName;
use std::collections::BTreeMap;
use wire::frame::{Ack, Cursor, Records};

/// How far each stream of one session is, by what was stored.
#[derive(Debug, Default)]
pub(crate) struct Progress(BTreeMap<String, Cursor>);

impl Progress {
    /// What the store holds of a device: of each stream, the epoch seen last.
    pub(crate) async fn load(store: &Store, device: &DeviceName) -> Result<Self, StoreError> {
        // In the order of epochs: the last one wins.
        let cursors = store.cursors(device).await?;
        let held = cursors.into_iter().map(|c| {
            (
                c.stream,
                Cursor {
                    epoch: c.epoch,
                    upto: c.upto,
                },
            )
        });
        Ok(Self(held.collect()))
    }

    /// For the welcome.
    pub(crate) fn cursors(&self) -> BTreeMap<String, Cursor> {
        self.0.clone()
    }

    /// Stores a batch and says what may be acknowledged.
    ///
    /// # Errors
    /// Nothing of the batch is stored, or acknowledged, then.
    pub(crate) async fn take(
        &mut self,
        store: &Store,
        device: &DeviceName,
        records: Records,
    ) -> Result<Ack, StoreError> {
        let lost = self.lost(&records);
        // A record that no frame can hold comes as a number alone.
        let told = records.lost.iter().map(|(_, last)| *last).max();
        let last = records.last().max(told.unwrap_or(0));
        let numbered = (records.first..).zip(records.records().iter().cloned()).collect();
        let batch = Batch {
            stream: records.stream.clone(),
            epoch: records.epoch,
            records: numbered,
            lost,
            unused: records.unused.clone(),
        };
        let appended = store.append_records(device, batch).await?;
        if appended.set_aside > 0 {
            tracing::warn!(%device, stream = records.stream, count = appended.set_aside, "records that cannot be read were set aside");
        }
        let cursor = Cursor {
            epoch: records.epoch,
            upto: appended.upto,
        };
        self.0.insert(records.stream.clone(), cursor);
        Ok(Ack {
            stream: records.stream,
            epoch: records.epoch,
            upto: appended.upto,
            ahead: if records.ahead { last } else { 0 },
        })
    }

    /// What will never come: said so, or skipped. A session sends each stream in order from the cursor on, or
    /// says that it does not.
    fn lost(&self, records: &Records) -> Vec<(u64, u64)> {
        let held = self
            .0
            .get(&records.stream)
            .filter(|held| held.epoch == records.epoch);
        let next = held.map_or(1, |held| held.upto.saturating_add(1));
        let mut lost = records.lost.clone();
        if !records.ahead && !records.records().is_empty() && records.first > next {
            lost.push((next, records.first - 1));
        }
        lost
    }
}
