//! Records of one kind of source into the spool, and their places out of it again.

use super::PERIOD;
use crate::uplink;
use spool::{AppendError, Spool, Stream};
use std::collections::{BTreeMap, BTreeSet};
use telemetry::logs::Batch;

/// The way into the spool of sources whose places have a prefix of their own.
#[derive(Debug, Clone)]
pub(super) struct Intake {
    spool: Spool,
    stream: Stream,
    prefix: &'static str,
    /// Places that the spool keeps for us, with the last record of each.
    taken: BTreeMap<String, u64>,
    /// The last record of all, and the last one at [`Intake::secure`].
    last: u64,
    due: u64,
}

impl Intake {
    /// What an earlier process took is known.
    pub(super) fn new(spool: Spool, stream: Stream, prefix: &'static str) -> Self {
        let before = spool.positions().into_keys();
        let taken = before
            .filter(|place| place.starts_with(prefix))
            .map(|place| (place, 0))
            .collect();
        Self {
            spool,
            stream,
            prefix,
            taken,
            last: 0,
            due: 0,
        }
    }

    /// How far a source has been given to the spool.
    pub(super) fn position(&self, source: &str) -> Option<u64> {
        self.spool.position(&format!("{}{source}", self.prefix))
    }

    /// [`Intake::position`] of every source.
    pub(super) fn positions(&self) -> impl Iterator<Item = (String, u64)> {
        let all = self.spool.positions().into_iter();
        all.filter_map(|(place, upto)| Some((place.strip_prefix(self.prefix)?.to_owned(), upto)))
    }

    /// How far a source need never be read again, whatever happens.
    pub(super) fn settled(&self, source: &str) -> Option<u64> {
        self.spool.settled(&format!("{}{source}", self.prefix))
    }

    /// Into the spool, waiting for as long as it is full: nothing is read meanwhile.
    ///
    /// # Errors
    /// What was not taken must be read again, from [`Intake::position`].
    pub(super) async fn take(&mut self, batches: Vec<Batch>) -> Result<(), AppendError> {
        for batch in batches {
            // Where a source cannot be read again there is no place to keep.
            let place = (!batch.file.is_empty()).then(|| format!("{}{}", self.prefix, batch.file));
            let position = place.as_deref().map(|place| (place, batch.upto));
            let seq = loop {
                match self.stream.append(&batch.record, position) {
                    Ok(pending) => break pending.await?,
                    Err(AppendError::Busy { .. }) => {
                        // The link is down for long: memory goes to the log, within its budget.
                        self.stream.spill();
                        tokio::time::sleep(PERIOD).await;
                    }
                    Err(err) => {
                        tracing::warn!(err = kit::chain(&err), "logs are not taken now");
                        return Err(err);
                    }
                }
            };
            self.last = seq;
            if let Some(place) = place {
                self.taken.insert(place, seq);
            }
        }
        Ok(())
    }

    /// To be called every half second or so, where a source cannot be read again: puts on disk what was taken before
    /// the last call and is not with the hub yet.
    pub(super) fn secure(&mut self) {
        if self.due > self.stream.acked(uplink::SINK) {
            self.stream.spill();
        }
        self.due = self.last;
    }

    /// Forgets places in sources other than these, once the hub has all of them.
    pub(super) fn forget<'a>(&mut self, held: impl Iterator<Item = &'a str>) {
        let held: BTreeSet<String> = held.map(|source| format!("{}{source}", self.prefix)).collect();
        let acked = self.stream.acked(uplink::SINK);
        let spool = &self.spool;
        self.taken.retain(|place, seq| {
            let needed = held.contains(place) || *seq > acked;
            if !needed {
                spool.forget(place);
            }
            needed
        });
    }
}
