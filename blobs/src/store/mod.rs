//! Content-addressed files on disk: whole and verified, or absent.
//!
//! ```text
//! blobs/sha256/<hex>      one file per blob, never changed after it has its name
//! partial/<hex>[.sums]    a download in progress and the sums of its finished chunks
//! pins/<owner>.json       what each owner keeps
//! bad/<hex>               blobs found corrupt, for a person to look at
//! tmp/                    emptied at each start
//! ```

mod error;
mod partial;
mod pins;
mod read;
mod room;
mod write;

pub use error::StoreError;
pub use partial::{CHUNK_BYTES, Partial};
pub use pins::Keep;
pub use read::BlobReader;
pub(crate) use read::is_damage;
pub use room::{Collected, Quota, Reservation};
pub use write::BlobWriter;

pub(crate) use error::At;
use model::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// How many corrupt blobs are kept for a person to look at.
const BAD_KEPT: usize = 4;

/// A content-addressed store in one folder. Cheap to clone; all methods block and are short,
/// except those that read a blob through.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    quota: Quota,
    state: Mutex<State>,
    reserving: Mutex<()>,
    /// Holds the folder's lock for as long as the store is open.
    _lock: File,
}

/// What is known of the folder without looking at it.
#[derive(Debug, Default)]
struct State {
    blobs: BTreeMap<Digest, Held>,
    pins: BTreeMap<String, BTreeMap<Digest, Keep>>,
    /// Pin files that do not parse: what they kept is not known.
    damaged_pins: BTreeSet<PathBuf>,
    /// Digests that a transfer in this process needs until it ends, counted.
    leases: BTreeMap<Digest, usize>,
    /// Partial downloads that someone is writing.
    writing: BTreeSet<Digest>,
    /// Bytes promised to transfers that have not written them yet.
    reserved: u64,
    /// Grows with each use, so that the least recently used goes first.
    tick: u64,
    next_temporary: u64,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    size: u64,
    used: u64,
}

impl Store {
    /// Opens or creates the store in `dir`, cleans up what a power cut left, and takes the folder's lock.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it open; [`StoreError::Io`] naming the path.
    pub fn open(dir: &Path, quota: Quota) -> Result<Self, StoreError> {
        for folder in ["blobs/sha256", "partial", "pins", "bad", "tmp"] {
            let path = dir.join(folder);
            kit::disk::create_dir_all(&path).at("make folder", &path)?;
        }
        let lock_path = dir.join("lock");
        let taken = kit::disk::take(&lock_path).at("lock", &lock_path)?;
        let lock = taken.ok_or_else(|| StoreError::InUse { dir: dir.to_owned() })?;
        clear(&dir.join("tmp"))?;
        let (pins, damaged_pins) = pins::load(&dir.join("pins"))?;
        let mut state = State {
            pins,
            damaged_pins,
            ..State::default()
        };
        let store_dir = dir.to_owned();
        let mut aged = Vec::new();
        for entry in read_dir(&dir.join("blobs/sha256"))? {
            match digest_of_name(&entry.name) {
                // A file without bytes is what some file systems leave of a name whose data never arrived.
                Some(digest) if entry.size > 0 || digest == Digest::of(b"") => {
                    aged.push((entry.modified, digest, entry.size));
                }
                _ => move_aside(&store_dir, &entry.path)?,
            }
        }
        aged.sort_by_key(|(modified, ..)| *modified);
        for (_, digest, size) in aged {
            state.tick += 1;
            state.blobs.insert(
                digest,
                Held {
                    size,
                    used: state.tick,
                },
            );
        }
        trim_bad(&store_dir)?;
        Ok(Self(Arc::new(Inner {
            dir: store_dir,
            quota,
            state: Mutex::new(state),
            reserving: Mutex::new(()),
            _lock: lock,
        })))
    }

    /// Whether the blob is there.
    pub fn has(&self, digest: &Digest) -> bool {
        self.state().blobs.contains_key(digest)
    }

