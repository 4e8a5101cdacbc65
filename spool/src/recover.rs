//! From the files to the state in memory: reads footers, goes through the tails, and never refuses for damage.

use crate::block::{Entry, FOOTER, Header};
use crate::core::{Core, Inner, JUMP, Live, Log, Queue, Segment, Slot, SlotState, Span, add_span};
use crate::error::OpenError;
use crate::identify::{Found, identify, is_ghost};
use crate::ledger::{DropReason, Gap, Ledger};
use crate::notice::{Notice, Notices};
use crate::options::Options;
use crate::record::{Class, Durability};
use crate::state::{FORMAT, Saved, StateFiles};
use crate::walk::{Bad, Bounds, Walk, walk};
use crate::writer::Tail;
use serde::Serialize;
use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovered {
    /// There was no spool before.
    pub created: bool,
    /// It had been closed, and nothing was written after.
    pub clean: bool,
    /// Bytes of living segments.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
    /// Commits that a crash left incomplete: nothing in them had been confirmed.
    pub torn: Vec<Torn>,
    /// Records that had been confirmed and cannot be read any more.
    pub lost: Vec<LostRange>,
    /// The saved cursors could not be read: they were rebuilt, and some records will be sent again.
    pub state_damaged: bool,
}

/// An incomplete commit at a log's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Torn {
    /// The log.
    pub class: Class,
    /// The segment.
    pub segment: u64,
    /// Where it was cut, in bytes.
    pub offset: u64,
}

/// Records that the disk lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LostRange {
    /// The stream.
    pub stream: String,
    /// The first lost number.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// All that the spool needs to run.
pub(crate) struct Opened {
    pub epoch: u64,
    pub inner: Inner,
    /// Only with [`Access::Write`].
    pub state: Option<StateFiles>,
    pub tails: [Option<Tail>; 3],
    pub recovered: Recovered,
}

/// Whether the spool is taken over or only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Write,
    Read,
}

/// Reads everything there is in `dir`.
pub(crate) fn open(dir: &Path, options: &Options, access: Access) -> Result<Opened, OpenError> {
    let started = Instant::now();
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { action, path, source }
    };
    let disk = options.disk.as_ref();
    let (state, saved, damaged) = match access {
        Access::Write => {
            let (state, saved, damaged) =
                StateFiles::open(disk, dir).map_err(failed("open the saved state in", dir))?;
            (Some(state), saved, damaged)
        }
        Access::Read => {
            let (saved, damaged) = StateFiles::peek(disk, dir);
            (None, saved, damaged)
        }
    };
    if let Some(saved) = &saved
        && saved.version > FORMAT
    {
        // What cannot be read must not be taken for free room.
        return Err(OpenError::Newer {
            dir: dir.to_owned(),
            found: saved.version,
            known: FORMAT,
        });
    }
    let mut found: [Vec<Found>; 3] = Default::default();
    for class in Class::ALL {
        let folder = dir.join(class.name());
        if access == Access::Write {
            disk.create_dir_all(&folder)
                .map_err(failed("make folder", &folder))?;
        }
        for name in disk.list(&folder).map_err(failed("list folder", &folder))? {
            let Some(slot) = name.strip_suffix(".seg").and_then(|text| text.parse().ok()) else {
                continue;
            };
            let path = folder.join(&name);
            let file = match access {
                Access::Write => disk.open(&path, false),
                Access::Read => disk.open_read(&path),
            }
            .map_err(failed("open segment", &path))?;
            let size = file.size().map_err(failed("measure segment", &path))?;
            found[class.index()].push(Found {
                slot,
                size,
                file,
                life: None,
                ghost: false,
            });
        }
    }
    options.disk.sync_dir(dir).map_err(failed("sync folder", dir))?;

    let mut recovery = Recovery::new(saved, &mut found);
    recovery.recovered.state_damaged = damaged && recovery.saved_was_lost;
    let mut logs = Vec::new();
    let mut tails = Vec::new();
    for (class, found) in Class::ALL.into_iter().zip(found) {
        let (log, tail) = recovery.log(class, found, options.budget.of(class));
        logs.push(log);
        tails.push(tail);
    }
    let logs: [Log; 3] = logs.try_into().expect("one log per class");
    let tails: [Option<Tail>; 3] = tails.try_into().expect("one tail per class");
    recovery.recovered.bytes = logs
        .iter()
        .flat_map(|log| log.segments.values())
        .map(|segment| segment.end)
        .sum();
    recovery.recovered.took = started.elapsed();
    let epoch = recovery.epoch;
    let (inner, recovered) = recovery.finish(logs);
    Ok(Opened {
        epoch,
        inner,
        state,
        tails,
        recovered,
    })
}

