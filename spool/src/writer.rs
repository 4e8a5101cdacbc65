//! The I/O thread: the only one that writes.

use crate::block::{Draft, Entry, FOOTER, Item, Place, Shared};
use crate::compose::{Drafted, Names, chunk, footer};
use crate::core::{Core, Inner, MOST_ITEMS, Queue, Queued, add_span};
use crate::disk::DiskFile;
use crate::error::AppendError;

use crate::notice::{NOTICES, Notice};
use crate::options::PerClass;
use crate::pending::Ticket;
use crate::record::{Class, Durability};
use crate::retention;
use crate::room::{self, NoRoom};
use crate::state::StateFiles;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Bytes written at once; also about what the thread keeps in memory.
const MOST_WRITE: usize = 512 << 10;
/// Part of it for acknowledgements that ride along.
const TABLE_ACKS: usize = 1024;
/// Blocks stored as they are after one that compression did not make smaller.
const UNTRIED: u8 = 15;
/// How often a lower class may be passed over.
const PATIENCE: u8 = 8;
/// How long producers are turned away after the disk failed twice.
const REST: Duration = Duration::from_secs(2);

/// An open segment at a log's end.
#[derive(Debug)]
pub(crate) struct Tail {
    pub segment: u64,
    pub file: Arc<dyn DiskFile>,
    pub size: u64,
    pub offset: u64,
}

#[derive(Debug)]
pub(crate) struct Writer {
    pub core: Arc<Core>,
    pub state: StateFiles,
    pub tails: [Option<Tail>; 3],
    pub passed_over: [u8; 3],
    /// When each class was last written.
    pub committed: [Option<Instant>; 3],
    /// Blocks for which compression is not tried, since it gained nothing lately.
    pub untried: [u8; 3],
    /// Failures not yet told.
    pub poisoned: [Option<String>; 3],
    pub buffer: Vec<u8>,
}

enum Work {
    Commit(Class, VecDeque<Queued>),
    Checkpoint,
    End,
}

enum Trouble {
    Full,
    Disk(io::Error),
}

impl Writer {
    /// Works until the spool is closed and all is written.
    pub(crate) fn run(mut self) {
        loop {
            match self.next() {
                Work::Commit(class, items) => self.commit(class, items),
                Work::Checkpoint => self.checkpoint(false),
                Work::End => {
                    self.checkpoint(true);
                    return;
                }
            }
        }
    }

