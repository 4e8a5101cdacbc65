//! Room: the quota, reservations, and collecting what nobody needs.

use super::error::At as _;
use super::{Keep, State, Store, StoreError, read_dir};
use crate::oci;
use model::Digest;
use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

/// How much the store may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Most bytes in blobs and partial downloads together.
    pub max_bytes: u64,
    /// Bytes of the file system that must stay free for everyone else.
    pub keep_free: u64,
}

impl Default for Quota {
    /// No limit of its own, and 64 MiB left for others.
    fn default() -> Self {
        Self {
            max_bytes: u64::MAX,
            keep_free: 64 * 1024 * 1024,
        }
    }
}

/// Room promised to a transfer; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    store: Store,
    bytes: u64,
}

impl Reservation {
    /// So many of the promised bytes are on disk now, where they count by themselves.
    pub fn spent(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.store.state().reserved -= bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.store.state().reserved -= self.bytes;
    }
}

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Files.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Store {
    /// Promises room for `bytes` more, and removes what nobody pins, least recently used first, as far as needed.
    ///
    /// # Errors
    /// [`StoreError::Full`] before anything is written, where even that is not enough.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, StoreError> {
        // One at a time, so that two cannot be promised the same room.
        let _turn = self.0.reserving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut allowed = self.allowed()?;
        if allowed.0 < bytes {
            self.evict(bytes - allowed.0)?;
            allowed = self.allowed()?;
        }
        if allowed.0 < bytes {
            return Err(StoreError::Full {
                need: bytes,
                allowed: allowed.0,
                limit: allowed.1,
            });
        }
        self.state().reserved += bytes;
        Ok(Reservation {
            store: self.clone(),
            bytes,
        })
    }

    /// Bytes in blobs and partial downloads.
    pub fn used(&self) -> Result<u64, StoreError> {
        let blobs: u64 = self.state().blobs.values().map(|held| held.size).sum();
        let partial = read_dir(&self.0.dir.join("partial"))?;
        Ok(blobs + partial.iter().map(|entry| entry.size).sum::<u64>())
    }

    /// Removes every blob that nobody pins and whose file is older than `grace`, and partial downloads as old.
    pub fn collect(&self, grace: Duration) -> Result<Collected, StoreError> {
        let old = |modified: SystemTime| modified.elapsed().is_ok_and(|age| age >= grace);
        self.remove_unneeded(u64::MAX, &old)
    }

    /// How much may still be written, and which limit says so.
    fn allowed(&self) -> Result<(u64, &'static str), StoreError> {
        let quota = self.0.quota;
        let reserved = self.state().reserved;
        let own = quota
            .max_bytes
            .saturating_sub(self.used()?)
            .saturating_sub(reserved);
        let disk = rustix::fs::statvfs(&self.0.dir).at("look at the file system of", &self.0.dir)?;
        let free = (disk.f_bavail * disk.f_frsize)
            .saturating_sub(quota.keep_free)
            .saturating_sub(reserved);
        Ok(if own <= free {
            (own, "the store's quota")
        } else {
            (free, "free space on the disk, less its reserve")
        })
    }

    fn evict(&self, bytes: u64) -> Result<Collected, StoreError> {
        let collected = self.remove_unneeded(bytes, &|_| true)?;
        if collected.blobs > 0 {
            tracing::info!(blobs = collected.blobs, bytes = collected.bytes, "made room");
        }
        Ok(collected)
    }

    fn remove_unneeded(
        &self,
        at_most: u64,
        may_go: &dyn Fn(SystemTime) -> bool,
    ) -> Result<Collected, StoreError> {
        let needed = self.needed()?;
        let mut collected = Collected::default();
        for entry in read_dir(&self.0.dir.join("partial"))? {
            let digest = super::digest_of_name(entry.name.trim_end_matches(".sums"));
            let busy = digest.is_some_and(|digest| {
                let state = self.state();
                state.writing.contains(&digest) || state.leases.contains_key(&digest)
            });
            if collected.bytes < at_most && !busy && may_go(entry.modified) {
                kit::disk::remove_if_there(&entry.path).at("remove", &entry.path)?;
                collected.bytes += entry.size;
                collected.blobs += 1;
            }
        }
        if !self.knows_its_pins() {
            return Ok(collected);
        }
        let mut candidates: Vec<_> = {
            let state = self.state();
            let unneeded = state.blobs.iter().filter(|(digest, _)| !needed.contains(digest));
            unneeded
                .map(|(digest, held)| (held.used, *digest, held.size))
                .collect()
        };
        candidates.sort_unstable();
        for (_, digest, size) in candidates {
            if collected.bytes >= at_most {
                break;
            }
            let path = self.blob_path(&digest);
            let modified = std::fs::metadata(&path).and_then(|meta| meta.modified());
            if !may_go(modified.unwrap_or(SystemTime::UNIX_EPOCH)) {
                continue;
            }
            let mut state = self.state();
            // Pinned or leased since we looked.
            if is_root(&state, &digest) {
                continue;
            }
            kit::disk::remove_if_there(&path).at("remove", &path)?;
            state.blobs.remove(&digest);
            collected.bytes += size;
            collected.blobs += 1;
        }
        Ok(collected)
    }

    /// Everything that a pin or a lease keeps, directly or through a manifest.
    fn needed(&self) -> Result<BTreeSet<Digest>, StoreError> {
        let (mut needed, mut open) = {
            let state = self.state();
            let pinned = state.pins.values().flatten();
            let (whole, alone): (Vec<_>, Vec<_>) = pinned.partition(|(_, keep)| **keep == Keep::Whole);
            let alone = alone.into_iter().map(|(digest, _)| *digest);
            let needed: BTreeSet<_> = alone.chain(state.leases.keys().copied()).collect();
            let open: Vec<_> = whole.into_iter().map(|(digest, _)| *digest).collect();
            (needed, open)
        };
        let mut walked = BTreeSet::new();
        while let Some(digest) = open.pop() {
            needed.insert(digest);
            let small = self
                .size(&digest)
                .is_some_and(|size| size <= oci::MAX_MANIFEST_BYTES);
            if walked.insert(digest)
                && small
                && let Some(bytes) = self.read(&digest, oci::MAX_MANIFEST_BYTES)?
            {
                let named = oci::named_by(&bytes);
                open.extend(named.manifests);
                needed.extend(named.leaves);
            }
        }
        Ok(needed)
    }
}

fn is_root(state: &State, digest: &Digest) -> bool {
    state.leases.contains_key(digest) || state.pins.values().any(|pins| pins.contains_key(digest))
}