struct Recovery {
    epoch: u64,
    saved: Saved,
    saved_was_lost: bool,
    incarnation: u32,
    ledgers: BTreeMap<u32, Ledger>,
    sources: BTreeMap<String, (u64, u64)>,
    acks: Vec<(u32, String, u64)>,
    recovered: Recovered,
}

impl Recovery {
    fn new(saved: Option<Saved>, found: &mut [Vec<Found>; 3]) -> Self {
        for (class, files) in Class::ALL.into_iter().zip(found.iter_mut()) {
            let held = saved.as_ref().and_then(|saved| saved.logs.get(class.name()));
            for file in files {
                file.life = identify(file, class, held);
                file.ghost = file.life.is_none() && is_ghost(file, class, saved.as_ref());
            }
        }
        let on_disk = found
            .iter()
            .flatten()
            .filter_map(|file| file.life.as_ref())
            .map(|life| life.epoch)
            .max();
        let saved_was_lost = saved.is_none() && on_disk.is_some();
        let created = saved.is_none() && on_disk.is_none();
        let epoch = saved.as_ref().map(|saved| saved.epoch).or(on_disk);
        let saved = saved.unwrap_or_default();
        Self {
            epoch: epoch.unwrap_or_else(new_epoch),
            saved_was_lost,
            incarnation: saved.incarnation,
            ledgers: saved.streams.clone(),
            sources: saved.sources.clone(),
            acks: Vec::new(),
            recovered: Recovered {
                created,
                clean: saved.clean,
                ..Recovered::default()
            },
            saved,
        }
    }

