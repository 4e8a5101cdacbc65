//! New blobs: hashed while written, synced, and only then named.

use super::error::At as _;
use super::{Store, StoreError};
use model::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Writes a new blob; nothing is left of it unless [`BlobWriter::commit`] succeeds.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    path: PathBuf,
    file: File,
    hash: Sha256,
    size: u64,
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buf)?;
        self.hash.update(&buf[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl BlobWriter {
    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Syncs, names and admits what was written.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where `wanted` is given and the bytes are others.
    pub fn commit(self, wanted: Option<&Digest>) -> Result<(Digest, u64), StoreError> {
        let found = Digest::from_raw(self.hash.clone().finalize().into());
        if let Some(wanted) = wanted.filter(|wanted| **wanted != found) {
            return Err(StoreError::Corrupt {
                wanted: *wanted,
                found,
            });
        }
        if !self.store.has(&found) {
            self.file.sync_all().at("sync", &self.path)?;
            self.store.admit(&self.path, &found, self.size)?;
        }
        Ok((found, self.size))
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // After a commit the file has another name, and this finds nothing.
        if let Err(err) = kit::disk::remove_if_there(&self.path) {
            tracing::warn!(path = %self.path.display(), error = %err, "cannot remove a temporary file");
        }
    }
}

impl Store {
    /// Starts a new blob whose digest may not be known yet.
    pub fn writer(&self) -> Result<BlobWriter, StoreError> {
        let path = self.temporary_path();
        let file = File::create_new(&path).at("create", &path)?;
        Ok(BlobWriter {
            store: self.clone(),
            path,
            file,
            hash: Sha256::new(),
            size: 0,
        })
    }

    /// Stores small bytes.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.has(&digest) {
            return Ok(digest);
        }
        let _room = self.reserve(bytes.len() as u64)?;
        let mut writer = self.writer()?;
        writer.write_all(bytes).at("write", &writer.path)?;
        writer.commit(Some(&digest))?;
        Ok(digest)
    }

    /// Takes over a finished file on the same file system: hashes it whole, syncs it, gives it its name.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where the bytes are not those of `digest`; the file stays where it is.
    pub fn adopt(&self, file: &Path, digest: &Digest) -> Result<u64, StoreError> {
        let mut from = File::open(file).at("open", file)?;
        let mut hash = Sha256::new();
        let mut size = 0;
        let mut buf = vec![0; 128 * 1024];
        loop {
            let got = from.read(&mut buf).at("read", file)?;
            if got == 0 {
                break;
            }
            hash.update(&buf[..got]);
            size += got as u64;
        }
        let found = Digest::from_raw(hash.finalize().into());
        if found != *digest {
            return Err(StoreError::Corrupt {
                wanted: *digest,
                found,
            });
        }
        if self.has(digest) {
            kit::disk::remove_if_there(file).at("remove", file)?;
        } else {
            from.sync_all().at("sync", file)?;
            self.admit(file, digest, size)?;
        }
        Ok(size)
    }
}
