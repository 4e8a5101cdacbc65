//! What is durable besides the blocks: cursors, accounts, which segments live.
//!
//! Two files hold it by turns, so that a torn write leaves the one before. What it says may be old by design: blocks
//! carry acknowledgements and positions too, and a cursor that is behind only means that something is sent again.

use crate::block::PAGE;
use crate::disk::{Disk, DiskFile};
use crate::ledger::Ledger;
use crate::place::Boots;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"LWSTATE1";
const HEAD: usize = 24;
const NAMES: [&str; 2] = ["state.0", "state.1"];
/// The format that this program writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;
/// More than any real state; a length beyond it is damage.
const MOST: u64 = 64 << 20;

/// The state as stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Saved {
    /// Of the format of all files.
    #[serde(default)]
    pub version: u32,
    pub epoch: u64,
    pub incarnation: u32,
    /// Written by a close after which nothing followed.
    pub clean: bool,
    pub streams: BTreeMap<u32, Ledger>,
    /// For streams that are not strict: numbers below are handed out without asking the disk.
    #[serde(default)]
    pub reserved: BTreeMap<u32, u64>,
    pub sources: BTreeMap<String, (u64, u64)>,
    #[serde(default)]
    pub boots: Boots,
    pub logs: BTreeMap<String, SavedLog>,
}

/// One log's part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SavedLog {
    /// Segments from here on may live without being listed.
    pub next_segment: u64,
    /// Living segments, as ranges.
    pub live: Vec<(u64, u64)>,
    /// All up to here was synced: segment and offset.
    pub mark: (u64, u64),
    /// Ends of segments whose tails were given up after a failed write.
    #[serde(default)]
    pub cuts: BTreeMap<u64, u64>,
}

impl SavedLog {
    /// Whether a segment's present bytes belong to the log.
    pub(crate) fn lives(&self, segment: u64) -> bool {
        segment >= self.next_segment
            || self
                .live
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&segment))
    }
}

/// The pair of files.
#[derive(Debug)]
pub(crate) struct StateFiles {
    files: [Arc<dyn DiskFile>; 2],
    generation: u64,
}

impl StateFiles {
    /// Opens both and reads the newer whole one. The flag says that a file was there and could not be read.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path) -> io::Result<(Self, Option<Saved>, bool)> {
        let files = [
            disk.open(&dir.join(NAMES[0]), true)?,
            disk.open(&dir.join(NAMES[1]), true)?,
        ];
        let (best, damaged) = newest(&files);
        let generation = best.as_ref().map_or(0, |(generation, _)| *generation);
        let saved = best.map(|(_, saved)| saved);
        Ok((Self { files, generation }, saved, damaged))
    }

    /// Reads without taking part.
    pub(crate) fn peek(disk: &dyn Disk, dir: &Path) -> (Option<Saved>, bool) {
        let files: Vec<_> = NAMES
            .iter()
            .filter_map(|name| disk.open_read(&dir.join(name)).ok())
            .collect();
        let (best, damaged) = newest(&files);
        (best.map(|(_, saved)| saved), damaged)
    }

    /// Makes the state durable; returns the bytes written.
    pub(crate) fn write(&mut self, saved: &Saved) -> io::Result<u64> {
        let text = serde_json::to_vec(saved).map_err(io::Error::other)?;
        let generation = self.generation + 1;
        let mut bytes = Vec::with_capacity((HEAD + text.len()).next_multiple_of(PAGE));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&generation.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(text.len()).map_err(io::Error::other)?.to_le_bytes());
        bytes.extend_from_slice(&checksum(generation, &text).to_le_bytes());
        bytes.extend_from_slice(&text);
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        let file = &self.files[(generation % 2) as usize];
        // Counted before the write: after an error the other file stays the newest whole one.
        self.generation = generation;
        file.write_at(&bytes, 0)?;
        file.sync()?;
        Ok(bytes.len() as u64)
    }
}

fn newest(files: &[Arc<dyn DiskFile>]) -> (Option<(u64, Saved)>, bool) {
    let mut best: Option<(u64, Saved)> = None;
    let mut damaged = false;
    for file in files {
        match read(file.as_ref()) {
            Ok(Some((generation, saved))) => {
                if best.as_ref().is_none_or(|(held, _)| generation > *held) {
                    best = Some((generation, saved));
                }
            }
            Ok(None) => {}
            Err(_) => damaged = true,
        }
    }
    (best, damaged)
}

fn read(file: &dyn DiskFile) -> io::Result<Option<(u64, Saved)>> {
    let size = file.size()?;
    if size == 0 {
        return Ok(None);
    }
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let mut bytes = vec![0; usize::try_from(size.min(MOST)).map_err(io::Error::other)?];
    let got = file.read_at(&mut bytes, 0)?;
    bytes.truncate(got);
    let head = bytes.get(..HEAD).ok_or_else(bad)?;
    if &head[..8] != MAGIC {
        return Err(bad());
    }
    let generation = u64::from_le_bytes(head[8..16].try_into().map_err(io::Error::other)?);
    let len = u32::from_le_bytes(head[16..20].try_into().map_err(io::Error::other)?) as usize;
    let crc = u32::from_le_bytes(head[20..24].try_into().map_err(io::Error::other)?);
    let text = bytes.get(HEAD..HEAD + len).ok_or_else(bad)?;
    if checksum(generation, text) != crc {
        return Err(bad());
    }
    Ok(Some((
        generation,
        serde_json::from_slice(text).map_err(io::Error::other)?,
    )))
}

fn checksum(generation: u64, text: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&generation.to_le_bytes()), text)
}