    fn log(&mut self, class: Class, found: Vec<Found>, budget: u64) -> (Log, Option<Tail>) {
        let saved = self.saved.logs.get(class.name()).cloned().unwrap_or_default();
        let mut log = Log::new(class, budget);
        log.next_segment = saved.next_segment.max(1);
        log.mark = saved.mark;
        log.cuts.clone_from(&saved.cuts);
        let mut living = BTreeMap::new();
        let ghost = found.iter().any(|file| file.ghost);
        for file in found {
            let lives = file
                .life
                .as_ref()
                .is_some_and(|life| life.epoch == self.epoch && saved.lives(life.segment));
            let state = if lives { SlotState::Live } else { SlotState::Free };
            // A file that was never given its size is made anew under its number.
            if file.size < (2 * FOOTER) as u64 {
                continue;
            }
            log.slots.insert(
                file.slot,
                Slot {
                    size: file.size,
                    state,
                    suspect: false,
                },
            );
            let Some(life) = file.life.filter(|_| lives) else {
                continue;
            };
            let here = (file.slot, file.size, file.file, life.footer, life.searched);
            // A number may have been begun in one file, torn at once, and begun again in another.
            let other = match living.entry(life.segment) {
                MapEntry::Vacant(place) => {
                    place.insert(here);
                    continue;
                }
                MapEntry::Occupied(mut held) if held.get().4 && !here.4 => held.insert(here),
                MapEntry::Occupied(_) => here,
            };
            if let Some(slot) = log.slots.get_mut(&other.0) {
                slot.state = SlotState::Free;
            }
        }
        let mut damaged = saved
            .live
            .iter()
            .flat_map(|(first, last)| *first..=*last)
            .any(|id| !living.contains_key(&id));
        let last = living.keys().next_back().copied();
        // A mark in a segment that is not there: what followed it is gone as well.
        let mut jump = ghost || (saved.lives(saved.mark.0) && last.is_none_or(|last| last < saved.mark.0));
        let mut cover: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
        let mut tail = None;
        // Newest first: what a failed write left in a segment is cut by what was written after it.
        let mut segments = Vec::new();
        let mut later = false;
        for (id, (slot, size, file, footer, _)) in living.into_iter().rev() {
            log.next_segment = log.next_segment.max(id + 1);
            // Only a whole block tells that the segments before were synced.
            let closed = footer.is_some() || later;
            let known = footer.filter(|_| id < saved.mark.0);
            let walked = known.is_none().then(|| {
                let bounds = Bounds {
                    confirmed: if id == saved.mark.0 { saved.mark.1 } else { 0 },
                    cut: log.cuts.get(&id).copied().unwrap_or(u64::MAX),
                    closed,
                };
                walk(file.as_ref(), (class, self.epoch, id), size, bounds, !closed)
            });
            for entry in walked
                .iter()
                .flat_map(|walked| &walked.blocks)
                .flat_map(|block| &block.entries)
            {
                if let Entry::Cut { segment, from } = entry {
                    log.cuts.insert(*segment, *from);
                }
            }
            if let Some(walked) = walked.as_ref().filter(|walked| walked.end == 0) {
                // Begun, and torn at once.
                self.incarnation = self.incarnation.max(walked.incarnation);
                if walked.torn.is_some() {
                    jump = true;
                    self.recovered.clean = false;
                    self.recovered.torn.push(Torn {
                        class,
                        segment: id,
                        offset: 0,
                    });
                }
                if let Some(slot) = log.slots.get_mut(&slot) {
                    slot.state = SlotState::Free;
                }
                continue;
            }
            later = true;
            segments.push((id, slot, size, file, closed, known, walked));
        }
        for (id, slot, size, file, closed, footer, walked) in segments.into_iter().rev() {
            let mut segment = Segment {
                slot,
                size,
                end: 0,
                tail: false,
                newest: 0,
                spans: BTreeMap::new(),
            };
            if let Some(footer) = &footer {
                self.take_footer(footer, &mut segment, &mut cover);
            }
            if let Some(walked) = walked {
                damaged |= !walked.rot.is_empty();
                segment.end = walked.end;
                if let Some(offset) = walked.torn
                    && (saved.mark != (id, offset) || !self.saved.clean)
                {
                    jump = true;
                    self.recovered.clean = false;
                    self.recovered.torn.push(Torn {
                        class,
                        segment: id,
                        offset,
                    });
                }
                self.take_walk(class, &walked, &mut segment, &mut cover);
                if !closed && !log.cuts.contains_key(&id) {
                    segment.tail = true;
                    tail = Some(Tail {
                        segment: id,
                        file,
                        size,
                        offset: segment.end,
                    });
                }
            }
            log.segments.insert(id, segment);
        }
        if log.mark < (last.unwrap_or(0), tail.as_ref().map_or(0, |tail| tail.offset)) {
            self.recovered.clean = false;
        }
        self.settle(class, cover, damaged, jump);
        (log, tail)
    }

    fn take_footer(
        &mut self,
        footer: &Header,
        segment: &mut Segment,
        cover: &mut BTreeMap<u32, Vec<(u64, u64)>>,
    ) {
        for entry in &footer.entries {
            match entry {
                Entry::End {
                    end,
                    incarnation,
                    newest,
                } => {
                    segment.end = *end;
                    segment.newest = *newest;
                    self.incarnation = self.incarnation.max(*incarnation);
                }
                Entry::Span {
                    stream,
                    first,
                    last,
                    count,
                    bytes,
                } => {
                    let span = Span {
                        first: *first,
                        last: *last,
                        count: *count,
                        bytes: *bytes,
                    };
                    add_span(&mut segment.spans, *stream, span);
                    cover.entry(*stream).or_default().push((*first, *last));
                }
                _ => {}
            }
        }
    }

