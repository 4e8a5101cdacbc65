//! Whether one commit comes before another, as far as the commits at hand tell.

use crate::repository::Store;
use gix::ObjectId;
use std::collections::{HashSet, VecDeque};

/// What the commits at hand say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// `to` is an ancestor of `from`, or the same.
    Yes,
    /// All of `from`'s history is at hand and `to` is not in it.
    No,
    /// Some of `from`'s history is not at hand.
    Unknown,
}

/// Looks for `to` among the ancestors of `from`. A commit names its parents even where they are not at hand, so
/// that the step from a shallow commit to its parent is seen without fetching anything.
pub(crate) fn reaches(store: &Store, from: ObjectId, to: ObjectId) -> Reach {
    let mut seen = HashSet::from([from]);
    let mut todo = VecDeque::from([from]);
    let mut complete = true;
    while let Some(id) = todo.pop_front() {
        if id == to {
            return Reach::Yes;
        }
        match store.parents(id) {
            Some(parents) => todo.extend(parents.into_iter().filter(|parent| seen.insert(*parent))),
            None => complete = false,
        }
    }
    if complete { Reach::No } else { Reach::Unknown }
}
