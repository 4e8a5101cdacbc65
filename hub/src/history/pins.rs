//! Files that a query may still open are deleted after it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Queries by the number that they drew, and files by the number that was next when they stopped counting: a query
/// with a lower number may have seen the name.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    open: BTreeSet<u64>,
    doomed: Vec<(u64, String)>,
}

/// One query; its files stay while this lives.
#[derive(Debug)]
pub(super) struct Pin<'a> {
    pins: &'a Pins,
    number: u64,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.pins.with(|inner| inner.open.remove(&self.number));
    }
}

impl Pins {
    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// To be taken before the names are read.
    pub fn pin(&self) -> Pin<'_> {
        let number = self.with(|inner| {
            inner.next += 1;
            inner.open.insert(inner.next);
            inner.next
        });
        Pin { pins: self, number }
    }

    /// To be told after the names stopped counting.
    pub fn doom(&self, names: impl IntoIterator<Item = String>) {
        self.with(|inner| {
            let next = inner.next;
            inner.doomed.extend(names.into_iter().map(|name| (next, name)));
        });
    }

    /// Names whose files nobody can open any more.
    pub fn free(&self) -> Vec<String> {
        self.with(|inner| {
            let oldest = inner.open.first().copied().unwrap_or(u64::MAX);
            let (free, held) = std::mem::take(&mut inner.doomed)
                .into_iter()
                .partition(|(upto, _)| *upto < oldest);
            inner.doomed = held;
            free
        })
        .into_iter()
        .map(|(_, name)| name)
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_while_a_query_that_may_know_it_runs() {
        let pins = Pins::default();
        let (early, other) = (pins.pin(), pins.pin());
        pins.doom(["a".to_owned()]);
        let late = pins.pin();
        assert!(pins.free().is_empty());
        drop(early);
        assert!(pins.free().is_empty());
        drop(other);
        assert_eq!(pins.free(), ["a"]);
        pins.doom(["b".to_owned()]);
        assert!(pins.free().is_empty());
        drop(late);
        assert_eq!(pins.free(), ["b"]);
        assert!(pins.free().is_empty());
    }
}