    fn take_walk(
        &mut self,
        class: Class,
        walked: &Walk,
        segment: &mut Segment,
        cover: &mut BTreeMap<u32, Vec<(u64, u64)>>,
    ) {
        self.incarnation = self.incarnation.max(walked.incarnation);
        for header in &walked.blocks {
            segment.newest = header.base_wall;
            for entry in &header.entries {
                match entry {
                    Entry::Define {
                        stream,
                        durability,
                        name,
                    } => {
                        self.ledgers
                            .entry(*stream)
                            .or_insert_with(|| Ledger::new(name, class, *durability));
                    }
                    Entry::Position { source, value, order } => {
                        let held = self.sources.entry(source.clone()).or_default();
                        if *order >= held.1 {
                            *held = (*value, *order);
                        }
                    }
                    Entry::Ack { stream, sink, upto } => self.acks.push((*stream, sink.clone(), *upto)),
                    Entry::Records { stream, first, count } => {
                        let last = first + u64::from(*count) - 1;
                        let span = Span {
                            first: *first,
                            last,
                            count: u64::from(*count),
                            bytes: header.stored() as u64,
                        };
                        add_span(&mut segment.spans, *stream, span);
                        cover.entry(*stream).or_default().push((*first, last));
                    }
                    Entry::Cut { .. } | Entry::Span { .. } | Entry::End { .. } => {}
                }
            }
        }
        for bad in &walked.rot {
            self.take_rot(class, bad, segment);
        }
    }

    /// A body that is gone is still known by its header.
    fn take_rot(&mut self, class: Class, bad: &Bad, segment: &mut Segment) {
        let Some(header) = &bad.header else { return };
        for entry in &header.entries {
            if let Entry::Define {
                stream,
                durability,
                name,
            } = entry
            {
                self.ledgers
                    .entry(*stream)
                    .or_insert_with(|| Ledger::new(name, class, *durability));
            }
        }
        for (stream, first, count) in header.runs() {
            let last = first + u64::from(count) - 1;
            self.lose(stream, (first, last), last);
            let span = Span {
                first,
                last,
                count: u64::from(count),
                bytes: 0,
            };
            add_span(&mut segment.spans, stream, span);
        }
    }

    fn lose(&mut self, stream: u32, (first, last): (u64, u64), on_disk: u64) {
        let Some(ledger) = self.ledgers.get_mut(&stream) else {
            return;
        };
        // A stream that is not strict does not promise its newest records across a crash.
        if ledger.durability != Durability::Strict && first > on_disk {
            ledger.give_up(first, last, Gap::Dropped(DropReason::Crash));
        } else if ledger.give_up(first, last, Gap::Lost) > 0 {
            self.recovered.lost.push(LostRange {
                stream: ledger.name.clone(),
                first,
                last,
            });
        }
    }

