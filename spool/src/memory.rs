//! Records in memory: streams that are not strict keep the disk out while the link is up.
//!
//! A stream's records in memory are its newest ones. They leave from the front: settled by all sinks, or written to
//! the log when they have waited too long, when the spool is flushed or closed, or when they are too many.

use crate::block::Item;
use crate::core::{Core, Inner, Live, Queued};
use crate::error::AppendError;
use crate::ledger::{DropReason, Gap};
use crate::notice::Notice;
use crate::pending::{Pending, Ticket};
use crate::record::{Class, Durability};
use crate::retention;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Numbers handed out without asking the disk again.
pub(crate) const RESERVE: u64 = 1 << 20;
/// How long a spill that the disk refused is not tried again.
const REST: Duration = Duration::from_secs(5);

/// The part of a stream that is only in memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub held: VecDeque<Held>,
    pub bytes: usize,
    /// Numbers up to here may be handed out: the saved state says so.
    pub reserved: u64,
    /// Written out at the next occasion, whatever its age.
    pub spill_now: bool,
    /// When the log refused it last.
    refused_at: Option<Instant>,
}

/// One record.
#[derive(Debug)]
pub(crate) struct Held {
    pub item: Item,
    pub position: Option<(Arc<str>, u64)>,
    since: Instant,
    /// On its way to the log.
    pub leaving: bool,
}

impl Held {
    fn cost(&self) -> usize {
        self.item.payload.len() + 96
    }
}

impl Memory {
    fn pop(&mut self) -> Option<Held> {
        let held = self.held.pop_front()?;
        self.bytes -= held.cost();
        Some(held)
    }

    /// The first number that is only here.
    pub(crate) fn first(&self) -> Option<u64> {
        self.held.front().map(|held| held.item.seq)
    }
}

/// Takes a record into memory.
pub(crate) fn append(
    core: &Core,
    inner: &mut Inner,
    item: Item,
    position: Option<(Arc<str>, u64)>,
) -> Result<Pending, AppendError> {
    let (stream, seq) = (item.stream, item.seq);
    let held = Held {
        item,
        position,
        since: Instant::now(),
        leaving: false,
    };
    let most = core.options.memory_bytes;
    let all: usize = inner.streams.values().map(|live| live.memory.bytes).sum();
    let Some((class, durability)) = inner
        .ledgers
        .get(&stream)
        .map(|ledger| (ledger.class, ledger.durability))
    else {
        return Err(AppendError::Closed);
    };
    if all + held.cost() > most && !make_room(inner, stream, durability, held.cost(), most) {
        // The source keeps it; it is asked to wait.
        return Err(AppendError::Busy { class });
    }
    let Some(live) = inner.streams.get_mut(&stream) else {
        return Err(AppendError::Closed);
    };
    live.given = seq;
    live.memory.bytes += held.cost();
    live.memory.held.push_back(held);
    if seq + RESERVE / 2 > live.memory.reserved {
        inner.checkpoint_now = true;
        inner.changed = true;
    }
    if let (Some(ledger), Some(live)) = (inner.ledgers.get_mut(&stream), inner.streams.get(&stream)) {
        ledger.extend(seq, seq);
        live.last.send_replace(ledger.last);
    }
    let ticket = Ticket::default();
    ticket.answer(Ok(seq));
    Ok(Pending(Arc::new(ticket)))
}

/// Makes room for one more record: has the sampled records written out, and drops the oldest where even that is too
/// slow. False if the record has to wait.
fn make_room(inner: &mut Inner, stream: u32, durability: Durability, cost: usize, most: usize) -> bool {
    for (id, live) in &mut inner.streams {
        let sampled = inner
            .ledgers
            .get(id)
            .is_some_and(|ledger| ledger.durability == Durability::Sampled);
        live.memory.spill_now |= sampled && !live.memory.held.is_empty();
    }
    if durability != Durability::Sampled {
        return false;
    }
    let all: usize = inner.streams.values().map(|live| live.memory.bytes).sum();
    // A margin, so that a moment's burst is not dropped while the disk is taking it.
    if all + cost <= most + most / 2 {
        return true;
    }
    let mut freed = 0;
    let mut dropped: Option<(u64, u64)> = None;
    if let Some(live) = inner.streams.get_mut(&stream) {
        while freed < cost
            && let Some(held) = live.memory.pop()
        {
            freed += held.cost();
            dropped = Some((dropped.map_or(held.item.seq, |(first, _)| first), held.item.seq));
        }
    }
    let Some((first, last)) = dropped else {
        return false;
    };
    inner.give_up(stream, first, last, Gap::Dropped(DropReason::Memory));
    true
}

impl Inner {
    /// Marks numbers as lost or dropped, and tells of it; returns how many newly are.
    pub(crate) fn give_up(&mut self, stream: u32, first: u64, last: u64, gap: Gap) -> u64 {
        let Some(ledger) = self.ledgers.get_mut(&stream) else {
            return 0;
        };
        let count = ledger.give_up(first, last, gap);
        if count > 0 {
            let notice = Notice::of_gap(&ledger.name, first, last, count, gap);
            self.tell(notice);
            self.mark_unsaved();
        }
        count
    }

    /// Lets go of records in memory that no sink waits for.
    pub(crate) fn forget_settled(&mut self, stream: u32) {
        let Some(gone) = self.ledgers.get(&stream).map(|ledger| ledger.gone) else {
            return;
        };
        let Some(live) = self.streams.get_mut(&stream) else {
            return;
        };
        while live.memory.first().is_some_and(|first| first <= gone) {
            if let Some(held) = live.memory.pop()
                && let Some((source, value)) = held.position
            {
                self.order += 1;
                self.sources.insert(source.to_string(), (value, self.order));
                if self.offered.get(&*source) == Some(&value) {
                    self.offered.remove(&*source);
                }
            }
        }
    }

