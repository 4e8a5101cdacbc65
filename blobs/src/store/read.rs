//! Reading blobs, verified on the way.

use super::error::At as _;
use super::{Store, StoreError};
use model::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read};

/// Inside the `io::Error` of a reader that found its blob damaged.
#[derive(Debug, thiserror::Error)]
#[error("blob {0} is damaged on disk; it was set aside")]
struct Damage(Digest);

/// Whether a read failed since the blob is damaged, rather than the disk or the format.
pub(crate) fn is_damage(err: &io::Error) -> bool {
    err.get_ref().is_some_and(|inner| inner.is::<Damage>())
}

/// Reads a blob from start to end and hashes it on the way.
///
/// The last byte is handed out only if all bytes were right: otherwise the read fails with
/// [`io::ErrorKind::InvalidData`] and the blob is set aside.
#[derive(Debug)]
pub struct BlobReader {
    store: Store,
    digest: Digest,
    size: u64,
    at: u64,
    hash: Sha256,
    file: File,
}

impl BlobReader {
    /// The blob's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.size {
            return Ok(0);
        }
        let want = usize::try_from(self.size - self.at)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        if want == 0 {
            return Ok(0);
        }
        let got = self.file.read(&mut buf[..want])?;
        self.hash.update(&buf[..got]);
        self.at += got as u64;
        let ended = got == 0 || self.at == self.size;
        if ended && Digest::from_raw(self.hash.clone().finalize().into()) != self.digest {
            self.store.set_aside(&self.digest);
            return Err(io::Error::new(io::ErrorKind::InvalidData, Damage(self.digest)));
        }
        Ok(got)
    }
}

impl Store {
    /// Opens a blob for one pass; `None` where it is absent.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<BlobReader>, StoreError> {
        let Some((file, size)) = self.open_raw(digest)? else {
            return Ok(None);
        };
        Ok(Some(BlobReader {
            store: self.clone(),
            digest: *digest,
            size,
            at: 0,
            hash: Sha256::new(),
            file,
        }))
    }

    /// Opens a blob's file for reading from any place, unverified: for parts of it.
    pub fn open_raw(&self, digest: &Digest) -> Result<Option<(File, u64)>, StoreError> {
        let path = self.blob_path(digest);
        let mut state = self.state();
        state.tick += 1;
        let tick = state.tick;
        let Some(held) = state.blobs.get_mut(digest) else {
            return Ok(None);
        };
        held.used = tick;
        let size = held.size;
        match File::open(&path) {
            Ok(file) => Ok(Some((file, size))),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                tracing::error!(%digest, "blob was removed from outside");
                state.blobs.remove(digest);
                Ok(None)
            }
            Err(err) => Err(err).at("open", &path),
        }
    }

    /// A whole small blob, verified; `None` where it is absent or was found corrupt.
    ///
    /// # Errors
    /// [`StoreError::WrongSize`] where it is larger than `most` bytes.
    pub fn read(&self, digest: &Digest, most: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(mut reader) = self.open_blob(digest)? else {
            return Ok(None);
        };
        if reader.size() > most {
            return Err(StoreError::WrongSize {
                digest: *digest,
                declared: most,
                found: reader.size(),
            });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(reader.size()).unwrap_or(0));
        match reader.read_to_end(&mut bytes) {
            Ok(_) => Ok(Some(bytes)),
            Err(err) if is_damage(&err) => Ok(None),
            Err(err) => Err(err).at("read", &self.blob_path(digest)),
        }
    }

    /// Reads the blob through; false where it is absent or was found corrupt (and is absent from now on).
    pub fn verify(&self, digest: &Digest) -> Result<bool, StoreError> {
        let Some(mut reader) = self.open_blob(digest)? else {
            return Ok(false);
        };
        match io::copy(&mut reader, &mut io::sink()) {
            Ok(_) => Ok(true),
            Err(err) if is_damage(&err) => Ok(false),
            Err(err) => Err(err).at("read", &self.blob_path(digest)),
        }
    }
}