    /// Numbers that no segment covers were lost with a damaged block, or never used.
    fn settle(&mut self, class: Class, cover: BTreeMap<u32, Vec<(u64, u64)>>, damaged: bool, jump: bool) {
        let ids: Vec<u32> = self
            .ledgers
            .iter()
            .filter(|(_, ledger)| ledger.class == class)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let mut ranges = cover.get(&id).cloned().unwrap_or_default();
            ranges.sort_unstable();
            let Some(ledger) = self.ledgers.get(&id) else {
                continue;
            };
            let (saved_last, gone) = (ledger.last, ledger.gone);
            let on_disk = ranges.iter().map(|(_, last)| *last).max().unwrap_or(0);
            let top = on_disk.max(saved_last);
            let mut at = gone + 1;
            let mut holes = Vec::new();
            for (first, last) in ranges.into_iter().chain([(top + 1, top + 1)]) {
                if first > at {
                    holes.push((at, first - 1));
                }
                at = at.max(last + 1);
            }
            for (first, last) in holes {
                self.hole(id, (first, last), saved_last, on_disk, damaged);
            }
            if let Some(ledger) = self.ledgers.get_mut(&id) {
                ledger.extend(ledger.last + 1, top);
                let reserved = self.saved.reserved.get(&id).copied().unwrap_or(0);
                if reserved > top {
                    // Numbers that a receiver may have seen from memory.
                    ledger.leave_out(top + 1, reserved);
                } else if jump {
                    ledger.leave_out(top + 1, top + JUMP);
                }
            }
        }
    }

    fn hole(&mut self, id: u32, (first, last): (u64, u64), saved_last: u64, on_disk: u64, damaged: bool) {
        // What the saved state counted as there was there; beyond it, only damage tells lost from never used.
        let known_to = if damaged { last } else { saved_last.min(last) };
        if first <= known_to {
            let Some(ledger) = self.ledgers.get(&id) else {
                return;
            };
            let mut at = first;
            let mut parts = Vec::new();
            for (start, end, _) in ledger.gaps.within(first, known_to) {
                if start > at {
                    parts.push((at, start - 1));
                }
                at = end + 1;
            }
            if at <= known_to {
                parts.push((at, known_to));
            }
            for (start, end) in parts {
                self.lose(id, (start, end), on_disk);
            }
        }
        if known_to < last
            && let Some(ledger) = self.ledgers.get_mut(&id)
        {
            ledger.leave_out(first.max(known_to + 1), last);
        }
    }

    fn finish(mut self, logs: [Log; 3]) -> (Inner, Recovered) {
        for (stream, sink, upto) in std::mem::take(&mut self.acks) {
            if let Some(ledger) = self.ledgers.get_mut(&stream) {
                ledger.ack(&sink, upto.min(ledger.last));
            }
        }
        let by_name: HashMap<String, u32> = self
            .ledgers
            .iter()
            .map(|(id, ledger)| (ledger.name.clone(), *id))
            .collect();
        let streams = self
            .ledgers
            .iter()
            .map(|(id, ledger)| (*id, Live::at(ledger.last, &ledger.name, ledger.durability)))
            .collect();
        let mut inner = Inner {
            incarnation: self.incarnation + 1,
            ledgers: self.ledgers,
            by_name,
            streams,
            sources: self.sources,
            boots: self.saved.boots.clone(),
            order: u64::from(self.incarnation + 1) << 32,
            offered: HashMap::new(),
            logs,
            queues: [Queue::default(), Queue::default(), Queue::default()],
            writes: Default::default(),
            unsaved_acks: BTreeMap::new(),
            acks_since: None,
            unsaved_since: None,
            changed: false,
            checkpoint_now: false,
            notices: Notices::default(),
            flushes: Vec::new(),
            hurry_since: None,
            closing: false,
            unclean: !self.saved.clean,
        };
        for lost in &self.recovered.lost {
            let count = lost.last - lost.first + 1;
            inner.tell(Notice::of_gap(
                &lost.stream,
                lost.first,
                lost.last,
                count,
                Gap::Lost,
            ));
        }
        for torn in &self.recovered.torn {
            inner.tell(Some(Notice::Torn {
                class: torn.class,
                segment: torn.segment,
                offset: torn.offset,
            }));
        }
        // Damage and what was left out are known for good before anything is built on them.
        if self.recovered.created
            || self.saved_was_lost
            || !self.recovered.lost.is_empty()
            || !self.recovered.torn.is_empty()
        {
            inner.mark_unsaved();
            inner.checkpoint_now = true;
        }
        for class in Class::ALL {
            inner.release(class);
        }
        (inner, self.recovered)
    }
}

/// Later spools of a device have greater epochs as far as its clock is right, and never the same.
fn new_epoch() -> u64 {
    let seconds = jiff::Timestamp::now().as_second().unsigned_abs() & 0xffff_ffff;
    // 52 bits in all: exact in JSON numbers.
    seconds << 20 | u64::from(rand::random::<u32>() >> 12)
}

impl Core {
    /// What recovery found, in the log of the process.
    pub(crate) fn tell(recovered: &Recovered, dir: &Path) {
        for torn in &recovered.torn {
            tracing::info!(dir = %dir.display(), class = %torn.class, segment = torn.segment, offset = torn.offset,
                "spool: an unfinished commit was cut away");
        }
        for lost in &recovered.lost {
            tracing::error!(dir = %dir.display(), stream = lost.stream, first = lost.first, last = lost.last,
                "spool: the disk lost these records");
        }
    }
}
