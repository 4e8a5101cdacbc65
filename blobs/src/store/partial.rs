//! Downloads that survive a cut link and a power cut.
//!
//! Beside the bytes lies a file with the SHA-256 of each finished chunk. A chunk's bytes are synced before its sum is
//! written, and at the next opening every chunk is compared with its sum: what was torn is cut off, so that at most
//! one chunk is fetched twice, and nothing wrong is ever carried on.

use super::error::At as _;
use super::{Lease, Store, StoreError};
use model::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

/// Bytes between two syncs of a download: the most that a power cut makes us fetch again.
pub const CHUNK_BYTES: u64 = 2 * 1024 * 1024;
const SUM_BYTES: u64 = 32;

/// A blob being downloaded. Dropped, it stays on disk to be resumed.
#[derive(Debug)]
pub struct Partial {
    store: Store,
    digest: Digest,
    size: u64,
    path: PathBuf,
    file: File,
    sums_path: PathBuf,
    sums: File,
    at: u64,
    whole: Sha256,
    chunk: Sha256,
    _lease: Lease,
    _claim: Claim,
}

impl Store {
    /// Opens or goes on with the download of a blob of `size` bytes.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while another [`Partial`] of this blob is open.
    pub fn partial(&self, digest: &Digest, size: u64) -> Result<Partial, StoreError> {
        if !self.state().writing.insert(*digest) {
            return Err(StoreError::Busy { digest: *digest });
        }
        let claim = Claim(self.clone(), *digest);
        let path = self.partial_path(digest);
        let sums_path = path.with_extension("sums");
        let open = |path: &PathBuf| {
            File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(path)
                .at("open", path)
        };
        let mut partial = Partial {
            store: self.clone(),
            digest: *digest,
            size,
            file: open(&path)?,
            sums: open(&sums_path)?,
            path,
            sums_path,
            at: 0,
            whole: Sha256::new(),
            chunk: Sha256::new(),
            _lease: self.lease([*digest]),
            _claim: claim,
        };
        partial.recover()?;
        Ok(partial)
    }

    pub(super) fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.0.dir.join("partial").join(digest.hex())
    }
}

/// The right to write a partial download: one at a time.
#[derive(Debug)]
struct Claim(Store, Digest);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.state().writing.remove(&self.1);
    }
}

impl Partial {
    /// Bytes that are there already: where to go on.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Bytes still to come.
    pub fn left(&self) -> u64 {
        self.size.saturating_sub(self.at)
    }

    /// Appends what came.
    ///
    /// # Errors
    /// [`StoreError::WrongSize`] at the first byte beyond the declared size.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.len() as u64 > self.left() {
            return Err(StoreError::WrongSize {
                digest: self.digest,
                declared: self.size,
                found: self.at + bytes.len() as u64,
            });
        }
        while !bytes.is_empty() {
            let to_border = CHUNK_BYTES - self.at % CHUNK_BYTES;
            let take = usize::try_from(to_border).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(take);
            self.file.write_all(now).at("write", &self.path)?;
            self.whole.update(now);
            self.chunk.update(now);
            self.at += take as u64;
            bytes = later;
            if self.at.is_multiple_of(CHUNK_BYTES) {
                self.seal_chunk()?;
            }
        }
        Ok(())
    }

    fn seal_chunk(&mut self) -> Result<(), StoreError> {
        self.file.sync_data().at("sync", &self.path)?;
        let sum = self.chunk.finalize_reset();
        self.sums.write_all(&sum).at("write", &self.sums_path)?;
        self.sums.sync_data().at("sync", &self.sums_path)
    }

    /// Forgets all bytes: the next ones are the blob's first.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        self.cut_to(0)
    }

    /// Verifies the whole and gives it its name.
    ///
    /// # Errors
    /// [`StoreError::WrongSize`] when bytes are missing (they can still come later: the partial stays);
    /// [`StoreError::Corrupt`] when they are others (all are forgotten).
    pub fn finish(mut self) -> Result<(), StoreError> {
        if self.at != self.size {
            return Err(StoreError::WrongSize {
                digest: self.digest,
                declared: self.size,
                found: self.at,
            });
        }
        let found = Digest::from_raw(self.whole.clone().finalize().into());
        if found != self.digest {
            self.restart()?;
            return Err(StoreError::Corrupt {
                wanted: self.digest,
                found,
            });
        }
        self.file.sync_all().at("sync", &self.path)?;
        self.store.admit(&self.path, &self.digest, self.size)?;
        kit::disk::remove_if_there(&self.sums_path).at("remove", &self.sums_path)
    }

    /// Reads back what an earlier process left and keeps the chunks that are what they were.
    fn recover(&mut self) -> Result<(), StoreError> {
        let mut sums = Vec::new();
        self.sums.read_to_end(&mut sums).at("read", &self.sums_path)?;
        let mut buf = vec![0; 128 * 1024];
        for sum in sums.chunks_exact(32) {
            let before = self.whole.clone();
            if self.at + CHUNK_BYTES > self.size || !self.chunk_is(sum, &mut buf)? {
                self.whole = before;
                break;
            }
            self.at += CHUNK_BYTES;
        }
        let at = self.at;
        self.chunk = Sha256::new();
        let whole = std::mem::take(&mut self.whole);
        self.cut_to(at)?;
        self.whole = whole;
        Ok(())
    }

    fn chunk_is(&mut self, sum: &[u8], buf: &mut [u8]) -> Result<bool, StoreError> {
        let mut hash = Sha256::new();
        let mut left = CHUNK_BYTES;
        while left > 0 {
            let want = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match self.file.read(&mut buf[..want]) {
                Ok(0) => return Ok(false),
                Ok(got) => {
                    hash.update(&buf[..got]);
                    self.whole.update(&buf[..got]);
                    left -= got as u64;
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err).at("read", &self.path),
            }
        }
        Ok(hash.finalize().as_slice() == sum)
    }

    /// Cuts both files to whole chunks below `at` and forgets the running hashes.
    fn cut_to(&mut self, at: u64) -> Result<(), StoreError> {
        self.at = at;
        self.whole = Sha256::new();
        self.chunk = Sha256::new();
        let sums = at / CHUNK_BYTES * SUM_BYTES;
        self.sums.set_len(sums).at("cut", &self.sums_path)?;
        self.sums
            .seek(SeekFrom::Start(sums))
            .at("seek in", &self.sums_path)?;
        self.file.set_len(at).at("cut", &self.path)?;
        self.file.seek(SeekFrom::Start(at)).at("seek in", &self.path)?;
        Ok(())
    }
}
