//! Room for new segments, and the checkpoint that must come before a file is overwritten.

use crate::core::{Core, Segment, Slot, SlotState};
use crate::record::Class;
use crate::retention;
use crate::state::StateFiles;
use crate::writer::Tail;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// Why there is no new segment.
#[derive(Debug)]
pub(crate) enum NoRoom {
    /// All of the budget holds records that may not be dropped.
    Full,
    /// The disk refused.
    Disk(io::Error),
}

enum Plan {
    Overwrite(u32, u64),
    /// Something is released, but the saved state does not say so yet.
    SaveFirst,
    Make(u32),
    Full,
}

/// Begins a log's next segment, in a used file if there is one.
pub(crate) fn open_segment(core: &Arc<Core>, state: &mut StateFiles, class: Class) -> Result<Tail, NoRoom> {
    let mut saved = false;
    loop {
        match plan(core, class) {
            Plan::Overwrite(slot, size) => {
                let file = core
                    .options
                    .disk
                    .open(&core.segment_path(class, slot), false)
                    .map_err(NoRoom::Disk)?;
                return Ok(begin(core, class, slot, size, file));
            }
            Plan::SaveFirst if !saved => {
                save(core, state, false).map_err(NoRoom::Disk)?;
                saved = true;
            }
            Plan::Full if retention::drop_oldest(core, class) => saved = false,
            Plan::SaveFirst | Plan::Full => return Err(NoRoom::Full),
            Plan::Make(slot) => {
                let size = u64::from(core.options.segment_bytes);
                match make_file(core, class, slot, size) {
                    Ok(file) => return Ok(begin(core, class, slot, size, file)),
                    Err(err) if is_full(&err) => {
                        if !retention::drop_oldest(core, class) {
                            return Err(NoRoom::Full);
                        }
                        saved = false;
                    }
                    Err(err) => return Err(NoRoom::Disk(err)),
                }
            }
        }
    }
}

fn plan(core: &Core, class: Class) -> Plan {
    let inner = core.lock();
    let slots = &inner.logs[class.index()].slots;
    let with = |state, suspect| {
        slots
            .iter()
            .find(move |(_, slot)| slot.state == state && slot.suspect == suspect)
    };
    if let Some((number, slot)) = with(SlotState::Free, false) {
        return Plan::Overwrite(*number, slot.size);
    }
    if with(SlotState::Released, false).is_some() {
        return Plan::SaveFirst;
    }
    let suspect = with(SlotState::Free, true).map(|(number, slot)| Plan::Overwrite(*number, slot.size));
    let released = with(SlotState::Released, true).map(|_| Plan::SaveFirst);
    drop(inner);
    match plan_file(core, class) {
        Plan::Full => suspect.or(released).unwrap_or(Plan::Full),
        make => make,
    }
}

/// Makes a file of its full size, so that writing in it cannot run out of room.
pub(crate) fn make_file(
    core: &Core,
    class: Class,
    slot: u32,
    size: u64,
) -> io::Result<Arc<dyn crate::disk::DiskFile>> {
    let disk = &core.options.disk;
    let path = core.segment_path(class, slot);
    let file = disk.open(&path, true)?;
    file.allocate(size)?;
    disk.sync_dir(&core.dir.join(class.name()))?;
    Ok(file)
}

fn begin(core: &Core, class: Class, slot: u32, size: u64, file: Arc<dyn crate::disk::DiskFile>) -> Tail {
    let mut inner = core.lock();
    let log = &mut inner.logs[class.index()];
    let segment = log.next_segment;
    log.next_segment += 1;
    log.slots.insert(
        slot,
        Slot {
            size,
            state: SlotState::Live,
            suspect: false,
        },
    );
    log.segments.insert(
        segment,
        Segment {
            slot,
            size,
            end: 0,
            tail: true,
            newest: 0,
            spans: std::collections::BTreeMap::new(),
        },
    );
    Tail {
        segment,
        file,
        size,
        offset: 0,
    }
}

/// Makes cursors, accounts and the list of living segments durable.
pub(crate) fn save(core: &Core, state: &mut StateFiles, clean: bool) -> io::Result<()> {
    let mut inner = core.lock();
    let since = inner.unsaved_since.take();
    inner.changed = false;
    let (snapshot, released) = inner.snapshot(core.epoch, clean);
    drop(inner);
    let result = state.write(&snapshot);
    let mut inner = core.lock();
    match result {
        Ok(_) => {
            inner.unclean = !clean;
            inner.saved(&snapshot, &released);
            Ok(())
        }
        Err(err) => {
            // Tried again after the usual delay.
            inner.changed = true;
            inner.unsaved_since = since.map(|_| Instant::now());
            inner.acks_since = inner.acks_since.map(|_| Instant::now());
            Err(err)
        }
    }
}

/// Takes all of every class's budget from the file system.
pub(crate) fn reserve(core: &Core) -> io::Result<()> {
    for class in Class::ALL {
        let size = u64::from(core.options.segment_bytes);
        while let Plan::Make(slot) = plan_file(core, class) {
            make_file(core, class, slot, size)?;
            let free = Slot {
                size,
                state: SlotState::Free,
                suspect: false,
            };
            core.lock().logs[class.index()].slots.insert(slot, free);
        }
    }
    Ok(())
}

/// The file that would be made next, if the budget allows one.
fn plan_file(core: &Core, class: Class) -> Plan {
    let inner = core.lock();
    let log = &inner.logs[class.index()];
    if log.bytes() + u64::from(core.options.segment_bytes) > log.budget {
        return Plan::Full;
    }
    Plan::Make(
        (0..)
            .find(|number| !log.slots.contains_key(number))
            .unwrap_or_default(),
    )
}

fn is_full(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