    fn next(&mut self) -> Work {
        let core = self.core.clone();
        let mut inner = core.lock();
        loop {
            let now = Instant::now();
            let hurry = inner.closing || !inner.flushes.is_empty();
            let told = store_notices(&mut inner, &core, now);
            let spilled = inner.spill(core.options.spill_after, now);
            let mut wake = told.into_iter().chain(spilled).min();
            let mut due = Vec::new();
            for class in Class::ALL {
                let queue = &inner.queues[class.index()];
                let Some(since) = queue.since else { continue };
                let at = self.due_at(class, since, queue.awaited, &core.options.linger);
                if hurry || queue.bytes >= core.options.block_bytes || at <= now {
                    due.push(class);
                } else {
                    wake = Some(wake.map_or(at, |held| held.min(at)));
                }
            }
            if let Some(class) = self.choose(&due) {
                return Work::Commit(class, take(&mut inner.queues[class.index()]));
            }
            if inner.closing && inner.queues.iter().all(|queue| queue.items.is_empty()) {
                return Work::End;
            }
            if inner.checkpoint_now || (hurry && !inner.flushes.is_empty()) {
                return Work::Checkpoint;
            }
            if let Some(since) = inner.waits_since() {
                let at = since + core.options.cursor_every;
                if at <= now {
                    return Work::Checkpoint;
                }
                wake = Some(wake.map_or(at, |held| held.min(at)));
            }
            inner = match wake {
                Some(at) => {
                    core.work
                        .wait_timeout(inner, at.saturating_duration_since(now))
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => core.work.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// When records that wait since then are to be written. Bulk that nobody waits for gathers; of the others the first
    /// after a quiet time goes at once, and those that follow closely gather.
    fn due_at(&self, class: Class, since: Instant, awaited: bool, linger: &PerClass<Duration>) -> Instant {
        let linger = match class {
            Class::Bulk if !awaited => return since + linger.bulk,
            Class::Bulk => linger.normal,
            _ => linger.of(class),
        };
        self.committed[class.index()].map_or(since, |last| since.max(last + linger))
    }

    /// The highest class that is due, unless a lower one has been passed over too often.
    fn choose(&mut self, due: &[Class]) -> Option<Class> {
        let starved = due
            .iter()
            .rev()
            .find(|class| self.passed_over[class.index()] >= PATIENCE);
        let chosen = *starved.or_else(|| due.first())?;
        for class in due {
            let count = &mut self.passed_over[class.index()];
            *count = if *class == chosen {
                0
            } else {
                count.saturating_add(1)
            };
        }
        Some(chosen)
    }

    fn commit(&mut self, class: Class, mut items: VecDeque<Queued>) {
        self.committed[class.index()] = Some(Instant::now());
        let trouble = match self.write_all(class, &mut items) {
            Ok(()) => return,
            Err(Trouble::Full) => Trouble::Full,
            Err(Trouble::Disk(err)) => {
                // What the failed sync left in the page cache is trusted no more: what is still in memory goes to a
                // fresh segment, once.
                self.poison(class, &err);
                match self.write_all(class, &mut items) {
                    Ok(()) => return,
                    Err(trouble) => trouble,
                }
            }
        };
        if let Trouble::Disk(err) = &trouble {
            self.poison(class, err);
        }
        self.refuse(class, items, &trouble);
    }

    /// Writes and publishes; what is published is taken off `items`.
    fn write_all(&mut self, class: Class, items: &mut VecDeque<Queued>) -> Result<(), Trouble> {
        while !items.is_empty() {
            if self.tails[class.index()].is_none() {
                let tail =
                    room::open_segment(&self.core, &mut self.state, class).map_err(|err| match err {
                        NoRoom::Full => Trouble::Full,
                        NoRoom::Disk(err) => Trouble::Disk(err),
                    })?;
                self.tails[class.index()] = Some(tail);
            }
            let riding = self.core.lock().acks_to_ride(class);
            let drafted = self.draft(class, items, riding);
            if drafted.items == 0 {
                self.seal(class);
                continue;
            }
            let Some(tail) = &mut self.tails[class.index()] else {
                continue;
            };
            let started = Instant::now();
            tail.file
                .write_at(&self.buffer, tail.offset)
                .and_then(|()| tail.file.sync())
                .map_err(Trouble::Disk)?;
            let took = started.elapsed();
            tail.offset += self.buffer.len() as u64;
            let (segment, end) = (tail.segment, tail.offset);
            self.publish(
                class,
                (segment, end),
                items.drain(..drafted.items).collect(),
                drafted,
                took,
            );
            if self.buffer.capacity() > 2 * MOST_WRITE {
                self.buffer = Vec::new();
            }
        }
        Ok(())
    }

    /// Fills the buffer with blocks for the present tail.
    fn draft(&mut self, class: Class, items: &VecDeque<Queued>, riding: Vec<(u32, String, u64)>) -> Drafted {
        self.buffer.clear();
        let mut drafted = Drafted::default();
        let Some(tail) = &self.tails[class.index()] else {
            return drafted;
        };
        let core = self.core.clone();
        let mut inner = core.lock();
        inner.order += 1;
        drafted.order = inner.order;
        let shared = Shared {
            incarnation: inner.incarnation,
            commit: tail.offset,
            boot: core.options.boot,
        };
        let names = Names::of(&inner, items);
        let cuts: Vec<(u64, u64)> = inner.logs[class.index()]
            .cuts
            .iter()
            .map(|(id, from)| (*id, *from))
            .collect();
        // Compressing takes long; producers and readers go on meanwhile.
        drop(inner);
        let mut first = Vec::new();
        let mut room = TABLE_ACKS;
        for (stream, sink, upto) in riding {
            let entry = Entry::Ack {
                stream,
                sink: sink.clone(),
                upto,
            };
            if entry.size() > room {
                break;
            }
            room -= entry.size();
            drafted.acks.push((stream, sink, upto));
            first.push(entry);
        }
        for (segment, from) in cuts {
            first.push(Entry::Cut { segment, from });
            // The saved state holds all of them; the block only bridges the time until it is written.
            if first.len() > 40 {
                break;
            }
        }
        while drafted.items < items.len() {
            let block_bytes = core.options.block_bytes;
            let (count, entries) = chunk(&names, items, drafted.items, block_bytes, &mut first);
            let chosen: Vec<&Item> = items
                .range(drafted.items..drafted.items + count)
                .map(|queued| &queued.item)
                .collect();
            let untried = &mut self.untried[class.index()];
            let level = core.options.compression.filter(|_| *untried == 0);
            let draft = Draft::of_records(&chosen, entries, level);
            *untried = match (level, draft.gained()) {
                (Some(_), false) => UNTRIED,
                _ => untried.saturating_sub(1),
            };
            let offset = tail.offset + self.buffer.len() as u64;
            let full = offset + draft.size() as u64 > tail.size - FOOTER as u64;
            if full || (!self.buffer.is_empty() && self.buffer.len() + draft.size() > MOST_WRITE) {
                break;
            }
            let place = Place {
                class,
                epoch: core.epoch,
                segment: tail.segment,
                offset,
            };
            draft.write(place, shared, &mut self.buffer);
            drafted.note(&chosen);
            drafted.items += count;
        }
        drafted
    }

    fn publish(
        &mut self,
        class: Class,
        (segment, end): (u64, u64),
        written: Vec<Queued>,
        drafted: Drafted,
        took: Duration,
    ) {
        let core = self.core.clone();
        let mut guard = core.lock();
        let inner = &mut *guard;
        inner.writes[class.index()].commit(written.len(), self.buffer.len(), took);
        let log = &mut inner.logs[class.index()];
        log.mark = (segment, end);
        if let Some(held) = log.segments.get_mut(&segment) {
            held.end = end;
            held.newest = written.last().map_or(held.newest, |queued| queued.item.wall);
            for (stream, span) in drafted.spans {
                add_span(&mut held.spans, stream, span);
            }
        }
        for (stream, sink, upto) in drafted.acks {
            if inner.unsaved_acks.get(&(stream, sink.clone())) == Some(&upto) {
                inner.unsaved_acks.remove(&(stream, sink));
            }
        }
        if inner.unsaved_acks.is_empty() {
            inner.acks_since = None;
        }
        inner.changed = true;
        let mut touched = BTreeMap::new();
        for queued in &written {
            if let Some(ledger) = inner.ledgers.get_mut(&queued.item.stream) {
                ledger.extend(queued.item.seq, queued.item.seq);
                touched.insert(queued.item.stream, queued.item.seq);
            }
            if let Some((source, value)) = &queued.position {
                inner.sources.insert(source.to_string(), (*value, drafted.order));
                if inner.offered.get(&**source) == Some(value) {
                    inner.offered.remove(&**source);
                }
            }
        }
        inner.queues[class.index()].refusing = None;
        if let Some(reason) = self.poisoned[class.index()].take() {
            inner.tell(Some(Notice::Poisoned { class, reason }));
        }
        for (stream, upto) in touched {
            inner.forget_written(stream, upto);
            if let (Some(ledger), Some(live)) = (inner.ledgers.get(&stream), inner.streams.get(&stream)) {
                live.last.send_replace(ledger.last);
            }
        }
        drop(guard);
        for queued in written {
            queued.ticket.answer(Ok(queued.item.seq));
        }
    }

    /// Ends the tail with its footer, which only spares a scan at the next start.
    fn seal(&mut self, class: Class) {
        let Some(tail) = self.tails[class.index()].take() else {
            return;
        };
        let core = self.core.clone();
        let mut inner = core.lock();
        let incarnation = inner.incarnation;
        let log = &mut inner.logs[class.index()];
        let Some(segment) = log.segments.get_mut(&tail.segment) else {
            return;
        };
        segment.tail = false;
        let (spans, newest) = (segment.spans.clone(), segment.newest);
        inner.checkpoint_now = true;
        inner.mark_unsaved();
        retention::enforce(&core, &mut inner, class);
        drop(inner);
        let shared = Shared {
            incarnation,
            commit: tail.offset,
            boot: core.options.boot,
        };
        let place = Place {
            class,
            epoch: core.epoch,
            segment: tail.segment,
            offset: tail.size - FOOTER as u64,
        };
        let mut bytes = Vec::new();
        footer(&spans, tail.offset, incarnation, newest).write(place, shared, &mut bytes);
        if bytes.len() > FOOTER {
            return;
        }
        // The records were synced before: a footer that cannot be written costs nothing but the scan.
        if let Err(err) = tail
            .file
            .write_at(&bytes, place.offset)
            .and_then(|()| tail.file.sync())
        {
            tracing::warn!(%class, segment = tail.segment, error = %err, "spool: footer not written");
        }
    }

    /// Gives the tail up at its last confirmed byte.
    fn poison(&mut self, class: Class, err: &io::Error) {
        tracing::error!(%class, error = %err, "spool: write or sync failed; going on in a fresh segment");
        let mut inner = self.core.lock();
        inner.writes[class.index()].failures += 1;
        // Told once the disk takes records again: before, the telling would only fail as well.
        self.poisoned[class.index()].get_or_insert_with(|| err.to_string());
        if let Some(tail) = self.tails[class.index()].take() {
            let log = &mut inner.logs[class.index()];
            if let Some(segment) = log.segments.get_mut(&tail.segment) {
                segment.tail = false;
                let (slot, end) = (segment.slot, segment.end);
                if let Some(slot) = log.slots.get_mut(&slot) {
                    slot.suspect = true;
                }
                log.cuts.insert(tail.segment, end);
                if end == 0 {
                    log.drop_segment(tail.segment);
                }
            }
            inner.release(class);
        }
        inner.mark_unsaved();
    }

    /// Answers these and all that wait behind them: a source goes on from the position that is durable.
    fn refuse(&mut self, class: Class, items: VecDeque<Queued>, trouble: &Trouble) {
        let mut guard = self.core.lock();
        let inner = &mut *guard;
        let queue = &mut inner.queues[class.index()];
        let (error, until) = match trouble {
            Trouble::Full => (
                AppendError::Full {
                    class,
                    budget: self.core.options.budget.of(class),
                },
                None,
            ),
            Trouble::Disk(err) => (
                AppendError::Disk {
                    class,
                    reason: err.to_string(),
                },
                Some(Instant::now() + REST),
            ),
        };
        queue.refusing = Some((error.clone(), until));
        let mut refused: Vec<Queued> = items.into();
        refused.extend(queue.items.drain(..));
        queue.bytes = 0;
        queue.since = None;
        queue.awaited = false;
        for queued in &refused {
            if inner.take_back(queued.item.stream) {
                continue;
            }
            if let Some(ledger) = inner.ledgers.get_mut(&queued.item.stream) {
                if ledger.name == NOTICES {
                    inner.notices.put_back(&queued.item.payload);
                }
                ledger.leave_out(queued.item.seq, queued.item.seq);
            }
            if let Some((source, _)) = &queued.position {
                inner.offered.remove(&**source);
            }
        }
        inner.mark_unsaved();
        drop(guard);
        for queued in refused {
            queued.ticket.answer(Err(error.clone()));
        }
    }

    fn checkpoint(&mut self, last: bool) {
        let core = self.core.clone();
        let mut inner = core.lock();
        let flushes = std::mem::take(&mut inner.flushes);
        let left = !flushes.is_empty() && inner.holds_sampled();
        if !inner.closing {
            inner.hurry_since = None;
        }
        let wanted = inner.changed || last && inner.unclean;
        inner.checkpoint_now = false;
        drop(inner);
        let mut result = Ok(());
        if wanted {
            result = room::save(&core, &mut self.state, last);
        } else {
            // Nothing to save means nothing to wake up for.
            let mut inner = core.lock();
            if !inner.changed {
                inner.acks_since = None;
                inner.unsaved_since = None;
            }
        }
        if let Err(err) = &result {
            tracing::error!(error = %err, "spool: cursors not saved; after a restart some records will be sent again");
        }
        if left && result.is_ok() {
            result = Err(io::Error::other("the disk does not take what is in memory"));
        }
        for ticket in flushes {
            ticket.answer(match &result {
                Ok(()) => Ok(0),
                Err(err) => Err(AppendError::Disk {
                    class: Class::Critical,
                    reason: err.to_string(),
                }),
            });
        }
    }
}

fn take(queue: &mut Queue) -> VecDeque<Queued> {
    let mut taken = VecDeque::new();
    let mut bytes = 0;
    while taken.len() < MOST_ITEMS
        && let Some(queued) = queue.items.front()
        && (taken.is_empty() || bytes + queued.cost() <= MOST_WRITE)
    {
        bytes += queued.cost();
        taken.extend(queue.items.pop_front());
    }
    queue.bytes -= bytes;
    if queue.items.is_empty() {
        queue.since = None;
        queue.awaited = false;
    }
    taken
}

/// Turns notices into records of their stream; says when to try again.
fn store_notices(inner: &mut Inner, core: &Core, now: Instant) -> Option<Instant> {
    let notices = match inner.notices.take(inner.hurry_since, now) {
        Ok(notices) if notices.is_empty() => return None,
        Ok(notices) => notices,
        Err(later) => return Some(later),
    };
    let stream = inner.define(NOTICES, Class::Critical, Durability::Strict);
    for notice in notices {
        let live = inner.streams.get_mut(&stream)?;
        live.given += 1;
        let queued = Queued {
            item: Item {
                stream,
                seq: live.given,
                wall: core.options.clock.now().as_microsecond(),
                boot: u64::try_from(core.options.clock.since_boot().as_micros()).unwrap_or(u64::MAX),
                payload: serde_json::to_vec(&notice).unwrap_or_default().into(),
            },
            position: None,
            ticket: Arc::new(Ticket::default()),
        };
        let queue = &mut inner.queues[Class::Critical.index()];
        queue.bytes += queued.cost();
        queue.items.push_back(queued);
        queue.since.get_or_insert_with(Instant::now);
    }
    None
}
