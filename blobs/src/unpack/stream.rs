//! From a compressed blob to the plain archive, counted, hashed and bounded.

use super::UnpackError;
use flate2::read::MultiGzDecoder;
use model::Digest;
use sha2::{Digest as _, Sha256};
use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The largest window a zstd layer may ask us to keep in memory: 32 MiB.
const MOST_ZSTD_WINDOW_LOG: u32 = 25;
/// How many bytes go by between two looks at the free space.
const LOOK_EVERY: u64 = 16 * 1024 * 1024;

type Blob<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

enum Decoder<R: Read> {
    Gzip(Box<MultiGzDecoder<Blob<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, Blob<R>>),
    Plain(Blob<R>),
}

/// The uncompressed archive.
pub(super) struct Plain<R: Read> {
    decoder: Decoder<R>,
    hash: Sha256,
    bytes: u64,
    limit: u64,
    looked_at: u64,
    dir: PathBuf,
    keep_free: u64,
    /// Why reading failed: `io::Error` alone would lose it on its way through the archive reader.
    failure: Failure,
}

/// Where a read error's true reason waits for whoever gets the `io::Error`.
pub(super) type Failure = Rc<Cell<Option<UnpackError>>>;

/// The true reason behind an error of the archive.
pub(super) fn true_reason(err: UnpackError, failure: &Failure) -> UnpackError {
    match err {
        UnpackError::Archive(err) => failure.take().unwrap_or_else(|| sort(err)),
        other => other,
    }
}

impl<R: Read> Plain<R> {
    /// Tells the compression by its first bytes: media types are wrong too often.
    pub fn open(mut blob: R, limit: u64, dir: &Path, keep_free: u64) -> Result<Self, UnpackError> {
        let mut magic = Vec::with_capacity(4);
        (&mut blob).take(4).read_to_end(&mut magic).map_err(sort)?;
        let kind = magic.clone();
        let blob = BufReader::with_capacity(64 * 1024, Cursor::new(magic).chain(blob));
        let decoder = match kind.as_slice() {
            [0x1f, 0x8b, ..] => Decoder::Gzip(Box::new(MultiGzDecoder::new(blob))),
            [0x28, 0xb5, 0x2f, 0xfd] => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(blob).map_err(UnpackError::Archive)?;
                decoder
                    .window_log_max(MOST_ZSTD_WINDOW_LOG)
                    .map_err(UnpackError::Archive)?;
                Decoder::Zstd(decoder)
            }
            _ => Decoder::Plain(blob),
        };
        Ok(Self {
            decoder,
            hash: Sha256::new(),
            bytes: 0,
            limit,
            looked_at: 0,
            dir: dir.to_owned(),
            keep_free,
            failure: Failure::default(),
        })
    }

    /// Reads what is behind the archive's end too, as it counts for both digests, and says what came out.
    pub fn finish(mut self) -> Result<(Digest, u64), UnpackError> {
        if let Err(err) = io::copy(&mut self, &mut io::sink()) {
            return Err(true_reason(UnpackError::Archive(err), &self.failure));
        }
        // A decoder stops at its own end; the blob's verification needs its last byte read.
        let mut rest = match self.decoder {
            Decoder::Gzip(gzip) => gzip.into_inner(),
            Decoder::Zstd(zstd) => zstd.finish(),
            Decoder::Plain(plain) => plain,
        };
        if !rest.fill_buf().map_err(sort)?.is_empty() {
            let err = io::Error::new(io::ErrorKind::InvalidData, "bytes behind the compressed archive");
            return Err(UnpackError::Archive(err));
        }
        Ok((Digest::from_raw(self.hash.finalize().into()), self.bytes))
    }

    pub fn failure(&self) -> Failure {
        self.failure.clone()
    }

    fn check(&mut self) -> Result<(), UnpackError> {
        if self.bytes > self.limit {
            return Err(UnpackError::TooLarge { limit: self.limit });
        }
        if self.bytes >= self.looked_at + LOOK_EVERY || self.looked_at == 0 {
            self.looked_at = self.bytes.max(1);
            let free = rustix::fs::statvfs(&self.dir).map_or(u64::MAX, |disk| disk.f_bavail * disk.f_frsize);
            if free < self.keep_free {
                return Err(UnpackError::Full {
                    keep_free: self.keep_free,
                    path: self.dir.clone(),
                });
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = match &mut self.decoder {
            Decoder::Gzip(gzip) => gzip.read(buf),
            Decoder::Zstd(zstd) => zstd.read(buf),
            Decoder::Plain(plain) => plain.read(buf),
        }?;
        self.hash.update(&buf[..got]);
        self.bytes += got as u64;
        if let Err(err) = self.check() {
            let text = err.to_string();
            self.failure.set(Some(err));
            return Err(io::Error::other(text));
        }
        Ok(got)
    }
}

/// The store's reader marks a damaged blob in its own words; anything else is the archive's fault.
fn sort(err: io::Error) -> UnpackError {
    if crate::store::is_damage(&err) {
        UnpackError::Damaged(err)
    } else {
        UnpackError::Archive(err)
    }
}
