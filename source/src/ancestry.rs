//! How history moved: whether one commit comes before another.

use crate::SourceError;
use crate::connection::{Line, Pull};
use crate::repository::Store;
use gix::ObjectId;
use model::{Moved, Revision};
use std::collections::{HashSet, VecDeque};

/// What the commits at hand say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// `to` is an ancestor of `from`, or the same.
    Yes,
    /// All of `from`'s history is at hand and `to` is not in it.
    No,
    /// Some of `from`'s history is not at hand.
    Unknown,
}

/// Looks for `to` among the ancestors of `from`. A commit names its parents even where they are not at hand, so
/// that the step from a shallow commit to its parent is seen without fetching anything.
fn reaches(store: &Store, from: ObjectId, to: ObjectId) -> Reach {
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

/// How history moved from `before` to `tip`; fetches older commits, eight times as many each time, until it shows.
/// `whole` are the commits that the store has with all their files.
pub(crate) fn relate(
    line: &mut Line<'_>,
    store: &Store,
    before: Option<&Revision>,
    tip: ObjectId,
    whole: &[ObjectId],
) -> Result<Moved, SourceError> {
    let Some(before) = before else {
        return Ok(Moved::First);
    };
    let from = before.commit.clone();
    let Ok(held) = ObjectId::from_hex(from.as_bytes()) else {
        return Ok(Moved::Rewritten { from });
    };
    if held == tip {
        return Ok(Moved::Unchanged);
    }
    let haves = [whole, &[tip]].concat();
    let most = line.wire.limits.ancestry;
    let mut depth = 1;
    loop {
        let forward = reaches(store, tip, held);
        let backward = reaches(store, held, tip);
        match (forward, backward) {
            (Reach::Yes, _) => return Ok(Moved::Forward),
            (_, Reach::Yes) => return Ok(Moved::Backward { from }),
            (Reach::No, Reach::No) => return Ok(Moved::Rewritten { from }),
            _ if depth >= most => return Ok(Moved::Rewritten { from }),
            _ => {}
        }
        depth = (depth * 8).min(most);
        let new_shows = forward == Reach::Unknown && deepen(line, store, tip, &haves, depth)?;
        let old_shows = backward == Reach::Unknown && deepen(line, store, held, &haves, depth)?;
        if !new_shows && !old_shows {
            return Ok(Moved::Rewritten { from });
        }
    }
}

/// Whether the server gave older history; one that refuses (the commit is unreachable there by now) is no error.
fn deepen(
    line: &mut Line<'_>,
    store: &Store,
    from: ObjectId,
    haves: &[ObjectId],
    depth: u32,
) -> Result<bool, SourceError> {
    let pull = Pull {
        wants: &[from],
        haves,
        depth: Some(depth),
        salvage: false,
    };
    match line.receive(store, pull) {
        Ok(()) => Ok(true),
        Err(SourceError::Server { .. }) => Ok(false),
        Err(SourceError::Cut { why, .. }) if why.contains("not our ref") => Ok(false),
        Err(err) => Err(err),
    }
}
