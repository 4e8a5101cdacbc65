//! What producers, readers and the I/O thread share under one lock.

use crate::block::Item;
use crate::error::AppendError;
use crate::ledger::Ledger;
use crate::memory::{Memory, RESERVE};
use crate::notice::{NOTICES, Notice, Notices};
use crate::options::Options;
use crate::pending::Ticket;
use crate::place::Boots;
use crate::record::{Class, Durability};
use crate::retention::Retention;
use crate::snapshot::Writes;
use crate::state::{FORMAT, Saved, SavedLog};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::watch;

/// Sequence numbers left out of every stream of a log whose tail was torn: more than one commit can hold, so that a
/// number which a receiver may have seen before the tail was damaged never comes again with other content.
pub(crate) const JUMP: u64 = 1 << 16;
/// Most records in a commit.
pub(crate) const MOST_ITEMS: usize = 1 << 14;

/// Shared by all handles.
#[derive(Debug)]
pub(crate) struct Core {
    pub dir: PathBuf,
    pub options: Options,
    pub epoch: u64,
    inner: Mutex<Inner>,
    /// The I/O thread waits here.
    pub work: Condvar,
}

impl Core {
    pub(crate) fn new(dir: PathBuf, options: Options, epoch: u64, inner: Inner) -> Self {
        Self {
            dir,
            options,
            epoch,
            inner: Mutex::new(inner),
            work: Condvar::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn segment_path(&self, class: Class, slot: u32) -> PathBuf {
        self.dir.join(class.name()).join(slot_name(slot))
    }
}

pub(crate) fn slot_name(slot: u32) -> String {
    format!("{slot:06}.seg")
}

/// Everything that moves.
#[derive(Debug)]
pub(crate) struct Inner {
    pub incarnation: u32,
    pub ledgers: BTreeMap<u32, Ledger>,
    pub by_name: HashMap<String, u32>,
    pub streams: HashMap<u32, Live>,
    /// Positions that are durable, each with the order of its block.
    pub sources: BTreeMap<String, (u64, u64)>,
    /// Rises with every write, over all logs and lives; the blocks of one write share it.
    pub order: u64,
    pub boots: Boots,
    /// Positions of records that are on their way.
    pub offered: HashMap<String, u64>,
    pub logs: [Log; 3],
    pub queues: [Queue; 3],
    /// What writing has cost, by log.
    pub writes: [Writes; 3],
    /// Acknowledgements that are not on disk.
    pub unsaved_acks: BTreeMap<(u32, String), u64>,
    /// Since when the oldest of them waits.
    pub acks_since: Option<Instant>,
    /// Something else that the next checkpoint has to hold, and since when it waits.
    pub unsaved_since: Option<Instant>,
    /// Anything at all has changed since the state was saved.
    pub changed: bool,
    pub checkpoint_now: bool,
    /// To be told in the spool's own stream.
    pub notices: Notices,
    pub flushes: Vec<Arc<Ticket>>,
    /// Since when everything is wanted on disk: for a flush, or for the end.
    pub hurry_since: Option<Instant>,
    pub closing: bool,
    /// The saved state has no mark of a clean end; at the end that is to be saved even where nothing else is.
    pub unclean: bool,
}

/// The part of a stream that is not stored.
#[derive(Debug)]
pub(crate) struct Live {
    /// The last number given out.
    pub given: u64,
    pub last: watch::Sender<u64>,
    /// Blocks that readers passed lately: segment, offset, the stream's first number there.
    pub hints: VecDeque<(u64, u64, u64)>,
    /// The block that the disk refused to read last, and how often.
    pub refused: ((u64, u64), u32),
    pub memory: Memory,
    pub retention: Retention,
}

impl Live {
    pub(crate) fn at(last: u64, name: &str, durability: Durability) -> Self {
        Self {
            given: last,
            last: watch::Sender::new(last),
            hints: VecDeque::new(),
            refused: ((0, 0), 0),
            memory: Memory::default(),
            retention: Retention::usual(name, durability),
        }
    }
}

/// Records waiting for the disk.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub items: VecDeque<Queued>,
    pub bytes: usize,
    pub since: Option<Instant>,
    /// Whether a producer waits for one of them.
    pub awaited: bool,
    /// Why nothing is taken, and until when.
    pub refusing: Option<(AppendError, Option<Instant>)>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Queued {
    pub item: Item,
    pub position: Option<(Arc<str>, u64)>,
    pub ticket: Arc<Ticket>,
}

impl Queued {
    /// What it counts against the queue.
    pub(crate) fn cost(&self) -> usize {
        self.item.payload.len() + 64
    }
}

/// One class's segments.
#[derive(Debug)]
pub(crate) struct Log {
    pub class: Class,
    pub budget: u64,
    pub slots: BTreeMap<u32, Slot>,
    pub segments: BTreeMap<u64, Segment>,
    pub next_segment: u64,
    pub mark: (u64, u64),
    pub cuts: BTreeMap<u64, u64>,
}

/// A file that holds segments one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub size: u64,
    pub state: SlotState,
    /// A write in it failed in this life of the process: used again only when there is nothing else.
    pub suspect: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotState {
    Live,
    /// Its segment is done with, but the saved state does not say so yet.
    Released,
    /// To be overwritten.
    Free,
}

/// A living segment.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub slot: u32,
    pub size: u64,
    /// All before this is durable.
    pub end: u64,
    /// The I/O thread appends to it.
    pub tail: bool,
    /// Wall time of its newest block in microseconds, 0 if unknown.
    pub newest: i64,
    pub spans: BTreeMap<u32, Span>,
}

/// What a stream has in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub first: u64,
    pub last: u64,
    pub count: u64,
    pub bytes: u64,
}

