//! Layers to folders that overlayfs can stack: whole and checked, or nothing.
//!
//! A layer comes from anyone. Its names may not leave its folder, its links are followed only inside, its size is
//! bounded, its special files and extended attributes are those that a container may have.

mod archive;
mod error;
mod lower;
mod stream;
mod tree;

pub use error::UnpackError;

use archive::{Archive, Kind};
use error::At as _;
use model::Digest;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use stream::Plain;
use tree::LayerTree;

/// How layers are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpackOptions {
    /// Where overlayfs looks for its own marks.
    pub marks: OverlayMarks,
    /// Whether files get the owners that the layer says.
    pub ownership: Ownership,
    /// Whether a layer may bring device nodes. Whiteouts are always made.
    pub devices: bool,
    /// Most bytes that one layer may unpack to.
    pub max_layer_bytes: u64,
    /// Most files, folders and links in one layer.
    pub max_entries: u64,
    /// Bytes of the file system that stay free.
    pub keep_free: u64,
}

/// The name space of overlayfs's extended attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayMarks {
    /// `trusted.overlay.*`: for mounts by real root.
    Trusted,
    /// `user.overlay.*`: for mounts with `userxattr` in a user namespace.
    User,
}

/// What becomes of the owners in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// They are kept.
    Keep,
    /// Everything belongs to whoever unpacks: where only one user can be had.
    Squash,
}

/// Compressed layers may unpack to this many times their size...
const MOST_RATIO: u64 = 250;
/// ...and so many bytes more, since small ones of zeros shrink best.
const FREE_RATIO_BYTES: u64 = 64 * 1024 * 1024;

impl UnpackOptions {
    /// What this process may do: all of it as root, without owners where its user namespace has a single user.
    pub fn for_this_process() -> Self {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let (ids, initial) = uid_map(&map);
        let root = rustix::process::geteuid().is_root();
        Self {
            marks: if root && initial {
                OverlayMarks::Trusted
            } else {
                OverlayMarks::User
            },
            ownership: if root && ids > 1 {
                Ownership::Keep
            } else {
                Ownership::Squash
            },
            devices: false,
            max_layer_bytes: 16 * 1024 * 1024 * 1024,
            max_entries: 1_000_000,
            keep_free: 64 * 1024 * 1024,
        }
    }
}

/// How many ids a `uid_map` has, and whether it is the initial one.
fn uid_map(text: &str) -> (u64, bool) {
    let lengths = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    let ids: u64 = lengths.sum();
    (ids, ids == u64::from(u32::MAX))
}

/// A layer that was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of the uncompressed archive.
    pub bytes: u64,
    /// Its entries.
    pub entries: u64,
}

/// Unpacks a layer into the new folder `dir`; on an error nothing is left of it.
///
/// `compressed_size` bounds what may come out; `lower` are the layers below, topmost first, from which folders that
/// the layer only passes through take their mode and owner. The result is not synced.
pub fn unpack(
    blob: impl Read,
    compressed_size: u64,
    diff_id: Option<&Digest>,
    dir: &Path,
    lower: &[PathBuf],
    options: &UnpackOptions,
) -> Result<Unpacked, UnpackError> {
    fs::create_dir(dir).at("make folder", dir)?;
    let guard = RemoveOnError(dir);
    let limit = compressed_size
        .saturating_mul(MOST_RATIO)
        .saturating_add(FREE_RATIO_BYTES)
        .min(options.max_layer_bytes);
    let plain = Plain::open(blob, limit, dir, options.keep_free)?;
    let failure = plain.failure();
    let mut archive = Archive::new(plain);
    let mut tree = LayerTree::new(dir, lower, options);
    let mut entries = 0;
    let walked = archive.for_each(|entry| {
        entries += 1;
        if entries > options.max_entries {
            return Err(UnpackError::TooManyEntries {
                limit: options.max_entries,
            });
        }
        if matches!(entry.kind, Kind::Device { .. }) && !options.devices {
            return Err(entry.hostile("it is a device node"));
        }
        tree.apply(entry)
    });
    walked.map_err(|err| stream::true_reason(err, &failure))?;
    tree.finish()?;
    let (found, bytes) = archive.into_inner().finish()?;
    if let Some(wanted) = diff_id.filter(|wanted| **wanted != found) {
        return Err(UnpackError::WrongDiffId {
            wanted: *wanted,
            found,
        });
    }
    std::mem::forget(guard); // a path: nothing to free
    Ok(Unpacked {
        diff_id: found,
        bytes,
        entries,
    })
}

struct RemoveOnError<'a>(&'a Path);

impl Drop for RemoveOnError<'_> {
    fn drop(&mut self) {
        if let Err(err) = fs::remove_dir_all(self.0) {
            tracing::warn!(dir = %self.0.display(), error = %err, "cannot remove a layer that was refused");
        }
    }
}

#[cfg(test)]
mod tests;