    /// Lets go of records in memory that are now in the log.
    pub(crate) fn forget_written(&mut self, stream: u32, upto: u64) {
        if let Some(live) = self.streams.get_mut(&stream) {
            while live.memory.first().is_some_and(|first| first <= upto) {
                live.memory.pop();
            }
            live.memory.refused_at = None;
        }
    }

    /// Whether sampled records are still only in memory.
    pub(crate) fn holds_sampled(&self) -> bool {
        self.streams.iter().any(|(id, live)| {
            let ledger = self.ledgers.get(id);
            !live.memory.held.is_empty()
                && ledger.is_some_and(|ledger| ledger.durability == Durability::Sampled)
        })
    }

    /// Keeps in memory what the log refused, for later; true if the record is such a one.
    pub(crate) fn take_back(&mut self, stream: u32) -> bool {
        let kept = self
            .ledgers
            .get(&stream)
            .is_some_and(|ledger| ledger.durability != Durability::Strict);
        if kept && let Some(live) = self.streams.get_mut(&stream) {
            live.memory.refused_at = Some(Instant::now());
            live.memory.spill_now = false;
            for held in &mut live.memory.held {
                held.leaving = false;
            }
        }
        kept
    }

    /// Gives up all but every n-th record of a stream that is about to go to disk, where room is short.
    fn thin(&mut self, stream: u32) {
        let Some((ledger, live)) = self.ledgers.get_mut(&stream).zip(self.streams.get_mut(&stream)) else {
            return;
        };
        let keep = retention::one_of(&self.logs[ledger.class.index()]);
        if keep == 1 || !live.retention.thin || ledger.durability != Durability::Sampled {
            return;
        }
        let memory = &mut live.memory;
        let goes = |held: &Held| !held.leaving && !held.item.seq.is_multiple_of(keep);
        let ends = |held: &Held| goes(held).then_some(held.item.seq);
        let (first, last) = (
            memory.held.iter().find_map(ends),
            memory.held.iter().rev().find_map(ends),
        );
        let mut count = 0;
        for seq in memory.held.iter().filter_map(ends) {
            count += ledger.give_up(seq, seq, Gap::Dropped(DropReason::Thinned));
        }
        let bytes: usize = memory.held.iter().filter(|held| goes(held)).map(Held::cost).sum();
        memory.bytes -= bytes;
        memory.held.retain(|held| !goes(held));
        if let Some((first, last)) = first.zip(last).filter(|_| count > 0) {
            let notice = Notice::of_gap(
                &ledger.name,
                first,
                last,
                count,
                Gap::Dropped(DropReason::Thinned),
            );
            self.tell(notice);
            self.mark_unsaved();
        }
    }

    /// Whether and when what a stream has in memory goes to the log.
    fn goes_at(&self, id: u32, live: &Live, after: Duration, now: Instant) -> Option<Instant> {
        let memory = &live.memory;
        let first = memory.held.iter().find(|held| !held.leaving)?;
        let sampled = self.ledgers.get(&id)?.durability == Durability::Sampled;
        // A hurry overrides the rest after a refusal, once.
        let before = |since| memory.refused_at.is_none_or(|at| at < since);
        let hurry = sampled && self.hurry_since.is_some_and(before);
        Some(match memory.refused_at {
            _ if hurry => now,
            Some(refused) => refused + REST,
            _ if memory.spill_now => now,
            // The source of a replayable stream keeps its records.
            _ if !sampled => return None,
            _ => first.since + after,
        })
    }

    /// Hands records that have waited long enough to the log's queues; says when to look again.
    pub(crate) fn spill(&mut self, after: Duration, now: Instant) -> Option<Instant> {
        let mut wake: Option<Instant> = None;
        let mut due = Vec::new();
        for (id, live) in &self.streams {
            match self.goes_at(*id, live, after, now) {
                None => {}
                Some(at) if at > now => wake = Some(wake.map_or(at, |held| held.min(at))),
                Some(_) => due.push(*id),
            }
        }
        for id in due {
            self.thin(id);
            self.hand_over(id, now);
        }
        wake
    }

    /// Queues for the log all that a stream has in memory.
    fn hand_over(&mut self, id: u32, now: Instant) {
        let Some((ledger, live)) = self.ledgers.get(&id).zip(self.streams.get_mut(&id)) else {
            return;
        };
        live.memory.spill_now = false;
        let queue = &mut self.queues[ledger.class.index()];
        for held in live.memory.held.iter_mut().filter(|held| !held.leaving) {
            held.leaving = true;
            let queued = Queued {
                item: held.item.clone(),
                position: held.position.clone(),
                ticket: Arc::new(Ticket::default()),
            };
            queue.bytes += queued.cost();
            queue.items.push_back(queued);
            // Waited long enough already.
            queue.since = Some(now.checked_sub(Duration::from_secs(3600)).unwrap_or(now));
        }
    }

    /// Memory bytes of all streams of a class.
    pub(crate) fn memory_bytes(&self, class: Class) -> usize {
        self.streams
            .iter()
            .filter(|(id, _)| self.ledgers.get(id).is_some_and(|ledger| ledger.class == class))
            .map(|(_, live)| live.memory.bytes)
            .sum()
    }
}