impl Span {
    pub(crate) fn add(&mut self, other: Span) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

pub(crate) fn add_span(spans: &mut BTreeMap<u32, Span>, stream: u32, span: Span) {
    spans
        .entry(stream)
        .and_modify(|held| held.add(span))
        .or_insert(span);
}

impl Inner {
    /// Gives room back that no sink waits for any more, after something happened to one stream: later segments than
    /// the first that it still needs cannot have become free by that.
    pub(crate) fn release_after(&mut self, class: Class, stream: u32) {
        let Some(gone) = self.ledgers.get(&stream).map(|ledger| ledger.gone) else {
            return;
        };
        let segments = &self.logs[class.index()].segments;
        let needed = |id: &u64| {
            let span = segments.get(id).and_then(|segment| segment.spans.get(&stream));
            span.is_some_and(|span| span.last > gone)
        };
        let upto = segments.keys().find(|id| needed(id)).copied().unwrap_or(u64::MAX);
        self.release_upto(class, upto);
    }

    /// Gives room back that no sink waits for any more.
    pub(crate) fn release(&mut self, class: Class) {
        self.release_upto(class, u64::MAX);
    }

    fn release_upto(&mut self, class: Class, upto: u64) {
        let ledgers = &self.ledgers;
        let log = &mut self.logs[class.index()];
        let done: Vec<u64> = log
            .segments
            .range(..=upto)
            .filter(|(_, segment)| {
                !segment.tail && segment.spans.iter().all(|(id, span)| settled(ledgers, *id, span))
            })
            .map(|(id, _)| *id)
            .collect();
        for id in done {
            log.drop_segment(id);
        }
    }

    /// Records of a stream above `after`, by the index and in memory.
    pub(crate) fn stored_above(&self, stream: u32, after: u64) -> u64 {
        let Some(ledger) = self.ledgers.get(&stream) else {
            return 0;
        };
        let mut count = self.streams.get(&stream).map_or(0, |live| {
            let held = live.memory.held.iter();
            held.filter(|held| held.item.seq > after).count() as u64
        });
        for segment in self.logs[ledger.class.index()].segments.values() {
            let Some(span) = segment.spans.get(&stream) else {
                continue;
            };
            if span.last > after {
                let from = span.first.max(after + 1);
                count += span.last - from + 1 - ledger.gaps.count(from, span.last);
            }
        }
        count
    }

    /// The state to save, and the slots that are free once it is saved.
    pub(crate) fn snapshot(&self, epoch: u64, clean: bool) -> (Saved, Vec<(Class, u32)>) {
        let mut released = Vec::new();
        let mut logs = BTreeMap::new();
        for log in &self.logs {
            for (number, slot) in &log.slots {
                if slot.state == SlotState::Released {
                    released.push((log.class, *number));
                }
            }
            logs.insert(log.class.name().to_owned(), log.saved());
        }
        let saved = Saved {
            version: FORMAT,
            epoch,
            incarnation: self.incarnation,
            clean,
            streams: self
                .ledgers
                .iter()
                .map(|(id, ledger)| (*id, self.as_saved(*id, ledger)))
                .collect(),
            reserved: self
                .ledgers
                .iter()
                .filter(|(_, ledger)| ledger.durability == Durability::Sampled && !clean)
                .map(|(id, _)| (*id, self.streams.get(id).map_or(0, |live| live.given) + RESERVE))
                .collect(),
            sources: self.sources.clone(),
            boots: self.boots.clone(),
            logs,
        };
        (saved, released)
    }

    /// A stream's account without what is only in memory: a crash takes that.
    fn as_saved(&self, id: u32, ledger: &Ledger) -> Ledger {
        let mut saved = ledger.clone();
        if let Some(first) = self.streams.get(&id).and_then(|live| live.memory.first()) {
            saved.end_before(first);
        }
        saved
    }