    /// The blob's size in bytes, where it is there.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.state().blobs.get(digest).map(|held| held.size)
    }

    /// The blob's file, where it is there; to be read only. What reads it past [`Store::open_blob`] must verify it.
    pub fn path(&self, digest: &Digest) -> Option<PathBuf> {
        self.has(digest).then(|| self.blob_path(digest))
    }

    /// All blobs with their sizes.
    pub fn list(&self) -> Vec<(Digest, u64)> {
        self.state()
            .blobs
            .iter()
            .map(|(digest, held)| (*digest, held.size))
            .collect()
    }

    /// Removes a blob whatever pins it; one that is absent is no error.
    pub fn remove(&self, digest: &Digest) -> Result<(), StoreError> {
        let mut state = self.state();
        let path = self.blob_path(digest);
        kit::disk::remove_if_there(&path).at("remove", &path)?;
        state.blobs.remove(digest);
        Ok(())
    }

    /// Moves a corrupt blob out of the way: from now on it is absent, and can be fetched again.
    fn set_aside(&self, digest: &Digest) {
        let mut state = self.state();
        if state.blobs.remove(digest).is_none() {
            return;
        }
        tracing::error!(%digest, "blob is corrupt on disk; set aside, to be fetched again");
        let moved = move_aside(&self.0.dir, &self.blob_path(digest)).and_then(|()| trim_bad(&self.0.dir));
        if let Err(err) = moved {
            tracing::error!(error = kit::chain(&err), "cannot set a corrupt blob aside");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the state is a single step, so that it is whole even after a panic elsewhere.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.0.dir.join("blobs/sha256").join(digest.hex())
    }

    fn temporary_path(&self) -> PathBuf {
        let mut state = self.state();
        state.next_temporary += 1;
        self.0.dir.join("tmp").join(state.next_temporary.to_string())
    }

    /// Gives a synced, verified file its name.
    fn admit(&self, file: &Path, digest: &Digest, size: u64) -> Result<(), StoreError> {
        let mut state = self.state();
        let path = self.blob_path(digest);
        kit::disk::rename(file, &path).at("rename into", &path)?;
        state.tick += 1;
        let used = state.tick;
        state.blobs.insert(*digest, Held { size, used });
        Ok(())
    }

    /// Keeps `digests` from being collected for as long as the lease lives, present already or not.
    pub fn lease(&self, digests: impl IntoIterator<Item = Digest>) -> Lease {
        let digests: Vec<_> = digests.into_iter().collect();
        let mut state = self.state();
        for digest in &digests {
            *state.leases.entry(*digest).or_default() += 1;
        }
        drop(state);
        Lease {
            store: self.clone(),
            digests,
        }
    }
}

/// Keeps blobs from being collected while a transfer needs them. Ends with the process; pins outlive it.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    digests: Vec<Digest>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.store.state();
        for digest in &self.digests {
            if let Some(count) = state.leases.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    state.leases.remove(digest);
                }
            }
        }
    }
}

struct Entry {
    name: String,
    path: PathBuf,
    size: u64,
    modified: SystemTime,
}

/// What is in a folder; a file that goes while it is read (a download that just became whole) is not.
fn read_dir(dir: &Path) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).at("read folder", dir)? {
        let entry = entry.at("read folder", dir)?;
        let path = entry.path();
        let meta = match entry.metadata() {
            Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
            meta => meta.at("look at", &path)?,
        };
        entries.push(Entry {
            name: entry.file_name().to_string_lossy().into_owned(),
            size: meta.len(),
            modified: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            path,
        });
    }
    Ok(entries)
}

fn clear(dir: &Path) -> Result<(), StoreError> {
    for entry in read_dir(dir)? {
        kit::disk::remove_if_there(&entry.path).at("remove", &entry.path)?;
    }
    Ok(())
}

fn digest_of_name(name: &str) -> Option<Digest> {
    format!("sha256:{name}").parse().ok()
}

fn move_aside(dir: &Path, path: &Path) -> Result<(), StoreError> {
    let name = path.file_name().unwrap_or_default();
    let to = dir.join("bad").join(name);
    kit::disk::rename(path, &to).at("set aside", path)
}

/// Corrupt blobs must not fill the disk.
fn trim_bad(dir: &Path) -> Result<(), StoreError> {
    let mut entries = read_dir(&dir.join("bad"))?;
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.modified));
    for entry in entries.iter().skip(BAD_KEPT) {
        kit::disk::remove_if_there(&entry.path).at("remove", &entry.path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
