//! From scrapes to the store of the rules.

use rules::{Labels, Store};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use telemetry::metrics::{EachSample, Labels as Scraped, Sample, Tap};

/// Series that are no longer there are forgotten when there are so many more than there are held.
const SLACK: usize = 1000;

/// The store, shared by who fills it and who asks it.
#[derive(Debug)]
pub(crate) struct Feed(Mutex<Held>);

#[derive(Debug)]
pub(super) struct Held {
    pub store: Store,
    /// Series of metrics that some rule asks for: in the rules' form where they are wanted.
    known: HashMap<Scraped, Option<Labels>>,
}

impl Feed {
    pub(super) fn new(store: Store) -> Self {
        let known = HashMap::new();
        Self(Mutex::new(Held { store, known }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// What is wanted has changed.
    pub fn forget_known(&mut self) {
        self.known.clear();
    }
}

impl Tap for Feed {
    fn scraped(&self, samples: &mut dyn FnMut(EachSample<'_>)) {
        let held = &mut *self.lock();
        let Held { store, known } = held;
        if known.len() > 2 * store.len() + SLACK {
            known.clear();
        }
        samples(&mut |scraped, sample| {
            if !store.wants(scraped.name()) {
                return;
            }
            let labels = known.entry(scraped.clone()).or_insert_with(|| {
                let labels = Labels::new(scraped.iter());
                store.wants_series(&labels).then_some(labels)
            });
            if let Some(labels) = labels {
                let Sample { time, value } = sample;
                store.put(labels, rules::Sample { time, value });
            }
        });
    }
}