    /// Leaves a notice for the I/O thread to store.
    pub(crate) fn tell(&mut self, notice: Option<Notice>) {
        // One about the notices themselves would be the next reason for one.
        let own = |name: &str| name == NOTICES;
        match notice {
            Some(Notice::Dropped { stream, .. } | Notice::Lost { stream, .. }) if own(&stream) => {}
            Some(notice) => self.notices.add(notice),
            None => {}
        }
    }

    /// Takes over that a snapshot is saved.
    pub(crate) fn saved(&mut self, snapshot: &Saved, released: &[(Class, u32)]) {
        for (class, slot) in released {
            if let Some(slot) = self.logs[class.index()].slots.get_mut(slot) {
                slot.state = SlotState::Free;
            }
        }
        for log in &mut self.logs {
            let saved = snapshot.logs.get(log.class.name());
            let (segments, cuts) = (&log.segments, &mut log.cuts);
            cuts.retain(|id, _| segments.contains_key(id) || saved.is_none_or(|saved| saved.lives(*id)));
        }
        self.unsaved_acks.retain(|(stream, sink), upto| {
            snapshot
                .streams
                .get(stream)
                .and_then(|ledger| ledger.sinks.get(sink))
                .is_none_or(|saved| saved.upto < *upto)
        });
        if self.unsaved_acks.is_empty() {
            self.acks_since = None;
        }
        for (id, reserved) in &snapshot.reserved {
            if let Some(live) = self.streams.get_mut(id) {
                live.memory.reserved = *reserved;
            }
        }
    }

    /// Since when something waits for a checkpoint.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        match (self.acks_since, self.unsaved_since) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Marks something for the next checkpoint.
    pub(crate) fn mark_unsaved(&mut self) {
        self.changed = true;
        self.unsaved_since.get_or_insert_with(Instant::now);
    }

    /// Names of a log's streams that a sink's cursor is unsaved for.
    pub(crate) fn acks_to_ride(&self, class: Class) -> Vec<(u32, String, u64)> {
        let ids: BTreeSet<u32> = self
            .ledgers
            .iter()
            // A replayable stream's cursor is saved together with its source's position only.
            .filter(|(_, ledger)| ledger.class == class && ledger.durability != Durability::Replayable)
            .map(|(id, _)| *id)
            .collect();
        self.unsaved_acks
            .iter()
            .filter(|((stream, _), _)| ids.contains(stream))
            .map(|((stream, sink), upto)| (*stream, sink.clone(), *upto))
            .collect()
    }

    /// Adds a stream, or returns the one of that name.
    pub(crate) fn define(&mut self, name: &str, class: Class, durability: Durability) -> u32 {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = self.ledgers.keys().next_back().map_or(0, |last| last + 1);
        self.ledgers.insert(id, Ledger::new(name, class, durability));
        self.by_name.insert(name.to_owned(), id);
        self.streams.insert(id, Live::at(0, name, durability));
        id
    }
}

pub(crate) fn settled(ledgers: &BTreeMap<u32, Ledger>, id: u32, span: &Span) -> bool {
    ledgers.get(&id).is_some_and(|ledger| {
        let from = span.first.max(ledger.gone + 1);
        from > span.last || ledger.gaps.count(from, span.last) == span.last - from + 1
    })
}

impl Log {
    pub(crate) fn new(class: Class, budget: u64) -> Self {
        Self {
            class,
            budget,
            slots: BTreeMap::new(),
            segments: BTreeMap::new(),
            next_segment: 1,
            mark: (0, 0),
            cuts: BTreeMap::new(),
        }
    }

    pub(crate) fn drop_segment(&mut self, id: u64) {
        if let Some(segment) = self.segments.remove(&id)
            && let Some(slot) = self.slots.get_mut(&segment.slot)
        {
            slot.state = SlotState::Released;
        }
    }

    /// Bytes of all its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.slots.values().map(|slot| slot.size).sum()
    }

    fn saved(&self) -> SavedLog {
        let mut live: Vec<(u64, u64)> = Vec::new();
        // A segment without a confirmed byte is nothing to miss later.
        for (id, _) in self.segments.iter().filter(|(_, segment)| segment.end > 0) {
            match live.last_mut() {
                Some((_, last)) if *last + 1 == *id => *last = *id,
                _ => live.push((*id, *id)),
            }
        }
        SavedLog {
            next_segment: self
                .segments
                .iter()
                .find(|(_, segment)| segment.tail && segment.end == 0)
                .map_or(self.next_segment, |(id, _)| *id),
            live,
            mark: self.mark,
            cuts: self.cuts.clone(),
        }
    }
}
