//! The journals of all pods, present and past, and of the engine itself.

use crate::shim::journal::{self, Journal};
use crate::shim::protocol::JOURNAL;
use crate::{EngineError, EngineEvent};
use model::Event;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// Source of the engine's own events.
const ENGINE: &str = "engine";
/// The engine's journal is cut once it is this long and read.
const MOST_BYTES: u64 = 64 << 10;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Events {
    own: Journal,
    own_path: PathBuf,
    /// Length of each journal when it was last read, and its last position: most have nothing new.
    known: HashMap<String, (u64, u64)>,
}

impl Events {
    pub(super) fn open(root: &Path) -> Result<Self, EngineError> {
        let own_path = root.join("engine.jsonl");
        let own = Journal::open(&own_path).map_err(|source| EngineError::Disk {
            doing: "opening",
            path: own_path.clone(),
            source,
        })?;
        Ok(Self {
            own,
            own_path,
            known: HashMap::new(),
        })
    }

    /// Adds an event of the engine itself.
    pub(super) fn tell(&mut self, event: Event) {
        self.own.tell(event);
    }

    /// All events after these positions; journals of pods that are gone are dropped once they are covered.
    pub(super) fn read(
        &mut self,
        root: &Path,
        after: &BTreeMap<String, u64>,
    ) -> Result<Vec<EngineEvent>, EngineError> {
        let mut events = Vec::new();
        let mut removed = false;
        for (source, path) in below(&root.join("pods"), |dir| Some((name(dir)?, dir.join(JOURNAL)))) {
            self.read_one(&source, &path, after, &mut events)?;
        }
        for (source, path) in below(&root.join("journals"), |file| {
            Some((stem(file)?, file.to_owned()))
        }) {
            let before = events.len();
            self.read_one(&source, &path, after, &mut events)?;
            if events.len() == before {
                kit::disk::remove_if_there(&path).map_err(|source| EngineError::Disk {
                    doing: "removing",
                    path: path.clone(),
                    source,
                })?;
                self.known.remove(&source);
                removed = true;
            }
        }
        if removed {
            // Its position may be forgotten now; a journal that a power cut brought back would be told once more.
            let dir = root.join("journals");
            kit::disk::sync_dir(&dir).map_err(|source| EngineError::Disk {
                doing: "syncing",
                path: dir,
                source,
            })?;
        }
        let own = self.own_path.clone();
        let before = events.len();
        self.read_one(ENGINE, &own, after, &mut events)?;
        if events.len() == before && self.own.len() > MOST_BYTES {
            let covered = after.get(ENGINE).copied().unwrap_or(0);
            self.own.forget(covered).map_err(|source| EngineError::Disk {
                doing: "shortening",
                path: own.clone(),
                source,
            })?;
        }
        Ok(events)
    }

    fn read_one(
        &mut self,
        source: &str,
        path: &Path,
        after: &BTreeMap<String, u64>,
        events: &mut Vec<EngineEvent>,
    ) -> Result<(), EngineError> {
        let after = after.get(source).copied().unwrap_or(0);
        let length = fs::metadata(path).map_or(0, |meta| meta.len());
        if self
            .known
            .get(source)
            .is_some_and(|(known, last)| *known == length && *last <= after)
        {
            return Ok(());
        }
        let entries = journal::read(path).map_err(|source| EngineError::Disk {
            doing: "reading",
            path: path.to_owned(),
            source,
        })?;
        let last = entries.last().map_or(0, |entry| entry.position);
        self.known.insert(source.to_owned(), (length, last));
        let fresh = entries.into_iter().filter(|entry| entry.position > after);
        events.extend(fresh.map(|entry| EngineEvent {
            source: source.to_owned(),
            position: entry.position,
            event: entry.event,
        }));
        Ok(())
    }
}

/// All journals that there are.
pub(super) fn sources(root: &Path) -> BTreeSet<String> {
    // In this order: one that moves from its pod to the others meanwhile is seen in one place at least.
    let mut sources: BTreeSet<String> = below(&root.join("pods"), name).into_iter().collect();
    sources.extend(below(&root.join("journals"), stem));
    sources.insert(ENGINE.to_owned());
    sources
}

fn below<T>(dir: &Path, of: impl Fn(&Path) -> Option<T>) -> Vec<T> {
    // A folder that is not there holds nothing.
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| of(&entry.path())).collect()
}

fn name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

fn stem(path: &Path) -> Option<String> {
    path.file_name()?
        .to_str()?
        .strip_suffix(".jsonl")
        .map(str::to_owned)
}
