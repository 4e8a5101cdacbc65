//! Files that are followed: read together on a thread where it may block, and what they hold into the spool.

use super::intake::Intake;
use kit::Clock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use telemetry::logs::{Batch, Collector};

/// By what their listing knows them by.
pub(super) type Collectors<K> = BTreeMap<K, Collector>;

/// Files of one kind of listing.
#[derive(Debug)]
pub(super) struct Followed<K> {
    clock: Arc<dyn Clock>,
    intake: Intake,
    collectors: Collectors<K>,
}

impl<K: Ord + Send + 'static> Followed<K> {
    pub(super) fn new(clock: Arc<dyn Clock>, intake: Intake) -> Self {
        Self {
            clock,
            intake,
            collectors: BTreeMap::new(),
        }
    }

    /// Where what they hold goes.
    pub(super) fn intake(&self) -> &Intake {
        &self.intake
    }

    /// Lists, reads, and gives what was read to the spool. `list` adds those that are new, says which are there, and
    /// what else there is to tell; it may block. `None` where the thread ended before its time.
    pub(super) async fn round<T: Send + 'static>(
        &mut self,
        list: impl FnOnce(&mut Collectors<K>) -> (BTreeSet<K>, T) + Send + 'static,
    ) -> Option<T> {
        let (batches, told) = self.read(list).await?;
        if self.intake.take(batches).await.is_err() {
            // What was read and not taken is read again.
            self.collectors.clear();
        } else {
            self.intake
                .forget(self.collectors.values().flat_map(Collector::files));
        }
        Some(told)
    }

    async fn read<T: Send + 'static>(
        &mut self,
        list: impl FnOnce(&mut Collectors<K>) -> (BTreeSet<K>, T) + Send + 'static,
    ) -> Option<(Vec<Batch>, T)> {
        let mut collectors = std::mem::take(&mut self.collectors);
        let (intake, clock) = (self.intake.clone(), Arc::clone(&self.clock));
        let reading = tokio::task::spawn_blocking(move || {
            let (listed, told) = list(&mut collectors);
            let mut batches = Vec::new();
            collectors.retain(|key, collector| {
                let over = !listed.contains(key);
                match collector.poll(clock.now(), clock.since_boot(), over, |file| {
                    intake.position(file)
                }) {
                    Ok(more) => batches.extend(more),
                    Err(err) => {
                        tracing::warn!(path = %collector.path().display(), %err, "a log cannot be read");
                    }
                }
                !(over && collector.is_over())
            });
            (collectors, batches, told)
        });
        match reading.await {
            Ok((collectors, batches, told)) => {
                self.collectors = collectors;
                Some((batches, told))
            }
            Err(err) => {
                tracing::error!(%err, "reading logs ended");
                None
            }
        }
    }
}
